//! The statistics projection: how much of what happened, by day and category, for charts.
//!
//! A fact counts on the day on which the ledger wrote it down, in UTC, so that what is counted for a day that is
//! over stays as it is. Shards are folded at the same time, so each counts in rows of its own, and whoever reads
//! adds them up. What happens to a message after it came does not say of which category it is; a small row for
//! each message keeps that, and which steps of its recipient are counted already: an item counts once as seen,
//! as read and as clicked, however often it is made unread again.
//!
//! Producers choose categories. A day of a shard counts [`CATEGORIES_MAX`] of them by their names, in the order
//! in which they came, and all others as [`OTHERS`] (BOUNDED).

use super::{Ddl, Keys, Projection, Row, Rows, Table, Value, label};
use crate::{
    clock::Day,
    event::{Event, ReceiptKind, Recorded, SuppressReason, Verdict},
    message::{Appearance, Message},
};

/// How many categories a day of a shard counts by their names.
pub const CATEGORIES_MAX: usize = 200;
/// What stands for all categories beyond these.
pub const OTHERS: &str = "*";

crate::rows! {
    /// What one shard counted of one category on one day.
    struct DailyCount in "daily_counts", key 2 {
        /// Day and shard, `2026-11-22/3`: what is loaded together, and in the order of days.
        slice: String,
        /// Which category; empty for messages that have none, [`OTHERS`] for those that are not counted by name.
        category: String,
        /// The day, `2026-11-22`.
        day: String,
        /// The shard.
        shard: i64,
        /// Messages that came for the first time.
        messages_received: i64,
        /// Contents that came under the id of another message.
        messages_conflicted: i64,
        /// Messages that were cancelled.
        messages_cancelled: i64,
        /// Items that appeared in an inbox.
        items_appeared: i64,
        /// Items that were shown for the first time; what is read was seen.
        items_seen: i64,
        /// Items that were read for the first time; what is clicked is read.
        items_read: i64,
        /// Items that were clicked for the first time.
        items_clicked: i64,
        /// Items that their recipients removed.
        items_deleted: i64,
        /// Items whose end came, shown by then or not.
        items_expired: i64,
        /// Deliveries that were planned, also in the place of others.
        deliveries_planned: i64,
        /// Deliveries that were over and are taken up again.
        deliveries_reopened: i64,
        /// Deliveries that a provider took.
        deliveries_accepted: i64,
        /// Deliveries that were given up after a failure.
        deliveries_failed: i64,
        /// Deliveries that were given up without anybody knowing.
        deliveries_unknown: i64,
        /// Deliveries not sent because their end had come.
        deliveries_expired: i64,
        /// Deliveries not sent because somebody cancelled.
        deliveries_cancelled: i64,
        /// Deliveries not sent because there was nowhere to send them.
        deliveries_no_target: i64,
        /// Deliveries not sent because the recipient does not want them.
        deliveries_opted_out: i64,
        /// Deliveries not sent because a newer message took their place.
        deliveries_superseded: i64,
        /// Deliveries that another took the place of, to where the device is now.
        deliveries_moved: i64,
        /// Deliveries that are known to have reached the device.
        deliveries_delivered: i64,
        /// Deliveries that a person is known to have opened.
        deliveries_opened: i64,
        /// Calls to a provider.
        attempts_started: i64,
        /// Those of them that were not the first of their delivery.
        attempts_retried: i64,
        /// Calls that were answered with no, or not at all.
        attempts_failed: i64,
        /// Calls of which nobody knows how they ended.
        attempts_lost: i64,
        /// The last event that changed this row.
        last_position: i64,
    }

    /// What has to be known of a message to count what happens to it.
    struct CountedMessage in "counted_messages", key 1 {
        /// Which message.
        message_id: String,
        /// The shard of the recipient.
        shard: i64,
        /// Its category; empty where it has none.
        category: String,
        /// Whether it is counted as seen.
        seen: bool,
        /// Whether it is counted as read.
        is_read: bool,
        /// Whether it is counted as clicked.
        clicked: bool,
        /// The last event that changed this row.
        last_position: i64,
    }
}

/// The statistics projection.
#[derive(Debug, Clone, Copy)]
pub struct Statistics;

impl Projection for Statistics {
    fn name(&self) -> &'static str {
        "statistics"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static Table] {
        &[DailyCount::TABLE, CountedMessage::TABLE]
    }

    fn ddl(&self) -> Ddl {
        Ddl {
            sqlite: include_str!("../../projections/statistics/sqlite.sql"),
            postgres: include_str!("../../projections/statistics/postgres.sql"),
            mysql: include_str!("../../projections/statistics/mysql.sql"),
        }
    }

    fn touches<'e>(&self, event: &'e Recorded, keys: &mut Keys<'e>) {
        let message = event.message_id.as_str();
        match &event.body {
            Event::MessageReceived(_) => keys.fresh::<CountedMessage>(message),
            body if counts(body) => keys.want::<CountedMessage>(message),
            _ => return,
        }
        keys.want::<DailyCount>(slice(event));
    }

    fn fold(&self, event: &Recorded, rows: &mut Rows) {
        if let Event::MessageReceived(it) = &event.body {
            let message = CountedMessage::new(&it.message, event);
            let appears = it.message.appears(event.recorded_at) == Appearance::AtOnce;
            count(rows, event, &message.category, |day| {
                day.messages_received += 1;
                day.items_appeared += i64::from(appears);
            });
            rows.put(message);
        } else if counts(&event.body) {
            let id = event.message_id.as_str();
            let Some(before) = rows.get::<CountedMessage>(id, &[]) else { return };
            let after = before.clone().marked(&event.body);
            let first = |after: bool, before: bool| i64::from(after && !before);
            let (seen, read) = (first(after.seen, before.seen), first(after.is_read, before.is_read));
            let clicked = first(after.clicked, before.clicked);
            if after != before {
                rows.put(CountedMessage { last_position: event.position.0, ..after });
            } else if is_mark(&event.body) {
                return; // Counted before.
            }
            count(rows, event, &before.category, |day| {
                day.items_seen += seen;
                day.items_read += read;
                day.items_clicked += clicked;
                day.add(&event.body);
            });
        }
    }
}

/// Whether an event of a message that is known is counted at all.
const fn counts(event: &Event) -> bool {
    match event {
        Event::MessageConflicted(_)
        | Event::MessageCancelled(_)
        | Event::InboxSeen
        | Event::InboxRead
        | Event::InboxClicked
        | Event::InboxDeleted
        | Event::InboxPresented
        | Event::InboxExpired
        | Event::PushPlanned(_)
        | Event::PushAttemptStarted(_)
        | Event::PushAttemptFailed(_)
        | Event::PushAttemptLost(_)
        | Event::PushSuppressed(_)
        | Event::PushExhausted(_) => true,
        Event::PushAttemptSucceeded(it) => it.settles,
        Event::PushRescheduled(it) => it.reopens.is_some(),
        Event::PushReceipt(it) => matches!(it.kind, ReceiptKind::Delivered | ReceiptKind::Opened),
        Event::MessageReceived(_)
        | Event::InboxUnread
        | Event::InboxArchived
        | Event::InboxUnarchived
        | Event::PushAttemptPending(_)
        | Event::MessageErased(_)
        | Event::Skipped(_) => false,
    }
}

/// Whether it is a step of the recipient that counts the first time only.
const fn is_mark(event: &Event) -> bool {
    matches!(event, Event::InboxSeen | Event::InboxRead | Event::InboxClicked)
}

impl CountedMessage {
    fn new(message: &Message, event: &Recorded) -> Self {
        Self {
            message_id: event.message_id.to_string(),
            shard: event.shard.0.into(),
            category: label(message.category.as_deref()).unwrap_or_default(),
            seen: false,
            is_read: false,
            clicked: false,
            last_position: event.position.0,
        }
    }

    const fn marked(mut self, event: &Event) -> Self {
        self.seen |= is_mark(event);
        self.is_read |= matches!(event, Event::InboxRead | Event::InboxClicked);
        self.clicked |= matches!(event, Event::InboxClicked);
        self
    }
}

impl DailyCount {
    /// Counts everything but what counts the first time only.
    fn add(&mut self, event: &Event) {
        let count = match event {
            Event::MessageConflicted(_) => &mut self.messages_conflicted,
            Event::MessageCancelled(_) => &mut self.messages_cancelled,
            Event::InboxPresented => &mut self.items_appeared,
            Event::InboxDeleted => &mut self.items_deleted,
            Event::InboxExpired => &mut self.items_expired,
            Event::PushPlanned(it) => {
                self.deliveries_planned += i64::try_from(it.deliveries.len()).unwrap_or(i64::MAX);
                return;
            }
            Event::PushAttemptStarted(it) => {
                self.attempts_retried += i64::from(it.attempt > 1);
                &mut self.attempts_started
            }
            Event::PushAttemptFailed(_) => &mut self.attempts_failed,
            Event::PushAttemptLost(_) => &mut self.attempts_lost,
            Event::PushAttemptSucceeded(_) => &mut self.deliveries_accepted,
            Event::PushRescheduled(_) => &mut self.deliveries_reopened,
            Event::PushSuppressed(it) => match it.reason {
                SuppressReason::Expired => &mut self.deliveries_expired,
                SuppressReason::Cancelled => &mut self.deliveries_cancelled,
                SuppressReason::NoTarget => &mut self.deliveries_no_target,
                SuppressReason::OptedOut => &mut self.deliveries_opted_out,
                SuppressReason::Superseded => &mut self.deliveries_superseded,
                SuppressReason::Moved => &mut self.deliveries_moved,
            },
            Event::PushExhausted(it) => match it.verdict {
                Verdict::Failed => &mut self.deliveries_failed,
                Verdict::Unknown => &mut self.deliveries_unknown,
            },
            Event::PushReceipt(it) => match it.kind {
                ReceiptKind::Delivered => &mut self.deliveries_delivered,
                ReceiptKind::Opened => &mut self.deliveries_opened,
                ReceiptKind::Dismissed | ReceiptKind::InvalidTarget => return,
            },
            Event::MessageReceived(_)
            | Event::InboxSeen
            | Event::InboxRead
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::PushAttemptPending(_)
            | Event::MessageErased(_)
            | Event::Skipped(_) => return,
        };
        *count += 1;
    }
}

/// The first column of the rows that count an event.
fn slice(event: &Recorded) -> String {
    format!("{}/{}", Day::of(event.recorded_at), event.shard)
}

/// Changes what is counted on the event's day of a category.
fn count(rows: &mut Rows, event: &Recorded, category: &str, change: impl FnOnce(&mut DailyCount)) {
    let slice = slice(event);
    let has = |rows: &mut Rows, category: &str| rows.has::<DailyCount>(&slice, &[Value::text(category)]);
    let mut category = category;
    if !has(rows, category) && rows.count::<DailyCount>(&slice) >= CATEGORIES_MAX {
        category = OTHERS;
    }
    if !has(rows, category) {
        rows.put(DailyCount {
            slice: slice.clone(),
            category: category.to_owned(),
            day: Day::of(event.recorded_at).to_string(),
            shard: event.shard.0.into(),
            ..DailyCount::from_values(Vec::new())
        });
    }
    rows.change(&slice, &[Value::text(category)], |day: &mut DailyCount| {
        change(day);
        day.last_position = event.position.0;
    });
}

#[cfg(test)]
mod tests;
