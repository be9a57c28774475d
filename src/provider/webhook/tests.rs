//! What the webhook provider signs and sends, and what it makes of answers.

use std::{str::from_utf8, time::Duration};

use aws_lc_rs::signature::{ED25519, KeyPair, UnparsedPublicKey};
use serde_json::json;

use super::super::{Configured, build, double::sink, tests::push};
use super::*;
use crate::{
    clock::{Clock, ManualClock, SystemClock},
    id::MessageId,
    message::Target,
};

/// The key and the signature that the libraries of the specification test themselves with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// The first key of RFC 8032, section 7.1, as its seed.
const SEED: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const SEED_AND_PUBLIC: &str =
    "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
const NOW: &str = "2026-11-23T08:00:00.900000Z";

fn key(secret: &str) -> Result<Key, &'static str> {
    Key::parse(&Secret::new(secret))
}

/// Files with secrets, and their references.
fn files(secrets: &[&str]) -> (Vec<tempfile::NamedTempFile>, Vec<String>) {
    let files: Vec<_> = secrets
        .iter()
        .map(|text| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("{text}\n")).unwrap();
            file
        })
        .collect();
    let references = files.iter().map(|it| format!("file:{}", it.path().display())).collect();
    (files, references)
}

fn built(secrets: &[&str], more: &Value, clock: Arc<dyn Clock>) -> Result<Configured, BuildError> {
    let (_files, secrets) = files(secrets);
    let mut settings = json!({ "url": "http://127.0.0.1:9/hook", "secrets": secrets });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build("hook", "webhook", settings, clock)
}

fn still() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp::parse(NOW).unwrap()))
}

fn adapter() -> Webhook {
    let parts =
        Parts { name: "hook".into(), timeout: Duration::from_secs(5), concurrency: 4, clock: still() };
    let mut settings = Settings::new("hook", json!({})).unwrap();
    let vendor = Vendor::anywhere(&parts, &mut settings, Protocol::Any, true).unwrap();
    let url = Url::parse("http://127.0.0.1:9/").unwrap();
    Webhook { vendor, url, event_type: "notification.push".into(), keys: vec![key(SECRET).unwrap()] }
}

#[test]
fn signatures_are_those_of_the_specification() {
    let signed = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
    assert_eq!(key(SECRET).unwrap().sign(signed), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    // RFC 8032, the signature of nothing.
    for secret in [SEED, SEED_AND_PUBLIC] {
        assert_eq!(
            key(secret).unwrap().sign(b""),
            "v1a,5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw=="
        );
    }
}

#[test]
fn a_call_carries_one_signature_for_each_secret_over_the_bytes_that_are_sent() {
    let keys: Vec<_> = [SECRET, OTHER, SEED].into_iter().map(|it| key(it).unwrap()).collect();
    let now = Timestamp::parse("2023-01-19T00:13:51.999999Z").unwrap();
    let headers = headers(&keys, "id-7", now, b"{}");
    assert_eq!(headers["webhook-id"], "id-7");
    assert_eq!(headers["webhook-timestamp"], "1674087231");
    assert_eq!(headers["content-type"], "application/json");
    let signatures: Vec<_> = headers["webhook-signature"].to_str().unwrap().split(' ').collect();
    let expected: Vec<_> = keys.iter().map(|it| it.sign(b"id-7.1674087231.{}")).collect();
    assert_eq!(signatures, expected);
    assert_eq!(format!("{keys:?}"), "[v1, v1, v1a]");
}

#[test]
fn the_body_says_what_the_message_says() {
    let mut push = push();
    let id = push.delivery_id.to_string();
    let read = |push: &Push| serde_json::from_str::<Value>(&content("notification.push", push)).unwrap();
    assert_eq!(
        read(&push),
        json!({
            "type": "notification.push",
            "timestamp": "2026-11-22T09:00:00.000000Z",
            "data": {
                "deliveryId": id, "messageId": "m-42", "recipientId": "user-42",
                "target": {"kind": "token", "value": "dev/ce+token=1234"},
                "title": "Your pass expires tomorrow", "body": "Only on the phone", "category": "pass",
                "link": "app://pass/7", "imageUrl": "https://img.example/7.png",
                "data": {"passId": "7", "days": 1, "nested": {"deep": true}, "nothing": null},
                "locale": "ko-KR", "collapseKey": "pass-7", "priority": "high",
                "expiresAt": "2026-11-23T09:00:00.000000Z",
            },
        })
    );
    let first = content("notification.push", &push);
    push.attempt += 1;
    assert_eq!(content("notification.push", &push), first, "a repetition says the same");
    assert!(first.starts_with(r#"{"type":"notification.push","timestamp":"#), "{first}");

    let bare = json!({ "messageId": "m-1", "notificationType": ["PUSH"], "recipientId": "u", "title": "T" });
    push.message = Arc::new(serde_json::from_value(bare).unwrap());
    push.target = Target::Alias("u".into());
    assert_eq!(
        read(&push),
        json!({ "type": "notification.push", "data": {
            "deliveryId": id, "messageId": "m-1", "recipientId": "u",
            "target": {"kind": "alias", "value": "u"}, "title": "T",
        } })
    );
}

#[test]
fn when_it_happened_is_known_from_the_message_or_its_id_or_not_at_all() {
    let push = push();
    let at = |id: &str, occurred: Option<&str>| {
        let occurred_at = occurred.map(|it| Timestamp::parse(it).unwrap());
        let message =
            Message { message_id: MessageId::new(id).unwrap(), occurred_at, ..(*push.message).clone() };
        occurred_at_text(&message)
    };
    // The UUID of version 7 in RFC 9562, appendix A.6.
    let v7 = "017F22E2-79B0-7CC3-98C4-DC0C0C07398F";
    assert_eq!(at(v7, None).as_deref(), Some("2022-02-22T19:22:22.000000Z"));
    assert_eq!(at(v7, Some("2026-01-01T00:00:00Z")).as_deref(), Some("2026-01-01T00:00:00.000000Z"));
    assert_eq!(at("5c146b14-3c52-8afd-938a-375d0df1fbf6", None), None);
    assert_eq!(at("order-7", None), None);
}

fn occurred_at_text(message: &Message) -> Option<String> {
    occurred_at(message).map(|it| it.to_string())
}

#[test]
fn the_status_alone_decides() {
    use FailureClass::{AuthConfig, Retry};
    use RetryScope::{Message as One, Provider as All};
    let adapter = adapter();
    let push = push();
    let html = "<html><body>Bad Gateway</body></html>";
    for (status, body) in [
        (200, ""),
        (201, r#"{"error":"this is what success looks like"}"#),
        (202, html),
        (204, ""),
        (299, "{\"broken"),
    ] {
        let answer = answer(status, &[], body);
        let provider_message_id = Some(push.delivery_id.to_string());
        let expected = Outcome::Accepted { provider_message_id, status: Some(status) };
        assert_eq!(adapter.outcome(&push, &answer, &Mask::default()), expected, "{status}");
    }
    for (status, headers, body, class, scope, wait) in [
        (301, &[("location", "https://elsewhere.example/")][..], "", Retry, One, None),
        (302, &[], "", Retry, One, None),
        (304, &[], "", Retry, One, None),
        (400, &[], r#"{"error":"signature"}"#, Retry, One, None),
        (401, &[], "", Retry, One, None),
        (403, &[], html, Retry, One, None),
        (404, &[], "not here", Retry, One, None),
        (408, &[], "", Retry, One, None),
        (410, &[], "", AuthConfig, All, None),
        (413, &[], "", Retry, One, None),
        (418, &[], "", Retry, One, None),
        (429, &[("retry-after", "120")], "", Retry, All, Some(120)),
        (429, &[("retry-after", "Mon, 23 Nov 2026 08:01:00 GMT")], "", Retry, All, Some(59)),
        (429, &[], "{\"broken", Retry, All, None),
        (500, &[], html, Retry, One, None),
        (502, &[], html, Retry, All, None),
        (503, &[("retry-after", "7200")], "", Retry, One, Some(7200)),
        (504, &[("retry-after", "soon")], "", Retry, All, None),
        (599, &[], "", Retry, One, None),
        (600, &[], "", Retry, One, None),
    ] {
        let answer = answer(status, headers, body);
        let Outcome::Failed(failure) = adapter.outcome(&push, &answer, &Mask::default()) else {
            panic!("{status}")
        };
        assert_eq!((failure.class, failure.scope, failure.status), (class, scope, Some(status)));
        assert_eq!(failure.code, format!("http_{status}"));
        assert_eq!(failure.retry_after.map(|it| it.as_secs()), wait, "{status}");
        assert_eq!(failure.answer.as_deref(), (!body.is_empty()).then_some(body));
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let end = super::super::exchange::BodyEnd::Whole;
    Answer { status, headers: headers.collect(), body: body.into(), end }
}

#[tokio::test]
async fn a_receiver_verifies_what_arrives_with_either_secret() {
    // The receiver's library looks at the clock on the wall.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (outcome, calls) = sink((200, &[], "thanks"), async |base| {
        let settings = json!({ "url": format!("{base}/hook?tenant=7") });
        let hook = built(&[SECRET, OTHER, SEED], &settings, clock).unwrap();
        hook.provider.push(&push()).await
    })
    .await;
    let id = push().delivery_id.to_string();
    assert_eq!(outcome, Outcome::Accepted { provider_message_id: Some(id.clone()), status: Some(200) });
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.method.as_str(), call.uri.to_string().as_str()), ("POST", "/hook?tenant=7"));
    assert_eq!((call.header("webhook-id"), call.header("content-type")), (id.as_str(), "application/json"));
    for secret in [SECRET, OTHER] {
        let receiver = standardwebhooks::Webhook::new(secret).unwrap();
        receiver.verify(&call.body, &call.headers).unwrap();
        assert!(receiver.verify(b"{}", &call.headers).is_err());
    }
    let signature =
        call.header("webhook-signature").split(' ').find_map(|it| it.strip_prefix("v1a,")).unwrap();
    let Key::Ed25519(pair) = key(SEED).unwrap() else { panic!("no ed25519") };
    let signed =
        format!("{id}.{}.{}", call.header("webhook-timestamp"), from_utf8(&call.body).unwrap()).into_bytes();
    let public = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
    public.verify(&signed, &BASE64_STANDARD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn a_repetition_has_the_same_id_and_body_and_a_time_of_its_own() {
    let clock = Arc::new(ManualClock::new(Timestamp::parse(NOW).unwrap()));
    let (_, calls) = sink((503, &[], ""), async |base| {
        let hook = built(&[SECRET], &json!({ "url": base }), clock.clone()).unwrap();
        hook.provider.push(&push()).await;
        clock.advance(Duration::from_mins(5));
        hook.provider.push(&Push { attempt: 3, ..push() }).await
    })
    .await;
    let [first, second] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    let times = [first, second].map(|it| it.header("webhook-timestamp").parse::<i64>().unwrap());
    assert_eq!(times, [1_795_420_800, 1_795_421_100]);
    assert_ne!(first.header("webhook-signature"), second.header("webhook-signature"));
}

#[tokio::test]
async fn what_an_endpoint_echoes_is_recorded_without_secrets() {
    let echo = r#"{"token":"dev\/ce+token=1234","key":"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw","why":"full"}"#;
    let (outcome, _) = sink((507, &[], echo), async |base| {
        let hook = built(&[SECRET], &json!({ "url": base }), still()).unwrap();
        assert!(!format!("{:?}", hook.provider).contains("MfKQ"), "{:?}", hook.provider);
        hook.provider.push(&push()).await
    })
    .await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.answer.as_deref(), Some(r#"{"token":"[token:…1234]","key":"[secret]","why":"full"}"#));
}

#[tokio::test]
async fn no_connection_is_a_failure_that_may_be_repeated() {
    // Bound and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let hook = built(&[SECRET], &json!({ "url": url }), still()).unwrap();
    let outcome = hook.provider.push(&push()).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Retry, "connect"));
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_remedy() {
    let short = "whsec_c2hvcnQ=";
    for (secrets, more, expected) in [
        (&[][..], json!({}), "secrets has 0 entries; make it a list of 1 to 8"),
        (&[SECRET; 9][..], json!({}), "secrets has 9 entries"),
        (
            &[SECRET, short][..],
            json!({}),
            "secrets[1] holds a key that is not 24 to 64 bytes long; use whsec_",
        ),
        (&["whsec_%%%"][..], json!({}), "secrets[0] holds no base64"),
        (&["whsk_c2hvcnQ="][..], json!({}), "secrets[0] holds a key that is not 32 or 64 bytes long"),
        (&["hunter2"][..], json!({}), "secrets[0] begins neither with whsec_ nor with whsk_"),
        (&[SECRET][..], json!({"secrets": ["whsec_abc"]}), "secrets[0] is not a reference to a secret"),
        (&[SECRET][..], json!({"url": "ftp://x"}), "url is no address that can be called"),
        (&[SECRET][..], json!({"url": "https://u:p@x/"}), "url is no address that can be called"),
        (&[SECRET][..], json!({"url": "https://"}), "url is no address that can be called"),
        (&[SECRET][..], json!({"type": ""}), "type is \"\""),
        (&[SECRET][..], json!({"type": "a..b"}), "type is \"a..b\"; make it words"),
        (&[SECRET][..], json!({"type": "a b"}), "type is \"a b\""),
        (&[SECRET][..], json!({"headers": {}}), "headers is not a known key"),
    ] {
        let error = built(secrets, &more, still()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("MfKQ"), "{error}");
    }
    assert!(built(&[SECRET], &json!({"type": "push_1.sent", "connections": 2}), still()).is_ok());
}

#[test]
fn the_schedule_fits_into_the_age() {
    let policy = built(&[SECRET], &json!({}), still()).unwrap().policy;
    assert_eq!(usize::try_from(policy.max_attempts).unwrap(), policy.schedule.len() + 1);
    let longest: Duration = policy.schedule.iter().map(|it| it.mul_f64(1.0 + policy.jitter)).sum();
    assert!(longest < policy.max_age, "{longest:?}");
}
