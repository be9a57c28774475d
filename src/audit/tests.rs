//! Histories made by hand, and what the audit says of them to people and to machines.

use std::time::Duration;

use super::*;
use crate::{
    event::{
        Decision, FailureClass, MessageConflicted, MessageReceived, PlannedDelivery, PushAttemptFailed,
        PushAttemptLost, PushAttemptStarted, PushAttemptSucceeded, PushExhausted, PushPlanned, PushReceipt,
        PushSuppressed, ReceiptKind, SuppressReason, Verdict,
    },
    id::{DeliveryId, MessageId, Position, Shard, Version},
    message::parse::{Outside, parse},
};

const BODY: &str = r#"{"messageId":"m-42","notificationType":["APP_NOTIFICATION","PUSH"],
    "recipientId":"user-42","title":"Your pass expires tomorrow","body":"Renew it\nin the app.",
    "category":"pass","source":"billing-batch","occurredAt":"2026-11-22T08:59:58Z",
    "push":{"targets":[{"token":"secret-device-token-9f2c"},{"topic":"passes"}]}}"#;

fn received(body: &str) -> MessageReceived {
    MessageReceived { message: parse(body.as_bytes(), Outside::default()).unwrap().message.into() }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(&format!("2026-11-22T{text}Z")).unwrap()
}

fn delivery(target: &Target) -> DeliveryId {
    DeliveryId::new(&MessageId::new("m-42").unwrap(), &target.canonical())
}

/// Events with their places and times; the metadata of the door they came by.
fn history(events: Vec<(&str, Event, Metadata)>) -> Vec<Recorded> {
    let message = received(BODY).message;
    let record = |(at, (recorded_at, body, metadata)): (usize, (&str, Event, Metadata))| {
        let recorded_at = time(recorded_at);
        let first = matches!(body, Event::MessageReceived(_));
        Recorded {
            shard: Shard(1),
            position: Position(10 + i64::try_from(at).unwrap() * 3),
            message_id: message.message_id.clone(),
            version: Version(i32::try_from(at).unwrap()),
            recipient_id: message.recipient_id.clone(),
            occurred_at: if first { message.occurred_at.unwrap() } else { recorded_at },
            recorded_at,
            body,
            metadata,
        }
    };
    events.into_iter().enumerate().map(record).collect()
}

fn by(actor: &str) -> Metadata {
    Metadata { ingress: Some("http".to_owned()), actor: Some(actor.to_owned()), ..Metadata::default() }
}

fn started(target: &Target, attempt: u32, lease: &str) -> Event {
    let delivery_id = delivery(target);
    Event::PushAttemptStarted(PushAttemptStarted {
        delivery_id,
        attempt,
        provider: "acme".to_owned(),
        provider_key: delivery_id.to_string(),
        lease_until: time(lease),
        worker: "host-1".to_owned(),
    })
}

fn failed(target: &Target, attempt: u32, class: FailureClass, decision: Decision) -> Event {
    Event::PushAttemptFailed(PushAttemptFailed {
        delivery_id: delivery(target),
        attempt,
        provider: "acme".to_owned(),
        class,
        code: "unavailable".to_owned(),
        status: Some(503),
        answer: Some("try \u{1b}[31mlater\n".to_owned()),
        duration_ms: 207,
        decision,
        settles: true,
    })
}

/// Everything that can happen to a message, to one of two targets or the other.
fn eventful() -> Vec<Recorded> {
    let token = Target::Token("secret-device-token-9f2c".to_owned());
    let topic = Target::Topic("passes".to_owned());
    let none = Metadata::default;
    let plan = |target: &Target| PlannedDelivery {
        delivery_id: delivery(target),
        target: target.clone(),
        provider: "acme".to_owned(),
        fallbacks: Vec::new(),
        device_id: None,
        due_at: time("09:00:00"),
        expires_at: None,
    };
    let retry = |at: &str, policy: &str| Decision::RetryAt { at: time(at), policy: policy.to_owned() };
    let give_up = || Decision::GiveUp { policy: "2 attempts".to_owned() };
    let lost = PushAttemptLost {
        delivery_id: delivery(&topic),
        attempt: 1,
        provider: "acme".to_owned(),
        decision: retry("09:02:00", "on_unknown = retry"),
    };
    let accepted = PushAttemptSucceeded {
        delivery_id: delivery(&token),
        attempt: 2,
        provider: "acme".to_owned(),
        provider_message_id: Some("p-77".to_owned()),
        status: Some(200),
        duration_ms: 84,
        settles: true,
    };
    let exhausted = PushExhausted {
        delivery_id: delivery(&topic),
        verdict: Verdict::Failed,
        reason: "2 attempts".to_owned(),
        attempts: 2,
    };
    let receipt = PushReceipt {
        delivery_id: delivery(&token),
        kind: ReceiptKind::Opened,
        detail: Some("iOS".to_owned()),
    };
    let queue = Metadata {
        ingress: Some("sqs:notifications".to_owned()),
        queue_message_id: Some("5fea7756".to_owned()),
        receive_count: Some(2),
        sent_at: Some(time("08:59:59.870")),
        envelope: Some("sns".to_owned()),
        unknown_fields: vec!["colour".to_owned()],
        ..Metadata::default()
    };
    let other = received(&BODY.replace("tomorrow", "today"));
    let content_hash = crate::message::content::hash(&other.message);
    history(vec![
        ("09:00:00", Event::MessageReceived(received(BODY)), queue),
        (
            "09:00:00",
            Event::PushPlanned(PushPlanned { deliveries: vec![plan(&token), plan(&topic)] }),
            none(),
        ),
        ("09:00:00.003", started(&token, 1, "09:01:00.003"), none()),
        ("09:00:00.003", started(&topic, 1, "09:01:00.003"), none()),
        (
            "09:00:00.210",
            failed(&token, 1, FailureClass::Retry, retry("09:00:30", "schedule step 1")),
            none(),
        ),
        (
            "09:00:05",
            Event::MessageConflicted(MessageConflicted { content_hash, message: other.message }),
            by("billing"),
        ),
        ("09:00:30", started(&token, 2, "09:01:30"), none()),
        ("09:00:30.084", Event::PushAttemptSucceeded(accepted), none()),
        ("09:01:01", Event::PushAttemptLost(lost), none()),
        ("09:02:00", started(&topic, 2, "09:03:00"), none()),
        ("09:02:01", failed(&topic, 2, FailureClass::Permanent, give_up()), none()),
        ("09:02:01", Event::PushExhausted(exhausted), none()),
        ("09:10:00", Event::PushReceipt(receipt), none()),
        ("09:10:02", Event::InboxSeen, by("app")),
        ("09:10:05", Event::InboxRead, by("app")),
    ])
}

/// The evidence where the projections have come so far, by name.
fn evidence(events: Vec<Recorded>, reach: [(&str, i64); 3]) -> Evidence {
    let head = events.last().unwrap().position;
    let Event::MessageReceived(first) = &events[0].body else { panic!("does not begin with an arrival") };
    let content_hash = Some(crate::message::content::hash(&first.message));
    let mut rows = MessageRows::default();
    for (projection, position) in reach {
        let seen = events.iter().filter(|it| it.position.0 <= position).count();
        let folded = fold_rows(&events[..seen]);
        match projection {
            "inbox" => rows.item = folded.item,
            "messages" => rows.message = folded.message,
            _ => (rows.deliveries, rows.attempts) = (folded.deliveries, folded.attempts),
        }
    }
    let reach = reach.map(|(projection, position)| Reach {
        projection: projection.to_owned(),
        position: Position(position),
        head,
        parked: None,
    });
    Evidence { events, content_hash, redeliveries: Redeliveries::default(), reach: reach.into(), rows }
}

fn complete(events: Vec<Recorded>) -> Evidence {
    let end = events.last().unwrap().position.0;
    evidence(events, [("deliveries", end), ("inbox", end), ("messages", end)])
}

#[test]
fn the_timeline_tells_everything_that_can_happen() {
    let mut evidence = complete(eventful());
    evidence.redeliveries = Redeliveries {
        redelivered: 2,
        conflicting: 1,
        last_at: Some(time("09:05:00")),
        last_ingress: Some("sqs:notifications".to_owned()),
    };
    let audit = Audit::new(evidence).unwrap();
    assert!(audit.projections.iter().all(|it| it.agrees && it.complete && it.present));
    let text = message_text(&audit);
    let json = serde_json::to_string_pretty(&audit).unwrap();
    for shown in [&text, &json] {
        assert!(!shown.contains("secret-device") && shown.contains("9f2c"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "nothing steers a terminal: {shown}");
    }
    insta::assert_snapshot!("eventful_text", text);
    insta::assert_snapshot!("eventful_json", json);
}

#[test]
fn a_message_that_only_just_arrived_says_what_is_still_to_come() {
    let events = eventful().into_iter().take(1).collect();
    let audit = Audit::new(evidence(events, [("deliveries", 0), ("inbox", 10), ("messages", 9)])).unwrap();
    insta::assert_snapshot!("arrived_text", message_text(&audit));
}

#[test]
fn what_ended_without_a_call_says_why() {
    let delivery_id = DeliveryId::new(&MessageId::new("m-42").unwrap(), "");
    let suppressed = PushSuppressed { delivery_id, reason: SuppressReason::Expired };
    let late = PushAttemptSucceeded {
        delivery_id,
        attempt: 1,
        provider: "acme".to_owned(),
        provider_message_id: None,
        status: None,
        duration_ms: 61_000,
        settles: false,
    };
    let cancelled = crate::event::MessageCancelled { reason: "sent in error".to_owned() };
    let erased = crate::event::MessageErased { reason: "ticket 12".to_owned() };
    let events = history(vec![
        ("09:00:00", Event::MessageReceived(received(BODY)), by("billing")),
        ("09:01:00", Event::MessageCancelled(cancelled), by("support")),
        ("09:02:00", Event::PushSuppressed(suppressed), Metadata::default()),
        ("09:03:00", Event::PushAttemptSucceeded(late), Metadata::default()),
        ("09:04:00", Event::MessageErased(erased), by("privacy")),
    ]);
    insta::assert_snapshot!("ended_text", message_text(&Audit::new(complete(events)).unwrap()));
}

#[test]
fn a_projection_that_shows_something_else_is_named() {
    let mut behind = evidence(eventful(), [("deliveries", 30), ("inbox", 30), ("messages", 30)]);
    if let Some(item) = &mut behind.rows.item {
        item.read_at_us = Some(time("09:10:05"));
    }
    behind.reach[2].parked = Some("event 31 is of a newer release".to_owned());
    let audit = Audit::new(behind).unwrap();
    let agrees: Vec<_> = audit.projections.iter().map(|it| (it.agrees, it.complete)).collect();
    assert_eq!(agrees, [(true, false), (false, false), (true, false)]);
    let text = message_text(&audit);
    insta::assert_snapshot!("drift_text", text.lines().rev().take(4).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_recipients_messages_are_lines_of_a_table() {
    let summary = |take: usize| {
        let events: Vec<_> = eventful().into_iter().take(take).collect();
        Summary::from(fold_rows(&events).message.unwrap())
    };
    let messages = [summary(15), Summary { title: "한글 제목".to_owned(), ..summary(1) }];
    insta::assert_snapshot!("recipient_text", recipient_text("user-42", &messages, true));
    insta::assert_snapshot!("nobody_text", recipient_text("no\nbody", &[], false));
}

#[test]
fn times_are_cut_to_milliseconds() {
    let at = time("09:00:00").plus(Duration::from_micros(1_999));
    let events = eventful().into_iter().take(1).map(|it| Recorded { recorded_at: at, ..it }).collect();
    let text = message_text(&Audit::new(complete(events)).unwrap());
    assert!(text.contains("2026-11-22T09:00:00.001Z"), "{text}");
}
