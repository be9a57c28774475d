//! Every route against everybody who may come: with the right key, with a wrong one, with a token that is not
//! taken, as somebody else, and with nothing.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    body::Body,
    http::{Method, Request},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Callers, Fixture, Keys};
use crate::{
    http::auth::{
        Key, Origin, Scope, Users, issue,
        issuer::{Issuer, claims, message, rules},
    },
    secret::Secret,
};

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Asks {
    Nothing,
    /// A key with this scope.
    A(Scope),
    /// A user's token.
    User,
}
use Asks::{A, Nothing, User};

/// Every route, and what it asks.
pub(super) const ROUTES: [(Method, &str, Asks); 42] = [
    (Method::POST, "/v1/messages", A(Scope::MessagesWrite)),
    (Method::GET, "/v1/messages/{message}", A(Scope::MessagesRead)),
    (Method::GET, "/v1/recipients/{recipient}/messages", A(Scope::MessagesRead)),
    (Method::GET, "/v1/recipients/{recipient}/inbox", A(Scope::InboxRead)),
    (Method::GET, "/v1/recipients/{recipient}/inbox/diff", A(Scope::MessagesRead)),
    (Method::GET, "/v1/recipients/{recipient}/inbox/counts", A(Scope::InboxRead)),
    (Method::GET, "/v1/recipients/{recipient}/inbox/stream", A(Scope::InboxRead)),
    (Method::POST, "/v1/recipients/{recipient}/inbox/{verb}", A(Scope::InboxWrite)),
    (Method::POST, "/v1/recipients/{recipient}/inbox/{message}/{verb}", A(Scope::InboxWrite)),
    (Method::GET, "/v1/inbox", User),
    (Method::GET, "/v1/inbox/counts", User),
    (Method::GET, "/v1/inbox/stream", User),
    (Method::POST, "/v1/inbox/{verb}", User),
    (Method::POST, "/v1/inbox/{message}/{verb}", User),
    (Method::GET, "/v1/recipients/{recipient}/devices", A(Scope::DevicesRead)),
    (Method::GET, "/v1/recipients/{recipient}/devices/{device}", A(Scope::DevicesRead)),
    (Method::PUT, "/v1/recipients/{recipient}/devices/{device}", A(Scope::DevicesWrite)),
    (Method::DELETE, "/v1/recipients/{recipient}/devices/{device}", A(Scope::DevicesWrite)),
    (Method::POST, "/v1/receipts", A(Scope::ReceiptsWrite)),
    (Method::GET, "/v1/deliveries", A(Scope::MessagesRead)),
    (Method::POST, "/v1/deliveries/replay", A(Scope::Deliveries)),
    (Method::GET, "/v1/messages/{message}/deliveries/{delivery}", A(Scope::MessagesRead)),
    (Method::POST, "/v1/messages/{message}/deliveries/{delivery}/retry", A(Scope::Deliveries)),
    (Method::POST, "/v1/messages/{message}/deliveries/{delivery}/cancel", A(Scope::Deliveries)),
    (Method::GET, "/v1/stats", A(Scope::MessagesRead)),
    (Method::GET, "/v1/providers", A(Scope::MessagesRead)),
    (Method::POST, "/v1/providers/{name}/pause", A(Scope::Providers)),
    (Method::POST, "/v1/providers/{name}/resume", A(Scope::Providers)),
    (Method::GET, "/v1/projections", A(Scope::Projections)),
    (Method::GET, "/v1/projections/{name}", A(Scope::Projections)),
    (Method::POST, "/v1/projections/{name}/rebuild", A(Scope::Projections)),
    (Method::POST, "/v1/projections/{name}/abort", A(Scope::Projections)),
    (Method::POST, "/v1/projections/{name}/rollback", A(Scope::Projections)),
    (Method::POST, "/v1/projections/{name}/drop-old", A(Scope::Projections)),
    (Method::GET, "/v1/quarantine", A(Scope::Quarantine)),
    (Method::GET, "/v1/quarantine/{id}", A(Scope::Quarantine)),
    (Method::POST, "/v1/quarantine/{id}/retry", A(Scope::Quarantine)),
    (Method::POST, "/v1/quarantine/{id}/discard", A(Scope::Quarantine)),
    (Method::GET, "/metrics", A(Scope::Metrics)),
    (Method::GET, "/healthz", Nothing),
    (Method::GET, "/readyz", Nothing),
    (Method::GET, "/openapi.json", Nothing),
];

/// A path of this pattern that could be somebody's.
pub(super) fn path(pattern: &str) -> String {
    let uuid = "01920000-0000-7000-8000-000000000000";
    [
        ("{message}", "m-1"),
        ("{recipient}", "user-1"),
        ("{device}", "d-1"),
        ("{delivery}", uuid),
        ("{id}", uuid),
        ("{name}", "nobody"),
        ("{verb}", "read"),
    ]
    .into_iter()
    .fold(pattern.to_owned(), |path, (name, value)| path.replace(name, value))
}

fn secret(scope: Scope) -> String {
    format!("secret of {scope}")
}

/// A ledger with a key for every scope, and users whose tokens are signed with published keys.
async fn fixture() -> (Fixture, tempfile::NamedTempFile) {
    let keys = Scope::ALL.map(|it| Key::new(it.as_str(), &Secret::new(secret(it)), vec![it]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Issuer::get().set()).unwrap();
    let rules = rules(&[Algorithm::RS256, Algorithm::ES256]);
    let (users, fetching) = Users::with_keys_at(rules, Origin::File(file.path().into())).unwrap();
    tokio::spawn(fetching.run(CancellationToken::new()));
    (Fixture::called_by(Callers::new(Keys::new(keys.to_vec()), Some(users)), |_| ()).await, file)
}

impl Fixture {
    async fn status(&self, method: &Method, pattern: &str, bearer: Option<&str>) -> u16 {
        let mut request = Request::builder().method(method.clone()).uri(path(pattern));
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        // Without the body: some answers have no end.
        let answer = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
        answer.unwrap().status().as_u16()
    }

    /// A key with all scopes that is in the database.
    pub(super) async fn issued(&self, expires_in_s: i64) -> (String, String) {
        let now = self.ledger.now();
        let at = crate::clock::Timestamp::from_micros(now.as_micros() + expires_in_s * 1_000_000);
        let (key, secret) = issue("issued", &[Scope::Admin], "me", now, Some(at)).unwrap();
        self.ledger.store().add_api_key(&key).await.unwrap();
        (key.key_id, secret.expose().to_owned())
    }

    /// Who comes with something that is not taken, whatever is asked for.
    async fn strangers(&self) -> BTreeMap<&'static str, Option<String>> {
        let (issuer, now) = (Issuer::get(), self.ledger.now());
        let signed = |changed| Some(issuer.token(Some("rsa"), Algorithm::RS256, &claims(now, &changed)));
        let past = now.as_micros() / 1_000_000 - 3600;
        let unsigned = message(&json!({ "alg": "none" }), &claims(now, &json!({})));
        let confused = message(&json!({ "alg": "HS256", "kid": "rsa" }), &claims(now, &json!({})));
        let public = EncodingKey::from_secret(&issuer.rsa.public);
        let confusion = sign(confused.as_bytes(), &public, Algorithm::HS256).unwrap();
        let (revoked_id, revoked) = self.issued(3600).await;
        self.ledger.store().revoke_api_key(&revoked_id, "me", now).await.unwrap();
        let (_, live) = self.issued(3600).await;
        let (_, other) = self.issued(3600).await;
        BTreeMap::from([
            ("nothing", None),
            ("an empty token", Some(String::new())),
            ("an unknown secret", Some("secret of nobody".to_owned())),
            ("an expired token", signed(json!({ "exp": past }))),
            ("a token of another issuer", signed(json!({ "iss": "https://evil.example" }))),
            ("a token for another audience", signed(json!({ "aud": "shop" }))),
            ("a token without a recipient", signed(json!({ "sub": null }))),
            ("a token without an end", signed(json!({ "exp": null }))),
            ("alg none", Some(format!("{unsigned}."))),
            ("a public key as a secret", Some(format!("{confused}.{confusion}"))),
            (
                "a token of an unknown key",
                Some(issuer.token(Some("old"), Algorithm::RS256, &claims(now, &json!({})))),
            ),
            ("a token cut off", signed(json!({})).map(|it| it[..it.len() - 9].to_owned())),
            ("a revoked key", Some(revoked)),
            ("an expired key", Some(self.issued(-1).await.1)),
            ("a mistyped key", Some(live.replace("nl_live_", "nl_live_x"))),
            ("a key cut off", Some(live[..live.len() - 1].to_owned())),
            ("the end of another key", Some(format!("{}{}", &live[..21], &other[21..]))),
        ])
    }
}

#[tokio::test]
async fn a_route_opens_to_whom_it_asks_for_and_to_nobody_else() {
    let (it, _keys) = fixture().await;
    let strangers = it.strangers().await;
    let user = Issuer::get().token(
        Some("ec"),
        Algorithm::ES256,
        &claims(it.ledger.now(), &json!({ "sub": "user-2" })),
    );
    let (_, issued) = it.issued(3600).await;
    for (method, pattern, asks) in ROUTES {
        for (who, bearer) in &strangers {
            let status = it.status(&method, pattern, bearer.as_deref()).await;
            assert_eq!(status == 401, asks != Nothing, "{method} {pattern} with {who}: {status}");
        }
        let denied = |status: u16| matches!(status, 401 | 403);
        // Somebody else's recipient in the path is as closed to a user as anything else.
        let status = it.status(&method, pattern, Some(&user)).await;
        match asks {
            A(_) => assert_eq!(status, 403, "{method} {pattern} as a user"),
            User | Nothing => assert!(!denied(status), "{method} {pattern} as a user: {status}"),
        }
        for scope in Scope::ALL {
            let status = it.status(&method, pattern, Some(&secret(scope))).await;
            let open = match asks {
                Nothing => true,
                A(needs) => needs == scope || scope == Scope::Admin,
                User => false,
            };
            assert_eq!(!denied(status), open, "{method} {pattern} with {scope}: {status}");
            assert!(open || status == 403, "{method} {pattern} with {scope}: {status}");
        }
        let status = it.status(&method, pattern, Some(&issued)).await;
        assert_eq!(denied(status), asks == User, "{method} {pattern} with a key of the database: {status}");
    }
}

#[tokio::test]
async fn no_route_is_forgotten_here() {
    let it = Fixture::new().await;
    // The router shows its paths to people who debug it, and to nobody else.
    let shown = format!("{:?}", it.router);
    let is_route = |it: &&str| it.starts_with('/') && *it != "/" && !it.contains("__private__");
    let real: BTreeSet<&str> = shown.split('"').filter(is_route).collect();
    let listed: BTreeSet<&str> = ROUTES.iter().map(|(_, path, _)| *path).collect();
    assert_eq!(real, listed, "every route of the router stands in ROUTES, and no other");
    for pattern in listed {
        let request = Request::builder().method("TRACE").uri(path(pattern));
        let answer = it.call(request.body(Body::empty()).unwrap()).await;
        let allowed: BTreeSet<_> =
            answer.header("allow").unwrap().split(',').filter(|it| *it != "HEAD").collect();
        let listed = ROUTES.iter().filter(|(_, path, _)| *path == pattern);
        let listed: BTreeSet<_> = listed.map(|(method, ..)| method.as_str()).collect();
        assert_eq!(allowed, listed, "{pattern}");
    }
}

#[tokio::test]
async fn a_key_that_was_known_is_refused_when_it_was_revoked_and_when_it_ends() {
    let it = Fixture::new().await;
    let get = async |bearer: &str| it.status(&Method::GET, "/v1/projections", Some(bearer)).await;
    assert_eq!(it.status(&Method::GET, "/v1/projections", None).await, 200, "open, without any key");
    let (revoked_id, revoked) = it.issued(3600).await;
    let (_, ending) = it.issued(15).await;
    it.clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(it.status(&Method::GET, "/v1/projections", None).await, 401, "closed, since there is one");
    assert_eq!((get(&revoked).await, get(&ending).await), (200, 200));
    it.ledger.store().revoke_api_key(&revoked_id, "me", it.ledger.now()).await.unwrap();
    assert_eq!(get(&revoked).await, 200, "what was looked up is believed for a moment");
    it.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!((get(&revoked).await, get(&ending).await), (200, 401), "an end is an end");
    it.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(get(&revoked).await, 401);
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
