//! Where pushes go: the port that every push service is behind, and what a call can come to.
//!
//! A provider makes exactly one call per [`Push`] and says what happened. It never retries, never
//! sleeps and keeps no state about deliveries: whether and when to try again is decided by
//! [`retry`] and recorded in the log by the delivery worker.

pub mod http;
pub mod log;
pub mod retry;
pub mod template;

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    event::FailureClass,
    id::DeliveryId,
    message::{Message, Target},
};

/// One call to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// 1, 2, 3 …
    pub attempt: u32,
    /// The idempotency key for the provider; the same on every attempt.
    pub provider_key: String,
    /// Where to.
    pub target: Target,
    /// What to say.
    pub message: Message,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Accepted {
        /// The provider's id for it.
        provider_message_id: Option<String>,
        /// HTTP status.
        status: Option<u16>,
    },
    /// It did not, or nobody knows.
    Failed(Failure),
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub class: FailureClass,
    /// The provider's own code, or ours: `timeout`, `connect`, `reset`, `http_503`.
    pub code: String,
    /// HTTP status, where an answer came.
    pub status: Option<u16>,
    /// What the provider said, cut to 4 KiB.
    pub answer: Option<String>,
    /// The wait the provider asked for, not yet clamped.
    pub retry_after: Option<Duration>,
}

/// A configured push service.
pub trait Provider: fmt::Debug + Send + Sync {
    /// The name it has in the configuration.
    fn name(&self) -> &str;

    /// Makes one call. Must end by itself within the provider's configured timeout.
    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome>;
}
