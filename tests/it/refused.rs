//! Wrong credentials: the provider is paused at once, nothing is burnt, one alert is raised, and a command
//! sets it going again.

use std::time::Duration;

use notification_ledger::event::Event;
use serde_json::json;

use crate::{
    main_job::{deliveries_left, log_of},
    support::{
        database::{Kind, TestDb},
        eventually, http_client,
        ledger::open_store,
        service::Service,
        sink::{Answer, Sink},
    },
};

/// Pushes that wait for the provider.
const MESSAGES: usize = 200;
/// How long until a service has noticed.
const SOON: Duration = Duration::from_secs(20);

/// A throw-away P-256 key as Apple gives them.
fn apple_key() -> Vec<u8> {
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

/// A service account of Google's with a throw-away key, and its token server.
fn service_account(token_uri: &str) -> Vec<u8> {
    let made = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap();
    let account = json!({
        "type": "service_account", "project_id": "wrong-project", "private_key_id": "kid", "private_key": key,
        "client_email": "push@wrong-project.iam.example", "token_uri": token_uri,
    });
    account.to_string().into_bytes()
}

fn config(db: &TestDb, provider: &str) -> String {
    format!(
        "[database]\nurl = \"{}\"\n\n[api]\nbind = \"127.0.0.1:{{port}}\"\n\n[push]\nprovider = \"main\"\n\n\
         [providers.main]\n{provider}\nhttp2 = false\nconcurrency = 8\n",
        db.url(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_apns_key_pauses_the_provider_until_a_command_resumes_it() {
    let sink = Sink::start().await;
    let service = Service::new("");
    let key = service.file("apple.p8", &apple_key());
    let provider = format!(
        "kind = \"apns\"\nbase_url = \"{}\"\ntopic = \"com.example.app\"\nkey_id = \"WRONGKEY01\"\n\
         team_id = \"TEAM000001\"\nkey = \"file:{key}\"",
        sink.url(""),
    );
    let refusal = Answer::status(403).body(r#"{"reason":"InvalidProviderToken"}"#);
    let well = Answer::status(200).header("apns-id", "00000000-0000-0000-0000-000000000001").body("");
    paused_and_resumed(service, &sink, &provider, refusal, well).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_firebase_project_pauses_the_provider_until_a_command_resumes_it() {
    let (sink, tokens) = (Sink::start().await, Sink::start().await);
    tokens.answer_with(|_| {
        Answer::status(200).body(r#"{"access_token":"ya29.t","expires_in":3599,"token_type":"Bearer"}"#)
    });
    let service = Service::new("");
    let account = service.file("account.json", &service_account(&tokens.url("/token")));
    let provider =
        format!("kind = \"fcm\"\nbase_url = \"{}\"\ncredentials = \"file:{account}\"", sink.url(""));
    let refusal = Answer::status(403).body(
        r#"{"error":{"code":403,"message":"Permission denied on resource project wrong-project.","status":"PERMISSION_DENIED"}}"#,
    );
    let well = Answer::status(200).body(r#"{"name":"projects/wrong-project/messages/1"}"#);
    paused_and_resumed(service, &sink, &provider, refusal, well).await;
}

async fn paused_and_resumed(
    mut service: Service,
    sink: &Sink,
    provider: &str,
    refusal: Answer,
    well: Answer,
) {
    let db = TestDb::new(Kind::Sqlite).await;
    sink.answer_with(move |_| refusal.clone());
    service.configure(&config(&db, provider));
    service.start().await;
    let client = http_client();
    let message = |at: usize| {
        json!({
            "messageId": format!("m-{at}"), "notificationType": "PUSH", "title": "Your pass expires",
            "recipientId": "user-1", "push": {"targets": [{"token": format!("{at:064x}")}]},
        })
    };
    let messages: Vec<_> = (0..MESSAGES).map(message).collect();
    let answer = client.post(service.url("/v1/messages")).json(&json!({ "messages": messages }));
    assert!(answer.send().await.unwrap().status().is_success());

    let metric = async |name: &str| {
        let text = client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let lines = text.lines().filter(|it| it.starts_with(name) && it.contains("provider=\"main\""));
        lines.filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let paused = "notification_ledger_provider_paused_total{";
    eventually("the provider is paused", SOON, async || metric(paused).await > 0.0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = sink.count();
    assert!(refused <= 16, "{refused} calls were made for nothing");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.count(), refused, "not called while it is paused");
    assert!((metric(paused).await - 1.0).abs() < f64::EPSILON, "one alert");
    let told =
        service.output().lines().filter(|it| it.contains("the provider is paused: nothing is sent")).count();
    assert_eq!(told, 1, "{}", service.output());

    sink.answer_with(move |_| well.clone());
    let resumed =
        service.run(&["providers", "resume", "main", "--by", "olga", "--reason", "the right key"]).await;
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let store = open_store(&db, 1).await;
    // Those that were refused come again when their wait is over; all others at once.
    eventually("the others are accepted", SOON, async || sink.count() >= MESSAGES).await;
    let log = log_of(&store).await;
    let ended = log.iter().filter(|it| matches!(it.body, Event::PushExhausted(_) | Event::PushSuppressed(_)));
    assert_eq!(ended.count(), 0, "nothing was given up");
    let others_ended = async || deliveries_left(&store).await <= refused;
    eventually("and recorded so", SOON, others_ended).await;
    let history = store.control_history("main", 9).await.unwrap();
    let told: Vec<_> = history.iter().map(|it| (it.is_pause, it.cause.as_str())).collect();
    assert_eq!(told, [(false, "operator"), (true, "auth_config")]);
    assert_eq!((history[0].actor.as_str(), history[0].reason.as_str()), ("olga", "the right key"));
    assert!(service.stop().await.success(), "{}", service.output());
    store.close().await;
}
