//! `ingest`: reads messages from a file or from standard input.

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use futures_util::{StreamExt as _, future::join, stream::FuturesOrdered};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::{fs::File, io::AsyncRead, sync::mpsc};

use super::{Exit, Global, Logs, Output, print, writing::on_ledger};
use crate::{
    ledger::{Ledger, LedgerError, Receipt, intake::Taken},
    message::Rejection,
    source::{Arrival, Source as _, SourceError, ndjson::Ndjson},
    supervisor::Stop,
};

/// Lines that go into the ledger together.
pub(super) const BATCH_MAX: usize = 500;
/// Batches on their way at once; with the bound on a batch's bytes this bounds memory.
const BATCHES_IN_FLIGHT: usize = 4;
/// How many reasons the summary shows.
const REASONS_MAX: usize = 10;
/// How often progress is told where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Append messages from a file, one JSON message a line (NDJSON)
///
/// Reading a file again is harmless: what the ledger has already is counted as redelivered. So a run
/// that was cut off goes on by running it again. A line that is no message goes into quarantine with
/// its number and the reason, and the rest is read all the same; the exit code is then 1.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What became of the lines.
#[derive(Debug, Default)]
pub(super) struct Summary {
    lines: u64,
    /// Messages that are new in the log.
    pub(super) appended: u64,
    redelivered: u64,
    conflicts: u64,
    quarantined: u64,
    reasons: Vec<(String, Rejection)>,
    /// The first line that could not be taken, and why.
    failed: Option<(String, LedgerError)>,
    /// Whether the end of the input was reached.
    pub(super) finished: bool,
    /// From the first line to the last.
    pub(super) took: Duration,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        let progress = Progress::new(file_size(&self.file).await, self.output);
        let (input, name) = open(&self.file).await?;
        let source = Ndjson::new(&name, input, BATCH_MAX);
        let mut summary = on_ledger(&config, |ledger, stop| read(source, ledger, stop, progress)).await?;
        if self.output.json {
            print(summary.to_json())?;
        } else {
            print(&summary)?;
        }
        if let Some((line, error)) = summary.failed.take() {
            let stopped = format!("stopped at {line}, which could not be written; run it again to go on");
            return Err(anyhow::Error::from(error).context(stopped));
        }
        let well = summary.finished && summary.quarantined == 0;
        Ok(if well { Exit::Well } else { Exit::Wrong })
    }
}

/// What lines are read from.
pub(super) type Input = Box<dyn Reader>;

pub(super) trait Reader: AsyncRead + Unpin + Send + fmt::Debug {}

impl<T: AsyncRead + Unpin + Send + fmt::Debug> Reader for T {}

/// Opens the input, and says what it is called.
async fn open(file: &Path) -> anyhow::Result<(Input, String)> {
    if file == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), "stdin".to_owned()));
    }
    let input = File::open(file).await.with_context(|| format!("{} cannot be read", file.display()))?;
    let name = file.file_name().map_or_else(|| file.to_string_lossy(), |it| it.to_string_lossy());
    Ok((Box::new(input), name.into_owned()))
}

/// How many bytes there are to read, where that is known.
async fn file_size(file: &Path) -> Option<u64> {
    let metadata = tokio::fs::metadata(file).await.ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Reads to the end, or until a stop is asked for or something cannot be written.
pub(super) async fn read(
    source: Ndjson<Input>,
    ledger: Ledger,
    stop: Stop,
    progress: Progress,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let (sender, batches) = mpsc::channel(1);
    let reading = hand_out(&source, sender, &stop);
    let (finished, summary) = join(reading, take_in(&source, &ledger, batches, progress)).await;
    Ok(Summary { finished: finished?, took: started.elapsed(), ..summary })
}

/// Hands out batches as they are read; true when the end was reached.
async fn hand_out(
    source: &Ndjson<Input>,
    batches: mpsc::Sender<Vec<Arrival>>,
    stop: &Stop,
) -> Result<bool, SourceError> {
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.asked() => return Ok(false),
            batch = source.receive() => batch?,
        };
        if batch.is_empty() {
            return Ok(true);
        }
        if batches.send(batch).await.is_err() {
            return Ok(false);
        }
    }
}

/// Takes in batches until there are no more, or one could not be written; several at a time, so that
/// one is read while others are written.
async fn take_in(
    source: &Ndjson<Input>,
    ledger: &Ledger,
    mut batches: mpsc::Receiver<Vec<Arrival>>,
    mut progress: Progress,
) -> Summary {
    let mut summary = Summary::default();
    let bytes_read = source.bytes_read();
    let mut taking = FuturesOrdered::new();
    while summary.failed.is_none() {
        tokio::select! {
            Some(batch) = batches.recv(), if taking.len() < BATCHES_IN_FLIGHT => {
                taking.push_back(async move {
                    let places: Vec<_> = batch.iter().map(|it| it.place.clone()).collect();
                    places.into_iter().zip(ledger.take_in(source.ingress(), batch).await)
                });
            }
            Some(taken) = taking.next() => {
                taken.for_each(|(place, taken)| summary.add(place, taken));
                progress.show(&summary, &bytes_read);
            }
            else => break,
        }
    }
    progress.end();
    summary
}

impl Summary {
    fn add(&mut self, place: String, taken: Taken) {
        self.lines += 1;
        match taken {
            Taken::Accepted(Receipt::Appended(_)) => self.appended += 1,
            Taken::Accepted(Receipt::Redelivered(_)) => self.redelivered += 1,
            Taken::Accepted(Receipt::Conflict(_)) => self.conflicts += 1,
            Taken::Quarantined(rejection) => {
                self.quarantined += 1;
                if self.reasons.len() < REASONS_MAX {
                    self.reasons.push((place, rejection));
                }
            }
            Taken::Failed(error) => {
                self.failed.get_or_insert((place, error));
            }
            // Lines have no groups to be behind in.
            Taken::Behind => {}
        }
    }

    fn lines_per_second(&self) -> u64 {
        let micros = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.lines.saturating_mul(1_000_000) / micros
    }

    fn to_json(&self) -> serde_json::Value {
        let reason = |(place, rejection): &(String, Rejection)| json!({ "place": place, "code": rejection.code.as_str(), "reason": rejection.to_string() });
        json!({
            "lines": self.lines, "appended": self.appended, "redelivered": self.redelivered,
            "conflicts": self.conflicts, "quarantined": self.quarantined,
            "firstReasons": self.reasons.iter().map(reason).collect::<Vec<_>>(),
            "finished": self.finished, "seconds": self.took.as_secs_f64(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lines: {} appended, {} redelivered, {} in conflict, {} in quarantine ({:.1} s, {} lines/s)",
            HumanCount(self.lines),
            HumanCount(self.appended),
            HumanCount(self.redelivered),
            HumanCount(self.conflicts),
            HumanCount(self.quarantined),
            self.took.as_secs_f64(),
            HumanCount(self.lines_per_second()),
        )?;
        for (place, rejection) in &self.reasons {
            write!(f, "\n  {place}: {rejection}")?;
        }
        let more = self.quarantined - self.reasons.len() as u64;
        if more > 0 {
            write!(f, "\n  … and {} more; `quarantine list` shows them all", HumanCount(more))?;
        }
        if !self.finished && self.failed.is_none() {
            write!(f, "\nstopped before the end; run it again to go on")?;
        }
        Ok(())
    }
}

/// Progress: a bar on a terminal, a line now and then elsewhere, nothing with `--json`.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    size: Option<u64>,
    plain: bool,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// Shows nothing.
    pub(super) fn hidden() -> Self {
        Self::new(None, Output { json: true })
    }

    fn new(size: Option<u64>, output: Output) -> Self {
        let terminal = std::io::stderr().is_terminal() && !output.json;
        let bar = match size {
            _ if !terminal => ProgressBar::hidden(),
            Some(size) => ProgressBar::new(size),
            None => ProgressBar::new_spinner(),
        };
        let template = match size {
            Some(_) => "reading [{bar:30}] {bytes}/{total_bytes}, {msg}, {eta} left",
            None => "reading {spinner} {bytes}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        Self { bar, size, plain: !terminal && !output.json, started: now, told: now }
    }

    fn show(&mut self, summary: &Summary, bytes_read: &Arc<AtomicU64>) {
        let bytes = bytes_read.load(Ordering::Relaxed);
        let so_far = Summary { lines: summary.lines, took: self.started.elapsed(), ..Summary::default() };
        let (lines, rate) = (HumanCount(so_far.lines), HumanCount(so_far.lines_per_second()));
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{lines} lines, {rate} lines/s"));
        if self.plain && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let share = self.size.map(|size| format!("{} %, ", bytes * 100 / size.max(1)));
            let line = format!("{}{lines} lines, {rate} lines/s", share.unwrap_or_default());
            // Where stderr is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::Cursor,
        message::{Outside, parse::parse},
    };

    fn summary() -> Summary {
        let mut summary = Summary { finished: true, took: Duration::from_secs(2), ..Summary::default() };
        let cursor = Cursor::start();
        for (number, taken) in [
            Taken::Accepted(Receipt::Appended(cursor)),
            Taken::Accepted(Receipt::Redelivered(cursor)),
            Taken::Accepted(Receipt::Conflict(cursor)),
        ]
        .into_iter()
        .enumerate()
        {
            summary.add(format!("line {}", number + 1), taken);
        }
        let rejection = parse(b"{}", Outside::default()).unwrap_err();
        for number in 4..=15 {
            summary.add(format!("line {number}"), Taken::Quarantined(rejection.clone()));
        }
        summary
    }

    #[test]
    fn the_summary_counts_and_shows_the_first_reasons() {
        let text = summary().to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "15 lines: 1 appended, 1 redelivered, 1 in conflict, 12 in quarantine (2.0 s, 7 lines/s)"
        );
        assert!(lines[1].starts_with("  line 4: messageId"), "{}", lines[1]);
        assert_eq!(lines.len(), 1 + REASONS_MAX + 1);
        assert_eq!(lines[11], "  … and 2 more; `quarantine list` shows them all");
    }

    #[test]
    fn what_was_cut_off_says_so() {
        let cut_off = Summary { finished: false, ..Summary::default() };
        assert!(cut_off.to_string().ends_with("stopped before the end; run it again to go on"));
        assert_eq!(cut_off.to_json()["finished"], json!(false));
    }
}
