//! The gate in front of the polls: closed while the ledger cannot take anything.
//!
//! What is received while the database is away only wears out its receive count, and after enough of
//! that a queue moves it to the dead-letter queue. So nothing is received until a probe has written
//! something, however long that takes: the queue is the buffer, this process is not.

use std::{
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time,
};

/// The first pause before a probe; doubled with each further failure.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause between probes: how late at most the end of an outage is noticed.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// The longest pause before the first probe, where probes succeed and batches fail all the same.
const CLOSED_MAX: Duration = Duration::from_secs(30);

/// Open or closed, shared by all pollers of a source.
#[derive(Debug)]
pub(super) struct Gate {
    open: watch::Sender<bool>,
    /// How often it was closed since a batch was last taken whole.
    closed: AtomicU32,
    probing: Mutex<()>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { open: watch::Sender::new(true), closed: AtomicU32::new(0), probing: Mutex::new(()) }
    }

    /// Lets nobody pass until a probe succeeds; true if it was open.
    pub(super) fn close(&self) -> bool {
        let was_open = self.open.send_replace(false);
        if was_open {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
        was_open
    }

    /// Notes that a batch was taken whole; true if the gate had been closed for it.
    pub(super) fn worked(&self) -> bool {
        self.open.send_if_modified(|open| !std::mem::replace(open, true));
        self.closed.swap(0, Ordering::Relaxed) > 0
    }

    /// Passes at once if open. Otherwise one of those who wait probes until that succeeds, and opens.
    pub(super) async fn pass<P: Future<Output = bool>>(&self, probe: impl Fn() -> P) {
        if *self.open.borrow() {
            return;
        }
        let _only_one = self.probing.lock().await;
        let (mut failures, mut ceiling) = (self.closed.load(Ordering::Relaxed), CLOSED_MAX);
        while !*self.open.borrow() {
            let mut opened = self.open.subscribe();
            tokio::select! {
                _ = opened.wait_for(|&open| open) => return,
                () = time::sleep(pause(failures, ceiling, fastrand::f64())) => {}
            }
            if probe().await {
                self.open.send_replace(true);
                return;
            }
            failures = failures.saturating_add(1);
            ceiling = PROBE_MAX;
        }
    }
}

/// Between half of the bound and the bound, which doubles with every failure.
fn pause(failures: u32, ceiling: Duration, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_FIRST.saturating_mul(1 << doublings).min(ceiling).mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_until_a_probe_succeeds_and_only_one_probes() {
        let (gate, probes) = (Gate::new(), AtomicUsize::new(0));
        let probe = || async { probes.fetch_add(1, Ordering::Relaxed) == 2 };
        assert!(gate.pass(probe).now_or_never().is_some(), "it is open");
        assert!(gate.close() && !gate.close());
        let passed = futures_util::future::join3(gate.pass(probe), gate.pass(probe), gate.pass(probe));
        passed.await;
        assert_eq!(probes.load(Ordering::Relaxed), 3);
        assert!(gate.worked() && !gate.worked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_was_taken_opens_it_without_a_probe() {
        let gate = Gate::new();
        gate.close();
        let never = || async { false };
        let ((), worked) = futures_util::future::join(gate.pass(never), async { gate.worked() }).await;
        assert!(worked);
    }

    #[test]
    fn pauses_grow_to_their_ceiling() {
        let millis = |failures, ceiling| pause(failures, ceiling, 1.0).as_millis();
        let probes = [0, 1, 2, 3, 4, 5, 60].map(|failures| millis(failures, PROBE_MAX));
        assert_eq!(probes, [500, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(millis(60, CLOSED_MAX), 30_000);
        assert_eq!(pause(1, PROBE_MAX, 0.0).as_millis(), 250);
    }
}
