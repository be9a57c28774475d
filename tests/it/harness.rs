//! The test support keeps its own promises: otherwise a green run proves nothing.

use std::time::{Duration, Instant};

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    eventually, http_client,
    postgres::PrivatePostgres,
    queue::{Depth, Queue, QueueSettings},
    service::Service,
    sink::{Answer, Sink},
    variable,
};
use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

for_each_database! {
    /// Each database answers; the one behind PgBouncer as its rules demand, unnamed and in a transaction.
    async fn a_fresh_database_answers(db: TestDb) {
        assert_eq!(answer_of(&db).await, 1);
    }

    async fn two_databases_are_two(db: TestDb) {
        let other = TestDb::new(db.kind()).await;
        assert_ne!(db.url(), other.url());
        assert_eq!(answer_of(&other).await, 1);
    }
}

async fn answer_of(db: &TestDb) -> i32 {
    let select = sqlx::query_scalar("select 1").persistent(false);
    match db.kind() {
        Kind::Sqlite => {
            let options: SqliteConnectOptions = db.url().parse().unwrap();
            let mut connection =
                SqliteConnection::connect_with(&options.create_if_missing(true)).await.unwrap();
            sqlx::query_scalar("select 1").fetch_one(&mut connection).await.unwrap()
        }
        Kind::Postgres | Kind::Pgbouncer => {
            let mut connection = PgConnection::connect(db.url()).await.unwrap();
            let mut transaction = connection.begin().await.unwrap();
            select.fetch_one(&mut *transaction).await.unwrap()
        }
        Kind::Mysql => {
            let mut connection = MySqlConnection::connect(db.url()).await.unwrap();
            sqlx::query_scalar("select 1").fetch_one(&mut connection).await.unwrap()
        }
    }
}

#[tokio::test]
async fn a_database_is_gone_after_its_test() {
    let db = TestDb::new(Kind::Postgres).await;
    let url = db.url().to_owned();
    let left_open = PgConnection::connect(&url).await.unwrap();
    drop(db);
    drop(left_open);
    let error = PgConnection::connect(&url).await.unwrap_err();
    let code = error.as_database_error().and_then(|it| it.code().map(std::borrow::Cow::into_owned));
    assert_eq!(code.as_deref(), Some("3D000"), "{error}"); // no such database
}

#[tokio::test]
async fn the_servers_keep_what_they_committed() {
    let mut connection = PgConnection::connect(&variable("LEDGER_TEST_POSTGRES_URL")).await.unwrap();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        let query = sqlx::query_scalar("select current_setting($1)").bind(name);
        let setting: String = query.fetch_one(&mut connection).await.unwrap();
        assert_eq!(setting, "on", "{name}");
    }
    let mut connection = MySqlConnection::connect(&variable("LEDGER_TEST_MYSQL_URL")).await.unwrap();
    let query = sqlx::query_scalar("select cast(@@innodb_flush_log_at_trx_commit as signed)");
    let setting: i64 = query.fetch_one(&mut connection).await.unwrap();
    assert_eq!(setting, 1);
}

#[tokio::test]
async fn pgbouncer_hands_out_connections_by_transaction() {
    let db = TestDb::new(Kind::Pgbouncer).await;
    assert!(db.is_pooled());
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(PgConnection::connect(db.url()).await.unwrap());
    }
    // More clients than the pool has connections: all are served, as long as none holds a transaction.
    for client in &mut clients {
        let mut transaction = client.begin().await.unwrap();
        let query = sqlx::query_scalar("select 1").persistent(false);
        let answer: i32 = query.fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(answer, 1);
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_private_postgres_keeps_its_data_over_a_stop() {
    let postgres = PrivatePostgres::start().await;
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    sqlx::raw_sql("create table kept as select 7 as value").execute(&mut connection).await.unwrap();
    postgres.stop().await;
    assert!(PgConnection::connect(&postgres.url()).await.is_err());
    postgres.start_again().await;
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    let value: i32 = sqlx::query_scalar("select value from kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(value, 7);
}

#[tokio::test]
async fn the_sink_answers_as_told_and_remembers_every_call() {
    let sink = Sink::start().await;
    sink.answer_next([Answer::status(503).header("retry-after", "2").body("busy")]);
    sink.answer_with(|call| match call.uri.path() {
        "/gone" => Answer::status(410),
        _ => Answer::status(202).after(Duration::from_millis(50)),
    });
    let client = http_client();
    let post = async |path: &str| {
        let request = client.post(sink.url(path)).header("x-key", "k").body(r#"{"a":1}"#);
        request.send().await.unwrap()
    };

    let answer = post("/push").await;
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    assert_eq!(answer.text().await.unwrap(), "busy");
    assert_eq!(post("/gone").await.status(), 410);
    let start = Instant::now();
    assert_eq!(post("/push").await.status(), 202);
    assert!(start.elapsed() >= Duration::from_millis(50));

    let calls = sink.wait_for(3, Duration::from_secs(1)).await;
    assert_eq!(calls.len(), 3);
    assert!(calls.is_sorted_by_key(|call| call.at));
    assert_eq!((calls[0].method.as_str(), calls[0].uri.path()), ("POST", "/push"));
    assert_eq!(calls[0].header("x-key"), Some("k"));
    assert_eq!(calls[0].json()["a"], 1);
}

#[tokio::test]
async fn the_sink_hangs_and_resets() {
    let sink = Sink::start().await;
    sink.answer_next([Answer::hang(), Answer::reset(), Answer::status(200)]);
    let client = http_client();
    let post = || client.post(sink.url("/")).timeout(Duration::from_millis(200)).send();

    assert!(post().await.unwrap_err().is_timeout());
    let error = post().await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(post().await.unwrap().status(), 200);
    assert_eq!(sink.count(), 3);
}

#[tokio::test]
async fn a_message_that_is_never_deleted_ends_in_the_dead_letter_queue() {
    let settings =
        QueueSettings { visibility_timeout_s: 0, max_receive_count: 2, ..QueueSettings::default() };
    let queue = Queue::new(settings).await;
    queue.send(&["one".to_owned()]).await;
    assert_eq!(queue.depth().await, Depth { visible: 1, in_flight: 0 });
    eventually("the message moves to the dead-letter queue", Duration::from_secs(10), async || {
        queue.client.receive_message().queue_url(&queue.url).send().await.unwrap();
        queue.dead_letter_depth().await == Depth { visible: 1, in_flight: 0 }
    })
    .await;
    assert_eq!(queue.depth().await, Depth::EMPTY);
}

#[tokio::test]
async fn a_queue_may_keep_the_order_of_a_group() {
    let queue = Queue::new(QueueSettings { fifo: true, ..QueueSettings::default() }).await;
    for body in ["one", "two"] {
        let request = queue.client.send_message().queue_url(&queue.url).message_body(body);
        request.message_group_id("g").message_deduplication_id(body).send().await.unwrap();
    }
    let request = queue.client.receive_message().queue_url(&queue.url).max_number_of_messages(10);
    let bodies: Vec<_> =
        request.send().await.unwrap().messages.unwrap().into_iter().map(|it| it.body).collect();
    assert_eq!(bodies, [Some("one".to_owned()), Some("two".to_owned())]);
}

#[tokio::test]
async fn boto3_stands_ready_as_an_independent_producer() {
    let script = "import boto3, sys; print(boto3.client('sqs', region_name='us-east-1', \
                  endpoint_url=sys.argv[1], aws_access_key_id='test', aws_secret_access_key='test')\
                  .list_queues()['ResponseMetadata']['HTTPStatusCode'])";
    let mut command = tokio::process::Command::new(variable("LEDGER_TEST_PYTHON"));
    let output = command.args(["-c", script, &variable("LEDGER_TEST_SQS_ENDPOINT")]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "200", "{output:?}");
}

#[tokio::test]
async fn a_service_that_ends_before_it_is_ready_is_not_waited_for() {
    let mut service = Service::new("").with_variable("A_VARIABLE", "set");
    let start = Instant::now();
    let reason = service.start_with(&["--version"]).await.unwrap_err();
    assert!(reason.contains("before it was ready"), "{reason}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
