//! Rows of the projections as support and auditors see them: names of the contract, tokens masked,
//! nothing that is not there.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    id::{Cursor, Position, Shard},
    message::Target,
    projection::{
        deliveries::{DeliveryStatus, PushDelivery},
        messages::{Engagement, MessageRow, PushState},
    },
};

/// The state of one message on both axes: how it was delivered, and what the recipient did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Which message.
    pub message_id: String,
    /// Who it is for.
    pub recipient_id: String,
    /// Where `message.received` stands.
    pub cursor: Cursor,
    /// When the ledger wrote it down.
    pub received_at: Timestamp,
    /// The headline; empty once erased.
    pub title: String,
    /// As in the contract.
    pub notification_type: Vec<String>,
    /// What kind of news this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Which producer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The door it came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// When it happened, in the producer's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// Not pushed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// Not pushed after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What became of the pushes, all deliveries taken together.
    #[serde(serialize_with = "word")]
    pub push: PushState,
    /// The deliveries by how they ended.
    pub deliveries: DeliveryCounts,
    /// How many calls were started.
    pub attempts: i64,
    /// The code of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When a provider first took one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_accepted_at: Option<Timestamp>,
    /// When one was first known to have reached a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_delivered_at: Option<Timestamp>,
    /// When one was first known to have been opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_opened_at: Option<Timestamp>,
    /// What the recipient did with the inbox item.
    #[serde(serialize_with = "word")]
    pub inbox: Engagement,
    /// When it was first shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// When it was read, unless it is unread (again).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Timestamp>,
    /// When it was put away, unless it was brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<Timestamp>,
    /// When it was removed from the inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// When personal data was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
    /// How often the id came with yet other content.
    pub conflicts: i64,
}

/// Deliveries of one message by how they ended; what is missing to the total is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// All.
    pub total: i64,
    /// A provider took it.
    pub accepted: i64,
    /// Given up after a failure.
    pub failed: i64,
    /// Given up without anybody knowing.
    pub unknown: i64,
    /// Not sent on purpose.
    pub suppressed: i64,
}

/// One push of one message to one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySummary {
    /// Which delivery.
    pub delivery_id: String,
    /// Where it goes, masked; none while the targets are not resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The registered device that the target is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The provider that is to take it, or was called last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where it stands.
    #[serde(serialize_with = "word")]
    pub status: DeliveryStatus,
    /// How many calls were started.
    pub attempts: i64,
    /// When something has to happen next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// Not sent after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The kind of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_class: Option<String>,
    /// Its code, or why it was suppressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_code: Option<String>,
    /// What the provider said to it, cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The provider's id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_message_id: Option<String>,
    /// When it first was known to have reached the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// When a person was first known to have opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// When a person was first known to have swept it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dismissed_at: Option<Timestamp>,
}

impl From<MessageRow> for Summary {
    fn from(row: MessageRow) -> Self {
        Self {
            message_id: row.message_id,
            recipient_id: row.recipient_id,
            cursor: place(row.shard, row.position),
            received_at: row.received_at_us,
            title: row.title,
            notification_type: row.channels.split(',').map(ToOwned::to_owned).collect(),
            category: row.category,
            source: row.source,
            ingress: row.ingress,
            occurred_at: row.occurred_at_us,
            deliver_at: row.deliver_at_us,
            expires_at: row.expires_at_us,
            push: row.push_state,
            deliveries: DeliveryCounts {
                total: row.deliveries,
                accepted: row.accepted,
                failed: row.failed,
                unknown: row.unknown,
                suppressed: row.suppressed,
            },
            attempts: row.attempts,
            last_error: row.last_error,
            first_accepted_at: row.first_accepted_at_us,
            first_delivered_at: row.first_delivered_at_us,
            first_opened_at: row.first_opened_at_us,
            inbox: row.engagement,
            seen_at: row.seen_at_us,
            read_at: row.read_at_us,
            archived_at: row.archived_at_us,
            deleted_at: row.deleted_at_us,
            cancelled_at: row.cancelled_at_us,
            erased_at: row.erased_at_us,
            conflicts: row.conflicts,
        }
    }
}

impl From<PushDelivery> for DeliverySummary {
    fn from(row: PushDelivery) -> Self {
        let target = row.target_kind.zip(row.target).map(|(kind, value)| masked(&kind, value));
        Self {
            delivery_id: row.delivery_id,
            target,
            device_id: row.device_id,
            provider: row.provider,
            status: row.status,
            attempts: row.attempts,
            due_at: row.due_at_us,
            expires_at: row.expires_at_us,
            last_class: row.last_class,
            last_code: row.last_code,
            last_error: row.last_error,
            provider_message_id: row.provider_message_id,
            delivered_at: row.delivered_at_us,
            opened_at: row.opened_at_us,
            dismissed_at: row.dismissed_at_us,
        }
    }
}

/// A place as the tables hold it.
pub(crate) fn place(shard: i64, position: i64) -> Cursor {
    Cursor { shard: Shard(u16::try_from(shard).unwrap_or(u16::MAX)), position: Position(position) }
}

/// A target as people may see it; one that is erased shows its kind only.
fn masked(kind: &str, value: String) -> String {
    match kind {
        _ if value.is_empty() => kind.to_owned(),
        "topic" | "alias" => format!("{kind}:{value}"),
        "subscription" => Target::Subscription(value).masked(),
        _ => Target::Token(value).masked(),
    }
}

fn word<W: std::fmt::Display, S: Serializer>(word: &W, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(word)
}
