//! `bench deliver`: pushes to a sink on loopback with every attempt in the log, beside a bare client; and
//! the time from a producer's request to the provider's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{
    Run, bar,
    http1::Client,
    http2::Multiplexed,
    load::{self, Kind, Load},
    project::catch_up,
    report::{Figure, Raw, Target, Unit},
    samples::{Samples, millis, per_second},
    served::{self, PROVIDER, Served},
    sink::Sink,
    stage::Stage,
};
use crate::{
    config::{ProviderSettings, Role},
    event::PlannedDelivery,
    id::MessageId,
    message::Parsed,
    routing::Routing,
};

/// How often to look how far the deliveries are.
const LOOK: Duration = Duration::from_millis(10);
/// Without progress for so long there is none to be expected.
const PATIENCE: Duration = Duration::from_mins(1);
/// Connections that messages are posted over at a fixed rate: more than are ever in use at once.
const CONNECTIONS: usize = 32;
/// How long the fixed rate runs before it counts.
const WARM_UP_S: u64 = 2;
/// How long a claim lasts; nothing here comes near.
const LEASE: Duration = Duration::from_secs(30);

/// Push to a sink on loopback: as many as possible, and from request to call at a fixed rate
///
/// As many as possible: deliveries that are due and planned; the service claims each in the log, calls
/// the sink and records the outcome in the log, and keeps the projections up besides. Beside it: a bare
/// HTTP client of the same library with the same body, at the same concurrency, that records nothing.
///
/// At a fixed rate: messages posted over HTTP to the whole service, from just before the request is
/// written until the sink has read the call. Beside it: the same request straight to the sink.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Deliveries in a round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,

    /// Calls at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,

    /// How long messages are posted at the fixed rate, in a round
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Messages posted in a second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    #[command(flatten)]
    http2: Multiplexed,

    #[command(flatten)]
    pub(super) run: Run,
}

/// Times of one round at the fixed rate, in milliseconds: p50, p90, p99, longest.
type Times = [f64; 4];

const TIMES: [(&str, Option<Target>); 4] =
    [("p50", Some(Target::Below(4.0))), ("p90", None), ("p99", Some(Target::Below(15.0))), ("longest", None)];

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        vec![
            ("deliveries", self.messages.to_string()),
            ("concurrency", self.concurrency.to_string()),
            ("rate", format!("{}/s for {} s", self.rate, self.seconds)),
            ("shards", stage.store.identity().shards.to_string()),
            ("rounds", self.run.rounds.to_string()),
        ]
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        stage.make_projections().await?;
        let bar = bar("rounds", u64::from(self.run.rounds) * 2);
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Push, self.messages / 2);
        for _ in 0..self.run.rounds {
            let sink = Sink::open(false).await?;
            ours.push(self.deliver(stage, &mut load, &sink).await?);
            raw.push(self.call(&sink).await?);
            bar.inc(1);
        }
        let (mut through, mut straight) = (Vec::new(), Vec::new());
        for _ in 0..self.run.rounds {
            let sink = Sink::open(true).await?;
            through.push(self.post_through(stage, &mut load, &sink).await?);
            straight.push(self.post_straight(&mut load, &sink).await?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut figures = self.figures(ours, raw, &through, &straight);
        if self.http2.is_wanted() {
            figures.push(self.http2.measure(stage, self.messages, self.run.rounds).await?);
        }
        Ok(figures)
    }

    /// Makes deliveries due and lets the service make them; how many in a second.
    async fn deliver(&self, stage: &Stage, load: &mut Load, sink: &Sink) -> anyhow::Result<f64> {
        let to = served::http(sink.address(), self.concurrency);
        let rate = through(stage, load, self.messages, to, |_, planned| planned).await?;
        ensure!(sink.calls() == self.messages, "the sink was called {} times", sink.calls());
        Ok(rate)
    }

    /// The same calls by a bare client; how many in a second.
    async fn call(&self, sink: &Sink) -> anyhow::Result<f64> {
        let body = bytes::Bytes::copy_from_slice(sink.first().context("the sink was never called")?);
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(usize::from(self.concurrency))
            .tls_certs_only([])
            .build()?;
        let url = format!("http://{}/push", sink.address());
        let left = Arc::new(AtomicU64::new(self.messages));
        let mut callers = JoinSet::new();
        let start = Instant::now();
        for _ in 0..self.concurrency {
            let (client, url, body, left) = (client.clone(), url.clone(), body.clone(), Arc::clone(&left));
            callers.spawn(async move {
                let next = |it: u64| it.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
                    let request = client.post(&url).header("content-type", "application/json");
                    request.body(body.clone()).send().await?.error_for_status()?.bytes().await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        Ok(per_second(self.messages, start.elapsed()))
    }

    /// At a fixed rate through the whole service.
    async fn post_through(&self, stage: &Stage, load: &mut Load, sink: &Sink) -> anyhow::Result<Times> {
        let to = served::http(sink.address(), self.concurrency);
        let mut served = Served::start(stage, &Role::ALL, Some(to)).await?;
        let api = served.api()?;
        let times = served.during(self.post(api, 201, load, sink)).await?;
        served.stop().await?;
        Ok(times)
    }

    /// At the same rate without it.
    async fn post_straight(&self, load: &mut Load, sink: &Sink) -> anyhow::Result<Times> {
        self.post(sink.address(), 200, load, sink).await
    }

    /// Posts messages, one at every tick of the rate whether or not the last one was answered; the times
    /// until the sink had each.
    async fn post(
        &self,
        to: SocketAddr,
        expected: u16,
        load: &mut Load,
        sink: &Sink,
    ) -> anyhow::Result<Times> {
        sink.take_bodies();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Arc::new(Mutex::new(Client::connect(to).await?)));
        }
        let mut ticks = time::interval(Duration::from_secs(1) / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let count = (WARM_UP_S + self.seconds) * u64::from(self.rate);
        let warm_up = WARM_UP_S * u64::from(self.rate);
        let (mut posts, mut sent) = (JoinSet::new(), HashMap::new());
        for (number, client) in (0..count).zip(clients.iter().cycle()) {
            let recipient = load.recipient();
            let (id, body) = load.body(&recipient);
            ticks.tick().await;
            let start = Instant::now();
            if number >= warm_up {
                sent.insert(id, start);
            }
            let client = Arc::clone(client);
            posts.spawn(async move {
                let mut client = client.lock().await;
                let (status, answer) = client.post("/v1/messages", &body).await?;
                if status != expected {
                    bail!("the service answered {status}: {}", String::from_utf8_lossy(answer));
                }
                Ok(())
            });
            while let Some(post) = posts.try_join_next() {
                post??;
            }
        }
        while let Some(post) = posts.join_next().await {
            post??;
        }
        let mut samples = Samples::default();
        let deadline = Instant::now() + PATIENCE;
        while samples.len() < sent.len() {
            ensure!(Instant::now() < deadline, "the sink was called {} times", samples.len());
            samples.extend(arrivals(sink, &sent)?);
            time::sleep(LOOK).await;
        }
        Ok(samples.at([500, 900, 990, 1000]).map(millis))
    }

    fn figures(&self, ours: Vec<f64>, raw: Vec<f64>, through: &[Times], straight: &[Times]) -> Vec<Figure> {
        let what = format!("a bare client, {} calls at a time, nothing recorded", self.concurrency);
        let mut figures = vec![Figure {
            what: format!("deliveries to a sink, {} at a time", self.concurrency),
            unit: Unit::PerSecond,
            ours,
            raw: Some(Raw { what, rounds: raw }),
            target: Some(Target::Ratio(0.5)),
        }];
        for (at, (name, target)) in TIMES.into_iter().enumerate() {
            let of = |rounds: &[Times]| rounds.iter().map(|it| it[at]).collect();
            figures.push(Figure {
                what: format!("POST to provider's call, {}/s, {name}", self.rate),
                unit: Unit::Millis,
                ours: of(through),
                raw: Some(Raw {
                    what: "the same POST straight to the sink".to_owned(),
                    rounds: of(straight),
                }),
                // The targets are for this rate; others are for the curious.
                target: target.filter(|_| self.rate == 50),
            });
        }
        figures
    }
}

/// Makes so many deliveries due, to where `to` sends them, and lets the service make them through this
/// provider; how many in a second.
pub(super) async fn through(
    stage: &Stage,
    load: &mut Load,
    count: u64,
    provider: ProviderSettings,
    to: fn(&MessageId, PlannedDelivery) -> PlannedDelivery,
) -> anyhow::Result<f64> {
    let routing = Routing::universal([(PROVIDER.to_owned(), LEASE)]);
    for segment in load::segments(count) {
        let now = stage.clock.now();
        let plan = |it: &Parsed| {
            let (deliveries, _) = routing.plan(&it.message, &[], now).into_parts();
            deliveries.into_iter().map(|planned| to(&it.message.message_id, planned)).collect()
        };
        load::append(stage, load.batches_planned(&stage.store, segment, plan)?).await?;
    }
    catch_up(stage).await?;
    let events = stage.events().await?;
    let mut served = Served::start(stage, &[Role::Project, Role::Deliver], Some(provider)).await?;
    let start = Instant::now();
    // Of each delivery the log gets the start of the attempt and its outcome.
    let took = served.during(until(stage, events + 2 * count, start)).await?;
    served.stop().await?;
    Ok(per_second(count, took))
}

/// How long it took until the log holds so many events.
async fn until(stage: &Stage, events: u64, start: Instant) -> anyhow::Result<Duration> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let now = stage.events().await?;
        if now >= events {
            return Ok(start.elapsed());
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        ensure!(
            moved.elapsed() < PATIENCE,
            "the deliveries came to a halt; {} events are missing",
            events - now
        );
        time::sleep(LOOK).await;
    }
}

/// The times of messages that came to the sink since it was last asked.
fn arrivals(sink: &Sink, sent: &HashMap<MessageId, Instant>) -> anyhow::Result<Vec<Duration>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Call {
        message_id: MessageId,
    }
    let mut times = Vec::new();
    for (at, body) in sink.take_bodies() {
        let call: Call = serde_json::from_slice(&body).context("the sink was called with no message")?;
        times.extend(sent.get(&call.message_id).map(|start| at - *start));
    }
    Ok(times)
}
