//! `bench inbox`: listing an inbox with its counts, in a small ledger, in a large one, and for somebody
//! with very many items, beside one row by its primary key.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use clap::Args;
use futures_util::future::try_join_all;

use super::{
    Run, bar,
    http1::Client,
    load::{self, Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::{Samples, median, millis},
    served::Served,
    stage::Stage,
};
use crate::{
    config::Role,
    id::{MessageId, Position, RecipientId},
    projection::inbox::Inbox,
    store::{Slot, Step},
};

/// Events of the small ledger.
const FEW: u64 = 10_000;
/// Events that are appended and folded at the most; of a larger ledger this is a part.
const PART: u64 = 500_000;
/// Events that are copied in one transaction.
const COPIED_AT_ONCE: i64 = 50_000;
/// Items of a common inbox.
const ITEMS: u64 = 20;
/// Events of one step while the ledger is filled.
const FOLDED_AT_ONCE: u64 = 5_000;
/// Reads that are made before any is counted.
const WARM_UP: usize = 200;

/// List inboxes with their counts: in a small ledger, in a large one, and one with very many items
///
/// One connection, one request after the other: the newest 50 items with the counts of the same moment,
/// over HTTP, for any recipient. A common inbox holds about 20 items. Beside it: one inbox row by its
/// primary key, straight from the database; the two take turns. What counts is that the time does not
/// grow with the ledger. A large ledger has equal parts: the first is appended and folded, all others
/// are copies of it for other recipients, made within the database.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Events of the large ledger
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    events: u64,

    /// Of how many equal parts the large ledger is; one for 500,000 events unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    parts: Option<u64>,

    /// Items of the one large inbox
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    items: u64,

    /// Reads of each side in a round
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    reads: u32,

    /// Then keep the service up for so many seconds, for an HTTP load tool
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    hold: Option<u32>,

    #[command(flatten)]
    pub(super) run: Run,
}

/// The rounds of one size, in milliseconds.
#[derive(Debug, Default)]
struct Rounds {
    ours_p50: Vec<f64>,
    ours_p99: Vec<f64>,
    raw_p50: Vec<f64>,
    raw_p99: Vec<f64>,
}

/// Whose inbox is listed.
enum Whose<'a> {
    /// Of a ledger of so many equal parts.
    Anybody(&'a mut Load, u64),
    One(&'a RecipientId, &'a mut Load),
}

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        vec![
            ("events", format!("{FEW} and {}", self.events)),
            ("parts", self.parts().to_string()),
            ("items", format!("{ITEMS} and {}", self.items)),
            ("reads", self.reads.to_string()),
            ("shards", stage.store.identity().shards.to_string()),
            ("rounds", self.run.rounds.to_string()),
        ]
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        stage.make_projections().await?;
        let mut served = Served::start(stage, &[Role::Api], None).await?;
        let api = served.api()?;
        let figures = served.during(self.read_all(stage, api)).await?;
        served.stop().await?;
        Ok(figures)
    }

    /// How many equal parts the large ledger has; all but the first are copies.
    fn parts(&self) -> u64 {
        self.parts.unwrap_or_else(|| self.events.div_ceil(PART))
    }

    async fn read_all(&self, stage: &Stage, api: SocketAddr) -> anyhow::Result<Vec<Figure>> {
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, FEW / ITEMS);
        fill(stage, &mut load, FEW, None).await?;
        let few = self.read(stage, api, Whose::Anybody(&mut load, 1)).await?;

        let (parts, part) = (self.parts(), self.events / self.parts());
        ensure!(
            part > FEW,
            "each of the {parts} parts has to have more than {FEW} events; ask for more --events"
        );
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, part / ITEMS);
        fill(stage, &mut load, part - FEW, None).await?;
        copy(stage, parts - 1).await?;
        let many = self.read(stage, api, Whose::Anybody(&mut load, parts)).await?;

        let one = RecipientId::new("user-with-a-large-inbox")?;
        fill(stage, &mut load, self.items, Some(&one)).await?;
        let large = self.read(stage, api, Whose::One(&one, &mut load)).await?;
        if let Some(seconds) = self.hold {
            // Not printed with the report: who wants to use it must know now.
            let _ = writeln!(
                io::stderr().lock(),
                "for {seconds} s: http://{api}/v1/recipients/{{ID}}/inbox, where ID is {one} or user-0 to user-{}",
                part / ITEMS - 1
            );
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        }
        Ok(self.figures(&few, &many, &large))
    }

    /// Reads in turns, ours and raw, round by round.
    async fn read(&self, stage: &Stage, api: SocketAddr, mut whose: Whose<'_>) -> anyhow::Result<Rounds> {
        let bar = bar("read", u64::from(self.run.rounds));
        // Not before: an idle connection is closed, and filling takes a while.
        let mut client = Client::connect(api).await?;
        let mut rounds = Rounds::default();
        for _ in 0..self.run.rounds {
            let (mut ours, mut raw) = (Samples::default(), Samples::default());
            for number in 0..WARM_UP + usize::try_from(self.reads)? {
                let (path, row) = whose.next()?;
                let start = Instant::now();
                list(&mut client, &path).await?;
                let listed = start.elapsed();
                let start = Instant::now();
                let found = stage.baseline.inbox_row(&row).await?;
                let fetched = start.elapsed();
                ensure!(found, "{row} is not in the inbox");
                if number >= WARM_UP {
                    ours.push(listed);
                    raw.push(fetched);
                }
            }
            let ([p50, p99], [raw_p50, raw_p99]) = (ours.at([500, 990]), raw.at([500, 990]));
            rounds.ours_p50.push(millis(p50));
            rounds.ours_p99.push(millis(p99));
            rounds.raw_p50.push(millis(raw_p50));
            rounds.raw_p99.push(millis(raw_p99));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(rounds)
    }

    fn figures(&self, few: &Rounds, many: &Rounds, large: &Rounds) -> Vec<Figure> {
        let figure = |what: String, ours: &[f64], raw: &[f64], target| Figure {
            what: format!("list and counts, {what}"),
            unit: Unit::Millis,
            ours: ours.to_vec(),
            raw: Some(Raw { what: "one row by its primary key".to_owned(), rounds: raw.to_vec() }),
            target,
        };
        let mut figures = Vec::new();
        for (size, rounds) in [
            (format!("{FEW} events"), few),
            (format!("{} events", self.events), many),
            (format!("an inbox of {}", self.items), large),
        ] {
            figures.push(figure(format!("{size}, p50"), &rounds.ours_p50, &rounds.raw_p50, None));
            let target = Some(Target::Below(5.0));
            figures.push(figure(format!("{size}, p99"), &rounds.ours_p99, &rounds.raw_p99, target));
        }
        figures.push(Figure {
            what: format!("growth of p99, {FEW} to {} events", self.events),
            unit: Unit::Times,
            ours: vec![median(&many.ours_p99) / median(&few.ours_p99).max(f64::MIN_POSITIVE)],
            raw: None,
            target: Some(Target::AtMost(1.3)),
        });
        figures
    }
}

impl Whose<'_> {
    /// The inbox to list, and the row to fetch.
    fn next(&mut self) -> anyhow::Result<(String, MessageId)> {
        let (recipient, load, part) = match self {
            Self::Anybody(load, parts) => {
                let part = load.part(*parts);
                (load.recipient(), load, part)
            }
            Self::One(recipient, load) => (recipient.to_string(), load, String::new()),
        };
        let Some(row) = load.any_made() else { bail!("no message was made yet") };
        let row = MessageId::new(&format!("{row}{part}"))?;
        Ok((format!("/v1/recipients/{recipient}{part}/inbox"), row))
    }
}

/// Appends so many messages, to anybody or to one, and folds them.
async fn fill(
    stage: &Stage,
    load: &mut Load,
    count: u64,
    recipient: Option<&RecipientId>,
) -> anyhow::Result<()> {
    let bar = bar("fill the ledger", count);
    for segment in load::segments(count) {
        let batches = match recipient {
            Some(recipient) => load.batches_for(&stage.store, segment, recipient)?,
            None => load.batches(&stage.store, segment)?,
        };
        tokio::try_join!(load::append(stage, batches), fold(stage))?;
        bar.inc(segment);
    }
    fold(stage).await?;
    bar.finish_and_clear();
    Ok(stage.baseline.settle().await?)
}

/// Folds what is there by now into the inbox, and into nothing else: lists are read from it alone.
async fn fold(stage: &Stage) -> anyhow::Result<()> {
    let shards = stage.store.shards().map(|shard| async move {
        while let Step::Folded { .. } =
            stage.store.project(&Inbox, Slot::A, shard, FOLDED_AT_ONCE, None).await?
        {}
        anyhow::Ok(())
    });
    try_join_all(shards).await.map(drop)
}

/// Adds so many copies of all that is there, within the database: to append and fold tens of millions of
/// events takes an hour.
async fn copy(stage: &Stage, copies: u64) -> anyhow::Result<()> {
    let bar = bar("copy it", copies);
    let heads = stage.store.heads().await?;
    for copy in 1..=copies {
        for head in &heads {
            let (shard, end) = (head.shard, head.position);
            for after in (0..end.0).step_by(usize::try_from(COPIED_AT_ONCE)?) {
                let upto = Position(end.0.min(after + COPIED_AT_ONCE));
                stage.baseline.copy_events(copy, shard, end, (Position(after), upto)).await?;
            }
            stage.baseline.copy_counters(copy, shard, end).await?;
        }
        bar.inc(1);
    }
    stage.baseline.end_copies(copies).await?;
    bar.finish_and_clear();
    Ok(stage.baseline.settle().await?)
}

async fn list(client: &mut Client, path: &str) -> anyhow::Result<()> {
    let (status, answer) = client.get(path).await?;
    if status != 200 {
        bail!("the service answered {status}: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}
