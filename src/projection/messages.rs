//! The messages projection: one row a message, with its state on both axes.
//!
//! How it was delivered and what the recipient did with it, for search and audit. It counts
//! deliveries by how they ended; the row of each stands in the deliveries projection.

use super::{Ddl, Keys, Projection, Row, Rows, Table, label};
use crate::{
    clock::Timestamp,
    event::{Ended, Event, ReceiptKind, Recorded, SuppressReason, Verdict},
    message::{Channels, Message},
};

crate::words! {
    /// What became of a message's pushes, all deliveries taken together.
    enum PushState {
        /// It is not to be pushed.
        None = "none",
        /// A delivery is still open, or they are not known yet.
        Pending = "pending",
        /// Every delivery was accepted.
        Accepted = "accepted",
        /// Some were accepted, others were not.
        Partial = "partial",
        /// None was accepted, and at least one failed.
        Failed = "failed",
        /// None was sent, on purpose.
        Suppressed = "suppressed",
        /// None was accepted as far as is known, and of at least one nobody knows.
        Unknown = "unknown",
    }

    /// What the recipient did with the inbox item; the furthest step.
    enum Engagement {
        /// It is not in the inbox.
        None = "none",
        /// Not shown yet.
        Unseen = "unseen",
        /// Shown, not read.
        Seen = "seen",
        /// Read.
        Read = "read",
        /// Put away.
        Archived = "archived",
        /// Removed from the inbox.
        Deleted = "deleted",
    }
}

crate::rows! {
    /// One message.
    struct MessageRow in "messages", key 1 {
        /// Which message.
        message_id: String,
        /// Who it is for.
        recipient_id: String,
        /// The shard of the recipient.
        shard: i64,
        /// Where `message.received` stands in the shard.
        position: i64,
        /// Which producer.
        source: Option<String>,
        /// The door it came in by.
        ingress: Option<String>,
        /// What kind of news this is.
        category: Option<String>,
        /// The headline; empty once erased.
        title: String,
        /// As in the contract, with a comma between: `APP_NOTIFICATION,PUSH`.
        channels: String,
        /// When the ledger wrote it down.
        received_at_us: Timestamp,
        /// When it happened, in the producer's word.
        occurred_at_us: Option<Timestamp>,
        /// Not pushed before.
        deliver_at_us: Option<Timestamp>,
        /// Not pushed after.
        expires_at_us: Option<Timestamp>,
        /// How often the id came with yet other content.
        conflicts: i64,
        /// How many deliveries there are.
        deliveries: i64,
        /// How many of them a provider took.
        accepted: i64,
        /// How many were given up after a failure.
        failed: i64,
        /// How many were given up without anybody knowing.
        unknown: i64,
        /// How many were not sent on purpose.
        suppressed: i64,
        /// How many calls were started, all deliveries taken together.
        attempts: i64,
        /// What that comes to.
        push_state: PushState,
        /// When a provider first took one.
        first_accepted_at_us: Option<Timestamp>,
        /// When one was first known to have reached a device.
        first_delivered_at_us: Option<Timestamp>,
        /// When one was first known to have been opened.
        first_opened_at_us: Option<Timestamp>,
        /// What the recipient did.
        engagement: Engagement,
        /// When it was first shown.
        seen_at_us: Option<Timestamp>,
        /// When it was read, unless it is unread (again).
        read_at_us: Option<Timestamp>,
        /// When it was put away, unless it was brought back.
        archived_at_us: Option<Timestamp>,
        /// When it was removed from the inbox.
        deleted_at_us: Option<Timestamp>,
        /// When it was cancelled.
        cancelled_at_us: Option<Timestamp>,
        /// When personal data was removed.
        erased_at_us: Option<Timestamp>,
        /// The code of the last failure of any delivery.
        last_error: Option<String>,
        /// The last event that changed this row.
        last_position: i64,
    }
}

/// The messages projection.
#[derive(Debug, Clone, Copy)]
pub struct Messages;

impl Projection for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static Table] {
        &[MessageRow::TABLE]
    }

    fn ddl(&self) -> Ddl {
        Ddl {
            sqlite: include_str!("../../projections/messages/sqlite.sql"),
            postgres: include_str!("../../projections/messages/postgres.sql"),
            mysql: include_str!("../../projections/messages/mysql.sql"),
        }
    }

    fn touches<'e>(&self, event: &'e Recorded, keys: &mut Keys<'e>) {
        match &event.body {
            Event::MessageReceived(_) => keys.fresh::<MessageRow>(event.message_id.as_str()),
            _ => keys.want::<MessageRow>(event.message_id.as_str()),
        }
    }

    fn fold(&self, event: &Recorded, rows: &mut Rows) {
        if let Event::MessageReceived(it) = &event.body {
            rows.put(MessageRow::new(&it.message, event));
            return;
        }
        rows.change(event.message_id.as_str(), &[], |row: &mut MessageRow| {
            row.apply(&event.body, event.occurred_at);
            row.push_state = row.push_state();
            row.engagement = row.engagement();
            row.last_position = event.position.0;
        });
    }
}

impl MessageRow {
    fn new(message: &Message, event: &Recorded) -> Self {
        let Channels { inbox, push } = message.notification_type;
        Self {
            message_id: event.message_id.to_string(),
            recipient_id: event.recipient_id.to_string(),
            shard: event.shard.0.into(),
            position: event.position.0,
            source: label(message.source.as_deref()),
            ingress: event.metadata.ingress.clone(),
            category: label(message.category.as_deref()),
            title: message.title.clone(),
            channels: channels(message.notification_type).to_owned(),
            received_at_us: event.recorded_at,
            occurred_at_us: message.occurred_at,
            deliver_at_us: message.deliver_at,
            expires_at_us: message.expires_at,
            conflicts: 0,
            deliveries: 0,
            accepted: 0,
            failed: 0,
            unknown: 0,
            suppressed: 0,
            attempts: 0,
            push_state: if push { PushState::Pending } else { PushState::None },
            first_accepted_at_us: None,
            first_delivered_at_us: None,
            first_opened_at_us: None,
            engagement: if inbox { Engagement::Unseen } else { Engagement::None },
            seen_at_us: None,
            read_at_us: None,
            archived_at_us: None,
            deleted_at_us: None,
            cancelled_at_us: None,
            erased_at_us: None,
            last_error: None,
            last_position: event.position.0,
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::MessageConflicted(_) => self.conflicts += 1,
            Event::MessageCancelled(_) => self.cancelled_at_us = Some(at),
            Event::MessageErased(_) => {
                self.title.clear();
                self.erased_at_us = Some(at);
            }
            Event::InboxSeen => _ = self.seen_at_us.get_or_insert(at),
            Event::InboxRead => {
                self.seen_at_us.get_or_insert(at);
                self.read_at_us = Some(at);
            }
            Event::InboxClicked => {
                self.seen_at_us.get_or_insert(at);
                self.read_at_us.get_or_insert(at);
            }
            Event::InboxUnread => self.read_at_us = None,
            Event::InboxArchived => self.archived_at_us = Some(at),
            Event::InboxUnarchived => self.archived_at_us = None,
            Event::InboxDeleted => self.deleted_at_us = Some(at),
            Event::PushPlanned(it) => self.deliveries += count(it.deliveries.len()),
            Event::PushAttemptStarted(_) => self.attempts += 1,
            Event::PushAttemptSucceeded(it) if it.settles => {
                self.accepted += 1;
                self.first_accepted_at_us.get_or_insert(at);
            }
            Event::PushAttemptFailed(it) if it.settles => self.last_error = Some(it.code.clone()),
            // A word that came too late decides nothing any more, and what time does nobody did.
            Event::PushAttemptSucceeded(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptPending(_)
            | Event::InboxPresented
            | Event::InboxExpired
            | Event::MessageReceived(_)
            | Event::Skipped(_) => {}
            Event::PushAttemptLost(_) => self.last_error = Some("lost".to_owned()),
            // Another takes its place, and is counted instead.
            Event::PushSuppressed(it) if it.reason == SuppressReason::Moved => self.deliveries -= 1,
            Event::PushSuppressed(_) => {
                // Without a plan it is the message as a whole that is not sent.
                self.deliveries = self.deliveries.max(1);
                self.suppressed += 1;
            }
            Event::PushRescheduled(it) => match it.reopens {
                Some(Ended::Failed) => self.failed -= 1,
                Some(Ended::Unknown) => self.unknown -= 1,
                Some(Ended::Suppressed) => self.suppressed -= 1,
                None => {}
            },
            Event::PushExhausted(it) => match it.verdict {
                Verdict::Failed => self.failed += 1,
                Verdict::Unknown => self.unknown += 1,
            },
            Event::PushReceipt(it) => match it.kind {
                ReceiptKind::Delivered => _ = self.first_delivered_at_us.get_or_insert(at),
                ReceiptKind::Opened => _ = self.first_opened_at_us.get_or_insert(at),
                ReceiptKind::Dismissed => {}
                ReceiptKind::InvalidTarget => self.last_error = Some("invalid_target".to_owned()),
            },
        }
    }

    /// All deliveries taken together.
    const fn push_state(&self) -> PushState {
        let over = self.accepted + self.failed + self.unknown + self.suppressed;
        if matches!(self.push_state, PushState::None) {
            PushState::None
        } else if self.deliveries == 0 || over < self.deliveries {
            PushState::Pending
        } else if self.accepted == over {
            PushState::Accepted
        } else if self.accepted > 0 {
            PushState::Partial
        } else if self.unknown > 0 {
            PushState::Unknown
        } else if self.failed > 0 {
            PushState::Failed
        } else {
            PushState::Suppressed
        }
    }

    /// The furthest step that holds.
    const fn engagement(&self) -> Engagement {
        if matches!(self.engagement, Engagement::None) {
            Engagement::None
        } else if self.deleted_at_us.is_some() {
            Engagement::Deleted
        } else if self.archived_at_us.is_some() {
            Engagement::Archived
        } else if self.read_at_us.is_some() {
            Engagement::Read
        } else if self.seen_at_us.is_some() {
            Engagement::Seen
        } else {
            Engagement::Unseen
        }
    }
}

/// The channels in the words of the contract.
const fn channels(channels: Channels) -> &'static str {
    match channels {
        Channels { inbox: true, push: true } => "APP_NOTIFICATION,PUSH",
        Channels { inbox: true, push: false } => "APP_NOTIFICATION",
        Channels { inbox: false, push: true } => "PUSH",
        Channels { inbox: false, push: false } => "",
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
