//! Rebuilding a projection beside the live one, and proving that two folds are equal.
//!
//! A rebuild folds the log from its first event into the slot that is not live, up to the places of the
//! live one and not beyond; compares the two there; flips; and only then folds on to the end of the log.
//! So it needs nobody who moves the live slot, and minds nobody who does: a live slot that stands still,
//! wherever and why ever, can be compared and replaced. A rebuild that was cut off goes on from its
//! checkpoints. One process at a time is at it (`claim.rs`); what else operators do with slots is in
//! `operate.rs`, and what a service does of it by itself in `background.rs`.

pub mod background;
mod claim;
mod compare;
pub mod load;
pub mod operate;
mod report;
pub mod subject;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

pub use self::claim::AtIt;
use self::{compare::compare_table, load::Ranges, operate::Refused, report::report, subject::SUBJECTS_MAX};
use super::chain;
use crate::{
    clock::Clock,
    id::{Position, Shard},
    projection::{Key, Projection, Table, Value},
    store::{Claim, ProjectError, Slot, Step, Store, StoreError, Subject},
};

/// Events folded in one transaction; others who write on SQLite wait for it.
const BATCH: u64 = 500;
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
    /// Another process holds or moves the slot that is folded anew.
    #[error("another process is folding the same slot of {0}; try again when it is done")]
    Contended(&'static str),
    /// The live slot cannot be compared, because no fold of this log comes to its place.
    #[error(
        "the live slot of {projection} says that it holds more of shard {shard} than the log does; \
         `projections rebuild {projection} --accept` replaces it"
    )]
    BeyondLog {
        /// Which projection.
        projection: &'static str,
        /// Which shard.
        shard: Shard,
    },
    /// A proof is under way or was cut off.
    #[error("a proof of {0} is under way or was cut off; run again with --restart if nobody is at it")]
    ProofExists(&'static str),
    /// Its rows cannot be told apart by message and recipient.
    #[error("rows of {0} are about many recipients: verify or rebuild the whole of it")]
    OfMany(&'static str),
    /// More differs than is mended row by row.
    #[error(
        "more than {SUBJECTS_MAX} messages and recipients of {0} have rows that differ: `projections rebuild {0} \
         --accept` makes all of it anew"
    )]
    TooMany(&'static str),
    /// The live tables were made by another fold than this release's.
    #[error("the live tables of {0} are of another version: `projections rebuild {0}` makes them anew")]
    OtherVersion(&'static str),
    /// Somebody is at it.
    #[error("{0}")]
    UnderWay(Box<AtIt>),
    /// A stop was asked for.
    #[error("the rebuild of {0} was stopped; it goes on from where it is when it is started again")]
    Stopped(&'static str),
    /// What an operator asked for cannot be done.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The places of the log at which both were compared: those of the live slot.
    pub places: Vec<(Shard, Position)>,
    /// The ends of the log at that moment.
    pub heads: Vec<(Shard, Position)>,
    /// Rows compared, over all tables.
    pub rows: u64,
    /// Rows that differ.
    pub differing: u64,
    /// The first of the differences.
    pub differences: Vec<Difference>,
    /// Whose rows differ, one more than can be mended at the most.
    pub subjects: BTreeSet<Subject>,
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

impl Difference {
    /// Which row, and which column of it.
    #[must_use]
    pub fn place(&self) -> String {
        let key = serde_json::to_string(&self.key).unwrap_or_default();
        match &self.what {
            What::Missing => format!("{} {key} is missing", self.table),
            What::Extra => format!("{} {key} is not in the log", self.table),
            What::Column { name, .. } => format!("{} {key} {name}", self.table),
        }
    }
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
    /// What the comparison with the slot that was live found; none when its version was older, when its tables
    /// were not there any more, or when they could not be compared and that was accepted.
    pub comparison: Option<Comparison>,
    /// The shards of which the slot, live by now, could not be brought up to the end of the log.
    pub behind: Vec<Behind>,
}

/// A shard that could not be folded to the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Which.
    pub shard: Shard,
    /// Why not.
    pub reason: String,
}

/// How a rebuild is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Forget what an earlier rebuild did that was cut off.
    pub restart: bool,
    /// Flip even if the result differs from the live slot, or cannot be compared with it.
    pub accept: bool,
    /// A service goes on with it by itself at its next start, if it is cut off.
    pub goes_on: bool,
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
    /// an earlier, cut-off rebuild did; `accept` flips even if the result differs from the live slot, or
    /// cannot be compared with it. While somebody else is at it, that is said instead.
    pub async fn rebuild(
        &self,
        restart: bool,
        accept: bool,
        progress: OnProgress<'_>,
    ) -> Result<Rebuilt, RebuildError> {
        self.rebuild_until(&CancellationToken::new(), Wish { restart, accept, goes_on: false }, progress)
            .await
    }

    /// The same until `stop` is asked for, which cuts it off between two steps.
    pub async fn rebuild_until(
        &self,
        stop: &CancellationToken,
        wish: Wish,
        progress: OnProgress<'_>,
    ) -> Result<Rebuilt, RebuildError> {
        let claim = self.claim().await?;
        self.rebuild_as(&claim, stop, wish, progress).await
    }

    /// The same by whoever has the claim, which is given back at the end.
    pub async fn rebuild_as(
        &self,
        claim: &Claim,
        stop: &CancellationToken,
        wish: Wish,
        progress: OnProgress<'_>,
    ) -> Result<Rebuilt, RebuildError> {
        // It is large, and whoever waits for it need not be.
        let built = Box::pin(self.build(claim, stop, wish, progress)).await;
        let result = report(&built, self.clock.now()).map(|it| it.to_string());
        self.give_back(claim, built.is_ok(), result.as_deref()).await;
        built
    }

    async fn build(
        &self,
        claim: &Claim,
        stop: &CancellationToken,
        wish: Wish,
        progress: OnProgress<'_>,
    ) -> Result<Rebuilt, RebuildError> {
        let prepared = Box::pin(self.keep(claim, stop, self.prepare(claim, wish, progress))).await?;
        let Prepared { slot, comparison } = prepared;
        let (done, heads) = (self.places(slot).await?, self.heads().await?);
        let flipped = wish.accept || comparison.as_ref().is_none_or(|it| it.differing == 0);
        let mut behind = Vec::new();
        if flipped {
            self.store.flip(claim, self.projection, slot, self.clock.now()).await?;
            let folded = async { Ok(self.catch_up(slot, &done, &heads, progress).await) };
            // It is live: what a stop leaves is the projector's.
            behind = self.keep(claim, stop, folded).await.unwrap_or_default();
        }
        Ok(Rebuilt { slot, flipped, comparison, behind })
    }

    /// Everything before the flip.
    async fn prepare(
        &self,
        claim: &Claim,
        wish: Wish,
        progress: OnProgress<'_>,
    ) -> Result<Prepared, RebuildError> {
        let name = self.projection.name();
        let state = self.store.projection_state(name).await?.ok_or(RebuildError::NotThere(name))?;
        let (live, slot) = (state.live, state.live.other());
        let version = self.projection.version();
        let begun = state.building == Some(slot) && state.building_version == Some(version);
        if wish.restart || !begun || self.is_ahead(slot, live).await? {
            self.store.begin_slot(self.projection, slot, self.clock.now()).await?;
        }
        let folded: i64 = self.places(slot).await?.iter().map(|it| it.1.0).sum();
        self.store.begin_rebuild(claim, folded, wish.goes_on.then_some(wish.accept)).await?;
        self.fold_until(slot, self.places(live).await?, progress).await?;
        self.store.index_slot(self.projection, slot).await?;
        // Nothing is lost with tables that are not there any more, and nothing to be compared with.
        if state.version != version || !self.store.is_readable(self.projection, live).await? {
            return Ok(Prepared { slot, comparison: None });
        }
        let comparison = match self.compare(live, slot, progress).await {
            Err(error) if wish.accept => {
                let error = chain(&error);
                tracing::warn!(projection = name, error, "not compared with what is live, as accepted");
                None
            }
            compared => Some(compared?),
        };
        Ok(Prepared { slot, comparison })
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

    /// How far a slot is, by shard.
    async fn places(&self, slot: Slot) -> Result<Vec<(Shard, Position)>, StoreError> {
        let mut checkpoints = self.store.checkpoints().await?;
        checkpoints.retain(|it| it.projection == self.projection.name() && it.slot == slot);
        Ok(checkpoints.into_iter().map(|it| (it.shard, it.position)).collect())
    }

    /// Whether one slot is further than the other in any shard: they can never be compared if the other
    /// stands still.
    async fn is_ahead(&self, slot: Slot, other: Slot) -> Result<bool, StoreError> {
        let checkpoints = self.store.checkpoints().await?;
        let own = checkpoints.iter().filter(|it| it.projection == self.projection.name());
        let (ahead, others): (Vec<_>, Vec<_>) =
            own.filter(|it| it.slot == slot || it.slot == other).partition(|it| it.slot == slot);
        let is_behind = |shard, position| others.iter().any(|it| it.shard == shard && it.position < position);
        Ok(ahead.iter().any(|it| is_behind(it.shard, it.position)))
    }

    /// Folds every shard up to its target and not beyond.
    async fn fold_until(
        &self,
        slot: Slot,
        targets: Vec<(Shard, Position)>,
        progress: OnProgress<'_>,
    ) -> Result<(), RebuildError> {
        Box::pin(self.load(slot, targets, Ranges::default(), progress)).await
    }

    /// Folds a slot that is live by now on to the end of the log, beside any projector; answers with the
    /// shards for which that failed.
    async fn catch_up(
        &self,
        slot: Slot,
        done: &[(Shard, Position)],
        heads: &[(Shard, Position)],
        progress: OnProgress<'_>,
    ) -> Vec<Behind> {
        let tally = &Tally::new(done, heads, progress);
        let shards = heads.iter().map(|&(shard, head)| async move {
            let folded = self.fold_shard(slot, shard, head, tally).await;
            folded.err().map(|error| Behind { shard, reason: chain(&error) })
        });
        join_all(shards).await.into_iter().flatten().collect()
    }

    async fn fold_shard(
        &self,
        slot: Slot,
        shard: Shard,
        target: Position,
        tally: &Tally<'_>,
    ) -> Result<(), RebuildError> {
        let mut refused = 0;
        loop {
            match self.store.project(self.projection, slot, shard, BATCH, Some(target)).await? {
                Step::Folded { events, position, .. } => {
                    tally.add(events as u64);
                    if position >= target {
                        return Ok(());
                    }
                }
                Step::Idle => return Ok(()),
                Step::Busy if refused == 600 => return Err(RebuildError::Contended(self.projection.name())),
                Step::Busy => {
                    refused += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn compare(
        &self,
        live: Slot,
        fresh: Slot,
        progress: OnProgress<'_>,
    ) -> Result<Comparison, RebuildError> {
        let name = self.projection.name();
        // Most of the way without a snapshot, so that the one that is held is held briefly.
        self.fold_until(fresh, self.places(live).await?, progress).await?;
        for _ in 0..TRIES {
            let mut left = self.store.snapshot().await?;
            let places = left.places(name, live).await?;
            let heads = left.heads().to_vec();
            if let Some(&(shard, _)) =
                places.iter().zip(&heads).find(|(place, head)| place.1 > head.1).map(|it| it.0)
            {
                return Err(RebuildError::BeyondLog { projection: name, shard });
            }
            self.fold_until(fresh, places.clone(), progress).await?;
            let mut right = self.store.snapshot().await?;
            if right.places(name, fresh).await? == places {
                let mut comparison = Comparison { places, heads, ..Comparison::default() };
                for table in self.projection.tables() {
                    let (live, fresh) = ((live, &mut left), (fresh, &mut right));
                    compare_table(table, live, fresh, &mut comparison).await?;
                }
                return Ok(comparison);
            }
        }
        Err(RebuildError::Contended(name))
    }
}

/// A slot that is folded, indexed and compared.
struct Prepared {
    slot: Slot,
    comparison: Option<Comparison>,
}

/// Counts what is folded, for whoever wants to see it.
struct Tally<'a> {
    done: AtomicU64,
    all: u64,
    progress: OnProgress<'a>,
}

impl<'a> Tally<'a> {
    fn new(done: &[(Shard, Position)], targets: &[(Shard, Position)], progress: OnProgress<'a>) -> Self {
        let sum = |places: &[(Shard, Position)]| {
            places.iter().map(|(_, place)| u64::try_from(place.0).unwrap_or(0)).sum::<u64>()
        };
        let tally = Self { done: AtomicU64::new(sum(done)), all: sum(targets), progress };
        tally.add(0);
        tally
    }

    fn add(&self, events: u64) {
        let done = self.done.fetch_add(events, Ordering::Relaxed) + events;
        (self.progress)(done, self.all);
    }
}

impl Comparison {
    /// How many events of the log the live slot had not folded, and so were not compared.
    #[must_use]
    pub fn behind_events(&self) -> i64 {
        self.places.iter().zip(&self.heads).map(|(place, head)| head.1.0 - place.1.0).sum()
    }

    fn note_columns(&mut self, table: &Table, key: &Key, live: Vec<Value>, fresh: Vec<Value>) {
        if live == fresh {
            return;
        }
        self.differing += 1;
        self.blame(table, key);
        let pairs = table.columns.iter().zip(live.into_iter().zip(fresh));
        for (column, (live, fresh)) in pairs.filter(|(_, (live, fresh))| live != fresh) {
            let what = What::Column { name: column.name, live, fresh };
            self.name(Difference { table: table.name, key: key.clone(), what });
        }
    }

    fn note(&mut self, table: &Table, key: Key, what: What) {
        self.differing += 1;
        self.blame(table, &key);
        self.name(Difference { table: table.name, key, what });
    }

    fn blame(&mut self, table: &Table, key: &Key) {
        if let Some(Value::Text(first)) = key.first()
            && self.subjects.len() <= SUBJECTS_MAX
        {
            self.subjects.extend(Subject::of(table, first));
        }
    }

    fn name(&mut self, difference: Difference) {
        if self.differences.len() < NAMED {
            self.differences.push(difference);
        }
    }
}
