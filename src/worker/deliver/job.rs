//! What the delivery worker has others do while it goes on: reading, claiming, calling, recording.
//!
//! Each is a task of its own that ends in a [`Done`]; none decides what comes next.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep, timeout};

use super::{super::Backoff, lane::Past, receipt};
use crate::{
    clock::Timestamp,
    device::{Device, Obituary},
    event::{FailureClass, Metadata, SuppressReason},
    id::{DeliveryId, MessageId, RecipientId, Shard},
    ledger::{
        Ledger, LedgerError,
        dispatch::{Places, Started},
    },
    message::{Message, Target},
    projection::deliveries::DeliveryStatus,
    provider::{
        Configured, Failure, Outcome, Push, Said,
        retry::{Circumstances, after_lost},
    },
    store::{Applied, Control, Due, DueCount, Entry, StoreError, Waiting},
    stream::{Able, Claim, Command, Failover},
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
    Retrying(usize),
    Expired(usize),
    Pending(usize),
    /// What another provider could take while this one is shut.
    Stranded(usize),
    Unplanned,
}

/// What was done to due deliveries; lanes by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Claim(usize),
    Lose(usize),
    FailOver,
    Plan,
}

/// What came of it for one delivery; nothing where the log was not asked.
pub(super) type Answer = (Due, Result<Option<Applied>, LedgerError>);

/// A job that has ended.
#[derive(Debug)]
pub(super) enum Done {
    Looked {
        search: Search,
        limit: usize,
        page: Result<Vec<Due>, StoreError>,
    },
    Did {
        deed: Deed,
        answers: Vec<Answer>,
    },
    Called(Vec<Called>),
    /// The provider was asked what became of pushes; these have a word now.
    Asked {
        lane: usize,
        answers: Result<Vec<Called>, Failure>,
        asked: Vec<DeliveryId>,
    },
    Recorded(Vec<(DeliveryId, Option<Applied>)>),
    Counted(Result<Vec<DueCount>, StoreError>),
    /// What holds for all processes.
    Controlled(Result<Vec<Control>, StoreError>),
    /// A provider was paused or resumed for all processes.
    Noted {
        control: Control,
        result: Result<(), StoreError>,
    },
    /// What is known of devices was written down.
    Buried {
        words: Words,
        result: Result<(), StoreError>,
    },
}

/// What is written down of devices.
#[derive(Debug)]
pub(super) enum Words {
    Dead(Vec<Obituary>),
    /// What a provider said of them since then is taken back.
    TakenBack {
        provider: String,
        since: Timestamp,
    },
}

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) lane: usize,
    pub(super) message_id: MessageId,
    pub(super) shard: Shard,
    pub(super) delivery_id: DeliveryId,
    /// Which attempt; `at` counts only those that count against the delivery.
    pub(super) attempt: u32,
    pub(super) target: Target,
    /// Whether that is a registered device.
    pub(super) to_device: bool,
    /// When the call began.
    pub(super) began: Timestamp,
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
            Search::Scheduled(_) | Search::Stranded(_) => DeliveryStatus::Scheduled,
            Search::Retrying(_) => DeliveryStatus::Retrying,
            Search::Expired(_) => DeliveryStatus::Attempting,
            Search::Pending(_) => DeliveryStatus::Pending,
            Search::Unplanned => DeliveryStatus::Unplanned,
        };
        let routed = matches!(search, Search::Stranded(_));
        let (waiting, now) = (Waiting { status, provider: provider.as_deref(), routed }, self.ledger.now());
        let store = self.ledger.store();
        let mut page = store.due(waiting, now, after.as_ref(), limit as u64).await;
        if let (Search::Stranded(_), Ok(found)) = (search, &mut page)
            && found.len() < limit
        {
            // Those that have been tried are in another range; they follow in the same page.
            let retrying = Waiting { status: DeliveryStatus::Retrying, ..waiting };
            match store.due(retrying, now, None, (limit - found.len()) as u64).await {
                Ok(more) => found.extend(more),
                Err(error) => page = Err(error),
            }
        }
        Done::Looked { search, limit, page }
    }

    /// Reads what holds for all processes.
    pub(super) async fn controls(self) -> Done {
        Done::Controlled(self.ledger.store().controls().await)
    }

    /// Pauses or resumes a provider for all processes.
    pub(super) async fn control(self, control: Control) -> Done {
        let result = self.ledger.store().control(&control).await.map(drop);
        Done::Noted { control, result }
    }

    /// Puts down devices as dead, or takes that back.
    pub(super) async fn bury(self, words: Words) -> Done {
        let (store, now) = (self.ledger.store(), self.ledger.now());
        let result = match &words {
            Words::Dead(dead) => store.bury_devices(dead, now).await,
            Words::TakenBack { provider, since } => store.unbury_devices(provider, *since).await,
        };
        Done::Buried { words, result: result.map(drop) }
    }

    /// Counts what is due, and what has been for longer than `bound`.
    pub(super) async fn count(self, bound: Duration) -> Done {
        let now = self.ledger.now();
        let bound = i64::try_from(bound.as_micros()).unwrap_or(i64::MAX);
        let overdue_since = Timestamp::from_micros(now.as_micros().saturating_sub(bound));
        Done::Counted(self.ledger.store().count_due(now, overdue_since).await)
    }

    /// Starts the next attempt of each; of those with one collapse key only the newest is sent, and nothing
    /// to a device that is signed out, dead, or somebody else's by now.
    pub(super) async fn claim(self, lane: usize, lease: Duration, due: Vec<Due>) -> Done {
        let both = async {
            let superseded = self.ledger.store().superseded(&due, self.ledger.now()).await?;
            Ok::<_, StoreError>((superseded, self.moved(&due).await?))
        };
        let (superseded, mut moved) = match both.await {
            Ok(both) => both,
            Err(error) => return Done::Did { deed: Deed::Claim(lane), answers: not_asked(due, error) },
        };
        let lease_until = self.ledger.now().plus(lease);
        let command = |due: &Due| {
            let delivery_id = due.delivery_id;
            if superseded.contains(&delivery_id) {
                return Some(Command::Suppress { delivery_id, reason: SuppressReason::Superseded });
            }
            match moved.remove(&delivery_id) {
                Some(Some(command)) => return Some(command),
                Some(None) => {
                    return Some(Command::Suppress { delivery_id, reason: SuppressReason::NoTarget });
                }
                None => {}
            }
            let claim = Claim { worker: self.worker.to_string(), lease_until };
            Some(Command::StartAttempt { delivery_id, claim })
        };
        let answers = self.apply(due, command).await;
        Done::Did { deed: Deed::Claim(lane), answers }
    }

    /// Which of these were planned for a device whose target is not the recipient's any more, and what is to
    /// be done: it goes to the device's new target, or nowhere where the device is signed out, dead, or
    /// somebody else's.
    async fn moved(&self, due: &[Due]) -> Result<HashMap<DeliveryId, Option<Command>>, StoreError> {
        let own: Vec<_> = due.iter().filter(|it| it.device_id.is_some()).collect();
        let recipients: Vec<_> =
            own.iter().filter_map(|it| RecipientId::new(&it.recipient_id).ok()).collect();
        let living = self.ledger.store().living_devices(&recipients.iter().collect::<Vec<_>>()).await?;
        let of = |due: &Due| {
            living.iter().find(|(it, _)| it.as_str() == due.recipient_id).map_or(&[][..], |(_, it)| it)
        };
        let holds =
            |due: &&&Due| of(due).iter().any(|it| Some(&it.registration.target) == due.target.as_ref());
        let gone: Vec<_> = own.iter().filter(|it| !holds(it)).collect();
        let same = |due: &Due| {
            let is_same = |it: &&Device| Some(it.registration.device_id.as_str()) == due.device_id.as_deref();
            of(due).iter().find(is_same)
        };
        let ids: Vec<_> = gone.iter().filter(|it| same(it).is_some()).map(|it| &it.message_id).collect();
        let messages =
            if ids.is_empty() { HashMap::new() } else { self.ledger.store().received(&ids).await? };
        let (routing, now) = (self.ledger.routing(), self.ledger.now());
        let command = |due: &Due| {
            let (device, message) = (same(due)?, messages.get(&due.message_id)?);
            let (afresh, _) = routing.plan(message, std::slice::from_ref(device), now).into_parts();
            let afresh = afresh.into_iter().find(|it| it.device_id.is_some()).map(Box::new);
            let to = Box::new((device.registration.target.clone(), device.registration.device_id.clone()));
            let (delivery_id, fits) = (due.delivery_id, routing.fitting(device));
            Some(Command::Move { delivery_id, afresh, to, fits })
        };
        Ok(gone.iter().map(|it| (it.delivery_id, command(it))).collect())
    }

    /// Ends attempts whose lease has run out.
    pub(super) async fn lose(
        self,
        lane: usize,
        configured: Configured,
        failover: Failover,
        due: Vec<Due>,
    ) -> Done {
        let now = self.ledger.now();
        let lose = |due: &Due| {
            let at = Circumstances {
                attempt: due.attempts.saturating_sub(due.uncounted),
                now,
                first_due: due.first_due_at,
                expires_at: due.expires_at,
                jitter: fastrand::f64(),
            };
            let decision = after_lost(&configured.policy, &at);
            let (delivery_id, attempt) = (due.delivery_id, due.attempts);
            let failover = failover.clone();
            Some(Command::LoseAttempt { delivery_id, attempt, decision, failover })
        };
        Done::Did { deed: Deed::Lose(lane), answers: self.apply(due, lose).await }
    }

    /// Gives deliveries to the next provider of their routes.
    pub(super) async fn fail_over(self, from: String, reason: String, able: Able, due: Vec<Due>) -> Done {
        let command = |due: &Due| {
            let (from, reason, able) = (from.clone(), reason.clone(), able.clone());
            Some(Command::FailOver { delivery_id: due.delivery_id, from, reason, able })
        };
        Done::Did { deed: Deed::FailOver, answers: self.apply(due, command).await }
    }

    /// Plans what a configured provider would take by now, and ends what has expired without a plan.
    pub(super) async fn plan(self, due: Vec<Due>) -> Done {
        let (deed, now) = (Deed::Plan, self.ledger.now());
        let (messages, devices) = match self.messages_and_devices(&due).await {
            Ok(both) => both,
            Err(error) => return Done::Did { deed, answers: not_asked(due, error) },
        };
        let plan = |due: &Due| {
            let message = messages.get(&due.message_id)?;
            let own = devices.get(&message.recipient_id).map_or(&[][..], Vec::as_slice);
            let expired = due.expires_at.is_some_and(|end| end <= now);
            let (deliveries, is_nowhere) = self.ledger.routing().plan(message, own, now).into_parts();
            let is_something = expired || is_nowhere || !deliveries.is_empty();
            is_something.then_some(Command::Plan { deliveries, is_nowhere })
        };
        Done::Did { deed, answers: self.apply(due, plan).await }
    }

    async fn messages_and_devices(
        &self,
        due: &[Due],
    ) -> Result<(HashMap<MessageId, Arc<Message>>, HashMap<RecipientId, Vec<Device>>), StoreError> {
        let ids: Vec<_> = due.iter().map(|it| &it.message_id).collect();
        let messages = self.ledger.store().received(&ids).await?;
        let devices = self.ledger.devices_for(messages.values().map(AsRef::as_ref)).await?;
        Ok((messages, devices))
    }

    /// Asks the log, all shards at once and each for all of its deliveries together.
    async fn apply(&self, due: Vec<Due>, mut command: impl FnMut(&Due) -> Option<Command>) -> Vec<Answer> {
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

    /// Makes the one call of these started attempts, as soon as there is a place for it.
    pub(super) async fn call(
        self,
        lane: usize,
        configured: Configured,
        started: Vec<(Started, Past)>,
    ) -> Done {
        let mut started = started;
        let mut places: Vec<_> = started.iter_mut().filter_map(|(it, _)| it.place.take()).collect();
        if places.is_empty() {
            places.extend(self.places.enter(configured.provider.name()).await);
        }
        let (now, begin) = (self.ledger.now(), Instant::now());
        let (in_time, overdue): (Vec<_>, Vec<_>) =
            started.into_iter().partition(|(it, _)| it.attempt.lease_until >= now.plus(configured.timeout));
        let push = |(it, _): &(Started, Past)| Push {
            delivery_id: it.attempt.delivery_id,
            attempt: it.attempt.attempt,
            provider_key: it.attempt.provider_key.clone(),
            target: it.target.clone(),
            message: Arc::clone(&it.message.message),
        };
        let pushes: Vec<_> = in_time.iter().map(push).collect();
        let outcomes = push_guarded(&configured, &pushes).await;
        let took = begin.elapsed();
        drop(places);
        let ended = |outcome: Outcome, took: Option<Duration>, (it, past): (Started, Past)| {
            let message = &it.message.message;
            Called {
                lane,
                message_id: message.message_id.clone(),
                shard: self.ledger.store().shard_of(&message.recipient_id),
                delivery_id: it.attempt.delivery_id,
                attempt: it.attempt.attempt,
                began: now,
                outcome,
                took,
                at: Circumstances {
                    attempt: it.attempt.attempt.saturating_sub(past.uncounted),
                    now: self.ledger.now(),
                    first_due: past.first_due,
                    expires_at: message.expires_at,
                    jitter: fastrand::f64(),
                },
                to_device: it.to_device,
                target: it.target,
            }
        };
        let made = in_time.into_iter().zip(outcomes).map(|(it, outcome)| ended(outcome, Some(took), it));
        let not_made = overdue.into_iter().map(|it| ended(too_late(), None, it));
        Done::Called(made.chain(not_made).collect())
    }

    /// Asks a provider what became of pushes that are pending.
    pub(super) async fn ask(self, lane: usize, configured: Configured, due: Vec<Due>) -> Done {
        let asked = due.iter().map(|it| it.delivery_id).collect();
        let askable = due.into_iter().filter(|it| it.ticket.is_some() && it.target.is_some());
        let due: Vec<_> = askable.collect();
        let tickets: Vec<_> = due.iter().filter_map(|it| it.ticket.clone()).collect();
        let (now, begin) = (self.ledger.now(), Instant::now());
        let Some(receipts) = configured.provider.receipts() else {
            return Done::Asked { lane, answers: Ok(Vec::new()), asked };
        };
        let question = AssertUnwindSafe(receipts.ask(&tickets)).catch_unwind();
        let said = match timeout(configured.timeout + GRACE, question).await {
            Ok(Ok(Ok(said))) if said.len() == tickets.len() => said,
            Ok(Ok(Err(failure))) => return Done::Asked { lane, answers: Err(failure), asked },
            _ => {
                let failure = Failure::new(FailureClass::Unknown, "no_answer");
                return Done::Asked { lane, answers: Err(failure), asked };
            }
        };
        let took = begin.elapsed();
        let answer = |(due, said): (Due, Said)| {
            let since = due.pending_since.unwrap_or(now);
            let ticket = due.ticket.clone().unwrap_or_default();
            let outcome = match said {
                Said::Finally(outcome) => outcome,
                Said::NotYet => receipt::not_yet(ticket, since, now),
            };
            Some(Called {
                lane,
                message_id: due.message_id,
                shard: due.shard,
                delivery_id: due.delivery_id,
                attempt: due.attempts,
                to_device: due.device_id.is_some(),
                target: due.target?,
                began: since,
                outcome,
                took: Some(took),
                at: Circumstances {
                    attempt: due.attempts.saturating_sub(due.uncounted),
                    now,
                    first_due: due.first_due_at,
                    expires_at: due.expires_at,
                    jitter: fastrand::f64(),
                },
            })
        };
        Done::Asked { lane, answers: Ok(due.into_iter().zip(said).filter_map(answer).collect()), asked }
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

/// What comes of deliveries about which the log could not be asked.
fn not_asked(due: Vec<Due>, error: StoreError) -> Vec<Answer> {
    let error = LedgerError::from(error);
    due.into_iter().map(|due| (due, Err(error.clone()))).collect()
}

/// Calls the provider, and comes back with an outcome for each push whatever the provider does.
async fn push_guarded(configured: &Configured, pushes: &[Push]) -> Vec<Outcome> {
    let Some(first) = pushes.first() else { return Vec::new() };
    let provider = &configured.provider;
    let call = async {
        match provider.batch() {
            Some(batch) => batch.push_all(pushes).await,
            None => vec![provider.push(first).await],
        }
    };
    let (code, answer) =
        match timeout(configured.timeout + GRACE, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(outcomes)) if outcomes.len() == pushes.len() => return outcomes,
            Ok(Ok(_)) => ("adapter", "the provider's adapter answered for another number of pushes"),
            Ok(Err(_)) => ("panic", "the provider's adapter failed in the middle of the call"),
            Err(_) => ("timeout", "the call did not end within its time"),
        };
    tracing::error!(
        provider = provider.name(),
        delivery_id = %first.delivery_id,
        attempt = first.attempt,
        pushes = pushes.len(),
        code,
        "a call to a provider did not end as it should; its outcome is unknown"
    );
    vec![failed(FailureClass::Unknown, code, answer); pushes.len()]
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
