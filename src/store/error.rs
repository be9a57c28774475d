//! What can go wrong with the database, and which of it is worth another try.

use crate::event::codec::CodecError;

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database we know.
    #[error("database.url begins with {0:?}; use sqlite://PATH, postgres://… or mysql://…")]
    UnknownScheme(String),
    /// The driver or the database.
    #[error("the database refused or failed")]
    Database(#[from] sqlx::Error),
    /// A migration could not be applied.
    #[error("the database schema could not be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// There is no ledger in the database.
    #[error("the database holds no ledger yet; run `notification-ledger migrate`")]
    NoLedger,
    /// A row cannot be read as an event, or an event not be written as a row.
    #[error("event {position} of shard {shard} cannot be read or written")]
    Codec {
        /// Which shard.
        shard: i16,
        /// Which position.
        position: i64,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A value in the database is not what we wrote.
    #[error("the database holds an unexpected value: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether doing the same again may succeed: deadlock, serialisation, a busy or absent database.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            | sqlx::Error::Protocol(_) => true,
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| is_transient_code(&code))
                    || is_transient_mysql(error.as_ref())
            }
            _ => false,
        }
    }

    /// Whether a unique constraint refused the row.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// SQLSTATE of PostgreSQL and MySQL, extended result codes of SQLite.
fn is_transient_code(code: &str) -> bool {
    // Serialisation, deadlock, lock not available, idle or statement killed by a time-out.
    const SQLSTATES: [&str; 5] = ["40001", "40P01", "55P03", "25P03", "57014"];
    // SQLITE_BUSY and SQLITE_LOCKED with their extended forms.
    const SQLITE: [&str; 6] = ["5", "261", "517", "773", "6", "262"];
    match code {
        code if SQLSTATES.contains(&code) || SQLITE.contains(&code) => true,
        // 08: connection; 53: too many connections, no memory; 57P: shutdown, crash, not yet up;
        // 58: system error, which is also what PgBouncer answers when it cannot reach the server
        _ => ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)),
    }
}

/// MySQL says only `HY000` for a lock wait time-out (1205), for read-only fail-over (1290, 1792) and
/// for a shutdown under way (1053); its own numbers tell.
fn is_transient_mysql(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
    error.is_some_and(|error| matches!(error.number(), 1020 | 1040 | 1053 | 1205 | 1213 | 1290 | 1792))
}
