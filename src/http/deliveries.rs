//! `/v1/deliveries` and the deliveries of a message: looking for them, and doing something about them.

use std::{str::FromStr, sync::Arc};

use axum::{Json, extract::State};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, Deliveries, MessagesRead},
    extract::{Body, IfPosition, Params, Segments, bad_request, parsed},
    messages::limit,
    openapi::Replayable,
    problem::{Kind, Problem},
};
use crate::{
    audit::{DeliveryStory, ListedDelivery},
    clock::Timestamp,
    event::FailureClass,
    id::{Cursor, DeliveryId, MessageId, RecipientId},
    ledger::{
        Marked,
        operate::{REPLAYED, Replay, Replayed, Replaying, Who},
    },
    metric,
    projection::deliveries::DeliveryStatus,
    store::{DeliveryFilter, DeliveryPlace},
};

/// Deliveries in one answer at the most.
const LIST_MAX: u64 = 200;
/// Deliveries that one request to replay looks at, at the most, but for the rest of a page.
const REPLAY_MAX: u64 = 10_000;
/// Characters of a reason at the most.
const REASON_MAX: usize = 1000;

/// Which deliveries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// How many at the most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// In which status; without it, `failed`.
    #[serde(default, deserialize_with = "status")]
    status: Option<DeliveryStatus>,
    /// Through which provider.
    provider: Option<String>,
    /// The kind of the last failure.
    #[serde(default)]
    class: Option<FailureClass>,
    /// Changed at this time or later.
    #[serde(default, deserialize_with = "parsed")]
    since: Option<Timestamp>,
    /// Changed before this time.
    #[serde(default, deserialize_with = "parsed")]
    until: Option<Timestamp>,
    /// Who it is for.
    #[serde(default, deserialize_with = "parsed")]
    recipient: Option<RecipientId>,
    /// The `next` of the answer before.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<DeliveryPlace>,
}

/// Deliveries in one status.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryList)]
pub(super) struct Listed {
    deliveries: Vec<ListedDelivery>,
    /// After which the next ones begin; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A delivery in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DeliveryPath {
    /// The message.
    message: MessageId,
    /// One push of it.
    delivery: DeliveryId,
}

/// How a delivery is to be tried again; the whole body may be left away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryWish)]
pub(super) struct Wish {
    #[schema(max_length = 1000, pattern = "^[^\\u0000]*$")]
    reason: Option<String>,
    provider: Option<String>,
}

/// Why; the whole body may be left away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CancelWish)]
pub(super) struct Why {
    #[schema(max_length = 1000, pattern = "^[^\\u0000]*$")]
    reason: Option<String>,
}

/// What became of a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryDone)]
pub(super) struct Done {
    /// `rescheduled` or `suppressed`.
    result: &'static str,
    cursor: Cursor,
}

/// What to deliver again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReplayWish {
    #[serde(default)]
    filter: ReplayFilter,
    provider: Option<String>,
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    rate_per_s: Option<f64>,
    #[schema(max_length = 1000, pattern = "^[^\\u0000]*$")]
    reason: String,
    #[serde(default = "yes")]
    #[schema(default = true)]
    dry_run: bool,
    start_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "parsed")]
    after: Option<DeliveryPlace>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct ReplayFilter {
    #[serde(deserialize_with = "replayable")]
    #[schema(value_type = Vec<Replayable>, default = json!(["failed"]))]
    status: Vec<DeliveryStatus>,
    provider: Option<String>,
    class: Option<FailureClass>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    recipient: Option<RecipientId>,
}

/// How far a replay came.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replayed)]
pub(super) struct ReplayAnswer {
    dry_run: bool,
    matched: u64,
    rescheduled: u64,
    skipped: Skipped,
    /// Whether there is more than one request does.
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_start_at: Option<Timestamp>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Skipped {
    expired: u64,
    unfit: u64,
    accepted: u64,
    under_way: u64,
}

/// Deliveries in one status, narrowed down.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "deliveries", operation_id = "listDeliveries",
    params(ListParams, IfPosition),
    responses((status = OK, body = Listed, description = "Deliveries in one status")),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn list(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
    IfPosition(position): IfPosition,
) -> Result<Json<Listed>, Problem> {
    let limit = limit(params.limit, 50, LIST_MAX)?;
    let status = params.status.unwrap_or(DeliveryStatus::Failed);
    if params.after.as_ref().is_some_and(|it| it.status != status) {
        let detail = format!("after is a place in another list than that of the status {status}");
        return Err(bad_request(detail, "send the next of an answer to the same question"));
    }
    app.wait_for("deliveries", position).await?;
    let filter = DeliveryFilter {
        provider: params.provider,
        class: params.class,
        since: params.since,
        until: params.until,
        recipient: params.recipient,
    };
    let found = app.ledger.store().deliveries(status, &filter, params.after.as_ref(), limit).await?;
    let (rows, next) = found;
    let deliveries = rows.into_iter().map(ListedDelivery::from).collect();
    Ok(Json(Listed { deliveries, next: next.map(|it| it.to_string()) }))
}

/// One delivery with every call made for it.
#[utoipa::path(
    get, path = "/v1/messages/{message}/deliveries/{delivery}", tag = "deliveries", operation_id = "showDelivery",
    params(DeliveryPath, IfPosition),
    responses((status = OK, body = DeliveryStory, description = "The delivery with its calls")),
    extensions(("x-problems" = json!([Kind::UnknownDelivery]))),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn show(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
    Segments(DeliveryPath { message, delivery }): Segments<DeliveryPath>,
    IfPosition(position): IfPosition,
) -> Result<Json<DeliveryStory>, Problem> {
    app.wait_for("deliveries", position).await?;
    let found = app.ledger.store().delivery(&message, delivery).await?;
    found.map(|it| Json(it.into())).ok_or_else(|| {
        let remedy = "check both ids; GET /v1/messages/{messageId} shows the deliveries of a message";
        Problem::new(Kind::UnknownDelivery, "the message has no such delivery", remedy)
    })
}

/// Lets a delivery be tried now.
#[utoipa::path(
    post, path = "/v1/messages/{message}/deliveries/{delivery}/retry", tag = "deliveries", operation_id = "retryDelivery",
    params(DeliveryPath),
    request_body = Option<Wish>,
    responses((status = OK, body = Done, description = "It is tried now")),
    extensions(("x-problems" = json!([
        Kind::UnknownMessage, Kind::UnknownDelivery, Kind::UnknownProvider, Kind::DeliveryAccepted,
        Kind::DeliveryUnderWay, Kind::DeliveryExpired
    ]))),
    security(("apiKey" = ["deliveries"])),
)]
pub(super) async fn retry(
    caller: Caller<Deliveries>,
    State(app): State<Arc<App>>,
    Segments(DeliveryPath { message, delivery }): Segments<DeliveryPath>,
    body: Body,
) -> Result<Json<Done>, Problem> {
    let Wish { reason, provider } = read(&body, "{\"reason\": \"why\", \"provider\": \"name\"}, or no body")?;
    let who = who(&caller.actor, reason)?;
    let Marked { cursor, .. } = app.ledger.retry_delivery(&message, delivery, provider, &who).await??;
    Ok(Json(Done { result: "rescheduled", cursor }))
}

/// Takes care that a delivery is not sent.
#[utoipa::path(
    post, path = "/v1/messages/{message}/deliveries/{delivery}/cancel", tag = "deliveries", operation_id = "cancelDelivery",
    params(DeliveryPath),
    request_body = Option<Why>,
    responses((status = OK, body = Done, description = "It is not sent")),
    extensions(("x-problems" = json!([
        Kind::UnknownMessage, Kind::UnknownDelivery, Kind::DeliveryAccepted, Kind::DeliveryUnderWay,
        Kind::DeliveryExpired
    ]))),
    security(("apiKey" = ["deliveries"])),
)]
pub(super) async fn cancel(
    caller: Caller<Deliveries>,
    State(app): State<Arc<App>>,
    Segments(DeliveryPath { message, delivery }): Segments<DeliveryPath>,
    body: Body,
) -> Result<Json<Done>, Problem> {
    let Why { reason } = read(&body, "{\"reason\": \"why\"}, or no body")?;
    let who = who(&caller.actor, reason)?;
    let Marked { cursor, .. } = app.ledger.cancel_delivery(&message, delivery, &who).await??;
    Ok(Json(Done { result: "suppressed", cursor }))
}

/// Delivers again what was not delivered, or counts it.
#[utoipa::path(
    post, path = "/v1/deliveries/replay", tag = "deliveries", operation_id = "replayDeliveries",
    request_body = ReplayWish,
    responses((status = OK, body = ReplayAnswer, description = "How far it came")),
    extensions(("x-problems" = json!([Kind::UnknownProvider]))),
    security(("apiKey" = ["deliveries"])),
)]
pub(super) async fn replay(
    caller: Caller<Deliveries>,
    State(app): State<Arc<App>>,
    Body(body): Body,
) -> Result<Json<ReplayAnswer>, Problem> {
    let wish: ReplayWish = serde_json::from_slice(&body).map_err(|error| {
        let remedy = "send {\"reason\": \"why\", \"filter\": {…}, \"ratePerS\": 50, \"dryRun\": false}";
        bad_request(format!("the body cannot be read: {error}"), remedy)
    })?;
    if wish.rate_per_s.is_some_and(|it| !(0.001..=1_000_000.0).contains(&it)) {
        return Err(bad_request("ratePerS is out of bounds", "use a number from 0.001 to 1000000"));
    }
    let who = who(&caller.actor, Some(wish.reason))?;
    let ReplayFilter { status, provider, class, since, until, recipient } = wish.filter;
    let is_dry = wish.dry_run;
    let replay = Replay {
        statuses: status,
        filter: DeliveryFilter { provider, class, since, until, recipient },
        through: wish.provider,
        rate_per_s: wish.rate_per_s,
        start_at: wish.start_at,
        after: wish.after,
        is_dry,
    };
    let mut replaying = app.ledger.replay(replay, who)?;
    while replaying.page().await? && replaying.so_far().matched < REPLAY_MAX {}
    Ok(Json(ReplayAnswer::of(&replaying, is_dry)))
}

impl ReplayAnswer {
    fn of(replaying: &Replaying, dry_run: bool) -> Self {
        let next = replaying.place();
        let &Replayed { matched, rescheduled, expired, unfit, accepted, under_way } = replaying.so_far();
        Self {
            dry_run,
            matched,
            rescheduled,
            skipped: Skipped { expired, unfit, accepted, under_way },
            more: next.is_some(),
            next: next.map(ToString::to_string),
            next_start_at: next.map(|_| replaying.next_due()),
        }
    }
}

impl Default for ReplayFilter {
    fn default() -> Self {
        let status = vec![DeliveryStatus::Failed];
        Self { status, provider: None, class: None, since: None, until: None, recipient: None }
    }
}

/// Who calls, with a reason that can be kept.
pub(super) fn who(actor: &str, reason: Option<String>) -> Result<Who, Problem> {
    let reason = reason.filter(|it| !it.trim().is_empty());
    if reason.as_ref().is_some_and(|it| it.contains('\0') || it.chars().count() > REASON_MAX) {
        let remedy = format!("use up to {REASON_MAX} characters, none U+0000");
        return Err(bad_request("the reason cannot be kept", remedy));
    }
    Ok(Who { by: actor.to_owned(), ingress: metric::HTTP, reason })
}

/// What a body says that may be left away.
pub(super) fn read<T: Default + for<'de> Deserialize<'de>>(body: &Body, form: &str) -> Result<T, Problem> {
    if body.0.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body.0)
        .map_err(|error| bad_request(format!("the body cannot be read: {error}"), format!("send {form}")))
}

const fn yes() -> bool {
    true
}

/// A status by its word.
struct Word(DeliveryStatus);

impl FromStr for Word {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = || DeliveryStatus::ALL.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
        DeliveryStatus::from_word(word).map(Self).ok_or_else(|| format!("{word:?} is none of: {}", all()))
    }
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DeliveryStatus>, D::Error> {
    Ok(parsed::<D, Word>(deserializer)?.map(|it| it.0))
}

/// Statuses that a replay may take up.
fn replayable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DeliveryStatus>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let status = |word: String| match DeliveryStatus::from_word(&word) {
        Some(status) if REPLAYED.contains(&status) => Ok(status),
        _ => {
            let all = REPLAYED.map(DeliveryStatus::as_str).join(", ");
            Err(serde::de::Error::custom(format!("{word:?} is none of: {all}")))
        }
    };
    words.into_iter().map(status).collect()
}
