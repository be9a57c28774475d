//! Devices on every database: the registry, and pushes that find their way by it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use notification_ledger::{
    clock::{Clock, ManualClock, Timestamp},
    device::{Device, Obituary, PRODUCTION, Registration},
    event::{Event, FailureClass, SuppressReason},
    id::{DeviceId, MessageId, RecipientId},
    ledger::{
        Ledger, LedgerOptions,
        dispatch::{Dispatch, Takes},
    },
    message::Target,
    projection::ALL,
    provider::{self, Configured},
    routing::Routing,
    store::{DEVICES_MAX, Slot, Store},
    worker::deliver::{Deliver, DeliverOptions},
};
use serde_json::json;

use crate::support::{
    database::for_each_database,
    ledger::{incoming, manual_clock, open_store, project_all},
    sink::{Answer, Sink},
};

/// The second of this number.
fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn user(id: &str) -> RecipientId {
    RecipientId::new(id).unwrap()
}

fn token(value: &str) -> Target {
    Target::Token(value.to_owned())
}

fn device(id: &str, value: &str) -> Registration {
    Registration {
        device_id: DeviceId::new(id).unwrap(),
        app: String::new(),
        platform: "ios".to_owned(),
        kind: "apns".to_owned(),
        environment: PRODUCTION.to_owned(),
        target: token(value),
        locale: None,
        time_zone: None,
        last_seen_at: None,
    }
}

fn dead(value: &str, provider: &str, as_of: i64) -> Obituary {
    let (provider, reason) = (provider.to_owned(), "Unregistered".to_owned());
    Obituary { target: token(value), service: None, provider, reason, as_of: at(as_of) }
}

fn ids(devices: &[Device]) -> Vec<&str> {
    devices.iter().map(|it| it.registration.device_id.as_str()).collect()
}

async fn devices_of(store: &Store, id: &str) -> Vec<Device> {
    store.devices(&user(id)).await.unwrap()
}

for_each_database! {
    /// What was said last of a device holds, word for word, and it lives from then on.
    async fn registering_again_changes_and_revives(db: TestDb) {
        let store = open_store(&db, 1).await;
        let recipient = user("사용자 🙂");
        let first = store.put_device(&recipient, &device("d-1", "t-1"), at(10)).await.unwrap();
        assert_eq!((first.created_at, first.registered_at, &first.dead), (at(10), at(10), &None));
        assert_eq!(first.registration.last_seen_at, Some(at(10)));
        assert_eq!(store.bury_devices(&[dead("t-1", "apple", 11)], at(12)).await.unwrap(), 1);
        let buried = store.devices(&recipient).await.unwrap().remove(0).dead.unwrap();
        assert_eq!((buried.at, buried.by.as_str(), buried.reason.as_str()), (at(12), "apple", "Unregistered"));

        let said = Registration {
            app: "앱 🙂".to_owned(),
            platform: "web".to_owned(),
            kind: "webpush".to_owned(),
            environment: "sandbox".to_owned(),
            target: Target::Subscription("x".repeat(9_000)),
            locale: Some("ko-KR".to_owned()),
            time_zone: Some("Asia/Seoul".to_owned()),
            last_seen_at: Some(at(15)),
            ..device("d-1", "")
        };
        let again = store.put_device(&recipient, &said, at(20)).await.unwrap();
        let expected = Device {
            recipient_id: recipient.clone(),
            registration: said,
            created_at: at(10),
            registered_at: at(20),
            dead: None,
        };
        assert_eq!(again, expected);
        assert_eq!(store.devices(&recipient).await.unwrap(), [expected]);
        assert!(store.remove_device(&recipient, &DeviceId::new("d-1").unwrap()).await.unwrap());
        assert!(!store.remove_device(&recipient, &DeviceId::new("d-1").unwrap()).await.unwrap());
        assert_eq!(store.devices(&recipient).await.unwrap(), []);
        store.close().await;
    }

    /// The next user of a phone gets its pushes, and the one before gets none of them.
    async fn a_target_moves_to_whoever_registers_it(db: TestDb) {
        let store = open_store(&db, 1).await;
        let elsewhere = Registration { kind: "fcm".to_owned(), ..device("d-3", "t-1") };
        for (recipient, registration) in [
            ("user-1", device("d-1", "t-1")),
            ("user-1", device("d-2", "t-2")),
            ("user-1", elsewhere),
            ("user-2", device("d-1", "t-1")),
            ("user-1", device("d-4", "t-2")),
        ] {
            store.put_device(&user(recipient), &registration, at(10)).await.unwrap();
        }
        assert_eq!(ids(&devices_of(&store, "user-1").await), ["d-3", "d-4"], "of another service it is another");
        assert_eq!(ids(&devices_of(&store, "user-2").await), ["d-1"]);
        store.close().await;
    }

    /// Apps that make up a new id at every start fill no table, and whoever registers is registered.
    async fn the_longest_unseen_makes_place(db: TestDb) {
        let store = open_store(&db, 1).await;
        let recipient = user("user-1");
        let seen = |number: usize, second: i64| Registration {
            last_seen_at: Some(at(second)),
            ..device(&format!("d-{number}"), &format!("t-{number}"))
        };
        for number in 0..DEVICES_MAX {
            let second = 100 + i64::try_from(number).unwrap();
            store.put_device(&recipient, &seen(number, second), at(1_000)).await.unwrap();
        }
        store.put_device(&recipient, &seen(500, 1_000), at(1_000)).await.unwrap();
        let devices = store.devices(&recipient).await.unwrap();
        assert_eq!((devices.len(), ids(&devices)[0]), (DEVICES_MAX, "d-500"));
        assert!(!ids(&devices).contains(&"d-0"), "the longest unseen");
        store.put_device(&recipient, &seen(501, 1), at(1_001)).await.unwrap();
        let devices = store.devices(&recipient).await.unwrap();
        assert_eq!((devices.len(), ids(&devices)[DEVICES_MAX - 1]), (DEVICES_MAX, "d-501"));
        assert!(!ids(&devices).contains(&"d-1"), "never the one that registers");
        store.close().await;
    }

    /// Word of a death counts only if the device did not register since, once, and can be taken back.
    async fn old_news_of_a_death_is_no_news(db: TestDb) {
        let store = open_store(&db, 1).await;
        for number in 1..=3 {
            let it = device(&format!("d-{number}"), &format!("t-{number}"));
            store.put_device(&user("user-1"), &it, at(10)).await.unwrap();
        }
        let bury = |dead: Vec<Obituary>, second| {
            let store = store.clone();
            async move { store.bury_devices(&dead, at(second)).await.unwrap() }
        };
        assert_eq!(bury(vec![dead("t-1", "apple", 9), dead("t-9", "apple", 20)], 20).await, 0, "before it came");
        assert_eq!(bury(vec![dead("t-1", "apple", 10), dead("t-2", "other", 15)], 20).await, 2);
        assert_eq!(bury(vec![dead("t-1", "other", 30)], 30).await, 0, "it is dead already");
        assert_eq!(bury(vec![dead("t-3", "apple", 30)], 30).await, 1);
        assert_eq!(bury(Vec::new(), 30).await, 0);
        assert_eq!(store.unbury_devices("apple", at(30)).await.unwrap(), 1, "that provider, since then");
        let devices = devices_of(&store, "user-1").await;
        let dead: Vec<_> = devices.iter().map(|it| it.dead.as_ref().map(|it| it.by.as_str())).collect();
        assert_eq!((ids(&devices), dead), (vec!["d-1", "d-2", "d-3"], vec![Some("apple"), Some("other"), None]));
        store.close().await;
    }

    /// The living devices of everybody in a batch, each with their own and in one order.
    async fn the_living_of_many_are_found_at_once(db: TestDb) {
        let store = open_store(&db, 1).await;
        let people: Vec<_> = (0..40).map(|number| user(&format!("이용자 {number}"))).collect();
        for (number, person) in people.iter().enumerate() {
            for name in ["b", "a"].into_iter().take(number % 3) {
                let it = device(name, &format!("{name}-{number}"));
                store.put_device(person, &it, at(10)).await.unwrap();
            }
        }
        store.bury_devices(&[dead("b-1", "apple", 11), dead("b-2", "apple", 11)], at(12)).await.unwrap();
        let mut asked: Vec<_> = people.iter().chain(&people).collect();
        let stranger = user("nobody");
        asked.push(&stranger);
        let living = store.living_devices(&asked).await.unwrap();
        assert_eq!(living.len(), 25, "13 with one device, of whom one is dead, and 13 with two");
        assert_eq!(ids(&living[&people[2]]), ["a"]);
        assert_eq!(ids(&living[&people[5]]), ["a", "b"]);
        assert_eq!(store.living_devices(&[]).await.unwrap(), HashMap::new());
        store.close().await;
    }

    /// From the registration to the call, and from the push service's no to one delivery less.
    async fn a_push_without_targets_goes_to_the_living_devices(db: TestDb) {
        let (store, clock, sink) = (open_store(&db, 2).await, manual_clock(), Sink::start().await);
        let mut apple = Apple::new(&store, clock.clone(), &sink);
        for (id, value) in [("d-1", "aa11"), ("d-2", "bb22")] {
            store.put_device(&user("user-1"), &device(id, value), clock.now()).await.unwrap();
        }
        let registered = clock.now();
        clock.advance(Duration::from_mins(1));
        // Word from before the registration: an app that was removed and came back under the same token.
        let old = gone(registered.minus(Duration::from_mins(5)));
        sink.answer_with(move |call| if call.uri.path().ends_with("bb22") { old.clone() } else { Answer::status(200) });
        assert_eq!(apple.push("m-1").await, ["d-1", "d-2"]);
        assert_eq!(apple.outcomes("m-1").await, ["accepted", "invalid_target"]);
        assert_eq!(apple.push("m-2").await, ["d-1", "d-2"], "it has registered since");

        let now = gone(clock.now());
        sink.answer_with(move |call| if call.uri.path().ends_with("bb22") { now.clone() } else { Answer::status(200) });
        clock.advance(Duration::from_mins(1));
        assert_eq!(apple.push("m-3").await, ["d-1", "d-2"]);
        let death = devices_of(&store, "user-1").await.into_iter().find_map(|it| it.dead).unwrap();
        assert_eq!((death.by.as_str(), death.reason.as_str()), ("apple", "Unregistered"));
        assert_eq!(apple.push("m-4").await, ["d-1"], "one delivery less");

        clock.advance(Duration::from_mins(1));
        store.put_device(&user("user-1"), &device("d-2", "cc33"), clock.now()).await.unwrap();
        assert_eq!(apple.push("m-5").await, ["d-1", "d-2"], "registered again");
        assert_eq!(apple.outcomes("m-5").await, ["accepted", "accepted"]);
        for id in ["d-1", "d-2"] {
            store.remove_device(&user("user-1"), &DeviceId::new(id).unwrap()).await.unwrap();
        }
        assert_eq!(apple.push("m-6").await, [""; 0]);
        let events = apple.events("m-6").await;
        assert!(matches!(&events[1], Event::PushSuppressed(it) if it.reason == SuppressReason::NoTarget), "{events:?}");
    }

    /// A wrong environment or topic is said of each token in the words for a token that is none.
    async fn what_may_be_our_own_fault_kills_no_device_before_apple_took_anything(db: TestDb) {
        let (store, clock, sink) = (open_store(&db, 2).await, manual_clock(), Sink::start().await);
        let mut apple = Apple::new(&store, clock.clone(), &sink);
        for (id, value) in [("d-1", "aa11"), ("d-2", "bb22"), ("d-3", "cc33")] {
            store.put_device(&user("user-1"), &device(id, value), clock.now()).await.unwrap();
        }
        clock.advance(Duration::from_mins(1));
        let refused = |reason: &str| Answer::status(400).body(&json!({ "reason": reason }).to_string());
        for (id, reason) in [("m-1", "BadDeviceToken"), ("m-2", "DeviceTokenNotForTopic")] {
            let answer = refused(reason);
            sink.answer_with(move |_| answer.clone());
            assert_eq!(apple.push(id).await, ["d-1", "d-2", "d-3"]);
            assert_eq!(apple.outcomes(id).await, ["invalid_target"; 3]);
        }
        let answer = refused("BadDeviceToken");
        sink.answer_with(move |call| if call.uri.path().ends_with("bb22") { answer.clone() } else { Answer::status(200) });
        // In the first of these the refusal may come before any acceptance.
        apple.push("m-3").await;
        apple.push("m-4").await;
        assert_eq!(apple.push("m-5").await, ["d-1", "d-3"]);
        let dead: Vec<_> = devices_of(&store, "user-1").await.into_iter().filter_map(|it| it.dead).collect();
        assert_eq!(dead.iter().map(|it| it.reason.as_str()).collect::<Vec<_>>(), ["BadDeviceToken"]);
    }
}

/// What Apple says of a token that is no more.
fn gone(since: Timestamp) -> Answer {
    let millis = since.as_micros() / 1_000;
    Answer::status(410).body(&json!({ "reason": "Unregistered", "timestamp": millis }).to_string())
}

/// A process that delivers through a provider of kind `apns`.
struct Apple {
    store: Store,
    ledger: Ledger,
    deliver: Deliver,
    _key: tempfile::NamedTempFile,
}

impl Apple {
    fn new(store: &Store, clock: Arc<ManualClock>, sink: &Sink) -> Self {
        let key = signing_key();
        let settings = json!({
            "topic": "com.example.app", "key_id": "KEY1234567", "team_id": "TEAM123456",
            "key": format!("file:{}", key.path().display()), "base_url": sink.url(""), "http2": false,
        });
        let known = provider::known("apple", "apns", settings.clone()).unwrap();
        let apple = provider::build("apple", "apns", settings, clock.clone()).unwrap();
        let Configured { concurrency, .. } = apple;
        let takes = Takes { calls: concurrency, rate: None };
        let (_, dispatched) = Dispatch::new("w", concurrency, [("apple".to_owned(), takes)]);
        let routing = Routing {
            default_provider: Some("apple".to_owned()),
            providers: [("apple".to_owned(), known)].into(),
            to_devices: true,
            ..Routing::default()
        };
        let options = LedgerOptions { batch_max: 500, routing, dispatch: None };
        let (ledger, appenders) = Ledger::new(store.clone(), clock, options);
        for appender in appenders {
            tokio::spawn(appender.run());
        }
        let options = DeliverOptions { batch_max: 20, poll: Duration::from_millis(100) };
        let deliver = Deliver::new(ledger.clone(), dispatched, [apple], &options);
        Self { store: store.clone(), ledger, deliver, _key: key }
    }

    /// Accepts a message without targets and does all there is to do; answers which devices it was planned
    /// for.
    async fn push(&mut self, id: &str) -> Vec<String> {
        let arrival = incoming(id, "user-1", json!({ "notificationType": "PUSH" }));
        for receipt in self.ledger.accept(vec![arrival]).await {
            receipt.unwrap();
        }
        self.project().await;
        self.deliver.settle().await.unwrap();
        self.project().await;
        let planned = self.events(id).await.into_iter().find_map(|event| match event {
            Event::PushPlanned(it) => Some(it.deliveries),
            _ => None,
        });
        planned.into_iter().flatten().map(|it| it.device_id.unwrap().to_string()).collect()
    }

    async fn project(&self) {
        for projection in ALL {
            project_all(&self.store, *projection, Slot::A, 500).await;
        }
    }

    async fn events(&self, id: &str) -> Vec<Event> {
        let stream = self.store.stream(&MessageId::new(id).unwrap()).await.unwrap();
        stream.into_iter().map(|it| it.body).collect()
    }

    /// How the attempts for a message ended, sorted.
    async fn outcomes(&self, id: &str) -> Vec<&'static str> {
        let mut outcomes: Vec<_> = self
            .events(id)
            .await
            .iter()
            .filter_map(|event| match event {
                Event::PushAttemptSucceeded(_) => Some("accepted"),
                Event::PushAttemptFailed(it) => Some(FailureClass::as_str(it.class)),
                _ => None,
            })
            .collect();
        outcomes.sort_unstable();
        outcomes
    }
}

/// A key as Apple gives it, thrown away after the test.
fn signing_key() -> tempfile::NamedTempFile {
    let private =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let text = STANDARD.encode(private.as_ref());
    let file = tempfile::NamedTempFile::new().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    std::fs::write(file.path(), pem).unwrap();
    file
}
