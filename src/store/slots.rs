//! Slots: a projection's tables made, indexed, flipped, dropped, and read as they stood at one moment.
//!
//! Every projection has two slots and a view without suffix on the live one, which is what everybody
//! reads. Only this file changes tables.

use sea_query::{Expr, ExprTrait, LockType, OnConflict, Order, Query};

use super::{
    Dialect, Mode, ProjectError, ProjectionState, Slot, Store, StoreError, Tx, bulk,
    log::{read_range, shard, shard_column},
    projections::{PositionRow, fold_into, move_checkpoint, slot_places},
};
use crate::{
    clock::Timestamp,
    id::{Position, Shard},
    projection::{Key, Projection, Table, Value, statements},
};

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
    /// nobody can move it; where it is further already, it stays there. One transaction; on MySQL, whose DDL commits by itself, the catalogue is
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
                    // The live slot may be beyond the log, where somebody has put it there; this one
                    // holds what the log says.
                    let Some(source) = error else { break };
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
        let statement = Query::select()
            .columns(["shard", "head"])
            .from("log_shards")
            .order_by("shard", Order::Asc)
            .to_owned();
        let rows: Vec<(i16, i64)> = tx.all(&statement).await?;
        let head = |(number, head): (i16, i64)| Ok((shard(number)?, Position(head)));
        let heads = rows.into_iter().map(head).collect::<Result<_, StoreError>>()?;
        Ok(Snapshot { tx, heads })
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
    pub(super) tx: Tx,
    heads: Vec<(Shard, Position)>,
}

impl Snapshot {
    /// The ends of the log, by shard.
    #[must_use]
    pub fn heads(&self) -> &[(Shard, Position)] {
        &self.heads
    }

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
pub(super) fn physical(table: &Table, slot: Slot) -> String {
    format!("{}_{}", table.name, slot.as_str())
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

async fn lock_slot(tx: &mut Tx, projection: &str, slot: Slot) -> Result<Vec<(Shard, Position)>, StoreError> {
    let mut statement = slot_places(projection, slot);
    if tx.dialect() != Dialect::Sqlite {
        statement.lock(LockType::Update);
    }
    let rows: Vec<PositionRow> = tx.all(&statement).await?;
    rows.iter().map(|row| Ok((shard(row.shard)?, Position(row.position)))).collect()
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
