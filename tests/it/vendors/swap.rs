//! The same thousand notifications through every kind of provider: nothing but the configuration differs.
//! Where the provider does not know people by the company's own ids, they have registered their devices.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use notification_ledger::{
    clock::{Clock, SystemClock},
    device::{PRODUCTION, Registration},
    event::{Event, Recorded},
    id::{DeliveryId, DeviceId, Position, RecipientId, Shard},
    message::Target,
    store::Store,
};
use serde_json::{Map, Value, json};

use super::{
    cases::{APP_ID, subscription},
    counterparts::es256_claims,
};
use crate::support::{
    counterparts::{Counterpart, Keys, fcm_schema},
    database::{Kind, TestDb},
    http_client,
    ledger::open_store,
    nginx::Nginx,
    service::Service,
    sink::{Answer, Sink},
    wiremock::{Seen, Wiremock},
};

/// How many notifications there are.
const NOTIFICATIONS: usize = 1_000;
/// How long one kind may take for all of them.
const DEADLINE: Duration = Duration::from_mins(2);

/// A kind of provider, configured to call its counterpart.
struct Vendor {
    /// `[providers.vendor]`, where `{NAME}` stands for the file of this secret.
    settings: Value,
    /// The secrets that the settings refer to, by name.
    secrets: Vec<(&'static str, String)>,
    /// What the person of each number has registered; nothing where the provider knows them by their id.
    devices: Box<dyn Fn(usize) -> Option<Target>>,
    /// Whether attempts may fail before they succeed.
    fails: bool,
}

/// What became of the notifications.
struct Sent {
    log: Vec<Recorded>,
    /// The provider's ids or tickets, by delivery.
    ids: BTreeMap<DeliveryId, Option<String>>,
}

impl Vendor {
    fn new(settings: Value) -> Self {
        Self { settings, secrets: Vec::new(), devices: Box::new(|_| None), fails: false }
    }

    fn secret(mut self, name: &'static str, secret: &str) -> Self {
        self.secrets.push((name, secret.to_owned()));
        self
    }

    fn to(self, device: impl Fn(usize) -> Target + 'static) -> Self {
        Self { devices: Box::new(move |at| Some(device(at))), ..self }
    }

    /// Posts all notifications to a service of this configuration, and waits until the vendor has them.
    async fn send(&self) -> Sent {
        let begun = Instant::now();
        let db = TestDb::new(Kind::Sqlite).await;
        let mut service = Service::new("");
        let mut settings = self.settings.to_string();
        for (name, secret) in &self.secrets {
            let file = service.file(name, secret.as_bytes());
            settings = settings.replace(&format!("{{{name}}}"), &format!("file:{file}"));
        }
        let settings: Value = serde_json::from_str(&settings).unwrap();
        let config = json!({
            "database": {"url": db.url()}, "api": {"bind": "127.0.0.1:{port}"}, "log": {"shards": 1},
            "push": {"provider": "vendor"}, "providers": {"vendor": settings},
        });
        service.configure(&toml::to_string(&config).unwrap());
        let store = open_store(&db, 1).await;
        self.register(&store).await;
        service.start().await;
        let all: Vec<_> = (0..NOTIFICATIONS).map(notification).collect();
        for some in all.chunks(250) {
            let answer = http_client().post(service.url("/v1/messages")).json(&some).send().await.unwrap();
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert!(matches!(status, 200..=299), "{status}: {text}");
        }
        let (mut log, mut ids, mut position) = (Vec::new(), BTreeMap::new(), Position(0));
        while ids.len() < NOTIFICATIONS {
            assert!(begun.elapsed() < DEADLINE, "{:?}\n{}", kinds(&log), service.output());
            tokio::time::sleep(Duration::from_millis(100)).await;
            let events = store.events_after(Shard(0), position, 100_000).await.unwrap();
            position = events.last().map_or(position, |it| it.position);
            let failed = events.iter().find(|it| matches!(it.body, Event::PushAttemptFailed(_)));
            assert!(self.fails || failed.is_none(), "{failed:?}\n{}", service.output());
            ids.extend(taken(&events));
            log.extend(events);
        }
        assert!(service.stop().await.success(), "{}", service.output());
        store.close().await;
        eprintln!("{}: {:?}", self.settings["kind"], begun.elapsed());
        Sent { log, ids }
    }
}

impl Vendor {
    async fn register(&self, store: &Store) {
        let kind = self.settings["kind"].as_str().unwrap();
        for at in 0..NOTIFICATIONS {
            let Some(target) = (self.devices)(at) else { return };
            let device = Registration {
                device_id: DeviceId::new("phone").unwrap(),
                app: String::new(),
                platform: "any".to_owned(),
                kind: kind.to_owned(),
                environment: PRODUCTION.to_owned(),
                target,
                locale: None,
                time_zone: None,
                last_seen_at: None,
            };
            let person = RecipientId::new(&person(at)).unwrap();
            store.put_device(&person, &device, SystemClock.now()).await.unwrap();
        }
    }
}

impl Sent {
    /// Every delivery was tried once, and has an id of the provider's that no other has.
    fn assert_each_once(&self) {
        assert_eq!(self.attempts(), NOTIFICATIONS);
        let ids: HashSet<_> = self.ids.values().flatten().collect();
        assert_eq!((ids.len(), self.ids.len()), (NOTIFICATIONS, NOTIFICATIONS));
    }

    fn attempts(&self) -> usize {
        self.log.iter().filter(|it| matches!(it.body, Event::PushAttemptStarted(_))).count()
    }

    /// The codes of the attempts that failed.
    fn failures(&self) -> Vec<String> {
        let code = |it: &Recorded| match &it.body {
            Event::PushAttemptFailed(it) => Some(it.code.clone()),
            _ => None,
        };
        self.log.iter().filter_map(code).collect()
    }

    /// What the provider calls them.
    fn ids(&self) -> BTreeSet<String> {
        self.ids.values().flatten().cloned().collect()
    }

    fn deliveries(&self) -> BTreeSet<String> {
        self.ids.keys().map(ToString::to_string).collect()
    }
}

/// The deliveries that the provider took, finally or for now, with what it calls them.
fn taken(log: &[Recorded]) -> BTreeMap<DeliveryId, Option<String>> {
    let id = |event: &Recorded| match &event.body {
        Event::PushAttemptSucceeded(it) => Some((it.delivery_id, it.provider_message_id.clone())),
        Event::PushAttemptPending(it) => Some((it.delivery_id, Some(it.ticket.clone()))),
        _ => None,
    };
    log.iter().filter_map(id).collect()
}

/// How many events of each kind there are.
fn kinds(log: &[Recorded]) -> BTreeMap<&'static str, usize> {
    log.iter().fold(BTreeMap::new(), |mut kinds, it| {
        *kinds.entry(it.body.kind()).or_default() += 1;
        kinds
    })
}

/// One of the notifications: some urgent, some that expire, some that replace others.
fn notification(at: usize) -> Value {
    let mut message = Map::new();
    let mut with = |name: &str, value: Value| message.insert(name.to_owned(), value);
    with("messageId", json!(format!("m-{at}")));
    with("notificationType", json!(["APP_NOTIFICATION", "PUSH"]));
    with("recipientId", json!(person(at)));
    with("title", json!(title(at)));
    with("body", json!(format!("Renew it — 갱신 \"{at}\" 🎫")));
    with("category", json!("pass"));
    with("data", json!({"passId": at.to_string(), "days": 1}));
    if at.is_multiple_of(2) {
        with("priority", json!("high"));
    }
    if at.is_multiple_of(3) {
        with("expiresAt", json!("2036-11-23T09:00:00Z"));
    }
    if at.is_multiple_of(5) {
        with("collapseKey", json!(format!("pass-{at}")));
        with("link", json!(format!("app://pass/{at}")));
    }
    if at.is_multiple_of(7) {
        with("imageUrl", json!(format!("https://img.example/{at}.png")));
    }
    Value::Object(message)
}

fn person(at: usize) -> String {
    format!("user-{at}")
}

fn title(at: usize) -> String {
    format!("Pass {at} expires tomorrow")
}

fn titles() -> BTreeSet<String> {
    (0..NOTIFICATIONS).map(title).collect()
}

/// The texts, each of which has to be there once.
fn once<'a>(texts: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let texts: Vec<_> = texts.into_iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    let set: BTreeSet<_> = texts.iter().cloned().collect();
    assert_eq!(set.len(), texts.len(), "none twice");
    set
}

#[tokio::test]
async fn the_notifications_are_logged() {
    let sent = Vendor::new(json!({"kind": "log"})).send().await;
    sent.assert_each_once();
}

#[tokio::test]
async fn the_notifications_go_to_an_http_api() {
    let sink = Sink::start().await;
    sink.answer_with(|call| Answer::status(202).body(&json!({"id": call.json()["deliveryId"]}).to_string()));
    let sent = Vendor::new(json!({"kind": "http", "url": sink.url("/send"), "id": "/id"})).send().await;
    sent.assert_each_once();
    let calls: Vec<_> = sink.calls().iter().map(|it| it.json()["title"].clone()).collect();
    assert_eq!(once(&calls), titles());
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn by_webhook(receiver: Counterpart) {
    let settings = json!({"kind": "webhook", "url": receiver.url("/"), "secrets": ["{secret}"]});
    let sent = Vendor::new(settings).secret("secret", SECRET).send().await;
    sent.assert_each_once();
    let remembered = receiver.remembered().await;
    assert_eq!(remembered["refused"], json!([]));
    let verified = remembered["verified"].as_array().unwrap();
    assert_eq!(once(verified.iter().map(|it| &it["id"])), sent.deliveries());
    assert_eq!(once(verified.iter().map(|it| &it["body"]["data"]["title"])), titles());
}

#[tokio::test]
async fn the_notifications_go_to_a_webhook_that_python_verifies() {
    by_webhook(Counterpart::python_webhooks(SECRET).await).await;
}

#[tokio::test]
async fn the_notifications_go_to_a_webhook_that_node_verifies() {
    by_webhook(Counterpart::node_webhooks(SECRET).await).await;
}

/// A token as a phone's, for the person of this number.
fn phone(at: usize) -> Target {
    Target::Token(format!("{at:064x}"))
}

#[tokio::test]
async fn the_notifications_go_to_apns() {
    let (double, keys) = (Wiremock::playing("apns.json", &[]).await, Keys::p256());
    let sent = apns(&double.url(""), &keys).send().await;
    sent.assert_each_once();
    assert_eq!(sent.ids(), sent.deliveries(), "the apns-id is the delivery's");

    let seen = double.seen("/3/device/[0-9a-f]+").await;
    let header = |name: &str| seen.iter().map(|it| json!(it.header(name).unwrap())).collect::<Vec<_>>();
    assert_eq!(once(&header("apns-id")), sent.deliveries());
    let said: Vec<_> = seen.iter().map(|it| it.json()["aps"]["alert"]["title"].clone()).collect();
    assert_eq!(once(&said), titles());
    let bearers: HashSet<_> = seen.iter().map(|it| it.header("authorization").unwrap()).collect();
    assert_eq!(bearers.len(), 1, "one token serves all");
    let bearer = bearers.into_iter().next().unwrap().split_once(' ').unwrap().1;
    let said = es256_claims(bearer, &keys.public_pem).await;
    assert_eq!((&said["header"]["alg"], &said["header"]["kid"]), (&json!("ES256"), &json!("ABC123DEFG")));
    let claims: BTreeSet<_> = said["claims"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((&said["claims"]["iss"], claims), (&json!("DEF123GHIJ"), BTreeSet::from(["iat", "iss"])));
}

fn apns(base_url: &str, keys: &Keys) -> Vendor {
    let settings = json!({"kind": "apns", "topic": "com.example.app", "key_id": "ABC123DEFG",
        "team_id": "DEF123GHIJ", "key": "{key}", "base_url": base_url});
    Vendor::new(settings).secret("key", &keys.private_pem).to(phone)
}

/// A service that ends its connections again and again, as services do when they are renewed: what was
/// under way is neither lost nor sent twice.
#[tokio::test]
async fn connections_that_end_lose_and_double_nothing() {
    let (nginx, keys) = (Nginx::start(100, 50).await, Keys::p256());
    let mut vendor = apns(&nginx.url(), &keys);
    vendor.settings["timeout_ms"] = json!(5_000);
    vendor.settings["retry"] = json!({"schedule_s": [0.1], "retry_after_min_s": 0});
    vendor.fails = true;
    let sent = vendor.send().await;
    let failures = sent.failures();
    assert_eq!(sent.attempts(), NOTIFICATIONS + failures.len());
    // What the service never saw: said so by it, or forgotten by the client and ended by the timeout.
    assert!(failures.iter().all(|it| it == "refused" || it == "timeout"), "{failures:?}");
    let answered = nginx.answered();
    let ids: Vec<_> = answered.iter().map(|it| json!(it.apns_id)).collect();
    assert_eq!(once(&ids), sent.deliveries());
    assert!(answered.iter().all(|it| it.status == 200));
    let connections: HashSet<_> = answered.iter().map(|it| it.connection).collect();
    assert!(connections.len() >= NOTIFICATIONS / 50, "{} connections", connections.len());
}

#[tokio::test]
async fn the_notifications_go_to_fcm() {
    let (keys, email) = (Keys::rsa(), "ledger@demo.example");
    let tokens = Counterpart::google_token(&keys.public_pem, "key-1", email).await;
    let double = Wiremock::playing("fcm.json", &[("schema", fcm_schema())]).await;
    let account = json!({"type": "service_account", "project_id": "demo", "private_key_id": "key-1",
        "private_key": keys.private_pem, "client_email": email, "token_uri": tokens.url("/token")});
    let settings = json!({"kind": "fcm", "credentials": "{account}", "base_url": double.url("")});
    let vendor = Vendor::new(settings).secret("account", &account.to_string());
    let sent = vendor.to(phone).send().await;
    sent.assert_each_once();
    assert!(sent.ids().iter().all(|it| it.starts_with("projects/demo/messages/")));

    assert_eq!(tokens.remembered().await, json!([null]), "one exchange, and PyJWT believed it");
    let seen = double.seen("/v1/projects/demo/messages:send").await;
    let said: Vec<_> = seen.iter().map(|it| it.json()["message"]["notification"]["title"].clone()).collect();
    assert_eq!(once(&said), titles());
    assert!(seen.iter().all(|it| it.header("authorization") == Some("Bearer ya29.token-1")));
}

#[tokio::test]
async fn the_notifications_go_to_expo() {
    let double = Wiremock::playing("expo.json", &[]).await;
    let settings = json!({"kind": "expo", "base_url": double.url("/--/api/v2"), "access_token": "{token}"});
    let vendor = Vendor::new(settings).secret("token", "expo-secret");
    let sent = vendor.to(|at| Target::Token(format!("ExponentPushToken[t-{at}]"))).send().await;
    sent.assert_each_once();
    assert_eq!(sent.ids(), (0..NOTIFICATIONS).map(|at| format!("t-{at}")).collect(), "tickets");

    let seen: Vec<_> = double.seen("/--/api/v2/push/send").await.iter().map(Seen::json).collect();
    let pushes: Vec<_> = seen.iter().flat_map(|it| it.as_array().unwrap()).collect();
    assert!(seen.len() < NOTIFICATIONS / 4, "many a call: {}", seen.len());
    assert_eq!(once(pushes.iter().map(|it| &it["title"])), titles());
}

#[tokio::test]
async fn the_notifications_go_to_onesignal() {
    let double = Wiremock::playing("onesignal.json", &[]).await;
    let settings =
        json!({"kind": "onesignal", "app_id": APP_ID, "api_key": "{key}", "base_url": double.url("")});
    let sent = Vendor::new(settings).secret("key", "onesignal-secret").send().await;
    sent.assert_each_once();
    let seen: Vec<_> = double.seen("/notifications").await.iter().map(Seen::json).collect();
    assert_eq!(once(seen.iter().map(|it| &it["headings"]["en"])), titles());
    assert_eq!(once(seen.iter().map(|it| &it["idempotency_key"])).len(), NOTIFICATIONS);
    let people = seen.iter().map(|it| &it["include_aliases"]["external_id"][0]);
    assert_eq!(once(people), (0..NOTIFICATIONS).map(person).collect());
}

#[tokio::test]
async fn the_notifications_go_to_browsers() {
    let (double, keys) = (Counterpart::web_push().await, Keys::p256());
    let mut browsers = Vec::new();
    for _ in 0..NOTIFICATIONS {
        browsers.push(double.subscribe(&keys.point_base64url()).await);
    }
    let origin = double.url("").replace("127.0.0.1", "localhost");
    let settings = json!({"kind": "webpush", "vapid_key": "{key}", "subject": "mailto:ops@example.com",
        "allowed_hosts": [origin]});
    let vendor = Vendor::new(settings).secret("key", &keys.private_pem);
    let subscriptions: Vec<_> = browsers.iter().map(subscription).collect();
    let sent = vendor.to(move |at| subscriptions[at].clone()).send().await;
    assert_eq!((sent.attempts(), sent.ids.len()), (NOTIFICATIONS, NOTIFICATIONS));

    let mut told: Vec<Value> = Vec::new();
    for (browser, at) in browsers.iter().zip(0..) {
        for text in double.notifications(browser["clientHash"].as_str().unwrap()).await {
            let text: Value = serde_json::from_str(&text).unwrap();
            for field in ["messageId", "title", "body"] {
                assert_eq!(text[field], notification(at)[field], "its own and no other");
            }
            told.push(text);
        }
    }
    assert_eq!(once(told.iter().map(|it| &it["title"])), titles());
    assert_eq!(once(told.iter().map(|it| &it["deliveryId"])), sent.deliveries());
}
