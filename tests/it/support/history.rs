//! Random histories of a few messages, and what the tables hold of them.

use std::time::Duration;

use notification_ledger::{
    clock::Timestamp,
    event::{
        Decision, Event, FailureClass, MessageCancelled, MessageErased, Metadata, PlannedDelivery, codec,
    },
    id::{DeliveryId, MessageId, RecipientId, Shard},
    message::{
        Target,
        parse::{Outside, parse},
    },
    projection::{Projection, Value},
    store::{Entry, Mode, Slot, Store},
    stream::{Able, AttemptResult, Claim, Command, Failover, Mark, Receive},
};
use serde_json::json;

use super::ledger::body;

const MESSAGES: usize = 60;
const RECIPIENTS: usize = 7;
const ENTRIES: usize = 25;
/// What people, producers and workers do to a few messages, at random; most of it is refused, as in life.
pub(crate) struct History {
    pub(crate) random: fastrand::Rng,
    now: i64,
}

impl History {
    /// The same for the same seed, which is printed.
    pub(crate) fn new(seed: u64) -> Self {
        eprintln!("seed {seed}");
        Self { random: fastrand::Rng::with_seed(seed), now: 1_000 }
    }

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
    pub(crate) async fn happen(&mut self, store: &Store, rounds: usize) {
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

/// All rows of a slot, table by table, by key.
pub(crate) async fn rows(store: &Store, projection: &dyn Projection, slot: Slot) -> Vec<Vec<Vec<Value>>> {
    let mut snapshot = store.snapshot().await.unwrap();
    let mut tables = Vec::new();
    for table in projection.tables() {
        tables.push(snapshot.rows(table, slot, None, 100_000).await.unwrap());
    }
    tables
}
