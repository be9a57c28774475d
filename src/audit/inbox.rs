//! An inbox as apps, services and operators are shown it: as it is, as it was, and what it differs in.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::place;
use crate::{
    clock::Timestamp,
    id::Cursor,
    inbox::{
        Counts, InboxCounts, InboxPage,
        difference::{Change, Difference, FieldChange},
    },
    projection::inbox::InboxItem,
};

/// A part of an inbox.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InboxList)]
pub(crate) struct Listed {
    /// The whole inbox's: where a stream goes on from this list, or what it is as of.
    pub(crate) cursor: Cursor,
    pub(crate) items: Vec<Item>,
    /// Where the next, older ones begin; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Cursor>,
    pub(crate) counts: Tallies,
}

/// One message as the app shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxItem)]
pub(crate) struct Item {
    pub(crate) message_id: String,
    pub(crate) cursor: Cursor,
    pub(crate) title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) occurred_at: Option<Timestamp>,
    pub(crate) received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) appeared_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archived_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clicked_at: Option<Timestamp>,
}

/// How many items are in each state, archived ones left out.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Tally {
    pub(crate) unseen: i64,
    pub(crate) unread: i64,
    pub(crate) total: i64,
}

/// The same overall and by category.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tallies {
    #[serde(flatten)]
    pub(crate) overall: Tally,
    pub(crate) categories: BTreeMap<String, Tally>,
}

/// What an inbox differs in between two moments.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InboxDifference)]
pub(crate) struct Compared {
    pub(crate) from: Moment,
    pub(crate) to: Moment,
    /// Items in the inbox at the second moment only.
    pub(crate) added: u64,
    /// Items in it at both, and not the same.
    pub(crate) changed: u64,
    /// Items in it at the first moment only.
    pub(crate) removed: u64,
    /// What was changed last comes first.
    pub(crate) changes: Vec<ItemChange>,
    /// Where the next begin, that were changed before; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Cursor>,
}

/// A place of the log, and the counts there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InboxMoment)]
pub(crate) struct Moment {
    pub(crate) cursor: Cursor,
    pub(crate) counts: Tallies,
}

/// An item that is not what it was.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InboxChange)]
pub(crate) struct ItemChange {
    /// `added`, `changed` or `removed`.
    pub(crate) change: &'static str,
    /// The last event that changed it.
    pub(crate) cursor: Cursor,
    /// At the second moment; at the first where it was removed.
    pub(crate) item: Item,
    /// What differs, of one that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) fields: Vec<ChangedField>,
}

/// A field of an item that changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangedField {
    /// Its name.
    pub(crate) field: &'static str,
    #[schema(required)]
    pub(crate) old: Option<String>,
    #[schema(required)]
    pub(crate) new: Option<String>,
}

impl Listed {
    /// A list whose place in the log is `cursor`.
    pub(crate) fn new(cursor: Cursor, page: InboxPage) -> Self {
        let items: Vec<_> = page.items.into_iter().map(Item::from).collect();
        let next = items.last().filter(|_| page.more).map(|it| it.cursor);
        Self { cursor, items, next, counts: page.counts.into() }
    }
}

impl Compared {
    /// What was found between two places.
    pub(crate) fn new([from, to]: [Cursor; 2], difference: Difference) -> Self {
        let Difference { changes, more, tally, counts: [counts, counts_after] } = difference;
        let place = |position| Cursor { shard: to.shard, position };
        let next = changes.last().filter(|_| more).map(|it| place(it.last));
        let change = |it: Change| ItemChange {
            change: it.kind.as_str(),
            cursor: place(it.last),
            item: it.item.into(),
            fields: it.fields.into_iter().map(ChangedField::from).collect(),
        };
        Self {
            from: Moment { cursor: from, counts: counts.into() },
            to: Moment { cursor: to, counts: counts_after.into() },
            added: tally.added,
            changed: tally.changed,
            removed: tally.removed,
            changes: changes.into_iter().map(change).collect(),
            next,
        }
    }
}

impl From<FieldChange> for ChangedField {
    fn from(FieldChange { field, old, new }: FieldChange) -> Self {
        Self { field, old, new }
    }
}

impl From<InboxItem> for Item {
    fn from(row: InboxItem) -> Self {
        Self {
            cursor: place(row.shard, row.position),
            message_id: row.message_id,
            title: row.title,
            body: row.body,
            category: row.category,
            link: row.link,
            image_url: row.image_url,
            data: row.data.and_then(|text| RawValue::from_string(text).ok()),
            locale: row.locale,
            source: row.source,
            occurred_at: row.occurred_at_us,
            received_at: row.received_at_us,
            appeared_at: row.appeared_at_us,
            expires_at: row.expires_at_us,
            seen_at: row.seen_at_us,
            read_at: row.read_at_us,
            archived_at: row.archived_at_us,
            clicked_at: row.clicked_at_us,
        }
    }
}

impl From<InboxCounts> for Tallies {
    fn from(counts: InboxCounts) -> Self {
        let categories = counts.by_category.into_iter().map(|(name, it)| (name, it.into())).collect();
        Self { overall: counts.overall.into(), categories }
    }
}

impl From<Counts> for Tally {
    fn from(counts: Counts) -> Self {
        let Counts { unseen, unread, total } = counts;
        Self { unseen, unread, total }
    }
}
