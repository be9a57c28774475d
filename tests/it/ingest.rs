//! What a queue or a file hands in: into the log or into quarantine, and nothing lost in between.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sqs::{
    config::{Credentials, Region, SharedCredentialsProvider},
    types::MessageAttributeValue,
};
use notification_ledger::{
    clock::{SystemClock, Timestamp},
    event::{Event, Recorded},
    id::MessageId,
    ledger::{
        Ledger, LedgerOptions, Receipt,
        intake::{Retried, Taken},
    },
    routing::Routing,
    source::{
        Arrival, Beside, Handle, KEPT_BYTES_MAX, Source, SourceError,
        ndjson::Ndjson,
        sqs::{Sqs, SqsOptions},
    },
    store::{DbOptions, Decided, Decision, HeldState, Mode, NewLedger, Store, Unreadable},
    worker::ingest::pollers,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    eventually,
    ledger::{TestLedger, body, open_store},
    postgres::PrivatePostgres,
    queue::{ACCESS_KEY, Depth, Queue, QueueSettings, REGION},
    variable,
};

const PATIENCE: Duration = Duration::from_secs(20);
const POLLERS: usize = 3;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn input(text: &str) -> Unreadable {
    Unreadable {
        source: "sqs:n message 5fea".to_owned(),
        code: "not_json".to_owned(),
        reason: "the body is not JSON; send JSON".to_owned(),
        body: text.as_bytes().to_vec(),
        size: text.len() as u64,
        attributes: "{}".to_owned(),
    }
}

for_each_database! {
    /// The same input is one row, which counts how often it came.
    async fn quarantine_holds_each_input_once(db: TestDb) {
        let store = open_store(&db, 1).await;
        store.quarantine_hold(&[input("a"), input("b"), input("a")], at(1)).await.unwrap();
        store.quarantine_hold(&[input("a")], at(2)).await.unwrap();
        let held = store.quarantine_list(None, None, 10).await.unwrap();
        let mut seen: Vec<_> = held.iter().map(|it| (it.times_seen, it.first_at, it.last_at)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(1, at(1), at(1)), (3, at(1), at(2))]);
        assert!(held.iter().all(|it| it.state == HeldState::Held && it.decided.is_none()));
        store.close().await;
    }

    /// A body is kept byte for byte, up to a whole MiB, with every kind of character.
    async fn quarantine_keeps_input_as_it_came(db: TestDb) {
        let store = open_store(&db, 1).await;
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(KEPT_BYTES_MAX).collect();
        let item = Unreadable {
            body: bytes.clone(),
            reason: "is \u{1f514} and \u{0}".replace('\u{0}', "\\0"),
            attributes: r#"{"attributes":{"한":"값"}}"#.to_owned(),
            ..input("")
        };
        store.quarantine_hold(std::slice::from_ref(&item), at(1)).await.unwrap();
        let id = store.quarantine_list(None, None, 1).await.unwrap()[0].id;
        let held = store.quarantine_get(id).await.unwrap().unwrap();
        assert!(held.body == bytes);
        assert_eq!((held.attributes, held.entry.reason), (item.attributes, item.reason));
        store.close().await;
    }

    /// Lists go on where the last page ended, and show one state where one is asked for.
    async fn quarantine_is_listed_page_by_page(db: TestDb) {
        let store = open_store(&db, 1).await;
        for second in 1..=5 {
            store.quarantine_hold(&[input(&second.to_string())], at(second)).await.unwrap();
        }
        let first = store.quarantine_list(None, None, 3).await.unwrap();
        let second = store.quarantine_list(None, Some(first[2].id), 3).await.unwrap();
        let order: Vec<_> = first.iter().chain(&second).map(|it| it.first_at).collect();
        assert_eq!(order, [1, 2, 3, 4, 5].map(at), "the oldest first");

        let decided = Decided { at: at(9), by: "ops".to_owned(), note: Some("a test".to_owned()) };
        assert!(store.quarantine_decide(first[1].id, Decision::Discarded, &decided).await.unwrap());
        let discarded = store.quarantine_list(Some(HeldState::Discarded), None, 10).await.unwrap();
        assert_eq!(discarded.len(), 1);
        assert_eq!((discarded[0].id, discarded[0].decided.as_ref()), (first[1].id, Some(&decided)));
        assert_eq!(store.quarantine_list(Some(HeldState::Held), None, 10).await.unwrap().len(), 4);
        store.close().await;
    }

    /// What was discarded may be retried; what became a message stays one.
    async fn quarantine_is_decided_upon_once(db: TestDb) {
        let store = open_store(&db, 1).await;
        store.quarantine_hold(&[input("a")], at(1)).await.unwrap();
        let id = store.quarantine_list(None, None, 1).await.unwrap()[0].id;
        let decided = |by: &str| Decided { at: at(2), by: by.to_owned(), note: None };
        assert!(store.quarantine_decide(id, Decision::Discarded, &decided("one")).await.unwrap());
        assert!(!store.quarantine_decide(id, Decision::Discarded, &decided("two")).await.unwrap());
        assert!(store.quarantine_decide(id, Decision::Retried, &decided("three")).await.unwrap());
        assert!(!store.quarantine_decide(id, Decision::Discarded, &decided("four")).await.unwrap());
        let entry = store.quarantine_get(id).await.unwrap().unwrap().entry;
        assert_eq!((entry.state, entry.decided), (HeldState::Retried, Some(decided("three"))));
        // Coming again does not undo what was decided.
        store.quarantine_hold(&[input("a")], at(3)).await.unwrap();
        let entry = store.quarantine_get(id).await.unwrap().unwrap().entry;
        assert_eq!((entry.state, entry.times_seen), (HeldState::Retried, 2));
        store.close().await;
    }

    async fn a_database_that_takes_writes_says_so(db: TestDb) {
        let store = open_store(&db, 1).await;
        let before = store.identity().clone();
        store.check_writable().await.unwrap();
        assert_eq!(open_store(&db, 1).await.identity(), &before);
        store.close().await;
    }

    /// Good and bad in one batch: each ends where it belongs, and the queue is empty.
    async fn poison_among_nine_good_harms_none(db: TestDb) {
        let test = Ingest::start(&db, QueueSettings::default()).await;
        let mut bodies: Vec<_> = (0..9).map(|n| text(&format!("m-{n}"), "u", "t")).collect();
        bodies.insert(4, "{\"messageId\": ".to_owned());
        test.queue.send(&bodies).await;
        test.drained().await;
        assert_eq!(test.received().await.len(), 9);
        let held = test.ledger.store().quarantine_list(None, None, 10).await.unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].code, "not_json");
        assert!(held[0].source.starts_with("sqs:notifications message "), "{}", held[0].source);
        test.close().await;
    }
}

/// A queue, a ledger, and the pollers between them.
struct Ingest {
    queue: Queue,
    ledger: Ledger,
    whole: TestLedger,
    stop: CancellationToken,
    pollers: JoinSet<()>,
}

impl Ingest {
    async fn start(db: &TestDb, settings: QueueSettings) -> Self {
        let (whole, queue) = (TestLedger::new(db, 2).await, Queue::new(settings).await);
        let options = options(&queue.url);
        Self::start_on(whole, queue, options).await
    }

    async fn start_on(whole: TestLedger, queue: Queue, options: SqsOptions) -> Self {
        let (ledger, stop) = (whole.ledger.clone(), CancellationToken::new());
        let source = Sqs::open_with(options, &credentials()).await.unwrap();
        let pollers = pollers(source, ledger.clone(), POLLERS);
        let pollers = pollers.into_iter().map(|poller| poller.run(stop.clone())).collect();
        Self { queue, ledger, whole, stop, pollers }
    }

    async fn drained(&self) {
        eventually("the queue is empty", PATIENCE, async || self.queue.depth().await == Depth::EMPTY).await;
        assert_eq!(self.queue.dead_letter_depth().await, Depth::EMPTY);
    }

    /// The arrivals in the log, in its order.
    async fn received(&self) -> Vec<Recorded> {
        let log = self.whole.log().await;
        log.into_iter().filter(|it| matches!(it.body, Event::MessageReceived(_))).collect()
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.pollers.join_next().await {
            ended.unwrap();
        }
    }

    async fn close(mut self) {
        self.stop().await;
        drop(self.ledger);
        self.whole.close().await;
    }
}

pub(crate) fn options(queue: &str) -> SqsOptions {
    SqsOptions {
        name: "notifications".to_owned(),
        queue: queue.to_owned(),
        endpoint_url: Some(variable("LEDGER_TEST_SQS_ENDPOINT")),
        region: Some(REGION.to_owned()),
        visibility_timeout: Duration::from_secs(30),
        wait: Duration::from_secs(1),
        weak_ids: false,
    }
}

pub(crate) fn credentials() -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

fn text(id: &str, recipient: &str, title: &str) -> String {
    String::from_utf8(body(id, recipient, json!({ "title": title }))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redeliveries_and_conflicts_are_recorded_and_deleted() {
    let db = TestDb::new(Kind::Sqlite).await;
    let test = Ingest::start(&db, QueueSettings::default()).await;
    let one = text("m-1", "u", "one");
    test.queue.send(&[one.clone(), one.clone(), text("m-1", "u", "another")]).await;
    test.drained().await;
    test.queue.send(&[one]).await;
    test.drained().await;
    let log = test.whole.log().await;
    assert_eq!(test.received().await.len(), 1);
    let conflicts = log.iter().filter(|it| matches!(it.body, Event::MessageConflicted(_))).count();
    assert_eq!(conflicts, 1);
    let evidence = test.ledger.store().redeliveries(&MessageId::new("m-1").unwrap()).await.unwrap();
    assert_eq!(evidence.redelivered, 2);
    assert_eq!(evidence.last_ingress.as_deref(), Some("sqs:notifications"));
    test.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_queue_knew_is_in_the_log() {
    let db = TestDb::new(Kind::Sqlite).await;
    let test = Ingest::start(&db, QueueSettings::default()).await;
    let attribute = |data_type: &str, value: &str| {
        MessageAttributeValue::builder().data_type(data_type).string_value(value).build().unwrap()
    };
    // As Spring's template sends it, its id in an attribute.
    let request = test.queue.client.send_message().queue_url(&test.queue.url);
    let body = json!({"notificationType": "APP_NOTIFICATION", "recipientId": "u", "title": "t"});
    request
        .message_body(body.to_string())
        .message_attributes("JavaType", attribute("String", "com.company.Notification"))
        .message_attributes("retries", attribute("Number.java.lang.Integer", "1"))
        .message_attributes("messageId", attribute("String", "m-attribute"))
        .message_attributes("traceparent", attribute("String", "00-0af7651916cd43dd-b7ad6b7169203331-01"))
        .send()
        .await
        .unwrap();
    test.drained().await;
    let received = test.received().await;
    let (event, metadata) = (&received[0], &received[0].metadata);
    assert_eq!(event.message_id.as_str(), "m-attribute");
    assert_eq!(metadata.ingress.as_deref(), Some("sqs:notifications"));
    assert_eq!(metadata.receive_count, Some(1));
    assert_eq!(metadata.trace.as_deref(), Some("00-0af7651916cd43dd-b7ad6b7169203331-01"));
    assert!(metadata.queue_message_id.is_some() && metadata.sent_at.is_some());
    test.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_queue_keeps_the_order_of_its_groups() {
    let db = TestDb::new(Kind::Sqlite).await;
    let queue = Queue::new(QueueSettings { fifo: true, ..QueueSettings::default() }).await;
    for number in 0..60 {
        let group = format!("user-{}", number % 3);
        let id = format!("m-{number}");
        let request = queue.client.send_message().queue_url(&queue.url).message_group_id(&group);
        let request = request.message_deduplication_id(&id).message_body(text(&id, &group, "t"));
        request.send().await.unwrap();
    }
    let options = options(&queue.url);
    let test = Ingest::start_on(TestLedger::new(&db, 2).await, queue, options).await;
    test.drained().await;
    let mut by_recipient = BTreeMap::<String, Vec<usize>>::new();
    for event in test.received().await {
        let number = event.message_id.as_str().trim_start_matches("m-").parse().unwrap();
        by_recipient.entry(event.recipient_id.to_string()).or_default().push(number);
    }
    assert_eq!(by_recipient.len(), 3);
    for numbers in by_recipient.values() {
        assert_eq!(numbers.len(), 20);
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
    test.close().await;
}

#[tokio::test]
async fn what_follows_a_failure_in_its_group_is_not_tried() {
    let db = TestDb::new(Kind::Sqlite).await;
    let store = open_store(&db, 2).await;
    let options = LedgerOptions { batch_max: 500, routing: Routing::default(), dispatch: None };
    let (ledger, appenders) = Ledger::new(store.clone(), Arc::new(SystemClock), options);
    let appenders: Vec<_> = appenders.into_iter().map(|it| tokio::spawn(it.run())).collect();
    // Only the first shard can be appended to: the second is not there any more.
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    tx.script("delete from log_shards where shard = 1".to_owned()).await.unwrap();
    tx.commit().await.unwrap();
    let [first, second] = [0, 1].map(|shard| {
        let names = (0..).map(|n| format!("user-{n}"));
        let mut here = names.filter(|it| store.shard_of(&it.parse().unwrap()).0 == shard);
        here.next().unwrap()
    });
    let arrival = |id: &str, recipient: &str, group: Option<&str>| Arrival {
        body: body(id, recipient, json!({})),
        size: 0,
        beside: Beside::default(),
        metadata: notification_ledger::event::Metadata::default(),
        place: "here".to_owned(),
        group: group.map(ToOwned::to_owned),
        handle: Handle::default(),
    };
    let taken = ledger
        .take_in(
            "test",
            vec![
                arrival("m-1", &first, Some("g")),
                arrival("m-2", &second, Some("g")),
                arrival("m-3", &first, Some("g")),
                arrival("m-4", &first, Some("h")),
                arrival("m-5", &first, None),
                arrival("m-6", &second, None),
            ],
        )
        .await;
    let outcomes: Vec<_> = taken
        .iter()
        .map(|it| match it {
            Taken::Accepted(Receipt::Appended(_)) => "appended",
            Taken::Failed(_) => "failed",
            Taken::Behind => "behind",
            _ => "other",
        })
        .collect();
    assert_eq!(outcomes, ["appended", "failed", "behind", "appended", "appended", "failed"]);
    drop(ledger);
    for appender in appenders {
        appender.await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_leaves_nothing_in_flight() {
    let db = TestDb::new(Kind::Sqlite).await;
    let mut test = Ingest::start(&db, QueueSettings::default()).await;
    let bodies: Vec<_> = (0..600).map(|n| text(&format!("m-{n}"), "u", "t")).collect();
    let half = bodies.len() / 2;
    test.queue.send(&bodies[..half]).await;
    tokio::join!(test.queue.send(&bodies[half..]), async {
        test.stop.cancel();
        while let Some(ended) = test.pollers.join_next().await {
            ended.unwrap();
        }
    });
    let depth = test.queue.depth().await;
    assert_eq!(depth.in_flight, 0);
    assert_eq!(test.received().await.len() + depth.visible, bodies.len(), "deleted is what is in the log");
    test.close().await;
}

/// The queue stays the buffer: while the database is away messages wear out no receive count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_sends_nothing_to_the_dead_letter_queue() {
    const HIDDEN: Duration = Duration::from_secs(1);
    let postgres = PrivatePostgres::start().await;
    let database = DbOptions {
        url: postgres.url(),
        pooler: false,
        max_connections: 8,
        acquire_timeout: Duration::from_millis(200),
    };
    let new = NewLedger { ledger_id: "test".to_owned(), shards: Some(2), created_at: at(1) };
    let store = Store::create_or_open(&database, None, &new).await.unwrap();
    let queue = Queue::new(QueueSettings { max_receive_count: 2, ..QueueSettings::default() }).await;
    let options = SqsOptions { visibility_timeout: HIDDEN, ..options(&queue.url) };
    let test = Ingest::start_on(TestLedger::on(store, Arc::new(SystemClock)), queue, options).await;
    let bodies: Vec<_> = (0..320).map(|n| text(&format!("m-{n}"), &format!("u-{}", n % 5), "t")).collect();
    test.queue.send(&bodies[..20]).await;
    test.drained().await;

    postgres.stop().await;
    let stopped = Instant::now();
    test.queue.send(&bodies[20..]).await;
    eventually("the outage outlasts what the queue would put up with", PATIENCE, async || {
        stopped.elapsed() > 8 * HIDDEN
    })
    .await;
    let depth = test.queue.depth().await;
    assert_eq!(depth.visible + depth.in_flight, 300);
    postgres.start_again().await;
    eventually("everything catches up", Duration::from_mins(1), async || {
        test.queue.depth().await == Depth::EMPTY
    })
    .await;
    assert_eq!(test.queue.dead_letter_depth().await, Depth::EMPTY);
    let received = test.received().await;
    assert_eq!(received.len(), 320);
    let twice = received.iter().filter(|it| it.metadata.receive_count > Some(1)).count();
    assert!(twice <= 2 * POLLERS * 10, "only what was in hand went back, not {twice}");
    test.close().await;
}

/// A batch that takes longer than its visibility timeout is handed out to nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_long_is_kept_hidden() {
    const HIDDEN: Duration = Duration::from_secs(2);
    let db = TestDb::new(Kind::Postgres).await;
    let queue = Queue::new(QueueSettings::default()).await;
    let options = SqsOptions { visibility_timeout: HIDDEN, ..options(&queue.url) };
    let test = Ingest::start_on(TestLedger::new(&db, 1).await, queue, options).await;
    let mut lock = test.ledger.store().db().begin(Mode::Write).await.unwrap();
    lock.script("select head from log_shards for update".to_owned()).await.unwrap();
    let locked = Instant::now();
    let bodies: Vec<_> = (0..10).map(|n| text(&format!("m-{n}"), "u", "t")).collect();
    test.queue.send(&bodies).await;
    eventually("the messages are received", PATIENCE, async || test.queue.depth().await.in_flight == 10)
        .await;
    eventually("their time is over", PATIENCE, async || locked.elapsed() > 3 * HIDDEN).await;
    assert_eq!(test.queue.depth().await, Depth { visible: 0, in_flight: 10 });
    lock.rollback().await.unwrap();
    test.drained().await;
    assert_eq!(test.received().await.len(), 10);
    for number in 0..10 {
        let id = MessageId::new(&format!("m-{number}")).unwrap();
        assert_eq!(test.ledger.store().redeliveries(&id).await.unwrap().redelivered, 0);
    }
    test.close().await;
}

#[tokio::test]
async fn a_queue_is_found_by_its_arn_and_by_its_name_and_a_missing_one_is_an_error() {
    let queue = Queue::new(QueueSettings::default()).await;
    let name = queue.url.rsplit('/').next().unwrap();
    let arn = format!("arn:aws:sqs:{REGION}:000000000000:{name}");
    for address in [queue.url.as_str(), &arn, name] {
        let found = Sqs::open_with(options(address), &credentials()).await.unwrap();
        assert_eq!(found.queue_url(), queue.url, "{address}");
    }
    for address in ["no-such-queue", &format!("{}-not", queue.url)] {
        let error = Sqs::open_with(options(address), &credentials()).await.unwrap_err();
        assert!(matches!(error, SourceError::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains("does not exist; create it"), "{error}");
    }
}

/// Ten kinds of bad input, each with the code and a part of the reason that its producer can act on.
fn bad_inputs() -> [(Vec<u8>, &'static str, &'static str); 10] {
    let with = |fields| body("m-1", "u", fields);
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let deep = format!(r#"{{"messageId":"m","data":{{"a":{deep}}}}}"#);
    let large = with(json!({ "x": "x".repeat(1024 * 1024 - 200) }));
    [
        (b"{\"messageId\":\"\xff\"}".to_vec(), "not_utf8", "encode the JSON as UTF-8"),
        (b"hello".to_vec(), "not_json", "send the message as one JSON object"),
        (with(json!({ "title": 7 })), "wrong_type", "title is a number"),
        (with(json!({ "messageId": null })), "missing_id", "messageId"),
        (with(json!({ "title": "x".repeat(600) })), "too_long", "title"),
        (with(json!({ "notificationType": "EMAIL" })), "unknown_type", "notificationType"),
        (with(json!({ "title": "a\u{1}b" })), "bad_character", "title"),
        (large, "too_large", "shorten the texts"),
        (deep.into_bytes(), "too_deep", "flatter"),
        (br#"{"messageId":"a","messageId":"b"}"#.to_vec(), "duplicate_key", "send it once"),
    ]
}

#[tokio::test]
async fn ten_kinds_of_bad_input_end_in_quarantine_with_a_reason_to_act_on() {
    let db = TestDb::new(Kind::Sqlite).await;
    let test = TestLedger::new(&db, 1).await;
    let inputs = bad_inputs();
    let mut file = Vec::new();
    for (line, ..) in &inputs {
        file.extend_from_slice(line);
        file.push(b'\n');
    }
    let source = Ndjson::new("bad.ndjson", std::io::Cursor::new(file), 500);
    let arrivals = source.receive().await.unwrap();
    let taken = test.ledger.take_in(source.ingress(), arrivals).await;
    assert!(taken.iter().all(|it| matches!(it, Taken::Quarantined(_))), "{taken:?}");
    let held = test.ledger.store().quarantine_list(None, None, 100).await.unwrap();
    assert_eq!(held.len(), inputs.len());
    for (number, (bytes, code, hint)) in inputs.iter().enumerate() {
        let source = format!("ndjson:bad.ndjson line {}", number + 1);
        let entry = held.iter().find(|it| it.source == source).unwrap();
        assert_eq!(entry.code, *code, "{}", entry.reason);
        assert!(entry.reason.contains(hint), "{}", entry.reason);
        let whole = test.ledger.store().quarantine_get(entry.id).await.unwrap().unwrap();
        assert!(whole.body == *bytes, "{code} is kept whole");
    }
    test.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_that_a_queue_takes_ends_in_quarantine_too() {
    let db = TestDb::new(Kind::Sqlite).await;
    let test = Ingest::start(&db, QueueSettings::default()).await;
    // A queue takes text only, and none of the control characters that were not escaped.
    let bodies: Vec<_> = bad_inputs().into_iter().filter_map(|it| String::from_utf8(it.0).ok()).collect();
    for body in &bodies {
        test.queue.send(std::slice::from_ref(body)).await;
    }
    test.drained().await;
    let held = test.ledger.store().quarantine_list(Some(HeldState::Held), None, 100).await.unwrap();
    assert_eq!((bodies.len(), held.len()), (9, 9));
    test.close().await;
}

#[tokio::test]
async fn what_was_held_for_want_of_an_id_is_a_message_once_it_has_one() {
    let db = TestDb::new(Kind::Sqlite).await;
    let test = TestLedger::new(&db, 1).await;
    let whole = json!({"notificationType": "PUSH", "recipientId": "u", "title": "t"}).to_string();
    let weak = |weak_id: Option<&str>| Unreadable {
        attributes: serde_json::to_string(&Beside {
            weak_id: weak_id.map(ToOwned::to_owned),
            ..Beside::default()
        })
        .unwrap(),
        ..input(&whole)
    };
    let store = test.ledger.store();
    store.quarantine_hold(&[weak(None)], at(1)).await.unwrap();
    store.quarantine_hold(&[weak(Some("5fea"))], at(2)).await.unwrap();
    let held = store.quarantine_list(None, None, 10).await.unwrap();

    let retry = async |number: usize| test.ledger.retry_held(held[number].id, "ops", None).await.unwrap();
    assert!(matches!(retry(0).await, Retried::Rejected(it) if it.code.as_str() == "missing_id"));
    assert!(matches!(retry(1).await, Retried::Accepted(Receipt::Appended(_))));
    assert!(matches!(retry(1).await, Retried::Already(it) if it.by == "ops"));
    let log = test.log().await;
    assert_eq!((log[0].message_id.as_str(), log[0].metadata.weak_id.as_deref()), ("5fea", Some("sqs")));
    assert_eq!(log[0].metadata.actor.as_deref(), Some("ops"));
    let states: Vec<_> =
        store.quarantine_list(None, None, 10).await.unwrap().into_iter().map(|it| it.state).collect();
    assert_eq!(states, [HeldState::Held, HeldState::Retried]);
    test.close().await;
}
