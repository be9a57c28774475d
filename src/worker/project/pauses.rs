//! Which places fail, and until when each of them is left alone.
//!
//! Does no IO, asks no time and logs nothing: it says what is news.

use std::{collections::HashMap, hash::Hash};

use tokio::time::Instant;

use crate::worker::Backoff;

/// A growing pause for each place that fails; places that do not fail know nothing of it.
#[derive(Debug)]
pub(super) struct Pauses<P> {
    failing: HashMap<P, Failing>,
}

/// A place that has failed since it last worked.
#[derive(Debug)]
struct Failing {
    backoff: Backoff,
    until: Instant,
    told: String,
}

impl<P> Default for Pauses<P> {
    fn default() -> Self {
        Self { failing: HashMap::new() }
    }
}

impl<P: Eq + Hash + Copy> Pauses<P> {
    /// Whether the place may be tried now.
    pub(super) fn is_over(&self, place: P, now: Instant) -> bool {
        self.failing.get(&place).is_none_or(|it| it.until <= now)
    }

    /// Notes a failure, after which the place is left alone for longer than after the one before.
    /// Answers whether it is news: the first of its kind since the place last worked.
    pub(super) fn failed(&mut self, place: P, error: String, now: Instant) -> bool {
        let failing = self.failing.entry(place).or_insert_with(|| Failing {
            backoff: Backoff::default(),
            until: now,
            told: String::new(),
        });
        failing.until = now + failing.backoff.next_pause();
        let is_news = failing.told != error;
        failing.told = error;
        is_news
    }

    /// Notes that the place works. Answers with how often it had failed before, if it had.
    pub(super) fn worked(&mut self, place: P) -> Option<u32> {
        self.failing.remove(&place).map(|it| it.backoff.failures())
    }

    /// The places that failed last.
    pub(super) fn failing(&self) -> Vec<P> {
        self.failing.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    enum Do {
        Fail(&'static str, &'static str),
        Work(&'static str),
    }
    use Do::{Fail, Work};

    #[test]
    fn each_place_is_told_once_and_once_when_it_works_again() {
        let now = Instant::now();
        let mut pauses = Pauses::default();
        for (step, told) in [
            (Work("a"), false),
            (Fail("a", "row is there"), true),
            (Fail("a", "row is there"), false),
            (Fail("b", "row is there"), true),
            (Fail("a", "no such table"), true),
            (Work("a"), true),
            (Work("a"), false),
            (Fail("b", "row is there"), false),
            (Fail("a", "row is there"), true),
        ] {
            let news = match step {
                Fail(place, error) => pauses.failed(place, error.to_owned(), now),
                Work(place) => pauses.worked(place).is_some(),
            };
            let (Fail(place, _) | Work(place)) = step;
            assert_eq!(news, told, "{place}");
        }
    }

    #[test]
    fn a_failing_place_pauses_for_longer_and_longer_and_no_other_does() {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        for (failures, least_ms, most_ms) in [
            (1, 100, 200),
            (2, 200, 400),
            (3, 400, 800),
            (4, 800, 1_600),
            (8, 12_800, 25_600),
            (20, 15_000, 30_000),
        ] {
            while pauses.failing.get("a").is_none_or(|it: &Failing| it.backoff.failures() < failures) {
                pauses.failed("a", "row is there".to_owned(), start);
            }
            let after = |ms| start + Duration::from_millis(ms);
            assert!(!pauses.is_over("a", after(least_ms - 1)), "after {failures} failures it is left alone");
            assert!(pauses.is_over("a", after(most_ms)), "after {failures} failures it is tried again");
            assert!(pauses.is_over("b", start), "the others go on");
        }
        assert_eq!(pauses.failing(), ["a"]);
        assert_eq!(pauses.worked("a"), Some(20));
        assert!(pauses.is_over("a", start), "what works is not left alone");
        assert_eq!(pauses.failing(), [""; 0]);
    }
}
