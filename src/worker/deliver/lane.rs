//! One provider's lane: how many deliveries to claim, where the search stands, whether it is paused.
//!
//! Does no IO. Claims run ahead of the calls by as much as a claim takes to become durable, so that
//! no place waits for a commit, and by little enough that no claimed delivery waits long for its call.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::health::{Gate, Health};
use crate::{
    clock::Timestamp,
    ledger::dispatch::Started,
    message::Target,
    provider::{Batch, Configured},
    store::Due,
};

/// How far ahead of the calls claims run: longer than a batch of claims takes to become durable.
const HORIZON: Duration = Duration::from_millis(100);
/// Targets that are held at the most; more are not remembered, and called.
const HELD_TARGETS_MAX: usize = 10_000;

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

/// Deliveries of one sort that are due: where the search stands, and what it found.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Looks for more.
    pub(super) sweep: Sweep,
    /// Found due, not claimed yet.
    pub(super) candidates: VecDeque<Due>,
}

/// What a claimed delivery has behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    /// From when on its age counts.
    pub(super) first_due: Timestamp,
    /// Attempts that do not count for its policy.
    pub(super) uncounted: u32,
}

/// One provider, as far as this worker is concerned.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) configured: Configured,
    pub(super) health: Health,
    /// What waits for its first attempt.
    pub(super) first: Queue,
    /// What waits for a further one.
    pub(super) again: Queue,
    /// Looks for attempts whose lease has run out.
    pub(super) expired: Sweep,
    /// Looks for pushes that are pending and may be asked about.
    pub(super) pending: Sweep,
    /// Looks for what another provider can take while this one is shut.
    pub(super) stranded: Sweep,
    /// Claimed, not called yet.
    pub(super) ready: Vec<(Started, Past)>,
    /// No push to these targets before a time: their device gets too much.
    held_targets: HashMap<Target, Timestamp>,
    /// Pushes in one call at the most.
    batch_max: usize,
    /// No question for receipts before; the last one was not answered.
    ask_from: Timestamp,
    calls_max: usize,
    ahead_max: usize,
    in_flight: usize,
    typical_call: Duration,
    /// Whether calls may begin, at the last look.
    gate: Gate,
}

impl Lane {
    /// Whether what waits for it had better go elsewhere.
    pub(super) fn is_shut(&self, gate: Gate, now: Timestamp) -> bool {
        match gate {
            Gate::Shut(_) => true,
            // It would wait for longer than this provider may take.
            Gate::Held { until } => until > now.plus(self.configured.policy.failover_after),
            Gate::Unknown | Gate::Open | Gate::Probe => false,
        }
    }

    /// A lane for at most `calls_max` calls at a time and `ahead_max` claims beyond them.
    pub(super) fn new(configured: Configured, calls_max: usize, ahead_max: usize) -> Self {
        Self {
            calls_max: configured.concurrency.clamp(1, calls_max.max(1)),
            ahead_max: ahead_max.max(1),
            batch_max: configured.provider.batch().map_or(1, Batch::size_max).max(1),
            health: Health::new(&configured),
            configured,
            first: Queue::default(),
            again: Queue::default(),
            expired: Sweep::default(),
            pending: Sweep::default(),
            stranded: Sweep::default(),
            ready: Vec::new(),
            held_targets: HashMap::new(),
            ask_from: Timestamp::from_micros(0),
            in_flight: 0,
            typical_call: HORIZON,
            gate: Gate::Unknown,
        }
    }

    /// The provider's name.
    pub(super) fn name(&self) -> &str {
        self.configured.provider.name()
    }

    /// Looks whether calls may begin now; what was found before is looked up anew when they may again.
    pub(super) fn look_at_health(&mut self, now: Timestamp) -> Gate {
        let gate = self.health.gate(now);
        let may = |gate: Gate| matches!(gate, Gate::Open | Gate::Probe);
        if may(gate) && !may(self.gate) {
            self.first.sweep.restart();
            self.again.sweep.restart();
        }
        if !may(gate) {
            self.first.candidates.clear();
            self.again.candidates.clear();
        }
        self.gate = gate;
        gate
    }

    /// Deliveries to be claimed, waiting for a place or being called at the most.
    fn window(&self) -> usize {
        match self.gate {
            Gate::Unknown | Gate::Held { .. } | Gate::Shut(_) => 0,
            Gate::Probe => 1,
            Gate::Open => {
                let typical = self.typical_call.as_micros().max(1);
                let calls = self.calls_max.saturating_mul(self.batch_max);
                let ahead = calls as u128 * HORIZON.as_micros() / typical;
                let ahead = usize::try_from(ahead).unwrap_or(usize::MAX).clamp(1, self.ahead_max);
                calls + ahead
            }
        }
    }

    /// How many of the candidates to claim now; none until it is worth a transaction.
    pub(super) fn claimable(&self) -> usize {
        let window = self.window();
        let candidates = self.first.candidates.len() + self.again.candidates.len();
        let room = window.saturating_sub(self.in_flight).min(self.ahead_max);
        let worthwhile = candidates.min(window / 4).min(self.ahead_max).max(1);
        if room < worthwhile { 0 } else { room.min(candidates) }
    }

    /// The candidate to claim after `taken` others of this claim: of four, three are first attempts, so
    /// that these never starve behind old retries, nor those behind them.
    pub(super) fn next_candidate(&mut self, taken: usize) -> Option<Due> {
        let (one, other) = if taken % 4 == 3 {
            (&mut self.again, &mut self.first)
        } else {
            (&mut self.first, &mut self.again)
        };
        one.candidates.pop_front().or_else(|| other.candidates.pop_front())
    }

    /// Whether more candidates of these are wanted.
    pub(super) fn is_hungry(&self, queue: &Queue) -> bool {
        queue.candidates.len() < self.ahead_max && matches!(self.gate, Gate::Open | Gate::Probe)
    }

    /// No push to this target for a while.
    pub(super) fn hold_target(&mut self, target: Target, until: Timestamp, now: Timestamp) {
        if self.held_targets.len() >= HELD_TARGETS_MAX {
            self.held_targets.retain(|_, until| *until > now);
        }
        if self.held_targets.len() < HELD_TARGETS_MAX {
            self.held_targets.insert(target, until);
        }
    }

    /// Whether a push to this target has to wait.
    pub(super) fn holds(&self, target: &Target, now: Timestamp) -> bool {
        self.held_targets.get(target).is_some_and(|until| now < *until)
    }

    /// Whether the provider gives receipts and may be asked for them now.
    pub(super) fn may_ask(&self, now: Timestamp) -> bool {
        self.configured.provider.receipts().is_some() && now >= self.ask_from
    }

    /// The provider did not answer a question for receipts; it is left alone for a while.
    pub(super) fn ask_later(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        self.ask_from = now.plus(self.configured.policy.hold(retry_after));
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        clock::SystemClock,
        id::{DeliveryId, MessageId, Shard},
        provider,
    };

    const START: Timestamp = Timestamp::from_micros(1_000_000);

    fn lane(concurrency: usize) -> Lane {
        let settings = json!({ "concurrency": concurrency });
        let configured = provider::build("acme", "log", settings, Arc::new(SystemClock)).unwrap();
        let mut lane = Lane::new(configured, 64, 100);
        assert_eq!(lane.window(), 0, "nothing is known of it");
        lane.health.control(None);
        lane.look_at_health(START);
        lane
    }

    fn due(id: &str) -> Due {
        let message_id = MessageId::new(id).unwrap();
        Due {
            delivery_id: DeliveryId::new(&message_id, ""),
            message_id,
            shard: Shard(0),
            target: None,
            attempts: 0,
            uncounted: 0,
            due_at: START,
            expires_at: None,
            first_due_at: START,
            has_next: false,
            collapse_key: None,
            device_id: None,
            recipient_id: String::new(),
            ticket: None,
            pending_since: None,
            received: 1,
            position: 1,
        }
    }

    fn with_candidates(mut lane: Lane, count: usize) -> Lane {
        lane.first.candidates.extend((0..count).map(|it| due(&it.to_string())));
        lane
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
        lane.first.candidates.truncate(1);
        lane.enter(4);
        assert_eq!(lane.claimable(), 1, "the last ones do not wait for others");
    }

    #[test]
    fn no_provider_gets_more_places_than_there_are() {
        assert_eq!(with_candidates(lane(5_000), 1_000).claimable(), 100);
        assert_eq!(lane(5_000).window(), 64 + 64);
    }

    #[test]
    fn first_attempts_and_retries_leave_each_other_room() {
        let mut lane = lane(10);
        let take = |lane: &mut Lane, count| {
            (0..count).filter_map(|at| lane.next_candidate(at)).map(|it| it.attempts).collect::<Vec<_>>()
        };
        lane.first.candidates.extend((0..5).map(|it| due(&it.to_string())));
        lane.again.candidates.extend((0..9).map(|it| Due { attempts: 1, ..due(&it.to_string()) }));
        assert_eq!(take(&mut lane, 8), [0, 0, 0, 1, 0, 0, 1, 1], "three of four, and what is left");
        assert_eq!(take(&mut lane, 8), [1, 1, 1, 1, 1, 1]);
        assert_eq!(lane.next_candidate(0), None);
    }

    #[test]
    fn a_device_that_gets_too_much_is_left_alone() {
        let mut lane = lane(10);
        let target = || Target::Token("t".into());
        let until = START.plus(Duration::from_mins(1));
        lane.hold_target(target(), until, START);
        assert!(lane.holds(&target(), START) && !lane.holds(&target(), until));
        assert!(!lane.holds(&Target::Token("other".into()), START));
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
