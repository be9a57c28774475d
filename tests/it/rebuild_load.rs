//! The bulk load of a rebuild comes to what one fold after the other comes to: whatever is read and written at
//! a time, whatever is kept in memory, and wherever it is cut off.

use std::sync::atomic::{AtomicU64, Ordering};

use notification_ledger::{
    clock::{SystemClock, Timestamp},
    id::{Position, Shard},
    projection::{ALL, Projection, Value},
    store::{Mode, Slot, Store},
    worker::rebuild::{Rebuild, What, load::Ranges},
};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{
    database::for_each_database,
    history::{History, rows},
    ledger::{TestLedger, incoming, open_store, project_all},
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const ALL_EVENTS: u64 = u64::MAX;

async fn heads(store: &Store) -> Vec<(Shard, Position)> {
    store.heads().await.unwrap().into_iter().map(|it| (it.shard, it.position)).collect()
}

fn rebuild(store: &Store, projection: &'static dyn Projection) -> Rebuild {
    Rebuild { store: store.clone(), projection, clock: std::sync::Arc::new(SystemClock) }
}

for_each_database! {
    /// Any range, with anything kept in memory, comes to what the live slot holds, which was folded step by
    /// step.
    async fn any_range_loads_what_is_live(db: TestDb) {
        let store = open_store(&db, 2).await;
        let mut history = History::new(fastrand::u64(..));
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
        let mut history = History::new(fastrand::u64(..));
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
        let mut history = History::new(7);
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
