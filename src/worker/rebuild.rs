//! Rebuilding a projection beside the live one, and proving that two folds are equal.
//!
//! A rebuild folds the log from its first event into the slot that is not live, compares it with the
//! live one at equal places, and flips. The live slot is folded and read all the while. A rebuild that
//! was cut off goes on from its checkpoints.

use std::sync::Arc;

use futures_util::future::try_join_all;

use crate::{
    clock::Clock,
    id::{Position, Shard},
    projection::{Key, Projection, Table, Value},
    store::{ProjectError, Slot, Snapshot, Step, Store, StoreError},
};

/// Events folded in one transaction.
const BATCH: u64 = 2_000;
/// Rows compared at a time.
const PAGE: usize = 2_000;
/// Differences that are named; the rest is counted.
const NAMED: usize = 100;
/// Tries to bring the fresh slot to exactly the place of the live one.
const TRIES: usize = 10;

/// Who wants to see how far it is: events folded, events in all.
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Why a rebuild or a proof did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The fold could not go on.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such projection in this database.
    #[error("projection {0} is not in the database yet; start the service once")]
    NotThere(&'static str),
    /// Another process keeps moving the slot.
    #[error("another process is working on the same slot of {0}; try again when it is done")]
    Contended(&'static str),
    /// A proof is under way or was cut off.
    #[error("a proof of {0} is under way or was cut off; run again with --restart if nobody is at it")]
    ProofExists(&'static str),
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The places of the log at which both were compared.
    pub places: Vec<(Shard, Position)>,
    /// Rows compared, over all tables.
    pub rows: u64,
    /// Rows that differ.
    pub differing: u64,
    /// The first of the differences.
    pub differences: Vec<Difference>,
}

/// One difference between the live slot and a fresh fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub key: Key,
    /// What differs.
    pub what: What,
}

/// How a row differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The fold makes this row, the live slot lacks it.
    Missing,
    /// The live slot has this row, the fold makes none.
    Extra,
    /// A column holds something else.
    Column {
        /// Which.
        name: &'static str,
        /// What the live slot holds.
        live: Value,
        /// What the fold makes.
        fresh: Value,
    },
}

/// How a rebuild ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The slot that was built.
    pub slot: Slot,
    /// Whether it is live now; not when it differs and that was not accepted.
    pub flipped: bool,
    /// What the comparison with the slot that was live found; none when its version was older.
    pub comparison: Option<Comparison>,
}

/// A projection and what is needed to fold it anew.
#[derive(Debug, Clone)]
pub struct Rebuild {
    /// Where.
    pub store: Store,
    /// What.
    pub projection: &'static dyn Projection,
    /// By which clock the catalogue is dated.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for dyn Projection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Projection({})", self.name())
    }
}

impl Rebuild {
    /// Folds the log into the slot that is not live and makes it the live one. `restart` forgets what
    /// an earlier, cut-off rebuild did; `accept` flips even if the result differs from the live slot.
    pub async fn rebuild(
        &self,
        restart: bool,
        accept: bool,
        progress: OnProgress<'_>,
    ) -> Result<Rebuilt, RebuildError> {
        let name = self.projection.name();
        let state = self.store.projection_state(name).await?.ok_or(RebuildError::NotThere(name))?;
        let slot = state.live.other();
        let version = self.projection.version();
        let goes_on = state.building == Some(slot) && state.building_version == Some(version) && !restart;
        if !goes_on {
            self.store.begin_slot(self.projection, slot, self.clock.now()).await?;
        }
        self.fold_until(slot, self.heads().await?, progress).await?;
        self.store.index_slot(self.projection, slot).await?;
        self.fold_until(slot, self.heads().await?, progress).await?;
        let comparison = if state.version == version {
            Some(self.compare(state.live, slot, progress).await?)
        } else {
            None
        };
        let flipped = accept || comparison.as_ref().is_none_or(|it| it.differing == 0);
        if flipped {
            self.store.flip(self.projection, slot, self.clock.now()).await?;
        }
        Ok(Rebuilt { slot, flipped, comparison })
    }

    /// Compares the live slot with a fresh fold, row by row, at equal places of the log. Nothing waits
    /// for it: the live slot is read as it stood at one moment.
    pub async fn verify(&self, restart: bool, progress: OnProgress<'_>) -> Result<Comparison, RebuildError> {
        let name = self.projection.name();
        let state = self.store.projection_state(name).await?.ok_or(RebuildError::NotThere(name))?;
        let exists = self.store.checkpoints().await?;
        if !restart && exists.iter().any(|it| it.projection == name && it.slot == Slot::Proof) {
            return Err(RebuildError::ProofExists(name));
        }
        self.store.begin_slot(self.projection, Slot::Proof, self.clock.now()).await?;
        let compared = self.compare(state.live, Slot::Proof, progress).await;
        self.store.drop_slot(self.projection, Slot::Proof, self.clock.now()).await?;
        compared
    }

    async fn heads(&self) -> Result<Vec<(Shard, Position)>, StoreError> {
        Ok(self.store.heads().await?.into_iter().map(|it| (it.shard, it.position)).collect())
    }

    /// Folds every shard up to its target and not beyond.
    async fn fold_until(
        &self,
        slot: Slot,
        targets: Vec<(Shard, Position)>,
        progress: OnProgress<'_>,
    ) -> Result<(), RebuildError> {
        let all = targets.iter().map(|(_, target)| u64::try_from(target.0).unwrap_or(0)).sum();
        let name = self.projection.name();
        let start = self.store.checkpoints().await?;
        let start = start.iter().filter(|it| it.projection == name && it.slot == slot);
        let done: u64 = start.map(|it| u64::try_from(it.position.0).unwrap_or(0)).sum();
        let done = &std::sync::atomic::AtomicU64::new(done);
        progress(done.load(std::sync::atomic::Ordering::Relaxed), all);
        let shards = targets.into_iter().map(|(shard, target)| async move {
            let mut refused = 0;
            loop {
                let step = self.store.project(self.projection, slot, shard, BATCH, Some(target)).await?;
                match step {
                    Step::Folded { events, position, .. } => {
                        let events = events as u64;
                        let done = done.fetch_add(events, std::sync::atomic::Ordering::Relaxed) + events;
                        progress(done, all);
                        if position >= target {
                            return Ok(());
                        }
                    }
                    Step::Idle => return Ok(()),
                    Step::Busy if refused == 600 => return Err(RebuildError::Contended(name)),
                    Step::Busy => {
                        refused += 1;
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        try_join_all(shards).await.map(drop)
    }

    async fn compare(
        &self,
        live: Slot,
        fresh: Slot,
        progress: OnProgress<'_>,
    ) -> Result<Comparison, RebuildError> {
        let name = self.projection.name();
        // Most of the way without a snapshot, so that the one that is held is held briefly.
        let places = self.store.snapshot().await?.places(name, live).await?;
        self.fold_until(fresh, places, progress).await?;
        for _ in 0..TRIES {
            let mut left = self.store.snapshot().await?;
            let places = left.places(name, live).await?;
            self.fold_until(fresh, places.clone(), progress).await?;
            let mut right = self.store.snapshot().await?;
            if right.places(name, fresh).await? == places {
                let mut comparison = Comparison { places, ..Comparison::default() };
                for table in self.projection.tables() {
                    let sides = (Side::new(live, table), Side::new(fresh, table));
                    compare_table(&mut left, &mut right, sides, &mut comparison).await?;
                }
                return Ok(comparison);
            }
        }
        Err(RebuildError::Contended(name))
    }
}

/// One side of a comparison: a table read in key order, page by page.
struct Side {
    slot: Slot,
    table: &'static Table,
    page: std::vec::IntoIter<Vec<Value>>,
    last: Option<Key>,
    ended: bool,
}

impl Side {
    fn new(slot: Slot, table: &'static Table) -> Self {
        Self { slot, table, page: Vec::new().into_iter(), last: None, ended: false }
    }

    async fn next(&mut self, snapshot: &mut Snapshot) -> Result<Option<Vec<Value>>, StoreError> {
        if let Some(row) = self.page.next() {
            return Ok(Some(row));
        }
        if self.ended {
            return Ok(None);
        }
        let rows = snapshot.rows(self.table, self.slot, self.last.as_ref(), PAGE).await?;
        self.ended = rows.len() < PAGE;
        self.last = rows.last().map(|row| self.table.key_of(row));
        self.page = rows.into_iter();
        Ok(self.page.next())
    }
}

async fn compare_table(
    live: &mut Snapshot,
    fresh: &mut Snapshot,
    (mut left, mut right): (Side, Side),
    comparison: &mut Comparison,
) -> Result<(), StoreError> {
    let table = left.table;
    let (mut one, mut other) = (left.next(live).await?, right.next(fresh).await?);
    while one.is_some() || other.is_some() {
        comparison.rows += 1;
        let keys =
            (one.as_deref().map(|row| table.key_of(row)), other.as_deref().map(|row| table.key_of(row)));
        match keys {
            (Some(key), Some(fresh_key)) if key == fresh_key => {
                let (a, b) = (one.take().unwrap_or_default(), other.take().unwrap_or_default());
                comparison.note_columns(table, &key, a, b);
            }
            (Some(key), fresh_key) if fresh_key.as_ref().is_none_or(|it| key < *it) => {
                comparison.note(table, key, What::Extra);
                one = None;
            }
            (_, Some(key)) => {
                comparison.note(table, key, What::Missing);
                other = None;
            }
            (_, None) => break,
        }
        if one.is_none() {
            one = left.next(live).await?;
        }
        if other.is_none() {
            other = right.next(fresh).await?;
        }
    }
    Ok(())
}

impl Comparison {
    fn note_columns(&mut self, table: &Table, key: &Key, live: Vec<Value>, fresh: Vec<Value>) {
        if live == fresh {
            return;
        }
        self.differing += 1;
        let pairs = table.columns.iter().zip(live.into_iter().zip(fresh));
        for (column, (live, fresh)) in pairs.filter(|(_, (live, fresh))| live != fresh) {
            let what = What::Column { name: column.name, live, fresh };
            self.name(Difference { table: table.name, key: key.clone(), what });
        }
    }

    fn note(&mut self, table: &Table, key: Key, what: What) {
        self.differing += 1;
        self.name(Difference { table: table.name, key, what });
    }

    fn name(&mut self, difference: Difference) {
        if self.differences.len() < NAMED {
            self.differences.push(difference);
        }
    }
}
