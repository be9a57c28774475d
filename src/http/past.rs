//! An inbox as it was: `…/inbox?asOf=` and `…/inbox/diff`, for services.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    auth::{Caller, MessagesRead},
    conditional::answer_unless_known,
    extract::{Params, RecipientPath, Segments, bad_request, parsed},
    messages::limit,
    openapi::IfNoneMatch,
    problem::{Kind, Problem},
};
use crate::{
    audit::inbox::{Compared, Listed},
    id::{Cursor, RecipientId},
    inbox::{InboxFilter, past::Point},
    ledger::past::{Past, PastError},
    store::inbox::LIST_MAX,
};

/// Between which moments to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DifferenceParams {
    /// The first moment: a time, or a cursor.
    #[serde(deserialize_with = "required")]
    #[param(value_type = String)]
    from: Point,
    /// The second moment, not before the first; without it, now.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>)]
    to: Option<Point>,
    /// How many changes at the most.
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u64>,
    /// Changed before this: the `next` of the answer before.
    #[serde(default, deserialize_with = "parsed")]
    before: Option<Cursor>,
}

/// What the inbox differs in between two moments.
#[utoipa::path(
    get, path = "/v1/recipients/{recipient}/inbox/diff", tag = "inbox", operation_id = "compareRecipientInbox",
    params(RecipientPath, DifferenceParams, IfNoneMatch),
    responses(
        (status = OK, body = Compared, description = "What was changed last comes first"),
        (status = NOT_MODIFIED, description = "The same as the one that If-None-Match names"),
    ),
    extensions(("x-problems" = json!([Kind::ProjectionBehind]))),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn difference(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
    Segments(RecipientPath { recipient }): Segments<RecipientPath>,
    Params(params): Params<DifferenceParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = held(params.limit)?;
    let before = app.place_of(&recipient, params.before)?;
    let past = app.past();
    let places = past.places(&recipient, params.from, params.to).await?;
    app.wait_for("messages", Some(places[1])).await?;
    let difference = past.difference(&recipient, places, before, limit).await?;
    answer_unless_known(&headers, &Compared::new(places, difference))
}

impl App {
    /// The inbox of a recipient as it was.
    pub(super) async fn inbox_at(
        &self,
        recipient: &RecipientId,
        point: Point,
        filter: InboxFilter,
        limit: u64,
    ) -> Result<Listed, Problem> {
        let past = self.past();
        let place = past.place_of(recipient, point).await?;
        self.wait_for("messages", Some(place)).await?;
        let page = past.inbox(recipient, place, filter, held(Some(limit))?).await?;
        Ok(Listed::new(place, page))
    }

    fn past(&self) -> Past<'_> {
        Past { store: self.ledger.store(), now: self.ledger.now() }
    }
}

fn held(given: Option<u64>) -> Result<usize, Problem> {
    Ok(usize::try_from(limit(given, 50, LIST_MAX)?).unwrap_or(usize::MAX))
}

fn required<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Point, D::Error> {
    let point = parsed(deserializer)?;
    point.ok_or_else(|| serde::de::Error::missing_field("from"))
}

impl From<PastError> for Problem {
    fn from(error: PastError) -> Self {
        let (detail, remedy) = (error.to_string(), error.remedy());
        match error {
            PastError::Store(error) => error.into(),
            PastError::Behind(..) => {
                Self::new(Kind::ProjectionBehind, detail, remedy.unwrap_or_default()).retry_after(1)
            }
            PastError::Elsewhere(..)
            | PastError::BeyondEnd(..)
            | PastError::Future(..)
            | PastError::Backwards(..) => bad_request(detail, remedy.unwrap_or_default()),
        }
    }
}
