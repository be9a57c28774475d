//! What devices tell of pushes, and where it shows.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Fixture, deliveries::start};

const PUSH: &str = r#"{"messageId":"m-1","notificationType":["APP_NOTIFICATION","PUSH"],"recipientId":"user-1",
    "title":"Your pass expires","push":{"targets":[{"token":"device-token-1234"}]}}"#;

/// The id that the app finds in the push of a message.
async fn delivery_of(it: &Fixture, message: &str) -> Value {
    it.get(&format!("/v1/messages/{message}")).await.json()["deliveries"][0]["deliveryId"].clone()
}

#[tokio::test]
async fn receipts_are_recorded_once_and_told_apart_from_what_the_provider_said() {
    let it = Fixture::new().await;
    it.post("/v1/messages", PUSH).await;
    let delivery = delivery_of(&it, "m-1").await;
    let opened = json!({ "receipts": [{ "messageId": "m-1", "deliveryId": delivery, "kind": "opened" }] });
    let early = it.post("/v1/receipts", opened.to_string()).await.json();
    assert_eq!(early["unknown"], 1, "what was never sent cannot be opened: {early}");
    start(&it, "m-1").await;
    it.clock.advance(Duration::from_hours(1));
    let receipt = |kind: &str, at: Option<&str>| json!({ "messageId": "m-1", "deliveryId": delivery, "kind": kind, "at": at });
    let receipts = json!({ "receipts": [
        receipt("delivered", Some("2026-11-22T09:10:00Z")),
        receipt("opened", Some("2026-11-22T09:20:00Z")),
        receipt("opened", Some("2026-11-22T09:30:00Z")),
        receipt("dismissed", Some("2031-01-01T00:00:00Z")),
        { "messageId": "m-2", "deliveryId": delivery, "kind": "opened" },
        { "messageId": "m-1", "deliveryId": "6ba7b810-9dad-51d1-80b4-00c04fd430c8", "kind": "opened" },
        receipt("read", None),
        17,
    ] });
    insta::assert_snapshot!("receipts", it.post("/v1/receipts", receipts.to_string()).await);
    let again = it.post("/v1/receipts", receipts.to_string()).await.json();
    assert_eq!((&again["recorded"], &again["known"]), (&json!(0), &json!(4)));

    it.project().await;
    let shown = it.get("/v1/messages/m-1").await.json();
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["status"], "attempting", "no provider has accepted it, whatever the device says");
    for (field, time) in [
        ("deliveredAt", "2026-11-22T09:10:00.000000Z"),
        ("openedAt", "2026-11-22T09:20:00.000000Z"),
        ("dismissedAt", "2026-11-22T10:00:00.000000Z"),
    ] {
        assert_eq!(delivery[field], time, "{field}");
    }
    assert_eq!(shown["state"]["firstDeliveredAt"], "2026-11-22T09:10:00.000000Z");
    assert_eq!(shown["state"]["firstOpenedAt"], "2026-11-22T09:20:00.000000Z");
    let projections = shown["projections"].as_array().unwrap();
    assert!(projections.iter().all(|it| it["agrees"] == true && it["complete"] == true), "{shown}");
    let listed = it.get("/v1/recipients/user-1/messages").await.json();
    assert_eq!(listed["messages"][0]["firstOpenedAt"], "2026-11-22T09:20:00.000000Z");
    let last = shown["timeline"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["event"], &last["metadata"]["actor"]), (&json!("push.receipt"), &json!("local")));
}

#[tokio::test]
async fn a_request_that_holds_no_receipts_is_refused_as_a_whole() {
    let it = Fixture::new().await;
    for (body, status) in [
        ("", 400),
        ("[]", 400),
        (r#"{"receipts":{}}"#, 400),
        (r#"{"receipts":[],"more":1}"#, 400),
        (r#"{"receipts":[]}"#, 200),
    ] {
        let answer = it.post("/v1/receipts", body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer}");
    }
    let many = json!({ "receipts": vec![1; 501] }).to_string();
    assert_eq!(it.post("/v1/receipts", many).await.status.as_u16(), 413);
}
