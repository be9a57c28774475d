//! `/v1/providers`: which there are, how much waits for each, and pausing them.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{
    App,
    auth::{Caller, MessagesRead, Providers},
    deliveries::{read, who},
    extract::{Body, Segments},
    problem::Problem,
};
use crate::ledger::providers::ProviderStatus;

/// Every provider.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    providers: Vec<ProviderStatus>,
}

/// A provider in the path.
#[derive(Debug, Deserialize)]
pub(super) struct ProviderPath {
    name: String,
}

/// Why; the whole body may be left away.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: Option<String>,
}

/// What holds now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Controlled {
    name: String,
    state: &'static str,
    /// Whether it was not so before.
    is_new: bool,
}

/// Every provider, configured or not, that anything is known of.
pub(super) async fn list(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
) -> Result<Json<Answer>, Problem> {
    Ok(Json(Answer { providers: app.ledger.providers().await? }))
}

/// Stops all calls to a provider, for every process.
pub(super) async fn pause(
    caller: Caller<Providers>,
    app: State<Arc<App>>,
    path: Segments<ProviderPath>,
    body: Body,
) -> Result<Json<Controlled>, Problem> {
    control(&caller, &app.0, path.0, &body, true).await
}

/// Lets a provider be called again.
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
