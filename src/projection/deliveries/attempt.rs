//! What the events of one call make of its row.

use super::{AttemptOutcome, PushAttempt};
use crate::event::{
    Decision, FailureClass, PushAttemptFailed, PushAttemptLost, PushAttemptPending, PushAttemptStarted,
    PushAttemptSucceeded, Recorded,
};

impl PushAttempt {
    pub(super) fn started(it: &PushAttemptStarted, event: &Recorded) -> Self {
        Self {
            message_id: event.message_id.to_string(),
            delivery_id: it.delivery_id.to_string(),
            attempt: it.attempt.into(),
            shard: event.shard.0.into(),
            provider: it.provider.clone(),
            worker: it.worker.clone(),
            started_at_us: event.occurred_at,
            lease_until_us: it.lease_until,
            ended_at_us: None,
            outcome: None,
            code: None,
            status: None,
            answer: None,
            duration_ms: None,
            provider_message_id: None,
            retry_at_us: None,
            decision: None,
            settles: false,
            last_position: event.position.0,
        }
    }

    /// Also a word after the lease: what is known now stands, what was decided then stays.
    pub(super) fn succeed(&mut self, it: &PushAttemptSucceeded, event: &Recorded) {
        self.end(AttemptOutcome::Accepted, event);
        self.code = None;
        self.status = it.status.map(i64::from);
        self.duration_ms = i64::try_from(it.duration_ms).ok();
        self.provider_message_id.clone_from(&it.provider_message_id);
        self.settles = it.settles;
    }

    pub(super) fn wait(&mut self, it: &PushAttemptPending, event: &Recorded) {
        self.end(AttemptOutcome::Pending, event);
        self.duration_ms.get_or_insert(i64::try_from(it.duration_ms).unwrap_or(i64::MAX));
        self.provider_message_id = Some(it.ticket.clone());
        self.settles = it.settles;
    }

    pub(super) fn fail(&mut self, it: &PushAttemptFailed, event: &Recorded) {
        self.end(it.class.into(), event);
        self.code = Some(it.code.clone());
        self.status = it.status.map(i64::from);
        self.answer.clone_from(&it.answer);
        self.duration_ms = i64::try_from(it.duration_ms).ok();
        self.settles = it.settles;
        if it.settles {
            self.decide(&it.decision);
        }
    }

    pub(super) fn lose(&mut self, it: &PushAttemptLost, event: &Recorded) {
        if self.outcome.is_none() {
            self.end(AttemptOutcome::Lost, event);
            self.settles = true;
            self.decide(&it.decision);
        }
    }

    fn decide(&mut self, decision: &Decision) {
        let (retry_at, text) = match decision {
            Decision::RetryAt { at, policy } => (Some(*at), format!("retry: {policy}")),
            Decision::GiveUp { policy } => (None, format!("give up: {policy}")),
        };
        (self.retry_at_us, self.decision) = (retry_at, Some(text));
    }

    const fn end(&mut self, outcome: AttemptOutcome, event: &Recorded) {
        self.outcome = Some(outcome);
        self.ended_at_us = Some(event.occurred_at);
    }
}

impl From<FailureClass> for AttemptOutcome {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Retry => Self::Retry,
            FailureClass::InvalidTarget => Self::InvalidTarget,
            FailureClass::Permanent => Self::Permanent,
            FailureClass::AuthConfig => Self::AuthConfig,
            FailureClass::Unknown => Self::Unknown,
        }
    }
}
