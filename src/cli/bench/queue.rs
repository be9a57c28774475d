//! `bench ingest --sqs`: what stands in a queue into the log, beside a bare loop that receives and deletes.
//!
//! Both sides empty the same queue with as many pollers, and end when the last message is deleted. The
//! queue is the benchmark's own, made at the start and removed at the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aws_sdk_sqs::{
    Client,
    config::Region,
    types::{DeleteMessageBatchRequestEntry as DeleteEntry, SendMessageBatchRequestEntry as SendEntry},
};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    bar,
    load::{Kind, Load},
    report::{Figure, Raw, Target, Unit},
    samples::per_second,
    stage::Stage,
};
use crate::{
    ledger::{Ledger, LedgerOptions},
    routing::Routing,
    source::{
        Arrival, Handle, Settlement, Source, SourceError,
        sqs::{Sqs, SqsOptions},
    },
    worker::ingest,
};

/// Messages in one request, which is what SQS allows.
const BATCH: usize = 10;
/// Requests that fill the queue at the same time.
const SENDERS: usize = 4;
/// How long a poll waits, and a message stays hidden, in seconds.
const WAIT_S: i32 = 1;
const HIDDEN_S: i32 = 300;
/// How often to look whether the queue is empty.
const LOOK: Duration = Duration::from_millis(2);

/// Empties a queue of so many messages in every round, by ours and by the bare loop.
pub(super) async fn measure(
    stage: &Stage,
    endpoint: &str,
    pollers: usize,
    messages: u64,
    rounds: u32,
) -> anyhow::Result<Vec<Figure>> {
    let queue = Queue::make(endpoint).await?;
    let measured = queue.measure(stage, pollers, messages, rounds).await;
    queue.remove().await?;
    measured
}

/// A queue of the benchmark's own.
#[derive(Debug, Clone)]
struct Queue {
    client: Client,
    endpoint: String,
    url: String,
}

impl Queue {
    async fn make(endpoint: &str) -> anyhow::Result<Self> {
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest()).load().await;
        let region = config.region().cloned().unwrap_or_else(|| Region::new("us-east-1"));
        let config = aws_sdk_sqs::config::Builder::from(&config).region(region).endpoint_url(endpoint);
        let client = Client::from_conf(config.build());
        let name = format!("bench_{:016x}", fastrand::u64(..));
        let made = client.create_queue().queue_name(name).send().await;
        let made = made.with_context(|| format!("no queue could be made at {endpoint}"))?;
        let url = made.queue_url.context("the server told no URL of the new queue")?;
        Ok(Self { client, endpoint: endpoint.to_owned(), url })
    }

    async fn remove(&self) -> anyhow::Result<()> {
        let removed = self.client.delete_queue().queue_url(&self.url).send().await;
        removed.with_context(|| format!("the queue {} could not be removed", self.url))?;
        Ok(())
    }

    async fn measure(
        &self,
        stage: &Stage,
        pollers: usize,
        messages: u64,
        rounds: u32,
    ) -> anyhow::Result<Vec<Figure>> {
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Inbox, messages / 10);
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        let bar = bar("rounds", u64::from(rounds));
        for _ in 0..rounds {
            self.fill(&mut load, messages).await?;
            ours.push(per_second(messages, self.ingest(stage, pollers, messages).await?));
            self.fill(&mut load, messages).await?;
            raw.push(per_second(messages, self.empty(pollers, messages).await?));
            bar.inc(1);
        }
        bar.finish_and_clear();
        let what = format!("a bare loop of {pollers} pollers that receives and deletes by tens");
        Ok(vec![Figure {
            what: format!("queue of {messages} messages, up to {pollers} pollers"),
            unit: Unit::PerSecond,
            ours,
            raw: Some(Raw { what, rounds: raw }),
            target: Some(Target::Ratio(0.9)),
        }])
    }

    async fn fill(&self, load: &mut Load, messages: u64) -> anyhow::Result<()> {
        let mut senders = JoinSet::new();
        let mut left = usize::try_from(messages)?;
        while left > 0 {
            let mut entries = Vec::with_capacity(BATCH);
            for at in 0..left.min(BATCH) {
                let recipient = load.recipient();
                let body = String::from_utf8(load.body(&recipient).1)?;
                entries.push(SendEntry::builder().id(at.to_string()).message_body(body).build()?);
            }
            left -= entries.len();
            while senders.len() >= SENDERS {
                joined(senders.join_next().await)?;
            }
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            senders.spawn(async move {
                let answer = request.send().await.context("the queue could not be filled")?;
                ensure!(answer.failed.is_empty(), "the queue refused messages: {:?}", answer.failed);
                Ok(())
            });
        }
        while let Some(sender) = senders.join_next().await {
            joined(Some(sender))?;
        }
        Ok(())
    }

    /// As the role `ingest` does it.
    async fn ingest(&self, stage: &Stage, pollers: usize, messages: u64) -> anyhow::Result<Duration> {
        let batch_max = stage.config.log.batch_max;
        let options = LedgerOptions { batch_max, routing: Routing::default(), dispatch: None };
        let (ledger, appenders) = Ledger::new(stage.store.clone(), Arc::clone(&stage.clock), options);
        let mut running = JoinSet::new();
        for appender in appenders {
            running.spawn(appender.run());
        }
        let source = Sqs::open(SqsOptions {
            name: "bench".to_owned(),
            queue: self.url.clone(),
            endpoint_url: Some(self.endpoint.clone()),
            region: None,
            visibility_timeout: Duration::from_secs(u64::from(HIDDEN_S.unsigned_abs())),
            wait: Duration::from_secs(u64::from(WAIT_S.unsigned_abs())),
            weak_ids: false,
        })
        .await?;
        let settled = Arc::new(AtomicU64::new(0));
        let source = Counted { source, settled: Arc::clone(&settled) };
        let stop = CancellationToken::new();
        let start = Instant::now();
        for poller in ingest::pollers(source, ledger, pollers) {
            running.spawn(poller.run(stop.clone()));
        }
        while settled.load(Ordering::Relaxed) < messages {
            time::sleep(LOOK).await;
        }
        let took = start.elapsed();
        stop.cancel();
        while let Some(ended) = running.join_next().await {
            ended?;
        }
        Ok(took)
    }

    /// The bare loop.
    async fn empty(&self, pollers: usize, messages: u64) -> anyhow::Result<Duration> {
        let deleted = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..pollers {
            running.spawn(self.clone().receive_and_delete(Arc::clone(&deleted), messages));
        }
        let mut took = None;
        while let Some(ended) = running.join_next().await {
            joined(Some(ended))?;
            // The others may still wait for a message that never comes.
            took.get_or_insert_with(|| start.elapsed());
        }
        took.context("nothing was deleted")
    }

    async fn receive_and_delete(self, deleted: Arc<AtomicU64>, messages: u64) -> anyhow::Result<()> {
        while deleted.load(Ordering::Relaxed) < messages {
            let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            let answer = request.wait_time_seconds(WAIT_S).visibility_timeout(HIDDEN_S).send().await?;
            let entry = |(at, message): (usize, aws_sdk_sqs::types::Message)| {
                DeleteEntry::builder().id(at.to_string()).set_receipt_handle(message.receipt_handle).build()
            };
            let received = answer.messages.unwrap_or_default().into_iter().enumerate();
            let entries = received.map(entry).collect::<Result<Vec<_>, _>>()?;
            if entries.is_empty() {
                continue;
            }
            let count = entries.len() as u64;
            let request = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
            request.send().await?;
            deleted.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Ends with the task's error, or with its panic as one.
fn joined(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    ended.map_or(Ok(()), |ended| ended?)
}

/// A queue that counts what was deleted.
#[derive(Debug)]
struct Counted {
    source: Sqs,
    settled: Arc<AtomicU64>,
}

impl Source for Counted {
    fn ingress(&self) -> &str {
        self.source.ingress()
    }

    fn batch_max(&self) -> usize {
        self.source.batch_max()
    }

    fn hidden_for(&self) -> Option<Duration> {
        self.source.hidden_for()
    }

    async fn receive(&self) -> Result<Vec<Arrival>, SourceError> {
        self.source.receive().await
    }

    async fn keep(&self, handles: &[Handle]) {
        self.source.keep(handles).await;
    }

    async fn settle(&self, settlements: Vec<(Handle, Settlement)>) {
        let done = settlements.iter().filter(|(_, it)| *it == Settlement::Done).count();
        self.source.settle(settlements).await;
        self.settled.fetch_add(done as u64, Ordering::Relaxed);
    }
}
