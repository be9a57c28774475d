//! What counterparts say when they do not take a push, and what a provider makes of it. A call at a time,
//! straight to the provider.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream};
use notification_ledger::{
    clock::{SystemClock, Timestamp},
    event::FailureClass,
    id::DeliveryId,
    message::{
        Target,
        parse::{Outside, parse},
        subscription::Subscription,
    },
    provider::{self, Failure, Outcome, Provider, Push, RetryScope, Said},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    counterparts::{Counterpart, Keys, fcm_schema},
    ledger::body,
    wiremock::Wiremock,
};

/// A provider of these settings, where `{secret}` stands for the file of the secret.
pub(super) fn provider(kind: &str, settings: &Value, secret: &str) -> (Arc<dyn Provider>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, secret).unwrap();
    let settings = settings.to_string().replace("{secret}", &format!("file:{}", file.display()));
    let settings = serde_json::from_str(&settings).unwrap();
    (provider::build("vendor", kind, settings, Arc::new(SystemClock)).unwrap().provider, folder)
}

pub(super) fn push(id: &str, target: Target) -> Push {
    let message = parse(&body(id, "user-1", json!({})), Outside::default()).unwrap().message;
    let delivery_id = DeliveryId::new(&message.message_id, &target.canonical());
    let message = Arc::new(message);
    Push { delivery_id, attempt: 1, provider_key: delivery_id.to_string(), target, message }
}

pub(super) fn token(begin: &str) -> Target {
    Target::Token(format!("{begin:0<64}"))
}

/// What is asserted of a failure: class, code, scope, and the wait that was asked for, in seconds.
pub(super) fn said(outcome: &Outcome) -> (FailureClass, &str, RetryScope, Option<u64>) {
    let failure = failure(outcome);
    (failure.class, &failure.code, failure.scope, failure.retry_after.map(|it| it.as_secs()))
}

fn failure(outcome: &Outcome) -> &Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

pub(super) fn apns_settings(base_url: &str) -> Value {
    json!({"topic": "com.example.app", "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "key": "{secret}",
        "base_url": base_url})
}

#[tokio::test]
async fn apns_refuses() {
    let double = Wiremock::playing("apns.json", &[]).await;
    let settings = apns_settings(&double.url(""));
    let (apns, _folder) = provider("apns", &settings, &Keys::p256().private_pem);
    let outcome = apns.push(&push("m", token("dead"))).await;
    assert_eq!(failure(&outcome).as_of, Some(Timestamp::from_micros(1_700_000_000_000_000)));
    for (begin, expected) in [
        ("dead", (FailureClass::InvalidTarget, "Unregistered", RetryScope::Message, None)),
        ("bad0", (FailureClass::InvalidTarget, "BadDeviceToken", RetryScope::Message, None)),
        ("429a", (FailureClass::Retry, "TooManyRequests", RetryScope::Device, Some(120))),
        ("fa17", (FailureClass::Unknown, "reset", RetryScope::Message, None)),
    ] {
        let outcome = apns.push(&push("m", token(begin))).await;
        assert_eq!(said(&outcome), expected, "{begin}: {outcome:?}");
    }
    let outcome = apns.push(&push("m", token("503a"))).await;
    let (class, code, ..) = said(&outcome);
    assert_eq!((class, code), (FailureClass::Retry, "ServiceUnavailable"));
}

const EMAIL: &str = "ledger@demo.example";

fn account(keys: &Keys, tokens: &Counterpart) -> String {
    json!({"type": "service_account", "project_id": "demo", "private_key_id": "key-1",
        "private_key": keys.private_pem, "client_email": EMAIL, "token_uri": tokens.url("/token")})
    .to_string()
}

#[tokio::test]
async fn fcm_refuses() {
    let keys = Keys::rsa();
    let tokens = Counterpart::google_token(&keys.public_pem, "key-1", EMAIL).await;
    let double = Wiremock::playing("fcm.json", &[("schema", fcm_schema())]).await;
    let settings = json!({"credentials": "{secret}", "base_url": double.url("")});
    let (fcm, _folder) = provider("fcm", &settings, &account(&keys, &tokens));

    // Cold: nobody has an access token, everybody needs one.
    let pushes: Vec<_> = (0..100).map(|it| push(&format!("m-{it}"), token("0a"))).collect();
    let outcomes: Vec<_> = stream::iter(&pushes).map(|it| fcm.push(it)).buffer_unordered(100).collect().await;
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Accepted { .. })), "{outcomes:?}");
    assert_eq!(tokens.remembered().await, json!([null]), "one exchange for all");

    for (begin, expected) in [
        ("dead", (FailureClass::InvalidTarget, "UNREGISTERED", RetryScope::Message, None)),
        ("429", (FailureClass::Retry, "QUOTA_EXCEEDED", RetryScope::Provider, Some(120))),
        ("503", (FailureClass::Retry, "http_503", RetryScope::Message, None)),
        ("fa17", (FailureClass::Unknown, "reset", RetryScope::Message, None)),
    ] {
        let outcome = fcm.push(&push("m", token(begin))).await;
        assert_eq!(said(&outcome), expected, "{begin}: {outcome:?}");
    }

    let (fcm, _folder) = provider("fcm", &settings, &account(&Keys::rsa(), &tokens));
    let outcome = fcm.push(&push("m", token("0a"))).await;
    let (class, code, ..) = said(&outcome);
    assert_eq!((class, code), (FailureClass::AuthConfig, "invalid_grant"), "a key that Google does not know");
}

#[tokio::test]
async fn a_webhook_with_another_secret_is_not_believed() {
    let (secret, other) =
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    for receiver in [Counterpart::python_webhooks(secret).await, Counterpart::node_webhooks(secret).await] {
        let settings = json!({"url": receiver.url("/"), "secrets": ["{secret}"]});
        let (hook, _folder) = provider("webhook", &settings, other);
        assert_eq!(failure(&hook.push(&push("m", token("0a"))).await).code, "http_401");
        // While a secret is changed, both sign.
        let settings = json!({"url": receiver.url("/"), "secrets": ["{secret}", "{secret}"]});
        let (hook, _folder) = provider("webhook", &settings, secret);
        assert!(matches!(hook.push(&push("m", token("0a"))).await, Outcome::Accepted { .. }));
        let remembered = receiver.remembered().await;
        let count = |name: &str| remembered[name].as_array().unwrap().len();
        assert_eq!((count("verified"), count("refused")), (1, 1));
    }
}

/// An Expo push token of this name.
fn expo_token(name: &str) -> Target {
    Target::Token(format!("ExponentPushToken[{name}]"))
}

#[tokio::test]
async fn expo_takes_many_at_once_and_tells_later() {
    let double = Wiremock::playing("expo.json", &[]).await;
    let base_url = double.url("/--/api/v2");
    let settings = json!({"base_url": base_url, "access_token": "{secret}"});
    let (expo, _folder) = provider("expo", &settings, "expo-secret");
    let (batch, receipts) = (expo.batch().unwrap(), expo.receipts().unwrap());
    let names = (0..98).map(|at| format!("t-{at}")).chain(["dead-1".to_owned(), "late-1".to_owned()]);
    let pushes: Vec<_> = names.map(|it| push(&format!("m-{it}"), expo_token(&it))).collect();
    assert_eq!(batch.size_max(), pushes.len());
    let outcomes = batch.push_all(&pushes).await;
    let ticket = |it: &Outcome| match it {
        Outcome::Pending { ticket, .. } => Some(ticket.clone()),
        _ => None,
    };
    let tickets: Vec<_> = outcomes.iter().filter_map(ticket).collect();
    assert_eq!((tickets.len(), tickets[97].as_str(), tickets[98].as_str()), (99, "t-97", "late-1"));
    let gone = (FailureClass::InvalidTarget, "DeviceNotRegistered", RetryScope::Message, None);
    assert_eq!(said(&outcomes[98]), gone);
    let seen = double.seen("/--/api/v2/push/send").await;
    assert_eq!((seen.len(), seen[0].json().as_array().unwrap().len()), (1, 100));
    assert_eq!(seen[0].header("authorization"), Some("Bearer expo-secret"));

    let mut answers = Vec::new();
    for tickets in tickets.chunks(receipts.size_max()) {
        answers.extend(receipts.ask(tickets).await.unwrap());
    }
    let accepted = |it: &&Said| matches!(it, Said::Finally(Outcome::Accepted { .. }));
    assert_eq!(answers.iter().filter(accepted).count(), 98);
    let Said::Finally(outcome) = &answers[98] else { panic!("{:?}", answers[98]) };
    assert_eq!(said(outcome), gone);

    for (name, expected) in [
        ("429", (FailureClass::Retry, "TOO_MANY_REQUESTS", RetryScope::Provider, Some(120))),
        ("503", (FailureClass::Retry, "http_503", RetryScope::Message, None)),
        ("fault", (FailureClass::Unknown, "reset", RetryScope::Message, None)),
    ] {
        let outcomes = batch.push_all(&[push("m-1", expo_token("t")), push("m-2", expo_token(name))]).await;
        assert_eq!(outcomes.iter().map(said).collect::<Vec<_>>(), [expected; 2], "{name}: {outcomes:?}");
    }
}

#[tokio::test]
async fn onesignal_refuses() {
    let double = Wiremock::playing("onesignal.json", &[]).await;
    let settings = json!({"app_id": APP_ID, "api_key": "{secret}", "base_url": double.url("")});
    let (onesignal, _folder) = provider("onesignal", &settings, "onesignal-secret");
    for (begin, class, scope, wait) in [
        ("dead-1", FailureClass::InvalidTarget, RetryScope::Message, None),
        ("429-1", FailureClass::Retry, RetryScope::Provider, Some(120)),
        ("503-1", FailureClass::Retry, RetryScope::Message, None),
        ("fa17-1", FailureClass::Unknown, RetryScope::Message, None),
    ] {
        let to = push("m", Target::Alias(begin.to_owned()));
        let (first, second) = (onesignal.push(&to).await, onesignal.push(&Push { attempt: 2, ..to }).await);
        assert_eq!(said(&first), said(&second));
        let (said_class, _, said_scope, said_wait) = said(&first);
        assert_eq!((said_class, said_scope, said_wait), (class, scope, wait), "{begin}: {first:?}");
    }
    let mut keys: HashMap<String, HashSet<String>> = HashMap::new();
    for call in double.seen("/notifications").await {
        let body = call.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let person = text(&body["include_aliases"]["external_id"][0]);
        keys.entry(person).or_default().insert(text(&body["idempotency_key"]));
    }
    assert_eq!(keys.len(), 4);
    assert!(keys.values().all(|it| it.len() == 1), "the same on every attempt: {keys:?}");
}

/// The app of the double.
pub(super) const APP_ID: &str = "6f1c1f0e-3c0a-4c4e-9d2a-0c9a5d0e7a11";

#[tokio::test]
async fn a_browser_takes_its_permission_back() {
    let (double, keys, others) = (Counterpart::web_push().await, Keys::p256(), Keys::p256());
    let origin = double.url("").replace("127.0.0.1", "localhost");
    let settings =
        json!({"vapid_key": "{secret}", "subject": "mailto:ops@example.com", "allowed_hosts": [origin]});
    let (web, _folder) = provider("webpush", &settings, &keys.private_pem);
    let ours = double.subscribe(&keys.point_base64url()).await;
    let to = |browser: &Value| push("m", subscription(browser));
    let outcome = web.push(&to(&ours)).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    let hash = ours["clientHash"].as_str().unwrap();
    let told: Value = serde_json::from_str(&double.notifications(hash).await[0]).unwrap();
    assert_eq!(told["title"], "title of m");

    // The double refuses the key of somebody else, with words of its own.
    let theirs = double.subscribe(&others.point_base64url()).await;
    assert_eq!(said(&web.push(&to(&theirs)).await).1, "http_400");
    assert_eq!(double.notifications(theirs["clientHash"].as_str().unwrap()).await, [""; 0]);

    double.expire(hash).await;
    let (class, ..) = said(&web.push(&to(&ours)).await);
    assert_eq!(class, FailureClass::InvalidTarget);
}

/// What a browser hands out of a subscription.
pub(super) fn subscription(browser: &Value) -> Target {
    Target::Subscription(Subscription::parse(browser).unwrap().canonical())
}
