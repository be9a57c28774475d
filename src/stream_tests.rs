//! What each command means for a message in each state, and what is refused.

use std::time::Duration;

use super::*;
use crate::{
    id::MessageId,
    message::{Channels, Target},
};

const START: Timestamp = Timestamp::from_micros(1_000_000_000);

fn after(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn message(title: &str) -> Message {
    Message {
        message_id: MessageId::new("m-1").unwrap(),
        notification_type: Channels { inbox: true, push: true },
        recipient_id: recipient("user-1"),
        title: title.to_owned(),
        body: None,
        category: None,
        link: None,
        image_url: None,
        data: serde_json::Map::new(),
        locale: None,
        source: None,
        occurred_at: None,
        deliver_at: None,
        expires_at: None,
        collapse_key: None,
        priority: None,
        push: None,
        unknown: serde_json::Map::new(),
    }
}

fn recipient(id: &str) -> RecipientId {
    RecipientId::new(id).unwrap()
}

fn planned() -> PlannedDelivery {
    let target = Target::Alias("user-1".to_owned());
    PlannedDelivery {
        delivery_id: DeliveryId::new(&MessageId::new("m-1").unwrap(), &target.canonical()),
        target,
        provider: "acme".to_owned(),
        due_at: START,
        expires_at: Some(after(1000)),
    }
}

fn arrival(title: &str, hash: u8, plan: Vec<PlannedDelivery>, claim: Option<Claim>) -> Command {
    let content_hash = ContentHash([hash; 32]);
    Command::Receive(Box::new(Receive { message: message(title).into(), content_hash, plan, claim }))
}

fn claim(worker: &str, seconds: u64) -> Claim {
    Claim { worker: worker.to_owned(), lease_until: after(seconds) }
}

/// Runs a command at a time and takes in what follows from it; answers the kinds of the events.
fn run(stream: &mut Stream, command: &Command, now: Timestamp) -> Result<Vec<&'static str>, Refusal> {
    let hash = if let Command::Receive(it) = command { Some(it.content_hash) } else { None };
    let events = decide(stream, command, now)?;
    for event in &events {
        stream.apply(event, hash);
    }
    Ok(events.iter().map(Event::kind).collect())
}

fn received() -> Stream {
    let mut stream = Stream::default();
    run(&mut stream, &arrival("one", 1, vec![planned()], None), START).unwrap();
    stream
}

fn start_at(worker: &str) -> Command {
    let delivery_id = planned().delivery_id;
    Command::StartAttempt { delivery_id, claim: claim(worker, 30) }
}

fn accepted(attempt: u32) -> Command {
    let result = AttemptResult::Accepted { provider_message_id: Some("p-1".to_owned()), status: Some(200) };
    Command::RecordOutcome { delivery_id: planned().delivery_id, attempt, duration_ms: 5, result }
}

fn failed(attempt: u32, decision: Decision) -> Command {
    let result = AttemptResult::Failed {
        class: FailureClass::Retry,
        code: "http_503".to_owned(),
        status: Some(503),
        answer: None,
        decision,
    };
    Command::RecordOutcome { delivery_id: planned().delivery_id, attempt, duration_ms: 5, result }
}

fn retry_at(seconds: u64) -> Decision {
    Decision::RetryAt { at: after(seconds), policy: "schedule step 1".to_owned() }
}

fn give_up() -> Decision {
    Decision::GiveUp { policy: "5 attempts made".to_owned() }
}

fn lost(attempt: u32, decision: Decision) -> Command {
    Command::LoseAttempt { delivery_id: planned().delivery_id, attempt, decision }
}

fn mark(who: &str, mark: Mark) -> Command {
    Command::Mark { recipient: recipient(who), mark }
}

#[test]
fn the_same_id_is_a_redelivery_or_a_conflict_recorded_once() {
    let mut stream = received();
    assert_eq!(run(&mut stream, &arrival("one", 1, vec![], None), START), Err(Refusal::Redelivered));
    assert_eq!(run(&mut stream, &arrival("two", 2, vec![], None), START), Ok(vec!["message.conflicted"]));
    assert_eq!(run(&mut stream, &arrival("two", 2, vec![], None), START), Err(Refusal::ConflictKnown));
    assert_eq!(run(&mut stream, &arrival("three", 3, vec![], None), START), Ok(vec!["message.conflicted"]));
}

#[test]
fn a_claim_may_ride_with_the_arrival_but_only_for_what_is_due() {
    let mut stream = Stream::default();
    let kinds = run(&mut stream, &arrival("one", 1, vec![planned()], Some(claim("w", 30))), START).unwrap();
    assert_eq!(kinds, ["message.received", "push.planned", "push.attempt_started"]);
    let later = PlannedDelivery { due_at: after(10), ..planned() };
    let kinds =
        run(&mut Stream::default(), &arrival("one", 1, vec![later], Some(claim("w", 30))), START).unwrap();
    assert_eq!(kinds, ["message.received", "push.planned"]);
}

#[test]
fn one_worker_wins_the_claim() {
    let mut stream = received();
    assert_eq!(run(&mut stream, &start_at("a"), START), Ok(vec!["push.attempt_started"]));
    assert_eq!(run(&mut stream, &start_at("b"), START), Err(Refusal::LostRace));
}

#[test]
fn an_accepted_delivery_is_never_started_again() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    run(&mut stream, &accepted(1), START).unwrap();
    assert_eq!(run(&mut stream, &start_at("b"), after(500)), Err(Refusal::LostRace));
}

#[test]
fn a_failed_attempt_waits_for_its_time() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    assert_eq!(run(&mut stream, &failed(1, retry_at(60)), START), Ok(vec!["push.attempt_failed"]));
    assert_eq!(run(&mut stream, &start_at("a"), after(59)), Err(Refusal::LostRace));
    assert_eq!(run(&mut stream, &start_at("a"), after(60)), Ok(vec!["push.attempt_started"]));
}

#[test]
fn giving_up_is_said_as_its_own_event() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    let kinds = run(&mut stream, &failed(1, give_up()), START).unwrap();
    assert_eq!(kinds, ["push.attempt_failed", "push.exhausted"]);
    assert_eq!(run(&mut stream, &start_at("a"), after(60)), Err(Refusal::LostRace));
}

#[test]
fn a_lease_is_lost_only_after_its_end() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    assert_eq!(run(&mut stream, &lost(1, retry_at(40)), after(29)), Err(Refusal::LostRace));
    assert_eq!(run(&mut stream, &lost(1, retry_at(40)), after(30)), Ok(vec!["push.attempt_lost"]));
    assert_eq!(run(&mut stream, &lost(1, retry_at(40)), after(31)), Err(Refusal::LostRace));
    assert_eq!(run(&mut stream, &start_at("b"), after(40)), Ok(vec!["push.attempt_started"]));
}

#[test]
fn a_late_acceptance_ends_what_is_open_and_a_late_failure_changes_nothing() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    run(&mut stream, &lost(1, retry_at(40)), after(30)).unwrap();
    let mut failed_late = stream.clone();
    run(&mut failed_late, &failed(1, give_up()), after(31)).unwrap();
    assert_eq!(run(&mut failed_late, &start_at("b"), after(40)), Ok(vec!["push.attempt_started"]));
    run(&mut stream, &start_at("b"), after(40)).unwrap();
    run(&mut stream, &accepted(1), after(41)).unwrap();
    assert_eq!(run(&mut stream, &failed(2, retry_at(50)), after(42)), Ok(vec!["push.attempt_failed"]));
    assert_eq!(run(&mut stream, &start_at("b"), after(60)), Err(Refusal::LostRace), "it was accepted");
}

#[test]
fn an_unknown_end_stays_unknown_even_when_word_comes_late() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    let kinds = run(&mut stream, &lost(1, give_up()), after(30)).unwrap();
    assert_eq!(kinds, ["push.attempt_lost", "push.exhausted"]);
    let events = decide(&stream, &accepted(1), after(31)).unwrap();
    assert!(matches!(&events[..], [Event::PushAttemptSucceeded(it)] if !it.settles));
}

#[test]
fn what_expired_is_suppressed_before_and_exhausted_after_an_attempt() {
    let mut stream = received();
    assert_eq!(run(&mut stream, &start_at("a"), after(1000)), Ok(vec!["push.suppressed"]));
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    run(&mut stream, &failed(1, retry_at(60)), START).unwrap();
    assert_eq!(run(&mut stream, &start_at("a"), after(1000)), Ok(vec!["push.exhausted"]));
}

#[test]
fn an_outcome_is_recorded_once_however_often_it_is_told() {
    let mut stream = received();
    run(&mut stream, &start_at("a"), START).unwrap();
    assert_eq!(run(&mut stream, &failed(1, retry_at(0)), START), Ok(vec!["push.attempt_failed"]));
    assert_eq!(run(&mut stream, &failed(1, retry_at(0)), START), Ok(vec![]));
    run(&mut stream, &start_at("a"), START).unwrap();
    assert_eq!(run(&mut stream, &lost(2, retry_at(60)), after(30)), Ok(vec!["push.attempt_lost"]));
    assert_eq!(run(&mut stream, &accepted(2), after(31)), Ok(vec!["push.attempt_succeeded"]), "late");
    assert_eq!(run(&mut stream, &accepted(2), after(31)), Ok(vec![]));
}

#[test]
fn marks_append_only_what_changes_and_only_for_the_recipient() {
    let mut stream = received();
    assert_eq!(run(&mut stream, &mark("user-2", Mark::Read), START), Err(Refusal::UnknownMessage));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Read), START), Ok(vec!["inbox.read"]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Read), START), Ok(vec![]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Seen), START), Ok(vec![]), "read implies seen");
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Unread), START), Ok(vec!["inbox.unread"]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Archive), START), Ok(vec!["inbox.archived"]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Unarchive), START), Ok(vec!["inbox.unarchived"]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Delete), START), Ok(vec!["inbox.deleted"]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Delete), START), Ok(vec![]));
    assert_eq!(run(&mut stream, &mark("user-1", Mark::Read), START), Err(Refusal::NotInInbox));
}

#[test]
fn a_plan_is_made_once_and_ends_what_is_expired_already() {
    let mut stream = Stream::default();
    run(&mut stream, &arrival("one", 1, vec![], None), START).unwrap();
    let plan = Command::Plan { deliveries: vec![planned()] };
    assert_eq!(run(&mut stream.clone(), &plan, after(2000)), Ok(vec!["push.planned", "push.suppressed"]));
    assert_eq!(run(&mut stream, &plan, START), Ok(vec!["push.planned"]));
    assert_eq!(run(&mut stream, &plan, START), Ok(vec![]));
}

#[test]
fn what_expires_before_anybody_could_plan_it_is_ended_once() {
    let mut late = message("one");
    late.expires_at = Some(after(1000));
    let arrival =
        Receive { message: late.into(), content_hash: ContentHash([1; 32]), plan: vec![], claim: None };
    let mut stream = Stream::default();
    run(&mut stream, &Command::Receive(Box::new(arrival)), START).unwrap();
    let nothing = Command::Plan { deliveries: vec![] };
    assert_eq!(run(&mut stream, &nothing, after(999)), Ok(vec![]));
    assert_eq!(run(&mut stream, &nothing, after(1000)), Ok(vec!["push.suppressed"]));
    assert_eq!(run(&mut stream, &nothing, after(1001)), Ok(vec![]));
    let plan = Command::Plan { deliveries: vec![planned()] };
    assert_eq!(
        run(&mut stream, &plan, after(1001)),
        Ok(vec![]),
        "a provider that comes later changes nothing"
    );
}
