//! Which web pages may read answers (CORS, in the Fetch standard). Tokens and keys go in `Authorization`, so no
//! page ever sends what a browser keeps for it: credentials in the standard's sense are not taken.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// How long a browser may keep what it was told.
const KEPT: Duration = Duration::from_hours(1);

/// What pages may send.
const SENT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("if-position"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-request-id"),
];
/// What pages may read beside the body.
const READ: [HeaderName; 6] = [
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-request-id"),
];

/// The pages that may read answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pages {
    /// None but those of the API's own origin.
    #[default]
    Own,
    /// Those of these origins.
    Of(Vec<HeaderValue>),
    /// All.
    Any,
}

impl Pages {
    /// What is around every route; nothing where there are no other pages.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let origins = match self {
            Self::Own => return None,
            Self::Of(origins) => AllowOrigin::list(origins.iter().cloned()),
            Self::Any => Any.into(),
        };
        let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
        let layer = CorsLayer::new().allow_origin(origins).allow_methods(methods).max_age(KEPT);
        Some(layer.allow_headers(SENT).expose_headers(READ))
    }
}
