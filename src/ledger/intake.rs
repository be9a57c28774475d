//! Taking in what a source hands out: read, append what is a message, hold what is none.
//!
//! The same for every door that sends no answer to its producer. Whatever is said to be taken is
//! durable.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures_util::future::{join, join_all};

use super::{Incoming, Ledger, LedgerError, Receipt};
use crate::{
    clock::Timestamp,
    id::{QuarantineId, Shard},
    message::{Parsed, Rejection, parse::parse},
    metric,
    source::{Arrival, Beside},
    store::{Decided, Decision, Held, StoreError, Unreadable},
};

/// Tries to hold input before the caller is told that the database does not take it.
const HOLD_TRIES: u32 = 4;

/// What became of an arrival.
#[derive(Debug, Clone)]
pub enum Taken {
    /// It is a message, and in the log.
    Accepted(Receipt),
    /// It is none, and in quarantine.
    Quarantined(Rejection),
    /// It could not be made durable.
    Failed(LedgerError),
    /// It was not tried, because one before it in its group failed.
    Behind,
}

/// What became of an attempt to read an input in quarantine again.
#[derive(Debug, Clone)]
pub enum Retried {
    /// It is a message now.
    Accepted(Receipt),
    /// It still is none.
    Rejected(Rejection),
    /// There is no such input in quarantine.
    Unknown,
    /// It became a message before.
    Already(Decided),
}

/// Messages of one group that lie next to each other in one shard: they go in together.
struct Run {
    shard: Shard,
    places: Vec<usize>,
    batch: Vec<Incoming>,
}

impl Ledger {
    /// Appends the messages among these and puts the rest into quarantine. Answers in their order, when
    /// everything that was taken is durable.
    pub async fn take_in(&self, ingress: &str, arrivals: Vec<Arrival>) -> Vec<Taken> {
        metric::received(ingress, arrivals.len());
        let now = self.now();
        let mut taken: Vec<Option<Taken>> = Vec::new();
        taken.resize_with(arrivals.len(), || None);
        let (mut free, mut groups) = (Vec::new(), BTreeMap::<String, VecDeque<Run>>::new());
        let (mut unreadable, mut rejections) = (Vec::new(), Vec::new());
        for (at, arrival) in arrivals.into_iter().enumerate() {
            match parse(&arrival.body, arrival.beside.outside()) {
                Ok(parsed) => {
                    let incoming = Incoming { parsed, metadata: arrival.metadata };
                    match arrival.group {
                        None => free.push((at, incoming)),
                        Some(group) => self.line_up(groups.entry(group).or_default(), at, incoming),
                    }
                }
                Err(rejection) => {
                    unreadable.push(unreadable_input(ingress, arrival, &rejection));
                    rejections.push((at, rejection));
                }
            }
        }
        let free = self.take_free(free);
        let groups = join_all(groups.into_values().map(|runs| self.take_group(runs)));
        let ((free, groups), held) = join(join(free, groups), self.hold(&unreadable, now)).await;
        for (at, outcome) in free.into_iter().chain(groups.into_iter().flatten()) {
            taken[at] = Some(outcome);
        }
        for (at, rejection) in rejections {
            taken[at] = Some(match &held {
                Ok(()) => {
                    metric::quarantined(rejection.code.as_str());
                    Taken::Quarantined(rejection)
                }
                Err(error) => Taken::Failed(error.clone()),
            });
        }
        taken.into_iter().map(|it| it.unwrap_or(Taken::Behind)).collect()
    }

    async fn take_free(&self, messages: Vec<(usize, Incoming)>) -> Vec<(usize, Taken)> {
        let (places, batch): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        if batch.is_empty() {
            return Vec::new();
        }
        places.into_iter().zip(self.accept(batch).await.into_iter().map(Taken::from)).collect()
    }

    /// Puts a message behind the others of its group.
    fn line_up(&self, runs: &mut VecDeque<Run>, at: usize, incoming: Incoming) {
        let shard = self.store().shard_of(&incoming.parsed.message.recipient_id);
        match runs.back_mut().filter(|run| run.shard == shard) {
            Some(run) => {
                run.places.push(at);
                run.batch.push(incoming);
            }
            None => runs.push_back(Run { shard, places: vec![at], batch: vec![incoming] }),
        }
    }

    /// Appends one group in order. A run is one transaction, in order by itself; the next begins when it
    /// is durable, and not at all when it failed.
    async fn take_group(&self, mut runs: VecDeque<Run>) -> Vec<(usize, Taken)> {
        let mut taken = Vec::new();
        while let Some(run) = runs.pop_front() {
            let outcomes = self.accept(run.batch).await;
            let failed = outcomes.iter().any(Result::is_err);
            taken.extend(run.places.into_iter().zip(outcomes.into_iter().map(Taken::from)));
            if failed {
                break;
            }
        }
        // Whoever is left is said to be behind by the absence of an answer.
        taken
    }

    async fn hold(&self, unreadable: &[Unreadable], now: Timestamp) -> Result<(), LedgerError> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let mut tries = 0;
        loop {
            let error: StoreError = match self.store().quarantine_hold(unreadable, now).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tries += 1;
            if tries == HOLD_TRIES || !error.is_transient() {
                return Err(error.into());
            }
            let ceiling = 50 << tries;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(ceiling / 2..=ceiling))).await;
        }
    }

    /// Reads an input in quarantine again and appends it if it is a message now, which `by` decided.
    pub async fn retry_held(
        &self,
        id: QuarantineId,
        by: &str,
        note: Option<String>,
    ) -> Result<Retried, LedgerError> {
        let Some(held) = self.store().quarantine_get(id).await? else { return Ok(Retried::Unknown) };
        if let Some(decided) = held.entry.retried() {
            return Ok(Retried::Already(decided.clone()));
        }
        let parsed = match read_again(&held) {
            Ok(parsed) => parsed,
            Err(rejection) => return Ok(Retried::Rejected(rejection)),
        };
        let metadata = crate::event::Metadata {
            ingress: Some(format!("quarantine:{id}")),
            actor: Some(by.to_owned()),
            ..Default::default()
        };
        let receipts = self.accept(vec![Incoming { parsed, metadata }]).await;
        let receipt = receipts.into_iter().next().unwrap_or(Err(LedgerError::Stopping))?;
        let decided = Decided { at: self.now(), by: by.to_owned(), note };
        // Whether somebody else was faster does not matter: the message is in the log once.
        self.store().quarantine_decide(id, Decision::Retried, &decided).await?;
        Ok(Retried::Accepted(receipt))
    }
}

impl From<Result<Receipt, LedgerError>> for Taken {
    fn from(outcome: Result<Receipt, LedgerError>) -> Self {
        match outcome {
            Ok(receipt) => Self::Accepted(receipt),
            Err(error) => Self::Failed(error),
        }
    }
}

fn unreadable_input(ingress: &str, arrival: Arrival, rejection: &Rejection) -> Unreadable {
    let cut = arrival.size > arrival.body.len() as u64;
    let reason = if cut {
        let (size, kept) = (arrival.size, arrival.body.len());
        format!("{rejection}; of its {size} bytes the first {kept} are kept")
    } else {
        rejection.to_string()
    };
    Unreadable {
        source: format!("{ingress} {}", arrival.place),
        code: rejection.code.to_string(),
        reason,
        body: arrival.body,
        size: arrival.size,
        attributes: serde_json::to_string(&arrival.beside).unwrap_or_else(|_| "{}".to_owned()),
    }
}

fn read_again(held: &Held) -> Result<Parsed, Rejection> {
    let beside: Beside = serde_json::from_str(&held.attributes).unwrap_or_default();
    parse(&held.body, beside.outside())
}
