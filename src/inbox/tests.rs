//! An inbox of the past is the fold of the prefix, in whatever parts it is read, and what two of them differ in is
//! what is told.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    Archived, InboxCounts, InboxFilter, InboxPage, Status,
    difference::{ChangeKind, Comparison, Difference, Tally},
    past::{PastPage, Point},
};
use crate::{
    event::{Event, Recorded},
    id::{Cursor, Position, Shard},
    projection::{
        Row, fold_in_memory,
        history_tests::{History, tries},
        inbox::{Inbox, InboxCounter, InboxItem},
    },
};

const RECIPIENT: &str = "user-0";

fn filters() -> impl Strategy<Value = InboxFilter> {
    let statuses = select(vec![Status::All, Status::Unseen, Status::Unread, Status::Read]);
    let archived = select(vec![Archived::Exclude, Archived::Include, Archived::Only]);
    let category = option::of(select(vec!["pass".to_owned(), "inquiry".to_owned()]));
    (statuses, archived, category, option::of(1..100_i64)).prop_map(|(status, archived, category, before)| {
        InboxFilter { before: before.map(Position), status, archived, category, ..InboxFilter::default() }
    })
}

/// The rows of everybody at a place, those of one recipient taken out, and what is erased by the end blank.
fn tables(log: &[Recorded], place: usize) -> (Vec<InboxItem>, InboxCounts) {
    let erased: BTreeSet<_> = log
        .iter()
        .filter(|it| matches!(it.body, Event::MessageErased(_)))
        .map(|it| it.message_id.as_str())
        .collect();
    let mut counts = InboxCounts::default();
    let mut items = Vec::new();
    for (table, rows) in fold_in_memory(&Inbox, &log[..place]) {
        for row in rows {
            if *table == *InboxCounter::TABLE {
                let it = InboxCounter::from_values(row);
                let these = super::Counts { unseen: it.unseen, unread: it.unread, total: it.total };
                if it.recipient_id == RECIPIENT {
                    counts.take(it.category, these, it.last_position);
                }
            } else {
                let mut it = InboxItem::from_values(row);
                if erased.contains(it.message_id.as_str()) {
                    it.blank();
                }
                if it.recipient_id == RECIPIENT {
                    items.push(it);
                }
            }
        }
    }
    items.sort_unstable_by_key(|it| std::cmp::Reverse(it.position));
    (items, counts)
}

/// The recipient's messages as the store reads them: newest first, so many at once.
fn parts(log: &[Recorded], place: usize, sizes: &[usize]) -> Vec<Vec<Recorded>> {
    let own = |it: &&Recorded| it.recipient_id.as_str() == RECIPIENT;
    let is_first = |it: &&Recorded| matches!(it.body, Event::MessageReceived(_));
    let mut ids: Vec<_> = log[..place].iter().filter(own).filter(is_first).map(|it| &it.message_id).collect();
    ids.reverse();
    let mut parts = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !ids.is_empty() {
        let part: Vec<_> = ids.drain(..(*sizes.next().unwrap_or(&1)).min(ids.len())).collect();
        let is_push = |it: &Recorded| it.body.kind().starts_with("push.");
        let events = log.iter().filter(|it| part.contains(&&it.message_id) && !is_push(it));
        parts.push(events.cloned().collect());
    }
    parts
}

fn page_at(log: &[Recorded], place: usize, sizes: &[usize], filter: &InboxFilter, limit: usize) -> InboxPage {
    let mut page = PastPage::new(at(place), filter.clone(), limit);
    for part in &parts(log, place, sizes) {
        page.take(part);
    }
    page.finish()
}

fn between(log: &[Recorded], from: usize, to: usize, before: Option<Position>, limit: usize) -> Difference {
    let mut comparison = Comparison::new(at(from), at(to), before, limit);
    for part in &parts(log, to, &[2]) {
        comparison.take(part);
    }
    comparison.finish()
}

fn at(place: usize) -> Position {
    Position(i64::try_from(place).unwrap())
}

/// What a person sees, without what says how it came to be so.
fn seen(item: &InboxItem) -> InboxItem {
    InboxItem { last_position: 0, due_at_us: None, ..item.clone() }
}

proptest! {
    /// At every place of every history the inbox is what the tables would be, in whatever parts it is read.
    #[test]
    fn the_past_is_the_fold_of_the_prefix(
        tries in tries(),
        sizes in vec(1..3_usize, 1..4),
        filter in filters(),
        limit in 1..4_usize,
    ) {
        let log = History::of(&tries);
        for place in 0..=log.len() {
            let (items, counts) = tables(&log, place);
            let mut expected: Vec<_> = items.into_iter().filter(|it| filter.takes(it)).collect();
            let more = expected.len() > limit;
            expected.truncate(limit);
            let expected = InboxPage { items: expected, more, counts };
            prop_assert_eq!(page_at(&log, place, &sizes, &filter, limit), expected, "at {}", place);
        }
    }

    /// What came is there at the second place only, what went at the first, what changed is seen otherwise; page by
    /// page as at once.
    #[test]
    fn a_difference_leads_from_one_place_to_the_other(tries in tries(), ends in (0..1000_usize, 0..1000_usize)) {
        let log = History::of(&tries);
        let (one, other) = (ends.0 % (log.len() + 1), ends.1 % (log.len() + 1));
        let (from, to) = (one.min(other), one.max(other));
        let shown = |place| {
            let (items, counts) = tables(&log, place);
            let shown = items.into_iter().filter(InboxItem::is_shown).map(|it| (it.message_id.clone(), it));
            (shown.collect::<BTreeMap<_, _>>(), counts)
        };
        let ((mut old, counts), (new, counts_after)) = (shown(from), shown(to));
        let difference = between(&log, from, to, None, 100);
        prop_assert_eq!(&difference.counts, &[counts, counts_after]);
        let count = |kind| difference.changes.iter().filter(|it| it.kind == kind).count() as u64;
        let tally = Tally {
            added: count(ChangeKind::Added),
            changed: count(ChangeKind::Changed),
            removed: count(ChangeKind::Removed),
        };
        prop_assert_eq!(difference.tally, tally);
        for change in &difference.changes {
            let (id, item) = (change.item.message_id.clone(), change.item.clone());
            let was = match change.kind {
                ChangeKind::Removed => old.remove(&id).is_some_and(|it| it == item),
                ChangeKind::Added => old.insert(id, item).is_none(),
                ChangeKind::Changed => old.insert(id, item.clone()).is_some_and(|it| seen(&it) != seen(&item)),
            };
            prop_assert!(was, "{:?}", change);
            prop_assert_eq!(change.kind == ChangeKind::Changed, !change.fields.is_empty());
        }
        let seen_of = |items: &BTreeMap<String, InboxItem>| items.values().map(seen).collect::<Vec<_>>();
        prop_assert_eq!(seen_of(&old), seen_of(&new));
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = between(&log, from, to, before, 1);
            before = page.changes.last().map(|it| it.last);
            paged.extend(page.changes);
            if !page.more {
                break;
            }
        }
        prop_assert_eq!(paged, difference.changes);
    }
}

#[test]
fn a_moment_is_a_time_or_a_place() {
    let place = Point::Place(Cursor { shard: Shard(3), position: Position(42) });
    assert_eq!("3-42".parse(), Ok(place));
    assert!(matches!("2026-11-22T18:00:00+09:00".parse(), Ok(Point::Time(_))));
    for bad in ["", "yesterday", "2026-11-22", "3-", "-1"] {
        let error = bad.parse::<Point>().unwrap_err();
        assert!(error.to_string().contains("neither a time"), "{error}");
    }
}
