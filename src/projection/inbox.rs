//! The inbox projection: the items that the app shows, and exact counts of them.
//!
//! An item counts while it is shown and not archived. Every change of an item moves the counters by the
//! difference between its weight after and before, so the counts are exact without ever being counted. That
//! an item appears or goes by the clock is an event like any other: a fold asks no time. Whether a push was
//! sent plays no part here.
//!
//! Every change that a recipient can notice moves `last_position` of their overall counter, which so is the
//! cursor of the whole inbox; `last_position` of an item, which stays behind when the item goes, says what
//! changed since.

use super::{Ddl, Keys, Projection, Row, Rows, Table, Value, data_text, label};
use crate::{
    clock::Timestamp,
    event::{Event, Recorded},
    message::{Appearance, Message},
};

crate::rows! {
    /// One message in a recipient's inbox. What is gone leaves a row without texts, for those who show it still.
    struct InboxItem in "inbox_items", key 1 {
        /// Which message.
        message_id: String,
        /// Whose inbox.
        recipient_id: String,
        /// The shard of the recipient.
        shard: i64,
        /// The event by which it appeared, in the shard: newest first is by this.
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
        /// When it appeared; none while it waits for its time.
        appeared_at_us: Option<Timestamp>,
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
        /// Where it belongs in lists: 0 unseen, 1 unread, 2 read; 3, 4 and 5 the same, put away; in none: 6
        /// waits for its time, 7 is gone.
        state: i64,
        /// When it appears or goes by itself.
        due_at_us: Option<Timestamp>,
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
        /// The last event that changed this row, and of the whole inbox: that changed any of it.
        last_position: i64,
    }
}

/// In no list yet: it waits for its time.
pub const WAITING: i64 = 6;
/// In no list any more.
pub const GONE: i64 = 7;

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
        3
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
            Event::MessageReceived(it) if appears(&it.message, event) => {
                keys.fresh::<InboxItem>(message);
                keys.want::<InboxCounter>(recipient);
            }
            Event::InboxSeen
            | Event::InboxRead
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::InboxDeleted
            | Event::InboxPresented
            | Event::InboxExpired
            | Event::MessageErased(_) => {
                keys.want::<InboxItem>(message);
                keys.want::<InboxCounter>(recipient);
            }
            Event::MessageCancelled(_) => keys.want::<InboxItem>(message),
            Event::MessageReceived(_)
            | Event::MessageConflicted(_)
            | Event::PushPlanned(_)
            | Event::PushAttemptStarted(_)
            | Event::PushAttemptSucceeded(_)
            | Event::PushAttemptPending(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptLost(_)
            | Event::PushSuppressed(_)
            | Event::PushRescheduled(_)
            | Event::PushExhausted(_)
            | Event::PushReceipt(_)
            | Event::Skipped(_) => {}
        }
    }

    fn fold(&self, event: &Recorded, rows: &mut Rows) {
        let at = event.occurred_at;
        match &event.body {
            Event::MessageReceived(it) if appears(&it.message, event) => {
                let item = InboxItem::new(&it.message, event);
                if item.state != WAITING {
                    count(rows, event, item.category.as_deref(), Weight::of(&item));
                }
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
            Event::InboxPresented => mark(rows, event, |item| {
                (item.position, item.appeared_at_us) = (event.position.0, Some(at));
                (item.state, item.due_at_us) = (ItemState::Unseen.number(false), item.expires_at_us);
            }),
            Event::InboxDeleted | Event::InboxExpired => leave(rows, event),
            Event::MessageErased(_) => mark(rows, event, InboxItem::blank),
            Event::MessageCancelled(_) => {
                let item = rows.remove::<InboxItem>(event.message_id.as_str(), &[]);
                // Only what waits is called off.
                if let Some(item) = item.filter(|it| it.state != WAITING) {
                    rows.put(item);
                }
            }
            Event::MessageReceived(_)
            | Event::MessageConflicted(_)
            | Event::PushPlanned(_)
            | Event::PushAttemptStarted(_)
            | Event::PushAttemptSucceeded(_)
            | Event::PushAttemptPending(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptLost(_)
            | Event::PushSuppressed(_)
            | Event::PushRescheduled(_)
            | Event::PushExhausted(_)
            | Event::PushReceipt(_)
            | Event::Skipped(_) => {}
        }
    }
}

impl InboxItem {
    fn new(message: &Message, event: &Recorded) -> Self {
        let waits = match message.appears(event.recorded_at) {
            Appearance::Later(at) => Some(at),
            Appearance::AtOnce | Appearance::Never => None,
        };
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
            appeared_at_us: waits.is_none().then_some(event.recorded_at),
            expires_at_us: message.expires_at,
            seen_at_us: None,
            read_at_us: None,
            archived_at_us: None,
            clicked_at_us: None,
            state: if waits.is_some() { WAITING } else { ItemState::Unseen.number(false) },
            due_at_us: waits.or(message.expires_at),
            last_position: event.position.0,
        }
    }

    /// Whether it is in a list.
    pub const fn is_shown(&self) -> bool {
        self.state < WAITING
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

    /// Is in no list any more.
    fn go(&mut self) {
        self.blank();
        (self.state, self.due_at_us) = (GONE, None);
    }

    /// Takes away what may speak of a person; that there was an item stays.
    pub fn blank(&mut self) {
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
        if item.archived_at_us.is_some() || !item.is_shown() {
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

/// Whether a message that is received is ever in the inbox.
fn appears(message: &Message, event: &Recorded) -> bool {
    message.appears(event.recorded_at) != Appearance::Never
}

/// Changes the event's item and moves the counters by the difference.
fn mark(rows: &mut Rows, event: &Recorded, change: impl FnOnce(&mut InboxItem)) {
    let mut moved = None;
    rows.change(event.message_id.as_str(), &[], |item: &mut InboxItem| {
        if item.state == GONE {
            return;
        }
        let (before, was_shown) = (Weight::of(item), item.is_shown());
        change(item);
        if item.is_shown() {
            item.state = item.state().number(item.archived_at_us.is_some());
        }
        item.last_position = event.position.0;
        if was_shown || item.is_shown() {
            let difference = Weight::of(item).minus(before);
            let category = item.category.clone().filter(|_| difference != Weight::default());
            moved = Some((category, difference));
        }
    });
    if let Some((category, difference)) = moved {
        count(rows, event, category.as_deref(), difference);
    }
}

/// Takes the event's item out of all lists. What was never shown leaves no row behind.
fn leave(rows: &mut Rows, event: &Recorded) {
    let mut waited = false;
    mark(rows, event, |item| {
        waited = item.state == WAITING;
        item.go();
    });
    if waited {
        rows.remove::<InboxItem>(event.message_id.as_str(), &[]);
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
