//! The deliveries projection: every push to every target, and every attempt at it.
//!
//! The worker reads from it what is due, support reads from it what happened. It decides nothing:
//! whether an outcome counts, when to try again and how it ended stand in the events. A push that
//! has no deliveries yet has one row with status `unplanned` in their place, so that the worker
//! finds it among what is due.

mod attempt;

use super::{Ddl, Keys, Projection, Row, Rows, Table, Value};
use crate::{
    clock::Timestamp,
    event::{
        Decision, Event, FailureClass, PlannedDelivery, PushAttemptFailed, PushAttemptLost,
        PushAttemptPending, PushAttemptStarted, PushAttemptSucceeded, PushExhausted, PushReceipt,
        PushRescheduled, PushSuppressed, ReceiptKind, Recorded, Verdict,
    },
    id::DeliveryId,
    message::Message,
};

/// How much of a provider's answer a delivery shows, in characters; the attempt shows it whole.
const LAST_ERROR_MAX: usize = 200;

crate::words! {
    /// Where a delivery stands.
    enum DeliveryStatus {
        /// The targets are not resolved yet.
        Unplanned = "unplanned",
        /// Waits for its first attempt.
        Scheduled = "scheduled",
        /// Waits for its next attempt. Apart from the first ones, so that these never wait behind them.
        Retrying = "retrying",
        /// A worker holds it.
        Attempting = "attempting",
        /// A provider took it for now and is asked later what came of it.
        Pending = "pending",
        /// A provider took it.
        Accepted = "accepted",
        /// Given up: the last word was a failure.
        Failed = "failed",
        /// Not sent on purpose.
        Suppressed = "suppressed",
        /// Given up: nobody knows whether it arrived.
        Unknown = "unknown",
    }

    /// How an attempt ended.
    enum AttemptOutcome {
        /// The provider took it.
        Accepted = "accepted",
        /// A failure worth trying again.
        Retry = "retry",
        /// The target does not exist (any more).
        InvalidTarget = "invalid_target",
        /// This push can never be accepted.
        Permanent = "permanent",
        /// Credentials or configuration are wrong.
        AuthConfig = "auth_config",
        /// The request may or may not have been accepted.
        Unknown = "unknown",
        /// The lease ran out without word.
        Lost = "lost",
        /// The provider took it for now; its final word is not there yet.
        Pending = "pending",
    }
}

crate::rows! {
    /// One push of one message to one target.
    struct PushDelivery in "push_deliveries", key 2 {
        /// Which message.
        message_id: String,
        /// Which delivery; of the message and an empty target while unplanned.
        delivery_id: String,
        /// Who it is for.
        recipient_id: String,
        /// The shard of the recipient.
        shard: i64,
        /// Where `message.received` stands in the shard.
        position: i64,
        /// `token`, `topic` or `alias`; none while unplanned.
        target_kind: Option<String>,
        /// The value as the provider needs it; empty once erased, none while unplanned.
        target: Option<String>,
        /// The registered device that the target is of.
        device_id: Option<String>,
        /// The provider that is to take it, or was called last.
        provider: Option<String>,
        /// The planned provider and its fallbacks, with commas between; none where there are none.
        route: Option<String>,
        /// Of pushes with the same key only the newest is sent.
        collapse_key: Option<String>,
        /// Where it stands.
        status: DeliveryStatus,
        /// How many attempts were started.
        attempts: i64,
        /// How many of them do not count for its policy: those that met a refusal of our credentials or
        /// configuration, and all from before it was last rescheduled.
        uncounted: i64,
        /// When a worker has to look at it next: the next attempt, the end of the lease, the question for
        /// a receipt, or the planning. None once it is over.
        due_at_us: Option<Timestamp>,
        /// From when on its age counts: when it was first to be sent, or was taken up again.
        first_due_at_us: Timestamp,
        /// Since when the provider's final word is waited for, while it is.
        pending_since_us: Option<Timestamp>,
        /// Not sent after.
        expires_at_us: Option<Timestamp>,
        /// The kind of the last failure, none once accepted.
        last_class: Option<String>,
        /// The code of the last failure, or why it was suppressed.
        last_code: Option<String>,
        /// What the provider said to it, cut short, or why it was given up.
        last_error: Option<String>,
        /// The provider's id for it.
        provider_message_id: Option<String>,
        /// When it first was known to have reached the device.
        delivered_at_us: Option<Timestamp>,
        /// When a person was first known to have opened it.
        opened_at_us: Option<Timestamp>,
        /// When a person was first known to have swept it away.
        dismissed_at_us: Option<Timestamp>,
        /// When it was planned; when the message was received while unplanned.
        created_at_us: Timestamp,
        /// When it last changed.
        updated_at_us: Timestamp,
        /// The last event that changed this row.
        last_position: i64,
    }

    /// One call to a provider for one delivery.
    struct PushAttempt in "push_attempts", key 3 {
        /// Which message.
        message_id: String,
        /// Which delivery.
        delivery_id: String,
        /// 1, 2, 3 …
        attempt: i64,
        /// The shard of the recipient.
        shard: i64,
        /// Who was called.
        provider: String,
        /// Which worker held it.
        worker: String,
        /// When it was claimed, just before the call.
        started_at_us: Timestamp,
        /// From then on it counted as lost.
        lease_until_us: Timestamp,
        /// When the last word on it came.
        ended_at_us: Option<Timestamp>,
        /// How it ended; none while it is open.
        outcome: Option<AttemptOutcome>,
        /// The provider's code, or ours such as `timeout`.
        code: Option<String>,
        /// HTTP status.
        status: Option<i64>,
        /// What the provider said.
        answer: Option<String>,
        /// How long the call took.
        duration_ms: Option<i64>,
        /// The provider's id for it.
        provider_message_id: Option<String>,
        /// When it was to be tried again.
        retry_at_us: Option<Timestamp>,
        /// What was decided, and by which rule.
        decision: Option<String>,
        /// Whether the last word decided what became of the delivery.
        settles: bool,
        /// The last event that changed this row.
        last_position: i64,
    }
}

/// The deliveries projection.
#[derive(Debug, Clone, Copy)]
pub struct Deliveries;

impl Projection for Deliveries {
    fn name(&self) -> &'static str {
        "deliveries"
    }

    fn version(&self) -> i32 {
        3
    }

    fn tables(&self) -> &'static [&'static Table] {
        &[PushDelivery::TABLE, PushAttempt::TABLE]
    }

    fn ddl(&self) -> Ddl {
        Ddl {
            sqlite: include_str!("../../projections/deliveries/sqlite.sql"),
            postgres: include_str!("../../projections/deliveries/postgres.sql"),
            mysql: include_str!("../../projections/deliveries/mysql.sql"),
        }
    }

    fn touches<'e>(&self, event: &'e Recorded, keys: &mut Keys<'e>) {
        let message = event.message_id.as_str();
        match &event.body {
            Event::MessageReceived(it) if it.message.for_push() => {
                keys.fresh::<PushDelivery>(message);
                keys.fresh::<PushAttempt>(message);
            }
            // The attempt's own row is new.
            Event::PushPlanned(_)
            | Event::PushAttemptStarted(_)
            | Event::PushSuppressed(_)
            | Event::PushRescheduled(_)
            | Event::PushExhausted(_)
            | Event::PushReceipt(_) => keys.want::<PushDelivery>(message),
            Event::PushAttemptSucceeded(_)
            | Event::PushAttemptPending(_)
            | Event::PushAttemptFailed(_)
            | Event::PushAttemptLost(_)
            | Event::MessageErased(_) => {
                keys.want::<PushDelivery>(message);
                keys.want::<PushAttempt>(message);
            }
            Event::MessageReceived(_)
            | Event::MessageConflicted(_)
            | Event::MessageCancelled(_)
            | Event::InboxSeen
            | Event::InboxRead
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::InboxDeleted
            | Event::InboxPresented
            | Event::InboxExpired
            | Event::Skipped(_) => {}
        }
    }

    fn fold(&self, event: &Recorded, rows: &mut Rows) {
        match &event.body {
            Event::MessageReceived(it) if it.message.for_push() => {
                rows.put(PushDelivery::unplanned(&it.message, event));
            }
            Event::PushPlanned(it) => plan(rows, event, &it.deliveries),
            Event::PushAttemptStarted(it) => {
                rows.put(PushAttempt::started(it, event));
                on_delivery(rows, event, it.delivery_id, |delivery| delivery.start(it));
            }
            Event::PushAttemptSucceeded(it) => {
                on_attempt(rows, event, it.delivery_id, it.attempt, |attempt| attempt.succeed(it, event));
                if it.settles {
                    on_delivery(rows, event, it.delivery_id, |delivery| delivery.accept(it));
                }
            }
            Event::PushAttemptPending(it) => {
                on_attempt(rows, event, it.delivery_id, it.attempt, |attempt| attempt.wait(it, event));
                if it.settles {
                    on_delivery(rows, event, it.delivery_id, |delivery| delivery.wait(it));
                }
            }
            Event::PushAttemptFailed(it) => {
                on_attempt(rows, event, it.delivery_id, it.attempt, |attempt| attempt.fail(it, event));
                if it.settles {
                    on_delivery(rows, event, it.delivery_id, |delivery| delivery.fail(it));
                }
            }
            Event::PushAttemptLost(it) => {
                on_attempt(rows, event, it.delivery_id, it.attempt, |attempt| attempt.lose(it, event));
                on_delivery(rows, event, it.delivery_id, |delivery| delivery.lose(it));
            }
            Event::PushSuppressed(it) => {
                on_delivery(rows, event, it.delivery_id, |delivery| delivery.suppress(it));
            }
            Event::PushRescheduled(it) => {
                on_delivery(rows, event, it.delivery_id, |delivery| delivery.reschedule(it));
            }
            Event::PushExhausted(it) => {
                on_delivery(rows, event, it.delivery_id, |delivery| delivery.exhaust(it));
            }
            Event::PushReceipt(it) => {
                on_delivery(rows, event, it.delivery_id, |delivery| delivery.receipt(it, event.occurred_at));
            }
            Event::MessageErased(_) => erase(rows, event),
            Event::MessageReceived(_)
            | Event::MessageConflicted(_)
            | Event::MessageCancelled(_)
            | Event::InboxSeen
            | Event::InboxRead
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::InboxDeleted
            | Event::InboxPresented
            | Event::InboxExpired
            | Event::Skipped(_) => {}
        }
    }
}

impl PushDelivery {
    /// The row that stands for the deliveries of `message` until they are known.
    fn unplanned(message: &Message, event: &Recorded) -> Self {
        let received = event.recorded_at;
        let due_at = message.deliver_at.map_or(received, |it| it.max(received));
        Self {
            message_id: event.message_id.to_string(),
            delivery_id: DeliveryId::stand_in(&event.message_id).to_string(),
            recipient_id: event.recipient_id.to_string(),
            shard: event.shard.0.into(),
            position: event.position.0,
            target_kind: None,
            target: None,
            device_id: None,
            provider: None,
            route: None,
            collapse_key: message.collapse_key.clone(),
            status: DeliveryStatus::Unplanned,
            attempts: 0,
            uncounted: 0,
            due_at_us: Some(due_at),
            first_due_at_us: due_at,
            pending_since_us: None,
            expires_at_us: message.expires_at,
            last_class: None,
            last_code: None,
            last_error: None,
            provider_message_id: None,
            delivered_at_us: None,
            opened_at_us: None,
            dismissed_at_us: None,
            created_at_us: received,
            updated_at_us: received,
            last_position: event.position.0,
        }
    }

    /// In the place of the row that stood for it, where there was one.
    fn planned(plan: &PlannedDelivery, stand_in: Option<&Self>, event: &Recorded) -> Self {
        let chain = std::iter::once(&plan.provider).chain(&plan.fallbacks);
        let route = || chain.map(String::as_str).collect::<Vec<_>>().join(",");
        Self {
            message_id: event.message_id.to_string(),
            delivery_id: plan.delivery_id.to_string(),
            recipient_id: event.recipient_id.to_string(),
            shard: event.shard.0.into(),
            position: stand_in.map_or(event.position.0, |it| it.position),
            target_kind: Some(plan.target.kind().to_owned()),
            target: Some(plan.target.value().to_owned()),
            device_id: plan.device_id.as_ref().map(ToString::to_string),
            provider: Some(plan.provider.clone()),
            route: (!plan.fallbacks.is_empty()).then(route),
            collapse_key: stand_in.and_then(|it| it.collapse_key.clone()),
            status: DeliveryStatus::Scheduled,
            attempts: 0,
            uncounted: 0,
            due_at_us: Some(plan.due_at),
            first_due_at_us: plan.due_at,
            pending_since_us: None,
            expires_at_us: plan.expires_at,
            last_class: None,
            last_code: None,
            last_error: None,
            provider_message_id: None,
            delivered_at_us: None,
            opened_at_us: None,
            dismissed_at_us: None,
            created_at_us: event.occurred_at,
            updated_at_us: event.occurred_at,
            last_position: event.position.0,
        }
    }

    fn start(&mut self, it: &PushAttemptStarted) {
        self.status = DeliveryStatus::Attempting;
        self.attempts = it.attempt.into();
        self.provider = Some(it.provider.clone());
        self.due_at_us = Some(it.lease_until);
    }

    fn accept(&mut self, it: &PushAttemptSucceeded) {
        self.end(DeliveryStatus::Accepted);
        (self.last_class, self.last_code, self.last_error) = (None, None, None);
        self.provider = Some(it.provider.clone());
        self.provider_message_id.clone_from(&it.provider_message_id);
    }

    fn wait(&mut self, it: &PushAttemptPending) {
        self.status = DeliveryStatus::Pending;
        self.provider = Some(it.provider.clone());
        self.provider_message_id = Some(it.ticket.clone());
        self.pending_since_us = Some(it.since);
        self.due_at_us = Some(it.ask_at);
    }

    fn reschedule(&mut self, it: &PushRescheduled) {
        self.provider = Some(it.provider.clone());
        // A policy begins anew, wherever it goes now.
        self.uncounted = self.attempts;
        self.wait_until(it.due_at);
        if it.reopens.is_some() {
            self.first_due_at_us = it.due_at;
        }
    }

    /// Waits for its first or next attempt.
    const fn wait_until(&mut self, at: Timestamp) {
        self.status = if self.attempts == 0 { DeliveryStatus::Scheduled } else { DeliveryStatus::Retrying };
        (self.due_at_us, self.pending_since_us) = (Some(at), None);
    }

    fn fail(&mut self, it: &PushAttemptFailed) {
        self.uncounted += i64::from(it.class == FailureClass::AuthConfig);
        self.last_class = Some(it.class.as_str().to_owned());
        self.last_code = Some(it.code.clone());
        self.last_error = it.answer.as_deref().map(cut_short);
        self.follow(&it.decision);
    }

    /// A lost lease says nothing about a delivery that has moved on since.
    fn lose(&mut self, it: &PushAttemptLost) {
        if self.status == DeliveryStatus::Attempting && self.attempts == i64::from(it.attempt) {
            self.last_class = Some(FailureClass::Unknown.as_str().to_owned());
            self.last_code = Some(AttemptOutcome::Lost.as_str().to_owned());
            self.last_error = None;
            self.follow(&it.decision);
        }
    }

    /// Giving up changes nothing here: `push.exhausted` follows and says how it ended.
    const fn follow(&mut self, decision: &Decision) {
        if let Decision::RetryAt { at, .. } = decision {
            self.wait_until(*at);
        }
    }

    fn suppress(&mut self, it: &PushSuppressed) {
        self.end(DeliveryStatus::Suppressed);
        self.last_code = Some(it.reason.as_str().to_owned());
    }

    fn exhaust(&mut self, it: &PushExhausted) {
        self.end(match it.verdict {
            Verdict::Failed => DeliveryStatus::Failed,
            Verdict::Unknown => DeliveryStatus::Unknown,
        });
        self.last_error.get_or_insert_with(|| cut_short(&it.reason));
    }

    fn receipt(&mut self, it: &PushReceipt, at: Timestamp) {
        match it.kind {
            ReceiptKind::Delivered => _ = self.delivered_at_us.get_or_insert(at),
            ReceiptKind::Opened => _ = self.opened_at_us.get_or_insert(at),
            ReceiptKind::Dismissed => _ = self.dismissed_at_us.get_or_insert(at),
            ReceiptKind::InvalidTarget => {
                self.last_class = Some(FailureClass::InvalidTarget.as_str().to_owned());
                self.last_code = Some("receipt".to_owned());
                self.last_error = it.detail.as_deref().map(cut_short);
            }
        }
    }

    const fn end(&mut self, status: DeliveryStatus) {
        self.status = status;
        (self.due_at_us, self.pending_since_us) = (None, None);
    }
}

/// Puts the deliveries in the place of the row that stood for them.
fn plan(rows: &mut Rows, event: &Recorded, deliveries: &[PlannedDelivery]) {
    let stand_in = Value::text(DeliveryId::stand_in(&event.message_id).to_string());
    let mut stand_in = rows.remove::<PushDelivery>(event.message_id.as_str(), &[stand_in]);
    // What takes the place of another delivery has its message's place and key, as that one had.
    rows.change_all(event.message_id.as_str(), |it: &mut PushDelivery| {
        stand_in.get_or_insert_with(|| it.clone());
    });
    for delivery in deliveries {
        let new = PushDelivery::planned(delivery, stand_in.as_ref(), event);
        // One that gave up its place before has it again, with the attempts it had.
        let rest = [Value::text(new.delivery_id.clone())];
        let again = |known: &mut PushDelivery| {
            let before = known.clone();
            *known = PushDelivery {
                attempts: before.attempts,
                uncounted: before.uncounted,
                delivered_at_us: before.delivered_at_us,
                opened_at_us: before.opened_at_us,
                dismissed_at_us: before.dismissed_at_us,
                created_at_us: before.created_at_us,
                ..new.clone()
            };
            known.wait_until(delivery.due_at);
        };
        if !rows.change(event.message_id.as_str(), &rest, again) {
            rows.put(new);
        }
    }
}

fn on_delivery(
    rows: &mut Rows,
    event: &Recorded,
    delivery: DeliveryId,
    change: impl FnOnce(&mut PushDelivery),
) {
    let rest = [Value::text(delivery.to_string())];
    rows.change(event.message_id.as_str(), &rest, |row: &mut PushDelivery| {
        change(row);
        row.updated_at_us = event.occurred_at;
        row.last_position = event.position.0;
    });
}

fn on_attempt(
    rows: &mut Rows,
    event: &Recorded,
    delivery: DeliveryId,
    attempt: u32,
    change: impl FnOnce(&mut PushAttempt),
) {
    let rest = [Value::text(delivery.to_string()), Value::Int(attempt.into())];
    rows.change(event.message_id.as_str(), &rest, |row: &mut PushAttempt| {
        change(row);
        row.last_position = event.position.0;
    });
}

/// Takes away what may speak of a person: where it went, and what providers said.
fn erase(rows: &mut Rows, event: &Recorded) {
    let message = event.message_id.as_str();
    rows.change_all(message, |delivery: &mut PushDelivery| {
        delivery.target.as_mut().map(String::clear);
        delivery.last_error = None;
        delivery.updated_at_us = event.occurred_at;
        delivery.last_position = event.position.0;
    });
    rows.change_all(message, |attempt: &mut PushAttempt| {
        attempt.answer = None;
        attempt.last_position = event.position.0;
    });
}

fn cut_short(text: &str) -> String {
    text.chars().take(LAST_ERROR_MAX).collect()
}
