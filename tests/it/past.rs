//! Inboxes as they were: at every place and every moment of random histories, of any size, on every database;
//! and by the command line.

use std::time::Duration;

use notification_ledger::{
    clock::{Clock as _, ManualClock, Timestamp},
    event::{Metadata, Recorded},
    id::{Cursor, MessageId, Position, RecipientId},
    inbox::{
        Archived, Counts, InboxCounts, InboxFilter, InboxPage, Status,
        difference::{ChangeKind, Tally},
        past::Point,
    },
    ledger::past::{Past, PastError},
    projection::{
        ALL, Row as _, by_name, fold_in_memory,
        inbox::{Inbox, InboxCounter, InboxItem},
    },
    store::{Mode, Slot, Store},
    stream::Mark,
    worker::{Worker as _, present::Present},
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    ledger::{TestLedger, incoming, manual_clock, open_store, project_all},
    service::Service,
};

/// Histories on each database, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 3;
const MARKS: [Mark; 7] =
    [Mark::Seen, Mark::Read, Mark::Click, Mark::Unread, Mark::Archive, Mark::Unarchive, Mark::Delete];

/// What somebody tries: what, with which message, how. Much of it is refused, as in life.
type Try = (usize, u8, usize);

/// A list that was shown once, and how it was asked for.
struct Snapshot {
    at: Cursor,
    time: Timestamp,
    recipient: RecipientId,
    filter: InboxFilter,
    limit: u64,
    page: InboxPage,
}

for_each_database! {
    /// What was shown by the tables at any moment is what is shown as of that moment, by time and by place; and at
    /// every place it is the fold of the log up to there.
    async fn the_past_is_what_was_shown_and_what_the_log_says(db: TestDb) {
        let clock = manual_clock();
        let ledger = TestLedger::on(open_store(&db, 2).await, clock.clone());
        let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        if std::env::var_os("PROPTEST_CASES").is_none() {
            config.cases = CASES;
        }
        config.max_shrink_iters = 50;
        let histories = vec((0..12_usize, 0..6_u8, 0..60_usize), 10..40);
        let case = std::cell::Cell::new(0);
        let result = tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            TestRunner::new(config).run(&histories, |tries| {
                case.set(case.get() + 1);
                runtime.block_on(play(&ledger, &clock, case.get(), &tries));
                Ok(())
            })
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        ledger.close().await;
    }

    /// An inbox that is read in several parts is listed page by page, and compared, like a small one.
    async fn a_large_inbox_is_read_in_parts(db: TestDb) {
        let clock = manual_clock();
        let ledger = TestLedger::on(open_store(&db, 1).await, clock.clone());
        let user = recipient("user-1");
        let batch: Vec<_> = (0..450).map(|n| incoming(&format!("m-{n:03}"), user.as_str(), json!({}))).collect();
        for receipt in ledger.ledger.accept(batch).await {
            receipt.unwrap();
        }
        let store = ledger.ledger.store();
        let all = store.head_of(store.shard_of(&user)).await.unwrap();
        let at = Cursor { shard: store.shard_of(&user), position: all };
        let now = clock.now();
        let past = Past { store, now };
        let unknown = past.inbox(&user, at, everything(), 10).await;
        assert!(matches!(unknown, Err(PastError::Behind(..))), "{unknown:?}");
        let marks = (100..350).map(|n| (id(&format!("m-{n}")), Mark::Delete)).collect();
        for marked in ledger.ledger.mark(&user, marks, &Metadata::default()).await {
            marked.unwrap().unwrap();
        }
        project(store).await;
        let (mut seen, mut filter) = (Vec::new(), everything());
        loop {
            let page = past.inbox(&user, at, filter.clone(), 100).await.unwrap();
            assert_eq!(page.counts.overall, Counts { unseen: 450, unread: 450, total: 450 });
            filter.before = page.items.last().map(|it| Position(it.position));
            seen.extend(page.items.into_iter().map(|it| it.message_id));
            if !page.more {
                break;
            }
        }
        let expected: Vec<_> = (0..450).rev().map(|n| format!("m-{n:03}")).collect();
        assert_eq!(seen, expected);
        let places = past.places(&user, Point::Place(at), None).await.unwrap();
        let difference = past.difference(&user, places, None, 20).await.unwrap();
        assert_eq!(difference.tally, Tally { added: 0, changed: 0, removed: 250 });
        let gone: Vec<_> = difference.changes.iter().map(|it| it.item.message_id.clone()).collect();
        assert_eq!(gone, (330..350).rev().map(|n| format!("m-{n}")).collect::<Vec<_>>());
        assert_eq!(difference.counts.map(|it| it.overall.total), [450, 200]);
        ledger.close().await;
    }

    /// A time stands for the last place that was recorded by then, also where two processes do not agree on it; and
    /// what is not there yet, or is not the recipient's, is refused.
    async fn a_time_is_found_among_the_clocks_of_several_processes(db: TestDb) {
        let (early, late) = (manual_clock(), manual_clock());
        late.advance(Duration::from_secs(10));
        let store = open_store(&db, 3).await;
        let user = recipient("user-1");
        let shard = store.shard_of(&user);
        for (n, clock) in [&late, &early, &late, &early, &late].into_iter().enumerate() {
            let process = TestLedger::on(store.clone(), clock.clone());
            for receipt in process.ledger.accept(vec![incoming(&format!("m-{n}"), "user-1", inbox_only())]).await {
                receipt.unwrap();
            }
        }
        project(&store).await;
        let past = Past { store: &store, now: late.now() };
        let at = |seconds: i64| Point::Time(Timestamp::from_micros(early.now().as_micros() + seconds * 1_000_000));
        for (point, expected) in [(at(-1), 0), (at(0), 4), (at(9), 4), (at(10), 5)] {
            let place = past.place_of(&user, point).await.unwrap();
            assert_eq!((place.shard, place.position), (shard, Position(expected)), "{point:?}");
        }
        let place = |shard, position| Point::Place(Cursor { shard, position: Position(position) });
        assert!(matches!(past.place_of(&user, at(11)).await, Err(PastError::Future(..))));
        assert!(matches!(past.place_of(&user, place(shard, 6)).await, Err(PastError::BeyondEnd(..))));
        let other = store.shards().find(|it| *it != shard).unwrap();
        assert!(matches!(past.place_of(&user, place(other, 1)).await, Err(PastError::Elsewhere(..))));
        let backwards = past.places(&user, at(10), Some(at(0))).await;
        assert!(matches!(backwards, Err(PastError::Backwards(..))), "{backwards:?}");
        store.close().await;
    }

    /// What was erased is blank at every moment, and is no change between two.
    async fn what_was_erased_is_blank_at_every_moment(db: TestDb) {
        let ledger = TestLedger::on(open_store(&db, 1).await, manual_clock());
        let (user, store) = (recipient("user-1"), ledger.ledger.store());
        for receipt in ledger.ledger.accept(vec![incoming("m-1", "user-1", inbox_only())]).await {
            receipt.unwrap();
        }
        let first = past_of(store).end_of(&user).await.unwrap();
        let texts = async || {
            project(store).await;
            let page = past_of(store).inbox(&user, first, everything(), 10).await.unwrap();
            page.items.into_iter().map(|it| it.title).collect::<Vec<_>>()
        };
        assert_eq!(texts().await, ["title of m-1"]);
        let columns = "shard, position, message_id, version, type, schema_version, recipient_id, \
                       occurred_at_us, recorded_at_us, payload, metadata";
        let values = "0, head + 1, 'm-1', 1, 'message.erased', 1, 'user-1', 5, 5, '{\"reason\":\"asked\"}', '{}'";
        let mut tx = store.db().begin(Mode::Write).await.unwrap();
        let insert = format!("insert into notification_events ({columns}) select {values} from log_shards");
        for statement in [insert, "update log_shards set head = head + 1".to_owned()] {
            tx.script(statement).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(texts().await, [""]);
        let places = past_of(store).places(&user, Point::Place(first), None).await.unwrap();
        let difference = past_of(store).difference(&user, places, None, 10).await.unwrap();
        assert_eq!((difference.changes, difference.counts[0].overall.total), (vec![], 1));
        ledger.close().await;
    }
}

/// Plays a history to two recipients of its own, and looks at everything that was shown again.
async fn play(ledger: &TestLedger, clock: &ManualClock, case: usize, tries: &[Try]) {
    let store = ledger.ledger.store();
    let users = [0, 1].map(|n| recipient(&format!("c{case}-user-{n}")));
    let mut present = Present::new(ledger.ledger.clone());
    let mut snapshots = Vec::new();
    for (step, &(what, message, how)) in tries.iter().enumerate() {
        clock.advance(Duration::from_secs(1));
        let (user, name) = (&users[usize::from(message % 2)], format!("c{case}-m-{message}"));
        if what < 4 {
            let later = |one_of: usize, plus: u64| {
                how.is_multiple_of(one_of).then(|| clock.now().plus(Duration::from_secs(plus)).to_string())
            };
            let category = ["pass", "news", ""][how % 3];
            let fields = json!({
                "category": Some(category).filter(|it| !it.is_empty()),
                "deliverAt": later(5, 2 + how as u64 % 5),
                "expiresAt": later(4, 8 + how as u64 % 5),
            });
            let _ = ledger.ledger.accept(vec![incoming(&name, user.as_str(), fields)]).await;
        } else {
            let marks = vec![(id(&name), MARKS[how % MARKS.len()])];
            let _ = ledger.ledger.mark(user, marks, &Metadata::default()).await;
        }
        project_all(store, by_name("inbox").unwrap(), Slot::A, 100).await;
        present.tick().await.unwrap();
        project_all(store, by_name("inbox").unwrap(), Slot::A, 100).await;
        let since = (how % 7 == 1).then(|| clock.now().minus(Duration::from_secs(how as u64 % 9)));
        let until = (how % 7 == 2).then(|| clock.now().minus(Duration::from_secs(how as u64 % 5)));
        let filter = InboxFilter {
            before: None,
            status: [Status::All, Status::Unseen, Status::Unread, Status::Read][how / 2 % 4],
            archived: [Archived::Include, Archived::Exclude, Archived::Only][step % 3],
            category: (how % 5 == 0).then(|| "pass".to_owned()),
            since,
            until,
        };
        for recipient in &users {
            let at = past_of(store).end_of(recipient).await.unwrap();
            let limit = 1 + how as u64 % 3;
            for (filter, limit) in [(filter.clone(), limit), (everything(), 100)] {
                let page = store.inbox(recipient, &filter, limit).await.unwrap();
                let (time, recipient) = (clock.now(), recipient.clone());
                snapshots.push(Snapshot { at, time, recipient, filter, limit, page });
            }
        }
    }
    project(store).await;
    let past = Past { store, now: clock.now() };
    for it in &snapshots {
        let place = past.place_of(&it.recipient, Point::Time(it.time)).await.unwrap();
        assert_eq!(place, it.at);
        let limit = usize::try_from(it.limit).unwrap();
        let page = past.inbox(&it.recipient, place, it.filter.clone(), limit).await.unwrap();
        assert_eq!(page, it.page, "as of {} with {:?}, {}", it.at, it.filter, it.limit);
    }
    let log = ledger.log().await;
    for user in &users {
        every_place(&past, user, &log).await;
        let whole: Vec<_> = snapshots.iter().filter(|it| it.recipient == *user && it.limit == 100).collect();
        for (from, to) in whole.iter().zip(whole.iter().skip(whole.len() / 3)) {
            let found = past.difference(user, [from.at, to.at], None, 100).await.unwrap();
            assert_eq!(found.counts, [from.page.counts.clone(), to.page.counts.clone()]);
            let has = |it: &Snapshot, id: &str| it.page.items.iter().any(|item| item.message_id == id);
            for change in &found.changes {
                let there = [from, to].map(|it| has(it, &change.item.message_id));
                let kind = match there {
                    [false, true] => ChangeKind::Added,
                    [true, true] => ChangeKind::Changed,
                    _ => ChangeKind::Removed,
                };
                assert_eq!(change.kind, kind, "from {} to {}: {change:?}", from.at, to.at);
            }
            let added = to.page.items.iter().filter(|it| !has(from, &it.message_id)).count();
            assert_eq!(found.tally.added, added as u64);
        }
    }
}

/// At every place of the recipient's shard the inbox is the fold of the log up to there.
async fn every_place(past: &Past<'_>, user: &RecipientId, log: &[Recorded]) {
    let shard = past.store.shard_of(user);
    let log: Vec<_> = log.iter().filter(|it| it.shard == shard).collect();
    // Of other histories there is nothing to see.
    let first = log.iter().position(|it| it.recipient_id == *user).unwrap_or(log.len());
    for place in first..=log.len() {
        let mut expected = InboxPage { items: Vec::new(), more: false, counts: InboxCounts::default() };
        for (table, rows) in fold_in_memory(&Inbox, log[..place].iter().copied()) {
            if *table == *InboxCounter::TABLE {
                let own = rows.into_iter().map(InboxCounter::from_values);
                for it in own.filter(|it| it.recipient_id == user.as_str()) {
                    let counts = Counts { unseen: it.unseen, unread: it.unread, total: it.total };
                    expected.counts.take(it.category, counts, it.last_position);
                }
            } else {
                let own = rows.into_iter().map(InboxItem::from_values);
                expected.items.extend(own.filter(|it| it.recipient_id == user.as_str() && it.is_shown()));
            }
        }
        expected.items.sort_unstable_by_key(|it| std::cmp::Reverse(it.position));
        let at = Cursor { shard, position: Position(i64::try_from(place).unwrap()) };
        assert_eq!(past.inbox(user, at, everything(), 100).await.unwrap(), expected, "at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_printed_for_people_and_for_machines() {
    let db = TestDb::new(Kind::Sqlite).await;
    let ledger = TestLedger::new(&db, 1).await;
    let batch = ["m-1", "m-2"].map(|id| incoming(id, "user-1", inbox_only()));
    for receipt in ledger.ledger.accept(batch.into()).await {
        receipt.unwrap();
    }
    let marks = vec![(id("m-1"), Mark::Read), (id("m-2"), Mark::Delete)];
    for marked in ledger.ledger.mark(&recipient("user-1"), marks, &Metadata::default()).await {
        marked.unwrap().unwrap();
    }
    project(ledger.ledger.store()).await;
    ledger.close().await;

    let service = Service::new(&format!("[database]\nurl = \"{}\"\n", db.url()));
    let run = async |arguments: &[&str], code| {
        let output = service.run(&[&["inbox"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        let text = if code == 0 { &output.stdout } else { &output.stderr };
        String::from_utf8_lossy(text).into_owned()
    };
    for (arguments, expected) in [
        (&["--recipient", "user-1"][..], &["inbox of user-1 now", "1 in all, 0 unread", "title of m-1"][..]),
        (&["--recipient", "user-1", "--as-of", "0-2"], &["as of 0-2", "2 in all, 2 unread", "title of m-2"]),
        (&["--recipient", "user-1", "--as-of", "0-3", "--status", "read"], &["title of m-1"]),
        (
            &["diff", "--recipient", "user-1", "--from", "0-2", "--to", "0-4"],
            &["0 added, 1 changed, 1 removed", "readAt none → 2", "removed  0-4  m-2"],
        ),
    ] {
        let text = run(arguments, 0).await;
        for expected in expected {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }
    let json = async |arguments| serde_json::from_str::<Value>(&run(arguments, 0).await).unwrap();
    let list = json(&["--recipient", "user-1", "--as-of", "0-2", "--limit", "1", "--json"][..]).await;
    assert_eq!(
        (&list["cursor"], &list["next"], &list["counts"]["total"]),
        (&json!("0-2"), &json!("0-2"), &json!(2))
    );
    let compared = json(&["diff", "--recipient", "user-1", "--from", "0-2", "--json"][..]).await;
    assert_eq!((&compared["changed"], &compared["to"]["cursor"]), (&json!(1), &json!("0-4")));
    let beyond = run(&["--recipient", "user-1", "--as-of", "0-9"], 1).await;
    assert!(
        beyond.contains("0-9 is beyond the end of the log, which is 0-4; use an earlier one"),
        "{beyond}"
    );
    assert!(run(&["--as-of", "0-1"], 2).await.contains("--recipient"));
}

fn past_of(store: &Store) -> Past<'_> {
    Past { store, now: Timestamp::from_micros(i64::MAX) }
}

fn everything() -> InboxFilter {
    InboxFilter { archived: Archived::Include, ..InboxFilter::default() }
}

fn inbox_only() -> Value {
    json!({ "notificationType": "APP_NOTIFICATION" })
}

fn recipient(id: &str) -> RecipientId {
    RecipientId::new(id).unwrap()
}

fn id(text: &str) -> MessageId {
    MessageId::new(text).unwrap()
}

async fn project(store: &Store) {
    for projection in ALL {
        project_all(store, *projection, Slot::A, 100).await;
    }
}
