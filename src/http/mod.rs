//! The HTTP face: parse, one call, map. No rule of the product lives here.
//!
//! One file a subject. Every handler's first argument is the [`auth::Caller`] it needs, so that what
//! a route asks of its caller stands in its signature; only `/healthz` and `/readyz` ask nothing.
//! Every answer that says no is a [`problem::Problem`].

pub mod auth;
mod conditional;
mod deliveries;
mod devices;
mod extract;
mod inbox;
mod live;
mod messages;
mod observe;
mod ops;
pub mod problem;
mod projections;
mod providers;
mod quarantine;
mod receipts;
mod serve;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    id::Cursor,
    ledger::{Ledger, LedgerError, live::Live},
};
use auth::Callers;
use problem::{Kind, Problem};

pub use serve::serve;

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
    /// What `/metrics` shows; none where this process has no recorder.
    pub metrics: Option<PrometheusHandle>,
}

/// How the API behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a read waits for the projection to reach the cursor it names.
    pub wait_for_projection: Duration,
    /// Bytes of a request body at the most.
    pub body_limit_bytes: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
}

/// Every route of the API.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    let router = inbox::DOORS.into_iter().fold(Router::new(), inbox::routes);
    router
        .route("/v1/messages", post(messages::send))
        .route("/v1/messages/{message}", get(messages::show))
        .route("/v1/recipients/{recipient}/messages", get(messages::list))
        .route("/v1/recipients/{recipient}/devices", get(devices::list))
        .route(
            "/v1/recipients/{recipient}/devices/{device}",
            get(devices::show).put(devices::put).delete(devices::remove),
        )
        .route("/v1/receipts", post(receipts::send))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/replay", post(deliveries::replay))
        .route("/v1/messages/{message}/deliveries/{delivery}", get(deliveries::show))
        .route("/v1/messages/{message}/deliveries/{delivery}/retry", post(deliveries::retry))
        .route("/v1/messages/{message}/deliveries/{delivery}/cancel", post(deliveries::cancel))
        .route("/v1/providers", get(providers::list))
        .route("/v1/providers/{name}/pause", post(providers::pause))
        .route("/v1/providers/{name}/resume", post(providers::resume))
        .route("/v1/projections", get(projections::status))
        .route("/v1/quarantine", get(quarantine::list))
        .route("/v1/quarantine/{id}", get(quarantine::show))
        .route("/v1/quarantine/{id}/retry", post(quarantine::retry))
        .route("/v1/quarantine/{id}/discard", post(quarantine::discard))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(app.settings.body_limit_bytes))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
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
