//! What is read for the API and the audit, on every database: the inbox with its counts, the messages
//! of a recipient, and the evidence of one message.

use std::time::Duration;

use notification_ledger::{
    audit::Audit,
    clock::{Clock as _, Timestamp},
    event::{Event, Metadata, Recorded},
    id::{Cursor, MessageId, Position, RecipientId},
    ledger::Receipt,
    projection::ALL,
    store::{
        MessageFilter, Slot,
        inbox::{Archived, Counts, InboxFilter, Status},
    },
    stream::Mark,
    wake::Wake,
    worker::{self, Worker as _, present::Present, project::Project},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{
    database::for_each_database,
    ledger::{TestLedger, incoming, manual_clock, open_store, project_all},
};

fn everything() -> InboxFilter {
    InboxFilter { archived: Archived::Include, ..InboxFilter::default() }
}

for_each_database! {
    /// Lists and counts are what was sent and marked, part by part, whoever else has an inbox.
    async fn the_inbox_lists_and_counts_what_was_sent_and_marked(db: TestDb) {
        let ledger = TestLedger::on(open_store(&db, 3).await, manual_clock());
        let (user, other) = (recipient("user-1"), recipient("user-2"));
        let mut cursors = Vec::new();
        for n in 0..7 {
            let category = ["pass", "news", ""][n % 3];
            cursors.push(send(&ledger, &format!("m-{n}"), &user, category).await);
        }
        send(&ledger, "other", &other, "pass").await;
        mark(&ledger, &user, &[("m-0", Mark::Read), ("m-1", Mark::Archive), ("m-2", Mark::Seen)]).await;
        project(&ledger).await;
        let store = ledger.ledger.store();

        let all = store.inbox(&user, &everything(), 100).await.unwrap();
        assert_eq!(ids(&all.items), ["m-6", "m-5", "m-4", "m-3", "m-2", "m-1", "m-0"]);
        assert_eq!((all.more, all.counts.overall), (false, Counts { unseen: 4, unread: 5, total: 6 }));
        let (exclude, only) = (Archived::Exclude, Archived::Only);
        for (archived, status, category, expected) in [
            (exclude, Status::All, None, &["m-6", "m-5", "m-4", "m-3", "m-2", "m-0"][..]),
            (exclude, Status::Unread, None, &["m-6", "m-5", "m-4", "m-3", "m-2"]),
            (exclude, Status::Unseen, None, &["m-6", "m-5", "m-4", "m-3"]),
            (exclude, Status::Read, None, &["m-0"]),
            (exclude, Status::All, Some("pass"), &["m-6", "m-3", "m-0"]),
            (Archived::Include, Status::All, Some("news"), &["m-4", "m-1"]),
            (only, Status::All, None, &["m-1"]),
            (only, Status::Read, None, &[]),
        ] {
            let category = category.map(str::to_owned);
            let filter = InboxFilter { archived, status, category, ..InboxFilter::default() };
            let page = store.inbox(&user, &filter, 100).await.unwrap();
            assert_eq!((&ids(&page.items)[..], &page.counts), (expected, &all.counts), "{filter:?}");
            let found = store.inbox_ids(&user, &filter, 100).await.unwrap();
            assert_eq!(found.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), expected, "{filter:?}");
        }
        let part = InboxFilter { before: Some(cursors[4].position), ..everything() };
        let page = store.inbox(&user, &part, 2).await.unwrap();
        assert_eq!((&ids(&page.items)[..], page.more), (&["m-3", "m-2"][..], true));
        let item = &all.items[0];
        assert_eq!((item.position, item.category.as_deref()), (cursors[6].position.0, Some("pass")));

        let counts = store.inbox_counts(&user).await.unwrap();
        assert_eq!(counts, all.counts);
        let by_category: Vec<_> = counts.by_category.iter().map(|(name, it)| (&name[..], it.total)).collect();
        assert_eq!(by_category, [("news", 1), ("pass", 3)]);
        let nobody = store.inbox(&recipient("nobody"), &everything(), 100).await.unwrap();
        assert_eq!((nobody.items.len(), nobody.more, nobody.counts.overall), (0, false, Counts::default()));

        let filter = InboxFilter { before: Some(cursors[6].position), status: Status::Unread, ..InboxFilter::default() };
        let unread = store.inbox_ids(&user, &filter, 3).await.unwrap();
        let unread: Vec<_> = unread.iter().map(|(id, position)| (id.as_str(), *position)).collect();
        let at = |n: usize| cursors[n].position;
        assert_eq!(unread, [("m-5", at(5)), ("m-4", at(4)), ("m-3", at(3))]);
        ledger.close().await;
    }

    /// What is for later appears at its time as the newest, and goes at its end, however many look after it.
    async fn items_appear_and_go_when_their_time_comes(db: TestDb) {
        let clock = manual_clock();
        let ledger = TestLedger::on(open_store(&db, 2).await, clock.clone());
        let user = recipient("user-1");
        let minute = |n: u64| clock.now().plus(Duration::from_secs(60 * n)).to_string();
        let times = |deliver_at: Option<u64>, expires_at: Option<u64>| {
            json!({"deliverAt": deliver_at.map(minute), "expiresAt": expires_at.map(minute), "category": "pass"})
        };
        let arrivals = [("later", times(Some(10), Some(20))), ("short", times(None, Some(5))), ("plain", json!({}))];
        for (id, fields) in arrivals {
            let receipts = ledger.ledger.accept(vec![incoming(id, user.as_str(), fields)]).await;
            assert!(matches!(receipts[0], Ok(Receipt::Appended(_))), "{receipts:?}");
        }
        let stop = CancellationToken::new();
        let project = Project::new(ledger.ledger.clone(), 100, Wake::default());
        let poll = Duration::from_millis(10);
        let running = tokio::spawn(worker::run(project, ledger.ledger.appended(), poll, stop.clone()));
        let (mut one, mut other) = (Present::new(ledger.ledger.clone()), Present::new(ledger.ledger.clone()));
        let mut turns = 0;
        for (minutes, expected, appended) in [
            (0, &["plain", "short"][..], 0),
            (5, &["plain"], 1),
            (4, &["plain"], 0),
            (1, &["later", "plain"], 1),
            (10, &["plain"], 1),
        ] {
            clock.advance(Duration::from_secs(60 * minutes));
            let shard = ledger.ledger.store().shard_of(&user);
            turns += appended;
            let _ = tokio::join!(one.tick(), other.tick());
            let events = ledger.log().await;
            let at = events.iter().filter(|it| it.shard == shard).map(|it| it.position).max().unwrap();
            let cursor = Cursor { shard, position: at };
            assert!(ledger.ledger.wait_for("inbox", cursor, Duration::from_secs(10)).await.unwrap());
            let page = ledger.ledger.store().inbox(&user, &everything(), 100).await.unwrap();
            let counts = i64::try_from(expected.len()).unwrap();
            assert_eq!((&ids(&page.items)[..], page.counts.overall.total), (expected, counts), "{minutes}");
            let by_the_clock = |it: &&Recorded| matches!(it.body, Event::InboxPresented | Event::InboxExpired);
            assert_eq!(events.iter().filter(by_the_clock).count(), turns, "{minutes}");
        }
        stop.cancel();
        running.await.unwrap().unwrap();
        drop((one, other));
        ledger.close().await;
    }

    /// Messages of a recipient come newest first, in parts, and between times.
    async fn the_messages_of_a_recipient_are_found_by_time(db: TestDb) {
        let clock = manual_clock();
        let ledger = TestLedger::on(open_store(&db, 2).await, clock.clone());
        let user = recipient("사용자-1");
        for n in 0..5 {
            send(&ledger, &format!("m-{n}"), &user, "pass").await;
            clock.advance(Duration::from_mins(1));
        }
        project(&ledger).await;
        let at = |text: &str| Timestamp::parse(&format!("2026-11-22T{text}Z"));
        let found = async |filter: MessageFilter| {
            let (rows, more) = ledger.ledger.store().messages_of(&user, filter).await.unwrap();
            (rows.into_iter().map(|it| it.message_id).collect::<Vec<_>>(), more)
        };
        let all = MessageFilter { limit: 10, ..MessageFilter::default() };
        assert_eq!(found(all).await.0, ["m-4", "m-3", "m-2", "m-1", "m-0"]);
        let window = MessageFilter { since: at("09:01:00"), until: at("09:03:00"), ..all };
        assert_eq!(found(window).await, (vec!["m-2".to_owned(), "m-1".to_owned()], false));
        assert_eq!(found(MessageFilter { limit: 2, ..all }).await, (vec!["m-4".to_owned(), "m-3".to_owned()], true));
        let before = MessageFilter { before: Some(Position(2)), ..all };
        assert_eq!(found(before).await.0, ["m-0"]);
        ledger.close().await;
    }

    /// The evidence of a message is all there, and what the projections show is what its events say, at
    /// whatever place they are.
    async fn the_evidence_of_a_message_agrees_with_what_is_shown(db: TestDb) {
        let ledger = TestLedger::on(open_store(&db, 2).await, manual_clock());
        let user = recipient("user-1");
        send(&ledger, "m-1", &user, "pass").await;
        project(&ledger).await;
        let again = ledger.ledger.accept(vec![incoming("m-1", "user-1", json!({"category": "pass"}))]).await;
        assert!(matches!(again[0], Ok(Receipt::Redelivered(_))), "{again:?}");
        let other = ledger.ledger.accept(vec![incoming("m-1", "user-1", json!({"title": "Other"}))]).await;
        assert!(matches!(other[0], Ok(Receipt::Conflict(_))), "{other:?}");
        mark(&ledger, &user, &[("m-1", Mark::Read)]).await;

        let message = MessageId::new("m-1").unwrap();
        let audit = async || {
            let evidence = ledger.ledger.store().evidence(&message).await.unwrap().unwrap();
            Audit::new(evidence).unwrap()
        };
        let behind = audit().await;
        assert_eq!(behind.redeliveries.redelivered, 1);
        assert_eq!((behind.state.conflicts, behind.state.inbox.as_str()), (1, "read"), "by the log");
        assert_eq!(behind.timeline.len(), 3);
        assert!(behind.content_hash.is_some());
        let names: Vec<_> = behind.projections.iter().map(|it| it.projection.as_str()).collect();
        assert_eq!(names, ["deliveries", "inbox", "messages"]);
        assert!(behind.projections.iter().all(|it| it.agrees && it.present && !it.complete));
        project(&ledger).await;
        assert!(audit().await.projections.iter().all(|it| it.agrees && it.complete));
        let nothing = ledger.ledger.store().evidence(&MessageId::new("m-2").unwrap()).await.unwrap();
        assert_eq!(nothing, None);
        ledger.close().await;
    }

    /// How far the projections are is told shard by shard, with the age of what waits.
    async fn the_status_of_projections_tells_lag_in_events_and_time(db: TestDb) {
        let clock = manual_clock();
        let ledger = TestLedger::on(open_store(&db, 2).await, clock.clone());
        let user = recipient("user-1");
        send(&ledger, "m-1", &user, "pass").await;
        project(&ledger).await;
        clock.advance(Duration::from_secs(5));
        send(&ledger, "m-2", &user, "pass").await;
        clock.advance(Duration::from_secs(7));
        let status = ledger.ledger.store().projection_status(clock_now(&ledger)).await.unwrap();
        assert_eq!(status.len(), ALL.len());
        let shard = ledger.ledger.store().shard_of(&user);
        for projection in status {
            assert_eq!((projection.live, projection.building), (Slot::A, None));
            for place in projection.shards {
                let behind = place.shard == shard;
                assert_eq!(place.lag_events, i64::from(behind));
                assert_eq!(place.lag, Duration::from_secs(if behind { 7 } else { 0 }));
            }
        }
        ledger.close().await;
    }
}

fn recipient(id: &str) -> RecipientId {
    RecipientId::new(id).unwrap()
}

fn clock_now(ledger: &TestLedger) -> Timestamp {
    ledger.ledger.now()
}

fn ids(items: &[notification_ledger::projection::inbox::InboxItem]) -> Vec<&str> {
    items.iter().map(|it| it.message_id.as_str()).collect()
}

async fn send(ledger: &TestLedger, id: &str, user: &RecipientId, category: &str) -> Cursor {
    let fields = if category.is_empty() { json!({}) } else { json!({ "category": category }) };
    let receipts = ledger.ledger.accept(vec![incoming(id, user.as_str(), fields)]).await;
    match &receipts[0] {
        Ok(Receipt::Appended(cursor)) => *cursor,
        other => panic!("{other:?}"),
    }
}

async fn mark(ledger: &TestLedger, user: &RecipientId, marks: &[(&str, Mark)]) {
    let marks = marks.iter().map(|(id, mark)| (MessageId::new(id).unwrap(), *mark)).collect();
    for marked in ledger.ledger.mark(user, marks, &Metadata::default()).await {
        marked.unwrap().unwrap();
    }
}

async fn project(ledger: &TestLedger) {
    for projection in ALL {
        project_all(ledger.ledger.store(), *projection, Slot::A, 100).await;
    }
}
