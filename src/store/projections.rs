//! Projections in the database: the catalogue, the checkpoints, and the step that folds.
//!
//! Every projection has two slots and a view without suffix on the live one, which is what everybody
//! reads. A step locks the checkpoint row, reads the next events, folds, writes the changed rows and
//! moves the checkpoint in one transaction (ROWS-WITH-CHECKPOINT): exactly once, by any number of
//! processes. An event that cannot be read stops the shard there (NEVER-SKIP).

use sea_query::{Expr, ExprTrait, JoinType, Order, Query};
use sqlx::FromRow;

use super::{
    Store, StoreError, Tx,
    bulk::{self, Cell, OnDuplicate, Spec},
    db::Busy,
    log::{read_range, shard, shard_column},
    slots::physical,
};
use crate::{
    clock::Timestamp,
    event::Recorded,
    id::{Position, Shard},
    projection::{Changes, Projection, Rows, Value, fold_all, touched},
};

/// One set of a projection's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
    /// A fresh fold that is only there to be compared.
    Proof,
}

impl Slot {
    /// As in table names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Proof => "proof",
        }
    }

    /// The slot to rebuild into while this one is live.
    #[must_use]
    pub const fn other(self) -> Self {
        if matches!(self, Self::A) { Self::B } else { Self::A }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::A, Self::B, Self::Proof]
            .into_iter()
            .find(|it| it.as_str() == text)
            .ok_or_else(|| StoreError::Corrupt(format!("projections has a slot {text:?}")))
    }
}

/// What the catalogue says of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionState {
    /// Its name.
    pub name: String,
    /// The version of fold and tables that made the live slot.
    pub version: i32,
    /// What is read.
    pub live: Slot,
    /// What is being rebuilt, if anything is.
    pub building: Option<Slot>,
    /// The version of fold and tables that it is rebuilt with.
    pub building_version: Option<i32>,
}

/// How far one slot has folded one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The projection's name.
    pub projection: String,
    /// Which slot.
    pub slot: Slot,
    /// Which shard.
    pub shard: Shard,
    /// Everything up to here is folded.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// Why it does not go on, if it does not.
    pub parked: Option<String>,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to fold.
    Idle,
    /// Another process is at it.
    Busy,
    /// Events were folded and the checkpoint moved.
    Folded {
        /// How many.
        events: usize,
        /// The checkpoint now.
        position: Position,
        /// When the last of them was recorded.
        recorded_at: Timestamp,
    },
}

/// Why a step could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The next event cannot be folded; the shard waits for a release that can.
    #[error("projection {projection} is parked before event {shard}-{}", after.0 + 1)]
    Parked {
        /// Which projection.
        projection: &'static str,
        /// Which shard.
        shard: Shard,
        /// The checkpoint it stays at.
        after: Position,
        /// What is wrong with the event.
        #[source]
        source: StoreError,
    },
    /// Somebody else rebuilds the projection by now, or has put an end to it.
    #[error("somebody else took over the rebuild of {0}, or aborted it")]
    Taken(&'static str),
}

#[derive(FromRow)]
struct StateRow {
    name: String,
    version: i32,
    live_slot: String,
    building_slot: Option<String>,
    building_version: Option<i32>,
}

#[derive(FromRow)]
struct CheckpointRow {
    projection: String,
    slot: String,
    shard: i16,
    position: i64,
    head: i64,
    parked_reason: Option<String>,
}

#[derive(FromRow)]
pub(super) struct PositionRow {
    pub(super) shard: i16,
    pub(super) position: i64,
}

impl Store {
    /// What the catalogue says of a projection, if it is there.
    pub async fn projection_state(&self, name: &str) -> Result<Option<ProjectionState>, StoreError> {
        Ok(self.projection_states().await?.into_iter().find(|it| it.name == name))
    }

    /// What the catalogue says of every projection.
    pub async fn projection_states(&self) -> Result<Vec<ProjectionState>, StoreError> {
        let statement = Query::select()
            .columns(["name", "version", "live_slot", "building_slot", "building_version"])
            .from("projections")
            .order_by("name", Order::Asc)
            .to_owned();
        let rows: Vec<StateRow> = self.db.all(&statement).await?;
        let state = |row: StateRow| {
            Ok(ProjectionState {
                name: row.name,
                version: row.version,
                live: Slot::parse(&row.live_slot)?,
                building: row.building_slot.as_deref().map(Slot::parse).transpose()?,
                building_version: row.building_version,
            })
        };
        rows.into_iter().map(state).collect()
    }

    /// Every checkpoint with the head of its shard, in one query.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        let statement = Query::select()
            .columns([("c", "projection"), ("c", "slot"), ("c", "shard"), ("c", "position")])
            .column(("s", "head"))
            .column(("c", "parked_reason"))
            .from_as("projection_checkpoints", "c")
            .join_as(JoinType::InnerJoin, "log_shards", "s", Expr::col(("s", "shard")).equals(("c", "shard")))
            .order_by(("c", "projection"), Order::Asc)
            .order_by(("c", "slot"), Order::Asc)
            .order_by(("c", "shard"), Order::Asc)
            .to_owned();
        let rows: Vec<CheckpointRow> = self.db.all(&statement).await?;
        let checkpoint = |row: CheckpointRow| {
            Ok(Checkpoint {
                projection: row.projection,
                slot: Slot::parse(&row.slot)?,
                shard: shard(row.shard)?,
                position: Position(row.position),
                head: Position(row.head),
                parked: row.parked_reason,
            })
        };
        rows.into_iter().map(checkpoint).collect()
    }

    /// How far the live slot of a projection has folded each shard.
    pub async fn projected(&self, projection: &str) -> Result<Vec<(Shard, Position)>, StoreError> {
        let live = Expr::col(("p", "live_slot")).equals(("c", "slot"));
        let statement = Query::select()
            .columns([("c", "shard"), ("c", "position")])
            .from_as("projection_checkpoints", "c")
            .join_as(
                JoinType::InnerJoin,
                "projections",
                "p",
                Expr::col(("p", "name")).equals(("c", "projection")).and(live),
            )
            .and_where(Expr::col(("c", "projection")).eq(projection))
            .order_by(("c", "shard"), Order::Asc)
            .to_owned();
        let rows: Vec<(i16, i64)> = self.db.all(&statement).await?;
        rows.into_iter().map(|(column, position)| Ok((shard(column)?, Position(position)))).collect()
    }

    /// Folds up to `limit` events of a shard into a slot, not beyond `upto`.
    pub async fn project(
        &self,
        projection: &'static dyn Projection,
        slot: Slot,
        shard: Shard,
        limit: u64,
        upto: Option<Position>,
    ) -> Result<Step, ProjectError> {
        let place = slot_place(projection.name(), slot, shard);
        let (mut tx, rows) = self.db.begin_locking::<PositionRow>(&place, Busy::Skip).await?;
        let Some(after) = rows.first().map(|row| Position(row.position)) else {
            tx.rollback().await?;
            return Ok(Step::Busy);
        };
        let (events, error) = read_range(&mut tx, shard, after, upto, limit).await?;
        if let (true, Some(source)) = (events.is_empty(), error) {
            tx.rollback().await?;
            return Err(self.park_slot(projection, slot, (shard, after), source).await);
        }
        let Some(last) = events.last() else {
            tx.rollback().await?;
            return Ok(Step::Idle);
        };
        let (position, recorded_at) = (last.position, last.recorded_at);
        debug_assert!(position > after, "positions become visible in order");
        match fold_into(&mut tx, projection, slot, &events).await {
            Err(StoreError::Fold(fault)) => {
                tx.rollback().await?;
                let before = Position(fault.event.position.0 - 1);
                if before == after {
                    return Err(self.park_slot(projection, slot, (shard, after), fault.into()).await);
                }
                // What comes before it can be folded.
                return Box::pin(self.project(projection, slot, shard, limit, Some(before))).await;
            }
            folded => folded?,
        }
        move_checkpoint(&mut tx, projection.name(), slot, shard, after, position).await?;
        tx.commit().await?;
        Ok(Step::Folded { events: events.len(), position, recorded_at })
    }

    pub(super) async fn park(
        &self,
        projection: &str,
        slot: Slot,
        shard: Shard,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let statement = Query::update()
            .table("projection_checkpoints")
            .value("parked_reason", reason.map(ToOwned::to_owned))
            .and_where(Expr::col("projection").eq(projection))
            .and_where(Expr::col("slot").eq(slot.as_str()))
            .and_where(Expr::col("shard").eq(shard_column(shard)))
            .to_owned();
        self.db.exec(&statement).await.map(drop)
    }
}

/// The whole chain of an error in one line.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

pub(super) fn slot_places(projection: &str, slot: Slot) -> sea_query::SelectStatement {
    Query::select()
        .columns(["shard", "position"])
        .from("projection_checkpoints")
        .and_where(Expr::col("projection").eq(projection))
        .and_where(Expr::col("slot").eq(slot.as_str()))
        .order_by("shard", Order::Asc)
        .to_owned()
}

pub(super) fn slot_place(projection: &str, slot: Slot, shard: Shard) -> sea_query::SelectStatement {
    slot_places(projection, slot).and_where(Expr::col("shard").eq(shard_column(shard))).to_owned()
}

pub(super) async fn move_checkpoint(
    tx: &mut Tx,
    projection: &str,
    slot: Slot,
    shard: Shard,
    from: Position,
    to: Position,
) -> Result<(), StoreError> {
    let statement = Query::update()
        .table("projection_checkpoints")
        .value("position", to.0)
        .value("parked_reason", Option::<String>::None)
        .and_where(Expr::col("projection").eq(projection))
        .and_where(Expr::col("slot").eq(slot.as_str()))
        .and_where(Expr::col("shard").eq(shard_column(shard)))
        .and_where(Expr::col("position").eq(from.0))
        .to_owned();
    match tx.exec(&statement).await? {
        1 => Ok(()),
        _ => Err(StoreError::Corrupt(format!("the checkpoint of {projection} moved under its lock"))),
    }
}

/// Loads the rows the events touch, folds, and writes what changed.
pub(super) async fn fold_into(
    tx: &mut Tx,
    projection: &dyn Projection,
    slot: Slot,
    events: &[Recorded],
) -> Result<(), StoreError> {
    let keys = touched(projection, events);
    let mut rows = Rows::default();
    for table in projection.tables() {
        let firsts = keys.of(table);
        if !firsts.is_empty() {
            for row in bulk::fetch(tx, &physical(table, slot), table, &firsts).await? {
                rows.load(table, row);
            }
        }
    }
    fold_all(projection, events, &mut rows)?;
    for changes in rows.into_changes(projection.tables()) {
        write(tx, slot, changes).await?;
    }
    Ok(())
}

pub(super) async fn write(tx: &mut Tx, slot: Slot, changes: Changes) -> Result<(), StoreError> {
    let Changes { table, inserts, updates, deletes } = changes;
    let columns: Vec<Spec> = table.columns.iter().copied().map(Spec::from).collect();
    let name = physical(table, slot);
    let cells = |rows: Vec<Vec<Value>>| -> Vec<Vec<Cell>> {
        rows.into_iter().map(|row| row.into_iter().map(Cell::from).collect()).collect()
    };
    bulk::delete(tx, &name, table, &deletes).await?;
    bulk::insert(tx, &name, &columns, cells(inserts), OnDuplicate::Fail).await?;
    let overwrite = OnDuplicate::Overwrite { key_len: table.key_len };
    bulk::insert(tx, &name, &columns, cells(updates), overwrite).await
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
