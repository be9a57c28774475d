//! Every route against every scope.

use axum::{
    body::Body,
    http::{Method, Request},
};

use super::{Fixture, Keys};
use crate::{
    http::auth::{Key, Scope},
    secret::Secret,
};

/// Every route and the scope it needs; none for those that need no key.
const ROUTES: [(Method, &str, Option<Scope>); 28] = [
    (Method::POST, "/v1/messages", Some(Scope::MessagesWrite)),
    (Method::GET, "/v1/messages/m-1", Some(Scope::MessagesRead)),
    (Method::GET, "/v1/recipients/user-1/messages", Some(Scope::MessagesRead)),
    (Method::GET, "/v1/recipients/user-1/inbox", Some(Scope::InboxRead)),
    (Method::GET, "/v1/recipients/user-1/inbox/counts", Some(Scope::InboxRead)),
    (Method::POST, "/v1/recipients/user-1/inbox/read", Some(Scope::InboxWrite)),
    (Method::POST, "/v1/recipients/user-1/inbox/m-1/read", Some(Scope::InboxWrite)),
    (Method::GET, "/v1/recipients/user-1/devices", Some(Scope::DevicesRead)),
    (Method::GET, "/v1/recipients/user-1/devices/d-1", Some(Scope::DevicesRead)),
    (Method::PUT, "/v1/recipients/user-1/devices/d-1", Some(Scope::DevicesWrite)),
    (Method::DELETE, "/v1/recipients/user-1/devices/d-1", Some(Scope::DevicesWrite)),
    (Method::POST, "/v1/receipts", Some(Scope::ReceiptsWrite)),
    (Method::GET, "/v1/deliveries", Some(Scope::MessagesRead)),
    (Method::POST, "/v1/deliveries/replay", Some(Scope::Deliveries)),
    (
        Method::GET,
        "/v1/messages/m-1/deliveries/01920000-0000-7000-8000-000000000000",
        Some(Scope::MessagesRead),
    ),
    (
        Method::POST,
        "/v1/messages/m-1/deliveries/01920000-0000-7000-8000-000000000000/retry",
        Some(Scope::Deliveries),
    ),
    (
        Method::POST,
        "/v1/messages/m-1/deliveries/01920000-0000-7000-8000-000000000000/cancel",
        Some(Scope::Deliveries),
    ),
    (Method::GET, "/v1/providers", Some(Scope::MessagesRead)),
    (Method::POST, "/v1/providers/nobody/pause", Some(Scope::Providers)),
    (Method::POST, "/v1/providers/nobody/resume", Some(Scope::Providers)),
    (Method::GET, "/v1/projections", Some(Scope::Projections)),
    (Method::GET, "/v1/quarantine", Some(Scope::Quarantine)),
    (Method::GET, "/v1/quarantine/01920000-0000-7000-8000-000000000000", Some(Scope::Quarantine)),
    (Method::POST, "/v1/quarantine/01920000-0000-7000-8000-000000000000/retry", Some(Scope::Quarantine)),
    (Method::POST, "/v1/quarantine/01920000-0000-7000-8000-000000000000/discard", Some(Scope::Quarantine)),
    (Method::GET, "/metrics", Some(Scope::Metrics)),
    (Method::GET, "/healthz", None),
    (Method::GET, "/readyz", None),
];

#[tokio::test]
async fn every_route_opens_to_its_scope_and_to_admin_and_to_nobody_else() {
    let secret = |scope: Scope| format!("secret of {scope}");
    let keys = Scope::ALL.map(|it| Key::new(it.as_str(), &Secret::new(secret(it)), vec![it]));
    let it = Fixture::with(Keys::new(keys.to_vec()), |_| ()).await;
    for (method, path, needs) in ROUTES {
        let call = |authorization: Option<String>| {
            let mut request = Request::builder().method(method.clone()).uri(path);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            it.call(request.body(Body::empty()).unwrap())
        };
        let denied = |status: u16| matches!(status, 401 | 403);
        let status = call(None).await.status.as_u16();
        assert_eq!(status == 401, needs.is_some(), "{method} {path} without a key: {status}");
        let status = call(Some("Bearer wrong".to_owned())).await.status.as_u16();
        assert_eq!(status == 401, needs.is_some(), "{method} {path} with a wrong key: {status}");
        for scope in Scope::ALL {
            let status = call(Some(format!("Bearer {}", secret(scope)))).await.status.as_u16();
            let open = needs.is_none_or(|needs| needs == scope || scope == Scope::Admin);
            assert_eq!(!denied(status), open, "{method} {path} with {scope}: {status}");
        }
    }
}

#[tokio::test]
async fn an_inbox_of_ones_own_is_not_for_keys_and_not_for_nobody() {
    let key = Key::new("app", &Secret::new("secret of the app"), vec![Scope::Admin]);
    let keyed = Fixture::with(Keys::new(vec![key]), |_| ()).await;
    let local = Fixture::new().await;
    for (method, path) in [
        (Method::GET, "/v1/inbox"),
        (Method::GET, "/v1/inbox/counts"),
        (Method::POST, "/v1/inbox/read"),
        (Method::POST, "/v1/inbox/m-1/read"),
    ] {
        let request = || Request::builder().method(method.clone()).uri(path);
        let with_key = request().header("authorization", "Bearer secret of the app");
        let answer = keyed.call(with_key.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 403, "{method} {path}: {answer}");
        for it in [&keyed, &local] {
            let answer = it.call(request().body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 401, "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn who_is_refused_is_told_how_to_be_let_in() {
    let key = Key::new("app", &Secret::new("secret of the app"), vec![Scope::InboxRead]);
    let it = Fixture::with(Keys::new(vec![key]), |_| ()).await;
    let answer = it.get("/v1/projections").await;
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"notification-ledger\""));
    insta::assert_snapshot!("no_key", answer);
    let request = Request::get("/v1/projections").header("authorization", "Bearer secret of the app");
    insta::assert_snapshot!("no_scope", it.call(request.body(Body::empty()).unwrap()).await);
}

#[tokio::test]
async fn without_keys_a_page_in_the_browser_is_refused() {
    let it = Fixture::new().await;
    let request = Request::post("/v1/messages")
        .header("host", "127.0.0.1:8080")
        .header("origin", "https://page.example")
        .body(Body::from(super::message("m-1", "user-1")))
        .unwrap();
    insta::assert_snapshot!("page", it.call(request).await);
}
