//! The product's verbs: accept, mark, claim, record. Each loads what is there, decides, appends.
//!
//! All of them go through the appenders ([`appender`]), which gather whatever is waiting into one
//! transaction. Nothing is answered before it is durable (ACK-AFTER-COMMIT).

pub mod appender;
pub mod dispatch;
pub mod intake;
pub mod live;
pub mod operate;
pub mod past;
pub mod progress;
pub mod providers;
pub mod reports;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    clock::{Clock, Timestamp},
    device::Device,
    event::{Event, Metadata},
    id::{Cursor, MessageId, RecipientId, Shard},
    message::{Message, Parsed},
    metric,
    routing::Routing,
    store::{Applied, Entry, Store, StoreError},
    stream::{Command, Mark, Receive, Refusal},
    wake::Wake,
};
use futures_util::future::join_all;

use appender::{Appender, Inbound};
use dispatch::{Dispatch, Permits};
use progress::Progress;

/// The ledger as everybody uses it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    routing: Routing,
    dispatch: Option<Dispatch>,
    appenders: Inbound,
    progress: Progress,
    appended: Wake,
}

/// How the ledger is put together.
#[derive(Debug)]
pub struct LedgerOptions {
    /// Events in one transaction at the most.
    pub batch_max: usize,
    /// The providers as far as planning needs them.
    pub routing: Routing,
    /// Room for calls right after the commit, where this process delivers.
    pub dispatch: Option<Dispatch>,
}

/// A message that arrived, understood.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// What it says.
    pub parsed: Parsed,
    /// How it came.
    pub metadata: Metadata,
}

/// What became of an arrival; all of them mean that the sender may forget it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is in the log now.
    Appended(Cursor),
    /// It was in the log already.
    Redelivered(Cursor),
    /// Its id is taken by other content, which stays; the conflict is on record.
    Conflict(Cursor),
}

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// What to read one's own write by.
    pub cursor: Cursor,
    /// Whether it was not so before.
    pub is_new: bool,
}

/// Why the ledger could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The database does not answer; the same may succeed later.
    #[error("the database is not available")]
    Unavailable(#[source] Arc<StoreError>),
    /// The database refuses.
    #[error("the ledger could not be written or read")]
    Failed(#[source] Arc<StoreError>),
    /// The process is ending.
    #[error("the ledger is stopping")]
    Stopping,
}

impl LedgerError {
    /// Whether it is about these very entries, so that the same cannot succeed later.
    #[must_use]
    pub fn blames_rows(&self) -> bool {
        matches!(self, Self::Failed(error) if error.blames_rows())
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { Self::Unavailable(Arc::new(error)) } else { Self::Failed(Arc::new(error)) }
    }
}

impl Ledger {
    /// Puts the ledger together. The appenders have to be run; they end when the last clone of the
    /// ledger is gone and everything handed to them is durable.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, options: LedgerOptions) -> (Self, Vec<Appender>) {
        let appended = Wake::default();
        let (appenders, tasks) = Appender::all(&store, &clock, options.batch_max, &appended);
        let LedgerOptions { routing, dispatch, .. } = options;
        let progress = Progress::default();
        let inner = Inner { store, clock, routing, dispatch, appenders, progress, appended };
        (Self { inner: Arc::new(inner) }, tasks)
    }

    /// The database under it, for reading.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The present moment by the ledger's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.clock)
    }

    /// Rings when something was appended by this process; a hint without data.
    #[must_use]
    pub fn appended(&self) -> Wake {
        self.inner.appended.clone()
    }

    /// How far the projections are, as far as this process knows.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.inner.progress
    }

    /// The configured providers as far as planning needs them.
    #[must_use]
    pub fn routing(&self) -> &Routing {
        &self.inner.routing
    }

    /// Appends messages, each once. Answers in their order, when everything that succeeded is durable.
    pub async fn accept(&self, batch: Vec<Incoming>) -> Vec<Result<Receipt, LedgerError>> {
        let now = self.now();
        let devices = match self.devices_for(batch.iter().map(|it| &it.parsed.message)).await {
            Ok(devices) => devices,
            Err(error) => {
                let error = LedgerError::from(error);
                return batch.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let ingress = batch.first().and_then(|it| it.metadata.ingress.clone());
        let mut permits = Vec::with_capacity(batch.len());
        let entries = batch
            .into_iter()
            .map(|incoming| {
                let own = devices.get(&incoming.parsed.message.recipient_id);
                let (entry, permit) = self.arrival(incoming, own.map_or(&[], Vec::as_slice), now);
                permits.push(permit);
                entry
            })
            .collect();
        let applied = self.apply(entries).await;
        let settle = |(applied, permits): (Result<Applied, LedgerError>, _)| {
            applied.and_then(|applied| self.settle(applied, permits))
        };
        let receipts: Vec<_> = applied.into_iter().zip(permits).map(settle).collect();
        count(ingress.as_deref().unwrap_or("unknown"), &receipts);
        receipts
    }

    /// The living devices of everybody whose push has no targets of its own, in one query; no query where
    /// there is no such push.
    pub(crate) async fn devices_for(
        &self,
        messages: impl Iterator<Item = &Message>,
    ) -> Result<HashMap<RecipientId, Vec<Device>>, StoreError> {
        let wanted = messages.filter(|it| self.inner.routing.needs_devices(it));
        let recipients: Vec<_> = wanted.map(|it| &it.recipient_id).collect();
        self.inner.store.living_devices(&recipients).await
    }

    fn arrival(&self, incoming: Incoming, devices: &[Device], now: Timestamp) -> (Entry, Permits) {
        let Incoming { parsed, mut metadata } = incoming;
        metadata.envelope = parsed.envelope.map(ToOwned::to_owned);
        metadata.weak_id = parsed.weak_id.map(ToOwned::to_owned);
        metadata.unknown_fields = parsed.unknown_fields;
        let (message, content_hash) = (parsed.message, parsed.content_hash);
        let (plan, is_nowhere) = self.inner.routing.plan(&message, devices, now).into_parts();
        let dispatch = self.inner.dispatch.as_ref();
        let due = plan.iter().filter(|it| it.due_at <= now).map(|it| it.provider.as_str());
        let permits = dispatch.and_then(|it| it.reserve(due)).unwrap_or_default();
        let lease = plan.iter().map(|it| self.inner.routing.lease(&it.provider)).max();
        let claim = dispatch.zip(lease).filter(|_| !permits.is_empty());
        let claim = claim.map(|(dispatch, lease)| dispatch.claim(now.plus(lease)));
        let entry = Entry {
            message_id: message.message_id.clone(),
            occurred_at: message.occurred_at.unwrap_or(now),
            command: Command::Receive(Box::new(Receive {
                message: Arc::new(message),
                content_hash,
                plan,
                is_nowhere,
                claim,
            })),
            metadata,
        };
        (entry, permits)
    }

    fn settle(&self, applied: Applied, permits: Permits) -> Result<Receipt, LedgerError> {
        Ok(match applied {
            Applied::Appended { cursor, events, origin } => {
                if let (Some(dispatch), Some(origin)) = (&self.inner.dispatch, origin) {
                    dispatch.send(&events, &origin, permits);
                }
                match events.first() {
                    Some(Event::MessageReceived(_)) => Receipt::Appended(cursor),
                    _ => Receipt::Conflict(cursor),
                }
            }
            Applied::Unchanged { cursor } => Receipt::Redelivered(cursor),
            Applied::Refused { refusal, cursor } => {
                let cursor = cursor.unwrap_or_else(Cursor::start);
                match refusal {
                    Refusal::ConflictKnown => Receipt::Conflict(cursor),
                    _ => Receipt::Redelivered(cursor),
                }
            }
            // `apply` follows these; nothing is on record of a message that is still sent elsewhere.
            Applied::Elsewhere(shard) => {
                let error = format!("shard {shard} is named as a message's home and does not have it");
                return Err(StoreError::Corrupt(error).into());
            }
        })
    }

    /// Does what a recipient did with inbox items. Each answer is what became of it, or why it does not
    /// fit.
    pub async fn mark(
        &self,
        recipient: &RecipientId,
        marks: Vec<(MessageId, Mark)>,
        metadata: &Metadata,
    ) -> Vec<Result<Result<Marked, Refusal>, LedgerError>> {
        let occurred_at = self.now();
        let entry = |(message_id, mark)| Entry {
            message_id,
            command: Command::Mark { recipient: recipient.clone(), mark },
            occurred_at,
            metadata: metadata.clone(),
        };
        let shard = self.inner.store.shard_of(recipient);
        let entries: Vec<_> = marks.into_iter().map(entry).collect();
        let applied = self.apply_in(shard, entries).await;
        applied.into_iter().map(|applied| applied.map(answer)).collect()
    }

    /// Does something to messages whose shard is known.
    pub async fn apply_in(&self, shard: Shard, entries: Vec<Entry>) -> Vec<Result<Applied, LedgerError>> {
        let count = entries.len();
        match self.inner.appenders.append(shard, entries).await.1 {
            Ok(applied) => applied.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Sends arrivals to the shards of their recipients, and on to where their id lives already.
    async fn apply(&self, entries: Vec<Entry>) -> Vec<Result<Applied, LedgerError>> {
        let mut answers: Vec<Result<Applied, LedgerError>> = vec![Err(LedgerError::Stopping); entries.len()];
        let mut waiting: Vec<(usize, Shard, Entry)> =
            entries.into_iter().enumerate().map(|(at, entry)| (at, self.shard_of(&entry), entry)).collect();
        // A message id moves at most once: from its recipient's shard to the one that has it.
        for _ in 0..3 {
            let mut by_shard: BTreeMap<Shard, (Vec<usize>, Vec<Entry>)> = BTreeMap::new();
            for (at, shard, entry) in waiting.drain(..) {
                let (places, entries) = by_shard.entry(shard).or_default();
                places.push(at);
                entries.push(entry);
            }
            let jobs = by_shard.into_iter().map(|(shard, (places, entries))| async move {
                (places, self.inner.appenders.append(shard, entries).await)
            });
            for (places, (entries, applied)) in join_all(jobs).await {
                match applied {
                    Ok(applied) => {
                        for ((at, entry), applied) in places.into_iter().zip(entries).zip(applied) {
                            if let Applied::Elsewhere(home) = applied {
                                waiting.push((at, home, entry));
                            }
                            answers[at] = Ok(applied);
                        }
                    }
                    Err(error) => places.into_iter().for_each(|at| answers[at] = Err(error.clone())),
                }
            }
            if waiting.is_empty() {
                break;
            }
        }
        answers
    }

    fn shard_of(&self, entry: &Entry) -> Shard {
        match &entry.command {
            Command::Receive(arrival) => self.inner.store.shard_of(&arrival.message.recipient_id),
            _ => Shard(0),
        }
    }
}

/// Counts what became of messages, whatever door they came in by.
fn count(ingress: &str, receipts: &[Result<Receipt, LedgerError>]) {
    let of = |kind: fn(&Receipt) -> bool| receipts.iter().flatten().filter(|it| kind(it)).count();
    metric::accepted(
        ingress,
        of(|it| matches!(it, Receipt::Appended(_))),
        of(|it| matches!(it, Receipt::Redelivered(_))),
        of(|it| matches!(it, Receipt::Conflict(_))),
    );
}

fn answer(applied: Applied) -> Result<Marked, Refusal> {
    match applied {
        Applied::Appended { cursor, .. } => Ok(Marked { cursor, is_new: true }),
        Applied::Unchanged { cursor } => Ok(Marked { cursor, is_new: false }),
        Applied::Refused { refusal, .. } => Err(refusal),
        Applied::Elsewhere(_) => Err(Refusal::UnknownMessage),
    }
}
