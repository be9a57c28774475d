//! `…/inbox/stream`: an inbox as it changes, by server-sent events.
//!
//! A stream is a place in the log and no more: what changed since is read when there is a hint of news and
//! the connection takes more. So nothing gathers for slow clients, what they missed is one read away, on any
//! process, and any number of changes of one item costs one event. Who falls too far behind is told to list
//! the inbox anew.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, future::OptionFuture, stream};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};
use utoipa::IntoParams;

use super::{
    App,
    auth::{InboxOf, InboxRead, Pass},
    extract::{Params, bad_request, parsed},
    openapi::LastEventId,
    problem::{Kind, Problem},
    serve::Stopping,
};
use crate::{
    audit::inbox::{Item, Tallies},
    id::{Cursor, Position, RecipientId},
    ledger::live::{Listening, NoPlace},
    projection::inbox::InboxItem,
    store::{StoreError, inbox::InboxChanges},
};

/// Changed items that are told one by one; who missed more lists the inbox anew.
const CHANGES_MAX: u64 = 1_000;
/// After so long in silence a comment says that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often a stream asks whether its caller is let in still. With what is believed of keys meanwhile this is less
/// than a key may live on that was revoked.
pub const RECHECK: Duration = Duration::from_secs(4);
/// How long it waits for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a stream lasts: what its caller may do is asked again when it comes back.
const LIFE_MAX: Duration = Duration::from_hours(1);
/// How long clients wait before they come back, at least and at most; spread, for they may all come at once.
const RETRY: (u64, u64) = (1_000, 3_000);

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamParams {
    /// The cursor to go on from; without it, now.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
}

/// What an event says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'t> {
    cursor: Cursor,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    counts: &'t Tallies,
}

/// What happened, as the event's type says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The stream begins here.
    Ready,
    /// The item is in the inbox now.
    Added,
    /// The item is another than before.
    Changed,
    /// The item is in no list any more.
    Removed,
    /// Too much happened since.
    Resync,
}

/// One change of an inbox, at its place.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    at: Position,
    what: What,
    item: InboxItem,
}

/// A stream at its place.
struct Tail {
    app: Arc<App>,
    recipient: RecipientId,
    listening: Listening,
    /// What was told; none before the stream has begun.
    told: Option<Position>,
    is_lost: bool,
    is_hinted: bool,
    waiting: VecDeque<Event>,
    stopping: Option<Stopping>,
    ends_at: Instant,
    pass: Pass,
    /// Whether the caller was let in when that was asked last.
    is_admitted: bool,
    /// When to ask again.
    asks_at: Instant,
}

/// Everything that changes from now on, or from the place that the client was at.
#[utoipa::path(
    get, path = "/stream", tag = "inbox", operation_id = "streamInbox",
    params(StreamParams, LastEventId),
    responses((status = OK, body = String, content_type = "text/event-stream", description = "Its changes, one by one")),
    extensions(("x-problems" = json!([Kind::TooManyStreams]))),
    security(("apiKey" = ["inbox:read"])),
)]
pub(super) async fn open(
    InboxOf { recipient, until, pass, .. }: InboxOf<InboxRead>,
    State(app): State<Arc<App>>,
    Params(params): Params<StreamParams>,
    stopping: Option<Extension<Stopping>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let began = last_event_id(&headers)?.or(params.after);
    // Listening begins before the first look: what happens between is not missed.
    let listening = app.live.listen(&recipient).map_err(no_place)?;
    let is_lost = match began {
        // Of another recipient or ledger.
        Some(cursor) if cursor.shard != app.ledger.store().shard_of(&recipient) => true,
        // A place that the inbox does not come to is of another ledger, or of a time before a restore.
        Some(cursor) => !app.ledger.wait_for("inbox", cursor, app.settings.wait_for_projection).await?,
        None => false,
    };
    let life = until.map_or(LIFE_MAX, |until| until.since(app.ledger.now()).min(LIFE_MAX));
    let retry = Duration::from_millis(fastrand::u64(RETRY.0..=RETRY.1));
    let now = Instant::now();
    let ends_at = now + life;
    let tail = Tail {
        // What lasts until it ends need not be asked about.
        asks_at: if pass == Pass::Lasting { ends_at } else { now + app.settings.recheck },
        is_admitted: true,
        pass,
        app,
        recipient,
        listening,
        told: began.map(|it| it.position),
        is_lost,
        is_hinted: true,
        waiting: VecDeque::from([Event::default().retry(retry)]),
        stopping: stopping.map(|Extension(it)| it),
        ends_at,
    };
    let heartbeat = KeepAlive::new().interval(HEARTBEAT);
    let mut response = Sse::new(tail.into_stream()).keep_alive(heartbeat).into_response();
    // Proxies that gather answers would keep the news from whoever waits for it.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() {
        return Ok(None); // How a client says that it has none.
    }
    text.parse().map(Some).map_err(|error| {
        bad_request(format!("the header Last-Event-ID: {error}"), "send the id of an event, or none")
    })
}

fn no_place(error: NoPlace) -> Problem {
    let remedy = match error {
        NoPlace::Full => "come back later, or to another process; api.streams_max is the limit",
        NoPlace::OfOne => "close streams that are not looked at any more",
    };
    Problem::new(Kind::TooManyStreams, error.to_string(), remedy).retry_after(10)
}

impl Tail {
    fn into_stream(self) -> impl Stream<Item = Result<Event, StoreError>> {
        stream::try_unfold(self, |mut tail| async move {
            let event = tail.next().await?;
            Ok(event.map(|event| (event, tail)))
        })
    }

    /// The next event; none at the end.
    async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        loop {
            if self.asks_at <= Instant::now() && !self.ask().await {
                return Ok(None);
            }
            if self.is_admitted
                && let Some(event) = self.waiting.pop_front()
            {
                return Ok(Some(event));
            }
            if self.is_admitted && self.is_hinted {
                self.is_hinted = false;
                self.read().await?;
                continue;
            }
            let stopped = OptionFuture::from(self.stopping.as_ref().map(Stopping::begun));
            tokio::select! {
                () = self.listening.hint() => self.is_hinted = true,
                Some(()) = stopped => return Ok(None),
                () = sleep_until(self.ends_at) => return Ok(None),
                () = sleep_until(self.asks_at) => {}
            }
        }
    }

    /// Asks whether the caller is let in still; nothing is told while nobody can say so.
    async fn ask(&mut self) -> bool {
        let recheck = self.app.settings.recheck;
        let answer = self.app.callers.still_admit(&self.pass, self.app.ledger.now());
        let answer = timeout(PATIENCE, answer).await;
        self.asks_at = Instant::now() + recheck;
        self.is_admitted = matches!(answer, Ok(Ok(true)));
        !matches!(answer, Ok(Ok(false)))
    }

    /// Reads what changed since, and makes events of it.
    async fn read(&mut self) -> Result<(), StoreError> {
        let after = if self.is_lost { None } else { self.told };
        let changes = {
            let _turn = self.app.live.turn().await;
            self.app.ledger.store().inbox_changes(&self.recipient, after, CHANGES_MAX).await?
        };
        let InboxChanges { items, more, counts } = changes;
        let last = counts.last;
        let shard = self.app.ledger.store().shard_of(&self.recipient);
        let counts = Tallies::from(counts);
        let event = |what: What, at: Position, item: Option<InboxItem>| {
            let cursor = Cursor { shard, position: at };
            let (item, message_id) = match (what, item) {
                (What::Removed, Some(item)) => (None, Some(item.message_id)),
                (_, item) => (item.map(Item::from), None),
            };
            let told = Told { cursor, item, message_id, counts: &counts };
            let event = Event::default().event(what.as_str()).id(cursor.to_string());
            event.json_data(told).map_err(|error| StoreError::Corrupt(format!("an inbox item {error}")))
        };
        match after {
            Some(after) if !more => {
                for Change { at, what, item } in changes_since(after, items) {
                    self.waiting.push_back(event(what, at, Some(item))?);
                }
            }
            _ => {
                let is_new = self.told.is_none();
                let what = if is_new { What::Ready } else { What::Resync };
                self.waiting.push_back(event(what, last, None)?);
            }
        }
        self.is_lost = false;
        self.told = Some(after.map_or(last, |told| told.max(last)));
        Ok(())
    }
}

/// What to tell whoever was told everything up to `after`, each at a place of its own and in order.
///
/// An item that is new to them is told where it appeared, as it is by now; one that they know, where it
/// changed last. What came and went in between they need not know of.
fn changes_since(after: Position, items: Vec<InboxItem>) -> Vec<Change> {
    let change = |item: InboxItem| {
        let (appeared, changed) = (Position(item.position), Position(item.last_position));
        let (at, what) = match (item.is_shown(), appeared > after) {
            (false, true) => return None,
            (false, false) => (changed, What::Removed),
            (true, true) => (appeared, What::Added),
            (true, false) => (changed, What::Changed),
        };
        Some(Change { at, what, item })
    };
    let mut changes: Vec<_> = items.into_iter().filter_map(change).collect();
    changes.sort_unstable_by_key(|it| it.at);
    changes
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Resync => "resync",
        }
    }
}
