//! Commands that are given too little: what they still do, and what they say.

use std::process::Output;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    database::{Kind, TestDb},
    free_port,
    service::Service,
};

const DATABASE: &str = "[database]\nurl = \"sqlite://{folder}/ledger.db\"\n";
const MESSAGE: &str =
    r#"{"messageId":"m-1","notificationType":"PUSH","recipientId":"user-1","title":"News"}"#;

#[tokio::test]
async fn ingest_plans_for_providers_whose_secrets_it_does_not_have() {
    let config = format!(
        "{DATABASE}[push]\nprovider = \"acme\"\n[providers.acme]\nkind = \"http\"\n\
         url = \"https://push.example/\"\nsecrets = {{ key = \"env:NO_SUCH_VARIABLE_HERE\" }}\n"
    );
    let service = Service::new(&config);
    std::fs::write(service.folder().join("messages.ndjson"), MESSAGE).unwrap();
    let output = service.run(&["ingest", "messages.ndjson"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let audit = service.run(&["audit", "message", "m-1", "--json"]).await;
    assert!(String::from_utf8_lossy(&audit.stdout).contains("acme"), "{audit:?}");
    let check = service.run(&["config", "check"]).await;
    assert_eq!(check.status.code(), Some(1), "who delivers needs the secret");
}

#[tokio::test]
async fn commands_that_read_say_that_there_is_no_ledger_and_make_none() {
    let service = Service::new(DATABASE);
    let file = service.folder().join("ledger.db");
    for arguments in [
        &["audit", "message", "m-1"][..],
        &["audit", "recipient", "user-1"],
        &["projections", "status"],
        &["projections", "verify", "inbox"],
        &["quarantine", "list"],
    ] {
        let output = service.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said(&output).contains("holds no ledger yet"), "{arguments:?}: {}", said(&output));
        assert!(!file.exists(), "{arguments:?} made a file");
    }
    assert!(service.run(&["migrate"]).await.status.success());
    assert!(service.run(&["projections", "status"]).await.status.success());
}

#[tokio::test]
async fn what_cannot_be_used_is_told_once_with_what_to_do() {
    let nowhere = format!("postgres://me@127.0.0.1:{}/ledger?sslmode=disable", free_port());
    let pool = TestDb::new(Kind::Pgbouncer).await;
    for (url, once, remedy) in [
        (
            "sqlite://{folder}/no/such/folder/ledger.db",
            "unable to open database file",
            "folder in database.url",
        ),
        (&nowhere, "pool timed out", "the host and the port in database.url"),
        (pool.url(), "startup parameter", "database.pooler = true"),
    ] {
        let service = Service::new(&format!("[database]\nurl = \"{url}\"\nacquire_timeout_ms = 500\n"));
        let output = service.run(&["migrate"]).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{url}: {said}");
        assert_eq!(said.matches(once).count(), 1, "{url}: {said}");
        assert!(
            said.lines().last().unwrap().starts_with("what to do: ") && said.contains(remedy),
            "{url}: {said}"
        );
        assert!(!said.contains(" at line "), "{said}");
    }
}

#[tokio::test]
async fn a_queue_without_credentials_says_so_and_asks_nobody_for_a_region_that_is_configured() {
    let queue = "[service]\nroles = [\"ingest\"]\n[[ingest.sqs]]\nname = \"q\"\nqueue_url = \"jobs\"\n\
                 endpoint_url = \"http://127.0.0.1:9\"\nregion = \"eu-west-1\"\n";
    let absent = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_EC2_METADATA_DISABLED"];
    let service = Service::new(&format!("{DATABASE}{queue}"))
        .with_variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
        .with_variable("AWS_CONFIG_FILE", "/dev/null")
        .with_variable("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    let service = absent.into_iter().fold(service, Service::without_variable);
    let said = said(&service.run(&["serve"]).await);
    assert!(said.contains("there are no AWS credentials; set AWS_ACCESS_KEY_ID"), "{said}");
    assert!(!said.contains("load region"), "{said}");
}

#[tokio::test]
async fn serve_says_what_it_is_and_that_it_has_stopped_and_nothing_of_the_driver() {
    let db = TestDb::new(Kind::Postgres).await;
    let api = "[api]\nbind = \"127.0.0.1:{port}\"\n[service]\nroles = [\"project\", \"api\"]\n";
    let mut service = Service::new(&format!("[database]\nurl = \"{}\"\n{api}", db.url()));
    // The second start finds what the first has made.
    for _ in 0..2 {
        service.start().await;
        let mut half = TcpStream::connect(service.address()).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
        assert!(service.stop().await.success(), "half a request holds up nobody");
    }
    let output = service.output();
    for (expected, times) in [
        (concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\""), 2),
        ("\"database\":\"postgres\"", 2),
        ("\"roles\":\"project,api\"", 2),
        ("stopped: everything", 2),
        ("already exists", 0),
        ("on-release", 0),
    ] {
        assert_eq!(output.matches(expected).count(), times, "{expected} in\n{output}");
    }
}

/// What a command that failed says.
fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
