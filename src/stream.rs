//! One message's history folded into its present state, and the rules for what may happen next.
//!
//! [`decide`] is where every rule about messages, inbox items and deliveries lives. It is asked under
//! the shard's lock, with the whole stream at hand, so its answer cannot be overtaken: a worker that
//! loses the race for a delivery gets no event and sends nothing (CLAIM-BY-APPEND). An attempt without
//! word is unknown, not failed, and no late word leaves a final state (LOST-IS-NOT-FAILED).

use std::sync::Arc;

use crate::{
    clock::Timestamp,
    event::{
        Decision, Event, FailureClass, MessageConflicted, MessageReceived, PlannedDelivery,
        PushAttemptFailed, PushAttemptLost, PushAttemptStarted, PushAttemptSucceeded, PushExhausted,
        PushPlanned, PushSuppressed, SuppressReason, Verdict,
    },
    id::{DeliveryId, RecipientId},
    message::{ContentHash, Message},
};

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
    deleted: bool,
}

#[derive(Debug, Clone)]
struct Delivery {
    plan: PlannedDelivery,
    attempts: u32,
    phase: Phase,
    /// Attempts whose outcome is recorded, in time or late.
    heard: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Scheduled { due_at: Timestamp },
    Attempting { lease_until: Timestamp },
    Accepted,
    Failed,
    Unknown,
    Suppressed,
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
    /// Targets are known now, or it is too late to wait for them.
    Plan {
        /// One a target; none suppresses what has expired.
        deliveries: Vec<PlannedDelivery>,
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
    },
    /// The lease ran out without word.
    LoseAttempt {
        /// Which.
        delivery_id: DeliveryId,
        /// Which attempt.
        attempt: u32,
        /// What follows.
        decision: Decision,
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
    /// Somebody else was faster, or it is not due yet, or it is over.
    #[error("the delivery is not waiting for this any more")]
    LostRace,
    /// The same message again.
    #[error("the message is in the log already")]
    Redelivered,
    /// The same id with other content, and that content is on record already.
    #[error("the message id is taken by other content, as recorded before")]
    ConflictKnown,
}

impl Stream {
    /// What came first, if anything did.
    #[must_use]
    pub const fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// Takes in the next event of this message.
    pub fn apply(&mut self, event: &Event, content_hash: Option<ContentHash>) {
        match event {
            Event::MessageReceived(it) => {
                let content_hash = content_hash.unwrap_or(ContentHash([0; 32]));
                self.origin = Some(Arc::new(Origin { message: Arc::clone(&it.message), content_hash }));
            }
            Event::MessageConflicted(it) => self.conflicts.push(it.content_hash),
            Event::MessageCancelled(_) => self.cancelled = true,
            Event::InboxSeen => self.item.seen = true,
            Event::InboxRead => (self.item.seen, self.item.read) = (true, true),
            Event::InboxUnread => self.item.read = false,
            Event::InboxArchived => self.item.archived = true,
            Event::InboxUnarchived => self.item.archived = false,
            Event::InboxDeleted => self.item.deleted = true,
            Event::PushPlanned(it) => {
                self.planned = true;
                self.deliveries.extend(it.deliveries.iter().cloned().map(Delivery::new));
            }
            Event::PushAttemptStarted(it) => self.with(it.delivery_id, |delivery| {
                delivery.attempts = it.attempt;
                delivery.phase = Phase::Attempting { lease_until: it.lease_until };
            }),
            Event::PushAttemptSucceeded(it) => self.with(it.delivery_id, |delivery| {
                delivery.heard.push(it.attempt);
                if it.settles {
                    delivery.phase = Phase::Accepted;
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
                self.with(it.delivery_id, |delivery| delivery.phase = Phase::Suppressed);
            }
            Event::PushExhausted(it) => self.with(it.delivery_id, |delivery| {
                delivery.phase = match it.verdict {
                    Verdict::Failed => Phase::Failed,
                    Verdict::Unknown => Phase::Unknown,
                };
            }),
            Event::PushReceipt(_) | Event::MessageErased(_) => {}
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

impl Delivery {
    const fn new(plan: PlannedDelivery) -> Self {
        let phase = Phase::Scheduled { due_at: plan.due_at };
        Self { plan, attempts: 0, phase, heard: Vec::new() }
    }

    /// `GiveUp` changes nothing by itself: `push.exhausted` follows and says how it ended.
    const fn follow(&mut self, decision: &Decision) {
        if let Decision::RetryAt { at, .. } = decision {
            self.phase = Phase::Scheduled { due_at: *at };
        }
    }

    const fn is_over(&self) -> bool {
        !matches!(self.phase, Phase::Scheduled { .. } | Phase::Attempting { .. })
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
        Command::Plan { deliveries } => plan(state, deliveries, now),
        Command::StartAttempt { delivery_id, claim } => {
            start(state.delivery(*delivery_id)?, state.cancelled, claim, now)
        }
        Command::RecordOutcome { delivery_id, attempt, duration_ms, result } => {
            outcome(state.delivery(*delivery_id)?, *attempt, *duration_ms, result)
        }
        Command::LoseAttempt { delivery_id, attempt, decision } => {
            lose(state.delivery(*delivery_id)?, *attempt, decision, now)
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
    let Item { seen, read, archived, deleted } = state.item;
    if !origin.message.for_inbox() || (deleted && mark != Mark::Delete) {
        return Err(Refusal::NotInInbox);
    }
    let (already_so, event) = match mark {
        Mark::Seen => (seen, Event::InboxSeen),
        Mark::Read => (read, Event::InboxRead),
        Mark::Unread => (!read, Event::InboxUnread),
        Mark::Archive => (archived, Event::InboxArchived),
        Mark::Unarchive => (!archived, Event::InboxUnarchived),
        Mark::Delete => (deleted, Event::InboxDeleted),
    };
    Ok(if already_so { Vec::new() } else { vec![event] })
}

fn plan(state: &Stream, deliveries: &[PlannedDelivery], now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let origin = state.origin.as_ref().ok_or(Refusal::UnknownMessage)?;
    if state.planned || !origin.message.for_push() {
        return Ok(Vec::new());
    }
    if deliveries.is_empty() {
        let expired = origin.message.expires_at.is_some_and(|end| end <= now);
        let delivery_id = DeliveryId::new(&origin.message.message_id, "");
        let end = PushSuppressed { delivery_id, reason: SuppressReason::Expired };
        return Ok(expired.then_some(Event::PushSuppressed(end)).into_iter().collect());
    }
    let mut events = vec![Event::PushPlanned(PushPlanned { deliveries: deliveries.to_vec() })];
    for plan in deliveries {
        events.extend(overdue(&Delivery::new(plan.clone()), state.cancelled, now));
    }
    Ok(events)
}

/// The event that ends a delivery whose time is over, if it is.
fn overdue(delivery: &Delivery, cancelled: bool, now: Timestamp) -> Option<Event> {
    let delivery_id = delivery.plan.delivery_id;
    if cancelled {
        let reason = SuppressReason::Cancelled;
        return Some(Event::PushSuppressed(PushSuppressed { delivery_id, reason }));
    }
    if delivery.plan.expires_at.is_none_or(|end| now < end) {
        return None;
    }
    Some(if delivery.attempts == 0 {
        Event::PushSuppressed(PushSuppressed { delivery_id, reason: SuppressReason::Expired })
    } else {
        exhausted(delivery, Verdict::Failed, "expired before the next attempt")
    })
}

fn start(delivery: &Delivery, cancelled: bool, claim: &Claim, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let Phase::Scheduled { due_at } = delivery.phase else { return Err(Refusal::LostRace) };
    if let Some(end) = overdue(delivery, cancelled, now) {
        return Ok(vec![end]);
    }
    if now < due_at {
        return Err(Refusal::LostRace);
    }
    Ok(vec![Event::PushAttemptStarted(PushAttemptStarted {
        delivery_id: delivery.plan.delivery_id,
        attempt: delivery.attempts + 1,
        provider: delivery.plan.provider.clone(),
        provider_key: delivery.plan.delivery_id.to_string(),
        lease_until: claim.lease_until,
        worker: claim.worker.clone(),
    })])
}

/// A first word on the attempt in flight settles it. A late one is recorded: an acceptance ends any
/// delivery that is still open, a failure changes nothing any more.
fn outcome(
    delivery: &Delivery,
    attempt: u32,
    duration_ms: u64,
    result: &AttemptResult,
) -> Result<Vec<Event>, Refusal> {
    if attempt == 0 || attempt > delivery.attempts {
        return Err(Refusal::LostRace);
    }
    if delivery.heard.contains(&attempt) {
        // Asked again, because the answer of the first time was lost.
        return Ok(Vec::new());
    }
    let in_flight = matches!(delivery.phase, Phase::Attempting { .. }) && attempt == delivery.attempts;
    let (delivery_id, provider) = (delivery.plan.delivery_id, delivery.plan.provider.clone());
    Ok(match result {
        AttemptResult::Accepted { provider_message_id, status } => {
            vec![Event::PushAttemptSucceeded(PushAttemptSucceeded {
                delivery_id,
                attempt,
                provider,
                provider_message_id: provider_message_id.clone(),
                status: *status,
                duration_ms,
                settles: !delivery.is_over(),
            })]
        }
        AttemptResult::Failed { class, code, status, answer, decision } => {
            let mut events = vec![Event::PushAttemptFailed(PushAttemptFailed {
                delivery_id,
                attempt,
                provider,
                class: *class,
                code: code.clone(),
                status: *status,
                answer: answer.clone(),
                duration_ms,
                decision: decision.clone(),
                settles: in_flight,
            })];
            if let (true, Decision::GiveUp { policy }) = (in_flight, decision) {
                let unknown = *class == FailureClass::Unknown;
                let verdict = if unknown { Verdict::Unknown } else { Verdict::Failed };
                events.push(exhausted(delivery, verdict, policy));
            }
            events
        }
    })
}

fn lose(
    delivery: &Delivery,
    attempt: u32,
    decision: &Decision,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let Phase::Attempting { lease_until } = delivery.phase else { return Err(Refusal::LostRace) };
    if attempt != delivery.attempts || now < lease_until {
        return Err(Refusal::LostRace);
    }
    let mut events = vec![Event::PushAttemptLost(PushAttemptLost {
        delivery_id: delivery.plan.delivery_id,
        attempt,
        provider: delivery.plan.provider.clone(),
        decision: decision.clone(),
    })];
    if let Decision::GiveUp { policy } = decision {
        events.push(exhausted(delivery, Verdict::Unknown, policy));
    }
    Ok(events)
}

fn exhausted(delivery: &Delivery, verdict: Verdict, reason: &str) -> Event {
    Event::PushExhausted(PushExhausted {
        delivery_id: delivery.plan.delivery_id,
        verdict,
        reason: reason.to_owned(),
        attempts: delivery.attempts,
    })
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
