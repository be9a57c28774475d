//! When to look for what is due: every poll interval, soon after a hint, and not while there is trouble.

use std::time::Duration;

use tokio::time::Instant;

/// Hints that follow each other faster are heard as one.
const SPACING: Duration = Duration::from_millis(5);
/// How often to count what is due.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// What is left alone is looked at again after this many times as long as looking took.
const REST: u32 = 20;

/// What it is time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The database has trouble: nothing.
    Quiet,
    /// To go on.
    None,
    /// To look whether there is more behind what was seen.
    Hint,
    /// To look at everything.
    Poll,
}

/// The worker's sense of time. It is the machine's: how often to look is no fact that a test with
/// another clock could be about.
#[derive(Debug)]
pub(super) struct Pace {
    poll: Duration,
    next_poll: Instant,
    hinted: Option<Instant>,
    looked: Instant,
    quiet_until: Option<Instant>,
    next_count: Instant,
    began: Instant,
    begin_again: Instant,
}

impl Pace {
    pub(super) fn new(poll: Duration, now: Instant) -> Self {
        Self {
            poll,
            next_poll: now,
            hinted: None,
            looked: now,
            quiet_until: None,
            next_count: now,
            began: now,
            begin_again: now,
        }
    }

    /// Somebody says that there is something new.
    pub(super) fn hint(&mut self, now: Instant) {
        self.hinted.get_or_insert_with(|| now.max(self.looked + SPACING));
    }

    /// Looks at everything in the next turn.
    pub(super) fn look_now(&mut self, now: Instant) {
        (self.next_poll, self.begin_again, self.next_count) = (now, now, now);
        self.quiet_until = None;
    }

    /// Whether it rests because of trouble.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_until.is_some_and(|until| now < until)
    }

    /// The database has trouble: nothing for so long, and then a look at everything.
    pub(super) fn rest(&mut self, now: Instant, pause: Duration) {
        self.quiet_until = Some(now + pause);
        self.next_poll = now + pause;
    }

    /// When something is next to be done.
    pub(super) fn next(&self) -> Instant {
        let look = self.hinted.map_or(self.next_poll, |it| it.min(self.next_poll));
        self.quiet_until.map_or(look, |it| it.max(look))
    }

    /// What it is time for.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if self.is_quiet(now) {
            return Turn::Quiet;
        }
        self.quiet_until = None;
        let turn = if now >= self.next_poll {
            self.next_poll = now + self.poll;
            Turn::Poll
        } else if self.hinted.is_some_and(|at| now >= at) {
            Turn::Hint
        } else {
            return Turn::None;
        };
        (self.hinted, self.looked) = (None, now);
        turn
    }

    /// Whether it is time to count.
    pub(super) fn is_time_to_count(&mut self, now: Instant) -> bool {
        let is_time = now >= self.next_count;
        if is_time {
            self.next_count = now + COUNT_INTERVAL;
        }
        is_time
    }

    /// Whether what is left alone may be looked at again; then looking begins now.
    pub(super) fn may_begin_again(&mut self, now: Instant) -> bool {
        let may = now >= self.begin_again;
        if may {
            self.began = now;
        }
        may
    }

    /// Everything that is left alone has been looked at.
    pub(super) fn ended(&mut self, now: Instant) {
        self.begin_again = now + self.poll.max((now - self.began) * REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_millis(500);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn hints_are_heard_soon_and_polling_goes_on() {
        let start = Instant::now();
        let mut pace = Pace::new(POLL, start);
        assert_eq!(pace.turn(start), Turn::Poll, "at once");
        assert_eq!((pace.turn(start), pace.next()), (Turn::None, start + POLL));
        pace.hint(start + ms(1));
        pace.hint(start + ms(2));
        assert_eq!((pace.turn(start + ms(4)), pace.next()), (Turn::None, start + SPACING));
        assert_eq!(pace.turn(start + SPACING), Turn::Hint);
        assert_eq!(pace.turn(start + SPACING), Turn::None, "two hints, one look");
        pace.hint(start + ms(300));
        assert_eq!(pace.next(), start + ms(300), "after a silence at once");
        assert_eq!(pace.turn(start + POLL), Turn::Poll);
        assert_eq!(pace.turn(start + POLL), Turn::None, "the look was at everything");
    }

    #[test]
    fn trouble_silences_hints_and_ends_in_a_look_at_everything() {
        let start = Instant::now();
        let mut pace = Pace::new(POLL, start);
        pace.rest(start, ms(2_000));
        pace.hint(start);
        assert_eq!((pace.turn(start + ms(1_999)), pace.next()), (Turn::Quiet, start + ms(2_000)));
        assert_eq!(pace.turn(start + ms(2_000)), Turn::Poll);
    }

    #[test]
    fn the_longer_a_look_takes_the_longer_until_the_next() {
        let start = Instant::now();
        let mut pace = Pace::new(POLL, start);
        assert!(pace.may_begin_again(start));
        pace.ended(start + ms(1));
        assert!(!pace.may_begin_again(start + ms(500)));
        assert!(pace.may_begin_again(start + ms(501)));
        pace.ended(start + ms(501 + 1_000));
        assert!(!pace.may_begin_again(start + ms(501 + 20_999)));
        assert!(pace.may_begin_again(start + ms(501 + 21_000)));
    }
}
