//! Health, metrics, and what is around every request: ids, limits, panics, and a log without secrets.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    middleware,
    routing::get,
};
use tower::ServiceExt;

use super::{Callers, Fixture, Keys, Settings};
use crate::{
    http::{
        App,
        auth::{Key, Scope},
        observe::observe,
    },
    projection::ALL,
};

#[tokio::test]
async fn a_process_is_up_and_ready() {
    let it = Fixture::new().await;
    insta::assert_snapshot!("healthz", it.get("/healthz").await);
    insta::assert_snapshot!("readyz", it.get("/readyz").await);
}

#[tokio::test]
async fn a_process_whose_database_is_gone_is_up_and_not_ready() {
    let it = Fixture::new().await;
    it.ledger.store().close().await;
    assert_eq!(it.get("/healthz").await.status, StatusCode::OK);
    assert!(it.get("/readyz").await.status.is_server_error());
    assert!(it.post("/v1/messages", super::message("m-1", "user-1")).await.status.is_server_error());
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_say_how_far_projections_are() {
    let it = Fixture::new().await;
    it.send("m-1").await;
    it.get("/v1/recipients/user-1/inbox").await;
    it.clock.advance(Duration::from_secs(90));
    let answer = it.get("/metrics").await;
    let text = String::from_utf8(answer.body).unwrap();
    for expected in [
        r#"notification_ledger_http_requests_total{method="GET",route="/v1/recipients/{recipient}/inbox",status="200"}"#,
        r#"notification_ledger_received_total{ingress="http"}"#,
        r#"notification_ledger_projection_lag_seconds{projection="inbox"}"#,
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(!text.contains("user-1"), "{text}");
}

#[tokio::test]
async fn the_projections_are_listed_with_their_lag() {
    let it = Fixture::new().await;
    it.send("m-1").await;
    it.clock.advance(Duration::from_millis(2500));
    it.send("m-2").await;
    let store = it.ledger.store();
    let (inbox, slot, shard) = (ALL[0], crate::store::Slot::A, crate::id::Shard(0));
    store.project(inbox, slot, shard, 1, None).await.unwrap();
    it.clock.advance(Duration::from_secs(1));
    let answer = it.get("/v1/projections").await.json();
    let listed = answer["projections"].as_array().unwrap();
    let names: BTreeSet<_> = listed.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!((names, listed.len()), (ALL.iter().map(|it| it.name()).collect(), ALL.len()));
    assert_eq!(answer["skipped"], serde_json::json!([]));
    let inbox = listed.iter().find(|it| it["name"] == "inbox").unwrap();
    insta::assert_snapshot!("projections", format!("{inbox:#}"));
    let others = listed.iter().filter(|it| it["name"] != "inbox");
    let lags: BTreeSet<_> = others.map(|it| it["shards"][0]["lagEvents"].as_i64()).collect();
    assert_eq!(lags, [Some(2)].into());
}

#[tokio::test]
async fn a_request_keeps_its_id_and_gets_one_where_it_has_none() {
    let it = Fixture::new().await;
    let request = Request::get("/healthz").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    assert_eq!(it.call(request).await.header("x-request-id"), Some("abc-1"));
    let odd = Request::get("/healthz").header("x-request-id", "a b").body(Body::empty()).unwrap();
    for answer in [it.get("/healthz").await, it.call(odd).await] {
        let id = answer.header("x-request-id").unwrap();
        assert!(id.len() == 16 && id.bytes().all(|it| it.is_ascii_hexdigit()), "{id}");
    }
}

#[tokio::test]
async fn panics_and_slow_requests_end_as_problems() {
    async fn panics() {
        panic!("as the test wants it");
    }
    let it = Fixture::new().await;
    let settings = Settings {
        wait_for_projection: Duration::ZERO,
        body_limit_bytes: 1,
        request_timeout: Duration::from_millis(1),
        recheck: crate::http::RECHECK,
        pages: crate::http::Pages::Own,
    };
    let app = Arc::new(App {
        ledger: it.ledger.clone(),
        callers: Callers::default(),
        settings,
        live: Arc::clone(&it.live),
        rebuilds: it.rebuilds.clone(),
        metrics: None,
    });
    let router = Router::new()
        .route("/panic", get(panics))
        .route("/slow", get(std::future::pending::<()>))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app);
    let it = Fixture { router, ..it };
    insta::assert_snapshot!("panic", it.get("/panic").await);
    insta::assert_snapshot!("slow", it.get("/slow").await);
    assert!(it.router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.is_ok());
}

/// Where the log goes while a test looks at it.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_the_caller_and_the_route_and_nothing_personal() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // Where there is one alone, a place that a test without any logs first is taken to log nowhere.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(subscriber);

    let key = Key::new("billing", &crate::secret::Secret::new("canary-secret-123456"), vec![Scope::Admin]);
    let it = Fixture::with(Keys::new(vec![key]), |_| ()).await;
    let body = r#"{"messageId":"m-1","notificationType":["APP_NOTIFICATION","PUSH"],
        "recipientId":"canary-recipient","title":"canary-title","body":"canary-body",
        "push":{"targets":[{"token":"canary-token"}]}}"#;
    let call = |request: axum::http::request::Builder, body: &'static str| {
        it.call(request.header("authorization", "Bearer canary-secret-123456").body(body.into()).unwrap())
    };
    assert_eq!(call(Request::post("/v1/messages"), body).await.status, StatusCode::CREATED);
    call(Request::post("/v1/messages"), r#"{"title":"canary-title","title":"canary-body"}"#).await;
    call(Request::get("/v1/recipients/canary-recipient/inbox?limit=canary-query"), "").await;
    call(Request::get("/v1/recipients/canary-recipient/inbox"), "").await;
    call(Request::get("/v1/canary-path"), "").await;
    it.get("/v1/recipients/canary-recipient/inbox").await;
    it.project().await;

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains("canary"), "{log}");
    assert!(log.contains("billing") && log.contains("/v1/recipients/{recipient}/inbox"), "{log}");
    assert!(log.contains("a request was denied"), "{log}");
}
