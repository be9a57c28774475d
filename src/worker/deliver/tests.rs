//! What the worker promises, on a real database with a clock that stands still.

mod care;
mod guard;
mod moves;
mod turns;
mod world;

use std::{collections::HashSet, pin::pin, sync::Arc};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::world::{LEASE, PLACES, Play, Process, Scripted, World, accepted, configured, failed};
use super::{health::Change, *};
use crate::{
    clock::Clock,
    event::{Decision, Event, FailureClass, SuppressReason, Verdict},
    id::MessageId,
    provider::retry::OnUnknown,
    store::Applied,
    stream::{Claim, Command},
};

/// A database, a provider, and a process that delivers what the projection shows.
async fn setup() -> (World, Arc<Scripted>, Process) {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let process = world.process("w-1", false, &[configured(&acme, OnUnknown::Retry)]);
    (world, acme, process)
}

fn call(message: &str, attempt: u32) -> (String, u32) {
    (message.to_owned(), attempt)
}

/// The delivery that a message without targets becomes.
fn delivery_of(message: &str) -> DeliveryId {
    DeliveryId::new(&MessageId::new(message).unwrap(), &format!("alias:user of {message}"))
}

/// Claims a message's delivery in the name of a process that is never heard of again.
async fn claim_by_a_stranger(process: &Process, message: &str) {
    let message_id = MessageId::new(message).unwrap();
    let shard = process.ledger.store().home_of(&message_id).await.unwrap().unwrap();
    let lease_until = process.ledger.now().plus(LEASE);
    let claim = Claim { worker: "stranger".to_owned(), lease_until };
    let command = Command::StartAttempt { delivery_id: delivery_of(message), claim };
    let entry = process.deliver.hands.entry(message_id, command);
    let applied = process.ledger.apply_in(shard, vec![entry]).await;
    assert!(matches!(applied[..], [Ok(Applied::Appended { .. })]), "{applied:?}");
}

#[tokio::test]
async fn a_due_delivery_is_called_once_and_recorded_before_and_after() {
    let (world, acme, mut process) = setup().await;
    process.accept("m-1", json!({})).await;
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started", "push.attempt_succeeded"]);
    let events = world.events("m-1").await;
    assert!(events.iter().any(|it| matches!(
        &it.body,
        Event::PushAttemptStarted(it) if it.worker == "w-1" && it.lease_until == process.ledger.now().plus(LEASE)
    )));
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 1, "accepted is accepted");
}

#[tokio::test]
async fn an_attempt_that_rides_with_the_arrival_needs_no_projection() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let mut process = world.process("w-1", true, &[configured(&acme, OnUnknown::Retry)]);
    process.deliver.settle().await.unwrap();
    process.accept("m-1", json!({})).await;
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started"], "durable before the call");
    assert_eq!(acme.calls(), []);
    process.deliver.settle().await.unwrap();
    assert_eq!(acme.calls(), [call("m-1", 1)]);
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started", "push.attempt_succeeded"]);
}

#[tokio::test]
async fn what_finds_no_place_goes_through_the_projection() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let mut process = world.process("w-1", true, &[configured(&acme, OnUnknown::Retry)]);
    process.deliver.settle().await.unwrap();
    for at in 0..PLACES + 2 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    assert_eq!(world.all("push.attempt_started").await.len(), PLACES);
    process.work(&world).await;
    let calls: HashSet<_> = acme.calls().into_iter().collect();
    assert_eq!((calls.len(), acme.calls().len()), (PLACES + 2, PLACES + 2));
}

#[tokio::test]
async fn a_failure_is_tried_again_when_its_time_has_come() {
    let (world, acme, mut process) = setup().await;
    acme.play([Play::Answer(failed(FailureClass::Retry))]);
    process.accept("m-1", json!({})).await;
    process.work(&world).await;
    let [Event::PushAttemptFailed(it)] = &world.all("push.attempt_failed").await[..] else { panic!() };
    let at = process.ledger.now().plus(Duration::from_secs(10));
    assert_eq!(it.decision, Decision::RetryAt { at, policy: "schedule step 1: 10 s".to_owned() });

    world.advance_s(9);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
    world.advance_s(1);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1), call("m-1", 2)]);
    assert_eq!(acme.keys()[0], acme.keys()[1], "the provider can tell that it is the same push");
    assert_eq!(world.kinds("m-1").await.last(), Some(&"push.attempt_succeeded"));
}

#[tokio::test]
async fn a_permanent_failure_is_given_up() {
    let (world, acme, mut process) = setup().await;
    acme.play([Play::Answer(failed(FailureClass::Permanent))]);
    process.accept("m-1", json!({})).await;
    process.work(&world).await;
    world.advance_s(100_000);
    process.work(&world).await;
    let expected = ["push.attempt_started", "push.attempt_failed", "push.exhausted"];
    assert_eq!((world.kinds("m-1").await, acme.calls().len()), (expected.to_vec(), 1));
}

#[tokio::test]
async fn an_old_message_has_its_full_time_from_when_it_was_due() {
    let (world, acme, mut process) = setup().await;
    acme.play([Play::Answer(failed(FailureClass::Retry)), Play::Answer(failed(FailureClass::Retry))]);
    let fields = json!({"occurredAt": "2026-11-01T09:00:00Z", "deliverAt": "2026-11-24T09:00:00Z"});
    process.accept("m-1", fields).await;
    world.advance_s(2 * 86_400);
    process.work(&world).await;
    process.work(&world).await;
    world.advance_s(86_399);
    process.work(&world).await;
    let decided: Vec<_> = world.all("push.attempt_failed").await;
    assert!(
        matches!(&decided[0], Event::PushAttemptFailed(it) if matches!(it.decision, Decision::RetryAt { .. }))
    );
    assert!(
        matches!(&decided[1], Event::PushAttemptFailed(it) if matches!(it.decision, Decision::GiveUp { .. }))
    );
}

#[tokio::test]
async fn what_has_expired_is_not_sent() {
    let (world, acme, mut process) = setup().await;
    process.accept("m-1", json!({"expiresAt": "2026-11-22T09:00:05Z"})).await;
    world.advance_s(5);
    process.work(&world).await;
    let [Event::PushSuppressed(it)] = &world.all("push.suppressed").await[..] else { panic!() };
    assert_eq!((it.reason, acme.calls().len()), (SuppressReason::Expired, 0));

    acme.play([Play::Answer(failed(FailureClass::Retry))]);
    process.accept("m-2", json!({"expiresAt": "2026-11-22T09:00:10Z"})).await;
    process.work(&world).await;
    let expected = ["push.attempt_started", "push.attempt_failed", "push.exhausted"];
    assert_eq!(world.kinds("m-2").await, expected, "the next attempt would come too late");
}

#[tokio::test]
async fn nothing_is_sent_before_its_time() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let mut process = world.process("w-1", true, &[configured(&acme, OnUnknown::Retry)]);
    process.deliver.settle().await.unwrap();
    process.accept("m-1", json!({"deliverAt": "2026-11-22T09:01:00Z"})).await;
    world.advance_s(59);
    process.work(&world).await;
    assert_eq!(acme.calls(), []);
    world.advance_s(1);
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
}

#[tokio::test]
async fn a_lost_attempt_is_repeated_where_that_is_wanted() {
    let (world, acme, mut process) = setup().await;
    process.accept("m-1", json!({})).await;
    claim_by_a_stranger(&process, "m-1").await;
    world.advance_s(29);
    process.work(&world).await;
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started"], "the lease holds");
    world.advance_s(1);
    process.work(&world).await;
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started", "push.attempt_lost"]);
    world.advance_s(10);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 2)]);
}

#[tokio::test]
async fn a_lost_attempt_is_given_up_where_twice_is_worse_than_never() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let mut process = world.process("w-1", false, &[configured(&acme, OnUnknown::GiveUp)]);
    process.accept("m-1", json!({})).await;
    claim_by_a_stranger(&process, "m-1").await;
    world.advance_s(30);
    process.work(&world).await;
    let [Event::PushExhausted(it)] = &world.all("push.exhausted").await[..] else { panic!() };
    assert_eq!((it.verdict, acme.calls().len()), (Verdict::Unknown, 0));
}

#[tokio::test]
async fn a_late_outcome_is_recorded_and_an_acceptance_ends_the_retries() {
    let (world, acme, mut process) = setup().await;
    let mut other = world.process("w-2", false, &[configured(&acme, OnUnknown::Retry)]);
    acme.play([Play::Hold(accepted())]);
    process.accept("m-1", json!({})).await;
    world.project().await;
    {
        let mut settling = pin!(process.deliver.settle());
        tokio::select! {
            it = &mut settling => panic!("the call is held: {it:?}"),
            () = acme.called() => {}
        }
        world.advance_s(30);
        other.work(&world).await;
        assert_eq!(world.kinds("m-1").await, ["push.attempt_started", "push.attempt_lost"]);
        acme.release();
        settling.await.unwrap();
    }
    let [Event::PushAttemptSucceeded(it)] = &world.all("push.attempt_succeeded").await[..] else { panic!() };
    assert!(it.settles && it.attempt == 1);
    world.advance_s(10);
    other.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
}

#[tokio::test]
async fn a_late_failure_does_not_keep_its_worker_from_the_next_attempt() {
    let (world, acme, mut process) = setup().await;
    let mut other = world.process("w-2", false, &[configured(&acme, OnUnknown::Retry)]);
    acme.play([Play::Hold(failed(FailureClass::Retry))]);
    process.accept("m-1", json!({})).await;
    world.project().await;
    {
        let mut settling = pin!(process.deliver.settle());
        tokio::select! {
            it = &mut settling => panic!("the call is held: {it:?}"),
            () = acme.called() => {}
        }
        world.advance_s(30);
        other.work(&world).await;
        acme.release();
        settling.await.unwrap();
    }
    let expected = ["push.attempt_started", "push.attempt_lost", "push.attempt_failed"];
    assert_eq!(world.kinds("m-1").await, expected);
    world.advance_s(10);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1), call("m-1", 2)]);
}

#[tokio::test]
async fn two_workers_never_both_call_one_delivery() {
    let (world, acme, mut one) = setup().await;
    let mut two = world.process("w-2", false, &[configured(&acme, OnUnknown::Retry)]);
    for at in 0..40 {
        one.accept(&format!("m-{at}"), json!({})).await;
    }
    world.project().await;
    let (first, second) = tokio::join!(one.deliver.settle(), two.deliver.settle());
    first.and(second).unwrap();
    let calls: HashSet<_> = acme.calls().into_iter().collect();
    assert_eq!((calls.len(), acme.calls().len()), (40, 40));
    assert_eq!(world.all("push.attempt_started").await.len(), 40);
}

#[tokio::test]
async fn a_restart_leaves_attempts_in_flight_to_their_lease() {
    let (world, acme, mut process) = setup().await;
    acme.play([Play::Hold(accepted())]);
    process.accept("m-1", json!({})).await;
    world.project().await;
    tokio::select! {
        it = process.deliver.settle() => panic!("the call is held: {it:?}"),
        () = acme.called() => drop(process),
    }
    let mut process = world.process("w-1", false, &[configured(&acme, OnUnknown::Retry)]);
    world.advance_s(29);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
    world.advance_s(1);
    process.work(&world).await;
    world.advance_s(10);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1), call("m-1", 2)]);
}

#[tokio::test]
async fn a_push_that_no_provider_took_is_planned_once_one_would() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let bravo = Scripted::new("bravo");
    let mut process = world.process("w-1", false, &[configured(&bravo, OnUnknown::Retry)]);
    process.accept("m-1", json!({"push": {"provider": "acme"}})).await;
    let length = world.log_length().await;
    process.work(&world).await;
    assert_eq!((world.log_length().await, bravo.calls().len()), (length, 0));

    let mut process = world.process("w-2", false, &[configured(&acme, OnUnknown::Retry)]);
    process.work(&world).await;
    assert_eq!(world.all("push.planned").await.len(), 1);
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1)]);
}

#[tokio::test]
async fn a_push_that_no_provider_took_ends_when_it_expires() {
    let (world, bravo) = (World::new().await, Scripted::new("bravo"));
    let mut process = world.process("w-1", false, &[configured(&bravo, OnUnknown::Retry)]);
    let fields = json!({"push": {"provider": "acme"}, "expiresAt": "2026-11-22T09:00:05Z"});
    process.accept("m-1", fields).await;
    world.advance_s(4);
    process.work(&world).await;
    assert_eq!(world.kinds("m-1").await, Vec::<&str>::new());
    world.advance_s(1);
    process.work(&world).await;
    let [Event::PushSuppressed(it)] = &world.all("push.suppressed").await[..] else { panic!() };
    assert_eq!(it.reason, SuppressReason::Expired);
    process.work(&world).await;
    assert_eq!(world.all("push.suppressed").await.len(), 1);
}

#[tokio::test]
async fn deliveries_of_a_provider_that_is_not_configured_here_are_left_alone() {
    let (world, acme, process) = setup().await;
    let bravo = Scripted::new("bravo");
    let mut other = world.process("w-2", false, &[configured(&bravo, OnUnknown::Retry)]);
    process.accept("m-1", json!({})).await;
    process.accept("m-2", json!({})).await;
    claim_by_a_stranger(&process, "m-2").await;
    world.advance_s(100);
    let length = world.log_length().await;
    other.work(&world).await;
    assert_eq!((world.log_length().await, bravo.calls().len(), acme.calls().len()), (length, 0, 0));
    assert!(other.deliver.counted.contains("acme"), "but told");
}

#[tokio::test]
async fn a_projection_that_lags_makes_nobody_ask_twice() {
    let (world, acme, mut process) = setup().await;
    process.accept("m-1", json!({})).await;
    process.accept("m-2", json!({})).await;
    claim_by_a_stranger(&process, "m-1").await;
    world.project().await;
    world.advance_s(30);
    acme.play([Play::Answer(failed(FailureClass::Permanent))]);
    process.deliver.settle().await.unwrap();
    let length = world.log_length().await;
    for delivery in [delivery_of("m-1"), delivery_of("m-2")] {
        let stale = process.deliver.seen.is_stale(delivery, 3, Instant::now());
        assert!(stale, "remembered until the projection shows it");
    }
    process.deliver.settle().await.unwrap();
    assert_eq!((world.log_length().await, acme.calls().len()), (length, 1));
    assert!(process.deliver.busy.is_empty());
}

#[tokio::test]
async fn an_outcome_waits_until_the_database_answers_again() {
    let (world, acme, mut process) = setup().await;
    acme.play([Play::Hold(accepted())]);
    process.accept("m-1", json!({})).await;
    world.project().await;
    {
        let mut settling = pin!(process.deliver.settle());
        tokio::select! {
            it = &mut settling => panic!("the call is held: {it:?}"),
            () = acme.called() => {}
        }
        // The only connection that writes is taken away, until the appender has given up.
        let writer = world.store.db().begin(crate::store::Mode::Write).await.unwrap();
        acme.release();
        let given_up = async {
            let unknown = crate::id::RecipientId::new("user of m-1").unwrap();
            let marks = vec![(MessageId::new("m-1").unwrap(), crate::stream::Mark::Read)];
            process.ledger.mark(&unknown, marks, &crate::event::Metadata::default()).await
        };
        tokio::select! {
            it = &mut settling => panic!("the database is away: {it:?}"),
            refused = given_up => assert!(refused[0].is_err(), "{refused:?}"),
        }
        writer.rollback().await.unwrap();
        settling.await.unwrap();
    }
    assert_eq!(world.kinds("m-1").await, ["push.attempt_started", "push.attempt_succeeded"]);
    assert_eq!(acme.calls().len(), 1);
}

#[tokio::test]
async fn a_soft_stop_makes_the_calls_that_are_claimed_and_claims_nothing_more() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let Process { ledger, dispatch, mut deliver, appenders: _appenders } =
        world.process("w-1", true, &[configured(&acme, OnUnknown::Retry)]);
    deliver.settle().await.unwrap();
    let accept = async |id: &str| ledger.accept(vec![world::incoming(id, json!({}))]).await;
    acme.play([Play::Hold(accepted())]);
    accept("m-1").await;
    let stop = CancellationToken::new();
    let mut running = pin!(deliver.run(Wake::default(), stop.clone()));
    tokio::select! {
        it = &mut running => panic!("nobody asked for a stop: {it:?}"),
        () = acme.called() => {}
    }
    // In the channel when the stop comes.
    accept("m-2").await;
    stop.cancel();
    tokio::select! {
        it = &mut running => panic!("a call is under way: {it:?}"),
        () = acme.called() => {}
    }
    assert!(dispatch.reserve(["acme"]).is_none());
    accept("m-3").await;
    acme.release();
    running.await.unwrap();
    for id in ["m-1", "m-2"] {
        assert_eq!(world.kinds(id).await, ["push.attempt_started", "push.attempt_succeeded"]);
    }
    assert_eq!(world.kinds("m-3").await, Vec::<&str>::new(), "left to others");
}

#[tokio::test]
async fn a_reserved_place_is_waited_for_at_the_stop() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let Process { dispatch, mut deliver, appenders: _appenders, .. } =
        world.process("w-1", true, &[configured(&acme, OnUnknown::Retry)]);
    deliver.settle().await.unwrap();
    let reserved = dispatch.reserve(["acme"]).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let mut running = pin!(deliver.run(Wake::default(), stop));
    tokio::task::yield_now().await;
    assert!(futures_util::FutureExt::now_or_never(running.as_mut()).is_none(), "an attempt may come of it");
    drop(reserved);
    running.await.unwrap();
}

#[tokio::test]
async fn refused_credentials_burn_no_further_attempts() {
    let (world, acme, mut process) = setup().await;
    acme.play((0..4).map(|_| Play::Answer(failed(FailureClass::AuthConfig))));
    for at in 0..30 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    process.work(&world).await;
    let burnt = acme.calls().len();
    assert!(burnt <= 10, "no more than were under way: {burnt}");
    assert!(process.dispatch.reserve(["acme"]).is_none(), "arrivals do not ride");
    world.advance_s(300);
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 30);
    assert!(process.dispatch.reserve(["acme"]).is_some());
}

#[tokio::test]
async fn an_adapter_that_panics_leaves_an_unknown_outcome() {
    let (world, acme, mut process) = setup().await;
    acme.play([Play::Panic]);
    process.accept("m-1", json!({})).await;
    process.work(&world).await;
    let [Event::PushAttemptFailed(it)] = &world.all("push.attempt_failed").await[..] else { panic!() };
    assert_eq!((it.class, it.code.as_str()), (FailureClass::Unknown, "panic"));
}
