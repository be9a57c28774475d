//! The provider for browsers: Web Push (RFC 8030), encrypted (RFC 8291), signed with VAPID (RFC 8292).
//!
//! A subscription carries the address that is called, and it comes from whoever subscribes. So only the
//! push services that the settings name are called, however well the address reads.

mod encryption;
mod vapid;

use std::{borrow::Cow, sync::Arc, time::Duration};

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    rand,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::{BoxFuture, FutureExt, ready};
use reqwest::{
    Method, Request, Url,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::{
    encryption::{SALT_BYTES, TEXT_MAX, encrypt},
    vapid::Vapid,
};
use super::{
    Checked, Failure, Outcome, Parts, Provider, Push, RetryScope,
    exchange::{Answer, Protocol},
    mask::Mask,
    retry::Policy,
    settings::{BuildError, Settings},
    vendor::{Vendor, body, not_sent, take_secret, title, ttl},
};
use crate::{
    event::FailureClass,
    message::{Message, Priority, Target, subscription::Subscription},
};

/// The push services of the browsers there are.
const SERVICES: [&str; 4] =
    ["fcm.googleapis.com", "*.push.services.mozilla.com", "*.notify.windows.com", "web.push.apple.com"];
/// How long a service keeps a push for a browser that is away: four weeks, the most that all of them take.
const TTL_MAX: Duration = Duration::from_hours(28 * 24);
/// Longest topic, in characters of base64url.
const TOPIC_MAX: usize = 32;

const HOSTS: &str = "a list of hosts such as \"push.example.com\" and \"*.push.example.com\", or origins such \
                     as \"http://127.0.0.1:8090\"";
const SUBJECT: &str = "\"mailto:\" and an address, or an address beginning with \"https://\", that the push \
                       services can reach you by";

/// Browsers, through the push service that each of them has.
#[derive(Debug)]
struct WebPush {
    vendor: Vendor,
    vapid: Vapid,
    allowed: Vec<Allowed>,
}

/// What may be called.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    /// This host, with TLS and at the usual port.
    Host(String),
    /// Every host that ends with this, dot included, with TLS and at the usual port.
    Below(String),
    /// This scheme, host and port.
    Origin(String),
}

/// When attempts are repeated, where the configuration does not say.
pub(super) fn policy() -> Policy {
    Policy::default()
}

/// Builds the kind `webpush`.
#[allow(clippy::needless_pass_by_value, reason = "every kind is built the same way")]
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let key = take_secret(&mut settings, "vapid_key")?;
    let subject = take_subject(&mut settings)?;
    let vapid = Vapid::new(key.expose(), subject).ok_or_else(|| {
        let remedy = "make it a P-256 key: 32 bytes as base64url, or PEM";
        settings.error("vapid_key", "refers to something that is no VAPID key", remedy)
    })?;
    let allowed = take_allowed(&mut settings)?;
    let plain = allowed.iter().all(|it| matches!(it, Allowed::Origin(it) if it.starts_with("http:")));
    let vendor = Vendor::anywhere(&parts, &mut settings, Protocol::Any, plain)?;
    settings.finish()?;
    let vendor = vendor.hiding(key.expose().trim(), "[vapid_key]");
    Ok(Arc::new(WebPush { vendor, vapid, allowed }))
}

impl Provider for WebPush {
    fn name(&self) -> &str {
        &self.vendor.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let (request, token) = match self.request(push) {
                Ok(written) => written,
                Err(outcome) => return outcome,
            };
            // The token is good for a day: whoever reads it in the log could push with it.
            let mask = self.vendor.mask(std::slice::from_ref(push)).and(&token, "[vapid]");
            match self.vendor.call(request, &mask).await {
                Ok(answer) => self.outcome(&answer, &mask),
                Err(failure) => Outcome::Failed(failure),
            }
        }
        .boxed()
    }

    /// Services can be asked only by pushing; but the key itself has been read.
    fn check(&self) -> BoxFuture<'_, Result<Checked, Failure>> {
        let detail =
            format!("the key was read and no service asked; applicationServerKey {}", self.vapid.public());
        ready(Ok(Checked::unproven(detail))).boxed()
    }
}

impl WebPush {
    /// The call and the token in it; else what the push came to without one.
    fn request(&self, push: &Push) -> Result<(Request, String), Outcome> {
        let Target::Subscription(text) = &push.target else {
            return Err(not_sent("target", "the target is no subscription"));
        };
        let Ok(to) = Subscription::read(text) else { return Err(invalid("the subscription cannot be read")) };
        if !self.allowed.iter().any(|it| it.holds(&to.url)) {
            return Err(not_sent("host_not_allowed", "allowed_hosts does not name the subscription's host"));
        }
        let text = content(push).to_string();
        if text.len() > TEXT_MAX {
            let why = format!("{} bytes of JSON are more than {TEXT_MAX}", text.len());
            return Err(not_sent("too_large", &why));
        }
        let (key, salt) = fresh().ok_or_else(|| not_sent("crypto", "no key could be made"))?;
        let body = encrypt(text.as_bytes(), &to, &key, salt)
            .ok_or_else(|| invalid("the subscription's key is no point of the curve"))?;
        let now = self.vendor.now();
        let signed = self.vapid.token(&to.origin(), now);
        let token = signed.ok_or_else(|| not_sent("crypto", "no token could be signed"))?;
        let mut request = Request::new(Method::POST, to.url);
        *request.headers_mut() = headers(&push.message, ttl(&push.message, now));
        if let Ok(mut value) = HeaderValue::try_from(self.vapid.authorization(&token)) {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        *request.body_mut() = Some(body.into());
        Ok((request, token))
    }

    fn outcome(&self, answer: &Answer, mask: &Mask) -> Outcome {
        let status = answer.status;
        let json = answer.json();
        let said = code(json.as_ref());
        let failed = |class, code: &str, scope| self.vendor.failure(class, code, scope, answer, mask);
        let plain = format!("http_{status}");
        let code = said.as_deref().unwrap_or(&plain);
        let failure = match status {
            200..=299 => {
                let provider_message_id =
                    message_id(answer, json.as_ref()).and_then(|it| Vendor::id(&it, mask));
                return Outcome::Accepted { provider_message_id, status: Some(status) };
            }
            // By the standard this is about the subscription, and there is nothing else at its address.
            404 | 410 => failed(FailureClass::InvalidTarget, code, RetryScope::Message),
            // Made with another key of ours: nobody but the browser can cure that, by subscribing anew.
            400 | 401 | 403 if of_another_key(answer) => {
                let code = said.as_deref().unwrap_or("vapid_mismatch");
                failed(FailureClass::InvalidTarget, code, RetryScope::Message)
            }
            // Other browsers have other services: one that has enough does not stop the others.
            429 => failed(FailureClass::Retry, code, RetryScope::Device),
            // Mozilla's way of saying "at once".
            503 if json.as_ref().is_some_and(|it| it["errno"] == 202) => Failure {
                retry_after: answer.retry_after(self.vendor.now()).or(Some(Duration::ZERO)),
                ..failed(FailureClass::Retry, code, RetryScope::Message)
            },
            _ => self.vendor.by_status(said.as_deref(), answer, mask),
        };
        Outcome::Failed(failure)
    }
}

impl Allowed {
    fn parse(text: &str) -> Option<Self> {
        if text.contains("://") {
            let url = Url::parse(text).ok().filter(|it| {
                matches!(it.scheme(), "http" | "https")
                    && it.path() == "/"
                    && it.query().is_none()
                    && it.fragment().is_none()
                    && it.username().is_empty()
                    && it.password().is_none()
            })?;
            return Some(Self::Origin(url.origin().ascii_serialization()));
        }
        let (below, host) = text.strip_prefix("*.").map_or((false, text), |it| (true, it));
        let host = host.to_ascii_lowercase();
        let label =
            |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        // Without a letter it is an address of the network, which only an origin names.
        let name = host.split('.').all(label) && host.bytes().any(|it| it.is_ascii_alphabetic());
        // `*.com` would be everybody.
        if !name || (below && !host.contains('.')) {
            return None;
        }
        Some(if below { Self::Below(format!(".{host}")) } else { Self::Host(host) })
    }

    fn holds(&self, url: &Url) -> bool {
        let host = url.host_str().filter(|_| url.scheme() == "https" && url.port().is_none());
        match self {
            Self::Host(name) => host == Some(name),
            Self::Below(end) => host.is_some_and(|it| it.ends_with(end.as_str())),
            Self::Origin(origin) => url.origin().ascii_serialization() == *origin,
        }
    }
}

/// What the service worker of the app gets, as JSON.
fn content(push: &Push) -> Value {
    let message = &*push.message;
    let mut content = json!({
        "deliveryId": push.delivery_id.to_string(),
        "messageId": message.message_id.as_str(),
        "title": title(message),
    });
    let texts = [
        ("body", body(message)),
        ("category", message.category.as_deref()),
        ("link", message.link.as_deref()),
        ("imageUrl", message.image_url.as_deref()),
        ("locale", message.locale.as_deref()),
        ("collapseKey", message.collapse_key.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            content[name] = text.into();
        }
    }
    if !message.data.is_empty() {
        content["data"] = Value::Object(message.data.clone());
    }
    content
}

fn headers(message: &Message, ttl: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
    let ttl = ttl.unwrap_or(TTL_MAX).min(TTL_MAX).as_secs();
    headers.insert(HeaderName::from_static("ttl"), HeaderValue::from(ttl));
    if let Some(priority) = message.priority {
        let urgency = match priority {
            Priority::Normal => "normal",
            Priority::High => "high",
        };
        headers.insert(HeaderName::from_static("urgency"), HeaderValue::from_static(urgency));
    }
    let topic = message.collapse_key.as_deref().map(topic);
    if let Some(Ok(topic)) = topic.as_deref().map(HeaderValue::from_str) {
        headers.insert(HeaderName::from_static("topic"), topic);
    }
    headers
}

/// A collapse key as a topic: itself where it can be one, else the beginning of its hash.
fn topic(key: &str) -> Cow<'_, str> {
    let fits = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
    if (1..=TOPIC_MAX).contains(&key.len()) && key.bytes().all(fits) {
        return key.into();
    }
    let mut hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key.as_bytes()));
    hash.truncate(TOPIC_MAX);
    hash.into()
}

/// What makes every push unlike every other: an ephemeral key and a salt.
fn fresh() -> Option<(PrivateKey, [u8; SALT_BYTES])> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).ok()?;
    Some((PrivateKey::generate(&ECDH_P256).ok()?, salt))
}

/// The service's own code: Apple's and Microsoft's `reason`, Mozilla's `errno`.
fn code(json: Option<&Value>) -> Option<String> {
    let json = json?;
    let reason = json["reason"].as_str().filter(|it| !it.is_empty()).map(str::to_owned);
    reason.or_else(|| json["errno"].as_u64().map(|it| format!("errno_{it}")))
}

/// Whether a service says that the subscription was made with another VAPID key: Apple by its reason,
/// Google and Mozilla in words.
fn of_another_key(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    [
        "vapidpkhashmismatch",
        "do not correspond to the credentials used to create the subscription",
        "vapid public key mismatch",
    ]
    .iter()
    .any(|it| text.contains(it))
}

/// The service's id: the end of the path of `Location`, else what Mozilla, Apple and Microsoft say.
fn message_id(answer: &Answer, json: Option<&Value>) -> Option<String> {
    let header = |name: &str| answer.headers.get(name)?.to_str().ok();
    let location = header(LOCATION.as_str()).and_then(|it| {
        let path = it.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        path.rsplit('/').next().filter(|it| !it.is_empty())
    });
    let named = || json?["message-id"].as_str();
    let id = location.or_else(named).or_else(|| header("apns-id")).or_else(|| header("x-wns-msg-id"));
    id.map(str::to_owned)
}

/// A subscription that no push can ever reach: nothing was sent.
fn invalid(why: &str) -> Outcome {
    let answer = Some(format!("not sent: {why}"));
    Outcome::Failed(Failure { answer, ..Failure::new(FailureClass::InvalidTarget, "bad_subscription") })
}

fn take_subject(settings: &mut Settings) -> Result<String, BuildError> {
    let subject: String = settings.require("subject", SUBJECT)?;
    // Apple refuses the token otherwise.
    let clean = subject.chars().all(|it| it.is_ascii_graphic() && !matches!(it, '<' | '>'))
        && !subject.contains("localhost");
    let known = match subject.split_once(':') {
        Some(("mailto", address)) => {
            address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
        }
        Some(("https", _)) => Url::parse(&subject).is_ok(),
        _ => false,
    };
    if clean && known {
        return Ok(subject);
    }
    Err(settings.error("subject", format!("is {subject:?}"), format!("make it {SUBJECT}")))
}

fn take_allowed(settings: &mut Settings) -> Result<Vec<Allowed>, BuildError> {
    let given: Option<Vec<String>> = settings.take("allowed_hosts", HOSTS)?;
    let hosts = given.unwrap_or_else(|| SERVICES.map(str::to_owned).to_vec());
    if hosts.is_empty() {
        return Err(settings.error("allowed_hosts", "has no entry", format!("make it {HOSTS}")));
    }
    let read = |host: &String| {
        let wrong = || settings.error("allowed_hosts", format!("has {host:?}"), format!("make it {HOSTS}"));
        Allowed::parse(host).ok_or_else(wrong)
    };
    hosts.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
