//! What the bare database does with the same rows: the yardstick of the benchmarks.
//!
//! Plain statements in tables of their own, without locks, decisions or checkpoints. Nothing of the
//! service uses this; whoever measures makes a scratch database first.

use sea_query::{Expr, ExprTrait, Query};
use sqlx::AssertSqlSafe;

use super::{
    Db, Dialect, Mode, Store, StoreError,
    bulk::{self, Cell},
    event_row::{COLUMNS, EventRow},
    log::range,
};
use crate::{
    id::{MessageId, Position, Shard},
    projection::{Projection, statements},
};

/// The copy of `notification_events` without its triggers.
const EVENTS: &str = "bench_raw_events";
/// The slot that copies of a projection's tables are made in.
const SLOT: &str = "raw";

/// The bare database under a ledger.
#[derive(Debug, Clone)]
pub struct Baseline {
    pub(super) db: Db,
}

/// Which database it is, and how careful it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Name and version.
    pub name: String,
    /// Settings that decide what a commit costs, as the database tells them.
    pub settings: Vec<(String, String)>,
    /// Whether a commit waits until the disk has it.
    pub is_durable: bool,
}

/// Rows of the log, ready to be inserted elsewhere.
#[derive(Debug, Clone, Default)]
pub struct EventRows(Vec<Vec<Cell>>);

impl EventRows {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each by itself.
    pub fn one_by_one(self) -> impl Iterator<Item = Self> {
        self.0.into_iter().map(|row| Self(vec![row]))
    }
}

impl Baseline {
    /// The database under this ledger.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { db: store.db().clone() }
    }

    /// Which SQL is spoken.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.db.dialect()
    }

    /// Which database it is, and how careful it is.
    pub async fn engine(&self) -> Result<Engine, StoreError> {
        match &self.db {
            Db::Sqlite { write, .. } => {
                let text = |sql: &'static str| sqlx::query_scalar::<_, String>(sql).fetch_one(write);
                let version = text("select sqlite_version()").await?;
                let journal = text("pragma journal_mode").await?;
                let level: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(write).await?;
                let word = match level {
                    0 => "off",
                    1 => "normal",
                    2 => "full",
                    _ => "extra",
                };
                let settings = [("journal_mode", journal), ("synchronous", word.to_owned())];
                Ok(Engine::new(format!("SQLite {version}"), settings, level >= 2))
            }
            Db::Postgres { pool, .. } => {
                let names = ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers"];
                let version: String =
                    sqlx::query_scalar("select current_setting('server_version')").fetch_one(pool).await?;
                let mut settings = Vec::new();
                for name in names {
                    let value: String =
                        sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(pool).await?;
                    settings.push((name, value));
                }
                let is_durable = settings[0].1 == "on" && settings[1].1 != "off";
                let version = version.split(' ').next().unwrap_or_default();
                Ok(Engine::new(format!("PostgreSQL {version}"), settings, is_durable))
            }
            Db::MySql(pool) => {
                let variable = async |name: &str| -> Result<String, sqlx::Error> {
                    let sql = format!("select cast(@@global.{name} as char)");
                    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await
                };
                let version = variable("version").await?;
                let mut settings = Vec::new();
                for name in ["innodb_flush_log_at_trx_commit", "log_bin", "sync_binlog"] {
                    settings.push((name, variable(name).await?));
                }
                let (flush, binlog, sync) = (&settings[0].1, &settings[1].1, &settings[2].1);
                let is_durable = flush == "1" && (binlog == "OFF" || sync != "0");
                let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
                let version = version.split('-').next().unwrap_or_default();
                Ok(Engine::new(format!("{name} {version}"), settings, is_durable))
            }
        }
    }

    /// Makes an empty copy of the log's table, with its keys and constraints.
    pub async fn make_events(&self) -> Result<(), StoreError> {
        let copy = match &self.db {
            Db::Sqlite { write, .. } => {
                let sql =
                    "select sql from sqlite_master where type = 'table' and name = 'notification_events'";
                let sql: String = sqlx::query_scalar(sql).fetch_one(write).await?;
                sql.replace("notification_events", EVENTS)
            }
            Db::Postgres { .. } => format!("create table {EVENTS} (like notification_events including all)"),
            Db::MySql(_) => format!("create table {EVENTS} like notification_events"),
        };
        self.script(copy).await
    }

    /// Rows of the log, as they were written.
    pub async fn event_rows(
        &self,
        shard: Shard,
        after: Position,
        limit: u64,
    ) -> Result<EventRows, StoreError> {
        let rows: Vec<EventRow> = self.db.all(&range(shard, after, None, limit)).await?;
        Ok(EventRows(rows.into_iter().map(EventRow::into_cells).collect()))
    }

    /// Inserts rows into the copy of the log's table: one statement, one commit.
    pub async fn insert(&self, rows: EventRows) -> Result<u64, StoreError> {
        let count = rows.len();
        let cells = rows.0.into_iter();
        let done = match &self.db {
            Db::Sqlite { write, .. } => {
                let sql = bulk::values_insert(EVENTS, &COLUMNS, count, "");
                let query = cells.flatten().fold(sqlx::query(AssertSqlSafe(sql)), bulk::bind_sqlite);
                query.execute(write).await?.rows_affected()
            }
            Db::Postgres { pool, .. } if count == 1 => {
                let query = cells.flatten().fold(sqlx::query(AssertSqlSafe(one_row())), bulk::bind_postgres);
                query.execute(pool).await?.rows_affected()
            }
            Db::Postgres { pool, .. } => {
                let sql = bulk::unnest_insert(EVENTS, &COLUMNS, bulk::OnDuplicate::Fail);
                let query = bulk::bind_columns(sqlx::query(AssertSqlSafe(sql)), &COLUMNS, cells.collect());
                query.execute(pool).await?.rows_affected()
            }
            Db::MySql(pool) => {
                let sql = bulk::values_insert(EVENTS, &COLUMNS, count, "");
                let query = cells.flatten().fold(sqlx::query(AssertSqlSafe(sql)), bulk::bind_mysql);
                query.execute(pool).await?.rows_affected()
            }
        };
        Ok(done)
    }

    /// Removes the copy of the log's table.
    pub async fn drop_events(&self) -> Result<(), StoreError> {
        self.script(format!("drop table if exists {EVENTS}")).await
    }

    /// Makes empty copies of a projection's tables, with their keys and indexes.
    pub async fn make_tables(&self, projection: &dyn Projection) -> Result<(), StoreError> {
        let ddl = projection.ddl();
        let ddl = match self.db.dialect() {
            Dialect::Sqlite => ddl.sqlite,
            Dialect::Postgres => ddl.postgres,
            Dialect::MySql => ddl.mysql,
        };
        let (tables, indexes) = statements(ddl, SLOT);
        for statement in tables.into_iter().chain(indexes) {
            self.script(statement).await?;
        }
        Ok(())
    }

    /// Fills the copy of `inbox_items` from the log in one statement, as SQL would do it without us: the
    /// items, not the counters. Every message must be one for the inbox and carry no `expiresAt`. Answers
    /// how many rows it made.
    pub async fn fill_inbox(&self) -> Result<u64, StoreError> {
        let rest = match self.db.dialect() {
            Dialect::Sqlite => FILL_INBOX_SQLITE,
            Dialect::Postgres => FILL_INBOX_POSTGRES,
            Dialect::MySql => FILL_INBOX_MYSQL,
        };
        self.exec(format!("insert into inbox_items_{SLOT} ({INBOX_COLUMNS}) {rest}")).await
    }

    /// Fills the copy of a projection's first table with the rows of the live one; answers how many.
    pub async fn copy_rows(&self, projection: &dyn Projection) -> Result<u64, StoreError> {
        let Some(table) = projection.tables().first() else { return Ok(0) };
        let columns = bulk::column_names(table);
        let name = table.name;
        self.exec(format!("insert into {name}_{SLOT} ({columns}) select {columns} from {name}")).await
    }

    /// Removes the copies of a projection's tables.
    pub async fn drop_tables(&self, projection: &dyn Projection) -> Result<(), StoreError> {
        for table in projection.tables() {
            self.script(format!("drop table if exists {}_{SLOT}", table.name)).await?;
        }
        Ok(())
    }

    /// Removes a projection as if it had never been there; [`Store::ensure_projection`] begins anew.
    pub async fn forget(&self, projection: &dyn Projection) -> Result<(), StoreError> {
        for table in projection.tables() {
            self.script(format!("drop view if exists {}", table.name)).await?;
            for slot in ["a", "b"] {
                self.script(format!("drop table if exists {}_{slot}", table.name)).await?;
            }
        }
        let name = projection.name();
        for (table, column) in [("projection_checkpoints", "projection"), ("projections", "name")] {
            let rows = Query::delete().from_table(table).and_where(Expr::col(column).eq(name)).to_owned();
            self.db.exec(&rows).await?;
        }
        Ok(())
    }

    /// Reads one row of the inbox by its primary key; whether it was there.
    pub async fn inbox_row(&self, message: &MessageId) -> Result<bool, StoreError> {
        let sql = match self.db.dialect() {
            Dialect::Sqlite | Dialect::MySql => "select * from inbox_items where message_id = ?",
            Dialect::Postgres => "select * from inbox_items where message_id = $1",
        };
        let id = message.as_str();
        Ok(match &self.db {
            Db::Sqlite { read, .. } => sqlx::query(sql).bind(id).fetch_optional(read).await?.is_some(),
            Db::Postgres { pool, .. } => sqlx::query(sql).bind(id).fetch_optional(pool).await?.is_some(),
            Db::MySql(pool) => sqlx::query(sql).bind(id).fetch_optional(pool).await?.is_some(),
        })
    }

    /// Lets the database do at once what it does by itself in the minutes after much was written: nothing of it
    /// is to run beside what is measured.
    pub async fn settle(&self) -> Result<(), StoreError> {
        match self.db.dialect() {
            Dialect::Postgres => {
                self.exec("vacuum (analyze)".to_owned()).await?;
                // Not everybody may ask for it; it comes by itself then.
                let asked = self.exec("checkpoint".to_owned()).await;
                if let Err(error) = asked {
                    tracing::debug!(%error, "no checkpoint");
                }
            }
            Dialect::Sqlite => _ = self.exec("pragma wal_checkpoint(truncate)".to_owned()).await?,
            Dialect::MySql => {}
        }
        Ok(())
    }

    async fn script(&self, sql: String) -> Result<(), StoreError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        tx.script(sql).await?;
        tx.commit().await
    }

    async fn exec(&self, sql: String) -> Result<u64, StoreError> {
        let query = AssertSqlSafe(sql);
        Ok(match &self.db {
            Db::Sqlite { write, .. } => sqlx::query(query).execute(write).await?.rows_affected(),
            Db::Postgres { pool, .. } => sqlx::query(query).execute(pool).await?.rows_affected(),
            Db::MySql(pool) => sqlx::query(query).execute(pool).await?.rows_affected(),
        })
    }
}

/// What the log says of an inbox item that nobody touched; the other columns stay empty.
const INBOX_COLUMNS: &str = "message_id, recipient_id, shard, position, title, body, category, link, \
                             image_url, data, locale, source, occurred_at_us, received_at_us, appeared_at_us, \
                             state, last_position";

const FILL_INBOX_SQLITE: &str = "\
select message_id, recipient_id, shard, position,
       payload ->> '$.message.title', payload ->> '$.message.body', payload ->> '$.message.category',
       payload ->> '$.message.link', payload ->> '$.message.imageUrl', payload ->> '$.message.data',
       payload ->> '$.message.locale', payload ->> '$.message.source',
       occurred_at_us, recorded_at_us, recorded_at_us, 0, position
from notification_events where type = 'message.received'";

const FILL_INBOX_POSTGRES: &str = "\
select e.message_id, e.recipient_id, e.shard, e.position, m.title, m.body, m.category,
       m.link, m.\"imageUrl\", m.data::text, m.locale, m.source,
       e.occurred_at_us, e.recorded_at_us, e.recorded_at_us, 0, e.position
from notification_events e
cross join lateral json_to_record(e.payload::json -> 'message') as m (
       title text, body text, category text, link text, \"imageUrl\" text, data json, locale text, source text)
where e.type = 'message.received'";

/// The data comes with other white space than ours, which is all the difference. The texts' character set
/// has to be named: the server's own need not be able to hold them.
const FILL_INBOX_MYSQL: &str = "\
select e.message_id, e.recipient_id, e.shard, e.position, m.title, m.body, m.category,
       m.link, m.image_url, json_extract(e.payload, '$.message.data'), m.locale, m.source,
       e.occurred_at_us, e.recorded_at_us, e.recorded_at_us, 0, e.position
from notification_events e
join json_table(e.payload, '$.message' columns (
       title     mediumtext   character set utf8mb4 path '$.title',
       body      mediumtext   character set utf8mb4 path '$.body',
       category  varchar(128) character set utf8mb4 path '$.category',
       link      mediumtext   character set utf8mb4 path '$.link',
       image_url mediumtext   character set utf8mb4 path '$.imageUrl',
       locale    mediumtext   character set utf8mb4 path '$.locale',
       source    mediumtext   character set utf8mb4 path '$.source')) as m
where e.type = 'message.received'";

/// A single row as `PostgreSQL` likes it best.
fn one_row() -> String {
    let names = COLUMNS.map(|it| it.name).join(", ");
    let marks: Vec<_> = (1..=COLUMNS.len()).map(|at| format!("${at}")).collect();
    format!("insert into {EVENTS} ({names}) values ({})", marks.join(", "))
}

impl Engine {
    fn new(
        name: String,
        settings: impl IntoIterator<Item = (&'static str, String)>,
        is_durable: bool,
    ) -> Self {
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { name, settings, is_durable }
    }
}

impl EventRow {
    /// In the order of the log's columns.
    fn into_cells(self) -> Vec<Cell> {
        vec![
            Cell::Int(self.shard.into()),
            Cell::Int(self.position),
            Cell::Text(self.message_id),
            Cell::Int(self.version.into()),
            Cell::Text(self.kind),
            Cell::Int(self.schema_version.into()),
            Cell::Text(self.recipient_id),
            Cell::Int(self.occurred_at_us),
            Cell::Int(self.recorded_at_us),
            self.content_hash.map_or(Cell::Null, Cell::Bytes),
            Cell::Text(self.payload),
            Cell::Text(self.metadata),
        ]
    }
}
