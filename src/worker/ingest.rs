//! Ingest: what a queue hands out goes into the log or into quarantine, and is then deleted there.
//!
//! Nothing is deleted before it is durable; redeliveries and conflicts are deleted too. What cannot be
//! taken goes back with a growing pause, and nothing more is received until the database takes writes
//! again, so that an outage does not push a queue into its dead-letter queue.
//!
//! A poller is no [`Worker`](super::Worker): a step of it would be a poll of twenty seconds. It waits
//! for the next batch while it handles the last one, and heeds the stop in the middle of a poll.

mod gate;
mod pace;

use std::{future, sync::Arc, time::Duration};

use futures_util::future::join;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use self::{gate::Gate, pace::Pace};
use super::chain;
use crate::{
    clock::Timestamp,
    ledger::{Ledger, LedgerError, intake::Taken},
    metric,
    source::{Arrival, Handle, Settlement, Source, SourceError},
};

/// How long a poll may go on after a stop was asked for. While messages come, polls are short and end
/// by themselves; the answer of one that is cut off would be hidden for its visibility timeout.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a batch may take after a stop was asked for before it is given back untaken. If it gets
/// into the log all the same, it comes again as a redelivery.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The pause after an empty poll that did not wait, as a source without long polls answers.
const QUIET_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a poll that failed; doubled with each further failure.
const RECEIVE_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause after polls that failed.
const RECEIVE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The bound of the first pause before a message comes again; doubled with every receive.
const BACK_FIRST: Duration = Duration::from_secs(30);
/// The longest such pause.
const BACK_MAX: Duration = Duration::from_mins(15);
/// How long a message is kept hidden at the most; SQS allows 12 hours.
const HIDDEN_MAX: Duration = Duration::from_hours(11);

/// One of the pollers of a source. Each is to be run in a task of its own.
#[derive(Debug)]
pub struct Poller<S> {
    number: usize,
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    source: S,
    ledger: Ledger,
    pace: Pace,
    gate: Gate,
}

/// What was received and not yet handled.
#[derive(Debug)]
struct Batch {
    arrivals: Vec<Arrival>,
    received_at: Instant,
}

/// What is needed of an arrival after the ledger has taken it.
#[derive(Debug)]
struct Slip {
    handle: Handle,
    place: String,
    receive_count: u32,
    sent_at: Option<Timestamp>,
}

/// The pollers of a source; of these up to `max`, one works while the source is quiet.
#[must_use]
pub fn pollers<S: Source>(source: S, ledger: Ledger, max: usize) -> Vec<Poller<S>> {
    let pace = Pace::new(max);
    let shared = Arc::new(Shared { source, ledger, pace, gate: Gate::new() });
    (0..max.max(1)).map(|number| Poller { number, shared: Arc::clone(&shared) }).collect()
}

impl<S: Source> Poller<S> {
    /// What it is called: `ingest sqs:notifications 0`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("ingest {} {}", self.shared.source.ingress(), self.number)
    }

    /// Polls until a stop is asked for; then ends when everything it received is settled.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        let mut waiting = None;
        loop {
            let next = self.next(&mut failures, &stop);
            let handled = async {
                if let Some(batch) = waiting.take() {
                    self.shared.handle(batch, &stop).await;
                }
            };
            let (next, ()) = join(next, handled).await;
            waiting = next;
            if waiting.is_none() && stop.is_cancelled() {
                return;
            }
        }
    }

    /// Waits for a batch; none when the poll came to nothing or a stop was asked for.
    async fn next(&self, failures: &mut u32, stop: &CancellationToken) -> Option<Batch> {
        let shared = &self.shared;
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = shared.ready(self.number) => {}
        }
        let started = Instant::now();
        let cut_off = async {
            stop.cancelled().await;
            time::sleep(STOP_GRACE).await;
        };
        let received = tokio::select! {
            biased;
            received = shared.source.receive() => received,
            () = cut_off => return None,
        };
        let received_at = Instant::now();
        let pause = match received {
            Ok(arrivals) => {
                shared.received(arrivals.len(), failures);
                if !arrivals.is_empty() {
                    return Some(Batch { arrivals, received_at });
                }
                QUIET_PAUSE.saturating_sub(received_at - started)
            }
            Err(error) => shared.receive_failed(&error, failures),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = time::sleep(pause) => {}
        }
        None
    }
}

impl<S: Source> Shared<S> {
    /// Waits until a poller may receive: it is its turn, and the ledger takes writes.
    async fn ready(&self, number: usize) {
        loop {
            self.pace.turn(number).await;
            self.gate.pass(|| async { self.ledger.store().check_writable().await.is_ok() }).await;
            // Whoever waited at the gate may be one too many by now.
            if self.pace.is_turn(number) {
                return;
            }
        }
    }

    fn received(&self, count: usize, failures: &mut u32) {
        let wanted = self.pace.polled(count, self.source.batch_max());
        let ingress = self.source.ingress();
        metric::queue_pollers(queue_of(ingress), wanted);
        if std::mem::take(failures) > 0 {
            tracing::info!(ingress, "receiving works again");
        }
    }

    /// Tells the first of several failures; answers how long to pause.
    fn receive_failed(&self, error: &SourceError, failures: &mut u32) -> Duration {
        let (ingress, text) = (self.source.ingress(), chain(error));
        if *failures == 0 {
            tracing::warn!(ingress, error = text, "receiving failed; trying again with growing pauses");
        } else {
            tracing::debug!(ingress, error = text, failures, "receiving failed again");
        }
        let bound = RECEIVE_PAUSE_FIRST.saturating_mul(1 << (*failures).min(16)).min(RECEIVE_PAUSE_MAX);
        *failures = failures.saturating_add(1);
        bound.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Takes a batch in and tells the source what became of it.
    async fn handle(&self, batch: Batch, stop: &CancellationToken) {
        let ingress = self.source.ingress();
        let slips: Vec<_> = batch.arrivals.iter().map(Slip::of).collect();
        metric::handed_out_again(ingress, slips.iter().filter(|it| it.receive_count > 1).count());
        let give_up = async {
            stop.cancelled().await;
            time::sleep(STOP_PATIENCE).await;
        };
        let taking = self.ledger.take_in(ingress, batch.arrivals);
        let taken = tokio::select! {
            biased;
            taken = taking => taken,
            () = self.keep_hidden(&slips, batch.received_at) => Vec::new(),
            () = give_up => Vec::new(),
        };
        // Whatever was not waited for is given back.
        let missing = slips.len() - taken.len();
        let taken: Vec<_> = taken.into_iter().chain(std::iter::repeat_n(Taken::Behind, missing)).collect();
        self.tell(&slips, &taken);
        self.judge(&taken);
        let settlements: Vec<_> = slips
            .into_iter()
            .zip(&taken)
            .map(|(slip, taken)| {
                let back = give_back(slip.receive_count, fastrand::f64(), stop.is_cancelled());
                (slip.handle, settlement(taken, back))
            })
            .collect();
        let back = settlements.iter().filter(|(_, it)| matches!(it, Settlement::GiveBack(_))).count();
        metric::given_back(ingress, back);
        self.source.settle(settlements).await;
    }

    /// Counts and logs what became of arrivals, as far as the ledger has not done so.
    fn tell(&self, slips: &[Slip], taken: &[Taken]) {
        let (ingress, now) = (self.source.ingress(), self.ledger.now());
        for (slip, taken) in slips.iter().zip(taken) {
            if let (Taken::Accepted(_) | Taken::Quarantined(_), Some(sent_at)) = (taken, slip.sent_at) {
                metric::age(ingress, now.since(sent_at));
            }
            if let Taken::Quarantined(rejection) = taken {
                let (place, code) = (&slip.place, rejection.code);
                tracing::warn!(ingress, place, %code, reason = %rejection, "put into quarantine");
            }
        }
    }

    /// Keeps a batch from other receivers from half of its time on, again and again; ends when it cannot
    /// be kept any longer, or never where nobody else could receive it.
    async fn keep_hidden(&self, slips: &[Slip], received_at: Instant) {
        let Some(hidden_for) = self.source.hidden_for() else { return future::pending().await };
        let handles: Vec<_> = slips.iter().map(|it| it.handle.clone()).collect();
        let mut due = received_at + hidden_for / 2;
        while due + hidden_for < received_at + HIDDEN_MAX {
            time::sleep_until(due).await;
            tracing::debug!(ingress = self.source.ingress(), "a batch takes long; keeping it hidden");
            self.source.keep(&handles).await;
            due = Instant::now() + hidden_for / 2;
        }
    }

    /// Closes the gate when the ledger could not take something, opens it when it took everything.
    fn judge(&self, taken: &[Taken]) {
        let ingress = self.source.ingress();
        let failed = taken.iter().find_map(|it| match it {
            Taken::Failed(error) => Some(error),
            _ => None,
        });
        match failed {
            Some(LedgerError::Stopping) => {}
            Some(error) => {
                self.pace.slow_down();
                metric::queue_pollers(queue_of(ingress), 1);
                if self.gate.close() {
                    let error = chain(error);
                    tracing::warn!(
                        ingress,
                        error,
                        "messages go back; not receiving until the database works"
                    );
                }
            }
            None => {
                if self.gate.worked() {
                    tracing::info!(ingress, "the database works again; receiving");
                }
            }
        }
    }
}

impl Slip {
    fn of(arrival: &Arrival) -> Self {
        Self {
            handle: arrival.handle.clone(),
            place: arrival.place.clone(),
            receive_count: arrival.metadata.receive_count.unwrap_or(1),
            sent_at: arrival.metadata.sent_at,
        }
    }
}

/// The queue's own name: `notifications` of `sqs:notifications`.
fn queue_of(ingress: &str) -> &str {
    ingress.split_once(':').map_or(ingress, |(_, name)| name)
}

/// What the source is to do. What was never tried comes again at once: in its group the one that
/// failed is in front of it.
const fn settlement(taken: &Taken, back: Duration) -> Settlement {
    match taken {
        Taken::Accepted(_) | Taken::Quarantined(_) => Settlement::Done,
        Taken::Failed(_) => Settlement::GiveBack(back),
        Taken::Behind => Settlement::GiveBack(Duration::ZERO),
    }
}

/// How long a message that could not be taken stays hidden: up to 30 seconds, doubled with every
/// receive, up to a quarter of an hour; not at all when this process stops, for another may take it.
fn give_back(receive_count: u32, chance: f64, stopping: bool) -> Duration {
    if stopping {
        return Duration::ZERO;
    }
    let doublings = receive_count.saturating_sub(1).min(16);
    BACK_FIRST.saturating_mul(1 << doublings).min(BACK_MAX).mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_before_a_message_comes_again_grow_with_its_receives() {
        let seconds = |count| give_back(count, 1.0, false).as_secs();
        assert_eq!([0, 1, 2, 3, 5, 6, 7, 1000].map(seconds), [30, 30, 60, 120, 480, 900, 900, 900]);
        assert_eq!(give_back(3, 0.25, false), Duration::from_secs(30));
        assert_eq!(give_back(3, 1.0, true), Duration::ZERO);
    }

    #[test]
    fn only_what_is_durable_is_done() {
        let back = Duration::from_secs(7);
        let cursor = "0-1".parse().unwrap();
        for receipt in [
            crate::ledger::Receipt::Appended(cursor),
            crate::ledger::Receipt::Redelivered(cursor),
            crate::ledger::Receipt::Conflict(cursor),
        ] {
            assert_eq!(settlement(&Taken::Accepted(receipt), back), Settlement::Done);
        }
        let failed = Taken::Failed(LedgerError::Stopping);
        assert_eq!(settlement(&failed, back), Settlement::GiveBack(back));
        assert_eq!(settlement(&Taken::Behind, back), Settlement::GiveBack(Duration::ZERO));
    }
}
