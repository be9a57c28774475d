//! Quarantine over HTTP: looking at input, and deciding about it.

use serde_json::json;

use super::{Fixture, message};
use crate::store::Unreadable;

/// Holds three inputs: one that is a message by now, one that is no message, and one that is no text.
async fn hold(it: &Fixture) -> Vec<String> {
    let good = message("m-1", "user-1");
    for (body, code) in
        [(good.as_bytes(), "missing_id"), (b"{\"title\":7}", "wrong_type"), (b"\xff", "not_utf8")]
    {
        let input = Unreadable {
            source: "sqs:notifications message 5fea".to_owned(),
            code: code.to_owned(),
            reason: "it was no message; mend it".to_owned(),
            body: body.to_vec(),
            size: body.len() as u64,
            attributes: "{}".to_owned(),
        };
        it.ledger.store().quarantine_hold(&[input], it.ledger.now()).await.unwrap();
        it.clock.advance(std::time::Duration::from_secs(1));
    }
    let listed = it.get("/v1/quarantine").await.json();
    listed["inputs"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// A snapshot without the random ids.
fn without_ids(answer: &super::Answer, ids: &[String]) -> String {
    ids.iter()
        .zip(["FIRST", "SECOND", "THIRD"])
        .fold(answer.to_string(), |text, (id, name)| text.replace(id, name))
}

#[tokio::test]
async fn inputs_are_listed_in_parts_and_shown_whole() {
    let it = Fixture::new().await;
    let ids = hold(&it).await;
    let first = it.get("/v1/quarantine?limit=2").await;
    insta::assert_snapshot!("quarantine_list", without_ids(&first, &ids));
    let second = it.get(&format!("/v1/quarantine?limit=2&after={}", ids[1])).await.json();
    assert_eq!((second["inputs"].as_array().unwrap().len(), second.get("next")), (1, None));
    let whole = it.get(&format!("/v1/quarantine/{}", ids[1])).await;
    insta::assert_snapshot!("quarantine_show", without_ids(&whole, &ids));
    let short = it.get(&format!("/v1/quarantine/{}", ids[2])).await.json();
    assert_eq!(short.get("bodyHex"), None, "who knows what it holds");
    assert_eq!(it.get(&format!("/v1/quarantine/{}?whole=true", ids[2])).await.json()["bodyHex"], "ff");
}

#[tokio::test]
async fn an_input_is_retried_or_discarded_once_and_who_did_it_is_told() {
    let it = Fixture::new().await;
    let ids = hold(&it).await;
    let path = |at: usize, verb: &str| format!("/v1/quarantine/{}/{verb}", ids[at]);
    let note = json!({"note": "the source sends ids now"}).to_string();
    insta::assert_snapshot!("quarantine_retried", it.post(&path(0, "retry"), note).await);
    insta::assert_snapshot!("quarantine_retried_before", it.post(&path(0, "retry"), "").await);
    assert_eq!(it.get("/v1/messages/m-1").await.status.as_u16(), 200);
    insta::assert_snapshot!("quarantine_still_no_message", it.post(&path(1, "retry"), "").await);
    assert_eq!(it.post(&path(2, "retry"), "").await.status.as_u16(), 422, "it is no UTF-8");
    let discarded = it.post(&path(1, "discard"), "").await;
    insta::assert_snapshot!("quarantine_discarded", without_ids(&discarded, &ids));
    assert_eq!(it.post(&path(0, "discard"), "").await.status.as_u16(), 409, "it is a message");
    let all = it.get("/v1/quarantine?state=all").await;
    insta::assert_snapshot!("quarantine_decided", without_ids(&all, &ids));
    let nobody = "/v1/quarantine/01920000-0000-7000-8000-000000000000";
    insta::assert_snapshot!("quarantine_unknown", it.get(nobody).await);
    for verb in ["retry", "discard"] {
        assert_eq!(it.post(&format!("{nobody}/{verb}"), "").await.status.as_u16(), 404);
    }
    assert_eq!(it.post(&path(2, "discard"), "because").await.status.as_u16(), 400, "a note is JSON");
    assert_eq!(it.get("/v1/quarantine/17").await.status.as_u16(), 400);
}
