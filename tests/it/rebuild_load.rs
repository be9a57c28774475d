//! The bulk load of a rebuild comes to what one fold after the other comes to: whatever is read and written at
//! a time, whatever is kept in memory, and wherever it is cut off.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use notification_ledger::{
    clock::{SystemClock, Timestamp},
    event::{
        Decision, Event, FailureClass, MessageCancelled, MessageErased, Metadata, PlannedDelivery, codec,
    },
    id::{DeliveryId, MessageId, Position, RecipientId, Shard},
    message::{
        Target,
        parse::{Outside, parse},
    },
    projection::{ALL, Projection, Value},
    store::{Entry, Mode, Slot, Store},
    stream::{Able, AttemptResult, Claim, Command, Failover, Mark, Receive},
    worker::rebuild::{Rebuild, What, load::Ranges},
};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{
    database::for_each_database,
    ledger::{TestLedger, body, incoming, open_store, project_all},
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const MESSAGES: usize = 60;
const RECIPIENTS: usize = 7;
const ENTRIES: usize = 25;
const ALL_EVENTS: u64 = u64::MAX;

/// What people, producers and workers do to a few messages, at random; most of it is refused, as in life.
struct History {
    random: fastrand::Rng,
    now: i64,
}

impl History {
    fn id(number: usize) -> MessageId {
        MessageId::new(&format!("m-{number}")).unwrap()
    }

    fn recipient(number: usize) -> RecipientId {
        RecipientId::new(&format!("user-{}", number % RECIPIENTS)).unwrap()
    }

    fn at(&self, later: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000 * (self.now + later))
    }

    fn target(&mut self) -> Target {
        Target::Token(["a", "b"][self.random.usize(0..2)].into())
    }

    fn arrival(&mut self, number: usize) -> Command {
        let category = [None, Some("pass"), Some("offer")][self.random.usize(0..3)];
        let channels = [json!(["APP_NOTIFICATION", "PUSH"]), json!("APP_NOTIFICATION"), json!("PUSH")];
        let fields = json!({
            "title": format!("back\\slash \\. \\N 🙂 {number}"),
            "category": category,
            "notificationType": channels[self.random.usize(0..3)],
            "expiresAt": self.random.bool().then(|| self.at(40)),
        });
        let body = body(Self::id(number).as_str(), Self::recipient(number).as_str(), fields);
        let parsed = parse(&body, Outside::default()).unwrap();
        let is_planned = parsed.message.for_push() && self.random.bool();
        let plan = if is_planned { self.plan(number) } else { Vec::new() };
        Command::Receive(Box::new(Receive {
            message: parsed.message.into(),
            content_hash: parsed.content_hash,
            plan,
            is_nowhere: false,
            claim: self.random.bool().then(|| self.claim()),
        }))
    }

    fn plan(&self, number: usize) -> Vec<PlannedDelivery> {
        let plan = |target: &str| {
            let target = Target::Token(target.into());
            PlannedDelivery {
                delivery_id: DeliveryId::new(&Self::id(number), &target.canonical()),
                target,
                provider: "acme".into(),
                fallbacks: vec!["bravo".into()],
                device_id: None,
                due_at: self.at(0),
                expires_at: None,
            }
        };
        ["a", "b"].map(plan).into()
    }

    fn claim(&self) -> Claim {
        Claim { worker: "worker-1".into(), lease_until: self.at(2) }
    }

    fn entry(&mut self) -> (Shard, Entry) {
        self.now += 1;
        let number = self.random.usize(0..MESSAGES);
        let delivery_id = DeliveryId::new(&Self::id(number), &self.target().canonical());
        let attempt = self.random.u32(1..4);
        let decision = if self.random.bool() {
            Decision::RetryAt { at: self.at(0), policy: "again".into() }
        } else {
            Decision::GiveUp { policy: "enough".into() }
        };
        let failover = Failover {
            after: Duration::from_secs(3),
            after_unknown: true,
            able: Able::All,
            configured: Able::All,
        };
        let command = match self.random.u8(0..20) {
            0..5 => self.arrival(number),
            5..12 => {
                let marks = [
                    Mark::Seen,
                    Mark::Read,
                    Mark::Click,
                    Mark::Unread,
                    Mark::Archive,
                    Mark::Unarchive,
                    Mark::Delete,
                ];
                let mark = marks[self.random.usize(0..marks.len())];
                Command::Mark { recipient: Self::recipient(number), mark }
            }
            12 => Command::Present,
            13 => Command::Plan { deliveries: self.plan(number), is_nowhere: false },
            14..16 => Command::StartAttempt { delivery_id, claim: self.claim() },
            16 => Command::LoseAttempt { delivery_id, attempt, decision, failover },
            at => {
                let result = if at == 17 {
                    AttemptResult::Accepted { provider_message_id: Some("p-1".into()), status: Some(200) }
                } else {
                    AttemptResult::Failed {
                        class: FailureClass::Retry,
                        code: "http_503".into(),
                        status: Some(503),
                        answer: Some("later\tor\r\n\\never\\t\0".into()),
                        decision,
                    }
                };
                Command::RecordOutcome { delivery_id, attempt, duration_ms: 7, result, failover }
            }
        };
        let entry = Entry {
            message_id: Self::id(number),
            command,
            occurred_at: self.at(0),
            metadata: Metadata::default(),
        };
        (Shard::of(&Self::recipient(number), 2), entry)
    }

    /// Appends so many rounds; now and then something is called off or erased.
    async fn happen(&mut self, store: &Store, rounds: usize) {
        for round in 0..rounds {
            let entries: Vec<_> = (0..ENTRIES).map(|_| self.entry()).collect();
            for shard in store.shards() {
                let own = entries.iter().filter(|it| it.0 == shard).map(|it| it.1.clone());
                store.append(shard, &own.collect::<Vec<_>>(), self.at(0)).await.unwrap();
            }
            let event = if round % 2 == 0 {
                Event::MessageErased(MessageErased { reason: "asked for".into() })
            } else {
                Event::MessageCancelled(MessageCancelled { reason: "sold out".into() })
            };
            forge(store, &Self::id(self.random.usize(0..MESSAGES)), &event).await;
        }
    }
}

/// Appends an event for which there is no command yet, if there is such a message.
async fn forge(store: &Store, message: &MessageId, event: &Event) {
    let Some(last) = store.stream(message).await.unwrap().pop() else { return };
    let event = codec::encode(event).unwrap();
    let shard = last.shard;
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    for statement in [
        format!(
            "insert into notification_events (shard, position, message_id, version, type, schema_version, \
             recipient_id, occurred_at_us, recorded_at_us, payload, metadata) select shard, head + 1, \
             '{message}', {}, '{}', {}, '{}', 5, 5, '{}', '{{}}' from log_shards where shard = {shard}",
            last.version.0 + 1,
            event.kind,
            event.schema_version,
            last.recipient_id,
            event.payload,
        ),
        format!("update log_shards set head = head + 1 where shard = {shard}"),
    ] {
        tx.script(statement).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn heads(store: &Store) -> Vec<(Shard, Position)> {
    store.heads().await.unwrap().into_iter().map(|it| (it.shard, it.position)).collect()
}

async fn rows(store: &Store, projection: &dyn Projection, slot: Slot) -> Vec<Vec<Vec<Value>>> {
    let mut snapshot = store.snapshot().await.unwrap();
    let mut tables = Vec::new();
    for table in projection.tables() {
        tables.push(snapshot.rows(table, slot, None, 100_000).await.unwrap());
    }
    tables
}

fn rebuild(store: &Store, projection: &'static dyn Projection) -> Rebuild {
    Rebuild { store: store.clone(), projection, clock: std::sync::Arc::new(SystemClock) }
}

for_each_database! {
    /// Any range, with anything kept in memory, comes to what the live slot holds, which was folded step by
    /// step.
    async fn any_range_loads_what_is_live(db: TestDb) {
        let store = open_store(&db, 2).await;
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut history = History { random: fastrand::Rng::with_seed(seed), now: 1_000 };
        history.happen(&store, 24).await;
        let heads = heads(&store).await;
        for &projection in ALL {
            project_all(&store, projection, Slot::A, 37).await;
            let live = rows(&store, projection, Slot::A).await;
            assert!(live.iter().all(|it| !it.is_empty()), "nothing happened to {}", projection.name());
            for (events, bytes) in [(1, 0), (7, 2_000), (7, 10_000_000), (500, 0), (ALL_EVENTS, 10_000_000)] {
                store.begin_slot(projection, Slot::B, Timestamp::from_micros(1)).await.unwrap();
                let ranges = Ranges { events, bytes };
                rebuild(&store, projection).load(Slot::B, heads.clone(), ranges, QUIET).await.unwrap();
                let loaded = rows(&store, projection, Slot::B).await;
                assert_eq!(loaded, live, "{ranges:?} of {}", projection.name());
            }
        }
        store.close().await;
    }

    /// What is cut off between ranges, or in one, goes on from what it wrote, also when the log has grown.
    async fn a_load_that_is_cut_off_goes_on(db: TestDb) {
        let store = open_store(&db, 2).await;
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut history = History { random: fastrand::Rng::with_seed(seed), now: 1_000 };
        history.happen(&store, 8).await;
        for &projection in ALL {
            store.begin_slot(projection, Slot::B, Timestamp::from_micros(1)).await.unwrap();
        }
        let mut cuts = 0;
        for &projection in ALL.iter().cycle().take(ALL.len() * 3) {
            history.happen(&store, 2).await;
            let heads = heads(&store).await;
            loop {
                let (first, cut) = (AtomicU64::new(u64::MAX), Notify::new());
                let progress = |done: u64, _: u64| {
                    if done > first.fetch_min(done, Ordering::SeqCst).saturating_add(40) {
                        cut.notify_one();
                    }
                };
                let it = rebuild(&store, projection);
                let ranges = Ranges { events: 20, bytes: 50_000 };
                tokio::select! {
                    loaded = it.load(Slot::B, heads.clone(), ranges, &progress) => {
                        loaded.unwrap();
                        break;
                    }
                    () = cut.notified() => cuts += 1,
                }
            }
        }
        assert!(cuts > 0, "nothing was cut off");
        for &projection in ALL {
            rebuild(&store, projection).load(Slot::B, heads(&store).await, Ranges::default(), QUIET).await.unwrap();
            project_all(&store, projection, Slot::A, 500).await;
            let (loaded, live) = (rows(&store, projection, Slot::B), rows(&store, projection, Slot::A));
            assert_eq!(loaded.await, live.await, "{}", projection.name());
        }
        store.close().await;
    }

    /// Two at once load each event once.
    async fn two_that_load_the_same_slot_load_it_once(db: TestDb) {
        let store = open_store(&db, 2).await;
        let mut history = History { random: fastrand::Rng::with_seed(7), now: 1_000 };
        history.happen(&store, 12).await;
        let heads = heads(&store).await;
        let inbox = ALL[0];
        project_all(&store, inbox, Slot::A, 500).await;
        store.begin_slot(inbox, Slot::B, Timestamp::from_micros(1)).await.unwrap();
        let (one, other) = (rebuild(&store, inbox), rebuild(&store, inbox));
        let ranges = Ranges { events: 20, bytes: 50_000 };
        let (one, other) = tokio::join!(
            one.load(Slot::B, heads.clone(), ranges, QUIET),
            other.load(Slot::B, heads.clone(), ranges, QUIET)
        );
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        assert_eq!(rows(&store, inbox, Slot::B).await, rows(&store, inbox, Slot::A).await);
        store.close().await;
    }

    /// Differences are found wherever they are among many rows, and nothing but them is named.
    async fn differences_are_found_among_many_rows(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        let messages = (0..1_300).map(|at| incoming(&format!("m-{at:04}"), &format!("user-{}", at % 7), json!({})));
        for receipt in it.ledger.accept(messages.collect()).await {
            receipt.unwrap();
        }
        let store = it.ledger.store();
        let inbox = ALL[0];
        project_all(store, inbox, Slot::A, 500).await;
        let proof = rebuild(store, inbox).verify(false, QUIET).await.unwrap();
        assert_eq!((proof.rows, proof.differing), (1_307, 0));
        let mut tx = store.db().begin(Mode::Write).await.unwrap();
        for crime in [
            "delete from inbox_items_a where message_id = 'm-0000'",
            "update inbox_items_a set body = '' where message_id = 'm-0499'",
            "update inbox_items_a set seen_at_us = 0 where message_id = 'm-0500'",
            "update inbox_items_a set message_id = 'm-9999' where message_id = 'm-1299'",
        ] {
            tx.script(crime.to_owned()).await.unwrap();
        }
        tx.commit().await.unwrap();
        let proof = rebuild(store, inbox).verify(false, QUIET).await.unwrap();
        let named = proof.differences.iter().map(|it| match (&it.key[0], &it.what) {
            (Value::Text(key), What::Column { name, .. }) => format!("{key} {name}"),
            (Value::Text(key), what) => format!("{key} {what:?}"),
            other => format!("{other:?}"),
        });
        let expected =
            ["m-0000 Missing", "m-0499 body", "m-0500 seen_at_us", "m-1299 Missing", "m-9999 Extra"];
        assert_eq!(named.collect::<Vec<_>>(), expected);
        assert_eq!((proof.rows, proof.differing), (1_308, 5));
        it.close().await;
    }
}
