//! A database of its own for one run, gone afterwards: a folder for SQLite, a database beside the
//! given one elsewhere.
//!
//! Where a ledger lives nothing is made: what runs in a scratch database puts load on its server.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, PgConnection, mysql::MySqlConnectOptions,
    postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};

use super::{Db, DbOptions, StoreError, schema};

/// An empty database that nobody else uses.
#[derive(Debug)]
#[must_use]
pub struct Scratch {
    url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Server { beside: String, name: String },
}

/// Why there is no scratch database, or why it stayed.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A ledger lives there.
    #[error("the database holds a ledger; name another one, on a server where load does no harm")]
    HoldsLedger,
    /// The folder could not be made or removed.
    #[error("the folder {} cannot be made or removed", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database server refused.
    #[error("the database {name} cannot be made or removed")]
    Server {
        /// Which.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// The given database could not be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Scratch {
    /// Makes a database called `name` beside the one that `beside` leads to.
    ///
    /// # Errors
    /// When a ledger lives in `beside`, or the database cannot be made.
    pub async fn make(beside: &str, name: &str) -> Result<Self, ScratchError> {
        if beside.starts_with("sqlite:") {
            return Self::make_folder(beside, name).await;
        }
        let options = DbOptions {
            url: beside.to_owned(),
            pooler: false,
            max_connections: 1,
            acquire_timeout: Duration::from_secs(10),
        };
        let db = Db::connect(&options).await?;
        let identity = schema::identity(&db).await;
        db.close().await;
        if identity?.is_some() {
            return Err(ScratchError::HoldsLedger);
        }
        run(beside, format!("create database {name}")).await.map_err(|it| server(name, it))?;
        let place = Place::Server { beside: beside.to_owned(), name: name.to_owned() };
        Ok(Self { url: with_database(beside, name), place })
    }

    async fn make_folder(beside: &str, name: &str) -> Result<Self, ScratchError> {
        let options = SqliteConnectOptions::from_str(beside).map_err(StoreError::from)?;
        let file = options.get_filename().to_owned();
        if file.exists() && holds_ledger(options).await? {
            return Err(ScratchError::HoldsLedger);
        }
        let folder = file.parent().unwrap_or(Path::new("")).join(name);
        std::fs::create_dir(&folder)
            .map_err(|source| ScratchError::Folder { path: folder.clone(), source })?;
        let url = format!("sqlite://{}", folder.join("ledger.db").display());
        Ok(Self { url, place: Place::Folder(folder) })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder that holds it, where it is a file.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Server { .. } => None,
        }
    }

    /// Removes it with everything in it. Connections to it should be closed by then.
    ///
    /// # Errors
    /// When it could not be removed; the error names what stays behind.
    pub async fn remove(self) -> Result<(), ScratchError> {
        match self.place {
            Place::Folder(path) => {
                std::fs::remove_dir_all(&path).map_err(|source| ScratchError::Folder { path, source })
            }
            Place::Server { beside, name } => {
                // A connection that was cut off in the middle of a statement must not hold this up.
                let force = if is_mysql(&beside) { "" } else { " with (force)" };
                let dropped = run(&beside, format!("drop database {name}{force}")).await;
                dropped.map_err(|it| server(&name, it))
            }
        }
    }
}

fn server(name: &str, source: sqlx::Error) -> ScratchError {
    ScratchError::Server { name: name.to_owned(), source: source.into() }
}

/// Looks without changing anything, as opening it for use would.
async fn holds_ledger(options: SqliteConnectOptions) -> Result<bool, StoreError> {
    let mut connection = options.read_only(true).create_if_missing(false).connect().await?;
    let found: Option<(i64,)> =
        sqlx::query_as("select 1 from sqlite_master where type = 'table' and name = 'ledger'")
            .fetch_optional(&mut connection)
            .await?;
    connection.close().await?;
    Ok(found.is_some())
}

/// Databases are made and dropped outside of transactions.
async fn run(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    if is_mysql(url) {
        let url = url.replacen("mariadb:", "mysql:", 1);
        let mut connection = MySqlConnection::connect_with(&MySqlConnectOptions::from_str(&url)?).await?;
        statement.execute(&mut connection).await?;
        connection.close().await
    } else {
        let mut connection = PgConnection::connect_with(&PgConnectOptions::from_str(url)?).await?;
        statement.execute(&mut connection).await?;
        connection.close().await
    }
}

fn is_mysql(url: &str) -> bool {
    url.starts_with("mysql:") || url.starts_with("mariadb:")
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (place, query) = url.split_at(url.find('?').unwrap_or(url.len()));
    let authority = place.find("://").map_or(0, |at| at + 3);
    let end = place[authority..].find('/').map_or(place.len(), |at| authority + at);
    format!("{}/{name}{query}", &place[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_database_is_changed_and_nothing_else() {
        for (url, expected) in [
            ("postgres://u:p@h:5432/postgres?sslmode=disable", "postgres://u:p@h:5432/x?sslmode=disable"),
            ("postgres://u@h/", "postgres://u@h/x"),
            ("mysql://root@h", "mysql://root@h/x"),
            ("mysql://root@h?ssl-mode=disabled", "mysql://root@h/x?ssl-mode=disabled"),
            ("postgres://h/a?options=-c%20x/y", "postgres://h/x?options=-c%20x/y"),
        ] {
            assert_eq!(with_database(url, "x"), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_folder_beside_the_file_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let beside = format!("sqlite://{}", folder.path().join("none.db").display());
        let scratch = Scratch::make(&beside, "scratch").await.unwrap();
        assert!(folder.path().join("scratch").is_dir());
        assert!(scratch.url().ends_with("/scratch/ledger.db"), "{}", scratch.url());
        scratch.remove().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn beside_a_ledger_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("ledger.db").display());
        let options = DbOptions {
            url: url.clone(),
            pooler: false,
            max_connections: 2,
            acquire_timeout: Duration::from_secs(5),
        };
        let db = Db::connect(&options).await.unwrap();
        schema::migrate(&db).await.unwrap();
        db.close().await;
        assert!(matches!(Scratch::make(&url, "scratch").await, Err(ScratchError::HoldsLedger)));
        assert!(!folder.path().join("scratch").exists());
    }
}
