//! What can go wrong with the database, and which of it is worth another try.

use std::time::Duration;

use crate::{event::codec::CodecError, projection::Unfoldable};

/// What `raise(abort, …)` of a trigger becomes on SQLite; SQLSTATEs are longer. The only trigger that a
/// statement of ours can meet is the one that refuses to replace a row of the log (APPEND-ONLY).
const SQLITE_CONSTRAINT_TRIGGER: &str = "1811";

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
    /// An event that a fold fails at.
    #[error(transparent)]
    Fold(#[from] Unfoldable),
    /// A value in the database is not what we wrote.
    #[error("the database holds an unexpected value: {0}")]
    Corrupt(String),
    /// The database did not answer in time; whether it did what it was asked is not known.
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
}

impl StoreError {
    /// Whether doing the same again may succeed: deadlock, serialisation, a busy or absent database.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let error = match self {
            Self::Database(error) => error,
            Self::TimedOut(_) => return true,
            _ => return false,
        };
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

    /// Whether the connection was dead, as after a fail-over: another one may work at once.
    #[must_use]
    pub fn is_lost_connection(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| ["57P01", "57P02"].contains(&&*code) || code.starts_with("08")),
            _ => false,
        }
    }

    /// Whether the database refuses these very rows, so that no later try can succeed either: a value
    /// that cannot be written or breaks a rule of the table.
    #[must_use]
    pub fn blames_rows(&self) -> bool {
        match self {
            Self::Codec { .. }
            | Self::Corrupt(_)
            | Self::Database(sqlx::Error::Encode(_) | sqlx::Error::Decode(_)) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_about_rows(&code))
            }
            _ => false,
        }
    }

    /// Whether the row is there already: a unique constraint refused it or, in the log on SQLite, the
    /// trigger that comes before the constraints.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.is_unique_violation() || error.code().as_deref() == Some(SQLITE_CONSTRAINT_TRIGGER)
    }
}

/// SQLSTATE of PostgreSQL and MySQL, extended result codes of SQLite.
fn is_transient_code(code: &str) -> bool {
    // Serialisation, deadlock, lock not available, idle or statement killed by a time-out, and a server
    // that only reads, as a fail-over leaves behind.
    const SQLSTATES: [&str; 6] = ["40001", "40P01", "55P03", "25P03", "57014", "25006"];
    match sqlite_result(code) {
        // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN: of the file and its disk, not of the rows.
        Some(result) => matches!(result, 5 | 6 | 8 | 10 | 13 | 14),
        // 08: connection; 53: too many connections, no memory, no disk; 57P: shutdown, crash, not yet up;
        // 58: system error, which is also what PgBouncer answers when it cannot reach the server
        None => SQLSTATES.contains(&code) || ["08", "53", "57P", "58"].iter().any(|it| code.starts_with(it)),
    }
}

/// 22: a value that does not fit; 23: a constraint. SQLite: TOOBIG, CONSTRAINT, MISMATCH.
fn is_about_rows(code: &str) -> bool {
    match sqlite_result(code) {
        Some(result) => matches!(result, 18..=20),
        None => code.starts_with("22") || code.starts_with("23"),
    }
}

/// The primary result code in SQLite's extended one; none for an SQLSTATE, which has five characters.
fn sqlite_result(code: &str) -> Option<u32> {
    if code.len() == 5 { None } else { code.parse::<u32>().ok().map(|code| code & 0xff) }
}

/// MySQL says only `HY000` for a lock wait time-out (1205), for read-only fail-over (1290, 1792), for a
/// full disk or table (1021, 1114) and for a shutdown under way (1053); its own numbers tell.
fn is_transient_mysql(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
    error.is_some_and(|error| {
        matches!(error.number(), 1020 | 1021 | 1040 | 1053 | 1114 | 1205 | 1213 | 1290 | 1792)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_what_is_worth_another_try_and_what_is_about_the_rows() {
        for (code, transient, rows) in [
            ("40001", true, false),
            ("25006", true, false),
            ("57P01", true, false),
            ("53100", true, false),
            ("08006", true, false),
            ("23505", false, true),
            ("22001", false, true),
            ("42501", false, false),
            ("42P01", false, false),
            // SQLite: BUSY, BUSY_SNAPSHOT, READONLY_DBMOVED, IOERR_WRITE, FULL, CONSTRAINT_UNIQUE, TOOBIG
            ("5", true, false),
            ("517", true, false),
            ("1032", true, false),
            ("778", true, false),
            ("13", true, false),
            ("2067", false, true),
            ("18", false, true),
        ] {
            assert_eq!((is_transient_code(code), is_about_rows(code)), (transient, rows), "{code}");
        }
    }
}
