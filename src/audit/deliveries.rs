//! Deliveries and the calls made for them, as operators see them in lists and one by one.

use serde::Serialize;
use utoipa::ToSchema;

use super::DeliverySummary;
use crate::{
    clock::Timestamp,
    projection::deliveries::{AttemptOutcome, PushAttempt, PushDelivery},
};

/// A delivery by itself, with the message that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedDelivery {
    /// Which message.
    pub message_id: String,
    /// Who it is for.
    pub recipient_id: String,
    /// The delivery.
    #[serde(flatten)]
    pub delivery: DeliverySummary,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A delivery with every call made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeliveryStory {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: ListedDelivery,
    /// The calls, in their order.
    pub calls: Vec<CallSummary>,
}

/// One call to a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallSummary {
    /// 1, 2, 3 …
    pub attempt: i64,
    /// Who was called.
    pub provider: String,
    /// Which worker called.
    pub worker: String,
    /// When it was claimed, just before the call.
    pub started_at: Timestamp,
    /// When the last word on it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How it ended; none while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// The provider's code, or ours such as `timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    /// What the provider said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// How long the call took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// The provider's id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_message_id: Option<String>,
    /// When it was to be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// What was decided, and by which rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

impl From<PushDelivery> for ListedDelivery {
    fn from(row: PushDelivery) -> Self {
        Self {
            message_id: row.message_id.clone(),
            recipient_id: row.recipient_id.clone(),
            created_at: row.created_at_us,
            updated_at: row.updated_at_us,
            delivery: row.into(),
        }
    }
}

impl From<(PushDelivery, Vec<PushAttempt>)> for DeliveryStory {
    fn from((delivery, attempts): (PushDelivery, Vec<PushAttempt>)) -> Self {
        Self { delivery: delivery.into(), calls: attempts.into_iter().map(CallSummary::from).collect() }
    }
}

impl From<PushAttempt> for CallSummary {
    fn from(row: PushAttempt) -> Self {
        Self {
            attempt: row.attempt,
            provider: row.provider,
            worker: row.worker,
            started_at: row.started_at_us,
            ended_at: row.ended_at_us,
            outcome: row.outcome.map(AttemptOutcome::as_str),
            code: row.code,
            status: row.status,
            answer: row.answer,
            duration_ms: row.duration_ms,
            provider_message_id: row.provider_message_id,
            retry_at: row.retry_at_us,
            decision: row.decision,
        }
    }
}
