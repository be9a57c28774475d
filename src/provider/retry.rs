//! Whether and when a failed attempt is tried again.
