//! For tests: a server on this machine that keeps what it is sent and answers what it is told.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use tokio::net::TcpListener;

/// What the server answers: status, headers, body.
pub(super) type Reply = (u16, &'static [(&'static str, &'static str)], &'static str);

/// What the server saw.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// A header as text; the empty text where it is not there.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }
}

type Kept = Arc<Mutex<Vec<Call>>>;

/// Runs `client` against a server that gives this answer to everything; also returns the calls it saw.
pub(super) async fn sink<T, C: Future<Output = T>>(
    reply: Reply,
    client: impl FnOnce(String) -> C,
) -> (T, Vec<Call>) {
    let kept = Kept::default();
    let answer = move |State(kept): State<Kept>, method, uri, headers, body| async move {
        kept.lock().unwrap().push(Call { method, uri, headers, body });
        let (status, headers, text) = reply;
        let response = Response::builder().status(status);
        let response = headers.iter().fold(response, |it, (name, value)| it.header(*name, *value));
        response.body(Body::from(text)).unwrap()
    };
    let router = Router::new().fallback(answer).with_state(Arc::clone(&kept));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let said = tokio::select! {
        ended = async { axum::serve(listener, router).await } => panic!("{ended:?}"),
        said = client(base) => said,
    };
    let calls = kept.lock().unwrap().clone();
    (said, calls)
}
