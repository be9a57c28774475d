//! The declarative HTTP provider.
