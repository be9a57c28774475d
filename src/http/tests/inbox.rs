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
        ("", &["m-4", "m-3", "m-1"][..]),
        ("?status=unread", &["m-4", "m-3"]),
        ("?status=unseen", &[]),
        ("?status=read", &["m-1"]),
        ("?archived=only", &["m-2"]),
        ("?archived=include", &["m-4", "m-3", "m-2", "m-1"]),
        ("?archived=include&status=unseen&category=pass", &["m-2"]),
        ("?category=other", &[]),
        ("?until=2026-11-22T09:00:00Z", &[]),
        ("?since=2026-11-22T09:00:00Z&status=read", &["m-1"]),
    ] {
        assert_eq!(it.get(&format!("{INBOX}{status}")).await.ids(), ids, "{status}");
    }
    insta::assert_snapshot!("counts", it.get(&format!("{INBOX}/counts")).await);

    for verb in ["unarchive", "delete"] {
        it.post(&format!("{INBOX}/m-2/{verb}"), "").await;
    }
    it.project().await;
    assert_eq!(it.get(&format!("{INBOX}?archived=include")).await.ids(), ["m-4", "m-3", "m-1"]);
    insta::assert_snapshot!("mark_of_a_deleted_item", it.post(&format!("{INBOX}/m-2/read"), "").await);
    insta::assert_snapshot!("mark_by_a_stranger", it.post("/v1/recipients/user-2/inbox/m-1/read", "").await);
}

#[tokio::test]
async fn words_of_routes_may_be_message_ids() {
    let it = Fixture::new().await;
    for id in ["counts", "read"] {
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
    let behind = it.post(&format!("{INBOX}/read"), up_to.clone()).await;
    assert_eq!(behind.status.as_u16(), 504, "the projection does not show it yet");
    it.project().await;
    it.send("newer").await;

    let answer = it.post(&format!("{INBOX}/read"), up_to.clone()).await;
    insta::assert_snapshot!("read_all", answer);
    let again = it.post(&format!("{INBOX}/read"), up_to.clone()).await.json();
    let same = json!({ "marked": 0, "cursor": answer.json()["cursor"], "counts": null });
    assert_eq!(again, same, "the log has it already, and the counts do not");
    it.project().await;
    let after = answer.json()["cursor"].as_str().unwrap().to_owned();
    let unread = it.get(&format!("{INBOX}?status=unread&after={after}")).await;
    assert_eq!(unread.ids(), ["newer"]);
    let counts = json!({"unseen": 1, "unread": 1, "total": 621, "categories": {
        "pass": {"unseen": 1, "unread": 1, "total": 621},
    }});
    assert_eq!(unread.json()["counts"], counts);
    let archived = it.get(&format!("{INBOX}?archived=only")).await.json();
    assert_eq!(archived["items"][0].get("readAt"), None, "what was put away stays as it is");
    let last = it.post(&format!("{INBOX}/read"), up_to).await.json();
    assert_eq!((&last["marked"], &last["counts"]), (&json!(0), &counts));
}

#[tokio::test]
async fn many_items_are_marked_by_name_and_each_is_answered() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3"] {
        it.send(id).await;
    }
    it.post("/v1/messages", super::message("strange", "user-2")).await;
    it.post(&format!("{INBOX}/m-2/clicked"), "").await;
    it.post(&format!("{INBOX}/m-3/delete"), "").await;
    it.project().await;
    let ids = json!({ "messageIds": ["m-1", "m-2", "m-3", "strange", "m-1", "none"] }).to_string();
    insta::assert_snapshot!("marked_many", it.post(&format!("{INBOX}/read"), ids.clone()).await);
    it.project().await;
    let again = it.post(&format!("{INBOX}/read"), ids).await.json();
    assert_eq!((&again["marked"], &again["counts"]["unread"]), (&json!(0), &json!(0)));
    let items = it.get(INBOX).await.json();
    assert!(
        items["items"][0]["clickedAt"].is_string() && items["items"][1].get("clickedAt").is_none(),
        "{items}"
    );
    let list = it.get(INBOX).await.json();
    for ids in [json!([]), json!(["none"])] {
        let answer = it.post(&format!("{INBOX}/read"), json!({ "messageIds": ids }).to_string()).await.json();
        assert_eq!((&answer["cursor"], &answer["counts"]), (&list["cursor"], &list["counts"]), "{answer}");
        assert_eq!(answer["results"].as_array().map(Vec::len), ids.as_array().map(Vec::len));
    }
    let many: Vec<_> = (0..501).map(|n| format!("m-{n}")).collect();
    let many = it.post(&format!("{INBOX}/read"), json!({ "messageIds": many }).to_string()).await;
    assert_eq!(many.status.as_u16(), 413);
    let refused = [
        json!({}),
        json!([]),
        json!({"messageIds": [], "upTo": "0-1"}),
        json!({"messageIds": ["a b"]}),
        json!({"messageIds": ["m-1"], "status": "all"}),
        json!({"messageIds": ["m-1"], "category": "pass"}),
    ];
    for body in refused {
        assert_eq!(it.post(&format!("{INBOX}/read"), body.to_string()).await.status.as_u16(), 400, "{body}");
    }
    assert_eq!(it.post(&format!("{INBOX}/adore"), "{}").await.status.as_u16(), 404);
}

#[tokio::test]
async fn what_matches_is_marked_up_to_a_cursor_and_can_be_brought_back() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3"] {
        it.send(id).await;
    }
    let other = super::message("m-4", "user-1").replace("pass", "news");
    let up_to = it.post("/v1/messages", other).await.json()["cursor"].clone();
    it.post(&format!("{INBOX}/m-2/read"), "").await;
    it.project().await;
    let mut all = json!({ "upTo": up_to, "category": "pass", "status": "unread" });
    let mark = async |verb: &str, body: &serde_json::Value| {
        let answer = it.post(&format!("{INBOX}/{verb}"), body.to_string()).await.json();
        it.project().await;
        answer["marked"].clone()
    };
    assert_eq!(mark("archive", &all).await, 2);
    assert_eq!(it.get(INBOX).await.ids(), ["m-4", "m-2"]);
    assert_eq!(mark("archive", &all).await, 0);
    all["status"] = json!("all");
    assert_eq!(mark("unarchive", &all).await, 2, "of those that are put away");
    assert_eq!(mark("delete", &all).await, 3);
    assert_eq!(it.get(INBOX).await.ids(), ["m-4"]);
}

#[tokio::test]
async fn a_list_that_is_known_is_not_sent_again() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2"] {
        it.send(id).await;
    }
    it.project().await;
    for (path, id) in [(INBOX.to_owned(), "m-1"), (format!("{INBOX}/counts"), "m-2")] {
        let first = it.get(&path).await;
        let tag = first.header("etag").unwrap().to_owned();
        let again = || Request::get(&path).header("if-none-match", &tag).body(Body::empty()).unwrap();
        let known = it.call(again()).await;
        assert_eq!((known.status.as_u16(), known.body.len(), known.header("etag")), (304, 0, Some(&*tag)));
        it.post(&format!("{INBOX}/{id}/seen"), "").await;
        it.project().await;
        assert_eq!(it.call(again()).await.status.as_u16(), 200, "{path}");
    }
}
