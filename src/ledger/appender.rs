//! Group commit: whoever is free takes everything that waits, of all shards, into one transaction.
//!
//! The next batch gathers while one commits, so no timer is needed: alone a message waits for nothing,
//! in a crowd it shares the commit. Two transactions never share a shard, whose lock would only make
//! one wait for the other; and a second one begins only when enough waits to be worth it, or when the
//! first takes long. Queue and batch have an upper limit (BOUNDED).

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::LedgerError;
use crate::{
    clock::Clock,
    id::Shard,
    metric,
    store::{Applied, Entry, Store, StoreError},
    wake::Wake,
};

/// Jobs that may wait before callers have to.
const QUEUE: usize = 8192;
/// Tries before a caller is told that the database is not available; about two seconds in all.
const TRIES: u32 = 8;
/// How long a transaction may take: longer than any that works, and shorter than a network takes to tell
/// that the other side is gone.
const APPEND_MAX: Duration = Duration::from_secs(30);
/// A further transaction beside one that runs begins with this part of a batch, or after this time.
const WORTHWHILE: usize = 4;
const PATIENCE: Duration = Duration::from_millis(20);

/// What became of what a caller handed in, and what that was: nobody has to keep a copy.
pub type Answer = (Vec<Entry>, Result<Vec<Applied>, LedgerError>);

/// What one caller wants appended.
#[derive(Debug)]
struct Job {
    shard: Shard,
    entries: Vec<Entry>,
    since: Instant,
    reply: oneshot::Sender<Answer>,
}

/// What waits, and what is being worked on.
#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    busy: BTreeSet<Shard>,
    closed: bool,
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    room: Semaphore,
    /// Rings for one appender when something arrived or a shard is free again.
    changed: Notify,
}

/// The way in. Once it is dropped, the appenders end when nothing waits any more.
#[derive(Debug)]
pub struct Inbound {
    queue: Arc<Queue>,
}

/// One of the appenders; as many as the log has shards can work at the same time.
#[derive(Debug)]
pub struct Appender {
    store: Store,
    clock: Arc<dyn Clock>,
    batch_max: usize,
    appended: Wake,
    queue: Arc<Queue>,
}

/// What an appender finds when it looks.
enum Found {
    Batch(Vec<Job>),
    /// Not enough to begin beside the one that runs; it is in a while.
    Little(Instant),
    Nothing,
    /// Nothing, and nothing will ever come.
    End,
}

impl Waiting {
    /// Takes what is to be appended next: jobs of shards that nobody works on, in their order, up to
    /// `batch_max` entries. What one caller handed in stays together, even if that is more.
    fn take(&mut self, batch_max: usize, now: Instant) -> Found {
        let free = |job: &&Job| !self.busy.contains(&job.shard);
        let Some(first) = self.jobs.iter().find(free) else {
            return if self.closed && self.jobs.is_empty() { Found::End } else { Found::Nothing };
        };
        let patient = first.since + PATIENCE;
        let mut size = self.jobs.iter().filter(free).map(|it| it.entries.len()).sum::<usize>();
        if !self.busy.is_empty() && size < batch_max / WORTHWHILE && now < patient {
            return Found::Little(patient);
        }
        let (mut batch, mut left, mut full) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        size = 0;
        for job in self.jobs.drain(..) {
            let fits = batch.is_empty() || size + job.entries.len() <= batch_max;
            if self.busy.contains(&job.shard) || full.contains(&job.shard) || !fits {
                // What comes later of this shard must not overtake it.
                full.insert(job.shard);
                left.push_back(job);
            } else {
                size += job.entries.len();
                batch.push(job);
            }
        }
        self.jobs = left;
        self.busy.extend(batch.iter().map(|it| it.shard));
        Found::Batch(batch)
    }

    fn release(&mut self, shards: &BTreeSet<Shard>) {
        self.busy.retain(|it| !shards.contains(it));
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbound {
    /// Hands in entries and waits until they are durable. Once the ledger is stopping, they do not come
    /// back.
    pub async fn append(&self, shard: Shard, entries: Vec<Entry>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let stopping = || (Vec::new(), Err(LedgerError::Stopping));
        let Ok(room) = self.queue.room.acquire().await else { return stopping() };
        // Given back when an appender takes the job.
        room.forget();
        self.queue.lock().jobs.push_back(Job { shard, entries, since: Instant::now(), reply });
        self.queue.changed.notify_one();
        answer.await.unwrap_or_else(|_| stopping())
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_one();
    }
}

impl Drop for Appender {
    /// Whoever still waits for an appender that was dropped is told.
    fn drop(&mut self) {
        self.queue.room.close();
        self.queue.lock().jobs.clear();
    }
}

impl Appender {
    /// The way in, and the appenders to be run.
    pub(super) fn all(
        store: &Store,
        clock: &Arc<dyn Clock>,
        batch_max: usize,
        appended: &Wake,
    ) -> (Inbound, Vec<Self>) {
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            room: Semaphore::new(QUEUE),
            changed: Notify::new(),
        });
        let make = |_| Self {
            store: store.clone(),
            clock: Arc::clone(clock),
            batch_max: batch_max.max(1),
            appended: appended.clone(),
            queue: Arc::clone(&queue),
        };
        let appenders = store.shards().map(make).collect();
        (Inbound { queue }, appenders)
    }

    /// Appends until nobody can hand in anything any more.
    pub async fn run(self) {
        loop {
            let found = self.queue.lock().take(self.batch_max, Instant::now());
            match found {
                Found::Batch(batch) => {
                    self.queue.room.add_permits(batch.len());
                    // What is left may be worth another appender.
                    self.queue.changed.notify_one();
                    let shards = batch.iter().map(|it| it.shard).collect();
                    self.append(batch).await;
                    self.queue.lock().release(&shards);
                }
                Found::Little(until) => {
                    // Either way it looks again.
                    let _ = timeout_at(until, self.queue.changed.notified()).await;
                }
                Found::Nothing => self.queue.changed.notified().await,
                Found::End => {
                    // The others end as well.
                    self.queue.changed.notify_one();
                    return;
                }
            }
        }
    }

    async fn append(&self, batch: Vec<Job>) {
        let parts: Vec<_> = batch.iter().map(|it| (it.shard, it.entries.as_slice())).collect();
        match self.persist(&parts).await {
            Ok(applied) => {
                for (job, applied) in batch.into_iter().zip(applied) {
                    // A caller that went away has its events all the same.
                    let _ = job.reply.send((job.entries, Ok(applied)));
                }
            }
            Err(error) if error.is_transient() || batch.len() == 1 => {
                let error = LedgerError::from(error);
                for job in batch {
                    let _ = job.reply.send((job.entries, Err(error.clone())));
                }
            }
            // One caller's entries must not take the others down: each by itself.
            Err(_) => {
                for job in batch {
                    let applied = self.persist(&[(job.shard, &job.entries)]).await;
                    let applied = applied.map(|it| it.into_iter().flatten().collect());
                    let _ = job.reply.send((job.entries, applied.map_err(LedgerError::from)));
                }
            }
        }
    }

    /// Appends, again and again while it is worth it. A unique violation means that a message id
    /// raced in through another shard: the next try finds it there.
    async fn persist(&self, parts: &[(Shard, &[Entry])]) -> Result<Vec<Vec<Applied>>, StoreError> {
        let entries = parts.iter().map(|(_, entries)| entries.len()).sum();
        let mut tries = 0;
        loop {
            let now = self.clock.now();
            let append = self.store.append_all(parts, now);
            let appended = timeout(APPEND_MAX, append).await;
            let error = match appended.unwrap_or(Err(StoreError::TimedOut(APPEND_MAX))) {
                Ok(applied) => {
                    metric::appended(entries, self.clock.now().since(now));
                    if applied.iter().flatten().any(|it| matches!(it, Applied::Appended { .. })) {
                        self.appended.wake();
                    }
                    return Ok(applied);
                }
                Err(error) => error,
            };
            tries += 1;
            if tries == TRIES || !(error.is_transient() || error.is_unique_violation()) {
                return Err(error);
            }
            tracing::debug!(entries, tries, %error, "appending again");
            let ceiling = 10 * 2_u64.pow(tries.min(6));
            sleep(Duration::from_millis(fastrand::u64(ceiling / 2..=ceiling))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        event::Metadata,
        id::{DeliveryId, MessageId},
        stream::{Claim, Command},
    };

    fn entry() -> Entry {
        let message_id = MessageId::new("m-1").unwrap();
        let claim = Claim { worker: "w".to_owned(), lease_until: Timestamp::from_micros(1) };
        let delivery_id = DeliveryId::new(&message_id, "");
        Entry {
            message_id,
            command: Command::StartAttempt { delivery_id, claim },
            occurred_at: Timestamp::from_micros(0),
            metadata: Metadata::default(),
        }
    }

    /// Jobs of these shards with so many entries each, all handed in at once.
    fn waiting(jobs: &[(u16, usize)], since: Instant) -> Waiting {
        let job = |&(shard, size): &(u16, usize)| Job {
            shard: Shard(shard),
            entries: vec![entry(); size],
            since,
            reply: oneshot::channel().0,
        };
        Waiting { jobs: jobs.iter().map(job).collect(), ..Waiting::default() }
    }

    fn taken(found: Found) -> Vec<(u16, usize)> {
        let Found::Batch(batch) = found else { return Vec::new() };
        batch.iter().map(|it| (it.shard.0, it.entries.len())).collect()
    }

    #[test]
    fn whoever_is_free_takes_all_that_waits() {
        let now = Instant::now();
        let mut waiting = waiting(&[(0, 1), (3, 2), (0, 1)], now);
        assert_eq!(taken(waiting.take(100, now)), [(0, 1), (3, 2), (0, 1)]);
        assert_eq!(waiting.busy, [Shard(0), Shard(3)].into());
        assert!(matches!(waiting.take(100, now), Found::Nothing));
        waiting.closed = true;
        assert!(matches!(waiting.take(100, now), Found::End));
    }

    #[test]
    fn a_batch_is_full_at_its_limit_and_nothing_overtakes() {
        let now = Instant::now();
        let mut waiting = waiting(&[(0, 6), (0, 6), (0, 1), (1, 3), (1, 2)], now);
        assert_eq!(taken(waiting.take(10, now)), [(0, 6), (1, 3)], "(0, 1) waits behind (0, 6)");
        assert!(matches!(waiting.take(10, now), Found::Nothing), "both shards are being worked on");
        waiting.release(&[Shard(0), Shard(1)].into());
        assert_eq!(taken(waiting.take(10, now)), [(0, 6), (0, 1), (1, 2)]);
    }

    #[test]
    fn what_one_caller_handed_in_stays_together() {
        let now = Instant::now();
        assert_eq!(taken(waiting(&[(0, 25), (1, 1)], now).take(10, now)), [(0, 25)]);
    }

    #[test]
    fn a_second_transaction_begins_when_it_is_worth_it_or_the_first_takes_long() {
        let now = Instant::now();
        let beside = |jobs: &[(u16, usize)], now: Instant, later: Duration| {
            let mut waiting = waiting(jobs, now);
            waiting.busy = [Shard(9)].into();
            waiting.take(100, now + later)
        };
        let Found::Little(until) = beside(&[(0, 24), (9, 80)], now, Duration::ZERO) else { panic!() };
        assert_eq!(until, now + PATIENCE);
        assert_eq!(taken(beside(&[(0, 25), (9, 80)], now, Duration::ZERO)), [(0, 25)]);
        assert_eq!(taken(beside(&[(0, 1)], now, PATIENCE)), [(0, 1)]);
    }
}
