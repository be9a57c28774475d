//! How single values are read and judged, for all sections alike.

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::problem::Problem;

/// A number of milliseconds.
pub(super) fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// A number of seconds.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}

/// A text, where the empty one means: not set.
pub(super) fn non_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// A list whose entries that could not be read were taken out before; see `load`.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(Vec::<Option<T>>::deserialize(deserializer)?.into_iter().flatten().collect())
}

/// Judges a number.
pub(super) fn within(key: impl Into<String>, value: u64, range: RangeInclusive<u64>) -> Option<Problem> {
    if range.contains(&value) {
        return None;
    }
    let remedy = format!("use a number from {} to {}", range.start(), range.end());
    Some(Problem::new(key, format!("is {value}"), remedy))
}

/// Judges a time that must not be zero.
pub(super) fn at_least_one(key: impl Into<String>, value: Duration) -> Option<Problem> {
    value.is_zero().then(|| Problem::new(key, "is 0", "use at least 1"))
}
