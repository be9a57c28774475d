//! Slots: a projection's tables made, indexed, flipped, dropped, and read as they stood at one moment.
//!
//! Every projection has two slots and a view without suffix on the live one, which is what everybody
//! reads. Only this file changes tables.

use sea_query::{Expr, ExprTrait, LockType, OnConflict, Order, Query};

use super::{
    Dialect, Mode, ProjectError, ProjectionState, Slot, Store, StoreError, Tx, bulk,
    log::{read_range, shard, shard_column},
    projections::{PositionRow, fold_into, move_checkpoint, slot_places},
    rebuilds::{Claim, hold},
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
            // Tables of another version may lack what the views of this one name.
            let is_own = self.db.dialect() == Dialect::MySql && state.version == projection.version();
            if is_own && self.is_readable(projection, state.live).await? {
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
    /// nobody can move it; where it is further already, it stays there. One transaction, made only while the claim
    /// holds; on MySQL, whose DDL commits by itself, the catalogue is changed first and the views right after it.
    pub async fn flip(
        &self,
        claim: &Claim,
        projection: &'static dyn Projection,
        to: Slot,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        self.switch(claim, projection, Switch { to, back_to: None }, now).await
    }

    /// Makes the slot live again that was live before, and was made by this version of the fold and tables. Where
    /// that is another than this release's it cannot be folded on: it is taken as it stands.
    pub async fn flip_back(
        &self,
        claim: &Claim,
        projection: &'static dyn Projection,
        (to, version): (Slot, i32),
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        self.switch(claim, projection, Switch { to, back_to: Some(version) }, now).await
    }

    async fn switch(
        &self,
        claim: &Claim,
        projection: &'static dyn Projection,
        Switch { to, back_to }: Switch,
        now: Timestamp,
    ) -> Result<(), ProjectError> {
        let name = projection.name();
        let mut tx = self.db.begin(Mode::Write).await?;
        lock_ledger(&mut tx).await?;
        let state = self.projection_state(name).await?;
        if state.as_ref().is_some_and(|it| it.live == to) {
            // Another process that rebuilt along was faster.
            return Ok(tx.rollback().await?);
        }
        if !hold(&mut tx, claim, now).await? {
            tx.rollback().await?;
            return Err(ProjectError::Taken(name));
        }
        let live = lock_slot(&mut tx, name, to.other()).await?;
        let rebuilt = lock_slot(&mut tx, name, to).await?;
        if back_to.is_none_or(|it| it == projection.version()) {
            fold_rest(&mut tx, projection, to, rebuilt, &live).await?;
        }
        let catalogue = Query::update()
            .table("projections")
            .value("live_slot", to.as_str())
            .value("building_slot", Option::<String>::None)
            .value("building_version", Option::<i32>::None)
            .value("version", back_to.unwrap_or(projection.version()))
            .value("old_version", state.map(|it| it.version))
            .value("rolled_back_at_us", back_to.map(|_| now.as_micros()))
            .value("changed_at_us", now.as_micros())
            .and_where(Expr::col("name").eq(name))
            .to_owned();
        tx.exec(&catalogue).await?;
        make_views(&mut tx, projection, to).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether the tables of a slot are there and have every column that this release reads.
    pub async fn is_readable(&self, projection: &dyn Projection, slot: Slot) -> Result<bool, StoreError> {
        let mut snapshot = self.snapshot().await?;
        for table in projection.tables() {
            match snapshot.rows(table, slot, None, 1).await {
                Ok(_) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(StoreError::Database(sqlx::Error::Database(_) | sqlx::Error::ColumnNotFound(_))) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
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

/// Which slot is to be live.
struct Switch {
    to: Slot,
    /// The version that made it, where it was live before.
    back_to: Option<i32>,
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

/// Folds what is left from the places of a locked slot to those of the live one, which is locked too.
async fn fold_rest(
    tx: &mut Tx,
    projection: &'static dyn Projection,
    slot: Slot,
    places: Vec<(Shard, Position)>,
    live: &[(Shard, Position)],
) -> Result<(), ProjectError> {
    let name = projection.name();
    for ((shard, mut after), &(_, target)) in places.into_iter().zip(live) {
        while after < target {
            let (events, error) = read_range(tx, shard, after, Some(target), 5_000).await?;
            let Some(last) = events.last().map(|it| it.position) else {
                // The live slot may be beyond the log, where somebody has put it there; this one
                // holds what the log says.
                let Some(source) = error else { break };
                return Err(ProjectError::Parked { projection: name, shard, after, source });
            };
            fold_into(tx, projection, slot, &events).await?;
            move_checkpoint(tx, name, slot, shard, after, last).await?;
            after = last;
        }
    }
    Ok(())
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
        .value("old_version", Option::<i32>::None)
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
        let columns = bulk::column_names(table);
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
