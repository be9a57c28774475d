//! One message's history folded into its present state, and the rules for what may happen next.
//!
//! [`decide`] is where every rule about messages, inbox items and deliveries lives. It is asked under
//! the shard's lock, with the whole stream at hand, so its answer cannot be overtaken: a worker that
//! loses the race for a delivery gets no event and sends nothing (CLAIM-BY-APPEND). An attempt without
//! word is unknown, not failed, and no late word leaves a final state (LOST-IS-NOT-FAILED).

mod delivery;
mod report;

use std::{sync::Arc, time::Duration};

use self::delivery::{
    Delivery, Ending, Phase, Wanted, fail_over, lose, move_to, outcome, overdue, place_of, report,
    reschedule, start, suppress,
};
use crate::{
    clock::Timestamp,
    event::{
        Decision, Event, FailureClass, MessageConflicted, MessageReceived, PlannedDelivery, PushPlanned,
        PushSuppressed, ReceiptKind, RescheduleCause, SuppressReason, Verdict,
    },
    id::{DeliveryId, DeviceId, RecipientId},
    message::{Appearance, ContentHash, Message, Target},
};

pub use report::Report;

/// The present state of one message.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    origin: Option<Arc<Origin>>,
    conflicts: Vec<ContentHash>,
    cancelled: bool,
    item: Item,
    planned: bool,
    deliveries: Vec<Delivery>,
}

/// What came first.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The message that stays.
    pub message: Arc<Message>,
    /// The hash of its content.
    pub content_hash: ContentHash,
}

/// The inbox item's marks.
#[allow(clippy::struct_excessive_bools, reason = "four independent marks are four bools")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Item {
    seen: bool,
    read: bool,
    archived: bool,
    clicked: bool,
    place: Place,
}

/// Where a message stands with the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// It never was in it.
    #[default]
    Outside,
    /// It appears later.
    Waiting,
    /// It is in it.
    Shown,
    /// Its recipient removed it.
    Deleted,
    /// Its time was over.
    Expired,
}

/// What somebody wants to happen to a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A message arrived.
    Receive(Box<Receive>),
    /// The recipient did something with the inbox item.
    Mark {
        /// Whose inbox; a stranger's message is [`Refusal::UnknownMessage`].
        recipient: RecipientId,
        /// What they did.
        mark: Mark,
    },
    /// The time may have come when its inbox item appears or goes.
    Present,
    /// Targets are known now, or there will be none.
    Plan {
        /// One a target; none suppresses what has expired.
        deliveries: Vec<PlannedDelivery>,
        /// Nobody and nothing would take it: without deliveries it ends here.
        is_nowhere: bool,
    },
    /// Claims a due delivery for a call.
    StartAttempt {
        /// Which.
        delivery_id: DeliveryId,
        /// Who, until when.
        claim: Claim,
    },
    /// The call came back.
    RecordOutcome {
        /// Which.
        delivery_id: DeliveryId,
        /// Which attempt.
        attempt: u32,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// What it came to.
        result: AttemptResult,
        /// How the delivery may go to the next provider of its route.
        failover: Failover,
    },
    /// The lease ran out without word.
    LoseAttempt {
        /// Which.
        delivery_id: DeliveryId,
        /// Which attempt.
        attempt: u32,
        /// What follows.
        decision: Decision,
        /// How the delivery may go to the next provider of its route.
        failover: Failover,
    },
    /// Its provider cannot take it: gives a waiting delivery to the next of its route.
    FailOver {
        /// Which.
        delivery_id: DeliveryId,
        /// From whom, as the asker knows it.
        from: String,
        /// Why, for people.
        reason: String,
        /// Who can take it.
        able: Able,
    },
    /// Somebody wants it sent at this time, though it waits or has ended. Never what was accepted.
    Reschedule {
        /// Which.
        delivery_id: DeliveryId,
        /// Through whom; none leaves it where it is.
        provider: Option<String>,
        /// Not before.
        due_at: Timestamp,
        /// What it comes from.
        cause: RescheduleCause,
        /// Why, for people.
        reason: String,
    },
    /// It is not to be sent; what is under way is not called back.
    Suppress {
        /// Which.
        delivery_id: DeliveryId,
        /// Why.
        reason: SuppressReason,
    },
    /// Its device has another target by now: sends it there instead, or nowhere where nobody can.
    Move {
        /// Which.
        delivery_id: DeliveryId,
        /// The delivery that would take its place if it were planned now.
        afresh: Option<Box<PlannedDelivery>>,
        /// The new target, and the device.
        to: Box<(Target, DeviceId)>,
        /// Providers that know this device; what is left of the delivery's own route comes first.
        fits: Arc<[String]>,
    },
    /// Word from the device.
    Report {
        /// Which.
        delivery_id: DeliveryId,
        /// What it says.
        kind: ReceiptKind,
        /// More, in the words of who told.
        detail: Option<String>,
    },
}

/// An arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Receive {
    /// What came.
    pub message: Arc<Message>,
    /// The hash of its content.
    pub content_hash: ContentHash,
    /// Its deliveries, where they are known already.
    pub plan: Vec<PlannedDelivery>,
    /// Nobody and nothing would take its push: it ends as it begins.
    pub is_nowhere: bool,
    /// Starts the first attempt of every due delivery in the same transaction, where there is room.
    pub claim: Option<Claim>,
}

/// Who holds an attempt, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The worker.
    pub worker: String,
    /// From then on the attempt counts as lost.
    pub lease_until: Timestamp,
}

/// What a recipient can do with an inbox item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It was in the list that was shown.
    Seen,
    /// It was opened.
    Read,
    /// It was followed to where it leads.
    Click,
    /// It counts as new again.
    Unread,
    /// It was put away.
    Archive,
    /// It was brought back.
    Unarchive,
    /// It was removed.
    Delete,
}

/// What a call came to, with the decision that follows from a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptResult {
    /// The provider took it.
    Accepted {
        /// The provider's id.
        provider_message_id: Option<String>,
        /// HTTP status.
        status: Option<u16>,
    },
    /// The provider took it for now.
    Pending {
        /// What its final word is asked for with.
        ticket: String,
        /// When to ask (again).
        ask_at: Timestamp,
    },
    /// It did not.
    Failed {
        /// What kind of failure.
        class: FailureClass,
        /// The provider's code.
        code: String,
        /// HTTP status.
        status: Option<u16>,
        /// What it said.
        answer: Option<String>,
        /// What follows.
        decision: Decision,
    },
}

/// Why a command changes nothing. Not an error of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such message, or not this recipient's.
    #[error("there is no such message for this recipient")]
    UnknownMessage,
    /// The message is not (or no longer) in the inbox.
    #[error("the message is not in the inbox")]
    NotInInbox,
    /// The message has no such delivery.
    #[error("the message has no such delivery")]
    UnknownDelivery,
    /// No call was ever made for it, so no device can know of it.
    #[error("the delivery was never sent")]
    NeverSent,
    /// Somebody else was faster, or it is not due yet, or it is over.
    #[error("the delivery is not waiting for this any more")]
    LostRace,
    /// A provider took it; it is never sent again.
    #[error("the delivery was accepted by a provider, and is not sent again")]
    AlreadyAccepted,
    /// Too late: the message says so.
    #[error("the message has expired")]
    Expired,
    /// The same message again.
    #[error("the message is in the log already")]
    Redelivered,
    /// The same id with other content, and that content is on record already.
    #[error("the message id is taken by other content, as recorded before")]
    ConflictKnown,
}

/// Which providers can be given something now: are configured, and neither paused nor left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Able {
    /// Whoever is planned; for those that know nothing of providers.
    All,
    /// These.
    Only(Arc<[String]>),
}

/// How a delivery may go to the next provider of its route, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// How long the present one may try.
    pub after: Duration,
    /// Whether the next one may be called where nobody knows whether the present one took it.
    pub after_unknown: bool,
    /// Who can take it.
    pub able: Able,
    /// Who can take it now or later; asked where it would be given up.
    pub configured: Able,
}

impl Able {
    fn has(&self, provider: &String) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(provider),
        }
    }
}

impl Stream {
    /// What came first, if anything did.
    #[must_use]
    pub const fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// Takes in the next event of this message, recorded at this time.
    pub fn apply(&mut self, event: &Event, recorded_at: Timestamp, content_hash: Option<ContentHash>) {
        match event {
            Event::MessageReceived(it) => {
                self.item.place = match it.message.appears(recorded_at) {
                    Appearance::Never => Place::Outside,
                    Appearance::AtOnce => Place::Shown,
                    Appearance::Later(_) => Place::Waiting,
                };
                let content_hash = content_hash.unwrap_or(ContentHash([0; 32]));
                self.origin = Some(Arc::new(Origin { message: Arc::clone(&it.message), content_hash }));
            }
            Event::MessageConflicted(it) => self.conflicts.push(it.content_hash),
            Event::MessageCancelled(_) => {
                self.cancelled = true;
                if self.item.place == Place::Waiting {
                    self.item.place = Place::Outside;
                }
            }
            Event::InboxSeen => self.item.seen = true,
            Event::InboxRead => (self.item.seen, self.item.read) = (true, true),
            Event::InboxClicked => {
                (self.item.seen, self.item.read, self.item.clicked) = (true, true, true);
            }
            Event::InboxUnread => self.item.read = false,
            Event::InboxArchived => self.item.archived = true,
            Event::InboxUnarchived => self.item.archived = false,
            Event::InboxDeleted => self.item.place = Place::Deleted,
            Event::InboxPresented => self.item.place = Place::Shown,
            Event::InboxExpired => self.item.place = Place::Expired,
            Event::PushPlanned(it) => {
                self.planned = true;
                for plan in &it.deliveries {
                    self.plan(plan.clone());
                }
            }
            Event::PushAttemptStarted(it) => self.with(it.delivery_id, |delivery| {
                delivery.attempts = it.attempt;
                delivery.called.push(it.provider.clone());
                delivery.phase = Phase::Attempting { lease_until: it.lease_until };
            }),
            Event::PushAttemptSucceeded(it) => self.with(it.delivery_id, |delivery| {
                delivery.heard.push(it.attempt);
                if it.settles {
                    delivery.phase = Phase::Accepted;
                }
            }),
            Event::PushAttemptPending(it) => self.with(it.delivery_id, |delivery| {
                if it.settles {
                    delivery.phase = Phase::Pending { since: it.since, ask_at: it.ask_at };
                } else {
                    delivery.heard.push(it.attempt);
                }
            }),
            Event::PushAttemptFailed(it) => self.with(it.delivery_id, |delivery| {
                delivery.heard.push(it.attempt);
                if it.settles {
                    delivery.follow(&it.decision);
                }
            }),
            Event::PushAttemptLost(it) => {
                self.with(it.delivery_id, |delivery| delivery.follow(&it.decision));
            }
            Event::PushSuppressed(it) => {
                // Before there is a plan it ends whatever would have been planned.
                self.planned = true;
                let is_moved = it.reason == SuppressReason::Moved;
                let phase = if is_moved { Phase::Moved } else { Phase::Suppressed };
                self.with(it.delivery_id, |delivery| delivery.phase = phase);
            }
            Event::PushExhausted(it) => self.with(it.delivery_id, |delivery| {
                delivery.phase = match it.verdict {
                    Verdict::Failed => Phase::Failed,
                    Verdict::Unknown => Phase::Unknown,
                };
            }),
            Event::PushRescheduled(it) => self.with(it.delivery_id, |delivery| {
                if delivery.provider != it.provider || it.reopens.is_some() {
                    delivery.provider.clone_from(&it.provider);
                    delivery.since = it.due_at;
                }
                delivery.phase = Phase::Scheduled { due_at: it.due_at };
            }),
            Event::PushReceipt(it) => self.with(it.delivery_id, |delivery| delivery.receipts.push(it.kind)),
            Event::MessageErased(_) | Event::Skipped(_) => {}
        }
    }

    /// Takes in a delivery; one that gave up its place before has it again, with the attempts it had.
    fn plan(&mut self, plan: PlannedDelivery) {
        let new = Delivery::new(plan);
        match self.deliveries.iter_mut().find(|it| it.plan.delivery_id == new.plan.delivery_id) {
            Some(known) => {
                known.phase = new.phase;
                (known.plan, known.provider, known.since) = (new.plan, new.provider, new.since);
            }
            None => self.deliveries.push(new),
        }
    }

    fn with(&mut self, id: DeliveryId, change: impl FnOnce(&mut Delivery)) {
        if let Some(delivery) = self.deliveries.iter_mut().find(|it| it.plan.delivery_id == id) {
            change(delivery);
        }
    }

    fn delivery(&self, id: DeliveryId) -> Result<&Delivery, Refusal> {
        self.deliveries.iter().find(|it| it.plan.delivery_id == id).ok_or(Refusal::UnknownDelivery)
    }
}

/// What `command` means for a message in this state; an empty answer means "already so".
///
/// # Errors
/// A [`Refusal`] when the command does not fit the state; nothing is to be appended then.
pub fn decide(state: &Stream, command: &Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    match command {
        Command::Receive(it) => receive(state, it, now),
        Command::Mark { recipient, mark } => mark_item(state, recipient, *mark),
        Command::Present => present(state, now),
        Command::Plan { deliveries, is_nowhere } => plan(state, deliveries, *is_nowhere, now),
        Command::StartAttempt { delivery_id, claim } => {
            start(state.delivery(*delivery_id)?, state.cancelled, claim, now)
        }
        Command::RecordOutcome { delivery_id, attempt, duration_ms, result, failover } => {
            let delivery = state.delivery(*delivery_id)?;
            let ended = Ending { attempt: *attempt, duration_ms: *duration_ms, failover };
            outcome(delivery, &ended, result, now)
        }
        Command::LoseAttempt { delivery_id, attempt, decision, failover } => {
            lose(state.delivery(*delivery_id)?, *attempt, decision, failover, now)
        }
        Command::FailOver { delivery_id, from, reason, able } => {
            fail_over(state.delivery(*delivery_id)?, from, reason, able, now)
        }
        Command::Reschedule { delivery_id, provider, due_at, cause, reason } => {
            let delivery = state.delivery(*delivery_id)?;
            let wanted = Wanted { provider: provider.as_ref(), due_at: *due_at, cause: *cause, reason };
            reschedule(delivery, state.cancelled, &wanted)
        }
        Command::Suppress { delivery_id, reason } => match (state.delivery(*delivery_id), &state.origin) {
            // What stands for deliveries that are not planned yet.
            (Err(_), Some(origin))
                if !state.planned
                    && origin.message.for_push()
                    && *delivery_id == DeliveryId::stand_in(&origin.message.message_id) =>
            {
                Ok(vec![Event::PushSuppressed(PushSuppressed { delivery_id: *delivery_id, reason: *reason })])
            }
            (delivery, _) => suppress(delivery?, *reason),
        },
        Command::Move { delivery_id, afresh, to, fits } => {
            let delivery = state.delivery(*delivery_id)?;
            let origin = state.origin.as_ref().ok_or(Refusal::UnknownMessage)?;
            let new_id = DeliveryId::new(&origin.message.message_id, &to.0.canonical());
            let place = place_of(delivery, new_id, to, fits).or_else(|| afresh.as_deref().cloned());
            move_to(delivery, place.as_ref(), state.delivery(new_id).ok(), now)
        }
        Command::Report { delivery_id, kind, detail } => {
            report(state.delivery(*delivery_id)?, *kind, detail.as_ref())
        }
    }
}

fn receive(state: &Stream, arrival: &Receive, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    if let Some(origin) = &state.origin {
        return if origin.content_hash == arrival.content_hash {
            Err(Refusal::Redelivered)
        } else if state.conflicts.contains(&arrival.content_hash) {
            Err(Refusal::ConflictKnown)
        } else {
            let (content_hash, message) = (arrival.content_hash, Arc::clone(&arrival.message));
            Ok(vec![Event::MessageConflicted(MessageConflicted { content_hash, message })])
        };
    }
    let mut events = vec![Event::MessageReceived(MessageReceived { message: Arc::clone(&arrival.message) })];
    if !arrival.plan.is_empty() {
        events.push(Event::PushPlanned(PushPlanned { deliveries: arrival.plan.clone() }));
    }
    if arrival.is_nowhere && arrival.plan.is_empty() && arrival.message.for_push() {
        let delivery_id = DeliveryId::stand_in(&arrival.message.message_id);
        let reason = SuppressReason::NoTarget;
        events.push(Event::PushSuppressed(PushSuppressed { delivery_id, reason }));
    }
    for plan in &arrival.plan {
        if let Some(claim) = &arrival.claim {
            let delivery = Delivery::new(plan.clone());
            events.extend(start(&delivery, false, claim, now).unwrap_or_default());
        }
    }
    Ok(events)
}

fn mark_item(state: &Stream, recipient: &RecipientId, mark: Mark) -> Result<Vec<Event>, Refusal> {
    let origin = state.origin.as_ref().ok_or(Refusal::UnknownMessage)?;
    if origin.message.recipient_id != *recipient {
        return Err(Refusal::UnknownMessage);
    }
    let Item { seen, read, archived, clicked, place } = state.item;
    if place != Place::Shown && !(place == Place::Deleted && mark == Mark::Delete) {
        return Err(Refusal::NotInInbox);
    }
    let (already_so, event) = match mark {
        Mark::Seen => (seen, Event::InboxSeen),
        Mark::Read => (read, Event::InboxRead),
        // The first click counts, unless the item was made unread since.
        Mark::Click => (clicked && read, Event::InboxClicked),
        Mark::Unread => (!read, Event::InboxUnread),
        Mark::Archive => (archived, Event::InboxArchived),
        Mark::Unarchive => (!archived, Event::InboxUnarchived),
        Mark::Delete => (place == Place::Deleted, Event::InboxDeleted),
    };
    Ok(if already_so { Vec::new() } else { vec![event] })
}

fn present(state: &Stream, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let message = &state.origin.as_ref().ok_or(Refusal::UnknownMessage)?.message;
    let is_over = message.expires_at.is_some_and(|end| end <= now);
    Ok(match state.item.place {
        Place::Waiting | Place::Shown if is_over => vec![Event::InboxExpired],
        Place::Waiting if message.deliver_at.is_none_or(|at| at <= now) => vec![Event::InboxPresented],
        Place::Outside | Place::Waiting | Place::Shown | Place::Deleted | Place::Expired => Vec::new(),
    })
}

fn plan(
    state: &Stream,
    deliveries: &[PlannedDelivery],
    is_nowhere: bool,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let origin = state.origin.as_ref().ok_or(Refusal::UnknownMessage)?;
    if state.planned || !origin.message.for_push() {
        return Ok(Vec::new());
    }
    if deliveries.is_empty() {
        let expired = origin.message.expires_at.is_some_and(|end| end <= now);
        let reason = match (state.cancelled, expired, is_nowhere) {
            (true, _, _) => SuppressReason::Cancelled,
            (_, true, _) => SuppressReason::Expired,
            (_, _, true) => SuppressReason::NoTarget,
            (false, false, false) => return Ok(Vec::new()),
        };
        let delivery_id = DeliveryId::stand_in(&origin.message.message_id);
        return Ok(vec![Event::PushSuppressed(PushSuppressed { delivery_id, reason })]);
    }
    let mut events = vec![Event::PushPlanned(PushPlanned { deliveries: deliveries.to_vec() })];
    for plan in deliveries {
        events.extend(overdue(&Delivery::new(plan.clone()), state.cancelled, now));
    }
    Ok(events)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
