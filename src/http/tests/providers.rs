//! Providers over HTTP: what is known of them, and pausing one.

use std::time::Duration;

use serde_json::json;

use super::{Fixture, message};

#[tokio::test]
async fn a_provider_is_paused_and_resumed_and_who_did_it_is_told() {
    let it = Fixture::new().await;
    let push = message("m-1", "user-1").replace("APP_NOTIFICATION", "PUSH");
    assert_eq!(it.post("/v1/messages", push).await.status.as_u16(), 201);
    it.project().await;
    it.clock.advance(Duration::from_mins(2));
    insta::assert_snapshot!("providers_running", it.get("/v1/providers").await);
    let why = json!({"reason": "their status page is red"}).to_string();
    insta::assert_snapshot!("provider_paused", it.post("/v1/providers/acme/pause", why).await);
    assert_eq!(it.post("/v1/providers/acme/pause", "").await.json()["isNew"], false);
    insta::assert_snapshot!("providers_paused", it.get("/v1/providers").await);
    assert_eq!(it.post("/v1/providers/acme/resume", "").await.json()["isNew"], true);
    assert_eq!(it.get("/v1/providers").await.json()["providers"][0]["state"], "running");
    let history = it.ledger.store().control_history("acme", 10).await.unwrap();
    let told: Vec<_> =
        history.iter().map(|it| (it.is_pause, it.actor.as_str(), it.reason.as_str())).collect();
    assert_eq!(told, [(false, "local", "no reason given"), (true, "local", "their status page is red")]);
    insta::assert_snapshot!("provider_unknown", it.post("/v1/providers/gone/pause", "").await);
    assert_eq!(it.post("/v1/providers/acme/pause", "17").await.status.as_u16(), 400);
}
