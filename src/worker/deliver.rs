//! Calls providers: claims due deliveries in the log, makes the calls, records what came of them.
//!
//! Deliveries come in two ways: attempts that were started in the transaction that appended their
//! message, and what the deliveries projection shows as due. The projection is a hint only: the log
//! decides who may call, so any number of workers share the work. Everything slow is a task of its own
//! ([`job`]); this loop starts them and takes in how they end. It waits for many things at once and
//! has something to finish after a stop, so it is not a step under [`super::run`].

mod job;
mod lane;
mod pace;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    job::{Answer, Called, Deed, Done, Hands, Search},
    lane::{Change, Lane, Sweep},
    pace::{Pace, Turn},
    seen::Seen,
};
use super::{Trouble, WorkError};
use crate::{
    clock::Timestamp,
    event::Event,
    id::{DeliveryId, Shard},
    ledger::{
        Ledger,
        dispatch::{Dispatched, Started},
    },
    metric,
    provider::{Configured, Failure, Outcome, retry},
    store::{Applied, Due, DueCount, Entry},
    stream::{AttemptResult, Command, Origin},
    wake::Wake,
};

/// What the worker is called in logs.
const NAME: &str = "deliver";
/// Deliveries of which the last position is remembered, for as long as the projection may lag.
const SEEN_MAX: usize = 32_768;
/// Outcomes that may wait to be recorded before nothing more is claimed.
const RECORDING_MAX: usize = 2_048;
/// Batches of attempts that are lost, and of messages that are planned, at a time.
const DEEDS_MAX: usize = 2;
/// A delivery due for longer counts as overdue.
const OVERDUE: Duration = Duration::from_mins(1);

/// How the worker is to work.
#[derive(Debug, Clone)]
pub struct DeliverOptions {
    /// Deliveries claimed in one go at the most, and claimed ahead of their calls.
    pub batch_max: usize,
    /// How often to look for what is due when nothing hints at it.
    pub poll: Duration,
}

/// The delivery worker.
#[derive(Debug)]
pub struct Deliver {
    hands: Hands,
    started: mpsc::UnboundedReceiver<Started>,
    lanes: Vec<Lane>,
    unplanned: Sweep,
    batch_max: usize,
    pace: Pace,
    jobs: JoinSet<Done>,
    /// What this worker has in hand: being claimed, called, recorded, lost or planned.
    busy: HashSet<DeliveryId>,
    seen: Seen,
    outcomes: BTreeMap<Shard, Vec<(DeliveryId, Entry)>>,
    recording: usize,
    /// Batches of attempts being lost, and of messages being planned.
    deeds: usize,
    /// Reading may well go on where writing does not, so each has its own.
    reading: Trouble,
    writing: Trouble,
    /// Providers of which numbers were published; told once if they are not configured here.
    counted: BTreeSet<String>,
    is_stopping: bool,
}

impl Deliver {
    /// A worker that calls these providers from the places of `dispatched`.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        dispatched: Dispatched,
        providers: impl IntoIterator<Item = Configured>,
        options: &DeliverOptions,
    ) -> Self {
        let Dispatched { worker, started, places } = dispatched;
        let batch_max = options.batch_max.max(1);
        let lane = |configured| Lane::new(configured, places.size(), batch_max);
        Self {
            lanes: providers.into_iter().map(lane).collect(),
            hands: Hands { ledger, places, worker: worker.into() },
            started,
            unplanned: Sweep::default(),
            batch_max,
            pace: Pace::new(options.poll, Instant::now()),
            jobs: JoinSet::new(),
            busy: HashSet::new(),
            seen: Seen::new(SEEN_MAX),
            outcomes: BTreeMap::new(),
            recording: 0,
            deeds: 0,
            reading: Trouble::default(),
            writing: Trouble::default(),
            counted: BTreeSet::new(),
            is_stopping: false,
        }
    }

    /// Delivers until `stop` is cancelled; then claims nothing more, makes the calls that are claimed
    /// and records every outcome. `wake` hints that the projection shows something new.
    ///
    /// # Errors
    /// When a job of the worker panicked.
    pub async fn run(mut self, wake: Wake, stop: CancellationToken) -> Result<(), WorkError> {
        let mut hint = pin!(wake.listen());
        hint.as_mut().enable();
        while !stop.is_cancelled() {
            self.step()?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = hint.as_mut() => {
                    // Listening goes on before the look that follows.
                    hint.set(wake.listen());
                    hint.as_mut().enable();
                    self.pace.hint(Instant::now());
                }
                () = sleep_until(self.pace.next()) => {}
                Some(started) = self.started.recv() => self.take_started(started),
                Some(done) = self.jobs.join_next() => self.take(done)?,
            }
        }
        self.drain().await
    }

    /// Does everything there is to do at this moment, calls included, and comes back when nothing is
    /// left. For tests and tools, which have no loop.
    ///
    /// # Errors
    /// As [`Deliver::run`].
    pub async fn settle(&mut self) -> Result<(), WorkError> {
        self.pace.look_now(Instant::now());
        loop {
            self.step()?;
            let Some(done) = self.jobs.join_next().await else { return Ok(()) };
            self.take(done)?;
        }
    }

    async fn drain(&mut self) -> Result<(), WorkError> {
        self.is_stopping = true;
        let places = self.hands.places.clone();
        places.close();
        loop {
            self.step()?;
            let idle = self.jobs.is_empty();
            tokio::select! {
                biased;
                Some(started) = self.started.recv() => self.take_started(started),
                Some(done) = self.jobs.join_next() => self.take(done)?,
                // A place that is reserved still may bring an attempt.
                () = places.all_free(), if idle => return Ok(()),
            }
        }
    }

    /// Takes in what has ended and starts what can be started. Waits for nothing.
    fn step(&mut self) -> Result<(), WorkError> {
        while let Ok(started) = self.started.try_recv() {
            self.take_started(started);
        }
        while let Some(done) = self.jobs.try_join_next() {
            self.take(done)?;
        }
        self.record();
        if self.is_stopping {
            return Ok(());
        }
        let at = Instant::now();
        let turn = self.pace.turn(at);
        if turn == Turn::Quiet {
            return Ok(());
        }
        if self.pace.is_time_to_count(at) {
            self.jobs.spawn(self.hands.clone().count(OVERDUE));
        }
        let now = self.hands.ledger.now();
        for at in 0..self.lanes.len() {
            self.turn_lane(at, turn, now);
            self.claim(at);
            if self.lanes[at].is_hungry() {
                self.look(Search::Scheduled(at));
            }
            if self.deeds < DEEDS_MAX {
                self.look(Search::Expired(at));
            }
        }
        self.turn_unplanned(turn, at);
        if self.deeds < DEEDS_MAX {
            self.look(Search::Unplanned);
        }
        Ok(())
    }

    /// Begins the search anew: all of it in every poll interval, and what had come to its end when
    /// something hints at more.
    fn turn_lane(&mut self, at: usize, turn: Turn, now: Timestamp) {
        let lane = &mut self.lanes[at];
        lane.wake_up(now);
        match turn {
            Turn::Poll => {
                lane.candidates.clear();
                lane.scheduled.restart();
                lane.expired.restart();
            }
            Turn::Hint if lane.scheduled.is_over() && lane.candidates.is_empty() => lane.scheduled.restart(),
            Turn::Hint | Turn::None | Turn::Quiet => {}
        }
    }

    /// What nobody would take stays where it is: it is looked at again now and then only.
    fn turn_unplanned(&mut self, turn: Turn, now: Instant) {
        if self.hands.ledger.routing().leases.is_empty() {
            return;
        }
        if turn == Turn::Poll && self.unplanned.is_over() && self.pace.may_begin_again(now) {
            self.unplanned.restart();
        } else if matches!(turn, Turn::Poll | Turn::Hint) {
            self.unplanned.resume();
        }
    }

    fn look(&mut self, search: Search) {
        let sweep = self.sweep(search);
        if !sweep.begin() {
            return;
        }
        let after = sweep.after();
        let provider = match search {
            Search::Scheduled(at) | Search::Expired(at) => Some(self.lanes[at].name().to_owned()),
            Search::Unplanned => None,
        };
        self.jobs.spawn(self.hands.clone().look(search, provider, after, self.batch_max * 2));
    }

    fn claim(&mut self, at: usize) {
        if self.recording > RECORDING_MAX {
            return;
        }
        let lane = &mut self.lanes[at];
        let (claimable, mut due, now) = (lane.claimable(), Vec::new(), Instant::now());
        while due.len() < claimable
            && let Some(candidate) = lane.candidates.pop_front()
        {
            let id = candidate.delivery_id;
            if !self.seen.is_stale(id, candidate.position, now) && self.busy.insert(id) {
                due.push(candidate);
            }
        }
        if !due.is_empty() {
            lane.enter(due.len());
            self.jobs.spawn(self.hands.clone().claim(at, lane.configured.lease, due));
        }
    }

    /// Hands the outcomes over, one job a shard.
    fn record(&mut self) {
        for (shard, outcomes) in std::mem::take(&mut self.outcomes) {
            self.recording += outcomes.len();
            self.jobs.spawn(self.hands.clone().record(shard, outcomes));
        }
    }

    fn take(&mut self, done: Result<Done, JoinError>) -> Result<(), WorkError> {
        match done.map_err(|error| WorkError::fatal("delivering", error))? {
            Done::Looked { search, limit, page } => match page {
                Ok(page) => {
                    self.reading.passed(NAME);
                    let more = page.len() == limit;
                    self.sweep(search).page(Some((page.last(), more)));
                    if search == Search::Unplanned && !more {
                        self.pace.ended(Instant::now());
                    }
                    self.take_page(search, page);
                }
                Err(error) => {
                    self.sweep(search).page(None);
                    self.meet("reading what is due", |it| &mut it.reading, &error);
                }
            },
            Done::Did { deed, answers } => self.take_answers(deed, answers),
            Done::Called(called) => self.take_called(*called),
            Done::Recorded(recorded) => {
                self.recording = self.recording.saturating_sub(recorded.len());
                for (delivery_id, applied) in recorded {
                    self.busy.remove(&delivery_id);
                    if let Some(Applied::Appended { cursor, events, .. }) = applied
                        && events.iter().all(changes_delivery)
                    {
                        self.seen.note(delivery_id, cursor.position.0, Instant::now());
                    }
                }
            }
            Done::Counted(Ok(counts)) => self.publish(&counts),
            Done::Counted(Err(error)) => self.meet("counting what is due", |it| &mut it.reading, &error),
        }
        Ok(())
    }

    fn take_page(&mut self, search: Search, page: Vec<Due>) {
        let now = Instant::now();
        let known = |due: &Due| {
            self.busy.contains(&due.delivery_id) || self.seen.is_stale(due.delivery_id, due.position, now)
        };
        let fresh = page.into_iter().filter(|due| !known(due));
        if let Search::Scheduled(at) = search {
            // Without its target, which is erased, a delivery cannot be made.
            let fresh: Vec<_> = fresh.filter(|due| due.target.is_some()).collect();
            self.lanes[at].candidates.extend(fresh);
            return;
        }
        let due: Vec<_> = fresh.collect();
        if due.is_empty() || self.is_stopping {
            return;
        }
        self.busy.extend(due.iter().map(|it| it.delivery_id));
        self.deeds += 1;
        let hands = self.hands.clone();
        if let Search::Expired(at) = search {
            self.jobs.spawn(hands.lose(at, self.lanes[at].configured.clone(), due));
        } else {
            self.jobs.spawn(hands.plan(due));
        }
    }

    fn take_answers(&mut self, deed: Deed, answers: Vec<Answer>) {
        for (due, answer) in answers {
            let delivery_id = due.delivery_id;
            let started = match answer {
                Ok(Some(Applied::Appended { cursor, events, origin })) => {
                    self.seen.note(delivery_id, cursor.position.0, Instant::now());
                    self.writing.passed(NAME);
                    if let Deed::Lose(lane) = deed {
                        metric::attempt_ended(self.lanes[lane].name(), "lost");
                    }
                    started(&due, events, origin)
                }
                // The row tells of the past; there is nothing to ask until it has changed.
                Ok(Some(_)) => {
                    self.seen.note(delivery_id, due.position + 1, Instant::now());
                    None
                }
                Ok(None) => None,
                Err(error) => {
                    self.meet("writing to the log", |it| &mut it.writing, &error);
                    None
                }
            };
            match (deed, started) {
                (Deed::Claim(lane), Some((started, first_due))) => self.call(lane, started, first_due),
                (Deed::Claim(lane), None) => {
                    self.lanes[lane].leave(1);
                    self.busy.remove(&delivery_id);
                }
                (Deed::Lose(_) | Deed::Plan, _) => _ = self.busy.remove(&delivery_id),
            }
        }
        if !matches!(deed, Deed::Claim(_)) {
            self.deeds = self.deeds.saturating_sub(1);
        }
    }

    /// An attempt that was started in the transaction that appended its message.
    fn take_started(&mut self, started: Started) {
        let Some(lane) = self.lanes.iter().position(|it| it.name() == started.attempt.provider) else {
            let provider = started.attempt.provider;
            tracing::error!(provider, "an attempt was started for a provider that is not configured here");
            return;
        };
        self.busy.insert(started.attempt.delivery_id);
        self.lanes[lane].enter(1);
        let now = self.hands.ledger.now();
        self.call(lane, started, now);
    }

    fn call(&mut self, lane: usize, started: Started, first_due: Timestamp) {
        let configured = self.lanes[lane].configured.clone();
        self.jobs.spawn(self.hands.clone().call(lane, configured, started, first_due));
    }

    fn take_called(&mut self, called: Called) {
        let Called { lane, message_id, shard, delivery_id, outcome, took, at } = called;
        let lane = &mut self.lanes[lane];
        lane.leave(1);
        if let Some(took) = took {
            lane.called(took);
            metric::provider_called(lane.name(), took);
            if let Some(change) = lane.learn(&outcome, at.now) {
                self.hands.places.set_open(lane.name(), change == Change::Recovered);
                tell(lane.name(), change);
            }
        }
        let result = match outcome {
            Outcome::Accepted { provider_message_id, status } => {
                metric::attempt_ended(lane.name(), "accepted");
                AttemptResult::Accepted { provider_message_id, status }
            }
            Outcome::Pending { ticket, .. } => {
                metric::attempt_ended(lane.name(), "accepted");
                AttemptResult::Accepted { provider_message_id: Some(ticket), status: None }
            }
            Outcome::Failed(failure) => {
                metric::attempt_ended(lane.name(), failure.class.as_str());
                let Failure { class, code, status, answer, retry_after, .. } = failure;
                let decision = retry::decide(&lane.configured.policy, class, retry_after, &at);
                AttemptResult::Failed { class, code, status, answer, decision }
            }
        };
        let duration_ms = u64::try_from(took.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let command = Command::RecordOutcome { delivery_id, attempt: at.attempt, duration_ms, result };
        let entry = self.hands.entry(message_id, command);
        self.outcomes.entry(shard).or_default().push((delivery_id, entry));
    }

    fn sweep(&mut self, search: Search) -> &mut Sweep {
        match search {
            Search::Scheduled(at) => &mut self.lanes[at].scheduled,
            Search::Expired(at) => &mut self.lanes[at].expired,
            Search::Unplanned => &mut self.unplanned,
        }
    }

    /// Rests after trouble, and tells of it once.
    fn meet(
        &mut self,
        doing: &'static str,
        trouble: fn(&mut Self) -> &mut Trouble,
        error: &(dyn std::error::Error + 'static),
    ) {
        let now = Instant::now();
        if !self.pace.is_quiet(now) {
            let pause = trouble(self).met(NAME, doing, error);
            self.pace.rest(now, pause);
        }
    }

    fn publish(&mut self, counts: &[DueCount]) {
        for provider in &self.counted {
            metric::deliveries_due(provider, 0, 0);
        }
        for count in counts {
            let provider = count.provider.as_deref().unwrap_or_default();
            metric::deliveries_due(provider, count.due, count.overdue);
            let is_news = self.counted.insert(provider.to_owned());
            if is_news && count.provider.is_some() && self.lanes.iter().all(|it| it.name() != provider) {
                tracing::warn!(
                    provider,
                    due = count.due,
                    "deliveries wait for a provider that is not configured here; they are left alone"
                );
            }
        }
    }
}

/// Whether the delivery's row shows the event. A late word that settles nothing is the attempt's alone.
const fn changes_delivery(event: &Event) -> bool {
    match event {
        Event::PushAttemptSucceeded(it) => it.settles,
        Event::PushAttemptFailed(it) => it.settles,
        _ => true,
    }
}

/// The attempt that was started, if one was, and when its delivery was first due.
fn started(due: &Due, events: Vec<Event>, origin: Option<Arc<Origin>>) -> Option<(Started, Timestamp)> {
    let (message, target) = (origin?, due.target.clone()?);
    let first_due = job::first_due(due, &message.message);
    let attempt = events.into_iter().find_map(|event| match event {
        Event::PushAttemptStarted(attempt) => Some(attempt),
        _ => None,
    })?;
    Some((Started { attempt, target, message, place: None }, first_due))
}

fn tell(provider: &str, change: Change) {
    match change {
        Change::Paused(wait) => tracing::error!(
            provider,
            pause_s = wait.as_secs(),
            "the provider refuses our credentials or configuration; it is not called for a while"
        ),
        Change::Recovered => tracing::info!(provider, "the provider is called again"),
    }
}

#[cfg(test)]
mod tests;
