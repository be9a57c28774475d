//! The inbox as a stream: what is told, in which order, from which place on.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use futures_util::StreamExt as _;
use serde_json::Value;
use tower::ServiceExt;

use super::{Callers, Fixture, Keys, message};
use crate::id::RecipientId;

const STREAM: &str = "/v1/recipients/user-1/inbox/stream";

/// An open stream.
struct Client(BodyDataStream);

/// An event as a browser hands it out.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    what: String,
    id: String,
    data: Value,
}

impl Client {
    async fn open(it: &Fixture, last_event_id: &str) -> Self {
        Self::open_as(it, None, last_event_id).await
    }

    async fn open_as(it: &Fixture, key: Option<&str>, last_event_id: &str) -> Self {
        let mut request = Request::get(STREAM).header("last-event-id", last_event_id);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = ServiceExt::oneshot(it.router.clone(), request.body(Body::empty()).unwrap()).await;
        let response = response.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (header("content-type"), header("cache-control")),
            ("text/event-stream".into(), "no-cache".into())
        );
        Self(response.into_body().into_data_stream())
    }

    /// The next event; none where nothing comes.
    async fn next(&mut self) -> Option<Heard> {
        let mut text = self.next_block().await?;
        if text.starts_with("retry: ") {
            text = self.next_block().await?;
        }
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(": ").to_owned()
        };
        let data = serde_json::from_str(&line("data")).unwrap_or_else(|_| panic!("{text}"));
        Some(Heard { what: line("event"), id: line("id"), data })
    }

    async fn next_block(&mut self) -> Option<String> {
        let bytes = tokio::time::timeout(Duration::from_millis(300), self.0.next()).await.ok()??.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Waits for its end, whatever comes before.
    async fn ended(&mut self) {
        let end = async { while self.0.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(30), end).await.expect("the stream goes on");
    }

    /// What comes until there is silence: type, id, and the message it is about.
    async fn rest(&mut self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        while let Some(Heard { what, id, data }) = self.next().await {
            assert_eq!(data["cursor"], id.as_str(), "{data}");
            let message = data["item"]["messageId"].as_str().or(data["messageId"].as_str());
            all.push((what, id, message.unwrap_or("-").to_owned()));
        }
        all
    }
}

impl Fixture {
    /// Folds what is there and says so to who listens.
    async fn announce(&self) {
        self.project().await;
        self.live.tell([&RecipientId::new("user-1").unwrap()]);
    }

    async fn mark(&self, id: &str, verb: &str) {
        let answer = self.post(&format!("/v1/recipients/user-1/inbox/{id}/{verb}"), "").await;
        assert_eq!(answer.status.as_u16(), 200, "{answer}");
    }
}

fn told(all: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    all.iter().map(|&(what, id, message)| (what.to_owned(), id.to_owned(), message.to_owned())).collect()
}

#[tokio::test]
async fn every_change_is_told_with_the_counts_and_a_place_to_go_on_from() {
    let it = Fixture::new().await;
    let mut client = Client::open(&it, "").await;
    let pause = client.next_block().await.unwrap();
    assert!(pause.starts_with("retry: ") && !pause.contains("data:"), "{pause}");
    let ready = client.next().await.unwrap();
    assert_eq!((ready.what.as_str(), ready.id.as_str()), ("ready", "0-0"));
    assert_eq!(client.next().await, None, "nothing happened");

    it.send("m-1").await;
    it.announce().await;
    let added = client.next().await.unwrap();
    assert_eq!((added.what.as_str(), added.id.as_str()), ("added", "0-1"));
    insta::assert_json_snapshot!("live_added", added.data);
    it.mark("m-1", "read").await;
    it.announce().await;
    let changed = client.next().await.unwrap();
    assert_eq!((changed.what.as_str(), changed.id.as_str()), ("changed", "0-2"));
    assert_eq!((&changed.data["counts"]["unread"], &changed.data["counts"]["total"]), (&0.into(), &1.into()));
    it.mark("m-1", "delete").await;
    it.announce().await;
    let removed = client.next().await.unwrap();
    insta::assert_json_snapshot!("live_removed", removed.data);
    it.announce().await;
    assert_eq!(client.next().await, None, "a hint without news is not told");

    // A list says where a stream goes on from it.
    it.send("m-2").await;
    it.project().await;
    let list = it.get("/v1/recipients/user-1/inbox").await.json();
    assert_eq!(list["cursor"], "0-4");
    it.send("m-3").await;
    it.project().await;
    let mut late = Client::open(&it, "0-4").await;
    assert_eq!(late.rest().await, told(&[("added", "0-5", "m-3")]));
}

#[tokio::test]
async fn who_comes_back_is_told_what_they_missed_once_and_in_order() {
    let it = Fixture::new().await;
    for id in ["m-1", "m-2", "m-3", "m-4"] {
        it.send(id).await;
    }
    it.mark("m-1", "read").await; // 5
    it.mark("m-3", "archive").await; // 6
    it.mark("m-4", "delete").await; // 7
    it.mark("m-1", "clicked").await; // 8
    it.project().await;
    for (place, expected) in [
        ("0-0", &[("added", "0-1", "m-1"), ("added", "0-2", "m-2"), ("added", "0-3", "m-3")][..]),
        ("0-1", &[("added", "0-2", "m-2"), ("added", "0-3", "m-3"), ("changed", "0-8", "m-1")]),
        ("0-3", &[("changed", "0-6", "m-3"), ("changed", "0-8", "m-1")]),
        ("0-4", &[("changed", "0-6", "m-3"), ("removed", "0-7", "m-4"), ("changed", "0-8", "m-1")]),
        ("0-7", &[("changed", "0-8", "m-1")]),
        ("0-8", &[]),
        ("0-99", &[("resync", "0-8", "-")]),
        ("3-1", &[("resync", "0-8", "-")]),
    ] {
        assert_eq!(Client::open(&it, place).await.rest().await, told(expected), "from {place}");
    }
}

#[tokio::test]
async fn who_missed_too_much_is_told_to_list_anew() {
    let it = Fixture::new().await;
    for part in 0..3 {
        let list: Vec<_> = (0..400).map(|n| message(&format!("m-{part}-{n}"), "user-1")).collect();
        it.post("/v1/messages", format!("[{}]", list.join(","))).await;
    }
    it.project().await;
    let mut client = Client::open(&it, "0-100").await;
    assert_eq!(client.rest().await, told(&[("resync", "0-1200", "-")]));
    it.send("m-1").await;
    it.announce().await;
    assert_eq!(client.rest().await, told(&[("added", "0-1201", "m-1")]), "it goes on from there");
    assert_eq!(Client::open(&it, "0-201").await.rest().await.len(), 1000);
}

#[tokio::test]
async fn what_cannot_be_a_place_is_refused_and_places_are_bounded() {
    let it = Fixture::new().await;
    for (query, id) in [("?after=x", ""), ("", "x"), ("?from=0-1", "")] {
        let request = Request::get(format!("{STREAM}{query}")).header("last-event-id", id);
        let answer = it.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), 400, "{query} {id}: {answer}");
    }
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(Client::open(&it, "").await);
    }
    let refused = it.get(STREAM).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("10")));
    open.pop();
    Client::open(&it, "").await;
    let keyed = Fixture::with(Keys::new(Vec::new()), |_| ()).await;
    assert_eq!(keyed.get("/v1/inbox/stream").await.status.as_u16(), 401);
}

#[tokio::test]
async fn a_stream_ends_with_the_key_that_opened_it() {
    let recheck = Duration::from_millis(20);
    let it = Fixture::called_by(Callers::default(), |settings| settings.recheck = recheck).await;
    let mut open = Client::open(&it, "").await;
    let (revoked_id, revoked) = it.issued(3600).await;
    let [(_, ending), (_, lasting)] = [it.issued(60).await, it.issued(3600).await];
    // That there is a key now is known five seconds later; to the stream that was open to everybody, too.
    it.clock.advance(Duration::from_secs(5));
    open.ended().await;
    it.clock.advance(Duration::from_secs(5));
    let [mut revoked, mut ending, mut lasting] = [
        Client::open_as(&it, Some(&revoked), "").await,
        Client::open_as(&it, Some(&ending), "").await,
        Client::open_as(&it, Some(&lasting), "").await,
    ];
    for client in [&mut revoked, &mut ending, &mut lasting] {
        assert_eq!(client.next().await.unwrap().what, "ready");
    }
    it.ledger.store().revoke_api_key(&revoked_id, "me", it.ledger.now()).await.unwrap();
    assert_eq!(revoked.next().await, None, "silence, for what was looked up is believed for a moment");
    it.live.tell([&RecipientId::new("user-1").unwrap()]);
    it.clock.advance(Duration::from_secs(5));
    revoked.ended().await;
    it.clock.advance(Duration::from_secs(50));
    ending.ended().await;
    let sent =
        Request::post("/v1/messages").header("authorization", format!("Bearer {}", it.issued(60).await.1));
    it.call(sent.body(Body::from(message("m-1", "user-1"))).unwrap()).await;
    it.announce().await;
    assert_eq!(lasting.next().await.unwrap().what, "added", "another's end is nobody else's");
}
