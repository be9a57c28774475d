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
/// So many answers that may be our own fault are believed after one that shows that nothing is wrong with us.
const SUSPECTS_MAX: u32 = 5;

/// Whether calls may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// None: it is not known yet whether it is paused.
    Unknown,
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
    /// Whether the pauses in the database were read at all.
    has_heard: bool,
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
    /// Whether any answer has shown that configuration and targets belong together.
    is_proven: bool,
    /// Answers since the last such one that may mean that they do not.
    suspects: u32,
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
            has_heard: false,
            pause: None,
            heard: 0,
            has_decided: false,
            held_until: None,
            breaker: Breaker::Closed,
            calls: Window::new(breaking.window),
            invalid: Window::new(GUARD_WINDOW),
            is_proven: false,
            suspects: 0,
        }
    }

    /// Whether calls may begin now.
    pub(super) fn gate(&self, now: Timestamp) -> Gate {
        let ends = |until: Option<Timestamp>| until.is_some_and(|it| it <= now);
        let pause = self.pause.filter(|it| !ends(it.until));
        match (pause, self.held_until, self.breaker) {
            _ if !self.has_heard => Gate::Unknown,
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

    /// Whether a device dies of this, which was learnt before. What may be our own fault is believed only of
    /// a provider that has just shown that it is not.
    pub(super) fn buries(&self, failure: &Failure) -> bool {
        failure.class == FailureClass::InvalidTarget
            && self.is_believed()
            && (!failure.is_suspect || self.is_proven && self.suspects <= SUSPECTS_MAX)
    }

    /// Its state in one word, for metrics.
    pub(super) fn state(&self, now: Timestamp) -> &'static str {
        match self.gate(now) {
            Gate::Open => "open",
            Gate::Probe => "probing",
            Gate::Held { .. } | Gate::Unknown => "held",
            Gate::Shut(Why::Broken) => "broken",
            Gate::Shut(Why::Paused(_)) => "paused",
        }
    }

    /// What holds for all processes by now.
    pub(super) fn control(&mut self, control: Option<&Control>) -> Option<Change> {
        self.has_heard = true;
        let number = control.map_or(0, |it| it.number);
        let is_news = number > self.heard;
        if self.has_decided && !is_news {
            return None;
        }
        (self.heard, self.has_decided) = (number, false);
        let pause = control.filter(|it| it.is_pause);
        if is_news {
            // What was counted before somebody looked at it says nothing of what comes after.
            self.forget_targets();
        }
        self.pause = pause.map(|it| Pause { cause: it.cause, until: it.until });
        // Whoever paused it may not have come to this, and others may have buried on until they heard of it.
        let is_doubted = |it: &&Control| it.cause == PauseCause::InvalidTargets;
        let pause = pause.filter(is_doubted).filter(|_| is_news)?;
        Some(Change::Disbelieved { since: pause.at.minus(GUARD_WINDOW) })
    }

    /// Learns from what one push came to, or its receipt.
    pub(super) fn learn(
        &mut self,
        outcome: &Outcome,
        to_device: bool,
        hold: Duration,
        now: Timestamp,
    ) -> Vec<Change> {
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
            if failure.is_some_and(is_illness) {
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
        changes.extend(self.doubt(outcome, to_device, now));
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

    /// Counts a whole call, for however many pushes it was.
    pub(super) fn count_call(&mut self, is_ill: bool, now: Timestamp) -> Option<Change> {
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

    fn forget_targets(&mut self) {
        self.invalid = Window::new(GUARD_WINDOW);
        (self.is_proven, self.suspects) = (false, 0);
    }

    /// Too many devices at once do not die, nor every one of them: more likely it is the wrong app or
    /// environment. Anything but a device may be unknown to it as often as it likes.
    fn doubt(&mut self, outcome: &Outcome, to_device: bool, now: Timestamp) -> Vec<Change> {
        let invalid = match outcome {
            Outcome::Failed(it) if it.class == FailureClass::InvalidTarget => Some(it.is_suspect),
            _ => None,
        };
        match (outcome, invalid) {
            (Outcome::Accepted { .. }, _) | (_, Some(false)) => (self.is_proven, self.suspects) = (true, 0),
            (_, Some(true)) if to_device => self.suspects += 1,
            _ => {}
        }
        let is_paused = self.pause.is_some_and(|it| it.cause == PauseCause::InvalidTargets);
        let tells =
            invalid.is_some() || matches!(outcome, Outcome::Accepted { .. } | Outcome::Pending { .. });
        // What was under way when it was paused says the same again.
        if !to_device || !tells || is_paused {
            return Vec::new();
        }
        self.invalid.count(invalid.is_some(), now);
        let (all, invalid) = match self.invalid.counts(now) {
            (_, lately) if lately < GUARD_MIN => (self.suspects, self.suspects),
            lately => lately,
        };
        if invalid < GUARD_MIN || !exceeds(invalid, all, self.invalid_share, false) || self.pause.is_some() {
            return Vec::new();
        }
        self.forget_targets();
        let cause = PauseCause::InvalidTargets;
        (self.pause, self.has_decided) = (Some(Pause { cause, until: None }), true);
        let reason = format!("it calls {invalid} of {all} targets invalid");
        let since = now.minus(GUARD_WINDOW);
        vec![Change::Paused { cause, until: None, reason }, Change::Disbelieved { since }]
    }
}

/// Whether a call with these outcomes says that the provider itself is not well: it failed for some, and for
/// none it did better. Nothing where they tell nothing of that.
pub(super) fn is_ill<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Option<bool> {
    let one = |outcome: &Outcome| match outcome {
        Outcome::Failed(failure) if is_illness(failure) => Some(true),
        Outcome::Failed(failure) if failure.class == FailureClass::AuthConfig => None,
        // Whatever has no status was not asked of the provider.
        Outcome::Failed(failure) => Some(false).filter(|_| failure.status.is_some()),
        Outcome::Accepted { .. } | Outcome::Pending { .. } => Some(false),
    };
    outcomes.into_iter().filter_map(one).reduce(|one, other| one && other)
}

/// Whether a failure says so. What is refused in so many words (4xx) was our doing.
fn is_illness(failure: &Failure) -> bool {
    match failure.class {
        FailureClass::Unknown => true,
        FailureClass::Retry => match failure.status {
            Some(400..500) => false,
            Some(500..) => true,
            Some(_) | None => failure.scope == RetryScope::Message,
        },
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
mod tests;
