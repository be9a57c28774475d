//! `quarantine`: looking at input that could not become a message, and deciding upon it.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Exit, Global, Logs, Output, print, writing::on_ledger};
use crate::{
    clock::{Clock as _, SystemClock},
    id::QuarantineId,
    ledger::{Ledger, Receipt, intake::Retried},
    message::hide::hide_tokens,
    service,
    store::{Decided, Decision, Held, HeldEntry, HeldState, Store},
};

/// Inputs that `retry --all` looks up at once.
const PAGE: u64 = 200;

/// Look at input that could not become a message, and retry or discard it
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is in quarantine, the oldest first
    List {
        /// Which of them
        #[arg(long, value_enum, default_value_t = Which::Held)]
        state: Which,
        /// Go on after this one
        #[arg(long, value_name = "ID")]
        after: Option<QuarantineId>,
        /// Show this many at the most
        #[arg(long, default_value_t = 50)]
        limit: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Show one input, without its push tokens, and what is wrong with it
    Show {
        /// Its id, as listed
        id: QuarantineId,
        /// Print nothing but the input, byte for byte: to mend it and hand it to `ingest`
        #[arg(long, conflicts_with = "json")]
        body: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Read inputs again, and append those that are messages now
    ///
    /// For input that was right and that an older version, or another configuration, did not
    /// understand. Exits with 1 when one of them still is no message.
    Retry {
        /// Their ids, as listed
        #[arg(required_unless_present = "all")]
        ids: Vec<QuarantineId>,
        /// All that nobody has decided upon
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        #[command(flatten)]
        decision: Who,
        #[command(flatten)]
        output: Output,
    },
    /// Decide that inputs are not needed; they stay on record
    Discard {
        /// Their ids, as listed
        #[arg(required = true)]
        ids: Vec<QuarantineId>,
        #[command(flatten)]
        decision: Who,
        #[command(flatten)]
        output: Output,
    },
}

/// Who decides, and why; kept with the decision.
#[derive(Debug, Clone, Args)]
struct Who {
    /// Who decides
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Held,
    Retried,
    Discarded,
    All,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        if let Command::Retry { ids, all, decision, output } = self.command {
            let ids = if all { None } else { Some(ids) };
            return on_ledger(&config, move |ledger, _| retry(ledger, ids, decision, output)).await;
        }
        let store = service::open_existing(&config).await?;
        let exit = match self.command {
            Command::List { state, after, limit, output } => list(&store, state, after, limit, output).await,
            Command::Show { id, body, output } => show(&store, id, body, output).await,
            Command::Discard { ids, decision, output } => discard(&store, &ids, &decision, output).await,
            Command::Retry { .. } => Ok(Exit::Well),
        };
        store.close().await;
        exit
    }
}

impl Which {
    const fn state(self) -> Option<HeldState> {
        match self {
            Self::Held => Some(HeldState::Held),
            Self::Retried => Some(HeldState::Retried),
            Self::Discarded => Some(HeldState::Discarded),
            Self::All => None,
        }
    }
}

async fn list(
    store: &Store,
    which: Which,
    after: Option<QuarantineId>,
    limit: u64,
    output: Output,
) -> anyhow::Result<Exit> {
    let limit = limit.clamp(1, 10_000);
    let entries = store.quarantine_list(which.state(), after, limit).await?;
    let next = entries.last().filter(|_| entries.len() as u64 == limit).map(|it| it.id);
    if output.json {
        let items: Vec<_> = entries.iter().map(entry_json).collect();
        print(json!({ "items": items, "next": next }))?;
        return Ok(Exit::Well);
    }
    for entry in &entries {
        print(format_args!("{}\n  {}", headline(entry), entry.reason))?;
    }
    match next {
        Some(next) => print(format_args!("more with --after {next}"))?,
        None if entries.is_empty() => print("nothing is in quarantine that was asked for")?,
        None => {}
    }
    Ok(Exit::Well)
}

async fn show(store: &Store, id: QuarantineId, body_only: bool, output: Output) -> anyhow::Result<Exit> {
    let held = store.quarantine_get(id).await?.with_context(|| unknown(id))?;
    if body_only {
        std::io::stdout().lock().write_all(&held.body)?;
        return Ok(Exit::Well);
    }
    if output.json {
        print(held_json(&held))?;
        return Ok(Exit::Well);
    }
    print(headline(&held.entry))?;
    print(format_args!("  reason      {}", held.entry.reason))?;
    print(format_args!("  first seen  {}", held.entry.first_at))?;
    if let Some(decided) = &held.entry.decided {
        let note = decided.note.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        print(format_args!("  decided     {} by {}{note}", decided.at, decided.by))?;
    }
    print(format_args!("  beside it   {}", held.attributes))?;
    print(format_args!("  body        {} bytes", held.body.len()))?;
    print(shown(&held.body))?;
    Ok(Exit::Well)
}

async fn retry(
    ledger: Ledger,
    ids: Option<Vec<QuarantineId>>,
    who: Who,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut results = Vec::new();
    let (mut exit, mut after, mut tried) = (Exit::Well, None, 0);
    loop {
        let page = if let Some(ids) = &ids {
            ids.clone()
        } else {
            let held = ledger.store().quarantine_list(Some(HeldState::Held), after, PAGE).await?;
            held.into_iter().map(|it| it.id).collect()
        };
        for &id in &page {
            tried += 1;
            let retried = ledger.retry_held(id, &who.by, who.note.clone()).await?;
            let (result, well, words) = outcome(&retried);
            if !well {
                exit = Exit::Wrong;
            }
            if output.json {
                results.push(json!({ "id": id, "result": result, "detail": words }));
            } else {
                print(format_args!("{id}  {result}  {words}"))?;
            }
        }
        after = page.last().copied();
        if ids.is_some() || after.is_none() {
            break;
        }
    }
    if output.json {
        print(json!({ "results": results }))?;
    } else if tried == 0 {
        print("nothing is held")?;
    }
    Ok(exit)
}

/// The result in a word, whether it is what was hoped for, and more about it.
fn outcome(retried: &Retried) -> (&'static str, bool, String) {
    match retried {
        Retried::Accepted(Receipt::Appended(cursor)) => ("appended", true, format!("at {cursor}")),
        Retried::Accepted(Receipt::Redelivered(cursor)) => {
            ("redelivered", true, format!("the log has it already, at {cursor}"))
        }
        Retried::Accepted(Receipt::Conflict(cursor)) => {
            ("conflict", true, format!("its id is taken by other content; recorded at {cursor}"))
        }
        Retried::Rejected(rejection) => ("rejected", false, rejection.to_string()),
        Retried::Already(decided) => ("already", true, format!("by {} at {}", decided.by, decided.at)),
        Retried::Unknown => ("unknown", false, "there is no such input in quarantine".to_owned()),
    }
}

async fn discard(store: &Store, ids: &[QuarantineId], who: &Who, output: Output) -> anyhow::Result<Exit> {
    let mut results = Vec::new();
    let mut exit = Exit::Well;
    for &id in ids {
        let decided = Decided { at: SystemClock.now(), by: who.by.clone(), note: who.note.clone() };
        let discarded = store.quarantine_decide(id, Decision::Discarded, &decided).await?;
        let result = if discarded {
            "discarded"
        } else {
            let Some(held) = store.quarantine_get(id).await? else { bail!(unknown(id)) };
            exit = if held.entry.state == HeldState::Discarded { exit } else { Exit::Wrong };
            held.entry.state.as_str()
        };
        if output.json {
            results.push(json!({ "id": id, "state": result }));
        } else if discarded {
            print(format_args!("{id}  discarded"))?;
        } else {
            print(format_args!("{id}  was {result} before"))?;
        }
    }
    if output.json {
        print(json!({ "results": results }))?;
    }
    Ok(exit)
}

fn unknown(id: QuarantineId) -> String {
    format!("{id} is not in quarantine; `quarantine list` shows what is")
}

fn headline(entry: &HeldEntry) -> String {
    let times = if entry.times_seen == 1 { String::new() } else { format!(", {} times", entry.times_seen) };
    let (id, state, code) = (entry.id, entry.state.as_str(), &entry.code);
    format!("{id}  {state}  {code}  {}{times}  from {}", entry.last_at, entry.source)
}

/// The body as text, without push tokens and with what would confuse a terminal escaped; not where it is none.
fn shown(body: &[u8]) -> String {
    let escape = |c: char| {
        let harmless = !c.is_control() || matches!(c, '\n' | '\t');
        if harmless { c.to_string() } else { c.escape_unicode().to_string() }
    };
    match std::str::from_utf8(body) {
        Ok(text) => hide_tokens(text).chars().map(escape).collect(),
        Err(_) => "(not UTF-8; --body prints it as it is)".to_owned(),
    }
}

fn entry_json(entry: &HeldEntry) -> Value {
    let decided = entry.decided.as_ref();
    json!({
        "id": entry.id, "state": entry.state.as_str(), "code": entry.code, "reason": entry.reason,
        "source": entry.source, "firstAt": entry.first_at, "lastAt": entry.last_at,
        "timesSeen": entry.times_seen,
        "decided": decided.map(|it| json!({ "at": it.at, "by": it.by, "note": it.note })),
    })
}

/// As listed, with `body` where it is text, without push tokens; null where it is not.
fn held_json(held: &Held) -> Value {
    let mut value = entry_json(&held.entry);
    value["beside"] = serde_json::from_str(&held.attributes).unwrap_or_default();
    match std::str::from_utf8(&held.body) {
        Ok(text) => value["body"] = json!(hide_tokens(text)),
        Err(_) => value["body"] = json!(null),
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_confuse_a_terminal_is_escaped() {
        assert_eq!(shown("a\tb\n한\u{1b}[2J\r".as_bytes()), "a\tb\n한\\u{1b}[2J\\u{d}");
        assert_eq!(shown(b"a\xff"), "(not UTF-8; --body prints it as it is)");
    }
}
