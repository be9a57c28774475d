//! Whether a provider is called at present: pauses, throttling, its breaker, and whether it is believed.
//!
//! Pure: the moment comes in, what has to happen comes out as [`Change`]s. Everything here is an opinion of
//! this process, but for pauses, which all processes share through the database.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    event::FailureClass,
    provider::{Breaking, Configured, Failure, Outcome, RetryScope},
    store::{Control, PauseCause},
};

/// Parts into which the time is cut over which calls are counted.
const PARTS: u8 = 10;
/// A breaker stays open for at most so many times its first time.
const OPEN_MAX: u32 = 16;
/// Over how long invalid targets are counted.
const GUARD_WINDOW: Duration = Duration::from_mins(5);
/// So many invalid targets are believed whatever their share.
const GUARD_MIN: u32 = 20;

/// Whether calls may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// As many as there is room for.
    Open,
    /// One, to find out.
    Probe,
    /// None until then: it gets too much.
    Held { until: Timestamp },
    /// None for longer; whoever has another provider goes there.
    Shut(Why),
}

/// What a provider is not called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Paused(PauseCause),
    Broken,
}

/// What has to happen because of how calls ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is paused for all processes.
    Paused { cause: PauseCause, until: Option<Timestamp>, reason: String },
    /// A pause for refused credentials is over for all processes: a call went well.
    Resumed,
    /// It fails too often; left alone for so long.
    Broke(Duration),
    /// A call went well again.
    Mended,
    /// It gets too much; left alone for so long.
    Held(Duration),
    /// What it said of devices since then is not believed.
    Disbelieved { since: Timestamp },
}

/// One provider's health as this process sees it.
#[derive(Debug)]
pub(super) struct Health {
    breaking: Breaking,
    invalid_share: f64,
    auth_config_wait: Duration,
    pause: Option<Pause>,
    /// The last pause or resumption in the database that was heard of.
    heard: i64,
    /// Whether this process has decided for itself since; then only something newer is heard. Numbers and no
    /// times: clocks differ between machines.
    has_decided: bool,
    held_until: Option<Timestamp>,
    breaker: Breaker,
    calls: Window,
    invalid: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause {
    cause: PauseCause,
    until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Closed,
    /// The so-manieth time in a row.
    Open {
        until: Timestamp,
        times: u32,
    },
}

impl Health {
    pub(super) fn new(configured: &Configured) -> Self {
        let breaking = configured.limits.breaker;
        Self {
            breaking,
            invalid_share: configured.limits.invalid_share,
            auth_config_wait: configured.policy.auth_config_wait,
            pause: None,
            heard: 0,
            has_decided: false,
            held_until: None,
            breaker: Breaker::Closed,
            calls: Window::new(breaking.window),
            invalid: Window::new(GUARD_WINDOW),
        }
    }

    /// Whether calls may begin now.
    pub(super) fn gate(&self, now: Timestamp) -> Gate {
        let ends = |until: Option<Timestamp>| until.is_some_and(|it| it <= now);
        let pause = self.pause.filter(|it| !ends(it.until));
        match (pause, self.held_until, self.breaker) {
            (Some(pause), ..) => Gate::Shut(Why::Paused(pause.cause)),
            (None, _, Breaker::Open { until, .. }) if now < until => Gate::Shut(Why::Broken),
            (None, Some(until), _) if now < until => Gate::Held { until },
            (None, _, Breaker::Open { .. }) => Gate::Probe,
            (None, _, Breaker::Closed) if self.pause.is_some() => Gate::Probe,
            (None, _, Breaker::Closed) => Gate::Open,
        }
    }

    /// Whether its word on a device counts.
    pub(super) fn is_believed(&self) -> bool {
        self.pause.is_none_or(|it| it.cause != PauseCause::InvalidTargets)
    }

    /// Its state in one word, for metrics.
    pub(super) fn state(&self, now: Timestamp) -> &'static str {
        match self.gate(now) {
            Gate::Open => "open",
            Gate::Probe => "probing",
            Gate::Held { .. } => "held",
            Gate::Shut(Why::Broken) => "broken",
            Gate::Shut(Why::Paused(_)) => "paused",
        }
    }

    /// What holds for all processes by now.
    pub(super) fn control(&mut self, control: Option<&Control>) {
        let number = control.map_or(0, |it| it.number);
        if self.has_decided && number <= self.heard {
            return;
        }
        (self.heard, self.has_decided) = (number, false);
        let pause = control.filter(|it| it.is_pause);
        self.pause = pause.map(|it| Pause { cause: it.cause, until: it.until });
    }

    /// Learns from what a call came to.
    pub(super) fn learn(&mut self, outcome: &Outcome, hold: Duration, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        let failure = match outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Accepted { .. } | Outcome::Pending { .. } => None,
        };
        if failure.is_some_and(|it| it.class == FailureClass::AuthConfig) {
            changes.extend(self.refuse(now));
            return changes;
        }
        let is_over = |it: &&mut Pause| {
            it.cause == PauseCause::AuthConfig && it.until.is_some_and(|until| until <= now)
        };
        if let Some(pause) = self.pause.as_mut().filter(is_over) {
            if failure.is_some_and(is_ill) {
                // It did not come to our credentials at all; another call finds out later.
                pause.until = Some(now.plus(self.auth_config_wait));
            } else {
                (self.pause, self.has_decided) = (None, true);
                changes.push(Change::Resumed);
            }
        }
        if failure.is_some_and(|it| it.scope == RetryScope::Provider) {
            let until = now.plus(hold);
            if self.held_until.is_none_or(|it| it < until) {
                let is_news = self.held_until.is_none_or(|it| it <= now);
                self.held_until = Some(until);
                changes.extend(is_news.then_some(Change::Held(hold)));
            }
        }
        changes.extend(self.break_or_mend(failure.is_some_and(is_ill), now));
        let invalid = failure.is_some_and(|it| it.class == FailureClass::InvalidTarget);
        changes.extend(self.doubt(invalid, now));
        changes
    }

    /// It refuses our credentials or configuration: to call on would only burn attempts.
    fn refuse(&mut self, now: Timestamp) -> Option<Change> {
        // The calls that were under way say the same again.
        if self.pause.is_some_and(|it| it.until.is_none_or(|until| now < until)) {
            return None;
        }
        let (cause, until) = (PauseCause::AuthConfig, Some(now.plus(self.auth_config_wait)));
        (self.pause, self.has_decided) = (Some(Pause { cause, until }), true);
        Some(Change::Paused {
            cause,
            until,
            reason: "it refuses our credentials or configuration".to_owned(),
        })
    }

    fn break_or_mend(&mut self, is_ill: bool, now: Timestamp) -> Option<Change> {
        match self.breaker {
            Breaker::Open { until, .. } if now < until => None,
            Breaker::Open { times, .. } if is_ill => Some(self.open(times + 1, now)),
            Breaker::Open { .. } => {
                self.breaker = Breaker::Closed;
                self.calls = Window::new(self.breaking.window);
                Some(Change::Mended)
            }
            Breaker::Closed => {
                self.calls.count(is_ill, now);
                let (all, ill) = self.calls.counts(now);
                let breaks = all >= self.breaking.calls_min && exceeds(ill, all, self.breaking.share, true);
                breaks.then(|| self.open(1, now))
            }
        }
    }

    fn open(&mut self, times: u32, now: Timestamp) -> Change {
        let wait = self.breaking.open * 2_u32.saturating_pow(times - 1).min(OPEN_MAX);
        self.breaker = Breaker::Open { until: now.plus(wait), times };
        Change::Broke(wait)
    }

    /// Too many targets at once do not die: more likely it is the wrong app or environment.
    fn doubt(&mut self, invalid: bool, now: Timestamp) -> Vec<Change> {
        self.invalid.count(invalid, now);
        let (all, invalid) = self.invalid.counts(now);
        if invalid < GUARD_MIN || !exceeds(invalid, all, self.invalid_share, false) || self.pause.is_some() {
            return Vec::new();
        }
        self.invalid = Window::new(GUARD_WINDOW);
        let cause = PauseCause::InvalidTargets;
        (self.pause, self.has_decided) = (Some(Pause { cause, until: None }), true);
        let reason = format!("it calls {invalid} of {all} targets invalid");
        let since = now.minus(GUARD_WINDOW);
        vec![Change::Paused { cause, until: None, reason }, Change::Disbelieved { since }]
    }
}

/// Whether a failure says that the provider itself is not well.
fn is_ill(failure: &Failure) -> bool {
    match failure.class {
        FailureClass::Unknown => true,
        FailureClass::Retry => {
            failure.scope == RetryScope::Message || failure.status.is_some_and(|it| it >= 500)
        }
        FailureClass::InvalidTarget | FailureClass::Permanent | FailureClass::AuthConfig => false,
    }
}

fn exceeds(part: u32, all: u32, share: f64, or_equals: bool) -> bool {
    let (part, bound) = (f64::from(part), f64::from(all) * share);
    part > bound || or_equals && part >= bound
}

/// Calls of the last while: how many there were and how many of them were of a sort.
#[derive(Debug)]
struct Window {
    part: Duration,
    parts: [(i64, u32, u32); PARTS as usize],
}

impl Window {
    fn new(length: Duration) -> Self {
        let part = (length / u32::from(PARTS)).max(Duration::from_millis(1));
        Self { part, parts: [(i64::MIN, 0, 0); PARTS as usize] }
    }

    /// The number of the part of time that `now` is in.
    fn number(&self, now: Timestamp) -> i64 {
        now.as_micros() / i64::try_from(self.part.as_micros()).unwrap_or(i64::MAX)
    }

    fn count(&mut self, of_the_sort: bool, now: Timestamp) {
        let number = self.number(now);
        let at = usize::try_from(number.rem_euclid(PARTS.into())).unwrap_or(0);
        if let Some(part) = self.parts.get_mut(at) {
            if part.0 != number {
                *part = (number, 0, 0);
            }
            part.1 += 1;
            part.2 += u32::from(of_the_sort);
        }
    }

    /// All calls, and those of the sort.
    fn counts(&self, now: Timestamp) -> (u32, u32) {
        let oldest = self.number(now) - i64::from(PARTS);
        let parts = self.parts.iter().filter(|(number, ..)| *number > oldest);
        parts.fold((0, 0), |(all, of_the_sort), part| (all + part.1, of_the_sort + part.2))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{clock::SystemClock, provider};

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
    const HOLD: Duration = Duration::from_mins(1);

    fn health(settings: serde_json::Value) -> Health {
        Health::new(&provider::build("acme", "log", settings, Arc::new(SystemClock)).unwrap())
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { provider_message_id: None, status: Some(200) }
    }

    fn failed(class: FailureClass) -> Outcome {
        Outcome::Failed(Failure::new(class, "it"))
    }

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn refused_credentials_pause_until_one_call_goes_well() {
        let mut it = health(json!({}));
        let refused = failed(FailureClass::AuthConfig);
        let [Change::Paused { cause, until, .. }] = &it.learn(&refused, HOLD, START)[..] else { panic!() };
        assert_eq!((*cause, *until), (PauseCause::AuthConfig, Some(at(300))));
        assert_eq!(it.learn(&refused, HOLD, at(1)), [], "told once");
        assert_eq!(it.learn(&accepted(), HOLD, at(1)), [], "a call from before");
        assert_eq!(it.gate(at(299)), Gate::Shut(Why::Paused(PauseCause::AuthConfig)));
        assert_eq!(it.gate(at(300)), Gate::Probe);
        assert!(matches!(it.learn(&refused, HOLD, at(301))[..], [Change::Paused { .. }]));
        assert_eq!(it.gate(at(600)), Gate::Shut(Why::Paused(PauseCause::AuthConfig)));
        assert_eq!(it.learn(&failed(FailureClass::Permanent), HOLD, at(602)), [Change::Resumed]);
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
        assert_eq!(it.learn(&accepted(), HOLD, at(2)), []);
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
        it.learn(&failed(FailureClass::AuthConfig), HOLD, START);
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
        it.learn(&failed(FailureClass::AuthConfig), HOLD, START);
        assert_eq!(it.gate(at(300)), Gate::Probe);
        assert_eq!(it.learn(&failed(FailureClass::Unknown), HOLD, at(300)), []);
        assert_eq!(it.gate(at(301)), Gate::Shut(Why::Paused(PauseCause::AuthConfig)));
        assert_eq!(it.learn(&accepted(), HOLD, at(600)), [Change::Resumed]);
    }

    #[test]
    fn a_provider_that_gets_too_much_is_left_alone_for_a_while() {
        let mut it = health(json!({}));
        let throttled = Outcome::Failed(Failure {
            scope: RetryScope::Provider,
            ..Failure::new(FailureClass::Retry, "429")
        });
        assert_eq!(it.learn(&throttled, HOLD, START), [Change::Held(HOLD)]);
        assert_eq!(it.learn(&throttled, HOLD, at(1)), [], "told once, and longer");
        assert_eq!((it.gate(at(60)), it.gate(at(61))), (Gate::Held { until: at(61) }, Gate::Open));
        for _ in 0..50 {
            it.learn(&throttled, HOLD, at(2));
        }
        assert_eq!(it.gate(at(62)), Gate::Open, "to get too much is no illness");
    }

    #[test]
    fn the_breaker_opens_at_seven_of_ten_and_one_call_closes_it() {
        let mut it = health(json!({}));
        let ill = failed(FailureClass::Unknown);
        for _ in 0..3 {
            assert_eq!(it.learn(&accepted(), HOLD, START), []);
        }
        for _ in 0..6 {
            assert_eq!(it.learn(&ill, HOLD, at(10)), []);
        }
        let wait = Duration::from_secs(30);
        assert_eq!(it.learn(&ill, HOLD, at(20)), [Change::Broke(wait)]);
        assert_eq!(it.learn(&ill, HOLD, at(21)), [], "a call from before");
        assert_eq!((it.gate(at(49)), it.gate(at(50))), (Gate::Shut(Why::Broken), Gate::Probe));
        assert_eq!(it.learn(&ill, HOLD, at(51)), [Change::Broke(wait * 2)]);
        assert_eq!(it.gate(at(110)), Gate::Shut(Why::Broken));
        assert_eq!(it.learn(&failed(FailureClass::InvalidTarget), HOLD, at(112)), [Change::Mended]);
        assert_eq!(it.gate(at(112)), Gate::Open);
        assert_eq!(it.learn(&ill, HOLD, at(113)), [], "counted anew");
    }

    #[test]
    fn failures_are_counted_over_the_last_minutes_only() {
        let mut it = health(json!({}));
        let ill = failed(FailureClass::Retry);
        for _ in 0..9 {
            assert_eq!(it.learn(&ill, HOLD, START), []);
        }
        assert_eq!(it.learn(&ill, HOLD, at(400)), []);
        let mut never = health(json!({"breaker": {"share": 2.0}}));
        assert!((0..99).all(|_| never.learn(&ill, HOLD, START).is_empty()));
    }

    #[test]
    fn a_provider_that_calls_most_targets_invalid_is_not_believed() {
        let mut it = health(json!({}));
        let invalid = failed(FailureClass::InvalidTarget);
        for _ in 0..19 {
            assert_eq!(it.learn(&invalid, HOLD, START), []);
        }
        let changes = it.learn(&invalid, HOLD, at(1));
        assert!(matches!(changes[..], [Change::Paused { .. }, Change::Disbelieved { .. }]), "{changes:?}");
        assert_eq!(it.gate(at(99_999)), Gate::Shut(Why::Paused(PauseCause::InvalidTargets)));
        let mut usual = health(json!({}));
        for _ in 0..100 {
            usual.learn(&accepted(), HOLD, START);
            assert_eq!(usual.learn(&invalid, HOLD, START), [], "half of them are believed");
        }
    }
}
