//! Migrations, and what is fixed when a ledger is created.

use std::str::FromStr as _;

use sea_query::{Expr, OnConflict, Query};
use sqlx::{FromRow, sqlite::SqliteConnectOptions};

use super::{Db, DbOptions, Dialect, Identity, Mode, NewLedger, StoreError};
use crate::clock::Timestamp;

/// Applies what is missing; several processes may try at once. Migrations of a newer release are left
/// alone: they only ever add, so that an older release may be started again.
pub(super) async fn migrate(db: &Db) -> Result<(), StoreError> {
    let mut migrator = match db {
        Db::Sqlite { .. } => sqlx::migrate!("migrations/sqlite"),
        Db::Postgres { .. } => sqlx::migrate!("migrations/postgres"),
        Db::MySql(_) => sqlx::migrate!("migrations/mysql"),
    };
    migrator.set_ignore_missing(true);
    match db {
        Db::Sqlite { write, .. } => migrator.run(write).await?,
        Db::Postgres { pool, .. } => migrator.run(pool).await?,
        Db::MySql(pool) => migrator.run(pool).await?,
    }
    Ok(())
}

/// Whether the database is a file that is not there; connecting would make it.
pub(super) fn is_missing_file(options: &DbOptions) -> Result<bool, StoreError> {
    if !options.url.starts_with("sqlite:") {
        return Ok(false);
    }
    let file = SqliteConnectOptions::from_str(&options.url)?;
    Ok(!file.get_filename().exists())
}

#[derive(FromRow)]
struct LedgerRow {
    ledger_id: String,
    shards: i16,
    created_at_us: i64,
}

/// What is stored about the ledger, if the schema is there and holds one.
pub(super) async fn identity(db: &Db) -> Result<Option<Identity>, StoreError> {
    let statement =
        Query::select().columns(["ledger_id", "shards", "created_at_us"]).from("ledger").to_owned();
    let row: Option<LedgerRow> = match db.first(&statement).await {
        Ok(row) => row,
        Err(error) if is_missing_table(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(row) = row else { return Ok(None) };
    let shards = u16::try_from(row.shards)
        .map_err(|_| StoreError::Corrupt(format!("ledger.shards is {}", row.shards)))?;
    let created_at = Timestamp::from_micros(row.created_at_us);
    Ok(Some(Identity { ledger_id: row.ledger_id, shards, created_at }))
}

/// `42P01` is PostgreSQL's and `42S02` MySQL's "no such table"; SQLite has only its general code 1.
fn is_missing_table(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return false };
    matches!(error.code().as_deref(), Some("42P01" | "42S02" | "1"))
}

/// Writes the ledger's identity and its shards, unless another process did already.
pub(super) async fn create_ledger(db: &Db, new: &NewLedger) -> Result<(), StoreError> {
    if identity(db).await?.is_some() {
        return Ok(());
    }
    let default = if db.dialect() == Dialect::Sqlite { 1 } else { 4 };
    let shards = i16::try_from(new.shards.unwrap_or(default)).unwrap_or(i16::MAX);
    let mut tx = db.begin(Mode::Write).await?;
    let ledger = Query::insert()
        .into_table("ledger")
        .columns(["id", "ledger_id", "shards", "created_at_us"])
        .values_panic([
            Expr::value(1_i16),
            Expr::value(new.ledger_id.clone()),
            Expr::value(shards),
            Expr::value(new.created_at.as_micros()),
        ])
        .on_conflict(OnConflict::column("id").do_nothing_on(["id"]).to_owned())
        .to_owned();
    tx.exec(&ledger).await?;
    let stored = Query::select().columns(["ledger_id", "shards", "created_at_us"]).from("ledger").to_owned();
    let stored: LedgerRow = tx.first(&stored).await?.ok_or(StoreError::NoLedger)?;
    let mut rows = Query::insert();
    rows.into_table("log_shards").columns(["shard", "head"]);
    for shard in 0..stored.shards {
        rows.values_panic([Expr::value(shard), Expr::value(0_i64)]);
    }
    rows.on_conflict(OnConflict::column("shard").do_nothing_on(["shard"]).to_owned());
    tx.exec(&rows).await?;
    tx.commit().await
}
