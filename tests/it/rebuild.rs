//! Rebuilding beside the live slot, and proving that two folds are equal: on every database.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use notification_ledger::{
    clock::SystemClock,
    event::Metadata,
    id::{MessageId, RecipientId, Shard},
    ledger::Ledger,
    projection::{self, ALL, Value},
    store::{Mode, Slot, Store},
    stream::Mark,
    wake::Wake,
    worker::{
        Worker,
        project::Project,
        rebuild::{Rebuild, RebuildError, What},
    },
};
use serde_json::json;

use crate::support::{
    database::for_each_database,
    ledger::{TestLedger, body, forge_future, incoming, project_all},
    service::Service,
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

/// Appends messages; nobody folds them.
async fn append(it: &TestLedger, count: usize) {
    let messages = (0..count).map(|at| incoming(&format!("m-{at}"), &format!("user-{}", at % 7), json!({})));
    for receipt in it.ledger.accept(messages.collect()).await {
        receipt.unwrap();
    }
}

async fn fill(it: &TestLedger, count: usize) {
    append(it, count).await;
    catch_up(it).await;
}

/// What somebody with rights does by hand.
async fn change(store: &Store, statement: &str) {
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    tx.script(statement.to_owned()).await.unwrap();
    tx.commit().await.unwrap();
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
            change(store, crime).await;
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

    /// A live slot that nobody moves on is rebuilt where it stands, and the rebuilt one is then brought
    /// up to the end of the log. A proof says how far behind the live tables are.
    async fn a_live_slot_that_stands_still_is_rebuilt(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        append(&it, 40).await;
        let behind = i64::try_from(it.log().await.len()).unwrap();
        for projection in ALL {
            let it = rebuild(it.ledger.store(), projection.name());
            let proof = it.verify(false, QUIET).await.unwrap();
            assert_eq!((proof.rows, proof.differing, proof.behind_events()), (0, 0, behind));
            let rebuilt = it.rebuild(false, false, QUIET).await.unwrap();
            assert!(rebuilt.flipped && rebuilt.behind.is_empty(), "{rebuilt:?}");
            assert_eq!(rebuilt.comparison.unwrap().behind_events(), behind);
            let proof = it.verify(false, QUIET).await.unwrap();
            assert!(proof.rows >= 40, "{proof:?}");
            assert_eq!((proof.differing, proof.behind_events()), (0, 0));
        }
        it.close().await;
    }

    /// A live slot that cannot be folded on, because of a row that somebody forged, is repaired.
    async fn a_live_slot_that_is_stuck_is_repaired(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        fill(&it, 20).await;
        let store = it.ledger.store();
        change(store, "update inbox_items_a set message_id = 'm-late' where message_id = 'm-7'").await;
        it.ledger.accept(vec![incoming("m-late", "user-1", json!({}))]).await.remove(0).unwrap();
        let inbox = projection::by_name("inbox").unwrap();
        store.project(inbox, Slot::A, Shard(0), 500, None).await.unwrap_err();

        let inbox = rebuild(store, "inbox");
        let refused = inbox.rebuild(false, false, QUIET).await.unwrap();
        assert!(!refused.flipped, "{refused:?}");
        let comparison = refused.comparison.unwrap();
        assert_eq!((comparison.differing, comparison.behind_events()), (2, 1));
        let accepted = inbox.rebuild(false, true, QUIET).await.unwrap();
        assert!(accepted.flipped && accepted.behind.is_empty(), "{accepted:?}");
        let proof = inbox.verify(false, QUIET).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0));
        it.close().await;
    }

    /// A live slot that waits for a newer release is rebuilt up to where it waits, and the rebuilt one
    /// says that it waits there too.
    async fn a_live_slot_that_is_parked_is_rebuilt(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        fill(&it, 20).await;
        let store = it.ledger.store();
        forge_future(store, Shard(0), "m-7").await;
        let rebuilt = rebuild(store, "inbox").rebuild(false, false, QUIET).await.unwrap();
        assert!(rebuilt.flipped, "{rebuilt:?}");
        assert_eq!(rebuilt.comparison.unwrap().behind_events(), 1);
        assert!(matches!(&rebuilt.behind[..], [it] if it.reason.contains("inbox.sneezed")), "{:?}", rebuilt.behind);
        it.close().await;
    }

    /// What was folded beyond the place of the live slot is folded anew, because it cannot be compared.
    async fn a_slot_that_is_ahead_of_the_live_one_is_begun_anew(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        append(&it, 20).await;
        let store = it.ledger.store();
        let inbox = projection::by_name("inbox").unwrap();
        store.begin_slot(inbox, Slot::B, it.ledger.now()).await.unwrap();
        project_all(store, inbox, Slot::B, 500).await;
        let rebuilt = rebuild(store, "inbox").rebuild(false, false, QUIET).await.unwrap();
        assert!(rebuilt.flipped && rebuilt.behind.is_empty(), "{rebuilt:?}");
        let proof = rebuild(store, "inbox").verify(false, QUIET).await.unwrap();
        assert_eq!((proof.rows >= 20, proof.differing, proof.behind_events()), (true, 0, 0));
        it.close().await;
    }

    /// The flip takes a slot that is further than the live one as it is.
    async fn a_slot_that_is_ahead_may_take_over(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        append(&it, 20).await;
        let (store, inbox) = (it.ledger.store(), projection::by_name("inbox").unwrap());
        store.begin_slot(inbox, Slot::B, it.ledger.now()).await.unwrap();
        project_all(store, inbox, Slot::B, 500).await;
        let claim = store.claim_rebuild("inbox", "somebody", it.ledger.now()).await.unwrap().unwrap();
        store.flip(&claim, inbox, Slot::B, it.ledger.now()).await.unwrap();
        let proof = rebuild(store, "inbox").verify(false, QUIET).await.unwrap();
        assert_eq!((proof.rows >= 20, proof.differing, proof.behind_events()), (true, 0, 0));
        it.close().await;
    }

    /// A checkpoint that somebody moved beyond the log cannot be compared with anything; it is said, and
    /// replaced when that is accepted.
    async fn a_live_slot_beyond_the_log_is_replaced_if_accepted(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        fill(&it, 20).await;
        let store = it.ledger.store();
        change(store, "update projection_checkpoints set position = 99 where slot = 'a'").await;
        let error = rebuild(store, "inbox").rebuild(false, false, QUIET).await.unwrap_err();
        assert!(matches!(error, RebuildError::BeyondLog { .. }), "{error:?}");
        let accepted = rebuild(store, "inbox").rebuild(false, true, QUIET).await.unwrap();
        assert!(accepted.flipped && accepted.comparison.is_none(), "{accepted:?}");
        let proof = rebuild(store, "inbox").verify(false, QUIET).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0));
        it.close().await;
    }
}

/// The commands work where no service runs, and say how far the live tables are behind.
#[tokio::test]
async fn a_ledger_that_nobody_serves_is_rebuilt_by_command() {
    let service = Service::new("database.url = 'sqlite://ledger.db'");
    let lines: Vec<u8> =
        (0..3).flat_map(|at| [body(&format!("m-{at}"), "user-1", json!({})), vec![b'\n']].concat()).collect();
    let file = service.file("m.ndjson", &lines);
    for (arguments, expected) in [
        (&["ingest", file.as_str()][..], ""),
        (
            &["projections", "verify", "inbox"],
            "\nnot compared: 3 events of the log that the live tables lacked\n",
        ),
        (&["projections", "verify", "inbox", "--json"], "\"behindEvents\":3"),
        (&["projections", "rebuild", "inbox"], "inbox: slot b is live\n"),
        (&["projections", "verify", "inbox", "--json"], "\"behindEvents\":0"),
    ] {
        let output = service.run(arguments).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.replace(": ", ":").contains(&expected.replace(": ", ":")), "{arguments:?}: {text}");
    }
}
