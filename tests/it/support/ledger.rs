//! A ledger within the test's own process, and messages to put into it.

use std::{sync::Arc, time::Duration};

use notification_ledger::{
    clock::{Clock, ManualClock, SystemClock, Timestamp},
    event::{Metadata, Recorded},
    id::{Position, Shard},
    ledger::{Incoming, Ledger, LedgerOptions},
    message::parse::{Outside, parse},
    projection::{ALL, Projection},
    routing::Routing,
    store::{DbOptions, Mode, NewLedger, Slot, Step, Store},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::database::TestDb;

/// A store on the database, with this many shards.
pub(crate) async fn open_store(db: &TestDb, shards: u16) -> Store {
    let direct = db.direct_url().map(|url| options(&url, false));
    open(&options(db.url(), db.is_pooled()), direct.as_ref(), shards).await
}

/// A store at this address.
pub(crate) async fn open_url(url: &str, shards: u16) -> Store {
    open(&options(url, false), None, shards).await
}

fn options(url: &str, pooler: bool) -> DbOptions {
    DbOptions { url: url.to_owned(), pooler, max_connections: 12, acquire_timeout: Duration::from_secs(10) }
}

async fn open(options: &DbOptions, direct: Option<&DbOptions>, shards: u16) -> Store {
    let new = NewLedger {
        ledger_id: "test".to_owned(),
        shards: Some(shards),
        created_at: Timestamp::from_micros(1),
    };
    let store = Store::create_or_open(options, direct, &new).await.unwrap();
    for projection in ALL {
        store.ensure_projection(*projection, new.created_at).await.unwrap();
    }
    store
}

/// A running ledger.
pub(crate) struct TestLedger {
    pub(crate) ledger: Ledger,
    appenders: Vec<JoinHandle<()>>,
}

impl TestLedger {
    /// On the database, with this many shards, by the machine's clock.
    pub(crate) async fn new(db: &TestDb, shards: u16) -> Self {
        Self::on(open_store(db, shards).await, Arc::new(SystemClock))
    }

    /// On an open store.
    pub(crate) fn on(store: Store, clock: Arc<dyn Clock>) -> Self {
        let options = LedgerOptions { batch_max: 500, routing: Routing::default(), dispatch: None };
        let (ledger, appenders) = Ledger::new(store, clock, options);
        Self { ledger, appenders: appenders.into_iter().map(|it| tokio::spawn(it.run())).collect() }
    }

    /// The whole log, shard after shard.
    pub(crate) async fn log(&self) -> Vec<Recorded> {
        let mut events = Vec::new();
        for shard in self.ledger.store().shards() {
            let shard: Shard = shard;
            events.extend(self.ledger.store().events_after(shard, Position(0), 1_000_000).await.unwrap());
        }
        events
    }

    /// Ends the appenders after everything handed in is durable, and closes the database.
    pub(crate) async fn close(self) {
        let store = self.ledger.store().clone();
        drop(self.ledger);
        for appender in self.appenders {
            appender.await.unwrap();
        }
        store.close().await;
    }
}

/// A clock that stands still at 2026-11-22T09:00:00Z.
pub(crate) fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::parse("2026-11-22T09:00:00Z").unwrap()))
}

/// The body of a message to inbox and push, with these fields instead of or beside the usual ones.
pub(crate) fn body(id: &str, recipient: &str, fields: Value) -> Vec<u8> {
    let mut body = json!({
        "messageId": id,
        "notificationType": ["APP_NOTIFICATION", "PUSH"],
        "recipientId": recipient,
        "title": format!("title of {id}"),
    });
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    body.to_string().into_bytes()
}

/// A message as a door hands it in.
pub(crate) fn incoming(id: &str, recipient: &str, fields: Value) -> Incoming {
    let parsed = parse(&body(id, recipient, fields), Outside::default()).unwrap();
    let metadata = Metadata { ingress: Some("test".to_owned()), ..Metadata::default() };
    Incoming { parsed, metadata }
}

/// Folds a slot up to the end of the log.
pub(crate) async fn project_all(store: &Store, projection: &'static dyn Projection, slot: Slot, limit: u64) {
    for shard in store.shards() {
        while let Step::Folded { .. } = store.project(projection, slot, shard, limit, None).await.unwrap() {}
    }
}

/// Appends to the shard, as a newer release would, an event on this message of a type that this release
/// does not know.
pub(crate) async fn forge_future(store: &Store, shard: Shard, message: &str) {
    let columns = "shard, position, message_id, version, type, schema_version, recipient_id, \
                   occurred_at_us, recorded_at_us, payload, metadata";
    let values =
        format!("shard, head + 1, '{message}', 1, 'inbox.sneezed', 1, 'user-1', 5, 5, '{{}}', '{{}}'");
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    for statement in [
        format!(
            "insert into notification_events ({columns}) select {values} from log_shards where shard = {shard}"
        ),
        format!("update log_shards set head = head + 1 where shard = {shard}"),
    ] {
        tx.script(statement).await.unwrap();
    }
    tx.commit().await.unwrap();
}
