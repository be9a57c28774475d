//! `/healthz`, `/readyz`, `/metrics`: for whoever keeps the service running.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    App,
    auth::{Caller, Metrics},
    problem::{Kind, Problem},
};
use crate::{
    metric,
    projection::{self, Projection},
};

/// How long the database may take to show that it answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the process is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `up` or `ready`.
    status: &'static str,
}

/// The process runs and answers. It asks nothing else, so that a database that is away does not get
/// the process restarted.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "showHealth",
    responses((status = OK, body = Health, description = "The process runs")),
)]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "up" })
}

/// Whether to send requests here: the database answers, and every projection is there to be read. How
/// far they are behind plays no part: all processes share one log, so that taking one away for it
/// would take all of them away; `/metrics` tells of it.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "showReadiness",
    responses((status = OK, body = Health, description = "The database answers, and the projections are there")),
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Health>, Problem> {
    let states = app.ledger.store().projection_states();
    let not_ready = |detail: &'static str| {
        Problem::new(Kind::Unavailable, detail, "send requests to another process for now").retry_after(1)
    };
    match timeout(PATIENCE, states).await {
        Ok(Ok(states)) if projection::ALL.iter().all(|it| states.iter().any(|s| s.name == it.name())) => {
            Ok(Json(Health { status: "ready" }))
        }
        Ok(Ok(_)) => Err(not_ready("the projections are not there yet")),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(not_ready("the database does not answer in time")),
    }
}

/// What this process counts, in Prometheus' text format. How far the projections are behind is looked
/// up at this moment; if the database does not answer, the rest is shown without it.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "showMetrics",
    responses((status = OK, body = String, content_type = "text/plain", description = "Prometheus text")),
    extensions(("x-problems" = json!([Kind::UnknownRoute]))),
    security(("apiKey" = ["metrics"])),
)]
pub(super) async fn metrics(_: Caller<Metrics>, State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let Some(handle) = &app.metrics else {
        let detail = "this process records no metrics";
        return Err(Problem::new(Kind::UnknownRoute, detail, "ask a process that serves"));
    };
    let now = app.ledger.now();
    let status = app.ledger.store().projection_status(now);
    if let Ok(Ok(status)) = timeout(PATIENCE, status).await {
        for state in status {
            let lag = state.shards.iter().map(|it| it.lag).max().unwrap_or_default();
            metric::projection_age(&state.name, lag);
            let name = &state.name;
            let ours = projection::by_name(name).map(Projection::version);
            metric::projection_stands_still(name, ours.is_some_and(|it| it != state.version));
            let pace = state.pace(now).filter(|_| state.rebuild.at_it(now).is_some());
            metric::rebuild(name, pace.map(|it| it.events_per_s));
            for it in &state.building_shards {
                metric::rebuild_place(name, it.shard, it.position.0, it.head.0);
            }
        }
    }
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((text, handle.render()).into_response())
}
