//! What operators do with deliveries and providers: listing, trying again, cancelling, replaying, pausing;
//! on every database, and by the commands of the real binary while it serves.

use std::{collections::BTreeSet, process::Output, sync::Arc, time::Duration};

use notification_ledger::{
    clock::{Clock, Timestamp},
    event::{Decision, Event, FailureClass, Metadata, RescheduleCause},
    id::{DeliveryId, MessageId},
    ledger::{
        Ledger, LedgerOptions,
        operate::{Denied, Replay, Replayed, Who},
    },
    projection::{
        ALL,
        deliveries::{DeliveryStatus, PushDelivery},
    },
    routing::Routing,
    store::{Applied, DeliveryFilter, Entry, Slot, Store},
    stream::{Able, AttemptResult, Claim, Command, Failover, Refusal},
};
use serde_json::{Value, json};

use crate::support::{
    database::for_each_database,
    eventually, http_client,
    ledger::{body, incoming, manual_clock, open_store, project_all},
    service::Service,
    sink::{Answer, Sink},
};

const DEADLINE: Duration = Duration::from_secs(30);
const ALL_OF_THEM: Replay = Replay {
    statuses: Vec::new(),
    filter: DeliveryFilter { provider: None, class: None, since: None, until: None, recipient: None },
    through: None,
    rate_per_s: None,
    start_at: None,
    after: None,
    is_dry: false,
};

/// A ledger with the providers `one` and `two`, which nobody calls.
pub(crate) fn ledger(store: &Store, clock: Arc<dyn Clock>) -> Ledger {
    let routing = Routing::universal(["one", "two"].map(|it| (it.to_owned(), Duration::from_mins(1))));
    let options = LedgerOptions { batch_max: 500, routing, dispatch: None };
    let (ledger, appenders) = Ledger::new(store.clone(), clock, options);
    for appender in appenders {
        tokio::spawn(appender.run());
    }
    ledger
}

async fn project(store: &Store) {
    for projection in ALL {
        project_all(store, *projection, Slot::A, 500).await;
    }
}

pub(crate) fn of(message: &str) -> (MessageId, DeliveryId) {
    let id = MessageId::new(message).unwrap();
    let delivery = DeliveryId::new(&id, "token:t");
    (id, delivery)
}

pub(crate) async fn push(ledger: &Ledger, id: &str, provider: &str, fields: Value) {
    let mut all = json!({
        "notificationType": "PUSH", "push": {"provider": provider, "targets": [{"token": "t"}]},
    });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ledger.accept(vec![incoming(id, &format!("user of {id}"), all)]).await.remove(0).unwrap();
}

pub(crate) async fn apply(ledger: &Ledger, message: &str, command: Command) {
    let (message_id, _) = of(message);
    let shard = ledger.store().home_of(&message_id).await.unwrap().unwrap();
    let entry = Entry { message_id, command, occurred_at: ledger.now(), metadata: Metadata::default() };
    let applied = ledger.apply_in(shard, vec![entry]).await.remove(0).unwrap();
    assert!(matches!(applied, Applied::Appended { .. }), "{applied:?}");
}

fn refused(class: FailureClass) -> AttemptResult {
    AttemptResult::Failed {
        class,
        code: "no".to_owned(),
        status: Some(400),
        answer: None,
        decision: Decision::GiveUp { policy: "enough".to_owned() },
    }
}

pub(crate) fn taken() -> AttemptResult {
    AttemptResult::Accepted { provider_message_id: None, status: Some(200) }
}

/// Claims a delivery, as if it were called now.
pub(crate) async fn start(ledger: &Ledger, message: &str) {
    let claim = Claim { worker: "w".to_owned(), lease_until: ledger.now().plus(Duration::from_mins(1)) };
    apply(ledger, message, Command::StartAttempt { delivery_id: of(message).1, claim }).await;
}

async fn attempt(ledger: &Ledger, message: &str, attempt: u32, result: AttemptResult) {
    start(ledger, message).await;
    let delivery_id = of(message).1;
    let failover =
        Failover { after: Duration::MAX, after_unknown: true, able: Able::All, configured: Able::All };
    let command = Command::RecordOutcome { delivery_id, attempt, duration_ms: 1, result, failover };
    apply(ledger, message, command).await;
}

/// All of a status, read in pages of this size.
pub(crate) async fn listed(
    store: &Store,
    status: DeliveryStatus,
    filter: &DeliveryFilter,
    limit: u64,
) -> Vec<PushDelivery> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = store.deliveries(status, filter, after.as_ref(), limit).await.unwrap();
        assert!(page.len() as u64 <= limit);
        rows.extend(page);
        let Some(next) = next else { return rows };
        after = Some(next.to_string().parse().unwrap());
    }
}

fn ids(rows: &[PushDelivery]) -> Vec<&str> {
    rows.iter().map(|it| it.message_id.as_str()).collect()
}

async fn run(ledger: &Ledger, replay: Replay) -> Replayed {
    let who = Who { by: "ops".to_owned(), ingress: "cli", reason: Some("the outage".to_owned()) };
    let mut replaying = ledger.replay(replay, who).unwrap();
    while replaying.page().await.unwrap() {}
    replaying.so_far().clone()
}

for_each_database! {
    /// Deliveries are found by status, each once, in the order that is promised, however small the pages.
    async fn deliveries_are_listed_status_by_status_and_page_by_page(db: TestDb) {
        let (store, clock) = (open_store(&db, 2).await, manual_clock());
        let ledger = ledger(&store, clock.clone());
        for n in 0..24_u32 {
            let id = format!("m-{n:02}");
            let provider = ["one", "two", "nobody"][n as usize % 3];
            push(&ledger, &id, provider, json!({})).await;
            match n % 8 {
                _ if provider == "nobody" => {}
                0 => attempt(&ledger, &id, 1, taken()).await,
                1..=3 => attempt(&ledger, &id, 1, refused(FailureClass::Permanent)).await,
                4 => attempt(&ledger, &id, 1, refused(FailureClass::Unknown)).await,
                5 => start(&ledger, &id).await,
                _ => {}
            }
            // Two and two share a moment.
            clock.advance(Duration::from_secs(u64::from(n % 2)));
        }
        project(&store).await;
        let all = DeliveryFilter::default();
        let mut seen = BTreeSet::new();
        for &status in DeliveryStatus::ALL {
            let whole = listed(&store, status, &all, 100).await;
            assert!(whole.iter().all(|it| it.status == status));
            for limit in [1, 2, 3] {
                assert_eq!(listed(&store, status, &all, limit).await, whole, "{status} by {limit}");
            }
            let key = |it: &PushDelivery| {
                let by_due = it.due_at_us.map(|at| (it.provider.clone(), at));
                let by_change = it.due_at_us.is_none().then_some(it.updated_at_us);
                let by_change = by_change.filter(|_| status != DeliveryStatus::Accepted);
                (by_due, by_change, it.message_id.clone())
            };
            assert!(whole.is_sorted_by_key(key), "{status}: {:?}", ids(&whole));
            seen.extend(whole.into_iter().map(|it| it.message_id));
        }
        assert_eq!(seen.len(), 24);

        let failed = listed(&store, DeliveryStatus::Failed, &all, 100).await;
        let some = |change: fn(&mut DeliveryFilter)| {
            let mut filter = DeliveryFilter::default();
            change(&mut filter);
            filter
        };
        let of_one = some(|it| it.provider = Some("one".to_owned()));
        for limit in [1, 100] {
            let rows = listed(&store, DeliveryStatus::Failed, &of_one, limit).await;
            let expected: Vec<_> =
                failed.iter().filter(|it| it.provider.as_deref() == Some("one")).cloned().collect();
            assert_eq!(rows, expected);
            let waiting = listed(&store, DeliveryStatus::Scheduled, &of_one, limit).await;
            assert!(!waiting.is_empty() && waiting.iter().all(|it| it.provider.as_deref() == Some("one")));
        }
        let at = failed[2].updated_at_us;
        let late = listed(&store, DeliveryStatus::Failed, &DeliveryFilter { since: Some(at), ..all.clone() }, 2).await;
        let early = listed(&store, DeliveryStatus::Failed, &DeliveryFilter { until: Some(at), ..all.clone() }, 2).await;
        assert_eq!([early, late].concat(), failed);
        let retry = DeliveryFilter { class: Some(FailureClass::Retry), ..all };
        assert_eq!(listed(&store, DeliveryStatus::Failed, &retry, 10).await, []);

        let (message, delivery) = of(&failed[0].message_id);
        let (row, attempts) = store.delivery(&message, delivery).await.unwrap().unwrap();
        assert_eq!((row, attempts.len()), (failed[0].clone(), 1));
        assert_eq!(store.delivery(&message, of("other").1).await.unwrap(), None);
    }

    /// A replay takes up what failed at the rate it was told, through whom it was told, with who did it;
    /// never what was accepted, even where the list does not know yet.
    async fn a_replay_takes_up_what_was_not_delivered_and_nothing_else(db: TestDb) {
        let (store, clock) = (open_store(&db, 2).await, manual_clock());
        let ledger = ledger(&store, clock.clone());
        let expires = json!({"expiresAt": "2026-11-22T09:00:30Z"});
        for (id, fields) in [("m-1", json!({})), ("m-2", json!({})), ("m-3", json!({})), ("m-4", json!({})), ("m-5", expires)] {
            push(&ledger, id, "one", fields).await;
        }
        attempt(&ledger, "m-1", 1, taken()).await;
        attempt(&ledger, "m-2", 1, refused(FailureClass::Permanent)).await;
        attempt(&ledger, "m-3", 1, refused(FailureClass::Permanent)).await;
        attempt(&ledger, "m-4", 1, refused(FailureClass::Unknown)).await;
        attempt(&ledger, "m-5", 1, refused(FailureClass::Permanent)).await;
        project(&store).await;
        // The list does not know yet that m-3 was tried again and accepted.
        let who = Who { by: "ops".to_owned(), ingress: "cli", reason: None };
        let (message, delivery) = of("m-3");
        ledger.retry_delivery(&message, delivery, None, &who).await.unwrap().unwrap();
        attempt(&ledger, "m-3", 2, taken()).await;
        clock.advance(Duration::from_mins(1));

        let both = Replay {
            statuses: vec![DeliveryStatus::Unknown, DeliveryStatus::Failed],
            through: Some("two".to_owned()),
            rate_per_s: Some(0.1),
            ..ALL_OF_THEM
        };
        let dry = run(&ledger, Replay { is_dry: true, ..both.clone() }).await;
        assert_eq!(dry, Replayed { matched: 4, rescheduled: 3, expired: 1, ..Replayed::default() });
        let only_failed = Replay { is_dry: true, statuses: vec![DeliveryStatus::Failed], ..both.clone() };
        assert_eq!(run(&ledger, only_failed).await.matched, 3);
        let gone = Replay { through: Some("gone".to_owned()), ..both.clone() };
        assert_eq!(ledger.replay(gone, who.clone()).unwrap_err(), Denied::UnknownProvider("gone".to_owned()));

        let done = run(&ledger, both.clone()).await;
        assert_eq!(done, Replayed { matched: 4, rescheduled: 2, expired: 1, accepted: 1, ..Replayed::default() });
        project(&store).await;
        let waiting = listed(&store, DeliveryStatus::Retrying, &DeliveryFilter::default(), 10).await;
        let due: BTreeSet<_> = waiting
            .iter()
            .map(|it| (it.message_id.as_str(), it.provider.as_deref(), it.due_at_us.unwrap().since(clock.now()).as_secs()))
            .collect();
        assert_eq!(due, [("m-2", Some("two"), 0), ("m-4", Some("two"), 20)].into(), "m-3 had its turn between them");
        let last = store.stream(&of("m-2").0).await.unwrap().pop().unwrap();
        let Event::PushRescheduled(event) = last.body else { panic!("{last:?}") };
        assert_eq!((event.cause, event.reason.as_str()), (RescheduleCause::Replay, "the outage"));
        assert_eq!(last.metadata.actor.as_deref(), Some("ops"));

        let again = run(&ledger, both).await;
        assert_eq!(again, Replayed { matched: 1, expired: 1, ..Replayed::default() });
        let refusal = ledger.retry_delivery(&message, delivery, None, &who).await.unwrap().unwrap_err();
        assert_eq!(refusal, Denied::Refused(Refusal::AlreadyAccepted));
        let (message, delivery) = of("m-2");
        ledger.cancel_delivery(&message, delivery, &who).await.unwrap().unwrap();
        project(&store).await;
        assert_eq!(ids(&listed(&store, DeliveryStatus::Suppressed, &DeliveryFilter::default(), 10).await), ["m-2"]);
    }

    /// What waits for one provider is moved to another when it is asked for, keeps its time, and is not moved
    /// twice.
    async fn what_waits_is_moved_to_another_provider(db: TestDb) {
        let (store, clock) = (open_store(&db, 2).await, manual_clock());
        let ledger = ledger(&store, clock.clone());
        push(&ledger, "m-1", "one", json!({})).await;
        push(&ledger, "m-2", "one", json!({"deliverAt": "2026-11-22T12:00:00Z"})).await;
        push(&ledger, "m-3", "two", json!({})).await;
        start(&ledger, "m-3").await;
        push(&ledger, "m-4", "two", json!({})).await;
        project(&store).await;
        clock.advance(Duration::from_secs(1));
        let waiting = Replay {
            statuses: vec![DeliveryStatus::Scheduled, DeliveryStatus::Retrying],
            through: Some("two".to_owned()),
            ..ALL_OF_THEM
        };
        let nowhere = Replay { through: None, ..waiting.clone() };
        let who = Who { by: "ops".to_owned(), ingress: "cli", reason: None };
        assert_eq!(ledger.replay(nowhere, who).unwrap_err(), Denied::Waits);
        let moved = Replayed { matched: 3, rescheduled: 2, under_way: 1, ..Replayed::default() };
        assert_eq!(run(&ledger, Replay { is_dry: true, ..waiting.clone() }).await, moved);
        assert_eq!(run(&ledger, waiting.clone()).await, moved);
        project(&store).await;
        let rows = listed(&store, DeliveryStatus::Scheduled, &DeliveryFilter::default(), 10).await;
        let found: BTreeSet<_> = rows
            .iter()
            .map(|it| (it.message_id.as_str(), it.provider.as_deref(), it.due_at_us.unwrap().to_string()))
            .collect();
        let row = |id, at: &str| (id, Some("two"), format!("2026-11-22T{at}.000000Z"));
        assert_eq!(found, [row("m-1", "09:00:01"), row("m-2", "12:00:00"), row("m-4", "09:00:00")].into());
        clock.advance(Duration::from_secs(1));
        assert_eq!(run(&ledger, waiting).await.rescheduled, 0);
    }

    /// A pause holds until it is ended, and everything that was done to a provider stays on record.
    async fn a_provider_is_paused_and_resumed_once_and_on_record(db: TestDb) {
        let (store, clock) = (open_store(&db, 1).await, manual_clock());
        let ledger = ledger(&store, clock.clone());
        let who = Who { by: "ops".to_owned(), ingress: "cli", reason: Some("red".to_owned()) };
        for (is_pause, is_new) in [(false, false), (true, true), (true, false), (false, true), (false, false)] {
            let done = ledger.control_provider("one", is_pause, &who).await.unwrap();
            assert_eq!(done, Ok(is_new), "{is_pause}");
            let states: Vec<_> = ledger.providers().await.unwrap().into_iter().map(|it| it.state).collect();
            assert_eq!(states, [if is_pause { "paused" } else { "running" }, "running"]);
            clock.advance(Duration::from_secs(1));
        }
        let history = store.control_history("one", 10).await.unwrap();
        assert_eq!(history.iter().map(|it| (it.is_pause, it.actor.as_str())).collect::<Vec<_>>(), [(false, "ops"), (true, "ops")]);
        let unknown = ledger.control_provider("gone", true, &who).await.unwrap();
        assert_eq!(unknown, Err(Denied::UnknownProvider("gone".to_owned())));
    }
}

/// A service on SQLite whose provider `acme` is the sink.
fn service(sink: &Sink) -> Service {
    let url = sink.url("/push");
    Service::new(&format!(
        "[database]\nurl = \"sqlite://{{folder}}/ledger.db\"\n[api]\nbind = \"127.0.0.1:{{port}}\"\n\
         [delivery]\npoll_ms = 100\n[push]\nprovider = \"acme\"\n\
         [providers.acme]\nkind = \"http\"\nurl = \"{url}\"\n"
    ))
}

async fn send(service: &Service, id: &str) {
    let fields = json!({"notificationType": "PUSH", "push": {"targets": [{"token": "t"}]}});
    let request = http_client().post(service.url("/v1/messages")).body(body(id, "user-1", fields));
    assert_eq!(request.send().await.unwrap().status(), 201);
}

async fn json_of(service: &Service, arguments: &[&str]) -> Value {
    let output = service.run(&[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

async fn messages_in(service: &Service, status: &str) -> Vec<String> {
    let list = json_of(service, &["deliveries", "list", "--status", status]).await;
    let list = list["deliveries"].as_array().unwrap().iter();
    list.map(|it| it["messageId"].as_str().unwrap().to_owned()).collect()
}

async fn wait_for(service: &Service, status: &str, expected: &[&str]) {
    let what = format!("{expected:?} to be {status}");
    let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
    eventually(&what, DEADLINE, async || {
        messages_in(service, status).await.into_iter().collect::<BTreeSet<_>>() == expected
    })
    .await;
}

/// How often the sink was called for a message.
fn calls(sink: &Sink, message: &str) -> usize {
    sink.calls().iter().filter(|it| it.json()["messageId"] == message).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_listed_tried_again_and_replayed_while_the_service_runs() {
    let sink = Sink::start().await;
    sink.answer_with(|call| Answer::status(if call.json()["messageId"] == "good" { 200 } else { 400 }));
    let mut service = service(&sink);
    service.start().await;
    for id in ["good", "m-1", "m-2", "m-3"] {
        send(&service, id).await;
    }
    wait_for(&service, "failed", &["m-1", "m-2", "m-3"]).await;
    wait_for(&service, "accepted", &["good"]).await;
    let text = said(&service.run(&["deliveries", "list"]).await);
    assert!(text.contains("failed") && text.contains("acme → token:…, for user-1, 1 attempt"), "{text}");
    sink.answer_with(|_| Answer::status(200));

    let delivery = of("m-1").1.to_string();
    let retry = ["deliveries", "retry", "m-1", &delivery, "--by", "ops", "--reason", "it works again"];
    let output = service.run(&retry).await;
    assert!(said(&output).starts_with("rescheduled, at 0-"), "{}", said(&output));
    wait_for(&service, "accepted", &["good", "m-1"]).await;
    let shown = json_of(&service, &["deliveries", "show", "m-1", &delivery]).await;
    assert_eq!((&shown["status"], shown["calls"].as_array().unwrap().len()), (&json!("accepted"), 2));
    let audit = said(&service.run(&["audit", "message", "m-1"]).await);
    assert!(audit.contains("it works again, by ops"), "{audit}");
    let output = service.run(&retry).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("accepted by a provider, and is not sent again"), "{}", said(&output));

    let replay = ["deliveries", "replay", "--rate", "4", "--by", "ops", "--reason", "the outage"];
    let counted = said(&service.run(&replay).await);
    assert!(counted.contains("2 deliveries looked at, 2 to be sent again, 0 left out"), "{counted}");
    assert!(counted.contains("nothing was done; --yes with a --reason does it"), "{counted}");
    assert_eq!(messages_in(&service, "failed").await, ["m-2", "m-3"]);
    let done = json_of(&service, &[&replay[..], &["--yes"]].concat()).await;
    assert_eq!((&done["rescheduled"], &done["dryRun"]), (&json!(2), &json!(false)));
    wait_for(&service, "accepted", &["good", "m-1", "m-2", "m-3"]).await;
    for (message, expected) in [("good", 1), ("m-1", 2), ("m-2", 2), ("m-3", 2)] {
        assert_eq!(calls(&sink, message), expected, "{message}");
    }
    let mut due = Vec::new();
    for message in ["m-2", "m-3"] {
        let audit = json_of(&service, &["audit", "message", message]).await;
        let replayed =
            audit["timeline"].as_array().unwrap().iter().find(|it| it["event"] == "push.rescheduled");
        due.push(Timestamp::parse(replayed.unwrap()["detail"]["dueAt"].as_str().unwrap()).unwrap());
    }
    let apart = due[0].since(due[1]).max(due[1].since(due[0]));
    assert_eq!(apart, Duration::from_millis(250), "four a second");
    assert!(service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_provider_is_not_called_and_what_was_cancelled_is_not_sent() {
    let sink = Sink::start().await;
    let mut service = service(&sink);
    service.start().await;
    send(&service, "m-1").await;
    wait_for(&service, "accepted", &["m-1"]).await;
    let pause = ["providers", "pause", "acme", "--by", "ops", "--reason", "their status page is red"];
    assert_eq!(said(&service.run(&pause).await), "acme  paused\n");
    assert_eq!(said(&service.run(&pause).await), "acme  was paused before\n");
    eventually("the worker to hear of the pause", DEADLINE, async || {
        let metrics = http_client().get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let paused = "notification_ledger_provider_state{provider=\"acme\",state=\"paused\"} 1";
        metrics.contains(paused)
    })
    .await;
    send(&service, "m-2").await;
    send(&service, "m-3").await;
    wait_for(&service, "scheduled", &["m-2", "m-3"]).await;
    let list = said(&service.run(&["providers", "list"]).await);
    assert!(list.contains("acme  http  paused  2 due"), "{list}");
    assert!(list.contains("by ops (operator): their status page is red"), "{list}");
    let delivery = of("m-2").1.to_string();
    let cancel = ["deliveries", "cancel", "m-2", &delivery, "--by", "ops", "--reason", "a slip"];
    assert!(said(&service.run(&cancel).await).starts_with("suppressed, at 0-"));
    let audit = said(&service.run(&["audit", "message", "m-2"]).await);
    assert!(audit.contains("cancelled, by ops: a slip"), "{audit}");
    assert_eq!(sink.count(), 1);
    assert_eq!(said(&service.run(&["providers", "resume", "acme", "--by", "ops"]).await), "acme  running\n");
    wait_for(&service, "accepted", &["m-1", "m-3"]).await;
    assert_eq!((calls(&sink, "m-2"), sink.count()), (0, 2));
    let unknown = service.run(&["providers", "pause", "gone"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("no provider \"gone\" is configured"), "{}", said(&unknown));
    assert!(service.stop().await.success());
}

#[tokio::test]
async fn providers_are_checked_without_sending_anything() {
    let sink = Sink::start().await;
    sink.answer_with(|call| match call.uri.path() {
        "/well/push/getReceipts" => Answer::status(200).body(r#"{"data": {}}"#),
        _ => Answer::status(401).body(r#"{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}"#),
    });
    let config = format!(
        "[providers.dry]\nkind = \"log\"\n\
         [providers.well]\nkind = \"expo\"\nbase_url = \"{0}/well\"\n\
         [providers.wrong]\nkind = \"expo\"\nbase_url = \"{0}/wrong\"\n\
         [providers.unready]\nkind = \"expo\"\naccess_token = \"env:NO_SUCH_VARIABLE_HERE\"\n",
        sink.url("")
    );
    let service = Service::new(&config);
    let output = service.run(&["providers", "check"]).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in [
        "dry  log  credentials not tried: there is no way to ask; the configuration is well",
        "well  expo  credentials not tried: Expo answers; there is no access token to check",
        "wrong  expo  refused: code UNAUTHORIZED (auth_config), HTTP 401",
        "unready  expo  cannot be used: provider \"unready\": access_token",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(sink.calls().iter().all(|it| it.uri.path().ends_with("/push/getReceipts")));
    for (name, well) in [("dry", true), ("well", true), ("wrong", false), ("gone", false)] {
        let output = service.run(&["providers", "check", name, "--json"]).await;
        assert_eq!(output.status.success(), well, "{name}: {}", said(&output));
    }
    let checked = json_of(&service, &["providers", "check", "well"]).await;
    assert_eq!(checked["providers"][0]["result"], "not_tried");
}
