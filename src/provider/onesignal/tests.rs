//! What OneSignal is sent, and what its answers mean.

use super::super::{
    Configured, build,
    double::{failure, sink},
    tests::push,
};
use super::*;
use crate::clock::ManualClock;

const NOW: &str = "2026-11-23T08:00:00Z";
const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn built(key: &str, more: &Value) -> Result<Configured, BuildError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key).unwrap();
    let mut settings = json!({ "app_id": APP, "api_key": format!("file:{}", file.path().display()) });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build("one", "onesignal", settings, Arc::new(ManualClock::new(now())))
}

fn saying(more: &Value) -> Push {
    let push = push();
    let mut message = serde_json::to_value(&*push.message).unwrap();
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Push { message: Arc::new(serde_json::from_value(message).unwrap()), ..push }
}

#[tokio::test]
async fn a_push_is_one_call_with_the_key_and_the_deliverys_own_key() {
    let push = Push { target: Target::Alias("user-42".into()), ..push() };
    let (outcome, calls) = sink((200, &[], r#"{"id":"b98881cc","external_id":"k"}"#), async |base| {
        let one = built("os_v2_app_s3cret\n", &json!({ "base_url": format!("{base}/api/") })).unwrap();
        assert!(!format!("{:?}", one.provider).contains("s3cret"), "{:?}", one.provider);
        one.provider.push(&push).await
    })
    .await;
    let provider_message_id = Some("b98881cc".to_owned());
    assert_eq!(outcome, Outcome::Accepted { provider_message_id, status: Some(200) });
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.method.as_str(), call.uri.to_string().as_str()), ("POST", "/api/notifications?c=push"));
    assert_eq!(call.header("authorization"), "Key os_v2_app_s3cret");
    assert_eq!(call.header("content-type"), "application/json");
    assert_eq!(
        serde_json::from_slice::<Value>(&call.body).unwrap(),
        json!({
            "app_id": APP, "target_channel": "push", "include_aliases": {"external_id": ["user-42"]},
            "headings": {"en": "Your pass expires tomorrow", "ko": "Your pass expires tomorrow"},
            "contents": {"en": "Only on the phone", "ko": "Only on the phone"},
            "data": {"passId": "7", "days": 1, "nested": {"deep": true}, "nothing": null,
                     "messageId": "m-42", "deliveryId": push.delivery_id.to_string()},
            "idempotency_key": push.provider_key, "app_url": "app://pass/7",
            "big_picture": "https://img.example/7.png", "chrome_web_image": "https://img.example/7.png",
            "ios_attachments": {"image": "https://img.example/7.png"},
            "ttl": 3600, "priority": 10, "collapse_id": "pass-7", "web_push_topic": "pass-7",
        })
    );
}

#[test]
fn a_push_says_what_the_message_says() {
    let long = "x".repeat(64) + "é";
    let hashed = hex::encode(Sha256::digest(&long));
    for (more, at, expected) in [
        (json!({ "body": null, "push": null }), "/contents/en", json!("Your pass expires tomorrow")),
        (json!({ "locale": null }), "/headings", json!({ "en": "Your pass expires tomorrow" })),
        (json!({ "locale": "en-GB" }), "/headings", json!({ "en": "Your pass expires tomorrow" })),
        (json!({ "locale": "zh-TW" }), "/contents/zh-Hant", json!("Only on the phone")),
        (json!({ "locale": "zh" }), "/contents/zh-Hans", json!("Only on the phone")),
        (json!({ "locale": "pt_BR" }), "/contents/pt", json!("Only on the phone")),
        (json!({ "locale": "fil" }), "/contents", json!({ "en": "Only on the phone" })),
        (json!({ "link": "https://a.example/7" }), "/url", json!("https://a.example/7")),
        (json!({ "link": "https://a.example/7" }), "/app_url", Value::Null),
        (json!({ "link": null }), "/app_url", Value::Null),
        (json!({ "imageUrl": null }), "/big_picture", Value::Null),
        (json!({ "imageUrl": null }), "/ios_attachments", Value::Null),
        (json!({ "expiresAt": null }), "/ttl", Value::Null),
        (json!({ "expiresAt": "2026-11-23T07:00:00Z" }), "/ttl", json!(0)),
        (json!({ "expiresAt": "2027-11-23T07:00:00Z" }), "/ttl", json!(2_419_200)),
        (json!({ "priority": "normal" }), "/priority", json!(5)),
        (json!({ "priority": null }), "/priority", Value::Null),
        (json!({ "collapseKey": null }), "/collapse_id", Value::Null),
        (json!({ "collapseKey": &long }), "/collapse_id", json!(hashed)),
        (json!({ "data": {} }), "/data/messageId", json!("m-42")),
        (json!({ "data": { "messageId": "theirs" } }), "/data/messageId", json!("m-42")),
    ] {
        let content = content(APP, &saying(&more), now()).unwrap();
        assert_eq!(content.pointer(at).unwrap_or(&Value::Null), &expected, "{more} {at}");
    }
}

#[test]
fn every_kind_of_target_has_its_field_and_only_that() {
    let fields = ["include_aliases", "include_subscription_ids", "included_segments"];
    for (target, field, expected) in [
        (Target::Alias("a".into()), fields[0], json!({ "external_id": ["a"] })),
        (Target::Token("t".into()), fields[1], json!(["t"])),
        (Target::Topic("All".into()), fields[2], json!(["All"])),
    ] {
        let content = content(APP, &Push { target, ..push() }, now()).unwrap();
        let named: Vec<_> = fields.into_iter().filter(|it| content.get(it).is_some()).collect();
        assert_eq!((named, &content[field]), (vec![field], &expected));
    }
    assert_eq!(content(APP, &Push { target: Target::Subscription("{}".into()), ..push() }, now()), None);
}

#[tokio::test]
async fn every_answer_has_its_meaning() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry, Unknown};
    use RetryScope::{Message as One, Provider as All};
    let nobody = r#"{"id":"","errors":["All included players are not subscribed"]}"#;
    let stranger = r#"{"id":"n-1","errors":{"invalid_aliases":{"external_id":["user-42"]}}}"#;
    let unsubscribed = "All included players are not subscribed";
    let limit = r#"{"errors":["API rate limit exceeded"]}"#;
    let over = "API rate limit exceeded";
    let html = "<html><title>503</title></html>";
    for (status, headers, body, class, code, scope, wait) in [
        (200, &[][..], nobody, InvalidTarget, unsubscribed, One, None),
        (200, &[], r#"{"id":""}"#, InvalidTarget, "no_recipients", One, None),
        (200, &[], r#"{"id":"","errors":{}}"#, InvalidTarget, "no_recipients", One, None),
        (200, &[], stranger, InvalidTarget, "invalid_aliases", One, None),
        (
            200,
            &[],
            r#"{"id":"n","errors":{"invalid_player_ids":["t"]}}"#,
            InvalidTarget,
            "invalid_player_ids",
            One,
            None,
        ),
        (
            200,
            &[],
            r#"{"id":"","errors":{"invalid_aliases":{"external_id":["u"]}}}"#,
            InvalidTarget,
            "invalid_aliases",
            One,
            None,
        ),
        (200, &[], "", Unknown, "http_200", One, None),
        (200, &[], "null", Unknown, "http_200", One, None),
        (200, &[], "[]", Unknown, "http_200", One, None),
        (200, &[], r#"{"id":7}"#, Unknown, "http_200", One, None),
        (200, &[], "{\"id\":\"n", Unknown, "http_200", One, None),
        (200, &[], html, Unknown, "http_200", One, None),
        (301, &[], "", Permanent, "http_301", One, None),
        (
            400,
            &[],
            r#"{"errors":["contents.en is required"]}"#,
            Permanent,
            "contents.en is required",
            One,
            None,
        ),
        (
            400,
            &[],
            r#"{"errors":[{"code":"too_long","title":"Too long"}]}"#,
            Permanent,
            "too_long",
            One,
            None,
        ),
        (400, &[], r#"{"errors":[{"title":"Too long"}]}"#, Permanent, "Too long", One, None),
        (400, &[], r#"{"errors":"no"}"#, Permanent, "no", One, None),
        (400, &[], r#"{"errors":{"app_id":["bad"]}}"#, Permanent, "app_id", One, None),
        (400, &[], r#"{"errors":[7,null]}"#, Permanent, "http_400", One, None),
        (400, &[], html, Permanent, "http_400", One, None),
        (401, &[], r#"{"errors":["Access denied"]}"#, AuthConfig, "Access denied", One, None),
        (403, &[], "", AuthConfig, "http_403", One, None),
        (404, &[], r#"{"errors":["app not found"]}"#, AuthConfig, "app not found", One, None),
        (404, &[], html, AuthConfig, "http_404", One, None),
        (409, &[], "", Permanent, "http_409", One, None),
        (429, &[("retry-after", "30")], limit, Retry, over, All, Some(30)),
        (429, &[("retry-after", "Mon, 23 Nov 2026 08:01:00 GMT")], "", Retry, "http_429", All, Some(60)),
        (429, &[], "{\"broken", Retry, "http_429", All, None),
        (500, &[], "", Retry, "http_500", One, None),
        (503, &[], html, Retry, "http_503", One, None),
        (503, &[("retry-after", "60")], r#"{"errors":["busy"]}"#, Retry, "busy", One, Some(60)),
        (504, &[], "{\"errors\":", Retry, "http_504", One, None),
    ] {
        let failure =
            failure(adapter().outcome(&answer(status, headers, body, BodyEnd::Whole), &Mask::default()));
        let seen = (failure.class, failure.code.as_str(), failure.scope);
        assert_eq!(seen, (class, code, scope), "{status} {body}");
        assert_eq!(failure.retry_after.map(|it| it.as_secs()), wait, "{status} {body}");
        assert_eq!(
            (failure.status, failure.answer.as_deref()),
            (Some(status), Some(body).filter(|it| !it.is_empty()))
        );
    }
}

#[test]
fn only_a_whole_answer_with_an_id_is_success() {
    for body in [
        r#"{"id":"n-1"}"#,
        r#"{"id":"n-1","external_id":"k","errors":{}}"#,
        r#"{"id":"n-1","errors":[]}"#,
        r#"{"id":"n-1","errors":["one of many was not subscribed"]}"#,
        r#"{"id":"n-1","errors":{"invalid_aliases":{"external_id":[]}}}"#,
        r#"{"id":"n-1","errors":{"invalid_aliases":null}}"#,
    ] {
        for headers in [&[][..], &[("idempotent-replayed", "true")]] {
            let whole = answer(200, headers, body, BodyEnd::Whole);
            let provider_message_id = Some("n-1".to_owned());
            let expected = Outcome::Accepted { provider_message_id, status: Some(200) };
            assert_eq!(adapter().outcome(&whole, &Mask::default()), expected, "{body}");
        }
        for end in [BodyEnd::Broken("timeout"), BodyEnd::TooLong] {
            let failure = failure(adapter().outcome(&answer(200, &[], body, end), &Mask::default()));
            assert_eq!(failure.class, FailureClass::Unknown, "{body}");
        }
    }
}

fn adapter() -> OneSignal {
    let parts = Parts {
        name: "one".into(),
        timeout: Duration::from_secs(5),
        concurrency: 4,
        clock: Arc::new(ManualClock::new(now())),
    };
    let mut settings = Settings::new("one", json!({ "base_url": "http://127.0.0.1:9" })).unwrap();
    let vendor = Vendor::take(&parts, &mut settings, Some(BASE_URL), Protocol::Any).unwrap();
    OneSignal { vendor, app_id: APP.into(), headers: HeaderMap::new() }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str, end: BodyEnd) -> Answer {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Answer { status, headers: headers.collect(), body: body.into(), end }
}

#[tokio::test]
async fn what_is_echoed_is_recorded_without_secrets() {
    let echo = r#"{"errors":["no os_v2_app_s3cret for dev\/ce+token=1234"]}"#;
    let (outcome, _) = sink((401, &[], echo), async |base| {
        built("os_v2_app_s3cret", &json!({ "base_url": base })).unwrap().provider.push(&push()).await
    })
    .await;
    let failure = failure(outcome);
    assert_eq!(failure.code, "no [api_key] for [token:…1234]");
    assert_eq!(failure.answer.as_deref(), Some(r#"{"errors":["no [api_key] for [token:…1234]"]}"#));
}

#[tokio::test]
async fn a_repetition_has_the_same_key() {
    let (_, calls) = sink((503, &[], ""), async |base| {
        let one = built("key", &json!({ "base_url": base })).unwrap();
        one.provider.push(&push()).await;
        one.provider.push(&Push { attempt: 3, ..push() }).await
    })
    .await;
    let [first, second] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(first.body, second.body);
    let body: Value = serde_json::from_slice(&first.body).unwrap();
    assert!(uuid::Uuid::try_parse(body["idempotency_key"].as_str().unwrap()).is_ok());
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_remedy() {
    for (key, more, expected) in [
        ("key", json!({ "app_id": "s3cret" }), "app_id is no UUID; make it the app's id, a UUID"),
        ("key", json!({ "app_id": null }), "app_id is null"),
        ("key", json!({ "api_key": "s3cret" }), "api_key is not a reference to a secret"),
        ("s3cret\nline", json!({}), "api_key refers to something that cannot stand in a header"),
        ("key", json!({ "base_url": "api.onesignal.com" }), "base_url is no address"),
        ("key", json!({ "app": APP }), "app is not a known key"),
    ] {
        let error = built(key, &more).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert!(built("key", &json!({ "connections": 2 })).is_ok());
}
