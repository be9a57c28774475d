//! The description of the API for programs: made from the very routes that answer, so that the two cannot
//! come to differ, and served at `/openapi.json`.
//!
//! What a handler says of itself stands above it. What holds for all of one shape, such as that whoever
//! sends a body may send too much, is added here and nowhere else: handlers name only the problems that are
//! their own, under `x-problems`.

mod examples;
mod headers;
mod schemas;

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use utoipa::{
    IntoParams, OpenApi,
    openapi::{
        ObjectBuilder, Ref, RefOr, Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{Schema, Type},
        security::SecurityRequirement,
    },
};

pub(super) use schemas::{Receipts, Registration, Replayable, Sending, SendingAnswer, Verb};

use super::{
    extract::{Beside, IfPosition},
    messages::{Results, Sent},
    problem::{Body, Kind},
};
use crate::{
    event::Metadata,
    id::{Cursor, DeliveryId, DeviceId, MessageId, QuarantineId, RecipientId},
};

/// The header `If-None-Match`, in the description.
pub(super) struct IfNoneMatch;

/// The header `Last-Event-ID`, in the description.
pub(super) struct LastEventId;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "notification-ledger",
        description = "An event-sourced notification ledger: messages in, inboxes and audited pushes out. A path \
            that is not described answers 404, a method that is not described 405. Every refusal is a Problem.",
    ),
    components(schemas(
        Body, Cursor, DeliveryId, DeviceId, MessageId, Metadata, QuarantineId, RecipientId, Results, Sent, Verb,
    )),
    tags(
        (name = "messages", description = "Sending, and what became of it"),
        (name = "inbox", description = "What recipients read, by two doors: their own, and that of services"),
        (name = "devices", description = "Where pushes go"),
        (name = "receipts", description = "What devices did with pushes"),
        (name = "deliveries", description = "Pushes, one by one"),
        (name = "providers", description = "Who pushes"),
        (name = "quarantine", description = "Input that is no message"),
        (name = "operations", description = "For whoever runs it"),
    ),
)]
struct Api;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().into());

/// The description, as JSON.
#[must_use]
pub fn document() -> String {
    let described = super::routes().into_openapi();
    let mut document = serde_json::to_value(described).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let components = &mut document["components"];
    for (name, schema) in schemas::written() {
        components["schemas"][name] = schema;
    }
    components["securitySchemes"] = json!({
        "apiKey": {"type": "http", "scheme": "bearer", "description": "A service's key; its scopes stand with each operation"},
        "endUser": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of the app's login"},
    });
    components["headers"] = headers::components();
    let examples = examples::Examples::read();
    for item in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            complete(operation);
            examples.add_to(operation);
        }
    }
    format!("{document:#}\n")
}

/// The description of this API.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "showDescription",
    responses((status = OK, body = Object, description = "This document")),
)]
pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// What the description begins with.
pub(super) fn begin() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The operations of an inbox as the door at this path has them.
pub(super) fn at_door(operations: &mut utoipa::openapi::OpenApi, door: &str) {
    let is_own = !door.contains("{recipient}");
    for item in operations.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            if is_own {
                let user = SecurityRequirement::new("endUser", [""; 0]);
                operation.security = Some(vec![user]);
                // The past is for services.
                let is_past = |it: &RefOr<Parameter>| matches!(it, RefOr::T(it) if it.name == "asOf");
                operation.parameters.get_or_insert_default().retain(|it| !is_past(it));
                continue;
            }
            operation.operation_id =
                operation.operation_id.take().map(|it| it.replace("Inbox", "RecipientInbox"));
            let recipient = ParameterBuilder::new()
                .name("recipient")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("Whose."))
                .schema(Some(Ref::from_schema_name("RecipientId")));
            operation.parameters.get_or_insert_default().insert(0, recipient.build().into());
        }
    }
}

/// Adds to an operation what follows from its shape: the problems of all like it, and the headers.
fn complete(operation: &mut Value) {
    let kinds = problems(operation);
    if let Some(operation) = operation.as_object_mut() {
        operation.remove("x-problems");
        operation.entry("security").or_insert_with(|| json!([]));
    }
    let mut by_status: BTreeMap<StatusCode, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status()).or_default().push(kind);
    }
    // A body that may be left away is not for that null.
    if let Some(schema) = operation.pointer_mut("/requestBody/content/application~1json/schema")
        && let Some(given) =
            schema["oneOf"].as_array().and_then(|it| it.iter().find(|it| !it["$ref"].is_null()))
    {
        *schema = given.clone();
    }
    let is_secured = given(operation, "security");
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, kinds) in by_status {
        responses.insert(status.as_str().to_owned(), refusal(status, &kinds));
    }
    let has_tags = responses.contains_key(StatusCode::NOT_MODIFIED.as_str());
    for (status, response) in responses {
        let status = status.parse().unwrap_or_default();
        let answer = headers::Answer {
            status,
            has_caller: is_secured && status != StatusCode::UNAUTHORIZED,
            has_tags,
            is_stream: !response["content"]["text/event-stream"].is_null(),
        };
        response["headers"] = headers::of(answer);
    }
}

/// Every problem that an operation may answer with: those it names, and those of all operations like it.
fn problems(operation: &Value) -> Vec<Kind> {
    let takes = |name: &str| {
        operation["parameters"].as_array().is_some_and(|it| it.iter().any(|it| it["name"] == name))
    };
    let has_body = operation.get("requestBody").is_some();
    let named = operation["x-problems"].as_array().into_iter().flatten();
    let named = named.filter_map(|urn| Kind::ALL.into_iter().find(|it| *urn == it.urn()));
    let mut kinds: Vec<_> = named.collect();
    let mut add = |holds: bool, more: &[Kind]| {
        if holds {
            kinds.extend(more);
        }
    };
    add(has_body || given(operation, "parameters"), &[Kind::BadRequest]);
    add(given(operation, "security"), &[Kind::Unauthenticated, Kind::Forbidden, Kind::RateLimited]);
    add(has_body, &[Kind::TooLarge]);
    add(takes("if-position"), &[Kind::ProjectionBehind]);
    add(true, &[Kind::Internal, Kind::TimedOut, Kind::Unavailable]);
    kinds
}

/// One answer that says no, of any of these kinds.
fn refusal(status: StatusCode, kinds: &[Kind]) -> Value {
    let titles: Vec<_> = kinds.iter().map(|it| it.title()).collect();
    let these = json!({"properties": {"type": {"enum": kinds}, "status": {"const": status.as_u16()}}});
    let schema = json!({"allOf": [{"$ref": "#/components/schemas/Problem"}, these]});
    json!({
        "description": titles.join("; "),
        "content": {"application/problem+json": {"schema": schema}},
    })
}

/// Whether an operation lists anything under this name.
fn given(operation: &Value, name: &str) -> bool {
    operation[name].as_array().is_some_and(|it| !it.is_empty())
}

impl IntoParams for IfPosition {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = Ref::from_schema_name("Cursor");
        vec![header_of("if-position", "The cursor of a write that the answer must show", schema)]
    }
}

impl IntoParams for IfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header_of("if-none-match", "The ETag of an answer that the caller has", text())]
    }
}

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header_of("last-event-id", "The id of the last event that came; before after", text())]
    }
}

impl IntoParams for Beside {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            header_of("idempotency-key", "The id of a single message that has none in its body", text()),
            header_of("traceparent", "The trace that the message belongs to (W3C); kept with it", text()),
        ]
    }
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).into()
}

fn header_of(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    let header = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
    header.required(Required::False).description(Some(description)).schema(Some(schema)).build()
}
