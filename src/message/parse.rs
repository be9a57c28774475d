//! From bytes to a [`Message`], or to a [`Rejection`] that names the field, the problem and the remedy.

use super::{ContentHash, Message};

/// What the transport knows beside the body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outside<'a> {
    /// A strong id from outside the body: SQS attribute `messageId`/`id`, or `Idempotency-Key`.
    pub strong_id: Option<&'a str>,
    /// A weak id the source is configured to accept, and what it is: `("sqs", "…")`.
    pub weak_id: Option<(&'static str, &'a str)>,
}

/// A message understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What the producer said.
    pub message: Message,
    /// Hash of its canonical form.
    pub content_hash: ContentHash,
    /// What was unwrapped: `sns`, `eventbridge`, `cloudevents`.
    pub envelope: Option<&'static str>,
    /// The kind of weak id that stood in for a message id.
    pub weak_id: Option<&'static str>,
    /// Fields the contract does not know, as paths.
    pub unknown_fields: Vec<String>,
}

/// Why input cannot become a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}; {remedy}", .field.as_ref().map(|it| format!("{it} ")).unwrap_or_default())]
pub struct Rejection {
    /// For machines.
    pub code: RejectionCode,
    /// The path of the field, as `push.targets[0].token`; none when it is about the whole body.
    pub field: Option<String>,
    /// What is wrong with it, as the rest of a sentence.
    pub problem: String,
    /// What the producer should do.
    pub remedy: String,
}

/// The kinds of rejection, stable for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    /// The bytes are not UTF-8.
    NotUtf8,
}

/// Reads one message.
///
/// # Errors
/// When the bytes are no message of the contract.
pub fn parse(_body: &[u8], _outside: Outside<'_>) -> Result<Parsed, Rejection> {
    Err(Rejection {
        code: RejectionCode::NotUtf8,
        field: None,
        problem: String::new(),
        remedy: String::new(),
    })
}
