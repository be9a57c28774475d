//! An inbox as it was at a place of the log, made out of events by the very fold that makes the tables.
//!
//! An item is a fold of its own message's events and of no others, and a counter is the sum of what its items
//! weigh. So the messages of a recipient may be taken in parts, each by itself, and what is held at any moment is
//! one part and one page of the answer, however large the inbox. What was erased, at whatever time, is blank at
//! every place: privacy is not undone by looking back.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    str::FromStr,
};

use super::{Counts, InboxCounts, InboxFilter, InboxPage};
use crate::{
    clock::Timestamp,
    event::{Event, Recorded},
    id::{Cursor, Position},
    projection::{
        Row, fold_in_memory,
        inbox::{Inbox, InboxCounter, InboxItem},
    },
};

/// A moment of the past: a place of the log, or a time, which stands for the last place that was recorded by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// With this event and without those after it.
    Place(Cursor),
    /// With what was recorded at this time or before.
    Time(Timestamp),
}

/// The text names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a time such as 2026-11-22T09:00:00Z nor a cursor such as 0-42")]
pub struct BadPoint(String);

impl FromStr for Point {
    type Err = BadPoint;

    fn from_str(text: &str) -> Result<Self, BadPoint> {
        let place = text.parse().ok().map(Self::Place);
        let point = place.or_else(|| Timestamp::parse(text).map(Self::Time));
        point.ok_or_else(|| BadPoint(text.chars().take(64).collect()))
    }
}

/// What the tables would hold of some messages at a place of the log.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) items: Vec<InboxItem>,
    pub(super) counters: Vec<InboxCounter>,
}

impl Shown {
    /// Folds whole streams, sorted by position, up to a place.
    pub(super) fn at(place: Position, streams: &[Recorded]) -> Self {
        let until = streams.partition_point(|it| it.position <= place);
        let mut shown = Self::default();
        for (table, rows) in fold_in_memory(&Inbox, &streams[..until]) {
            if *table == *InboxItem::TABLE {
                shown.items = rows.into_iter().map(InboxItem::from_values).collect();
            } else if *table == *InboxCounter::TABLE {
                shown.counters = rows.into_iter().map(InboxCounter::from_values).collect();
            }
        }
        let is_erasure = |it: &&Recorded| matches!(it.body, Event::MessageErased(_));
        let later: HashSet<_> =
            streams[until..].iter().filter(is_erasure).map(|it| it.message_id.as_str()).collect();
        for item in shown.items.iter_mut().filter(|it| later.contains(it.message_id.as_str())) {
            item.blank();
        }
        shown
    }
}

/// The counts of an inbox, summed up part by part.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<String, (Counts, i64)>);

impl Sums {
    pub(super) fn add(&mut self, counters: Vec<InboxCounter>) {
        for it in counters {
            let (counts, last) = self.0.entry(it.category).or_default();
            counts.unseen += it.unseen;
            counts.unread += it.unread;
            counts.total += it.total;
            *last = (*last).max(it.last_position);
        }
    }

    /// By category, in their order.
    pub(super) fn finish(self) -> InboxCounts {
        let mut all = InboxCounts::default();
        for (category, (counts, last)) in self.0 {
            all.take(category, counts, last);
        }
        all
    }
}

/// The newest of what is offered, as many as there is room for, and whether there was more.
#[derive(Debug)]
pub(super) struct Newest<T> {
    room: usize,
    kept: Vec<(i64, T)>,
}

impl<T> Newest<T> {
    pub(super) const fn new(room: usize) -> Self {
        Self { room, kept: Vec::new() }
    }

    /// Offers something of this place.
    pub(super) fn offer(&mut self, place: i64, it: T) {
        self.kept.push((place, it));
        if self.kept.len() > 2 * (self.room + 1) {
            self.cut(self.room + 1);
        }
    }

    /// Newest first.
    pub(super) fn finish(mut self) -> (Vec<T>, bool) {
        let more = self.kept.len() > self.room;
        self.cut(self.room);
        (self.kept.into_iter().map(|(_, it)| it).collect(), more)
    }

    fn cut(&mut self, keep: usize) {
        self.kept.sort_unstable_by_key(|(place, _)| Reverse(*place));
        self.kept.truncate(keep);
    }
}

/// A list of an inbox as it was, while it is gathered part by part.
#[derive(Debug)]
pub struct PastPage {
    place: Position,
    filter: InboxFilter,
    items: Newest<InboxItem>,
    counts: Sums,
}

impl PastPage {
    /// Of at most `limit` items as they were at `place`.
    #[must_use]
    pub fn new(place: Position, filter: InboxFilter, limit: usize) -> Self {
        Self { place, filter, items: Newest::new(limit), counts: Sums::default() }
    }

    /// Takes in some messages of the recipient: all that happened to each of them, sorted by position.
    pub fn take(&mut self, streams: &[Recorded]) {
        let Shown { items, counters } = Shown::at(self.place, streams);
        self.counts.add(counters);
        for item in items.into_iter().filter(|it| self.filter.takes(it)) {
            self.items.offer(item.position, item);
        }
    }

    /// The list, when all messages were taken in.
    #[must_use]
    pub fn finish(self) -> InboxPage {
        let (items, more) = self.items.finish();
        InboxPage { items, more, counts: self.counts.finish() }
    }
}
