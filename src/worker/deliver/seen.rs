//! What this process knows of deliveries that the projection may not show yet.

use std::collections::{HashMap, VecDeque};

use crate::id::DeliveryId;

/// The last position at which each delivery is known to have changed. Bounded: the oldest knowledge
/// goes first, and what is forgotten costs a question that the log answers with no.
#[derive(Debug)]
pub(super) struct Seen {
    positions: HashMap<DeliveryId, i64>,
    order: VecDeque<DeliveryId>,
    capacity: usize,
}

impl Seen {
    pub(super) fn new(capacity: usize) -> Self {
        Self { positions: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// Notes that a row from before `position` tells of the past.
    pub(super) fn note(&mut self, delivery: DeliveryId, position: i64) {
        if let Some(known) = self.positions.get_mut(&delivery) {
            *known = position.max(*known);
        } else {
            self.positions.insert(delivery, position);
            self.order.push_back(delivery);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.positions.remove(&oldest);
        }
    }

    /// Whether a row that knows of events up to `position` is behind what is known here.
    pub(super) fn is_stale(&self, delivery: DeliveryId, position: i64) -> bool {
        self.positions.get(&delivery).is_some_and(|&known| position < known)
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
        let mut seen = Seen::new(9);
        assert!(!seen.is_stale(delivery("a"), 3));
        seen.note(delivery("a"), 7);
        seen.note(delivery("a"), 5);
        assert_eq!([3, 6, 7, 8].map(|it| seen.is_stale(delivery("a"), it)), [true, true, false, false]);
        assert!(!seen.is_stale(delivery("b"), 3));
    }

    #[test]
    fn the_oldest_knowledge_goes_first() {
        let mut seen = Seen::new(2);
        for id in ["a", "b", "a", "c"] {
            seen.note(delivery(id), 7);
        }
        assert_eq!(["a", "b", "c"].map(|it| seen.is_stale(delivery(it), 1)), [false, true, true]);
        assert_eq!((seen.positions.len(), seen.order.len()), (2, 2));
    }
}
