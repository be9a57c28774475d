//! Users and the inbox of their own.

use axum::{
    body::Body,
    http::{Method, Request},
};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{Answer, Callers, Fixture, Keys, message};
use crate::{
    http::auth::{
        Key, Limits, Rate, Scope, Users,
        issuer::{Issuer, SECRET, claims, rules},
    },
    secret::Secret,
};

/// A ledger with the users of an app, and one service.
async fn fixture() -> Fixture {
    let key = Key::new("app", &Secret::new("secret of the app"), vec![Scope::Admin]);
    let users = Users::with_secret(rules(&[Algorithm::HS256]), SECRET);
    Fixture::called_by(Callers::new(Keys::new(vec![key]), Some(users)), |_| ()).await
}

impl Fixture {
    async fn call_as(&self, bearer: &str, method: Method, path: &str, body: String) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {bearer}"));
        self.call(request.body(Body::from(body)).unwrap()).await
    }

    fn token(&self, changed: &Value) -> String {
        Issuer::get().token(None, Algorithm::HS256, &claims(self.ledger.now(), changed))
    }
}

#[tokio::test]
async fn a_user_sees_and_marks_the_inbox_of_their_own_and_no_other() {
    let it = fixture().await;
    for (id, recipient) in [("m-1", "user-1"), ("m-2", "user-2")] {
        let sent =
            it.call_as("secret of the app", Method::POST, "/v1/messages", message(id, recipient)).await;
        assert_eq!(sent.status, 201, "{sent}");
    }
    it.project().await;
    let (one, two) = (it.token(&json!({})), it.token(&json!({ "sub": "user-2" })));
    let none = String::new;
    for (token, ids) in [(&one, ["m-1"]), (&two, ["m-2"])] {
        let list = it.call_as(token, Method::GET, "/v1/inbox?status=unread", none()).await;
        assert_eq!(list.ids(), ids, "{list}");
        let counts = it.call_as(token, Method::GET, "/v1/inbox/counts", none()).await;
        assert_eq!(counts.json()["unread"], 1, "{counts}");
    }

    let marked = it.call_as(&one, Method::POST, "/v1/inbox/m-1/read", none()).await;
    assert_eq!(marked.status, 200, "{marked}");
    let which = json!({ "messageIds": ["m-1", "m-2"] }).to_string();
    let many = it.call_as(&two, Method::POST, "/v1/inbox/seen", which).await;
    assert_eq!(many.json()["marked"], 1, "{many}");
    let strangers = it.call_as(&one, Method::POST, "/v1/inbox/m-2/read", none()).await;
    let unknown = it.call_as(&one, Method::POST, "/v1/inbox/m-9/read", none()).await;
    assert_eq!((strangers.status.as_u16(), unknown.status.as_u16()), (404, 404));
    assert_eq!(strangers.json(), unknown.json(), "a stranger's message is told apart from none by nothing");

    let story = it.call_as("secret of the app", Method::GET, "/v1/messages/m-1", none()).await;
    let story = story.to_string();
    assert!(
        story.contains("\"actor\": \"recipient\"") && story.contains("\"ingress\": \"inbox\""),
        "{story}"
    );
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why_and_never_the_token() {
    let it = fixture().await;
    let expired = it.token(&json!({ "exp": 1 }));
    let answer = it.call_as(&expired, Method::GET, "/v1/inbox", String::new()).await;
    let challenge = "Bearer realm=\"notification-ledger\", error=\"invalid_token\"";
    assert_eq!(answer.header("www-authenticate"), Some(challenge));
    assert!(!answer.to_string().contains(&expired[..20]), "{answer}");
    insta::assert_snapshot!("expired", answer);
    let answer = it.call_as(&it.token(&json!({})), Method::GET, "/v1/projections", String::new()).await;
    insta::assert_snapshot!("user_elsewhere", answer);
    let answer = it.call_as("secret of the app", Method::GET, "/v1/inbox", String::new()).await;
    insta::assert_snapshot!("key_at_the_users_door", answer);
}

#[tokio::test]
async fn without_keys_for_the_tokens_a_user_is_asked_to_come_again() {
    let rules = rules(&[Algorithm::RS256]);
    let origin = crate::http::auth::Origin::File("/no/such/file".into());
    let (users, _) = Users::with_keys_at(rules, origin).unwrap();
    let it = Fixture::called_by(Callers::new(Keys::default(), Some(users)), |_| ()).await;
    let token = Issuer::get().token(None, Algorithm::RS256, &claims(it.ledger.now(), &json!({})));
    let answer = it.call_as(&token, Method::GET, "/v1/inbox", String::new()).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")), "{answer}");
    let answer = it.get("/v1/projections").await;
    assert_eq!(answer.status, 401, "with users, the API is not for everybody on this machine");
}

#[tokio::test]
async fn who_asks_for_too_much_is_told_when_to_come_again() {
    let key = |name: &str| Key::new(name, &Secret::new(format!("secret of {name}")), vec![Scope::InboxWrite]);
    let users = Users::with_secret(rules(&[Algorithm::HS256]), SECRET);
    let (service, user) = (Rate { per_s: 1, burst: 1 }, Rate { per_s: 2, burst: 2 });
    let callers = Callers::new(Keys::new(vec![key("one"), key("two")]), Some(users));
    let it = Fixture::called_by(callers.with_limits(Limits::new(service, user)), |_| ()).await;
    // These answers need no database, which would not like a clock that stands still.
    tokio::time::pause();
    let own = async |token: &str| it.call_as(token, Method::POST, "/v1/inbox/m-1/wink", String::new()).await;
    let of = async |key: &str| {
        let path = "/v1/recipients/user-1/inbox/m-1/wink";
        it.call_as(&format!("secret of {key}"), Method::POST, path, String::new()).await
    };
    let (one, two) = (it.token(&json!({})), it.token(&json!({ "sub": "user-2" })));
    let answer = own(&one).await;
    assert_eq!(answer.status, 404, "{answer}");
    assert_eq!(answer.header("ratelimit-policy"), Some("\"user\";q=2;w=1"));
    assert_eq!(answer.header("ratelimit"), Some("\"user\";r=1;t=1"));
    assert_eq!(own(&one).await.status, 404);
    let answer = own(&one).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("1")));
    assert_eq!(answer.header("ratelimit"), Some("\"user\";r=0;t=1"));
    insta::assert_snapshot!("too_much", answer);
    assert_eq!(own(&two).await.status, 404, "another user has room");
    let statuses = [of("one").await, of("one").await, of("two").await].map(|it| it.status.as_u16());
    assert_eq!(statuses, [404, 429, 404], "and each key its own");
    let nobody = of("nobody").await;
    assert_eq!((nobody.status.as_u16(), nobody.header("ratelimit")), (401, None));
    tokio::time::advance(std::time::Duration::from_millis(500)).await;
    assert_eq!(own(&one).await.status, 404);
}
