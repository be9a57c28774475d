//! `/v1/messages`: sending, and asking what became of it.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, MessagesRead, MessagesWrite},
    extract::{Beside, Body, IfPosition, MessagePath, Params, RecipientPath, Segments, bad_request, parsed},
    no_answer,
    openapi::{Sending, SendingAnswer},
    problem::{About, Kind, Problem, Rejected},
};
use crate::{
    audit::{Audit, Summary},
    clock::Timestamp,
    event::Metadata,
    id::{Cursor, MessageId},
    ledger::{Incoming, LedgerError, Receipt},
    message::{
        Parsed, Rejection,
        parse::{Outside, parse},
    },
    metric,
    store::MessageFilter,
};

/// The door's name in the log.
const INGRESS: &str = metric::HTTP;
/// Messages in one request at the most.
const BATCH_MAX: usize = 500;
/// Messages of a recipient in one answer at the most.
const LIST_MAX: u64 = 200;

/// What became of one message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent<'a> {
    #[schema(value_type = MessageId)]
    message_id: &'a MessageId,
    /// `appended`, `redelivered` or `conflict`.
    result: &'static str,
    cursor: Cursor,
}

/// What became of one of many.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SendingOutcome)]
enum Outcome<'a> {
    Known(Sent<'a>),
    Rejected(Rejected),
}

/// What became of many, in their order.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = SentMany)]
pub(super) struct Results<'a> {
    appended: usize,
    redelivered: usize,
    conflicts: usize,
    rejected: usize,
    #[serde(rename = "results")]
    #[schema(value_type = Vec<Outcome>)]
    outcomes: Vec<Outcome<'a>>,
}

/// `{"messages": […]}` and nothing else; the messages themselves are read one by one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// Takes in one message, or many.
#[utoipa::path(
    post, path = "/v1/messages", tag = "messages", operation_id = "sendMessages",
    params(Beside),
    request_body = Sending,
    responses(
        (status = CREATED, body = Sent, description = "One message, which is in the log now"),
        (status = OK, body = SendingAnswer, description = "One message that was there, or many, each with what became of it"),
    ),
    extensions(("x-problems" = json!([Kind::Conflict, Kind::InvalidMessage]))),
    security(("apiKey" = ["messages:write"])),
)]
pub(super) async fn send(
    caller: Caller<MessagesWrite>,
    State(app): State<Arc<App>>,
    beside: Beside,
    Body(body): Body,
) -> Result<Response, Problem> {
    match batch(&body)? {
        Some(messages) => send_many(&app, &caller.actor, &beside, &messages).await,
        None => send_one(&app, &caller.actor, &beside, &body).await,
    }
}

async fn send_one(app: &App, actor: &str, beside: &Beside, body: &[u8]) -> Result<Response, Problem> {
    metric::received(INGRESS, 1);
    let outside = Outside { strong_id: beside.idempotency_key.as_deref(), weak_id: None };
    let parsed = parse(body, outside).inspect_err(refused)?;
    let id = parsed.message.message_id.clone();
    let receipts = app.ledger.accept(vec![incoming(parsed, actor, beside)]).await;
    let receipt = receipts.into_iter().next().unwrap_or_else(|| Err(no_answer()))?;
    let sent = Sent::new(&id, receipt);
    let status = match receipt {
        Receipt::Appended(_) => StatusCode::CREATED,
        Receipt::Redelivered(_) => StatusCode::OK,
        Receipt::Conflict(_) => return Err(conflict(&sent)),
    };
    Ok((status, Json(sent)).into_response())
}

fn conflict(sent: &Sent<'_>) -> Problem {
    let remedy = "send the new content under a new messageId; what was sent first stays as it is, and this \
                  content is on record as a conflict";
    Problem::new(Kind::Conflict, "another message was sent under this messageId before", remedy).about(
        About {
            message_id: Some(sent.message_id.to_string()),
            cursor: Some(sent.cursor.to_string()),
            result: Some(sent.result),
            ..About::default()
        },
    )
}

/// Each by itself: one that is no message does not stop the others.
async fn send_many(
    app: &App,
    actor: &str,
    beside: &Beside,
    messages: &[&RawValue],
) -> Result<Response, Problem> {
    if messages.len() > BATCH_MAX {
        let detail = format!("the request has {} messages, more than {BATCH_MAX}", messages.len());
        let about = About { code: Some("too_large"), result: Some("rejected"), ..About::default() };
        return Err(Problem::new(Kind::TooLarge, detail, "send them in several requests").about(about));
    }
    metric::received(INGRESS, messages.len());
    let (mut ids, mut rejections, mut arrivals) = (Vec::new(), Vec::new(), Vec::new());
    for message in messages {
        match parse(message.get().as_bytes(), Outside::default()) {
            Ok(parsed) => {
                ids.push(Some(parsed.message.message_id.clone()));
                arrivals.push(incoming(parsed, actor, beside));
            }
            Err(rejection) => {
                refused(&rejection);
                ids.push(None);
                rejections.push(rejection);
            }
        }
    }
    let receipts = app.ledger.accept(arrivals).await;
    let receipts = receipts.into_iter().collect::<Result<Vec<_>, _>>().map_err(unfinished)?;
    let (mut receipts, mut rejections) = (receipts.into_iter(), rejections.into_iter());
    let mut results = Results { outcomes: Vec::with_capacity(ids.len()), ..Results::default() };
    for id in &ids {
        match id {
            Some(id) => results.known(id, receipts.next().ok_or_else(no_answer)?),
            None => results.rejected(rejections.next().ok_or_else(no_answer)?),
        }
    }
    Ok(Json(results).into_response())
}

/// Not all of them are durable. Which ones does not matter: the same request may be sent again.
fn unfinished(error: LedgerError) -> Problem {
    let problem = Problem::from(error);
    if problem.status() != StatusCode::SERVICE_UNAVAILABLE {
        return problem;
    }
    let detail = "the database does not answer; some of the messages may be in the log, others are not";
    let remedy = "send the same request again; what is in the log is then answered as redelivered";
    Problem::new(Kind::Unavailable, detail, remedy).retry_after(2)
}

impl<'a> Sent<'a> {
    const fn new(message_id: &'a MessageId, receipt: Receipt) -> Self {
        let (result, cursor) = word_of(receipt);
        Self { message_id, result, cursor }
    }
}

impl<'a> Results<'a> {
    fn known(&mut self, id: &'a MessageId, receipt: Receipt) {
        match receipt {
            Receipt::Appended(_) => self.appended += 1,
            Receipt::Redelivered(_) => self.redelivered += 1,
            Receipt::Conflict(_) => self.conflicts += 1,
        }
        self.outcomes.push(Outcome::Known(Sent::new(id, receipt)));
    }

    fn rejected(&mut self, rejection: Rejection) {
        self.rejected += 1;
        self.outcomes.push(Outcome::Rejected(rejection.into()));
    }
}

fn incoming(parsed: Parsed, actor: &str, beside: &Beside) -> Incoming {
    let metadata = Metadata {
        ingress: Some(INGRESS.to_owned()),
        actor: Some(actor.to_owned()),
        trace: beside.trace.clone(),
        ..Metadata::default()
    };
    Incoming { parsed, metadata }
}

fn refused(rejection: &Rejection) {
    metric::rejected(INGRESS, rejection.code.as_str());
}

/// The messages of a body that holds many, each unread; none where the body is one message.
fn batch(body: &[u8]) -> Result<Option<Vec<&RawValue>>, Problem> {
    match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body).map(Some).map_err(|error| not_json(&error)),
        // Only a body that could be an envelope is looked at twice.
        Some(b'{') if has_messages(body) => {
            Ok(serde_json::from_slice(body).ok().map(|it: Envelope<'_>| it.messages))
        }
        _ => Ok(None),
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    let about = About { code: Some("not_json"), result: Some("rejected"), ..About::default() };
    bad_request(format!("the body is not JSON: {error}"), "send a list of messages, each a JSON object")
        .about(about)
}

/// Whether the first member of an object is called `messages`.
fn has_messages(body: &[u8]) -> bool {
    let member = body.trim_ascii_start().get(1..).unwrap_or_default().trim_ascii_start();
    member.starts_with(b"\"messages\"")
}

/// All that is known of one message.
#[utoipa::path(
    get, path = "/v1/messages/{message}", tag = "messages", operation_id = "showMessage",
    params(MessagePath),
    responses((status = OK, body = Audit, description = "Everything that happened to the message")),
    extensions(("x-problems" = json!([Kind::UnknownMessage]))),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn show(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
    Segments(path): Segments<MessagePath>,
) -> Result<Json<Audit>, Problem> {
    let evidence = app.ledger.store().evidence(&path.message).await?;
    evidence.and_then(Audit::new).map(Json).ok_or_else(|| {
        let remedy = "check the id; what could not become a message is in quarantine";
        Problem::new(Kind::UnknownMessage, "the log has no message of this id", remedy)
    })
}

/// What to list of a recipient's messages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// How many at the most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// Older than this: the `next` of the answer before.
    #[serde(default, deserialize_with = "parsed")]
    before: Option<Cursor>,
    /// Received at this time or later.
    #[serde(default, deserialize_with = "parsed")]
    since: Option<Timestamp>,
    /// Received before this time.
    #[serde(default, deserialize_with = "parsed")]
    until: Option<Timestamp>,
    /// The cursor of a write that the answer must show.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
}

/// Messages of a recipient, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageList)]
pub(super) struct Listed {
    messages: Vec<Summary>,
    /// Where the next, older ones begin; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
}

/// What a recipient was told.
#[utoipa::path(
    get, path = "/v1/recipients/{recipient}/messages", tag = "messages", operation_id = "listMessages",
    params(RecipientPath, ListParams, IfPosition),
    responses((status = OK, body = Listed, description = "Newest first")),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn list(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
    Segments(RecipientPath { recipient }): Segments<RecipientPath>,
    Params(params): Params<ListParams>,
    IfPosition(position): IfPosition,
) -> Result<Json<Listed>, Problem> {
    let limit = limit(params.limit, 50, LIST_MAX)?;
    let before = app.place_of(&recipient, params.before)?;
    app.wait_for("messages", params.after.or(position)).await?;
    let filter = MessageFilter { before, since: params.since, until: params.until, limit };
    let (rows, more) = app.ledger.store().messages_of(&recipient, filter).await?;
    let messages: Vec<_> = rows.into_iter().map(Summary::from).collect();
    let next = messages.last().filter(|_| more).map(|it| it.cursor);
    Ok(Json(Listed { messages, next }))
}

/// What became of a message in one word, and its place in the log.
pub(super) const fn word_of(receipt: Receipt) -> (&'static str, Cursor) {
    match receipt {
        Receipt::Appended(cursor) => ("appended", cursor),
        Receipt::Redelivered(cursor) => ("redelivered", cursor),
        Receipt::Conflict(cursor) => ("conflict", cursor),
    }
}

/// A limit within its bounds.
pub(super) fn limit(given: Option<u64>, default: u64, max: u64) -> Result<u64, Problem> {
    match given.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        limit => Err(bad_request(format!("limit is {limit}"), format!("use a number from 1 to {max}"))),
    }
}
