//! `/v1/recipients/{recipient}/inbox`: the list, the counts, and what a recipient does with items.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    App,
    auth::{Caller, InboxRead, InboxWrite},
    extract::{Body, IfPosition, Params, RecipientPath, Segments, bad_request, parsed},
    messages::limit,
    no_answer,
    problem::{Kind, Problem},
};
use crate::{
    audit::place,
    clock::Timestamp,
    event::Metadata,
    id::{Cursor, MessageId, Position, RecipientId},
    projection::inbox::InboxItem,
    store::inbox::{Archived, Counts, InboxFilter, LIST_MAX},
    stream::Mark,
};

/// Items marked in one transaction by `read-all`.
const READ_ALL_PAGE: u64 = 500;

/// What to list of an inbox.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    limit: Option<u64>,
    #[serde(default)]
    status: Status,
    #[serde(default, deserialize_with = "parsed")]
    before: Option<Cursor>,
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
}

/// Which items to list.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Those that were not put away.
    #[default]
    Active,
    /// Those among them that are not read.
    Unread,
    /// Those that were put away.
    Archived,
    /// Both.
    All,
}

/// A part of an inbox.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    items: Vec<Item>,
    /// Where the next, older ones begin; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
    counts: Tally,
}

/// One message as the app shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    message_id: String,
    cursor: Cursor,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<Timestamp>,
    received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived_at: Option<Timestamp>,
}

/// How many items are in each state, archived ones left out.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Tally {
    unseen: i64,
    unread: i64,
    total: i64,
}

/// The same overall and by category.
#[derive(Debug, Serialize)]
pub(super) struct Tallies {
    #[serde(flatten)]
    overall: Tally,
    categories: BTreeMap<String, Tally>,
}

/// The list, newest first, with the counts of the same moment.
pub(super) async fn list(
    _: Caller<InboxRead>,
    State(app): State<Arc<App>>,
    Segments(RecipientPath { recipient }): Segments<RecipientPath>,
    Params(params): Params<ListParams>,
    IfPosition(position): IfPosition,
) -> Result<Json<Listed>, Problem> {
    let limit = limit(params.limit, 50, LIST_MAX)?;
    let before = app.place_of(&recipient, params.before)?;
    let (archived, unread) = match params.status {
        Status::Active => (Archived::Without, false),
        Status::Unread => (Archived::Without, true),
        Status::Archived => (Archived::Only, false),
        Status::All => (Archived::With, false),
    };
    app.wait_for("inbox", params.after.or(position)).await?;
    let filter = InboxFilter { before, archived, unread, limit };
    let page = app.ledger.store().inbox(&recipient, filter).await?;
    let items: Vec<_> = page.items.into_iter().map(Item::from).collect();
    let next = items.last().filter(|_| page.more).map(|it| it.cursor);
    Ok(Json(Listed { items, next, counts: page.counts.into() }))
}

/// What to wait for before counting.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountParams {
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
}

/// The counts, overall and by category.
pub(super) async fn counts(
    _: Caller<InboxRead>,
    State(app): State<Arc<App>>,
    Segments(RecipientPath { recipient }): Segments<RecipientPath>,
    Params(params): Params<CountParams>,
    IfPosition(position): IfPosition,
) -> Result<Json<Tallies>, Problem> {
    app.wait_for("inbox", params.after.or(position)).await?;
    let counts = app.ledger.store().inbox_counts(&recipient).await?;
    let categories = counts.by_category.into_iter().map(|(name, it)| (name, it.into())).collect();
    Ok(Json(Tallies { overall: counts.overall.into(), categories }))
}

/// An item of an inbox, and what was done with it.
#[derive(Debug, Deserialize)]
pub(super) struct MarkPath {
    recipient: RecipientId,
    message: MessageId,
    verb: String,
}

/// What became of a mark.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Marked {
    message_id: MessageId,
    cursor: Cursor,
}

/// The recipient did something with one item. What is so already appends nothing.
pub(super) async fn mark(
    caller: Caller<InboxWrite>,
    State(app): State<Arc<App>>,
    Segments(path): Segments<MarkPath>,
) -> Result<Json<Marked>, Problem> {
    let MarkPath { recipient, message, verb } = path;
    let mark = mark_of(&verb)?;
    let marks = vec![(message.clone(), mark)];
    let answers = app.ledger.mark(&recipient, marks, &metadata(&caller)).await;
    let marked = answers.into_iter().next().unwrap_or_else(|| Err(no_answer()))??;
    Ok(Json(Marked { message_id: message, cursor: marked.cursor }))
}

fn mark_of(verb: &str) -> Result<Mark, Problem> {
    Ok(match verb {
        "seen" => Mark::Seen,
        "read" => Mark::Read,
        "unread" => Mark::Unread,
        "archive" => Mark::Archive,
        "unarchive" => Mark::Unarchive,
        "delete" => Mark::Delete,
        _ => {
            let remedy = "use seen, read, unread, archive, unarchive or delete";
            return Err(Problem::new(Kind::UnknownRoute, "there is no such verb for an inbox item", remedy));
        }
    })
}

/// Up to where everything is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ReadAll {
    #[serde(deserialize_with = "parsed")]
    up_to: Option<Cursor>,
}

/// How many items were marked that were not so already.
#[derive(Debug, Serialize)]
pub(super) struct AllRead {
    marked: usize,
    cursor: Cursor,
}

/// Marks everything as read that the recipient can have seen: not put away, and not newer than the
/// cursor, so that what arrives meanwhile stays unread.
pub(super) async fn read_all(
    caller: Caller<InboxWrite>,
    State(app): State<Arc<App>>,
    Segments(RecipientPath { recipient }): Segments<RecipientPath>,
    Body(body): Body,
) -> Result<Json<AllRead>, Problem> {
    let body: Result<ReadAll, _> = serde_json::from_slice(&body);
    let remedy = "send {\"upTo\": \"0-42\"} with the cursor of the newest item that was shown";
    let read = body.map_err(|error| bad_request(format!("the body cannot be read: {error}"), remedy))?;
    let upto = app.place_of(&recipient, read.up_to)?;
    let (Some(cursor), Some(mut upto)) = (read.up_to, upto) else {
        return Err(bad_request("upTo is missing", remedy));
    };
    app.wait_for("inbox", Some(cursor)).await?;
    let metadata = metadata(&caller);
    let mut answer = AllRead { marked: 0, cursor };
    loop {
        let page = app.ledger.store().unread_upto(&recipient, upto, READ_ALL_PAGE).await?;
        let full = page.len() as u64 == READ_ALL_PAGE;
        let Some(&(_, oldest)) = page.last() else { return Ok(Json(answer)) };
        let marks = page.into_iter().map(|(message, _)| (message, Mark::Read)).collect();
        for marked in app.ledger.mark(&recipient, marks, &metadata).await {
            // One that was removed meanwhile needs no mark.
            if let Ok(marked) = marked? {
                answer.marked += usize::from(marked.is_new);
                answer.cursor.position = answer.cursor.position.max(marked.cursor.position);
            }
        }
        if !full {
            return Ok(Json(answer));
        }
        // The projection need not have caught up: the next page lies below this one.
        upto = Position(oldest.0 - 1);
    }
}

impl App {
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

fn metadata(caller: &Caller<InboxWrite>) -> Metadata {
    Metadata {
        ingress: Some("http".to_owned()),
        actor: Some(caller.actor.as_ref().to_owned()),
        ..Metadata::default()
    }
}

impl From<InboxItem> for Item {
    fn from(row: InboxItem) -> Self {
        Self {
            cursor: place(row.shard, row.position),
            message_id: row.message_id,
            title: row.title,
            body: row.body,
            category: row.category,
            link: row.link,
            image_url: row.image_url,
            data: row.data.and_then(|text| RawValue::from_string(text).ok()),
            locale: row.locale,
            source: row.source,
            occurred_at: row.occurred_at_us,
            received_at: row.received_at_us,
            expires_at: row.expires_at_us,
            seen_at: row.seen_at_us,
            read_at: row.read_at_us,
            archived_at: row.archived_at_us,
        }
    }
}

impl From<Counts> for Tally {
    fn from(counts: Counts) -> Self {
        let Counts { unseen, unread, total } = counts;
        Self { unseen, unread, total }
    }
}
