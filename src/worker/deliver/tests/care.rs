//! What is promised beyond one call to one provider: batches, receipts, routes, rest, and devices.

use serde_json::Value;

use super::*;
use crate::{
    device::{PRODUCTION, Registration},
    event::{Ended, RescheduleCause},
    id::{DeviceId, RecipientId},
    message::Target,
    provider::{Breaking, Failure, Limits, Outcome, Rate, RetryScope, Said},
    routing::{Known, Route, Routing},
    store::{Control, PauseCause},
};

fn pending(ticket: &str) -> Outcome {
    Outcome::Pending { ticket: ticket.to_owned(), ask_after: Duration::from_mins(15) }
}

/// Two providers that take anything; whatever `acme` cannot take goes to `bravo`.
pub(super) fn routed(acme: &Arc<Scripted>, bravo: &Arc<Scripted>) -> (Vec<Configured>, Routing) {
    let providers = [configured(acme, OnUnknown::Retry), configured(bravo, OnUnknown::Retry)];
    let known = |name: &str| (name.to_owned(), Known::universal("log", LEASE));
    let route = Route { providers: vec!["acme".into(), "bravo".into()], ..Route::default() };
    let routing = Routing {
        default_provider: None,
        routes: vec![route],
        providers: [known("acme"), known("bravo")].into(),
        to_devices: true,
    };
    (providers.to_vec(), routing)
}

pub(super) fn with_limits(provider: &Arc<Scripted>, limits: Limits) -> Configured {
    Configured { limits, ..configured(provider, OnUnknown::Retry) }
}

fn no_limits() -> Limits {
    let breaker = Breaking { share: 2.0, calls_min: 10, window: LEASE, open: LEASE };
    Limits { rate: None, breaker, invalid_share: 2.0 }
}

pub(super) fn device(id: &str, token: &str) -> Registration {
    Registration {
        device_id: DeviceId::new(id).unwrap(),
        app: "shop".into(),
        platform: "ios".into(),
        kind: "log".into(),
        environment: PRODUCTION.into(),
        target: Target::Token(token.into()),
        locale: None,
        time_zone: None,
        last_seen_at: None,
    }
}

#[tokio::test]
async fn a_provider_that_takes_many_gets_many_in_one_call() {
    let (world, expo) = (World::new().await, Scripted::with_batches("expo", Some(3)));
    let mut process = world.process("w-1", false, &[configured(&expo, OnUnknown::Retry)]);
    for at in 0..7 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    expo.play([Play::Answer(accepted()), Play::Answer(failed(FailureClass::Permanent))]);
    process.work(&world).await;
    let mut sizes = expo.sizes();
    sizes.sort_unstable();
    assert_eq!(sizes.iter().sum::<usize>(), 7);
    assert!(sizes.len() <= 4 && sizes.contains(&3), "{sizes:?}");
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 6, "one outcome for each");
    assert_eq!(world.all("push.exhausted").await.len(), 1);
}

#[tokio::test]
async fn a_pending_push_is_asked_about_until_there_is_a_final_word() {
    let (world, expo) = (World::new().await, Scripted::with_batches("expo", Some(9)));
    let mut process = world.process("w-1", false, &[configured(&expo, OnUnknown::Retry)]);
    for id in ["m-1", "m-2", "m-3"] {
        process.accept(id, json!({})).await;
    }
    expo.play([pending("t-1"), pending("t-2"), pending("t-3")].map(Play::Answer));
    process.work(&world).await;
    assert_eq!(expo.questions(), Vec::<usize>::new(), "too early");
    world.advance_s(899);
    process.work(&world).await;
    assert_eq!(expo.questions(), Vec::<usize>::new());

    world.advance_s(1);
    expo.say([Said::Finally(accepted()), Said::NotYet, Said::Finally(failed(FailureClass::InvalidTarget))]);
    process.work(&world).await;
    assert_eq!(expo.questions(), [2, 1]);
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 1);
    assert_eq!(world.all("push.exhausted").await.len(), 1);
    process.work(&world).await;
    assert_eq!(expo.questions(), [2, 1], "not asked again before its time");
    world.advance_s(86_400);
    process.work(&world).await;
    let ended = world.all("push.exhausted").await;
    let unknown = |it: &&Event| matches!(it, Event::PushExhausted(it) if it.verdict == Verdict::Unknown);
    assert_eq!(ended.iter().filter(unknown).count(), 1, "nobody knows, and it is not sent again");
    assert_eq!(expo.calls().len(), 3);
}

#[tokio::test]
async fn refused_credentials_pause_a_provider_for_every_process() {
    let (world, acme, mut process) = setup().await;
    process.accept("m-1", json!({})).await;
    acme.play([Play::Answer(failed(FailureClass::AuthConfig))]);
    process.work(&world).await;
    let controls = world.store.controls().await.unwrap();
    let [Control { is_pause: true, cause: PauseCause::AuthConfig, actor, .. }] = &controls[..] else {
        panic!("{controls:?}")
    };
    assert_eq!(actor, "w-1");

    let other = Scripted::new("acme");
    let mut elsewhere = world.process("w-2", false, &[configured(&other, OnUnknown::Retry)]);
    elsewhere.deliver.settle().await.unwrap();
    elsewhere.accept("m-2", json!({})).await;
    elsewhere.work(&world).await;
    assert_eq!(other.calls(), [], "nor does it find out by itself");
    let resume = Control {
        is_pause: false,
        cause: PauseCause::Operator,
        actor: "olga".into(),
        reason: "a new key".into(),
        at: process.ledger.now().plus(Duration::from_secs(1)),
        until: None,
        ..controls[0].clone()
    };
    assert!(world.store.control(&resume).await.unwrap());
    world.advance_s(300);
    elsewhere.work(&world).await;
    let mut calls = other.calls();
    calls.sort();
    assert_eq!(calls, [call("m-1", 2), call("m-2", 1)]);
    assert_eq!(world.all("push.exhausted").await.len(), 0, "no delivery was given up");
}

#[tokio::test]
async fn the_next_of_the_route_takes_what_waits_for_a_paused_provider() {
    let (world, acme, bravo) = (World::new().await, Scripted::new("acme"), Scripted::new("bravo"));
    let (providers, routing) = routed(&acme, &bravo);
    let mut process = world.process_with("w-1", true, &providers, routing);
    let pause = Control {
        number: 0,
        provider: "acme".into(),
        is_pause: true,
        cause: PauseCause::Operator,
        actor: "olga".into(),
        reason: "they have an outage".into(),
        at: process.ledger.now(),
        until: None,
    };
    assert!(world.store.control(&pause).await.unwrap());
    process.deliver.settle().await.unwrap();
    process.accept("m-1", json!({})).await;
    process.work(&world).await;
    process.work(&world).await;
    assert_eq!((acme.calls(), bravo.calls()), (vec![], vec![call("m-1", 1)]));
    let moved = world.all("push.rescheduled").await;
    let [Event::PushRescheduled(it)] = &moved[..] else { panic!("{moved:?}") };
    assert_eq!(
        (it.cause, it.provider.as_str(), it.reopens),
        (RescheduleCause::Failover, "bravo", None::<Ended>)
    );
    assert!(it.reason.contains("paused (operator)"), "{}", it.reason);
}

#[tokio::test]
async fn a_provider_that_fails_too_often_is_left_alone_and_another_takes_over() {
    let (world, acme, bravo) = (World::new().await, Scripted::new("acme"), Scripted::new("bravo"));
    let (mut providers, routing) = routed(&acme, &bravo);
    let breaker = Breaking { share: 0.5, calls_min: 3, window: LEASE, open: Duration::from_hours(1) };
    providers[0] = with_limits(&acme, Limits { breaker, ..no_limits() });
    let mut process = world.process_with("w-1", false, &providers, routing);
    acme.play((0..4).map(|_| Play::Answer(failed(FailureClass::Unknown))));
    for at in 0..8 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    process.work(&world).await;
    process.work(&world).await;
    world.advance_s(10);
    process.work(&world).await;
    process.work(&world).await;
    let (left, right) = (acme.calls().len(), bravo.calls().len());
    assert!((3..=8).contains(&left) && right > 0, "{left} {right}");
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 8, "all of them, through one or the other");
}

#[tokio::test]
async fn a_dead_device_gets_nothing_more_until_it_registers_again() {
    let (world, acme, mut process) = setup().await;
    let olga = RecipientId::new("olga").unwrap();
    for (id, token) in [("phone", "t-1"), ("tablet", "t-2")] {
        world.store.put_device(&olga, &device(id, token), process.ledger.now()).await.unwrap();
    }
    let to = json!({"recipientId": "olga"});
    acme.play([Play::Answer(failed(FailureClass::InvalidTarget))]);
    process.accept("m-1", to.clone()).await;
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 2, "one for each device");
    let dead: Vec<_> = world.store.devices(&olga).await.unwrap();
    assert_eq!(dead.iter().filter(|it| it.dead.is_some()).count(), 1, "{dead:?}");
    world.advance_s(60);
    process.accept("m-2", to.clone()).await;
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 3);

    for id in ["phone", "tablet"] {
        let token = if id == "phone" { "t-1" } else { "t-2" };
        world.store.put_device(&olga, &device(id, token), process.ledger.now()).await.unwrap();
    }
    let long_ago = process.ledger.now().minus(Duration::from_secs(30));
    let late_word = Failure { as_of: Some(long_ago), ..Failure::new(FailureClass::InvalidTarget, "410") };
    acme.play([Play::Answer(Outcome::Failed(late_word))]);
    process.accept("m-3", to).await;
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 5);
    let devices = world.store.devices(&olga).await.unwrap();
    assert!(devices.iter().all(|it| it.dead.is_none()), "a word from before the registration: {devices:?}");
}

#[tokio::test]
async fn nothing_is_sent_to_a_device_that_was_signed_out_or_is_somebody_elses_now() {
    let (world, acme, mut process) = setup().await;
    let (olga, petra) = (RecipientId::new("olga").unwrap(), RecipientId::new("petra").unwrap());
    let now = process.ledger.now();
    for (id, token) in [("phone", "t-1"), ("tablet", "t-2"), ("watch", "t-3")] {
        world.store.put_device(&olga, &device(id, token), now).await.unwrap();
    }
    acme.play((0..3).map(|_| Play::Answer(failed(FailureClass::Retry))));
    process.accept("m-1", json!({"recipientId": "olga"})).await;
    process.work(&world).await;
    world.store.remove_device(&olga, &DeviceId::new("phone").unwrap()).await.unwrap();
    world.store.put_device(&petra, &device("mine", "t-2"), now).await.unwrap();
    world.advance_s(60);
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 4, "only the watch is called again");
    let ended = world.all("push.suppressed").await;
    let nowhere =
        |it: &&Event| matches!(it, Event::PushSuppressed(it) if it.reason == SuppressReason::NoTarget);
    assert_eq!(ended.iter().filter(nowhere).count(), 2);
}

#[tokio::test]
async fn what_receipts_say_counts_for_the_providers_health_too() {
    let (world, expo) = (World::new().await, Scripted::with_batches("expo", Some(9)));
    let mut process = world.process("w-1", false, &[configured(&expo, OnUnknown::Retry)]);
    process.accept("m-1", json!({})).await;
    expo.play([Play::Answer(pending("t-1"))]);
    process.work(&world).await;
    world.advance_s(900);
    expo.say([Said::Finally(failed(FailureClass::AuthConfig))]);
    process.work(&world).await;
    let controls = world.store.controls().await.unwrap();
    assert!(matches!(controls[..], [Control { is_pause: true, cause: PauseCause::AuthConfig, .. }]));
}

#[tokio::test]
async fn a_provider_that_calls_all_devices_dead_is_paused_and_they_live() {
    let world = World::new().await;
    let acme = Scripted::new("acme");
    let limits = Limits { invalid_share: 0.5, ..no_limits() };
    let mut process = world.process("w-1", false, &[with_limits(&acme, limits)]);
    let now = process.ledger.now();
    acme.play((0..40).map(|_| Play::Answer(failed(FailureClass::InvalidTarget))));
    for at in 0..40 {
        let recipient = RecipientId::new(&format!("user-{at}")).unwrap();
        world.store.put_device(&recipient, &device("phone", &format!("t-{at}")), now).await.unwrap();
        process.accept(&format!("m-{at}"), json!({"recipientId": format!("user-{at}")})).await;
    }
    process.work(&world).await;
    process.work(&world).await;
    assert!(acme.calls().len() < 40, "{}", acme.calls().len());
    let controls = world.store.controls().await.unwrap();
    assert!(matches!(controls[..], [Control { is_pause: true, cause: PauseCause::InvalidTargets, .. }]));
    for at in 0..40 {
        let recipient = RecipientId::new(&format!("user-{at}")).unwrap();
        let devices = world.store.devices(&recipient).await.unwrap();
        assert!(devices.iter().all(|it| it.dead.is_none()), "{devices:?}");
    }
}

#[tokio::test]
async fn of_pushes_with_one_collapse_key_only_the_newest_is_sent() {
    let (world, acme, mut process) = setup().await;
    let pass = json!({"recipientId": "olga", "collapseKey": "pass-7"});
    process.accept("m-1", pass.clone()).await;
    process.accept("m-2", json!({"recipientId": "olga", "collapseKey": "other"})).await;
    process.accept("m-3", pass).await;
    process.accept("m-4", json!({"collapseKey": "pass-7"})).await;
    // For later, for another target, or cancelled: these take nobody's place.
    let other = |more: Value| {
        let mut fields = json!({"recipientId": "petra", "collapseKey": "pass-8"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    process.accept("m-5", other(json!({}))).await;
    process.accept("m-6", other(json!({"deliverAt": "2026-11-23T09:00:00Z"}))).await;
    process.accept("m-7", other(json!({"push": {"targets": [{"token": "t-9"}]}}))).await;
    process.work(&world).await;
    let mut calls = acme.calls();
    calls.sort();
    assert_eq!(calls, ["m-2", "m-3", "m-4", "m-5", "m-7"].map(|it| call(it, 1)));
    let ended = world.all("push.suppressed").await;
    assert!(matches!(&ended[..], [Event::PushSuppressed(it)] if it.reason == SuppressReason::Superseded));
}

#[tokio::test]
async fn no_more_pushes_begin_than_the_rate_allows() {
    let world = World::new().await;
    let acme = Scripted::new("acme");
    let limits = Limits { rate: Some(Rate { per_s: 1, burst: 3 }), ..no_limits() };
    let mut process = world.process("w-1", true, &[with_limits(&acme, limits)]);
    process.deliver.settle().await.unwrap();
    for at in 0..9 {
        process.accept(&format!("m-{at}"), json!({})).await;
    }
    process.work(&world).await;
    let made = acme.calls().len();
    assert!((3..=6).contains(&made), "{made} in less than a few seconds");
}

#[tokio::test]
async fn a_device_that_gets_too_much_does_not_stop_the_others() {
    let (world, acme, mut process) = setup().await;
    let slow = Failure { scope: RetryScope::Device, ..Failure::new(FailureClass::Retry, "429") };
    acme.play([Play::Answer(Outcome::Failed(slow))]);
    process.accept("m-1", json!({"push": {"targets": [{"token": "t-1"}]}})).await;
    process.work(&world).await;
    process.accept("m-2", json!({"push": {"targets": [{"token": "t-1"}]}})).await;
    process.accept("m-3", json!({"push": {"targets": [{"token": "t-2"}]}})).await;
    process.work(&world).await;
    assert_eq!(acme.calls(), [call("m-1", 1), call("m-3", 1)]);
    world.advance_s(60);
    process.work(&world).await;
    assert_eq!(acme.calls().len(), 4);
}

#[tokio::test]
async fn refused_credentials_do_not_use_up_the_attempts_of_a_delivery() {
    let world = World::new().await;
    let acme = Scripted::new("acme");
    let mut provider = configured(&acme, OnUnknown::Retry);
    provider.policy.max_attempts = 2;
    let mut process = world.process("w-1", false, &[provider]);
    process.accept("m-1", json!({})).await;
    let (refused, ill) = (FailureClass::AuthConfig, FailureClass::Retry);
    acme.play([refused, refused, refused, ill].map(|it| Play::Answer(failed(it))));
    for _ in 0..5 {
        process.work(&world).await;
        process.work(&world).await;
        world.advance_s(300);
    }
    assert_eq!(acme.calls().len(), 5);
    assert_eq!(world.all("push.exhausted").await, []);
    assert_eq!(world.all("push.attempt_succeeded").await.len(), 1);
}
