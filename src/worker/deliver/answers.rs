//! What the delivery worker makes of what its jobs came back with.

use std::{collections::HashSet, sync::Arc};

use tokio::{task::JoinError, time::Instant};

use super::{
    Deliver, NAME,
    health::{self, Change, Gate, Why},
    job::{Answer, Called, Deed, Done, Search, Words},
    lane::{Past, Sweep},
    receipt,
};
use crate::{
    clock::Timestamp,
    device::Obituary,
    event::{Decision, Event, FailureClass},
    id::DeliveryId,
    ledger::dispatch::Started,
    metric,
    provider::{
        Failure, Outcome, Receipts, RetryScope,
        retry::{self, Cause},
    },
    routing::Known,
    store::{Applied, Control, Due, DueCount, PauseCause},
    stream::{AttemptResult, Command, Origin},
    worker::{Trouble, WorkError},
};

impl Deliver {
    pub(super) fn take(&mut self, done: Result<Done, JoinError>) -> Result<(), WorkError> {
        match done.map_err(|error| WorkError::fatal("delivering", error))? {
            Done::Looked { search, limit, page } => match page {
                Ok(page) => {
                    self.reading.passed(NAME);
                    let more = page.len() == limit;
                    self.sweep(search).page(Some((page.last(), more)));
                    if search == Search::Unplanned && !more {
                        self.pace.ended(Instant::now());
                    }
                    self.take_page(search, page);
                }
                Err(error) => {
                    self.sweep(search).page(None);
                    self.meet("reading what is due", |it| &mut it.reading, &error);
                }
            },
            Done::Did { deed, answers } => self.take_answers(deed, answers),
            Done::Called(called) => self.take_call(called),
            Done::Asked { lane, answers, asked } => self.take_receipts(lane, answers, &asked),
            Done::Recorded(recorded) => {
                self.recording = self.recording.saturating_sub(recorded.len());
                for (delivery_id, applied) in recorded {
                    self.busy.remove(&delivery_id);
                    if let Some(Applied::Appended { cursor, events, .. }) = applied
                        && events.iter().all(changes_delivery)
                    {
                        self.seen.note(delivery_id, cursor.position.0, Instant::now());
                    }
                }
            }
            Done::Controlled(controls) => {
                self.is_reading_controls = false;
                match controls {
                    Ok(controls) => self.take_controls(&controls),
                    Err(error) => self.meet("reading what is paused", |it| &mut it.reading, &error),
                }
            }
            Done::Noted { result: Ok(()), .. } => {}
            Done::Noted { control, result: Err(error) } => {
                self.meet("pausing or resuming a provider", |it| &mut it.writing, &error);
                // Any other pause is found to be needed again.
                if control.is_pause && control.until.is_none() && !self.is_stopping {
                    self.unwritten.push(control);
                }
            }
            Done::Buried { words, result } => {
                self.is_burying = false;
                if let Err(error) = result {
                    self.meet("writing what is said of devices", |it| &mut it.writing, &error);
                    self.keep(words);
                }
            }
            Done::Counted(Ok(counts)) => self.publish(&counts),
            Done::Counted(Err(error)) => self.meet("counting what is due", |it| &mut it.reading, &error),
        }
        Ok(())
    }

    fn take_page(&mut self, search: Search, page: Vec<Due>) {
        let now = Instant::now();
        let known = |due: &Due| {
            self.busy.contains(&due.delivery_id) || self.seen.is_stale(due.delivery_id, due.position, now)
        };
        let mut due: Vec<_> = page.into_iter().filter(|due| !known(due)).collect();
        if let Search::Scheduled(at) | Search::Retrying(at) = search {
            // Without its target, which is erased, a delivery cannot be made.
            due.retain(|it| it.target.is_some());
            let lane = &mut self.lanes[at];
            let queue = if matches!(search, Search::Retrying(_)) { &mut lane.again } else { &mut lane.first };
            queue.candidates.extend(due);
            return;
        }
        if let Search::Stranded(_) = search {
            due.retain(|it| it.has_next);
        }
        if due.is_empty() || self.is_stopping {
            return;
        }
        self.busy.extend(due.iter().map(|it| it.delivery_id));
        let hands = self.hands.clone();
        match search {
            Search::Pending(at) => self.ask(at, &due),
            Search::Expired(at) => {
                self.deeds += 1;
                let failover = self.failover(at);
                self.jobs.spawn(hands.lose(at, self.lanes[at].configured.clone(), failover, due));
            }
            Search::Stranded(at) => {
                self.deeds += 1;
                let lane = &self.lanes[at];
                let why = match lane.health.gate(hands.ledger.now()) {
                    Gate::Shut(Why::Paused(cause)) => format!("paused ({})", cause.as_str()),
                    Gate::Held { until } => format!("not to be called before {until}"),
                    _ => "failing too often".to_owned(),
                };
                let reason = format!("{} is {why}", lane.name());
                self.jobs.spawn(hands.fail_over(lane.name().to_owned(), reason, self.able(), due));
            }
            Search::Unplanned | Search::Scheduled(_) | Search::Retrying(_) => {
                self.deeds += 1;
                self.jobs.spawn(hands.plan(due));
            }
        }
    }

    /// Asks what became of pushes, as many in one question as the provider takes.
    fn ask(&mut self, at: usize, due: &[Due]) {
        let configured = &self.lanes[at].configured;
        let size = configured.provider.receipts().map_or(1, Receipts::size_max).max(1);
        for part in due.chunks(size) {
            self.jobs.spawn(self.hands.clone().ask(at, configured.clone(), part.to_vec()));
        }
    }

    fn take_receipts(&mut self, at: usize, answers: Result<Vec<Called>, Failure>, asked: &[DeliveryId]) {
        match answers {
            Ok(answers) => {
                let answered: HashSet<_> = answers.iter().map(|it| it.delivery_id).collect();
                let mut changes = Vec::new();
                if let Some(true) = health::is_ill(answers.iter().map(|it| &it.outcome)) {
                    changes.extend(self.lanes[at].health.count_call(true, self.hands.ledger.now()));
                }
                for id in asked.iter().filter(|it| !answered.contains(it)) {
                    self.busy.remove(id);
                }
                for called in answers {
                    // Of its health only failures tell: that a receipt is there is no call that went well.
                    let failed = matches!(called.outcome, Outcome::Failed(_));
                    if failed {
                        changes.extend(self.learn(&called));
                    }
                    self.record_outcome(called);
                }
                self.change_all(at, changes);
            }
            Err(failure) => {
                let now = self.hands.ledger.now();
                let lane = &mut self.lanes[at];
                lane.ask_later(failure.retry_after, now);
                tracing::warn!(
                    provider = lane.name(),
                    code = failure.code,
                    pushes = asked.len(),
                    "the provider does not say what became of pending pushes; it is asked again"
                );
                if failure.class == FailureClass::AuthConfig {
                    let hold = lane.configured.policy.hold(None);
                    let changes = lane.health.learn(&Outcome::Failed(failure), false, hold, now);
                    self.change_all(at, changes);
                }
                for id in asked {
                    self.busy.remove(id);
                }
            }
        }
    }

    fn take_controls(&mut self, controls: &[Control]) {
        let (now, mut changes) = (self.hands.ledger.now(), Vec::new());
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let control = controls.iter().find(|it| it.provider == lane.name());
            let before = lane.health.gate(now);
            changes.extend(lane.health.control(control).map(|it| (at, it)));
            let after = lane.health.gate(now);
            let is_news = before != after && (before != Gate::Unknown || after != Gate::Open);
            if let (true, Some(control)) = (is_news, control) {
                let Control { actor, reason, cause, .. } = control;
                let (provider, cause) = (lane.name(), cause.as_str());
                if control.is_pause {
                    tracing::warn!(provider, cause, actor, reason, "the provider is paused");
                } else {
                    tracing::info!(provider, actor, reason, "the provider is resumed");
                }
            }
            metric::provider_state(lane.name(), lane.health.state(now));
        }
        for (at, change) in changes {
            self.change(at, change, now);
        }
    }

    /// What the answer for one push, or its receipt, says of its provider.
    fn learn(&mut self, called: &Called) -> Vec<Change> {
        let now = called.at.now;
        let lane = &mut self.lanes[called.lane];
        let asked = match &called.outcome {
            Outcome::Failed(failure) => failure.retry_after,
            Outcome::Accepted { .. } | Outcome::Pending { .. } => None,
        };
        let hold = lane.configured.policy.hold(asked);
        if let Outcome::Failed(Failure { scope: RetryScope::Device, .. }) = &called.outcome {
            lane.hold_target(called.target.clone(), now.plus(hold), now);
        }
        lane.health.learn(&called.outcome, called.to_device, hold, now)
    }

    fn change_all(&mut self, at: usize, changes: Vec<Change>) {
        let now = self.hands.ledger.now();
        let lane = &mut self.lanes[at];
        let is_open = lane.look_at_health(now) == Gate::Open;
        self.hands.places.set_open(lane.name(), is_open);
        for change in changes {
            self.change(at, change, now);
        }
    }

    /// Does what follows from how calls ended.
    pub(super) fn change(&mut self, at: usize, change: Change, now: Timestamp) {
        let provider = self.lanes[at].name().to_owned();
        let actor = self.hands.worker.to_string();
        let hands = self.hands.clone();
        let control = |is_pause, cause, reason: &str, until| Control {
            number: 0,
            provider: provider.clone(),
            is_pause,
            cause,
            actor: actor.clone(),
            reason: reason.to_owned(),
            at: now,
            until,
        };
        match change {
            Change::Paused { cause, until, reason } => {
                metric::provider_paused(&provider, cause.as_str());
                let ends = if until.is_some() { ", or one call goes well later" } else { "" };
                tracing::error!(
                    provider,
                    cause = cause.as_str(),
                    reason,
                    until = until.map(tracing::field::display),
                    "the provider is paused: nothing is sent through it until it is resumed (notification-ledger providers resume){ends}"
                );
                self.jobs.spawn(hands.control(control(true, cause, &reason, until)));
            }
            Change::Resumed => {
                tracing::info!(provider, "the provider is called again");
                let reason = "a call went well";
                self.jobs.spawn(hands.control(control(false, PauseCause::AuthConfig, reason, None)));
            }
            Change::Broke(wait) => {
                let wait_s = wait.as_secs();
                tracing::error!(
                    provider,
                    wait_s,
                    "most calls to the provider fail; it is left alone for a while"
                );
            }
            Change::Mended => tracing::info!(provider, "calls to the provider go well again"),
            Change::Held(wait) => {
                let wait_s = wait.as_secs();
                tracing::warn!(provider, wait_s, "the provider gets too much; it is left alone for a while");
            }
            Change::Disbelieved { since } => {
                self.dead.retain(|it| it.provider != provider);
                self.disbelieved.push((provider.clone(), since));
            }
        }
        metric::provider_state(&provider, self.lanes[at].health.state(now));
    }

    fn take_answers(&mut self, deed: Deed, answers: Vec<Answer>) {
        for (due, answer) in answers {
            let delivery_id = due.delivery_id;
            let started = match answer {
                Ok(Some(Applied::Appended { cursor, events, origin })) => {
                    self.seen.note(delivery_id, cursor.position.0, Instant::now());
                    self.writing.passed(NAME);
                    if let Deed::Lose(lane) = deed {
                        metric::attempt_ended(self.lanes[lane].name(), "lost");
                    }
                    started(&due, events, origin)
                }
                // The row tells of the past; there is nothing to ask until it has changed.
                Ok(Some(_)) => {
                    self.seen.note(delivery_id, due.position + 1, Instant::now());
                    None
                }
                Ok(None) => None,
                Err(error) => {
                    self.meet("writing to the log", |it| &mut it.writing, &error);
                    None
                }
            };
            match (deed, started) {
                (Deed::Claim(lane), Some(ready)) => self.lanes[lane].ready.push(ready),
                (Deed::Claim(lane), None) => {
                    self.lanes[lane].leave(1);
                    self.busy.remove(&delivery_id);
                }
                (Deed::Lose(_) | Deed::FailOver | Deed::Plan, _) => _ = self.busy.remove(&delivery_id),
            }
        }
        if !matches!(deed, Deed::Claim(_)) {
            self.deeds = self.deeds.saturating_sub(1);
        }
    }

    /// An attempt that was started in the transaction that appended its message.
    pub(super) fn take_started(&mut self, started: Started) {
        let Some(lane) = self.lanes.iter().position(|it| it.name() == started.attempt.provider) else {
            let provider = started.attempt.provider;
            tracing::error!(provider, "an attempt was started for a provider that is not configured here");
            return;
        };
        self.busy.insert(started.attempt.delivery_id);
        self.lanes[lane].enter(1);
        let now = self.hands.ledger.now();
        self.lanes[lane].ready.push((started, Past { first_due: now, uncounted: 0 }));
    }

    /// The pushes of one call: each has its answer, and the call is one sample of the provider's health.
    fn take_call(&mut self, call: Vec<Called>) {
        let Some(at) = call.first().map(|it| it.lane) else { return };
        let mut changes = Vec::new();
        let made = call.iter().filter(|it| it.took.is_some());
        let is_ill = health::is_ill(made.map(|it| &it.outcome));
        for called in call {
            let lane = &mut self.lanes[at];
            lane.leave(1);
            if let Some(took) = called.took {
                lane.called(took);
                metric::provider_called(lane.name(), took);
                changes.extend(self.learn(&called));
            }
            self.record_outcome(called);
        }
        if let Some(is_ill) = is_ill {
            changes.extend(self.lanes[at].health.count_call(is_ill, self.hands.ledger.now()));
        }
        self.change_all(at, changes);
    }

    /// What could not be written of devices is written later; but not by a worker that stops: a death is
    /// told again, and a pause in the database takes back what it is about wherever it is read first.
    fn keep(&mut self, words: Words) {
        match words {
            _ if self.is_stopping => {}
            Words::Dead(dead) => {
                let lanes = &self.lanes;
                let is_believed = |it: &Obituary| {
                    let lane = lanes.iter().find(|lane| lane.name() == it.provider);
                    lane.is_none_or(|lane| lane.health.is_believed())
                };
                self.dead.extend(dead.into_iter().filter(is_believed));
            }
            Words::TakenBack { provider, since } => self.disbelieved.push((provider, since)),
        }
    }

    /// Hands over what an attempt came to, with the decision that follows.
    fn record_outcome(&mut self, called: Called) {
        let Called { lane, message_id, shard, delivery_id, attempt, target, .. } = called;
        let Called { to_device, began, outcome, took, at, .. } = called;
        let mut failover = self.failover(lane);
        let lane = &self.lanes[lane];
        let result = match outcome {
            Outcome::Accepted { provider_message_id, status } => {
                metric::attempt_ended(lane.name(), "accepted");
                AttemptResult::Accepted { provider_message_id, status }
            }
            Outcome::Pending { ticket, ask_after } => {
                metric::attempt_ended(lane.name(), "pending");
                AttemptResult::Pending { ticket, ask_at: at.now.plus(ask_after) }
            }
            Outcome::Failed(failure) => {
                metric::attempt_ended(lane.name(), failure.class.as_str());
                if to_device && lane.health.buries(&failure) {
                    let known = self.hands.ledger.routing().providers.get(lane.name());
                    self.dead.push(Obituary {
                        target,
                        service: known.and_then(Known::service),
                        provider: lane.name().to_owned(),
                        reason: failure.code.clone(),
                        as_of: failure.as_of.unwrap_or(began),
                    });
                }
                let decision = if failure.code == receipt::RECEIPT_EXPIRED {
                    // Its provider did take it.
                    failover.after_unknown = false;
                    Decision::GiveUp { policy: "no receipt in the time for which they are kept".to_owned() }
                } else {
                    retry::decide(&lane.configured.policy, Cause::from(&failure), &at)
                };
                let Failure { class, code, status, answer, .. } = failure;
                AttemptResult::Failed { class, code, status, answer, decision }
            }
        };
        let duration_ms = u64::try_from(took.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let command = Command::RecordOutcome { delivery_id, attempt, duration_ms, result, failover };
        let entry = self.hands.entry(message_id, command);
        self.outcomes.entry(shard).or_default().push((delivery_id, entry));
    }

    pub(super) fn sweep(&mut self, search: Search) -> &mut Sweep {
        match search {
            Search::Scheduled(at) => &mut self.lanes[at].first.sweep,
            Search::Retrying(at) => &mut self.lanes[at].again.sweep,
            Search::Expired(at) => &mut self.lanes[at].expired,
            Search::Pending(at) => &mut self.lanes[at].pending,
            Search::Stranded(at) => &mut self.lanes[at].stranded,
            Search::Unplanned => &mut self.unplanned,
        }
    }

    /// Rests after trouble, and tells of it once.
    fn meet(
        &mut self,
        doing: &'static str,
        trouble: fn(&mut Self) -> &mut Trouble,
        error: &(dyn std::error::Error + 'static),
    ) {
        let now = Instant::now();
        if !self.pace.is_quiet(now) {
            let pause = trouble(self).met(NAME, doing, error);
            self.pace.rest(now, pause);
        }
    }

    fn publish(&mut self, counts: &[DueCount]) {
        for provider in &self.counted {
            metric::deliveries_due(provider, 0, 0);
        }
        for count in counts {
            let provider = count.provider.as_deref().unwrap_or_default();
            metric::deliveries_due(provider, count.due, count.overdue);
            let is_news = self.counted.insert(provider.to_owned());
            if is_news && count.provider.is_some() && self.lanes.iter().all(|it| it.name() != provider) {
                tracing::warn!(
                    provider,
                    due = count.due,
                    "deliveries wait for a provider that is not configured here; put it back, or move them: notification-ledger deliveries replay --provider NAME --waiting --through OTHER"
                );
            }
        }
    }
}

/// Whether the delivery's row shows the event. A late word that settles nothing is the attempt's alone.
const fn changes_delivery(event: &Event) -> bool {
    match event {
        Event::PushAttemptSucceeded(it) => it.settles,
        Event::PushAttemptFailed(it) => it.settles,
        _ => true,
    }
}

/// The attempt that was started, if one was, and when its delivery was first due.
fn started(due: &Due, events: Vec<Event>, origin: Option<Arc<Origin>>) -> Option<(Started, Past)> {
    let (message, target) = (origin?, due.target.clone()?);
    let attempt = events.into_iter().find_map(|event| match event {
        Event::PushAttemptStarted(attempt) => Some(attempt),
        _ => None,
    })?;
    Some((
        Started { attempt, target, to_device: due.device_id.is_some(), message, place: None },
        Past { first_due: due.first_due_at, uncounted: due.uncounted },
    ))
}
