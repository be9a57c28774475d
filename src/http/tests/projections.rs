//! Projections over HTTP: rebuilding one beside everything else, giving up, going back, cleaning up.

use std::time::Duration;

use serde_json::{Value, json};

use super::Fixture;
use crate::projection;

impl Fixture {
    async fn inbox(&self) -> Value {
        self.get("/v1/projections/inbox").await.json()
    }

    /// The inbox's status when nobody rebuilds any more.
    pub(super) async fn rebuilt(&self) -> Value {
        let projection = projection::by_name("inbox").unwrap();
        while self.rebuilds.of(projection).at_it().await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        self.inbox().await
    }

    async fn asks(&self, verb: &str, body: &str) -> (u16, Value) {
        let answer = self.post(&format!("/v1/projections/inbox/{verb}"), body.to_owned()).await;
        (answer.status.as_u16(), answer.json())
    }
}

#[tokio::test]
async fn a_projection_is_rebuilt_in_the_background_and_gone_back_from() {
    let it = Fixture::new().await;
    it.send("m-1").await;
    it.project().await;
    assert_eq!(it.asks("rebuild", "").await.0, 202);
    let status = it.rebuilt().await;
    assert_eq!((&status["liveSlot"], &status["old"]["slot"]), (&json!("b"), &json!("a")), "{status:#}");
    assert_eq!((&status["lastResult"]["flipped"], &status["rebuilding"]), (&json!(true), &Value::Null));
    for (verb, slot, is_new) in
        [("rollback", Some("a"), true), ("rollback", Some("a"), false), ("drop-old", Some("b"), true)]
    {
        let answer = it.asks(verb, "").await;
        assert_eq!(answer, (200, json!({"name": "inbox", "slot": slot, "isNew": is_new})), "{verb}");
    }
    for verb in ["drop-old", "abort"] {
        assert_eq!(it.asks(verb, "").await, (200, json!({"name": "inbox", "isNew": false})), "{verb}");
    }
    assert_eq!(it.get("/v1/projections/nobody").await.status.as_u16(), 404);
    assert_eq!(it.asks("rebuild", "{\"acept\": true}").await.0, 400);
}

#[tokio::test]
async fn who_is_at_it_is_told_and_can_be_stopped() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3", "m-4"] {
        it.send(id).await;
    }
    it.project().await;
    let inbox = it.rebuilds.of(projection::by_name("inbox").unwrap());
    let claim = inbox.claim().await.unwrap();
    inbox.store.begin_slot(inbox.projection, crate::store::Slot::B, it.ledger.now()).await.unwrap();
    inbox.store.project(inbox.projection, crate::store::Slot::B, crate::id::Shard(0), 1, None).await.unwrap();
    it.clock.advance(Duration::from_secs(2));
    let (status, problem) = it.asks("rebuild", "{\"restart\": true, \"accept\": true}").await;
    assert_eq!((status, problem["title"].as_str()), (409, Some("Somebody rebuilds the projection")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("with 1 of 4 events folded, and was last seen 2 s ago"), "{detail}");
    let rebuilding = it.inbox().await["rebuilding"].clone();
    let expected = json!([25.0, 0.5, 6.0, 1, 4, "2026-11-22T09:00:00.000000Z"]);
    let fields = ["percent", "eventsPerSecond", "leftSeconds", "doneEvents", "allEvents", "since"];
    assert_eq!(Value::from_iter(fields.map(|it| rebuilding[it].clone())), expected, "{rebuilding:#}");
    let metrics = String::from_utf8(it.get("/metrics").await.body).unwrap();
    for line in [
        "notification_ledger_rebuild_running{projection=\"inbox\"} 1",
        "notification_ledger_rebuild_folded_events{projection=\"inbox\",shard=\"0\"} 1",
        "notification_ledger_rebuild_events_per_second{projection=\"inbox\"} 0.5",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is missing in\n{metrics}");
    }
    assert_eq!(it.asks("abort", "").await.1["isNew"], true);
    assert!(!inbox.store.renew_rebuild(&claim, it.ledger.now()).await.unwrap());
    assert_eq!(it.inbox().await["rebuilding"], Value::Null);
}
