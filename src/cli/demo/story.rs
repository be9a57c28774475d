//! What the demo does, step by step, and tells of it as it goes. Whatever is told is read back from the
//! ledger, or from the push endpoint.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    lines,
    paint::Paint,
    samples::{LINES, Samples},
    stage::Stage,
    tally::Tally,
    text::{self, Line, count},
};
use crate::{
    audit::{Audit, message_text},
    cli::print,
    event::Recorded,
    id::{MessageId, Position, RecipientId},
    projection,
    source::{Source as _, ndjson::Ndjson},
    worker::rebuild::Rebuild,
};

/// How long the deliveries may take to come to an end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look when the ledger says nothing.
const POLL: Duration = Duration::from_millis(50);
/// Events of a shard that are read: all of them.
const EVENTS_MAX: u64 = 100_000;

/// What came out.
#[derive(Debug)]
pub(super) struct Told {
    /// What did not come out as expected.
    pub(super) wrong: Vec<String>,
    /// The message that was the hardest to deliver.
    pub(super) message: MessageId,
    /// Who it is for.
    pub(super) recipient: RecipientId,
}

/// The teller.
#[derive(Debug)]
pub(super) struct Story<'a> {
    stage: &'a Stage,
    paint: Paint,
    wrong: Vec<String>,
}

impl<'a> Story<'a> {
    /// A story about this.
    pub(super) const fn new(stage: &'a Stage, paint: Paint) -> Self {
        Self { stage, paint, wrong: Vec::new() }
    }

    /// Tells it.
    pub(super) async fn tell(mut self, folder: &str) -> anyhow::Result<Told> {
        self.introduce(folder)?;
        let samples = Samples::new()?;
        self.heading("What happened", "")?;
        self.feed(&samples).await?;
        self.poison().await?;
        let log = self.wait_for_the_end().await?;
        self.say(&lines::pushed(&log, &self.stage.endpoint))?;
        self.say(&lines::retried(&log, &self.stage.endpoint))?;
        self.say(&lines::ended(&log, &self.stage.endpoint))?;
        let (message, recipient) = log.laborious.clone().context("no message of the inbox was pushed")?;
        self.open(&recipient, &message).await?;
        self.look_around().await?;
        self.audit(&message).await?;
        self.rebuild().await?;
        Ok(Told { wrong: self.wrong, message, recipient })
    }

    fn introduce(&self, folder: &str) -> anyhow::Result<()> {
        let Stage { client, endpoint, port_taken, .. } = self.stage;
        print(
            self.paint.bold("Notification ledger: the whole service, on SQLite, with a flaky push endpoint"),
        )?;
        let setting = |name, value, aside| print(text::setting(name, value, aside, self.paint));
        setting("folder", folder, "fresh, removed at the end")?;
        let aside = if *port_taken { "this machine only; 8080 is taken" } else { "this machine only" };
        setting("API", client.base(), aside)?;
        Ok(setting("provider", &endpoint.url(), "built in; says no now and then")?)
    }

    /// Producers send, send again, and one sends something else under the same id.
    async fn feed(&mut self, samples: &Samples) -> anyhow::Result<()> {
        let client = &self.stage.client;
        let (each, together) = samples.first.split_at(samples.first.len() / 2);
        let (mut answers, more) = (client.send_each(each).await?, client.send_together(together).await?);
        answers.appended += more.appended;
        let log = Tally::of(&self.events().await?);
        self.say(&lines::sent(samples.first.len(), answers, &log))?;
        self.say(&lines::kinds(&log))?;

        let answers = client.send_each(&samples.again).await?;
        let events = self.events().await?;
        let mut counted = 0;
        for event in events.iter().filter(|it| it.version.0 == 0) {
            counted += self.stage.ledger.store().redeliveries(&event.message_id).await?.redelivered;
        }
        self.say(&lines::repeated(
            samples.again.len(),
            answers,
            counted,
            samples.first.len(),
            &Tally::of(&events),
        ))?;

        let answers = client.send_each(std::slice::from_ref(&samples.changed.other)).await?;
        let kept = client.title(&samples.changed.id).await?;
        let log = Tally::of(&self.events().await?);
        self.say(&lines::changed(answers, &kept, &samples.changed.title, &log))
    }

    /// A file holds a line that is no message.
    async fn poison(&mut self) -> anyhow::Result<()> {
        let ledger = &self.stage.ledger;
        let source = Ndjson::new("sms.ndjson", LINES.as_bytes(), 10);
        let arrivals = source.receive().await?;
        ledger.take_in(source.ingress(), arrivals).await;
        let held = ledger.store().quarantine_list(None, None, 10).await?;
        self.say(&lines::quarantined(LINES.lines().count(), &held))
    }

    /// Waits until every delivery has come to an end and every projection shows it.
    async fn wait_for_the_end(&self) -> anyhow::Result<Tally> {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
            spinner.set_style(style);
        }
        let ledger = &self.stage.ledger;
        let (appended, end) = (ledger.appended(), Instant::now() + PATIENCE);
        let log = loop {
            let hint = appended.listen();
            let log = Tally::of(&self.events().await?);
            if log.open == 0 || Instant::now() > end {
                break log;
            }
            spinner
                .set_message(format!("{} on the way, some to be tried again", count(log.open, "delivery")));
            spinner.tick();
            let _ = tokio::time::timeout(POLL, hint).await;
        };
        spinner.finish_and_clear();
        for head in ledger.store().heads().await? {
            for projection in projection::ALL {
                let left = end.saturating_duration_since(Instant::now());
                let name = projection.name();
                let there = ledger.wait_for(name, head, left).await?;
                anyhow::ensure!(there, "the projection {name} did not reach {head} within {PATIENCE:?}");
            }
        }
        Ok(log)
    }

    /// A customer opens a message.
    async fn open(&mut self, recipient: &RecipientId, message: &MessageId) -> anyhow::Result<()> {
        let client = &self.stage.client;
        let before = client.inbox(recipient, None).await?;
        let cursor = client.read(recipient, message).await?;
        let after = client.inbox(recipient, Some(&cursor)).await?;
        self.say(&lines::read(recipient, message, &before, &after))
    }

    /// What everybody sees, and what it all comes from.
    async fn look_around(&mut self) -> anyhow::Result<()> {
        let log = Tally::of(&self.events().await?);
        let mut inboxes = Vec::new();
        for recipient in &log.recipients {
            inboxes.push((recipient.clone(), self.stage.client.inbox(recipient, None).await?));
        }
        self.say(&lines::inboxes(&inboxes, &log))?;
        self.say(&lines::log(&log))
    }

    /// Everything about the message that was the hardest to deliver.
    async fn audit(&mut self, message: &MessageId) -> anyhow::Result<()> {
        self.heading("One message", &format!("as `notification-ledger audit message {message}` shows it"))?;
        let audit = self.complete_audit(message).await?;
        print(text::timeline(&message_text(&audit), self.paint))?;
        if !audit.projections.iter().all(|it| it.agrees && it.complete) {
            self.wrong.push(format!("audit: the projections had to show all of {message}"));
        }
        Ok(())
    }

    /// The message's story, once the projections show all of it: they follow the log by a moment.
    async fn complete_audit(&self, message: &MessageId) -> anyhow::Result<Audit> {
        let end = Instant::now() + PATIENCE;
        loop {
            let evidence = self.stage.ledger.store().evidence(message).await?;
            let audit =
                evidence.and_then(Audit::new).with_context(|| format!("{message} is not in the log"))?;
            if audit.projections.iter().all(|it| it.complete) || Instant::now() > end {
                return Ok(audit);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Folds the inbox anew and compares.
    async fn rebuild(&mut self) -> anyhow::Result<()> {
        self.heading(
            "The inbox, rebuilt from the log",
            "as `notification-ledger projections rebuild inbox` does it",
        )?;
        let (store, name) = (self.stage.ledger.store(), "inbox");
        let missing = || format!("there is no projection {name}");
        let projection = projection::by_name(name).with_context(missing)?;
        let was = store.projection_state(name).await?.with_context(missing)?.live;
        let inbox = Rebuild { store: store.clone(), projection, clock: self.stage.ledger.clock() };
        let start = Instant::now();
        let rebuilt = inbox.rebuild(false, false, &|_, _| {}).await?;
        let took = start.elapsed();
        let live = store.projection_state(name).await?.with_context(missing)?.live;
        for line in lines::rebuilt(&rebuilt, was, live, took) {
            self.say(&line)?;
        }
        Ok(())
    }

    /// Every event there is, shard by shard.
    async fn events(&self) -> anyhow::Result<Vec<Recorded>> {
        let store = self.stage.ledger.store();
        let mut events = Vec::new();
        for shard in store.shards() {
            events.extend(store.events_after(shard, Position::default(), EVENTS_MAX).await?);
        }
        Ok(events)
    }

    fn heading(&self, title: &str, aside: &str) -> std::io::Result<()> {
        print(text::heading(title, aside, self.paint))
    }

    fn say(&mut self, line: &Line) -> anyhow::Result<()> {
        self.wrong.extend(line.wrong());
        Ok(print(line.render(self.paint))?)
    }
}
