//! Calls providers: claims due deliveries in the log, makes the calls, records what came of them.
//!
//! Deliveries come in two ways: attempts that were started in the transaction that appended their
//! message, and what the deliveries projection shows as due. The projection is a hint only: the log
//! decides who may call, so any number of workers share the work. Everything slow is a task of its own
//! ([`job`]); this loop starts them and takes in how they end. It waits for many things at once and
//! has something to finish after a stop, so it is not a step under [`super::run`].

mod answers;
mod health;
mod job;
mod lane;
mod pace;
mod receipt;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    pin::pin,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    health::Gate,
    job::{Done, Hands, Search, Words},
    lane::{Lane, Sweep},
    pace::{Pace, Turn},
    seen::Seen,
};
use super::{Trouble, WorkError};
use crate::{
    clock::Timestamp,
    device::Obituary,
    id::{DeliveryId, Shard},
    ledger::{
        Ledger,
        dispatch::{Dispatched, Started},
    },
    provider::{Batch, Configured, retry::OnUnknown},
    store::{Control, Entry},
    stream::{Able, Failover},
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
    /// The providers of the lanes by name.
    configured: Able,
    unplanned: Sweep,
    batch_max: usize,
    pace: Pace,
    jobs: JoinSet<Done>,
    /// What this worker has in hand: being claimed, called, recorded, lost or planned.
    busy: HashSet<DeliveryId>,
    seen: Seen,
    outcomes: BTreeMap<Shard, Vec<(DeliveryId, Entry)>>,
    /// Devices of which a provider says that they are no more.
    dead: Vec<Obituary>,
    /// Providers whose word on devices since a time is to be taken back.
    disbelieved: Vec<(String, Timestamp)>,
    /// Pauses that the database did not take yet.
    unwritten: Vec<Control>,
    /// One thing at a time is written about devices, so that what is taken back stays so.
    is_burying: bool,
    /// Whether the pauses that all processes share are being read.
    is_reading_controls: bool,
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
        let lanes: Vec<_> = providers.into_iter().map(lane).collect();
        Self {
            configured: Able::Only(lanes.iter().map(|it| it.name().to_owned()).collect()),
            lanes,
            hands: Hands { ledger, places, worker: worker.into() },
            started,
            unplanned: Sweep::default(),
            batch_max,
            pace: Pace::new(options.poll, Instant::now()),
            jobs: JoinSet::new(),
            busy: HashSet::new(),
            seen: Seen::new(SEEN_MAX),
            outcomes: BTreeMap::new(),
            dead: Vec::new(),
            disbelieved: Vec::new(),
            unwritten: Vec::new(),
            is_burying: false,
            is_reading_controls: false,
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
        let at = Instant::now();
        self.record();
        if self.is_stopping || !self.pace.is_quiet(at) {
            self.bury();
        }
        self.start_calls();
        if self.is_stopping {
            return Ok(());
        }
        let turn = self.pace.turn(at);
        if turn == Turn::Quiet {
            return Ok(());
        }
        if self.pace.is_time_to_count(at) {
            self.jobs.spawn(self.hands.clone().count(OVERDUE));
        }
        if turn == Turn::Poll && !std::mem::replace(&mut self.is_reading_controls, true) {
            self.jobs.spawn(self.hands.clone().controls());
        }
        let now = self.hands.ledger.now();
        for at in 0..self.lanes.len() {
            let gate = self.lanes[at].look_at_health(now);
            self.hands.places.set_open(self.lanes[at].name(), gate == Gate::Open);
            self.turn_lane(at, turn, gate);
            self.claim(at, now);
            let lane = &self.lanes[at];
            let (first, again) = (lane.is_hungry(&lane.first), lane.is_hungry(&lane.again));
            if first {
                self.look(Search::Scheduled(at));
            }
            if again {
                self.look(Search::Retrying(at));
            }
            self.look(Search::Pending(at));
            if self.deeds < DEEDS_MAX {
                self.look(Search::Expired(at));
                self.look(Search::Stranded(at));
            }
        }
        self.turn_unplanned(turn, at);
        if self.deeds < DEEDS_MAX {
            self.look(Search::Unplanned);
        }
        Ok(())
    }

    /// Who can be given deliveries of others.
    fn able(&self) -> Able {
        let now = self.hands.ledger.now();
        let is_shut = |it: &&Lane| it.is_shut(it.health.gate(now), now);
        if !self.lanes.iter().any(|it| is_shut(&it)) {
            return self.configured.clone();
        }
        let able = self.lanes.iter().filter(|it| !is_shut(it));
        Able::Only(able.map(|it| it.name().to_owned()).collect())
    }

    /// How deliveries of this lane may go to the next provider of their routes.
    fn failover(&self, at: usize) -> Failover {
        let policy = &self.lanes[at].configured.policy;
        let after_unknown = policy.on_unknown == OnUnknown::Retry;
        let (able, configured) = (self.able(), self.configured.clone());
        Failover { after: policy.failover_after, after_unknown, able, configured }
    }

    /// Begins the search anew: all of it in every poll interval, and what had come to its end when
    /// something hints at more.
    fn turn_lane(&mut self, at: usize, turn: Turn, gate: Gate) {
        let now = self.hands.ledger.now();
        let has_others = || self.able() != Able::Only([].into());
        let fails_over =
            self.lanes[at].is_shut(gate, now) && self.hands.ledger.routing().fails_over() && has_others();
        let lane = &mut self.lanes[at];
        match turn {
            Turn::Poll => {
                for queue in [&mut lane.first, &mut lane.again] {
                    queue.candidates.clear();
                    queue.sweep.restart();
                }
                lane.expired.restart();
                if lane.may_ask(now) {
                    lane.pending.restart();
                }
                if fails_over {
                    lane.stranded.restart();
                }
            }
            Turn::Hint => {
                for queue in [&mut lane.first, &mut lane.again] {
                    if queue.sweep.is_over() && queue.candidates.is_empty() {
                        queue.sweep.restart();
                    }
                }
            }
            Turn::None | Turn::Quiet => {}
        }
    }

    /// What nobody would take stays where it is: it is looked at again now and then only.
    fn turn_unplanned(&mut self, turn: Turn, now: Instant) {
        if self.hands.ledger.routing().providers.is_empty() {
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
            Search::Unplanned => None,
            Search::Scheduled(at)
            | Search::Retrying(at)
            | Search::Expired(at)
            | Search::Pending(at)
            | Search::Stranded(at) => Some(self.lanes[at].name().to_owned()),
        };
        self.jobs.spawn(self.hands.clone().look(search, provider, after, self.batch_max * 2));
    }

    fn claim(&mut self, at: usize, now: Timestamp) {
        if self.recording > RECORDING_MAX {
            return;
        }
        let lane = &mut self.lanes[at];
        let (claimable, mut due, instant) = (lane.claimable(), Vec::new(), Instant::now());
        while due.len() < claimable
            && let Some(candidate) = lane.next_candidate(due.len())
        {
            let id = candidate.delivery_id;
            let is_held = candidate.target.as_ref().is_some_and(|it| lane.holds(it, now));
            if is_held || self.seen.is_stale(id, candidate.position, instant) || self.busy.contains(&id) {
                continue;
            }
            if !self.hands.places.admit(lane.name()) {
                // As fast as it may be called; the next look finds it again.
                break;
            }
            self.busy.insert(id);
            due.push(candidate);
        }
        if !due.is_empty() {
            lane.enter(due.len());
            self.jobs.spawn(self.hands.clone().claim(at, lane.configured.lease, due));
        }
    }

    /// Hands over what is known of devices, and the pauses that follow from it.
    fn bury(&mut self) {
        for control in std::mem::take(&mut self.unwritten) {
            self.jobs.spawn(self.hands.clone().control(control));
        }
        if self.is_burying {
            return;
        }
        let words = match self.disbelieved.pop() {
            Some((provider, since)) => Words::TakenBack { provider, since },
            None if self.dead.is_empty() => return,
            None => Words::Dead(std::mem::take(&mut self.dead)),
        };
        self.is_burying = true;
        self.jobs.spawn(self.hands.clone().bury(words));
    }

    /// Makes the calls of everything that is claimed, as many pushes in one as the provider takes.
    fn start_calls(&mut self) {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let mut ready = std::mem::take(&mut lane.ready).into_iter().peekable();
            while ready.peek().is_some() {
                // Asked each time: a service may take fewer for a while.
                let size_max = lane.configured.provider.batch().map_or(1, Batch::size_max).max(1);
                let part: Vec<_> = ready.by_ref().take(size_max).collect();
                self.jobs.spawn(self.hands.clone().call(at, lane.configured.clone(), part));
            }
        }
    }

    /// Hands the outcomes over, one job a shard.
    fn record(&mut self) {
        for (shard, outcomes) in std::mem::take(&mut self.outcomes) {
            self.recording += outcomes.len();
            self.jobs.spawn(self.hands.clone().record(shard, outcomes));
        }
    }
}

#[cfg(test)]
mod tests;
