//! `inbox`: what a recipient's inbox shows, what it showed at any moment, and what changed between two.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::de::{DeserializeOwned, value::StrDeserializer};
use tokio::time::Instant;

use super::{Exit, Global, Logs, Output, print};
use crate::{
    audit::{
        difference_text,
        inbox::{Compared, Listed},
        inbox_text,
    },
    clock::{Clock as _, SystemClock},
    id::{Cursor, RecipientId},
    inbox::{Archived, InboxFilter, Status, past::Point},
    ledger::past::{Past, PastError},
    service,
    store::Store,
};

/// How long a projection that is behind is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(100);

/// Show a recipient's inbox, as it is or as it was at any moment since the first event
///
/// Without --as-of it is what the app shows now. With it, the inbox is folded from the recipient's events up to
/// that moment, exactly as it was, but for what was erased since, which is blank at every moment. Times are UTC.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    /// Whose inbox
    #[arg(long, value_name = "ID", required = true)]
    recipient: Option<RecipientId>,
    /// As it was: at this time, as in 2026-11-22T09:00:00Z, or with the event at this cursor, as in 0-1042, and none
    /// after it
    #[arg(long, value_name = "TIME|CURSOR")]
    as_of: Option<Point>,
    /// Only items that are unseen (never shown), unread (shown or not) or read; without it, all
    #[arg(long, value_parser = word::<Status>, default_value = "all")]
    status: Status,
    /// What to do with items that were put away: exclude, include or only
    #[arg(long, value_parser = word::<Archived>, default_value = "exclude")]
    archived: Archived,
    /// Only items of this category
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
    /// Only items older than the one at this cursor, as the list before said
    #[arg(long, value_name = "CURSOR")]
    before: Option<Cursor>,
    /// How many at the most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    limit: u64,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare an inbox between two moments: what came, what changed, what went
    ///
    /// What was changed last comes first, with the fields that differ. Exits with 0 whether anything differs or not.
    Diff {
        /// Whose inbox
        #[arg(long, value_name = "ID")]
        recipient: RecipientId,
        /// The first moment: a time or a cursor
        #[arg(long, value_name = "TIME|CURSOR")]
        from: Point,
        /// The second moment, not before the first; without it, now
        #[arg(long, value_name = "TIME|CURSOR")]
        to: Option<Point>,
        /// Only what was changed before this cursor, as the answer before said
        #[arg(long, value_name = "CURSOR")]
        before: Option<Cursor>,
        /// How many changes at the most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        #[command(flatten)]
        output: Output,
    },
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let store = service::open_existing(&global.start(Logs::Command)?.config).await?;
        let done = self.show(&store).await;
        // A database that is slow to say goodbye does not hold up the answer.
        let _ = tokio::time::timeout(Duration::from_secs(1), store.close()).await;
        done.map(|()| Exit::Well)
    }

    async fn show(self, store: &Store) -> anyhow::Result<()> {
        if let Some(Command::Diff { recipient, from, to, before, limit, output }) = self.command {
            let past = Past { store, now: SystemClock.now() };
            let places = told(past.places(&recipient, from, to).await)?;
            let (limit, before) = (usize::try_from(limit)?, before.map(|it| it.position));
            let found = patiently(async || past.difference(&recipient, places, before, limit).await).await?;
            let compared = Compared::new(places, found);
            return written(output, &compared, || difference_text(recipient.as_str(), &compared));
        }
        let recipient = self.recipient.context("name a --recipient")?;
        let filter = InboxFilter {
            before: self.before.map(|it| it.position),
            status: self.status,
            archived: self.archived,
            category: self.category,
            since: None,
            until: None,
        };
        let Some(point) = self.as_of else {
            let found = store.inbox(&recipient, &filter, self.limit).await;
            let page = found.context("the inbox cannot be read")?;
            let cursor = Cursor { shard: store.shard_of(&recipient), position: page.counts.last };
            let list = Listed::new(cursor, page);
            return written(self.output, &list, || inbox_text(recipient.as_str(), "now", &list));
        };
        let past = Past { store, now: SystemClock.now() };
        let place = told(past.place_of(&recipient, point).await)?;
        let limit = usize::try_from(self.limit)?;
        let found = patiently(async || past.inbox(&recipient, place, filter.clone(), limit).await).await?;
        let list = Listed::new(place, found);
        let when = match point {
            Point::Time(time) => format!("as of {time}"),
            Point::Place(place) => format!("as of {place}"),
        };
        written(self.output, &list, || inbox_text(recipient.as_str(), &when, &list))
    }
}

/// Asks again while the projection is behind, as long as is patience.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, PastError>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if !matches!(answer, Err(PastError::Behind(..))) || Instant::now() >= deadline {
            return told(answer);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// With what to do about a refusal.
fn told<T>(answer: Result<T, PastError>) -> anyhow::Result<T> {
    answer.map_err(|error| match error.remedy() {
        Some(remedy) => anyhow::anyhow!("{error}; {remedy}"),
        None => anyhow::Error::from(error).context("the inbox cannot be read"),
    })
}

fn written(
    output: Output,
    answer: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if output.json {
        print(serde_json::to_string_pretty(answer)?)?;
    } else {
        print(text().trim_end())?;
    }
    Ok(())
}

/// One of the words that the API takes.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let read = T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text));
    read.map_err(|error| error.to_string())
}
