//! Every rule of the retry decision, and that chance has no say in it.

use super::*;
use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry, Unknown};
use proptest::prelude::*;

const T0: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn after(seconds: u64) -> Timestamp {
    T0.plus(Duration::from_secs(seconds))
}

fn attempt(number: u32) -> Circumstances {
    Circumstances { attempt: number, now: T0, first_due: T0, expires_at: None, jitter: 0.0 }
}

fn cause(class: FailureClass, retry_after: Option<Duration>) -> Cause {
    Cause { class, retry_after, trouble: Trouble::Other }
}

#[test]
fn each_sort_of_trouble_has_its_schedule() {
    let seconds = |it: &[u64]| it.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
    let (own, plain) = (
        Policy {
            unavailable: Some(seconds(&[900])),
            throttled: Some(seconds(&[60, 120])),
            ..Policy::default()
        },
        Policy { unavailable: None, throttled: None, ..Policy::default() },
    );
    let failed = |status, scope| Failure { status, scope, ..Failure::new(Retry, "it") };
    for (failure, attempts, with_own, with_plain) in [
        (
            failed(Some(429), RetryScope::Provider),
            1,
            "throttled schedule step 1: 60 s",
            "schedule step 1: 10 s",
        ),
        (
            failed(Some(429), RetryScope::Device),
            2,
            "throttled schedule step 2: 120 s",
            "schedule step 2: 30 s",
        ),
        (
            failed(Some(503), RetryScope::Message),
            2,
            "unavailable schedule step 1: 900 s",
            "schedule step 2: 30 s",
        ),
        (failed(Some(408), RetryScope::Message), 1, "schedule step 1: 10 s", "schedule step 1: 10 s"),
        (failed(None, RetryScope::Message), 1, "schedule step 1: 10 s", "schedule step 1: 10 s"),
    ] {
        for (policy, expected) in [(&own, with_own), (&plain, with_plain)] {
            let Decision::RetryAt { policy: rule, .. } =
                decide(policy, Cause::from(&failure), &attempt(attempts))
            else {
                panic!("{failure:?}")
            };
            assert_eq!(rule, expected, "{failure:?}");
        }
    }
    assert_eq!(own.hold(None), Duration::from_mins(1));
    assert_eq!(own.hold(Some(Duration::from_hours(2))), Duration::from_hours(1), "clamped");
}

fn retry_at(seconds: u64, policy: &str) -> Decision {
    Decision::RetryAt { at: after(seconds), policy: policy.into() }
}

#[test]
fn every_class_and_every_step_has_its_rule() {
    let policy = Policy { max_attempts: 9, ..Policy::default() };
    let mute = Policy { on_unknown: OnUnknown::GiveUp, ..Policy::default() };
    let asked = |it| Some(Duration::from_secs(it));
    let cases = [
        (&policy, Retry, None, 0, retry_at(10, "schedule step 1: 10 s")),
        (&policy, Retry, None, 1, retry_at(10, "schedule step 1: 10 s")),
        (&policy, Retry, None, 2, retry_at(30, "schedule step 2: 30 s")),
        (&policy, Retry, None, 8, retry_at(3600, "schedule step 7: 3600 s")),
        (&policy, Retry, None, 9, give_up("max_attempts 9 reached".into())),
        (&policy, Retry, asked(120), 4, retry_at(120, "retry-after 120 s")),
        (&policy, Retry, asked(0), 4, retry_at(10, "retry-after 0 s, clamped to 10 s")),
        (
            &policy,
            Retry,
            asked(1_000_000_000),
            1,
            retry_at(3600, "retry-after 1000000000 s, clamped to 3600 s"),
        ),
        (&policy, Retry, Some(Duration::MAX), 9, give_up("max_attempts 9 reached".into())),
        (&policy, Unknown, None, 2, retry_at(30, "outcome unknown, schedule step 2: 30 s")),
        (&policy, Unknown, None, 9, give_up("max_attempts 9 reached".into())),
        (&mute, Unknown, None, 1, give_up("outcome unknown, on_unknown is give_up".into())),
        (&mute, Retry, None, 1, retry_at(10, "schedule step 1: 10 s")),
        (&policy, AuthConfig, None, 1, retry_at(5, "when the provider is called again")),
        (&policy, AuthConfig, None, 99, retry_at(5, "when the provider is called again")),
        (&policy, AuthConfig, asked(900), 1, retry_at(5, "when the provider is called again")),
        (&policy, Permanent, asked(5), 1, give_up("permanent failure".into())),
        (&policy, InvalidTarget, None, 1, give_up("invalid target".into())),
    ];
    for (policy, class, retry_after, number, expected) in cases {
        assert_eq!(
            decide(policy, cause(class, retry_after), &attempt(number)),
            expected,
            "{class:?} after attempt {number}, retry-after {retry_after:?}"
        );
    }
    assert_eq!(after_lost(&mute, &attempt(1)), give_up("outcome unknown, on_unknown is give_up".into()));
    assert_eq!(after_lost(&policy, &attempt(1)), retry_at(10, "outcome unknown, schedule step 1: 10 s"));
}

#[test]
fn no_attempt_is_planned_after_the_expiry_or_the_greatest_age() {
    let policy = Policy { max_age: Duration::from_secs(100), ..Policy::default() };
    let expiring = |at| Circumstances { expires_at: Some(after(at)), ..attempt(2) };
    let decide = |at: &Circumstances| decide(&policy, cause(Retry, None), at);
    assert_eq!(decide(&expiring(30)), retry_at(30, "schedule step 2: 30 s"), "the last moment counts");
    let Decision::GiveUp { policy: why } = decide(&expiring(29)) else { panic!("must give up") };
    assert!(why.starts_with("expires at 2027-"), "{why}");
    let aged = Circumstances { now: after(71), ..attempt(2) };
    let expected = "max_age 100 s ends before the next attempt (schedule step 2: 30 s)";
    assert_eq!(decide(&aged), give_up(expected.into()));
    assert_eq!(
        decide(&Circumstances { now: after(70), ..attempt(2) }),
        retry_at(100, "schedule step 2: 30 s")
    );
}

#[test]
fn chance_adds_up_to_its_part_and_stops_at_the_expiry() {
    let policy = Policy::default();
    let thrown = |jitter, expires_at| {
        let at = Circumstances { expires_at, jitter, ..attempt(2) };
        match decide(&policy, cause(Retry, None), &at) {
            Decision::RetryAt { at, .. } => at.since(T0).as_secs_f64(),
            Decision::GiveUp { policy } => panic!("{policy}"),
        }
    };
    for (jitter, expires_at, expected) in [
        (0.0, None, 30.0),
        (0.5, None, 33.75),
        (1.0, None, 37.5),
        (7.0, None, 37.5),
        (-1.0, None, 30.0),
        (f64::NAN, None, 30.0),
        (1.0, Some(after(32)), 32.0),
    ] {
        assert!((thrown(jitter, expires_at) - expected).abs() < 1e-6, "jitter {jitter}");
    }
}

proptest! {
    #[test]
    fn chance_never_decides_whether_there_is_a_next_attempt(
        number in 0_u32..60,
        waited in 0_u64..100_000,
        expiry in proptest::option::of(0_u64..100_000),
        asked in proptest::option::of(0_u64..10_000),
        jitter in 0.0_f64..=1.0,
    ) {
        let policy = Policy::default();
        let at = Circumstances { now: after(waited), expires_at: expiry.map(after), ..attempt(number) };
        let asked = asked.map(Duration::from_secs);
        let calm = decide(&policy, cause(Retry, asked), &at);
        let shaken = decide(&policy, cause(Retry, asked), &Circumstances { jitter, ..at });
        match (calm, shaken) {
            (Decision::GiveUp { policy: a }, Decision::GiveUp { policy: b }) => prop_assert_eq!(a, b),
            (Decision::RetryAt { at: a, .. }, Decision::RetryAt { at: b, .. }) => {
                prop_assert!(a <= b && expiry.is_none_or(|it| b <= after(it)));
                prop_assert!(b <= T0.plus(policy.max_age));
            }
            (calm, shaken) => prop_assert!(false, "{:?} became {:?}", calm, shaken),
        }
    }
}
