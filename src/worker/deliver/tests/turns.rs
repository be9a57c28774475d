//! Who gets a push when its provider cannot take it, and what begins anew then.

use super::{care::routed, *};
use crate::{
    clock::Clock,
    ledger::operate::Who,
    store::{Control, PauseCause},
};

fn word(world: &World, provider: &str, is_pause: bool) -> Control {
    Control {
        number: 0,
        provider: provider.to_owned(),
        is_pause,
        cause: PauseCause::Operator,
        actor: "ops".to_owned(),
        reason: "a test".to_owned(),
        at: world.clock.now(),
        until: None,
    }
}

#[tokio::test]
async fn what_was_refused_goes_out_as_soon_as_its_provider_is_resumed() {
    let (world, acme, mut process) = setup().await;
    acme.play((0..4).map(|_| Play::Answer(failed(FailureClass::AuthConfig))));
    for at in 0..8 {
        process.accept(&format!("m-{at}"), json!({"expiresAt": "2026-11-22T09:02:00Z"})).await;
    }
    process.work(&world).await;
    world.advance_s(60);
    process.work(&world).await;
    let refused = acme.calls().len();
    assert!(refused <= 8, "paused: {refused} calls");
    world.store.control(&word(&world, "acme", false)).await.unwrap();
    for _ in 0..3 {
        process.work(&world).await;
    }
    assert_eq!(
        world.all("push.attempt_succeeded").await.len(),
        8,
        "though all expire before the pause would end"
    );
    assert_eq!(world.all("push.exhausted").await, []);
}

#[tokio::test]
async fn a_push_stays_where_it_is_while_nobody_else_can_take_it() {
    let world = World::new().await;
    let (acme, bravo) = (Scripted::new("acme"), Scripted::new("bravo"));
    let (mut providers, routing) = routed(&acme, &bravo);
    providers[0].policy.failover_after = Duration::from_secs(1);
    world.store.control(&word(&world, "bravo", true)).await.unwrap();
    let mut process = world.process_with("w-1", false, &providers, routing);
    acme.play([Play::Answer(failed(FailureClass::Retry))]);
    process.accept("m-1", json!({})).await;
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started", "push.attempt_failed"]);
    world.advance_s(60);
    process.work(&world).await;
    assert_eq!((acme.calls().len(), bravo.calls().len()), (2, 0));
    assert_eq!(world.kinds("m-1").await.last(), Some(&"push.attempt_succeeded"));
}

#[tokio::test]
async fn what_would_expire_while_one_provider_rests_goes_to_the_next() {
    let world = World::new().await;
    let (acme, bravo) = (Scripted::new("acme"), Scripted::new("bravo"));
    let (mut providers, routing) = routed(&acme, &bravo);
    providers[0].policy.schedule = vec![Duration::from_mins(15)];
    let mut process = world.process_with("w-1", false, &providers, routing);
    acme.play([Play::Answer(failed(FailureClass::Retry))]);
    process.accept("m-1", json!({"expiresAt": "2026-11-22T09:10:00Z"})).await;
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!((acme.calls().len(), bravo.calls().len()), (1, 1));
    let rescheduled = world.all("push.rescheduled").await;
    let [Event::PushRescheduled(it)] = &rescheduled[..] else { panic!("{rescheduled:?}") };
    assert!(it.reason.starts_with("acme is given up: expires at"), "{}", it.reason);
}

#[tokio::test]
async fn what_is_taken_up_again_has_all_its_attempts_again() {
    let world = World::new().await;
    let acme = Scripted::new("acme");
    let mut provider = configured(&acme, OnUnknown::Retry);
    provider.policy.max_attempts = 2;
    let mut process = world.process("w-1", false, &[provider]);
    acme.play((0..3).map(|_| Play::Answer(failed(FailureClass::Retry))));
    process.accept("m-1", json!({})).await;
    for _ in 0..2 {
        process.work(&world).await;
        world.advance_s(60);
    }
    assert_eq!(world.kinds("m-1").await.last(), Some(&"push.exhausted"));
    let id = MessageId::new("m-1").unwrap();
    let who = Who { by: "ops".to_owned(), ingress: "cli", reason: None };
    let delivery = delivery_of("m-1");
    process.ledger.retry_delivery(&id, delivery, None, &who).await.unwrap().unwrap();
    for _ in 0..2 {
        process.work(&world).await;
        world.advance_s(60);
    }
    assert_eq!(acme.calls(), [1, 2, 3, 4].map(|it| call("m-1", it)));
    assert_eq!(world.kinds("m-1").await.last(), Some(&"push.attempt_succeeded"));
}
