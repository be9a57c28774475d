//! `bench ingest`: messages one by one over HTTP, as lines of a file, or out of a queue, beside the bare
//! database or a bare client.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use clap::Args;
use tokio::task::JoinSet;

use super::{
    Run, backfill, bar,
    http1::Client,
    load::{BATCH, Kind, Load},
    queue,
    report::{Figure, Raw, Target, Unit},
    samples::{Samples, millis, per_second},
    served::Served,
    stage::Stage,
};
use crate::{
    config::Role,
    id::Cursor,
    store::{Dialect, EventRows},
};

/// How long the load runs before it is counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// Take in messages: one by one over HTTP, with --file as lines of a file, with --sqs out of a queue
///
/// Over HTTP: the service runs in this process with every role and answers on loopback; each connection
/// is kept alive and posts a single message at a time. Beside it: one row a commit on one connection,
/// which is what the database does without group commit.
///
/// With --file: newline-delimited JSON as the command `ingest` reads it, without the service. Beside it:
/// the same rows by plain inserts of 500 rows over as many connections as the log has shards.
///
/// With --sqs: a queue that is made for it and removed at the end, emptied as the role `ingest` does it.
/// Beside it: a bare loop that receives and deletes, with as many pollers. Credentials and region come
/// from where the AWS tools take them.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Connections that post at the same time
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "prepared", value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,

    /// How long a round takes, for each side
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "prepared", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Run the service with the API alone: nothing is folded into projections meanwhile
    #[arg(long, conflicts_with = "prepared")]
    api_only: bool,

    /// Read a file of --messages lines instead
    #[arg(long, group = "prepared")]
    file: bool,

    /// Empty a queue at this server instead, such as http://127.0.0.1:4566
    #[arg(long, value_name = "ENDPOINT_URL", group = "prepared")]
    sqs: Option<String>,

    /// Pollers of the queue
    #[arg(long, value_name = "N", default_value_t = 4, requires = "sqs", value_parser = clap::value_parser!(u16).range(1..=64))]
    pollers: u16,

    /// Lines of the file (1,000,000 unless told) or messages in the queue (10,000) in a round
    #[arg(long, value_name = "N", requires = "prepared", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,

    #[command(flatten)]
    pub(super) run: Run,
}

/// Rounds of everything that is measured over HTTP.
#[derive(Debug, Default)]
struct Rounds {
    posted: Vec<f64>,
    committed: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
}

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        let mut setup = if self.sqs.is_some() {
            vec![("messages", self.messages().to_string()), ("pollers", self.pollers.to_string())]
        } else if self.file {
            vec![("messages", self.messages().to_string())]
        } else {
            let roles = if self.api_only { "api" } else { "all" };
            vec![
                ("connections", self.connections.to_string()),
                ("seconds", self.seconds.to_string()),
                ("roles", roles.to_owned()),
            ]
        };
        setup.push(("shards", stage.store.identity().shards.to_string()));
        setup.push(("rounds", self.run.rounds.to_string()));
        setup
    }

    fn messages(&self) -> u64 {
        self.messages.unwrap_or(if self.sqs.is_some() { 10_000 } else { 1_000_000 })
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        let (messages, rounds) = (self.messages(), self.run.rounds);
        if let Some(endpoint) = &self.sqs {
            return queue::measure(stage, endpoint, self.pollers.into(), messages, rounds).await;
        }
        if self.file {
            return backfill::measure(stage, messages, rounds).await;
        }
        stage.baseline.make_events().await?;
        let bar = bar("rounds", u64::from(self.run.rounds));
        let mut rounds = Rounds::default();
        let mut places = stage.store.heads().await?;
        for round in 0..self.run.rounds {
            let (count, samples) = self.post(stage, round).await?;
            let took = Duration::from_secs(self.seconds);
            let [p50, p99] = samples.at([500, 990]);
            rounds.posted.push(per_second(count, took));
            rounds.p50_ms.push(millis(p50));
            rounds.p99_ms.push(millis(p99));
            rounds.committed.push(commit_rows(stage, &mut places, took).await?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(self.figures(stage, rounds))
    }

    /// One round over HTTP: how many messages were answered within the time, and how long each took.
    async fn post(&self, stage: &Stage, round: u32) -> anyhow::Result<(u64, Samples)> {
        let roles = if self.api_only { &[Role::Api][..] } else { &Role::ALL };
        let mut served = Served::start(stage, roles, None).await?;
        let api = served.api()?;
        let from = Instant::now() + WARM_UP;
        let upto = from + Duration::from_secs(self.seconds);
        let mut clients = JoinSet::new();
        for number in 0..u64::from(self.connections) {
            let seed = u64::from(round) << 32 | number;
            let load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, 20_000).with_seed(seed);
            clients.spawn(post_until(api, load, from, upto));
        }
        let samples = served
            .during(async {
                let mut all = Samples::default();
                while let Some(client) = clients.join_next().await {
                    all.extend(client??);
                }
                Ok(all)
            })
            .await?;
        served.stop().await?;
        Ok((samples.len() as u64, samples))
    }

    fn figures(&self, stage: &Stage, rounds: Rounds) -> Vec<Figure> {
        let Rounds { posted, committed, p50_ms, p99_ms } = rounds;
        let target = (stage.baseline.dialect() == Dialect::Postgres).then_some(Target::Ratio(4.0));
        let what = "one row a commit, on one connection".to_owned();
        let time = |name: &str, ours| Figure {
            what: format!("POST answered, {name}"),
            unit: Unit::Millis,
            ours,
            raw: None,
            target: None,
        };
        vec![
            Figure {
                what: format!("HTTP, single messages, {} connections", self.connections),
                unit: Unit::PerSecond,
                ours: posted,
                raw: Some(Raw { what, rounds: committed }),
                target,
            },
            time("p50", p50_ms),
            time("p99", p99_ms),
        ]
    }
}

/// Posts one message after the other; the times of those that were answered between `from` and `upto`.
async fn post_until(
    api: SocketAddr,
    mut load: Load,
    from: Instant,
    upto: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut client = Client::connect(api).await?;
    let mut times = Vec::new();
    loop {
        let recipient = load.recipient();
        let (_, body) = load.body(&recipient);
        let start = Instant::now();
        let (status, answer) = client.post("/v1/messages", &body).await?;
        let end = Instant::now();
        if status != 201 {
            bail!("the service answered {status}: {}", String::from_utf8_lossy(answer));
        }
        if end >= upto {
            return Ok(times);
        }
        if end >= from {
            times.push(end - start);
        }
    }
}

/// Inserts rows of the log that were not inserted yet, each with its own commit on one connection, for
/// this long; how many in a second.
async fn commit_rows(stage: &Stage, places: &mut [Cursor], time: Duration) -> anyhow::Result<f64> {
    let (mut count, mut took) = (0, Duration::ZERO);
    while took < time {
        let rows = next_rows(stage, places).await?;
        if rows.is_empty() {
            break;
        }
        let start = Instant::now();
        for row in rows.one_by_one() {
            count += stage.baseline.insert(row).await?;
            if took + start.elapsed() >= time {
                break;
            }
        }
        took += start.elapsed();
    }
    ensure!(count > 0, "there was nothing to insert");
    Ok(per_second(count, took))
}

/// The next rows of any shard that has more.
async fn next_rows(stage: &Stage, places: &mut [Cursor]) -> anyhow::Result<EventRows> {
    for place in places {
        let rows = stage.baseline.event_rows(place.shard, place.position, BATCH as u64).await?;
        if !rows.is_empty() {
            place.position.0 += i64::try_from(rows.len())?;
            return Ok(rows);
        }
    }
    Ok(EventRows::default())
}
