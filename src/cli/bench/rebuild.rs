//! `bench rebuild`: folding a whole log into the inbox anew, beside one statement that does it in SQL.
//!
//! Ours makes the counters too, keeps a checkpoint for every range, and compares the result with the live slot
//! before it becomes the live one. The raw side makes the items only, all of them in one transaction.

use std::{sync::Arc, time::Instant};

use anyhow::ensure;
use clap::Args;

use super::{
    Run, bar,
    load::{self, Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::{forget_peak, peak_mib, per_second},
    stage::Stage,
};
use crate::{
    id::{Position, Shard},
    projection::{Projection, inbox::Inbox},
    store::{Dialect, Slot},
    worker::rebuild::{Rebuild, load::Ranges},
};

/// What the process may hold in memory, in MiB.
const PEAK_MIB: f64 = 256.0;

/// Rebuild the inbox from a log of any size
///
/// Beside it: one `insert … select` that makes the same items from the log inside the database, into a
/// copy of the inbox table with its key and indexes. Ours makes the counters besides, and can be killed at
/// any moment and goes on. It is measured twice on its way: when tables and indexes are there, and when they
/// were compared with the live ones row by row and became live.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Events in the log
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    #[command(flatten)]
    pub(super) run: Run,
}

/// The rounds of everything that is measured.
#[derive(Debug, Default)]
struct Rounds {
    loaded: Vec<f64>,
    flipped: Vec<f64>,
    selected: Vec<f64>,
    peaks_mib: Vec<f64>,
}

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        vec![
            ("events", self.events.to_string()),
            ("recipients", recipients(self.events).to_string()),
            ("shards", stage.store.identity().shards.to_string()),
            ("rounds", self.run.rounds.to_string()),
        ]
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, recipients(self.events));
        let filling = bar("fill the log", self.events);
        load::fill(stage, &mut load, self.events, &filling).await?;
        filling.finish_and_clear();
        drop(load);

        let folding = bar("fold the live slot", self.events);
        stage.store.ensure_projection(&Inbox, stage.clock.now()).await?;
        let rebuild = rebuild(stage);
        let show = |done, _| folding.set_position(done);
        rebuild.load(Slot::A, heads(stage).await?, Ranges::default(), &show).await?;
        folding.finish_and_clear();
        stage.baseline.settle().await?;

        let bar = bar("rounds", u64::from(self.run.rounds));
        let mut rounds = Rounds::default();
        for _ in 0..self.run.rounds {
            self.round(stage, &rebuild, &mut rounds).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(figures(stage, rounds))
    }

    /// One of each, in turn.
    async fn round(&self, stage: &Stage, rebuild: &Rebuild, rounds: &mut Rounds) -> anyhow::Result<()> {
        let Stage { store, baseline, clock, .. } = stage;
        let live = store.projection_state(Inbox.name()).await?.map_or(Slot::A, |it| it.live);
        store.begin_slot(&Inbox, live.other(), clock.now()).await?;
        forget_peak();
        let start = Instant::now();
        rebuild.load(live.other(), heads(stage).await?, Ranges::default(), &|_, _| {}).await?;
        store.index_slot(&Inbox, live.other()).await?;
        rounds.loaded.push(per_second(self.events, start.elapsed()));
        let ended = rebuild.rebuild(false, false, &|_, _| {}).await?;
        rounds.flipped.push(per_second(self.events, start.elapsed()));
        rounds.peaks_mib.extend(peak_mib());
        ensure!(ended.flipped, "the rebuilt inbox differs from the live one: {ended:?}");

        baseline.make_tables(&Inbox).await?;
        let start = Instant::now();
        let rows = baseline.fill_inbox().await?;
        rounds.selected.push(per_second(rows, start.elapsed()));
        baseline.drop_tables(&Inbox).await?;
        ensure!(rows == self.events, "{} events became {rows} inbox items", self.events);
        Ok(())
    }
}

/// One recipient for ten messages.
fn recipients(events: u64) -> u64 {
    (events / 10).max(1)
}

fn rebuild(stage: &Stage) -> Rebuild {
    Rebuild { store: stage.store.clone(), projection: &Inbox, clock: Arc::clone(&stage.clock) }
}

async fn heads(stage: &Stage) -> anyhow::Result<Vec<(Shard, Position)>> {
    Ok(stage.store.heads().await?.into_iter().map(|it| (it.shard, it.position)).collect())
}

fn figures(stage: &Stage, rounds: Rounds) -> Vec<Figure> {
    let Rounds { loaded, flipped, selected, peaks_mib } = rounds;
    let target = Target::Ratio(match stage.baseline.dialect() {
        Dialect::Postgres => 1.0,
        Dialect::Sqlite | Dialect::MySql => 0.5,
    });
    let beside = |what: &str, ours| Figure {
        what: what.to_owned(),
        unit: Unit::PerSecond,
        ours,
        raw: Some(Raw {
            what: "insert … select of the items from the log, into a table with its key and indexes"
                .to_owned(),
            rounds: selected.clone(),
        }),
        target: Some(target),
    };
    let mut figures =
        vec![beside("inbox, fold and indexes", loaded), beside("inbox, with comparison and flip", flipped)];
    if !peaks_mib.is_empty() {
        figures.push(Figure {
            what: "memory at the most".to_owned(),
            unit: Unit::Mebibytes,
            ours: peaks_mib,
            raw: None,
            target: Some(Target::Below(PEAK_MIB)),
        });
    }
    figures
}
