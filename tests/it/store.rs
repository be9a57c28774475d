//! The conformance suite of the store: the same promises on every database.

use std::{sync::Arc, time::Duration};

use notification_ledger::{
    clock::Timestamp,
    event::Event,
    id::{MessageId, Position, RecipientId, Shard},
    ledger::Receipt,
    message::parse::{Outside, parse},
    projection::{ALL, fold_in_memory},
    store::{Applied, Db, Entry, Mode, Slot, Step, Store},
    stream::{Command, Mark, Receive, Refusal},
};
use serde_json::json;

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    ledger::{TestLedger, body, forge_future, incoming, manual_clock, open_store, project_all},
};

fn entry(id: &str, recipient: &str, title: &str) -> Entry {
    let parsed = parse(&body(id, recipient, json!({ "title": title })), Outside::default()).unwrap();
    let arrival = Receive {
        message: parsed.message.into(),
        content_hash: parsed.content_hash,
        plan: Vec::new(),
        is_nowhere: false,
        claim: None,
    };
    Entry {
        message_id: MessageId::new(id).unwrap(),
        command: Command::Receive(Box::new(arrival)),
        occurred_at: Timestamp::from_micros(7),
        metadata: notification_ledger::event::Metadata::default(),
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_000)
}

/// Two recipients that live in different shards of a ledger of two.
fn strangers() -> (&'static str, &'static str) {
    let shard = |id: &str| Shard::of(&RecipientId::new(id).unwrap(), 2);
    assert_ne!(shard("user-1"), shard("user-2"));
    ("user-1", "user-2")
}

for_each_database! {
    /// A message id is appended once, however often and in whatever batches it comes.
    async fn appending_twice_appends_once(db: TestDb) {
        let store = open_store(&db, 1).await;
        let twice = [entry("m-1", "u", "one"), entry("m-1", "u", "one")];
        let applied = store.append(Shard(0), &twice, now()).await.unwrap();
        assert!(matches!(applied[0], Applied::Appended { .. }));
        assert!(matches!(applied[1], Applied::Refused { refusal: Refusal::Redelivered, cursor: Some(it) } if it.position == Position(1)));
        let applied = store.append(Shard(0), &twice, now()).await.unwrap();
        assert!(applied.iter().all(|it| matches!(it, Applied::Refused { refusal: Refusal::Redelivered, .. })));
        assert_eq!(store.events_after(Shard(0), Position(0), 10).await.unwrap().len(), 1);
        let evidence = store.redeliveries(&MessageId::new("m-1").unwrap()).await.unwrap();
        assert_eq!((evidence.redelivered, evidence.conflicting), (3, 0), "counted without an event each");
        store.close().await;
    }

    /// Other content under a known id is recorded once, and the first content stays.
    async fn other_content_is_a_conflict_recorded_once(db: TestDb) {
        let store = open_store(&db, 1).await;
        let (one, two) = (entry("m-1", "u", "one"), entry("m-1", "u", "two"));
        store.append(Shard(0), &[one, two.clone()], now()).await.unwrap();
        let applied = store.append(Shard(0), &[two], now()).await.unwrap();
        assert!(matches!(applied[0], Applied::Refused { refusal: Refusal::ConflictKnown, .. }));
        let stream = store.stream(&MessageId::new("m-1").unwrap()).await.unwrap();
        let kinds: Vec<_> = stream.iter().map(|it| it.body.kind()).collect();
        assert_eq!(kinds, ["message.received", "message.conflicted"]);
        assert!(matches!(&stream[0].body, Event::MessageReceived(it) if it.message.title == "one"));
        let evidence = store.redeliveries(&MessageId::new("m-1").unwrap()).await.unwrap();
        assert_eq!((evidence.redelivered, evidence.conflicting), (0, 1));
        store.close().await;
    }

    /// What is read is what was written, to the last character and microsecond.
    async fn events_read_back_as_written(db: TestDb) {
        let store = open_store(&db, 1).await;
        let fields = json!({"title": "한국어 🎫 \\ \" '", "body": "line\nline", "data": {"z": 1, "a": [1.5, null, "é"]},
            "deliverAt": "2026-11-22T09:00:00.123456Z", "future": {"kept": true}});
        let parsed = parse(&body("m:1._-", "사용자 🙂", fields), Outside::default()).unwrap();
        let message = parsed.message.clone();
        let arrival = Receive { message: parsed.message.into(), content_hash: parsed.content_hash, plan: vec![], is_nowhere: false, claim: None };
        let entry = Entry { command: Command::Receive(Box::new(arrival)), ..entry("m:1._-", "u", "t") };
        store.append(Shard(0), &[entry], now()).await.unwrap();
        let events = store.events_after(Shard(0), Position(0), 10).await.unwrap();
        assert!(matches!(&events[0].body, Event::MessageReceived(it) if *it.message == message));
        assert_eq!(events[0].recipient_id.as_str(), "사용자 🙂");
        assert_eq!((events[0].occurred_at.as_micros(), events[0].recorded_at.as_micros()), (7, 1_000));
        store.close().await;
    }

    /// Ids that differ only in case or accents are different ids.
    async fn ids_are_compared_byte_by_byte(db: TestDb) {
        let store = open_store(&db, 1).await;
        let entries = [entry("m-a", "user", "t"), entry("m-A", "USER", "t"), entry("M-a", "usér", "t")];
        let applied = store.append(Shard(0), &entries, now()).await.unwrap();
        assert!(applied.iter().all(|it| matches!(it, Applied::Appended { .. })));
        for projection in ALL {
            project_all(&store, *projection, Slot::A, 100).await;
        }
        store.close().await;
    }

    /// The database itself refuses to change or remove what the log holds.
    async fn the_log_is_append_only(db: TestDb) {
        let store = open_store(&db, 1).await;
        store.append(Shard(0), &[entry("m-1", "u", "one")], now()).await.unwrap();
        let forged = |position: &str| {
            let columns = "message_id, version, type, schema_version, recipient_id, occurred_at_us, recorded_at_us, content_hash";
            format!("into notification_events select shard, {position}, {columns}, '{{}}', '{{}}' from notification_events")
        };
        // By the place of the row, and by its message.
        let (by_place, by_message) = (forged("position"), forged("position + 1"));
        let mut crimes = vec![
            "update notification_events set payload = '{}'".to_owned(),
            "delete from notification_events".to_owned(),
        ];
        crimes.extend(match db.kind() {
            Kind::Sqlite => vec![
                format!("insert or replace {by_place}"),
                format!("insert or replace {by_message}"),
                format!("replace {by_message}"),
                "update or replace notification_events set version = 0".to_owned(),
                format!("insert {by_place} where true on conflict do update set payload = '{{}}'"),
            ],
            Kind::Postgres | Kind::Pgbouncer => vec![
                "truncate notification_events".to_owned(),
                format!("insert {by_place} on conflict (shard, position) do update set payload = '{{}}'"),
            ],
            Kind::Mysql => vec![
                "truncate notification_events".to_owned(),
                format!("replace {by_place}"),
                format!("replace {by_message}"),
                format!("insert {by_place} on duplicate key update payload = '{{}}'"),
            ],
        });
        for crime in crimes {
            let mut tx = store.db().begin(Mode::Write).await.unwrap();
            let error = tx.script(crime.clone()).await.unwrap_err();
            let text = format!("{error:?}").replace('_', "-");
            assert!(text.contains("notification-events is append-only") || text.contains("notification-events-append-only"), "{crime}: {text}");
            drop(tx);
        }
        for again in [by_place, by_message] {
            let mut tx = store.db().begin(Mode::Write).await.unwrap();
            let error = tx.script(format!("insert {again}")).await.unwrap_err();
            assert!(error.is_unique_violation(), "this is how a race between shards is noticed: {error:?}");
            drop(tx);
        }
        let stream = store.stream(&MessageId::new("m-1").unwrap()).await.unwrap();
        assert!(matches!(&stream[0].body, Event::MessageReceived(it) if it.message.title == "one"));
        assert_eq!(store.events_after(Shard(0), Position(0), 10).await.unwrap().len(), 1);
        store.close().await;
    }

    /// Positions are 1, 2, 3 … in every shard, whoever writes at the same time.
    async fn positions_have_no_gap_under_concurrent_writers(db: TestDb) {
        let one = TestLedger::new(&db, 2).await;
        let other = TestLedger::on(open_store(&db, 2).await, Arc::new(notification_ledger::clock::SystemClock));
        let feed = |ledger: notification_ledger::ledger::Ledger, from: usize| async move {
            for batch in 0..20 {
                let messages = (0..10).map(|at| {
                    // Half of the ids are written by both.
                    let number = (from + batch * 10 + at) % 300;
                    incoming(&format!("m-{number}"), &format!("user-{}", number % 7), json!({}))
                });
                for receipt in ledger.accept(messages.collect()).await {
                    assert!(!matches!(receipt.unwrap(), Receipt::Conflict(_)));
                }
            }
        };
        tokio::join!(feed(one.ledger.clone(), 0), feed(other.ledger.clone(), 100), feed(one.ledger.clone(), 50));
        let mut ids = Vec::new();
        for shard in [Shard(0), Shard(1)] {
            let events = one.ledger.store().events_after(shard, Position(0), 10_000).await.unwrap();
            for (event, expected) in events.iter().zip(1..) {
                assert_eq!(event.position, Position(expected));
            }
            let heads = one.ledger.store().heads().await.unwrap();
            let head = heads.iter().find(|it| it.shard == shard).unwrap();
            assert_eq!(head.position.0, i64::try_from(events.len()).unwrap());
            ids.extend(events.into_iter().map(|it| it.message_id));
        }
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), count), (300, 300), "each id once");
        one.close().await;
        other.close().await;
    }

    /// One id for two recipients in two shards at the same time: one wins, the other is a conflict
    /// in the winner's shard.
    async fn an_id_lives_in_one_shard(db: TestDb) {
        let (one, other) = strangers();
        let a = TestLedger::new(&db, 2).await;
        let b = TestLedger::on(open_store(&db, 2).await, Arc::new(notification_ledger::clock::SystemClock));
        for round in 0..10 {
            let id = format!("m-{round}");
            let (first, second) = tokio::join!(
                a.ledger.accept(vec![incoming(&id, one, json!({}))]),
                b.ledger.accept(vec![incoming(&id, other, json!({}))]),
            );
            let receipts = [first[0].clone().unwrap(), second[0].clone().unwrap()];
            let appended = receipts.iter().filter(|it| matches!(it, Receipt::Appended(_))).count();
            let conflicts = receipts.iter().filter(|it| matches!(it, Receipt::Conflict(_))).count();
            assert_eq!((appended, conflicts), (1, 1), "{receipts:?}");
            let stream = a.ledger.store().stream(&MessageId::new(&id).unwrap()).await.unwrap();
            let kinds: Vec<_> = stream.iter().map(|it| it.body.kind()).collect();
            assert_eq!(kinds, ["message.received", "message.conflicted"]);
            assert_eq!(stream[0].shard, stream[1].shard);
        }
        a.close().await;
        b.close().await;
    }

    /// A reader can never see position n + 1 before n: while a writer holds the shard, nobody else
    /// gets a position, and what it wrote is not seen before its commit.
    async fn positions_become_visible_in_order(db: TestDb) {
        let store = open_store(&db, 1).await;
        store.append(Shard(0), &[entry("m-1", "u", "one")], now()).await.unwrap();
        let mut slow = store.db().begin(Mode::Write).await.unwrap();
        let lock = match db.kind() {
            Kind::Sqlite => "update log_shards set head = head",
            _ => "select head from log_shards where shard = 0 for update",
        };
        slow.script(lock.to_owned()).await.unwrap();
        let columns = "shard, position, message_id, version, type, schema_version, recipient_id, occurred_at_us, recorded_at_us, payload, metadata";
        let row = format!("insert into notification_events ({columns}) values (0, 2, 'm-1', 1, 'inbox.read', 1, 'u', 5, 5, '{{}}', '{{}}')");
        slow.script(row).await.unwrap();
        slow.script("update log_shards set head = 2 where shard = 0".to_owned()).await.unwrap();

        let other = store.clone();
        let fast = tokio::spawn(async move {
            let fast = [entry("m-2", "u", "two")];
            loop {
                match other.append(Shard(0), &fast, now()).await {
                    Ok(applied) => return applied,
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        });
        // As long as the slow writer has not committed, a reader sees the first event and nothing else.
        for _ in 0..20 {
            assert_eq!(store.events_after(Shard(0), Position(0), 10).await.unwrap().len(), 1);
            assert!(!fast.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slow.commit().await.unwrap();
        assert!(matches!(&fast.await.unwrap()[0], Applied::Appended { cursor, .. } if cursor.position == Position(3)));
        let positions: Vec<_> =
            store.events_after(Shard(0), Position(0), 10).await.unwrap().iter().map(|it| it.position.0).collect();
        assert_eq!(positions, [1, 2, 3]);
        store.close().await;
    }

    /// Any batching and any number of projectors give the rows of the fold in memory, and nothing is
    /// folded twice.
    async fn projections_equal_the_fold(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 2).await, clock.clone());
        history(&it).await;
        let store = it.ledger.store();
        let other = open_store(&db, 2).await;
        let race = |store: Store, limit: u64| async move {
            for projection in ALL {
                for shard in store.shards() {
                    loop {
                        match store.project(*projection, Slot::A, shard, limit, None).await {
                            Ok(Step::Folded { events, .. }) => assert!(events <= usize::try_from(limit).unwrap()),
                            Ok(Step::Busy) => tokio::task::yield_now().await,
                            Ok(Step::Idle) => break,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            }
        };
        tokio::join!(race(store.clone(), 1), race(other.clone(), 3), race(store.clone(), 50));
        assert_equal_to_fold(&it, Slot::A).await;
        other.close().await;
        it.close().await;
    }

    /// An event of a type that only a newer release knows parks its shard with the reason, and is not
    /// skipped; the other shard goes on.
    async fn an_event_from_the_future_parks_its_shard(db: TestDb) {
        let store = open_store(&db, 2).await;
        let (one, other) = strangers();
        let home = |id: &str| store.shard_of(&RecipientId::new(id).unwrap());
        for recipient in [one, other] {
            store.append(home(recipient), &[entry(&format!("m-{recipient}"), recipient, "t")], now()).await.unwrap();
        }
        let shard = home(one);
        forge_future(&store, shard, &format!("m-{one}")).await;
        store.append(shard, &[entry("after", one, "t")], now()).await.unwrap();

        let inbox = ALL[0];
        let first = store.project(inbox, Slot::A, shard, 100, None).await.unwrap();
        assert!(matches!(first, Step::Folded { events: 1, .. }), "what comes before is folded: {first:?}");
        let error = store.project(inbox, Slot::A, shard, 100, None).await.unwrap_err();
        assert!(matches!(error, notification_ledger::store::ProjectError::Parked { .. }), "{error:?}");
        let going_on = store.project(inbox, Slot::A, home(other), 100, None).await.unwrap();
        assert!(matches!(going_on, Step::Folded { events: 1, .. }), "{going_on:?}");
        let places = store.checkpoints().await.unwrap();
        let place = places.iter().find(|it| it.projection == "inbox" && it.shard == shard).unwrap();
        assert_eq!(place.position, Position(1), "it is not skipped");
        assert!(place.parked.as_ref().unwrap().contains("inbox.sneezed"), "{place:?}");
        let free = places.iter().find(|it| it.projection == "inbox" && it.shard != shard).unwrap();
        assert_eq!((free.position, free.parked.is_none()), (free.head, true), "the other shard goes on");
        store.close().await;
    }

    /// A rebuilt slot becomes the live one without missing what was appended meanwhile.
    async fn a_rebuilt_slot_takes_over(db: TestDb) {
        let it = TestLedger::on(open_store(&db, 2).await, manual_clock());
        history(&it).await;
        let store = it.ledger.store();
        for projection in ALL {
            project_all(store, *projection, Slot::A, 7).await;
            store.begin_slot(*projection, Slot::B, now()).await.unwrap();
            project_all(store, *projection, Slot::B, 1_000).await;
            store.index_slot(*projection, Slot::B).await.unwrap();
        }
        it.ledger.accept(vec![incoming("late", "user-1", json!({}))]).await;
        for projection in ALL {
            project_all(store, *projection, Slot::A, 7).await;
            let claim = store.claim_rebuild(projection.name(), "somebody", now()).await.unwrap().unwrap();
            store.flip(&claim, *projection, Slot::B, now()).await.unwrap();
            let state = store.projection_state(projection.name()).await.unwrap().unwrap();
            assert_eq!((state.live, state.building), (Slot::B, None));
        }
        assert_equal_to_fold(&it, Slot::B).await;
        it.close().await;
    }
}

/// A mixed history: arrivals, redeliveries, conflicts, marks, over two shards.
async fn history(it: &TestLedger) {
    for number in 0..40 {
        let recipient = format!("user-{}", number % 5);
        let category = if number % 3 == 0 { json!("pass") } else { json!(null) };
        let id = format!("m-{number}");
        let message = incoming(&id, &recipient, json!({ "category": category, "data": {"n": number} }));
        let changed = incoming(&id, &recipient, json!({ "title": "other" }));
        it.ledger.accept(vec![message.clone(), message, changed]).await;
        let id = MessageId::new(&id).unwrap();
        let all = [Mark::Read, Mark::Archive, Mark::Unread, Mark::Unarchive, Mark::Seen, Mark::Delete];
        let marks = all.into_iter().take(number % 7).map(|mark| (id.clone(), mark)).collect();
        let recipient = RecipientId::new(&recipient).unwrap();
        for answer in
            it.ledger.mark(&recipient, marks, &notification_ledger::event::Metadata::default()).await
        {
            answer.unwrap().unwrap();
        }
    }
}

async fn assert_equal_to_fold(it: &TestLedger, slot: Slot) {
    let log = it.log().await;
    let mut snapshot = it.ledger.store().snapshot().await.unwrap();
    for projection in ALL {
        for (table, expected) in fold_in_memory(*projection, &log) {
            let mut rows = Vec::new();
            loop {
                let after = rows.last().map(|row: &Vec<_>| table.key_of(row));
                let page = snapshot.rows(table, slot, after.as_ref(), 9).await.unwrap();
                if page.is_empty() {
                    break;
                }
                rows.extend(page);
            }
            assert_eq!(rows, expected, "{} of {}", table.name, projection.name());
            assert!(!rows.is_empty() || table.name.starts_with("push_attempts"), "{} is empty", table.name);
        }
    }
}

/// SQLite files are opened with the settings that durability needs.
#[tokio::test]
async fn sqlite_waits_for_the_disk() {
    let db = TestDb::new(Kind::Sqlite).await;
    let store = open_store(&db, 1).await;
    let Db::Sqlite { write, .. } = store.db() else { panic!("not SQLite") };
    let pragma = |sql: &'static str| async move {
        sqlx::query_scalar::<_, String>(sql).fetch_one(write).await.unwrap()
    };
    assert_eq!(pragma("select cast(synchronous as text) from pragma_synchronous").await, "2");
    assert_eq!(pragma("select journal_mode from pragma_journal_mode").await, "wal");
    store.close().await;
}
