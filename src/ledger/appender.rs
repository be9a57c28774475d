//! Group commit: one task a shard takes everything that is waiting and appends it in one transaction.
//!
//! The next batch gathers while one commits, so no timer is needed: alone a message waits for nothing,
//! in a crowd it shares the commit. The queue and the batch have an upper limit (BOUNDED).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::LedgerError;
use crate::{
    clock::Clock,
    id::Shard,
    metric,
    store::{Applied, Entry, Store, StoreError},
    wake::Wake,
};

/// Jobs that may wait at one shard before callers have to.
const QUEUE: usize = 4096;
/// Tries before a caller is told that the database is not available; about two seconds in all.
const TRIES: u32 = 8;
/// How long a transaction may take: longer than any that works, and shorter than a network takes to tell
/// that the other side is gone.
const APPEND_MAX: Duration = Duration::from_secs(30);

/// What became of what a caller handed in, and what that was: nobody has to keep a copy.
pub type Answer = (Vec<Entry>, Result<Vec<Applied>, LedgerError>);

/// What one caller wants appended.
struct Job {
    entries: Vec<Entry>,
    reply: oneshot::Sender<Answer>,
}

/// The way in to one shard's appender.
#[derive(Debug, Clone)]
pub struct Inbound {
    jobs: mpsc::Sender<Job>,
}

impl Inbound {
    /// Hands in entries and waits until they are durable. Once the ledger is stopping, they do not come
    /// back.
    pub async fn append(&self, entries: Vec<Entry>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let stopping = (Vec::new(), Err(LedgerError::Stopping));
        if self.jobs.send(Job { entries, reply }).await.is_err() {
            return stopping;
        }
        answer.await.unwrap_or(stopping)
    }
}

/// One shard's appender.
#[derive(Debug)]
pub struct Appender {
    store: Store,
    clock: Arc<dyn Clock>,
    shard: Shard,
    batch_max: usize,
    appended: Wake,
    jobs: mpsc::Receiver<Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({} entries)", self.entries.len())
    }
}

impl Appender {
    pub(super) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        shard: Shard,
        batch_max: usize,
        appended: Wake,
    ) -> (Inbound, Self) {
        let (sender, jobs) = mpsc::channel(QUEUE);
        (Inbound { jobs: sender }, Self { store, clock, shard, batch_max, appended, jobs })
    }

    /// Appends until nobody can hand in anything any more. What one caller handed in stays together,
    /// even if that is more than a batch.
    pub async fn run(mut self) {
        let mut left = None;
        while let Some(first) = if left.is_some() { left.take() } else { self.jobs.recv().await } {
            let mut size = first.entries.len();
            let mut batch = vec![first];
            while size < self.batch_max {
                let Ok(next) = self.jobs.try_recv() else { break };
                if size + next.entries.len() > self.batch_max {
                    left = Some(next);
                    break;
                }
                size += next.entries.len();
                batch.push(next);
            }
            self.append(batch, size).await;
        }
    }

    async fn append(&self, mut batch: Vec<Job>, size: usize) {
        let mut entries = Vec::with_capacity(size);
        let mut sizes = Vec::with_capacity(batch.len());
        for job in &mut batch {
            sizes.push(job.entries.len());
            entries.append(&mut job.entries);
        }
        let persisted = self.persist(&entries).await;
        let mut entries = entries.into_iter();
        let mut own = |size| entries.by_ref().take(size).collect::<Vec<_>>();
        match persisted {
            Ok(applied) => {
                let mut applied = applied.into_iter();
                for (job, size) in batch.into_iter().zip(sizes) {
                    // A caller that went away has its events all the same.
                    let _ = job.reply.send((own(size), Ok(applied.by_ref().take(size).collect())));
                }
            }
            Err(error) if error.is_transient() || batch.len() == 1 => {
                let error = LedgerError::from(error);
                for (job, size) in batch.into_iter().zip(sizes) {
                    let _ = job.reply.send((own(size), Err(error.clone())));
                }
            }
            // One caller's entries must not take the others down: each by itself.
            Err(_) => {
                for (job, size) in batch.into_iter().zip(sizes) {
                    let own = own(size);
                    let applied = self.persist(&own).await.map_err(LedgerError::from);
                    let _ = job.reply.send((own, applied));
                }
            }
        }
    }

    /// Appends, again and again while it is worth it. A unique violation means that a message id
    /// raced in through another shard: the next try finds it there.
    async fn persist(&self, entries: &[Entry]) -> Result<Vec<Applied>, StoreError> {
        let mut tries = 0;
        loop {
            let now = self.clock.now();
            let append = self.store.append(self.shard, entries, now);
            let appended = timeout(APPEND_MAX, append).await;
            let error = match appended.unwrap_or(Err(StoreError::TimedOut(APPEND_MAX))) {
                Ok(applied) => {
                    metric::appended(entries.len(), self.clock.now().since(now));
                    if applied.iter().any(|it| matches!(it, Applied::Appended { .. })) {
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
            tracing::debug!(shard = %self.shard, tries, %error, "appending again");
            let ceiling = 10 * 2_u64.pow(tries.min(6));
            tokio::time::sleep(Duration::from_millis(fastrand::u64(ceiling / 2..=ceiling))).await;
        }
    }
}
