//! `bench ingest --file`: lines of a file into the log, beside plain inserts of the same rows.
//!
//! Ours is what `ingest` does; only the file is made up. What the process takes of memory is looked at
//! early and at the end: it must not grow with the file.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
    task::JoinSet,
    time,
};

use super::{
    append, bar,
    load::{BATCH, Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::{per_second, resident_mib},
    stage::Stage,
};
use crate::{
    cli::ingest::{self, Input, Progress},
    ledger::{Ledger, LedgerOptions},
    routing::Routing,
    source::ndjson::Ndjson,
    supervisor::Stop,
};

/// Batches of each shard that the raw side holds in memory.
const BATCHES: usize = 50;
/// How often to look how far the file is read.
const LOOK: Duration = Duration::from_millis(5);

/// Reads a file of so many lines in every round.
pub(super) async fn measure(stage: &Stage, lines: u64, rounds: u32) -> anyhow::Result<Vec<Figure>> {
    let file = Scrap(std::env::temp_dir().join(format!("bench_{:016x}.ndjson", fastrand::u64(..))));
    let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, lines / 10);
    let (mut ours, mut raw, mut early_mib, mut late_mib) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let bar = bar("rounds", u64::from(rounds));
    stage.baseline.make_events().await?;
    for _ in 0..rounds {
        write(&file.0, &mut load, lines).await?;
        let before = stage.store.heads().await?;
        let read = read(stage, &file.0, lines).await?;
        ours.push(per_second(lines, read.took));
        early_mib.extend(read.early_mib);
        late_mib.extend(read.late_mib);

        let mut took = Duration::ZERO;
        let mut reader = append::ReadBack::after(before);
        loop {
            let (shards, found) = reader.next(stage, BATCHES).await?;
            if found == 0 {
                break;
            }
            let start = Instant::now();
            append::insert(stage, shards).await?;
            took += start.elapsed();
        }
        raw.push(per_second(lines, took));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let what = format!(
        "the same rows by plain inserts of {BATCH} rows, a commit each, over {}",
        append::connections(stage)
    );
    let mut figures = vec![Figure {
        what: format!("file of {lines} lines"),
        unit: Unit::PerSecond,
        ours,
        raw: Some(Raw { what, rounds: raw }),
        target: Some(Target::Ratio(0.6)),
    }];
    if !late_mib.is_empty() {
        figures.push(Figure {
            what: "memory at the end".to_owned(),
            unit: Unit::Mebibytes,
            ours: late_mib,
            raw: Some(Raw { what: "memory after a tenth of the file".to_owned(), rounds: early_mib }),
            target: None,
        });
    }
    Ok(figures)
}

/// A file that is removed when dropped.
struct Scrap(PathBuf);

impl Drop for Scrap {
    fn drop(&mut self) {
        // If it is not there, nothing was written.
        let _ = fs::remove_file(&self.0);
    }
}

/// What reading a file came to.
struct Read {
    took: Duration,
    early_mib: Option<f64>,
    late_mib: Option<f64>,
}

async fn write(path: &Path, load: &mut Load, lines: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path).await?);
    for _ in 0..lines {
        let recipient = load.recipient();
        let (_, mut body) = load.body(&recipient);
        body.push(b'\n');
        file.write_all(&body).await?;
    }
    Ok(file.flush().await?)
}

async fn read(stage: &Stage, path: &Path, lines: u64) -> anyhow::Result<Read> {
    let options =
        LedgerOptions { batch_max: stage.config.log.batch_max, routing: Routing::default(), dispatch: None };
    let (ledger, appenders) = Ledger::new(stage.store.clone(), Arc::clone(&stage.clock), options);
    let mut running = JoinSet::new();
    for appender in appenders {
        running.spawn(appender.run());
    }
    let size = fs::metadata(path)?.len();
    let source = Ndjson::new("bench", Box::new(File::open(path).await?) as Input, ingest::BATCH_MAX);
    let bytes_read = source.bytes_read();
    let mut reading = pin!(ingest::read(source, ledger, Stop::new(), Progress::hidden()));
    let a_tenth = async {
        while bytes_read.load(Ordering::Relaxed) < size / 10 {
            time::sleep(LOOK).await;
        }
        resident_mib()
    };
    let (summary, early_mib) = tokio::select! {
        early_mib = a_tenth => (reading.await?, early_mib),
        summary = &mut reading => (summary?, None),
    };
    let late_mib = early_mib.and_then(|_| resident_mib());
    ensure!(summary.finished && summary.appended == lines, "not every line was appended: {summary}");
    Ok(Read { took: summary.took, early_mib, late_mib })
}
