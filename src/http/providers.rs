//! `/v1/providers`: which there are, how much waits for each, and pausing them.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, MessagesRead, Providers},
    deliveries::{read, who},
    extract::{Body, Segments},
    problem::{Kind, Problem},
};
use crate::ledger::providers::ProviderStatus;

/// Every provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderList)]
pub(super) struct Answer {
    providers: Vec<ProviderStatus>,
}

/// A provider in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ProviderPath {
    /// By its configured name.
    name: String,
}

/// Why; the whole body may be left away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ControlWish)]
pub(super) struct Why {
    #[schema(max_length = 1000, pattern = "^[^\\u0000]*$")]
    reason: Option<String>,
}

/// What holds now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Controlled {
    name: String,
    /// `paused` or `running`.
    state: &'static str,
    /// Whether it was not so before.
    is_new: bool,
}

/// Every provider, configured or not, that anything is known of.
#[utoipa::path(
    get, path = "/v1/providers", tag = "providers", operation_id = "listProviders",
    responses((status = OK, body = Answer, description = "By name")),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn list(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
) -> Result<Json<Answer>, Problem> {
    Ok(Json(Answer { providers: app.ledger.providers().await? }))
}

/// Stops all calls to a provider, for every process.
#[utoipa::path(
    post, path = "/v1/providers/{name}/pause", tag = "providers", operation_id = "pauseProvider",
    params(ProviderPath),
    request_body = Option<Why>,
    responses((status = OK, body = Controlled, description = "No process calls it")),
    extensions(("x-problems" = json!([Kind::UnknownProvider]))),
    security(("apiKey" = ["providers"])),
)]
pub(super) async fn pause(
    caller: Caller<Providers>,
    app: State<Arc<App>>,
    path: Segments<ProviderPath>,
    body: Body,
) -> Result<Json<Controlled>, Problem> {
    control(&caller, &app.0, path.0, &body, true).await
}

/// Lets a provider be called again.
#[utoipa::path(
    post, path = "/v1/providers/{name}/resume", tag = "providers", operation_id = "resumeProvider",
    params(ProviderPath),
    request_body = Option<Why>,
    responses((status = OK, body = Controlled, description = "It is called again")),
    extensions(("x-problems" = json!([Kind::UnknownProvider]))),
    security(("apiKey" = ["providers"])),
)]
pub(super) async fn resume(
    caller: Caller<Providers>,
    app: State<Arc<App>>,
    path: Segments<ProviderPath>,
    body: Body,
) -> Result<Json<Controlled>, Problem> {
    control(&caller, &app.0, path.0, &body, false).await
}

async fn control(
    caller: &Caller<Providers>,
    app: &App,
    ProviderPath { name }: ProviderPath,
    body: &Body,
    is_pause: bool,
) -> Result<Json<Controlled>, Problem> {
    let Why { reason } = read(body, "{\"reason\": \"why\"}, or no body")?;
    let who = who(&caller.actor, reason)?;
    let is_new = app.ledger.control_provider(&name, is_pause, &who).await??;
    Ok(Json(Controlled { name, state: if is_pause { "paused" } else { "running" }, is_new }))
}
