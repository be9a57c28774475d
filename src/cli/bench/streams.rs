//! `bench streams`: many open streams of inboxes on one process, and how soon they tell of an arrival.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::{
    Run, bar,
    http1::Client,
    report::{Figure, Target, Unit},
    samples::{Samples, millis, resident_mib},
    served::Served,
    stage::Stage,
};
use crate::config::Role;

/// Streams that are opened at once.
const AT_ONCE: usize = 100;
/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Arrivals before any is counted.
const WARM_UP: u32 = 20;

/// Keep many inboxes streamed by one process, and measure what they cost and how soon they tell
///
/// Each stream is of another recipient. While all are open, messages arrive one after the other, each for one of
/// them: the time is from the request that sends the message to the event on the stream. The memory is that of
/// this whole process, which plays the clients too.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Streams to keep open; each takes two file descriptors of this process
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    streams: u32,

    /// Arrivals in a round
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    arrivals: u32,

    #[command(flatten)]
    pub(super) run: Run,
}

impl Options {
    pub(super) fn setup(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        vec![
            ("streams", self.streams.to_string()),
            ("arrivals", self.arrivals.to_string()),
            ("shards", stage.store.identity().shards.to_string()),
            ("rounds", self.run.rounds.to_string()),
        ]
    }

    pub(super) async fn measure(&self, stage: &Stage) -> anyhow::Result<Vec<Figure>> {
        stage.make_projections().await?;
        let mut served = Served::start(stage, &[Role::Api, Role::Project], None).await?;
        let api = served.api()?;
        let figures = served.during(self.stream_all(api)).await?;
        served.stop().await?;
        Ok(figures)
    }

    async fn stream_all(&self, api: SocketAddr) -> anyhow::Result<Vec<Figure>> {
        let before = resident_mib();
        let (heard, mut news) = mpsc::unbounded_channel();
        let began = Instant::now();
        let streams = self.open(api, &heard).await?;
        let opened = began.elapsed();
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        let mut client = Client::connect(api).await?;
        let progress = bar("arrivals", u64::from(self.run.rounds));
        for round in 0..self.run.rounds {
            let mut samples = Samples::default();
            for number in 0..WARM_UP + self.arrivals {
                let who = fastrand::u32(0..self.streams);
                let start = Instant::now();
                send(&mut client, &format!("m-{round}-{number}"), who).await?;
                let event = timeout(PATIENCE, news.recv()).await.context("no event came")?;
                ensure!(event == Some(who), "an event came for {event:?}, not for {who}");
                if number >= WARM_UP {
                    samples.push(start.elapsed());
                }
            }
            let [half, most] = samples.at([500, 990]);
            p50.push(millis(half));
            p99.push(millis(most));
            progress.inc(1);
        }
        progress.finish_and_clear();
        let grown = resident_mib().zip(before).map(|(now, before)| now - before);
        drop(streams);
        let arrival = |which: &str| format!("arrival to event, {} streams open, {which}", self.streams);
        let figure = |what, unit, ours, target| Figure { what, unit, ours, raw: None, target };
        let mut figures = vec![
            figure(arrival("p50"), Unit::Millis, p50, None),
            figure(arrival("p99"), Unit::Millis, p99, Some(Target::Below(300.0))),
            figure(format!("{} streams opened", self.streams), Unit::Millis, vec![millis(opened)], None),
        ];
        if let Some(grown) = grown {
            let what = format!("memory with {} streams and their clients", self.streams);
            figures.push(figure(what, Unit::Mebibytes, vec![grown], Some(Target::AtMost(512.0))));
        }
        Ok(figures)
    }

    /// Opens all streams; each says who it is when an item is added.
    async fn open(&self, api: SocketAddr, heard: &mpsc::UnboundedSender<u32>) -> anyhow::Result<JoinSet<()>> {
        let progress = bar("open the streams", u64::from(self.streams));
        let (ready, mut opened) = mpsc::channel(AT_ONCE);
        let mut streams = JoinSet::new();
        let (mut begun, mut open) = (0, 0);
        while open < self.streams {
            while begun < self.streams && begun - open < u32::try_from(AT_ONCE)? {
                streams.spawn(follow(api, begun, ready.clone(), heard.clone()));
                begun += 1;
            }
            let opened = timeout(PATIENCE, opened.recv()).await.context("a stream was not opened in time")?;
            if let Some(Err(problem)) = opened {
                bail!("stream {open} of {}: {problem}; is `ulimit -n` large enough?", self.streams);
            }
            open += 1;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(streams)
    }
}

/// Follows one recipient's stream: says when it is open, and then of every item that is added.
async fn follow(
    api: SocketAddr,
    who: u32,
    ready: mpsc::Sender<Result<(), String>>,
    heard: mpsc::UnboundedSender<u32>,
) {
    let mut buffer = Vec::with_capacity(2048);
    let mut stream = match begin(api, who, &mut buffer).await {
        Ok(stream) => stream,
        Err(error) => return drop(ready.send(Err(error.to_string())).await),
    };
    if ready.send(Ok(())).await.is_err() {
        return;
    }
    drop(ready);
    loop {
        buffer.clear();
        // An event is one small chunk, which comes whole.
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {
                let added = b"event: added";
                if buffer.windows(added.len()).any(|it| it == added) && heard.send(who).is_err() {
                    return;
                }
            }
            Ok(0) | Err(_) => return,
        }
    }
}

/// Opens a stream and reads to the end of its first event.
async fn begin(api: SocketAddr, who: u32, buffer: &mut Vec<u8>) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(api).await?;
    let head = format!("GET /v1/recipients/user-{who}/inbox/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let ready = b"event: ready";
    while !buffer.windows(ready.len()).any(|it| it == ready) {
        let read = timeout(PATIENCE, stream.read_buf(buffer)).await.context("it did not begin")??;
        if read == 0 || buffer.len() > 2000 {
            bail!("{}", String::from_utf8_lossy(buffer));
        }
    }
    Ok(stream)
}

async fn send(client: &mut Client, id: &str, who: u32) -> anyhow::Result<()> {
    let body = json!({
        "messageId": id, "notificationType": "APP_NOTIFICATION", "recipientId": format!("user-{who}"),
        "title": "Your inquiry was answered", "category": "inquiry",
    });
    let (status, answer) = client.post("/v1/messages", body.to_string().as_bytes()).await?;
    ensure!(status == 201, "the service answered {status}: {}", String::from_utf8_lossy(answer));
    Ok(())
}
