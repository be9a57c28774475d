//! Registering devices, and what is told of them.

use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::json;

use super::{Answer, Fixture};
use crate::{clock::Clock as _, device::Obituary, message::Target};

const PATH: &str = "/v1/recipients/user-1/devices/d-1";

async fn put(it: &Fixture, path: &str, body: &serde_json::Value) -> Answer {
    it.call(Request::put(path).body(Body::from(body.to_string())).unwrap()).await
}

async fn delete(it: &Fixture, path: &str) -> u16 {
    it.call(Request::delete(path).body(Body::empty()).unwrap()).await.status.as_u16()
}

#[tokio::test]
async fn a_device_is_registered_shown_without_its_token_dies_and_lives_again() {
    let it = Fixture::new().await;
    let body = json!({ "platform": "ios", "app": "pass", "kind": "apns", "environment": "sandbox",
        "token": "device-token-1234", "locale": "ko-KR", "timeZone": "Asia/Seoul",
        "lastSeenAt": "2026-11-22T08:59:00Z" });
    let new = put(&it, PATH, &body).await;
    insta::assert_snapshot!("device_new", new);
    assert!(!new.to_string().contains("device-token"), "{new}");
    assert_eq!(it.get(PATH).await.json(), new.json());

    it.clock.advance(Duration::from_mins(1));
    let obituary = Obituary {
        service: None,
        target: Target::Token("device-token-1234".to_owned()),
        provider: "apple".to_owned(),
        reason: "Unregistered".to_owned(),
        as_of: it.clock.now(),
    };
    it.ledger.store().bury_devices(&[obituary], it.clock.now()).await.unwrap();
    insta::assert_snapshot!("device_dead", it.get("/v1/recipients/user-1/devices").await);

    it.clock.advance(Duration::from_mins(1));
    let again = put(&it, PATH, &body).await;
    assert_eq!((again.status.as_u16(), &again.json()["status"]), (200, &json!("alive")));
    assert_eq!(again.json()["createdAt"], new.json()["createdAt"]);
    assert_ne!(again.json()["registeredAt"], new.json()["registeredAt"]);
}

#[tokio::test]
async fn a_removed_device_is_gone_and_removing_it_again_is_well() {
    let it = Fixture::new().await;
    let body = json!({ "platform": "android", "kind": "fcm", "token": "t-1" });
    assert_eq!(put(&it, PATH, &body).await.status.as_u16(), 201);
    assert_eq!((delete(&it, PATH).await, delete(&it, PATH).await), (204, 204));
    insta::assert_snapshot!("device_unknown", it.get(PATH).await);
    assert_eq!(it.get("/v1/recipients/user-1/devices").await.json(), json!({ "devices": [] }));
}

#[tokio::test]
async fn what_is_no_registration_is_refused_and_nothing_is_kept() {
    let it = Fixture::new().await;
    let body = json!({ "platform": "ios", "kind": "gcm", "token": "t-1" });
    insta::assert_snapshot!("device_of_no_kind", put(&it, PATH, &body).await);
    for (path, body, status) in [
        (PATH, json!({}), 422),
        (PATH, json!([]), 422),
        (PATH, json!({ "platform": "ios", "kind": "apns", "token": "a\u{0}b" }), 422),
        (
            "/v1/recipients/user-1/devices/d%201",
            json!({ "platform": "ios", "kind": "apns", "token": "t" }),
            400,
        ),
        ("/v1/recipients/%20/devices/d-1", json!({ "platform": "ios", "kind": "apns", "token": "t" }), 400),
    ] {
        let answer = put(&it, path, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {answer}");
        assert!(answer.json()["remedy"].is_string(), "{answer}");
    }
    let request = Request::put(PATH).body(Body::from("{")).unwrap();
    assert_eq!(it.call(request).await.status.as_u16(), 400);
    assert_eq!(it.get("/v1/recipients/user-1/devices").await.json(), json!({ "devices": [] }));
}
