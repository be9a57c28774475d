//! The inbox: lists, counts, marks, and reading one's own write.

use axum::{body::Body, http::Request};
use serde_json::json;

use super::Fixture;

const INBOX: &str = "/v1/recipients/user-1/inbox";

#[tokio::test]
async fn the_list_comes_newest_first_in_parts_with_counts() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3"] {
        it.send(id).await;
    }
    it.project().await;
    let first = it.get(&format!("{INBOX}?limit=2")).await;
    insta::assert_snapshot!("inbox_first_part", first);
    let next = first.json()["next"].as_str().unwrap().to_owned();
    let second = it.get(&format!("{INBOX}?limit=2&before={next}")).await;
    assert_eq!(second.ids(), ["m-1"]);
    assert_eq!(second.json().get("next"), None, "nothing follows");
    assert_eq!(second.json()["counts"]["total"], 3);
    insta::assert_snapshot!("inbox_of_nobody", it.get("/v1/recipients/nobody/inbox").await);
}

#[tokio::test]
async fn an_item_shows_what_was_sent() {
    let it = Fixture::new().await;
    let body = r#"{"messageId":"m-1","notificationType":"APP_NOTIFICATION","recipientId":"user-1",
        "title":"Your pass expires","body":"Tomorrow.","category":"pass","link":"app://pass/7",
        "imageUrl":"https://example.com/pass.png","data":{"passId":"7","nested":{"b":1,"a":[1.5]}},
        "locale":"ko-KR","source":"billing","occurredAt":"2026-11-22T08:59:00Z",
        "expiresAt":"2026-11-23T09:00:00Z"}"#;
    it.post("/v1/messages", body).await;
    it.project().await;
    insta::assert_snapshot!("inbox_item", it.get(INBOX).await);
}

#[tokio::test]
async fn marks_are_events_that_are_appended_once_and_filter_the_list() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3", "m-4"] {
        it.send(id).await;
    }
    let read = it.post(&format!("{INBOX}/m-1/read"), "").await;
    insta::assert_snapshot!("marked", read);
    let again = it.post(&format!("{INBOX}/m-1/read"), "").await;
    assert_eq!(again.json(), read.json(), "what is so already appends nothing");
    for (id, verb) in [("m-2", "archive"), ("m-3", "seen"), ("m-4", "read"), ("m-4", "unread")] {
        assert_eq!(it.post(&format!("{INBOX}/{id}/{verb}"), "").await.status.as_u16(), 200, "{id} {verb}");
    }
    it.project().await;
    for (status, ids) in [
        ("active", &["m-4", "m-3", "m-1"][..]),
        ("unread", &["m-4", "m-3"]),
        ("archived", &["m-2"]),
        ("all", &["m-4", "m-3", "m-2", "m-1"]),
    ] {
        assert_eq!(it.get(&format!("{INBOX}?status={status}")).await.ids(), ids, "{status}");
    }
    insta::assert_snapshot!("counts", it.get(&format!("{INBOX}/counts")).await);

    for verb in ["unarchive", "delete"] {
        it.post(&format!("{INBOX}/m-2/{verb}"), "").await;
    }
    it.project().await;
    assert_eq!(it.get(&format!("{INBOX}?status=all")).await.ids(), ["m-4", "m-3", "m-1"]);
    insta::assert_snapshot!("mark_of_a_deleted_item", it.post(&format!("{INBOX}/m-2/read"), "").await);
    insta::assert_snapshot!("mark_by_a_stranger", it.post("/v1/recipients/user-2/inbox/m-1/read", "").await);
}

#[tokio::test]
async fn words_of_routes_may_be_message_ids() {
    let it = Fixture::new().await;
    for id in ["counts", "read-all"] {
        it.send(id).await;
        let answer = it.post(&format!("{INBOX}/{id}/read"), "").await;
        assert_eq!(answer.status.as_u16(), 200, "{id}: {answer}");
    }
}

#[tokio::test]
async fn a_read_that_names_a_cursor_shows_it_or_says_that_it_cannot() {
    let it = Fixture::new().await;
    let cursor = it.send("m-1").await;
    insta::assert_snapshot!("projection_behind", it.get(&format!("{INBOX}?after={cursor}")).await);
    let behind = it.get(&format!("{INBOX}/counts?after={cursor}")).await;
    assert_eq!((behind.status.as_u16(), behind.header("retry-after")), (504, Some("1")));
    assert_eq!(it.get(INBOX).await.ids(), [""; 0], "without a cursor it does not wait");
    it.project().await;
    assert_eq!(it.get(&format!("{INBOX}?after={cursor}")).await.ids(), ["m-1"]);
    let request = Request::get(INBOX).header("if-position", &cursor).body(Body::empty()).unwrap();
    assert_eq!(it.call(request).await.ids(), ["m-1"]);
}

#[tokio::test]
async fn read_all_marks_what_was_shown_and_nothing_newer() {
    let it = Fixture::new().await;
    let many: Vec<_> = (0..620).map(|n| super::message(&format!("m-{n}"), "user-1")).collect();
    for part in many.chunks(310) {
        it.post("/v1/messages", format!("[{}]", part.join(","))).await;
    }
    it.post(&format!("{INBOX}/m-7/archive"), "").await;
    it.post(&format!("{INBOX}/m-8/read"), "").await;
    let shown = it.send("shown").await;
    let up_to = json!({ "upTo": shown }).to_string();
    let behind = it.post(&format!("{INBOX}/read-all"), up_to.clone()).await;
    assert_eq!(behind.status.as_u16(), 504, "the projection does not show it yet");
    it.project().await;
    it.send("newer").await;

    let answer = it.post(&format!("{INBOX}/read-all"), up_to.clone()).await;
    insta::assert_snapshot!("read_all", answer);
    let again = it.post(&format!("{INBOX}/read-all"), up_to.clone()).await.json();
    assert_eq!(again, json!({ "marked": 0, "cursor": answer.json()["cursor"] }), "the log has it already");
    it.project().await;
    let after = answer.json()["cursor"].as_str().unwrap().to_owned();
    let unread = it.get(&format!("{INBOX}?status=unread&after={after}")).await;
    assert_eq!(unread.ids(), ["newer"]);
    assert_eq!(unread.json()["counts"], json!({"unseen": 1, "unread": 1, "total": 621}));
    let archived = it.get(&format!("{INBOX}?status=archived")).await.json();
    assert_eq!(archived["items"][0].get("readAt"), None, "what was put away stays as it is");
    assert_eq!(it.post(&format!("{INBOX}/read-all"), up_to).await.json()["marked"], 0);
}
