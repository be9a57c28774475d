//! Firebase Cloud Messaging by its HTTP v1 API: one push a call, to a device's token or to a topic.
//!
//! Google's access token is fetched and shared in [`oauth`]. A device counts as gone only where FCM itself
//! says so in the body: a bare 404 as likely means a wrong project.

mod oauth;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use self::oauth::{Account, Token, Tokens};
use super::{
    Checked, Failure, Outcome, Parts, Provider, Push, RetryScope,
    exchange::{Answer, Protocol},
    mask::Mask,
    settings::{BuildError, Settings},
    vendor::{Vendor, body, collapse_id, data, not_sent, object, take_bool, take_secret, title, ttl},
};
use crate::{
    clock::Timestamp,
    event::FailureClass,
    message::{Priority, Target},
};

/// Where FCM is.
const BASE: &str = "https://fcm.googleapis.com";
/// The most that FCM takes for a device, in bytes of keys and texts of notification and data.
const SIZE_MAX: usize = 4096;
/// The same for a topic.
const TOPIC_SIZE_MAX: usize = 2048;
/// FCM keeps nothing for longer.
const TTL_MAX: Duration = Duration::from_hours(28 * 24);
/// An access token that is refused this soon after it was given will not be taken later either.
const TOKEN_FRESH: Duration = Duration::from_mins(1);
/// The topic to which a check pretends to send.
const CHECK_TOPIC: &str = "notification-ledger-check";

/// One Firebase project.
#[derive(Debug)]
struct Fcm {
    vendor: Vendor,
    tokens: Tokens,
    project: String,
    timeout: Duration,
}

/// Builds the kind `fcm`.
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let secret = take_secret(&mut settings, "credentials")?;
    let account = Account::parse(secret.expose()).map_err(|problem| {
        settings.error("credentials", problem, "refer to the JSON key file of a service account")
    })?;
    let project = settings.take::<String>("project_id", "the id of the Firebase project")?;
    let project =
        project.or_else(|| account.project.clone()).filter(|it| !it.is_empty()).ok_or_else(|| {
            let remedy = "set it to the id of the Firebase project";
            settings.error("project_id", "is missing, also in the credentials", remedy)
        })?;
    let http2 = take_bool(&mut settings, "http2", true)?;
    let protocol = if http2 { Protocol::Http2 } else { Protocol::Any };
    let vendor = Vendor::take(&parts, &mut settings, Some(BASE), protocol)?;
    let timeout = parts.timeout;
    let tokens = Tokens::new(account, parts).map_err(|error| {
        let problem = format!("names an address that cannot be called: {error}");
        settings.error("credentials", problem, "install the system's root certificates")
    })?;
    settings.finish()?;
    Ok(Arc::new(Fcm { vendor, tokens, project, timeout }))
}

impl Provider for Fcm {
    fn name(&self) -> &str {
        &self.vendor.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let message = match message(push, self.vendor.now()) {
                Ok(message) => message,
                Err(refused) => return refused,
            };
            let mask = self.vendor.mask(std::slice::from_ref(push));
            self.send(&json!({ "message": message }), mask).await
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<Checked, Failure>> {
        async move {
            let message = json!({ "topic": CHECK_TOPIC, "data": { "check": "true" } });
            let body = json!({ "validateOnly": true, "message": message });
            let detail = format!("FCM would take a message for the project {}; none was sent", self.project);
            match self.send(&body, self.vendor.mask(&[])).await {
                Outcome::Failed(failure) => Err(failure),
                Outcome::Accepted { .. } | Outcome::Pending { .. } => Ok(Checked::proven(detail)),
            }
        }
        .boxed()
    }
}

impl Fcm {
    /// Makes the one call, after fetching an access token where there is none; both within the timeout.
    async fn send(&self, body: &Value, mask: Mask) -> Outcome {
        let began = Instant::now();
        // A quarter of the time is left for the call itself.
        let token = match timeout_at(began + self.timeout.mul_f64(0.75), self.tokens.token()).await {
            Ok(Ok(token)) => token,
            Ok(Err(failure)) => return Outcome::Failed(failure),
            Err(_) => return Outcome::Failed(Failure::new(FailureClass::Retry, "token_timeout")),
        };
        let path = ["v1", "projects", &self.project, "messages:send"];
        let Some(mut request) = self.vendor.post_json(&path, body.to_string().into()) else {
            return not_sent("request", "the address cannot be written down");
        };
        request.headers_mut().insert(AUTHORIZATION, token.header.clone());
        *request.timeout_mut() = Some(self.timeout.saturating_sub(began.elapsed()));
        let mask = mask.and(token.secret.expose(), "[access token]");
        match self.vendor.call(request, &mask).await {
            Ok(answer) if refuses_token(&answer) => self.without(&token, &answer, &mask),
            Ok(answer) => outcome(&self.vendor, &answer, &mask),
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// After FCM refused this access token: another one is worth a try unless this one is new.
    fn without(&self, token: &Arc<Token>, answer: &Answer, mask: &Mask) -> Outcome {
        self.tokens.forget(token);
        let failure = match outcome(&self.vendor, answer, mask) {
            Outcome::Failed(failure) => failure,
            other => return other,
        };
        if self.vendor.now().since(token.since) < TOKEN_FRESH {
            return Outcome::Failed(failure);
        }
        Outcome::Failed(Failure {
            class: FailureClass::Retry,
            code: "token_refused".into(),
            retry_after: Some(Duration::ZERO),
            ..failure
        })
    }
}

/// FCM's `Message`, or why it cannot be one.
fn message(push: &Push, now: Timestamp) -> Result<Value, Outcome> {
    let (kind, to, most) = match &push.target {
        Target::Token(token) => ("token", token, SIZE_MAX),
        Target::Topic(topic) => ("topic", topic, TOPIC_SIZE_MAX),
        other => return Err(not_sent("target", &format!("FCM takes no target of kind {}", other.kind()))),
    };
    let said = &push.message;
    let data = texts(push);
    let notification =
        [("title", Some(title(said))), ("body", body(said)), ("image", said.image_url.as_deref())];
    let shown: usize = notification.iter().filter_map(|(key, text)| Some(key.len() + (*text)?.len())).sum();
    let size = shown + data.iter().map(|(key, text)| key.len() + text.len()).sum::<usize>();
    if size > most {
        return Err(not_sent("too_large", &format!("{size} bytes are more than the {most} that FCM takes")));
    }
    let ttl = ttl(said, now).map(|it| it.min(TTL_MAX).as_secs());
    let high = said.priority.map(|it| it == Priority::High);
    let tag = collapse_id(push);
    let topic = said.collapse_key.as_deref().map(web_topic);
    let text = |it: &str| Value::from(it);
    let android = object([
        ("ttl", ttl.map(|it| format!("{it}s").into())),
        ("priority", high.map(|it| text(if it { "HIGH" } else { "NORMAL" }))),
        ("collapseKey", said.collapse_key.as_deref().map(text)),
        ("notification", object([("tag", Some(text(&tag)))])),
    ]);
    let expires = said.expires_at.map(|it| it.as_micros() / 1_000_000);
    let headers = object([
        ("apns-expiration", expires.map(|it| it.to_string().into())),
        ("apns-priority", high.map(|it| text(if it { "10" } else { "5" }))),
        ("apns-collapse-id", Some(text(&tag))),
    ]);
    let payload = said.image_url.is_some().then(|| json!({ "aps": { "mutable-content": 1 } }));
    let webpush = object([
        ("TTL", ttl.map(|it| it.to_string().into())),
        ("Urgency", high.map(|it| text(if it { "high" } else { "normal" }))),
        ("Topic", topic.map(Value::from)),
    ]);
    let message = object([
        (kind, Some(text(to))),
        ("notification", object(notification.map(|(key, it)| (key, it.map(text))))),
        ("data", Some(data.into_iter().map(|(key, it)| (key, Value::from(it))).collect())),
        ("android", android),
        ("apns", object([("headers", headers), ("payload", payload)])),
        ("webpush", object([("headers", webpush)])),
    ]);
    Ok(message.unwrap_or_default())
}

/// FCM's `data`: texts alone; what is none is written as JSON.
fn texts(push: &Push) -> Vec<(String, String)> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    data(push, is_reserved).into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// Whether FCM refuses this key in `data`.
fn is_reserved(key: &str) -> bool {
    ["from", "message_type"].contains(&key)
        || ["google.", "gcm.notification."].iter().any(|it| key.starts_with(it))
}

/// A collapse key as a Web Push topic: 32 characters of base64url.
fn web_topic(key: &str) -> String {
    let hash = Sha256::digest(key.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.get(..24).unwrap_or_default())
}

/// Whether it is our access token that FCM refuses, and not the key it has of another service.
fn refuses_token(answer: &Answer) -> bool {
    let of_another = |it: &str| OF_ANOTHER_SERVICE.contains(&it);
    answer.status == 401 && !Said::read(answer).code.as_deref().is_some_and(of_another)
}

/// Codes about the keys that Firebase has for Apple and for browsers.
const OF_ANOTHER_SERVICE: &[&str] = &["THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR"];

/// What FCM's answer means. Pure but for the clock, from which a date in `Retry-After` counts.
fn outcome(vendor: &Vendor, answer: &Answer, mask: &Mask) -> Outcome {
    let named = || answer.json()?.get("name")?.as_str().map(str::to_owned);
    if let (200..=299, Some(name)) = (answer.status, named()) {
        let provider_message_id = Vendor::id(&name, mask);
        return Outcome::Accepted { provider_message_id, status: Some(answer.status) };
    }
    let said = Said::read(answer);
    let plain = vendor.by_status(said.code.as_deref(), answer, mask);
    let class = said.class(answer.status).unwrap_or(plain.class);
    let quota = answer.status == 429 || said.is_about_quota();
    let scope = match (quota, said.names_device) {
        (true, true) => RetryScope::Device,
        (true, false) => RetryScope::Provider,
        (false, _) => RetryScope::Message,
    };
    // A device of another project; or it is we who have the wrong one.
    let is_suspect = said.is_fcms && said.code.as_deref() == Some("SENDER_ID_MISMATCH");
    Outcome::Failed(Failure { class, scope, is_suspect, ..plain })
}

/// What an error of FCM says.
#[derive(Debug, Default)]
struct Said {
    /// FCM's own code, else Google's status.
    code: Option<String>,
    /// Whether the code is FCM's own: Google's front end knows nothing about devices.
    is_fcms: bool,
    /// Whether the device's token is what is wrong with the request.
    blames_token: bool,
    names_device: bool,
}

impl Said {
    fn read(answer: &Answer) -> Self {
        let Some(error) = answer.json().and_then(|mut it| it.get_mut("error").map(Value::take)) else {
            return Self::default();
        };
        let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let details = error.get("details").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_fcms = |it: &&Value| {
            text(it, "@type").is_some_and(|it| it.ends_with("/google.firebase.fcm.v1.FcmError"))
        };
        let own = details.iter().find(is_fcms).and_then(|it| text(it, "errorCode"));
        let violations = |it: &Value| it.get("fieldViolations").and_then(Value::as_array).cloned();
        let fields = details.iter().filter_map(violations).flatten().filter_map(|it| text(&it, "field"));
        let message = text(&error, "message").unwrap_or_default();
        Self {
            is_fcms: own.is_some(),
            blames_token: message.contains("not a valid FCM registration token")
                || fields.into_iter().any(|it| ["message.token", "message.fid"].contains(&it.as_str())),
            names_device: error.to_string().to_lowercase().contains("device"),
            code: own.or_else(|| text(&error, "status")),
        }
    }

    fn is_about_quota(&self) -> bool {
        matches!(self.code.as_deref(), Some("QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED"))
    }

    /// The class that the code means; none where the status is all there is to go by.
    fn class(&self, status: u16) -> Option<FailureClass> {
        use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
        match (self.code.as_deref(), status) {
            (Some("UNREGISTERED" | "SENDER_ID_MISMATCH"), _) if self.is_fcms => Some(InvalidTarget),
            (Some("INVALID_ARGUMENT"), _) if self.blames_token => Some(InvalidTarget),
            (Some("INVALID_ARGUMENT"), _) => Some(Permanent),
            (Some("QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED" | "UNAVAILABLE" | "INTERNAL"), _) => Some(Retry),
            // A 404 is a project that does not exist, or a wrong address: nothing that is the device's fault.
            (
                Some("THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR" | "PERMISSION_DENIED" | "UNAUTHENTICATED"),
                _,
            )
            | (_, 404) => Some(AuthConfig),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
