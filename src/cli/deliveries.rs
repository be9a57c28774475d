//! `deliveries`: looking at pushes, and doing something about those that did not arrive.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Exit, Global, Logs, Output, print, writing::on_ledger};
use crate::{
    audit::{CallSummary, DeliveryStory, ListedDelivery},
    clock::Timestamp,
    event::FailureClass,
    id::{DeliveryId, MessageId, RecipientId},
    ledger::{
        Ledger, LedgerError, Marked,
        operate::{Denied, Replay, Replayed, Replaying, Who},
    },
    projection::deliveries::DeliveryStatus,
    service,
    store::{DeliveryFilter, DeliveryPlace, Store},
    supervisor::Stop,
};

/// Look at pushes, and try again, cancel or replay them
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the deliveries in one status
    ///
    /// What is open comes provider by provider, the longest due first; what ended badly in the order of
    /// its last change; what was accepted by message. Only --status, and --provider with an open status or
    /// --since and --until with one that ended badly, make the search narrower: the others are looked at
    /// delivery by delivery.
    List {
        /// unplanned, scheduled, retrying, attempting, pending, accepted, failed, suppressed or unknown
        #[arg(long, value_parser = status, default_value = "failed")]
        status: DeliveryStatus,
        #[command(flatten)]
        filter: Filter,
        /// Go on after this place, as the list before said
        #[arg(long, value_name = "PLACE")]
        after: Option<DeliveryPlace>,
        /// Show this many at the most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Show one delivery with every call made for it
    Show {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        output: Output,
    },
    /// Try a delivery now that waits or was given up
    ///
    /// What a provider took is never sent again. Whoever runs `serve` makes the call.
    Retry {
        #[command(flatten)]
        which: Which,
        /// Through this provider from now on; it has to know the same devices
        #[arg(long, value_name = "NAME")]
        through: Option<String>,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
    /// Take care that a delivery that waits is not sent
    ///
    /// A call under way is not called back.
    Cancel {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
    /// Deliver again what was not delivered
    ///
    /// Takes up deliveries that failed and, with --unknown, those that nobody knows of; with --waiting it
    /// moves to another provider what still waits. Never what a provider took, nor what was suppressed on
    /// purpose. Without --yes it only counts. Cut off, it can be run again: it goes on with what is still not
    /// delivered.
    Replay {
        #[command(flatten)]
        filter: Filter,
        /// Also those whose outcome is unknown: some of these may arrive twice
        #[arg(long)]
        unknown: bool,
        /// Also those that wait for another provider than --through
        #[arg(long, requires = "through")]
        waiting: bool,
        /// Through this provider; it has to know the same devices
        #[arg(long, value_name = "NAME")]
        through: Option<String>,
        /// So many become due in a second
        #[arg(long, value_name = "PER SECOND", value_parser = rate)]
        rate: Option<f64>,
        /// The first becomes due at this time: to go on at the same rate where another run was cut off
        #[arg(long, value_name = "TIME")]
        start_at: Option<Timestamp>,
        /// Do it; needs a --reason
        #[arg(long, requires = "reason")]
        yes: bool,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
}

/// Which deliveries; all that is given has to be so.
#[derive(Debug, Clone, Args)]
struct Filter {
    /// Of this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Whose last failure is of this kind: retry, invalid_target, permanent, auth_config or unknown; a replay
    /// takes up dead targets only when invalid_target is asked for, and dead devices never
    #[arg(long, value_parser = class)]
    class: Option<FailureClass>,
    /// Last changed at this time or later, as in 2026-11-22T09:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Last changed before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// For this recipient
    #[arg(long, value_name = "ID")]
    recipient: Option<RecipientId>,
}

/// One delivery.
#[derive(Debug, Clone, Args)]
struct Which {
    /// The message's id
    message: MessageId,
    /// The delivery's id, as listed
    delivery: DeliveryId,
}

/// Who decides, and why; recorded with what they did.
#[derive(Debug, Clone, Args)]
pub(super) struct Decider {
    /// Who decides
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        match self.command {
            Command::List { status, filter, after, limit, output } => {
                let store = service::open_existing(&config).await?;
                let filter = filter.into();
                let listed = list(&store, status, &filter, after.as_ref(), limit, output).await;
                store.close().await;
                let (exit, is_empty) = listed?;
                let unknown = filter.provider.filter(|it| is_empty && !config.providers.contains_key(it));
                if let Some(name) = unknown.filter(|_| !output.json) {
                    print(format_args!("no provider {name:?} is configured; `providers list` shows them"))?;
                }
                Ok(exit)
            }
            Command::Show { which, output } => {
                let store = service::open_existing(&config).await?;
                let shown = show(&store, &which, output).await;
                store.close().await;
                shown
            }
            Command::Retry { which: Which { message, delivery }, through, who, output } => {
                on_ledger(&config, move |ledger, _| async move {
                    let retried =
                        ledger.retry_delivery(&message, delivery, through.clone(), &who.into()).await;
                    let exit = done(retried, "rescheduled", output)?;
                    let row = ledger.store().delivery(&message, delivery).await?;
                    let provider = through.or_else(|| row.and_then(|(it, _)| it.provider));
                    warn_of_pause(&ledger, provider.as_deref(), output).await?;
                    Ok(exit)
                })
                .await
            }
            Command::Cancel { which: Which { message, delivery }, who, output } => {
                on_ledger(&config, move |ledger, _| async move {
                    let cancelled = ledger.cancel_delivery(&message, delivery, &who.into()).await;
                    done(cancelled, "suppressed", output)
                })
                .await
            }
            Command::Replay { filter, unknown, waiting, through, rate, start_at, yes, who, output } => {
                let mut statuses = vec![DeliveryStatus::Failed];
                statuses.extend(unknown.then_some(DeliveryStatus::Unknown));
                if waiting {
                    statuses.extend([DeliveryStatus::Scheduled, DeliveryStatus::Retrying]);
                }
                let filter = filter.into();
                let replay = Replay {
                    statuses,
                    filter,
                    through,
                    rate_per_s: rate,
                    start_at,
                    after: None,
                    is_dry: true,
                };
                let who = who.into();
                on_ledger(&config, move |ledger, stop| run_replay(ledger, stop, replay, who, yes, output))
                    .await
            }
        }
    }
}

impl From<Filter> for DeliveryFilter {
    fn from(it: Filter) -> Self {
        let Filter { provider, class, since, until, recipient } = it;
        Self { provider, class, since, until, recipient }
    }
}

impl From<Decider> for Who {
    fn from(it: Decider) -> Self {
        Self { by: it.by, ingress: "cli", reason: it.reason }
    }
}

async fn list(
    store: &Store,
    status: DeliveryStatus,
    filter: &DeliveryFilter,
    after: Option<&DeliveryPlace>,
    limit: u64,
    output: Output,
) -> anyhow::Result<(Exit, bool)> {
    if let Some(other) = after.map(|it| it.status).filter(|it| *it != status) {
        bail!("--after is a place in the list of the status {other}; give --status {other} with it");
    }
    let found = store.deliveries(status, filter, after, limit).await;
    let (rows, next) = found.context("the deliveries cannot be read")?;
    let deliveries: Vec<_> = rows.into_iter().map(ListedDelivery::from).collect();
    let next = next.map(|it| it.to_string());
    if output.json {
        print(json!({ "deliveries": deliveries, "next": next }))?;
        return Ok((Exit::Well, deliveries.is_empty()));
    }
    for it in &deliveries {
        print(told(it))?;
    }
    match next {
        Some(next) => print(format_args!("more with --after {next}"))?,
        None if deliveries.is_empty() => print(format_args!("no delivery is {status} that was asked for"))?,
        None => {}
    }
    Ok((Exit::Well, deliveries.is_empty()))
}

/// Says that what is to be sent now has to wait, where its provider is paused.
async fn warn_of_pause(ledger: &Ledger, provider: Option<&str>, output: Output) -> anyhow::Result<()> {
    let Some(name) = provider.filter(|_| !output.json) else { return Ok(()) };
    let controls = ledger.store().controls().await?;
    if controls.iter().any(|it| it.provider == name && it.is_pause) {
        print(format_args!("{name} is paused: it waits until `providers resume {name}`"))?;
    }
    Ok(())
}

async fn show(store: &Store, which: &Which, output: Output) -> anyhow::Result<Exit> {
    let found = store.delivery(&which.message, which.delivery).await.context("it cannot be read")?;
    let Some(found) = found else {
        bail!("there is no such delivery; `audit message {}` shows those of the message", which.message);
    };
    let whole = DeliveryStory::from(found);
    if output.json {
        print(serde_json::to_string_pretty(&whole)?)?;
        return Ok(Exit::Well);
    }
    print(told(&whole.delivery))?;
    for call in &whole.calls {
        print(format_args!("  {}", call_told(call)))?;
    }
    Ok(Exit::Well)
}

fn done(
    result: Result<Result<Marked, Denied>, LedgerError>,
    word: &str,
    output: Output,
) -> anyhow::Result<Exit> {
    let Marked { cursor, is_new } = result??;
    if output.json {
        print(json!({ "result": word, "cursor": cursor, "isNew": is_new }))?;
    } else if is_new {
        print(format_args!("{word}, at {cursor}"))?;
    } else {
        print(format_args!("was {word} before"))?;
    }
    Ok(Exit::Well)
}

async fn run_replay(
    ledger: Ledger,
    stop: Stop,
    replay: Replay,
    who: Who,
    yes: bool,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut counting = ledger.replay(replay.clone(), who.clone())?;
    while counting.page().await? {
        if stop.is_asked() {
            bail!("stopped while it counted; nothing was done");
        }
    }
    let counted = counting.so_far().clone();
    let provider = replay.through.as_deref().or(replay.filter.provider.as_deref());
    warn_of_pause(&ledger, provider, output).await?;
    if !yes {
        return told_replay(&counting, false, output);
    }
    let bar = bar(counted.matched, output);
    let mut replaying = ledger.replay(Replay { is_dry: false, ..replay }, who)?;
    loop {
        let more = replaying.page().await?;
        bar.set_position(replaying.so_far().matched);
        if more && stop.is_asked() {
            bar.finish_and_clear();
            told_replay(&replaying, true, output)?;
            let next = replaying.next_due();
            bail!("stopped; run it again to go on, with --start-at {next} at the same rate");
        }
        if !more {
            break;
        }
    }
    bar.finish_and_clear();
    told_replay(&replaying, true, output)
}

fn told_replay(replaying: &Replaying, is_done: bool, output: Output) -> anyhow::Result<Exit> {
    let it = replaying.so_far();
    let &Replayed { matched, rescheduled, expired, unfit, accepted, under_way } = it;
    if output.json {
        print(json!({
            "dryRun": !is_done, "matched": matched, "rescheduled": rescheduled,
            "skipped": {
                "expired": expired, "unfit": unfit, "accepted": accepted, "underWay": under_way,
            },
            "lastDueBefore": replaying.next_due(),
        }))?;
        return Ok(Exit::Well);
    }
    let verb = if is_done { "sent again" } else { "to be sent again" };
    print(format_args!("{matched} deliveries looked at, {rescheduled} {verb}, {} left out", it.skipped()))?;
    for (count, why) in [
        (expired, "have expired, or would have before their turn"),
        (unfit, "have no configured provider that takes them, or a target that is no more (see --class)"),
        (accepted, "were accepted meanwhile"),
        (under_way, "are under way or there already, or were cancelled meanwhile"),
    ] {
        if count > 0 {
            print(format_args!("  {count} {why}"))?;
        }
    }
    if rescheduled > 0 {
        print(format_args!("  the last one is due before {}", replaying.next_due()))?;
    }
    if !is_done {
        print("nothing was done; --yes with a --reason does it")?;
    }
    Ok(Exit::Well)
}

fn bar(all: u64, output: Output) -> ProgressBar {
    if output.json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(all);
    let template = "{msg} [{bar:30}] {human_pos}/{human_len} deliveries, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message("replaying");
    bar
}

fn told(it: &ListedDelivery) -> String {
    let delivery = &it.delivery;
    let provider = delivery.provider.as_deref().unwrap_or("not planned");
    let target = delivery.target.as_deref().unwrap_or("no target");
    let attempts = match delivery.attempts {
        1 => "1 attempt".to_owned(),
        n => format!("{n} attempts"),
    };
    let when = match delivery.due_at {
        Some(due) => format!("due {due}"),
        None => format!("since {}", it.updated_at),
    };
    let (message, id, status) = (&it.message_id, &delivery.delivery_id, delivery.status);
    let mut text = format!("{message}  {id}  {status}  {when}\n  {provider} → {target}, for ");
    text.extend([it.recipient_id.as_str(), ", ", attempts.as_str()]);
    let last = [&delivery.last_class, &delivery.last_code, &delivery.last_error];
    let last: Vec<_> = last.into_iter().flatten().map(|it| plain(it)).collect();
    if !last.is_empty() {
        text.extend(["\n  ", last.join(", ").as_str()]);
    }
    text
}

fn call_told(call: &CallSummary) -> String {
    let mut parts = vec![format!("attempt {}", call.attempt), call.started_at.to_string()];
    parts.push(call.provider.clone());
    parts.push(call.outcome.unwrap_or("under way").to_owned());
    parts.extend(call.status.map(|it| format!("HTTP {it}")));
    parts.extend(call.duration_ms.map(|it| format!("{it} ms")));
    parts.extend([&call.code, &call.answer, &call.decision].into_iter().flatten().map(|it| plain(it)));
    parts.join("  ")
}

/// What a provider said, in one line and without what would confuse a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

fn status(word: &str) -> Result<DeliveryStatus, String> {
    let all = || DeliveryStatus::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
    DeliveryStatus::from_word(word).ok_or_else(|| format!("use one of: {}", all()))
}

fn class(word: &str) -> Result<FailureClass, String> {
    let all = || FailureClass::ALL.map(FailureClass::as_str).join(", ");
    let found = FailureClass::ALL.into_iter().find(|it| it.as_str() == word);
    found.ok_or_else(|| format!("use one of: {}", all()))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|it| (0.001..=1_000_000.0).contains(it));
    rate.ok_or_else(|| "use a number from 0.001 to 1000000".to_owned())
}
