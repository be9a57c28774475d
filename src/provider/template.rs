//! Templates for what a provider is sent.
