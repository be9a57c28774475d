//! From bytes to a [`Message`], or to a [`Rejection`] that names the field, the problem and the remedy.
//!
//! One pass: size, UTF-8, JSON that every reader understands the same way, envelopes off, then field
//! by field. A text is copied once, into the message. The first fault found is the one reported.

use super::{
    ContentHash, Message, Rejection, RejectionCode, content, contract, envelope,
    json::{self, Json},
};
use crate::id::{BadId, MessageId};

/// Most bytes of a body, envelopes included.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

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
    /// What was unwrapped, the outermost where there were several: `sns`, `eventbridge`, `cloudevents`.
    pub envelope: Option<&'static str>,
    /// The kind of weak id that stood in for a message id.
    pub weak_id: Option<&'static str>,
    /// Fields the contract does not know, as paths; of very many only the first.
    pub unknown_fields: Vec<String>,
}

/// Reads one message.
///
/// Its id is the body's `messageId`, else the strong id beside the body, else the strong id on an
/// envelope (a `CloudEvent`'s `id`, an SNS attribute), else the weak id that the source accepts.
///
/// # Errors
/// When the bytes are no message of the contract.
pub fn parse(body: &[u8], outside: Outside<'_>) -> Result<Parsed, Rejection> {
    let document = json::read(text(body)?, "the body")?;
    let opened = envelope::open(document)?;
    let Json::Object(object) = opened.content else { return Err(not_an_object(&opened.content)) };
    let mut fields = contract::Fields::new(object);
    let (message_id, weak_id) = match fields.message_id()? {
        Some(id) => (id, None),
        None => id_beside(outside, opened.strong_id.as_deref())?.ok_or_else(|| fields.missing_id())?,
    };
    let (message, unknown_fields) = fields.message(message_id)?;
    let content_hash = content::hash(&message);
    Ok(Parsed { message, content_hash, envelope: opened.envelope, weak_id, unknown_fields })
}

/// The body as text, as long as a message may be.
pub(crate) fn text(body: &[u8]) -> Result<&str, Rejection> {
    if body.len() > BODY_BYTES_MAX {
        let problem = format!("the body has {} bytes, more than {BODY_BYTES_MAX}", body.len());
        let remedy = "shorten the texts, or send a link to what is long";
        return Err(Rejection::new(RejectionCode::TooLarge, problem, remedy));
    }
    std::str::from_utf8(body).map_err(|error| {
        let problem = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
        Rejection::new(RejectionCode::NotUtf8, problem, "encode the JSON as UTF-8")
    })
}

fn not_an_object(content: &Json<'_>) -> Rejection {
    let remedy = match content {
        Json::Text(text) if text.trim_start().starts_with('{') => {
            "send the JSON object itself; it was encoded twice"
        }
        Json::List(_) => "send each message on its own",
        _ => "send the message as one JSON object",
    };
    let problem = format!("the message is {}, not an object", content.kind());
    Rejection::new(RejectionCode::WrongType, problem, remedy)
}

/// The id where the body has none, and its kind if it is a weak one.
fn id_beside(
    outside: Outside<'_>,
    envelope_id: Option<&str>,
) -> Result<Option<(MessageId, Option<&'static str>)>, Rejection> {
    let (text, place, weak_id) = match (outside.strong_id, envelope_id, outside.weak_id) {
        (Some(id), _, _) => (id, "given beside the body", None),
        (None, Some(id), _) => (id, "on the envelope", None),
        (None, None, Some((kind, id))) => (id, "that the queue gave", Some(kind)),
        (None, None, None) => return Ok(None),
    };
    let refused = |bad: BadId| {
        let rejection = contract::bad_message_id(&bad);
        Rejection { problem: format!("{place} {bad}"), ..rejection }.within("messageId")
    };
    MessageId::new(text).map(|id| Some((id, weak_id))).map_err(refused)
}
