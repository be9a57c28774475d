//! What web pages may read, and answers that are compressed.

use axum::{
    body::Body,
    http::{HeaderValue, Request},
};

use super::{Answer, Fixture, message};
use crate::http::{Pages, auth::Callers};

async fn asked(it: &Fixture, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    it.call(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn pages_of_the_origins_that_are_named_may_read_and_ask_before_they_are_known() {
    let app = "https://app.example";
    let preflight = |origin| {
        [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,last-event-id"),
        ]
    };
    for (pages, origin, allowed) in [
        (Pages::Own, app, None),
        (Pages::Of(vec![HeaderValue::from_static(app)]), app, Some(app)),
        (Pages::Of(vec![HeaderValue::from_static(app)]), "https://app.example.evil.example", None),
        (Pages::Of(vec![HeaderValue::from_static(app)]), "null", None),
        (Pages::Any, "https://any.example", Some("*")),
    ] {
        let it = Fixture::for_pages(Callers::default(), pages.clone()).await;
        let answer = asked(&it, "OPTIONS", "/v1/inbox/read", &preflight(origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{pages:?} {origin}: {answer}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        if allowed.is_some() {
            assert_eq!(answer.status.as_u16(), 200);
            let sent = answer.header("access-control-allow-headers").unwrap();
            assert!(sent.contains("authorization") && sent.contains("last-event-id"), "{sent}");
        }
        // A refusal may be read too, or nobody could tell why.
        let refused = asked(&it, "GET", "/v1/inbox", &[("origin", origin)]).await;
        assert!(refused.status.is_client_error());
        assert_eq!(refused.header("access-control-allow-origin"), allowed, "{pages:?} {origin}");
        // A page may read, but without a token it is nobody: not even where every program may call.
        let local = asked(&it, "GET", "/v1/recipients/user-1/inbox", &[("origin", origin)]).await;
        assert_eq!(local.status.as_u16(), 403, "{pages:?} {origin}");
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask_and_streams_never() {
    let it = Fixture::new().await;
    let list: Vec<_> = (0..20).map(|n| message(&format!("m-{n}"), "user-1")).collect();
    it.post("/v1/messages", format!("[{}]", list.join(","))).await;
    it.project().await;
    let gzip = [("accept-encoding", "gzip")];
    let inbox = "/v1/recipients/user-1/inbox";
    let small = asked(&it, "GET", "/v1/recipients/nobody/inbox", &gzip).await;
    assert_eq!(small.header("content-encoding"), None);
    let plain = asked(&it, "GET", inbox, &[]).await;
    let packed = asked(&it, "GET", inbox, &gzip).await;
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), (None, Some("gzip")));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() * 2 < plain.body.len());
    assert_eq!(packed.header("etag"), plain.header("etag"), "it is weak: the same content");
    assert!(plain.header("vary").is_some_and(|it| it.contains("accept-encoding")), "{:?}", plain.headers);
    let tag = packed.header("etag").unwrap().to_owned();
    let known = asked(&it, "GET", inbox, &[gzip[0], ("if-none-match", &tag)]).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    let stream = Request::get(format!("{inbox}/stream")).header("accept-encoding", "gzip");
    let stream =
        tower::ServiceExt::oneshot(it.router.clone(), stream.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(stream.headers().get("content-encoding"), None);
}
