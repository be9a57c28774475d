//! What is sent to FCM, what its answers mean, and how access tokens are shared.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::super::{
    Configured, build,
    double::{Call, Reply, against, answer, failure, reply, rsa_key, service_account},
    tests::push,
};
use super::*;
use crate::clock::ManualClock;
use reqwest::Url;

const NOW: &str = "2026-11-23T08:00:00Z";
const ACCEPTED: &str = r#"{"name":"projects/demo/messages/0:17"}"#;
const GRANTED: &str = r#"{"access_token":"ya29.s3cret","expires_in":3599,"token_type":"Bearer"}"#;

/// A service account with a key of its own.
struct Key {
    file: tempfile::NamedTempFile,
    pem: String,
    public: DecodingKey,
}

impl Key {
    fn new(token_uri: &str) -> Self {
        let key = rsa_key();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), service_account(&key, token_uri)).unwrap();
        Self { file, public: DecodingKey::from_rsa_der(&key.public), pem: key.pem }
    }

    fn settings(&self, base: &str) -> Value {
        let credentials = format!("file:{}", self.file.path().display());
        json!({ "credentials": credentials, "base_url": base, "http2": false, "timeout_ms": 5000 })
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::parse(NOW).unwrap()))
}

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn configured(key: &Key, base: &str, clock: Arc<ManualClock>) -> Configured {
    build("google", "fcm", key.settings(base), clock).unwrap()
}

/// A server that grants tokens and answers pushes with this.
fn google(push: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> impl Fn(&Call) -> Reply + Send + Sync {
    move |call| if call.uri.path() == "/token" { reply(200, GRANTED) } else { push(call) }
}

fn vendor() -> Vendor {
    let parts =
        Parts { name: "google".into(), timeout: Duration::from_secs(1), concurrency: 1, clock: clock() };
    let mut settings = Settings::new("google", json!({ "base_url": "http://127.0.0.1:9" })).unwrap();
    Vendor::take(&parts, &mut settings, Some(BASE), Protocol::Any).unwrap()
}

#[test]
fn a_push_says_everything_that_fcm_can_say() {
    let push = push();
    let delivery = push.delivery_id.to_string();
    let expected = json!({
        "token": "dev/ce+token=1234",
        "notification": {
            "title": "Your pass expires tomorrow", "body": "Only on the phone", "image": "https://img.example/7.png",
        },
        "data": {
            "messageId": "m-42", "deliveryId": delivery, "link": "app://pass/7",
            "passId": "7", "days": "1", "nested": "{\"deep\":true}", "nothing": "null",
        },
        "android": {
            "ttl": "3600s", "priority": "HIGH", "collapseKey": "pass-7", "notification": { "tag": "pass-7" },
        },
        "apns": {
            "headers": {
                "apns-expiration": "1795424400", "apns-priority": "10", "apns-collapse-id": "pass-7",
            },
            "payload": { "aps": { "mutable-content": 1 } },
        },
        "webpush": {
            "headers": { "TTL": "3600", "Urgency": "high", "Topic": web_topic("pass-7") },
        },
    });
    assert_eq!(message(&push, now()).unwrap(), expected);
    assert_eq!(web_topic("pass-7").len(), 32);
}

#[test]
fn a_push_that_says_little_leaves_the_rest_to_fcm() {
    let mut push = push();
    push.target = Target::Topic("news".into());
    push.message = Arc::new(
        serde_json::from_value(json!({
            "messageId": "m", "notificationType": ["PUSH"], "recipientId": "r", "title": "Hi",
        }))
        .unwrap(),
    );
    let delivery = push.delivery_id.to_string();
    let expected = json!({
        "topic": "news",
        "notification": { "title": "Hi" },
        "data": { "messageId": "m", "deliveryId": delivery },
        "android": { "notification": { "tag": delivery } },
        "apns": { "headers": { "apns-collapse-id": delivery } },
    });
    assert_eq!(message(&push, now()).unwrap(), expected);
}

#[test]
fn values_that_fcm_has_bounds_for_stay_within_them() {
    let mut push = push();
    let long = Arc::make_mut(&mut push.message);
    long.expires_at = Some(now().plus(Duration::from_hours(24 * 365)));
    long.collapse_key = Some("한 글".into());
    long.priority = Some(Priority::Normal);
    long.data = serde_json::from_value(json!({
        "from": "a", "message_type": "b", "google.c": "c", "gcm.notification.d": "d", "googly": "e",
        "messageId": "not ours", "deliveryId": 7, "link": "l",
    }))
    .unwrap();
    let sent = message(&push, now()).unwrap();
    assert_eq!(sent["android"]["ttl"], "2419200s");
    assert_eq!(sent["android"]["priority"], "NORMAL");
    assert_eq!(sent["webpush"]["headers"]["TTL"], "2419200");
    assert_eq!(sent["apns"]["headers"]["apns-collapse-id"].as_str().unwrap().len(), 64);
    let expected = json!({
        "messageId": "m-42", "deliveryId": push.delivery_id, "link": "app://pass/7", "googly": "e",
        "data.from": "a", "data.message_type": "b", "data.google.c": "c", "data.gcm.notification.d": "d",
        "data.messageId": "not ours", "data.deliveryId": "7", "data.link": "l",
    });
    assert_eq!(sent["data"], expected);
}

#[test]
fn what_fcm_would_not_take_is_not_sent() {
    let size = |push: &Push| match message(push, now()) {
        Ok(_) => None,
        Err(outcome) => Some(failure(outcome)),
    };
    for (target, most) in [(Target::Token("t".into()), SIZE_MAX), (Target::Topic("t".into()), TOPIC_SIZE_MAX)]
    {
        let mut push = push();
        push.target = target;
        let fixed = {
            let message = Arc::make_mut(&mut push.message);
            message.push = None;
            message.body = Some(String::new());
            let texts: usize = texts(&push).iter().map(|(key, text)| key.len() + text.len()).sum();
            let shown = ["title", "body", "image", &push.message.title, "https://img.example/7.png"];
            texts + shown.iter().map(|it| it.len()).sum::<usize>()
        };
        Arc::make_mut(&mut push.message).body = Some("x".repeat(most - fixed));
        assert_eq!(size(&push), None);
        Arc::make_mut(&mut push.message).body = Some("x".repeat(most - fixed + 1));
        let failure = size(&push).unwrap();
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Permanent, "too_large"));
    }
    for target in [Target::Alias("user-42".into()), Target::Subscription("{}".into())] {
        let failure = size(&Push { target, ..push() }).unwrap();
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Permanent, "target"));
    }
}

/// An error of FCM.
fn error(status: u16, name: &str, message: &str, details: &Value) -> String {
    json!({ "error": { "code": status, "message": message, "status": name, "details": details } }).to_string()
}

/// The detail that holds FCM's own code.
fn own(code: &str) -> Value {
    json!([{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code }])
}

/// The detail that says which field is wrong.
fn field(field: &str) -> Value {
    let at = json!({ "field": field, "description": "Invalid value" });
    let bad = json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [at] });
    json!([bad, own("INVALID_ARGUMENT")[0]])
}

fn come_to(status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
    let failure = failure(outcome(&vendor(), &answer(status, headers, body), &Mask::default()));
    assert_eq!(
        (failure.status, failure.answer.as_deref()),
        (Some(status), Some(body).filter(|it| !it.is_empty()))
    );
    assert_eq!(failure.as_of, None);
    failure
}

#[test]
fn every_refusal_of_fcm_has_its_class() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
    let none = json!([]);
    let no = "The request was refused";
    let token = "The registration token is not a valid FCM registration token";
    let of_google =
        json!([{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "errorCode": "UNREGISTERED" }]);
    let (argument, denied, unproven) = ("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED");
    for (status, name, message, details, class, code) in [
        // Gone devices, and what only looks like one.
        (404, "NOT_FOUND", no, own("UNREGISTERED"), InvalidTarget, "UNREGISTERED"),
        (404, "NOT_FOUND", no, none.clone(), AuthConfig, "NOT_FOUND"),
        (404, "NOT_FOUND", no, of_google, AuthConfig, "NOT_FOUND"),
        (400, argument, token, own(argument), InvalidTarget, argument),
        (400, argument, no, field("message.token"), InvalidTarget, argument),
        (400, argument, no, field("message.data[0].value"), Permanent, argument),
        (400, argument, "Invalid JSON payload", none.clone(), Permanent, argument),
        (403, denied, no, own("SENDER_ID_MISMATCH"), InvalidTarget, "SENDER_ID_MISMATCH"),
        // Keys: ours, and those that Firebase has of others.
        (403, denied, no, none.clone(), AuthConfig, denied),
        (401, unproven, no, own("THIRD_PARTY_AUTH_ERROR"), AuthConfig, "THIRD_PARTY_AUTH_ERROR"),
        (401, unproven, no, own("APNS_AUTH_ERROR"), AuthConfig, "APNS_AUTH_ERROR"),
        (401, unproven, no, none.clone(), AuthConfig, unproven),
        // Bad days.
        (503, "UNAVAILABLE", no, own("UNAVAILABLE"), Retry, "UNAVAILABLE"),
        (503, "UNAVAILABLE", no, none.clone(), Retry, "UNAVAILABLE"),
        (500, "INTERNAL", no, own("INTERNAL"), Retry, "INTERNAL"),
        // What nobody knows yet goes by its status.
        (400, "FAILED_PRECONDITION", no, own("BRAND_NEW"), Permanent, "BRAND_NEW"),
        (403, "BRAND_NEW", no, none.clone(), AuthConfig, "BRAND_NEW"),
        (500, "BRAND_NEW", no, none, Retry, "BRAND_NEW"),
    ] {
        let body = error(status, name, message, &details);
        let failure = come_to(status, &[], &body);
        let seen = (failure.class, failure.code.as_str(), failure.scope, failure.retry_after);
        assert_eq!(seen, (class, code, RetryScope::Message, None), "{status} {body}");
        assert_eq!(failure.is_suspect, code == "SENDER_ID_MISMATCH", "{status} {body}");
    }
}

#[test]
fn a_wait_is_for_the_device_or_for_the_project() {
    use RetryScope::{Device, Message, Provider};
    let exhausted = |message, details| error(429, "RESOURCE_EXHAUSTED", message, &details);
    let project = || exhausted("Quota exceeded for quota metric 'Send requests'", own("QUOTA_EXCEEDED"));
    let device = exhausted("Message rate exceeded for this device", own("QUOTA_EXCEEDED"));
    let unavailable = error(503, "UNAVAILABLE", "Busy", &own("UNAVAILABLE"));
    for (status, header, body, code, scope, wait) in [
        (429, Some("120"), project(), "QUOTA_EXCEEDED", Provider, Some(120)),
        (429, None, project(), "QUOTA_EXCEEDED", Provider, None),
        (429, None, device, "QUOTA_EXCEEDED", Device, None),
        (429, None, exhausted("Quota exceeded", json!([])), "RESOURCE_EXHAUSTED", Provider, None),
        (429, Some("0"), "slow down".into(), "http_429", Provider, Some(0)),
        (429, Some("1000000000"), String::new(), "http_429", Provider, Some(1_000_000_000)),
        (503, Some("30"), unavailable.clone(), "UNAVAILABLE", Message, Some(30)),
        (503, Some("Mon, 23 Nov 2026 08:01:30 GMT"), unavailable, "UNAVAILABLE", Message, Some(90)),
    ] {
        let headers: Vec<_> = header.map(|it| ("retry-after", it)).into_iter().collect();
        let failure = come_to(status, &headers, &body);
        let seen = (failure.class, failure.code.as_str(), failure.scope, failure.retry_after);
        assert_eq!(
            seen,
            (FailureClass::Retry, code, scope, wait.map(Duration::from_secs)),
            "{header:?} {body}"
        );
    }
}

#[test]
fn an_answer_that_nobody_can_read_goes_by_its_status() {
    use FailureClass::{AuthConfig, Permanent, Retry, Unknown};
    for (status, body, class) in [
        (404, "<html>404</html>", AuthConfig),
        (502, "<html>502 Bad Gateway</html>", Retry),
        (504, "", Retry),
        (500, "{\"error\":", Retry),
        (400, r#"{"error":{"details":{"@type":7},"status":7,"message":[]}}"#, Permanent),
        (400, r#"{"error":{"details":[7,null,{"@type":"x","fieldViolations":[1]}]}}"#, Permanent),
        (400, r#"["error"]"#, Permanent),
        (413, "", Permanent),
        (302, "", Permanent),
        (200, "OK", Unknown),
        (200, r#"{"name":7}"#, Unknown),
        (200, "", Unknown),
    ] {
        let failure = come_to(status, &[], body);
        let seen = (failure.class, failure.code, failure.scope, failure.retry_after);
        assert_eq!(seen, (class, format!("http_{status}"), RetryScope::Message, None), "{body}");
    }
    let provider_message_id = Some("projects/demo/messages/0:17".to_owned());
    let accepted = Outcome::Accepted { provider_message_id, status: Some(200) };
    assert_eq!(outcome(&vendor(), &answer(200, &[], ACCEPTED), &Mask::default()), accepted);
}

#[tokio::test]
async fn a_hundred_cold_pushes_fetch_one_token_and_google_can_verify_who_asks() {
    let clock = clock();
    let (key, calls) = against(google(|_| reply(200, ACCEPTED)), async |base| {
        let key = Key::new(&format!("{base}/token"));
        let configured = configured(&key, &base, Arc::clone(&clock));
        let push = push();
        let outcomes = join_all((0..100).map(|_| configured.provider.push(&push))).await;
        assert!(outcomes.iter().all(|it| matches!(it, Outcome::Accepted { .. })), "{outcomes:?}");
        let shown = format!("{configured:?}");
        assert!(!shown.contains("s3cret") && !shown.contains(&key.pem[60..80]), "{shown}");
        // Nearly an hour later the token is renewed, before it ends.
        clock.advance(Duration::from_mins(55));
        configured.provider.push(&push).await;
        configured.provider.push(&push).await;
        key
    })
    .await;
    let (exchanges, sent): (Vec<_>, Vec<_>) = calls.iter().partition(|it| it.uri.path() == "/token");
    assert_eq!((exchanges.len(), sent.len()), (2, 102));
    assert!(sent.iter().all(|it| it.uri.path() == "/v1/projects/demo/messages:send"
        && it.header("authorization") == "Bearer ya29.s3cret"
        && it.header("content-type") == "application/json"));
    assert_eq!(sent[0].json()["message"]["token"], "dev/ce+token=1234");
    let form: Vec<(String, String)> =
        Url::parse(&format!("x:?{}", std::str::from_utf8(&exchanges[0].body).unwrap()))
            .unwrap()
            .query_pairs()
            .into_owned()
            .collect();
    assert_eq!(form[0], ("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into()));
    assert_eq!(form[1].0, "assertion");
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_exp = false;
    rules.set_audience(&["https://oauth2.googleapis.com/token"]);
    let proof = jsonwebtoken::decode::<Value>(&form[1].1, &key.public, &rules).unwrap();
    assert_eq!(proof.header.kid.as_deref(), Some("kid-1"));
    let issued = now().as_micros() / 1_000_000;
    let expected = json!({
        "iss": "ledger@demo.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": "https://oauth2.googleapis.com/token", "iat": issued, "exp": issued + 3600,
    });
    assert_eq!(proof.claims, expected);
}

#[tokio::test]
async fn a_token_that_cannot_be_had_says_why_and_is_asked_for_once_by_all_who_wait() {
    use FailureClass::{AuthConfig, Retry};
    for (status, body, class, code) in [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
            AuthConfig,
            "invalid_grant",
        ),
        (401, "", AuthConfig, "token_http_401"),
        (404, "<html></html>", AuthConfig, "token_http_404"),
        (429, r#"{"error":"rate_limited"}"#, Retry, "token_http_429"),
        (503, "busy", Retry, "token_http_503"),
        (200, r#"{"access_token":"","oops":"ya29.s3cret"}"#, Retry, "token_unreadable"),
        (200, "ya29.s3cret", Retry, "token_unreadable"),
    ] {
        let (failures, calls) = against(
            move |_| reply(status, body),
            async |base| {
                let key = Key::new(&format!("{base}/token"));
                let configured = configured(&key, &base, clock());
                let push = push();
                join_all((0..20).map(|_| configured.provider.push(&push)))
                    .await
                    .into_iter()
                    .map(failure)
                    .collect()
            },
        )
        .await;
        let failures: Vec<Failure> = failures;
        for failure in &failures {
            assert_eq!((failure.class, failure.code.as_str()), (class, code), "{status} {body}");
            assert!(!failure.answer.as_deref().unwrap_or_default().contains("s3cret"));
        }
        assert!(calls.iter().all(|it| it.uri.path() == "/token"), "nothing is sent without a token");
        assert_eq!(calls.len(), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn a_lost_exchange_is_no_unknown_push() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let key = Key::new(&format!("{base}/token"));
    let configured = configured(&key, &base, clock());
    let push = push();
    let hang_up = async {
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    let outcome = tokio::select! {
        () = hang_up => unreachable!(),
        outcome = configured.provider.push(&push) => outcome,
    };
    let failure = failure(outcome);
    assert_eq!(failure.class, FailureClass::Retry);
    assert!(failure.code.starts_with("token_"), "{failure:?}");
}

#[tokio::test]
async fn a_refused_token_is_replaced_unless_it_is_new() {
    let clock = clock();
    let refusals = Arc::new(AtomicU32::new(2));
    let refuse = {
        let refusals = Arc::clone(&refusals);
        move |_: &Call| {
            let left = refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
            let said = r#"{"error":{"code":401,"status":"UNAUTHENTICATED","message":"bad ya29.s3cret"}}"#;
            if left.is_ok() { reply(401, said) } else { reply(200, ACCEPTED) }
        }
    };
    let (outcomes, calls) = against(google(refuse), async |base| {
        let key = Key::new(&format!("{base}/token"));
        let configured = configured(&key, &base, Arc::clone(&clock));
        let push = push();
        let fresh = failure(configured.provider.push(&push).await);
        refusals.store(0, Ordering::SeqCst);
        assert!(matches!(configured.provider.push(&push).await, Outcome::Accepted { .. }));
        clock.advance(Duration::from_mins(2));
        refusals.store(1, Ordering::SeqCst);
        let old = failure(configured.provider.push(&push).await);
        assert!(matches!(configured.provider.push(&push).await, Outcome::Accepted { .. }));
        [fresh, old]
    })
    .await;
    let [fresh, old] = outcomes;
    assert_eq!((fresh.class, fresh.code.as_str()), (FailureClass::AuthConfig, "UNAUTHENTICATED"));
    assert_eq!((old.class, old.code.as_str()), (FailureClass::Retry, "token_refused"));
    assert_eq!(old.retry_after, Some(Duration::ZERO));
    assert!(old.answer.unwrap().contains("bad [access token]"));
    let paths: Vec<_> = calls.iter().map(|it| it.uri.path().rsplit('/').next().unwrap()).collect();
    let send = "messages:send";
    assert_eq!(paths, ["token", send, "token", send, send, "token", send]);
}

#[tokio::test]
async fn a_check_sends_nothing_to_anybody() {
    let (checks, calls) = against(google(|_| reply(200, ACCEPTED)), async |base| {
        let key = Key::new(&format!("{base}/token"));
        configured(&key, &base, clock()).provider.check().await
    })
    .await;
    assert!(checks.unwrap().detail.contains("project demo"));
    assert_eq!(calls[1].json()["validateOnly"], true);
    let (check, _) = against(google(|_| reply(404, "<html></html>")), async |base| {
        let key = Key::new(&format!("{base}/token"));
        configured(&key, &base, clock()).provider.check().await
    })
    .await;
    assert_eq!(check.unwrap_err().class, FailureClass::AuthConfig);
}

#[test]
fn credentials_that_cannot_be_used_are_refused_without_being_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let reference = format!("file:{}", file.path().display());
    let key = Key::new("https://oauth2.example/token");
    let account = |pem: &str, uri: &str| {
        json!({ "client_email": "a@b", "private_key": pem, "token_uri": uri }).to_string()
    };
    for (text, at, problem) in [
        ("s3cret".to_owned(), "credentials", "no JSON with client_email and private_key"),
        (account("s3cret", "https://a.example/"), "credentials", "no RSA key in PEM"),
        (account(&key.pem, "s3cret"), "credentials", "token_uri is no address"),
        (account(&key.pem, "https://a.example/"), "project_id", "is missing, also in the credentials"),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let error = build("google", "fcm", json!({ "credentials": reference }), clock()).unwrap_err();
        assert_eq!(error.key, at);
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
