//! `/v1/stats`: what a chart is given.

use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use super::{Fixture, message};

const DAY: Duration = Duration::from_hours(24);

async fn send(it: &Fixture, id: &str, category: Option<&str>) {
    let mut body: Value = serde_json::from_str(&message(id, "user-1")).unwrap();
    body["category"] = json!(category);
    if category.is_none() {
        body.as_object_mut().unwrap().remove("category");
    }
    assert_eq!(it.post("/v1/messages", body.to_string()).await.status.as_u16(), 201);
}

/// Three days: pass and none, nothing, pass and inquiry.
async fn three_days() -> Fixture {
    let it = Fixture::new().await;
    send(&it, "m-1", Some("pass")).await;
    send(&it, "m-2", None).await;
    it.post("/v1/recipients/user-1/inbox/m-1/read", "").await;
    it.clock.advance(DAY * 2);
    send(&it, "m-3", Some("pass")).await;
    send(&it, "m-4", Some("inquiry")).await;
    it.post("/v1/recipients/user-1/inbox/m-2/clicked", "").await;
    it
}

/// What stands under these names in every point.
fn columns(stats: &Value, names: &[&str]) -> Vec<Value> {
    let of = |point: &Value| names.iter().map(|it| point[it].clone()).collect();
    stats["series"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn every_day_has_a_point_and_every_category_its_sum() {
    let it = three_days().await;
    it.project().await;
    let stats = it.get("/v1/stats?since=2026-11-22&until=2026-11-25").await.json();
    assert_eq!(stats["behind"], 0);
    assert_eq!(
        columns(
            &stats,
            &["day", "messagesReceived", "itemsAppeared", "itemsSeen", "itemsRead", "itemsClicked"]
        ),
        [
            json!(["2026-11-22", 2, 2, 1, 1, 0]),
            json!(["2026-11-23", 0, 0, 0, 0, 0]),
            json!(["2026-11-24", 2, 2, 1, 1, 1]),
            json!(["2026-11-25", 0, 0, 0, 0, 0]),
        ]
    );
    let of = async |query: &str| {
        columns(&it.get(&format!("/v1/stats?{query}")).await.json(), &["category", "messagesReceived"])
    };
    let all = [json!(["pass", 2]), json!(["", 1]), json!(["inquiry", 1])];
    assert_eq!(of("by=category").await, all);
    assert_eq!(of("by=category&until=2026-11-23").await, [json!(["", 1]), json!(["pass", 1])]);
    assert_eq!(of("by=category&category=pass").await, [json!(["pass", 2])]);
    assert_eq!(of("by=category&category=").await, [json!(["", 1])]);
    assert_eq!(of("by=category&until=2026-11-21").await, Vec::<Value>::new());
    let days = it.get("/v1/stats?category=pass").await.json();
    assert_eq!(
        (&days["since"], &days["until"], &days["by"]),
        (&json!("2026-10-26"), &json!("2026-11-24"), &json!("day"))
    );
    let received: i64 = columns(&days, &["messagesReceived"]).iter().map(|it| it[0].as_i64().unwrap()).sum();
    assert_eq!((days["series"].as_array().unwrap().len(), received), (30, 2));
}

#[tokio::test]
async fn what_is_not_counted_yet_is_told_and_may_be_waited_for() {
    let it = three_days().await;
    let stats = it.get("/v1/stats").await.json();
    assert_eq!(
        (&stats["behind"], columns(&stats, &["messagesReceived"]).last()),
        (&json!(6), Some(&json!([0])))
    );
    let waited = it.get("/v1/stats?after=0-6").await;
    assert_eq!(waited.status.as_u16(), 504, "{waited}");
    it.project().await;
    let answer = it.get("/v1/stats?after=0-6").await;
    assert_eq!(columns(&answer.json(), &["messagesReceived"]).last(), Some(&json!([2])));
    let tag = answer.header("etag").unwrap();
    let again = Request::get("/v1/stats").header("if-none-match", tag).body(Body::empty()).unwrap();
    assert_eq!(it.call(again).await.status.as_u16(), 304);
}

#[tokio::test]
async fn a_range_that_is_none_is_refused() {
    let it = Fixture::new().await;
    for (query, told) in [
        ("since=2026-11-23&until=2026-11-22", "since is 2026-11-23, which is after 2026-11-22"),
        ("since=2025-11-21&until=2026-11-22", "from 2025-11-21 to 2026-11-22 there are 367 days"),
        ("since=2026-11-22T09:00:00Z", "\"2026-11-22T09:00:00Z\" is not a day such as 2026-11-22"),
        ("since=-001-01-01", "is not a day"),
        ("by=hour", "unknown variant `hour`"),
        ("day=2026-11-22", "unknown field `day`"),
    ] {
        let answer = it.get(&format!("/v1/stats?{query}")).await;
        assert_eq!(answer.status.as_u16(), 400, "{query}: {answer}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(told), "{query}: {answer}");
    }
    assert_eq!(it.get("/v1/stats?since=2025-11-22&until=2026-11-22").await.status.as_u16(), 200);
}
