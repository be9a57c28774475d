//! The provider that only writes a log line.
