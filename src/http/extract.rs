//! What handlers take out of a request, with refusals as problems.

use std::{fmt::Display, str::FromStr};

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::request::Parts,
};
use futures_util::future::OptionFuture;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use utoipa::IntoParams;

use super::{
    problem::{About, Kind, Problem},
    serve::Stopping,
};
use crate::id::{Cursor, MessageId, RecipientId};

/// Characters of a parameter's name that an answer repeats at the most.
const NAME_MAX: usize = 100;

/// The named parts of the path.
#[derive(Debug)]
pub(super) struct Segments<T>(pub(super) T);

/// A message in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct MessagePath {
    /// The id that the producer chose.
    pub(super) message: MessageId,
}

/// A recipient in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RecipientPath {
    /// Whose.
    pub(super) recipient: RecipientId,
}

/// The query string; a name that the route does not know is refused, so that a slip is noticed.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

/// The whole body, as long as it may be.
#[derive(Debug)]
pub(super) struct Body(pub(super) Bytes);

/// What a sender of messages says beside the body.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// `Idempotency-Key`, without the quotes that some clients write around it.
    pub(super) idempotency_key: Option<String>,
    /// `traceparent`.
    pub(super) trace: Option<String>,
}

/// The `If-Position` header: the cursor that an answer must show.
#[derive(Debug)]
pub(super) struct IfPosition(pub(super) Option<Cursor>);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(it)| Self(it)).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Invalid URL: ").unwrap_or(&text);
            let text = text.replace("invalid digit found in string", "no whole number");
            bad_request(text, "check the ids in the path, and that they are percent-encoded")
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if let Some(name) = not_text(parts.uri.query().unwrap_or_default()) {
            let detail = format!("{name} is no text: its percent-encoded bytes are not UTF-8");
            return Err(bad_request(detail, "percent-encode the UTF-8 of names and values"));
        }
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(it)| Self(it)).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            let text = text.replace("invalid digit found in string", "no whole number");
            bad_request(text, "check the query string; write + as %2B")
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let stopping = request.extensions().get::<Stopping>().cloned();
        let too_late = OptionFuture::from(stopping.as_ref().map(Stopping::too_late));
        let bytes = tokio::select! {
            bytes = Bytes::from_request(request, state) => bytes,
            Some(()) = too_late => {
                let detail = "the service stops, and the body had not come whole";
                return Err(Problem::new(Kind::Unavailable, detail, "send the same request again").retry_after(1));
            }
        };
        match bytes {
            Ok(bytes) => Ok(Self(bytes)),
            Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_))) => {
                let detail = "the body has more bytes than api.body_limit_bytes";
                let remedy = "shorten the texts, or send fewer messages in one request";
                let about = About { code: Some("too_large"), ..About::default() };
                Err(Problem::new(Kind::TooLarge, detail, remedy).about(about))
            }
            Err(_) => Err(bad_request("the body ended early", "send the request again")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Beside {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let header = |name: &'static str| match parts.headers.get(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.trim())),
            Some(Err(_)) => {
                let detail = format!("the header {name} holds other characters than ASCII");
                Err(bad_request(detail, "write it in visible ASCII characters"))
            }
        };
        let unquoted = |text: &str| {
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            inner.unwrap_or(text).to_owned()
        };
        Ok(Self {
            idempotency_key: header("idempotency-key")?.map(unquoted),
            trace: header("traceparent")?.map(ToOwned::to_owned),
        })
    }
}

impl<S: Sync> FromRequestParts<S> for IfPosition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("if-position") else { return Ok(Self(None)) };
        let cursor = value.to_str().unwrap_or_default().parse::<Cursor>();
        cursor.map(|it| Self(Some(it))).map_err(|error| {
            bad_request(format!("the header If-Position: {error}"), "send the cursor of an answer, or none")
        })
    }
}

/// The first parameter of a query whose bytes are not UTF-8, which would be read as another text.
fn not_text(query: &str) -> Option<String> {
    let wrong = query.split('&').find(|pair| percent_decode_str(pair).decode_utf8().is_err())?;
    let name = wrong.split('=').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    Some(name.chars().take(NAME_MAX).collect())
}

/// A value that is written as text, where it is given; null is as good as nothing.
pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|it| it.parse().map_err(serde::de::Error::custom)).transpose()
}

pub(super) fn bad_request(
    detail: impl Into<std::borrow::Cow<'static, str>>,
    remedy: impl Into<std::borrow::Cow<'static, str>>,
) -> Problem {
    Problem::new(Kind::BadRequest, detail, remedy)
}
