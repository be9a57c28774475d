//! How many pollers of a source run: one while it is quiet, more while it has more.

use tokio::sync::watch;

/// The number of pollers that may run, shared by all of them.
#[derive(Debug)]
pub(super) struct Pace {
    wanted: watch::Sender<usize>,
    max: usize,
}

impl Pace {
    pub(super) fn new(max: usize) -> Self {
        Self { wanted: watch::Sender::new(1), max: max.max(1) }
    }

    /// Waits until the poller of this number, counted from 0, may run.
    pub(super) async fn turn(&self, number: usize) {
        // The sender is `self`, so the channel cannot close meanwhile.
        let _ = self.wanted.subscribe().wait_for(|&wanted| number < wanted).await;
    }

    /// Whether the poller of this number may run.
    pub(super) fn is_turn(&self, number: usize) -> bool {
        number < *self.wanted.borrow()
    }

    /// Notes what a poll returned; answers how many pollers may run from now on.
    pub(super) fn polled(&self, received: usize, batch_max: usize) -> usize {
        let mut now = 1;
        self.wanted.send_if_modified(|wanted| {
            let before = *wanted;
            *wanted = next(before, received, batch_max, self.max);
            now = *wanted;
            before != now
        });
        now
    }

    /// Goes back to one, to find out whether things work again.
    pub(super) fn slow_down(&self) {
        self.wanted.send_replace(1);
    }
}

/// A full batch says that there is more: one more poller. An empty one that there is nothing: one.
const fn next(wanted: usize, received: usize, batch_max: usize, max: usize) -> usize {
    if received == 0 {
        1
    } else if received >= batch_max && wanted < max {
        wanted + 1
    } else {
        wanted
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn pollers_come_one_by_one_and_leave_at_once() {
        let pace = Pace::new(3);
        let numbers = [10, 10, 10, 9, 10, 0, 3, 10].map(|received| pace.polled(received, 10));
        assert_eq!(numbers, [2, 3, 3, 3, 3, 1, 1, 2]);
        pace.slow_down();
        assert_eq!(pace.polled(1, 10), 1);
    }

    #[test]
    fn a_poller_waits_for_its_turn() {
        let pace = Pace::new(2);
        assert!(pace.turn(0).now_or_never().is_some());
        let mut second = Box::pin(pace.turn(1));
        assert!((&mut second).now_or_never().is_none());
        pace.polled(10, 10);
        assert!(second.now_or_never().is_some());
    }
}
