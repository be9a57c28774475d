//! What happened to one message, and what a recipient was told: the answer to "was this customer
//! told, when, with which words, through what, what did the provider say, did they read it?"
//!
//! Pure: made from [`Evidence`], which is one unchanging state of the database. The present state is
//! folded from the log here and now, so it is right even where a projection is behind; what the
//! projections show is held against it. Device tokens never leave whole.

mod deliveries;
pub(crate) mod inbox;
mod inbox_text;
mod summary;
mod text;

use std::sync::Arc;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    event::{Event, Metadata, Recorded, codec},
    id::Position,
    message::{ContentHash, Message, Target},
    projection::{
        Projection, Row,
        deliveries::Deliveries,
        fold_in_memory,
        inbox::{Inbox, InboxItem},
        messages::Messages,
    },
    store::{Evidence, MessageRows, Reach, Redeliveries},
};

pub use deliveries::{CallSummary, DeliveryStory, ListedDelivery};
pub(crate) use inbox_text::{difference_text, inbox_text};
pub(crate) use summary::place;
pub use summary::{DeliveryCounts, DeliverySummary, Summary};
pub use text::{message_text, recipient_text};

/// Everything that is known of one message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// What has become of it, by the log.
    pub state: Summary,
    /// What the producer said, tokens masked.
    #[schema(value_type = Object)]
    pub message: Message,
    /// The hash of that, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<ContentHash>,
    /// Its deliveries, by the log.
    pub deliveries: Vec<DeliverySummary>,
    /// Arrivals that appended nothing.
    pub redeliveries: Again,
    /// Its events, in the order in which one led to the other.
    pub timeline: Vec<Entry>,
    /// What the projections show of it.
    pub projections: Vec<Shown>,
}

/// Arrivals that appended nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Again {
    /// The same content again.
    pub redelivered: i64,
    /// Other content that had been recorded as a conflict before.
    pub conflicting: i64,
    /// The last time of either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// The door it last came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ingress: Option<String>,
}

/// One event, tokens masked. In JSON the payload stands under `detail`, without the message of
/// `message.received`, which stands by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry(pub Recorded);

/// What one projection shows of the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Evidence)]
pub struct Shown {
    /// The projection's name.
    pub projection: String,
    /// Everything of the shard up to here is folded.
    pub position: Position,
    /// The end of the shard's log.
    pub head: Position,
    /// Whether that takes in everything that happened to the message.
    pub complete: bool,
    /// Whether it has a row of the message.
    pub present: bool,
    /// Whether its rows are what the log up to that position says.
    pub agrees: bool,
    /// Why it does not go on, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
}

impl Audit {
    /// Puts together what is known; none when the evidence does not begin with an arrival.
    #[must_use]
    pub fn new(evidence: Evidence) -> Option<Self> {
        let Evidence { events, content_hash, redeliveries, reach, rows } = evidence;
        let Event::MessageReceived(first) = &events.first()?.body else { return None };
        let message = masked_message(&first.message);
        let folded = fold_rows(&events);
        let state = Summary::from(folded.message?);
        let deliveries = folded.deliveries.into_iter().map(DeliverySummary::from).collect();
        let projections = reach.into_iter().filter_map(|it| Shown::new(it, &events, &rows)).collect();
        let timeline = events.into_iter().map(Entry::masked).collect();
        let redeliveries = Again::from(redeliveries);
        Some(Self { state, message, content_hash, deliveries, redeliveries, timeline, projections })
    }
}

impl From<Redeliveries> for Again {
    fn from(it: Redeliveries) -> Self {
        let Redeliveries { redelivered, conflicting, last_at, last_ingress } = it;
        Self { redelivered, conflicting, last_at, last_ingress }
    }
}

impl Shown {
    /// Compares what a projection shows with a fold of the same events; none for a projection whose
    /// rows are unknown here.
    fn new(reach: Reach, events: &[Recorded], rows: &MessageRows) -> Option<Self> {
        let Reach { projection, position, head, parked } = reach;
        let seen = events.iter().take_while(|it| it.position <= position).count();
        let expected = fold_rows(&events[..seen]);
        let (present, agrees) = match projection.as_str() {
            "inbox" => (rows.item.as_ref().is_some_and(InboxItem::is_shown), rows.item == expected.item),
            "messages" => (rows.message.is_some(), rows.message == expected.message),
            "deliveries" => {
                let same = rows.deliveries == expected.deliveries && rows.attempts == expected.attempts;
                (!rows.deliveries.is_empty(), same)
            }
            _ => return None,
        };
        let complete = seen == events.len();
        Some(Self { projection, position, head, complete, present, agrees, parked })
    }
}

/// What the projections have to show of a message after these events.
fn fold_rows(events: &[Recorded]) -> MessageRows {
    fn of<R: Row>(projection: &dyn Projection, events: &[Recorded]) -> Vec<R> {
        let tables = fold_in_memory(projection, events);
        let own = tables.into_iter().filter(|(table, _)| *table == R::TABLE);
        own.flat_map(|(_, rows)| rows).map(R::from_values).collect()
    }
    MessageRows {
        message: of(&Messages, events).pop(),
        item: of(&Inbox, events).pop(),
        deliveries: of(&Deliveries, events),
        attempts: of(&Deliveries, events),
    }
}

impl Entry {
    fn masked(mut event: Recorded) -> Self {
        match &mut event.body {
            Event::MessageReceived(it) => it.message = Arc::new(masked_message(&it.message)),
            Event::MessageConflicted(it) => it.message = Arc::new(masked_message(&it.message)),
            Event::PushPlanned(it) => {
                for delivery in &mut it.deliveries {
                    delivery.target = masked_target(&delivery.target);
                }
            }
            Event::MessageCancelled(_)
            | Event::InboxSeen
            | Event::InboxRead
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::InboxDeleted
            | Event::InboxPresented
            | Event::InboxExpired
            | Event::PushAttemptStarted(_)
            | Event::PushAttemptSucceeded(_)
            | Event::PushAttemptPending(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptLost(_)
            | Event::PushSuppressed(_)
            | Event::PushRescheduled(_)
            | Event::PushExhausted(_)
            | Event::PushReceipt(_)
            | Event::MessageErased(_)
            | Event::Skipped(_) => {}
        }
        Self(event)
    }
}

fn masked_message(message: &Message) -> Message {
    let mut message = message.clone();
    if let Some(push) = &mut message.push {
        for target in &mut push.targets {
            *target = masked_target(target);
        }
    }
    message
}

/// The same kind of target with what people may see of it.
fn masked_target(target: &Target) -> Target {
    let masked = target.masked();
    match target {
        Target::Token(_) => Target::Token(masked.strip_prefix("token:").unwrap_or_default().to_owned()),
        Target::Subscription(_) => {
            Target::Subscription(masked.strip_prefix("subscription:").unwrap_or_default().to_owned())
        }
        Target::Topic(_) | Target::Alias(_) => target.clone(),
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = &self.0;
        let mut entry = serializer.serialize_struct("Entry", 7)?;
        entry.serialize_field("cursor", &event.cursor())?;
        entry.serialize_field("version", &event.version)?;
        entry.serialize_field("event", event.body.kind())?;
        entry.serialize_field("occurredAt", &event.occurred_at)?;
        entry.serialize_field("recordedAt", &event.recorded_at)?;
        if event.metadata != Metadata::default() {
            entry.serialize_field("metadata", &event.metadata)?;
        }
        if !matches!(event.body, Event::MessageReceived(_)) {
            let encoded = codec::encode(&event.body).map_err(serde::ser::Error::custom)?;
            let detail: serde_json::Value =
                serde_json::from_str(&encoded.payload).map_err(serde::ser::Error::custom)?;
            if detail.as_object().is_some_and(|it| !it.is_empty()) {
                entry.serialize_field("detail", &detail)?;
            }
        }
        entry.end()
    }
}

#[cfg(test)]
#[path = "audit/tests.rs"]
mod tests;
