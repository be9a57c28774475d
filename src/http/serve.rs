//! The sockets: one task a connection, and their end.
//!
//! Whoever connects and sends nothing, or half a request, holds a place for so long and no longer; at
//! the stop he holds up nobody. How long a request may take that has come whole is decided around the
//! routes, not here.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    serve::{Listener, ListenerExt},
};
use futures_util::future::pending;
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::{App, router};

/// How long the head of a request may take to come, and so how long a connection may be idle. More
/// than the minute that load balancers keep idle connections for, so that it is they who close them.
pub(super) const HEAD_MAX: Duration = Duration::from_secs(75);
/// What a connection or a body still has, after the stop, to become a whole request.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a caller may take none of what is sent: who reads no more is cut, and nothing gathers for them.
const SEND_MAX: Duration = Duration::from_secs(30);

/// The stop, for those who read a body.
#[derive(Debug, Clone)]
pub(super) struct Stopping(CancellationToken);

/// What one connection asked for.
#[derive(Debug, Default)]
struct Asked {
    anything: AtomicBool,
    under_way: AtomicUsize,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
struct UnderWay(Arc<Asked>);

/// Answers on this socket until `stop`, and then finishes the answers it owes. A connection without a
/// whole request is owed none.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) -> io::Result<()> {
    // Answers are small: they must not wait for a full packet.
    let mut listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
    });
    let router = with_stop(router(app), &stop);
    // Dropped by a hard stop, it takes its connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, _) = listener.accept() => {
                connections.spawn(converse(stream, router.clone(), stop.clone()));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn with_stop(router: Router, stop: &CancellationToken) -> Router {
    // With the state given, routes are put together here and not for every request.
    router.layer(Extension(Stopping(stop.clone()))).with_state(())
}

/// Answers on one connection until its end.
async fn converse<C>(connection: C, router: Router, stop: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(Asked::default());
    let service = {
        let (handler, asked) = (TowerToHyperService::new(router), Arc::clone(&asked));
        service_fn(move |request: hyper::Request<Incoming>| {
            let under_way = UnderWay::begin(&asked);
            let answer = handler.call(request);
            async move {
                let _under_way = under_way;
                answer.await
            }
        })
    };
    let mut connection = TimeoutStream::new(connection);
    connection.set_write_timeout(Some(SEND_MAX));
    let connection = Box::pin(connection);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    builder.http2().timer(TokioTimer::new());
    let mut conversation = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = conversation.as_mut() => Some(ended),
        () = asked.nothing() => return,
        () = stop.cancelled() => None,
    };
    if let Some(ended) = ended {
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended badly");
        }
        return;
    }
    conversation.as_mut().graceful_shutdown();
    loop {
        let owes = asked.is_under_way();
        // Nothing owed before and after: what was answered has had this long to be sent.
        if timeout(STOP_GRACE, conversation.as_mut()).await.is_ok() || !(owes || asked.is_under_way()) {
            return;
        }
    }
}

impl Stopping {
    /// Ends when the service begins to stop.
    pub(super) async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Ends when a body that has not come by now is not waited for any more.
    pub(super) async fn too_late(&self) {
        self.0.cancelled().await;
        sleep(STOP_GRACE).await;
    }
}

impl Asked {
    /// Ends when nothing was asked for in all the time that the first request has.
    async fn nothing(&self) {
        sleep(HEAD_MAX).await;
        if self.anything.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }

    fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }
}

impl UnderWay {
    fn begin(asked: &Arc<Asked>) -> Self {
        asked.anything.store(true, Ordering::Relaxed);
        asked.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(asked))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;
    use crate::http::{extract::Body, problem::Problem};

    const SLOW: Duration = Duration::from_secs(20);

    /// A caller's end of a connection, whose other end is answered in the background.
    fn connect(stop: &CancellationToken, background: &mut JoinSet<()>) -> DuplexStream {
        let slow = || async {
            sleep(SLOW).await;
            "done"
        };
        let body = |Body(body): Body| async move { Ok::<_, Problem>(body) };
        let router = Router::new().route("/slow", get(slow)).route("/body", post(body));
        let (ours, theirs) = duplex(4096);
        background.spawn(converse(theirs, with_stop(router, stop), stop.clone()));
        ours
    }

    /// Sends this, asks for the stop at once if it is to be, and reads to the end: what came and when.
    async fn send(text: &str, is_stopped: bool) -> (String, Duration) {
        let (stop, mut background, began) = (CancellationToken::new(), JoinSet::new(), Instant::now());
        let mut connection = connect(&stop, &mut background);
        connection.write_all(text.as_bytes()).await.unwrap();
        if is_stopped {
            // Once what was sent is read: the clock moves only when nothing else is to do.
            sleep(Duration::from_millis(1)).await;
            stop.cancel();
        }
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        background.join_next().await.unwrap().unwrap();
        (answer, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_answers_and_not_for_the_rest_of_a_request() {
        let soon = STOP_GRACE * 2;
        for (sent, answer, within) in [
            ("", "", soon),
            ("GET /slow HTTP/1.1\r\nHost:", "", soon),
            ("PRI * HTTP/2.0\r\n", "", soon),
            ("POST /body HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf", "503 Service Unavailable", soon),
            ("GET /slow HTTP/1.1\r\n\r\n", "done", SLOW + soon),
            ("POST /body HTTP/1.1\r\nContent-Length: 5\r\n\r\nwhole", "whole", soon),
        ] {
            let (answered, took) = send(sent, true).await;
            assert!(
                answered.contains(answer) && answered.is_empty() == answer.is_empty(),
                "{sent:?}: {answered}"
            );
            assert!(took <= within, "{sent:?}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_and_silence_end_a_connection_in_time() {
        for sent in ["", "GET /slow HTTP/1.1\r\nHost:", "PRI * HT"] {
            let (_, took) = send(sent, false).await;
            assert!((HEAD_MAX..=HEAD_MAX + SLOW).contains(&took), "{sent:?}: {took:?}");
        }
        let (answered, took) = send("GET /slow HTTP/1.1\r\n\r\n", false).await;
        assert!(answered.ends_with("done") && took >= SLOW + HEAD_MAX, "{took:?}: {answered}");
    }
}
