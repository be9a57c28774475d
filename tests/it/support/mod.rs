//! What integration tests stand on: databases, a queue, a push endpoint and the service itself, each
//! one real. Whatever a test starts here ends with the test.

use std::{
    future::Future,
    net::TcpListener,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) mod counterparts;
pub(crate) mod database;
pub(crate) mod history;
pub(crate) mod ledger;
pub(crate) mod nginx;
pub(crate) mod postgres;
pub(crate) mod queue;
pub(crate) mod script;
pub(crate) mod served;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod sink;
pub(crate) mod wiremock;

/// How often [`eventually`] looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until the condition holds; panics with what was awaited when the deadline passes.
pub(crate) async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A variable that `tests/run` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run tests/run, which starts the servers that the tests need")
    })
}

/// A port on loopback that nobody listens on. It lies below the range from which the system hands out
/// ports, so that no outgoing connection takes it in the meantime.
pub(crate) fn free_port() -> u16 {
    const RANGE: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = RANGE.start + NEXT.fetch_add(1, Ordering::Relaxed) % (RANGE.end - RANGE.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A name that no other test uses: letters, digits and underscores, safe as an identifier in SQL.
pub(crate) fn random_name() -> String {
    format!("test_{}", uuid::Uuid::new_v4().simple())
}

/// An HTTP client that goes straight to loopback and gives up after ten seconds.
pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

/// Runs a future to its end where no `await` is possible, such as in `drop`.
fn block_on_elsewhere<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let thread = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    });
    let _ = thread.join(); // its panic, if any, is already printed
}
