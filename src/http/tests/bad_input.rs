//! Input that is no message, and requests that make no sense: each is told what is wrong and what to
//! do.

use std::fmt::Write;

use axum::{body::Body, http::Request};

use super::{Fixture, message};

#[tokio::test]
async fn ten_kinds_of_bad_input_are_refused_with_a_remedy() {
    let it = Fixture::with(super::Keys::default(), |settings| settings.body_limit_bytes = 512 * 1024).await;
    let with = |member: &str| message("m-1", "user-1").replacen('{', &format!("{{{member},"), 1);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("not UTF-8", b"{\"title\":\"\xff\"}".to_vec()),
        ("not JSON", b"title=News".to_vec()),
        ("empty", Vec::new()),
        ("wrong type", message("m-1", "user-1").replace("\"user-1\"", "17").into_bytes()),
        ("no id", message("m-1", "user-1").replace("\"messageId\":\"m-1\",", "").into_bytes()),
        ("too long", message("m-1", "user-1").replace("News", &"n".repeat(600)).into_bytes()),
        ("unknown type", message("m-1", "user-1").replace("APP_NOTIFICATION", "SMS").into_bytes()),
        ("control character", message("m-1", "user-1").replace("user-1", "user\\u0007").into_bytes()),
        ("more than a message may have", with(&format!("\"x\":\"{}\"", "x".repeat(300_000))).into_bytes()),
        ("1 MiB", with(&format!("\"x\":\"{}\"", "x".repeat(1 << 20))).into_bytes()),
        ("deep list", deep.clone().into_bytes()),
        ("deep object", with(&format!("\"data\":{{\"a\":{deep}}}")).into_bytes()),
        ("the same member twice", with("\"title\":\"Other\"").into_bytes()),
        ("many, cut off", format!("[{}", message("m-1", "user-1")).into_bytes()),
        ("too many", format!("[{}]", vec!["{}"; 501].join(",")).into_bytes()),
    ];
    let mut answers = String::new();
    for (what, input) in inputs {
        let answer = it.post("/v1/messages", input).await;
        writeln!(answers, "--- {what}: {answer}").unwrap();
        if !answer.status.is_success() {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        }
    }
    insta::assert_snapshot!("bad_input", answers);
    assert_eq!(it.ledger.store().heads().await.unwrap()[0].position.0, 0, "nothing of it was appended");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_problems_too() {
    let it = Fixture::new().await;
    let mut answers = String::new();
    for path in [
        "/",
        "/v1/recipients/user-1/letters",
        "/v1/messages/a%20b",
        "/v1/messages/%ff",
        "/v1/recipients/%00/inbox",
        "/v1/recipients/user-1/inbox?category=%ff",
        "/v1/recipients/user-1/inbox?%EC%97%AC%ff=%",
        "/v1/deliveries?provider=%F0%9F",
        "/v1/recipients/user-1/inbox?limit=0",
        "/v1/recipients/user-1/inbox?limit=many",
        "/v1/recipients/user-1/inbox?limt=5",
        "/v1/recipients/user-1/inbox?status=new",
        "/v1/recipients/user-1/inbox?before=yesterday",
        "/v1/recipients/user-1/inbox?before=7-1",
        "/v1/recipients/user-1/inbox?after=7-1",
        "/v1/recipients/user-1/messages?since=yesterday",
        "/v1/recipients/user-1/messages?limit=201",
    ] {
        let answer = it.get(path).await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        writeln!(answers, "--- GET {path}: {answer}").unwrap();
    }
    for (path, body) in [
        ("/v1/recipients/user-1/inbox/m-1/burn", ""),
        ("/v1/recipients/user-1/inbox/read", ""),
        ("/v1/recipients/user-1/inbox/read", "{}"),
        ("/v1/recipients/user-1/inbox/read", r#"{"upTo": "7-1"}"#),
    ] {
        let answer = it.post(path, body).await;
        writeln!(answers, "--- POST {path} {body}: {answer}").unwrap();
    }
    let answer = it.call(Request::delete("/v1/messages").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("allow"), Some("POST"));
    writeln!(answers, "--- DELETE /v1/messages: {answer}").unwrap();
    let request = Request::get("/v1/recipients/user-1/inbox").header("if-position", "x");
    let answer = it.call(request.body(Body::empty()).unwrap()).await;
    writeln!(answers, "--- If-Position: x: {answer}").unwrap();
    insta::assert_snapshot!("bad_requests", answers);
}
