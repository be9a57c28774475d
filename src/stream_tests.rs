//! What each command means for a message in each state, and what is refused.

use std::time::Duration;

use super::*;
use crate::{
    event::MessageCancelled,
    id::MessageId,
    message::{Channels, Target},
};

#[path = "stream/handing_on_tests.rs"]
mod handing_on;

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

/// How long a provider may try where another could.
const BUDGET: Duration = Duration::from_secs(100);

fn recipient(id: &str) -> RecipientId {
    RecipientId::new(id).unwrap()
}

fn planned() -> PlannedDelivery {
    let target = Target::Alias("user-1".to_owned());
    PlannedDelivery {
        delivery_id: DeliveryId::new(&MessageId::new("m-1").unwrap(), &target.canonical()),
        target,
        provider: "acme".to_owned(),
        fallbacks: Vec::new(),
        device_id: None,
        due_at: START,
        expires_at: Some(after(1000)),
    }
}

fn arrival(title: &str, hash: u8, plan: Vec<PlannedDelivery>, claim: Option<Claim>) -> Command {
    let content_hash = ContentHash([hash; 32]);
    Command::Receive(Box::new(Receive {
        message: message(title).into(),
        content_hash,
        plan,
        is_nowhere: false,
        claim,
    }))
}

fn claim(worker: &str, seconds: u64) -> Claim {
    Claim { worker: worker.to_owned(), lease_until: after(seconds) }
}

/// Runs a command at a time and takes in what follows from it; answers the kinds of the events.
fn run(stream: &mut Stream, command: &Command, now: Timestamp) -> Result<Vec<&'static str>, Refusal> {
    let hash = if let Command::Receive(it) = command { Some(it.content_hash) } else { None };
    let events = decide(stream, command, now)?;
    for event in &events {
        stream.apply(event, now, hash);
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
    Command::RecordOutcome {
        delivery_id: planned().delivery_id,
        attempt,
        duration_ms: 5,
        result,
        failover: failover(),
    }
}

fn failed(attempt: u32, decision: Decision) -> Command {
    let result = AttemptResult::Failed {
        class: FailureClass::Retry,
        code: "http_503".to_owned(),
        status: Some(503),
        answer: None,
        decision,
    };
    Command::RecordOutcome {
        delivery_id: planned().delivery_id,
        attempt,
        duration_ms: 5,
        result,
        failover: failover(),
    }
}

fn failover() -> Failover {
    Failover { after: BUDGET, after_unknown: true, able: Able::All, configured: Able::All }
}

fn retry_at(seconds: u64) -> Decision {
    Decision::RetryAt { at: after(seconds), policy: "schedule step 1".to_owned() }
}

fn give_up() -> Decision {
    Decision::GiveUp { policy: "5 attempts made".to_owned() }
}

fn lost(attempt: u32, decision: Decision) -> Command {
    Command::LoseAttempt { delivery_id: planned().delivery_id, attempt, decision, failover: failover() }
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
fn an_item_appears_and_goes_once_when_its_time_has_come() {
    let arrive = |deliver_at: Option<u64>, expires_at: Option<u64>| {
        let message = Message {
            deliver_at: deliver_at.map(after),
            expires_at: expires_at.map(after),
            ..message("one")
        };
        let Command::Receive(mut arrival) = arrival("one", 1, vec![], None) else { panic!() };
        arrival.message = message.into();
        let mut stream = Stream::default();
        run(&mut stream, &Command::Receive(arrival), START).unwrap();
        stream
    };
    let present = |stream: &mut Stream, at| run(stream, &Command::Present, after(at));
    let read = |stream: &mut Stream| run(stream, &mark("user-1", Mark::Read), START);

    let mut later = arrive(Some(10), Some(20));
    assert_eq!(present(&mut later, 9), Ok(vec![]));
    assert_eq!(read(&mut later), Err(Refusal::NotInInbox), "nobody saw it yet");
    assert_eq!(present(&mut later, 10), Ok(vec!["inbox.presented"]));
    assert_eq!(present(&mut later, 19), Ok(vec![]));
    assert_eq!(read(&mut later), Ok(vec!["inbox.read"]));
    assert_eq!(present(&mut later, 20), Ok(vec!["inbox.expired"]));
    assert_eq!(present(&mut later, 21), Ok(vec![]));
    assert_eq!(read(&mut later), Err(Refusal::NotInInbox));
    assert_eq!(run(&mut later, &mark("user-1", Mark::Delete), START), Err(Refusal::NotInInbox));

    assert_eq!(present(&mut arrive(Some(10), Some(20)), 25), Ok(vec!["inbox.expired"]), "it was too late");
    for (deliver_at, expires_at) in [(None, Some(0)), (Some(20), Some(20)), (Some(0), Some(0))] {
        let mut never = arrive(deliver_at, expires_at);
        assert_eq!(present(&mut never, 30), Ok(vec![]), "{deliver_at:?} {expires_at:?}");
        assert_eq!(read(&mut never), Err(Refusal::NotInInbox), "{deliver_at:?} {expires_at:?}");
    }
    assert_eq!(read(&mut arrive(Some(0), None)), Ok(vec!["inbox.read"]), "its time had come when it came");

    let mut cancelled = arrive(Some(10), None);
    cancelled.apply(&Event::MessageCancelled(MessageCancelled { reason: "sold out".into() }), START, None);
    assert_eq!(present(&mut cancelled, 10), Ok(vec![]));
}

#[test]
fn a_plan_is_made_once_and_ends_what_is_expired_already() {
    let mut stream = Stream::default();
    run(&mut stream, &arrival("one", 1, vec![], None), START).unwrap();
    let plan = Command::Plan { deliveries: vec![planned()], is_nowhere: false };
    assert_eq!(run(&mut stream.clone(), &plan, after(2000)), Ok(vec!["push.planned", "push.suppressed"]));
    assert_eq!(run(&mut stream, &plan, START), Ok(vec!["push.planned"]));
    assert_eq!(run(&mut stream, &plan, START), Ok(vec![]));
}

#[test]
fn what_expires_before_anybody_could_plan_it_is_ended_once() {
    let mut late = message("one");
    late.expires_at = Some(after(1000));
    let arrival = Receive {
        message: late.into(),
        content_hash: ContentHash([1; 32]),
        plan: vec![],
        is_nowhere: false,
        claim: None,
    };
    let mut stream = Stream::default();
    run(&mut stream, &Command::Receive(Box::new(arrival)), START).unwrap();
    let nothing = Command::Plan { deliveries: vec![], is_nowhere: false };
    assert_eq!(run(&mut stream, &nothing, after(999)), Ok(vec![]));
    assert_eq!(run(&mut stream, &nothing, after(1000)), Ok(vec!["push.suppressed"]));
    assert_eq!(run(&mut stream, &nothing, after(1001)), Ok(vec![]));
    let plan = Command::Plan { deliveries: vec![planned()], is_nowhere: false };
    assert_eq!(
        run(&mut stream, &plan, after(1001)),
        Ok(vec![]),
        "a provider that comes later changes nothing"
    );
}

fn id() -> DeliveryId {
    planned().delivery_id
}

fn pending(attempt: u32, seconds: u64) -> Command {
    let result = AttemptResult::Pending { ticket: "t-1".to_owned(), ask_at: after(seconds) };
    Command::RecordOutcome { delivery_id: id(), attempt, duration_ms: 5, result, failover: failover() }
}

#[test]
fn a_pending_push_waits_for_the_providers_final_word() {
    let mut stream = received();
    run(&mut stream, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut stream, &pending(1, 900), after(1)), Ok(vec!["push.attempt_pending"]));
    assert_eq!(run(&mut stream, &pending(1, 900), after(1)), Ok(vec![]), "told twice");
    assert_eq!(run(&mut stream, &start_at("w-2"), after(99)), Err(Refusal::LostRace));
    assert_eq!(run(&mut stream, &lost(1, give_up()), after(99)), Err(Refusal::LostRace), "no lease runs");
    assert_eq!(run(&mut stream, &pending(1, 1800), after(900)), Ok(vec!["push.attempt_pending"]));
    let mut well = stream.clone();
    assert_eq!(run(&mut well, &accepted(1), after(1800)), Ok(vec!["push.attempt_succeeded"]));
    assert_eq!(run(&mut well, &accepted(1), after(1801)), Ok(vec![]));
    assert_eq!(
        run(&mut stream, &failed(1, give_up()), after(1800)),
        Ok(vec!["push.attempt_failed", "push.exhausted"])
    );
}

#[test]
fn a_pending_word_that_comes_late_is_recorded_and_changes_nothing() {
    let mut stream = received();
    run(&mut stream, &start_at("w-1"), START).unwrap();
    run(&mut stream, &lost(1, retry_at(40)), after(30)).unwrap();
    assert_eq!(run(&mut stream, &pending(1, 900), after(31)), Ok(vec!["push.attempt_pending"]));
    assert_eq!(run(&mut stream, &pending(1, 900), after(32)), Ok(vec![]));
    assert_eq!(run(&mut stream, &start_at("w-2"), after(40)), Ok(vec!["push.attempt_started"]));
}

/// Two providers that could take over: acme, then bravo, then carol.
fn routed() -> Stream {
    let plan = PlannedDelivery {
        fallbacks: vec!["bravo".to_owned(), "carol".to_owned()],
        expires_at: None,
        ..planned()
    };
    let mut stream = Stream::default();
    run(&mut stream, &arrival("one", 1, vec![plan], None), START).unwrap();
    stream
}

fn fail_over(from: &str) -> Command {
    Command::FailOver {
        delivery_id: id(),
        from: from.to_owned(),
        reason: "paused".to_owned(),
        able: Able::All,
    }
}

/// The provider of the next attempt.
fn next_provider(stream: &Stream, now: Timestamp) -> String {
    match &decide(stream, &start_at("w"), now).unwrap()[..] {
        [Event::PushAttemptStarted(it)] => it.provider.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_of_the_route_takes_over_when_the_time_of_one_is_used_up() {
    let mut stream = routed();
    run(&mut stream, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut stream, &failed(1, retry_at(100)), after(1)), Ok(vec!["push.attempt_failed"]));
    run(&mut stream, &start_at("w-1"), after(100)).unwrap();
    let over = Ok(vec!["push.attempt_failed", "push.rescheduled"]);
    assert_eq!(run(&mut stream, &failed(2, retry_at(101)), after(100)), over);
    assert_eq!(next_provider(&stream, after(100)), "bravo", "at once");
    run(&mut stream, &start_at("w-1"), after(100)).unwrap();
    assert_eq!(
        run(&mut stream, &failed(3, retry_at(200)), after(101)),
        Ok(vec!["push.attempt_failed"]),
        "bravo has a time of its own"
    );
    assert_eq!(
        run(&mut stream, &fail_over("acme"), after(101)),
        Err(Refusal::LostRace),
        "not acme's any more"
    );
    assert_eq!(run(&mut stream, &fail_over("bravo"), after(101)), Ok(vec!["push.rescheduled"]));
    assert_eq!(next_provider(&stream, after(101)), "carol");
    assert_eq!(run(&mut stream, &fail_over("carol"), after(102)), Err(Refusal::LostRace), "nobody is left");
}

#[test]
fn refused_credentials_send_a_delivery_on_at_once() {
    let refused = |attempt| {
        let result = AttemptResult::Failed {
            class: FailureClass::AuthConfig,
            code: "http_401".to_owned(),
            status: Some(401),
            answer: None,
            decision: retry_at(5),
        };
        Command::RecordOutcome { delivery_id: id(), attempt, duration_ms: 5, result, failover: failover() }
    };
    let mut stream = routed();
    run(&mut stream, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut stream, &refused(1), after(1)), Ok(vec!["push.attempt_failed", "push.rescheduled"]));
    let mut alone = received();
    run(&mut alone, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut alone, &refused(1), after(1)), Ok(vec!["push.attempt_failed"]));
}

fn again(provider: Option<&str>, seconds: u64) -> Command {
    Command::Reschedule {
        delivery_id: id(),
        provider: provider.map(ToOwned::to_owned),
        due_at: after(seconds),
        cause: RescheduleCause::Replay,
        reason: "once more".to_owned(),
    }
}

#[test]
fn what_was_not_delivered_can_be_sent_again_and_what_was_accepted_never() {
    let mut stream = received();
    assert_eq!(run(&mut stream, &again(None, 0), START), Err(Refusal::LostRace), "it waits already");
    let Command::Reschedule { delivery_id, provider, due_at, reason, .. } = again(None, 0) else { panic!() };
    let sooner = Command::Reschedule { delivery_id, provider, due_at, cause: RescheduleCause::Retry, reason };
    assert_eq!(run(&mut stream.clone(), &sooner, START), Ok(vec!["push.rescheduled"]), "sooner");
    run(&mut stream, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut stream, &again(None, 1), after(1)), Err(Refusal::LostRace), "under way");
    let mut accepted_one = stream.clone();
    run(&mut accepted_one, &accepted(1), after(1)).unwrap();
    assert_eq!(run(&mut accepted_one, &again(None, 2), after(2)), Err(Refusal::AlreadyAccepted));

    run(&mut stream, &failed(1, give_up()), after(1)).unwrap();
    assert_eq!(run(&mut stream, &again(None, 1000), after(2)), Err(Refusal::Expired));
    let events = decide(&stream, &again(Some("bravo"), 2), after(2)).unwrap();
    let [Event::PushRescheduled(it)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((it.reopens, it.provider.as_str()), (Some(crate::event::Ended::Failed), "bravo"));
    run(&mut stream, &again(Some("bravo"), 2), after(2)).unwrap();
    assert_eq!(next_provider(&stream, after(2)), "bravo");
    run(&mut stream, &start_at("w-1"), after(2)).unwrap();
    assert_eq!(run(&mut stream, &accepted(2), after(3)), Ok(vec!["push.attempt_succeeded"]));
}

#[test]
fn what_is_cancelled_by_hand_is_not_sent_and_what_is_under_way_is_not_called_back() {
    let suppress = Command::Suppress { delivery_id: id(), reason: SuppressReason::Cancelled };
    let mut stream = received();
    let mut started = stream.clone();
    assert_eq!(run(&mut stream, &suppress, START), Ok(vec!["push.suppressed"]));
    assert_eq!(run(&mut stream, &suppress, START), Ok(vec![]));
    assert_eq!(run(&mut stream, &start_at("w-1"), START), Err(Refusal::LostRace));
    run(&mut started, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut started, &suppress, after(1)), Err(Refusal::LostRace));
    run(&mut started, &accepted(1), after(1)).unwrap();
    assert_eq!(run(&mut started, &suppress, after(2)), Err(Refusal::AlreadyAccepted));
}

#[test]
fn the_first_word_of_a_device_counts() {
    let opened = |kind| Command::Report { delivery_id: id(), kind, detail: None };
    let mut stream = received();
    assert_eq!(run(&mut stream, &opened(ReceiptKind::Opened), START), Err(Refusal::NeverSent));
    run(&mut stream, &start_at("w-1"), START).unwrap();
    assert_eq!(run(&mut stream, &opened(ReceiptKind::Delivered), START), Ok(vec!["push.receipt"]));
    assert_eq!(run(&mut stream, &opened(ReceiptKind::Opened), START), Ok(vec!["push.receipt"]));
    assert_eq!(run(&mut stream, &opened(ReceiptKind::Opened), START), Ok(vec![]));
    let unknown = DeliveryId::new(&MessageId::new("m-1").unwrap(), "token:other");
    let stranger = Command::Report { delivery_id: unknown, kind: ReceiptKind::Opened, detail: None };
    assert_eq!(run(&mut stream, &stranger, START), Err(Refusal::UnknownDelivery));
}

#[test]
fn a_push_that_has_nowhere_to_go_ends_as_it_begins() {
    let arrival = Receive {
        message: message("one").into(),
        content_hash: ContentHash([1; 32]),
        plan: vec![],
        is_nowhere: true,
        claim: None,
    };
    let mut stream = Stream::default();
    let arrival = Command::Receive(Box::new(arrival));
    assert_eq!(run(&mut stream, &arrival, START), Ok(vec!["message.received", "push.suppressed"]));
    let plan = Command::Plan { deliveries: vec![planned()], is_nowhere: false };
    assert_eq!(run(&mut stream, &plan, START), Ok(vec![]));
}
