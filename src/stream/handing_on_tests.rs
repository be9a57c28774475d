//! How deliveries go from one provider to another, and from one target to another.

use super::*;
use crate::id::DeviceId;

/// Only these can take anything.
fn able(names: &[&str]) -> Able {
    Able::Only(names.iter().map(|it| (*it).to_owned()).collect())
}

#[test]
fn what_a_provider_is_given_up_for_goes_to_the_next_and_what_is_the_pushs_own_fault_ends() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry, Unknown};
    for (class, after_unknown, able, expected) in [
        (Retry, true, Able::All, Some("bravo")),
        (Retry, true, able(&["acme", "carol"]), Some("carol")),
        (Retry, true, able(&["acme"]), None),
        (AuthConfig, true, Able::All, Some("bravo")),
        (Unknown, true, Able::All, Some("bravo")),
        (Unknown, false, Able::All, None),
        (Permanent, true, Able::All, None),
        (InvalidTarget, true, Able::All, None),
    ] {
        let mut stream = routed();
        run(&mut stream, &start_at("w-1"), START).unwrap();
        let failover = Failover { after: BUDGET, after_unknown, configured: able.clone(), able };
        let (code, status, answer, decision) = ("code".to_owned(), None, None, give_up());
        let result = AttemptResult::Failed { class, code, status, answer, decision };
        let command = Command::RecordOutcome {
            delivery_id: id(),
            attempt: 1,
            duration_ms: 5,
            result,
            failover: failover.clone(),
        };
        let events = run(&mut stream, &command, after(1)).unwrap();
        let last = if expected.is_some() { "push.rescheduled" } else { "push.exhausted" };
        assert_eq!(events, ["push.attempt_failed", last], "{class:?} {failover:?}");
        if let Some(expected) = expected {
            assert_eq!(next_provider(&stream, after(1)), expected);
        }
    }
}

#[test]
fn a_lease_that_ran_out_for_the_last_time_sends_it_on_where_twice_is_better_than_never() {
    for (after_unknown, last) in [(true, "push.rescheduled"), (false, "push.exhausted")] {
        let mut stream = routed();
        run(&mut stream, &start_at("w-1"), START).unwrap();
        let failover = Failover { after_unknown, ..failover() };
        let lost = Command::LoseAttempt { delivery_id: id(), attempt: 1, decision: give_up(), failover };
        assert_eq!(run(&mut stream, &lost, after(30)), Ok(vec!["push.attempt_lost", last]));
    }
}

#[test]
fn nobody_is_given_what_he_cannot_take() {
    let to = |able| Command::FailOver {
        able,
        delivery_id: id(),
        from: "acme".to_owned(),
        reason: "paused".to_owned(),
    };
    assert_eq!(run(&mut routed(), &to(able(&[])), START), Err(Refusal::LostRace));
    let mut stream = routed();
    assert_eq!(run(&mut stream, &to(able(&["carol"])), START), Ok(vec!["push.rescheduled"]));
    assert_eq!(next_provider(&stream, START), "carol");
}

/// The device of this delivery has this token by now; these providers know it.
fn moved(from: DeliveryId, token: &str, fits: &[&str], afresh: Option<PlannedDelivery>) -> Command {
    let to = Box::new((Target::Token(token.to_owned()), DeviceId::new("phone").unwrap()));
    let fits = fits.iter().map(|it| (*it).to_owned()).collect();
    Command::Move { delivery_id: from, afresh: afresh.map(Box::new), to, fits }
}

fn id_of(token: &str) -> DeliveryId {
    DeliveryId::new(&MessageId::new("m-1").unwrap(), &Target::Token(token.to_owned()).canonical())
}

#[test]
fn a_delivery_gives_its_place_to_another_and_may_have_it_again() {
    let afresh = |token| Some(PlannedDelivery { delivery_id: id_of(token), ..planned() });
    let both = Ok(vec!["push.suppressed", "push.planned"]);
    let mut stream = received();
    assert_eq!(run(&mut stream, &moved(id(), "a", &["acme"], None), START), both);
    assert_eq!(run(&mut stream, &start_at("w-1"), START), Err(Refusal::LostRace), "it is not sent");
    assert_eq!(run(&mut stream, &moved(id_of("a"), "a", &["acme"], None), START), Err(Refusal::LostRace));
    let sooner = Command::Reschedule {
        delivery_id: id(),
        provider: None,
        due_at: START,
        cause: RescheduleCause::Retry,
        reason: "now".to_owned(),
    };
    assert_eq!(run(&mut stream, &sooner, START), Err(Refusal::LostRace), "nor by hand");
    assert_eq!(run(&mut stream, &moved(id_of("a"), "b", &[], afresh("b")), START), both, "planned afresh");
    assert_eq!(run(&mut stream, &moved(id_of("b"), "a", &["acme"], None), START), both, "and back");
    assert_eq!(
        run(&mut stream, &moved(id_of("a"), "c", &[], None), START),
        Ok(vec!["push.suppressed"]),
        "nobody knows the device"
    );
}

#[test]
fn a_delivery_that_moves_keeps_its_provider_and_what_is_left_of_its_route() {
    for (fits, expected) in [
        (&["acme", "bravo", "carol"][..], Some(("bravo", &["carol"][..]))),
        (&["carol"], Some(("carol", &[]))),
        (&["acme"], None),
    ] {
        let mut stream = routed();
        run(&mut stream, &fail_over("acme"), START).unwrap();
        let events = decide(&stream, &moved(id(), "a", fits, None), START).unwrap();
        let plan = events.iter().find_map(|it| match it {
            Event::PushPlanned(it) => it.deliveries.first(),
            _ => None,
        });
        let found = plan
            .map(|it| (it.provider.as_str(), it.fallbacks.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(found, expected.map(|(one, rest)| (one, rest.to_vec())), "{fits:?}");
    }
}

#[test]
fn what_nobody_can_take_just_now_waits_for_the_next_and_is_not_given_up() {
    let mut stream = routed();
    run(&mut stream, &start_at("w-1"), START).unwrap();
    let failover = Failover { able: able(&[]), configured: able(&["acme", "carol"]), ..failover() };
    let (class, code, status, answer) = (FailureClass::Retry, "code".to_owned(), None, None);
    let result = AttemptResult::Failed { class, code, status, answer, decision: give_up() };
    let command = Command::RecordOutcome { delivery_id: id(), attempt: 1, duration_ms: 5, result, failover };
    assert_eq!(run(&mut stream, &command, after(1)), Ok(vec!["push.attempt_failed", "push.rescheduled"]));
    assert_eq!(next_provider(&stream, after(1)), "carol");
}

#[test]
fn what_is_not_planned_yet_can_be_cancelled() {
    let arrival = arrival("one", 1, vec![], None);
    let mut stream = Stream::default();
    run(&mut stream, &arrival, START).unwrap();
    let stand_in = DeliveryId::new(&MessageId::new("m-1").unwrap(), "");
    let cancel = Command::Suppress { delivery_id: stand_in, reason: SuppressReason::Cancelled };
    assert_eq!(run(&mut stream, &cancel, START), Ok(vec!["push.suppressed"]));
    assert_eq!(run(&mut stream, &cancel, START), Err(Refusal::UnknownDelivery), "once");
    let plan = Command::Plan { deliveries: vec![planned()], is_nowhere: false };
    assert_eq!(run(&mut stream, &plan, START), Ok(vec![]));
}
