//! What operators do with slots, and that one process at a time does it: on every database.

use std::{sync::Arc, time::Duration};

use notification_ledger::{
    clock::Clock,
    projection::{self, deliveries::DeliveryStatus},
    store::{Claim, DeliveryFilter, Mode, ProjectError, Slot, Store},
    stream::{Able, Command, Failover},
    supervisor::Supervisor,
    wake::Wake,
    worker::{
        Progress, Worker,
        project::Project,
        rebuild::{
            Rebuild, RebuildError, Wish,
            background::Rebuilds,
            operate::{Aborted, Refused, RolledBack},
        },
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    operate,
    support::{
        database::for_each_database,
        ledger::{TestLedger, body, incoming, manual_clock, open_store, project_all},
        service::Service,
    },
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};

fn rebuild(store: &Store, name: &str, clock: &Arc<impl Clock + 'static>) -> Rebuild {
    let projection = projection::by_name(name).unwrap();
    Rebuild { store: store.clone(), projection, clock: clock.clone() }
}

/// Appends messages and folds them into the live slots.
async fn fill(it: &TestLedger, ids: std::ops::Range<usize>) {
    let messages = ids.map(|at| incoming(&format!("m-{at}"), &format!("user-{}", at % 7), json!({})));
    for receipt in it.ledger.accept(messages.collect()).await {
        receipt.unwrap();
    }
    let mut projector = Project::new(it.ledger.clone(), 500, Wake::default());
    while projector.tick().await.unwrap() == Progress::Worked {}
}

/// What a process has done that is killed in the middle of a rebuild: a claim, and some events folded.
async fn half_a_rebuild(it: &Rebuild) -> (Claim, i64) {
    let claim = it.claim().await.unwrap();
    it.store.begin_slot(it.projection, Slot::B, it.clock.now()).await.unwrap();
    for shard in it.store.shards() {
        it.store.project(it.projection, Slot::B, shard, 5, None).await.unwrap();
    }
    let checkpoints = it.store.checkpoints().await.unwrap();
    (claim, checkpoints.iter().filter(|it| it.slot == Slot::B).map(|it| it.position.0).sum())
}

async fn change(store: &Store, statement: &str) {
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    tx.script(statement.to_owned()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn live(it: &Rebuild) -> (Slot, i32) {
    let state = it.store.projection_state(it.projection.name()).await.unwrap().unwrap();
    (state.live, state.version)
}

/// The live rows are what the log says, to its end.
async fn expect_equal(it: &Rebuild, rows: u64) {
    let proof = it.verify(false, QUIET).await.unwrap();
    assert_eq!((proof.differing, proof.behind_events()), (0, 0), "{proof:?}");
    assert!(proof.rows >= rows, "{proof:?}");
}

for_each_database! {
    /// While somebody is at it, everybody else is told who, and nothing is done twice; when it died, the next one
    /// goes on where it was, and the dead one, should it wake, cannot flip.
    async fn one_at_a_time_rebuilds_and_the_next_goes_on_when_it_died(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 2).await, clock.clone());
        fill(&it, 0..40).await;
        let store = it.ledger.store();
        let inbox = rebuild(store, "inbox", &clock);
        let (first, folded) = half_a_rebuild(&inbox).await;
        assert!(folded >= 5);

        clock.advance(Duration::from_secs(29));
        for (restart, accept) in [(false, false), (true, true)] {
            let Err(RebuildError::UnderWay(at_it)) = inbox.rebuild(restart, accept, QUIET).await else { panic!() };
            assert!(at_it.by.ends_with(&format!(" pid {}", std::process::id())), "{at_it}");
            assert_eq!((at_it.done, at_it.seen_ago), (folded, Duration::from_secs(29)));
            assert!(at_it.to_string().contains("is at inbox since 2026-11-22T09:00:00"), "{at_it}");
        }
        for refused in [inbox.rollback(true, QUIET).await.err(), inbox.drop_old().await.err()] {
            assert!(matches!(refused, Some(RebuildError::UnderWay(_))), "{refused:?}");
        }
        assert!(store.renew_rebuild(&first, clock.now()).await.unwrap());
        clock.advance(Duration::from_secs(30));
        assert!(inbox.claim().await.is_err(), "it was seen half a minute ago");
        let messages = rebuild(store, "messages", &clock);
        assert!(messages.rebuild(false, false, QUIET).await.unwrap().flipped, "another projection is another matter");

        clock.advance(Duration::from_secs(1));
        let second = inbox.claim().await.unwrap();
        assert!(!store.renew_rebuild(&first, clock.now()).await.unwrap());
        let woken = store.flip(&first, inbox.projection, Slot::B, clock.now()).await;
        assert!(matches!(woken, Err(ProjectError::Taken("inbox"))), "{woken:?}");
        store.release_rebuild(&second, false, None).await.unwrap();
        let begun = std::sync::Mutex::new(None);
        let note = |done: u64, _: u64| { begun.lock().unwrap().get_or_insert(done); };
        assert!(inbox.rebuild(false, false, &note).await.unwrap().flipped);
        assert_eq!(begun.lock().unwrap().map(u64::cast_signed), Some(folded), "what was folded is not folded again");
        expect_equal(&inbox, 40).await;
        assert_eq!(inbox.at_it().await.unwrap(), None, "nobody is at it any more");
        it.close().await;
    }

    /// Going back brings the old slot up first, so that nobody sees a step back, and is done once however often it
    /// is asked for; what was dropped cannot be gone back to.
    async fn the_old_slot_is_gone_back_to_and_dropped(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 2).await, clock.clone());
        fill(&it, 0..20).await;
        let inbox = rebuild(it.ledger.store(), "inbox", &clock);
        assert_eq!(inbox.drop_old().await.unwrap(), None, "there is none");
        let refused = inbox.rollback(false, QUIET).await;
        assert!(matches!(refused, Err(RebuildError::Refused(Refused::NoOldSlot("inbox")))), "{refused:?}");

        inbox.rebuild(false, false, QUIET).await.unwrap();
        fill(&it, 20..50).await;
        assert_eq!(live(&inbox).await.0, Slot::B);
        let back = RolledBack::Now { slot: Slot::A, stands_behind: None };
        assert_eq!(inbox.rollback(false, QUIET).await.unwrap(), back);
        assert_eq!(live(&inbox).await, (Slot::A, inbox.projection.version()));
        expect_equal(&inbox, 50).await;
        let again = RolledBack::Before { slot: Slot::A, at: clock.now() };
        assert_eq!(inbox.rollback(false, QUIET).await.unwrap(), again);

        assert_eq!(inbox.drop_old().await.unwrap(), Some(Slot::B));
        assert_eq!(inbox.drop_old().await.unwrap(), None);
        fill(&it, 50..60).await;
        inbox.rebuild(false, false, QUIET).await.unwrap();
        assert_eq!(inbox.drop_old().await.unwrap(), Some(Slot::A));
        let refused = inbox.rollback(true, QUIET).await;
        assert!(matches!(refused, Err(RebuildError::Refused(Refused::NoOldSlot("inbox")))), "{refused:?}");
        expect_equal(&inbox, 60).await;
        it.close().await;
    }

    /// An old slot of another version cannot be folded on: that is said, and it is taken as it stands only when
    /// that is accepted.
    async fn an_old_slot_of_another_version_is_taken_only_if_accepted(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 1).await, clock.clone());
        fill(&it, 0..20).await;
        let inbox = rebuild(it.ledger.store(), "inbox", &clock);
        inbox.rebuild(false, false, QUIET).await.unwrap();
        fill(&it, 20..30).await;
        change(it.ledger.store(), "update projections set old_version = old_version - 1 where name = 'inbox'").await;
        let wanted = inbox.projection.version();
        let Err(RebuildError::Refused(Refused::OtherVersion { version, lag_events, .. })) =
            inbox.rollback(false, QUIET).await
        else {
            panic!()
        };
        assert_eq!(version, Some(wanted - 1));
        let back = RolledBack::Now { slot: Slot::A, stands_behind: Some(lag_events) };
        assert_eq!(inbox.rollback(true, QUIET).await.unwrap(), back);
        assert_eq!(live(&inbox).await, (Slot::A, wanted - 1), "a next start would rebuild");
        it.close().await;
    }

    /// Tables of an older version are rebuilt by themselves when services start: by one of two, while the old ones
    /// are read; and once they are gone back to, they stay until the next start.
    async fn a_newer_version_is_rebuilt_at_a_start_by_one_process(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 2).await, clock.clone());
        fill(&it, 0..40).await;
        let store = it.ledger.store();
        let inbox = rebuild(store, "inbox", &clock);
        change(store, "update projections set version = version - 1 where name = 'inbox'").await;
        let supervisors = [0, 1].map(|_| Supervisor::new(Duration::from_secs(5)));
        let services = supervisors.each_ref().map(|it| {
            Rebuilds::new(store.clone(), clock.clone(), it.tasks().clone())
        });
        let done = tokio::join!(services[0].renew(), services[1].renew());
        assert_eq!([done.0, done.1].concat(), ["inbox"], "one of them did it");
        assert_eq!(live(&inbox).await, (Slot::B, inbox.projection.version()));
        expect_equal(&inbox, 40).await;
        assert_eq!(services[0].renew().await, Vec::<&str>::new(), "nothing is left to do");

        // Another process died in the middle of it: it is waited for, and then gone on with.
        change(store, "update projections set version = version - 1 where name = 'messages'").await;
        let messages = rebuild(store, "messages", &clock);
        let (_, folded) = half_a_rebuild(&messages).await;
        assert!(folded >= 5);
        let waits = async {
            tokio::task::yield_now().await;
            clock.advance(Duration::from_secs(31));
        };
        assert_eq!(tokio::join!(services[1].renew(), waits).0, ["messages"]);
        expect_equal(&messages, 40).await;
        it.close().await;
    }

    /// A soft stop cuts a rebuild off, and the next start goes on with it.
    async fn a_rebuild_that_was_stopped_goes_on_at_the_next_start(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 1).await, clock.clone());
        fill(&it, 0..20).await;
        let store = it.ledger.store();
        let inbox = rebuild(store, "inbox", &clock);
        let stop = CancellationToken::new();
        let wish = Wish { goes_on: true, ..Wish::default() };
        let cut_off = inbox.rebuild_until(&stop, wish, &|_, _| stop.cancel()).await;
        assert!(matches!(cut_off, Err(RebuildError::Stopped("inbox"))), "{cut_off:?}");
        assert_eq!(live(&inbox).await.0, Slot::A);
        assert_eq!(inbox.at_it().await.unwrap(), None, "it gave way at once");
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let next = Rebuilds::new(store.clone(), clock.clone(), supervisor.tasks().clone());
        assert_eq!(next.renew().await, ["inbox"]);
        assert_eq!(live(&inbox).await.0, Slot::B);
        expect_equal(&inbox, 20).await;
        it.close().await;
    }

    /// Giving up stops whoever is at it and leaves nothing behind; a slot that was built and not made live is no
    /// old one.
    async fn a_rebuild_is_aborted(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 2).await, clock.clone());
        fill(&it, 0..20).await;
        let store = it.ledger.store();
        let inbox = rebuild(store, "inbox", &clock);
        assert_eq!(inbox.abort().await.unwrap(), None);
        let (first, _) = half_a_rebuild(&inbox).await;
        clock.advance(Duration::from_secs(1));
        let Some(Aborted { slot: Some(Slot::B), by: Some(_) }) = inbox.abort().await.unwrap() else { panic!() };
        assert!(!store.renew_rebuild(&first, clock.now()).await.unwrap(), "it notices");
        assert!(store.checkpoints().await.unwrap().iter().all(|it| it.slot == Slot::A));
        assert_eq!(inbox.abort().await.unwrap(), None);

        change(store, "update inbox_items_a set title = 'forged' where message_id = 'm-3'").await;
        assert!(!inbox.rebuild(false, false, QUIET).await.unwrap().flipped);
        for refused in [inbox.rollback(true, QUIET).await.err(), inbox.drop_old().await.err()] {
            let is_so = matches!(&refused, Some(RebuildError::Refused(Refused::BeingBuilt { slot: Slot::B, .. })));
            assert!(is_so, "{refused:?}");
        }
        assert_eq!(inbox.abort().await.unwrap(), Some(Aborted { slot: Some(Slot::B), by: None }));
        assert!(inbox.rebuild(false, true, QUIET).await.unwrap().flipped);
        expect_equal(&inbox, 20).await;
        it.close().await;
    }

    /// A rebuild of deliveries appends nothing, so it claims and sends nothing; and a call that is under way
    /// meanwhile is under way afterwards, with its lease, and its outcome counts.
    async fn a_rebuild_of_deliveries_sends_nothing_and_loses_no_claim(db: TestDb) {
        let (store, clock) = (open_store(&db, 2).await, manual_clock());
        let ledger = operate::ledger(&store, clock.clone());
        for id in ["m-1", "m-2", "m-3"] {
            operate::push(&ledger, id, "one", json!({})).await;
        }
        operate::start(&ledger, "m-1").await;
        let deliveries = rebuild(&store, "deliveries", &clock);
        project_all(&store, deliveries.projection, Slot::A, 500).await;
        let (claim, _) = half_a_rebuild(&deliveries).await;
        store.release_rebuild(&claim, false, None).await.unwrap();
        operate::start(&ledger, "m-2").await;
        project_all(&store, deliveries.projection, Slot::A, 500).await;

        let heads = store.heads().await.unwrap();
        assert!(deliveries.rebuild(false, false, QUIET).await.unwrap().flipped);
        assert_eq!(store.heads().await.unwrap(), heads, "nothing is appended");
        let all = DeliveryFilter::default();
        let ids = async |status| {
            let rows = operate::listed(&store, status, &all, 10).await;
            rows.into_iter().map(|it| (it.message_id, it.due_at_us.is_some())).collect::<Vec<_>>()
        };
        let mut attempting = ids(DeliveryStatus::Attempting).await;
        attempting.sort();
        assert_eq!(attempting, [("m-1".to_owned(), true), ("m-2".to_owned(), true)]);
        assert_eq!(ids(DeliveryStatus::Scheduled).await.len(), 1);
        let failover =
            Failover { after: Duration::MAX, after_unknown: true, able: Able::All, configured: Able::All };
        for id in ["m-1", "m-2"] {
            let delivery_id = operate::of(id).1;
            let (attempt, result, failover) = (1, operate::taken(), failover.clone());
            let outcome = Command::RecordOutcome { delivery_id, attempt, duration_ms: 1, result, failover };
            operate::apply(&ledger, id, outcome).await;
        }
        project_all(&store, deliveries.projection, Slot::B, 500).await;
        assert_eq!(ids(DeliveryStatus::Accepted).await.len(), 2);
        assert_eq!(ids(DeliveryStatus::Attempting).await, []);
        drop(ledger);
        store.close().await;
    }
}

/// The commands say what they did, and what there was nothing to do about.
#[tokio::test]
async fn slots_are_gone_back_to_dropped_and_given_up_by_command() {
    let service = Service::new("database.url = 'sqlite://ledger.db'");
    let file = service.file("m.ndjson", &[body("m-1", "user-1", json!({})), vec![b'\n']].concat());
    for (arguments, is_well, expected) in [
        (&["ingest", file.as_str()][..], true, ""),
        (&["projections", "rollback", "inbox"], false, "inbox has no old slot"),
        (&["projections", "abort", "inbox"], true, "inbox: nothing is being built; nothing to do"),
        (&["projections", "drop-old", "inbox"], true, "inbox: there is no old slot; nothing to do"),
        (&["projections", "rebuild", "inbox"], true, "inbox: slot b is live\n"),
        (&["projections", "status"], true, "inbox        a     old"),
        (&["projections", "rollback", "inbox"], true, "inbox: slot a is live again"),
        (&["projections", "rollback", "inbox"], true, "already; nothing to do"),
        (&["projections", "rollback", "inbox", "--json"], true, "\"isNew\":false"),
        (&["projections", "drop-old", "inbox", "--json"], true, "\"dropped\":\"b\""),
        (&["projections", "abort", "inbox", "--json"], true, "\"aborted\":false"),
        (&["projections", "abort", "nobody"], false, "there is no projection"),
    ] {
        let output = service.run(arguments).await;
        let text = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
        assert_eq!(output.status.success(), is_well, "{arguments:?}: {text}");
        assert!(text.replace("\": ", "\":").contains(expected), "{arguments:?}: {text}");
    }
}
