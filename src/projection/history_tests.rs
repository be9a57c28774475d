//! What must hold of every history: random commands, decided as in service, folded in any batches.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::json;

use super::{
    ALL, Row, Value,
    case_tests::{Tables, fold_in_batches, fold_in_ranges},
    deliveries::{Deliveries, DeliveryStatus, PushAttempt, PushDelivery},
    fold_in_memory,
    inbox::{Inbox, InboxCounter, InboxItem},
    messages::{Engagement, MessageRow, Messages, PushState},
    statistics::{DailyCount, Statistics},
};
use crate::{
    clock::Timestamp,
    event::{
        Decision, Event, FailureClass, MessageCancelled, MessageErased, Metadata, PlannedDelivery,
        PushSuppressed, ReceiptKind, Recorded, RescheduleCause, SuppressReason, Verdict,
    },
    id::{DeliveryId, DeviceId, MessageId, Position, Shard, Version},
    message::{Appearance, ContentHash, Message, Target},
    stream::{Able, AttemptResult, Claim, Command, Failover, Mark, Receive, Stream, decide},
};

const MESSAGES: u8 = 3;
const STEP_US: i64 = 20_000_000;
const STEP: Duration = Duration::from_secs(20);

/// One thing that somebody tries; most of it is refused, as in life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    message: u8,
    what: u8,
    how: u8,
}

pub(crate) fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = (0..MESSAGES, 0..26_u8, any::<u8>());
    vec(one.prop_map(|(message, what, how)| Try { message, what, how }), 1..120)
}

/// A log in the making.
#[derive(Default)]
pub(crate) struct History {
    streams: BTreeMap<u8, (Stream, i32)>,
    log: Vec<Recorded>,
    now: Timestamp,
}

impl History {
    pub(crate) fn of(tries: &[Try]) -> Vec<Recorded> {
        let mut history = Self { now: Timestamp::from_micros(STEP_US), ..Self::default() };
        for &it in tries {
            history.attempt(it);
            history.now = Timestamp::from_micros(history.now.as_micros() + STEP_US);
        }
        history.log
    }

    fn attempt(&mut self, it: Try) {
        let message = Self::message(it.message, 0);
        let id = &message.message_id;
        let stream = self.streams.entry(it.message).or_default().0.clone();
        let delivery_id = DeliveryId::new(id, &target(it.how / 4).canonical());
        // Now and then somebody speaks of the attempt before.
        let attempt = self.attempts(delivery_id).saturating_sub(u32::from(it.how.is_multiple_of(4)));
        let decision = if it.how < 128 {
            Decision::RetryAt { at: self.now, policy: "again".into() }
        } else {
            Decision::GiveUp { policy: "enough".into() }
        };
        let decided = |command| decide(&stream, &command, self.now).unwrap_or_default();
        let mark = |mark| decided(Command::Mark { recipient: message.recipient_id.clone(), mark });
        let outcome = |result| {
            let failover =
                Failover { after: 3 * STEP, after_unknown: true, able: Able::All, configured: Able::All };
            decided(Command::RecordOutcome { delivery_id, attempt, duration_ms: 7, result, failover })
        };
        let known = stream.origin().is_some();
        let events = match it.what {
            0..3 => decided(self.arrival(it)),
            3 => mark(Mark::Seen),
            4 => mark(Mark::Read),
            5 => mark(Mark::Unread),
            6 => mark(Mark::Archive),
            7 => mark(Mark::Unarchive),
            8 if it.how < 64 => mark(Mark::Click),
            8 => mark(Mark::Delete),
            25 => decided(Command::Present),
            9 => decided(Command::Plan { deliveries: self.plan(id), is_nowhere: false }),
            10..13 => decided(Command::StartAttempt { delivery_id, claim: self.claim() }),
            13..15 => outcome(AttemptResult::Accepted { provider_message_id: None, status: Some(200) }),
            15 => outcome(AttemptResult::Failed {
                class: if it.how.is_multiple_of(2) { FailureClass::Retry } else { FailureClass::Unknown },
                code: "http_503".into(),
                status: Some(503),
                answer: Some("later".into()),
                decision,
            }),
            16 => {
                let failover =
                    Failover { after: 3 * STEP, after_unknown: true, able: Able::All, configured: Able::All };
                decided(Command::LoseAttempt { delivery_id, attempt, decision, failover })
            }
            17 => {
                let kinds = [
                    ReceiptKind::Delivered,
                    ReceiptKind::Opened,
                    ReceiptKind::Dismissed,
                    ReceiptKind::InvalidTarget,
                ];
                let kind = kinds[usize::from(it.how / 8 % 4)];
                decided(Command::Report { delivery_id, kind, detail: None })
            }
            20 => outcome(AttemptResult::Pending { ticket: "t-1".into(), ask_at: self.now.plus(STEP) }),
            21 => decided(Command::Reschedule {
                delivery_id,
                provider: (it.how >= 128).then(|| "bravo".into()),
                due_at: self.now,
                cause: RescheduleCause::Replay,
                reason: "once more".into(),
            }),
            22 => decided(Command::FailOver {
                delivery_id,
                from: "acme".into(),
                reason: "paused".into(),
                able: Able::All,
            }),
            24 => decided(Command::Move {
                delivery_id,
                afresh: None,
                to: Box::new((target(it.how / 8 % 4), DeviceId::new("phone").unwrap())),
                fits: ["acme".to_owned(), "bravo".to_owned()].into(),
            }),
            23 if it.how < 64 => {
                decided(Command::Suppress { delivery_id, reason: SuppressReason::Superseded })
            }
            18 if known && it.how < 32 => {
                vec![Event::MessageCancelled(MessageCancelled { reason: "sold out".into() })]
            }
            19 if known && it.how < 64 => {
                vec![Event::MessageErased(MessageErased { reason: "asked for".into() })]
            }
            _ => Vec::new(),
        };
        self.append(it, &message, events);
    }

    fn attempts(&self, delivery: DeliveryId) -> u32 {
        let started = |it: &&Recorded| match &it.body {
            Event::PushAttemptStarted(it) => it.delivery_id == delivery,
            _ => false,
        };
        u32::try_from(self.log.iter().filter(started).count()).unwrap()
    }

    fn append(&mut self, it: Try, message: &Message, events: Vec<Event>) {
        let (stream, version) = self.streams.entry(it.message).or_default();
        for body in events {
            stream.apply(&body, self.now, Some(ContentHash([0; 32])));
            self.log.push(Recorded {
                shard: Shard(0),
                position: Position(i64::try_from(self.log.len()).unwrap() + 1),
                message_id: message.message_id.clone(),
                version: Version(*version),
                recipient_id: message.recipient_id.clone(),
                occurred_at: self.now,
                recorded_at: self.now,
                body,
                metadata: Metadata::default(),
            });
            *version += 1;
        }
    }

    fn message(number: u8, how: u8) -> Message {
        let channels = [json!(["APP_NOTIFICATION", "PUSH"]), json!(["APP_NOTIFICATION"]), json!(["PUSH"])];
        let categories = [None, Some("pass"), Some("inquiry")];
        // Some appear later, some go by themselves.
        let time = |steps| Timestamp::from_micros(steps * STEP_US).to_string();
        let deliver_at = (how % 5 == 1).then(|| time(i64::from(how / 16)));
        let expires_at = (how % 7 == 1).then(|| time(i64::from(how / 4)));
        serde_json::from_value(json!({
            "messageId": format!("m-{number}"),
            "deliverAt": deliver_at,
            "expiresAt": expires_at,
            "recipientId": format!("user-{}", number % 2),
            "notificationType": channels[usize::from(how % 3)],
            "title": "Hello",
            "category": categories[usize::from(how / 3 % 3)],
        }))
        .unwrap()
    }

    fn arrival(&self, it: Try) -> Command {
        let message = Self::message(it.message, it.how);
        let plan = if it.how >= 128 && message.for_push() { self.plan(&message.message_id) } else { vec![] };
        let claim = (it.how >= 192).then(|| self.claim());
        let is_nowhere = it.how == 1;
        // Half of what comes again says something else.
        let content_hash = ContentHash([it.how / 128; 32]);
        Command::Receive(Box::new(Receive { message: message.into(), content_hash, plan, is_nowhere, claim }))
    }

    fn plan(&self, message: &MessageId) -> Vec<PlannedDelivery> {
        let delivery = |target: Target| PlannedDelivery {
            delivery_id: DeliveryId::new(message, &target.canonical()),
            target,
            provider: "acme".into(),
            fallbacks: vec!["bravo".into()],
            device_id: None,
            due_at: self.now,
            expires_at: Some(Timestamp::from_micros(60 * STEP_US)),
        };
        (0..2).map(target).map(delivery).collect()
    }

    fn claim(&self) -> Claim {
        let lease_until = Timestamp::from_micros(self.now.as_micros() + 2 * STEP_US);
        Claim { worker: "worker-1".into(), lease_until }
    }
}

fn target(number: u8) -> Target {
    Target::Token(if number.is_multiple_of(2) { "a" } else { "b" }.into())
}

fn typed<R: Row>(tables: &Tables) -> Vec<R> {
    let rows = tables.iter().filter(|(table, _)| table.name == R::TABLE.name).flat_map(|(_, rows)| rows);
    rows.cloned().map(R::from_values).collect()
}

/// The items that are in a list.
fn shown(tables: &Tables) -> Vec<InboxItem> {
    typed(tables).into_iter().filter(InboxItem::is_shown).collect()
}

/// How many deliveries of a message have given their places to others.
fn moved(log: &[Recorded], message: &str) -> i64 {
    let mut moved = BTreeSet::new();
    for it in log.iter().filter(|it| it.message_id.as_str() == message) {
        match &it.body {
            Event::PushSuppressed(it) if it.reason == SuppressReason::Moved => {
                moved.insert(it.delivery_id.to_string());
            }
            Event::PushPlanned(it) => {
                moved.retain(|id| it.deliveries.iter().all(|plan| plan.delivery_id.to_string() != *id));
            }
            _ => {}
        }
    }
    i64::try_from(moved.len()).unwrap()
}

/// What the statistics have to show, by day, category and column: the facts of each event in their words, each
/// item's steps once.
fn plain_count(log: &[Recorded]) -> BTreeMap<(String, String, &'static str), i64> {
    let (mut counted, mut once) = (BTreeMap::new(), BTreeSet::new());
    for it in log {
        let of_it = |first: &&Recorded| first.message_id == it.message_id && first.version.0 == 0;
        let Some(Event::MessageReceived(first)) = log.iter().find(of_it).map(|it| &it.body) else { continue };
        let mut facts = Vec::new();
        match &it.body {
            Event::MessageReceived(_) => {
                facts.push("messages_received");
                facts.extend(
                    (first.message.appears(it.recorded_at) == Appearance::AtOnce).then_some("items_appeared"),
                );
            }
            Event::MessageConflicted(_) => facts.push("messages_conflicted"),
            Event::MessageCancelled(_) => facts.push("messages_cancelled"),
            Event::InboxPresented => facts.push("items_appeared"),
            Event::InboxDeleted => facts.push("items_deleted"),
            Event::InboxExpired => facts.push("items_expired"),
            Event::InboxSeen | Event::InboxRead | Event::InboxClicked => {
                let steps = match it.body.kind() {
                    "inbox.seen" => &["items_seen"][..],
                    "inbox.read" => &["items_seen", "items_read"],
                    _ => &["items_seen", "items_read", "items_clicked"],
                };
                facts.extend(steps.iter().filter(|step| once.insert((it.message_id.clone(), **step))));
            }
            Event::PushPlanned(plan) => facts.extend(plan.deliveries.iter().map(|_| "deliveries_planned")),
            Event::PushAttemptStarted(attempt) => {
                facts.push("attempts_started");
                facts.extend((attempt.attempt != 1).then_some("attempts_retried"));
            }
            Event::PushAttemptFailed(_) => facts.push("attempts_failed"),
            Event::PushAttemptLost(_) => facts.push("attempts_lost"),
            Event::PushAttemptSucceeded(end) => facts.extend(end.settles.then_some("deliveries_accepted")),
            Event::PushRescheduled(it) => facts.extend(it.reopens.map(|_| "deliveries_reopened")),
            Event::PushSuppressed(it) => {
                let names = DailyCount::TABLE.columns.iter().map(|it| it.name);
                let name = format!("deliveries_{}", it.reason.as_str());
                facts.extend(names.filter(|it| *it == name));
            }
            Event::PushExhausted(it) => facts.push(match it.verdict {
                Verdict::Failed => "deliveries_failed",
                Verdict::Unknown => "deliveries_unknown",
            }),
            Event::PushReceipt(it) => match it.kind {
                ReceiptKind::Delivered => facts.push("deliveries_delivered"),
                ReceiptKind::Opened => facts.push("deliveries_opened"),
                _ => {}
            },
            _ => {}
        }
        let category = first.message.category.clone().unwrap_or_default();
        let day =
            it.recorded_at.to_string().split_once('T').map(|(day, _)| day.to_owned()).unwrap_or_default();
        for fact in facts {
            *counted.entry((day.clone(), category.clone(), fact)).or_default() += 1;
        }
    }
    counted
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batching_folds_to_the_same_rows(tries in tries(), cuts in vec(1..20_usize, 1..10), kept in 0..4_usize) {
        let log = History::of(&tries);
        let mut rest = log.as_slice();
        let mut batches = Vec::new();
        for &cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, more) = rest.split_at(cut.min(rest.len()));
            batches.push(batch);
            rest = more;
        }
        for &projection in ALL {
            let whole = fold_in_memory(projection, &log);
            let batched = fold_in_batches(projection, batches.iter().copied());
            prop_assert_eq!(batched.as_ref(), Ok(&whole));
            let loaded = fold_in_ranges(projection, batches.iter().copied(), kept * 1_500);
            prop_assert_eq!(loaded, Ok(whole));
        }
    }

    #[test]
    fn counters_equal_a_count_of_the_items(tries in tries()) {
        let rows = fold_in_memory(&Inbox, &History::of(&tries));
        let mut counted: BTreeMap<(String, String), [i64; 3]> = BTreeMap::new();
        for item in shown(&rows).into_iter().filter(|it| it.archived_at_us.is_none()) {
            for category in [Some(String::new()), item.category].into_iter().flatten() {
                let counts = counted.entry((item.recipient_id.clone(), category)).or_default();
                counts[0] += i64::from(item.seen_at_us.is_none());
                counts[1] += i64::from(item.read_at_us.is_none());
                counts[2] += 1;
            }
        }
        let kept = typed::<InboxCounter>(&rows);
        let kept = kept.into_iter().map(|it| ((it.recipient_id, it.category), [it.unseen, it.unread, it.total]));
        let kept: BTreeMap<_, _> = kept.filter(|(_, counts)| *counts != [0; 3]).collect();
        prop_assert_eq!(kept, counted);
    }

    #[test]
    fn a_delivery_is_due_until_it_is_over(tries in tries()) {
        let rows = fold_in_memory(&Deliveries, &History::of(&tries));
        for it in typed::<PushDelivery>(&rows) {
            let open = matches!(
                it.status,
                DeliveryStatus::Unplanned
                    | DeliveryStatus::Scheduled
                    | DeliveryStatus::Retrying
                    | DeliveryStatus::Attempting
                    | DeliveryStatus::Pending
            );
            prop_assert_eq!(open, it.due_at_us.is_some(), "{:?}", it);
            prop_assert_eq!(it.status == DeliveryStatus::Unplanned, it.target_kind.is_none(), "{:?}", it);
            let attempts = typed::<PushAttempt>(&rows);
            let attempts = attempts.iter().filter(|attempt| attempt.delivery_id == it.delivery_id).count();
            prop_assert_eq!(usize::try_from(it.attempts), Ok(attempts), "{:?}", it);
        }
    }

    #[test]
    fn statistics_equal_a_plain_count_of_the_events(tries in tries()) {
        let mut log = History::of(&tries);
        for it in &mut log {
            // A history is less than an hour; this makes it a few days.
            it.recorded_at = Timestamp::from_micros(it.recorded_at.as_micros() * 90);
        }
        let tables = fold_in_memory(&Statistics, &log);
        let mut kept: BTreeMap<(String, String, &str), i64> = BTreeMap::new();
        for (table, rows) in tables.iter().filter(|(table, _)| table.name == DailyCount::TABLE.name) {
            for row in rows {
                let it = DailyCount::from_values(row.clone());
                for (column, cell) in table.columns.iter().zip(row).skip(4) {
                    if let (Value::Int(count @ 1..), true) = (cell, column.name != "last_position") {
                        kept.insert((it.day.clone(), it.category.clone(), column.name), *count);
                    }
                }
            }
        }
        prop_assert_eq!(kept, plain_count(&log));
        let accepted = typed::<DailyCount>(&tables).iter().map(|it| it.deliveries_accepted).sum::<i64>();
        let deliveries = typed::<PushDelivery>(&fold_in_memory(&Deliveries, &log));
        let shown = deliveries.iter().filter(|it| it.status == DeliveryStatus::Accepted).count();
        prop_assert_eq!(usize::try_from(accepted), Ok(shown));
    }

    #[test]
    fn messages_agree_with_deliveries_and_inbox(tries in tries()) {
        let log = History::of(&tries);
        let deliveries = typed::<PushDelivery>(&fold_in_memory(&Deliveries, &log));
        let items = fold_in_memory(&Inbox, &log);
        let items = shown(&items);
        for it in typed::<MessageRow>(&fold_in_memory(&Messages, &log)) {
            let of_it = || deliveries.iter().filter(|row| row.message_id == it.message_id);
            let count = |status| i64::try_from(of_it().filter(|row| row.status == status).count()).unwrap();
            prop_assert_eq!(it.accepted, count(DeliveryStatus::Accepted), "{:?}", it);
            prop_assert_eq!(it.failed, count(DeliveryStatus::Failed), "{:?}", it);
            prop_assert_eq!(it.unknown, count(DeliveryStatus::Unknown), "{:?}", it);
            // What gave its place to another counts as that one.
            let suppressed = it.suppressed + moved(&log, &it.message_id);
            prop_assert_eq!(suppressed, count(DeliveryStatus::Suppressed), "{:?}", it);
            prop_assert_eq!(it.attempts, of_it().map(|row| row.attempts).sum::<i64>(), "{:?}", it);
            let open = of_it().any(|row| row.due_at_us.is_some());
            prop_assert_eq!(it.push_state == PushState::Pending, open, "{:?}", it);
            prop_assert_eq!(it.push_state == PushState::None, of_it().next().is_none(), "{:?}", it);

            let item = items.iter().find(|item| item.message_id == it.message_id);
            let was_in_inbox = !matches!(it.engagement, Engagement::None | Engagement::Deleted);
            prop_assert!(item.is_none() || was_in_inbox, "{:?}", it);
            let is_timed = it.deliver_at_us.is_some() || it.expires_at_us.is_some();
            prop_assert!(item.is_some() || !was_in_inbox || is_timed, "{:?}", it);
            if let Some(item) = item {
                let marks = (item.seen_at_us, item.read_at_us, item.archived_at_us);
                prop_assert_eq!(marks, (it.seen_at_us, it.read_at_us, it.archived_at_us), "{:?}", it);
            }
        }
    }
}

/// The properties above say nothing about what never occurs.
#[test]
fn histories_hold_every_type_of_event_and_every_status() {
    let mut runner = TestRunner::deterministic();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut statuses: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..200 {
        let log = History::of(&tries().new_tree(&mut runner).unwrap().current());
        for it in &log {
            *kinds.entry(it.body.kind()).or_default() += 1;
        }
        let deliveries = typed::<PushDelivery>(&fold_in_memory(&Deliveries, &log));
        for it in deliveries {
            *statuses.entry(it.status.as_str()).or_default() += 1;
        }
    }
    assert_eq!(kinds.len(), 23, "{kinds:?}");
    assert_eq!(statuses.len(), DeliveryStatus::ALL.len(), "{statuses:?}");
}

#[test]
fn a_push_without_any_target_ends_both_ways_alike() {
    let arrival = Try { message: 0, what: 0, how: 2 };
    let mut history = History { now: Timestamp::from_micros(STEP_US), ..History::default() };
    history.attempt(arrival);
    let message = History::message(0, 2);
    let delivery_id = DeliveryId::stand_in(&message.message_id);
    let reason = SuppressReason::NoTarget;
    history.append(arrival, &message, vec![Event::PushSuppressed(PushSuppressed { delivery_id, reason })]);

    let [delivery] = &typed::<PushDelivery>(&fold_in_memory(&Deliveries, &history.log))[..] else { panic!() };
    let [row] = &typed::<MessageRow>(&fold_in_memory(&Messages, &history.log))[..] else { panic!() };
    assert_eq!((delivery.status, delivery.due_at_us), (DeliveryStatus::Suppressed, None));
    assert_eq!((row.deliveries, row.suppressed, row.push_state), (1, 1, PushState::Suppressed));
}
