//! `audit`: what happened to one message, and what a recipient was told.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::{Exit, Global, Logs, Output, print};
use crate::{
    audit::{Audit, Summary, message_text, recipient_text},
    clock::Timestamp,
    id::{MessageId, RecipientId},
    service,
    store::{MessageFilter, Store},
};

/// Show what happened to a message, or what a recipient was told
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print everything that happened to one message, in the order in which one led to the other
    ///
    /// The state is folded from the log, so it is right even where a projection is behind. What the
    /// projections show is held against it: exits with 1 where one of them differs, and where there is
    /// no such message. Device tokens are masked. Times are UTC.
    Message {
        /// The id that the producer chose
        id: MessageId,
        #[command(flatten)]
        output: Output,
    },
    /// List the messages of one recipient, newest first
    Recipient {
        /// The recipient's id
        id: RecipientId,
        /// Only messages received at this time or later, as in 2026-11-22T09:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Only messages received before this time
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        /// How many at the most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        #[command(flatten)]
        output: Output,
    },
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let store = service::open_existing(&global.start(Logs::Command)?.config).await?;
        let exit = match self.command {
            Command::Message { id, output } => message(&store, &id, output).await,
            Command::Recipient { id, since, until, limit, output } => {
                let filter = MessageFilter { before: None, since, until, limit };
                recipient(&store, &id, filter, output).await
            }
        };
        // A database that is slow to say goodbye does not hold up the answer.
        let _ = tokio::time::timeout(Duration::from_secs(1), store.close()).await;
        exit
    }
}

async fn message(store: &Store, id: &MessageId, output: Output) -> anyhow::Result<Exit> {
    let evidence = store.evidence(id).await.context("the message cannot be read")?;
    let Some(audit) = evidence.and_then(Audit::new) else {
        bail!("the log has no message {id}; what could not become a message is in quarantine");
    };
    if output.json {
        print(serde_json::to_string_pretty(&audit)?)?;
    } else {
        print(message_text(&audit).trim_end())?;
    }
    Ok(if audit.projections.iter().all(|it| it.agrees) { Exit::Well } else { Exit::Wrong })
}

async fn recipient(
    store: &Store,
    id: &RecipientId,
    filter: MessageFilter,
    output: Output,
) -> anyhow::Result<Exit> {
    let found = store.messages_of(id, filter).await;
    let (rows, more) = found.context("the messages cannot be read")?;
    let messages: Vec<_> = rows.into_iter().map(Summary::from).collect();
    if output.json {
        print(serde_json::to_string_pretty(&serde_json::json!({ "messages": messages, "more": more }))?)?;
    } else {
        print(recipient_text(id.as_str(), &messages, more).trim_end())?;
    }
    Ok(Exit::Well)
}
