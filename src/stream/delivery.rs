//! One delivery's state, and the rules for what may happen to it next.
//!
//! Part of [`decide`](super::decide): asked under the shard's lock with the delivery's whole history.

use super::{Able, AttemptResult, Claim, Failover, Refusal};
use crate::{
    clock::Timestamp,
    event::{
        Decision, Ended, Event, FailureClass, PlannedDelivery, PushAttemptFailed, PushAttemptLost,
        PushAttemptPending, PushAttemptStarted, PushAttemptSucceeded, PushExhausted, PushPlanned,
        PushReceipt, PushRescheduled, PushSuppressed, ReceiptKind, RescheduleCause, SuppressReason, Verdict,
    },
    id::{DeliveryId, DeviceId},
    message::Target,
};

#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) plan: PlannedDelivery,
    /// The provider that is to take it at present.
    pub(super) provider: String,
    /// Since when it is that provider's.
    pub(super) since: Timestamp,
    pub(super) attempts: u32,
    /// Who was called with each attempt, the first first.
    pub(super) called: Vec<String>,
    pub(super) phase: Phase,
    /// Attempts whose outcome is recorded, in time or late.
    pub(super) heard: Vec<u32>,
    pub(super) receipts: Vec<ReceiptKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Scheduled {
        due_at: Timestamp,
    },
    Attempting {
        lease_until: Timestamp,
    },
    Pending {
        since: Timestamp,
        ask_at: Timestamp,
    },
    Accepted,
    Failed,
    Unknown,
    Suppressed,
    /// Another delivery has taken its place.
    Moved,
}

impl Delivery {
    pub(super) fn new(plan: PlannedDelivery) -> Self {
        let phase = Phase::Scheduled { due_at: plan.due_at };
        let (provider, since) = (plan.provider.clone(), plan.due_at);
        Self {
            plan,
            provider,
            since,
            attempts: 0,
            called: Vec::new(),
            phase,
            heard: Vec::new(),
            receipts: Vec::new(),
        }
    }

    /// `GiveUp` changes nothing by itself: `push.exhausted` follows and says how it ended.
    pub(super) const fn follow(&mut self, decision: &Decision) {
        if let Decision::RetryAt { at, .. } = decision {
            self.phase = Phase::Scheduled { due_at: *at };
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        !matches!(self.phase, Phase::Scheduled { .. } | Phase::Attempting { .. } | Phase::Pending { .. })
    }

    /// Who is to take it after its present provider, of those that can.
    pub(super) fn next_provider(&self, able: &Able) -> Option<&String> {
        self.rest_of_route().iter().find(|it| able.has(it))
    }

    /// Who comes after its present provider.
    fn rest_of_route(&self) -> &[String] {
        let fallbacks = &self.plan.fallbacks;
        let next = fallbacks.iter().position(|it| *it == self.provider).map_or(0, |at| at + 1);
        if next == 0 && self.provider != self.plan.provider {
            return &[];
        }
        fallbacks.get(next..).unwrap_or_default()
    }
}

/// The event that ends a delivery whose time is over, if it is.
pub(super) fn overdue(delivery: &Delivery, cancelled: bool, now: Timestamp) -> Option<Event> {
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

pub(super) fn start(
    delivery: &Delivery,
    cancelled: bool,
    claim: &Claim,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
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
        provider: delivery.provider.clone(),
        provider_key: delivery.plan.delivery_id.to_string(),
        lease_until: claim.lease_until,
        worker: claim.worker.clone(),
    })])
}

/// An attempt that has come to an end, or to a word for now.
pub(super) struct Ending<'a> {
    pub(super) attempt: u32,
    pub(super) duration_ms: u64,
    pub(super) failover: &'a Failover,
}

/// A first word on the attempt in flight settles it. A late one is recorded: an acceptance ends any
/// delivery that is still open, a failure changes nothing any more.
pub(super) fn outcome(
    delivery: &Delivery,
    ended: &Ending<'_>,
    result: &AttemptResult,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let (attempt, duration_ms) = (ended.attempt, ended.duration_ms);
    if attempt == 0 || attempt > delivery.attempts {
        return Err(Refusal::LostRace);
    }
    if delivery.heard.contains(&attempt) {
        // Asked again, because the answer of the first time was lost.
        return Ok(Vec::new());
    }
    let in_flight = matches!(delivery.phase, Phase::Attempting { .. } | Phase::Pending { .. })
        && attempt == delivery.attempts;
    // A late word may come from a provider that is not the present one any more.
    let called = usize::try_from(attempt - 1).ok().and_then(|at| delivery.called.get(at));
    let (delivery_id, provider) = (delivery.plan.delivery_id, called.unwrap_or(&delivery.provider).clone());
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
        AttemptResult::Pending { ticket, ask_at } => {
            // The same word again, or one that another worker was told as well.
            if matches!(delivery.phase, Phase::Pending { ask_at: known, .. } if *ask_at <= known) {
                return Ok(Vec::new());
            }
            vec![Event::PushAttemptPending(PushAttemptPending {
                delivery_id,
                attempt,
                provider,
                ticket: ticket.clone(),
                since: match delivery.phase {
                    Phase::Pending { since, .. } => since,
                    _ => now,
                },
                ask_at: *ask_at,
                duration_ms,
                settles: in_flight,
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
            if in_flight {
                events.extend(follows(delivery, *class, decision, ended.failover, now));
            }
            events
        }
    })
}

/// What follows from a failure that settles its attempt: the end, where it is given up; the next provider,
/// where that is better than waiting for this one, or than the end; else nothing.
fn follows(
    delivery: &Delivery,
    class: FailureClass,
    decision: &Decision,
    failover: &Failover,
    now: Timestamp,
) -> Option<Event> {
    let provider = &delivery.provider;
    let is_theirs = match class {
        FailureClass::Retry | FailureClass::AuthConfig => true,
        FailureClass::Unknown => failover.after_unknown,
        // Another provider would make no more of it.
        FailureClass::Permanent | FailureClass::InvalidTarget => false,
    };
    let next = delivery.next_provider(&failover.able).filter(|_| is_theirs);
    // Better to wait for one that cannot take it just now than for nobody.
    let last = || delivery.next_provider(&failover.configured).filter(|_| is_theirs);
    let next = next.or_else(|| matches!(decision, Decision::GiveUp { .. }).then(last).flatten());
    match (decision, next) {
        (Decision::GiveUp { policy }, Some(next)) => {
            Some(hand_over(delivery, next, format!("{provider} is given up: {policy}"), now))
        }
        (Decision::GiveUp { policy }, None) => {
            let unknown = class == FailureClass::Unknown;
            let verdict = if unknown { Verdict::Unknown } else { Verdict::Failed };
            Some(exhausted(delivery, verdict, policy))
        }
        (Decision::RetryAt { .. }, Some(next)) if class == FailureClass::AuthConfig => {
            let reason = format!("{provider} refuses our credentials or configuration");
            Some(hand_over(delivery, next, reason, now))
        }
        (Decision::RetryAt { at, .. }, Some(next)) if *at > delivery.since.plus(failover.after) => {
            let reason = format!("{provider} did not take it within {} s", failover.after.as_secs_f64());
            Some(hand_over(delivery, next, reason, now))
        }
        (Decision::RetryAt { .. }, _) => None,
    }
}

fn hand_over(delivery: &Delivery, to: &str, reason: String, now: Timestamp) -> Event {
    Event::PushRescheduled(PushRescheduled {
        delivery_id: delivery.plan.delivery_id,
        provider: to.to_owned(),
        due_at: now.max(delivery.plan.due_at),
        cause: RescheduleCause::Failover,
        reason,
        reopens: None,
    })
}

pub(super) fn fail_over(
    delivery: &Delivery,
    from: &str,
    reason: &str,
    able: &Able,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let waits = matches!(delivery.phase, Phase::Scheduled { .. }) && delivery.provider == from;
    let next = delivery.next_provider(able).filter(|_| waits).ok_or(Refusal::LostRace)?;
    Ok(vec![hand_over(delivery, next, reason.to_owned(), now)])
}

/// What somebody wants of a delivery.
pub(super) struct Wanted<'a> {
    pub(super) provider: Option<&'a String>,
    pub(super) due_at: Timestamp,
    pub(super) cause: RescheduleCause,
    pub(super) reason: &'a str,
}

pub(super) fn reschedule(
    delivery: &Delivery,
    cancelled: bool,
    wanted: &Wanted<'_>,
) -> Result<Vec<Event>, Refusal> {
    let reopens = match delivery.phase {
        // Replay takes up what has ended, and moves to another provider what waits for its own: the same
        // again would be counted twice.
        Phase::Scheduled { .. }
            if wanted.cause == RescheduleCause::Replay
                && wanted.provider.is_none_or(|it| *it == delivery.provider) =>
        {
            return Err(Refusal::LostRace);
        }
        Phase::Scheduled { .. } => None,
        Phase::Failed => Some(Ended::Failed),
        Phase::Unknown => Some(Ended::Unknown),
        Phase::Suppressed if !cancelled => Some(Ended::Suppressed),
        Phase::Accepted => return Err(Refusal::AlreadyAccepted),
        Phase::Attempting { .. } | Phase::Pending { .. } | Phase::Suppressed | Phase::Moved => {
            return Err(Refusal::LostRace);
        }
    };
    if delivery.plan.expires_at.is_some_and(|end| end <= wanted.due_at) {
        return Err(Refusal::Expired);
    }
    Ok(vec![Event::PushRescheduled(PushRescheduled {
        delivery_id: delivery.plan.delivery_id,
        provider: wanted.provider.unwrap_or(&delivery.provider).clone(),
        due_at: wanted.due_at,
        cause: wanted.cause,
        reason: wanted.reason.to_owned(),
        reopens,
    })])
}

pub(super) fn suppress(delivery: &Delivery, reason: SuppressReason) -> Result<Vec<Event>, Refusal> {
    let delivery_id = delivery.plan.delivery_id;
    match delivery.phase {
        Phase::Scheduled { .. } => Ok(vec![Event::PushSuppressed(PushSuppressed { delivery_id, reason })]),
        Phase::Suppressed | Phase::Moved => Ok(Vec::new()),
        Phase::Accepted => Err(Refusal::AlreadyAccepted),
        Phase::Attempting { .. } | Phase::Pending { .. } | Phase::Failed | Phase::Unknown => {
            Err(Refusal::LostRace)
        }
    }
}

/// The delivery to a device's new target, by whoever is left of the old one's route and knows the device.
pub(super) fn place_of(
    delivery: &Delivery,
    delivery_id: DeliveryId,
    (target, device_id): &(Target, DeviceId),
    fits: &[String],
) -> Option<PlannedDelivery> {
    let left = std::iter::once(&delivery.provider).chain(delivery.rest_of_route());
    let mut left = left.filter(|it| fits.contains(it)).cloned();
    Some(PlannedDelivery {
        delivery_id,
        target: target.clone(),
        device_id: Some(device_id.clone()),
        provider: left.next()?,
        fallbacks: left.collect(),
        ..delivery.plan.clone()
    })
}

/// A delivery that waits gives its place to another, or to nobody where there is none. One that is known
/// already stays as it is, unless it gave up its own place before.
pub(super) fn move_to(
    delivery: &Delivery,
    to: Option<&PlannedDelivery>,
    known: Option<&Delivery>,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let delivery_id = delivery.plan.delivery_id;
    if !matches!(delivery.phase, Phase::Scheduled { .. }) {
        return Err(Refusal::LostRace);
    }
    let suppressed = |reason| Event::PushSuppressed(PushSuppressed { delivery_id, reason });
    let Some(to) = to else { return Ok(vec![suppressed(SuppressReason::NoTarget)]) };
    if to.delivery_id == delivery_id {
        return Err(Refusal::LostRace);
    }
    if let Some(end) = overdue(delivery, false, now) {
        return Ok(vec![end]);
    }
    let mut events = vec![suppressed(SuppressReason::Moved)];
    if known.is_none_or(|it| it.phase == Phase::Moved) {
        // Its time goes on.
        let deliveries = vec![PlannedDelivery { due_at: delivery.since, ..to.clone() }];
        events.push(Event::PushPlanned(PushPlanned { deliveries }));
    }
    Ok(events)
}

/// The first word of its kind counts; the same again changes nothing.
pub(super) fn report(
    delivery: &Delivery,
    kind: ReceiptKind,
    detail: Option<&String>,
) -> Result<Vec<Event>, Refusal> {
    if delivery.attempts == 0 {
        return Err(Refusal::NeverSent);
    }
    if delivery.receipts.contains(&kind) {
        return Ok(Vec::new());
    }
    let delivery_id = delivery.plan.delivery_id;
    Ok(vec![Event::PushReceipt(PushReceipt { delivery_id, kind, detail: detail.cloned() })])
}

pub(super) fn lose(
    delivery: &Delivery,
    attempt: u32,
    decision: &Decision,
    failover: &Failover,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let Phase::Attempting { lease_until } = delivery.phase else { return Err(Refusal::LostRace) };
    if attempt != delivery.attempts || now < lease_until {
        return Err(Refusal::LostRace);
    }
    let mut events = vec![Event::PushAttemptLost(PushAttemptLost {
        delivery_id: delivery.plan.delivery_id,
        attempt,
        provider: delivery.provider.clone(),
        decision: decision.clone(),
    })];
    events.extend(follows(delivery, FailureClass::Unknown, decision, failover, now));
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
