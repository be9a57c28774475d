//! Whatever is appended, folded in whatever steps, rebuilt, killed, made live, gone back to and dropped, in any order:
//! the live tables are what the log says.

use std::{sync::Arc, time::Duration};

use notification_ledger::{
    clock::ManualClock,
    id::Position,
    projection::{ALL, Projection, fold_in_memory},
    store::{Slot, Step, Store},
    worker::rebuild::{Rebuild, RebuildError},
};

use crate::support::{
    database::for_each_database,
    history::{History, rows},
    ledger::{manual_clock, open_store, project_all},
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const STEPS: usize = 80;
/// Longer than who was killed is waited for.
const LATER: Duration = Duration::from_secs(31);

/// How often each came to its end.
#[derive(Debug, Default)]
struct Tally {
    rebuilt: u32,
    killed: u32,
    back: u32,
}

struct Case {
    store: Store,
    clock: Arc<ManualClock>,
    history: History,
    tally: Tally,
}

impl Case {
    fn rebuild(&self, projection: &'static dyn Projection) -> Rebuild {
        Rebuild { store: self.store.clone(), projection, clock: Arc::clone(&self.clock) as _ }
    }

    async fn live(&self, projection: &dyn Projection) -> Slot {
        self.store.projection_state(projection.name()).await.unwrap().unwrap().live
    }

    async fn step(&mut self) {
        self.clock.advance(LATER);
        let projection = ALL[self.history.random.usize(0..ALL.len())];
        match self.history.random.u8(0..100) {
            0..20 => self.history.happen(&self.store, 1).await,
            20..50 => self.fold_some(projection).await,
            50..70 => self.rebuild_killed(projection).await,
            70..85 => {
                let rebuilt =
                    self.rebuild(projection).rebuild(self.history.random.bool(), false, QUIET).await.unwrap();
                assert!(rebuilt.flipped && rebuilt.behind.is_empty(), "{}: {rebuilt:?}", projection.name());
                self.tally.rebuilt += 1;
            }
            85..95 => self.go_back(projection).await,
            95..98 => drop(refused(self.rebuild(projection).drop_old().await)),
            _ => _ = self.rebuild(projection).abort().await.unwrap(),
        }
    }

    /// One step of the projector, of any size.
    async fn fold_some(&mut self, projection: &'static dyn Projection) {
        let shards: Vec<_> = self.store.shards().collect();
        let shard = shards[self.history.random.usize(0..shards.len())];
        let (slot, limit) = (self.live(projection).await, self.history.random.u64(1..60));
        let step = self.store.project(projection, slot, shard, limit, None).await.unwrap();
        assert!(!matches!(step, Step::Busy), "nobody else is at it");
    }

    /// A rebuild that ends at any of its awaits, as if its process were killed: nothing of it says so.
    async fn rebuild_killed(&mut self, projection: &'static dyn Projection) {
        let after = Duration::from_micros(self.history.random.u64(0..60_000));
        let rebuild = self.rebuild(projection);
        match tokio::time::timeout(after, Box::pin(rebuild.rebuild(false, false, QUIET))).await {
            Err(_) => self.tally.killed += 1,
            Ok(done) => assert!(done.unwrap().flipped),
        }
    }

    async fn go_back(&mut self, projection: &'static dyn Projection) {
        if refused(self.rebuild(projection).rollback(false, QUIET).await).is_some() {
            self.tally.back += 1;
        }
    }

    /// Folds to the end, and holds what is live against a fold of the whole log.
    async fn check(&self) {
        let mut log = Vec::new();
        for shard in self.store.shards() {
            log.extend(self.store.events_after(shard, Position::default(), 1_000_000).await.unwrap());
        }
        for &projection in ALL {
            let live = self.live(projection).await;
            project_all(&self.store, projection, live, 1_000).await;
            let fold: Vec<_> = fold_in_memory(projection, &log).into_iter().map(|(_, rows)| rows).collect();
            assert_eq!(rows(&self.store, projection, live).await, fold, "{}, slot {live}", projection.name());
        }
    }
}

/// What was done, or none where there was nothing that it could be done with.
fn refused<T>(done: Result<T, RebuildError>) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(RebuildError::Refused(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}

for_each_database! {
    async fn any_history_of_rebuilds_shows_what_the_log_says(db: TestDb) {
        let store = open_store(&db, 2).await;
        let history = History::new(fastrand::u64(..));
        let mut case = Case { store, clock: manual_clock(), history, tally: Tally::default() };
        case.history.happen(&case.store, 2).await;
        for step in 1..=STEPS {
            case.step().await;
            if step % 20 == 0 {
                case.check().await;
            }
        }
        let Tally { rebuilt, killed, back } = case.tally;
        assert!(rebuilt > 0 && killed + back > 0, "{:?}", case.tally);
        case.store.close().await;
    }
}
