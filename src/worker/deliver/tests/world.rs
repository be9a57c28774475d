//! A ledger on a SQLite file with a clock that stands still, and providers that do as they are told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use super::super::{Deliver, DeliverOptions};
use crate::{
    clock::{Clock, ManualClock, Timestamp},
    event::{Event, FailureClass, Metadata, Recorded},
    id::{MessageId, Position, Shard},
    ledger::{
        Incoming, Ledger, LedgerOptions, Receipt,
        dispatch::{Dispatch, Takes},
    },
    message::parse::{Outside, parse},
    projection::deliveries::Deliveries,
    provider::{
        Batch, Breaking, Configured, Failure, Limits, Outcome, Provider, Push, Receipts, Said,
        retry::{OnUnknown, Policy},
    },
    routing::Routing,
    store::{DbOptions, NewLedger, Slot, Step, Store},
};

pub(super) const LEASE: Duration = Duration::from_secs(30);
pub(super) const PLACES: usize = 4;

/// What the provider does with one call.
#[derive(Debug)]
pub(super) enum Play {
    Answer(Outcome),
    /// Answers once it is released.
    Hold(Outcome),
    Panic,
}

/// A provider that plays a script, and accepts when it is over.
#[derive(Debug)]
pub(super) struct Scripted {
    name: &'static str,
    script: Mutex<VecDeque<Play>>,
    /// Takes so many pushes a call, and may be asked for receipts.
    batch: Option<usize>,
    said: Mutex<VecDeque<Said>>,
    asked: Mutex<Vec<Vec<String>>>,
    sizes: Mutex<Vec<usize>>,
    calls: Mutex<Vec<Push>>,
    called: Notify,
    released: Semaphore,
}

impl Scripted {
    pub(super) fn new(name: &'static str) -> Arc<Self> {
        Self::with_batches(name, None)
    }

    /// One that takes many pushes a call, and is asked for receipts two at a time.
    pub(super) fn with_batches(name: &'static str, batch: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            name,
            script: Mutex::default(),
            batch,
            said: Mutex::default(),
            asked: Mutex::default(),
            sizes: Mutex::default(),
            calls: Mutex::default(),
            called: Notify::new(),
            released: Semaphore::new(0),
        })
    }

    pub(super) fn play(&self, script: impl IntoIterator<Item = Play>) {
        self.script.lock().unwrap().extend(script);
    }

    /// The calls so far: message and attempt.
    pub(super) fn calls(&self) -> Vec<(String, u32)> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|it| (it.message.message_id.to_string(), it.attempt)).collect()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|it| it.provider_key.clone()).collect()
    }

    /// What it says to tickets, in their order; nothing yet when it is over.
    pub(super) fn say(&self, said: impl IntoIterator<Item = Said>) {
        self.said.lock().unwrap().extend(said);
    }

    /// How many tickets it was asked about, question by question.
    pub(super) fn questions(&self) -> Vec<usize> {
        self.asked.lock().unwrap().iter().map(Vec::len).collect()
    }

    /// How many pushes each call had.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.sizes.lock().unwrap().clone()
    }

    /// Waits for a call that nobody has waited for yet.
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }

    pub(super) fn release(&self) {
        self.released.add_permits(1);
    }
}

impl Batch for Scripted {
    fn size_max(&self) -> usize {
        self.batch.unwrap_or(1)
    }

    fn push_all<'a>(&'a self, pushes: &'a [Push]) -> BoxFuture<'a, Vec<Outcome>> {
        self.sizes.lock().unwrap().push(pushes.len());
        async move {
            let mut outcomes = Vec::new();
            for push in pushes {
                outcomes.push(self.push(push).await);
            }
            outcomes
        }
        .boxed()
    }
}

impl Receipts for Scripted {
    fn size_max(&self) -> usize {
        2
    }

    fn ask<'a>(&'a self, tickets: &'a [String]) -> BoxFuture<'a, Result<Vec<Said>, Failure>> {
        self.asked.lock().unwrap().push(tickets.to_vec());
        let mut said = self.said.lock().unwrap();
        let answers = tickets.iter().map(|_| said.pop_front().unwrap_or(Said::NotYet)).collect();
        ready(Ok(answers)).boxed()
    }
}

impl Provider for Scripted {
    fn batch(&self) -> Option<&dyn Batch> {
        self.batch.is_some().then_some(self as &dyn Batch)
    }

    fn receipts(&self) -> Option<&dyn Receipts> {
        self.batch.is_some().then_some(self as &dyn Receipts)
    }

    fn name(&self) -> &str {
        self.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            self.calls.lock().unwrap().push(push.clone());
            let play = self.script.lock().unwrap().pop_front();
            self.called.notify_one();
            match play.unwrap_or(Play::Answer(accepted())) {
                Play::Answer(outcome) => outcome,
                Play::Hold(outcome) => {
                    self.released.acquire().await.unwrap().forget();
                    outcome
                }
                Play::Panic => panic!("an adapter with a mistake"),
            }
        }
        .boxed()
    }
}

pub(super) fn accepted() -> Outcome {
    Outcome::Accepted { provider_message_id: Some("p-1".to_owned()), status: Some(200) }
}

pub(super) fn failed(class: FailureClass) -> Outcome {
    let code = class.as_str().to_owned();
    Outcome::Failed(Failure { status: Some(503), ..Failure::new(class, code) })
}

/// A provider as configured: called four at a time at the most, the first retry after ten seconds.
pub(super) fn configured(provider: &Arc<Scripted>, on_unknown: OnUnknown) -> Configured {
    let schedule = vec![Duration::from_secs(10), Duration::from_mins(1)];
    let provider: Arc<dyn Provider> = Arc::clone(provider) as _;
    Configured {
        provider,
        kind: "log",
        policy: Policy { schedule, jitter: 0.0, on_unknown, ..Policy::default() },
        concurrency: 4,
        timeout: Duration::from_secs(10),
        limits: Limits {
            rate: None,
            breaker: Breaking { share: 2.0, calls_min: 10, window: LEASE, open: LEASE },
            invalid_share: 2.0,
        },
        lease: LEASE,
    }
}

/// The database, and the time there.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Store,
    _folder: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-11-22T09:00:00Z").unwrap()));
        let options = DbOptions {
            url: format!("sqlite://{}", folder.path().join("ledger.db").display()),
            pooler: false,
            max_connections: 4,
            acquire_timeout: Duration::from_millis(250),
        };
        let new = NewLedger { ledger_id: "test".to_owned(), shards: Some(2), created_at: clock.now() };
        let store = Store::create_or_open(&options, None, &new).await.unwrap();
        store.ensure_projection(&Deliveries, clock.now()).await.unwrap();
        Self { clock, store, _folder: folder }
    }

    /// A process that delivers through these providers; the first takes what names none. With `rides`,
    /// first attempts ride with the arrivals.
    pub(super) fn process(&self, worker: &str, rides: bool, providers: &[Configured]) -> Process {
        let name = |it: &Configured| it.provider.name().to_owned();
        let routing = Routing::universal(providers.iter().map(|it| (name(it), it.lease)));
        self.process_with(worker, rides, providers, routing)
    }

    /// The same with routes.
    pub(super) fn process_with(
        &self,
        worker: &str,
        rides: bool,
        providers: &[Configured],
        routing: Routing,
    ) -> Process {
        let name = |it: &Configured| it.provider.name().to_owned();
        let rate = |it: &Configured| it.limits.rate.map(|it| (it.per_s, it.burst));
        let takes = |it: &Configured| Takes { calls: it.concurrency, rate: rate(it) };
        let concurrency = providers.iter().map(|it| (name(it), takes(it)));
        let (dispatch, dispatched) = Dispatch::new(worker, PLACES, concurrency);
        let options = LedgerOptions { batch_max: 500, routing, dispatch: rides.then(|| dispatch.clone()) };
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let (ledger, appenders) = Ledger::new(self.store.clone(), clock, options);
        let mut tasks = JoinSet::new();
        for appender in appenders {
            tasks.spawn(appender.run());
        }
        let options = DeliverOptions { batch_max: 10, poll: Duration::from_mins(1) };
        let deliver = Deliver::new(ledger.clone(), dispatched, providers.to_vec(), &options);
        Process { ledger, dispatch, deliver, appenders: tasks }
    }

    /// Folds everything that is in the log.
    pub(super) async fn project(&self) {
        for shard in self.store.shards() {
            let step = || self.store.project(&Deliveries, Slot::A, shard, 500, None);
            while let Step::Folded { .. } = step().await.unwrap() {}
        }
    }

    pub(super) async fn events(&self, message: &str) -> Vec<Recorded> {
        self.store.stream(&MessageId::new(message).unwrap()).await.unwrap()
    }

    /// The kinds of a message's events after those of its arrival.
    pub(super) async fn kinds(&self, message: &str) -> Vec<&'static str> {
        let events = self.events(message).await;
        let kinds = events.iter().map(|it| it.body.kind());
        kinds.filter(|kind| !["message.received", "push.planned"].contains(kind)).collect()
    }

    pub(super) async fn log_length(&self) -> i64 {
        self.store.heads().await.unwrap().iter().map(|it| it.position.0).sum()
    }

    /// All events of one kind.
    pub(super) async fn all(&self, kind: &str) -> Vec<Event> {
        let mut found = Vec::new();
        for shard in self.store.shards() {
            let shard: Shard = shard;
            let events = self.store.events_after(shard, Position(0), 10_000).await.unwrap();
            found.extend(events.into_iter().map(|it| it.body).filter(|it| it.kind() == kind));
        }
        found
    }

    pub(super) fn advance_s(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// One process on the database.
pub(super) struct Process {
    pub(super) ledger: Ledger,
    pub(super) dispatch: Dispatch,
    pub(super) deliver: Deliver,
    pub(super) appenders: JoinSet<()>,
}

impl Process {
    /// Accepts a push with these fields beside the usual ones.
    pub(super) async fn accept(&self, id: &str, fields: Value) {
        let receipts = self.ledger.accept(vec![incoming(id, fields)]).await;
        assert!(matches!(receipts[..], [Ok(Receipt::Appended(_))]), "{receipts:?}");
    }

    /// Does everything there is to do by what the log says.
    pub(super) async fn work(&mut self, world: &World) {
        world.project().await;
        self.deliver.settle().await.unwrap();
        world.project().await;
    }
}

pub(super) fn incoming(id: &str, fields: Value) -> Incoming {
    let mut body = json!({
        "messageId": id,
        "notificationType": "PUSH",
        "recipientId": format!("user of {id}"),
        "title": "Your pass expires tomorrow",
    });
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    let parsed = parse(body.to_string().as_bytes(), Outside::default()).unwrap();
    Incoming { parsed, metadata: Metadata::default() }
}
