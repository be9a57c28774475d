//! The description of the API: it is what is checked in, it is whole, and it says of every route what the
//! table of scopes says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderName, Method, Request},
};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    Callers, Fixture, Keys,
    scopes::{Asks, ROUTES, path},
};
use crate::{
    http::{
        auth::{
            Key, Limits, Rate, Scope, Users,
            issuer::{Issuer, SECRET, claims, rules},
        },
        openapi::document,
    },
    secret::Secret,
};

/// What goes around a body in HTTP; the description has the body's type with the body.
const OF_HTTP: [&str; 2] = ["content-type", "content-length"];
/// How often each caller may call at once.
const CALLS: u32 = 5;
/// Where every key is refused without a question to the database.
const WINK: &str = "/v1/recipients/user-1/inbox/m-1/wink";

pub(super) fn described() -> Value {
    serde_json::from_str(&document()).unwrap()
}

/// Every operation with its path.
pub(super) fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let named = move |(method, it): (&String, _)| (format!("{} {path}", method.to_uppercase()), it);
            item.as_object().unwrap().iter().map(named)
        })
        .collect()
}

#[test]
fn the_description_is_the_one_that_is_checked_in() {
    let checked_in = include_str!("../../../docs/openapi.json");
    assert!(
        document() == checked_in,
        "docs/openapi.json is not what the routes say; renew it:\n\
         cargo run -- openapi > docs/openapi.json"
    );
}

#[tokio::test]
async fn the_description_is_served_to_everybody() {
    let answer = Fixture::new().await.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), described());
}

#[test]
fn every_operation_has_an_id_of_its_own_and_every_reference_leads_somewhere() {
    let document = described();
    let operations = operations(&document);
    let ids: BTreeSet<_> = operations.iter().map(|(_, it)| it["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
    let mut waiting = vec![&document];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let place = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
                }
                waiting.extend(members.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
}

#[test]
fn every_route_is_described_with_what_it_asks_of_its_caller() {
    let document = described();
    let described: BTreeMap<String, &Value> = operations(&document).into_iter().collect();
    assert_eq!(described.len(), ROUTES.len(), "{:?}", described.keys());
    for (method, path, asks) in ROUTES {
        let expected = match asks {
            Asks::Nothing => json!([]),
            Asks::A(scope) => json!([{"apiKey": [scope.as_str()]}]),
            Asks::User => json!([{"endUser": []}]),
        };
        assert_eq!(described[&format!("{method} {path}")]["security"], expected, "{method} {path}");
    }
}

/// One route with a caller of its own.
struct Calling<'a> {
    router: Router,
    method: Method,
    pattern: &'a str,
    bearer: String,
    described: &'a Value,
    headers: &'a Value,
}

impl<'a> Calling<'a> {
    /// Every route. No two have the same caller, so that none uses up what another may ask for.
    fn all(it: &Fixture, document: &'a Value) -> Vec<Self> {
        let described: BTreeMap<String, &Value> = operations(document).into_iter().collect();
        let calling = |(method, pattern, asks): (Method, &'static str, Asks)| {
            let name = name_of(&method, pattern);
            let bearer = match asks {
                Asks::User => {
                    let claims = claims(it.ledger.now(), &json!({ "sub": name }));
                    Issuer::get().token(None, Algorithm::HS256, &claims)
                }
                Asks::A(_) | Asks::Nothing => secret_of(&name),
            };
            let described = described[&name];
            let headers = &document["components"]["headers"];
            Self { router: it.router.clone(), method, pattern, bearer, described, headers }
        };
        ROUTES.into_iter().map(calling).collect()
    }

    /// Calls with these headers and this query, and holds the answer's headers against the description; gives
    /// its status.
    async fn call(&self, headers: &[(&str, &str)], query: &str) -> u16 {
        let mut request = Request::builder().method(self.method.clone()).uri(path(self.pattern) + query);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        // Without the body: some answers have no end.
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, shown) = (answer.status(), answer.headers());
        let place = format!("{} {}: {status}", self.method, self.pattern);
        let described = &self.described["responses"][status.as_str()];
        assert!(described.is_object(), "{place} is not described");
        let described = described["headers"].as_object().unwrap();
        for name in shown.keys().map(HeaderName::as_str).filter(|it| !OF_HTTP.contains(it)) {
            assert!(described.contains_key(name), "{place} carries {name}, which is not described");
        }
        for (name, reference) in described {
            let component = reference["$ref"].as_str().and_then(|it| it.rsplit('/').next()).unwrap();
            let is_promised = self.headers[component]["required"] == true;
            assert!(!is_promised || shown.contains_key(name), "{place} promises {name}, and has none");
        }
        let is_limited = described.contains_key("ratelimit");
        assert_eq!(shown.contains_key("ratelimit"), is_limited, "{place}: all callers here have a limit");
        status.as_u16()
    }
}

fn name_of(method: &Method, pattern: &str) -> String {
    format!("{method} {pattern}")
}

fn secret_of(name: &str) -> String {
    format!("secret of {name}")
}

/// A ledger whose callers are all limited.
async fn limited(request_timeout: Duration) -> Fixture {
    let key = |(method, pattern, _): (Method, &str, Asks)| {
        let name = name_of(&method, pattern);
        Key::new(&name, &Secret::new(secret_of(&name)), vec![Scope::Admin])
    };
    let users = Users::with_secret(rules(&[Algorithm::HS256]), SECRET);
    let rate = Rate { per_s: 1, burst: CALLS };
    let callers = Callers::new(Keys::new(ROUTES.map(key).to_vec()), Some(users));
    let limited = callers.with_limits(Limits::new(rate, rate));
    Fixture::called_by(limited, |settings| settings.request_timeout = request_timeout).await
}

#[tokio::test]
async fn every_header_of_an_answer_is_described_and_what_is_promised_is_there() {
    let document = described();
    let mut seen = BTreeSet::new();
    let it = limited(Duration::from_secs(30)).await;
    for calling in Calling::all(&it, &document) {
        let bearer = format!("Bearer {}", calling.bearer);
        let authorized = ("authorization", bearer.as_str());
        for (headers, query) in [
            (&[("authorization", "Bearer nobody's")][..], ""),
            (&[authorized], ""),
            (&[authorized, ("if-none-match", "*")], ""),
            (&[authorized], "?nonsense=1"),
            (&[authorized], "?after=0-9"),
        ] {
            seen.insert(calling.call(headers, query).await);
        }
        if calling.described["security"] == json!([]) {
            continue;
        }
        // From here on no database is asked, which would not like a clock that stands still.
        tokio::time::pause();
        let wink = if calling.pattern.starts_with("/v1/inbox") { "/v1/inbox/m-1/wink" } else { WINK };
        for _ in 0..CALLS {
            let request = Request::post(wink).header("authorization", &bearer).body(Body::empty()).unwrap();
            it.call(request).await;
        }
        seen.insert(calling.call(&[authorized], "").await);
        tokio::time::resume();
    }
    let hurried = limited(Duration::ZERO).await;
    for calling in Calling::all(&hurried, &document) {
        let bearer = format!("Bearer {}", calling.bearer);
        seen.insert(calling.call(&[("authorization", &bearer)], "").await);
    }
    for status in [200, 204, 304, 400, 401, 404, 429, 503, 504] {
        assert!(seen.contains(&status), "no answer was {status}: {seen:?}");
    }
}
