//! `providers`: which there are, whether they take our credentials, and pausing them.

use std::{fmt::Write as _, sync::Arc};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Exit, Global, Logs, Output, deliveries::Decider, print, writing::on_ledger};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    event::FailureClass,
    ledger::{
        operate::Who,
        providers::{ProviderStatus, provider_statuses},
    },
    provider::{self, Checked, Failure},
    service,
};

/// Look at providers, check their credentials, pause and resume them
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the providers, whether they are paused, and how much waits for each
    List(Output),
    /// Build providers and ask them whether they take our credentials; nobody is sent anything
    ///
    /// Exits with 1 when one cannot be built, refuses, or does not answer. Some services have no way to be
    /// asked: then the configuration is all that is checked.
    Check {
        /// Which one; without it, all
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Stop all calls to a provider, in every process, until somebody resumes it
    ///
    /// What waits for it is not lost and burns no attempts; what has another provider in its route goes
    /// there.
    Pause {
        /// Its name
        name: String,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
    /// Let a provider be called again, whatever it was paused for
    Resume {
        /// Its name
        name: String,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
}

/// What a check came to.
enum Found {
    Well(Checked),
    Refused(Failure),
    CannotBeBuilt(String),
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        match self.command {
            Command::List(output) => list(&config, output).await,
            Command::Check { name, output } => check(&config, name.as_deref(), output).await,
            Command::Pause { name, who, output } => control(&config, name, true, who.into(), output).await,
            Command::Resume { name, who, output } => control(&config, name, false, who.into(), output).await,
        }
    }
}

async fn list(config: &Config, output: Output) -> anyhow::Result<Exit> {
    let routing = service::routing(config)?;
    let store = service::open_existing(config).await?;
    let found = provider_statuses(&store, &routing, SystemClock.now()).await;
    store.close().await;
    let providers = found?;
    if output.json {
        print(json!({ "providers": providers }))?;
        return Ok(Exit::Well);
    }
    for it in &providers {
        print(told(it))?;
    }
    if providers.is_empty() {
        print("no provider is configured")?;
    }
    Ok(Exit::Well)
}

fn told(it: &ProviderStatus) -> String {
    let ProviderStatus { name, kind, state, last, due, overdue } = it;
    let kind = kind.as_deref().unwrap_or("not configured");
    let mut text = format!("{name}  {kind}  {state}  {due} due, {overdue} of them for more than a minute");
    if let Some(last) = last {
        let verb = if *state == "paused" { "paused" } else { "resumed" };
        let _ = write!(text, "\n  {verb} at {} by {} ({}): ", last.since, last.actor, last.cause);
        text.push_str(&last.reason);
        if let Some(until) = last.until {
            let _ = write!(text, "; one call finds out at {until}");
        }
    }
    text
}

async fn check(config: &Config, name: Option<&str>, output: Output) -> anyhow::Result<Exit> {
    if let Some(name) = name.filter(|it| !config.providers.contains_key(*it)) {
        bail!("no provider {name:?} is configured; `providers list` shows those that are");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (mut exit, mut results) = (Exit::Well, Vec::new());
    for (name, settings) in config.providers.iter().filter(|(it, _)| name.is_none_or(|name| name == *it)) {
        let built = provider::build(name, &settings.kind, settings.settings.clone(), Arc::clone(&clock));
        let found = match built {
            Err(error) => Found::CannotBeBuilt(error.to_string()),
            Ok(it) => match it.provider.check().await {
                Ok(checked) => Found::Well(checked),
                Err(failure) => Found::Refused(failure),
            },
        };
        if matches!(found, Found::Refused(_) | Found::CannotBeBuilt(_)) {
            exit = Exit::Wrong;
        }
        if output.json {
            results.push(found.json(name, &settings.kind));
        } else {
            print(format_args!("{name}  {}  {}", settings.kind, found.words()))?;
        }
    }
    if output.json {
        print(json!({ "providers": results }))?;
    } else if config.providers.is_empty() {
        print("no provider is configured")?;
    }
    Ok(exit)
}

impl Found {
    fn words(&self) -> String {
        match self {
            Self::Well(Checked { is_proven: true, detail }) => format!("credentials accepted: {detail}"),
            Self::Well(Checked { is_proven: false, detail }) => format!("credentials not tried: {detail}"),
            Self::Refused(it) => {
                let status = it.status.map(|it| format!(", HTTP {it}")).unwrap_or_default();
                let answer = it.answer.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
                let word = refused(it);
                format!("{word}: code {} ({}){status}{answer}", it.code, it.class.as_str())
            }
            Self::CannotBeBuilt(error) => format!("cannot be used: {error}"),
        }
    }

    fn json(&self, name: &str, kind: &str) -> Value {
        let (result, more) = match self {
            Self::Well(Checked { is_proven, detail }) => {
                (if *is_proven { "accepted" } else { "not_tried" }, json!({ "detail": detail }))
            }
            Self::Refused(it) => {
                let class = it.class.as_str();
                let more =
                    json!({ "code": it.code, "class": class, "status": it.status, "answer": it.answer });
                (refused(it), more)
            }
            Self::CannotBeBuilt(error) => ("cannot_be_used", json!({ "detail": error })),
        };
        let mut value = json!({ "name": name, "kind": kind, "result": result });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    }
}

/// What does not answer, or not well, has not refused us.
fn refused(failure: &Failure) -> &'static str {
    if failure.class == FailureClass::AuthConfig { "refused" } else { "failed" }
}

async fn control(
    config: &Config,
    name: String,
    is_pause: bool,
    who: Who,
    output: Output,
) -> anyhow::Result<Exit> {
    on_ledger(config, move |ledger, _| async move {
        let is_new = ledger.control_provider(&name, is_pause, &who).await??;
        let state = if is_pause { "paused" } else { "running" };
        if output.json {
            print(json!({ "name": name, "state": state, "isNew": is_new }))?;
        } else if is_new {
            print(format_args!("{name}  {state}"))?;
        } else {
            print(format_args!("{name}  was {state} before"))?;
        }
        Ok(Exit::Well)
    })
    .await
}
