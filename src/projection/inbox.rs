//! The inbox projection: the items that the app shows, and exact counts of them.
//!
//! An item counts while it is neither archived nor deleted. Every change of an item moves the
//! counters by the difference between its weight after and before, so the counts are exact without
//! ever being counted. Whether a push was sent plays no part here.

use super::{Ddl, Keys, Projection, Row, Rows, Table, Value, data_text, label};
use crate::{
    clock::Timestamp,
    event::{Event, Recorded},
    message::Message,
};

crate::rows! {
    /// One message in a recipient's inbox. Deleted items have no row.
    struct InboxItem in "inbox_items", key 1 {
        /// Which message.
        message_id: String,
        /// Whose inbox.
        recipient_id: String,
        /// The shard of the recipient.
        shard: i64,
        /// Where `message.received` stands in the shard: newest first is by this.
        position: i64,
        /// The headline; empty once erased.
        title: String,
        /// The text.
        body: Option<String>,
        /// What kind of news this is.
        category: Option<String>,
        /// Where a tap leads.
        link: Option<String>,
        /// A picture to show.
        image_url: Option<String>,
        /// The producer's own data, a JSON object.
        data: Option<String>,
        /// Language tag of the texts.
        locale: Option<String>,
        /// Which producer.
        source: Option<String>,
        /// When it happened, in the producer's word.
        occurred_at_us: Option<Timestamp>,
        /// When the ledger wrote it down.
        received_at_us: Timestamp,
        /// When it stops being of interest.
        expires_at_us: Option<Timestamp>,
        /// When it was first shown.
        seen_at_us: Option<Timestamp>,
        /// When it was read, unless it is unread (again).
        read_at_us: Option<Timestamp>,
        /// When it was put away, unless it was brought back.
        archived_at_us: Option<Timestamp>,
        /// When it was first followed to where it leads.
        clicked_at_us: Option<Timestamp>,
        /// Where it belongs in lists: 0 unseen, 1 unread, 2 read; 3, 4 and 5 the same, put away.
        state: i64,
        /// The last event that changed this row.
        last_position: i64,
    }

    /// How many items of a recipient's inbox are in each state, archived ones left out.
    struct InboxCounter in "inbox_counters", key 2 {
        /// Whose inbox.
        recipient_id: String,
        /// Which category; empty for the whole inbox, with the items that have no category.
        category: String,
        /// The shard of the recipient.
        shard: i64,
        /// Never shown.
        unseen: i64,
        /// Not read.
        unread: i64,
        /// All.
        total: i64,
        /// The last event that changed this row.
        last_position: i64,
    }
}

/// How far a recipient has come with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemState {
    /// It was never shown.
    Unseen,
    /// It was shown, and is not read.
    Unread,
    /// It is read.
    Read,
}

impl ItemState {
    /// As it stands in the column `state`.
    #[must_use]
    pub const fn number(self, is_archived: bool) -> i64 {
        let number = match self {
            Self::Unseen => 0,
            Self::Unread => 1,
            Self::Read => 2,
        };
        if is_archived { number + 3 } else { number }
    }
}

/// The inbox projection.
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

impl Projection for Inbox {
    fn name(&self) -> &'static str {
        "inbox"
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static Table] {
        &[InboxItem::TABLE, InboxCounter::TABLE]
    }

    fn ddl(&self) -> Ddl {
        Ddl {
            sqlite: include_str!("../../projections/inbox/sqlite.sql"),
            postgres: include_str!("../../projections/inbox/postgres.sql"),
            mysql: include_str!("../../projections/inbox/mysql.sql"),
        }
    }

    fn touches<'e>(&self, event: &'e Recorded, keys: &mut Keys<'e>) {
        let (message, recipient) = (event.message_id.as_str(), event.recipient_id.as_str());
        match &event.body {
            Event::MessageReceived(it) if it.message.for_inbox() => {
                keys.fresh::<InboxItem>(message);
                keys.want::<InboxCounter>(recipient);
            }
            Event::InboxSeen
            | Event::InboxRead
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::InboxDeleted => {
                keys.want::<InboxItem>(message);
                keys.want::<InboxCounter>(recipient);
            }
            Event::MessageErased(_) => keys.want::<InboxItem>(message),
            Event::MessageReceived(_)
            | Event::MessageConflicted(_)
            | Event::MessageCancelled(_)
            | Event::PushPlanned(_)
            | Event::PushAttemptStarted(_)
            | Event::PushAttemptSucceeded(_)
            | Event::PushAttemptPending(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptLost(_)
            | Event::PushSuppressed(_)
            | Event::PushRescheduled(_)
            | Event::PushExhausted(_)
            | Event::PushReceipt(_) => {}
        }
    }

    fn fold(&self, event: &Recorded, rows: &mut Rows) {
        let at = event.occurred_at;
        match &event.body {
            Event::MessageReceived(it) if it.message.for_inbox() => {
                let item = InboxItem::new(&it.message, event);
                count(rows, event, item.category.as_deref(), Weight::of(&item));
                rows.put(item);
            }
            Event::InboxSeen => mark(rows, event, |item| item.see(at)),
            Event::InboxRead => mark(rows, event, |item| {
                item.see(at);
                item.read_at_us = Some(at);
            }),
            Event::InboxClicked => mark(rows, event, |item| {
                item.see(at);
                item.read_at_us.get_or_insert(at);
                item.clicked_at_us.get_or_insert(at);
            }),
            Event::InboxUnread => mark(rows, event, |item| item.read_at_us = None),
            Event::InboxArchived => mark(rows, event, |item| item.archived_at_us = Some(at)),
            Event::InboxUnarchived => mark(rows, event, |item| item.archived_at_us = None),
            Event::InboxDeleted => {
                if let Some(item) = rows.remove::<InboxItem>(event.message_id.as_str(), &[]) {
                    let weight = Weight::of(&item);
                    count(rows, event, item.category.as_deref(), Weight::default().minus(weight));
                }
            }
            Event::MessageErased(_) => mark(rows, event, InboxItem::blank),
            Event::MessageReceived(_)
            | Event::MessageConflicted(_)
            | Event::MessageCancelled(_)
            | Event::PushPlanned(_)
            | Event::PushAttemptStarted(_)
            | Event::PushAttemptSucceeded(_)
            | Event::PushAttemptPending(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptLost(_)
            | Event::PushSuppressed(_)
            | Event::PushRescheduled(_)
            | Event::PushExhausted(_)
            | Event::PushReceipt(_) => {}
        }
    }
}

impl InboxItem {
    fn new(message: &Message, event: &Recorded) -> Self {
        Self {
            message_id: event.message_id.to_string(),
            recipient_id: event.recipient_id.to_string(),
            shard: event.shard.0.into(),
            position: event.position.0,
            title: message.title.clone(),
            body: message.body.clone(),
            category: label(message.category.as_deref()),
            link: message.link.clone(),
            image_url: message.image_url.clone(),
            data: data_text(&message.data),
            locale: message.locale.clone(),
            source: message.source.clone(),
            occurred_at_us: message.occurred_at,
            received_at_us: event.recorded_at,
            expires_at_us: message.expires_at,
            seen_at_us: None,
            read_at_us: None,
            archived_at_us: None,
            clicked_at_us: None,
            state: ItemState::Unseen.number(false),
            last_position: event.position.0,
        }
    }

    /// How far its recipient has come with it.
    const fn state(&self) -> ItemState {
        match (self.read_at_us, self.seen_at_us) {
            (Some(_), _) => ItemState::Read,
            (None, Some(_)) => ItemState::Unread,
            (None, None) => ItemState::Unseen,
        }
    }

    /// What is read was seen; the first time stands.
    fn see(&mut self, at: Timestamp) {
        self.seen_at_us.get_or_insert(at);
    }

    /// Takes away what may speak of a person; that there was an item stays.
    fn blank(&mut self) {
        self.title.clear();
        (self.body, self.link, self.image_url, self.data) = (None, None, None, None);
    }
}

/// What an item adds to the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Weight {
    unseen: i64,
    unread: i64,
    total: i64,
}

impl Weight {
    fn of(item: &InboxItem) -> Self {
        if item.archived_at_us.is_some() {
            return Self::default();
        }
        Self { unseen: item.seen_at_us.is_none().into(), unread: item.read_at_us.is_none().into(), total: 1 }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            unseen: self.unseen - other.unseen,
            unread: self.unread - other.unread,
            total: self.total - other.total,
        }
    }
}

/// Changes the event's item and moves the counters by the difference.
fn mark(rows: &mut Rows, event: &Recorded, change: impl FnOnce(&mut InboxItem)) {
    let mut moved = None;
    rows.change(event.message_id.as_str(), &[], |item: &mut InboxItem| {
        let before = Weight::of(item);
        change(item);
        item.state = item.state().number(item.archived_at_us.is_some());
        item.last_position = event.position.0;
        let difference = Weight::of(item).minus(before);
        if difference != Weight::default() {
            moved = Some((item.category.clone(), difference));
        }
    });
    if let Some((category, difference)) = moved {
        count(rows, event, category.as_deref(), difference);
    }
}

/// Adds `weight` to the counters of the recipient's whole inbox and of `category`.
fn count(rows: &mut Rows, event: &Recorded, category: Option<&str>, weight: Weight) {
    for category in [Some(""), category].into_iter().flatten() {
        let add = |counter: &mut InboxCounter| {
            counter.unseen += weight.unseen;
            counter.unread += weight.unread;
            counter.total += weight.total;
            counter.last_position = event.position.0;
        };
        if !rows.change(event.recipient_id.as_str(), &[Value::text(category)], add) {
            rows.put(InboxCounter {
                recipient_id: event.recipient_id.to_string(),
                category: category.to_owned(),
                shard: event.shard.0.into(),
                unseen: weight.unseen,
                unread: weight.unread,
                total: weight.total,
                last_position: event.position.0,
            });
        }
    }
}
