//! `/v1/recipients/{recipient}/devices`: what an app registers so that pushes find its users.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, DevicesRead, DevicesWrite},
    extract::{Body, RecipientPath, Segments},
    openapi::Registration as NewDevice,
    problem::{Kind, Problem},
};
use crate::{
    device::{PushService, Registration, Shown},
    id::{DeviceId, RecipientId},
    message::Rejection,
    provider::KINDS,
};

/// A device of a recipient.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DevicePath {
    /// Whose.
    recipient: RecipientId,
    /// The app's own id of the installation.
    device: DeviceId,
}

/// The devices of a recipient, the last seen first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceList)]
pub(super) struct Listed {
    devices: Vec<Shown>,
}

/// All of them, dead ones too.
#[utoipa::path(
    get, path = "/v1/recipients/{recipient}/devices", tag = "devices", operation_id = "listDevices",
    params(RecipientPath),
    responses((status = OK, body = Listed, description = "The last seen first")),
    security(("apiKey" = ["devices:read"])),
)]
pub(super) async fn list(
    _: Caller<DevicesRead>,
    State(app): State<Arc<App>>,
    Segments(RecipientPath { recipient }): Segments<RecipientPath>,
) -> Result<Json<Listed>, Problem> {
    let devices = app.ledger.store().devices(&recipient).await?;
    Ok(Json(Listed { devices: devices.into_iter().map(Shown::from).collect() }))
}

/// One of them.
#[utoipa::path(
    get, path = "/v1/recipients/{recipient}/devices/{device}", tag = "devices", operation_id = "showDevice",
    params(DevicePath),
    responses((status = OK, body = Shown, description = "The device")),
    extensions(("x-problems" = json!([Kind::UnknownDevice]))),
    security(("apiKey" = ["devices:read"])),
)]
pub(super) async fn show(
    _: Caller<DevicesRead>,
    State(app): State<Arc<App>>,
    Segments(DevicePath { recipient, device }): Segments<DevicePath>,
) -> Result<Json<Shown>, Problem> {
    let devices = app.ledger.store().devices(&recipient).await?;
    let found = devices.into_iter().find(|it| it.registration.device_id == device);
    found.map(|it| Json(it.into())).ok_or_else(|| {
        let remedy = "check both ids; the device may have been removed, or its token moved to another user";
        Problem::new(Kind::UnknownDevice, "the recipient has no such device", remedy)
    })
}

/// Registers it, anew or again; it lives from now on.
#[utoipa::path(
    put, path = "/v1/recipients/{recipient}/devices/{device}", tag = "devices", operation_id = "putDevice",
    params(DevicePath),
    request_body = NewDevice,
    responses(
        (status = CREATED, body = Shown, description = "It is new"),
        (status = OK, body = Shown, description = "It was known, and lives from now on"),
    ),
    extensions(("x-problems" = json!([Kind::InvalidDevice]))),
    security(("apiKey" = ["devices:write"])),
)]
pub(super) async fn put(
    _: Caller<DevicesWrite>,
    State(app): State<Arc<App>>,
    Segments(DevicePath { recipient, device }): Segments<DevicePath>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let now = app.ledger.now();
    let services: Vec<_> = KINDS.iter().map(|it| PushService { kind: it.name, takes: it.takes }).collect();
    let registration = Registration::parse(device, &body, &services, now).map_err(refused)?;
    let device = app.ledger.store().put_device(&recipient, &registration, now).await?;
    let is_new = device.created_at == device.registered_at;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Shown::from(device))).into_response())
}

/// Forgets it. That there was none is as well.
#[utoipa::path(
    delete, path = "/v1/recipients/{recipient}/devices/{device}", tag = "devices", operation_id = "removeDevice",
    params(DevicePath),
    responses((status = NO_CONTENT, description = "There is no such device, or not any more")),
    security(("apiKey" = ["devices:write"])),
)]
pub(super) async fn remove(
    _: Caller<DevicesWrite>,
    State(app): State<Arc<App>>,
    Segments(DevicePath { recipient, device }): Segments<DevicePath>,
) -> Result<StatusCode, Problem> {
    app.ledger.store().remove_device(&recipient, &device).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused(rejection: Rejection) -> Problem {
    let problem = Problem::from(rejection);
    match problem.status() {
        StatusCode::UNPROCESSABLE_ENTITY => problem.of(Kind::InvalidDevice),
        _ => problem,
    }
}
