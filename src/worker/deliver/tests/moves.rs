//! What becomes of pushes whose device, or whose time, changes between plan and attempt.

use serde_json::Value;

use super::{
    care::{device, routed},
    *,
};
use crate::{
    clock::Clock,
    event::{Metadata, ReceiptKind},
    id::{DeviceId, RecipientId},
    ledger::operate::{Replay, Who},
    message::Target,
    projection::deliveries::DeliveryStatus,
    store::DeliveryFilter,
    stream::Report,
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
async fn what_a_device_told_of_a_push_stays_when_it_comes_back() {
    let (world, acme, mut process) = setup().await;
    register(&world, "phone", "t-1").await;
    acme.play((0..2).map(|_| Play::Answer(failed(FailureClass::Retry))));
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    process.work(&world).await;
    let (message_id, delivery_id) = (MessageId::new("m-1").unwrap(), key("m-1", "t-1").parse().unwrap());
    let report = Report {
        message_id: message_id.clone(),
        delivery_id,
        kind: ReceiptKind::Opened,
        at: None,
        detail: None,
    };
    assert!(process.ledger.report(vec![report], &Metadata::default()).await[0].is_ok());
    for token in ["t-2", "t-1"] {
        register(&world, "phone", token).await;
        world.advance_s(60);
        process.work(&world).await;
        process.work(&world).await;
    }
    let (row, _) = world.store.delivery(&message_id, delivery_id).await.unwrap().unwrap();
    assert!(row.opened_at_us.is_some() && row.status == DeliveryStatus::Accepted, "{row:?}");
}

#[tokio::test]
async fn a_push_that_was_handed_on_stays_there_when_its_device_moves() {
    let world = World::new().await;
    let (acme, bravo) = (Scripted::new("acme"), Scripted::new("bravo"));
    let (providers, routing) = routed(&acme, &bravo);
    let mut process = world.process_with("w-1", false, &providers, routing);
    register(&world, "phone", "t-1").await;
    acme.play([Play::Answer(failed(FailureClass::AuthConfig))]);
    bravo.play([Play::Answer(failed(FailureClass::Retry))]);
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    for _ in 0..2 {
        process.work(&world).await;
    }
    assert_eq!((acme.calls().len(), bravo.calls().len()), (1, 1));
    register(&world, "phone", "t-2").await;
    world.advance_s(60);
    for _ in 0..2 {
        process.work(&world).await;
    }
    assert_eq!((acme.calls().len(), bravo.keys()), (1, vec![key("m-1", "t-1"), key("m-1", "t-2")]));
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

#[tokio::test]
async fn a_replay_leaves_out_devices_that_are_dead_and_takes_up_those_that_live_again() {
    let (world, acme, mut process) = setup().await;
    register(&world, "phone", "t-1").await;
    acme.play([Play::Answer(failed(FailureClass::InvalidTarget))]);
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    process.work(&world).await;
    process.work(&world).await;
    let replay = async |process: &Process, class| {
        let replay = Replay {
            statuses: vec![DeliveryStatus::Failed],
            filter: DeliveryFilter { class, ..DeliveryFilter::default() },
            through: None,
            rate_per_s: None,
            start_at: None,
            after: None,
            is_dry: false,
        };
        let who = Who { by: "ops".to_owned(), ingress: "cli", reason: None };
        let mut replaying = process.ledger.replay(replay, who).unwrap();
        while replaying.page().await.unwrap() {}
        (replaying.so_far().rescheduled, replaying.so_far().unfit)
    };
    world.advance_s(1);
    for class in [None, Some(FailureClass::InvalidTarget)] {
        assert_eq!(replay(&process, class).await, (0, 1), "the device is dead");
    }
    register(&world, "phone", "t-2").await;
    assert_eq!(replay(&process, None).await, (1, 0));
    for _ in 0..2 {
        process.work(&world).await;
    }
    assert_eq!(acme.keys(), [key("m-1", "t-1"), key("m-1", "t-2")]);
}
