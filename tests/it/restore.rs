//! Restore drills: what comes back from a backup goes on where it was, and a projection that is lost heals.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use notification_ledger::{
    clock::SystemClock,
    event::Event,
    id::{Position, RecipientId},
    projection::{self, ALL},
    store::{Mode, Slot, Store},
    worker::rebuild::Rebuild,
};
use serde_json::{Value, json};

use crate::support::{
    database::for_each_database,
    eventually, http_client,
    ledger::{TestLedger, body, incoming, open_url, project_all},
    postgres::PrivatePostgres,
    script::python,
    service::Service,
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const PATIENCE: Duration = Duration::from_mins(1);
const SHARDS: u16 = 2;

fn rebuild(store: &Store, name: &str) -> Rebuild {
    let projection = projection::by_name(name).unwrap();
    Rebuild { store: store.clone(), projection, clock: Arc::new(SystemClock) }
}

fn serving(url: &str) -> Service {
    Service::new(&format!(
        "[database]\nurl = \"{url}\"\n[log]\nshards = {SHARDS}\n[api]\nbind = \"127.0.0.1:{{port}}\"\n"
    ))
}

fn message(at: usize) -> Value {
    serde_json::from_slice(&body(&format!("m-{at}"), &format!("user-{}", at % 7), json!({}))).unwrap()
}

/// Posts these messages in one request; how many of them are new.
async fn post(service: &Service, numbers: std::ops::Range<usize>) -> usize {
    let messages: Vec<_> = numbers.map(message).collect();
    let request = http_client().post(service.url("/v1/messages")).header("content-type", "application/json");
    let answer = request.body(json!({ "messages": messages }).to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", service.output());
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let count = |name: &str| usize::try_from(answer[name].as_u64().unwrap()).unwrap();
    assert_eq!(count("appended") + count("redelivered"), messages.len(), "{answer}");
    count("appended")
}

/// Every place of every shard has its event, each message is received once, every projection is folded to the end
/// and equals a fold of the log; answers with how many messages there are.
async fn whole(store: &Store) -> usize {
    let mut received = Vec::new();
    for head in store.heads().await.unwrap() {
        let events = store.events_after(head.shard, Position(0), 1_000_000).await.unwrap();
        let places: Vec<_> = events.iter().map(|it| it.position.0).collect();
        assert_eq!(places, (1..=head.position.0).collect::<Vec<_>>(), "no place is empty or taken twice");
        let first = events.iter().filter(|it| matches!(it.body, Event::MessageReceived(_)));
        received.extend(first.map(|it| it.message_id.to_string()));
    }
    let once: BTreeSet<_> = received.iter().collect();
    assert_eq!(once.len(), received.len(), "each is received once");
    eventually("all is folded", PATIENCE, async || {
        let places = store.checkpoints().await.unwrap();
        places.iter().all(|it| it.position == it.head)
    })
    .await;
    for projection in ALL {
        let proof = rebuild(store, projection.name()).verify(false, QUIET).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0), "{}: {proof:?}", projection.name());
        assert!(proof.rows > 0);
    }
    received.len()
}

/// What was backed up while it ran is restored elsewhere, goes on, and takes again whatever came after.
async fn goes_on(url: &str, sent: usize) {
    let mut service = serving(url);
    service.start().await;
    let store = open_url(url, SHARDS).await;
    let restored = whole(&store).await;
    assert!((1..=sent).contains(&restored), "{restored} of {sent}");
    let mut again = 0;
    for from in (0..sent).step_by(100) {
        again += post(&service, from..sent.min(from + 100)).await;
    }
    assert_eq!(again, sent - restored, "what the backup lacks is new, and nothing else");
    assert_eq!(post(&service, sent..sent + 50).await, 50);
    assert_eq!(whole(&store).await, sent + 50);
    store.close().await;
    assert!(service.stop().await.success(), "{}", service.output());
}

/// Sends until `backup` is done, and some more; how many in all.
async fn send_meanwhile<T>(service: &Service, backup: impl Future<Output = T>) -> (T, usize) {
    let mut sent = 0;
    for _ in 0..5 {
        assert_eq!(post(service, sent..sent + 100).await, 100);
        sent += 100;
    }
    let mut backup = std::pin::pin!(backup);
    let made = loop {
        let next = post(service, sent..sent + 100);
        tokio::select! {
            biased;
            made = &mut backup => break made,
            count = next => {
                assert_eq!(count, 100);
                sent += 100;
            }
        }
    };
    // The request that was cut off may have been done.
    post(service, sent..sent + 100).await;
    (made, sent + 100)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgres_is_restored_into_a_fresh_cluster() {
    let (one, other, third) =
        tokio::join!(PrivatePostgres::start(), PrivatePostgres::start(), PrivatePostgres::start());
    let mut service = serving(&one.url());
    service.start().await;
    let (dump, sent) = send_meanwhile(&service, one.dump(&[])).await;
    other.restore(&dump).await;
    // Without what is only derived, as the document says.
    let mut without: Vec<String> =
        ["projections", "projection_checkpoints"].map(|it| format!("--exclude-table-data={it}")).to_vec();
    for table in ALL.iter().flat_map(|it| it.tables()) {
        without.extend(["", "_*"].map(|rest| format!("--exclude-table={}{rest}", table.name)));
    }
    let dump = one.dump(&without.iter().map(String::as_str).collect::<Vec<_>>()).await;
    third.restore(&dump).await;
    service.kill().await;
    drop(one);
    goes_on(&other.url(), sent).await;
    goes_on(&third.url(), sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_sqlite_file_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let url = |name: &str| format!("sqlite://{}", path(name));
    let mut service = serving(&url("one.db"));
    service.start().await;
    let program =
        "import sqlite3, sys\nsource, copy = map(sqlite3.connect, sys.argv[1:])\nsource.backup(copy)";
    let (one, two) = (path("one.db"), path("two.db"));
    let (_, sent) = send_meanwhile(&service, python(program, &[&one, &two])).await;
    assert!(service.stop().await.success());
    let files =
        std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    for file in files.filter(|it| it.starts_with("one.db")).collect::<Vec<_>>() {
        std::fs::copy(path(&file), path(&file.replace("one", "three"))).unwrap();
    }
    goes_on(&url("two.db"), sent).await;
    goes_on(&url("three.db"), sent).await;
}

async fn script(store: &Store, statement: String) {
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    tx.script(statement).await.unwrap();
    tx.commit().await.unwrap();
}

/// Drops the live tables of a projection, and the views on them.
async fn lose(store: &Store, name: &str) {
    let projection = projection::by_name(name).unwrap();
    let live = store.projection_state(name).await.unwrap().unwrap().live;
    for table in projection.tables() {
        script(store, format!("drop view {}", table.name)).await;
        script(store, format!("drop table {}_{live}", table.name)).await;
    }
}

for_each_database! {
    /// A projection whose tables were dropped is folded anew by a rebuild, without being asked to accept anything,
    /// and a service that starts does so by itself.
    async fn a_lost_projection_heals(db: TestDb) {
        let it = TestLedger::new(&db, SHARDS).await;
        let messages = (0..60).map(|at| incoming(&format!("m-{at}"), &format!("user-{}", at % 7), json!({})));
        for receipt in it.ledger.accept(messages.collect()).await {
            receipt.unwrap();
        }
        let store = it.ledger.store();
        for projection in ALL {
            project_all(store, *projection, Slot::A, 100).await;
        }
        let user = RecipientId::new("user-1").unwrap();
        let before = store.inbox_counts(&user).await.unwrap();
        for projection in ALL {
            lose(store, projection.name()).await;
            let rebuilt = rebuild(store, projection.name()).rebuild(false, false, QUIET).await.unwrap();
            assert!(rebuilt.flipped && rebuilt.comparison.is_none() && rebuilt.behind.is_empty(), "{rebuilt:?}");
            let proof = rebuild(store, projection.name()).verify(false, QUIET).await.unwrap();
            assert_eq!((proof.differing, proof.behind_events(), proof.rows > 0), (0, 0, true));
        }
        assert_eq!(store.inbox_counts(&user).await.unwrap(), before);
        for projection in ALL {
            lose(store, projection.name()).await;
        }
        it.close().await;

        let mut service = Service::new(&format!(
            "[database]\nurl = {:?}\npooler = {}\ndirect_url = {:?}\n[api]\nbind = \"127.0.0.1:{{port}}\"\n",
            db.url(),
            db.is_pooled(),
            db.direct_url().unwrap_or_default(),
        ));
        service.start().await;
        let client = http_client();
        eventually("the inbox is there again", PATIENCE, async || {
            let answer = client.get(service.url("/v1/recipients/user-1/inbox")).send().await.unwrap();
            let is_well = answer.status().is_success();
            is_well && answer.text().await.unwrap().contains("\"total\":9")
        })
        .await;
        assert!(service.stop().await.success(), "{}", service.output());
    }
}
