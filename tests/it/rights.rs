//! The rights that `docs/operating.md` gives to the service are enough to serve, and too few to change
//! the log.

use notification_ledger::{id::RecipientId, projection::ALL};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{
    http_client,
    ledger::{body, open_url},
    postgres::PrivatePostgres,
    service::Service,
};

/// The statements that the document has for PostgreSQL.
fn documented_grants() -> String {
    let document = include_str!("../../docs/operating.md");
    let (_, rights) = document.split_once("### Rights").unwrap();
    let (_, block) = rights.split_once("```sql\n-- PostgreSQL\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

async fn run(url: &str, statements: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await?;
    connection.close().await
}

async fn command(service: &Service, arguments: &[&str]) -> String {
    let output = service.run(arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Registers a device, looks at it and removes it.
async fn register_and_remove(service: &Service) {
    let (client, url) = (http_client(), service.url("/v1/recipients/user-1/devices/d-1"));
    let body = json!({ "platform": "ios", "kind": "apns", "token": "t-1" }).to_string();
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let answer = client.put(&url).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), status, "{}", service.output());
    }
    let text = command(service, &["devices", "list", "user-1"]).await;
    assert!(text.starts_with("d-1  alive  ios  apns production  token:…"), "{text}");
    let answer = client.delete(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{}", service.output());
}

/// Makes a key and revokes it. It opens the API to nobody else from then on.
async fn make_and_revoke(service: &Service) {
    let key = command(service, &["keys", "create", "billing", "--scope", "admin"]).await;
    let answer =
        http_client().get(service.url("/v1/projections")).bearer_auth(key.trim()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", service.output());
    let text = command(service, &["keys", "revoke", &key[8..20]]).await;
    assert!(text.contains("revoked"), "{text}");
}

/// Accepts a message over HTTP and reads it back from the inbox.
async fn send_and_read(service: &Service, id: &str) {
    let client = http_client();
    let request = client.post(service.url("/v1/messages")).body(body(id, "user-1", json!({})));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "{}", service.output());
    let accepted: Value = answer.json().await.unwrap();
    let cursor = accepted["cursor"].as_str().unwrap();
    let inbox = client.get(service.url(&format!("/v1/recipients/user-1/inbox?after={cursor}")));
    let inbox = inbox.send().await.unwrap();
    assert_eq!(inbox.status(), StatusCode::OK, "{}", service.output());
    let inbox = inbox.text().await.unwrap();
    assert!(inbox.contains(&format!("\"{id}\"")), "{cursor}: {inbox}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough_in_the_documented_order() {
    let server = PrivatePostgres::start().await;
    run(&server.url(), "create role ledger_owner login createrole").await.unwrap();
    run(&server.url(), "create database ledger owner ledger_owner").await.unwrap();
    let (owner, app) = (server.url_as("ledger_owner", "ledger"), server.url_as("ledger_app", "ledger"));
    let config = |direct: &str| {
        format!("[database]\nurl = \"{app}\"\n{direct}\n[api]\nbind = \"127.0.0.1:{{port}}\"\n")
    };
    let with_owner = config(&format!("direct_url = \"{owner}\""));

    let mut service = Service::new(&with_owner);
    let text = command(&service, &["migrate"]).await;
    assert!(text.contains("is up to date"), "before the service's role exists: {text}");
    run(&owner, "create role ledger_early login").await.unwrap();
    service.configure(&with_owner.replace("ledger_app@", "ledger_early@"));
    let early = service.run(&["serve"]).await;
    let text = [early.stdout, early.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(!early.status.success() && text.contains("permission denied for table ledger"), "{text}");
    run(&owner, &documented_grants()).await.unwrap();
    service.configure(&with_owner);
    command(&service, &["migrate"]).await;
    for (round, config) in [with_owner, config("")].iter().enumerate() {
        service.configure(config);
        service.start().await;
        send_and_read(&service, &format!("m-{round}")).await;
        register_and_remove(&service).await;
        if round == 1 {
            make_and_revoke(&service).await;
        }
        assert!(service.stop().await.success(), "{}", service.output());
        for projection in ALL.iter().map(|it| it.name()) {
            let text = command(&service, &["projections", "verify", projection]).await;
            assert!(text.contains(" 0 differ"), "{text}");
            let text = command(&service, &["projections", "rebuild", projection]).await;
            assert!(text.contains("is live"), "{text}");
        }
    }

    let store = open_url(&app, 4).await;
    store.check_writable().await.unwrap();
    assert_eq!(store.controls().await.unwrap(), []);
    assert!(store.living_devices(&[&RecipientId::new("user-1").unwrap()]).await.unwrap().is_empty());
    store.close().await;

    for (crime, refusal) in [
        ("update notification_events set payload = '{}'", "permission denied"),
        ("delete from notification_events", "permission denied"),
        ("truncate notification_events", "permission denied"),
        (
            "insert into notification_events select * from notification_events on conflict (shard, position) do update set payload = '{}'",
            "permission denied",
        ),
        ("alter table notification_events disable trigger all", "must be owner"),
        ("drop table notification_events", "must be owner"),
        ("update provider_controls set actor = 'other'", "permission denied"),
        ("delete from provider_controls", "permission denied"),
        ("delete from api_keys", "permission denied"),
        ("update ledger set ledger_id = 'other'", "permission denied"),
    ] {
        let error = run(&app, crime).await.unwrap_err().to_string();
        assert!(error.contains(refusal), "{crime}: {error}");
    }
}
