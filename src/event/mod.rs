//! What happened: every fact the log can hold, and how it is written down.
//!
//! Payloads hold decisions with their inputs, so that replaying the log never depends on today's
//! configuration (DECISIONS-ARE-RECORDED). [`codec`] turns them into rows and back, and lifts old versions to new ones.

pub mod codec;
mod push;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    id::{Cursor, MessageId, Position, RecipientId, Shard, Version},
    message::{ContentHash, Message},
};

pub use push::{
    Decision, Ended, FailureClass, PlannedDelivery, PushAttemptFailed, PushAttemptLost, PushAttemptPending,
    PushAttemptStarted, PushAttemptSucceeded, PushExhausted, PushPlanned, PushReceipt, PushRescheduled,
    PushSuppressed, ReceiptKind, RescheduleCause, SuppressReason, Verdict,
};

/// Everything the ledger can say. Adding a variant is a compatibility promise.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// First arrival of a message; always version 0 of its stream.
    MessageReceived(MessageReceived),
    /// The same id came with other content; the first stays.
    MessageConflicted(MessageConflicted),
    /// Cancelled before delivery.
    MessageCancelled(MessageCancelled),
    /// The recipient's list was shown with it.
    InboxSeen,
    /// The recipient (or an agent for them) marked it read.
    InboxRead,
    /// … followed it, which is to have read it.
    InboxClicked,
    /// … unread again.
    InboxUnread,
    /// … put away.
    InboxArchived,
    /// … brought back.
    InboxUnarchived,
    /// … removed from the inbox.
    InboxDeleted,
    /// The message's own time had come: it appears in the inbox.
    InboxPresented,
    /// The message's own end had come: it left the inbox, or never appeared.
    InboxExpired,
    /// Targets resolved: the list of deliveries.
    PushPlanned(PushPlanned),
    /// About to call the provider.
    PushAttemptStarted(PushAttemptStarted),
    /// The provider accepted.
    PushAttemptSucceeded(PushAttemptSucceeded),
    /// The provider took it for now and says later what came of it.
    PushAttemptPending(PushAttemptPending),
    /// The provider refused or could not be reached, and what was decided.
    PushAttemptFailed(PushAttemptFailed),
    /// The lease ran out: the outcome is unknown.
    PushAttemptLost(PushAttemptLost),
    /// Not sent, and why.
    PushSuppressed(PushSuppressed),
    /// To be sent at another time or by another provider than the schedule says.
    PushRescheduled(PushRescheduled),
    /// Gave up.
    PushExhausted(PushExhausted),
    /// Later word from provider or device.
    PushReceipt(PushReceipt),
    /// Personal data removed.
    MessageErased(MessageErased),
    /// Read in place of an event that an operator decided to leave out; never written.
    Skipped(Skipped),
}

/// `message.received`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageReceived {
    /// The message as parsed.
    pub message: Arc<Message>,
}

/// `message.conflicted`: written once per other content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageConflicted {
    /// Hash of the other content.
    pub content_hash: ContentHash,
    /// The other content, whole.
    pub message: Arc<Message>,
}

/// What is read in place of an event that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The type in the row, of this release or of another.
    pub kind: String,
    /// Why, in the words of who decided it.
    pub reason: String,
}

/// `message.cancelled`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageCancelled {
    /// Why, in the words of who cancelled.
    pub reason: String,
}

/// `message.erased`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageErased {
    /// Why: legal basis or ticket.
    pub reason: String,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The shard of the recipient.
    pub shard: Shard,
    /// The place in the shard.
    pub position: Position,
    /// Whose stream.
    pub message_id: MessageId,
    /// Which event of that stream.
    pub version: Version,
    /// Who the message is for.
    pub recipient_id: RecipientId,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When the ledger wrote it down.
    pub recorded_at: Timestamp,
    /// What happened.
    pub body: Event,
    /// How the ledger came to know.
    pub metadata: Metadata,
}

impl Recorded {
    /// Where it stands in the whole log.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor { shard: self.shard, position: self.position }
    }
}

/// How the ledger came to know of an event. Every field is evidence, none is needed to fold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The door it came in by: `http`, `sqs:notifications`, `ndjson:backfill.ndjson`, `worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// The queue's own id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_message_id: Option<String>,
    /// How often the queue had handed it out by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_count: Option<u32>,
    /// When the producer put it on the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// W3C `traceparent`, or X-Ray's `AWSTraceHeader`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Who caused it: an API key's name, a worker, an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why, in the words of who caused it, where the event itself does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Which weak id stood in for a message id, where the source allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weak_id: Option<String>,
    /// What was unwrapped: `sns`, `eventbridge`, `cloudevents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<String>,
    /// Fields the contract does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_fields: Vec<String>,
}
