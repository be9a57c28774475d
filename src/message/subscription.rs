//! A browser's Web Push subscription: read from what a browser gives, written in one way only.
//!
//! The text is what a target carries, what two messages are compared by, and what a device is known by.
//! So there is one text for one subscription: members in a fixed order, keys in one alphabet, and no
//! `expirationTime`, which tells nothing about where the push goes. Whether the address may be called is
//! not decided here, but by the provider that would call it.

use std::{borrow::Cow, fmt, net::IpAddr};

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_URL_SAFE_NO_PAD,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Host, Url};

/// Longest address of a subscription, in bytes.
pub const ENDPOINT_MAX: usize = 2048;
/// Bytes of a public key on P-256 that is not compressed.
pub const P256DH_BYTES: usize = 65;
/// Bytes of the authentication secret.
pub const AUTH_BYTES: usize = 16;

/// A subscription as the browser gave it: a secret of the device.
#[derive(Clone, PartialEq, Eq)]
pub struct Subscription {
    /// As it was given: no library's taste in addresses may move the text that names devices.
    endpoint: String,
    /// Where the browser's push service takes pushes for it.
    pub url: Url,
    /// The browser's public key on P-256, not compressed.
    pub p256dh: [u8; P256DH_BYTES],
    /// The secret shared with the browser.
    pub auth: [u8; AUTH_BYTES],
}

/// What is wrong with a subscription; says nothing of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadSubscription {
    /// Where in it: empty, `endpoint`, `keys`, `keys.p256dh` or `keys.auth`.
    pub field: &'static str,
    /// What is wrong; reads on after the field.
    pub problem: &'static str,
    /// What kind of wrong.
    pub fault: Fault,
}

/// What kind of wrong something in a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not there.
    Missing,
    /// Of another type than it must be.
    Type,
    /// Too long.
    Length,
    /// None of the values it may have.
    Value,
}

/// The one text. The order of the members is a promise: the text names devices and deliveries.
#[derive(Serialize, Deserialize)]
struct Text<'a> {
    endpoint: Cow<'a, str>,
    keys: Keys,
}

#[derive(Serialize, Deserialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

impl Subscription {
    /// Reads what `PushSubscription.toJSON()` gives in a browser.
    ///
    /// # Errors
    /// When the address could not be called, or a key is missing or cannot be one.
    pub fn parse(value: &Value) -> Result<Self, BadSubscription> {
        let Some(object) = value.as_object() else { return Err(not("", "is not an object")) };
        let endpoint = text(object.get("endpoint"), "endpoint")?;
        let url = address(endpoint)?;
        let keys = match object.get("keys") {
            None | Some(Value::Null) => return Err(missing("keys")),
            Some(keys) => keys.as_object().ok_or(not("keys", "is not an object"))?,
        };
        let p256dh = text(keys.get("p256dh"), "keys.p256dh")?;
        let auth = text(keys.get("auth"), "keys.auth")?;
        let p256dh: [u8; P256DH_BYTES] = bytes(p256dh)
            .filter(|it: &[u8; P256DH_BYTES]| it[0] == 4)
            .ok_or(wrong("keys.p256dh", "is not the base64url of a P-256 key of 65 bytes"))?;
        let auth = bytes(auth).ok_or(wrong("keys.auth", "is not the base64url of 16 bytes"))?;
        Ok(Self { endpoint: endpoint.to_owned(), url, p256dh, auth })
    }

    /// Reads the one text, as a target carries it.
    ///
    /// # Errors
    /// When it is not such a text.
    pub fn read(text: &str) -> Result<Self, BadSubscription> {
        let value = serde_json::from_str(text).map_err(|_| wrong("", "is not JSON"))?;
        Self::parse(&value)
    }

    /// The one text for this subscription.
    #[must_use]
    pub fn canonical(&self) -> String {
        let keys = Keys {
            p256dh: BASE64_URL_SAFE_NO_PAD.encode(self.p256dh),
            auth: BASE64_URL_SAFE_NO_PAD.encode(self.auth),
        };
        // Three texts can always be written.
        serde_json::to_string(&Text { endpoint: self.endpoint.as_str().into(), keys }).unwrap_or_default()
    }

    /// Scheme, host and port of the address, as in `https://push.example`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Every text that could give the subscription away, the longest first.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![
            self.canonical(),
            self.endpoint.clone(),
            self.url.to_string(),
            BASE64_URL_SAFE_NO_PAD.encode(self.p256dh),
            BASE64_URL_SAFE_NO_PAD.encode(self.auth),
        ];
        // The address is a capability by its path, which services repeat without the host.
        let parts = self.url.path().split('/').chain(self.url.query());
        secrets.extend(parts.filter(|it| it.len() >= 8).map(str::to_owned));
        secrets.sort_by_key(|it| std::cmp::Reverse(it.len()));
        secrets
    }
}

/// Only the host: address and keys together are the secret.
impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({}/…)", self.origin())
    }
}

/// Writing the one text into a message as the contract has it: as an object and not as a text of one.
pub(super) mod as_object {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use serde_json::Value;

    use super::Subscription;

    #[allow(clippy::ptr_arg, reason = "serde gives what the field holds")]
    pub(in super::super) fn serialize<S: Serializer>(text: &String, to: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => object.serialize(to),
            // Never made by the contract; still it must come back as it was.
            _ => text.serialize(to),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(text),
            object => Subscription::parse(&object).map(|it| it.canonical()).map_err(D::Error::custom),
        }
    }
}

/// Whether a host is this machine itself.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => IpAddr::V4(*ip).is_loopback(),
        Host::Ipv6(ip) => IpAddr::V6(*ip).is_loopback(),
    }
}

fn address(text: &str) -> Result<Url, BadSubscription> {
    let wrong = |problem| wrong("endpoint", problem);
    if text.len() > ENDPOINT_MAX {
        return Err(bad("endpoint", "has more than 2048 bytes", Fault::Length));
    }
    // Readers of addresses silently drop white space, and would so make one of two texts.
    if !text.bytes().all(|it| it.is_ascii_graphic()) {
        return Err(wrong("has characters that cannot stand in an address"));
    }
    let url = Url::parse(text).map_err(|_| wrong("is not an address"))?;
    let Some(host) = url.host() else { return Err(wrong("is not an address with a host")) };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong("has a user, a password or a fragment"));
    }
    match url.scheme() {
        "https" => {}
        // Push services on the developer's own machine have no certificates.
        "http" if is_loopback(&host) => {}
        _ => return Err(wrong("does not begin with https://")),
    }
    Ok(url)
}

fn text<'a>(value: Option<&'a Value>, field: &'static str) -> Result<&'a str, BadSubscription> {
    match value {
        None | Some(Value::Null) => Err(missing(field)),
        Some(Value::String(text)) if text.is_empty() => Err(missing(field)),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(not(field, "is not a string")),
    }
}

/// So many bytes from base64 in either alphabet, with padding or without it.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['+', '/']) { &STANDARD } else { &URL_SAFE };
    GeneralPurpose::new(alphabet, config).decode(text).ok()?.try_into().ok()
}

const fn wrong(field: &'static str, problem: &'static str) -> BadSubscription {
    bad(field, problem, Fault::Value)
}

const fn not(field: &'static str, problem: &'static str) -> BadSubscription {
    bad(field, problem, Fault::Type)
}

const fn missing(field: &'static str) -> BadSubscription {
    bad(field, "is missing", Fault::Missing)
}

const fn bad(field: &'static str, problem: &'static str, fault: Fault) -> BadSubscription {
    BadSubscription { field, problem, fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const ENDPOINT: &str = "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV";

    fn given(endpoint: &str, p256dh: &str, auth: &str) -> Value {
        json!({ "keys": { "auth": auth, "p256dh": p256dh }, "expirationTime": null, "endpoint": endpoint })
    }

    #[test]
    fn one_subscription_has_one_text() {
        let text = format!(r#"{{"endpoint":"{ENDPOINT}","keys":{{"p256dh":"{P256DH}","auth":"{AUTH}"}}}}"#);
        let classic = P256DH.replace('-', "+").replace('_', "/") + "=";
        for value in [given(ENDPOINT, P256DH, AUTH), given(ENDPOINT, &classic, &format!("{AUTH}=="))] {
            let subscription = Subscription::parse(&value).unwrap();
            assert_eq!(subscription.canonical(), text, "{value}");
            assert_eq!(Subscription::read(&text), Ok(subscription));
        }
    }

    #[test]
    fn a_message_holds_it_as_an_object() {
        let text = Subscription::parse(&given(ENDPOINT, P256DH, AUTH)).unwrap().canonical();
        let target = crate::message::Target::Subscription(text);
        let written = serde_json::to_value(&target).unwrap();
        let keys = json!({ "p256dh": P256DH, "auth": AUTH });
        assert_eq!(written, json!({ "subscription": { "endpoint": ENDPOINT, "keys": keys } }));
        assert_eq!(serde_json::from_value::<crate::message::Target>(written).unwrap(), target);
    }

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        for (endpoint, taken) in [
            ("http://localhost:8090/notify/1", true),
            ("http://127.0.0.1:8090/notify/1", true),
            ("http://[::1]:8090/notify/1", true),
            ("http://push.example.net/1", false),
            ("http://10.0.0.1/1", false),
            ("http://localhost.example.net/1", false),
            ("https://10.0.0.1/1", true),
        ] {
            let read = Subscription::parse(&given(endpoint, P256DH, AUTH));
            assert_eq!(read.is_ok(), taken, "{endpoint}");
        }
    }

    #[test]
    fn what_cannot_be_a_subscription_is_refused_by_its_field() {
        let long = format!("https://push.example.net/{}", "x".repeat(ENDPOINT_MAX));
        let compressed = BASE64_URL_SAFE_NO_PAD.encode([2; 65]);
        for (value, field, problem) in [
            (json!("text"), "", "is not an object"),
            (json!({}), "endpoint", "is missing"),
            (json!({ "endpoint": ENDPOINT }), "keys", "is missing"),
            (json!({ "endpoint": ENDPOINT, "keys": 1 }), "keys", "is not an object"),
            (json!({ "endpoint": ENDPOINT, "keys": {} }), "keys.p256dh", "is missing"),
            (json!({ "endpoint": 1, "keys": {} }), "endpoint", "is not a string"),
            (given("", P256DH, AUTH), "endpoint", "is missing"),
            (given("push.example.net", P256DH, AUTH), "endpoint", "is not an address"),
            (given("https://push.example.net/a\tb", P256DH, AUTH), "endpoint", "has characters"),
            (given(" https://push.example.net/", P256DH, AUTH), "endpoint", "has characters"),
            (given("https://푸시.example/", P256DH, AUTH), "endpoint", "has characters"),
            (given("mailto:a@b.example", P256DH, AUTH), "endpoint", "is not an address with a host"),
            (given("https://u:p@push.example.net/", P256DH, AUTH), "endpoint", "has a user"),
            (given("https://push.example.net/#1", P256DH, AUTH), "endpoint", "has a user"),
            (given("ftp://push.example.net/", P256DH, AUTH), "endpoint", "does not begin with https"),
            (given(&long, P256DH, AUTH), "endpoint", "has more than 2048 bytes"),
            (given(ENDPOINT, AUTH, AUTH), "keys.p256dh", "is not the base64url of a P-256 key"),
            (given(ENDPOINT, &compressed, AUTH), "keys.p256dh", "is not the base64url of a P-256 key"),
            (given(ENDPOINT, "%%%", AUTH), "keys.p256dh", "is not the base64url of a P-256 key"),
            (given(ENDPOINT, P256DH, P256DH), "keys.auth", "is not the base64url of 16 bytes"),
            (given(ENDPOINT, P256DH, ""), "keys.auth", "is missing"),
        ] {
            let bad = Subscription::parse(&value).unwrap_err();
            assert_eq!(bad.field, field, "{value}");
            assert!(bad.problem.starts_with(problem), "{value}: {bad}");
            assert_eq!(bad.fault == Fault::Missing, problem == "is missing");
        }
        assert_eq!(Subscription::read("{").unwrap_err().problem, "is not JSON");
    }

    #[test]
    fn nothing_prints_it_and_all_its_parts_are_known_as_secrets() {
        let subscription = Subscription::parse(&given(ENDPOINT, P256DH, AUTH)).unwrap();
        assert_eq!(format!("{subscription:?}"), "Subscription(https://push.example.net/…)");
        let secrets = subscription.secrets();
        assert_eq!(secrets[0], subscription.canonical());
        for part in [ENDPOINT, P256DH, AUTH, "JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV"] {
            assert!(secrets.iter().any(|it| it == part), "{part}");
        }
    }
}
