//! The log: appending under the shard's lock, and reading.
//!
//! Appending is one transaction, the same on every database: lock the shard; read what the log has of
//! these messages; decide; insert with explicit positions; move the head; commit. The lock is held
//! until the commit, so positions become visible in order and without a gap (GAPLESS): a reader needs
//! only `position > checkpoint`. What is decided under it cannot be overtaken (DECIDE-UNDER-LOCK), and
//! a message id gets its version 0 once (ONCE). Rows are only ever inserted (APPEND-ONLY).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use sea_query::{CaseStatement, Expr, ExprTrait, Order, Query, SelectStatement, UpdateStatement};
use sqlx::FromRow;

use super::{
    Mode, Store, StoreError, Tx,
    bulk::{self, Cell, Lookup, OnDuplicate},
    db::Busy,
    event_row::{COLUMNS, EventRow, SKIPPED, event_columns},
    redeliveries::{Again, count_again},
};
use crate::{
    clock::Timestamp,
    event::{
        Event, Metadata, Recorded,
        codec::{self, CodecError},
    },
    id::{Cursor, MessageId, Position, RecipientId, Shard},
    message::ContentHash,
    stream::{Command, Origin, Refusal, Stream, decide},
};

/// One thing to do in a shard.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose stream.
    pub message_id: MessageId,
    /// What to do.
    pub command: Command,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// How the ledger came to know.
    pub metadata: Metadata,
}

/// What became of an [`Entry`].
#[derive(Debug, Clone)]
pub enum Applied {
    /// Events were appended.
    Appended {
        /// Of the last of them.
        cursor: Cursor,
        /// All of them.
        events: Vec<Event>,
        /// The message they are about.
        origin: Option<Arc<Origin>>,
    },
    /// It was so already.
    Unchanged {
        /// Of the message's last event that is known here.
        cursor: Cursor,
    },
    /// It does not fit.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Of the message's last event that is known here, if there is such a message.
        cursor: Option<Cursor>,
    },
    /// The message id lives in another shard; ask there.
    Elsewhere(Shard),
}

/// Where a message lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The shard of all its events.
    pub shard: Shard,
    /// When it was received.
    pub received_at: Timestamp,
}

#[derive(FromRow)]
struct HeadRow {
    shard: i16,
    head: i64,
}

#[derive(FromRow)]
struct KnownRow {
    message_id: String,
    shard: i16,
    position: i64,
    content_hash: Option<Vec<u8>>,
}

/// What is known of one message while its shard is locked.
#[derive(Default)]
struct Known {
    home: Option<Shard>,
    content_hash: Option<ContentHash>,
    /// Whether `stream` holds all events; a plain redelivery does not need them.
    loaded: bool,
    stream: Stream,
    next_version: i32,
    last_position: i64,
}

/// The batch while it is decided.
struct Batch {
    now: Timestamp,
    heads: BTreeMap<Shard, i64>,
    known: HashMap<MessageId, Known>,
    rows: Vec<Vec<Cell>>,
    again: HashMap<MessageId, Again>,
}

impl Store {
    /// Applies `entries` in order, in one transaction of `shard`. Nothing of it is visible before all
    /// of it is durable; on an error nothing has happened.
    pub async fn append(
        &self,
        shard: Shard,
        entries: &[Entry],
        now: Timestamp,
    ) -> Result<Vec<Applied>, StoreError> {
        let applied = self.append_all(&[(shard, entries)], now).await?;
        Ok(applied.into_iter().flatten().collect())
    }

    /// The same for parts of several shards, or several of one, in one transaction; answers part by
    /// part.
    pub async fn append_all(
        &self,
        parts: &[(Shard, &[Entry])],
        now: Timestamp,
    ) -> Result<Vec<Vec<Applied>>, StoreError> {
        let shards: BTreeSet<_> = parts.iter().map(|(shard, _)| *shard).collect();
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        // The locks are held until the commit: this is what makes positions gapless. They are taken in
        // one order everywhere, so that two transactions cannot wait for each other.
        let (mut tx, rows) = self.db.begin_locking::<HeadRow>(&heads_of(&shards), Busy::Wait).await?;
        let heads = rows.into_iter().map(|row| Ok((self::shard(row.shard)?, row.head)));
        let heads = heads.collect::<Result<BTreeMap<_, _>, StoreError>>()?;
        if let Some(shard) = shards.iter().find(|shard| !heads.contains_key(shard)) {
            return Err(StoreError::Corrupt(format!("log_shards has no shard {shard}")));
        }
        let known = load(&mut tx, parts).await?;
        let mut batch = Batch { now, heads, known, rows: Vec::new(), again: HashMap::new() };
        let mut applied = Vec::with_capacity(parts.len());
        for (shard, entries) in parts {
            let entries = entries.iter().map(|entry| batch.apply(*shard, entry));
            applied.push(entries.collect::<Result<Vec<_>, _>>()?);
        }
        if batch.rows.is_empty() && batch.again.is_empty() {
            tx.rollback().await?;
            return Ok(applied);
        }
        bulk::insert(&mut tx, "notification_events", &COLUMNS, batch.rows, OnDuplicate::Fail).await?;
        count_again(&mut tx, batch.again, now).await?;
        tx.commit_with(&move_heads(&batch.heads)).await?;
        Ok(applied)
    }

    /// All events of one message, in order.
    pub async fn stream(&self, message: &MessageId) -> Result<Vec<Recorded>, StoreError> {
        let rows: Vec<EventRow> = self.db.all(&stream_of(message)).await?;
        rows.into_iter().map(EventRow::decode).collect()
    }

    /// Up to `limit` events of a shard after a position, in order.
    pub async fn events_after(
        &self,
        shard: Shard,
        after: Position,
        limit: u64,
    ) -> Result<Vec<Recorded>, StoreError> {
        let rows: Vec<EventRow> = self.db.all(&range(shard, after, None, limit)).await?;
        rows.into_iter().map(EventRow::decode).collect()
    }

    /// For whom there are events after one place of a shard and up to another; a range of the primary key.
    pub async fn recipients_between(
        &self,
        shard: Shard,
        after: Position,
        upto: Position,
    ) -> Result<Vec<RecipientId>, StoreError> {
        let statement = Query::select()
            .distinct()
            .column("recipient_id")
            .from("notification_events")
            .and_where(Expr::col("shard").eq(shard_column(shard)))
            .and_where(Expr::col("position").gt(after.0))
            .and_where(Expr::col("position").lte(upto.0))
            .to_owned();
        let rows: Vec<(String,)> = self.db.all(&statement).await?;
        rows.into_iter().map(|(text,)| recipient_id(text)).collect()
    }

    /// The last position of every shard.
    pub async fn heads(&self) -> Result<Vec<Cursor>, StoreError> {
        let statement = Query::select()
            .columns(["shard", "head"])
            .from("log_shards")
            .order_by("shard", Order::Asc)
            .to_owned();
        let rows: Vec<HeadRow> = self.db.all(&statement).await?;
        rows.iter().map(|row| Ok(Cursor { shard: shard(row.shard)?, position: Position(row.head) })).collect()
    }

    /// When the first event after a position was recorded: how long a reader there is behind.
    pub async fn recorded_after(
        &self,
        shard: Shard,
        after: Position,
    ) -> Result<Option<Timestamp>, StoreError> {
        let statement = Query::select()
            .column("recorded_at_us")
            .from("notification_events")
            .and_where(Expr::col("shard").eq(shard_column(shard)))
            .and_where(Expr::col("position").eq(after.0 + 1))
            .to_owned();
        let row: Option<(i64,)> = self.db.first(&statement).await?;
        Ok(row.map(|(micros,)| Timestamp::from_micros(micros)))
    }

    /// The shard that a message lives in.
    pub async fn home_of(&self, message: &MessageId) -> Result<Option<Shard>, StoreError> {
        #[derive(FromRow)]
        struct Row {
            shard: i16,
        }
        let statement = Query::select()
            .column("shard")
            .from("notification_events")
            .and_where(Expr::col("message_id").eq(message.as_str()))
            .and_where(Expr::col("version").eq(0))
            .to_owned();
        let row: Option<Row> = self.db.first(&statement).await?;
        row.map(|row| shard(row.shard)).transpose()
    }

    /// Where these messages live, in one query; those that the log does not have are missing.
    pub async fn homes_of(&self, messages: &[&MessageId]) -> Result<HashMap<MessageId, Home>, StoreError> {
        #[derive(FromRow)]
        struct Row {
            message_id: String,
            shard: i16,
            recorded_at_us: i64,
        }
        let lookup = Lookup {
            columns: "message_id, shard, recorded_at_us",
            table: "notification_events",
            key: "message_id",
            filter: "version = 0",
        };
        let mut keys: Vec<_> = messages.iter().map(|it| it.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut tx = self.db.begin(Mode::Read).await?;
        let rows: Vec<Row> = bulk::look_up(&mut tx, lookup, &keys).await?;
        tx.commit().await?;
        let home = |row: Row| {
            let received_at = Timestamp::from_micros(row.recorded_at_us);
            let id = MessageId::try_from(row.message_id)
                .map_err(|error| StoreError::Corrupt(format!("message_id {error}")))?;
            Ok((id, Home { shard: shard(row.shard)?, received_at }))
        };
        rows.into_iter().map(home).collect()
    }
}

fn heads_of(shards: &BTreeSet<Shard>) -> SelectStatement {
    Query::select()
        .columns(["shard", "head"])
        .from("log_shards")
        .and_where(Expr::col("shard").is_in(shards.iter().map(|it| shard_column(*it))))
        .order_by("shard", Order::Asc)
        .to_owned()
}

fn move_heads(heads: &BTreeMap<Shard, i64>) -> UpdateStatement {
    let to = heads.iter().fold(CaseStatement::new(), |to, (shard, head)| {
        to.case(Expr::col("shard").eq(shard_column(*shard)), *head)
    });
    Query::update()
        .table("log_shards")
        .value("head", to)
        .and_where(Expr::col("shard").is_in(heads.keys().map(|it| shard_column(*it))))
        .to_owned()
}

/// Reads what the log has of these messages: the first event of each, and the whole stream where the
/// decision needs more than whether the content is the same.
async fn load(tx: &mut Tx, parts: &[(Shard, &[Entry])]) -> Result<HashMap<MessageId, Known>, StoreError> {
    let entries = || parts.iter().flat_map(|(shard, entries)| entries.iter().map(|entry| (*shard, entry)));
    let mut known: HashMap<MessageId, Known> =
        entries().map(|(_, entry)| (entry.message_id.clone(), Known::default())).collect();
    let ids = known.keys().map(MessageId::as_str).collect::<Vec<_>>();
    let first = Lookup {
        columns: "message_id, shard, position, content_hash",
        table: "notification_events",
        key: "message_id",
        filter: "version = 0",
    };
    let rows: Vec<KnownRow> = bulk::look_up(tx, first, &ids).await?;
    for row in rows {
        let (id, home) = (message_id(row.message_id)?, self::shard(row.shard)?);
        let Some(it) = known.get_mut(&id) else { continue };
        it.home = Some(home);
        it.content_hash = row.content_hash.map(content_hash).transpose()?;
        it.last_position = row.position;
    }
    let whole = |&(shard, entry): &(Shard, &Entry)| {
        let Some(it) = known.get(&entry.message_id).filter(|it| it.home == Some(shard)) else { return false };
        match &entry.command {
            Command::Receive(arrival) => it.content_hash != Some(arrival.content_hash),
            _ => true,
        }
    };
    let mut ids: Vec<_> = entries().filter(whole).map(|(_, entry)| entry.message_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    let ids: Vec<_> = ids.iter().map(MessageId::as_str).collect();
    let columns = event_columns();
    let whole = Lookup { columns: &columns, table: "notification_events", key: "message_id", filter: "true" };
    let mut rows: Vec<EventRow> = bulk::look_up(tx, whole, &ids).await?;
    rows.sort_unstable_by_key(|row| (row.shard, row.position));
    for row in rows {
        let hash = row.content_hash.clone().map(content_hash).transpose()?;
        let event = row.decode()?;
        let Some(it) = known.get_mut(&event.message_id) else { continue };
        it.loaded = true;
        it.next_version = event.version.0 + 1;
        it.last_position = event.position.0;
        it.stream.apply(&event.body, event.recorded_at, hash);
    }
    Ok(known)
}

impl Batch {
    fn apply(&mut self, shard: Shard, entry: &Entry) -> Result<Applied, StoreError> {
        let known = self.known.entry(entry.message_id.clone()).or_default();
        if let Some(home) = known.home.filter(|&home| home != shard) {
            return Ok(Applied::Elsewhere(home));
        }
        let at = |position| Cursor { shard, position: Position(position) };
        let cursor = known.home.map(|_| at(known.last_position));
        let decided = match (&entry.command, known.loaded, known.content_hash) {
            (Command::Receive(arrival), false, Some(hash)) if hash == arrival.content_hash => {
                Err(Refusal::Redelivered)
            }
            (command, ..) => decide(&known.stream, command, self.now),
        };
        let events = match decided {
            Ok(events) => events,
            Err(refusal) => {
                self.note_again(entry, &refusal);
                return Ok(Applied::Refused { refusal, cursor });
            }
        };
        if events.is_empty() {
            return Ok(match cursor {
                Some(cursor) => Applied::Unchanged { cursor },
                None => Applied::Refused { refusal: Refusal::UnknownMessage, cursor },
            });
        }
        let head = self.record(shard, entry, &events)?;
        let known = self.known.get(&entry.message_id);
        let origin = known.and_then(|it| it.stream.origin().cloned());
        Ok(Applied::Appended { cursor: at(head), events, origin })
    }

    /// Gives the events their places and takes them into the stream, for the entries that follow;
    /// answers the last place.
    fn record(&mut self, shard: Shard, entry: &Entry, events: &[Event]) -> Result<i64, StoreError> {
        let known = self.known.entry(entry.message_id.clone()).or_default();
        let head = self.heads.entry(shard).or_default();
        let codec = |position| {
            let shard = shard_column(shard);
            move |source| StoreError::Codec { shard, position, source }
        };
        let metadata = serde_json::to_string(&entry.metadata)
            .map_err(|source| CodecError::BadPayload { kind: "metadata".to_owned(), source })
            .map_err(codec(*head))?;
        for (at, event) in events.iter().enumerate() {
            *head += 1;
            let hash = match (&entry.command, event) {
                (Command::Receive(arrival), Event::MessageReceived(_)) => Some(arrival.content_hash),
                _ => None,
            };
            let encoded = codec::encode(event).map_err(codec(*head))?;
            known.stream.apply(event, self.now, hash);
            let recipient = known
                .stream
                .origin()
                .map(|origin| origin.message.recipient_id.to_string())
                .unwrap_or_default();
            // What follows from an arrival came by no door of its own, and happens now.
            let (metadata, occurred_at) = match at {
                0 => (metadata.clone(), entry.occurred_at),
                _ => ("{}".to_owned(), self.now),
            };
            self.rows.push(vec![
                Cell::Int(i64::from(shard.0)),
                Cell::Int(*head),
                Cell::Text(entry.message_id.to_string()),
                Cell::Int(i64::from(known.next_version)),
                Cell::Text(encoded.kind.to_owned()),
                Cell::Int(i64::from(encoded.schema_version)),
                Cell::Text(recipient),
                Cell::Int(occurred_at.as_micros()),
                Cell::Int(self.now.as_micros()),
                hash.map_or(Cell::Null, |hash| Cell::Bytes(hash.0.to_vec())),
                Cell::Text(encoded.payload),
                Cell::Text(metadata),
            ]);
            known.next_version += 1;
            known.last_position = *head;
            known.home = Some(shard);
            known.loaded = true;
            known.content_hash = hash.or(known.content_hash);
        }
        Ok(*head)
    }

    fn note_again(&mut self, entry: &Entry, refusal: &Refusal) {
        let (redelivered, conflicting) = match refusal {
            Refusal::Redelivered => (1, 0),
            Refusal::ConflictKnown => (0, 1),
            _ => return,
        };
        let again = self.again.entry(entry.message_id.clone()).or_default();
        again.redelivered += redelivered;
        again.conflicting += conflicting;
        again.ingress.clone_from(&entry.metadata.ingress);
    }
}

fn select_events() -> SelectStatement {
    let columns = COLUMNS.map(|it| it.name);
    let skipped = Expr::cust(SKIPPED);
    Query::select().columns(columns).expr_as(skipped, "skipped").from("notification_events").to_owned()
}

/// Rides on the unique key (message id, version).
fn stream_of(message: &MessageId) -> SelectStatement {
    select_events()
        .and_where(Expr::col("message_id").eq(message.as_str()))
        .order_by("version", Order::Asc)
        .to_owned()
}

/// Up to `limit` events of a shard after one position and, where given, up to another. Positions have
/// no gaps, so a bound on them is a bound on their number, which no planner can get wrong.
pub(super) fn range(shard: Shard, after: Position, upto: Option<Position>, limit: u64) -> SelectStatement {
    let last = after.0.saturating_add_unsigned(limit);
    let last = upto.map_or(last, |upto| std::cmp::min(last, upto.0));
    select_events()
        .and_where(Expr::col("shard").eq(shard_column(shard)))
        .and_where(Expr::col("position").gt(after.0))
        .and_where(Expr::col("position").lte(last))
        .order_by("position", Order::Asc)
        .to_owned()
}

/// Reads a range of events within a transaction; what cannot be decoded ends the list and comes as
/// the error of that place, so that everything before it can still be folded.
pub(super) async fn read_range(
    tx: &mut Tx,
    shard: Shard,
    after: Position,
    upto: Option<Position>,
    limit: u64,
) -> Result<(Vec<Recorded>, Option<StoreError>), StoreError> {
    decode_range(tx.all(&range(shard, after, upto, limit)).await?)
}

pub(super) fn decode_range(rows: Vec<EventRow>) -> Result<(Vec<Recorded>, Option<StoreError>), StoreError> {
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        match row.decode() {
            Ok(event) => events.push(event),
            Err(error @ StoreError::Codec { .. }) => return Ok((events, Some(error))),
            Err(error) => return Err(error),
        }
    }
    Ok((events, None))
}

/// All events of one message, and the hash of its content, within a transaction.
pub(super) async fn read_stream(
    tx: &mut Tx,
    message: &MessageId,
) -> Result<(Vec<Recorded>, Option<ContentHash>), StoreError> {
    let mut rows: Vec<EventRow> = tx.all(&stream_of(message)).await?;
    let hash = rows.first_mut().and_then(|row| row.content_hash.take()).map(content_hash).transpose()?;
    let events = rows.into_iter().map(EventRow::decode).collect::<Result<_, _>>()?;
    Ok((events, hash))
}

pub(super) fn message_id(text: String) -> Result<MessageId, StoreError> {
    MessageId::try_from(text).map_err(|error| StoreError::Corrupt(format!("message_id {error}")))
}

pub(super) fn recipient_id(text: String) -> Result<RecipientId, StoreError> {
    RecipientId::try_from(text).map_err(|error| StoreError::Corrupt(format!("recipient_id {error}")))
}

/// The shard in a row of a projection, whose columns are wider.
pub(super) fn wide_shard(column: i64) -> Result<Shard, StoreError> {
    u16::try_from(column).map(Shard).map_err(|_| StoreError::Corrupt(format!("shard {column}")))
}

fn content_hash(bytes: Vec<u8>) -> Result<ContentHash, StoreError> {
    let bytes =
        bytes.try_into().map_err(|_| StoreError::Corrupt("content_hash has not 32 bytes".to_owned()))?;
    Ok(ContentHash(bytes))
}

/// A shard as the databases hold it.
pub(super) fn shard_column(shard: Shard) -> i16 {
    i16::try_from(shard.0).unwrap_or(i16::MAX)
}

/// A shard as the databases gave it.
pub(super) fn shard(column: i16) -> Result<Shard, StoreError> {
    u16::try_from(column).map(Shard).map_err(|_| StoreError::Corrupt(format!("shard {column}")))
}
