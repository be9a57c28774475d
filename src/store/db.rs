//! One executor over three pools: the only place that knows which database it speaks to.
//!
//! SQLite gets two pools, because it has one writer: every transaction that writes takes the single
//! writing connection with `begin immediate`, and reads never wait for it. Behind a transaction
//! pooler (`pooler`), statements are unnamed and every query runs inside an explicit transaction;
//! nothing anywhere relies on a session (TRANSACTION-IS-ALL).

use std::{
    ops::{Deref, DerefMut},
    str::FromStr,
    time::Duration,
};

use sea_query::{
    LockBehavior, LockType, MysqlQueryBuilder, PostgresQueryBuilder, SelectStatement, SqliteQueryBuilder,
    UpdateStatement,
};
use sea_query_sqlx::SqlxBinder;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Database, Executor, FromRow, MySql, MySqlPool, PgPool, Pool, Postgres,
    Sqlite, SqlitePool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlRow},
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::StoreError;

/// Which SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite, embedded.
    Sqlite,
    /// `PostgreSQL`.
    Postgres,
    /// MySQL or MariaDB.
    MySql,
}

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// `sqlite://PATH`, `postgres://…`, `mysql://…`.
    pub url: String,
    /// The way leads through a transaction pooler such as `PgBouncer`.
    pub pooler: bool,
    /// Connections at the most.
    pub max_connections: u32,
    /// How long to wait for one.
    pub acquire_timeout: Duration,
}

/// The pools.
#[derive(Debug, Clone)]
pub enum Db {
    /// One writer, many readers.
    Sqlite {
        /// For transactions that write: a single connection.
        write: SqlitePool,
        /// For everything else.
        read: SqlitePool,
    },
    /// `PostgreSQL`.
    Postgres {
        /// The connections.
        pool: PgPool,
        /// Whether a transaction pooler is in between.
        pooler: bool,
    },
    /// MySQL or MariaDB.
    MySql(MySqlPool),
}

/// A transaction. Dropped without an end it takes its connection with it, so that none goes back to
/// its pool in the middle of a transaction, whatever was cut off when.
pub enum Tx {
    /// On SQLite.
    Sqlite(Held<Sqlite>),
    /// On `PostgreSQL`.
    Postgres {
        /// The connection.
        tx: Held<Postgres>,
        /// Whether statements may stay prepared.
        persistent: bool,
    },
    /// On MySQL or MariaDB.
    MySql(Held<MySql>),
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tx({:?})", self.dialect())
    }
}

/// Does something that changes nothing, and does it again while it meets connections that are dead, as
/// a fail-over leaves a pool full of them: each is met once at the most.
macro_rules! again {
    ($pool:ident, $what:block) => {{
        let mut left = $pool.options().get_max_connections();
        loop {
            let result: Result<_, StoreError> = async { $what }.await;
            match result {
                Err(error) if error.is_lost_connection() && left > 0 => left -= 1,
                result => break result,
            }
        }
    }};
}

/// A connection within a transaction: closed when dropped, unless the transaction has ended.
#[derive(Debug)]
pub struct Held<DB: Database> {
    connection: PoolConnection<DB>,
    ended: bool,
}

impl<DB: Database> Drop for Held<DB> {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl<DB: Database> Deref for Held<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<DB: Database> DerefMut for Held<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl<DB: Database> Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Begins a transaction with these statements, in one round trip, for the rows that they give.
    async fn begin<T>(pool: &Pool<DB>, statements: String) -> Result<(Self, Vec<T>), StoreError>
    where
        T: for<'r> FromRow<'r, DB::Row>,
    {
        again!(pool, {
            let mut held = Self { connection: pool.acquire().await?, ended: false };
            let rows = sqlx::raw_sql(AssertSqlSafe(statements.clone())).fetch_all(&mut *held).await?;
            let rows = rows.iter().map(T::from_row).collect::<Result<_, _>>()?;
            Ok((held, rows))
        })
    }

    /// Ends the transaction with these statements, in one round trip.
    async fn end(mut self, statements: String) -> Result<(), StoreError> {
        self.script(statements).await?;
        self.ended = true;
        Ok(())
    }

    async fn script(&mut self, statements: String) -> Result<(), StoreError> {
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut **self).await?;
        Ok(())
    }
}

/// A row all three drivers decode; `#[derive(sqlx::FromRow)]` on the struct is enough.
pub trait AnyRow:
    Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, MySqlRow>
{
}

impl<T> AnyRow for T where
    T: Send
        + Unpin
        + for<'r> FromRow<'r, SqliteRow>
        + for<'r> FromRow<'r, PgRow>
        + for<'r> FromRow<'r, MySqlRow>
{
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads what is committed, statement by statement.
    Read,
    /// Reads one unchanging state of the database.
    Snapshot,
    /// Writes.
    Write,
}

/// What to do where somebody else holds the lock of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Wait for it.
    Wait,
    /// Go on without the row.
    Skip,
}

impl Db {
    /// Opens the pools; connects at once, so that a wrong URL is noticed here. The driver's own log of
    /// statements is off: it prints whole lists of values.
    pub async fn connect(options: &DbOptions) -> Result<Self, StoreError> {
        let scheme = options.url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => Self::connect_sqlite(options).await,
            "postgres" | "postgresql" => Self::connect_postgres(options).await,
            "mysql" | "mariadb" => Self::connect_mysql(options).await,
            _ => Err(StoreError::UnknownScheme(scheme.to_owned())),
        }
    }

    async fn connect_sqlite(options: &DbOptions) -> Result<Self, StoreError> {
        let connect = SqliteConnectOptions::from_str(&options.url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", "-65536")
            .pragma("temp_store", "memory")
            .row_buffer_size(1024)
            .disable_statement_logging()
            .statement_cache_capacity(256);
        let pool = || {
            let pool = SqlitePoolOptions::new().test_before_acquire(false);
            pool.acquire_timeout(options.acquire_timeout).idle_timeout(None)
        };
        let write = pool().max_connections(1).max_lifetime(None).connect_with(connect.clone()).await?;
        let readers = options.max_connections.max(2) - 1;
        let read = pool().max_connections(readers).connect_with(connect.pragma("query_only", "on")).await?;
        Ok(Self::Sqlite { write, read })
    }

    async fn connect_postgres(options: &DbOptions) -> Result<Self, StoreError> {
        let mut connect = PgConnectOptions::from_str(&options.url)?
            .application_name("notification-ledger")
            .disable_statement_logging();
        if options.pooler {
            connect = connect.extra_float_digits(None);
        } else {
            // A plan that was made while a table was empty is kept for ever by default, and reads the
            // whole table for every key once it is full.
            connect = connect.options([("plan_cache_mode", "force_custom_plan"), ("jit", "off")]);
        }
        // No ping before each use: who meets a connection that died goes on with another (`again!`).
        let pool = PgPoolOptions::new()
            .test_before_acquire(false)
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .connect_with(connect)
            .await?;
        Ok(Self::Postgres { pool, pooler: options.pooler })
    }

    async fn connect_mysql(options: &DbOptions) -> Result<Self, StoreError> {
        let url = options.url.replacen("mariadb:", "mysql:", 1);
        let pool = MySqlPoolOptions::new()
            .test_before_acquire(false)
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .connect_with(MySqlConnectOptions::from_str(&url)?.disable_statement_logging())
            .await?;
        Ok(Self::MySql(pool))
    }

    /// Which SQL it speaks.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres { .. } => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    /// Closes the pools and waits until the connections are gone.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres { pool, .. } => pool.close().await,
            Self::MySql(pool) => pool.close().await,
        }
    }

    /// Begins a transaction.
    pub async fn begin(&self, mode: Mode) -> Result<Tx, StoreError> {
        let (tx, _) = self.begin_with::<()>(mode, self.begin_text(mode).to_owned()).await?;
        Ok(tx)
    }

    /// Begins a transaction that writes with the locks of these rows, in one round trip; answers those
    /// that are there (and free, where they are not waited for). SQLite locks no rows: it has one writer.
    pub async fn begin_locking<T: AnyRow>(
        &self,
        rows: &SelectStatement,
        busy: Busy,
    ) -> Result<(Tx, Vec<T>), StoreError> {
        let mut locked = rows.clone();
        match busy {
            Busy::Wait => locked.lock(LockType::Update),
            Busy::Skip => locked.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked),
        };
        let rows = match self.dialect() {
            Dialect::Sqlite => rows.to_string(SqliteQueryBuilder),
            Dialect::Postgres => locked.to_string(PostgresQueryBuilder),
            Dialect::MySql => locked.to_string(MysqlQueryBuilder),
        };
        self.begin_with(Mode::Write, format!("{}; {rows}", self.begin_text(Mode::Write))).await
    }

    async fn begin_with<T: AnyRow>(&self, mode: Mode, text: String) -> Result<(Tx, Vec<T>), StoreError> {
        Ok(match self {
            Self::Sqlite { write, read } => {
                let (tx, rows) = Held::begin(if mode == Mode::Write { write } else { read }, text).await?;
                (Tx::Sqlite(tx), rows)
            }
            Self::Postgres { pool, pooler } => {
                let (tx, rows) = Held::begin(pool, text).await?;
                (Tx::Postgres { tx, persistent: !pooler }, rows)
            }
            Self::MySql(pool) => {
                let (tx, rows) = Held::begin(pool, text).await?;
                (Tx::MySql(tx), rows)
            }
        })
    }

    const fn begin_text(&self, mode: Mode) -> &'static str {
        match (self, mode) {
            (Self::Sqlite { .. }, Mode::Write) => "begin immediate",
            (Self::Sqlite { .. }, Mode::Read | Mode::Snapshot) => "begin",
            (Self::Postgres { .. }, Mode::Read | Mode::Write) => "begin isolation level read committed",
            (Self::Postgres { .. }, Mode::Snapshot) => "begin isolation level repeatable read, read only",
            // One text, so that the isolation level meets the very next transaction. Locks are taken row by
            // row and reads see what is committed, as on PostgreSQL.
            (Self::MySql(_), Mode::Read | Mode::Write) => {
                "set transaction isolation level read committed; start transaction"
            }
            (Self::MySql(_), Mode::Snapshot) => {
                "set transaction isolation level repeatable read; \
                 start transaction with consistent snapshot, read only"
            }
        }
    }

    /// Runs one reading statement.
    pub async fn all<T: AnyRow>(&self, statement: &(impl SqlxBinder + Sync)) -> Result<Vec<T>, StoreError> {
        match self {
            Self::Sqlite { read, .. } => {
                let (sql, values) = statement.build_sqlx(SqliteQueryBuilder);
                Ok(sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(read).await?)
            }
            Self::Postgres { pool, pooler: false } => {
                again!(pool, {
                    let (sql, values) = statement.build_sqlx(PostgresQueryBuilder);
                    Ok(sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(pool).await?)
                })
            }
            Self::Postgres { pooler: true, .. } => {
                let mut tx = self.begin(Mode::Read).await?;
                let rows = tx.all(statement).await?;
                tx.commit().await?;
                Ok(rows)
            }
            Self::MySql(pool) => {
                again!(pool, {
                    let (sql, values) = statement.build_sqlx(MysqlQueryBuilder);
                    Ok(sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(pool).await?)
                })
            }
        }
    }

    /// Runs one reading statement for its first row.
    pub async fn first<T: AnyRow>(
        &self,
        statement: &(impl SqlxBinder + Sync),
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// Runs one writing statement in a transaction of its own; answers the rows it met.
    pub async fn exec(&self, statement: &(impl SqlxBinder + Sync)) -> Result<u64, StoreError> {
        let mut tx = self.begin(Mode::Write).await?;
        let rows = tx.exec(statement).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

impl Tx {
    /// Which SQL it speaks.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres { .. } => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    /// Makes everything so far durable.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.end("commit".to_owned()).await
    }

    /// Makes a last change and everything so far durable, in one round trip. Whether the change met a
    /// row is not asked: only for rows that this transaction has locked.
    pub async fn commit_with(self, last: &UpdateStatement) -> Result<(), StoreError> {
        let last = match self.dialect() {
            Dialect::Sqlite => last.to_string(SqliteQueryBuilder),
            Dialect::Postgres => last.to_string(PostgresQueryBuilder),
            Dialect::MySql => last.to_string(MysqlQueryBuilder),
        };
        self.end(format!("{last}; commit")).await
    }

    /// Undoes everything so far.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.end("rollback".to_owned()).await
    }

    async fn end(self, statements: String) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.end(statements).await,
            Self::Postgres { tx, .. } => tx.end(statements).await,
            Self::MySql(tx) => tx.end(statements).await,
        }
    }

    /// Runs a statement for its rows.
    pub async fn all<T: AnyRow>(
        &mut self,
        statement: &(impl SqlxBinder + Sync),
    ) -> Result<Vec<T>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => {
                let (sql, values) = statement.build_sqlx(SqliteQueryBuilder);
                sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(&mut **tx).await?
            }
            Self::Postgres { tx, persistent } => {
                let (sql, values) = statement.build_sqlx(PostgresQueryBuilder);
                let query = sqlx::query_as_with(AssertSqlSafe(sql), values).persistent(*persistent);
                query.fetch_all(&mut **tx).await?
            }
            Self::MySql(tx) => {
                let (sql, values) = statement.build_sqlx(MysqlQueryBuilder);
                sqlx::query_as_with(AssertSqlSafe(sql), values).fetch_all(&mut **tx).await?
            }
        })
    }

    /// Runs a statement for its first row.
    pub async fn first<T: AnyRow>(
        &mut self,
        statement: &(impl SqlxBinder + Sync),
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// Runs a statement; answers how many rows it met.
    pub async fn exec(&mut self, statement: &(impl SqlxBinder + Sync)) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => {
                let (sql, values) = statement.build_sqlx(SqliteQueryBuilder);
                sqlx::query_with(AssertSqlSafe(sql), values).execute(&mut **tx).await?.rows_affected()
            }
            Self::Postgres { tx, persistent } => {
                let (sql, values) = statement.build_sqlx(PostgresQueryBuilder);
                let query = sqlx::query_with(AssertSqlSafe(sql), values).persistent(*persistent);
                query.execute(&mut **tx).await?.rows_affected()
            }
            Self::MySql(tx) => {
                let (sql, values) = statement.build_sqlx(MysqlQueryBuilder);
                sqlx::query_with(AssertSqlSafe(sql), values).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    /// Runs statements of our own files (DDL), without parameters.
    pub async fn script(&mut self, sql: String) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.script(sql).await,
            Self::Postgres { tx, .. } => tx.script(sql).await,
            Self::MySql(tx) => tx.script(sql).await,
        }
    }
}
