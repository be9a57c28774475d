//! A push endpoint in a storm: it accepts, throttles, fails, denies devices, resets and hangs, at random,
//! while two processes deliver. In the end the log and the endpoint agree on every single call.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use notification_ledger::{
    clock::{Clock as _, SystemClock},
    device::{PRODUCTION, Registration},
    event::{Event, FailureClass, Recorded, Verdict},
    id::{DeliveryId, DeviceId, RecipientId},
    message::Target,
    store::Store,
};
use serde_json::json;

use crate::{
    main_job::{deliveries_left, key, log_of},
    support::{
        database::{Kind, TestDb},
        eventually, http_client,
        ledger::open_store,
        service::Service,
        sink::{Answer, Call, Sink},
    },
};

/// Deliveries to make.
const DELIVERIES: usize = 20_000;
/// Recipients, each with one device; one device in twenty is dead.
const RECIPIENTS: usize = 4_000;
/// Pushes a second that each of the two processes may begin, and at once.
const RATE: usize = 250;
const BURST: usize = 100;
/// How long it may take in the end.
const DEADLINE: Duration = Duration::from_mins(15);

fn config(db: &TestDb, sink: &Sink) -> String {
    format!(
        r#"
[database]
url = "{}"

[api]
bind = "127.0.0.1:{{port}}"

[push]
provider = "sink"

[providers.sink]
kind = "http"
url = "{}"
timeout_ms = 2000
lease_ms = 6000
rate_per_s = {RATE}
burst = {BURST}
body = {{ delivery = "{{{{deliveryId}}}}", attempt = "{{{{attempt}}}}", token = "{{{{target.token}}}}" }}
outcomes = [ {{ status = 410, pointer = "/error", equals = "gone", class = "invalid_target", code = "/error" }} ]

[providers.sink.retry]
schedule_s = [0.2, 0.5, 1]
throttled_schedule_s = [1]
retry_after_min_s = 1
max_attempts = 1000
"#,
        db.url(),
        sink.url("/push"),
    )
}

fn token(recipient: usize) -> String {
    if recipient.is_multiple_of(20) { format!("dead-{recipient}") } else { format!("alive-{recipient}") }
}

async fn register_devices(store: &Store) {
    for at in 0..RECIPIENTS {
        let registration = Registration {
            device_id: DeviceId::new("phone").unwrap(),
            app: String::new(),
            platform: "ios".into(),
            kind: "acme".into(),
            environment: PRODUCTION.into(),
            target: Target::Token(token(at)),
            locale: None,
            time_zone: None,
            last_seen_at: None,
        };
        let recipient = RecipientId::new(&format!("user-{at}")).unwrap();
        store.put_device(&recipient, &registration, SystemClock.now()).await.unwrap();
    }
}

/// What the endpoint does with a call; a dead device is told so every time.
fn storm(seed: u64) -> impl FnMut(&Call) -> Answer + Send + 'static {
    let mut chance = fastrand::Rng::with_seed(seed);
    move |call| {
        let body = call.json();
        // Without a token it is to a recipient whose device has died, by the company's own id.
        let is_dead = body["token"].as_str().is_some_and(|it| it.starts_with("dead-"));
        match chance.u16(0..1000) {
            0 => Answer::status(429).header("Retry-After", "1"),
            1..40 => Answer::status(500),
            40..45 => Answer::reset(),
            45..50 => Answer::hang(),
            _ if is_dead => Answer::status(410).body(r#"{"error":"gone"}"#),
            it => Answer::status(200).after(Duration::from_millis(u64::from(it % 5))),
        }
    }
}

async fn post_all(one: &Service, other: &Service) {
    let client = http_client();
    for (part, from) in (0..DELIVERIES).step_by(250).enumerate() {
        let message = |at: usize| {
            json!({
                "messageId": format!("m-{at}"), "notificationType": "PUSH", "title": "Your pass expires",
                "recipientId": format!("user-{}", at % RECIPIENTS),
            })
        };
        let messages: Vec<_> = (from..from + 250).map(message).collect();
        let service = if part.is_multiple_of(2) { one } else { other };
        let answer = client.post(service.url("/v1/messages")).json(&json!({ "messages": messages }));
        let answer = answer.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_in_a_storm_is_accounted_for() {
    let seed = std::env::var("LEDGER_TEST_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    eprintln!("LEDGER_TEST_SEED={seed}");
    let (db, sink) = (TestDb::new(Kind::Postgres).await, Sink::start().await);
    sink.answer_with(storm(seed));
    let config = config(&db, &sink);
    let (mut one, mut other) = (Service::new(&config), Service::new(&config));
    one.start().await;
    other.start().await;
    let store = open_store(&db, 4).await;
    register_devices(&store).await;
    post_all(&one, &other).await;
    eventually("every delivery has come to an end", DEADLINE, async || deliveries_left(&store).await == 0)
        .await;
    let verified = one.run(&["projections", "verify", "deliveries"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    assert!(one.stop().await.success(), "{}", one.output());
    assert!(other.stop().await.success(), "{}", other.output());

    let calls = sink.calls();
    prove(&log_of(&store).await, &calls);
    within_the_rate(&calls);
    for at in 0..RECIPIENTS {
        let recipient = RecipientId::new(&format!("user-{at}")).unwrap();
        let devices = store.devices(&recipient).await.unwrap();
        let is_dead = devices[0].dead.is_some();
        assert_eq!(is_dead, token(at).starts_with("dead-"), "{devices:?}");
    }
    store.close().await;
}

/// What one delivery came to.
#[derive(Debug, Default)]
struct Story {
    accepted: bool,
    ended: Option<Verdict>,
    suppressed: bool,
}

/// Attempts in the log equal the calls at the endpoint; nothing that was accepted was called again; every
/// delivery ended.
fn prove(log: &[Recorded], calls: &[Call]) {
    let called: HashSet<(DeliveryId, u64)> = calls.iter().map(key).collect();
    assert_eq!(called.len(), calls.len(), "no attempt was called twice");
    let (mut started, mut not_called) = (HashSet::new(), HashSet::new());
    let mut stories: HashMap<DeliveryId, Story> = HashMap::new();
    for event in log {
        match &event.body {
            Event::PushPlanned(it) => {
                stories.extend(it.deliveries.iter().map(|it| (it.delivery_id, Story::default())));
            }
            Event::PushAttemptStarted(it) => {
                let story = &stories[&it.delivery_id];
                assert!(!story.accepted, "{:?} was called again after it was accepted", it.delivery_id);
                assert!(started.insert((it.delivery_id, u64::from(it.attempt))), "claimed twice");
            }
            Event::PushAttemptSucceeded(it) => stories.get_mut(&it.delivery_id).unwrap().accepted = true,
            // Nobody knows whether these reached the endpoint; and the ones that were never sent say so.
            Event::PushAttemptLost(it) => _ = not_called.insert((it.delivery_id, u64::from(it.attempt))),
            Event::PushAttemptFailed(it)
                if it.class == FailureClass::Unknown || it.code == "not_called" || it.code == "connect" =>
            {
                not_called.insert((it.delivery_id, u64::from(it.attempt)));
            }
            Event::PushExhausted(it) => stories.get_mut(&it.delivery_id).unwrap().ended = Some(it.verdict),
            Event::PushSuppressed(it) => stories.get_mut(&it.delivery_id).unwrap().suppressed = true,
            _ => {}
        }
    }
    assert_eq!(stories.len(), DELIVERIES);
    assert_eq!(called.difference(&started).count(), 0, "every call has its attempt");
    let silent: Vec<_> = started.difference(&called).filter(|it| !not_called.contains(it)).collect();
    assert!(silent.is_empty(), "attempts that look as if they were called: {silent:?}");
    let (mut accepted, mut failed, mut gone) = (0, 0, 0);
    for (id, story) in &stories {
        match story {
            Story { accepted: true, ended: None, suppressed: false } => accepted += 1,
            Story { accepted: false, ended: Some(Verdict::Failed), suppressed: false } => failed += 1,
            // Planned before its device died, and not called any more after.
            Story { accepted: false, ended: None, suppressed: true } => gone += 1,
            other => panic!("{id} came to {other:?}"),
        }
    }
    eprintln!("{accepted} accepted, {failed} and {gone} to dead devices, {} calls", calls.len());
    assert!(failed >= RECIPIENTS / 20, "each dead device was found out by an attempt");
    assert_eq!(accepted + failed + gone, DELIVERIES);
}

/// In no second began more calls than both processes together may begin.
fn within_the_rate(calls: &[Call]) {
    let mut times: Vec<_> = calls.iter().map(|it| it.at).collect();
    times.sort_unstable();
    let most = 2 * (RATE + BURST);
    let second = Duration::from_secs(1);
    let busiest = times.iter().enumerate().map(|(at, from)| {
        let until: SystemTime = *from + second;
        times[at..].partition_point(|it| *it < until)
    });
    let busiest = busiest.max().unwrap_or_default();
    eprintln!("at most {busiest} calls in a second, of {most}");
    assert!(busiest <= most, "{busiest} calls in a second");
}
