//! Payloads of the `push.*` events.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    id::{DeliveryId, DeviceId},
    message::Target,
};

/// `push.planned`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushPlanned {
    /// One a target; never empty.
    pub deliveries: Vec<PlannedDelivery>,
}

/// One delivery as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedDelivery {
    /// Its id for ever.
    pub delivery_id: DeliveryId,
    /// Where it goes.
    pub target: Target,
    /// The configured provider that is to take it.
    pub provider: String,
    /// Who takes it when that provider cannot, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fallbacks: Vec<String>,
    /// The registered device that the target is of, where it came from there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device_id: Option<DeviceId>,
    /// Not before.
    pub due_at: Timestamp,
    /// Not after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
}

/// `push.attempt_started`: the claim. Written before the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAttemptStarted {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// 1, 2, 3 …
    pub attempt: u32,
    /// The provider about to be called.
    pub provider: String,
    /// The idempotency key the provider gets; the same on every attempt.
    pub provider_key: String,
    /// From then on the attempt counts as lost.
    pub lease_until: Timestamp,
    /// Which worker holds it.
    pub worker: String,
}

/// `push.attempt_succeeded`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAttemptSucceeded {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
    /// Who accepted.
    pub provider: String,
    /// The provider's id for it, where it gives one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_message_id: Option<String>,
    /// HTTP status, where there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// How long the call took, in milliseconds.
    pub duration_ms: u64,
    /// Whether this word made the delivery `accepted`; false for a word that came after the end.
    pub settles: bool,
}

/// `push.attempt_pending`: the provider took it for now; its final word is asked for later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAttemptPending {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
    /// Who was called.
    pub provider: String,
    /// What the final word is asked for with.
    pub ticket: String,
    /// Since when it waits for that word.
    pub since: Timestamp,
    /// When it is asked for (again).
    pub ask_at: Timestamp,
    /// How long the call took, in milliseconds; of the answer to a question, that question.
    pub duration_ms: u64,
    /// Whether the delivery waits for that word; false for a word that came after the lease or the end.
    pub settles: bool,
}

/// `push.attempt_failed`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAttemptFailed {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
    /// Who was called.
    pub provider: String,
    /// What kind of failure.
    pub class: FailureClass,
    /// The provider's own code, or ours such as `timeout`.
    pub code: String,
    /// HTTP status, where an answer came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// What the provider said, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<String>,
    /// How long the call took, in milliseconds.
    pub duration_ms: u64,
    /// What was decided.
    pub decision: Decision,
    /// Whether the decision counts; false for a word that came after the lease or the end.
    pub settles: bool,
}

/// `push.attempt_lost`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAttemptLost {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Which attempt.
    pub attempt: u32,
    /// Who was (perhaps) called.
    pub provider: String,
    /// What was decided.
    pub decision: Decision,
}

/// `push.suppressed`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushSuppressed {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Why it was not sent.
    pub reason: SuppressReason,
}

/// Why a delivery was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuppressReason {
    /// `expiresAt` passed before the first attempt.
    Expired,
    /// The message was cancelled.
    Cancelled,
    /// Nowhere to send it.
    NoTarget,
    /// The recipient does not want it.
    OptedOut,
    /// A newer message of the same collapse key took its place.
    Superseded,
    /// The device has another target by now; a delivery to that one took its place.
    Moved,
}

impl SuppressReason {
    /// As written in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::NoTarget => "no_target",
            Self::OptedOut => "opted_out",
            Self::Superseded => "superseded",
            Self::Moved => "moved",
        }
    }
}

/// `push.rescheduled`: other than by the retry schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushRescheduled {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// The provider that is to take it now.
    pub provider: String,
    /// Not before.
    pub due_at: Timestamp,
    /// What it comes from.
    pub cause: RescheduleCause,
    /// Why, for people.
    pub reason: String,
    /// How it had ended before, where it had; age and budgets count anew then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reopens: Option<Ended>,
}

/// What a delivery is rescheduled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RescheduleCause {
    /// Its provider cannot take it; the next of its route is to.
    Failover,
    /// Somebody wants it to be tried now.
    Retry,
    /// Somebody delivers again what was not delivered.
    Replay,
}

/// How a delivery had ended, other than well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Given up after a failure.
    Failed,
    /// Given up without anybody knowing.
    Unknown,
    /// Not sent on purpose.
    Suppressed,
}

/// `push.exhausted`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushExhausted {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// How many attempts were made.
    pub attempts: u32,
}

/// How a delivery that was given up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The last word was a failure.
    Failed,
    /// The last attempt was lost: nobody knows.
    Unknown,
}

/// `push.receipt`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushReceipt {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// What is known now.
    pub kind: ReceiptKind,
    /// More, in the words of who told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// What later word can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// It reached the device.
    Delivered,
    /// A person opened it.
    Opened,
    /// A person swept it away.
    Dismissed,
    /// The target does not exist any more.
    InvalidTarget,
}

/// What kind of failure an attempt met. Decides the retry schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Worth trying again later.
    Retry,
    /// The target does not exist (any more).
    InvalidTarget,
    /// This push can never be accepted.
    Permanent,
    /// Our credentials or configuration are wrong; nothing to do with this push.
    AuthConfig,
    /// The request may or may not have been accepted.
    Unknown,
}

impl ReceiptKind {
    /// As written in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Opened => "opened",
            Self::Dismissed => "dismissed",
            Self::InvalidTarget => "invalid_target",
        }
    }
}

impl RescheduleCause {
    /// As written in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Retry => "retry",
            Self::Replay => "replay",
        }
    }
}

impl FailureClass {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Retry, Self::InvalidTarget, Self::Permanent, Self::AuthConfig, Self::Unknown];

    /// As written in events, metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::InvalidTarget => "invalid_target",
            Self::Permanent => "permanent",
            Self::AuthConfig => "auth_config",
            Self::Unknown => "unknown",
        }
    }
}

/// What was decided after an attempt, with the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Decision {
    /// Try again.
    RetryAt {
        /// Not before.
        at: Timestamp,
        /// The rule, for people: `schedule step 2`, `retry-after 30 s`.
        policy: String,
    },
    /// No further attempt.
    GiveUp {
        /// The rule, for people.
        policy: String,
    },
}
