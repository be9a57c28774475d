//! `/v1/projections`: how far each projection is, rebuilding one, going back, cleaning up.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, Projections},
    deliveries::read,
    extract::{Body, Segments},
    problem::{Kind, Problem},
};
use crate::{
    clock::Timestamp,
    id::{Cursor, MessageId, Position, Shard},
    projection::{self, Projection},
    store::{ProjectError, ProjectionStatus, ShardStatus, SkippedEvent, Slot, StoreError},
    worker::rebuild::{RebuildError, operate::RolledBack},
};

/// Every projection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionList)]
pub(super) struct Answer {
    projections: Vec<Status>,
    /// Events that an operator decided to leave out of all of them.
    skipped: Vec<Skipped>,
}

/// An event that is left out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SkippedEvent)]
struct Skipped {
    event: Cursor,
    message_id: MessageId,
    /// Of this release or of another.
    r#type: String,
    reason: String,
    /// What a projection that waited before it said.
    problem: String,
    by: String,
    at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProjectionStatus)]
pub(super) struct Status {
    name: String,
    /// Of the fold and the tables that are live.
    version: i32,
    /// What this release makes, where that is another version: the live tables stand still.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted_version: Option<i32>,
    live_slot: &'static str,
    shards: Vec<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuilding: Option<Rebuilding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Old>,
    /// When the live slot was gone back to, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    rolled_back_at: Option<Timestamp>,
    /// How the last rebuild ended, with the rows that differed by their keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_result: Option<Map<String, Value>>,
}

/// The slot that is being built, or was and is not live.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Rebuilding {
    slot: &'static str,
    shards: Vec<Place>,
    /// Events folded.
    done_events: i64,
    /// Events in the log.
    all_events: i64,
    percent: f64,
    /// 0 where nobody is at it.
    events_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_seconds: Option<f64>,
    /// Machine and process; none where nobody is at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// When it last said that it is at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<Timestamp>,
}

/// The slot that was live before.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OldSlot)]
struct Old {
    slot: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
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

/// A projection in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ProjectionPath {
    /// `inbox`, `deliveries` or `messages`.
    name: String,
}

/// How to rebuild; the whole body may be left away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RebuildWish)]
pub(super) struct Wish {
    /// Begin at the first event even if an earlier rebuild was cut off.
    restart: bool,
    /// Make the result live even if it differs from what is live.
    accept: bool,
}

/// How to go back; the whole body may be left away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RollbackWish)]
pub(super) struct Back {
    /// Go back even to tables of another version, which stand still.
    accept: bool,
}

/// What holds now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SlotChanged)]
pub(super) struct Changed {
    name: String,
    /// The slot that was gone back to, or dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<&'static str>,
    /// Whether it was not so before.
    is_new: bool,
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
    let skipped = app.ledger.store().skipped_events().await?.into_iter().map(Skipped::from).collect();
    Ok(Json(Answer { projections: all(&app).await?, skipped }))
}

/// How one projection is.
#[utoipa::path(
    get, path = "/v1/projections/{name}", tag = "operations", operation_id = "showProjection",
    params(ProjectionPath),
    responses((status = OK, body = Status, description = "How far it is")),
    extensions(("x-problems" = json!([Kind::UnknownProjection]))),
    security(("apiKey" = ["projections"])),
)]
pub(super) async fn show(
    _: Caller<Projections>,
    State(app): State<Arc<App>>,
    Segments(ProjectionPath { name }): Segments<ProjectionPath>,
) -> Result<Json<Status>, Problem> {
    one(&app, named(&name)?).await.map(Json)
}

/// Starts a rebuild in this process, beside everything else.
#[utoipa::path(
    post, path = "/v1/projections/{name}/rebuild", tag = "operations", operation_id = "rebuildProjection",
    params(ProjectionPath),
    request_body = Option<Wish>,
    responses((status = ACCEPTED, body = Changed, description = "It has begun; ask how far it is")),
    extensions(("x-problems" = json!([Kind::UnknownProjection, Kind::RebuildUnderWay]))),
    security(("apiKey" = ["projections"])),
)]
pub(super) async fn rebuild(
    caller: Caller<Projections>,
    State(app): State<Arc<App>>,
    Segments(ProjectionPath { name }): Segments<ProjectionPath>,
    body: Body,
) -> Result<(StatusCode, Json<Changed>), Problem> {
    let projection = named(&name)?;
    let Wish { restart, accept } = read(&body, "{\"restart\": false, \"accept\": false}, or no body")?;
    app.rebuilds.start(projection, restart, accept).await?;
    tracing::info!(projection = name, by = %caller.actor, restart, accept, "a rebuild was asked for");
    Ok((StatusCode::ACCEPTED, Json(Changed { name, slot: None, is_new: true })))
}

/// Stops a rebuild, in whatever process, and drops what it has built.
#[utoipa::path(
    post, path = "/v1/projections/{name}/abort", tag = "operations", operation_id = "abortRebuild",
    params(ProjectionPath),
    responses((status = OK, body = Changed, description = "Nothing is being built")),
    extensions(("x-problems" = json!([Kind::UnknownProjection, Kind::RebuildUnderWay]))),
    security(("apiKey" = ["projections"])),
)]
pub(super) async fn abort(
    caller: Caller<Projections>,
    State(app): State<Arc<App>>,
    Segments(ProjectionPath { name }): Segments<ProjectionPath>,
) -> Result<Json<Changed>, Problem> {
    let rebuild = app.rebuilds.of(named(&name)?);
    let aborted = app.rebuilds.finish("abort a rebuild", async move { rebuild.abort().await }).await?;
    tracing::info!(projection = name, by = %caller.actor, "no rebuild is to go on");
    let slot = aborted.as_ref().and_then(|it| it.slot).map(Slot::as_str);
    Ok(Json(Changed { name, slot, is_new: aborted.is_some() }))
}

/// Makes the slot live again that was live before the last rebuild.
#[utoipa::path(
    post, path = "/v1/projections/{name}/rollback", tag = "operations", operation_id = "rollBackProjection",
    params(ProjectionPath),
    request_body = Option<Back>,
    responses((status = OK, body = Changed, description = "It is live")),
    extensions(("x-problems" = json!([Kind::UnknownProjection, Kind::RebuildUnderWay, Kind::SlotRefused]))),
    security(("apiKey" = ["projections"])),
)]
pub(super) async fn roll_back(
    caller: Caller<Projections>,
    State(app): State<Arc<App>>,
    Segments(ProjectionPath { name }): Segments<ProjectionPath>,
    body: Body,
) -> Result<Json<Changed>, Problem> {
    let rebuild = app.rebuilds.of(named(&name)?);
    let Back { accept } = read(&body, "{\"accept\": false}, or no body")?;
    let back = async move { rebuild.rollback(accept, &|_, _| {}).await };
    let (slot, is_new) = match app.rebuilds.finish("roll back", back).await? {
        RolledBack::Now { slot, .. } => (slot, true),
        RolledBack::Before { slot, .. } => (slot, false),
    };
    tracing::info!(projection = name, by = %caller.actor, %slot, is_new, "the old slot was gone back to");
    Ok(Json(Changed { name, slot: Some(slot.as_str()), is_new }))
}

/// Drops the slot that was live before the last rebuild.
#[utoipa::path(
    post, path = "/v1/projections/{name}/drop-old", tag = "operations", operation_id = "dropOldSlot",
    params(ProjectionPath),
    responses((status = OK, body = Changed, description = "There is no old slot")),
    extensions(("x-problems" = json!([Kind::UnknownProjection, Kind::RebuildUnderWay, Kind::SlotRefused]))),
    security(("apiKey" = ["projections"])),
)]
pub(super) async fn drop_old(
    caller: Caller<Projections>,
    State(app): State<Arc<App>>,
    Segments(ProjectionPath { name }): Segments<ProjectionPath>,
) -> Result<Json<Changed>, Problem> {
    let rebuild = app.rebuilds.of(named(&name)?);
    let dropped = app.rebuilds.finish("drop a slot", async move { rebuild.drop_old().await }).await?;
    tracing::info!(projection = name, by = %caller.actor, "the old slot is to be no more");
    Ok(Json(Changed { name, slot: dropped.map(Slot::as_str), is_new: dropped.is_some() }))
}

fn named(name: &str) -> Result<&'static dyn Projection, Problem> {
    projection::by_name(name).ok_or_else(|| {
        let detail = format!("there is no projection {:?}", name.chars().take(100).collect::<String>());
        Problem::new(Kind::UnknownProjection, detail, "GET /v1/projections lists those that there are")
    })
}

async fn all(app: &App) -> Result<Vec<Status>, StoreError> {
    let now = app.ledger.now();
    let status = app.ledger.store().projection_status(now).await?;
    Ok(status.into_iter().map(|it| Status::new(it, now)).collect())
}

async fn one(app: &App, projection: &dyn Projection) -> Result<Status, Problem> {
    let found = all(app).await?.into_iter().find(|it| it.name == projection.name());
    found.ok_or_else(|| RebuildError::NotThere(projection.name()).into())
}

impl Status {
    fn new(it: ProjectionStatus, now: Timestamp) -> Self {
        let places = |shards: Vec<ShardStatus>| shards.into_iter().map(Place::from).collect::<Vec<_>>();
        let wanted_version = projection::by_name(&it.name).map(Projection::version);
        let pace = it.pace(now);
        let builder = it.rebuild.at_it(now);
        let rebuilding = it.building.zip(pace).map(|(slot, pace)| Rebuilding {
            slot: slot.as_str(),
            shards: places(it.building_shards),
            done_events: pace.done_events,
            all_events: pace.all_events,
            percent: pace.percent,
            events_per_second: pace.events_per_s,
            left_seconds: pace.left_s,
            since: builder.map(|it| it.since),
            seen: builder.map(|it| it.seen),
            by: builder.map(|it| it.by.clone()),
        });
        let old = (!it.old_shards.is_empty()).then(|| Old {
            slot: it.live.other().as_str(),
            version: it.rebuild.old_version,
            shards: places(it.old_shards),
        });
        Self {
            name: it.name,
            version: it.version,
            wanted_version: wanted_version.filter(|wanted| *wanted != it.version),
            live_slot: it.live.as_str(),
            shards: places(it.shards),
            rebuilding,
            old,
            rolled_back_at: it.rebuild.rolled_back_at,
            last_result: it.rebuild.last_result.and_then(|it| serde_json::from_str(&it).ok()),
        }
    }
}

impl From<SkippedEvent> for Skipped {
    fn from(it: SkippedEvent) -> Self {
        let SkippedEvent { event, message_id, kind, reason, problem, actor, at } = it;
        Self { event, message_id, r#type: kind, reason, problem, by: actor, at }
    }
}

impl From<ShardStatus> for Place {
    fn from(it: ShardStatus) -> Self {
        let ShardStatus { shard, position, head, lag_events, lag, parked } = it;
        Self { shard, position, head, lag_events, lag_seconds: lag.as_secs_f64(), parked }
    }
}

impl From<RebuildError> for Problem {
    fn from(error: RebuildError) -> Self {
        let detail = error.to_string();
        match error {
            RebuildError::Store(error) | RebuildError::Project(ProjectError::Store(error)) => error.into(),
            RebuildError::UnderWay(_)
            | RebuildError::Contended(_)
            | RebuildError::Project(ProjectError::Taken(_)) => {
                let remedy = "GET the projection to see how far it is; POST …/abort stops it";
                Self::new(Kind::RebuildUnderWay, detail, remedy)
            }
            RebuildError::NotThere(_) => {
                Self::new(Kind::UnknownProjection, detail, "start a process with the role project once")
            }
            RebuildError::Stopped(_) => {
                Self::new(Kind::Unavailable, detail, "send the same request again").retry_after(1)
            }
            RebuildError::Refused(_)
            | RebuildError::BeyondLog { .. }
            | RebuildError::ProofExists(_)
            | RebuildError::OfMany(_)
            | RebuildError::TooMany(_)
            | RebuildError::OtherVersion(_)
            | RebuildError::Project(ProjectError::Parked { .. }) => {
                let remedy = "GET the projection to see its slots; `accept` goes back to other versions";
                Self::new(Kind::SlotRefused, detail, remedy)
            }
        }
    }
}
