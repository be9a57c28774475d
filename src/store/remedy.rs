//! What an operator can do about a database that does not do what it was asked.

use super::StoreError;

const REACH: &str = "check that the host and the port in database.url are right, that they can be reached \
                     from here, and that the server runs and has connections left";
const PATH: &str = "check that the folder in database.url exists, and that the user the service runs as may \
                    write into it";
const WRITE: &str = "let the user the service runs as write to the file in database.url, and into its folder";
const LOGIN: &str = "correct the user and the password in database.url";
const CREATE: &str = "create the database that database.url names, or correct the name";
const RIGHTS: &str = "give the user its rights; docs/operating.md, \"Rights\", lists them";
const POOLER: &str = "database.url leads to a transaction pooler such as PgBouncer: set database.pooler = true, \
                      and database.direct_url to the address of the database itself";
const FILE: &str = "let database.url name a file that SQLite made, or one that is not there yet";
const OLDER: &str = "run a release that knows this schema; a migration that was applied never changes";

impl StoreError {
    /// What to do about it, where that is known; an instruction.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        use sqlx::migrate::MigrateError;
        match self {
            Self::Database(error) => of_driver(error),
            Self::TimedOut(_) => Some(REACH),
            Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                of_driver(error)
            }
            Self::Migrate(MigrateError::VersionMismatch(_) | MigrateError::VersionTooNew(..)) => Some(OLDER),
            _ => None,
        }
    }
}

fn of_driver(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        // The pool tries again while a server refuses, and says no more than that its time is up.
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => Some(REACH),
        sqlx::Error::Configuration(_) => Some("correct database.url"),
        sqlx::Error::Tls(_) => Some("check sslmode and the certificates in database.url"),
        sqlx::Error::Database(error) => of_code(&error.code()?, error.message()),
        _ => None,
    }
}

/// SQLSTATE of PostgreSQL and MySQL, result codes of SQLite.
fn of_code(code: &str, message: &str) -> Option<&'static str> {
    Some(match code {
        "14" | "526" | "782" | "1038" => PATH,
        "8" | "264" | "520" | "776" | "1032" | "1288" | "1544" => WRITE,
        "26" => FILE,
        "28P01" | "28000" => LOGIN,
        "3D000" => CREATE,
        // MySQL has one code for a database that is not there and for one that may not be used.
        "42000" if message.starts_with("Unknown database") => CREATE,
        "42000" if message.contains("denied") => RIGHTS,
        "42501" => RIGHTS,
        // PgBouncer refuses the options of a session; behind it, statements of others are prepared.
        "08P01" if message.contains("startup parameter") => POOLER,
        "42P05" | "26000" => POOLER,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_mend_has_a_remedy() {
        for (code, message, expected) in [
            ("14", "unable to open database file", Some(PATH)),
            ("8", "attempt to write a readonly database", Some(WRITE)),
            ("28P01", "password authentication failed for user \"me\"", Some(LOGIN)),
            ("3D000", "database \"ledger\" does not exist", Some(CREATE)),
            ("42000", "Unknown database 'ledger'", Some(CREATE)),
            ("42000", "You have an error in your SQL syntax", None),
            ("08P01", "unsupported startup parameter: options", Some(POOLER)),
            ("08P01", "invalid message format", None),
            ("42P05", "prepared statement \"sqlx_s_1\" already exists", Some(POOLER)),
            ("23505", "duplicate key value violates unique constraint", None),
        ] {
            assert_eq!(of_code(code, message), expected, "{code} {message}");
        }
        assert_eq!(StoreError::Database(sqlx::Error::PoolTimedOut).remedy(), Some(REACH));
        assert_eq!(StoreError::NoLedger.remedy(), None, "it says so itself");
    }
}
