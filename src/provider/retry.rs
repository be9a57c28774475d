//! Whether and when a failed attempt is tried again.
//!
//! Pure: the moment and the throw of the dice come in, a [`Decision`] with the rule that made it comes
//! out and goes into the log. Jitter only ever adds, and never decides whether there is a next attempt.

use std::time::Duration;

use super::{Failure, RetryScope};
use crate::{
    clock::Timestamp,
    event::{Decision, FailureClass},
};

/// A refused push is due again so soon; its provider is paused by then.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// When a provider's failed attempts are repeated; one for each configured provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Waits after the first, second, … attempt; the last one repeats. Never empty.
    pub schedule: Vec<Duration>,
    /// The same where the provider says that it gets too much; none: as `schedule`. Never empty.
    pub throttled: Option<Vec<Duration>>,
    /// The same where the provider itself fails (5xx); none: as `schedule`. Never empty.
    pub unavailable: Option<Vec<Duration>>,
    /// The most that chance adds to a wait, as a part of it: 0.25 adds up to a quarter.
    pub jitter: f64,
    /// No attempt after this many. Failures of class auth/config do not end a delivery this way.
    pub max_attempts: u32,
    /// No attempt later than this after the delivery first fell due.
    pub max_age: Duration,
    /// A shorter `Retry-After` counts as this.
    pub retry_after_min: Duration,
    /// A longer `Retry-After` counts as this.
    pub retry_after_max: Duration,
    /// How long the provider is left alone after an auth/config failure, whose cure is an operator's work.
    pub auth_config_wait: Duration,
    /// What follows when nobody knows whether the provider took it.
    pub on_unknown: OnUnknown,
    /// How long it may try before the next provider of a delivery's route is to, where there is one.
    pub failover_after: Duration,
}

/// What a failure is to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// What kind of failure.
    pub class: FailureClass,
    /// The wait the provider asked for.
    pub retry_after: Option<Duration>,
    /// What it is about.
    pub trouble: Trouble,
}

/// What makes a provider fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// This push, or nobody knows.
    #[default]
    Other,
    /// It gets too much of us.
    Throttled,
    /// It is not well itself.
    Unavailable,
}

impl From<&Failure> for Cause {
    fn from(failure: &Failure) -> Self {
        let trouble = match (failure.scope, failure.status) {
            (RetryScope::Device | RetryScope::Provider, _) => Trouble::Throttled,
            (RetryScope::Message, Some(500..=599)) => Trouble::Unavailable,
            (RetryScope::Message, _) => Trouble::Other,
        };
        Self { class: failure.class, retry_after: failure.retry_after, trouble }
    }
}

/// What follows when nobody knows whether the provider took a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// Send again: told twice is better than not told.
    Retry,
    /// Leave it: not told is better than told twice.
    GiveUp,
}

/// Where a delivery stands when an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circumstances {
    /// The number of the attempt that ended, 1, 2, 3 …, of those that count: not refused, and made since the
    /// delivery was last rescheduled.
    pub attempt: u32,
    /// The present moment.
    pub now: Timestamp,
    /// When the delivery was first to be sent.
    pub first_due: Timestamp,
    /// Not to be sent after.
    pub expires_at: Option<Timestamp>,
    /// Chance, from 0 to 1.
    pub jitter: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            schedule: [10, 30, 60, 300, 900, 1800, 3600].map(Duration::from_secs).to_vec(),
            throttled: Some([60, 120, 300, 900, 1800, 3600].map(Duration::from_secs).to_vec()),
            unavailable: None,
            jitter: 0.25,
            max_attempts: 50,
            max_age: Duration::from_hours(24),
            retry_after_min: Duration::from_secs(10),
            retry_after_max: Duration::from_hours(1),
            auth_config_wait: Duration::from_mins(5),
            on_unknown: OnUnknown::Retry,
            failover_after: Duration::from_mins(10),
        }
    }
}

impl Circumstances {
    /// The last moment for an attempt.
    fn latest(&self, policy: &Policy) -> Timestamp {
        let too_old = self.first_due.plus(policy.max_age);
        self.expires_at.map_or(too_old, |it| it.min(too_old))
    }
}

/// What follows from a failure.
#[must_use]
pub fn decide(policy: &Policy, cause: Cause, at: &Circumstances) -> Decision {
    match cause.class {
        FailureClass::Permanent => give_up("permanent failure".into()),
        FailureClass::InvalidTarget => give_up("invalid target".into()),
        FailureClass::Unknown if policy.on_unknown == OnUnknown::GiveUp => {
            give_up("outcome unknown, on_unknown is give_up".into())
        }
        // What holds it is the pause of its provider; it is due when that ends, and does not end by waiting.
        FailureClass::AuthConfig if at.first_due.plus(policy.max_age) > at.now => {
            let due = at.now.plus(REFUSED_WAIT).plus(added(policy.jitter, at.jitter, REFUSED_WAIT));
            let rule = "when the provider is called again".to_owned();
            Decision::RetryAt { at: due.min(at.latest(policy)), policy: rule }
        }
        FailureClass::AuthConfig => give_up(format!("max_age {} is over", seconds(policy.max_age))),
        FailureClass::Retry | FailureClass::Unknown if at.attempt >= policy.max_attempts => {
            give_up(format!("max_attempts {} reached", policy.max_attempts))
        }
        FailureClass::Retry | FailureClass::Unknown => {
            let (wait, rule) = policy.wait(cause, at.attempt);
            let unknown = if cause.class == FailureClass::Unknown { "outcome unknown, " } else { "" };
            retry(policy, wait, format!("{unknown}{rule}"), at)
        }
    }
}

/// What follows when an attempt's lease ran out, so that nobody knows what came of it.
#[must_use]
pub fn after_lost(policy: &Policy, at: &Circumstances) -> Decision {
    let (class, retry_after, trouble) = (FailureClass::Unknown, None, Trouble::Other);
    decide(policy, Cause { class, retry_after, trouble }, at)
}

impl Policy {
    /// How long everything for a provider that gets too much has to wait.
    #[must_use]
    pub fn hold(&self, retry_after: Option<Duration>) -> Duration {
        self.wait(Cause { class: FailureClass::Retry, retry_after, trouble: Trouble::Throttled }, 1).0
    }

    fn wait(&self, cause: Cause, attempt: u32) -> (Duration, String) {
        if let Some(asked) = cause.retry_after {
            let wait = self.clamp(asked);
            let clamped =
                if wait == asked { String::new() } else { format!(", clamped to {}", seconds(wait)) };
            return (wait, format!("retry-after {}{clamped}", seconds(asked)));
        }
        let (schedule, name) = match (cause.trouble, &self.throttled, &self.unavailable) {
            (Trouble::Throttled, Some(schedule), _) => (schedule, "throttled schedule"),
            (Trouble::Unavailable, _, Some(schedule)) => (schedule, "unavailable schedule"),
            _ => (&self.schedule, "schedule"),
        };
        let last = schedule.len().saturating_sub(1);
        let step = usize::try_from(attempt.saturating_sub(1)).map_or(last, |it| it.min(last));
        let wait = schedule.get(step).copied().unwrap_or(Duration::ZERO);
        (wait, format!("{name} step {}: {}", step + 1, seconds(wait)))
    }

    fn clamp(&self, asked: Duration) -> Duration {
        asked.min(self.retry_after_max).max(self.retry_after_min)
    }
}

fn retry(policy: &Policy, wait: Duration, rule: String, at: &Circumstances) -> Decision {
    let next = at.now.plus(wait);
    if let Some(expiry) = at.expires_at.filter(|&it| next > it) {
        return give_up(format!("expires at {expiry}, before the next attempt ({rule})"));
    }
    let too_old = at.first_due.plus(policy.max_age);
    if next > too_old {
        return give_up(format!("max_age {} ends before the next attempt ({rule})", seconds(policy.max_age)));
    }
    Decision::RetryAt {
        at: next.plus(added(policy.jitter, at.jitter, wait)).min(at.latest(policy)),
        policy: rule,
    }
}

/// What chance adds to a wait; nothing where the numbers make no sense.
fn added(ratio: f64, chance: f64, wait: Duration) -> Duration {
    let share = ratio.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0);
    Duration::try_from_secs_f64(wait.as_secs_f64() * share).unwrap_or(Duration::ZERO)
}

const fn give_up(policy: String) -> Decision {
    Decision::GiveUp { policy }
}

fn seconds(wait: Duration) -> String {
    format!("{} s", wait.as_secs_f64())
}

#[cfg(test)]
mod tests;
