//! The command line: what an operator calls. Every subcommand is a file with its `Options` and their
//! `run`; what it does is done by the parts below, and what it prints is printed here.
//!
//! A new subcommand is a file beside this one, a variant of [`Command`] and a line in [`Command::run`].

#![allow(clippy::print_stdout, reason = "printing is what a command is for")]
#![allow(clippy::doc_markdown, reason = "the doc comments of options are their help texts")]

mod audit;
mod bench;
mod config;
mod deliveries;
mod demo;
mod devices;
mod folder;
mod inbox;
mod ingest;
mod keys;
mod migrate;
mod openapi;
mod projections;
mod providers;
mod quarantine;
mod serve;
mod writing;

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Loaded, Sources},
    store::StoreError,
    telemetry,
};

/// What every help text ends with.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; nothing is wrong
  1  failed, or what was looked for was found wrong: problems, differences
  2  the command line was not understood";

/// An event-sourced notification ledger: every message once in the log, an inbox and push deliveries
/// derived from it, every attempt audited.
///
/// Nothing has to be configured to try it: without a file, the ledger is a SQLite file in the working
/// directory and the API listens on this machine only. `config show` prints what is in force.
#[derive(Debug, Parser)]
#[command(name = "notification-ledger", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What all commands understand.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file; without it, notification-ledger.toml in the working directory, if it is
    /// there
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "NOTIFICATION_LEDGER_CONFIG",
        help_heading = "Global"
    )]
    pub config: Option<PathBuf>,

    /// The database, in place of the configured one: sqlite://FILE, postgres://… or mysql://…
    ///
    /// Others on this machine can see the command line; an address with a password is better put into
    /// the environment: NOTIFICATION_LEDGER__DATABASE__URL.
    #[arg(long, value_name = "URL", global = true, help_heading = "Global")]
    pub database: Option<String>,
}

/// How a command answers.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON, for machines
    #[arg(long)]
    pub json: bool,
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// And all is well.
    Well,
    /// And found something wrong, which it has printed.
    Wrong,
}

/// What is logged, to stderr, while a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// What `telemetry.log` says.
    Service,
    /// Warnings only, unless `telemetry.log` was set: the command prints its own answer.
    Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Audit(audit::Options),
    Bench(bench::Options),
    Config(config::Options),
    Deliveries(deliveries::Options),
    Demo(demo::Options),
    Devices(devices::Options),
    Inbox(inbox::Options),
    Ingest(ingest::Options),
    Keys(keys::Options),
    Migrate(migrate::Options),
    Openapi(openapi::Options),
    Projections(projections::Options),
    Providers(providers::Options),
    Quarantine(quarantine::Options),
    Serve(serve::Options),
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When it could not do what it was asked.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the asynchronous runtime cannot be started")?;
        let result = runtime.block_on(self.command.run(&self.global));
        // Whatever still blocks a thread now was given up before.
        runtime.shutdown_background();
        Ok(match result? {
            Exit::Well => ExitCode::SUCCESS,
            Exit::Wrong => ExitCode::FAILURE,
        })
    }
}

impl Command {
    async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        match self {
            Self::Audit(options) => options.run(global).await,
            Self::Bench(options) => Box::pin(options.run(global)).await,
            Self::Config(options) => options.run(global).await,
            Self::Deliveries(options) => options.run(global).await,
            Self::Demo(options) => options.run(global).await,
            Self::Devices(options) => options.run(global).await,
            Self::Inbox(options) => options.run(global).await,
            Self::Ingest(options) => options.run(global).await,
            Self::Keys(options) => options.run(global).await,
            Self::Migrate(options) => options.run(global).await,
            Self::Openapi(options) => options.run().await,
            Self::Projections(options) => options.run(global).await,
            Self::Providers(options) => options.run(global).await,
            Self::Quarantine(options) => options.run(global).await,
            Self::Serve(options) => options.run(global).await,
        }
    }
}

impl Global {
    /// Reads the configuration, with the options of the command line in it.
    ///
    /// # Errors
    /// When anything in it is wrong; all of it is named.
    pub fn load(&self) -> Result<Loaded, crate::config::ConfigError> {
        let sources = Sources::of_process(self.config.clone());
        match &self.database {
            Some(url) => sources.with_option("database.url", url, "--database").load(),
            None => sources.load(),
        }
    }

    /// Reads the configuration and starts logging.
    ///
    /// # Errors
    /// When anything in the configuration is wrong.
    pub fn start(&self, logs: Logs) -> anyhow::Result<Loaded> {
        let loaded = self.load()?;
        let telemetry = &loaded.config.telemetry;
        let quiet = logs == Logs::Command && loaded.origin("telemetry.log").is_none();
        telemetry::start_logs(if quiet { "warn" } else { &telemetry.log }, telemetry.format)?;
        Ok(loaded)
    }
}

/// Prints a text and a line end.
///
/// # Errors
/// When nobody reads on; [`report`] knows that this is no failure.
pub fn print(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Whether a command failed because nobody reads what it prints.
fn nobody_reads(error: &anyhow::Error) -> bool {
    let is_broken = |it: &io::Error| it.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|it| it.downcast_ref::<io::Error>().is_some_and(is_broken))
}

/// Tells on stderr why a command failed: the error, what caused it, and what to do where that is known.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if nobody_reads(error) {
        // As in `audit … | head`: who asked has seen enough.
        return ExitCode::SUCCESS;
    }
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", told(error));
    ExitCode::FAILURE
}

/// The error and its causes, a line each. Drivers repeat the text of a cause in their own: it is told
/// where it comes from, and not twice.
fn told(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for text in error.chain().map(plain) {
        if let Some(last) = lines.last_mut()
            && let Some(own) = last.strip_suffix(&text)
        {
            *last = own.trim_end_matches([':', ' ']).to_owned();
        }
        lines.push(text);
    }
    lines.retain(|it| !it.is_empty());
    let remedy = error.chain().find_map(|cause| {
        let shared = || cause.downcast_ref::<Arc<StoreError>>().map(Arc::as_ref);
        cause.downcast_ref::<StoreError>().or_else(shared)?.remedy()
    });
    let mut told = format!("error: {}", lines.join("\ncaused by: "));
    if let Some(remedy) = remedy {
        told.push_str("\nwhat to do: ");
        told.push_str(remedy);
    }
    told
}

/// A cause without the line of PostgreSQL's own source that its driver puts at the end.
fn plain(cause: &(dyn Error + 'static)) -> String {
    let text = cause.to_string();
    match text.rsplit_once(" at line ") {
        Some((text, number)) if number.bytes().all(|it| it.is_ascii_digit()) => text.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            ["notification-ledger", "--config", "a.toml", "config", "show"],
            ["notification-ledger", "config", "show", "--config", "a.toml"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap().global.config, Some("a.toml".into()));
        }
    }

    #[test]
    fn every_command_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in
                command.get_arguments().filter(|it| it.get_id() != "help" && it.get_id() != "version")
            {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn each_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Cause {
            text: &'static str,
            source: Option<Box<Cause>>,
        }
        let cause = |text, source: Option<Cause>| Cause { text, source: source.map(Box::new) };
        let table = cause("no such table: ledger at line 768", None);
        let driver = cause("error returned from database: no such table: ledger at line 768", Some(table));
        let same = cause("error returned from database: no such table: ledger at line 768", Some(driver));
        let told = told(&anyhow::Error::from(same).context("it cannot be read"));
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "error: it cannot be read",
                "caused by: error returned from database",
                "caused by: no such table: ledger",
            ]
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(report(&anyhow::Error::from(gone).context("printing")), ExitCode::SUCCESS);
    }
}
