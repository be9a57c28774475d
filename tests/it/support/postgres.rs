//! A PostgreSQL server of a test's own, to stop and start under load.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{free_port, random_name, variable};

/// A server that runs until it is stopped or dropped. Its data stays between a stop and a start, and
/// its durability is PostgreSQL's default.
#[derive(Debug)]
pub(crate) struct PrivatePostgres {
    folder: PathBuf,
    port: u16,
}

impl PrivatePostgres {
    /// Makes and starts a server.
    pub(crate) async fn start() -> Self {
        let folder = Path::new(&variable("LEDGER_TEST_PG_DIR")).join(random_name());
        let postgres = Self { folder, port: free_port() };
        let data = postgres.data();
        let arguments =
            ["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
        postgres.run("initdb", &arguments).await;
        postgres.start_again().await;
        postgres
    }

    /// Its database `postgres`.
    pub(crate) fn url(&self) -> String {
        self.url_as("postgres", "postgres")
    }

    /// One of its databases, as one of its roles. It trusts everybody.
    pub(crate) fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Stops the server as an operator would: clients are sent away, what is committed is kept.
    pub(crate) async fn stop(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "fast", "-w", "stop"]).await;
    }

    /// Starts the server after a stop, with the same data at the same address.
    pub(crate) async fn start_again(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200",
            self.port
        );
        let log = self.folder.join("log");
        let arguments = ["-D", &self.data(), "-l", &log.to_string_lossy(), "-o", &options, "-w", "start"];
        self.run("pg_ctl", &arguments).await;
    }

    /// Dumps the database `postgres` to a file of the server's owner, with these arguments too.
    pub(crate) async fn dump(&self, arguments: &[&str]) -> String {
        let file = self.folder.join("dump.sql").to_string_lossy().into_owned();
        let url = self.url();
        let words: Vec<_> =
            ["--file", &file, "--dbname", &url].into_iter().chain(arguments.iter().copied()).collect();
        self.run("pg_dump", &words).await;
        file
    }

    /// Brings a dump into the database `postgres`, which is empty.
    pub(crate) async fn restore(&self, file: &str) {
        let url = self.url();
        self.run("psql", &["--quiet", "--set", "ON_ERROR_STOP=1", "--file", file, "--dbname", &url]).await;
    }

    fn data(&self) -> String {
        self.folder.join("data").to_string_lossy().into_owned()
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let status = tokio::process::Command::from(command(program, arguments)).status().await.unwrap();
        assert!(status.success(), "{program} failed; see {}", self.folder.display());
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Fails where a test has stopped it already.
        let _ = command("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]).status();
        let _ = command_as_owner(&["rm", "-rf", &self.folder.to_string_lossy()]).status();
    }
}

fn command(program: &str, arguments: &[&str]) -> std::process::Command {
    let program = format!("{}/{program}", variable("LEDGER_TEST_PG_BIN"));
    let words: Vec<&str> = std::iter::once(program.as_str()).chain(arguments.iter().copied()).collect();
    command_as_owner(&words)
}

/// A command as the user that PostgreSQL runs as, because it refuses to run as root.
fn command_as_owner(words: &[&str]) -> std::process::Command {
    let prefix = variable("LEDGER_TEST_PG_AS");
    let mut words = prefix.split_whitespace().chain(words.iter().copied());
    let mut command = std::process::Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    command.current_dir("/").stderr(Stdio::null());
    command
}
