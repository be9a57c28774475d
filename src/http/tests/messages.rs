//! Sending messages, and asking what became of them.

use axum::{body::Body, http::Request};
use serde_json::json;

use super::{Fixture, message};
use crate::{
    event::Metadata,
    id::MessageId,
    stream::{Able, AttemptResult, Claim, Command, Failover},
};

#[tokio::test]
async fn a_message_is_appended_once_and_then_redelivered_or_in_conflict() {
    let it = Fixture::new().await;
    insta::assert_snapshot!("appended", it.post("/v1/messages", message("m-1", "user-1")).await);
    insta::assert_snapshot!("redelivered", it.post("/v1/messages", message("m-1", "user-1")).await);
    let other = message("m-1", "user-1").replace("News", "Other news");
    insta::assert_snapshot!("conflict", it.post("/v1/messages", other.clone()).await);
    insta::assert_snapshot!("conflict", it.post("/v1/messages", other).await);
}

#[tokio::test]
async fn the_idempotency_key_stands_in_for_an_id_quoted_or_not() {
    let it = Fixture::new().await;
    let body = message("m-1", "user-1").replace(r#""messageId":"m-1","#, "");
    for (key, status) in [("k-1", 201), ("\"k-1\"", 200), ("k-2", 201), ("k 3", 422)] {
        let request = Request::post("/v1/messages").header("idempotency-key", key);
        let answer = it.call(request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{key}: {answer}");
    }
}

#[tokio::test]
async fn many_messages_are_answered_one_by_one() {
    let it = Fixture::new().await;
    it.send("m-0").await;
    let messages = [
        message("m-0", "user-1"),
        message("m-1", "user-1"),
        message("m-1", "user-1"),
        message("m-1", "user-2"),
        r#"{"messageId":"m-2","notificationType":"PUSH","recipientId":"user-1"}"#.to_owned(),
        "17".to_owned(),
    ];
    let list = format!("[{}]", messages.join(","));
    insta::assert_snapshot!("many", it.post("/v1/messages", list).await);
    let envelope = format!(r#" {{ "messages" : [{}] }}"#, message("m-3", "user-1"));
    let answer = it.post("/v1/messages", envelope).await;
    assert_eq!(answer.json()["appended"], 1);
    let nothing = it.post("/v1/messages", "[]").await;
    assert_eq!((nothing.status.as_u16(), &nothing.json()["results"]), (200, &json!([])));
}

#[tokio::test]
async fn who_sent_it_stands_in_the_log() {
    let it = Fixture::new().await;
    let request = Request::post("/v1/messages").header("traceparent", "00-abc-def-01");
    it.call(request.body(Body::from(message("m-1", "user-1"))).unwrap()).await;
    let events = it.ledger.store().stream(&MessageId::new("m-1").unwrap()).await.unwrap();
    let expected = Metadata {
        ingress: Some("http".to_owned()),
        actor: Some("local".to_owned()),
        trace: Some("00-abc-def-01".to_owned()),
        ..Metadata::default()
    };
    assert_eq!(events[0].metadata, expected);
}

#[tokio::test]
async fn the_timeline_of_a_message_tells_everything_and_masks_tokens() {
    let it = Fixture::new().await;
    let push = r#"{"messageId":"m-1","notificationType":["APP_NOTIFICATION","PUSH"],"recipientId":"user-1",
        "title":"Your pass expires","push":{"targets":[{"token":"device-token-1234"}]}}"#;
    it.post("/v1/messages", push).await;
    it.post("/v1/messages", push).await;
    attempt(&it).await;
    it.clock.advance(std::time::Duration::from_mins(1));
    it.post("/v1/recipients/user-1/inbox/m-1/read", "").await;
    it.project().await;

    let answer = it.get("/v1/messages/m-1").await;
    assert!(!answer.to_string().contains("device-token"), "{answer}");
    insta::assert_snapshot!("timeline", answer);
    insta::assert_snapshot!("unknown_message", it.get("/v1/messages/m-2").await);
}

/// One attempt that a provider accepts.
async fn attempt(it: &Fixture) {
    let message_id = MessageId::new("m-1").unwrap();
    let rows = it.ledger.store().evidence(&message_id).await.unwrap().unwrap();
    let crate::event::Event::PushPlanned(plan) = &rows.events[1].body else { panic!("not planned") };
    let delivery_id = plan.deliveries[0].delivery_id;
    let now = it.ledger.now();
    let lease_until = now.plus(std::time::Duration::from_mins(1));
    let result = AttemptResult::Accepted { provider_message_id: Some("p-1".to_owned()), status: Some(202) };
    let failover = Failover {
        after: std::time::Duration::from_mins(1),
        after_unknown: true,
        able: Able::All,
        configured: Able::All,
    };
    for command in [
        Command::StartAttempt { delivery_id, claim: Claim { worker: "w-1".to_owned(), lease_until } },
        Command::RecordOutcome { delivery_id, attempt: 1, duration_ms: 41, result, failover },
    ] {
        let metadata = Metadata { ingress: Some("worker".to_owned()), ..Metadata::default() };
        let entry =
            crate::store::Entry { message_id: message_id.clone(), command, occurred_at: now, metadata };
        for applied in it.ledger.apply_in(crate::id::Shard(0), vec![entry]).await {
            applied.unwrap();
        }
    }
}

#[tokio::test]
async fn the_messages_of_a_recipient_come_newest_first_in_parts_and_between_times() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3"] {
        it.send(id).await;
        it.clock.advance(std::time::Duration::from_mins(1));
    }
    it.project().await;
    let path = "/v1/recipients/user-1/messages";
    let first = it.get(&format!("{path}?limit=2")).await;
    assert_eq!(first.ids(), ["m-3", "m-2"]);
    let next = first.json()["next"].as_str().unwrap().to_owned();
    let second = it.get(&format!("{path}?limit=2&before={next}")).await;
    assert_eq!(second.ids(), ["m-1"]);
    insta::assert_snapshot!("messages_of_a_recipient", second);
    let window = "since=2026-11-22T09:01:00Z&until=2026-11-22T18:02:00%2B09:00";
    assert_eq!(it.get(&format!("{path}?{window}")).await.ids(), ["m-2"]);
    assert_eq!(it.get("/v1/recipients/user-2/messages").await.ids(), [""; 0]);
}
