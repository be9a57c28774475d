//! `bench`: the figures this product wants to be judged by, each measured beside the bare database or a
//! bare client in the same run.
//!
//! Machines and disks move by a third between hours, so only ratios within one run count, and rounds of
//! ours and of the raw side alternate. Every run works in a scratch database that is removed at its end,
//! also after Ctrl-C.

mod append;
mod backfill;
mod deliver;
mod http1;
mod http2;
mod inbox;
mod ingest;
mod load;
mod project;
mod queue;
mod rebuild;
mod report;
mod samples;
mod served;
mod sink;
mod stage;
mod streams;

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    report::{Figure, Machine, Report},
    stage::Stage,
};
use super::{Exit, Global, Output, print};
use crate::telemetry;

/// Measure this build beside the bare database or a bare client, in the same run
///
/// Ours and raw take turns, round by round; a figure is the median of its rounds, and `ours/raw` the
/// median of the rounds' own ratios. Only that ratio says something on another machine.
///
/// Every run makes a ledger of its own and removes it at the end, also after Ctrl-C: beside the SQLite
/// file that --database names, in a new database on the PostgreSQL or MySQL server that it leads to, or,
/// without --database, in the folder for temporary files (which should be on a disk). It refuses where a
/// ledger lives: a benchmark takes all the server has.
///
/// Measure a release build, on a machine that does nothing else:
///   cargo run --release -- bench append --database postgres://postgres@127.0.0.1/postgres
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::Options),
    Ingest(ingest::Options),
    Project(project::Options),
    Rebuild(rebuild::Options),
    Deliver(deliver::Options),
    Inbox(inbox::Options),
    Streams(streams::Options),
}

/// What all benchmarks understand.
#[derive(Debug, Clone, Args)]
struct Run {
    /// How often ours and raw take turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,

    /// Into how many shards the log is cut; without it as any new ledger: 1 on SQLite, 4 elsewhere
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: Option<u16>,

    #[command(flatten)]
    output: Output,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let loaded = global.load()?;
        let telemetry = &loaded.config.telemetry;
        // Slow statements and the like are what is measured here, and no news.
        let quiet = loaded.origin("telemetry.log").is_none();
        telemetry::start_logs(if quiet { "error" } else { &telemetry.log }, telemetry.format)?;
        // Listening begins before there is anything to clean up.
        let mut stopped = std::pin::pin!(stopped()?);
        let run = self.command.run().clone();
        let stage = Stage::open(loaded, run.shards).await?;
        let measured = tokio::select! {
            figures = self.command.measure(&stage) => figures.map(Some),
            () = stopped.as_mut() => Ok(None),
        };
        let report = measured.map(|figures| {
            let (name, setup) = (self.command.name(), self.command.setup(&stage));
            figures.map(|figures| Report { name, setup, machine: Machine::new(&stage), figures })
        });
        stage.close().await?;
        let Some(report) = report? else { bail!("stopped before the end; the scratch database is removed") };
        if run.output.json {
            print(format_args!("{:#}", report.to_json()))?;
        } else {
            print(report.to_text())?;
        }
        Ok(Exit::Well)
    }
}

impl Command {
    const fn run(&self) -> &Run {
        match self {
            Self::Append(it) => &it.run,
            Self::Ingest(it) => &it.run,
            Self::Project(it) => &it.run,
            Self::Rebuild(it) => &it.run,
            Self::Deliver(it) => &it.run,
            Self::Inbox(it) => &it.run,
            Self::Streams(it) => &it.run,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Append(_) => "append",
            Self::Ingest(_) => "ingest",
            Self::Project(_) => "project",
            Self::Rebuild(_) => "rebuild",
            Self::Deliver(_) => "deliver",
            Self::Inbox(_) => "inbox",
            Self::Streams(_) => "streams",
        }
    }

    fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        match self {
            Self::Append(it) => it.setup(stage),
            Self::Ingest(it) => it.setup(stage),
            Self::Project(it) => it.setup(stage),
            Self::Rebuild(it) => it.setup(stage),
            Self::Deliver(it) => it.setup(stage),
            Self::Inbox(it) => it.setup(stage),
            Self::Streams(it) => it.setup(stage),
        }
    }

    async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Append(it) => it.measure(stage).await,
            Self::Ingest(it) => it.measure(stage).await,
            Self::Project(it) => it.measure(stage).await,
            Self::Rebuild(it) => it.measure(stage).await,
            Self::Deliver(it) => it.measure(stage).await,
            Self::Inbox(it) => it.measure(stage).await,
            Self::Streams(it) => it.measure(stage).await,
        }
    }
}

/// Ends with SIGTERM or Ctrl-C, which are listened for from now on.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// Progress on a terminal; nothing is drawn elsewhere.
fn bar(doing: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(doing);
    let style = ProgressStyle::with_template("{msg:<20} {wide_bar} {human_pos}/{human_len}  {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    // Drawn at once: the first part may take a while.
    bar.tick();
    bar
}
