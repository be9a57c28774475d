//! What the declarative provider sends, and what it makes of answers, over real connections.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap as Headers, Method as Verb, StatusCode, Uri},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::super::{Configured, build, double::failure, tests::push};
use super::*;
use crate::{
    clock::{ManualClock, Timestamp},
    message::Target,
};

mod documented;

const NOW: &str = "2026-11-23T08:00:00Z";

/// What a server saw: method, path and query, headers, body.
type Call = (Verb, Uri, Headers, Bytes);

/// What a server answers: status, headers, body.
type Reply = (StatusCode, Headers, &'static str);

/// What a server answers, and what that means.
type Case = (u16, &'static [(&'static str, &'static str)], &'static str, Outcome);

fn provider(settings: Value) -> Configured {
    let clock = ManualClock::new(Timestamp::parse(NOW).unwrap());
    build("acme", "http", settings, Arc::new(clock)).unwrap()
}

fn refusal(settings: Value) -> String {
    let clock = ManualClock::new(Timestamp::parse(NOW).unwrap());
    build("acme", "http", settings, Arc::new(clock)).unwrap_err().to_string()
}

/// A file with a secret, and the reference to it.
fn secret(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let reference = format!("file:{}", file.path().display());
    (file, reference)
}

/// Runs `client` against a server that handles connections one after the other with `handle`.
async fn against<T, H: Future<Output = ()>, C: Future<Output = T>>(
    handle: impl Fn(TcpStream) -> H,
    client: impl FnOnce(String) -> C,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        loop {
            handle(listener.accept().await.unwrap().0).await;
        }
    };
    until_answered(serve, client(base)).await
}

/// Runs `client` against an axum server.
async fn against_router<T, C: Future<Output = T>>(router: Router, client: impl FnOnce(String) -> C) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        axum::serve(listener, router).await.unwrap();
        unreachable!("axum serves until it is dropped")
    };
    until_answered(serve, client(base)).await
}

async fn until_answered<T>(serve: impl Future<Output = Infallible>, client: impl Future<Output = T>) -> T {
    tokio::select! {
        never = pin!(serve) => match never {},
        answer = client => answer,
    }
}

async fn first_byte(stream: &mut TcpStream) {
    stream.read_exact(&mut [0]).await.unwrap();
}

async fn answers(base: String, more: Value) -> Outcome {
    let mut settings = json!({ "url": format!("{base}/send"), "timeout_ms": 5_000 });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    provider(settings).provider.push(&push()).await
}

/// One call to a server that writes `answer` and closes.
async fn said(answer: impl AsRef<[u8]>, more: Value) -> Outcome {
    let handle = |mut stream: TcpStream| {
        let answer = answer.as_ref().to_vec();
        async move {
            let _ = stream.read_buf(&mut Vec::with_capacity(16 * 1024)).await;
            // The client may hang up when it has seen enough.
            let _ = stream.write_all(&answer).await;
        }
    };
    against(handle, |base| answers(base, more)).await
}

fn failed(class: FailureClass, code: &str, status: Option<u16>, answer: Option<&str>) -> Outcome {
    let answer = answer.map(str::to_owned);
    Outcome::Failed(Failure { status, answer, ..Failure::new(class, code) })
}

#[tokio::test]
async fn what_is_sent_is_what_the_templates_say() {
    let (_file, reference) = secret("s3cret/key\n");
    let seen: Arc<Mutex<Vec<Call>>> = Arc::default();
    let record = async |State(seen): State<Arc<Mutex<Vec<Call>>>>, verb, uri, headers, body| {
        seen.lock().unwrap().push((verb, uri, headers, body));
        (StatusCode::ACCEPTED, r#"{"result":{"message":{"id":"v-1"}}}"#)
    };
    let settings = |base: &str| {
        json!({
            "method": "PUT",
            "url": format!("{base}/apps/7/{{{{target.kind}}}}/{{{{target.value}}}}?k={{{{secret.api_key}}}}"),
            "secrets": { "api_key": reference },
            "headers": {
                "Authorization": "Bearer {{secret.api_key}}",
                "Idempotency-Key": "{{providerKey}}",
                "X-Topic": "{{target.topic}}",
                "Content-Type": "application/vnd.acme+json",
            },
            "body": r#"{"title": "{{title}}", "text": "{{body}}", "ttl": "{{ttlSeconds}}"}"#,
            "id": "/result/message/id",
        })
    };
    let router = Router::new().fallback(record).with_state(Arc::clone(&seen));
    let outcome = against_router(router, async |base| {
        let configured = provider(settings(&base));
        assert!(!format!("{configured:?}").contains("s3cret"));
        configured.provider.push(&push()).await
    })
    .await;
    let provider_message_id = Some("v-1".to_owned());
    assert_eq!(outcome, Outcome::Accepted { provider_message_id, status: Some(202) });
    let calls = std::mem::take(&mut *seen.lock().unwrap());
    let [(verb, uri, headers, body)] = calls.as_slice() else { panic!("one attempt is one call") };
    assert_eq!((verb, uri.path()), (&Verb::PUT, "/apps/7/token/dev%2Fce%2Btoken%3D1234"));
    assert_eq!(uri.query(), Some("k=s3cret%2Fkey"));
    let header = |name: &str| headers.get(name).map(|it| it.to_str().unwrap());
    assert_eq!(header("authorization"), Some("Bearer s3cret/key"));
    assert_eq!(header("idempotency-key"), Some(push().provider_key.as_str()));
    assert_eq!(header("content-type"), Some("application/vnd.acme+json"));
    assert_eq!(header("x-topic"), None);
    let sent: Value = serde_json::from_slice(body).unwrap();
    let expected = json!({"title": "Your pass expires tomorrow", "text": "Only on the phone", "ttl": 3600});
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn without_a_body_template_everything_a_push_service_needs_is_sent() {
    let echo = async |body: Bytes| (StatusCode::IM_A_TEAPOT, body);
    let outcome = against_router(Router::new().fallback(echo), |base| answers(base, json!({}))).await;
    let push = push();
    let expected = json!({
        "deliveryId": push.delivery_id, "attempt": 2, "idempotencyKey": push.provider_key,
        "messageId": "m-42", "recipientId": "user-42",
        "target": {"kind": "token", "value": "[token:…1234]"},
        "title": "Your pass expires tomorrow", "body": "Only on the phone", "category": "pass",
        "link": "app://pass/7", "imageUrl": "https://img.example/7.png", "data": push.message.data,
        "locale": "ko-KR", "collapseKey": "pass-7", "priority": "high",
        "expiresAt": "2026-11-23T09:00:00.000000Z",
    });
    let sent: Value = serde_json::from_str(&failure(outcome).answer.unwrap()).unwrap();
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn every_answer_becomes_the_outcome_that_the_rules_or_its_status_say() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry, Unknown};
    let accepted = |id: Option<&str>| Outcome::Accepted {
        provider_message_id: id.map(str::to_owned),
        status: Some(200),
    };
    let after = |seconds: u64, outcome: Outcome| {
        Outcome::Failed(Failure { retry_after: Some(Duration::from_secs(seconds)), ..failure(outcome) })
    };
    let no_one = r#"{"id":"","errors":["All included players are not subscribed"]}"#;
    let limited = r#"{"errors":["API rate limit exceeded"]}"#;
    let cases: Vec<Case> = vec![
        (200, &[], r#"{"id":"n-1"}"#, accepted(Some("n-1"))),
        (200, &[], r#"{"id":4711}"#, accepted(Some("4711"))),
        (200, &[], "OK", accepted(None)),
        (200, &[], "", accepted(None)),
        (
            200,
            &[],
            no_one,
            failed(InvalidTarget, "All included players are not subscribed", Some(200), Some(no_one)),
        ),
        (400, &[], r#"{"error":"bad_token"}"#, {
            failed(InvalidTarget, "http_400", Some(400), Some(r#"{"error":"bad_token"}"#))
        }),
        (400, &[], r#"{"errors":["no"]}"#, failed(Permanent, "no", Some(400), Some(r#"{"errors":["no"]}"#))),
        (401, &[], "", failed(AuthConfig, "http_401", Some(401), None)),
        (403, &[], "<html>no</html>", failed(AuthConfig, "http_403", Some(403), Some("<html>no</html>"))),
        (404, &[], "", failed(Permanent, "http_404", Some(404), None)),
        (410, &[], "", failed(Permanent, "http_410", Some(410), None)),
        (410, &[("x-reason", "unregistered")], "", failed(InvalidTarget, "unregistered", Some(410), None)),
        (302, &[("location", "/elsewhere")], "", failed(Permanent, "http_302", Some(302), None)),
        (408, &[], "", failed(Retry, "http_408", Some(408), None)),
        (425, &[], "", failed(Retry, "http_425", Some(425), None)),
        (
            429,
            &[("retry-after", "120")],
            limited,
            Outcome::Failed(Failure {
                scope: RetryScope::Provider,
                ..failure(after(120, failed(Retry, "API rate limit exceeded", Some(429), Some(limited))))
            }),
        ),
        (
            503,
            &[("retry-after", "Mon, 23 Nov 2026 08:01:30 GMT"), ("date", "Mon, 23 Nov 2026 08:00:30 GMT")],
            "busy",
            after(60, failed(Retry, "http_503", Some(503), Some("busy"))),
        ),
        (500, &[], "{\"truncated\":", failed(Retry, "http_500", Some(500), Some("{\"truncated\":"))),
        (502, &[], "<html>bad gateway</html>", {
            failed(Retry, "http_502", Some(502), Some("<html>bad gateway</html>"))
        }),
        (504, &[], "", failed(Unknown, "http_504", Some(504), None)),
    ];
    let replies: Vec<Reply> = cases
        .iter()
        .map(|(status, headers, body, _)| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            (StatusCode::from_u16(*status).unwrap(), headers.collect(), *body)
        })
        .collect();
    let reply = async |State(replies): State<Arc<Vec<Reply>>>, Path(case): Path<usize>| replies[case].clone();
    let router =
        Router::new().route("/case/{case}", axum::routing::post(reply)).with_state(Arc::new(replies));
    against_router(router, async |base| {
        let configured = provider(json!({
            "url": format!("{base}/case/{{{{message.data.case}}}}"),
            "id": "/id",
            "code": "/errors/0",
            "outcomes": [
                {"status": 200, "pointer": "/id", "equals": "", "class": "invalid_target"},
                {"status": 400, "pointer": "/error", "equals": "bad_token", "class": "invalid_target"},
                {"status": 410, "header": {"name": "x-reason", "equals": "unregistered"},
                 "class": "invalid_target", "code": "header:x-reason"},
                {"status": 504, "class": "unknown"},
            ],
        }));
        for (number, (status, headers, body, expected)) in cases.into_iter().enumerate() {
            let mut push = push();
            Arc::make_mut(&mut push.message).data.insert("case".into(), number.into());
            let outcome = configured.provider.push(&push).await;
            assert_eq!(outcome, expected, "{status} {headers:?} {body}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_date_without_the_providers_clock_counts_from_our_own() {
    let answer =
        "HTTP/1.1 503 Busy\r\nretry-after: Mon, 23 Nov 2026 08:01:30 GMT\r\ncontent-length: 0\r\n\r\n";
    let failure = failure(said(answer, json!({})).await);
    assert_eq!(failure.retry_after, Some(Duration::from_secs(90)));
}

#[tokio::test]
async fn no_answer_in_time_is_unknown() {
    let hang = |mut stream: TcpStream| async move {
        first_byte(&mut stream).await;
        std::future::pending::<()>().await;
    };
    let outcome = against(hang, |base| answers(base, json!({"timeout_ms": 100}))).await;
    let failure = failure(outcome);
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Unknown, "timeout"));
    assert_eq!(failure.status, None);
}

#[tokio::test]
async fn a_connection_lost_after_the_request_is_unknown() {
    // Closed with unread bytes, the connection is reset and not just ended.
    let reset = |mut stream: TcpStream| async move { first_byte(&mut stream).await };
    let failure = failure(against(reset, |base| answers(base, json!({}))).await);
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Unknown, "reset"));
    let why = failure.answer.unwrap();
    assert!(!why.contains("/send"), "an error must not tell the URL: {why}");
}

#[tokio::test]
async fn a_connection_that_never_stood_is_worth_another_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for base in [base, "http://no-such-host.invalid".to_owned()] {
        let failure = failure(answers(base, json!({})).await);
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Retry, "connect"));
        assert!(failure.answer.is_some_and(|it| !it.is_empty()));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_proves_only_what_its_status_proves() {
    use FailureClass::{Retry, Unknown};
    let rule =
        json!({"outcomes": [{"status": 400, "pointer": "/e", "equals": 1, "class": "retry"}], "id": "/id"});
    for (status, class, code) in
        [("200", Unknown, "reset"), ("400", Unknown, "reset"), ("503", Retry, "http_503")]
    {
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 100\r\n\r\n{{\"id\":");
        let failure = failure(said(answer, rule.clone()).await);
        assert_eq!((failure.class, failure.code.as_str()), (class, code), "{status}");
        assert_eq!(failure.status, status.parse().ok());
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_is_not_read_to_its_end() {
    let endless = |mut stream: TcpStream| async move {
        first_byte(&mut stream).await;
        let head = "HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    let failure = failure(against(endless, |base| answers(base, json!({}))).await);
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Retry, "http_500"));
    assert_eq!(failure.answer.map(|it| it.len()), Some(4_096));
}

#[tokio::test]
async fn secrets_and_device_tokens_do_not_come_back_into_the_record() {
    let (_file, reference) = secret("s3cret/key");
    let more = json!({
        "secrets": {"api_key": reference},
        "headers": {"authorization": "Key {{secret.api_key}}"},
        "code": "/code",
    });
    let body =
        r#"{"code":"s3cret/key","to":"dev\/ce+token\u003d1234","url":"?k=s3cret%2Fkey","for":"user-42"}"#;
    let answer = format!("HTTP/1.1 400 X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let failure = failure(said(answer, more).await);
    assert_eq!(failure.code, "[api_key]");
    let recorded = r#"{"code":"[api_key]","to":"[token:…1234]","url":"?k=[api_key]","for":"user-42"}"#;
    assert_eq!(failure.answer.as_deref(), Some(recorded));
}

#[tokio::test]
async fn a_push_that_cannot_be_written_is_not_sent() {
    let settings = json!({"url": "http://127.0.0.1:9/{{target.alias}}"});
    let failure = failure(provider(settings).provider.push(&push()).await);
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Permanent, "template"));
    let why = "not sent: the URL needs {{target.alias}}, and this push has none";
    assert_eq!(failure.answer.as_deref(), Some(why));
}

#[test]
fn settings_that_cannot_work_are_refused_with_a_remedy() {
    let with = |key: &str, value: Value| {
        let mut settings = json!({"url": "https://a.example/send"});
        settings[key] = value;
        refusal(settings)
    };
    for (error, expected) in [
        (refusal(json!({})), "url is missing; set it to a URL such as"),
        (with("url", json!("push.example.com")), "url does not begin with http:// or https:// and a host"),
        (with("url", json!("https://a/{{tok}}")), "url names {{tok}}, which is not known; use one of: title"),
        (with("method", json!("post")), "method is \"post\"; make it one of: POST, PUT"),
        (with("headers", json!({"a b": "x"})), "headers.a b is no header that can be set"),
        (with("headers", json!({"Host": "x"})), "headers.Host is no header that can be set"),
        (with("headers", json!({"x": 1})), "headers.x is a number; make it a text"),
        (with("headers", json!({"x": "{{nope}}"})), "headers.x names {{nope}}, which is not known"),
        (with("headers", json!({"x": "a\nb"})), "headers.x has a control character"),
        (
            with("headers", json!({"Authorization": "Bearer abc"})),
            "headers.Authorization holds no {{secret.NAME}}; keep the credential under secrets",
        ),
        (with("secrets", json!({"a b": "env:X"})), "secrets.a b cannot be the name of a secret"),
        (with("secrets", json!({"key": "sk_live_1"})), "secrets.key is not a reference to a secret"),
        (
            with("secrets", json!({"key": "env:NOT_SET_ANYWHERE"})),
            "secrets.key refers to the environment variable NOT_SET",
        ),
        (with("body", json!("{")), "body is a text that is not JSON: EOF"),
        (with("body", json!({"a": "{{nope}}"})), "body names {{nope}}, which is not known"),
        (with("id", json!("id")), "id is \"id\"; make it a JSON pointer such as"),
        (with("outcomes", json!({})), "outcomes is a table and cannot be used; make it a list of tables"),
        (with("outcomes", json!([{"status": 1}])), "outcomes[0].status cannot be used"),
        (with("base_url", json!("x")), "base_url is not a known key; use one of: timeout_ms, "),
    ] {
        assert!(error.starts_with("provider \"acme\": "), "{error}");
        assert!(error.contains(expected) && !error.contains("sk_live"), "{error}");
    }
    let error = refusal(json!({"url": "https://a.example", "method": "GET", "body": {}}));
    assert!(error.contains("body is set, and GET sends none"), "{error}");
}
