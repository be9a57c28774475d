//! What an inbox differs in between two places of the log: what came, what changed, what went.

use super::{
    InboxCounts,
    past::{Newest, Shown, Sums},
};
use crate::{
    clock::Timestamp,
    event::Recorded,
    id::Position,
    projection::{Row, Value, inbox::InboxItem},
};

/// What a person sees of an item: the column, and its name in answers. A name of a time ends in `At`.
const SEEN: [(&str, &str); 17] = [
    ("title", "title"),
    ("body", "body"),
    ("category", "category"),
    ("link", "link"),
    ("image_url", "imageUrl"),
    ("data", "data"),
    ("locale", "locale"),
    ("source", "source"),
    ("occurred_at_us", "occurredAt"),
    ("received_at_us", "receivedAt"),
    ("appeared_at_us", "appearedAt"),
    ("expires_at_us", "expiresAt"),
    ("seen_at_us", "seenAt"),
    ("read_at_us", "readAt"),
    ("archived_at_us", "archivedAt"),
    ("clicked_at_us", "clickedAt"),
    ("position", "cursor"),
];
/// What says whose it is, or follows from the others.
#[cfg(test)]
const UNSEEN: [&str; 6] = ["message_id", "recipient_id", "shard", "state", "due_at_us", "last_position"];

/// What an inbox differs in between two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What was changed last comes first.
    pub changes: Vec<Change>,
    /// Whether there are changes that were made last before these.
    pub more: bool,
    /// How many there are in all.
    pub tally: Tally,
    /// The counts at the first place, and at the second.
    pub counts: [InboxCounts; 2],
}

/// How many items came, changed and went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// In the inbox at the second place only.
    pub added: u64,
    /// In it at both, and not the same.
    pub changed: u64,
    /// In it at the first place only.
    pub removed: u64,
}

/// One item that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The last event that changed it, at the second place.
    pub last: Position,
    /// What became of it.
    pub kind: ChangeKind,
    /// As it is at the second place; as it was at the first where it went.
    pub item: InboxItem,
    /// What differs, of one that changed.
    pub fields: Vec<FieldChange>,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It came.
    Added,
    /// It is there still.
    Changed,
    /// It went.
    Removed,
}

impl ChangeKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// One field of an item that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Its name in answers.
    pub field: &'static str,
    /// At the first place; times as text.
    pub old: Option<String>,
    /// At the second.
    pub new: Option<String>,
}

/// A difference while it is gathered part by part.
#[derive(Debug)]
pub struct Comparison {
    from: Position,
    to: Position,
    before: Option<Position>,
    changes: Newest<Change>,
    tally: Tally,
    sums: [Sums; 2],
}

impl Comparison {
    /// Between two places, the first not after the second: at most `limit` changes, those that were made last
    /// before the place `before`, if there is one.
    #[must_use]
    pub fn new(from: Position, to: Position, before: Option<Position>, limit: usize) -> Self {
        let (changes, tally, sums) = (Newest::new(limit), Tally::default(), Default::default());
        Self { from, to, before, changes, tally, sums }
    }

    /// Takes in some messages of the recipient: all that happened to each of them, sorted by position.
    pub fn take(&mut self, streams: &[Recorded]) {
        let (old, new) = (Shown::at(self.from, streams), Shown::at(self.to, streams));
        let [from, to] = &mut self.sums;
        from.add(old.counters);
        to.add(new.counters);
        // Rows come sorted by their key, the message.
        let mut old = old.items.into_iter().peekable();
        for item in new.items {
            while let Some(gone) = old.next_if(|it| it.message_id < item.message_id) {
                self.compare(Some(gone), None);
            }
            let before = old.next_if(|it| it.message_id == item.message_id);
            self.compare(before, Some(item));
        }
        for gone in old {
            self.compare(Some(gone), None);
        }
    }

    /// One item as the tables have it at both places.
    fn compare(&mut self, old: Option<InboxItem>, new: Option<InboxItem>) {
        let last = new.as_ref().or(old.as_ref()).map_or(0, |it| it.last_position);
        let shown = |it: Option<InboxItem>| it.filter(InboxItem::is_shown);
        let (kind, item, fields) = match (shown(old), shown(new)) {
            (None, None) => return,
            (None, Some(new)) => (ChangeKind::Added, new, Vec::new()),
            (Some(old), None) => (ChangeKind::Removed, old, Vec::new()),
            (Some(old), Some(new)) => {
                let fields = changed_fields(&old, &new);
                if fields.is_empty() {
                    return;
                }
                (ChangeKind::Changed, new, fields)
            }
        };
        match kind {
            ChangeKind::Added => self.tally.added += 1,
            ChangeKind::Changed => self.tally.changed += 1,
            ChangeKind::Removed => self.tally.removed += 1,
        }
        if self.before.is_none_or(|before| last < before.0) {
            self.changes.offer(last, Change { last: Position(last), kind, item, fields });
        }
    }

    /// The difference, when all messages were taken in.
    #[must_use]
    pub fn finish(self) -> Difference {
        let (changes, more) = self.changes.finish();
        Difference { changes, more, tally: self.tally, counts: self.sums.map(Sums::finish) }
    }
}

fn changed_fields(old: &InboxItem, new: &InboxItem) -> Vec<FieldChange> {
    let shard = new.shard;
    let columns = InboxItem::TABLE.columns.iter().map(|it| it.name);
    let values = old.clone().into_values().into_iter().zip(new.clone().into_values());
    let changed = columns.zip(values).filter(|(_, (old, new))| old != new);
    changed
        .filter_map(|(column, (old, new))| {
            let (_, field) = SEEN.into_iter().find(|(name, _)| *name == column)?;
            Some(FieldChange { field, old: text(field, shard, old), new: text(field, shard, new) })
        })
        .collect()
}

fn text(field: &str, shard: i64, value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Int(micros) if field.ends_with("At") => Some(Timestamp::from_micros(micros).to_string()),
        Value::Int(place) => Some(format!("{shard}-{place}")),
        Value::Text(text) => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_seen_or_not_on_purpose() {
        let columns: Vec<_> = InboxItem::TABLE.columns.iter().map(|it| it.name).collect();
        let mut named: Vec<_> = SEEN.iter().map(|(column, _)| *column).chain(UNSEEN).collect();
        named.sort_unstable_by_key(|it| columns.iter().position(|column| column == it));
        assert_eq!(named, columns);
    }
}
