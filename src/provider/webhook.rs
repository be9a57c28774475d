//! The provider that tells another service of our own, by Standard Webhooks 1.0.0.
//!
//! Every call carries the delivery's id, the moment of this attempt, and a signature over both and the
//! body, one for each secret, so that secrets can be changed without a gap. What the receiver does with it
//! is its own affair: here a push is done when it says 2xx.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Outcome, Parts, Provider, Push, RetryScope,
    exchange::{Answer, Protocol},
    mask::Mask,
    retry::Policy,
    settings::{BuildError, Settings},
    vendor::{Vendor, body, title},
};
use crate::{
    clock::Timestamp,
    event::FailureClass,
    message::{Message, Priority},
    secret::Secret,
};

/// The schedule of the specification: these after the first, second, … of ten attempts.
const SCHEDULE_S: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// More than the schedule with all that chance can add to it.
const MAX_AGE: Duration = Duration::from_hours(96);
/// How long an endpoint that is gone, or asks for it, is left alone.
const LONG_WAIT: Duration = Duration::from_hours(1);

/// Most secrets that are in force at one time.
const SECRETS_MAX: usize = 8;
const SECRETS: &str = "a list of 1 to 8 references to secrets, such as [\"env:WEBHOOK_SECRET\"]";
const TYPE: &str = "words of A–Z a–z 0–9 _ with full stops between them, such as \"notification.push\"";

/// An endpoint that takes pushes.
#[derive(Debug)]
struct Webhook {
    vendor: Vendor,
    url: Url,
    event_type: String,
    keys: Vec<Key>,
}

/// What a call is signed with.
enum Key {
    /// `whsec_`: both sides know it.
    Hmac(Box<hmac::Key>),
    /// `whsk_`: the receiver knows its public half.
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version())
    }
}

/// When attempts are repeated, where the configuration does not say.
pub(super) fn policy() -> Policy {
    Policy {
        schedule: SCHEDULE_S.map(Duration::from_secs).to_vec(),
        max_attempts: 10,
        max_age: MAX_AGE,
        retry_after_max: Duration::from_hours(24),
        auth_config_wait: LONG_WAIT,
        ..Policy::default()
    }
}

/// Builds the kind `webhook`.
#[allow(clippy::needless_pass_by_value, reason = "every kind is built the same way")]
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let url = take_url(&mut settings)?;
    let event_type = take_type(&mut settings)?;
    let secrets = take_secrets(&mut settings)?;
    let vendor = Vendor::anywhere(&parts, &mut settings, Protocol::Any, url.scheme() == "http")?;
    settings.finish()?;
    let vendor = secrets.iter().fold(vendor, |vendor, (secret, _)| {
        // Also without its prefix: receivers keep it either way.
        let bare = secret.expose().split_once('_').map_or("", |it| it.1);
        vendor.hiding(secret.expose(), "[secret]").hiding(bare, "[secret]")
    });
    let keys = secrets.into_iter().map(|it| it.1).collect();
    Ok(Arc::new(Webhook { vendor, url, event_type, keys }))
}

impl Provider for Webhook {
    fn name(&self) -> &str {
        &self.vendor.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let mask = self.vendor.mask(std::slice::from_ref(push));
            match self.vendor.call(self.request(push), &mask).await {
                Ok(answer) => self.outcome(push, &answer, &mask),
                Err(failure) => Outcome::Failed(failure),
            }
        }
        .boxed()
    }
}

impl Webhook {
    fn request(&self, push: &Push) -> Request {
        let body = content(&self.event_type, push);
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.headers_mut() =
            headers(&self.keys, &push.delivery_id.to_string(), self.vendor.now(), body.as_bytes());
        *request.body_mut() = Some(body.into());
        request
    }

    fn outcome(&self, push: &Push, answer: &Answer, mask: &Mask) -> Outcome {
        let (class, scope) = match meaning(answer.status) {
            Meaning::Success => {
                let provider_message_id = Some(push.delivery_id.to_string());
                return Outcome::Accepted { provider_message_id, status: Some(answer.status) };
            }
            Meaning::Failure(class, scope) => (class, scope),
        };
        let code = format!("http_{}", answer.status);
        Outcome::Failed(self.vendor.failure(class, &code, scope, answer, mask))
    }
}

/// What a status means; nothing else of an answer means anything but `Retry-After`.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Success,
    Failure(FailureClass, RetryScope),
}

const fn meaning(status: u16) -> Meaning {
    match status {
        200..=299 => Meaning::Success,
        // The endpoint wants no calls any more. It is a service of ours and no device: whoever runs it and
        // this ledger must decide, and until then the provider pauses and no target is lost.
        410 => Meaning::Failure(FailureClass::AuthConfig, RetryScope::Provider),
        429 | 502 | 504 => Meaning::Failure(FailureClass::Retry, RetryScope::Provider),
        _ => Meaning::Failure(FailureClass::Retry, RetryScope::Message),
    }
}

/// The headers of one call.
fn headers(keys: &[Key], id: &str, now: Timestamp, body: &[u8]) -> HeaderMap {
    let timestamp = now.as_micros().div_euclid(1_000_000).to_string();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signatures: Vec<_> = keys.iter().map(|it| it.sign(&signed)).collect();
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let named =
        [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signatures.join(" "))];
    for (name, text) in named {
        // An id, digits and base64 can always stand in a header.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    headers
}

impl Key {
    const fn version(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "v1",
            Self::Ed25519(_) => "v1a",
        }
    }

    fn sign(&self, signed: &[u8]) -> String {
        let signature = match self {
            Self::Hmac(key) => BASE64_STANDARD.encode(hmac::sign(key, signed)),
            Self::Ed25519(pair) => BASE64_STANDARD.encode(pair.sign(signed)),
        };
        format!("{},{signature}", self.version())
    }

    fn parse(secret: &Secret) -> Result<Self, &'static str> {
        let text = secret.expose();
        let bytes =
            |base64: &str| BASE64_STANDARD.decode(base64).map_err(|_| "holds no base64 after its prefix");
        if let Some(base64) = text.strip_prefix("whsec_") {
            let bytes = bytes(base64)?;
            if !(24..=64).contains(&bytes.len()) {
                return Err("holds a key that is not 24 to 64 bytes long");
            }
            return Ok(Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        let base64 = text.strip_prefix("whsk_").ok_or("begins neither with whsec_ nor with whsk_")?;
        let bytes = bytes(base64)?;
        // The seed alone, or the seed and the public key.
        let pair = match bytes.split_at_checked(32) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err("holds a key that is not 32 or 64 bytes long"),
        };
        pair.map(|it| Self::Ed25519(Box::new(it))).map_err(|_| "holds no ed25519 key")
    }
}

/// The body: the same bytes on every attempt.
fn content(event_type: &str, push: &Push) -> String {
    let message = &*push.message;
    let event = Event {
        r#type: event_type,
        timestamp: occurred_at(message),
        data: Told {
            delivery_id: push.delivery_id.to_string(),
            message_id: message.message_id.as_str(),
            recipient_id: message.recipient_id.as_str(),
            target: Address { kind: push.target.kind(), value: push.target.value() },
            title: title(message),
            body: body(message),
            category: message.category.as_deref(),
            link: message.link.as_deref(),
            image_url: message.image_url.as_deref(),
            data: &message.data,
            locale: message.locale.as_deref(),
            collapse_key: message.collapse_key.as_deref(),
            priority: message.priority,
            expires_at: message.expires_at,
        },
    };
    // Texts and tables with texts for keys can always be written.
    serde_json::to_string(&event).unwrap_or_default()
}

/// When it happened, which no repetition changes: as the message says, else as its id does where that is a
/// UUID of version 7. Nothing else is known that stays the same, and a guess would be one.
fn occurred_at(message: &Message) -> Option<Timestamp> {
    message.occurred_at.or_else(|| {
        let made = Uuid::try_parse(message.message_id.as_str()).ok().filter(|it| it.get_version_num() == 7);
        let (seconds, nanos) = made?.get_timestamp()?.to_unix();
        Some(Timestamp::from_micros(0).plus(Duration::new(seconds, nanos)))
    })
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    data: Told<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    delivery_id: String,
    message_id: &'a str,
    recipient_id: &'a str,
    target: Address<'a>,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    data: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Address<'a> {
    kind: &'a str,
    value: &'a str,
}

fn take_url(settings: &mut Settings) -> Result<Url, BuildError> {
    let expected = "an address such as \"https://hooks.example.com/push\"";
    let text: String = settings.require("url", expected)?;
    let url = Url::parse(&text).ok().filter(|it| {
        matches!(it.scheme(), "http" | "https")
            && it.has_host()
            && it.username().is_empty()
            && it.password().is_none()
            && it.fragment().is_none()
    });
    let wrong = || settings.error("url", "is no address that can be called", format!("make it {expected}"));
    url.ok_or_else(wrong)
}

fn take_type(settings: &mut Settings) -> Result<String, BuildError> {
    let Some(text) = settings.take::<String>("type", TYPE)? else { return Ok("notification.push".into()) };
    let word =
        |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if text.len() > 256 || !text.split('.').all(word) {
        return Err(settings.error("type", format!("is {text:?}"), format!("make it {TYPE}")));
    }
    Ok(text)
}

/// The secrets with what they hold, in the order given.
fn take_secrets(settings: &mut Settings) -> Result<Vec<(Secret, Key)>, BuildError> {
    let references: Vec<String> = settings.require("secrets", SECRETS)?;
    if references.is_empty() || references.len() > SECRETS_MAX {
        let problem = format!("has {} entries", references.len());
        return Err(settings.error("secrets", problem, format!("make it {SECRETS}")));
    }
    let read = |(index, reference): (usize, &String)| {
        let key = format!("secrets[{index}]");
        let secret = Secret::resolve(reference);
        let secret = secret.map_err(|error| settings.error(&key, error.to_string(), error.remedy()))?;
        let parsed = Key::parse(&secret).map_err(|problem| {
            let remedy =
                "use whsec_ and the base64 of 24 to 64 random bytes, or whsk_ and that of an ed25519 key";
            settings.error(&key, problem, remedy)
        })?;
        Ok((secret, parsed))
    };
    references.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests;
