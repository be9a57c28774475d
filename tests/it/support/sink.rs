//! A push endpoint: real HTTP on a random port, which answers as the test says and remembers every
//! call.

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, State, connect_info::Connected},
    http::{HeaderMap, Method, Request, Response, Uri},
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::eventually;

/// The endpoint. It closes with the test.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// One call that arrived, in the order of arrival.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: SystemTime,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a call is answered with.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    delay: Duration,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Response,
    Hang,
    Reset,
}

type Script = Box<dyn FnMut(&Call) -> Answer + Send>;

struct Shared {
    calls: Mutex<Vec<Call>>,
    queue: Mutex<VecDeque<Answer>>,
    script: Mutex<Script>,
}

impl Sink {
    /// Opens an endpoint that answers every call with 200 and `{}`.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            queue: Mutex::default(),
            script: Mutex::new(Box::new(|_| Answer::status(200))),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let service = router.into_make_service_with_connect_info::<Connection>();
        let server = tokio::spawn(async move {
            axum::serve(SinkListener(listener), service).await.unwrap();
        });
        Self { address, shared, server }
    }

    /// The endpoint's address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers the next calls with these, one each, before the script has its turn again.
    pub(crate) fn answer_next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.queue.lock().unwrap().extend(answers);
    }

    /// Answers every call for which nothing is queued by this script.
    pub(crate) fn answer_with(&self, script: impl FnMut(&Call) -> Answer + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// Every call so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// How many calls there were so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.calls.lock().unwrap().len()
    }

    /// Waits for at least so many calls, and gives all of them.
    pub(crate) async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Call> {
        let what = format!("{count} calls of the push endpoint");
        eventually(&what, deadline, async || self.count() >= count).await;
        self.calls()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Call {
    /// A header, where it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Answer {
    /// This status with an empty JSON object.
    pub(crate) fn status(status: u16) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = "{}".to_owned();
        Self { status, headers, body, delay: Duration::ZERO, ending: Ending::Response }
    }

    /// The request is taken, and no answer ever comes.
    pub(crate) fn hang() -> Self {
        Self { ending: Ending::Hang, ..Self::status(200) }
    }

    /// The request is taken, and the connection is reset.
    pub(crate) fn reset() -> Self {
        Self { ending: Ending::Reset, ..Self::status(200) }
    }

    /// With this header too.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body instead.
    pub(crate) fn body(self, body: &str) -> Self {
        Self { body: body.to_owned(), ..self }
    }

    /// After this time.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request<Body>,
) -> Response<Body> {
    let at = SystemTime::now();
    let (head, body) = request.into_parts();
    // A caller that breaks off in mid-request leaves no call behind.
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return Response::default() };
    let call = Call { at, method: head.method, uri: head.uri, headers: head.headers, body };
    let answer = {
        let queued = shared.queue.lock().unwrap().pop_front();
        queued.unwrap_or_else(|| (shared.script.lock().unwrap())(&call))
    };
    shared.calls.lock().unwrap().push(call);
    tokio::time::sleep(answer.delay).await;
    match answer.ending {
        Ending::Hang => std::future::pending().await,
        Ending::Reset => connection.reset.store(true, Ordering::Release),
        Ending::Response => {}
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

/// What a handler knows about the connection that its call came in on.
#[derive(Debug, Clone)]
struct Connection {
    reset: Arc<AtomicBool>,
}

struct SinkListener(TcpListener);

/// A stream that a handler can cut: the next write resets the connection instead.
struct SinkStream {
    stream: TcpStream,
    connection: Connection,
}

impl Listener for SinkListener {
    type Io = SinkStream;
    type Addr = Connection;

    async fn accept(&mut self) -> (SinkStream, Connection) {
        let (stream, _) = Listener::accept(&mut self.0).await;
        let _ = stream.set_nodelay(true); // fails only where the caller has gone already
        let connection = Connection { reset: Arc::default() };
        (SinkStream { stream, connection: connection.clone() }, connection)
    }

    fn local_addr(&self) -> io::Result<Connection> {
        Ok(Connection { reset: Arc::default() })
    }
}

impl Connected<IncomingStream<'_, SinkListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, SinkListener>) -> Self {
        stream.remote_addr().clone()
    }
}

impl AsyncRead for SinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.connection.reset.load(Ordering::Acquire) {
            self.stream.set_zero_linger()?; // closing now sends a reset
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
