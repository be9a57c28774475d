//! Rows of a live table that somebody changed by hand: found, named to the column, mended, and found no more.

use std::{collections::BTreeSet, sync::Arc};

use notification_ledger::{
    clock::SystemClock,
    event::{Event, Metadata},
    id::{MessageId, RecipientId},
    projection::{self, ALL},
    store::{Mode, Slot, Store, Subject},
    stream::Mark,
    worker::rebuild::{Comparison, Rebuild, RebuildError, What},
};
use serde_json::json;

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    eventually,
    history::{History, rows},
    http_client,
    ledger::{TestLedger, incoming, open_store, project_all},
    service::Service,
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const BY_SUBJECT: [&str; 3] = ["inbox", "deliveries", "messages"];

fn rebuild(store: &Store, name: &str) -> Rebuild {
    let projection = projection::by_name(name).unwrap();
    Rebuild { store: store.clone(), projection, clock: Arc::new(SystemClock) }
}

fn message(id: &str) -> MessageId {
    MessageId::new(id).unwrap()
}

fn recipient(id: &str) -> RecipientId {
    RecipientId::new(id).unwrap()
}

async fn by_hand(store: &Store, statements: &[&str]) {
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    for statement in statements {
        tx.script((*statement).to_owned()).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// Twenty messages to five people, some of them read; everything is folded.
async fn fill(it: &TestLedger) {
    let messages = (0..20)
        .map(|at| incoming(&format!("m-{at}"), &format!("user-{}", at % 5), json!({"category": "pass"})));
    for receipt in it.ledger.accept(messages.collect()).await {
        receipt.unwrap();
    }
    for at in [1, 6, 7] {
        let mark = vec![(message(&format!("m-{at}")), Mark::Read)];
        it.ledger.mark(&recipient(&format!("user-{}", at % 5)), mark, &Metadata::default()).await;
    }
    for projection in ALL {
        project_all(it.ledger.store(), *projection, Slot::A, 7).await;
    }
}

fn named(found: &Comparison) -> BTreeSet<String> {
    let key = |key: &[projection::Value]| serde_json::to_string(key).unwrap();
    let what = |what: &What| match what {
        What::Column { name, .. } => (*name).to_owned(),
        other => format!("{other:?}"),
    };
    found.differences.iter().map(|it| format!("{} {} {}", it.table, key(&it.key), what(&it.what))).collect()
}

/// Crimes against the live tables of a projection, and what they are to be called.
fn crimes(name: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match name {
        "inbox" => (
            &[
                "update inbox_items_a set title = 'Hacked' where message_id = 'm-3'",
                "delete from inbox_items_a where message_id = 'm-6'",
                "update inbox_items_a set message_id = 'm-99' where message_id = 'm-12'",
                "update inbox_counters_a set unread = unread + 1 where recipient_id = 'user-1' and category = 'pass'",
                "delete from inbox_counters_a where recipient_id = 'user-4'",
            ],
            &[
                r#"inbox_items ["m-3"] title"#,
                r#"inbox_items ["m-6"] Missing"#,
                r#"inbox_items ["m-12"] Missing"#,
                r#"inbox_items ["m-99"] Extra"#,
                r#"inbox_counters ["user-1","pass"] unread"#,
                r#"inbox_counters ["user-4",""] Missing"#,
                r#"inbox_counters ["user-4","pass"] Missing"#,
            ],
        ),
        "deliveries" => (
            &[
                "update push_deliveries_a set attempts = 77 where message_id = 'm-3'",
                "delete from push_deliveries_a where message_id = 'm-6'",
            ],
            &["push_deliveries", "push_deliveries"],
        ),
        _ => (
            &[
                "update messages_a set title = 'Hacked' where message_id = 'm-3'",
                "delete from messages_a where message_id = 'm-6'",
            ],
            &[r#"messages ["m-3"] title"#, r#"messages ["m-6"] Missing"#],
        ),
    }
}

for_each_database! {
    /// Every fault is found and named to the column; a repair mends them and nothing else, and what is compared again
    /// is well.
    async fn what_was_changed_by_hand_is_found_and_mended(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        fill(&it).await;
        let store = it.ledger.store();
        for name in BY_SUBJECT {
            let rebuild = rebuild(store, name);
            let before = rows(store, rebuild.projection, Slot::A).await;
            let (crimes, expected) = crimes(name);
            by_hand(store, crimes).await;
            let found = rebuild.verify(false, QUIET).await.unwrap();
            let names = named(&found);
            for name in expected {
                assert!(names.iter().any(|it| it.starts_with(name)), "{name}: {names:?}");
            }
            assert_eq!(found.differing, expected.len() as u64, "{names:?}");
            let repaired = rebuild.repair(false, QUIET).await.unwrap();
            assert_eq!(named(&repaired.found), names);
            assert_eq!((repaired.left.differing, repaired.left.rows > 0), (0, true), "{repaired:?}");
            assert!(repaired.mended >= found.differing && repaired.subjects > 0, "{repaired:?}");
            assert_eq!(rebuild.verify(false, QUIET).await.unwrap().differing, 0);
            assert_eq!(rows(store, rebuild.projection, Slot::A).await, before);
            assert_eq!(rebuild.repair(false, QUIET).await.unwrap().mended, 0, "there is nothing left to do");
        }
        it.close().await;
    }

    /// One message or one recipient is proven and mended alone; what others hold is left as it is.
    async fn one_message_and_one_recipient_are_mended_alone(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        fill(&it).await;
        let store = it.ledger.store();
        let inbox = rebuild(store, "inbox");
        let before = rows(store, inbox.projection, Slot::A).await;
        by_hand(store, crimes("inbox").0).await;
        let wrong = rows(store, inbox.projection, Slot::A).await;
        for (subject, expected) in [
            (Subject::Message(message("m-3")), &[r#"inbox_items ["m-3"] title"#][..]),
            (Subject::Message(message("m-4")), &[]),
            (Subject::Message(message("m-99")), &[r#"inbox_items ["m-99"] Extra"#]),
            (
                Subject::Recipient(recipient("user-1")),
                &[r#"inbox_items ["m-6"] Missing"#, r#"inbox_counters ["user-1","pass"] unread"#],
            ),
            (Subject::Recipient(recipient("user-0")), &[]),
            (Subject::Recipient(recipient("nobody")), &[]),
        ] {
            let found = inbox.verify_subject(&subject).await.unwrap();
            assert_eq!(named(&found), expected.iter().map(|it| (*it).to_owned()).collect(), "{subject:?}");
            assert_eq!(found.differing, expected.len() as u64);
            if expected.is_empty() {
                let unchanged = rows(store, inbox.projection, Slot::A).await;
                assert_eq!(inbox.mend(&subject).await.unwrap().differing, 0);
                assert_eq!(rows(store, inbox.projection, Slot::A).await, unchanged);
            } else {
                assert_eq!(inbox.mend(&subject).await.unwrap(), found);
                assert_eq!(inbox.verify_subject(&subject).await.unwrap().differing, 0);
            }
        }
        let left = rows(store, inbox.projection, Slot::A).await;
        assert!(left != before && left != wrong, "others are mended when they are asked for");
        for user in ["user-2", "user-4"] {
            inbox.mend(&Subject::Recipient(recipient(user))).await.unwrap();
        }
        assert_eq!(rows(store, inbox.projection, Slot::A).await, before);
        let counts = rebuild(store, "statistics");
        let refused = counts.verify_subject(&Subject::Message(message("m-3"))).await.unwrap_err();
        assert!(matches!(refused, RebuildError::OfMany("statistics")), "{refused:?}");
        it.close().await;
    }

    /// What is not folded yet is no fault, and no repair folds it: the projector does, once.
    async fn events_that_are_not_folded_yet_are_left_to_the_projector(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        fill(&it).await;
        let store = it.ledger.store();
        let mark = vec![(message("m-3"), Mark::Archive)];
        it.ledger.mark(&recipient("user-3"), mark, &Metadata::default()).await;
        for receipt in it.ledger.accept(vec![incoming("m-30", "user-3", json!({}))]).await {
            receipt.unwrap();
        }
        by_hand(store, &["update inbox_items_a set title = 'Hacked' where message_id = 'm-3'"]).await;
        let inbox = rebuild(store, "inbox");
        let user = Subject::Recipient(recipient("user-3"));
        let found = inbox.mend(&user).await.unwrap();
        assert_eq!(named(&found), [r#"inbox_items ["m-3"] title"#.to_owned()].into());
        assert!(found.behind_events() > 0);
        project_all(store, inbox.projection, Slot::A, 1).await;
        let proof = inbox.verify(false, QUIET).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0));
        it.close().await;
    }

    /// Through random histories, with claims that are held: the rows of each message and recipient are what the log
    /// says, and mending them changes nothing.
    async fn what_is_well_stays_as_it_is(db: TestDb) {
        let store = open_store(&db, 2).await;
        let mut history = History::new(fastrand::u64(..));
        history.happen(&store, 16).await;
        let mut messages = BTreeSet::new();
        let mut claims = 0;
        for shard in store.shards() {
            for event in store.events_after(shard, notification_ledger::id::Position(0), 100_000).await.unwrap() {
                claims += u32::from(matches!(event.body, Event::PushAttemptStarted(_)));
                messages.insert((event.message_id, event.recipient_id));
            }
        }
        assert!(claims > 0, "nothing is held");
        for name in BY_SUBJECT {
            let rebuild = rebuild(&store, name);
            project_all(&store, rebuild.projection, Slot::A, 100).await;
            if name == "inbox" {
                project_all(&store, projection::by_name("messages").unwrap(), Slot::A, 100).await;
            }
            let before = rows(&store, rebuild.projection, Slot::A).await;
            for (message, recipient) in messages.iter().take(25) {
                for subject in [Subject::Message(message.clone()), Subject::Recipient(recipient.clone())] {
                    assert_eq!(rebuild.mend(&subject).await.unwrap().differing, 0, "{name} {subject:?}");
                }
            }
            assert_eq!(rows(&store, rebuild.projection, Slot::A).await, before);
        }
        store.close().await;
    }

    /// An operator finds a fault, mends it, and finds none.
    async fn an_operator_repairs(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        fill(&it).await;
        by_hand(it.ledger.store(), crimes("inbox").0).await;
        it.close().await;
        let service = Service::new(&format!(
            "[database]\nurl = {:?}\npooler = {}\ndirect_url = {:?}\n",
            db.url(),
            db.is_pooled(),
            db.direct_url().unwrap_or_default(),
        ));
        let run = async |arguments: &[&str]| {
            let output = service.run(arguments).await;
            let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
            (output.status.code().unwrap(), text)
        };
        let (code, text) = run(&["projections", "verify", "inbox", "--message", "m-3"]).await;
        assert!(code == 1 && text.contains(r#"inbox_items "m-3": title is "Hacked", the log says "title of m-3""#), "{code} {text}");
        let (code, text) = run(&["projections", "rebuild", "inbox", "--message", "m-3"]).await;
        assert!(code == 0 && text.contains("mended: 1 rows"), "{code} {text}");
        let (code, text) = run(&["projections", "verify", "inbox", "--message", "m-3"]).await;
        assert!(code == 0 && text.contains(": 0 differ"), "{code} {text}");
        let (code, text) = run(&["projections", "verify", "inbox", "--repair"]).await;
        assert!(code == 0 && text.contains("compared again: 0 differ"), "{code} {text}");
        let (code, text) = run(&["projections", "verify", "inbox"]).await;
        assert!(code == 0 && text.contains(": 0 differ"), "{code} {text}");
        let (code, text) = run(&["projections", "verify", "statistics", "--repair"]).await;
        assert!(code == 1 && text.contains("rebuild the whole of it"), "{code} {text}");
        let (code, text) = run(&["projections", "rebuild", "inbox", "--recipient", "user-1", "--restart"]).await;
        assert!(code == 2 && text.contains("cannot be used with"), "{code} {text}");
    }
}

/// A fault is found by drawing, told once with the row and the column, counted, and counted no more when it is mended.
#[tokio::test]
async fn a_fault_is_found_by_drawing() {
    let db = TestDb::new(Kind::Sqlite).await;
    let it = TestLedger::new(&db, 2).await;
    fill(&it).await;
    by_hand(it.ledger.store(), &["update inbox_items_a set title = 'Hacked' where message_id = 'm-3'"]).await;
    let mut service = Service::new(&format!(
        "[database]\nurl = {:?}\n[api]\nbind = \"127.0.0.1:{{port}}\"\n[projection]\nprove_recipients = 20\nprove_every_s = 1\n",
        db.url(),
    ));
    service.start().await;
    let drift = async || {
        let metrics = http_client().get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = metrics
            .lines()
            .find(|it| it.starts_with("notification_ledger_projection_drift_rows{projection=\"inbox\"}"));
        line.and_then(|it| it.rsplit(' ').next()).map(str::to_owned)
    };
    let patience = std::time::Duration::from_secs(30);
    eventually("the fault is found", patience, async || drift().await.as_deref() == Some("1")).await;
    assert!(service.output().contains(r#"inbox_items [\"m-3\"] title"#), "{}", service.output());
    assert!(!service.output().contains("Hacked"), "no content in the log");
    rebuild(it.ledger.store(), "inbox").mend(&Subject::Message(message("m-3"))).await.unwrap();
    eventually("it is gone", patience, async || drift().await.as_deref() == Some("0")).await;
    assert!(service.stop().await.success(), "{}", service.output());
    it.close().await;
}
