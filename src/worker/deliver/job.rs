//! What the delivery worker has others do while it goes on: reading, claiming, calling, recording.
//!
//! Each is a task of its own that ends in a [`Done`]; none decides what comes next.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep, timeout};

use super::super::Backoff;
use crate::{
    clock::Timestamp,
    event::{FailureClass, Metadata},
    id::{DeliveryId, MessageId, Shard},
    ledger::{
        Ledger, LedgerError,
        dispatch::{Places, Started},
    },
    message::Message,
    projection::deliveries::DeliveryStatus,
    provider::{
        Configured, Failure, Outcome, Push,
        retry::{Circumstances, after_lost},
    },
    store::{Applied, Due, DueCount, Entry, StoreError, Waiting},
    stream::{Claim, Command},
};

/// What a call may take beyond the provider's own limit before it is cut off.
const GRACE: Duration = Duration::from_secs(1);
/// Tries to record an outcome that the database refuses.
const REFUSALS_MAX: u32 = 8;

/// What every job has at hand.
#[derive(Debug, Clone)]
pub(super) struct Hands {
    pub(super) ledger: Ledger,
    pub(super) places: Places,
    /// Whose name claims are in.
    pub(super) worker: Arc<str>,
}

/// What is looked for; lanes by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    Scheduled(usize),
    Expired(usize),
    Unplanned,
}

/// What was done to due deliveries; lanes by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Claim(usize),
    Lose(usize),
    Plan,
}

/// What came of it for one delivery; nothing where the log was not asked.
pub(super) type Answer = (Due, Result<Option<Applied>, LedgerError>);

/// A job that has ended.
#[derive(Debug)]
pub(super) enum Done {
    Looked { search: Search, limit: usize, page: Result<Vec<Due>, StoreError> },
    Did { deed: Deed, answers: Vec<Answer> },
    Called(Box<Called>),
    Recorded(Vec<(DeliveryId, Option<Applied>)>),
    Counted(Result<Vec<DueCount>, StoreError>),
}

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) lane: usize,
    pub(super) message_id: MessageId,
    pub(super) shard: Shard,
    pub(super) delivery_id: DeliveryId,
    pub(super) outcome: Outcome,
    /// How long it took; none if it was not made.
    pub(super) took: Option<Duration>,
    pub(super) at: Circumstances,
}

impl Hands {
    /// Reads a page of what is due.
    pub(super) async fn look(
        self,
        search: Search,
        provider: Option<String>,
        after: Option<Due>,
        limit: usize,
    ) -> Done {
        let status = match search {
            Search::Scheduled(_) => DeliveryStatus::Scheduled,
            Search::Expired(_) => DeliveryStatus::Attempting,
            Search::Unplanned => DeliveryStatus::Unplanned,
        };
        let (waiting, now) = (Waiting { status, provider: provider.as_deref() }, self.ledger.now());
        let page = self.ledger.store().due(waiting, now, after.as_ref(), limit as u64).await;
        Done::Looked { search, limit, page }
    }

    /// Counts what is due, and what has been for longer than `bound`.
    pub(super) async fn count(self, bound: Duration) -> Done {
        let now = self.ledger.now();
        let bound = i64::try_from(bound.as_micros()).unwrap_or(i64::MAX);
        let overdue_since = Timestamp::from_micros(now.as_micros().saturating_sub(bound));
        Done::Counted(self.ledger.store().count_due(now, overdue_since).await)
    }

    /// Starts the next attempt of each.
    pub(super) async fn claim(self, lane: usize, lease: Duration, due: Vec<Due>) -> Done {
        let lease_until = self.ledger.now().plus(lease);
        let command = |due: &Due| {
            let claim = Claim { worker: self.worker.to_string(), lease_until };
            Some(Command::StartAttempt { delivery_id: due.delivery_id, claim })
        };
        let answers = self.apply(due, command).await;
        Done::Did { deed: Deed::Claim(lane), answers }
    }

    /// Ends attempts whose lease has run out.
    pub(super) async fn lose(self, lane: usize, configured: Configured, due: Vec<Due>) -> Done {
        let now = self.ledger.now();
        let lose = |due: &Due, message: &Message| {
            let at = Circumstances {
                attempt: due.attempts,
                now,
                first_due: first_due(due, message),
                expires_at: due.expires_at,
                jitter: fastrand::f64(),
            };
            let decision = after_lost(&configured.policy, &at);
            Some(Command::LoseAttempt { delivery_id: due.delivery_id, attempt: due.attempts, decision })
        };
        Done::Did { deed: Deed::Lose(lane), answers: self.apply_by_message(due, lose).await }
    }

    /// Plans what a configured provider would take by now, and ends what has expired without a plan.
    pub(super) async fn plan(self, due: Vec<Due>) -> Done {
        let now = self.ledger.now();
        let plan = |due: &Due, message: &Message| {
            let deliveries = self.ledger.routing().plan(message, now);
            let expired = due.expires_at.is_some_and(|end| end <= now);
            (expired || !deliveries.is_empty()).then_some(Command::Plan { deliveries })
        };
        Done::Did { deed: Deed::Plan, answers: self.apply_by_message(due, plan).await }
    }

    async fn apply_by_message(
        &self,
        due: Vec<Due>,
        command: impl Fn(&Due, &Message) -> Option<Command>,
    ) -> Vec<Answer> {
        let ids: Vec<_> = due.iter().map(|it| &it.message_id).collect();
        match self.ledger.store().received(&ids).await {
            Ok(messages) => self.apply(due, |due| command(due, messages.get(&due.message_id)?)).await,
            Err(error) => {
                let error = LedgerError::from(error);
                due.into_iter().map(|due| (due, Err(error.clone()))).collect()
            }
        }
    }

    /// Asks the log, all shards at once and each for all of its deliveries together.
    async fn apply(&self, due: Vec<Due>, command: impl Fn(&Due) -> Option<Command>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(due.len());
        let mut by_shard: BTreeMap<Shard, (Vec<Due>, Vec<Entry>)> = BTreeMap::new();
        for due in due {
            let Some(command) = command(&due) else {
                answers.push((due, Ok(None)));
                continue;
            };
            let (waiting, entries) = by_shard.entry(due.shard).or_default();
            entries.push(self.entry(due.message_id.clone(), command));
            waiting.push(due);
        }
        let jobs = by_shard.into_iter().map(|(shard, (due, entries))| async move {
            let applied = self.ledger.apply_in(shard, entries).await;
            due.into_iter().zip(applied.into_iter().map(|it| it.map(Some)))
        });
        answers.extend(join_all(jobs).await.into_iter().flatten());
        answers
    }

    /// Something the worker does to a message.
    pub(super) fn entry(&self, message_id: MessageId, command: Command) -> Entry {
        let metadata = Metadata {
            ingress: Some("worker".to_owned()),
            actor: Some(self.worker.to_string()),
            ..Metadata::default()
        };
        Entry { message_id, command, occurred_at: self.ledger.now(), metadata }
    }

    /// Makes the call of a started attempt, as soon as there is a place for it.
    pub(super) async fn call(
        self,
        lane: usize,
        configured: Configured,
        started: Started,
        first_due: Timestamp,
    ) -> Done {
        let Started { attempt, target, message: origin, place } = started;
        let place = match place {
            Some(place) => Some(place),
            None => self.places.enter(&attempt.provider).await,
        };
        let message_id = origin.message.message_id.clone();
        let shard = self.ledger.store().shard_of(&origin.message.recipient_id);
        let expires_at = origin.message.expires_at;
        let (outcome, took) = if attempt.lease_until < self.ledger.now().plus(configured.timeout) {
            (too_late(), None)
        } else {
            let push = Push {
                delivery_id: attempt.delivery_id,
                attempt: attempt.attempt,
                provider_key: attempt.provider_key,
                target,
                message: Arc::clone(&origin.message),
            };
            let begin = Instant::now();
            let outcome = push_guarded(&configured, &push).await;
            (outcome, Some(begin.elapsed()))
        };
        drop(place);
        let now = self.ledger.now();
        let at =
            Circumstances { attempt: attempt.attempt, now, first_due, expires_at, jitter: fastrand::f64() };
        let delivery_id = attempt.delivery_id;
        Done::Called(Box::new(Called { lane, message_id, shard, delivery_id, outcome, took, at }))
    }

    /// Records outcomes, again and again while the database cannot take them: the calls were made. Only
    /// an outcome whose own rows the database refuses is given up in the end.
    pub(super) async fn record(self, shard: Shard, outcomes: Vec<(DeliveryId, Entry)>) -> Done {
        let (mut left, mut recorded) = (outcomes, Vec::new());
        let (mut backoff, mut refusals) = (Backoff::default(), 0);
        loop {
            // One outcome that the database refuses must not keep the others from being recorded.
            let size = if refusals == 0 { left.len().max(1) } else { 1 };
            let chunks = left.chunks(size).map(<[_]>::to_vec);
            let jobs = chunks.map(|chunk| async {
                let entries = chunk.iter().map(|(_, entry)| entry.clone()).collect();
                chunk.into_iter().zip(self.ledger.apply_in(shard, entries).await).collect::<Vec<_>>()
            });
            let (mut again, mut refused, mut trouble) = (Vec::new(), 0, None);
            for ((delivery_id, entry), result) in join_all(jobs).await.into_iter().flatten() {
                match result {
                    Ok(applied) => recorded.push((delivery_id, Some(applied))),
                    Err(error) => {
                        let ends = matches!(error, LedgerError::Stopping)
                            || (error.blames_rows() && refusals >= REFUSALS_MAX);
                        refused += usize::from(ends);
                        if ends {
                            recorded.push((delivery_id, None));
                        } else {
                            again.push((delivery_id, entry));
                        }
                        trouble = Some(error);
                    }
                }
            }
            let Some(error) = trouble else { return Done::Recorded(recorded) };
            tell(&error, refused, again.len(), backoff.failures());
            if again.is_empty() {
                return Done::Recorded(recorded);
            }
            refusals += u32::from(error.blames_rows());
            left = again;
            sleep(backoff.next_pause()).await;
        }
    }
}

/// When a delivery was first to be sent.
pub(super) fn first_due(due: &Due, message: &Message) -> Timestamp {
    message.deliver_at.map_or(due.planned_at, |at| at.max(due.planned_at))
}

/// Calls the provider, and comes back whatever the provider does.
async fn push_guarded(configured: &Configured, push: &Push) -> Outcome {
    let call = AssertUnwindSafe(configured.provider.push(push)).catch_unwind();
    let (code, answer) = match timeout(configured.timeout + GRACE, call).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(_)) => ("panic", "the provider's adapter failed in the middle of the call"),
        Err(_) => ("timeout", "the call did not end within its time"),
    };
    tracing::error!(
        provider = configured.provider.name(),
        delivery_id = %push.delivery_id,
        attempt = push.attempt,
        code,
        "a call to a provider did not end as it should; its outcome is unknown"
    );
    failed(FailureClass::Unknown, code, answer)
}

/// A call at this moment could outlast the lease, and meet one that another worker makes.
fn too_late() -> Outcome {
    failed(FailureClass::Retry, "not_called", "not sent: the wait for a free place took too long")
}

fn failed(class: FailureClass, code: &str, answer: &str) -> Outcome {
    Outcome::Failed(Failure { answer: Some(answer.to_owned()), ..Failure::new(class, code) })
}

fn tell(error: &LedgerError, refused: usize, waiting: usize, failures: u32) {
    let error = super::super::chain(error);
    if refused > 0 {
        tracing::error!(error, refused, "outcomes of calls were not recorded; they count as lost");
    } else if failures == 0 {
        tracing::warn!(error, waiting, "outcomes of calls wait to be recorded");
    }
}
