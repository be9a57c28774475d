//! Around every request: who calls, the time limit, panics, the request id, metrics and the log.
//!
//! The log has the route, never the path: paths name recipients. Requests that went well are logged
//! at `debug` only, since a busy ledger takes thousands a second; metrics count all of them.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::{
    App,
    auth::Known,
    problem::{Kind, Problem},
};
use crate::metric;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids of callers are replaced.
const REQUEST_ID_MAX: usize = 128;

/// Runs the request.
pub(super) async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request_id(request.headers().get(REQUEST_ID));
    let caller = Known::default();
    request.extensions_mut().insert(caller.clone());

    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut panicked = false;
    let mut response = match timeout(app.settings.request_timeout, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            panicked = true;
            Problem::fault().into_response()
        }
        Err(_) => {
            let detail = "the request took longer than api.request_timeout_ms";
            let remedy = "send it again; what was taken in is answered as redelivered";
            Problem::new(Kind::TimedOut, detail, remedy).retry_after(1).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id.clone());
    caller.tell(headers);

    let (status, took) = (response.status(), began.elapsed());
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    metric::answered(known(&method), route, status.as_u16(), took);
    let (actor, request_id) = (caller.actor(), id.to_str().unwrap_or_default());
    let (status_code, took_us) = (status.as_u16(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    macro_rules! log {
        ($level:ident, $text:literal) => {
            tracing::$level!(%method, route, status = status_code, took_us, actor, request_id, $text)
        };
    }
    match status {
        _ if panicked => log!(error, "a request panicked"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => log!(warn, "a request was denied"),
        _ if status.is_server_error() => log!(warn, "a request was not done"),
        _ if status.is_client_error() => log!(info, "a request was refused"),
        _ => log!(debug, "a request was answered"),
    }
    response
}

/// The caller's own id where it can be written anywhere, else a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let plain = |text: &&str| {
        !text.is_empty() && text.len() <= REQUEST_ID_MAX && text.bytes().all(|it| it.is_ascii_graphic())
    };
    if let Some(given) = given.filter(|value| value.to_str().ok().as_ref().is_some_and(plain)) {
        return given.clone();
    }
    let mut text = [0; 16];
    let bytes = fastrand::u64(..).to_be_bytes();
    // Eight bytes are sixteen digits.
    let _ = hex::encode_to_slice(bytes, &mut text);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// The method as a label: callers can make up others without end.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
