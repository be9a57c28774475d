//! Answers that say no: RFC 9457 problem details, each of a stable type and with a remedy.
//!
//! What was wrong with the caller's input is told; what is wrong inside is logged here, once, and
//! told as little as the caller needs to decide whether to try again.

use std::{borrow::Cow, error::Error};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    ledger::{LedgerError, operate::Denied},
    message::{Rejection, RejectionCode},
    store::StoreError,
    stream::Refusal,
};

/// What every type begins with.
const TYPE: &str = "urn:problem-type:notification-ledger:";

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    kind: Kind,
    detail: Cow<'static, str>,
    remedy: Cow<'static, str>,
    about: About,
}

/// The stable types; `docs/http-api.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself cannot be understood: path, query, headers, or a body that is not JSON.
    BadRequest,
    /// No key, or an unknown one.
    Unauthenticated,
    /// The key does not open this.
    Forbidden,
    /// There is no such route.
    UnknownRoute,
    /// The route does not know this method.
    UnknownMethod,
    /// There is no such message for whoever asks.
    UnknownMessage,
    /// The message is not in the inbox.
    NotInInbox,
    /// The recipient has no such device.
    UnknownDevice,
    /// There is no such input in quarantine.
    UnknownInput,
    /// What is to be done with the input is decided.
    AlreadyDecided,
    /// The message has no such delivery.
    UnknownDelivery,
    /// A provider took the delivery.
    DeliveryAccepted,
    /// The delivery is not waiting for this: a call is under way, or it is over.
    DeliveryUnderWay,
    /// The message has expired.
    DeliveryExpired,
    /// No provider of this name is configured.
    UnknownProvider,
    /// There is no such projection.
    UnknownProjection,
    /// Somebody rebuilds the projection.
    RebuildUnderWay,
    /// The slot that is not live cannot be used so.
    SlotRefused,
    /// The input is no message of the contract.
    InvalidMessage,
    /// The input is no registration of a device.
    InvalidDevice,
    /// The message id is taken by other content.
    Conflict,
    /// More bytes, or more messages, than one request may have.
    TooLarge,
    /// There is no place for another stream.
    TooManyStreams,
    /// The caller asks for more than it may.
    RateLimited,
    /// The projection has not reached the cursor in time.
    ProjectionBehind,
    /// The request took too long.
    TimedOut,
    /// The database does not answer, or the service is stopping.
    Unavailable,
    /// A fault of the service.
    Internal,
}

/// What a problem is about, for machines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The rejection's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The path of the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The message's place in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// What became of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
    /// In how many seconds to try again; also the `Retry-After` header.
    #[serde(skip)]
    #[schema(ignore)]
    pub retry_after_s: Option<u32>,
    /// Why who called was not let in, by RFC 6750; stands in `WWW-Authenticate`.
    #[serde(skip)]
    pub challenge: Option<&'static str>,
}

/// One of many inputs that is not what it should be; the others are none the worse.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rejected {
    /// `rejected`.
    result: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    problem: String,
    remedy: String,
}

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Self {
        let Rejection { code, field, problem, remedy } = rejection;
        Self { result: "rejected", code: code.as_str(), field, problem, remedy }
    }
}

/// RFC 9457 problem details.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// Stable; what a program decides by.
    r#type: Kind,
    /// What the type means.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What was wrong, for people.
    detail: &'a str,
    /// What to do about it, for people.
    remedy: &'a str,
    #[serde(flatten)]
    about: &'a About,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 28] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::UnknownRoute,
        Self::UnknownMethod,
        Self::UnknownMessage,
        Self::NotInInbox,
        Self::UnknownDevice,
        Self::UnknownInput,
        Self::AlreadyDecided,
        Self::UnknownDelivery,
        Self::DeliveryAccepted,
        Self::DeliveryUnderWay,
        Self::DeliveryExpired,
        Self::UnknownProvider,
        Self::UnknownProjection,
        Self::RebuildUnderWay,
        Self::SlotRefused,
        Self::InvalidMessage,
        Self::InvalidDevice,
        Self::Conflict,
        Self::TooLarge,
        Self::TooManyStreams,
        Self::RateLimited,
        Self::ProjectionBehind,
        Self::TimedOut,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The end of its type's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::UnknownRoute => "unknown-route",
            Self::UnknownMethod => "unknown-method",
            Self::UnknownMessage => "unknown-message",
            Self::NotInInbox => "not-in-inbox",
            Self::UnknownDevice => "unknown-device",
            Self::UnknownInput => "unknown-input",
            Self::AlreadyDecided => "already-decided",
            Self::UnknownDelivery => "unknown-delivery",
            Self::DeliveryAccepted => "delivery-accepted",
            Self::DeliveryUnderWay => "delivery-under-way",
            Self::DeliveryExpired => "delivery-expired",
            Self::UnknownProvider => "unknown-provider",
            Self::UnknownProjection => "unknown-projection",
            Self::RebuildUnderWay => "rebuild-under-way",
            Self::SlotRefused => "slot-refused",
            Self::InvalidMessage => "invalid-message",
            Self::InvalidDevice => "invalid-device",
            Self::Conflict => "conflict",
            Self::TooLarge => "too-large",
            Self::TooManyStreams => "too-many-streams",
            Self::RateLimited => "rate-limited",
            Self::ProjectionBehind => "projection-behind",
            Self::TimedOut => "timed-out",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Its type.
    pub(super) fn urn(self) -> String {
        format!("{TYPE}{}", self.as_str())
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be understood",
            Self::Unauthenticated => "Who calls is not known",
            Self::Forbidden => "The key does not open this",
            Self::UnknownRoute => "There is no such route",
            Self::UnknownMethod => "The route does not know this method",
            Self::UnknownMessage => "There is no such message",
            Self::NotInInbox => "The message is not in the inbox",
            Self::UnknownDevice => "There is no such device",
            Self::UnknownInput => "There is no such input",
            Self::AlreadyDecided => "That is decided",
            Self::UnknownDelivery => "There is no such delivery",
            Self::DeliveryAccepted => "A provider took the delivery",
            Self::DeliveryUnderWay => "The delivery is not waiting for this",
            Self::DeliveryExpired => "The message has expired",
            Self::UnknownProvider => "There is no such provider",
            Self::UnknownProjection => "There is no such projection",
            Self::RebuildUnderWay => "Somebody rebuilds the projection",
            Self::SlotRefused => "The slot cannot be used so",
            Self::InvalidMessage => "The input is no message",
            Self::InvalidDevice => "The input is no device",
            Self::Conflict => "The message id is taken by other content",
            Self::TooLarge => "The request is too large",
            Self::TooManyStreams => "There are too many open streams",
            Self::RateLimited => "That is too much at once",
            Self::ProjectionBehind => "What was asked for does not show yet",
            Self::TimedOut => "The request took too long",
            Self::Unavailable => "The ledger is not available",
            Self::Internal => "The service has a fault",
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::UnknownRoute
            | Self::UnknownMessage
            | Self::NotInInbox
            | Self::UnknownDevice
            | Self::UnknownInput
            | Self::UnknownDelivery
            | Self::UnknownProvider
            | Self::UnknownProjection => StatusCode::NOT_FOUND,
            Self::UnknownMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::InvalidMessage | Self::InvalidDevice => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict
            | Self::RebuildUnderWay
            | Self::SlotRefused
            | Self::AlreadyDecided
            | Self::DeliveryAccepted
            | Self::DeliveryUnderWay
            | Self::DeliveryExpired => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyStreams | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::ProjectionBehind => StatusCode::GATEWAY_TIMEOUT,
            Self::TimedOut | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.urn())
    }
}

impl Problem {
    /// A problem of this kind: what is wrong, and what the caller should do.
    #[must_use]
    pub fn new(
        kind: Kind,
        detail: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self(Box::new(Parts { kind, detail, remedy, about: About::default() }))
    }

    /// The same as another kind.
    #[must_use]
    pub fn of(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same with what it is about.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        self.0.about = about;
        self
    }

    /// The same, worth another try after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.about.retry_after_s = Some(seconds);
        self
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// A fault of the service; `error` is logged and not told.
    pub fn internal(error: &dyn Error) -> Self {
        tracing::error!(error = chain(error), "a request failed");
        Self::fault()
    }

    /// A fault of the service that somebody else logs.
    pub(super) fn fault() -> Self {
        Self::new(
            Kind::Internal,
            "the service could not do it, and has logged why",
            "try again later; if it stays so, look for the x-request-id of this answer in the service's log",
        )
    }

    /// The database does not answer; `error` is logged and not told.
    fn unavailable(error: &dyn Error) -> Self {
        tracing::warn!(error = chain(error), "a request found the database unavailable");
        let detail = "the database does not answer";
        Self::new(Kind::Unavailable, detail, "send the same request again").retry_after(2)
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection { code, field, problem, remedy } = rejection;
        let kind = match code {
            RejectionCode::NotJson | RejectionCode::NotUtf8 => Kind::BadRequest,
            RejectionCode::TooLarge => Kind::TooLarge,
            _ => Kind::InvalidMessage,
        };
        let detail = field.as_ref().map(|field| format!("{field} {problem}"));
        let about = About { code: Some(code.as_str()), field, result: Some("rejected"), ..About::default() };
        Self::new(kind, detail.unwrap_or(problem), remedy).about(about)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::Unavailable(_) => Self::unavailable(&error),
            LedgerError::Failed(_) => Self::internal(&error),
            LedgerError::Stopping => {
                let detail = "the service is stopping";
                Self::new(Kind::Unavailable, detail, "send the same request again").retry_after(1)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        LedgerError::from(error).into()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotInInbox => Self::new(
                Kind::NotInInbox,
                "the message is none for the inbox, is to appear later, has expired, or was removed",
                "leave it as it is",
            ),
            other => Self::new(
                Kind::UnknownMessage,
                other.to_string(),
                "check both ids; a message can be marked as soon as its POST was answered",
            ),
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let detail = denied.to_string();
        let (kind, remedy) = match denied {
            Denied::UnknownProvider(_) => {
                (Kind::UnknownProvider, "GET /v1/providers lists those that there are")
            }
            Denied::Waits => (Kind::BadRequest, "name the provider, or leave scheduled and retrying out"),
            Denied::Unplanned => (
                Kind::UnknownDelivery,
                "where it had nowhere to go, send a new message when the recipient has a device",
            ),
            Denied::Unfit(_) => (Kind::BadRequest, "name a provider that takes such targets, or none"),
            Denied::Refused(Refusal::UnknownDelivery) => (
                Kind::UnknownDelivery,
                "check both ids; GET /v1/messages/{messageId} shows the deliveries of a message",
            ),
            Denied::Refused(Refusal::AlreadyAccepted) => (Kind::DeliveryAccepted, "leave it as it is"),
            Denied::Refused(Refusal::Expired) => {
                (Kind::DeliveryExpired, "send what is still worth saying as a new message")
            }
            Denied::Refused(Refusal::LostRace) => (
                Kind::DeliveryUnderWay,
                "look at the delivery: what a provider is being asked about has to come to an end first, and \
                 what is over cannot be cancelled",
            ),
            Denied::Refused(other) => return other.into(),
        };
        Self::new(kind, detail, remedy)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { kind, detail, remedy, about } = &*self.0;
        let status = kind.status();
        let body =
            Body { r#type: *kind, title: kind.title(), status: status.as_u16(), detail, remedy, about };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let json = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, json)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = about.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if *kind == Kind::Unauthenticated {
            let error = about.challenge.map_or_else(String::new, |it| format!(", error=\"{it}\""));
            let challenge = HeaderValue::try_from(format!("Bearer realm=\"notification-ledger\"{error}"));
            headers.extend(challenge.ok().map(|it| (header::WWW_AUTHENTICATE, it)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|it| it.as_str()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn the_documentation_lists_every_kind_with_its_status() {
        let page = include_str!("../../docs/http-api.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | {} |", kind.as_str(), kind.status().as_u16());
            assert!(page.contains(&row), "docs/http-api.md has no row that begins with {row}");
        }
    }
}
