//! Deliveries over HTTP: looking for them, trying again, cancelling, replaying.

use std::time::Duration;

use serde_json::{Value, json};

use super::Fixture;
use crate::{
    event::{Decision, Event, FailureClass, Metadata},
    id::{DeliveryId, MessageId, Shard},
    ledger::LedgerError,
    store::{Applied, Entry},
    stream::{Able, AttemptResult, Claim, Command, Failover},
};

/// What the provider says to a push.
#[derive(Clone, Copy)]
pub(super) enum Said {
    Yes,
    No,
}

pub(super) fn delivery_of(message: &str) -> DeliveryId {
    DeliveryId::new(&MessageId::new(message).unwrap(), "token:device-token-1234")
}

fn path(message: &str, verb: &str) -> String {
    format!("/v1/messages/{message}/deliveries/{}{verb}", delivery_of(message))
}

async fn apply(it: &Fixture, message: &str, command: Command) -> Applied {
    let message_id = MessageId::new(message).unwrap();
    let entry = Entry { message_id, command, occurred_at: it.ledger.now(), metadata: Metadata::default() };
    let applied: Result<Applied, LedgerError> = it.ledger.apply_in(Shard(0), vec![entry]).await.remove(0);
    applied.unwrap()
}

/// Sends a push, with these fields beside the usual ones, and folds it.
async fn push(it: &Fixture, id: &str, fields: Value) {
    let mut body = json!({
        "messageId": id, "notificationType": "PUSH", "recipientId": "user-1", "title": "News",
        "push": {"targets": [{"token": "device-token-1234"}]},
    });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    assert_eq!(it.post("/v1/messages", body.to_string()).await.status.as_u16(), 201);
    it.project().await;
}

/// Claims a delivery, as if it were called now.
pub(super) async fn start(it: &Fixture, id: &str) {
    let lease_until = it.ledger.now().plus(Duration::from_mins(1));
    let claim = Claim { worker: "w".to_owned(), lease_until };
    apply(it, id, Command::StartAttempt { delivery_id: delivery_of(id), claim }).await;
}

/// Makes one attempt, which is the last.
pub(super) async fn attempt(it: &Fixture, id: &str, attempt: u32, said: Said) {
    let delivery_id = delivery_of(id);
    start(it, id).await;
    let result = match said {
        Said::Yes => {
            AttemptResult::Accepted { provider_message_id: Some("p-1".to_owned()), status: Some(200) }
        }
        Said::No => AttemptResult::Failed {
            class: FailureClass::Permanent,
            code: "http_400".to_owned(),
            status: Some(400),
            answer: Some("no".to_owned()),
            decision: Decision::GiveUp { policy: "permanent".to_owned() },
        },
    };
    let failover =
        Failover { after: Duration::MAX, after_unknown: true, able: Able::All, configured: Able::All };
    let command = Command::RecordOutcome { delivery_id, attempt, duration_ms: 7, result, failover };
    assert!(matches!(apply(it, id, command).await, Applied::Appended { .. }));
    it.clock.advance(Duration::from_secs(1));
    it.project().await;
}

/// Four pushes: one accepted, two failed, one waiting.
async fn story() -> Fixture {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3", "m-4"] {
        push(&it, id, json!({})).await;
    }
    attempt(&it, "m-1", 1, Said::Yes).await;
    attempt(&it, "m-2", 1, Said::No).await;
    attempt(&it, "m-3", 1, Said::No).await;
    it
}

async fn listed(it: &Fixture, query: &str) -> Vec<String> {
    let answer = it.get(&format!("/v1/deliveries{query}")).await;
    let json = answer.json();
    let list = json["deliveries"].as_array().unwrap_or_else(|| panic!("{answer}"));
    list.iter().map(|it| it["messageId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn deliveries_are_listed_by_status_in_parts_and_shown_with_their_calls() {
    let it = story().await;
    let first = it.get("/v1/deliveries?limit=1").await;
    let next = first.json()["next"].as_str().unwrap().to_owned();
    insta::assert_snapshot!("deliveries_list", first.to_string().replace(&next, "NEXT"));
    assert_eq!(listed(&it, &format!("?limit=1&after={next}")).await, ["m-3"]);
    for (query, expected) in [
        ("?status=scheduled", &["m-4"][..]),
        ("?status=accepted", &["m-1"]),
        ("?status=unknown", &[]),
        ("?provider=acme&class=permanent&recipient=user-1", &["m-2", "m-3"]),
        ("?provider=other", &[]),
        ("?class=retry", &[]),
        ("?recipient=user-2", &[]),
        ("?since=2026-11-22T09:00:02Z", &["m-3"]),
        ("?until=2026-11-22T09:00:02Z", &["m-2"]),
    ] {
        assert_eq!(listed(&it, query).await, expected, "{query}");
    }
    insta::assert_snapshot!("delivery_show", it.get(&path("m-2", "")).await);
    insta::assert_snapshot!("delivery_unknown", it.get(&path("m-9", "")).await);
    for query in ["?status=gone", "?class=bad", "?limit=0", "?after=0-42", "?until=now", "?state=failed"] {
        assert_eq!(it.get(&format!("/v1/deliveries{query}")).await.status.as_u16(), 400, "{query}");
    }
    assert_eq!(it.get(&format!("/v1/deliveries?status=accepted&after={next}")).await.status.as_u16(), 400);
}

#[tokio::test]
async fn a_delivery_is_tried_again_or_cancelled_and_who_did_it_is_told() {
    let it = story().await;
    let wish = json!({"reason": "the provider is back"}).to_string();
    insta::assert_snapshot!("delivery_retried", it.post(&path("m-2", "/retry"), wish).await);
    insta::assert_snapshot!(
        "delivery_cancelled",
        it.post(&path("m-4", "/cancel"), r#"{"reason": "a slip"}"#).await
    );
    it.project().await;
    assert_eq!(listed(&it, "?status=retrying").await, ["m-2"]);
    assert_eq!(listed(&it, "?status=suppressed").await, ["m-4"]);
    let last =
        async |id: &str| it.ledger.store().stream(&MessageId::new(id).unwrap()).await.unwrap().pop().unwrap();
    let retried = last("m-2").await;
    let Event::PushRescheduled(event) = &retried.body else { panic!("{retried:?}") };
    assert_eq!(
        (event.reason.as_str(), retried.metadata.actor.as_deref()),
        ("the provider is back", Some("local"))
    );
    let cancelled = last("m-4").await.metadata;
    let told = (cancelled.actor.as_deref(), cancelled.note.as_deref(), cancelled.ingress.as_deref());
    assert_eq!(told, (Some("local"), Some("a slip"), Some("http")));

    insta::assert_snapshot!("delivery_accepted", it.post(&path("m-1", "/retry"), "").await);
    assert_eq!(it.post(&path("m-1", "/cancel"), "").await.status.as_u16(), 409);
    insta::assert_snapshot!("delivery_over", it.post(&path("m-3", "/cancel"), "").await);
    push(&it, "m-5", json!({"expiresAt": "2026-11-22T09:00:10Z"})).await;
    it.clock.advance(Duration::from_mins(1));
    insta::assert_snapshot!("delivery_expired", it.post(&path("m-5", "/retry"), "").await);
    for verb in ["/retry", "/cancel"] {
        assert_eq!(it.post(&path("m-9", verb), "").await.status.as_u16(), 404);
        assert_eq!(it.post(&path("m-2", verb), "because").await.status.as_u16(), 400);
        let other =
            path("m-2", verb).replace(&delivery_of("m-2").to_string(), &delivery_of("m-3").to_string());
        assert_eq!(it.post(&other, "").await.json()["title"], "There is no such delivery");
    }
    insta::assert_snapshot!(
        "delivery_no_provider",
        it.post(&path("m-2", "/retry"), r#"{"provider": "gone"}"#).await
    );
}

#[tokio::test]
async fn a_replay_counts_first_and_takes_up_what_failed_at_the_rate_it_was_told() {
    let it = story().await;
    push(&it, "m-5", json!({"expiresAt": "2026-11-22T09:00:10Z"})).await;
    attempt(&it, "m-5", 1, Said::No).await;
    it.clock.advance(Duration::from_mins(1));
    let wish = |dry: bool| json!({"reason": "an outage", "ratePerS": 0.5, "dryRun": dry}).to_string();
    let default = it.post("/v1/deliveries/replay", r#"{"reason": "an outage"}"#).await;
    assert_eq!((&default.json()["dryRun"], &default.json()["rescheduled"]), (&json!(true), &json!(2)));
    insta::assert_snapshot!("replay_dry", it.post("/v1/deliveries/replay", wish(true)).await);
    it.project().await;
    assert_eq!(listed(&it, "").await, ["m-2", "m-3", "m-5"], "nothing was done");

    let done = it.post("/v1/deliveries/replay", wish(false)).await.json();
    assert_eq!((&done["rescheduled"], &done["skipped"]["expired"]), (&json!(2), &json!(1)));
    it.project().await;
    let waiting = it.get("/v1/deliveries?status=retrying").await.json();
    let due: Vec<_> =
        waiting["deliveries"].as_array().unwrap().iter().map(|it| it["dueAt"].clone()).collect();
    assert_eq!(due, ["2026-11-22T09:01:04.000000Z", "2026-11-22T09:01:06.000000Z"]);
    let again = it.post("/v1/deliveries/replay", wish(false)).await.json();
    assert_eq!((&again["matched"], &again["rescheduled"]), (&json!(1), &json!(0)));
    for bad in [
        r#"{"dryRun": true}"#,
        r#"{"reason": "x", "ratePerS": 0}"#,
        r#"{"reason": "x", "filter": {"status": ["accepted"]}}"#,
        r#"{"reason": "x", "filter": {"status": ["suppressed"]}}"#,
    ] {
        assert_eq!(it.post("/v1/deliveries/replay", bad).await.status.as_u16(), 400, "{bad}");
    }
    let gone = it.post("/v1/deliveries/replay", r#"{"reason": "x", "provider": "gone"}"#).await;
    assert_eq!(gone.status.as_u16(), 404);
}

#[tokio::test]
async fn a_push_that_waits_for_its_time_can_be_cancelled() {
    let it = Fixture::new().await;
    let body = r#"{"messageId":"m-1","notificationType":"PUSH","recipientId":"user-1","title":"News",
        "deliverAt":"2026-11-23T09:00:00Z"}"#;
    it.post("/v1/messages", body).await;
    it.project().await;
    let listed = it.get("/v1/deliveries?status=unplanned").await.json();
    let delivery = listed["deliveries"][0]["deliveryId"].as_str().unwrap().to_owned();
    let path = |verb| format!("/v1/messages/m-1/deliveries/{delivery}/{verb}");
    let cancel = r#"{"reason": "a slip"}"#;
    let cancelled = it.post(&path("cancel"), cancel).await;
    assert_eq!(cancelled.json()["result"], "suppressed", "{cancelled}");
    it.project().await;
    let shown = it.get("/v1/messages/m-1").await.json();
    assert_eq!(
        (&shown["state"]["push"], &shown["deliveries"][0]["status"]),
        (&json!("suppressed"), &json!("suppressed"))
    );
    assert_eq!(it.post(&path("retry"), cancel).await.status.as_u16(), 404, "nothing was planned");
}
