//! What becomes of pushes whose device, or whose time, changes between plan and attempt.

use serde_json::Value;

use super::{care::device, *};
use crate::{
    clock::Clock,
    id::{DeviceId, RecipientId},
    message::Target,
};

fn olga() -> RecipientId {
    RecipientId::new("olga").unwrap()
}

async fn register(world: &World, id: &str, token: &str) {
    world.store.put_device(&olga(), &device(id, token), world.clock.now()).await.unwrap();
}

/// The provider-side key of a push of this message to this token.
fn key(message: &str, token: &str) -> String {
    let target = Target::Token(token.to_owned()).canonical();
    DeliveryId::new(&MessageId::new(message).unwrap(), &target).to_string()
}

async fn statuses(world: &World, message: &str) -> Vec<(String, &'static str)> {
    let mut rows = Vec::new();
    for token in ["t-1", "t-2"] {
        let (message, target) = (MessageId::new(message).unwrap(), Target::Token(token.to_owned()));
        let found = world.store.delivery(&message, DeliveryId::new(&message, &target.canonical())).await;
        rows.extend(found.unwrap().map(|(it, _)| (token.to_owned(), it.status.as_str())));
    }
    rows
}

#[tokio::test]
async fn a_push_follows_its_device_to_a_new_token_and_back() {
    let (world, acme, mut process) = setup().await;
    register(&world, "phone", "t-1").await;
    acme.play((0..2).map(|_| Play::Answer(failed(FailureClass::Retry))));
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    process.work(&world).await;
    register(&world, "phone", "t-2").await;
    world.advance_s(60);
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!(acme.keys(), [key("m-1", "t-1"), key("m-1", "t-2")]);
    assert_eq!(statuses(&world, "m-1").await, [("t-1".into(), "suppressed"), ("t-2".into(), "retrying")]);
    register(&world, "phone", "t-1").await;
    world.advance_s(60);
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!(acme.keys().last(), Some(&key("m-1", "t-1")));
    assert_eq!(acme.calls(), [call("m-1", 1), call("m-1", 1), call("m-1", 2)]);
    assert_eq!(statuses(&world, "m-1").await, [("t-1".into(), "accepted"), ("t-2".into(), "suppressed")]);
    let (_, attempts) = world
        .store
        .delivery(&MessageId::new("m-1").unwrap(), key("m-1", "t-1").parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(attempts.len(), 2, "both calls stand in the projection");
}

#[tokio::test]
async fn a_push_reaches_the_same_token_under_another_device() {
    let (world, acme, mut process) = setup().await;
    register(&world, "phone", "t-1").await;
    acme.play([Play::Answer(failed(FailureClass::Retry))]);
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    process.work(&world).await;
    world.store.remove_device(&olga(), &DeviceId::new("phone").unwrap()).await.unwrap();
    register(&world, "phone-after-reinstall", "t-1").await;
    world.advance_s(60);
    process.work(&world).await;
    assert_eq!(acme.keys(), [key("m-1", "t-1"), key("m-1", "t-1")]);
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 1);
}

#[tokio::test]
async fn two_devices_with_one_push_each_do_not_become_two_pushes_to_one() {
    let (world, acme, mut process) = setup().await;
    register(&world, "phone", "t-1").await;
    register(&world, "tablet", "t-2").await;
    acme.play((0..2).map(|_| Play::Answer(failed(FailureClass::Retry))));
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    process.work(&world).await;
    // The tablet is gone, and the phone has its token.
    world.store.remove_device(&olga(), &DeviceId::new("tablet").unwrap()).await.unwrap();
    register(&world, "phone", "t-2").await;
    world.advance_s(60);
    process.work(&world).await;
    process.work(&world).await;
    let mut keys = acme.keys();
    keys.drain(..2);
    assert_eq!(keys, [key("m-1", "t-2")]);
    assert_eq!(statuses(&world, "m-1").await, [("t-1".into(), "suppressed"), ("t-2".into(), "accepted")]);
}

#[tokio::test]
async fn a_push_for_later_goes_to_the_devices_of_then() {
    let (world, acme, mut process) = setup().await;
    register(&world, "old", "t-1").await;
    process.accept("m-1", json!({"recipientId": "olga", "deliverAt": "2026-11-22T10:00:00Z"})).await;
    process.work(&world).await;
    assert!(world.all("push.planned").await.is_empty());
    world.store.remove_device(&olga(), &DeviceId::new("old").unwrap()).await.unwrap();
    register(&world, "new", "t-2").await;
    world.advance_s(3599);
    process.work(&world).await;
    assert_eq!(acme.keys(), [""; 0]);
    world.advance_s(1);
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!(acme.keys(), [key("m-1", "t-2")]);
}

#[tokio::test]
async fn what_has_expired_takes_nobodys_place() {
    let (world, acme, mut process) = setup().await;
    let fields = |more: Value| {
        let mut fields =
            json!({"recipientId": "olga", "collapseKey": "k", "push": {"targets": [{"token": "t-1"}]}});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    process.accept("m-1", fields(json!({}))).await;
    process.accept("m-2", fields(json!({"expiresAt": "2026-11-22T09:00:03Z"}))).await;
    world.advance_s(5);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
    assert_eq!(world.kinds("m-2").await, ["push.suppressed"]);
}
