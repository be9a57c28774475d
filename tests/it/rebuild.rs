//! Rebuilding beside the live slot, and proving that two folds are equal: on every database.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use notification_ledger::{
    clock::SystemClock,
    event::Metadata,
    id::{MessageId, RecipientId},
    ledger::Ledger,
    projection::{self, ALL, Value},
    store::{Mode, Slot, Store},
    stream::Mark,
    wake::Wake,
    worker::{
        Worker,
        project::Project,
        rebuild::{Rebuild, What},
    },
};
use serde_json::json;

use crate::support::{
    database::for_each_database,
    ledger::{TestLedger, incoming},
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};

fn rebuild(store: &Store, name: &str) -> Rebuild {
    let projection = projection::by_name(name).unwrap();
    Rebuild { store: store.clone(), projection, clock: Arc::new(SystemClock) }
}

/// Appends, marks and projects until told to stop.
async fn keep_busy(ledger: Ledger, stop: &AtomicBool) {
    let mut projector = Project::new(ledger.clone(), 50, Wake::default());
    for round in 0.. {
        let id = format!("busy-{round}");
        let recipient = format!("user-{}", round % 7);
        ledger.accept(vec![incoming(&id, &recipient, json!({}))]).await.remove(0).unwrap();
        let mark = (MessageId::new(&id).unwrap(), Mark::Read);
        ledger.mark(&RecipientId::new(&recipient).unwrap(), vec![mark], &Metadata::default()).await;
        projector.tick().await.unwrap();
        if stop.load(Ordering::SeqCst) {
            return;
        }
    }
}

async fn fill(it: &TestLedger, count: usize) {
    let messages = (0..count).map(|at| incoming(&format!("m-{at}"), &format!("user-{}", at % 7), json!({})));
    for receipt in it.ledger.accept(messages.collect()).await {
        receipt.unwrap();
    }
    catch_up(it).await;
}

async fn catch_up(it: &TestLedger) {
    let mut projector = Project::new(it.ledger.clone(), 500, Wake::default());
    while projector.tick().await.unwrap() == notification_ledger::worker::Progress::Worked {}
}

for_each_database! {
    /// A rebuild while messages and marks come in changes nothing that readers see, and misses nothing.
    async fn a_rebuild_under_load_equals_the_live_slot(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        fill(&it, 300).await;
        let stop = AtomicBool::new(false);
        let rebuilding = async {
            for projection in ALL {
                let rebuilt = rebuild(it.ledger.store(), projection.name()).rebuild(false, false, QUIET).await.unwrap();
                assert!(rebuilt.flipped, "{rebuilt:?}");
                assert_eq!(rebuilt.slot, Slot::B);
            }
            stop.store(true, Ordering::SeqCst);
        };
        tokio::join!(rebuilding, keep_busy(it.ledger.clone(), &stop));
        catch_up(&it).await;
        for projection in ALL {
            let proof = rebuild(it.ledger.store(), projection.name()).verify(false, QUIET).await.unwrap();
            assert_eq!(proof.differing, 0, "{proof:?}");
            assert!(proof.rows >= 300, "{proof:?}");
        }
        it.close().await;
    }

    /// A row that somebody changed by hand is found and named to the column; so are rows that were
    /// removed and rows that were added.
    async fn a_changed_row_is_named(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        fill(&it, 20).await;
        let store = it.ledger.store();
        for crime in [
            "update inbox_items_a set title = 'forged' where message_id = 'm-3'",
            "delete from inbox_items_a where message_id = 'm-5'",
            "update inbox_items_a set message_id = 'm-99' where message_id = 'm-7'",
        ] {
            let mut tx = store.db().begin(Mode::Write).await.unwrap();
            tx.script(crime.to_owned()).await.unwrap();
            tx.commit().await.unwrap();
        }
        let proof = rebuild(store, "inbox").verify(false, QUIET).await.unwrap();
        let found: Vec<_> = proof.differences.iter().map(|it| (it.key[0].clone(), it.what.clone())).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        let forged = What::Column { name: "title", live: text("forged"), fresh: text("title of m-3") };
        let expected =
            [(text("m-3"), forged), (text("m-5"), What::Missing), (text("m-7"), What::Missing), (text("m-99"), What::Extra)];
        assert_eq!(found, expected);
        assert_eq!(proof.differing, 4);

        let refused = rebuild(store, "inbox").rebuild(false, false, QUIET).await.unwrap();
        assert!(!refused.flipped, "a difference stops the flip");
        let accepted = rebuild(store, "inbox").rebuild(false, true, QUIET).await.unwrap();
        assert!(accepted.flipped);
        let proof = rebuild(store, "inbox").verify(false, QUIET).await.unwrap();
        assert_eq!(proof.differing, 0);
        it.close().await;
    }

    /// A rebuild that was cut off goes on where it was.
    async fn a_rebuild_goes_on_after_a_crash(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        fill(&it, 50).await;
        let store = it.ledger.store();
        let inbox = projection::by_name("inbox").unwrap();
        store.begin_slot(inbox, Slot::B, it.ledger.now()).await.unwrap();
        store.project(inbox, Slot::B, notification_ledger::id::Shard(0), 30, None).await.unwrap();
        let first = std::sync::Mutex::new(None);
        let note = |done: u64, _: u64| { first.lock().unwrap().get_or_insert(done); };
        let rebuilt = rebuild(store, "inbox").rebuild(false, false, &note).await.unwrap();
        assert!(rebuilt.flipped);
        assert_eq!(*first.lock().unwrap(), Some(30), "what was folded is not folded again");
        it.close().await;
    }
}
