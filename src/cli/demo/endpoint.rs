//! A push service to try the ledger against: real HTTP on loopback, and as moody as the real ones.
//!
//! It takes what a provider of kind `http` sends unless told otherwise. How it answers depends on the
//! device and on how often it was called with the same idempotency key, so that every run is alike.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::supervisor::Tasks;

/// What the service says of a device that is gone.
pub(super) const INVALID_TOKEN: &str = "invalid_token";
/// How long it asks to be left alone when it is called too often.
pub(super) const RETRY_AFTER_S: u64 = 1;

/// What is answered to the first calls for a device, one each; then the push is taken.
const MOODS: [(&str, &[Mood]); 4] = [
    ("demo-device-anna-phone-a001", &[Mood::Down, Mood::Busy]),
    ("demo-device-anna-tablet-a003", &[Mood::Down]),
    ("demo-device-ben-old-phone-b002", &[Mood::Gone]),
    ("demo-device-jiho-phone-c001", &[Mood::Down]),
];

/// How a call is answered that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// 503: not now.
    Down,
    /// 429: not for a while.
    Busy,
    /// 400: this device does not exist.
    Gone,
}

/// The endpoint, as its operator sees it.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    address: SocketAddr,
    calls: Arc<Mutex<Calls>>,
}

/// What it was asked and what it answered.
#[derive(Debug, Default)]
struct Calls {
    by_key: HashMap<String, usize>,
    by_status: HashMap<u16, usize>,
}

/// As much of a push as it looks at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Push {
    idempotency_key: String,
    target: Target,
}

#[derive(Debug, Deserialize)]
struct Target {
    value: String,
}

impl Endpoint {
    /// Opens it on a port of its own, until the tasks are asked to stop.
    pub(super) async fn start(tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the push endpoint finds no port on 127.0.0.1")?;
        let endpoint = Self { address: listener.local_addr()?, calls: Arc::default() };
        let router = Router::new().route("/push", post(answer)).with_state(endpoint.clone());
        let stop = tasks.stop().soft();
        tasks.spawn("push endpoint", async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
        });
        Ok(endpoint)
    }

    /// Where to push to.
    pub(super) fn url(&self) -> String {
        format!("http://{}/push", self.address)
    }

    /// How many calls it has answered.
    pub(super) fn calls(&self) -> usize {
        self.lock(|calls| calls.by_status.values().sum())
    }

    /// How many calls it has answered with this status.
    pub(super) fn answered(&self, status: u16) -> usize {
        self.lock(|calls| calls.by_status.get(&status).copied().unwrap_or_default())
    }

    fn lock<T>(&self, look: impl FnOnce(&mut Calls) -> T) -> T {
        look(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Calls {
    /// What this call is answered with; none takes it.
    fn mood(&mut self, push: &Push) -> Option<Mood> {
        let before = self.by_key.entry(push.idempotency_key.clone()).or_default();
        let moods = MOODS.iter().find(|(device, _)| *device == push.target.value).map_or(&[][..], |it| it.1);
        let mood = moods.get(*before).copied();
        *before += 1;
        mood
    }
}

async fn answer(State(endpoint): State<Endpoint>, Json(push): Json<Push>) -> Response {
    let mood = endpoint.lock(|calls| calls.mood(&push));
    let response = match mood {
        None => {
            let id: String = push.idempotency_key.chars().take(8).collect();
            Json(json!({ "id": format!("acme-{id}") })).into_response()
        }
        Some(Mood::Down) => (StatusCode::SERVICE_UNAVAILABLE, error("overloaded")).into_response(),
        Some(Mood::Busy) => {
            let wait = [("retry-after", RETRY_AFTER_S.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, wait, error("too_many_requests")).into_response()
        }
        Some(Mood::Gone) => (StatusCode::BAD_REQUEST, error(INVALID_TOKEN)).into_response(),
    };
    endpoint.lock(|calls| *calls.by_status.entry(response.status().as_u16()).or_default() += 1);
    response
}

fn error(code: &str) -> Json<serde_json::Value> {
    Json(json!({ "error": code }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(key: &str, device: &str) -> Push {
        Push { idempotency_key: key.to_owned(), target: Target { value: device.to_owned() } }
    }

    #[test]
    fn a_push_that_is_repeated_is_taken_in_the_end_and_one_to_nobody_never() {
        let mut calls = Calls::default();
        let phone = push("k-1", "demo-device-anna-phone-a001");
        let answers: Vec<_> = (0..4).map(|_| calls.mood(&phone)).collect();
        assert_eq!(answers, [Some(Mood::Down), Some(Mood::Busy), None, None]);
        assert_eq!(calls.mood(&push("k-2", &phone.target.value)), Some(Mood::Down), "by push, not by device");
        assert_eq!(calls.mood(&push("k-3", "demo-device-ben-old-phone-b002")), Some(Mood::Gone));
        assert_eq!(calls.mood(&push("k-4", "user-42")), None);
    }

    #[test]
    fn every_moody_device_is_pushed_to() {
        let messages = include_str!("messages.json");
        assert!(MOODS.iter().all(|(device, _)| messages.contains(device)));
    }
}
