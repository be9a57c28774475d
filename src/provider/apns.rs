//! The Apple Push Notification service by its HTTP/2 API with provider tokens: one push a call.
//!
//! Apple wants one provider token used for long: it is signed at most every twenty minutes, used for fifty,
//! and shared by all connections. What an answer means stands in its `reason`; one that is not known goes
//! by its status.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{
    Request,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    Checked, Failure, Outcome, Parts, Provider, Push, RetryScope,
    exchange::{Answer, Protocol},
    mask::Mask,
    retry::Policy,
    settings::{BuildError, Settings},
    vendor::{Vendor, body, collapse_id, not_sent, object, take_bool, take_secret, title},
};
use crate::{
    clock::Timestamp,
    event::FailureClass,
    message::{Message, Priority, Target},
    secret::Secret,
};

const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// The most that APNs takes, in bytes of JSON.
const SIZE_MAX: usize = 4096;
/// APNs keeps nothing for longer; what has no `expiresAt` is kept for as long.
const KEPT_MAX: Duration = Duration::from_hours(30 * 24);
/// A provider token is used for so long; Apple refuses those of more than an hour.
const TOKEN_USED: Duration = Duration::from_mins(50);
/// A provider token is never followed by another sooner.
const TOKEN_MIN: Duration = Duration::from_mins(20);
/// What Apple wants to be waited after errors of its own ("Handling notification responses").
const OUTAGE_WAITS: [Duration; 3] =
    [Duration::from_mins(15), Duration::from_mins(30), Duration::from_hours(1)];
/// A device that does not exist; for checks.
const NO_DEVICE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const APNS_ID: HeaderName = HeaderName::from_static("apns-id");
const APNS_TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const APNS_PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const APNS_PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const APNS_EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const APNS_COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");

/// One app at Apple.
#[derive(Debug)]
struct Apns {
    vendor: Vendor,
    signer: Signer,
    /// What every push has.
    headers: HeaderMap,
    style: Style,
}

/// What the app's pushes have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Style {
    /// Shown by the system; else handed to the app, which is woken for it.
    alert: bool,
    sound: Option<String>,
}

/// When failed attempts are repeated, where the configuration does not say.
pub(super) fn policy() -> Policy {
    Policy { unavailable: Some(OUTAGE_WAITS.to_vec()), ..Policy::default() }
}

/// Builds the kind `apns`.
#[allow(clippy::needless_pass_by_value, reason = "every kind is built by one signature")]
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let topic = settings.require::<String>("topic", "the app's bundle id, such as \"com.example.app\"")?;
    let signer = Signer::take(&mut settings)?;
    let alert = match take_choice(&mut settings, "push_type", ["alert", "background"])? {
        None | Some("alert") => true,
        Some(_) => false,
    };
    let base = match take_choice(&mut settings, "environment", ["production", "sandbox"])? {
        None | Some("production") => PRODUCTION,
        Some(_) => SANDBOX,
    };
    let sound = settings.take::<String>("sound", "the name of a sound, or \"\" for none")?;
    let sound = Some(sound.unwrap_or_else(|| "default".to_owned())).filter(|it| !it.is_empty());
    let http2 = take_bool(&mut settings, "http2", true)?;
    let protocol = if http2 { Protocol::Http2 } else { Protocol::Any };
    let vendor = Vendor::take(&parts, &mut settings, Some(base), protocol)?;
    let topic = HeaderValue::try_from(&topic).ok().filter(|it| !it.is_empty()).ok_or_else(|| {
        settings.error("topic", "is no bundle id", "make it one such as \"com.example.app\"")
    })?;
    settings.finish()?;
    let push_type = HeaderValue::from_static(if alert { "alert" } else { "background" });
    let headers = HeaderMap::from_iter([(APNS_TOPIC, topic), (APNS_PUSH_TYPE, push_type)]);
    Ok(Arc::new(Apns { vendor, signer, headers, style: Style { alert, sound } }))
}

fn take_choice(
    settings: &mut Settings,
    key: &'static str,
    choices: [&'static str; 2],
) -> Result<Option<&'static str>, BuildError> {
    let expected = format!("{:?} or {:?}", choices[0], choices[1]);
    let Some(text) = settings.take::<String>(key, &expected)? else { return Ok(None) };
    let choice = choices.into_iter().find(|it| *it == text);
    let wrong = || settings.error(key, format!("is {text:?}"), format!("make it {expected}"));
    choice.map(Some).ok_or_else(wrong)
}

impl Provider for Apns {
    fn name(&self) -> &str {
        &self.vendor.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let Target::Token(device) = &push.target else {
                let kind = push.target.kind();
                return not_sent("target", &format!("APNs takes no target of kind {kind}"));
            };
            let body = payload(push, &self.style).to_string();
            if body.len() > SIZE_MAX {
                let why = format!("{} bytes are more than the {SIZE_MAX} that APNs takes", body.len());
                return not_sent("too_large", &why);
            }
            let Some(mut request) = self.vendor.post_json(&["3", "device", device], body.into()) else {
                return not_sent("request", "the address cannot be written down");
            };
            headers(request.headers_mut(), push, self.style.alert, self.vendor.now());
            self.send(request, self.vendor.mask(std::slice::from_ref(push))).await
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<Checked, Failure>> {
        async move {
            let body = json!({ "aps": { "content-available": 1 } }).to_string();
            let Some(mut request) = self.vendor.post_json(&["3", "device", NO_DEVICE], body.into()) else {
                return Err(Failure::new(FailureClass::AuthConfig, "request"));
            };
            request.headers_mut().insert(APNS_PRIORITY, HeaderValue::from_static("5"));
            match self.send(request, self.vendor.mask(&[])).await {
                Outcome::Failed(failure) if failure.class != FailureClass::InvalidTarget => Err(failure),
                Outcome::Accepted { .. } | Outcome::Pending { .. } => Ok(Checked::unproven(
                    "it took a push to a device that does not exist: this is not APNs, and tells nothing \
                     about key and topic",
                )),
                Outcome::Failed(_) => Ok(Checked::proven(
                    "APNs took key and topic and refused a device that does not exist; this tells nothing \
                     about whether the devices are of this environment",
                )),
            }
        }
        .boxed()
    }
}

impl Apns {
    /// Makes the one call with the provider token.
    async fn send(&self, mut request: Request, mask: Mask) -> Outcome {
        let Some(token) = self.signer.token(self.vendor.now()) else {
            return Outcome::Failed(Failure::new(FailureClass::AuthConfig, "key"));
        };
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().insert(AUTHORIZATION, token.header.clone());
        let mask = mask.and(token.secret.expose(), "[provider token]");
        match self.vendor.call(request, &mask).await {
            Err(failure) => Outcome::Failed(failure),
            Ok(answer) => match outcome(&self.vendor, &answer, &mask) {
                // A token that is too new to be followed by another one is refused for a clock that is wrong.
                Outcome::Failed(failure)
                    if failure.code == EXPIRED_TOKEN && !self.signer.forget(&token, self.vendor.now()) =>
                {
                    Outcome::Failed(Failure { class: FailureClass::AuthConfig, retry_after: None, ..failure })
                }
                other => other,
            },
        }
    }
}

/// What APNs gets to know about a push besides its content.
fn headers(headers: &mut HeaderMap, push: &Push, alert: bool, now: Timestamp) {
    let latest = now.plus(KEPT_MAX);
    let until = push.message.expires_at.map_or(latest, |it| it.min(latest));
    let at_once = alert && push.message.priority != Some(Priority::Normal);
    headers.insert(APNS_EXPIRATION, HeaderValue::from(until.as_micros() / 1_000_000));
    headers.insert(APNS_PRIORITY, HeaderValue::from_static(if at_once { "10" } else { "5" }));
    for (name, text) in [(APNS_ID, push.delivery_id.to_string()), (APNS_COLLAPSE_ID, collapse_id(push))] {
        // Both are visible ASCII, which every header takes.
        headers.extend(HeaderValue::try_from(text).ok().map(|it| (name, it)));
    }
}

/// The JSON that the device gets.
fn payload(push: &Push, style: &Style) -> Value {
    let message: &Message = &push.message;
    let text = |it: &str| Value::from(it);
    let alert = object([("title", Some(text(title(message)))), ("body", body(message).map(text))]);
    let aps = if style.alert {
        object([
            ("alert", alert),
            ("sound", style.sound.as_deref().map(text)),
            ("thread-id", message.category.as_deref().map(text)),
            ("mutable-content", message.image_url.is_some().then(|| 1.into())),
        ])
    } else {
        object([("content-available", Some(1.into()))])
    };
    let payload = object([
        ("aps", aps),
        ("messageId", Some(text(&message.message_id.to_string()))),
        ("deliveryId", Some(text(&push.delivery_id.to_string()))),
        ("link", message.link.as_deref().map(text)),
        ("imageUrl", message.image_url.as_deref().map(text)),
        ("data", (!message.data.is_empty()).then(|| message.data.clone().into())),
    ]);
    payload.unwrap_or_default()
}

/// The reason that a provider token is too old.
const EXPIRED_TOKEN: &str = "ExpiredProviderToken";

/// What the reasons mean that Apple documents.
const REASONS: &[(FailureClass, &[&str])] = &[
    (
        FailureClass::InvalidTarget,
        &["BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "Unregistered"],
    ),
    (
        FailureClass::AuthConfig,
        &[
            "BadCertificate",
            "BadCertificateEnvironment",
            "BadEnvironmentKeyIdInToken",
            "BadTopic",
            "Forbidden",
            "InvalidProviderToken",
            "MissingProviderToken",
            "MissingTopic",
            "TopicDisallowed",
            "UnrelatedKeyIdInToken",
        ],
    ),
    (
        FailureClass::Permanent,
        &[
            "BadCollapseId",
            "BadExpirationDate",
            "BadMessageId",
            "BadPath",
            "BadPriority",
            "DuplicateHeaders",
            "InvalidPushType",
            "MethodNotAllowed",
            "MissingDeviceToken",
            "PayloadEmpty",
            "PayloadTooLarge",
        ],
    ),
    (
        FailureClass::Retry,
        &[
            EXPIRED_TOKEN,
            "IdleTimeout",
            "InternalServerError",
            "ServiceUnavailable",
            "Shutdown",
            "TooManyProviderTokenUpdates",
            TOO_MANY_FOR_DEVICE,
        ],
    ),
];

/// The reasons that may mean another environment or topic than ours as well as a token that is none.
const SUSPECT: [&str; 2] = ["BadDeviceToken", "DeviceTokenNotForTopic"];

/// The reason that one device gets too much.
const TOO_MANY_FOR_DEVICE: &str = "TooManyRequests";

/// What APNs' answer means. Pure but for the clock, from which a date in `Retry-After` counts.
fn outcome(vendor: &Vendor, answer: &Answer, mask: &Mask) -> Outcome {
    if answer.status == 200 {
        let id = answer.headers.get(APNS_ID).and_then(|it| it.to_str().ok());
        let provider_message_id = id.and_then(|it| Vendor::id(it, mask));
        return Outcome::Accepted { provider_message_id, status: Some(200) };
    }
    let json = answer.json();
    let reason = json.as_ref().and_then(|it| it.get("reason")?.as_str());
    let plain = vendor.by_status(reason, answer, mask);
    let known = |it: &&(FailureClass, &[&str])| reason.is_some_and(|reason| it.1.contains(&reason));
    let class = REASONS.iter().find(known).map_or(plain.class, |it| it.0);
    let scope = if reason == Some(TOO_MANY_FOR_DEVICE) { RetryScope::Device } else { plain.scope };
    let wait = match reason {
        Some(EXPIRED_TOKEN) => Some(Duration::ZERO),
        _ => plain.retry_after,
    };
    let millis = json.as_ref().and_then(|it| it.get("timestamp")?.as_i64());
    let as_of = millis.filter(|_| class == FailureClass::InvalidTarget && answer.status == 410);
    let as_of = as_of.and_then(|it| it.checked_mul(1_000)).map(Timestamp::from_micros);
    let is_suspect = reason.is_some_and(|it| SUSPECT.contains(&it));
    Outcome::Failed(Failure { class, scope, retry_after: wait, as_of, is_suspect, ..plain })
}

/// A provider token.
#[derive(Debug)]
struct Token {
    /// `bearer …`, ready to send; not shown.
    header: HeaderValue,
    secret: Secret,
    since: Timestamp,
}

/// Whoever signs provider tokens for one team.
struct Signer {
    key: EncodingKey,
    key_id: String,
    team_id: String,
    known: Mutex<Option<Arc<Token>>>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} of {})", self.key_id, self.team_id)
    }
}

impl Signer {
    fn take(settings: &mut Settings) -> Result<Self, BuildError> {
        let key_id = settings.require("key_id", "the id of the key, ten characters")?;
        let team_id = settings.require("team_id", "the id of the team, ten characters")?;
        let secret = take_secret(settings, "key")?;
        let key = EncodingKey::from_ec_pem(secret.expose().as_bytes()).map_err(|_| {
            let problem = "refers to something that is no private key of an elliptic curve in PEM";
            settings.error("key", problem, "refer to the .p8 file that Apple gave for this key")
        })?;
        let signer = Self { key, key_id, team_id, known: Mutex::default() };
        if signer.sign(Timestamp::default()).is_none() {
            let problem = "refers to a key that cannot sign with ES256";
            return Err(settings.error("key", problem, "refer to the .p8 file that Apple gave for this key"));
        }
        Ok(signer)
    }

    /// The token to use now; signed here where there is none, while all others wait.
    fn token(&self, now: Timestamp) -> Option<Arc<Token>> {
        let mut known = self.known();
        if let Some(token) = known.as_ref().filter(|it| now.since(it.since) < TOKEN_USED) {
            return Some(Arc::clone(token));
        }
        let token = Arc::new(self.sign(now)?);
        *known = Some(Arc::clone(&token));
        Some(token)
    }

    /// Never uses this token again, unless it is too new; whether it can be followed by another.
    fn forget(&self, token: &Arc<Token>, now: Timestamp) -> bool {
        let mut known = self.known();
        if now.since(token.since) < TOKEN_MIN {
            return false;
        }
        if known.as_ref().is_some_and(|it| Arc::ptr_eq(it, token)) {
            *known = None;
        }
        true
    }

    fn sign(&self, now: Timestamp) -> Option<Token> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = json!({ "iss": self.team_id, "iat": now.as_micros() / 1_000_000 });
        let text = jsonwebtoken::encode(&header, &claims, &self.key).ok()?;
        let mut header = HeaderValue::try_from(format!("bearer {text}")).ok()?;
        header.set_sensitive(true);
        Some(Token { header, secret: Secret::new(text), since: now })
    }

    fn known(&self) -> MutexGuard<'_, Option<Arc<Token>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
