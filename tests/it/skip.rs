//! Events that no fold can take: named, waited before, and left out when somebody decides so.

use std::sync::Arc;

use notification_ledger::{
    clock::SystemClock,
    event::{Event, Metadata, Recorded},
    id::{Cursor, MessageId, Position, RecipientId, Shard},
    projection::{self, ALL, Ddl, Keys, Projection, Rows, Table, inbox::Inbox},
    store::{Mode, ProjectError, SkipOutcome, Slot, Step, Store},
    stream::Mark,
    worker::rebuild::{Rebuild, RebuildError, load::Ranges},
};
use serde_json::json;

use crate::support::{
    database::for_each_database,
    ledger::{TestLedger, forge_future, incoming, project_all},
    service::Service,
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const SHARD: Shard = Shard(0);

/// The inbox with a fault: it cannot take what is said of this message.
struct Faulty;

const POISON: &str = "m-2";

impl Projection for Faulty {
    fn name(&self) -> &'static str {
        Inbox.name()
    }

    fn version(&self) -> i32 {
        Inbox.version()
    }

    fn tables(&self) -> &'static [&'static Table] {
        Inbox.tables()
    }

    fn ddl(&self) -> Ddl {
        Inbox.ddl()
    }

    fn touches<'e>(&self, event: &'e Recorded, keys: &mut Keys<'e>) {
        Inbox.touches(event, keys);
    }

    fn fold(&self, event: &Recorded, rows: &mut Rows) {
        Inbox.fold(event, rows);
        assert!(event.message_id.as_str() != POISON, "no fold for {}", event.message_id);
    }
}

fn at(position: i64) -> Cursor {
    Cursor { shard: SHARD, position: Position(position) }
}

async fn accept(it: &TestLedger, id: &str) {
    it.ledger.accept(vec![incoming(id, "user-1", json!({}))]).await.remove(0).unwrap();
}

async fn skip(it: &TestLedger, event: Cursor) -> SkipOutcome {
    it.ledger.store().skip_event(event, "a test", "somebody", it.ledger.now()).await.unwrap()
}

/// Where the live slot of the inbox is, and why it does not go on.
async fn place(store: &Store) -> (i64, Option<String>) {
    let places = store.checkpoints().await.unwrap();
    let place = places.into_iter().find(|it| it.projection == "inbox" && it.slot == Slot::A).unwrap();
    (place.position.0, place.parked)
}

fn rebuild(store: &Store, projection: &'static dyn Projection) -> Rebuild {
    Rebuild { store: store.clone(), projection, clock: Arc::new(SystemClock) }
}

for_each_database! {
    /// What this release cannot read is left out when somebody says so, and not otherwise; everything after it is
    /// folded, what is live equals what is folded anew, and the message goes on.
    async fn an_event_that_cannot_be_read_is_left_out(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        let store = it.ledger.store();
        accept(&it, "m-1").await;
        forge_future(store, SHARD, "m-1").await;
        accept(&it, "m-2").await;
        let head = store.heads().await.unwrap()[0].position.0;
        let stranger = at(store.stream(&MessageId::new("m-1").unwrap()).await.map_or_else(
            |error| error.to_string().split_whitespace().nth(1).unwrap().parse().unwrap(),
            |_| panic!("it can be read"),
        ));
        assert_eq!(skip(&it, stranger).await, SkipOutcome::NotParked, "nobody has met it yet");
        for projection in ALL {
            while let Ok(Step::Folded { .. }) = store.project(*projection, Slot::A, SHARD, 100, None).await {}
        }
        let (position, parked) = place(store).await;
        assert_eq!(position, stranger.position.0 - 1);
        let parked = parked.unwrap();
        assert!(parked.contains(&format!("before event {stranger}:")) && parked.contains("inbox.sneezed"), "{parked}");
        assert_eq!(skip(&it, at(head + 1)).await, SkipOutcome::NoEvent);
        assert_eq!(skip(&it, at(1)).await, SkipOutcome::NotParked);
        assert_eq!(store.skipped_events().await.unwrap(), []);

        let SkipOutcome::Skipped { event, is_new, folded } = skip(&it, stranger).await else { panic!() };
        assert_eq!((event.event, event.kind.as_str(), event.message_id.as_str()), (stranger, "inbox.sneezed", "m-1"));
        assert_eq!((event.problem.split_once(" is ").map(|it| it.1), is_new, folded), (parked.split_once(" is ").map(|it| it.1), true, Vec::new()));
        let SkipOutcome::Skipped { event: again, is_new: false, .. } = skip(&it, stranger).await else { panic!() };
        assert_eq!(again, event);

        for projection in ALL {
            project_all(store, *projection, Slot::A, 2).await;
        }
        assert_eq!(place(store).await, (head, None));
        let mark = vec![(MessageId::new("m-1").unwrap(), Mark::Read)];
        let marked = it.ledger.mark(&RecipientId::new("user-1").unwrap(), mark, &Metadata::default()).await;
        assert!(marked.iter().all(Result::is_ok), "{marked:?}");
        for projection in ALL {
            project_all(store, *projection, Slot::A, 100).await;
            let rebuilt = rebuild(store, *projection).rebuild(false, false, QUIET).await.unwrap();
            assert!(rebuilt.flipped && rebuilt.behind.is_empty(), "{rebuilt:?}");
            let comparison = rebuilt.comparison.unwrap();
            assert_eq!((comparison.differing, comparison.behind_events()), (0, 0));
        }
        let events = store.stream(&MessageId::new("m-1").unwrap()).await.unwrap();
        let left_out = events.iter().filter(|it| matches!(&it.body, Event::Skipped(it) if it.reason == "a test"));
        assert_eq!(left_out.count(), 1, "it stays in the log");
        assert_eq!(store.skipped_events().await.unwrap(), [event]);
        it.close().await;
    }

    /// A fold that fails at an event parks before it and not before another, one by one and in bulk, and leaves
    /// nothing of it behind.
    async fn an_event_that_a_fold_fails_at_is_named(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        let store = it.ledger.store();
        for id in ["m-1", POISON, "m-3"] {
            accept(&it, id).await;
        }
        let log = it.log().await;
        let poison = log.iter().find(|it| it.message_id.as_str() == POISON).unwrap().cursor();
        let parked = loop {
            match store.project(&Faulty, Slot::A, SHARD, 100, None).await {
                Ok(Step::Folded { .. }) => {}
                other => break other.unwrap_err(),
            }
        };
        assert!(matches!(&parked, ProjectError::Parked { after, .. } if after.0 == poison.position.0 - 1), "{parked:?}");
        let (position, reason) = place(store).await;
        assert_eq!(position, poison.position.0 - 1);
        let reason = reason.unwrap();
        assert!(reason.contains(&format!("event {poison} fails: no fold for m-2")), "{reason}");

        store.begin_slot(&Faulty, Slot::B, it.ledger.now()).await.unwrap();
        let target = vec![(SHARD, log.last().unwrap().position)];
        let loaded = rebuild(store, &Faulty).load(Slot::B, target, Ranges::default(), QUIET).await;
        let in_bulk = loaded.unwrap_err();
        assert!(matches!(&in_bulk, RebuildError::Project(ProjectError::Parked { after, .. }) if *after == Position(position)), "{in_bulk:?}");

        let messages = projection::by_name("messages").unwrap();
        project_all(store, messages, Slot::A, 100).await;
        let SkipOutcome::Skipped { folded, .. } = skip(&it, poison).await else { panic!() };
        assert_eq!(folded, ["messages"], "that one has it in its rows");
        let ends = loop {
            match store.project(&Faulty, Slot::A, SHARD, 100, None).await {
                Ok(Step::Folded { .. }) => {}
                other => break other,
            }
        };
        let others = log.iter().any(|it| it.message_id.as_str() == POISON && it.cursor() != poison);
        assert_eq!(ends.is_err(), others, "what else is said of the message is met one by one");
        it.close().await;
    }

    /// What was decided cannot be changed or removed.
    async fn what_is_left_out_stays_so(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        let store = it.ledger.store();
        accept(&it, "m-1").await;
        forge_future(store, SHARD, "m-1").await;
        while let Ok(Step::Folded { .. }) = store.project(&Inbox, Slot::A, SHARD, 100, None).await {}
        let (position, _) = place(store).await;
        assert!(matches!(skip(&it, at(position + 1)).await, SkipOutcome::Skipped { is_new: true, .. }));
        for statement in ["update skipped_events set reason = 'x'", "delete from skipped_events"] {
            let mut tx = store.db().begin(Mode::Write).await.unwrap();
            let error = tx.script(statement.to_owned()).await.unwrap_err();
            let error = format!("{error:?}");
            assert!(error.contains("skipped_events is append-only"), "{statement}: {error}");
        }
        it.close().await;
    }

    /// An operator finds the event in `status`, leaves it out, and finds who did it and why ever after.
    async fn an_operator_leaves_an_event_out(db: TestDb) {
        let it = TestLedger::new(&db, 1).await;
        let store = it.ledger.store();
        accept(&it, "m-1").await;
        forge_future(store, SHARD, "m-1").await;
        for projection in ALL {
            while let Ok(Step::Folded { .. }) = store.project(*projection, Slot::A, SHARD, 100, None).await {}
        }
        let event = at(place(store).await.0 + 1).to_string();
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
        let (code, text) = run(&["projections", "status"]).await;
        assert!(code == 1 && text.contains(&format!("is parked before event {event}")), "{code} {text}");
        let skip = ["projections", "skip", "--event", &event, "--by", "kim", "--reason"];
        let with = |reason: &'static str| skip.iter().copied().chain([reason]).collect::<Vec<_>>();
        let (code, text) = run(&with("  ")).await;
        assert!(code == 2 && text.contains("say why"), "{code} {text}");
        let (code, text) = run(&["projections", "skip", "--event", "0-1", "--reason", "x"]).await;
        assert!(code == 1 && text.contains("no projection is parked before event 0-1"), "{code} {text}");
        let (code, text) = run(&with("a tool wrote it")).await;
        assert!(code == 0 && text.contains("is left out since") && text.contains("30 seconds"), "{code} {text}");
        let (code, text) = run(&with("again")).await;
        assert!(code == 0 && text.starts_with("nothing to do") && text.contains("a tool wrote it"), "{code} {text}");
        let (_, text) = run(&["projections", "status"]).await;
        assert!(text.contains(&format!("event {event} (inbox.sneezed of message m-1) is left out")), "{text}");
        let (_, json) = run(&["projections", "status", "--json"]).await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["skipped"][0]["by"], &json["skipped"][0]["reason"]), (&json!("kim"), &json!("a tool wrote it")));
        let (code, text) = run(&["audit", "message", "m-1"]).await;
        assert!(code == 0 && text.contains("left out") && text.contains("a tool wrote it"), "{code} {text}");
    }
}
