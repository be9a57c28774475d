//! What this process knows of deliveries that the projection may not show yet.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::id::DeliveryId;

/// How long knowledge holds. It is a saving and no rule: a row that was expected to change and did not
/// (its clock was set back, say) is asked about again after this time.
const HOLDS: Duration = Duration::from_secs(20);

/// The last position at which each delivery is known to have changed. Bounded in number and in time:
/// what is forgotten costs a question that the log answers with no.
#[derive(Debug)]
pub(super) struct Seen {
    known: HashMap<DeliveryId, Known>,
    order: VecDeque<DeliveryId>,
    capacity: usize,
}

#[derive(Debug)]
struct Known {
    position: i64,
    until: Instant,
}

impl Seen {
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// Notes that a row from before `position` tells of the past.
    pub(super) fn note(&mut self, delivery: DeliveryId, position: i64, now: Instant) {
        let until = now + HOLDS;
        if let Some(known) = self.known.get_mut(&delivery) {
            *known = Known { position: position.max(known.position), until };
        } else {
            self.known.insert(delivery, Known { position, until });
            self.order.push_back(delivery);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether a row that knows of events up to `position` is behind what is known here.
    pub(super) fn is_stale(&self, delivery: DeliveryId, position: i64, now: Instant) -> bool {
        self.known.get(&delivery).is_some_and(|known| position < known.position && now < known.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;

    fn delivery(id: &str) -> DeliveryId {
        DeliveryId::new(&MessageId::new(id).unwrap(), "alias:u")
    }

    #[test]
    fn a_row_is_stale_until_it_knows_of_the_last_change() {
        let (mut seen, now) = (Seen::new(9), Instant::now());
        assert!(!seen.is_stale(delivery("a"), 3, now));
        seen.note(delivery("a"), 7, now);
        seen.note(delivery("a"), 5, now);
        let stale = [3, 6, 7, 8].map(|it| seen.is_stale(delivery("a"), it, now));
        assert_eq!(stale, [true, true, false, false]);
        assert!(!seen.is_stale(delivery("b"), 3, now));
    }

    #[test]
    fn a_row_that_never_changes_is_looked_at_again() {
        let (mut seen, now) = (Seen::new(9), Instant::now());
        seen.note(delivery("a"), 7, now);
        assert!(seen.is_stale(delivery("a"), 3, now + HOLDS - Duration::from_millis(1)));
        assert!(!seen.is_stale(delivery("a"), 3, now + HOLDS));
    }

    #[test]
    fn the_oldest_knowledge_goes_first() {
        let (mut seen, now) = (Seen::new(2), Instant::now());
        for id in ["a", "b", "a", "c"] {
            seen.note(delivery(id), 7, now);
        }
        let stale = ["a", "b", "c"].map(|it| seen.is_stale(delivery(it), 1, now));
        assert_eq!(stale, [false, true, true]);
        assert_eq!((seen.known.len(), seen.order.len()), (2, 2));
    }
}
