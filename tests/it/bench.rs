//! `bench`: every benchmark runs to its end at the smallest sizes, compares like with like, and leaves
//! nothing behind. What it measures is not looked at here.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use notification_ledger::{
    clock::{Clock, SystemClock},
    id::Position,
    projection::{Projection, inbox::Inbox},
    store::{Baseline, Dialect, Scratch, ScratchError, Slot, Store},
    worker::rebuild::Rebuild,
};
use sea_query::{Expr, Query};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    eventually,
    ledger::{TestLedger, incoming, open_url, project_all},
    queue::ACCESS_KEY,
    random_name, variable,
};

fn bench(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notification-ledger"));
    command.arg("bench").args(arguments).current_dir(folder).kill_on_drop(true);
    command.env_remove("RUST_LOG").env("TMPDIR", folder);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", ACCESS_KEY);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a benchmark and checks that it measured something; its figures by name.
async fn figures(folder: &Path, database: Option<&str>, arguments: &str) -> Vec<String> {
    let mut all: Vec<_> = arguments.split(' ').chain(["--rounds", "1", "--json"]).collect();
    all.extend(database.iter().flat_map(|url| ["--database", url]));
    let output = bench(folder, &all).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {errors}");
    assert_eq!(errors, "", "{arguments}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["bench"], arguments.split(' ').next().unwrap());
    let figures = report["figures"].as_array().unwrap();
    for figure in figures {
        for side in [&figure["ours"], &figure["raw"]] {
            let rounds = side["rounds"].as_array();
            let measured = |it: &Value| it.as_f64().unwrap() > 0.0;
            assert!(rounds.is_none_or(|it| it.len() == 1 && measured(&it[0])), "{arguments}: {figure}");
        }
    }
    figures.iter().map(|it| it["figure"].as_str().unwrap().to_owned()).collect()
}

async fn every_benchmark_runs(kind: Kind) {
    let (db, folder) = (TestDb::new(kind).await, tempfile::tempdir().unwrap());
    let sqlite = format!("sqlite://{}", folder.path().join("beside.db").display());
    let url = if kind == Kind::Sqlite { sqlite.as_str() } else { db.url() };
    let queue = format!("ingest --messages 70 --pollers 2 --sqs {}", variable("LEDGER_TEST_SQS_ENDPOINT"));
    for (arguments, expected) in [
        (queue.as_str(), 1),
        ("append --messages 700", 1),
        ("project --messages 300", 4),
        ("rebuild --events 300", 3),
        ("ingest --seconds 1 --connections 3", 3),
        ("ingest --file --messages 700", 2),
        ("streams --streams 20 --arrivals 10", 4),
        ("deliver --messages 60 --seconds 1 --concurrency 8", 5),
    ] {
        let figures = figures(folder.path(), Some(url), arguments).await;
        assert_eq!(figures.len(), expected, "{arguments}: {figures:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays behind");
}

#[tokio::test]
async fn every_benchmark_runs_on_sqlite() {
    every_benchmark_runs(Kind::Sqlite).await;
}

#[tokio::test]
async fn every_benchmark_runs_on_postgres() {
    every_benchmark_runs(Kind::Postgres).await;
}

#[tokio::test]
async fn every_benchmark_runs_on_mysql() {
    every_benchmark_runs(Kind::Mysql).await;
}

#[tokio::test]
async fn inboxes_are_listed_in_small_and_large_ledgers() {
    let folder = tempfile::tempdir().unwrap();
    let found = figures(folder.path(), None, "inbox --events 21000 --parts 2 --items 300 --reads 20").await;
    assert_eq!(found.len(), 7, "{found:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays behind");
}

/// The items that one statement makes from the log are the items that the projection makes.
async fn the_raw_inbox_holds_the_same_items(kind: Kind) {
    let db = TestDb::new(kind).await;
    let it = TestLedger::new(&db, 2).await;
    let fields = json!({
        "notificationType": "APP_NOTIFICATION", "body": "two\nlines \"and\" 한", "category": "pass",
        "link": "app://pass/7", "imageUrl": "https://img.example/7.png", "locale": "ko-KR",
        "source": "billing", "data": {"passId": "7", "days": 1, "nested": {"deep": true}},
        "occurredAt": "2026-11-22T09:00:00Z",
    });
    let bare = json!({ "notificationType": "APP_NOTIFICATION", "occurredAt": "2026-11-22T09:00:00Z" });
    let messages = (0..60).map(|at| {
        let fields = if at % 3 == 0 { bare.clone() } else { fields.clone() };
        incoming(&format!("m-{at}"), &format!("user-{}", at % 7), fields)
    });
    for receipt in it.ledger.accept(messages.collect()).await {
        receipt.unwrap();
    }
    let store = it.ledger.store();
    project_all(store, &Inbox, Slot::A, 500).await;
    let baseline = Baseline::new(store);
    for copy in [false, true] {
        baseline.make_tables(&Inbox).await.unwrap();
        let made = if copy { baseline.copy_rows(&Inbox).await } else { baseline.fill_inbox().await };
        assert_eq!(made.unwrap(), 60);
        assert_eq!(differing(store).await, 0, "copy: {copy}");
        baseline.drop_tables(&Inbox).await.unwrap();
    }

    baseline.forget(&Inbox).await.unwrap();
    assert_eq!(store.projection_state(Inbox.name()).await.unwrap(), None);
    store.ensure_projection(&Inbox, it.ledger.now()).await.unwrap();
    project_all(store, &Inbox, Slot::A, 500).await;
    it.close().await;
}

for_each_database! {
    /// A fold of the copied events makes the copied items and counters, row by row.
    async fn a_ledger_that_grew_by_copies_is_whole(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        let fields = json!({ "notificationType": "APP_NOTIFICATION", "category": "pass" });
        let messages = (0..40).map(|at| incoming(&format!("m-{at}"), &format!("user-{}", at % 7), fields.clone()));
        for receipt in it.ledger.accept(messages.collect()).await {
            receipt.unwrap();
        }
        let store = it.ledger.store();
        project_all(store, &Inbox, Slot::A, 500).await;
        let (baseline, heads) = (Baseline::new(store), store.heads().await.unwrap());
        for copy in 1..=2 {
            for head in &heads {
                let (shard, end) = (head.shard, head.position);
                let middle = Position(end.0 / 2);
                for range in [(Position(0), middle), (middle, end)] {
                    baseline.copy_events(copy, shard, end, range).await.unwrap();
                }
                baseline.copy_counters(copy, shard, end).await.unwrap();
            }
        }
        baseline.end_copies(2).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rebuild = Rebuild { store: store.clone(), projection: &Inbox, clock };
        let proof = rebuild.verify(false, &|_, _| {}).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0), "{:?}", proof.differences);
        assert_eq!(proof.rows, 3 * (40 + 7 * 2), "{proof:?}");
        it.close().await;
    }
}

/// Items of either side that the other has not got like that; white space within the data is as good as
/// any other.
async fn differing(store: &Store) -> i64 {
    let column = |name: &str| match (name, store.db().dialect()) {
        ("data", Dialect::MySql) => "json_compact(data)".to_owned(),
        _ => name.to_owned(),
    };
    let columns: Vec<_> = Inbox.tables()[0].columns.iter().map(|it| column(it.name)).collect();
    let columns = columns.join(", ");
    let [live, raw] =
        ["inbox_items", "inbox_items_raw"].map(|table| format!("select {columns} from {table}"));
    let mut differing = 0;
    for (one, other) in [(&live, &raw), (&raw, &live)] {
        let count = format!("(select count(*) from ({one} except {other}) as d)");
        let statement = Query::select().expr(Expr::cust(count)).to_owned();
        let (count,): (i64,) = store.db().first(&statement).await.unwrap().unwrap();
        differing += count;
    }
    differing
}

#[tokio::test]
async fn the_raw_inbox_holds_the_same_items_on_sqlite() {
    the_raw_inbox_holds_the_same_items(Kind::Sqlite).await;
}

#[tokio::test]
async fn the_raw_inbox_holds_the_same_items_on_postgres() {
    the_raw_inbox_holds_the_same_items(Kind::Postgres).await;
}

#[tokio::test]
async fn the_raw_inbox_holds_the_same_items_on_mysql() {
    the_raw_inbox_holds_the_same_items(Kind::Mysql).await;
}

#[tokio::test]
async fn a_scratch_database_comes_and_goes_beside_another() {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let db = TestDb::new(kind).await;
        let scratch = Scratch::make(db.url(), &random_name()).await.unwrap();
        let url = scratch.url().to_owned();
        open_url(&url, 1).await.close().await;
        assert!(matches!(Scratch::make(&url, &random_name()).await, Err(ScratchError::HoldsLedger)));
        scratch.remove().await.unwrap();
        let gone = Scratch::make(&url, &random_name()).await.unwrap_err();
        assert!(matches!(gone, ScratchError::Store(_)), "{kind:?}: {gone}");
    }
}

#[tokio::test]
async fn whoever_interrupts_a_benchmark_finds_nothing_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let child = bench(folder.path(), &["append", "--messages", "10000000"]).spawn().unwrap();
    let exists = async || std::fs::read_dir(folder.path()).unwrap().count() > 0;
    eventually("the scratch folder", Duration::from_secs(30), exists).await;
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: stopped before the end; the scratch database is removed\n"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
