//! What browsers' push services are sent, and what their answers mean.

use super::super::{
    Configured, build,
    double::{failure, sink},
    exchange::BodyEnd,
    tests::push,
};
use super::{
    encryption::tests::{AUTH, P256DH, decrypt},
    *,
};
use crate::clock::{Clock, ManualClock, Timestamp};

const NOW: &str = "2026-11-23T08:00:00Z";
const KEY: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
const PUBLIC: &str =
    "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
const OPS: &str = "mailto:ops@example.com";
const PATH: &str = "/wpush/v2/gAAAAABh-secret-of-the-device";

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp::parse(NOW).unwrap()))
}

fn built(key: &str, more: &Value) -> Result<Configured, BuildError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{key}\n")).unwrap();
    let mut settings = json!({ "vapid_key": format!("file:{}", file.path().display()), "subject": OPS });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build("web", "webpush", settings, clock())
}

fn adapter(allowed: &[&str]) -> WebPush {
    let parts = Parts { name: "web".into(), timeout: Duration::from_secs(5), concurrency: 4, clock: clock() };
    let mut settings = Settings::new("web", json!({})).unwrap();
    let vendor = Vendor::anywhere(&parts, &mut settings, Protocol::Any, true).unwrap();
    let vapid = Vapid::new(KEY, OPS.into()).unwrap();
    WebPush { vendor, vapid, allowed: allowed.iter().map(|it| Allowed::parse(it).unwrap()).collect() }
}

fn to(endpoint: &str) -> Push {
    let value = json!({ "endpoint": endpoint, "keys": { "p256dh": P256DH, "auth": AUTH } });
    let target = Target::Subscription(Subscription::parse(&value).unwrap().canonical());
    Push { target, ..push() }
}

fn saying(more: &Value) -> Push {
    let push = to("https://web.push.apple.com/1");
    let mut message = serde_json::to_value(&*push.message).unwrap();
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Push { message: Arc::new(serde_json::from_value(message).unwrap()), ..push }
}

#[tokio::test]
async fn a_browser_reads_what_arrives_and_its_service_what_it_needs() {
    let headers = &[("location", "https://push.example.net/m/msg-7?x=1")][..];
    let (outcome, calls) = sink((201, headers, ""), async |base| {
        let web = built(KEY, &json!({ "allowed_hosts": [base] })).unwrap();
        web.provider.push(&to(&format!("{base}{PATH}"))).await
    })
    .await;
    let provider_message_id = Some("msg-7".to_owned());
    assert_eq!(outcome, Outcome::Accepted { provider_message_id, status: Some(201) });
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.method.as_str(), call.uri.to_string().as_str()), ("POST", PATH));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-encoding", "aes128gcm"),
        ("ttl", "3600"),
        ("urgency", "high"),
        ("topic", "pass-7"),
    ] {
        assert_eq!(call.header(name), value, "{name}");
    }
    let authorization = call.header("authorization");
    let (token, key) = authorization.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
    assert_eq!((key, token.split('.').count()), (PUBLIC, 3));
    assert_eq!(
        serde_json::from_slice::<Value>(&decrypt(&call.body)).unwrap(),
        json!({
            "deliveryId": push().delivery_id.to_string(), "messageId": "m-42",
            "title": "Your pass expires tomorrow", "body": "Only on the phone", "category": "pass",
            "link": "app://pass/7", "imageUrl": "https://img.example/7.png", "locale": "ko-KR",
            "collapseKey": "pass-7", "data": {"passId": "7", "days": 1, "nested": {"deep": true}, "nothing": null},
        })
    );
}

#[tokio::test]
async fn two_pushes_share_a_token_and_nothing_else() {
    let (_, calls) = sink((201, &[], ""), async |base| {
        let web = built(KEY, &json!({ "allowed_hosts": [base] })).unwrap();
        let push = to(&format!("{base}{PATH}"));
        web.provider.push(&push).await;
        web.provider.push(&push).await
    })
    .await;
    let [first, second] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(first.header("authorization"), second.header("authorization"));
    assert_ne!(first.body[..16], second.body[..16], "the salt");
    assert_ne!(first.body[21..86], second.body[21..86], "the ephemeral key");
}

#[tokio::test]
async fn what_a_service_echoes_is_recorded_without_the_subscription_or_the_token() {
    let echo = r#"{"reason":"gAAAAABh-secret-of-the-device","auth":"BTBZMqHH6r4Tts7J_aSIgg","path":"\/wpush\/v2\/gAAAAABh-secret-of-the-device"}"#;
    let (outcome, _) = sink((410, &[], echo), async |base| {
        let web = built(KEY, &json!({ "allowed_hosts": [base] })).unwrap();
        assert!(!format!("{:?}", web.provider).contains(KEY), "{:?}", web.provider);
        web.provider.push(&to(&format!("{base}{PATH}"))).await
    })
    .await;
    let failure = failure(outcome);
    assert_eq!(failure.class, FailureClass::InvalidTarget);
    let all = format!("{failure:?}");
    assert!(!all.contains("secret-of-the-device") && !all.contains(AUTH), "{all}");
    assert!(failure.code.starts_with("[subscription:…"), "{}", failure.code);
}

#[test]
fn every_answer_has_its_meaning() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
    use RetryScope::{Device, Message as One};
    let adapter = adapter(&SERVICES);
    let html = "<html><title>502</title></html>";
    let no_longer = r#"{"code":410,"errno":106,"error":"Gone","message":"endpoint expired"}"#;
    let fcm = "the VAPID credentials in the authorization header do not correspond to the credentials used to \
               create the subscriptions.\n";
    let other_key =
        r#"{"code":401,"errno":109,"error":"Unauthorized","message":"VAPID public key mismatch"}"#;
    for (status, headers, body, class, code, scope, wait) in [
        (404, &[][..], "", InvalidTarget, "http_404", One, None),
        (404, &[], r#"{"code":404,"errno":102}"#, InvalidTarget, "errno_102", One, None),
        (404, &[], html, InvalidTarget, "http_404", One, None),
        (410, &[], no_longer, InvalidTarget, "errno_106", One, None),
        (410, &[], r#"{"reason":"Unregistered"}"#, InvalidTarget, "Unregistered", One, None),
        (410, &[], "{\"broken", InvalidTarget, "http_410", One, None),
        (400, &[], r#"{"reason":"VapidPkHashMismatch"}"#, InvalidTarget, "VapidPkHashMismatch", One, None),
        (403, &[], r#"{"reason":"VapidPkHashMismatch"}"#, InvalidTarget, "VapidPkHashMismatch", One, None),
        (403, &[], fcm, InvalidTarget, "vapid_mismatch", One, None),
        (401, &[], other_key, InvalidTarget, "errno_109", One, None),
        (401, &[], r#"{"code":401,"errno":109,"message":"Invalid"}"#, AuthConfig, "errno_109", One, None),
        (401, &[], "", AuthConfig, "http_401", One, None),
        (403, &[], r#"{"reason":"BadJwtToken"}"#, AuthConfig, "BadJwtToken", One, None),
        (403, &[], r#"{"reason":["unheard of"]}"#, AuthConfig, "http_403", One, None),
        (403, &[], html, AuthConfig, "http_403", One, None),
        (400, &[], r#"{"code":400,"errno":110}"#, Permanent, "errno_110", One, None),
        (400, &[], "", Permanent, "http_400", One, None),
        (413, &[], r#"{"code":413,"errno":104}"#, Permanent, "errno_104", One, None),
        (301, &[], "", Permanent, "http_301", One, None),
        (418, &[], "[]", Permanent, "http_418", One, None),
        (429, &[("retry-after", "120")], "", Retry, "http_429", Device, Some(120)),
        (429, &[("retry-after", "Mon, 23 Nov 2026 08:01:00 GMT")], html, Retry, "http_429", Device, Some(60)),
        (429, &[], r#"{"reason":"TooManyRequests"}"#, Retry, "TooManyRequests", Device, None),
        (500, &[], "", Retry, "http_500", One, None),
        (502, &[], html, Retry, "http_502", One, None),
        (502, &[], r#"{"code":502,"errno":902}"#, Retry, "errno_902", One, None),
        (503, &[("retry-after", "60")], r#"{"errno":201}"#, Retry, "errno_201", One, Some(60)),
        (503, &[], r#"{"errno":201}"#, Retry, "errno_201", One, None),
        (503, &[], r#"{"errno":202}"#, Retry, "errno_202", One, Some(0)),
        (503, &[("retry-after", "7")], r#"{"errno":202}"#, Retry, "errno_202", One, Some(7)),
        (503, &[], "null", Retry, "http_503", One, None),
        (504, &[("retry-after", "soon")], "", Retry, "http_504", One, None),
    ] {
        let outcome = adapter.outcome(&answer(status, headers, body, BodyEnd::Whole), &Mask::default());
        let failure = failure(outcome);
        let seen = (failure.class, failure.code.as_str(), failure.scope);
        assert_eq!(seen, (class, code, scope), "{status} {body}");
        assert_eq!(failure.retry_after.map(|it| it.as_secs()), wait, "{status} {body}");
        assert_eq!(failure.status, Some(status));
    }
}

#[test]
fn every_success_is_one_and_its_id_is_found() {
    let adapter = adapter(&SERVICES);
    let location = "https://fcm.googleapis.com/0:1510011451922224%7a0e7efbaab8b7cc";
    for (status, headers, body, id) in [
        (201, &[("location", location)][..], "", Some("0:1510011451922224%7a0e7efbaab8b7cc")),
        (201, &[("location", "/m/gAAAA/")], r#"{"message-id":"other"}"#, Some("gAAAA")),
        (201, &[], r#"{"message-id":"gAAAA"}"#, Some("gAAAA")),
        (201, &[("apns-id", "6E1F")], "", Some("6E1F")),
        (201, &[("x-wns-msg-id", "7A")], "", Some("7A")),
        (201, &[("location", "/")], r#"{"message-id":7}"#, None),
        (200, &[], "<html>", None),
        (202, &[], "{\"broken", None),
        (204, &[], "", None),
    ] {
        for end in [BodyEnd::Whole, BodyEnd::TooLong, BodyEnd::Broken("reset")] {
            let id = id.filter(|_| end == BodyEnd::Whole || !headers.is_empty()).map(str::to_owned);
            let expected = Outcome::Accepted { provider_message_id: id, status: Some(status) };
            let outcome = adapter.outcome(&answer(status, headers, body, end), &Mask::default());
            assert_eq!(outcome, expected, "{status} {body} {end:?}");
        }
    }
    let broken = adapter.outcome(&answer(403, &[], "", BodyEnd::Broken("reset")), &Mask::default());
    assert_eq!(failure(broken).class, FailureClass::Unknown);
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str, end: BodyEnd) -> Answer {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Answer { status, headers: headers.collect(), body: body.into(), end }
}

#[test]
fn only_services_that_are_allowed_are_called() {
    let usual = adapter(&SERVICES);
    let own = adapter(&["push.internal", "http://127.0.0.1:8090", "https://push.example.com:8443"]);
    for (adapter, endpoint, called) in [
        (&usual, "https://fcm.googleapis.com/fcm/send/1", true),
        (&usual, "https://FCM.googleapis.com:443/fcm/send/1", true),
        (&usual, "https://updates.push.services.mozilla.com/wpush/v2/1", true),
        (&usual, "https://wns2-par02p.notify.windows.com/w/?token=1", true),
        (&usual, "https://web.push.apple.com/1", true),
        (&usual, "https://push.services.mozilla.com/1", false),
        (&usual, "https://fcm.googleapis.com.example.net/1", false),
        (&usual, "https://fcm.googleapis.com./1", false),
        (&usual, "https://example.net/?https://fcm.googleapis.com/", false),
        (&usual, "https://evilpush.services.mozilla.com.example.net/1", false),
        (&usual, "https://fcm.googleapis.com:8443/1", false),
        (&usual, "https://169.254.169.254/latest", false),
        (&usual, "http://localhost/1", false),
        (&own, "http://127.0.0.1:8090/1", true),
        (&own, "http://127.0.0.1:8091/1", false),
        (&own, "https://127.0.0.1:8090/1", false),
        (&own, "https://push.example.com:8443/1", true),
        (&own, "https://push.example.com/1", false),
        (&own, "https://push.internal/1", true),
        (&own, "https://fcm.googleapis.com/1", false),
    ] {
        match adapter.request(&to(endpoint)) {
            Ok(_) => assert!(called, "{endpoint}"),
            Err(outcome) => {
                let failure = failure(outcome);
                assert_eq!(
                    (called, failure.class, failure.code.as_str()),
                    (false, FailureClass::Permanent, "host_not_allowed"),
                    "{endpoint}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_sent_is_not_sent() {
    let adapter = adapter(&SERVICES);
    let off_the_curve = to("https://web.push.apple.com/1").target.value().replace("iw4", "iw8");
    let long = saying(&json!({ "data": { "x": "y".repeat(TEXT_MAX) } }));
    for (push, class, code) in [
        (push(), FailureClass::Permanent, "target"),
        (
            Push { target: Target::Subscription("{}".into()), ..push() },
            FailureClass::InvalidTarget,
            "bad_subscription",
        ),
        (
            Push { target: Target::Subscription(off_the_curve), ..push() },
            FailureClass::InvalidTarget,
            "bad_subscription",
        ),
        (long, FailureClass::Permanent, "too_large"),
    ] {
        let failure = failure(adapter.request(&push).unwrap_err());
        assert_eq!((failure.class, failure.code.as_str(), failure.status), (class, code, None));
        assert!(failure.answer.unwrap().starts_with("not sent: "));
    }
}

#[test]
fn the_longest_text_is_sent_and_one_byte_more_is_not() {
    let adapter = adapter(&SERVICES);
    let of = |length: usize| saying(&json!({ "data": { "x": "y".repeat(length) } }));
    let room = TEXT_MAX - content(&of(0)).to_string().len();
    let (request, _) = adapter.request(&of(room)).unwrap();
    assert_eq!(request.body().and_then(reqwest::Body::as_bytes).map(<[u8]>::len), Some(4096));
    assert_eq!(failure(adapter.request(&of(room + 1)).unwrap_err()).code, "too_large");
}

#[test]
fn the_headers_say_what_the_message_says() {
    let adapter = adapter(&SERVICES);
    let sent = |more: &Value, name: &str| {
        let (request, _) = adapter.request(&saying(more)).unwrap();
        request.headers().get(name).map(|it| it.to_str().unwrap().to_owned())
    };
    for (more, name, expected) in [
        (json!({ "expiresAt": null }), "ttl", Some("2419200")),
        (json!({ "expiresAt": "2027-11-23T08:00:00Z" }), "ttl", Some("2419200")),
        (json!({ "expiresAt": "2026-11-23T08:00:09.9Z" }), "ttl", Some("9")),
        (json!({ "expiresAt": "2026-11-23T07:00:00Z" }), "ttl", Some("0")),
        (json!({ "priority": "high" }), "urgency", Some("high")),
        (json!({ "priority": "normal" }), "urgency", Some("normal")),
        (json!({ "priority": null }), "urgency", None),
        (json!({ "collapseKey": null }), "topic", None),
        (
            json!({ "collapseKey": "A-Za-z0-9_".repeat(3) + "32" }),
            "topic",
            Some("A-Za-z0-9_A-Za-z0-9_A-Za-z0-9_32"),
        ),
        // The beginning of the SHA-256 as base64url.
        (json!({ "collapseKey": "pass:7" }), "topic", Some(hashed("pass:7").as_str())),
        (json!({ "collapseKey": "x".repeat(33) }), "topic", Some(hashed(&"x".repeat(33)).as_str())),
        (json!({ "collapseKey": "패스" }), "topic", Some(hashed("패스").as_str())),
    ] {
        assert_eq!(sent(&more, name).as_deref(), expected, "{more}");
    }
}

fn hashed(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key))[..32].to_owned()
}

#[tokio::test]
async fn a_check_tells_the_key_that_browsers_subscribe_with() {
    let web = built(KEY, &json!({})).unwrap();
    let checked = web.provider.check().await.unwrap();
    assert!(checked.detail.ends_with(&format!("applicationServerKey {PUBLIC}")), "{checked:?}");
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_remedy() {
    for (key, more, expected) in [
        ("hunter2", json!({}), "vapid_key refers to something that is no VAPID key; make it a P-256 key"),
        (KEY, json!({ "subject": "ops@example.com" }), "subject is \"ops@example.com\"; make it \"mailto:\""),
        (KEY, json!({ "subject": "mailto:ops" }), "subject is"),
        (KEY, json!({ "subject": "mailto:<ops@example.com>" }), "subject is"),
        (KEY, json!({ "subject": "mailto: ops@example.com" }), "subject is"),
        (KEY, json!({ "subject": "mailto:ops@localhost" }), "subject is"),
        (KEY, json!({ "subject": "https://" }), "subject is"),
        (KEY, json!({ "subject": "http://example.com" }), "subject is"),
        (KEY, json!({ "vapid_key": KEY }), "vapid_key is not a reference to a secret"),
        (KEY, json!({ "allowed_hosts": [] }), "allowed_hosts has no entry"),
        (KEY, json!({ "allowed_hosts": ["*"] }), "allowed_hosts has \"*\"; make it a list of hosts"),
        (KEY, json!({ "allowed_hosts": ["*.com"] }), "allowed_hosts has \"*.com\""),
        (KEY, json!({ "allowed_hosts": ["10.0.0.1"] }), "allowed_hosts has \"10.0.0.1\""),
        (KEY, json!({ "allowed_hosts": ["push.example.com/x"] }), "allowed_hosts has"),
        (KEY, json!({ "allowed_hosts": ["https://push.example.com/x"] }), "allowed_hosts has"),
        (KEY, json!({ "base_url": "https://x/" }), "base_url is not a known key"),
    ] {
        let error = built(key, &more).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hunter2") && !error.contains(KEY), "{error}");
    }
}
