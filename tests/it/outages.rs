//! What is there only in part: connections that died, a database that only reads, a start that fails.

use std::time::Duration;

use notification_ledger::event::Event;
use serde_json::json;

use crate::{
    main_job::{config, deliveries_left, log_of, service},
    support::{
        database::{Kind, TestDb},
        eventually, http_client,
        ledger::{body, open_store},
        service::Service,
        sink::{Answer, Sink},
        variable,
    },
};

const DEADLINE: Duration = Duration::from_mins(1);

/// Posts a message; the answer's status.
async fn post(service: &Service, id: &str) -> u16 {
    let request = http_client().post(service.url("/v1/messages")).header("content-type", "application/json");
    request.body(body(id, "user-1", json!({}))).send().await.unwrap().status().as_u16()
}

async fn inbox(service: &Service) -> u16 {
    let request = http_client().get(service.url("/v1/recipients/user-1/inbox"));
    request.send().await.unwrap().status().as_u16()
}

/// A start that fails takes no message and claims no delivery: what it claimed nobody would call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_claims_nothing() {
    let (db, sink) = (TestDb::new(Kind::Sqlite).await, Sink::start().await);
    let whole = config(&db, None, &sink);
    let mut service = service(&format!("{whole}\n[service]\nroles = [\"api\", \"project\"]\n"));
    service.start().await;
    for at in 0..20 {
        assert_eq!(post(&service, &format!("m-{at}")).await, 201);
    }
    assert!(service.stop().await.success());

    let endpoint = variable("LEDGER_TEST_SQS_ENDPOINT");
    let queue = format!(
        "\n[[ingest.sqs]]\nname = \"none\"\nqueue_url = \"{endpoint}/000000000000/there-is-none\"\n\
         endpoint_url = \"{endpoint}\"\nregion = \"us-east-1\"\n"
    );
    service.configure(&format!("{whole}{queue}"));
    let failed = service.start_with(&["serve"]).await.unwrap_err();
    assert!(failed.contains("does not exist"), "{failed}");
    let store = open_store(&db, 1).await;
    let claims = log_of(&store).await;
    let claims = claims.iter().filter(|it| matches!(it.body, Event::PushAttemptStarted(_))).count();
    assert_eq!((claims, sink.count()), (0, 0));

    service.configure(&whole);
    service.start().await;
    eventually("all are delivered", DEADLINE, async || deliveries_left(&store).await == 0).await;
    assert_eq!(sink.count(), 20);
    assert!(service.stop().await.success());
    store.close().await;
}

/// A fail-over leaves a pool full of dead connections: nobody is told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_are_replaced_unnoticed() {
    for (kind, kill) in [
        (
            Kind::Postgres,
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'",
        ),
        (
            Kind::Mysql,
            "begin not atomic for it in (select id from information_schema.processlist \
             where db = '{database}') do kill it.id; end for; end",
        ),
    ] {
        let (db, sink) = (TestDb::new(kind).await, Sink::start().await);
        let mut service = service(&config(&db, None, &sink));
        service.start().await;
        // Many at once, so that the pool is full.
        let requests: Vec<_> = (0..30).map(|_| inbox(&service)).collect();
        assert_eq!(futures_util::future::join_all(requests).await, [200; 30]);
        db.administer(kill).await;
        for at in 0..12 {
            assert_eq!(inbox(&service).await, 200, "{kind:?}: {}", service.output());
            assert_eq!(post(&service, &format!("m-{at}")).await, 201, "{kind:?}: {}", service.output());
        }
        assert!(service.stop().await.success());
    }
}

/// A fail-over may leave a server that only reads: outcomes wait for as long as it takes, nothing is
/// called twice, and the trouble is told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_for_a_while_costs_no_second_call() {
    const DISCONNECT: &str =
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'";
    let (db, sink) = (TestDb::new(Kind::Postgres).await, Sink::start().await);
    sink.answer_with(|_| Answer::status(200).after(Duration::from_secs(1)));
    let mut service = service(&config(&db, None, &sink));
    service.start().await;
    assert_eq!(post(&service, "m-1").await, 201);
    sink.wait_for(1, DEADLINE).await;
    db.administer("alter database {database} set default_transaction_read_only = on").await;
    db.administer(DISCONNECT).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(post(&service, "m-2").await, 503);
    assert_eq!(inbox(&service).await, 200, "reads go on");
    db.administer("alter database {database} set default_transaction_read_only = off").await;
    db.administer(DISCONNECT).await;

    let store = open_store(&db, 4).await;
    eventually("the outcome is recorded", DEADLINE, async || deliveries_left(&store).await == 0).await;
    assert_eq!(sink.count(), 1);
    let output = service.output();
    let told = output.lines().filter(|it| it.contains("outcomes of calls")).count();
    assert_eq!(told, 1, "{output}");
    assert!(output.lines().count() < 60, "{output}");
    assert!(service.stop().await.success());
    store.close().await;
}
