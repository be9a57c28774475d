//! Reading a provider's settings: every key is taken by name, and what nobody took is refused.
//!
//! Errors name the provider, the key with its path (`retry.schedule_s`), the problem and the remedy.
//! They never repeat a value of the wrong type: it may be a secret in the wrong place.

use std::{ops::RangeInclusive, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::retry::{OnUnknown, Policy};

/// Why a provider cannot be configured as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider {provider:?}: {key} {problem}; {remedy}")]
pub struct BuildError {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The key, with its path inside the provider's table.
    pub key: String,
    /// What is wrong; reads on after the key.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// One table of settings that is being read.
#[derive(Debug)]
pub(crate) struct Settings {
    provider: String,
    path: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

/// What every provider has besides what its kind needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Common {
    pub(crate) timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) concurrency: usize,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
}

/// What a provider is spared.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Pushes a second, on average; none: as many as there are.
    pub rate: Option<Rate>,
    /// When a provider that fails is left alone.
    pub breaker: Breaking,
    /// A provider that calls more than this part of its targets invalid is not believed.
    pub invalid_share: f64,
}

/// A rate that may be exceeded for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Pushes a second.
    pub per_s: u32,
    /// Pushes at once after a silence.
    pub burst: u32,
}

/// When a provider's breaker opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaking {
    /// The part of calls that must fail; more than 1 never opens it.
    pub share: f64,
    /// Calls there must be at least.
    pub calls_min: u32,
    /// Over how long they are counted.
    pub window: Duration,
    /// How long it stays open before one call finds out; doubled each time that call fails.
    pub open: Duration,
}

impl Settings {
    /// The settings of `provider`; anything but a table is refused.
    pub(crate) fn new(provider: &str, settings: Value) -> Result<Self, BuildError> {
        Self::at(provider, String::new(), settings)
    }

    fn at(provider: &str, path: String, settings: Value) -> Result<Self, BuildError> {
        let found = kind_of(&settings);
        let mut table = Self { provider: provider.to_owned(), path, left: Map::new(), known: Vec::new() };
        match settings {
            Value::Object(map) => table.left = map,
            _ => return Err(table.error("", format!("is {found}"), "make it a table of keys and values")),
        }
        Ok(table)
    }

    /// Takes a value of any type, or nothing where the key is not there.
    pub(crate) fn take_value(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// Takes a value; `expected` says what it must be, as in "must be {expected}".
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<T>, BuildError> {
        let Some(value) = self.take_value(key) else { return Ok(None) };
        let found = kind_of(&value);
        let wrong =
            |_| self.error(key, format!("is {found} and cannot be used"), format!("make it {expected}"));
        serde_json::from_value(value).map(Some).map_err(wrong)
    }

    /// Takes a value that must be there.
    pub(crate) fn require<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<T, BuildError> {
        let value = self.take(key, expected)?;
        value.ok_or_else(|| self.error(key, "is missing", format!("set it to {expected}")))
    }

    /// Takes a table inside this one.
    pub(crate) fn take_table(&mut self, key: &'static str) -> Result<Option<Self>, BuildError> {
        let Some(value) = self.take_value(key) else { return Ok(None) };
        Self::at(&self.provider, self.path_of(key), value).map(Some)
    }

    /// Takes a list of tables inside this one; no key is an empty list.
    pub(crate) fn take_tables(&mut self, key: &'static str) -> Result<Vec<Self>, BuildError> {
        let list: Vec<Value> = self.take(key, "a list of tables")?.unwrap_or_default();
        let path = self.path_of(key);
        let table = |(number, value)| Self::at(&self.provider, format!("{path}[{number}]"), value);
        list.into_iter().enumerate().map(table).collect()
    }

    /// Takes a whole number within bounds.
    pub(crate) fn take_integer(
        &mut self,
        key: &'static str,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, BuildError> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let value = self.take(key, &expected)?.unwrap_or(default);
        if bounds.contains(&value) {
            return Ok(value);
        }
        Err(self.error(key, format!("is {value}"), format!("make it {expected}")))
    }

    /// Takes a time in seconds, which may have decimals, of at most thirty days.
    fn take_seconds(&mut self, key: &'static str, default: Duration) -> Result<Duration, BuildError> {
        let value: Option<f64> = self.take(key, SECONDS)?;
        value.map_or(Ok(default), |it| self.seconds(key, it))
    }

    fn seconds(&self, key: &str, value: f64) -> Result<Duration, BuildError> {
        let wait = Duration::try_from_secs_f64(value).ok().filter(|&it| it <= LONGEST);
        wait.ok_or_else(|| self.error(key, format!("is {value}"), format!("make it {SECONDS}")))
    }

    /// Takes every key that is left, each with a text as its value.
    pub(crate) fn take_texts(&mut self) -> Result<Vec<(String, String)>, BuildError> {
        let texts = std::mem::take(&mut self.left).into_iter().map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(self.error(&key, format!("is {}", kind_of(&other)), "make it a text")),
        });
        texts.collect()
    }

    /// An error about a key of this table; the empty key is the table itself.
    pub(crate) fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> BuildError {
        BuildError {
            provider: self.provider.clone(),
            key: self.path_of(key),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), BuildError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => {
                let remedy = format!("use one of: {}", self.known.join(", "));
                Err(self.error(key, "is not a known key", remedy))
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", "") => "the table".to_owned(),
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

const LONGEST: Duration = Duration::from_hours(30 * 24);
const SECONDS: &str = "a number of seconds from 0 to 2592000";

impl Common {
    /// Takes the settings that every kind shares.
    pub(crate) fn take(settings: &mut Settings, plain: Policy) -> Result<Self, BuildError> {
        let timeout_ms = settings.take_integer("timeout_ms", 10_000, 10..=600_000)?;
        let lease_ms = settings.take_integer("lease_ms", timeout_ms + 20_000, 1_000..=3_600_000)?;
        if lease_ms < timeout_ms + 1_000 {
            let problem = format!("is {lease_ms}, which a call of timeout_ms {timeout_ms} can outlast");
            return Err(settings.error("lease_ms", problem, "make it at least timeout_ms + 1000"));
        }
        let concurrency = settings.take_integer("concurrency", 64, 1..=10_000)?;
        Ok(Self {
            timeout: Duration::from_millis(timeout_ms),
            lease: Duration::from_millis(lease_ms),
            concurrency: usize::try_from(concurrency).unwrap_or(1),
            policy: take_policy(settings, plain)?,
            limits: take_limits(settings)?,
        })
    }
}

fn take_limits(settings: &mut Settings) -> Result<Limits, BuildError> {
    let rate = settings.take_integer("rate_per_s", 0, 0..=1_000_000)?;
    let burst = settings.take_integer("burst", rate.max(1), 1..=1_000_000)?;
    let per_s = u32::try_from(rate).unwrap_or(u32::MAX);
    let rate = (rate > 0).then_some(Rate { per_s, burst: u32::try_from(burst).unwrap_or(u32::MAX) });
    let invalid_share = take_share(settings, "invalid_targets_max", 0.5)?;
    let mut breaker =
        Breaking { share: 0.7, calls_min: 10, window: Duration::from_mins(5), open: Duration::from_secs(30) };
    if let Some(mut table) = settings.take_table("breaker")? {
        breaker.share = take_share(&mut table, "share", breaker.share)?;
        let calls_min = table.take_integer("calls_min", breaker.calls_min.into(), 1..=1_000_000)?;
        breaker.calls_min = u32::try_from(calls_min).unwrap_or(breaker.calls_min);
        breaker.window = table.take_seconds("window_s", breaker.window)?;
        breaker.open = table.take_seconds("open_s", breaker.open)?;
        table.finish()?;
    }
    Ok(Limits { rate, breaker, invalid_share })
}

/// Takes a part of a whole; more than 1 is never reached.
fn take_share(table: &mut Settings, key: &'static str, default: f64) -> Result<f64, BuildError> {
    let expected = "a number above 0 and up to 1, or 2 for never";
    match table.take::<f64>(key, expected)? {
        Some(value) if !(value > 0.0 && value <= 2.0) => {
            Err(table.error(key, format!("is {value}"), format!("make it {expected}")))
        }
        value => Ok(value.unwrap_or(default)),
    }
}

fn take_policy(settings: &mut Settings, plain: Policy) -> Result<Policy, BuildError> {
    let on_unknown = match settings.take::<String>("on_unknown", ON_UNKNOWN)?.as_deref() {
        None => plain.on_unknown,
        Some("retry") => OnUnknown::Retry,
        Some("give_up") => OnUnknown::GiveUp,
        Some(other) => {
            return Err(settings.error(
                "on_unknown",
                format!("is {other:?}"),
                format!("make it {ON_UNKNOWN}"),
            ));
        }
    };
    let failover_after = settings.take_seconds("failover_after_s", plain.failover_after)?;
    let plain = Policy { on_unknown, failover_after, ..plain };
    let Some(mut table) = settings.take_table("retry")? else { return Ok(plain) };
    let schedule = take_schedule(&mut table, "schedule_s")?;
    // Whoever writes a schedule of their own means it for every failure that has none of its own.
    let or_plain = |own: Option<Vec<Duration>>, plain: &Option<Vec<Duration>>| {
        own.or_else(|| plain.clone().filter(|_| schedule.is_none()))
    };
    let policy = Policy {
        throttled: or_plain(take_schedule(&mut table, "throttled_schedule_s")?, &plain.throttled),
        unavailable: or_plain(take_schedule(&mut table, "unavailable_schedule_s")?, &plain.unavailable),
        schedule: schedule.clone().unwrap_or_else(|| plain.schedule.clone()),
        jitter: take_jitter(&mut table)?.unwrap_or(plain.jitter),
        max_attempts: u32::try_from(table.take_integer(
            "max_attempts",
            plain.max_attempts.into(),
            1..=1_000,
        )?)
        .unwrap_or(plain.max_attempts),
        max_age: table.take_seconds("max_age_s", plain.max_age)?,
        retry_after_min: table.take_seconds("retry_after_min_s", plain.retry_after_min)?,
        retry_after_max: table.take_seconds("retry_after_max_s", plain.retry_after_max)?,
        auth_config_wait: table.take_seconds("auth_config_wait_s", plain.auth_config_wait)?,
        on_unknown,
        failover_after,
    };
    if policy.retry_after_min > policy.retry_after_max {
        let problem = "is more than retry_after_max_s";
        return Err(table.error("retry_after_min_s", problem, "make it the smaller of the two"));
    }
    table.finish()?;
    Ok(policy)
}

const ON_UNKNOWN: &str = "\"retry\" or \"give_up\"";

fn take_schedule(table: &mut Settings, key: &'static str) -> Result<Option<Vec<Duration>>, BuildError> {
    let expected = "a list of 1 to 100 waits in seconds, such as [10, 30, 60]";
    let Some(waits) = table.take::<Vec<f64>>(key, expected)? else { return Ok(None) };
    if waits.is_empty() || waits.len() > 100 {
        let problem = format!("has {} entries", waits.len());
        return Err(table.error(key, problem, format!("make it {expected}")));
    }
    waits.into_iter().map(|it| table.seconds(key, it)).collect::<Result<_, _>>().map(Some)
}

fn take_jitter(table: &mut Settings) -> Result<Option<f64>, BuildError> {
    let expected = "a number from 0 to 1, the part of a wait that chance may add";
    match table.take::<f64>("jitter", expected)? {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(table.error("jitter", format!("is {value}"), format!("make it {expected}")))
        }
        value => Ok(value),
    }
}

/// What a value is, in words that do not show it.
pub(crate) const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

#[cfg(test)]
mod tests;
