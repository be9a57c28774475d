//! Whether two messages say the same: the canonical form and its hash.
