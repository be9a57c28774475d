//! `bench ingest --file`: lines of a file into the log, beside plain inserts of the same rows.
//!
//! The reader, the parser and the appenders are those of `ingest`; only the file is made up. What the
//! process takes of memory is looked at early and at the end: it must not grow with the file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use futures_util::{TryStreamExt, stream};
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufReader, BufWriter},
    task::JoinSet,
};

use super::{
    append, bar,
    load::{BATCH, Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::per_second,
    stage::Stage,
};
use crate::{
    ledger::{Ledger, LedgerOptions, Receipt, intake::Taken},
    routing::Routing,
    source::{Source, ndjson::Ndjson},
};

/// Batches of each shard that the raw side holds in memory.
const BATCHES: usize = 50;
/// Batches that are on their way at a time.
const IN_FLIGHT: usize = 8;

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
    let start = Instant::now();
    let source = Ndjson::new("bench", BufReader::new(File::open(path).await?), BATCH);
    let (source, ledger) = (&source, &ledger);
    let batches = stream::try_unfold((), |()| async move {
        let batch = source.receive().await?;
        anyhow::Ok((!batch.is_empty()).then_some((batch, ())))
    });
    let mut taking = std::pin::pin!(
        batches
            .map_ok(|batch| async move { Ok(ledger.take_in(source.ingress(), batch).await) })
            .try_buffer_unordered(IN_FLIGHT)
    );
    let (mut count, mut early_mib) = (0, None);
    while let Some(taken) = taking.try_next().await? {
        for it in &taken {
            let Taken::Accepted(Receipt::Appended(_)) = it else { bail!("a line was not appended: {it:?}") };
        }
        count += taken.len() as u64;
        if early_mib.is_none() && count >= lines / 10 {
            early_mib = resident_mib();
        }
    }
    let took = start.elapsed();
    ensure!(count == lines, "of {lines} lines {count} became messages");
    Ok(Read { took, early_mib, late_mib: resident_mib() })
}

/// What this process holds in memory, where the system tells.
fn resident_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) / 1024.0)
}
