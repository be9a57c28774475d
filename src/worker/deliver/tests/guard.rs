//! What keeps a pause, and the device table, from what a process does not know yet or could not write.

use super::{
    care::{device, with_limits},
    *,
};
use crate::{
    device::Obituary,
    id::RecipientId,
    message::Target,
    provider::{Breaking, Limits, Outcome, Said},
    store::{Control, Mode, PauseCause},
};

const GUARDED: Limits = Limits {
    rate: None,
    breaker: Breaking { share: 2.0, calls_min: 10, window: LEASE, open: LEASE },
    invalid_share: 0.5,
};

fn pause(cause: PauseCause, at: Timestamp) -> Control {
    Control {
        number: 0,
        provider: "acme".into(),
        is_pause: true,
        cause,
        actor: "olga".into(),
        reason: "they have an outage".into(),
        at,
        until: None,
    }
}

fn obituary(token: &str, as_of: Timestamp) -> Obituary {
    Obituary {
        target: Target::Token(token.into()),
        service: None,
        provider: "acme".into(),
        reason: "gone".into(),
        as_of,
    }
}

async fn put_phone(world: &World, recipient: &str, token: &str) {
    let recipient = RecipientId::new(recipient).unwrap();
    world.store.put_device(&recipient, &device("phone", token), world.clock.now()).await.unwrap();
}

async fn is_dead(world: &World, recipient: &str) -> bool {
    let devices = world.store.devices(&RecipientId::new(recipient).unwrap()).await.unwrap();
    assert_eq!(devices.len(), 1);
    devices[0].dead.is_some()
}

#[tokio::test]
async fn a_process_that_starts_calls_nobody_before_it_knows_of_the_pauses() {
    let (world, acme, before) = setup().await;
    for at in 0..40 {
        before.accept(&format!("m-{at}"), json!({})).await;
    }
    world.project().await;
    drop(before);
    assert!(world.store.control(&pause(PauseCause::Operator, world.clock.now())).await.unwrap());
    let mut process = world.process("w-1", true, &[configured(&acme, OnUnknown::Retry)]);
    assert!(process.dispatch.reserve(["acme"]).is_none(), "nothing rides before that");
    process.accept("m-rides", json!({})).await;
    // Whatever comes first.
    let (now, step) = (Instant::now(), |process: &mut Process| process.deliver.step());
    process.deliver.pace.look_now(now);
    step(&mut process).unwrap();
    while let Some(done) = process.deliver.jobs.join_next().await {
        let done = done.unwrap();
        if !matches!(done, Done::Controlled(_)) {
            process.deliver.take(Ok(done)).unwrap();
            step(&mut process).unwrap();
        }
    }
    assert_eq!((acme.calls(), world.all("push.attempt_started").await), (vec![], vec![]));
    process.deliver.is_reading_controls = false;
    process.work(&world).await;
    assert_eq!((acme.calls(), world.all("push.attempt_started").await), (vec![], vec![]));
    let resume = Control { is_pause: false, ..pause(PauseCause::Operator, world.clock.now()) };
    assert!(world.store.control(&resume).await.unwrap());
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 41);
}

#[tokio::test]
async fn pauses_that_cannot_be_read_are_read_again_before_anybody_is_called() {
    let (world, acme, mut process) = setup().await;
    process.accept("m-1", json!({})).await;
    world.project().await;
    let mut all = Vec::new();
    while let Ok(taken) = world.store.db().begin(Mode::Read).await {
        all.push(taken);
    }
    process.deliver.settle().await.unwrap();
    assert_eq!(acme.calls(), []);
    assert!(process.deliver.pace.next() < Instant::now() + Duration::from_secs(10), "and soon");
    for taken in all {
        taken.rollback().await.unwrap();
    }
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 1);
}

#[tokio::test]
async fn a_call_that_fails_for_many_pushes_is_one_failed_call() {
    let (world, expo) = (World::new().await, Scripted::with_batches("expo", Some(12)));
    let breaker = Breaking { share: 0.5, calls_min: 3, ..GUARDED.breaker };
    let limits = Limits { breaker, ..GUARDED };
    let mut process = world.process("w-1", false, &[with_limits(&expo, limits)]);
    expo.play((0..12).map(|_| Play::Answer(failed(FailureClass::Retry))));
    for at in 0..12 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    process.work(&world).await;
    assert!(expo.sizes().len() < 3, "{:?}", expo.sizes());
    assert!(process.dispatch.reserve(["expo"]).is_some(), "called on");
    world.advance_s(10);
    process.work(&world).await;
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 12);
}

#[tokio::test]
async fn receipts_of_one_question_that_fail_are_one_failure() {
    let (world, expo) = (World::new().await, Scripted::with_batches("expo", Some(12)));
    let breaker = Breaking { share: 0.5, calls_min: 3, ..GUARDED.breaker };
    let mut process = world.process("w-1", false, &[with_limits(&expo, Limits { breaker, ..GUARDED })]);
    let pending = |at| Outcome::Pending { ticket: format!("t-{at}"), ask_after: LEASE };
    expo.play((0..4).map(|at| Play::Answer(pending(at))));
    for at in 0..4 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    process.work(&world).await;
    world.advance_s(30);
    expo.say((0..4).map(|_| Said::Finally(failed(FailureClass::Retry))));
    process.work(&world).await;
    assert_eq!(expo.questions(), [2, 2]);
    assert!(process.dispatch.reserve(["expo"]).is_some(), "called on");
}

#[tokio::test]
async fn people_who_are_not_subscribed_pause_nobody() {
    let (world, acme) = (World::new().await, Scripted::new("acme"));
    let mut process = world.process("w-1", false, &[with_limits(&acme, GUARDED)]);
    acme.play((0..40).map(|_| Play::Answer(failed(FailureClass::InvalidTarget))));
    for at in 0..40 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    process.work(&world).await;
    assert_eq!((acme.calls().len(), world.store.controls().await.unwrap()), (40, vec![]));
}

#[tokio::test]
async fn what_is_sent_to_no_device_buries_none() {
    let (world, acme, mut process) = setup().await;
    put_phone(&world, "olga", "t-1").await;
    acme.play([Play::Answer(failed(FailureClass::InvalidTarget))]);
    process.accept("m-1", json!({"push": {"targets": [{"token": "t-1"}]}})).await;
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 1);
    assert!(!is_dead(&world, "olga").await, "the guard does not see it, so it must not");
}

#[tokio::test]
async fn whoever_starts_under_a_pause_takes_back_what_it_is_about() {
    let (world, acme, process) = setup().await;
    for at in 0..3 {
        put_phone(&world, &format!("user-{at}"), &format!("t-{at}")).await;
    }
    let bury = async |token: &str| {
        let now = world.clock.now();
        assert_eq!(world.store.bury_devices(&[obituary(token, now)], now).await.unwrap(), 1);
    };
    bury("t-0").await;
    world.advance_s(301);
    bury("t-1").await;
    // Killed between the pause and its consequence; and another process buries on for a moment.
    assert!(world.store.control(&pause(PauseCause::InvalidTargets, world.clock.now())).await.unwrap());
    world.advance_s(10);
    bury("t-2").await;
    drop(process);

    let mut process = world.process("w-2", false, &[configured(&acme, OnUnknown::Retry)]);
    let writer = world.store.db().begin(Mode::Write).await.unwrap();
    process.deliver.settle().await.unwrap();
    writer.rollback().await.unwrap();
    assert!(is_dead(&world, "user-1").await, "the database was away");
    process.deliver.settle().await.unwrap();
    let dead =
        [is_dead(&world, "user-0").await, is_dead(&world, "user-1").await, is_dead(&world, "user-2").await];
    assert_eq!(dead, [true, false, false], "since five minutes before the pause");

    // Once: what is said of it later is somebody else's.
    bury("t-1").await;
    process.deliver.settle().await.unwrap();
    assert!(is_dead(&world, "user-1").await);
}

#[tokio::test]
async fn nothing_is_buried_while_a_provider_is_not_believed() {
    let (world, acme, mut process) = setup().await;
    put_phone(&world, "olga", "t-1").await;
    process.deliver.settle().await.unwrap();
    process.deliver.dead.push(obituary("t-1", world.clock.now()));
    process.deliver.is_burying = true; // as if another were being written
    assert!(world.store.control(&pause(PauseCause::InvalidTargets, world.clock.now())).await.unwrap());
    process.deliver.settle().await.unwrap();
    process.deliver.is_burying = false;
    process.deliver.settle().await.unwrap();
    assert!(!is_dead(&world, "olga").await);
    assert_eq!(acme.calls(), []);
}

#[tokio::test]
async fn what_could_not_be_written_of_devices_is_written_later() {
    let (world, _acme, mut process) = setup().await;
    put_phone(&world, "olga", "t-1").await;
    process.deliver.settle().await.unwrap();
    process.deliver.dead.push(obituary("t-1", world.clock.now()));
    let writer = world.store.db().begin(Mode::Write).await.unwrap();
    process.deliver.settle().await.unwrap();
    writer.rollback().await.unwrap();
    assert!(!is_dead(&world, "olga").await);
    process.deliver.settle().await.unwrap();
    assert!(is_dead(&world, "olga").await);
}

#[tokio::test]
async fn a_pause_that_could_not_be_written_is_written_later() {
    let (world, _acme, mut process) = setup().await;
    process.deliver.settle().await.unwrap();
    let (cause, now) = (PauseCause::InvalidTargets, world.clock.now());
    let change = Change::Paused { cause, until: None, reason: "it calls all targets invalid".into() };
    let writer = world.store.db().begin(Mode::Write).await.unwrap();
    process.deliver.change(0, change, now);
    process.deliver.settle().await.unwrap();
    writer.rollback().await.unwrap();
    process.deliver.settle().await.unwrap();
    let controls = world.store.controls().await.unwrap();
    assert!(matches!(controls[..], [Control { is_pause: true, cause: PauseCause::InvalidTargets, .. }]));
}
