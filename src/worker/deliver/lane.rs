//! One provider's lane: how many deliveries to claim, where the search stands, whether it is paused.
//!
//! Does no IO. Claims run ahead of the calls by as much as a claim takes to become durable, so that
//! no place waits for a commit, and by little enough that no claimed delivery waits long for its call.

use std::{collections::VecDeque, time::Duration};

use crate::{
    clock::Timestamp,
    event::FailureClass,
    provider::{Configured, Outcome},
    store::Due,
};

/// How far ahead of the calls claims run: longer than a batch of claims takes to become durable.
const HORIZON: Duration = Duration::from_millis(100);

/// A walk through what is due, page by page, with the longest due first.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    after: Option<Due>,
    wanted: bool,
    again: bool,
    reading: bool,
}

impl Sweep {
    /// Begins anew, at once or after the page that is being read.
    pub(super) fn restart(&mut self) {
        if self.reading {
            self.again = true;
        } else {
            (self.after, self.wanted) = (None, true);
        }
    }

    /// Goes on behind what was seen last, where new deliveries mostly appear.
    pub(super) const fn resume(&mut self) {
        self.wanted = true;
    }

    /// Whether everything that was due has been seen.
    pub(super) const fn is_over(&self) -> bool {
        !self.wanted && !self.reading
    }

    /// Whether it is time to read a page; if so, [`Sweep::page`] has to follow.
    pub(super) const fn begin(&mut self) -> bool {
        let begins = self.wanted && !self.reading;
        self.reading |= begins;
        begins
    }

    /// Behind which delivery to read on.
    pub(super) fn after(&self) -> Option<Due> {
        self.after.clone()
    }

    /// A page was read: its last row, and whether there may be more. Nothing at all if it failed.
    pub(super) fn page(&mut self, page: Option<(Option<&Due>, bool)>) {
        self.reading = false;
        if let Some((last, more)) = page {
            if let Some(last) = last {
                self.after = Some(last.clone());
            }
            self.wanted = more;
        }
        if std::mem::take(&mut self.again) {
            self.restart();
        }
    }
}

/// Whether a provider is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    /// It refuses our credentials: to call it would only burn attempts.
    Paused {
        until: Timestamp,
    },
    /// One call at a time, to find out.
    Probing,
}

/// A change of health that somebody should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Paused(Duration),
    Recovered,
}

/// One provider, as far as this worker is concerned.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) configured: Configured,
    /// Looks for what waits for its first or next attempt.
    pub(super) scheduled: Sweep,
    /// Looks for attempts whose lease has run out.
    pub(super) expired: Sweep,
    /// Found due, not claimed yet.
    pub(super) candidates: VecDeque<Due>,
    calls_max: usize,
    ahead_max: usize,
    in_flight: usize,
    typical_call: Duration,
    health: Health,
}

impl Lane {
    /// A lane for at most `calls_max` calls at a time and `ahead_max` claims beyond them.
    pub(super) fn new(configured: Configured, calls_max: usize, ahead_max: usize) -> Self {
        Self {
            calls_max: configured.concurrency.clamp(1, calls_max.max(1)),
            ahead_max: ahead_max.max(1),
            configured,
            scheduled: Sweep::default(),
            expired: Sweep::default(),
            candidates: VecDeque::new(),
            in_flight: 0,
            typical_call: HORIZON,
            health: Health::Well,
        }
    }

    /// The provider's name.
    pub(super) fn name(&self) -> &str {
        self.configured.provider.name()
    }

    /// Deliveries to be claimed, waiting for a place or being called at the most.
    fn window(&self) -> usize {
        match self.health {
            Health::Paused { .. } => 0,
            Health::Probing => 1,
            Health::Well => {
                let typical = self.typical_call.as_micros().max(1);
                let ahead = self.calls_max as u128 * HORIZON.as_micros() / typical;
                let ahead = usize::try_from(ahead).unwrap_or(usize::MAX).clamp(1, self.ahead_max);
                self.calls_max + ahead
            }
        }
    }

    /// How many of the candidates to claim now; none until it is worth a transaction.
    pub(super) fn claimable(&self) -> usize {
        let window = self.window();
        let room = window.saturating_sub(self.in_flight).min(self.ahead_max);
        let worthwhile = self.candidates.len().min(window / 4).min(self.ahead_max).max(1);
        if room < worthwhile { 0 } else { room.min(self.candidates.len()) }
    }

    /// Whether more candidates are wanted.
    pub(super) fn is_hungry(&self) -> bool {
        self.candidates.len() < self.ahead_max && !matches!(self.health, Health::Paused { .. })
    }

    /// Deliveries were claimed, or arrived claimed.
    pub(super) const fn enter(&mut self, count: usize) {
        self.in_flight += count;
    }

    /// A claim was lost, or a call ended.
    pub(super) const fn leave(&mut self, count: usize) {
        self.in_flight = self.in_flight.saturating_sub(count);
    }

    /// A call took so long.
    pub(super) fn called(&mut self, took: Duration) {
        self.typical_call = (self.typical_call * 7 + took) / 8;
    }

    /// Learns from what a call came to.
    pub(super) fn learn(&mut self, outcome: &Outcome, now: Timestamp) -> Option<Change> {
        let refused =
            matches!(outcome, Outcome::Failed(failure) if failure.class == FailureClass::AuthConfig);
        match (refused, self.health) {
            (true, Health::Well | Health::Probing) => {
                let wait = self.configured.policy.auth_config_wait;
                self.health = Health::Paused { until: now.plus(wait) };
                self.candidates.clear();
                Some(Change::Paused(wait))
            }
            (false, Health::Probing) => {
                self.health = Health::Well;
                Some(Change::Recovered)
            }
            (true, Health::Paused { .. }) | (false, Health::Paused { .. } | Health::Well) => None,
        }
    }

    /// Ends a pause whose time is over.
    pub(super) fn wake_up(&mut self, now: Timestamp) {
        if let Health::Paused { until } = self.health
            && now >= until
        {
            self.health = Health::Probing;
            self.scheduled.restart();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        clock::SystemClock,
        id::{DeliveryId, MessageId, Shard},
        provider::{self, Failure},
    };

    const START: Timestamp = Timestamp::from_micros(1_000_000);

    fn lane(concurrency: usize) -> Lane {
        let settings = json!({ "concurrency": concurrency });
        let configured = provider::build("acme", "log", settings, Arc::new(SystemClock)).unwrap();
        Lane::new(configured, 64, 100)
    }

    fn due(id: &str) -> Due {
        let message_id = MessageId::new(id).unwrap();
        Due {
            delivery_id: DeliveryId::new(&message_id, ""),
            message_id,
            shard: Shard(0),
            target: None,
            attempts: 0,
            due_at: START,
            expires_at: None,
            planned_at: START,
            position: 1,
        }
    }

    fn with_candidates(mut lane: Lane, count: usize) -> Lane {
        lane.candidates.extend((0..count).map(|it| due(&it.to_string())));
        lane
    }

    fn failed(class: FailureClass) -> Outcome {
        Outcome::Failed(Failure::new(class, "401"))
    }

    #[test]
    fn claims_run_ahead_by_what_fits_into_the_time_of_a_commit() {
        let after = |call: Duration| {
            let mut lane = with_candidates(lane(10), 1_000);
            (0..100).for_each(|_| lane.called(call));
            lane.claimable()
        };
        assert_eq!(after(Duration::from_millis(1)), 100, "a batch at the most, with ten at a time");
        assert_eq!(after(Duration::from_millis(50)), 10 + 20);
        assert_eq!(after(Duration::from_secs(10)), 10 + 1, "a slow provider gets one ahead");
    }

    #[test]
    fn claims_wait_until_they_are_worth_a_transaction() {
        let mut lane = with_candidates(lane(10), 1_000);
        lane.enter(20);
        assert_eq!(lane.claimable(), 0, "full");
        lane.leave(4);
        assert_eq!(lane.claimable(), 0);
        lane.leave(1);
        assert_eq!(lane.claimable(), 5);
        lane.candidates.truncate(1);
        lane.enter(4);
        assert_eq!(lane.claimable(), 1, "the last ones do not wait for others");
    }

    #[test]
    fn no_provider_gets_more_places_than_there_are() {
        assert_eq!(with_candidates(lane(5_000), 1_000).claimable(), 100);
        assert_eq!(lane(5_000).window(), 64 + 64);
    }

    #[test]
    fn refused_credentials_pause_the_provider_and_one_call_finds_out() {
        let mut lane = with_candidates(lane(10), 50);
        assert_eq!(lane.learn(&failed(FailureClass::Retry), START), None);
        let wait = Duration::from_mins(5);
        assert_eq!(lane.learn(&failed(FailureClass::AuthConfig), START), Some(Change::Paused(wait)));
        assert_eq!(lane.learn(&failed(FailureClass::AuthConfig), START), None, "told once");
        assert_eq!((lane.claimable(), lane.is_hungry()), (0, false));

        lane.wake_up(START.plus(wait));
        let mut lane = with_candidates(lane, 50);
        assert_eq!(lane.claimable(), 1);
        assert_eq!(lane.learn(&failed(FailureClass::Permanent), START), Some(Change::Recovered));
        assert_eq!(lane.claimable(), 20);
    }

    #[test]
    fn a_sweep_reads_on_until_a_page_is_short() {
        let mut sweep = Sweep::default();
        let next =
            |sweep: &mut Sweep| sweep.begin().then(|| sweep.after().map(|it| it.message_id.to_string()));
        let from_the_start = Some(None);
        let from = |id: &str| Some(Some(id.to_owned()));
        assert_eq!((next(&mut sweep), sweep.is_over()), (None, true));
        sweep.restart();
        assert_eq!(next(&mut sweep), from_the_start);
        assert_eq!(next(&mut sweep), None, "one page at a time");
        sweep.page(Some((Some(&due("a")), true)));
        assert_eq!(next(&mut sweep), from("a"));
        sweep.restart();
        sweep.page(Some((Some(&due("b")), true)));
        assert_eq!(next(&mut sweep), from_the_start, "asked for while a page was read");
        sweep.page(None);
        assert_eq!(next(&mut sweep), from_the_start, "a page that failed is read again");
        sweep.page(Some((Some(&due("c")), false)));
        assert!(sweep.is_over());
        sweep.resume();
        assert_eq!(next(&mut sweep), from("c"));
        sweep.page(Some((None, false)));
        sweep.resume();
        assert_eq!(next(&mut sweep), from("c"), "an empty page moves nothing");
    }
}
