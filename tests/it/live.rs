//! An inbox streamed over two processes: who is cut off again and again misses nothing and hears nothing twice.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    database::{Kind, TestDb},
    http_client,
    service::Service,
};

/// How often the client is cut off.
const ROUNDS: usize = 200;
/// Messages that arrive in each round.
const ARRIVALS: usize = 25;
/// How long news may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that is where it was told to be last.
struct Listener {
    http: Client,
    /// The id of the last event that came whole.
    last: String,
    /// Places of all events, as they came.
    places: Vec<i64>,
    added: Vec<String>,
}

impl Listener {
    /// Listens until so many events came, or nothing for so long.
    async fn listen(&mut self, service: &Service, count: usize, patience: Duration) {
        let request = self.http.get(service.url("/v1/recipients/user-1/inbox/stream"));
        let Ok(response) = request.header("last-event-id", &self.last).send().await else { return };
        if !response.status().is_success() {
            return;
        }
        let (mut body, mut text, mut heard) = (response.bytes_stream(), String::new(), 0);
        while heard < count {
            let Ok(Some(Ok(bytes))) = timeout(patience, body.next()).await else { return };
            text.push_str(std::str::from_utf8(&bytes).unwrap());
            while heard < count
                && let Some(end) = text.find("\n\n")
            {
                let event: String = text.drain(..end + 2).collect();
                heard += usize::from(self.hear(&event));
            }
        }
    }

    /// Takes an event in; whether it was one, and no comment.
    fn hear(&mut self, event: &str) -> bool {
        let line = |name: &str| event.lines().find_map(|it| it.strip_prefix(name)).map(str::trim);
        let (Some(what), Some(id), Some(data)) = (line("event:"), line("id:"), line("data:")) else {
            return false;
        };
        id.clone_into(&mut self.last);
        self.places.push(id.split_once('-').unwrap().1.parse().unwrap());
        let data: Value = serde_json::from_str(data).unwrap();
        match what {
            "added" => self.added.push(data["item"]["messageId"].as_str().unwrap().to_owned()),
            "changed" => {}
            other => panic!("{other}: {data}"),
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cut_off_200_times_hears_each_of_5000_arrivals_once_and_in_order() {
    let db = TestDb::new(Kind::Postgres).await;
    let config = format!(
        "[database]\nurl = \"{}\"\nmax_connections = 8\n[api]\nbind = \"127.0.0.1:{{port}}\"\n[telemetry]\nlog = \"warn\"\n",
        db.url()
    );
    let mut services = [Service::new(&config), Service::new(&config)];
    for service in &mut services {
        service.start().await;
    }
    let http = Client::builder().no_proxy().build().unwrap();
    let mut listener = Listener { http, last: String::new(), places: Vec::new(), added: Vec::new() };
    let sender = http_client();
    let first = sender.get(services[0].url("/v1/recipients/user-1/inbox")).send().await.unwrap();
    listener.last = first.json::<Value>().await.unwrap()["cursor"].as_str().unwrap().to_owned();

    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            services[1].kill().await;
            services[1].start().await;
        }
        let [one, other] = &services;
        let (through, heard_at) = if round.is_multiple_of(2) { (one, other) } else { (other, one) };
        let message = |n: usize, user: &str| json!({"messageId": format!("{user}-{round}-{n}"), "notificationType": "APP_NOTIFICATION", "recipientId": user, "title": "News"});
        let all: Vec<_> = (0..ARRIVALS).flat_map(|n| [message(n, "user-1"), message(n, "user-2")]).collect();
        let (late, early) = all.split_at(ARRIVALS);
        let send = async {
            for part in [early, late] {
                let sent = sender.post(through.url("/v1/messages")).json(part).send().await.unwrap();
                assert!(sent.status().is_success(), "{}", sent.text().await.unwrap());
            }
            if !round.is_multiple_of(5) {
                return;
            }
            let read = through.url(&format!("/v1/recipients/user-1/inbox/user-1-{round}-0/read"));
            assert!(sender.post(read).send().await.unwrap().status().is_success());
        };
        let patience = Duration::from_millis(fastrand::u64(10..150));
        tokio::join!(send, listener.listen(heard_at, fastrand::usize(1..120), patience));
    }
    while listener.added.len() < ROUNDS * ARRIVALS {
        let before = listener.places.len();
        // No more than there are: heartbeats would keep it waiting for ever.
        let missing = ROUNDS * ARRIVALS - listener.added.len();
        listener.listen(&services[fastrand::usize(0..2)], missing, PATIENCE).await;
        assert!(listener.places.len() > before, "nothing came any more after {}", listener.added.len());
    }
    assert!(listener.places.is_sorted_by(|one, next| one < next), "in order, and none twice");
    let mut ids = listener.added.clone();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), listener.added.len()), (ROUNDS * ARRIVALS, ROUNDS * ARRIVALS));
}
