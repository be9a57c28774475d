//! A fresh database for one test, on each database that the ledger runs on.

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use tempfile::TempDir;

use super::{block_on_elsewhere, random_name, variable};

/// The databases that every promise of the store is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file in a folder of its own.
    Sqlite,
    /// PostgreSQL, directly.
    Postgres,
    /// PostgreSQL behind PgBouncer, which gives a connection to a client for one transaction only.
    Pgbouncer,
    /// MariaDB. The server's default character set is not UTF-8: the schema has to say what it wants.
    Mysql,
}

/// An empty database, dropped at the end of the test.
#[derive(Debug)]
pub(crate) struct TestDb {
    kind: Kind,
    url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder(#[expect(dead_code, reason = "held for its drop, which removes the folder")] TempDir),
    Server { admin_url: String, name: String },
}

/// One test for each database of each of these functions, in modules named after the databases:
/// `sqlite::NAME`, `postgres::NAME`, `pgbouncer::NAME`, `mysql::NAME`. Once per module.
///
/// ```ignore
/// for_each_database! {
///     async fn appending_twice_appends_once(db: TestDb) { … }
/// }
/// ```
macro_rules! for_each_database {
    ($($(#[$doc:meta])* async fn $name:ident($db:ident: TestDb) $body:block)+) => {
        $($(#[$doc])* async fn $name($db: $crate::support::database::TestDb) $body)+
        $crate::support::database::for_each_database! { @module sqlite Sqlite $($name)+ }
        $crate::support::database::for_each_database! { @module postgres Postgres $($name)+ }
        $crate::support::database::for_each_database! { @module pgbouncer Pgbouncer $($name)+ }
        $crate::support::database::for_each_database! { @module mysql Mysql $($name)+ }
    };
    (@module $module:ident $kind:ident $($name:ident)+) => {
        mod $module {
            use $crate::support::database::{Kind, TestDb};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(TestDb::new(Kind::$kind).await).await;
            })+
        }
    };
}
pub(crate) use for_each_database;

impl TestDb {
    /// Creates the database; panics where its server is not there.
    pub(crate) async fn new(kind: Kind) -> Self {
        let name = random_name();
        let (url, admin_url) = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", folder.path().join("ledger.db").display());
                return Self { kind, url, place: Place::Folder(folder) };
            }
            Kind::Postgres => (variable("LEDGER_TEST_POSTGRES_URL"), variable("LEDGER_TEST_POSTGRES_URL")),
            Kind::Pgbouncer => (variable("LEDGER_TEST_PGBOUNCER_URL"), variable("LEDGER_TEST_POSTGRES_URL")),
            Kind::Mysql => (variable("LEDGER_TEST_MYSQL_URL"), variable("LEDGER_TEST_MYSQL_URL")),
        };
        run_as_admin(&admin_url, &format!("create database {name}")).await.unwrap();
        Self { kind, url: with_database(&url, &name), place: Place::Server { admin_url, name } }
    }

    /// Which database this is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What belongs under `database.url` in the configuration.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What belongs under `database.direct_url`: the way past the pooler, for migrations.
    pub(crate) fn direct_url(&self) -> Option<String> {
        let Place::Server { admin_url, name } = &self.place else { return None };
        self.is_pooled().then(|| with_database(admin_url, name))
    }

    /// What belongs under `database.pooler`: whether connections are shared between transactions.
    pub(crate) fn is_pooled(&self) -> bool {
        self.kind == Kind::Pgbouncer
    }
}

impl TestDb {
    /// Runs a statement on the server as its administrator; `{database}` in it is this database's name.
    pub(crate) async fn administer(&self, statement: &str) {
        let Place::Server { admin_url, name } = &self.place else { panic!("SQLite has no administrator") };
        run_as_admin(admin_url, &statement.replace("{database}", name)).await.unwrap();
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if let Place::Server { admin_url, name } = &self.place {
            let (admin_url, name) = (admin_url.clone(), name.clone());
            // A test that failed may leave connections behind, which must not hold up the drop.
            let force = if admin_url.starts_with("mysql") { "" } else { " with (force)" };
            block_on_elsewhere(async move {
                if let Err(error) = run_as_admin(&admin_url, &format!("drop database {name}{force}")).await {
                    eprintln!("{name} stays behind until its server is thrown away: {error}");
                }
            });
        }
    }
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (server, _) = place.rsplit_once('/').unwrap();
    format!("{server}/{name}?{query}")
}

async fn run_as_admin(url: &str, statement: &str) -> sqlx::Result<()> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    if url.starts_with("mysql") {
        let mut connection = MySqlConnection::connect(url).await?;
        sqlx::raw_sql("set session lock_wait_timeout = 5").execute(&mut connection).await?;
        statement.execute(&mut connection).await?;
        connection.close().await
    } else {
        let mut connection = PgConnection::connect(url).await?;
        statement.execute(&mut connection).await?;
        connection.close().await
    }
}
