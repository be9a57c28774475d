//! The HTTP face: parse, one call, map. No rule of the product lives here.
//!
//! One file a subject. Every handler's first argument is the [`auth::Caller`] it needs, so that what
//! a route asks of its caller stands in its signature; only `/healthz` and `/readyz` ask nothing.
//! Every answer that says no is a [`problem::Problem`].

pub mod auth;
mod conditional;
mod cors;
mod deliveries;
mod devices;
mod extract;
mod inbox;
mod live;
mod messages;
mod observe;
pub mod openapi;
mod ops;
mod past;
pub mod problem;
mod projections;
mod providers;
mod quarantine;
mod receipts;
mod serve;
mod stats;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::compression::{CompressionLayer, DefaultPredicate, Predicate as _, predicate::SizeAbove};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    id::Cursor,
    ledger::{Ledger, LedgerError, live::Live},
    worker::rebuild::background::Rebuilds,
};
use auth::Callers;
use problem::{Kind, Problem};

pub use cors::Pages;
pub use live::RECHECK;
pub use serve::serve;

/// Bytes from which on an answer is compressed for those who ask for it.
const PACKED_MIN: u16 = 1024;

/// What the API answers from.
#[derive(Debug)]
pub struct App {
    /// The ledger.
    pub ledger: Ledger,
    /// Who may call.
    pub callers: Callers,
    /// How it behaves.
    pub settings: Settings,
    /// Who listens to which inbox here.
    pub live: Arc<Live>,
    /// What rebuilds projections here.
    pub rebuilds: Rebuilds,
    /// What `/metrics` shows; none where this process has no recorder.
    pub metrics: Option<PrometheusHandle>,
}

/// How the API behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a read waits for the projection to reach the cursor it names.
    pub wait_for_projection: Duration,
    /// Bytes of a request body at the most.
    pub body_limit_bytes: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How often an open stream asks whether its caller is let in still; [`RECHECK`] unless a test hurries.
    pub recheck: Duration,
    /// Which web pages may read answers.
    pub pages: Pages,
}

/// Every route of the API.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    let (router, _) = routes().split_for_parts();
    let pages = app.settings.pages.layer();
    let packed = DefaultPredicate::new().and(SizeAbove::new(PACKED_MIN));
    let router = router
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(app.settings.body_limit_bytes))
        .layer(CompressionLayer::new().compress_when(packed))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe::observe));
    // Outermost: a browser asks before it sends who is there, and reads refusals too.
    let router = match pages {
        Some(pages) => router.layer(pages),
        None => router,
    };
    router.with_state(app)
}

/// Every route with its description.
fn routes() -> OpenApiRouter<Arc<App>> {
    let router =
        inbox::DOORS.into_iter().fold(OpenApiRouter::with_openapi(openapi::begin()), |router, door| {
            let mut inbox = inbox::routes();
            openapi::at_door(inbox.get_openapi_mut(), door);
            router.nest(door, inbox)
        });
    router
        .routes(routes!(messages::send))
        .routes(routes!(messages::show))
        .routes(routes!(messages::list))
        .routes(routes!(past::difference))
        .routes(routes!(devices::list))
        .routes(routes!(devices::show, devices::put, devices::remove))
        .routes(routes!(receipts::send))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::replay))
        .routes(routes!(deliveries::show))
        .routes(routes!(deliveries::retry))
        .routes(routes!(deliveries::cancel))
        .routes(routes!(stats::show))
        .routes(routes!(providers::list))
        .routes(routes!(providers::pause))
        .routes(routes!(providers::resume))
        .routes(routes!(projections::status))
        .routes(routes!(projections::show))
        .routes(routes!(projections::rebuild))
        .routes(routes!(projections::abort))
        .routes(routes!(projections::roll_back))
        .routes(routes!(projections::drop_old))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::show))
        .routes(routes!(quarantine::retry))
        .routes(routes!(quarantine::discard))
        .routes(routes!(ops::healthz))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::metrics))
        .routes(routes!(openapi::show))
}

impl App {
    /// Waits until a projection shows `cursor`, as long as the settings allow.
    async fn wait_for(&self, projection: &str, cursor: Option<Cursor>) -> Result<(), Problem> {
        let Some(cursor) = cursor else { return Ok(()) };
        if cursor.shard.0 >= self.ledger.store().identity().shards {
            let detail = format!("{cursor} is no cursor of this ledger");
            return Err(extract::bad_request(detail, "send a cursor that an answer of this ledger gave"));
        }
        let wait = self.settings.wait_for_projection;
        if self.ledger.wait_for(projection, cursor, wait).await? {
            return Ok(());
        }
        let detail = format!("the {projection} projection did not reach {cursor} within {wait:?}");
        let remedy = "ask again, or leave the cursor away to read what is there; GET /v1/projections \
                      shows how far it is";
        Err(Problem::new(Kind::ProjectionBehind, detail, remedy).retry_after(1))
    }
}

async fn unknown_route(uri: Uri) -> Problem {
    let detail = match uri.path() {
        path if path.starts_with("/v1/recipients/") => "there is no such path below a recipient".to_owned(),
        path => format!("there is nothing at {}", path.chars().take(200).collect::<String>()),
    };
    Problem::new(Kind::UnknownRoute, detail, "see docs/http-api.md for the routes")
}

async fn unknown_method(method: Method) -> Problem {
    let detail = format!("{method} is not possible here");
    Problem::new(Kind::UnknownMethod, detail, "use a method that the Allow header names")
}

/// What a ledger that answered too little for what it was asked comes to.
const fn no_answer() -> LedgerError {
    LedgerError::Stopping
}

#[cfg(test)]
mod tests;
