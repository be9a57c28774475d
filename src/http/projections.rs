//! `/v1/projections`: how far each projection is.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    auth::{Caller, Projections},
    problem::Problem,
};
use crate::{
    id::{Position, Shard},
    store::{ProjectionStatus, ShardStatus},
};

/// Every projection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionList)]
pub(super) struct Answer {
    projections: Vec<Status>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProjectionStatus)]
struct Status {
    name: String,
    version: i32,
    live_slot: &'static str,
    shards: Vec<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuilding: Option<Rebuilding>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Rebuilding {
    slot: &'static str,
    shards: Vec<Place>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ShardPlace)]
struct Place {
    shard: Shard,
    position: Position,
    head: Position,
    lag_events: i64,
    lag_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<String>,
}

/// How every projection is.
#[utoipa::path(
    get, path = "/v1/projections", tag = "operations", operation_id = "listProjections",
    responses((status = OK, body = Answer, description = "How far each is")),
    security(("apiKey" = ["projections"])),
)]
pub(super) async fn status(
    _: Caller<Projections>,
    State(app): State<Arc<App>>,
) -> Result<Json<Answer>, Problem> {
    let status = app.ledger.store().projection_status(app.ledger.now()).await?;
    Ok(Json(Answer { projections: status.into_iter().map(Status::from).collect() }))
}

impl From<ProjectionStatus> for Status {
    fn from(it: ProjectionStatus) -> Self {
        let places = |shards: Vec<ShardStatus>| shards.into_iter().map(Place::from).collect();
        let building_shards = it.building_shards;
        Self {
            name: it.name,
            version: it.version,
            live_slot: it.live.as_str(),
            shards: places(it.shards),
            rebuilding: it
                .building
                .map(|slot| Rebuilding { slot: slot.as_str(), shards: places(building_shards) }),
        }
    }
}

impl From<ShardStatus> for Place {
    fn from(it: ShardStatus) -> Self {
        let ShardStatus { shard, position, head, lag_events, lag, parked } = it;
        Self { shard, position, head, lag_events, lag_seconds: lag.as_secs_f64(), parked }
    }
}
