//! `/v1/quarantine`: input that could not become a message, and what is to be done with it.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, Quarantine},
    extract::{Body, Params, Segments, bad_request, parsed},
    messages::{limit, word_of},
    problem::{Kind, Problem},
};
use crate::{
    clock::Timestamp,
    id::{Cursor, QuarantineId},
    ledger::intake::Retried,
    message::hide::hide_tokens,
    store::{Decided, Decision, Held, HeldEntry, HeldState},
};

/// Inputs in one answer at the most.
const LIST_MAX: u64 = 200;
/// Characters of a note at the most.
const NOTE_MAX: usize = 1000;

/// Which inputs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// How many at the most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// Where they stand; without it, `held`.
    #[serde(default)]
    #[param(inline)]
    state: Which,
    /// The `next` of the answer before.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<QuarantineId>,
}

/// Where the inputs to list stand.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Which {
    #[default]
    Held,
    Retried,
    Discarded,
    All,
}

/// Inputs, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuarantineList)]
pub(super) struct Listed {
    inputs: Vec<Input>,
    /// After which the next ones begin; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<QuarantineId>,
}

/// One input, without its body.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuarantinedInput)]
pub(super) struct Input {
    id: QuarantineId,
    state: &'static str,
    source: String,
    code: String,
    reason: String,
    first_at: Timestamp,
    last_at: Timestamp,
    times_seen: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<DecidedBy>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DecidedBy {
    at: Timestamp,
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// One input, whole: its body as text, or as hexadecimal digits where it is no text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuarantinedWhole)]
pub(super) struct Whole {
    #[serde(flatten)]
    input: Input,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
}

/// What became of an input that is a message now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    result: &'static str,
    cursor: Cursor,
}

/// What became of an input that is not needed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Discarded {
    id: QuarantineId,
    state: &'static str,
}

/// An input in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InputPath {
    /// As the list shows it.
    id: QuarantineId,
}

/// Why somebody decided so; the whole body may be left away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DecisionNote)]
pub(super) struct Reason {
    #[schema(max_length = 1000, pattern = "^[^\\u0000]*$")]
    note: Option<String>,
}

/// The inputs, the oldest first.
#[utoipa::path(
    get, path = "/v1/quarantine", tag = "quarantine", operation_id = "listQuarantine",
    params(ListParams),
    responses((status = OK, body = Listed, description = "The oldest first")),
    security(("apiKey" = ["quarantine"])),
)]
pub(super) async fn list(
    _: Caller<Quarantine>,
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Listed>, Problem> {
    let limit = limit(params.limit, 50, LIST_MAX)?;
    let state = match params.state {
        Which::Held => Some(HeldState::Held),
        Which::Retried => Some(HeldState::Retried),
        Which::Discarded => Some(HeldState::Discarded),
        Which::All => None,
    };
    let mut found = app.ledger.store().quarantine_list(state, params.after, limit + 1).await?;
    let more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let inputs: Vec<_> = found.into_iter().map(Input::from).collect();
    let next = inputs.last().filter(|_| more).map(|it| it.id);
    Ok(Json(Listed { inputs, next }))
}

/// How much of an input to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowParams {
    /// As it came, with its push tokens.
    #[serde(default)]
    #[param(default = false)]
    whole: bool,
}

/// One input; its push tokens only where it is asked for whole.
#[utoipa::path(
    get, path = "/v1/quarantine/{id}", tag = "quarantine", operation_id = "showQuarantined",
    params(InputPath, ShowParams),
    responses((status = OK, body = Whole, description = "The input")),
    extensions(("x-problems" = json!([Kind::UnknownInput]))),
    security(("apiKey" = ["quarantine"])),
)]
pub(super) async fn show(
    _: Caller<Quarantine>,
    State(app): State<Arc<App>>,
    Segments(path): Segments<InputPath>,
    Params(params): Params<ShowParams>,
) -> Result<Json<Whole>, Problem> {
    let Held { entry, body, attributes } =
        app.ledger.store().quarantine_get(path.id).await?.ok_or_else(unknown)?;
    let (body, body_hex) = match String::from_utf8(body) {
        Ok(text) if params.whole => (Some(text), None),
        Ok(text) => (Some(hide_tokens(&text)), None),
        Err(error) => (None, params.whole.then(|| hex::encode(error.as_bytes()))),
    };
    let attributes = RawValue::from_string(attributes).ok();
    Ok(Json(Whole { input: entry.into(), body, body_hex, attributes }))
}

/// Reads an input again, and appends it if it is a message now.
#[utoipa::path(
    post, path = "/v1/quarantine/{id}/retry", tag = "quarantine", operation_id = "retryQuarantined",
    params(InputPath),
    request_body = Option<Reason>,
    responses((status = OK, body = Accepted, description = "It is a message now")),
    extensions(("x-problems" = json!([Kind::UnknownInput, Kind::AlreadyDecided, Kind::InvalidMessage]))),
    security(("apiKey" = ["quarantine"])),
)]
pub(super) async fn retry(
    caller: Caller<Quarantine>,
    State(app): State<Arc<App>>,
    Segments(path): Segments<InputPath>,
    body: Body,
) -> Result<Json<Accepted>, Problem> {
    let note = note(&body)?;
    match app.ledger.retry_held(path.id, &caller.actor, note).await? {
        Retried::Accepted(receipt) => {
            let (result, cursor) = word_of(receipt);
            Ok(Json(Accepted { result, cursor }))
        }
        Retried::Rejected(rejection) => Err(Problem::from(rejection).of(Kind::InvalidMessage)),
        Retried::Unknown => Err(unknown()),
        Retried::Already(decided) => Err(already("retried", &decided)),
    }
}

/// Decides that an input is not needed.
#[utoipa::path(
    post, path = "/v1/quarantine/{id}/discard", tag = "quarantine", operation_id = "discardQuarantined",
    params(InputPath),
    request_body = Option<Reason>,
    responses((status = OK, body = Discarded, description = "It is put away")),
    extensions(("x-problems" = json!([Kind::UnknownInput, Kind::AlreadyDecided]))),
    security(("apiKey" = ["quarantine"])),
)]
pub(super) async fn discard(
    caller: Caller<Quarantine>,
    State(app): State<Arc<App>>,
    Segments(InputPath { id }): Segments<InputPath>,
    body: Body,
) -> Result<Json<Discarded>, Problem> {
    let (store, by) = (app.ledger.store(), caller.actor.as_ref().to_owned());
    let decided = Decided { at: app.ledger.now(), by, note: note(&body)? };
    if store.quarantine_decide(id, Decision::Discarded, &decided).await? {
        return Ok(Json(Discarded { id, state: HeldState::Discarded.as_str() }));
    }
    let entry = store.quarantine_get(id).await?.ok_or_else(unknown)?.entry;
    let state = entry.state.as_str();
    Err(already(state, &entry.decided.unwrap_or(decided)))
}

fn note(Body(body): &Body) -> Result<Option<String>, Problem> {
    let reason: Reason = if body.trim_ascii().is_empty() {
        Reason::default()
    } else {
        let remedy = "send {\"note\": \"why\"}, or no body";
        serde_json::from_slice(body)
            .map_err(|error| bad_request(format!("the body cannot be read: {error}"), remedy))?
    };
    match &reason.note {
        Some(note) if note.contains('\0') || note.chars().count() > NOTE_MAX => Err(bad_request(
            "the note cannot be kept",
            format!("use up to {NOTE_MAX} characters, none U+0000"),
        )),
        _ => Ok(reason.note),
    }
}

fn unknown() -> Problem {
    let detail = "there is no such input in quarantine";
    Problem::new(Kind::UnknownInput, detail, "GET /v1/quarantine lists what there is")
}

fn already(state: &str, decided: &Decided) -> Problem {
    let detail = format!("the input was {state} at {} by {}", decided.at, decided.by);
    Problem::new(Kind::AlreadyDecided, detail, "leave it as it is")
}

impl From<HeldEntry> for Input {
    fn from(entry: HeldEntry) -> Self {
        let HeldEntry { id, state, source, code, reason, first_at, last_at, times_seen, decided } = entry;
        let decided = decided.map(|Decided { at, by, note }| DecidedBy { at, by, note });
        Self { id, state: state.as_str(), source, code, reason, first_at, last_at, times_seen, decided }
    }
}
