//! `keys`: making, listing and revoking keys of the API while the service runs.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Exit, Global, Logs, Output, print};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    http::auth::{KEPT, Scope, issue},
    service,
    store::{ApiKey, Revoked, Store},
};

/// Longest name of a caller, in characters.
const NAME_MAX: usize = 128;

/// Make, list and revoke keys of the API, while the service runs
///
/// Every process of the ledger knows a new key at once, and refuses a revoked one within 10 seconds. Keys
/// of the configuration (api.keys) are not listed here. As soon as there was one key, the API is no longer
/// open to everybody on this machine.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, and print it once
    ///
    /// The key alone goes to stdout, everything else to stderr, so that it can be put where it belongs:
    ///
    ///   notification-ledger keys create billing --scope messages:write > /run/secrets/billing
    ///
    /// Nobody can show it again: the database has only its hash. To rotate a key, make a second one of the
    /// same name, give it to the caller, and revoke the first.
    Create {
        /// Who calls with it; stands in the log as the actor
        name: String,
        /// What it opens; may be given several times, or with commas between
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// How long it is good, as in 90d, 12h or 30m; without it and --expires-at, until it is revoked
        #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "expires_at")]
        expires_in: Option<Duration>,
        /// Until when it is good, as in 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
    /// List all keys, the newest first, with who made and revoked them and when they were last used
    List(Output),
    /// Revoke a key for good; it is refused within 10 seconds
    ///
    /// Exits with 1 when there is no such key.
    Revoke {
        /// Its id, as listed: the 12 characters after nl_live_
        key_id: String,
        #[command(flatten)]
        who: Decider,
        #[command(flatten)]
        output: Output,
    },
}

/// Who does it, for the list.
#[derive(Debug, Clone, Args)]
struct Decider {
    /// Who decides
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        let store = service::open_existing(&config).await?;
        let now = SystemClock.now();
        let exit = match self.command {
            Command::Create { name, scopes, expires_in, expires_at, who, output } => {
                let expires_at = expires_at.or_else(|| expires_in.map(|it| now.plus(it)));
                create(&store, &name, &scopes, &who.by, now, expires_at, output).await
            }
            Command::List(output) => list(&store, now, output).await,
            Command::Revoke { key_id, who, output } => revoke(&store, &key_id, &who.by, now, output).await,
        };
        store.close().await;
        exit
    }
}

async fn create(
    store: &Store,
    name: &str,
    scopes: &[Scope],
    by: &str,
    now: Timestamp,
    expires_at: Option<Timestamp>,
    output: Output,
) -> anyhow::Result<Exit> {
    if name.trim() != name
        || name.is_empty()
        || name.chars().count() > NAME_MAX
        || name.contains(char::is_control)
    {
        bail!(
            "the name is to be 1 to {NAME_MAX} characters without blanks around them; it stands in the log"
        );
    }
    if expires_at.is_some_and(|it| it <= now) {
        bail!("the key would have expired already; give a time to come");
    }
    let (key, secret) = issue(name, scopes, by, now, expires_at).map_err(|error| anyhow!(error))?;
    store.add_api_key(&key).await?;
    if output.json {
        let mut told = as_json(&key, now);
        told["key"] = secret.expose().into();
        print(told)?;
        return Ok(Exit::Well);
    }
    let until = expires_at.map_or_else(|| "until it is revoked".to_owned(), |it| format!("until {it}"));
    let text = format!(
        "made key {} for {name}, good for {} {until}; this is the only time that it is shown:",
        key.key_id, key.scopes
    );
    // Whoever reads only stdout has what was asked for.
    let _ = writeln!(io::stderr().lock(), "{text}");
    print(secret.expose())?;
    Ok(Exit::Well)
}

async fn list(store: &Store, now: Timestamp, output: Output) -> anyhow::Result<Exit> {
    let keys = store.api_keys().await?;
    if output.json {
        let keys: Vec<_> = keys.iter().map(|it| as_json(it, now)).collect();
        print(json!({ "keys": keys }))?;
        return Ok(Exit::Well);
    }
    for key in &keys {
        print(line(key, now))?;
    }
    if keys.is_empty() {
        print("there are no keys; `keys create` makes one")?;
    }
    Ok(Exit::Well)
}

async fn revoke(
    store: &Store,
    key_id: &str,
    by: &str,
    now: Timestamp,
    output: Output,
) -> anyhow::Result<Exit> {
    let (exit, result, text) = match store.revoke_api_key(key_id, by, now).await? {
        Revoked::Now => {
            (Exit::Well, "revoked", format!("revoked; refused everywhere within {} seconds", KEPT.as_secs()))
        }
        Revoked::Before => (Exit::Well, "revoked-before", "was revoked before".to_owned()),
        Revoked::Unknown => {
            (Exit::Wrong, "unknown", "is no key; `keys list` shows those there are".to_owned())
        }
    };
    if output.json {
        print(json!({ "keyId": key_id, "result": result }))?;
    } else {
        print(format_args!("{key_id}  {text}"))?;
    }
    Ok(exit)
}

fn status(key: &ApiKey, now: Timestamp) -> &'static str {
    match (&key.revoked, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now => "expired",
        _ => "live",
    }
}

fn line(key: &ApiKey, now: Timestamp) -> String {
    let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |it| format!("last used {it}"));
    let end = match (&key.revoked, key.expires_at) {
        (Some((at, by)), _) => format!(" at {at} by {}", by.escape_debug()),
        (None, Some(at)) if at <= now => format!(" since {at}"),
        (None, Some(at)) => format!(" until {at}"),
        (None, None) => String::new(),
    };
    let (name, by) = (key.name.escape_debug(), key.created_by.escape_debug());
    format!(
        "{}  {name}  {}{end}  {}  made {} by {by}  {used}",
        key.key_id,
        status(key, now),
        key.scopes,
        key.created_at
    )
}

fn as_json(key: &ApiKey, now: Timestamp) -> Value {
    let (revoked_at, revoked_by) = key.revoked.clone().unzip();
    json!({
        "keyId": key.key_id, "name": key.name, "status": status(key, now),
        "scopes": key.scopes.split(' ').collect::<Vec<_>>(),
        "createdAt": key.created_at, "createdBy": key.created_by, "expiresAt": key.expires_at,
        "lastUsedAt": key.last_used_at, "revokedAt": revoked_at, "revokedBy": revoked_by,
    })
}

fn scope(text: &str) -> Result<Scope, String> {
    let found = Scope::ALL.into_iter().find(|it| it.as_str() == text);
    found.ok_or_else(|| format!("use one of {}", Scope::ALL.map(Scope::as_str).join(", ")))
}

/// A number and a unit, as in `90d`.
fn span(text: &str) -> Result<Duration, &'static str> {
    let wrong = "write a number and d, h or m, as in 90d";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong)?;
    let secs = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        _ => return Err(wrong),
    };
    Ok(Duration::from_secs(u64::from(number) * secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, expected) in [("90d", Some(7_776_000)), ("12h", Some(43_200)), ("30m", Some(1800))] {
            assert_eq!(span(text).ok().map(|it| it.as_secs()), expected, "{text}");
        }
        for text in ["", "d", "90", "90s", "-1d", "1.5h", "9é"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
