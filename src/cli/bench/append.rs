//! `bench append`: batches into the log on all shards at once, beside the same rows by plain inserts.
//!
//! Ours is [`Store::append`](crate::store::Store::append): lock, look-up of known ids, decision, insert,
//! head, commit. The raw side inserts the very rows that the log got, prepared beforehand, into an equal
//! table: same keys, same constraints, one statement and one commit a batch, a connection a shard.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use tokio::task::JoinSet;

use super::{
    Run, bar,
    load::{self, BATCH, Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::per_second,
    stage::Stage,
};
use crate::{
    id::Cursor,
    store::{Dialect, EventRows},
};

/// Messages that warm up connections and statements.
const WARM_UP: u64 = 2_000;

/// Append messages to the log in batches of 500, all shards at once
///
/// Beside it: the same rows by plain inserts of 500 rows (PostgreSQL: arrays through UNNEST, elsewhere a
/// VALUES list), each with its own commit, over as many connections as the log has shards.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Messages in a round
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    #[command(flatten)]
    pub(super) run: Run,
}

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        vec![
            ("messages", self.messages.to_string()),
            ("batch", BATCH.to_string()),
            ("shards", stage.store.identity().shards.to_string()),
            ("rounds", self.run.rounds.to_string()),
        ]
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, self.messages / 10);
        stage.baseline.make_events().await?;
        round(stage, &mut load, WARM_UP.min(self.messages)).await?;
        let bar = bar("append and insert", self.messages * u64::from(self.run.rounds));
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..self.run.rounds {
            let (mut ours_took, mut raw_took) = (Duration::ZERO, Duration::ZERO);
            for segment in load::segments(self.messages) {
                let (one, other) = round(stage, &mut load, segment).await?;
                ours_took += one;
                raw_took += other;
                bar.inc(segment);
            }
            ours.push(per_second(self.messages, ours_took));
            raw.push(per_second(self.messages, raw_took));
        }
        bar.finish_and_clear();
        let (how, target) = match stage.baseline.dialect() {
            Dialect::Postgres => ("UNNEST inserts", Some(Target::Ratio(0.7))),
            Dialect::Sqlite => ("VALUES inserts", Some(Target::Ratio(0.6))),
            Dialect::MySql => ("VALUES inserts", None),
        };
        let over = connections(stage);
        let what = format!("the same rows by plain {how} of {BATCH} rows, a commit each, over {over}");
        let raw = Some(Raw { what, rounds: raw });
        let what = format!("append, batches of {BATCH}");
        Ok(vec![Figure { what, unit: Unit::PerSecond, ours, raw, target }])
    }
}

/// Appends so many messages and inserts the rows that they became; answers how long each took.
async fn round(stage: &Stage, load: &mut Load, count: u64) -> anyhow::Result<(Duration, Duration)> {
    let before = stage.store.heads().await?;
    let batches = load.batches(&stage.store, count)?;
    let start = Instant::now();
    load::append(stage, batches).await?;
    let ours = start.elapsed();
    let (rows, found) = ReadBack::after(before).next(stage, usize::MAX).await?;
    ensure!(found == count, "{count} messages became {found} rows");
    let start = Instant::now();
    let inserted = insert(stage, rows).await?;
    let raw = start.elapsed();
    ensure!(inserted == count, "of {count} rows {inserted} were inserted");
    Ok((ours, raw))
}

/// Reads what was appended, in batches as it was appended.
#[derive(Debug)]
pub(super) struct ReadBack(Vec<Cursor>);

impl ReadBack {
    /// What follows these places.
    pub(super) const fn after(places: Vec<Cursor>) -> Self {
        Self(places)
    }

    /// The next batches, so many of each shard at the most, and how many rows that are.
    pub(super) async fn next(
        &mut self,
        stage: &Stage,
        batches_max: usize,
    ) -> anyhow::Result<(Vec<Vec<EventRows>>, u64)> {
        let (mut shards, mut found) = (Vec::new(), 0);
        for place in &mut self.0 {
            let mut batches = Vec::new();
            while batches.len() < batches_max {
                let rows = stage.baseline.event_rows(place.shard, place.position, BATCH as u64).await?;
                if rows.is_empty() {
                    break;
                }
                found += rows.len() as u64;
                place.position.0 += i64::try_from(rows.len())?;
                batches.push(rows);
            }
            shards.push(batches);
        }
        Ok((shards, found))
    }
}

/// How many connections the raw side has, in words.
pub(super) fn connections(stage: &Stage) -> String {
    match (stage.baseline.dialect(), stage.store.identity().shards) {
        (Dialect::Sqlite, _) => "the one writing connection".to_owned(),
        (_, 1) => "1 connection".to_owned(),
        (_, shards) => format!("{shards} connections"),
    }
}

/// Inserts every shard's batches, one after the other in a shard, all shards at once.
pub(super) async fn insert(stage: &Stage, shards: Vec<Vec<EventRows>>) -> anyhow::Result<u64> {
    let mut tasks = JoinSet::new();
    for batches in shards {
        let baseline = stage.baseline.clone();
        tasks.spawn(async move {
            let mut inserted = 0;
            for batch in batches {
                inserted += baseline.insert(batch).await?;
            }
            anyhow::Ok(inserted)
        });
    }
    let mut inserted = 0;
    while let Some(task) = tasks.join_next().await {
        inserted += task??;
    }
    Ok(inserted)
}
