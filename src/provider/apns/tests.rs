//! What is sent to APNs, what its answers mean, and how provider tokens are shared.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use jsonwebtoken::{DecodingKey, Validation};

use super::super::{
    Configured, build,
    double::{self, Call, Reply, against, answer, failure, reply},
    tests::push,
};
use super::*;
use crate::clock::ManualClock;

const NOW: &str = "2026-11-23T08:00:00Z";

/// A signing key as Apple gives it, and what verifies it.
struct Key {
    file: tempfile::NamedTempFile,
    pem: String,
    public: Vec<u8>,
}

impl Key {
    fn new() -> Self {
        let double::Key { pem, public } = double::ec_key();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &pem).unwrap();
        Self { file, pem, public }
    }

    fn settings(&self, base: &str) -> Value {
        let key = format!("file:{}", self.file.path().display());
        json!({
            "topic": "com.example.app", "key_id": "KEY1234567", "team_id": "TEAM123456", "key": key,
            "base_url": base, "http2": false,
        })
    }

    fn issued(&self, jwt: &str) -> i64 {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.validate_exp = false;
        rules.required_spec_claims.clear();
        let proof =
            jsonwebtoken::decode::<Value>(jwt, &DecodingKey::from_ec_der(&self.public), &rules).unwrap();
        assert_eq!(proof.header.kid.as_deref(), Some("KEY1234567"));
        assert_eq!(proof.claims["iss"], "TEAM123456");
        proof.claims["iat"].as_i64().unwrap()
    }
}

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(now()))
}

fn configured(key: &Key, base: &str, clock: Arc<ManualClock>) -> Configured {
    build("apple", "apns", key.settings(base), clock).unwrap()
}

fn vendor() -> Vendor {
    let parts =
        Parts { name: "apple".into(), timeout: Duration::from_secs(1), concurrency: 1, clock: clock() };
    let mut settings = Settings::new("apple", json!({ "base_url": "http://127.0.0.1:9" })).unwrap();
    Vendor::take(&parts, &mut settings, Some(PRODUCTION), Protocol::Any).unwrap()
}

/// Answers as APNs does to a push that it takes.
fn accepts(call: &Call) -> Reply {
    (200, vec![("apns-id", call.header("apns-id").to_owned())], String::new())
}

fn little() -> Push {
    let message = json!({
        "messageId": "m", "notificationType": ["PUSH"], "recipientId": "r", "title": "Hi",
    });
    Push { message: Arc::new(serde_json::from_value(message).unwrap()), ..push() }
}

#[test]
fn the_payload_says_what_the_message_says() {
    let alert = Style { alert: true, sound: Some("default".into()) };
    let full = push();
    let expected = json!({
        "aps": {
            "alert": { "title": "Your pass expires tomorrow", "body": "Only on the phone" },
            "sound": "default", "thread-id": "pass", "mutable-content": 1,
        },
        "messageId": "m-42", "deliveryId": full.delivery_id,
        "link": "app://pass/7", "imageUrl": "https://img.example/7.png", "data": full.message.data,
    });
    assert_eq!(payload(&full, &alert), expected);
    let little = little();
    let ids = json!({ "messageId": "m", "deliveryId": little.delivery_id });
    let with = |aps: Value| {
        let mut body = ids.clone();
        body["aps"] = aps;
        body
    };
    let silent = Style { sound: None, ..alert };
    assert_eq!(payload(&little, &silent), with(json!({ "alert": { "title": "Hi" } })));
    let background = Style { alert: false, sound: None };
    assert_eq!(payload(&little, &background), with(json!({ "content-available": 1 })));
}

#[test]
fn headers_say_until_when_how_urgent_and_what_is_replaced() {
    let with = |change: &dyn Fn(&mut Message), alert| {
        let mut push = push();
        change(Arc::make_mut(&mut push.message));
        let mut map = HeaderMap::new();
        headers(&mut map, &push, alert, now());
        let text = |name: HeaderName| map[name].to_str().unwrap().to_owned();
        assert_eq!(text(APNS_ID), push.delivery_id.to_string());
        [text(APNS_EXPIRATION), text(APNS_PRIORITY), text(APNS_COLLAPSE_ID)]
    };
    let delivery = push().delivery_id.to_string();
    assert_eq!(with(&|_| {}, true), ["1795424400", "10", "pass-7"]);
    assert_eq!(with(&|it| it.priority = None, true)[1], "10");
    assert_eq!(with(&|it| it.priority = Some(Priority::Normal), true)[1], "5");
    assert_eq!(with(&|_| {}, false)[1], "5", "Apple wants 5 for background pushes");
    let month = (now().as_micros() / 1_000_000 + 30 * 86_400).to_string();
    assert_eq!(with(&|it| it.expires_at = None, true)[0], month);
    assert_eq!(with(&|it| it.expires_at = Some(now().plus(KEPT_MAX * 2)), true)[0], month);
    assert_eq!(with(&|it| it.collapse_key = None, true)[2], delivery);
    for key in ["한글".to_owned(), "with space".to_owned(), "x".repeat(65)] {
        let ids: Vec<_> =
            (0..2).map(|_| with(&|it| it.collapse_key = Some(key.clone()), true)[2].clone()).collect();
        assert_eq!((ids[0].len(), &ids[0]), (64, &ids[1]), "{key}");
    }
    assert_eq!(with(&|it| it.collapse_key = Some("x".repeat(64)), true)[2], "x".repeat(64));
}

#[test]
fn every_answer_of_apns_has_its_meaning() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
    use RetryScope::{Device, Message, Provider};
    let reasons: &[(u16, &str, FailureClass, RetryScope, Option<u64>)] = &[
        (400, "BadDeviceToken", InvalidTarget, Message, None),
        (400, "DeviceTokenNotForTopic", InvalidTarget, Message, None),
        (403, "ExpiredProviderToken", Retry, Message, Some(0)),
        (403, "InvalidProviderToken", AuthConfig, Message, None),
        (403, "MissingProviderToken", AuthConfig, Message, None),
        (403, "BadCertificate", AuthConfig, Message, None),
        (403, "BadCertificateEnvironment", AuthConfig, Message, None),
        (403, "Forbidden", AuthConfig, Message, None),
        (403, "BadEnvironmentKeyIdInToken", AuthConfig, Message, None),
        (403, "UnrelatedKeyIdInToken", AuthConfig, Message, None),
        (400, "TopicDisallowed", AuthConfig, Message, None),
        (400, "BadTopic", AuthConfig, Message, None),
        (400, "MissingTopic", AuthConfig, Message, None),
        (413, "PayloadTooLarge", Permanent, Message, None),
        (400, "PayloadEmpty", Permanent, Message, None),
        (400, "BadCollapseId", Permanent, Message, None),
        (400, "BadExpirationDate", Permanent, Message, None),
        (400, "BadMessageId", Permanent, Message, None),
        (400, "BadPriority", Permanent, Message, None),
        (400, "InvalidPushType", Permanent, Message, None),
        (400, "DuplicateHeaders", Permanent, Message, None),
        (400, "MissingDeviceToken", Permanent, Message, None),
        (404, "BadPath", Permanent, Message, None),
        (405, "MethodNotAllowed", Permanent, Message, None),
        (429, "TooManyRequests", Retry, Device, None),
        (429, "TooManyProviderTokenUpdates", Retry, Provider, None),
        (400, "IdleTimeout", Retry, Message, None),
        (500, "InternalServerError", Retry, Message, None),
        (503, "ServiceUnavailable", Retry, Message, None),
        (503, "Shutdown", Retry, Message, None),
        // What nobody knows yet goes by its status.
        (400, "BrandNew", Permanent, Message, None),
        (403, "BrandNew", AuthConfig, Message, None),
        (410, "BrandNew", Permanent, Message, None),
        (429, "BrandNew", Retry, Provider, None),
        (503, "BrandNew", Retry, Message, None),
    ];
    let (vendor, mask) = (vendor(), Mask::default());
    let come_to = |status, headers: &[(&'static str, &str)], body: &str| {
        failure(outcome(&vendor, &answer(status, headers, body), &mask))
    };
    for &(status, reason, class, scope, wait) in reasons {
        let body = format!(r#"{{"reason":"{reason}"}}"#);
        let seen = come_to(status, &[], &body);
        let expected = Failure {
            status: Some(status),
            answer: Some(body),
            scope,
            retry_after: wait.map(Duration::from_secs),
            is_suspect: ["BadDeviceToken", "DeviceTokenNotForTopic"].contains(&reason),
            ..Failure::new(class, reason)
        };
        assert_eq!(seen, expected);
    }
    for reason in ["Unregistered", "ExpiredToken"] {
        let body = format!(r#"{{"reason":"{reason}","timestamp":1700000000000}}"#);
        let seen = come_to(410, &[], &body);
        assert_eq!((seen.class, seen.code.as_str()), (InvalidTarget, reason));
        assert_eq!(seen.as_of, Timestamp::parse("2023-11-14T22:13:20Z"));
    }
    for (status, body, class, code) in [
        (410, "", Permanent, "http_410"),
        (410, r#"{"reason":"Unregistered","timestamp":"soon"}"#, InvalidTarget, "Unregistered"),
        (410, r#"{"reason":"Unregistered","timestamp":9223372036854775807}"#, InvalidTarget, "Unregistered"),
        (400, r#"{"reason":7}"#, Permanent, "http_400"),
        (400, r#"["reason"]"#, Permanent, "http_400"),
        (403, "<html>403</html>", AuthConfig, "http_403"),
        (502, "<html>502</html>", Retry, "http_502"),
        (500, "{\"reas", Retry, "http_500"),
        (404, "", Permanent, "http_404"),
    ] {
        let seen = come_to(status, &[], body);
        assert_eq!((seen.class, seen.code.as_str(), seen.as_of), (class, code, None), "{status} {body}");
    }
    let waits = come_to(503, &[("retry-after", "30")], r#"{"reason":"Shutdown"}"#);
    assert_eq!(waits.retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn one_provider_token_serves_many_pushes_until_it_is_old() {
    let (key, clock) = (Key::new(), clock());
    let push = push();
    let (outcomes, calls) = against(accepts, async |base| {
        let configured = configured(&key, &base, Arc::clone(&clock));
        let mut outcomes = join_all((0..200).map(|_| configured.provider.push(&push))).await;
        clock.advance(Duration::from_mins(49));
        outcomes.push(configured.provider.push(&push).await);
        clock.advance(Duration::from_mins(1));
        outcomes.push(configured.provider.push(&push).await);
        let shown = format!("{configured:?}");
        assert!(!shown.contains(&key.pem[30..60]) && !shown.contains("eyJ"), "{shown}");
        outcomes
    })
    .await;
    let id = push.delivery_id.to_string();
    let accepted = Outcome::Accepted { provider_message_id: Some(id.clone()), status: Some(200) };
    assert!(outcomes.iter().all(|it| *it == accepted), "{:?}", outcomes[0]);
    let jwts: Vec<_> =
        calls.iter().map(|it| it.header("authorization").strip_prefix("bearer ").unwrap()).collect();
    assert!(jwts[..201].iter().all(|it| *it == jwts[0]));
    let start = now().as_micros() / 1_000_000;
    assert_eq!((key.issued(jwts[0]), key.issued(jwts[201])), (start, start + 50 * 60));
    let call = &calls[0];
    assert_eq!(call.uri.path(), "/3/device/dev%2Fce+token=1234");
    let names = ["apns-topic", "apns-push-type", "apns-id"];
    assert_eq!(names.map(|it| call.header(it)), ["com.example.app", "alert", id.as_str()]);
    assert_eq!(call.json()["aps"]["alert"]["body"], "Only on the phone");
}

#[tokio::test]
async fn a_provider_token_is_replaced_only_when_it_may_be() {
    let (key, clock) = (Key::new(), clock());
    let expired = Arc::new(AtomicBool::new(true));
    let refuse = {
        let expired = Arc::clone(&expired);
        move |call: &Call| {
            if expired.load(Ordering::SeqCst) {
                reply(403, r#"{"reason":"ExpiredProviderToken"}"#)
            } else {
                accepts(call)
            }
        }
    };
    let push = push();
    let ((new, old), calls) = against(refuse, async |base| {
        let configured = configured(&key, &base, Arc::clone(&clock));
        let new = failure(configured.provider.push(&push).await);
        clock.advance(Duration::from_mins(21));
        let old = failure(configured.provider.push(&push).await);
        expired.store(false, Ordering::SeqCst);
        assert!(matches!(configured.provider.push(&push).await, Outcome::Accepted { .. }));
        (new, old)
    })
    .await;
    assert_eq!(
        (new.class, new.code.as_str(), new.retry_after),
        (FailureClass::AuthConfig, EXPIRED_TOKEN, None)
    );
    let at_once = Some(Duration::ZERO);
    assert_eq!(
        (old.class, old.code.as_str(), old.retry_after),
        (FailureClass::Retry, EXPIRED_TOKEN, at_once)
    );
    let jwts: Vec<_> = calls.iter().map(|it| it.header("authorization")).collect();
    assert_eq!(jwts[0], jwts[1]);
    assert_ne!(jwts[1], jwts[2]);
}

#[tokio::test]
async fn what_apns_would_not_take_is_not_sent() {
    let key = Key::new();
    let (failures, calls) = against(accepts, async |base| {
        let provider = configured(&key, &base, clock()).provider;
        let mut long = push();
        Arc::make_mut(&mut long.message).push = None;
        Arc::make_mut(&mut long.message).body = Some("x".repeat(4000));
        let topic = Push { target: Target::Topic("news".into()), ..push() };
        [failure(provider.push(&long).await), failure(provider.push(&topic).await)]
    })
    .await;
    assert!(calls.is_empty());
    assert_eq!(
        failures.map(|it| (it.class, it.code)),
        [(FailureClass::Permanent, "too_large".to_owned()), (FailureClass::Permanent, "target".to_owned()),]
    );
}

#[tokio::test]
async fn a_check_asks_for_a_device_that_does_not_exist() {
    let key = Key::new();
    for (status, reason, ok) in
        [(400, "BadDeviceToken", true), (403, "InvalidProviderToken", false), (400, "TopicDisallowed", false)]
    {
        let said = format!(r#"{{"reason":"{reason}"}}"#);
        let (check, calls) = against(
            move |_| reply(status, said.clone()),
            async |base| configured(&key, &base, clock()).provider.check().await,
        )
        .await;
        assert_eq!(check.is_ok(), ok, "{reason}");
        assert_eq!(calls[0].uri.path(), format!("/3/device/{NO_DEVICE}"));
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused_without_being_shown() {
    let key = Key::new();
    let with = |name: &str, value: Value| {
        let mut settings = key.settings("https://apns.example");
        settings[name] = value;
        build("apple", "apns", settings, clock()).map(|_| ()).map_err(|it| it.to_string())
    };
    assert_eq!(with("environment", "sandbox".into()), Ok(()));
    assert_eq!(with("push_type", "background".into()), Ok(()));
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), "s3cret").unwrap();
    for (name, value, problem) in [
        ("key", format!("file:{}", wrong.path().display()), "no private key of an elliptic curve"),
        ("environment", "test".into(), "environment is \"test\"; make it \"production\" or \"sandbox\""),
        ("push_type", "voip".into(), "make it \"alert\" or \"background\""),
        ("topic", String::new(), "topic is no bundle id"),
    ] {
        let error = with(name, value.into()).unwrap_err();
        assert!(error.contains(problem) && !error.contains("s3cret"), "{error}");
    }
}
