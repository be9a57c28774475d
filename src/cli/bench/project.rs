//! `bench project`: folding received messages into the inbox, beside one statement that does it in SQL.
//!
//! Ours keeps the counters too, and moves a checkpoint with every step. The raw side makes the items
//! only, all of them in one transaction: what a set-based rebuild inside the database would cost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;

use super::{
    Run, bar,
    load::{self, Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::per_second,
    stage::Stage,
};
use crate::{
    ledger::{Ledger, LedgerOptions},
    projection::{Projection, inbox::Inbox},
    routing::Routing,
    store::Dialect,
    wake::Wake,
    worker::{Progress, Worker, project::Project, rebuild::Rebuild},
};

/// Fold received messages into the inbox: catching up, and rebuilding
///
/// Beside it: one `insert … select` that makes the same items from the log inside the database, into a
/// copy of the inbox table with its key and index. Ours keeps the counters besides. A rebuild is
/// measured whole: fold into the other slot, indexes, comparison with the live slot row by row, flip.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Messages in the log
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    #[command(flatten)]
    pub(super) run: Run,
}

/// The rounds of everything that is measured, as rates.
#[derive(Debug, Default)]
struct Rates {
    caught_up: Vec<f64>,
    selected: Vec<f64>,
    copied: Vec<f64>,
    rebuilt: Vec<f64>,
}

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        vec![
            ("messages", self.messages.to_string()),
            ("recipients", recipients(self.messages).to_string()),
            ("step", stage.config.projection.batch_max.to_string()),
            ("shards", stage.store.identity().shards.to_string()),
            ("rounds", self.run.rounds.to_string()),
        ]
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, recipients(self.messages));
        let filling = bar("fill the log", self.messages);
        load::fill(stage, &mut load, self.messages, &filling).await?;
        filling.finish_and_clear();
        stage.baseline.settle().await?;

        let bar = bar("rounds", u64::from(self.run.rounds));
        let mut rates = Rates::default();
        for _ in 0..self.run.rounds {
            self.round(stage, &mut rates).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(figures(stage, rates))
    }

    /// One of each, in turn. The live slot is made anew every time.
    async fn round(&self, stage: &Stage, rates: &mut Rates) -> anyhow::Result<()> {
        let Stage { store, baseline, clock, .. } = stage;
        baseline.forget(&Inbox).await?;
        store.ensure_projection(&Inbox, clock.now()).await?;
        rates.caught_up.push(per_second(self.messages, catch_up(stage).await?));

        for copy in [false, true] {
            baseline.make_tables(&Inbox).await?;
            let start = Instant::now();
            let rows = if copy { baseline.copy_rows(&Inbox).await? } else { baseline.fill_inbox().await? };
            let took = start.elapsed();
            baseline.drop_tables(&Inbox).await?;
            ensure!(rows == self.messages, "{} messages became {rows} inbox items", self.messages);
            let rounds = if copy { &mut rates.copied } else { &mut rates.selected };
            rounds.push(per_second(rows, took));
        }

        let rebuild = Rebuild { store: store.clone(), projection: &Inbox, clock: Arc::clone(clock) };
        let start = Instant::now();
        let ended = rebuild.rebuild(false, false, &|_, _| {}).await?;
        rates.rebuilt.push(per_second(self.messages, start.elapsed()));
        ensure!(ended.flipped, "the rebuilt inbox differs from the live one: {ended:?}");
        Ok(())
    }
}

/// One recipient for ten messages.
fn recipients(messages: u64) -> u64 {
    (messages / 10).max(1)
}

/// Folds until nothing is left, step by step as the service does it.
pub(super) async fn catch_up(stage: &Stage) -> anyhow::Result<Duration> {
    let batch_max = stage.config.log.batch_max;
    let options = LedgerOptions { batch_max, routing: Routing::default(), dispatch: None };
    // Nothing is appended, so the appenders need not run.
    let (ledger, _appenders) = Ledger::new(stage.store.clone(), Arc::clone(&stage.clock), options);
    let mut projector = Project::new(ledger, stage.config.projection.batch_max as u64, Wake::default());
    let start = Instant::now();
    while projector.tick().await? == Progress::Worked {}
    Ok(start.elapsed())
}

fn figures(stage: &Stage, rates: Rates) -> Vec<Figure> {
    let Rates { caught_up, selected, copied, rebuilt } = rates;
    let selects = "insert … select of the items from the log, into a table with its key and index";
    let copies = "insert … select of items that are made already, into the same table";
    let figure = |what: &str, ours: &Vec<f64>, raw: (&str, &Vec<f64>), target| Figure {
        what: what.to_owned(),
        unit: Unit::PerSecond,
        ours: ours.clone(),
        raw: Some(Raw { what: raw.0.to_owned(), rounds: raw.1.clone() }),
        target,
    };
    let rebuild = match stage.baseline.dialect() {
        Dialect::Postgres => Some(Target::Ratio(1.0)),
        Dialect::Sqlite => Some(Target::Ratio(0.5)),
        Dialect::MySql => None,
    };
    let name = Inbox.name();
    vec![
        figure(&format!("{name}, catching up"), &caught_up, (selects, &selected), Some(Target::Ratio(0.4))),
        figure(&format!("{name}, rebuild"), &rebuilt, (selects, &selected), rebuild),
        figure(&format!("{name}, catching up, beside a copy"), &caught_up, (copies, &copied), None),
        figure(&format!("{name}, rebuild, beside a copy"), &rebuilt, (copies, &copied), None),
    ]
}
