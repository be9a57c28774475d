//! When a provider is called, and when it is believed.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{clock::SystemClock, provider};

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const HOLD: Duration = Duration::from_mins(1);

fn health(settings: serde_json::Value) -> Health {
    let configured = provider::build("acme", "log", settings, Arc::new(SystemClock)).unwrap();
    let mut health = Health::new(&configured);
    assert_eq!(health.gate(START), Gate::Unknown, "whoever knows of no pauses calls nobody");
    assert_eq!(health.control(None), None);
    health
}

impl Health {
    /// A call for one push to a device.
    fn meet(&mut self, outcome: &Outcome, now: Timestamp) -> Vec<Change> {
        let mut changes = self.learn(outcome, true, HOLD, now);
        changes.extend(is_ill([outcome]).and_then(|it| self.count_call(it, now)));
        changes
    }
}

fn accepted() -> Outcome {
    Outcome::Accepted { provider_message_id: None, status: Some(200) }
}

/// As a provider answers.
fn failed(class: FailureClass) -> Outcome {
    let status = match class {
        FailureClass::Unknown | FailureClass::Retry => None,
        _ => Some(400),
    };
    Outcome::Failed(Failure { status, ..Failure::new(class, "it") })
}

/// A target that is invalid, or we are wrong.
fn suspect() -> Outcome {
    let status = Some(400);
    Outcome::Failed(Failure {
        status,
        is_suspect: true,
        ..Failure::new(FailureClass::InvalidTarget, "BadDeviceToken")
    })
}

/// Whether a device dies of this.
fn is_deadly(health: &mut Health, outcome: &Outcome, now: Timestamp) -> bool {
    health.meet(outcome, now);
    matches!(outcome, Outcome::Failed(failure) if health.buries(failure))
}

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

#[test]
fn refused_credentials_pause_until_one_call_goes_well() {
    let mut it = health(json!({}));
    let refused = failed(FailureClass::AuthConfig);
    let [Change::Paused { cause, until, .. }] = &it.meet(&refused, START)[..] else { panic!() };
    assert_eq!((*cause, *until), (PauseCause::AuthConfig, Some(at(300))));
    assert_eq!(it.meet(&refused, at(1)), [], "told once");
    assert_eq!(it.meet(&accepted(), at(1)), [], "a call from before");
    assert_eq!(it.gate(at(299)), Gate::Shut(Why::Paused(PauseCause::AuthConfig)));
    assert_eq!(it.gate(at(300)), Gate::Probe);
    assert!(matches!(it.meet(&refused, at(301))[..], [Change::Paused { .. }]));
    assert_eq!(it.gate(at(600)), Gate::Shut(Why::Paused(PauseCause::AuthConfig)));
    assert_eq!(it.meet(&failed(FailureClass::Permanent), at(602)), [Change::Resumed]);
    assert_eq!(it.gate(at(602)), Gate::Open);
}

#[test]
fn what_all_processes_share_counts() {
    let mut it = health(json!({}));
    let mut control = Control {
        number: 1,
        provider: "acme".into(),
        is_pause: true,
        cause: PauseCause::Operator,
        actor: "olga".into(),
        reason: "a change over there".into(),
        at: START,
        until: None,
    };
    it.control(Some(&control));
    assert_eq!(it.gate(at(99_999)), Gate::Shut(Why::Paused(PauseCause::Operator)));
    assert_eq!(it.meet(&accepted(), at(2)), []);
    assert_eq!(it.gate(at(99_999)), Gate::Shut(Why::Paused(PauseCause::Operator)), "nobody resumed it");
    (control.is_pause, control.number) = (false, 2);
    it.control(Some(&control));
    assert_eq!(it.gate(at(3)), Gate::Open);
}

#[test]
fn an_operators_word_wins_over_what_this_process_decided_whatever_the_clocks_say() {
    let mut it = health(json!({}));
    let mut control = Control {
        number: 7,
        provider: "acme".into(),
        is_pause: true,
        cause: PauseCause::Operator,
        actor: "olga".into(),
        reason: "a change over there".into(),
        at: START.minus(Duration::from_hours(1)),
        until: None,
    };
    it.meet(&failed(FailureClass::AuthConfig), START);
    it.control(None);
    assert_eq!(
        it.gate(at(1)),
        Gate::Shut(Why::Paused(PauseCause::AuthConfig)),
        "its own row is not there yet"
    );
    it.control(Some(&control));
    assert_eq!(it.gate(at(999)), Gate::Shut(Why::Paused(PauseCause::Operator)));
    (control.is_pause, control.number) = (false, 8);
    it.control(Some(&control));
    assert_eq!(it.gate(at(1)), Gate::Open);
}

#[test]
fn a_call_that_never_came_to_our_credentials_ends_no_pause() {
    let mut it = health(json!({}));
    it.meet(&failed(FailureClass::AuthConfig), START);
    assert_eq!(it.gate(at(300)), Gate::Probe);
    assert_eq!(it.meet(&failed(FailureClass::Unknown), at(300)), []);
    assert_eq!(it.gate(at(301)), Gate::Shut(Why::Paused(PauseCause::AuthConfig)));
    assert_eq!(it.meet(&accepted(), at(600)), [Change::Resumed]);
}

#[test]
fn a_provider_that_gets_too_much_is_left_alone_for_a_while() {
    let mut it = health(json!({}));
    let throttled =
        Outcome::Failed(Failure { scope: RetryScope::Provider, ..Failure::new(FailureClass::Retry, "429") });
    assert_eq!(it.meet(&throttled, START), [Change::Held(HOLD)]);
    assert_eq!(it.meet(&throttled, at(1)), [], "told once, and longer");
    assert_eq!((it.gate(at(60)), it.gate(at(61))), (Gate::Held { until: at(61) }, Gate::Open));
    for _ in 0..50 {
        it.meet(&throttled, at(2));
    }
    assert_eq!(it.gate(at(62)), Gate::Open, "to get too much is no illness");
}

#[test]
fn the_breaker_opens_at_seven_of_ten_and_one_call_closes_it() {
    let mut it = health(json!({}));
    let ill = failed(FailureClass::Unknown);
    for _ in 0..3 {
        assert_eq!(it.meet(&accepted(), START), []);
    }
    for _ in 0..6 {
        assert_eq!(it.meet(&ill, at(10)), []);
    }
    let wait = Duration::from_secs(30);
    assert_eq!(it.meet(&ill, at(20)), [Change::Broke(wait)]);
    assert_eq!(it.meet(&ill, at(21)), [], "a call from before");
    assert_eq!((it.gate(at(49)), it.gate(at(50))), (Gate::Shut(Why::Broken), Gate::Probe));
    assert_eq!(it.meet(&ill, at(51)), [Change::Broke(wait * 2)]);
    assert_eq!(it.gate(at(110)), Gate::Shut(Why::Broken));
    assert_eq!(it.meet(&failed(FailureClass::InvalidTarget), at(112)), [Change::Mended]);
    assert_eq!(it.gate(at(112)), Gate::Open);
    assert_eq!(it.meet(&ill, at(113)), [], "counted anew");
}

#[test]
fn failures_are_counted_over_the_last_minutes_only() {
    let mut it = health(json!({}));
    let ill = failed(FailureClass::Retry);
    for _ in 0..9 {
        assert_eq!(it.meet(&ill, START), []);
    }
    assert_eq!(it.meet(&ill, at(400)), []);
    let mut never = health(json!({"breaker": {"share": 2.0}}));
    assert!((0..99).all(|_| never.meet(&ill, START).is_empty()));
}

#[test]
fn a_provider_that_calls_most_targets_invalid_is_not_believed() {
    let mut it = health(json!({}));
    let invalid = failed(FailureClass::InvalidTarget);
    for _ in 0..19 {
        assert_eq!(it.meet(&invalid, START), []);
    }
    let changes = it.meet(&invalid, at(1));
    assert!(matches!(changes[..], [Change::Paused { .. }, Change::Disbelieved { .. }]), "{changes:?}");
    assert_eq!(it.gate(at(99_999)), Gate::Shut(Why::Paused(PauseCause::InvalidTargets)));
    let mut usual = health(json!({}));
    for _ in 0..100 {
        usual.meet(&accepted(), START);
        assert_eq!(usual.meet(&invalid, START), [], "half of them are believed");
    }
}

#[test]
fn only_devices_are_counted_against_a_provider() {
    let mut it = health(json!({}));
    let invalid = failed(FailureClass::InvalidTarget);
    for _ in 0..100 {
        assert_eq!(
            it.learn(&invalid, false, HOLD, START),
            [],
            "a person who is not subscribed is nothing new"
        );
    }
    for _ in 0..19 {
        assert_eq!(it.learn(&invalid, true, HOLD, START), []);
    }
    assert_ne!(it.learn(&invalid, true, HOLD, START), []);
}

#[test]
fn what_may_be_our_own_fault_kills_only_next_to_proof_that_it_is_not() {
    let mut it = health(json!({}));
    let mut deadly = |outcome: &Outcome| is_deadly(&mut it, outcome, START);
    assert!(!deadly(&suspect()), "nothing is proven");
    assert!(!deadly(&accepted()));
    let seven: Vec<_> = (0..7).map(|_| deadly(&suspect())).collect();
    assert_eq!(seven, [true, true, true, true, true, false, false], "the proof is too long ago");
    assert!(deadly(&failed(FailureClass::InvalidTarget)), "a definite word, which proves as much");
    assert!(deadly(&suspect()));
}

#[test]
fn nothing_but_suspect_words_pause_a_provider_however_slowly_they_come() {
    let mut it = health(json!({}));
    for number in 0..19 {
        assert_eq!(it.meet(&suspect(), at(number * 3_600)), []);
    }
    let changes = it.meet(&suspect(), at(19 * 3_600));
    assert!(matches!(changes[..], [Change::Paused { .. }, Change::Disbelieved { .. }]), "{changes:?}");
    let mut usual = health(json!({}));
    for number in 0..200 {
        let outcome = if number % 10 == 0 { accepted() } else { suspect() };
        assert_eq!(usual.meet(&outcome, at(number * 3_600)), []);
    }
    let mut never = health(json!({"invalid_targets_max": 2.0}));
    assert!((0..99).all(|_| never.meet(&suspect(), START).is_empty()));
}

#[test]
fn a_call_is_ill_if_the_service_failed_and_answered_nothing_better() {
    let of = |class, status, scope| {
        let status = Some(status).filter(|it| *it > 0);
        Outcome::Failed(Failure { status, scope, ..Failure::new(class, "it") })
    };
    let retry = |status| of(FailureClass::Retry, status, RetryScope::Message);
    let refused = |status| of(FailureClass::Permanent, status, RetryScope::Message);
    for (outcomes, expected) in [
        (vec![], None),
        (vec![accepted()], Some(false)),
        (vec![retry(502); 12], Some(true)),
        (vec![retry(0)], Some(true)),
        (vec![failed(FailureClass::Unknown)], Some(true)),
        // A ticket of Expo's: the service behind it failed.
        (vec![retry(200)], Some(true)),
        (vec![retry(200), accepted()], Some(false)),
        (vec![retry(200), refused(200)], Some(false)),
        // Expo's PUSH_TOO_MANY_EXPERIENCE_IDS, APNs' ExpiredProviderToken.
        (vec![retry(400); 12], Some(false)),
        (vec![of(FailureClass::Retry, 429, RetryScope::Provider)], Some(false)),
        (vec![of(FailureClass::Retry, 503, RetryScope::Provider)], Some(true)),
        // What was not sent tells nothing.
        (vec![refused(0), retry(503)], Some(true)),
        (vec![refused(0)], None),
        (vec![failed(FailureClass::AuthConfig)], None),
    ] {
        assert_eq!(is_ill(&outcomes), expected, "{outcomes:?}");
    }
}

#[test]
fn whoever_hears_of_a_disbelieved_provider_takes_back_once_what_it_said() {
    let mut it = health(json!({}));
    let mut control = Control {
        number: 3,
        provider: "acme".into(),
        is_pause: true,
        cause: PauseCause::InvalidTargets,
        actor: "w-2".into(),
        reason: "it calls 20 of 20 targets invalid".into(),
        at: at(1_000),
        until: None,
    };
    assert_eq!(it.control(Some(&control)), Some(Change::Disbelieved { since: at(700) }));
    assert_eq!((it.control(Some(&control)), it.is_believed()), (None, false));
    (control.number, control.is_pause) = (4, false);
    assert_eq!((it.control(Some(&control)), it.is_believed()), (None, true));
}

#[test]
fn what_was_under_way_in_a_pause_does_not_pause_again_what_was_resumed() {
    let mut it = health(json!({}));
    let invalid = failed(FailureClass::InvalidTarget);
    for _ in 0..20 {
        it.meet(&invalid, START);
    }
    assert!(matches!(it.gate(at(1)), Gate::Shut(_)));
    for _ in 0..100 {
        assert_eq!(it.meet(&invalid, at(1)), [], "it was under way");
    }
    let word = |number, is_pause, cause| Control {
        number,
        provider: "acme".into(),
        is_pause,
        cause,
        actor: "olga".into(),
        reason: "mended".into(),
        at: at(2),
        until: None,
    };
    it.control(Some(&word(1, true, PauseCause::InvalidTargets)));
    it.control(Some(&word(2, false, PauseCause::Operator)));
    assert_eq!(it.gate(at(3)), Gate::Open);
    for _ in 0..3 {
        assert_eq!(it.meet(&accepted(), at(3)), []);
    }
    for _ in 0..19 {
        assert_eq!(it.meet(&invalid, at(4)), [], "counted from its return on");
    }
    assert!(!it.meet(&invalid, at(5)).is_empty());
}
