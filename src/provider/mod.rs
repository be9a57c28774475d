//! Where pushes go: the port that every push service is behind, and what a call can come to.
//!
//! A provider makes exactly one call per [`Push`], or one for many, and says what happened
//! (ONE-ATTEMPT-ONE-CALL). It never retries, never sleeps and keeps no state about deliveries: whether and
//! when to try again is decided by [`retry`] and recorded in the log by the delivery worker.

mod apns;
#[cfg(test)]
pub(crate) mod double;
mod exchange;
mod expo;
mod fcm;
mod http;
mod log;
mod mask;
mod onesignal;
pub mod retry;
mod rule;
mod settings;
mod template;
mod vendor;
mod webhook;
mod webpush;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt, ready};
use serde_json::Value;

use self::{
    retry::Policy,
    settings::{Common, Settings},
};
use crate::{
    clock::{Clock, Timestamp},
    device::PRODUCTION,
    event::FailureClass,
    id::DeliveryId,
    message::{Message, Target},
    routing::Known,
};

pub use self::settings::{Breaking, BuildError, Limits, Rate};

/// Every kind of provider there is. A new one is a file beside this one and a line here.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "apns",
        about: "the Apple Push Notification service, with provider tokens",
        takes: |it| matches!(it, Target::Token(_)),
        policy: apns::policy,
        build: apns::build,
    },
    Kind {
        name: "expo",
        about: "Expo's push service, many pushes a call, with receipts",
        takes: |it| matches!(it, Target::Token(_)),
        policy: Policy::default,
        build: expo::build,
    },
    Kind {
        name: "fcm",
        about: "Firebase Cloud Messaging, HTTP v1",
        takes: |it| matches!(it, Target::Token(_) | Target::Topic(_)),
        policy: Policy::default,
        build: fcm::build,
    },
    Kind {
        name: "http",
        about: "any service with an HTTP API, described in settings",
        takes: |_| true,
        policy: Policy::default,
        build: http::build,
    },
    Kind {
        name: "log",
        about: "writes a line to the service's log and sends nothing",
        takes: |_| true,
        policy: Policy::default,
        build: log::build,
    },
    Kind {
        name: "onesignal",
        about: "OneSignal: people by alias, subscriptions, segments",
        takes: |target| !matches!(target, Target::Subscription(_)),
        policy: onesignal::policy,
        build: onesignal::build,
    },
    Kind {
        name: "webhook",
        about: "calls a service of one's own, signed by Standard Webhooks",
        takes: |_| true,
        policy: webhook::policy,
        build: webhook::build,
    },
    Kind {
        name: "webpush",
        about: "browsers, by Web Push with VAPID",
        takes: |target| matches!(target, Target::Subscription(_)),
        policy: webpush::policy,
        build: webpush::build,
    },
];

/// Longest name of a provider, in characters: as a message can name it, and as deliveries are found by.
const NAME_MAX: usize = 64;

/// One kind of push service.
#[derive(Debug)]
pub struct Kind {
    /// The value of `kind` in the configuration.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Whether a push to this target makes sense there; a target of another service does not.
    pub takes: fn(&Target) -> bool,
    /// When failed attempts are repeated, where the configuration does not say.
    policy: fn() -> Policy,
    build: fn(Parts, Settings) -> Result<Arc<dyn Provider>, BuildError>,
}

/// What a kind gets besides its own settings.
#[derive(Debug)]
struct Parts {
    name: String,
    timeout: Duration,
    concurrency: usize,
    clock: Arc<dyn Clock>,
}

/// A provider that is ready to be called, and how the delivery worker is to treat it.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Who to call.
    pub provider: Arc<dyn Provider>,
    /// The name of its kind.
    pub kind: &'static str,
    /// When failed attempts are repeated.
    pub policy: retry::Policy,
    /// Most calls at one time.
    pub concurrency: usize,
    /// A call ends by itself within this.
    pub timeout: Duration,
    /// What it is spared.
    pub limits: Limits,
    /// From the claim on, an attempt without an outcome counts as lost after this; longer than `timeout`.
    pub lease: Duration,
}

/// Builds the provider `name` of the given kind from its table of settings (without `kind`).
///
/// Reads the secrets that the settings refer to; makes no call.
///
/// # Errors
/// When a key is unknown, missing or wrong; the error names provider, key, problem and remedy.
pub fn build(
    name: &str,
    kind: &str,
    settings: Value,
    clock: Arc<dyn Clock>,
) -> Result<Configured, BuildError> {
    let (kind, settings, common) = take_common(name, kind, settings)?;
    let Common { timeout, lease, concurrency, policy, limits } = common;
    let parts = Parts { name: name.to_owned(), timeout, concurrency, clock };
    let provider = (kind.build)(parts, settings)?;
    Ok(Configured { provider, kind: kind.name, policy, concurrency, timeout, limits, lease })
}

/// What planning knows of a provider, which it does not call. Reads no secret.
///
/// # Errors
/// As [`build`], as far as it is about the name, the kind, and what every kind has.
pub fn known(name: &str, kind: &str, settings: Value) -> Result<Known, BuildError> {
    let environment = settings.get("environment").and_then(Value::as_str).unwrap_or(PRODUCTION).to_owned();
    let (kind, _, common) = take_common(name, kind, settings)?;
    Ok(Known { kind: kind.name.to_owned(), environment, lease: common.lease, takes: kind.takes })
}

/// Takes what every kind has; the rest of the settings is the kind's own.
fn take_common(
    name: &str,
    kind: &str,
    settings: Value,
) -> Result<(&'static Kind, Settings, Common), BuildError> {
    let mut settings = Settings::new(name, settings)?;
    if name.is_empty() || name.chars().count() > NAME_MAX {
        let remedy = format!("give the provider a name of 1 to {NAME_MAX} characters");
        return Err(settings.error("", "cannot be found by its name", remedy));
    }
    let Some(kind) = KINDS.iter().find(|it| it.name == kind) else {
        let known: Vec<_> = KINDS.iter().map(|it| it.name).collect();
        let remedy = format!("use one of: {}", known.join(", "));
        return Err(settings.error("kind", format!("is {kind:?}, which is not known"), remedy));
    };
    let common = Common::take(&mut settings, (kind.policy)())?;
    Ok((kind, settings, common))
}

/// One push to make.
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
    pub message: Arc<Message>,
}

/// What a call came to for one push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Accepted {
        /// The provider's id for it.
        provider_message_id: Option<String>,
        /// HTTP status.
        status: Option<u16>,
    },
    /// The provider took it for now and says later what came of it ([`Receipts`]).
    Pending {
        /// What to ask with.
        ticket: String,
        /// When to ask for the first time, counted from the answer.
        ask_after: Duration,
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
    /// What the provider said, or why it could not be asked; cut to 4 KiB, without secrets and tokens.
    pub answer: Option<String>,
    /// The wait the provider asked for, not yet clamped.
    pub retry_after: Option<Duration>,
    /// What the wait is about.
    pub scope: RetryScope,
    /// Of an invalid target: since when it is; a device that registered again later is another matter.
    pub as_of: Option<Timestamp>,
    /// Of an invalid target: whether it may as well be our configuration that is wrong, such as the environment.
    pub is_suspect: bool,
}

/// What has to wait after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RetryScope {
    /// This push alone: bad luck.
    #[default]
    Message,
    /// Everything for this device: it gets too much.
    Device,
    /// Everything for this provider: we send too fast.
    Provider,
}

impl Failure {
    /// A failure of this class under this code, and nothing else known.
    #[must_use]
    pub fn new(class: FailureClass, code: impl Into<String>) -> Self {
        Self {
            class,
            code: code.into(),
            status: None,
            answer: None,
            retry_after: None,
            scope: RetryScope::Message,
            as_of: None,
            is_suspect: false,
        }
    }
}

/// A configured push service.
pub trait Provider: fmt::Debug + Send + Sync {
    /// The name it has in the configuration.
    fn name(&self) -> &str;

    /// Makes one call for one push. Must end by itself within the provider's configured timeout.
    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome>;

    /// How to push many in one call, where the service can.
    fn batch(&self) -> Option<&dyn Batch> {
        None
    }

    /// How to ask what became of pushes that are [`Outcome::Pending`], where there are such.
    fn receipts(&self) -> Option<&dyn Receipts> {
        None
    }

    /// Asks the service whether it takes our credentials, without telling anybody anything.
    fn check(&self) -> BoxFuture<'_, Result<Checked, Failure>> {
        ready(Ok(Checked::unproven("there is no way to ask; the configuration is well"))).boxed()
    }
}

/// Many pushes in one call.
pub trait Batch: Send + Sync {
    /// Most pushes in one call.
    fn size_max(&self) -> usize;

    /// Makes one call for all of these, at most [`Batch::size_max`]; answers for each, in their order.
    fn push_all<'a>(&'a self, pushes: &'a [Push]) -> BoxFuture<'a, Vec<Outcome>>;
}

/// Asking later what became of pushes.
pub trait Receipts: Send + Sync {
    /// Most tickets in one question.
    fn size_max(&self) -> usize;

    /// What became of the pushes of these tickets, in their order. A failure of the whole question is
    /// nobody's outcome: it may be asked again.
    fn ask<'a>(&'a self, tickets: &'a [String]) -> BoxFuture<'a, Result<Vec<Said>, Failure>>;
}

/// What a provider says to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Nothing yet.
    NotYet,
    /// This, finally; never [`Outcome::Pending`].
    Finally(Outcome),
}

/// How a check of credentials went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whether the service took our credentials; else there are none, or it could not be asked.
    pub is_proven: bool,
    /// What was tried, and what the service said, for people.
    pub detail: String,
}

impl Checked {
    fn proven(detail: impl Into<String>) -> Self {
        Self { is_proven: true, detail: detail.into() }
    }

    fn unproven(detail: impl Into<String>) -> Self {
        Self { is_proven: false, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use serde_json::json;

    pub(super) fn push() -> Push {
        let message: Message = serde_json::from_value(json!({
            "messageId": "m-42", "notificationType": ["PUSH"], "recipientId": "user-42",
            "title": "Your pass expires tomorrow", "body": "Renew it now", "category": "pass",
            "link": "app://pass/7", "imageUrl": "https://img.example/7.png",
            "data": {"passId": "7", "days": 1, "nested": {"deep": true}, "nothing": null},
            "locale": "ko-KR", "source": "billing-batch", "occurredAt": "2026-11-22T09:00:00Z",
            "deliverAt": "2026-11-22T09:00:01Z", "expiresAt": "2026-11-23T09:00:00Z",
            "collapseKey": "pass-7", "priority": "high",
            "push": {"provider": "acme", "body": "Only on the phone"},
        }))
        .unwrap();
        let target = Target::Token("dev/ce+token=1234".into());
        let delivery_id = DeliveryId::new(&message.message_id, &target.canonical());
        Push {
            delivery_id,
            attempt: 2,
            provider_key: delivery_id.to_string(),
            target,
            message: Arc::new(message),
        }
    }

    #[tokio::test]
    async fn the_log_provider_accepts_with_an_id_of_its_own() {
        let configured = build("dry-run", "log", json!({"concurrency": 2}), Arc::new(SystemClock)).unwrap();
        let push = push();
        let provider_message_id = Some(format!("log-{}", push.delivery_id));
        let outcome = configured.provider.push(&push).await;
        assert_eq!(outcome, Outcome::Accepted { provider_message_id, status: None });
        assert_eq!((configured.provider.name(), configured.concurrency), ("dry-run", 2));
    }

    #[test]
    fn a_name_is_no_longer_than_a_message_can_say() {
        let with = |name: &str| build(name, "log", json!({}), Arc::new(SystemClock));
        assert!(with(&"한".repeat(64)).is_ok());
        for name in [String::new(), "x".repeat(65)] {
            assert!(with(&name).unwrap_err().to_string().contains("a name of 1 to 64 characters"));
        }
    }

    #[test]
    fn what_is_only_planned_for_needs_no_secret() {
        let secrets = json!({"key": "env:NO_SUCH_VARIABLE_HERE"});
        let settings = json!({"url": "https://push.example/", "secrets": secrets, "timeout_ms": 9000});
        let built = build("acme", "http", settings.clone(), Arc::new(SystemClock)).unwrap_err();
        assert_eq!(built.key, "secrets.key");
        assert!(known("acme", "http", settings).unwrap().lease > Duration::from_secs(9));
        assert_eq!(known("acme", "smtp", json!({})).unwrap_err().key, "kind");
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_kinds_there_are() {
        let error = build("acme", "smtp", json!({}), Arc::new(SystemClock)).unwrap_err().to_string();
        assert!(error.starts_with("provider \"acme\": kind is \"smtp\", which is not known; use one of: "));
        for kind in KINDS {
            assert!(error.contains(kind.name), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let error = build("dry-run", "log", json!({"url": "x"}), Arc::new(SystemClock)).unwrap_err();
        assert_eq!((error.key.as_str(), error.problem.as_str()), ("url", "is not a known key"));
    }
}
