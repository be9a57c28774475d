//! Taking off what other services wrapped around a message.
