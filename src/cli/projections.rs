//! `projections`: how far they are, rebuilding them, proving them.

mod part;
mod skip;

use std::{
    io::IsTerminal as _,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use self::skip::{line, skip, told};
use super::{Exit, Global, Logs, Output, print};
use crate::{
    clock::{Clock, SystemClock},
    id::{Cursor, MessageId, Position, RecipientId, Shard},
    projection::{self, Projection, Value},
    service,
    store::{ShardStatus, Slot, Store, Subject},
    worker::rebuild::{
        Behind, Comparison, Difference, Rebuild, What, Wish,
        operate::{Aborted, RolledBack},
    },
};

/// Show how far the projections are, rebuild them from the log, go back, prove that they equal it
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print position, head and lag of every projection, shard by shard, and the events that are left out
    Status(Output),
    /// Fold the whole log into the slot that is not live, compare, and make it the live one
    ///
    /// The service may run on: what is read meanwhile is the live slot, and what is appended meanwhile
    /// is not missed. A rebuild that was cut off goes on where it was. While another process is at it, that is
    /// said (exit code 1); one that died may be taken over from after 30 seconds. Both are compared at the place to
    /// which the live slot is folded, even if it is stuck there. If they differ, the differences are
    /// named and nothing is flipped (exit code 1) unless --accept is given. With --message or --recipient only their
    /// rows are made anew, in the live slot, in one transaction.
    Rebuild {
        /// Which projection, by the name that `projections status` shows
        name: String,
        /// Begin at the first event even if an earlier rebuild was cut off
        #[arg(long)]
        restart: bool,
        /// Make the result live even if it differs from what was live, or cannot be compared with it
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        part: Part,
        #[command(flatten)]
        output: Output,
    },
    /// Make the slot live again that was live before the last rebuild
    ///
    /// It is first folded up to where the live one is, so that nobody who reads sees a step back; the switch is
    /// one short transaction. Going back twice is going back once: to go forward again, rebuild. If another
    /// version of the product made the old slot, this one cannot fold it on, and says so (exit code 1); with
    /// --accept it is shown as of where it stands, and the next start of a service rebuilds.
    Rollback {
        /// Which projection, by the name that `projections status` shows
        name: String,
        /// Go back even to tables of another version, which stand still
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Drop the slot that was live before the last rebuild, which is kept for a rollback until then
    ///
    /// What is live is not touched. Where there is no old slot, nothing happens (exit code 0). A slot that is
    /// being built is no old one: that is refused (exit code 1).
    DropOld {
        /// Which projection, by the name that `projections status` shows
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Stop a rebuild, wherever it runs, and drop what it has built
    ///
    /// What is live is not touched. Where nothing is being built, nothing happens (exit code 0). A process that
    /// was at it notices within seconds and says so.
    Abort {
        /// Which projection, by the name that `projections status` shows
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Compare the live tables with a fresh fold of the log, row by row
    ///
    /// Nothing waits for it and, without --repair, nothing is changed. Exits with 1 when a row differs, and names rows and
    /// columns. Says how many events of the log the live tables lack: what they make is not compared.
    Verify {
        /// Which projection, by the name that `projections status` shows
        name: String,
        /// Begin even if an earlier proof was cut off
        #[arg(long)]
        restart: bool,
        #[command(flatten)]
        part: Part,
        /// Mend what differs: fold the messages and recipients concerned anew, and compare them again
        ///
        /// Exits with 0 when nothing differs any more. Where more than 10,000 of them differ, rebuild.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Leave an event out of every projection, now and in every rebuild
    ///
    /// The last resort, when no release can fold an event before which projections are parked: one of a type from
    /// the future waits for the upgrade instead. The event stays in the log, nothing follows from it, and who
    /// decided it and why is shown for ever. It cannot be taken back. An event before which nothing is
    /// parked is refused (exit code 1).
    Skip(Skip),
}

/// A part of a projection.
#[derive(Debug, Args)]
struct Part {
    /// Only the rows of this message; its recipient's counters are not among them
    #[arg(long, value_name = "ID", conflicts_with_all = ["recipient", "restart"])]
    message: Option<MessageId>,
    /// Only the rows of this recipient, counters too: of every message that `messages` or the inbox knows as theirs
    #[arg(long, value_name = "ID", conflicts_with = "restart")]
    recipient: Option<RecipientId>,
}

impl Part {
    fn subject(self) -> Option<Subject> {
        self.message.map(Subject::Message).or(self.recipient.map(Subject::Recipient))
    }
}

/// An event, and why it is left out.
#[derive(Debug, Args)]
struct Skip {
    /// Which, as named where a projection is parked: SHARD-POSITION, as in 0-42
    #[arg(long, value_name = "ID")]
    event: Cursor,
    /// Why; it is recorded and shown by `status` for ever
    #[arg(long, value_name = "TEXT", value_parser = skip::reason)]
    reason: String,
    /// Who decides
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
    #[command(flatten)]
    output: Output,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = match &self.command {
            Command::Status(_) | Command::Verify { .. } => service::open_existing(&config).await?,
            _ => service::open_store(&config, clock.as_ref()).await?,
        };
        let rebuild = |name: &str| {
            let (store, clock) = (store.clone(), Arc::clone(&clock));
            named(name).map(|projection| Rebuild { store, projection, clock })
        };
        let exit = match self.command {
            Command::Status(output) => status(&store, clock.as_ref(), output).await,
            Command::Rebuild { name, restart, accept, part, output } => {
                if let Some(subject) = part.subject() {
                    return part::mend(&rebuild(&name)?, &subject, output).await;
                }
                run_rebuild(&rebuild(&name)?, Wish { restart, accept, goes_on: false }, output).await
            }
            Command::Rollback { name, accept, output } => roll_back(&rebuild(&name)?, accept, output).await,
            Command::DropOld { name, output } => drop_old(&rebuild(&name)?, output).await,
            Command::Abort { name, output } => abort(&rebuild(&name)?, output).await,
            Command::Skip(Skip { event, reason, by, output }) => {
                skip(&store, event, (&reason, &by), clock.now(), output).await
            }
            Command::Verify { name, restart, part, repair, output } => {
                let rebuild = rebuild(&name)?;
                match (part.subject(), repair) {
                    (None, false) => run_verify(&rebuild, restart, output).await,
                    (None, true) => part::repair(&rebuild, restart, output).await,
                    (Some(subject), false) => part::verify(&rebuild, &subject, output).await,
                    (Some(subject), true) => part::mend(&rebuild, &subject, output).await,
                }
            }
        };
        store.close().await;
        exit
    }
}

fn named(name: &str) -> anyhow::Result<&'static dyn Projection> {
    let Some(projection) = projection::by_name(name) else {
        let known: Vec<_> = projection::ALL.iter().map(|it| it.name()).collect();
        bail!("there is no projection {name:?}; there are {}", known.join(", "));
    };
    Ok(projection)
}

async fn status(store: &Store, clock: &dyn Clock, output: Output) -> anyhow::Result<Exit> {
    let status = store.projection_status(clock.now()).await?;
    let skipped = store.skipped_events().await?;
    let mut rows = Vec::new();
    for it in &status {
        let slots = [
            ("live", it.live, &it.shards),
            ("building", it.live.other(), &it.building_shards),
            ("old", it.live.other(), &it.old_shards),
        ];
        for (role, slot, shards) in slots {
            rows.extend(shards.iter().map(|place| (it.name.as_str(), role, slot.as_str(), place)));
        }
    }
    let parked = rows.iter().any(|(.., place)| place.parked.is_some());
    let exit = if parked { Exit::Wrong } else { Exit::Well };
    if output.json {
        let row = |(name, role, slot, place): &(&str, &str, &str, &ShardStatus)| {
            json!({
                "projection": name, "slot": slot, "role": role,
                "shard": place.shard, "position": place.position, "head": place.head,
                "lagEvents": place.lag_events, "lagSeconds": place.lag.as_secs_f64(),
                "parked": place.parked,
            })
        };
        let skipped = skipped.iter().map(told);
        print(json!({
            "projections": rows.iter().map(row).collect::<Json>(), "skipped": skipped.collect::<Json>(),
        }))?;
        return Ok(exit);
    }
    print(format_args!(
        "{:<12} {:<5} {:<9} {:>5} {:>12} {:>12} {:>10} {:>10}",
        "projection", "slot", "role", "shard", "position", "head", "lag", "lag s"
    ))?;
    for (name, role, slot, place) in rows {
        print(format_args!(
            "{name:<12} {slot:<5} {role:<9} {:>5} {:>12} {:>12} {:>10} {:>10.1}",
            place.shard.0,
            place.position.0,
            place.head.0,
            place.lag_events,
            place.lag.as_secs_f64(),
        ))?;
        if let Some(reason) = &place.parked {
            print(format_args!("  parked: {reason}"))?;
        }
    }
    for event in &skipped {
        print(line(event))?;
    }
    Ok(exit)
}

async fn run_rebuild(rebuild: &Rebuild, wish: Wish, output: Output) -> anyhow::Result<Exit> {
    let name = rebuild.projection.name();
    let watch = Watch::new(&format!("rebuilding {name}"), output);
    let (stop, show) = (CancellationToken::new(), |done, all| watch.show(done, all));
    let mut work = pin!(rebuild.rebuild_until(&stop, wish, &show));
    let result = tokio::select! {
        result = &mut work => result,
        _ = tokio::signal::ctrl_c() => {
            // It says that it goes, so that nobody has to wait until it is taken for dead.
            stop.cancel();
            work.await
        }
    };
    watch.end();
    let result = result?;
    let slot = result.slot.as_str();
    if output.json {
        let comparison = result.comparison.as_ref().map(comparison_json);
        let behind = result.behind.iter().map(|it| json!({ "shard": it.shard, "reason": it.reason }));
        print(json!({
            "projection": name, "slot": slot, "flipped": result.flipped, "comparison": comparison,
            "behind": behind.collect::<Json>(),
        }))?;
    } else {
        if let Some(comparison) = &result.comparison {
            print_comparison(comparison)?;
        }
        if result.flipped {
            print(format_args!("{name}: slot {slot} is live"))?;
            for Behind { shard, reason } in &result.behind {
                print(format_args!("  shard {shard} is behind the log: {reason}"))?;
            }
        } else {
            print(format_args!(
                "{name}: not flipped, because slot {slot} differs from what is live; --accept makes it live"
            ))?;
        }
    }
    Ok(if result.flipped { Exit::Well } else { Exit::Wrong })
}

async fn roll_back(rebuild: &Rebuild, accept: bool, output: Output) -> anyhow::Result<Exit> {
    let name = rebuild.projection.name();
    let watch = Watch::new(&format!("folding the old slot of {name} up to what is live"), output);
    let done = rebuild.rollback(accept, &|done, all| watch.show(done, all)).await;
    watch.end();
    let (slot, is_new, behind) = match done? {
        RolledBack::Now { slot, stands_behind } => (slot, true, stands_behind),
        RolledBack::Before { slot, at } => {
            if !output.json {
                print(format_args!("{name}: went back to slot {slot} at {at} already; nothing to do"))?;
            }
            (slot, false, None)
        }
    };
    if output.json {
        print(
            json!({ "projection": name, "slot": slot.as_str(), "isNew": is_new, "standsBehindEvents": behind }),
        )?;
    } else if let Some(events) = behind {
        print(format_args!(
            "{name}: slot {slot} is live; it shows the log as of where it stands, {events} events back, until the              next start of a service rebuilds it"
        ))?;
    } else if is_new {
        print(format_args!("{name}: slot {slot} is live again"))?;
    }
    Ok(Exit::Well)
}

async fn drop_old(rebuild: &Rebuild, output: Output) -> anyhow::Result<Exit> {
    let name = rebuild.projection.name();
    let dropped = rebuild.drop_old().await?;
    if output.json {
        print(json!({ "projection": name, "dropped": dropped.map(Slot::as_str) }))?;
    } else if let Some(slot) = dropped {
        print(format_args!("{name}: the old slot {slot} is dropped"))?;
    } else {
        print(format_args!("{name}: there is no old slot; nothing to do"))?;
    }
    Ok(Exit::Well)
}

async fn abort(rebuild: &Rebuild, output: Output) -> anyhow::Result<Exit> {
    let name = rebuild.projection.name();
    let aborted = rebuild.abort().await?;
    if output.json {
        let slot = aborted.as_ref().and_then(|it| it.slot).map(Slot::as_str);
        let by = aborted.as_ref().and_then(|it| it.by.as_deref());
        print(json!({ "projection": name, "aborted": aborted.is_some(), "dropped": slot, "wasBy": by }))?;
        return Ok(Exit::Well);
    }
    match aborted {
        None => print(format_args!("{name}: nothing is being built; nothing to do"))?,
        Some(Aborted { slot, by }) => {
            let who = by.map(|by| format!(", and {by} stops")).unwrap_or_default();
            let what = slot.map_or_else(
                || "nothing was built yet".to_owned(),
                |slot| format!("slot {slot}, which was being built, is dropped"),
            );
            print(format_args!("{name}: {what}{who}"))?;
        }
    }
    Ok(Exit::Well)
}

async fn run_verify(rebuild: &Rebuild, restart: bool, output: Output) -> anyhow::Result<Exit> {
    let name = rebuild.projection.name();
    let watch = Watch::new(&format!("folding {name} anew"), output);
    let comparison = rebuild.verify(restart, &|done, all| watch.show(done, all)).await?;
    watch.end();
    if output.json {
        print(json!({ "projection": name, "comparison": comparison_json(&comparison) }))?;
    } else {
        print_comparison(&comparison)?;
    }
    Ok(if comparison.differing == 0 { Exit::Well } else { Exit::Wrong })
}

fn print_comparison(comparison: &Comparison) -> std::io::Result<()> {
    for difference in &comparison.differences {
        print(format_args!("  {}", in_words(difference)))?;
    }
    let unnamed = comparison.differing.saturating_sub(comparison.differences.len() as u64);
    if unnamed > 0 {
        print(format_args!("  … and {unnamed} rows more"))?;
    }
    let events: i64 = comparison.places.iter().map(|(_, place)| place.0).sum();
    let (rows, differing) = (comparison.rows, comparison.differing);
    print(format_args!("{rows} rows compared with a fresh fold of {events} events: {differing} differ"))?;
    match comparison.behind_events() {
        0 => Ok(()),
        behind => print(format_args!("not compared: {behind} events of the log that the live tables lacked")),
    }
}

fn in_words(difference: &Difference) -> String {
    let key: Vec<_> = difference.key.iter().map(shown).collect();
    let row = format!("{} {}", difference.table, key.join(" "));
    match &difference.what {
        What::Missing => format!("{row}: missing in the live table"),
        What::Extra => format!("{row}: in the live table, but not in the log"),
        What::Column { name, live, fresh } => {
            format!("{row}: {name} is {}, the log says {}", shown(live), shown(fresh))
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
    }
}

fn comparison_json(comparison: &Comparison) -> Json {
    let difference = |Difference { table, key, what }: &Difference| match what {
        What::Missing => json!({ "table": table, "key": key, "what": "missing" }),
        What::Extra => json!({ "table": table, "key": key, "what": "extra" }),
        What::Column { name, live, fresh } => json!({
            "table": table, "key": key, "what": "column", "column": name, "live": live, "fresh": fresh,
        }),
    };
    let places = comparison.places.iter().zip(&comparison.heads);
    let place = |(place, head): (&(Shard, Position), &(Shard, Position))| json!({ "shard": place.0, "position": place.1, "head": head.1 });
    json!({
        "places": places.map(place).collect::<Json>(),
        "behindEvents": comparison.behind_events(),
        "rows": comparison.rows,
        "differing": comparison.differing,
        "differences": comparison.differences.iter().map(difference).collect::<Vec<_>>(),
    })
}

/// Progress: a bar on a terminal, a line every few seconds elsewhere, nothing with `--json`.
struct Watch {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
}

/// How often a line says how far it is where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress in lines.
struct Lines {
    what: String,
    told: Instant,
    /// When it began, and with how many events folded.
    began: Option<(Instant, u64)>,
}

impl Watch {
    fn new(what: &str, output: Output) -> Self {
        if output.json {
            return Self { bar: ProgressBar::hidden(), lines: None };
        }
        let bar = ProgressBar::new(0);
        let template = "{msg} [{bar:30}] {human_pos}/{human_len} events, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        if std::io::stderr().is_terminal() {
            return Self { bar, lines: None };
        }
        tracing::info!("{what}");
        let lines = Lines { what: what.to_owned(), told: Instant::now(), began: None };
        Self { bar, lines: Some(Mutex::new(lines)) }
    }

    fn show(&self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        if let Some(lines) = &self.lines {
            lines.lock().unwrap_or_else(PoisonError::into_inner).show(done, all);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Lines {
    fn show(&mut self, done: u64, all: u64) {
        let (began, from) = *self.began.get_or_insert((Instant::now(), done));
        if self.told.elapsed() < LINE_EVERY {
            return;
        }
        self.told = Instant::now();
        let (done_now, took) = (done.saturating_sub(from), began.elapsed().as_millis().max(1));
        let per_s = u128::from(done_now) * 1000 / took;
        let left_s = u128::from(all.saturating_sub(done)) / per_s.max(1);
        tracing::info!("{}: {done} of {all} events, {per_s} events/s, {left_s} s left", self.what);
    }
}
