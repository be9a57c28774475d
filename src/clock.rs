//! Time: the one type for points in time, and the one door to the wall clock.
//!
//! Everything below the faces takes `now` as a parameter; only [`SystemClock`] asks the machine (TIME-COMES-IN).

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Days, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, UTC, in whole microseconds since 1970-01-01.
///
/// Written as RFC 3339 with six decimals and `Z`; stored as a 64-bit integer in every database, so
/// that order and equality mean the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point `micros` microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 date-time with an offset; finer than a microsecond is cut off.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(time.timestamp_micros()))
    }

    /// This point moved into the future, stopping at the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This point moved into the past, stopping at the beginning of time.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.as_micros().saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| NotATime(text.to_owned()))
    }
}

/// The text is no RFC 3339 date-time with an offset.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time such as 2026-11-22T09:00:00Z")]
pub struct NotATime(String);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(NotATime(text)))
    }
}

/// A day in UTC, written `2026-11-22`; from the year 0 to 9999, so that days sort as their texts do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(NaiveDate);

impl Day {
    /// The day of a moment; one that no calendar has is on the first day of 1970.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        Self(DateTime::<Utc>::from_timestamp_micros(time.as_micros()).unwrap_or_default().date_naive())
    }

    /// So many days later, stopping at the end of the calendar.
    #[must_use]
    pub fn plus(self, days: u64) -> Self {
        Self(self.0.checked_add_days(Days::new(days)).unwrap_or(NaiveDate::MAX))
    }

    /// So many days before, stopping at the beginning of the calendar.
    #[must_use]
    pub fn minus(self, days: u64) -> Self {
        Self(self.0.checked_sub_days(Days::new(days)).unwrap_or(NaiveDate::MIN))
    }

    /// How many days after `earlier` this is; negative when it is before.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.signed_duration_since(earlier.0).num_days()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As it is written and in no other way: the parser takes shorter ones, too.
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(Self);
        day.filter(|it| text.len() == 10 && it.to_string() == text).ok_or_else(|| NotADay(text.to_owned()))
    }
}

/// The text is no day.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a day such as 2026-11-22")]
pub struct NotADay(String);

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where `now` comes from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one door to the wall clock")]
    fn now(&self) -> Timestamp {
        Utc::now().into()
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.as_micros()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_name_the_same_point() {
        let time = Timestamp::parse("2026-11-22T18:00:00.123456789+09:00");
        assert_eq!(time.map(|it| it.to_string()).as_deref(), Some("2026-11-22T09:00:00.123456Z"));
        assert_eq!(Timestamp::parse("2026-11-22 09:00"), None, "an offset is required");
    }

    #[test]
    fn a_day_is_that_of_utc_and_written_in_one_way() {
        let day = |text: &str| text.parse::<Day>().ok();
        let of = |text| Day::of(Timestamp::parse(text).unwrap()).to_string();
        assert_eq!(of("2026-11-22T23:59:59.999999Z"), "2026-11-22");
        assert_eq!(of("2026-11-22T08:59:59+09:00"), "2026-11-21");
        assert_eq!(day("2028-02-28").unwrap().plus(2), day("2028-03-01").unwrap());
        assert_eq!(day("2028-03-01").unwrap().minus(2).to_string(), "2028-02-28");
        assert_eq!(day("2028-03-01").unwrap().since(day("2028-02-28").unwrap()), 2);
        for text in [
            "2026-2-01",
            "2026-02-29",
            "+2026-02-01",
            "26-02-01",
            "-0001-02-01",
            "12026-02-01",
            "2026-02-01T00:00:00Z",
            "",
        ] {
            assert_eq!(day(text), None, "{text}");
        }
    }
}
