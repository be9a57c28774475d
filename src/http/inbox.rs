//! `/v1/inbox` and `/v1/recipients/{recipient}/inbox`: the list, the counts, and what a recipient does with
//! items. The handlers are the same for both; [`InboxOf`] says whose inbox it is.

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    auth::{Caller, InboxOf, InboxRead, InboxWrite, MessagesRead},
    conditional::answer_unless_known,
    extract::{Body, IfPosition, Params, Segments, bad_request, parsed},
    live,
    messages::limit,
    no_answer,
    openapi::{IfNoneMatch, Verb},
    problem::{About, Kind, Problem},
};
use crate::{
    audit::inbox::{Listed, Tallies},
    clock::Timestamp,
    event::Metadata,
    id::{Cursor, MessageId, Position, RecipientId},
    inbox::{Archived, InboxFilter, Status, past::Point},
    ledger::Marked as Applied,
    store::inbox::LIST_MAX,
    stream::{Mark, Refusal},
};

/// Items marked in one transaction by a verb that names none.
const MARK_PAGE: u64 = 500;
/// Items that a verb names at the most.
const IDS_MAX: usize = 500;

/// What a recipient can do with items.
pub(super) const VERBS: [(&str, Mark); 7] = [
    ("seen", Mark::Seen),
    ("read", Mark::Read),
    ("clicked", Mark::Click),
    ("unread", Mark::Unread),
    ("archive", Mark::Archive),
    ("unarchive", Mark::Unarchive),
    ("delete", Mark::Delete),
];

/// Where inboxes are: the one of whoever calls, for users; everybody's, for services.
pub(super) const DOORS: [&str; 2] = ["/v1/inbox", "/v1/recipients/{recipient}/inbox"];

/// The routes of an inbox below one of the [`DOORS`].
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(counts))
        .routes(routes!(live::open))
        .routes(routes!(mark_many))
        .routes(routes!(mark))
}

/// What to list of an inbox.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// How many at the most.
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u64>,
    /// How far the recipient has come with them; without it, `all`.
    #[serde(default)]
    #[param(inline)]
    status: Status,
    /// What to do with those that were put away; without it, `exclude`.
    #[serde(default)]
    #[param(inline)]
    archived: Archived,
    /// Of this category.
    category: Option<String>,
    /// Appeared at this time or later.
    since: Option<Timestamp>,
    /// Appeared before this time.
    until: Option<Timestamp>,
    /// Older than this: the `next` of the answer before.
    #[serde(default, deserialize_with = "parsed")]
    before: Option<Cursor>,
    /// The cursor of a write that the answer must show.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
    /// The inbox as it was: at a time, or with the event at a cursor and none after it. Also asks for the scope
    /// messages:read.
    #[serde(default, rename = "asOf", deserialize_with = "parsed")]
    #[param(value_type = Option<String>)]
    as_of: Option<Point>,
}

/// The list, newest first, with the counts of the same moment.
#[utoipa::path(
    get, path = "/", tag = "inbox", operation_id = "listInbox",
    params(ListParams, IfPosition, IfNoneMatch),
    responses(
        (status = OK, body = Listed, description = "Newest first, with the counts of the same moment"),
        (status = NOT_MODIFIED, description = "The same as the one that If-None-Match names"),
    ),
    security(("apiKey" = ["inbox:read"])),
)]
pub(super) async fn list(
    inbox: InboxOf<InboxRead>,
    auditor: Result<Caller<MessagesRead>, Problem>,
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
    IfPosition(position): IfPosition,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (is_own, recipient) = (inbox.is_own(), inbox.recipient);
    let limit = limit(params.limit, 50, LIST_MAX)?;
    let before = app.place_of(&recipient, params.before)?;
    let filter = InboxFilter {
        before,
        status: params.status,
        archived: params.archived,
        category: params.category,
        since: params.since,
        until: params.until,
    };
    let after = params.after.or(position);
    if let Some(point) = params.as_of {
        if is_own {
            return Err(bad_request("the past of an inbox is for services", "leave asOf away"));
        }
        auditor?;
        if after.is_some() {
            let detail = "asOf asks for the past, and a cursor to wait for asks for what is new";
            return Err(bad_request(detail, "send one of asOf, and after or If-Position"));
        }
        return answer_unless_known(&headers, &app.inbox_at(&recipient, point, filter, limit).await?);
    }
    app.wait_for("inbox", after).await?;
    let page = app.ledger.store().inbox(&recipient, &filter, limit).await?;
    let cursor = Cursor { shard: app.ledger.store().shard_of(&recipient), position: page.counts.last };
    answer_unless_known(&headers, &Listed::new(cursor, page))
}

/// What to wait for before counting.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CountParams {
    /// The cursor of a write that the answer must show.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
}

/// The counts, overall and by category.
#[utoipa::path(
    get, path = "/counts", tag = "inbox", operation_id = "countInbox",
    params(CountParams, IfPosition, IfNoneMatch),
    responses(
        (status = OK, body = Tallies, description = "Overall and by category"),
        (status = NOT_MODIFIED, description = "The same as the one that If-None-Match names"),
    ),
    security(("apiKey" = ["inbox:read"])),
)]
pub(super) async fn counts(
    InboxOf { recipient, .. }: InboxOf<InboxRead>,
    State(app): State<Arc<App>>,
    Params(params): Params<CountParams>,
    IfPosition(position): IfPosition,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.wait_for("inbox", params.after.or(position)).await?;
    let counts = app.ledger.store().inbox_counts(&recipient).await?;
    answer_unless_known(&headers, &Tallies::from(counts))
}

/// An item of an inbox, and what was done with it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct MarkPath {
    /// The item.
    message: MessageId,
    /// What was done.
    #[param(value_type = Verb)]
    verb: String,
}

/// An inbox, and what was done with items of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct MarkManyPath {
    /// What was done.
    #[param(value_type = Verb)]
    verb: String,
}

/// What became of a mark.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Marked {
    message_id: MessageId,
    cursor: Cursor,
    /// With the mark; null where the inbox did not catch up with it in time.
    #[schema(required)]
    counts: Option<Tallies>,
}

/// The recipient did something with one item. What is so already appends nothing.
#[utoipa::path(
    post, path = "/{message}/{verb}", tag = "inbox", operation_id = "markInboxItem",
    params(MarkPath),
    responses((status = OK, body = Marked, description = "It is so now")),
    extensions(("x-problems" = json!([Kind::UnknownMessage, Kind::NotInInbox, Kind::UnknownRoute]))),
    security(("apiKey" = ["inbox:write"])),
)]
pub(super) async fn mark(
    inbox: InboxOf<InboxWrite>,
    State(app): State<Arc<App>>,
    Segments(MarkPath { message, verb }): Segments<MarkPath>,
) -> Result<Json<Marked>, Problem> {
    let recipient = &inbox.recipient;
    let mark = mark_of(&verb)?;
    let marks = vec![(message.clone(), mark)];
    let answers = app.ledger.mark(recipient, marks, &inbox.metadata()).await;
    let Applied { cursor, .. } = answers.into_iter().next().unwrap_or_else(|| Err(no_answer()))??;
    let counts = app.counts_with(recipient, cursor).await?;
    Ok(Json(Marked { message_id: message, cursor, counts }))
}

fn mark_of(verb: &str) -> Result<Mark, Problem> {
    VERBS.into_iter().find(|(word, _)| *word == verb).map(|(_, mark)| mark).ok_or_else(|| {
        let remedy = format!("use one of {}", VERBS.map(|(word, _)| word).join(", "));
        Problem::new(Kind::UnknownRoute, "there is no such verb for inbox items", remedy)
    })
}

/// Which items: those named, or all that match up to a cursor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", expecting = "an object")]
#[schema(as = MarkWish)]
pub(super) struct Which {
    #[schema(max_items = 500)]
    message_ids: Option<Vec<MessageId>>,
    #[serde(default, deserialize_with = "parsed")]
    up_to: Option<Cursor>,
    status: Option<Status>,
    archived: Option<Archived>,
    category: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Which {
    const fn is_filtered(&self) -> bool {
        let Self { status, archived, category, since, until, .. } = self;
        status.is_some() || archived.is_some() || category.is_some() || since.is_some() || until.is_some()
    }
}

/// What became of many marks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MarkedMany {
    /// Items that were not so already.
    marked: usize,
    /// Of the last mark; where there was none, of the whole inbox.
    #[schema(required)]
    cursor: Option<Cursor>,
    /// With the marks; null where the inbox did not catch up with them in time.
    #[schema(required)]
    counts: Option<Tallies>,
    /// Of those that were named, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<OneOfMany>>,
}

/// What became of one of those named.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OneOfMany {
    message_id: MessageId,
    /// `marked`, `already`, `not-in-inbox` or `unknown`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
}

/// The recipient did the same with many items.
#[utoipa::path(
    post, path = "/{verb}", tag = "inbox", operation_id = "markInboxItems",
    params(MarkManyPath),
    request_body = Which,
    responses((status = OK, body = MarkedMany, description = "They are so now")),
    extensions(("x-problems" = json!([Kind::UnknownRoute, Kind::ProjectionBehind]))),
    security(("apiKey" = ["inbox:write"])),
)]
pub(super) async fn mark_many(
    inbox: InboxOf<InboxWrite>,
    State(app): State<Arc<App>>,
    Segments(MarkManyPath { verb }): Segments<MarkManyPath>,
    Body(body): Body,
) -> Result<Json<MarkedMany>, Problem> {
    let recipient = &inbox.recipient;
    let mark = mark_of(&verb)?;
    let remedy = "send {\"messageIds\": [\"m-1\"]}, or {\"upTo\": \"0-42\"} with the cursor of the newest item \
                  that was shown";
    let which: Result<Which, _> = serde_json::from_slice(&body);
    let which = which.map_err(|error| bad_request(format!("the body cannot be read: {error}"), remedy))?;
    let metadata = inbox.metadata();
    let mut answer = match (&which.message_ids, which.up_to) {
        (Some(_), None) if which.is_filtered() => {
            let detail = "status, archived, category, since and until do not go with messageIds";
            return Err(bad_request(detail, "name the items, or send a filter with upTo"));
        }
        (Some(ids), None) if ids.len() > IDS_MAX => {
            let detail = format!("the request names {} items, more than {IDS_MAX}", ids.len());
            let about = About { code: Some("too_large"), ..About::default() };
            return Err(Problem::new(Kind::TooLarge, detail, "name them in several requests").about(about));
        }
        (Some(ids), None) => app.mark_named(recipient, mark, ids, &metadata).await?,
        (None, Some(up_to)) => app.mark_up_to(recipient, mark, up_to, which, &metadata).await?,
        (Some(_), Some(_)) => return Err(bad_request("both messageIds and upTo are given", remedy)),
        (None, None) => return Err(bad_request("neither messageIds nor upTo is given", remedy)),
    };
    if let Some(cursor) = answer.cursor {
        answer.counts = app.counts_with(recipient, cursor).await?;
    } else {
        let store = app.ledger.store();
        let counts = store.inbox_counts(recipient).await?;
        answer.cursor = Some(Cursor { shard: store.shard_of(recipient), position: counts.last });
        answer.counts = Some(counts.into());
    }
    Ok(Json(answer))
}

impl App {
    async fn mark_named(
        &self,
        recipient: &RecipientId,
        mark: Mark,
        ids: &[MessageId],
        metadata: &Metadata,
    ) -> Result<MarkedMany, Problem> {
        let marks = ids.iter().map(|it| (it.clone(), mark)).collect();
        let answers = self.ledger.mark(recipient, marks, metadata).await;
        let mut many = MarkedMany { marked: 0, cursor: None, counts: None, results: None };
        let mut results = Vec::with_capacity(ids.len());
        for (message_id, answer) in ids.iter().cloned().zip(answers) {
            let (result, cursor) = match answer? {
                Ok(it) => (if it.is_new { "marked" } else { "already" }, Some(it.cursor)),
                Err(Refusal::NotInInbox) => ("not-in-inbox", None),
                Err(_) => ("unknown", None),
            };
            many.marked += usize::from(result == "marked");
            many.reach(cursor);
            results.push(OneOfMany { message_id, result, cursor });
        }
        many.results = Some(results);
        Ok(many)
    }

    /// Marks what matches and is not newer than the cursor, so that what arrives meanwhile stays as it is.
    async fn mark_up_to(
        &self,
        recipient: &RecipientId,
        mark: Mark,
        up_to: Cursor,
        which: Which,
        metadata: &Metadata,
    ) -> Result<MarkedMany, Problem> {
        let place = self.place_of(recipient, Some(up_to))?.unwrap_or(up_to.position);
        self.wait_for("inbox", Some(up_to)).await?;
        let mut filter = narrowed(
            mark,
            InboxFilter {
                before: Some(Position(place.0.saturating_add(1))),
                status: which.status.unwrap_or_default(),
                archived: which.archived.unwrap_or_default(),
                category: which.category,
                since: which.since,
                until: which.until,
            },
        );
        let mut many = MarkedMany { marked: 0, cursor: Some(up_to), counts: None, results: None };
        loop {
            let page = self.ledger.store().inbox_ids(recipient, &filter, MARK_PAGE).await?;
            let full = page.len() as u64 == MARK_PAGE;
            let Some(&(_, oldest)) = page.last() else { return Ok(many) };
            let marks = page.into_iter().map(|(message, _)| (message, mark)).collect();
            for marked in self.ledger.mark(recipient, marks, metadata).await {
                // One that was removed meanwhile needs no mark.
                if let Ok(marked) = marked? {
                    many.marked += usize::from(marked.is_new);
                    many.reach(Some(marked.cursor));
                }
            }
            if !full {
                return Ok(many);
            }
            // The projection need not have caught up: the next page lies below this one.
            filter.before = Some(oldest);
        }
    }

    /// The counts with what stands at the cursor; none where the inbox does not catch up with it in time.
    async fn counts_with(&self, recipient: &RecipientId, cursor: Cursor) -> Result<Option<Tallies>, Problem> {
        if !self.ledger.wait_for("inbox", cursor, self.settings.wait_for_projection).await? {
            return Ok(None);
        }
        Ok(Some(self.ledger.store().inbox_counts(recipient).await?.into()))
    }

    /// The position of a cursor into a recipient's list, which lies in the recipient's shard.
    pub(super) fn place_of(
        &self,
        recipient: &RecipientId,
        cursor: Option<Cursor>,
    ) -> Result<Option<Position>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        if cursor.shard != self.ledger.store().shard_of(recipient) {
            let detail = format!("{cursor} is no cursor of this recipient's list");
            return Err(bad_request(detail, "send the cursor of an item, or the next of an answer"));
        }
        Ok(Some(cursor.position))
    }
}

impl MarkedMany {
    /// All of it stands in the recipient's shard: the last place is the one to wait for.
    fn reach(&mut self, cursor: Option<Cursor>) {
        let is_later = |it: &Cursor| self.cursor.is_none_or(|last| last.position < it.position);
        if let Some(cursor) = cursor.filter(is_later) {
            self.cursor = Some(cursor);
        }
    }
}

/// Without those that are so already, as far as a list can tell.
fn narrowed(mark: Mark, filter: InboxFilter) -> InboxFilter {
    match (mark, filter.status, filter.archived) {
        (Mark::Seen, Status::All | Status::Unread, _) => InboxFilter { status: Status::Unseen, ..filter },
        (Mark::Read, Status::All, _) => InboxFilter { status: Status::Unread, ..filter },
        (Mark::Unread, Status::All, _) => InboxFilter { status: Status::Read, ..filter },
        (Mark::Archive, _, Archived::Include) => InboxFilter { archived: Archived::Exclude, ..filter },
        (Mark::Unarchive, _, Archived::Exclude | Archived::Include) => {
            InboxFilter { archived: Archived::Only, ..filter }
        }
        _ => filter,
    }
}
