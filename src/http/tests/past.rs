//! An inbox as it was: by the same route as the inbox as it is, and compared.

use std::time::Duration;

use axum::{body::Body, http::Request};
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{Answer, Callers, Fixture, Keys};
use crate::{
    http::auth::{
        Key, Scope, Users,
        issuer::{Issuer, SECRET, claims, rules},
    },
    secret::Secret,
};

const INBOX: &str = "/v1/recipients/user-1/inbox";

#[tokio::test]
async fn a_list_of_the_past_is_the_one_that_was_shown() {
    let it = Fixture::new().await;
    let mut shown = Vec::new();
    let parameters = ["limit=2", "status=unread", "archived=only", "category=pass&limit=1"];
    for (arrives, id, verb) in [
        (true, "m-1", "seen"),
        (true, "m-2", "read"),
        (true, "m-3", "archive"),
        (false, "m-1", "delete"),
        (false, "m-2", "unread"),
    ] {
        if arrives {
            it.send(id).await;
        }
        let marked = it.post(&format!("{INBOX}/{id}/{verb}"), "").await;
        it.project().await;
        let cursor = marked.json()["cursor"].as_str().unwrap().to_owned();
        for parameter in parameters {
            let list = it.get(&format!("{INBOX}?{parameter}")).await.json();
            shown.push((cursor.clone(), it.ledger.now(), parameter, list));
        }
        it.clock.advance(Duration::from_secs(1));
    }
    for (cursor, time, parameter, mut list) in shown {
        list["cursor"] = json!(cursor);
        for moment in [cursor.clone(), time.to_string()] {
            let past = it.get(&format!("{INBOX}?{parameter}&asOf={moment}")).await;
            assert_eq!(past.json(), list, "{parameter} as of {moment}");
        }
    }
    let tag = it.get(&format!("{INBOX}?asOf=0-1")).await.header("etag").unwrap().to_owned();
    let again = Request::get(format!("{INBOX}?asOf=0-1")).header("if-none-match", tag);
    assert_eq!(it.call(again.body(Body::empty()).unwrap()).await.status.as_u16(), 304);
    let before = it.get(&format!("{INBOX}?asOf=2000-01-01T00:00:00Z")).await.json();
    let nothing = json!({"cursor": "0-0", "items": [], "counts":
        {"unseen": 0, "unread": 0, "total": 0, "categories": {}}});
    assert_eq!(before, nothing);
}

#[tokio::test]
async fn two_moments_are_compared() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2"] {
        it.send(id).await;
    }
    it.clock.advance(Duration::from_secs(1));
    it.post(&format!("{INBOX}/m-1/read"), "").await;
    it.post(&format!("{INBOX}/m-2/delete"), "").await;
    it.send("m-3").await;
    it.project().await;
    let compared = it.get(&format!("{INBOX}/diff?from=0-2")).await.json();
    let without_texts = |it: &serde_json::Value| {
        let fields = it.get("fields").cloned().unwrap_or_default();
        json!([it["change"], it["cursor"], it["item"]["messageId"], fields])
    };
    let changes: Vec<_> = compared["changes"].as_array().unwrap().iter().map(without_texts).collect();
    let at = "2026-11-22T09:00:01.000000Z";
    let field = |field| json!({"field": field, "old": null, "new": at});
    let expected = [
        json!(["added", "0-5", "m-3", null]),
        json!(["removed", "0-4", "m-2", null]),
        json!(["changed", "0-3", "m-1", [field("seenAt"), field("readAt")]]),
    ];
    assert_eq!(changes, expected, "{compared:#}");
    assert_eq!(compared["changes"][1]["item"]["title"], "News m-2", "as it was");
    let tally = |name: &str| compared[name].clone();
    assert_eq!([tally("added"), tally("changed"), tally("removed")], [1, 1, 1]);
    let moment = |unread: i64, total: i64| {
        let counts = json!({"unseen": unread, "unread": unread, "total": total});
        let mut all = counts.clone();
        all["categories"] = json!({"pass": counts});
        all
    };
    assert_eq!(compared["from"], json!({"cursor": "0-2", "counts": moment(2, 2)}));
    assert_eq!(compared["to"], json!({"cursor": "0-5", "counts": moment(1, 2)}));

    let first = it.get(&format!("{INBOX}/diff?from=0-2&to=0-5&limit=2")).await.json();
    assert_eq!(first["next"], "0-4");
    let second = it.get(&format!("{INBOX}/diff?from=0-2&to=0-5&limit=2&before=0-4")).await.json();
    assert_eq!((&second["changes"][0], second.get("next")), (&compared["changes"][2], None));
    let same = it.get(&format!("{INBOX}/diff?from=0-2&to=0-2")).await.json();
    assert_eq!(same["changes"], json!([]));
}

#[tokio::test]
async fn a_moment_that_cannot_be_shown_is_refused_and_a_projection_behind_is_waited_for() {
    let it = Fixture::new().await;
    it.send("m-1").await;
    let behind = it.get(&format!("{INBOX}?asOf=0-1")).await;
    assert_eq!((behind.status.as_u16(), behind.header("retry-after")), (504, Some("1")), "{behind}");
    assert_eq!(it.get(&format!("{INBOX}/diff?from=0-1")).await.status.as_u16(), 504);
    it.project().await;
    for (path, problem) in [
        ("?asOf=0-2", "beyond the end"),
        ("?asOf=1-1", "not a place of this recipient"),
        ("?asOf=2026-11-22T09:00:01Z", "in the future"),
        ("?asOf=yesterday", "neither a time"),
        ("?asOf=0-1&after=0-1", "asks for the past"),
        ("/diff", "from"),
        ("/diff?from=0-1&to=0-0", "which is before it"),
        ("/diff?from=0-1&limit=101", "limit"),
    ] {
        let answer = it.get(&format!("{INBOX}{path}")).await;
        assert_eq!(answer.status.as_u16(), 400, "{path}: {answer}");
        assert!(answer.to_string().contains(problem), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_past_is_for_services_that_may_read_messages() {
    let secret = |it: &str| Secret::new(format!("secret of {it}"));
    let keys = vec![
        Key::new("reader", &secret("reader"), vec![Scope::InboxRead]),
        Key::new("auditor", &secret("auditor"), vec![Scope::InboxRead, Scope::MessagesRead]),
    ];
    let users = Users::with_secret(rules(&[Algorithm::HS256]), SECRET);
    let it = Fixture::called_by(Callers::new(Keys::new(keys), Some(users)), |_| ()).await;
    let user = Issuer::get().token(None, Algorithm::HS256, &claims(it.ledger.now(), &json!({})));
    let get = async |path: &str, bearer: &str| -> Answer {
        let request = Request::get(path).header("authorization", format!("Bearer {bearer}"));
        it.call(request.body(Body::empty()).unwrap()).await
    };
    for (path, bearer, status) in [
        ("/v1/recipients/user-1/inbox", "secret of reader", 200),
        ("/v1/recipients/user-1/inbox?asOf=0-0", "secret of reader", 403),
        ("/v1/recipients/user-1/inbox?asOf=0-0", "secret of auditor", 200),
        ("/v1/inbox", user.as_str(), 200),
        ("/v1/inbox?asOf=0-0", user.as_str(), 400),
    ] {
        let answer = get(path, bearer).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer}");
    }
}
