//! The API from outside: a router on a SQLite file, projections folded by hand.

#![allow(clippy::disallowed_methods, reason = "tests start their appenders themselves")]

mod bad_input;
mod cors;
mod deliveries;
mod devices;
mod examples;
mod inbox;
mod live;
mod messages;
mod openapi;
mod ops;
mod past;
mod projections;
mod providers;
mod quarantine;
mod receipts;
mod scopes;
mod stats;
mod users;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use super::{
    App, Pages, Settings,
    auth::{Callers, Issued, Keys},
    router,
};
use crate::{
    clock::{ManualClock, Timestamp},
    ledger::{Ledger, LedgerOptions, live::Live},
    projection::ALL,
    routing::Routing,
    store::{DbOptions, NewLedger, Slot, Step, Store},
    supervisor::Supervisor,
    telemetry,
    worker::rebuild::background::Rebuilds,
};

/// A ledger with its API, on a file that goes away with it.
struct Fixture {
    router: Router,
    ledger: Ledger,
    live: Arc<Live>,
    rebuilds: Rebuilds,
    clock: Arc<ManualClock>,
    _folder: TempDir,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Fixture {
    /// With the API open to this machine.
    async fn new() -> Self {
        Self::with(Keys::default(), |_| ()).await
    }

    async fn with(keys: Keys, change: impl FnOnce(&mut Settings)) -> Self {
        Self::called_by(Callers::new(keys, None), change).await
    }

    async fn for_pages(callers: Callers, pages: Pages) -> Self {
        Self::called_by(callers, |settings| settings.pages = pages).await
    }

    async fn called_by(callers: Callers, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = DbOptions {
            url: format!("sqlite://{}", folder.path().join("ledger.db").display()),
            pooler: false,
            max_connections: 4,
            acquire_timeout: Duration::from_secs(5),
        };
        let now = Timestamp::parse("2026-11-22T09:00:00Z").unwrap();
        let new = NewLedger { ledger_id: "test".to_owned(), shards: Some(1), created_at: now };
        let store = Store::create_or_open(&options, None, &new).await.unwrap();
        for projection in ALL {
            store.ensure_projection(*projection, now).await.unwrap();
        }
        let clock = Arc::new(ManualClock::new(now));
        let routing = Routing::universal([("acme".to_owned(), Duration::from_mins(1))]);
        let options = LedgerOptions { batch_max: 500, routing, dispatch: None };
        let (ledger, appenders) = Ledger::new(store, clock.clone(), options);
        for appender in appenders {
            tokio::spawn(appender.run());
        }
        let mut settings = Settings {
            wait_for_projection: Duration::ZERO,
            body_limit_bytes: 1 << 20,
            request_timeout: Duration::from_secs(30),
            recheck: super::RECHECK,
            pages: Pages::Own,
        };
        change(&mut settings);
        let metrics = telemetry::metrics().ok();
        let callers = callers.with_issued(Arc::new(Issued::new(ledger.store().clone())));
        let live = Live::new(10);
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let tasks = supervisor.tasks().clone();
        let rebuilds = Rebuilds::new(ledger.store().clone(), clock.clone(), tasks);
        let app = App {
            ledger: ledger.clone(),
            callers,
            settings,
            live: Arc::clone(&live),
            rebuilds: rebuilds.clone(),
            metrics,
        };
        let router = router(app);
        Self { router, ledger, live, rebuilds, clock, _folder: folder }
    }

    /// Folds everything into every projection.
    async fn project(&self) {
        let store = self.ledger.store();
        for projection in ALL {
            for shard in store.shards() {
                while let Step::Folded { .. } =
                    store.project(*projection, Slot::A, shard, 100, None).await.unwrap()
                {}
            }
        }
    }

    async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.call(Request::post(path).body(body.into()).unwrap()).await
    }

    /// Sends a message to the inbox of `user-1` and answers its cursor.
    async fn send(&self, id: &str) -> String {
        let answer = self.post("/v1/messages", message(id, "user-1")).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer}");
        answer.json()["cursor"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    /// The ids of the messages or items in it.
    fn ids(&self) -> Vec<String> {
        let json = self.json();
        let list = json.get("items").or_else(|| json.get("messages")).unwrap().as_array().unwrap().clone();
        list.iter().map(|it| it["messageId"].as_str().unwrap().to_owned()).collect()
    }
}

/// Status and body, for snapshots.
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(json) => write!(f, "{json:#}"),
            Err(_) => f.write_str(&String::from_utf8_lossy(&self.body)),
        }
    }
}

fn message(id: &str, recipient: &str) -> String {
    format!(
        r#"{{"messageId":"{id}","notificationType":"APP_NOTIFICATION","recipientId":"{recipient}","title":"News {id}","category":"pass"}}"#
    )
}
