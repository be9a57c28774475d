//! Projections as tables: slots, views, checkpoints, and the step that folds.
//!
//! Every projection has two slots and a view without suffix on the live one, which is what everybody
//! reads. A step locks the checkpoint row, reads the next events, folds, writes the changed rows and
//! moves the checkpoint in one transaction: exactly once, by any number of processes.

use sea_query::{Expr, ExprTrait, JoinType, LockBehavior, LockType, OnConflict, Order, Query};
use sqlx::FromRow;

use super::{
    Dialect, Mode, Store, StoreError, Tx,
    bulk::{self, Cell, OnDuplicate, Spec},
    log::{read_range, shard, shard_column},
};
use crate::{
    clock::Timestamp,
    event::Recorded,
    id::{Position, Shard},
    projection::{Changes, Key, Keys, Projection, Rows, Table, Value, statements},
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
    #[error("projection {projection} is parked before event {after} + 1 of shard {shard}")]
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
struct PositionRow {
    shard: i16,
    position: i64,
}

impl Store {
    /// Makes the tables, views and checkpoints of a projection where they are missing. Any number of
    /// processes may do so at once; nothing is ever dropped.
    pub async fn ensure_projection(
        &self,
        projection: &dyn Projection,
        now: Timestamp,
    ) -> Result<ProjectionState, StoreError> {
        if let Some(state) = self.projection_state(projection.name()).await? {
            if self.db.dialect() == Dialect::MySql {
                // There DDL commits by itself, so a flip may have been cut off before its views.
                let mut tx = self.db.begin(Mode::Write).await?;
                make_views(&mut tx, projection, state.live).await?;
                tx.commit().await?;
            }
            return Ok(state);
        }
        let mut tx = self.db.begin(Mode::Write).await?;
        lock_ledger(&mut tx).await?;
        make_tables(&mut tx, projection, Slot::A).await?;
        make_indexes(&mut tx, projection, Slot::A).await?;
        make_views(&mut tx, projection, Slot::A).await?;
        self.make_checkpoints(&mut tx, projection.name(), Slot::A).await?;
        let row = Query::insert()
            .into_table("projections")
            .columns(["name", "version", "live_slot", "changed_at_us"])
            .values_panic([
                Expr::value(projection.name()),
                Expr::value(projection.version()),
                Expr::value(Slot::A.as_str()),
                Expr::value(now.as_micros()),
            ])
            .on_conflict(OnConflict::column("name").do_nothing_on(["name"]).to_owned())
            .to_owned();
        tx.exec(&row).await?;
        tx.commit().await?;
        let state = self.projection_state(projection.name()).await?;
        state.ok_or_else(|| StoreError::Corrupt(format!("projection {} vanished", projection.name())))
    }

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

    /// Folds up to `limit` events of a shard into a slot, not beyond `upto`.
    pub async fn project(
        &self,
        projection: &'static dyn Projection,
        slot: Slot,
        shard: Shard,
        limit: u64,
        upto: Option<Position>,
    ) -> Result<Step, ProjectError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        let Some(after) = lock_checkpoint(&mut tx, projection.name(), slot, shard).await? else {
            tx.rollback().await?;
            return Ok(Step::Busy);
        };
        let (events, error) = read_range(&mut tx, shard, after, upto, limit).await?;
        if let (true, Some(source)) = (events.is_empty(), error) {
            tx.rollback().await?;
            let parked = ProjectError::Parked { projection: projection.name(), shard, after, source };
            self.park(projection.name(), slot, shard, Some(&explain(&parked))).await?;
            return Err(parked);
        }
        let Some(last) = events.last() else {
            tx.rollback().await?;
            return Ok(Step::Idle);
        };
        let (position, recorded_at) = (last.position, last.recorded_at);
        debug_assert!(position > after, "positions become visible in order");
        fold_into(&mut tx, projection, slot, &events).await?;
        move_checkpoint(&mut tx, projection.name(), slot, shard, after, position).await?;
        tx.commit().await?;
        Ok(Step::Folded { events: events.len(), position, recorded_at })
    }

    async fn park(
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

    /// Empties a slot that is not live, makes its tables anew without indexes and puts its checkpoints
    /// to the beginning of the log. For `a` and `b` the catalogue says that it is being built.
    pub async fn begin_slot(
        &self,
        projection: &dyn Projection,
        slot: Slot,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.drop_slot(projection, slot, now).await?;
        let mut tx = self.db.begin(Mode::Write).await?;
        lock_ledger(&mut tx).await?;
        make_tables(&mut tx, projection, slot).await?;
        self.make_checkpoints(&mut tx, projection.name(), slot).await?;
        if slot != Slot::Proof {
            set_building(&mut tx, projection, Some(slot), now).await?;
        }
        tx.commit().await
    }

    /// Makes the indexes of a slot that was loaded without them.
    pub async fn index_slot(&self, projection: &dyn Projection, slot: Slot) -> Result<(), StoreError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        make_indexes(&mut tx, projection, slot).await?;
        tx.commit().await
    }

    /// Removes a slot that is not live, tables and checkpoints.
    pub async fn drop_slot(
        &self,
        projection: &dyn Projection,
        slot: Slot,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let live = self.projection_state(projection.name()).await?.map(|it| it.live);
        if live == Some(slot) {
            return Err(StoreError::Corrupt(format!("slot {} is live", slot.as_str())));
        }
        let mut tx = self.db.begin(Mode::Write).await?;
        lock_ledger(&mut tx).await?;
        if slot != Slot::Proof {
            set_building(&mut tx, projection, None, now).await?;
        }
        let checkpoints = Query::delete()
            .from_table("projection_checkpoints")
            .and_where(Expr::col("projection").eq(projection.name()))
            .and_where(Expr::col("slot").eq(slot.as_str()))
            .to_owned();
        tx.exec(&checkpoints).await?;
        for table in projection.tables() {
            tx.script(format!("drop table if exists {}", physical(table, slot))).await?;
        }
        tx.commit().await
    }

    /// Makes a rebuilt slot the live one, after folding what is left to the live slot's place while
    /// nobody can move it. One transaction; on MySQL, whose DDL commits by itself, the catalogue is
    /// changed first and the views right after it.
    pub async fn flip(
        &self,
        projection: &'static dyn Projection,
        to: Slot,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        let name = projection.name();
        let mut tx = self.db.begin(Mode::Write).await?;
        lock_ledger(&mut tx).await?;
        if self.projection_state(name).await?.is_some_and(|it| it.live == to) {
            // Another process that rebuilt along was faster.
            return Ok(tx.rollback().await?);
        }
        let live = lock_slot(&mut tx, name, to.other()).await?;
        let mut rebuilt = lock_slot(&mut tx, name, to).await?;
        for (place, target) in rebuilt.iter_mut().zip(&live) {
            while place.1 < target.1 {
                let (shard, after) = *place;
                let (events, error) = read_range(&mut tx, shard, after, Some(target.1), 5_000).await?;
                let Some(last) = events.last().map(|it| it.position) else {
                    let source =
                        error.unwrap_or_else(|| StoreError::Corrupt("the log ends early".to_owned()));
                    return Err(ProjectError::Parked { projection: name, shard, after, source });
                };
                fold_into(&mut tx, projection, to, &events).await?;
                move_checkpoint(&mut tx, name, to, shard, after, last).await?;
                place.1 = last;
            }
        }
        let catalogue = Query::update()
            .table("projections")
            .value("live_slot", to.as_str())
            .value("building_slot", Option::<String>::None)
            .value("building_version", Option::<i32>::None)
            .value("version", projection.version())
            .value("changed_at_us", now.as_micros())
            .and_where(Expr::col("name").eq(name))
            .to_owned();
        tx.exec(&catalogue).await?;
        make_views(&mut tx, projection, to).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Begins reading one unchanging state of the database.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut tx = self.db.begin(Mode::Snapshot).await?;
        // The first read is what fixes the state.
        let statement = Query::select().columns(["shard", "head"]).from("log_shards").to_owned();
        let _: Vec<(i16, i64)> = tx.all(&statement).await?;
        Ok(Snapshot { tx })
    }

    async fn make_checkpoints(&self, tx: &mut Tx, projection: &str, slot: Slot) -> Result<(), StoreError> {
        let mut rows = Query::insert();
        rows.into_table("projection_checkpoints").columns(["projection", "slot", "shard", "position"]);
        for shard in self.shards() {
            rows.values_panic([
                Expr::value(projection),
                Expr::value(slot.as_str()),
                Expr::value(shard_column(shard)),
                Expr::value(0_i64),
            ]);
        }
        let key =
            OnConflict::columns(["projection", "slot", "shard"]).do_nothing_on(["projection"]).to_owned();
        rows.on_conflict(key);
        tx.exec(&rows).await.map(drop)
    }
}

/// One unchanging state of the database.
#[derive(Debug)]
pub struct Snapshot {
    tx: Tx,
}

impl Snapshot {
    /// The checkpoints of a slot, by shard.
    pub async fn places(
        &mut self,
        projection: &str,
        slot: Slot,
    ) -> Result<Vec<(Shard, Position)>, StoreError> {
        let rows: Vec<PositionRow> = self.tx.all(&slot_places(projection, slot)).await?;
        rows.iter().map(|row| Ok((shard(row.shard)?, Position(row.position)))).collect()
    }

    /// Up to `limit` rows of a table in key order, after a key.
    pub async fn rows(
        &mut self,
        table: &'static Table,
        slot: Slot,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        bulk::scan(&mut self.tx, &physical(table, slot), table, after, limit).await
    }
}

/// A table's name in a slot.
fn physical(table: &Table, slot: Slot) -> String {
    format!("{}_{}", table.name, slot.as_str())
}

/// The whole chain of an error in one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Makes whoever changes tables wait for each other. MySQL ends the lock at the first DDL; there
/// everything that follows may be done twice without harm.
async fn lock_ledger(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    let statement = Query::select().column("ledger_id").from("ledger").lock(LockType::Update).to_owned();
    let _: Vec<(String,)> = tx.all(&statement).await?;
    Ok(())
}

fn slot_places(projection: &str, slot: Slot) -> sea_query::SelectStatement {
    Query::select()
        .columns(["shard", "position"])
        .from("projection_checkpoints")
        .and_where(Expr::col("projection").eq(projection))
        .and_where(Expr::col("slot").eq(slot.as_str()))
        .order_by("shard", Order::Asc)
        .to_owned()
}

async fn lock_slot(tx: &mut Tx, projection: &str, slot: Slot) -> Result<Vec<(Shard, Position)>, StoreError> {
    let mut statement = slot_places(projection, slot);
    if tx.dialect() != Dialect::Sqlite {
        statement.lock(LockType::Update);
    }
    let rows: Vec<PositionRow> = tx.all(&statement).await?;
    rows.iter().map(|row| Ok((shard(row.shard)?, Position(row.position)))).collect()
}

/// The checkpoint, or nothing when another process holds it.
async fn lock_checkpoint(
    tx: &mut Tx,
    projection: &str,
    slot: Slot,
    shard: Shard,
) -> Result<Option<Position>, StoreError> {
    let mut statement = slot_places(projection, slot);
    statement.and_where(Expr::col("shard").eq(shard_column(shard)));
    if tx.dialect() != Dialect::Sqlite {
        statement.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    let row: Option<PositionRow> = tx.first(&statement).await?;
    Ok(row.map(|row| Position(row.position)))
}

async fn move_checkpoint(
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

async fn set_building(
    tx: &mut Tx,
    projection: &dyn Projection,
    slot: Option<Slot>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let statement = Query::update()
        .table("projections")
        .value("building_slot", slot.map(|it| it.as_str().to_owned()))
        .value("building_version", slot.map(|_| projection.version()))
        .value("changed_at_us", now.as_micros())
        .and_where(Expr::col("name").eq(projection.name()))
        .to_owned();
    tx.exec(&statement).await.map(drop)
}

/// Loads the rows the events touch, folds, and writes what changed.
async fn fold_into(
    tx: &mut Tx,
    projection: &dyn Projection,
    slot: Slot,
    events: &[Recorded],
) -> Result<(), StoreError> {
    let mut keys = Keys::default();
    for event in events {
        projection.touches(event, &mut keys);
    }
    let mut rows = Rows::default();
    for table in projection.tables() {
        let firsts = keys.of(table);
        if !firsts.is_empty() {
            for row in bulk::fetch(tx, &physical(table, slot), table, &firsts).await? {
                rows.load(table, row);
            }
        }
    }
    for event in events {
        projection.fold(event, &mut rows);
    }
    for changes in rows.into_changes(projection.tables()) {
        write(tx, slot, changes).await?;
    }
    Ok(())
}

async fn write(tx: &mut Tx, slot: Slot, changes: Changes) -> Result<(), StoreError> {
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

fn ddl(tx: &Tx, projection: &dyn Projection) -> &'static str {
    let ddl = projection.ddl();
    match tx.dialect() {
        Dialect::Sqlite => ddl.sqlite,
        Dialect::Postgres => ddl.postgres,
        Dialect::MySql => ddl.mysql,
    }
}

async fn make_tables(tx: &mut Tx, projection: &dyn Projection, slot: Slot) -> Result<(), StoreError> {
    let (tables, _) = statements(ddl(tx, projection), slot.as_str());
    for statement in tables {
        tx.script(statement.replacen("create table ", "create table if not exists ", 1)).await?;
    }
    Ok(())
}

async fn make_indexes(tx: &mut Tx, projection: &dyn Projection, slot: Slot) -> Result<(), StoreError> {
    let (_, indexes) = statements(ddl(tx, projection), slot.as_str());
    for statement in indexes {
        if tx.dialect() == Dialect::MySql {
            match tx.script(statement).await {
                // MySQL has no `if not exists` here; 1061 says that the index is there.
                Err(StoreError::Database(sqlx::Error::Database(error)))
                    if error
                        .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                        .is_some_and(|error| error.number() == 1061) => {}
                other => other?,
            }
        } else {
            tx.script(statement.replacen("create index ", "create index if not exists ", 1)).await?;
        }
    }
    Ok(())
}

/// Points the stable names at a slot.
async fn make_views(tx: &mut Tx, projection: &dyn Projection, slot: Slot) -> Result<(), StoreError> {
    for table in projection.tables() {
        let name = table.name;
        let columns = table.columns.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
        let select = format!("select {columns} from {}", physical(table, slot));
        match tx.dialect() {
            Dialect::Sqlite => {
                tx.script(format!("drop view if exists {name}; create view {name} as {select}")).await?;
            }
            // In place, so that grants on the view and views upon it stay.
            Dialect::Postgres | Dialect::MySql => {
                tx.script(format!("create or replace view {name} as {select}")).await?;
            }
        }
    }
    Ok(())
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
