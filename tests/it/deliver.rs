//! Delivering on every database, through the real HTTP provider to a real push endpoint.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use notification_ledger::{
    clock::{Clock, SystemClock, Timestamp},
    event::{Decision, Event},
    id::{DeliveryId, MessageId},
    ledger::{
        Ledger, LedgerOptions,
        dispatch::{Dispatch, Takes},
    },
    projection::{ALL, deliveries::DeliveryStatus},
    provider::{self, Configured},
    routing::Routing,
    store::{Due, Slot, Store, Waiting},
    supervisor::{Outcome, Supervisor},
    wake::Wake,
    worker::{
        self,
        deliver::{Deliver, DeliverOptions},
        project::Project,
    },
};
use serde_json::{Value, json};

use crate::support::{
    database::for_each_database,
    eventually,
    ledger::{incoming, manual_clock, open_store, project_all},
    sink::{Answer, Sink},
};

/// How long anything may take in the end.
const DEADLINE: Duration = Duration::from_mins(1);

/// One process that delivers.
struct Process {
    ledger: Ledger,
    deliver: Deliver,
    appenders: Vec<notification_ledger::ledger::appender::Appender>,
}

/// A process under this name with one provider, `push`. With `rides`, first attempts ride with the
/// arrivals.
fn process(store: &Store, clock: Arc<dyn Clock>, name: &str, settings: Value, rides: bool) -> Process {
    let push = provider::build("push", "http", settings, Arc::clone(&clock)).unwrap();
    let Configured { lease, concurrency, .. } = push;
    let (dispatch, dispatched) =
        Dispatch::new(name, concurrency, [("push".to_owned(), Takes { calls: concurrency, rate: None })]);
    let routing = Routing::universal([("push".to_owned(), lease)]);
    let options = LedgerOptions { batch_max: 500, routing, dispatch: rides.then_some(dispatch) };
    let (ledger, appenders) = Ledger::new(store.clone(), clock, options);
    let options = DeliverOptions { batch_max: 20, poll: Duration::from_millis(100) };
    let deliver = Deliver::new(ledger.clone(), dispatched, [push], &options);
    Process { ledger, deliver, appenders }
}

impl Process {
    /// Starts the appenders, for a process that is settled by hand.
    fn by_hand(mut self) -> (Ledger, Deliver) {
        for appender in self.appenders.drain(..) {
            tokio::spawn(appender.run());
        }
        (self.ledger, self.deliver)
    }
}

/// Folds what there is, does all there is to do, and folds again.
async fn work(store: &Store, deliver: &mut Deliver) {
    project(store).await;
    deliver.settle().await.unwrap();
    project(store).await;
}

async fn project(store: &Store) {
    for projection in ALL {
        project_all(store, *projection, Slot::A, 500).await;
    }
}

async fn events(store: &Store, message: &str) -> Vec<Event> {
    let stream = store.stream(&MessageId::new(message).unwrap()).await.unwrap();
    stream.into_iter().map(|it| it.body).collect()
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::kind).filter(|it| it.starts_with("push.") && *it != "push.planned").collect()
}

/// The retry that a message's last failure led to: how long after now, and by which rule.
fn last_retry(events: &[Event], now: Timestamp) -> (Duration, String) {
    let failed = events.iter().rev().find_map(|event| match event {
        Event::PushAttemptFailed(it) => Some(it),
        _ => None,
    });
    match &failed.unwrap().decision {
        Decision::RetryAt { at, policy } => (at.since(now), policy.clone()),
        Decision::GiveUp { policy } => panic!("given up: {policy}"),
    }
}

fn due_ids(page: &[Due]) -> Vec<String> {
    page.iter().map(|it| it.message_id.to_string()).collect()
}

for_each_database! {
    /// A provider that asks for time gets it, and the wait it asked for is on record.
    async fn a_wait_that_the_provider_asks_for_is_honoured(db: TestDb) {
        let (store, clock, sink) = (open_store(&db, 2).await, manual_clock(), Sink::start().await);
        let settings = json!({"url": sink.url("/push"), "id": "/id", "retry": {"jitter": 0.0}});
        let (ledger, mut deliver) = process(&store, clock.clone(), "w", settings, false).by_hand();
        // By its own clock, which is an hour ahead.
        let (date, until) = ("Sun, 22 Nov 2026 10:02:00 GMT", "Sun, 22 Nov 2026 10:05:00 GMT");
        sink.answer_next([
            Answer::status(429).header("Retry-After", "120"),
            Answer::status(503).header("Date", date).header("Retry-After", until),
            Answer::status(200).body(r#"{"id": "p-1"}"#),
        ]);
        ledger.accept(vec![incoming("m-1", "user-1", json!({}))]).await.remove(0).unwrap();

        work(&store, &mut deliver).await;
        let (wait, policy) = last_retry(&events(&store, "m-1").await, clock.now());
        assert_eq!((wait, policy.as_str()), (Duration::from_mins(2), "retry-after 120 s"));
        clock.advance(Duration::from_secs(119));
        work(&store, &mut deliver).await;
        assert_eq!(sink.count(), 1);
        clock.advance(Duration::from_secs(1));
        work(&store, &mut deliver).await;
        let (wait, _) = last_retry(&events(&store, "m-1").await, clock.now());
        assert_eq!((sink.count(), wait), (2, Duration::from_mins(3)), "until the date it named");
        clock.advance(wait);
        work(&store, &mut deliver).await;

        let events = events(&store, "m-1").await;
        let Some(Event::PushAttemptSucceeded(it)) = events.last() else { panic!("{:?}", kinds(&events)) };
        assert_eq!((it.attempt, it.provider_message_id.as_deref()), (3, Some("p-1")));
        let keys: HashSet<_> = sink.calls().iter().map(|it| it.json()["idempotencyKey"].to_string()).collect();
        assert_eq!(keys.len(), 1, "the same on every attempt");
    }

    /// Another vendor is other settings under the same name: what failed at the old one goes to the
    /// new one, and nothing else changes.
    async fn another_vendor_is_a_change_of_configuration_only(db: TestDb) {
        let (store, clock) = (open_store(&db, 1).await, manual_clock());
        let (old, new) = (Sink::start().await, Sink::start().await);
        old.answer_with(|_| Answer::status(503));
        let settings = json!({"url": old.url("/v1/send")});
        let (ledger, mut deliver) = process(&store, clock.clone(), "w-1", settings, true).by_hand();
        deliver.settle().await.unwrap();
        ledger.accept(vec![incoming("m-1", "user-1", json!({}))]).await.remove(0).unwrap();
        deliver.settle().await.unwrap();
        assert_eq!(old.calls()[0].json()["title"], "title of m-1");

        let settings = json!({
            "url": new.url("/notifications/{{recipientId}}"),
            "body": {"contents": {"en": "{{title}}"}},
            "outcomes": [{"status": 202, "class": "accepted"}],
        });
        new.answer_with(|_| Answer::status(202));
        let (_ledger, mut deliver) = process(&store, clock.clone(), "w-2", settings, true).by_hand();
        clock.advance(Duration::from_secs(20));
        work(&store, &mut deliver).await;
        assert_eq!((old.count(), new.count()), (1, 1));
        let call = &new.calls()[0];
        assert_eq!(call.uri.path(), "/notifications/user-1");
        assert_eq!(call.json(), json!({"contents": {"en": "title of m-1"}}));
        let expected =
            ["push.attempt_started", "push.attempt_failed", "push.attempt_started", "push.attempt_succeeded"];
        assert_eq!(kinds(&events(&store, "m-1").await), expected);
    }

    /// Processes share the deliveries: every call has its attempt in the log, and no attempt has two.
    async fn two_processes_share_the_deliveries_and_every_call_is_in_the_log(db: TestDb) {
        const MESSAGES: usize = 150;
        let sink = Sink::start().await;
        sink.answer_with(|_| match fastrand::u8(0..10) {
            0 => Answer::status(500),
            1 => Answer::reset(),
            _ => Answer::status(200),
        });
        let settings = json!({
            "url": sink.url("/push"), "timeout_ms": 5_000, "concurrency": 8,
            "retry": {"schedule_s": [0.05], "max_attempts": 1_000},
        });
        let mut processes = Vec::new();
        for (name, rides) in [("w-1", false), ("w-2", true)] {
            let store = open_store(&db, 2).await;
            let Process { ledger, deliver, appenders } =
                process(&store, Arc::new(SystemClock), name, settings.clone(), rides);
            let (supervisor, folded) = (Supervisor::new(DEADLINE), Wake::default());
            let (tasks, stop) = (supervisor.tasks(), supervisor.tasks().stop().soft());
            for appender in appenders {
                tasks.spawn_finite("append", async { appender.run().await; Ok::<_, std::io::Error>(()) });
            }
            let project = Project::new(ledger.clone(), 500, folded.clone());
            tasks.spawn("project", worker::run(project, ledger.appended(), Duration::from_millis(50), stop.clone()));
            tasks.spawn("deliver", deliver.run(folded, stop.clone()));
            let stop = tasks.stop().clone();
            processes.push((store, ledger, stop, tokio::spawn(supervisor.run_until_stopped())));
        }
        for batch in (0..MESSAGES).collect::<Vec<_>>().chunks(25) {
            let batch = batch.iter().map(|at| incoming(&format!("m-{at}"), &format!("user-{at}"), json!({})));
            let ledger = &processes[batch.len() % 2].1;
            for receipt in ledger.accept(batch.collect()).await {
                receipt.unwrap();
            }
        }
        let store = open_store(&db, 2).await;
        eventually("every delivery was accepted", DEADLINE, async || {
            let mut accepted = HashSet::new();
            for at in 0..MESSAGES {
                let id = format!("m-{at}");
                let events = events(&store, &id).await;
                if events.iter().any(|it| matches!(it, Event::PushAttemptSucceeded(_))) {
                    accepted.insert(id);
                } else {
                    break;
                }
            }
            accepted.len() == MESSAGES
        })
        .await;
        for (store, ledger, stop, ended) in processes {
            drop(ledger);
            stop.ask();
            assert!(matches!(ended.await.unwrap().unwrap(), Outcome::Drained));
            store.close().await;
        }
        prove(&store, &sink, MESSAGES).await;
        store.close().await;
    }

    /// What is due is found by provider and status, page by page and each once, on its index.
    async fn what_is_due_is_found_page_by_page(db: TestDb) {
        let (store, clock, sink) = (open_store(&db, 2).await, manual_clock(), Sink::start().await);
        let settings = json!({"url": sink.url("/push")});
        let (ledger, _deliver) = process(&store, clock.clone(), "w", settings, false).by_hand();
        // All in one moment, as a campaign is; then one that was to be sent before.
        let campaign = (10..35).map(|at| incoming(&format!("m-{at}"), &format!("user-{at}"), json!({})));
        let elsewhere = json!({"push": {"provider": "nobody-has-it"}});
        let odd = [incoming("m-90", "u", elsewhere), incoming("m-91", "u", json!({"deliverAt": "2026-11-23T09:00:00Z"}))];
        for receipt in ledger.accept(campaign.chain(odd).collect()).await {
            receipt.unwrap();
        }
        project(&store).await;
        let waiting = Waiting { status: DeliveryStatus::Scheduled, routed: false, provider: Some("push") };
        let (mut found, mut after): (Vec<Due>, Option<Due>) = (Vec::new(), None);
        for expected in [10, 10, 5, 0] {
            let page = store.due(waiting, clock.now(), after.as_ref(), 10).await.unwrap();
            assert_eq!(page.len(), expected);
            after = page.last().cloned().or(after);
            found.extend(page);
        }
        let expected: Vec<_> = (10..35).map(|at| format!("m-{at}")).collect();
        assert_eq!(due_ids(&found), expected);
        assert!(found.iter().all(|it| it.target.is_some() && it.attempts == 0 && it.first_due_at == clock.now()));

        let unplanned = Waiting { status: DeliveryStatus::Unplanned, routed: false, provider: None };
        assert_eq!(due_ids(&store.due(unplanned, clock.now(), None, 10).await.unwrap()), ["m-90"]);
        let received = store.received(&[&found[0].message_id, &found[1].message_id]).await.unwrap();
        assert_eq!(received[&found[1].message_id].title, "title of m-11");

        let later = clock.now().plus(Duration::from_secs(30));
        let mut counts = store.count_due(later, later).await.unwrap();
        counts.sort_by(|one, other| one.provider.cmp(&other.provider));
        let counts: Vec<_> = counts.into_iter().map(|it| (it.provider, it.due, it.overdue)).collect();
        assert_eq!(counts, [(None, 1, 1), (Some("push".to_owned()), 25, 25)]);
        let counts = store.count_due(later, clock.now()).await.unwrap();
        assert!(counts.iter().all(|it| it.overdue == 0), "due since this very moment");
    }
}

/// Every call that the endpoint saw has its attempt, recorded before it, and no attempt two calls;
/// every delivery was accepted once at least, and after it was, nobody called again.
async fn prove(store: &Store, sink: &Sink, messages: usize) {
    let mut started: HashMap<(DeliveryId, u32), Timestamp> = HashMap::new();
    for at in 0..messages {
        let stream = store.stream(&MessageId::new(&format!("m-{at}")).unwrap()).await.unwrap();
        let mut is_accepted = false;
        for event in stream {
            match event.body {
                Event::PushAttemptStarted(it) => {
                    assert!(!is_accepted, "m-{at} was accepted before attempt {}", it.attempt);
                    let before = started.insert((it.delivery_id, it.attempt), event.recorded_at);
                    assert_eq!(before, None);
                }
                Event::PushAttemptSucceeded(it) => is_accepted |= it.settles,
                _ => {}
            }
        }
        assert!(is_accepted, "m-{at}");
    }
    let mut seen = HashSet::new();
    for call in sink.calls() {
        let body = call.json();
        let delivery: DeliveryId = body["deliveryId"].as_str().unwrap().parse().unwrap();
        let attempt = u32::try_from(body["attempt"].as_u64().unwrap()).unwrap();
        let recorded = started.get(&(delivery, attempt)).expect("a call without an attempt");
        let called = call.at.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(i128::from(recorded.as_micros()) <= i128::try_from(called.as_micros()).unwrap());
        assert!(seen.insert((delivery, attempt)), "attempt {attempt} of {delivery} was called twice");
    }
    assert_eq!(seen.len(), started.len(), "every attempt that was started was made");
}
