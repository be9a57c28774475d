//! Reading what happened to all messages of a recipient, part by part, and finding the place of a time.

use sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};

use super::{
    Mode, Store, StoreError,
    bulk::{self, Lookup},
    event_row::{EventRow, event_columns},
    evidence::read_reach,
    log::shard_column,
};
use crate::{
    clock::Timestamp,
    event::Recorded,
    id::{Cursor, Position, RecipientId, Shard},
};

/// Messages whose events are read at once.
const PART: u64 = 200;
/// How many places a time is looked for beyond the first that is later: clocks of several processes differ, and a
/// batch may wait for its lock.
const LOOK_ON: i64 = 1_000;

/// What happened to some messages of a recipient.
#[derive(Debug, Clone, PartialEq)]
pub struct Streams {
    /// All events of each, but for those about its pushes; sorted by position.
    pub events: Vec<Recorded>,
    /// Where the next, older messages begin; none at the end.
    pub next: Option<Position>,
}

/// The messages of a recipient, or how far they are known.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamsFound {
    /// They are known.
    Here(Streams),
    /// The projection that says which they are has not folded that far.
    Behind(Position),
}

impl Store {
    /// All that happened, but for pushes, to the messages that a recipient had at a place of the shard: some of
    /// the newest, or of those before `before`. From one unchanging state of the database.
    ///
    /// Which messages they are is a range of `messages_recipient` (recipient, position descending); their events
    /// are ranges of the unique key (message id, version). So it costs what the recipient has, not what the log has.
    pub async fn streams_at(
        &self,
        recipient: &RecipientId,
        place: Cursor,
        before: Option<Position>,
    ) -> Result<StreamsFound, StoreError> {
        let mut tx = self.db().begin(Mode::Snapshot).await?;
        let reach = read_reach(&mut tx, place.shard).await?;
        let known = reach.iter().find(|it| it.projection == "messages").map(|it| it.position);
        if let Some(known) = Some(known.unwrap_or_default()).filter(|it| *it < place.position) {
            tx.rollback().await?;
            return Ok(StreamsFound::Behind(known));
        }
        let rows: Vec<(String, i64)> = tx.all(&messages_at(recipient, place.position, before)).await?;
        let last = rows.last().map(|(_, position)| Position(*position));
        let next = last.filter(|_| rows.len() as u64 == PART);
        let ids: Vec<_> = rows.iter().map(|(id, _)| id.as_str()).collect();
        let columns = event_columns();
        let streams = Lookup {
            columns: &columns,
            table: "notification_events",
            key: "message_id",
            // What becomes of pushes plays no part in an inbox, and is most of the log.
            filter: "type not like 'push.%'",
        };
        let events: Vec<EventRow> = bulk::look_up(&mut tx, streams, &ids).await?;
        tx.rollback().await?;
        let mut events = events.into_iter().map(EventRow::decode).collect::<Result<Vec<_>, _>>()?;
        events.sort_unstable_by_key(|it| it.position);
        Ok(StreamsFound::Here(Streams { events, next }))
    }

    /// The end of one shard.
    pub async fn head_of(&self, shard: Shard) -> Result<Position, StoreError> {
        let head = self.heads().await?.into_iter().find(|it| it.shard == shard);
        let head = head.ok_or_else(|| StoreError::Corrupt(format!("log_shards has no shard {shard}")))?;
        Ok(head.position)
    }

    /// The last place of a shard, not beyond `head`, that was recorded at a time or before; zero where there is
    /// none. Found by halving.
    ///
    /// Times grow with places but for what clocks of several processes differ by: as long as nothing is later
    /// than what follows it by 1,000 places, it is the last of all.
    pub async fn place_at(
        &self,
        shard: Shard,
        time: Timestamp,
        head: Position,
    ) -> Result<Position, StoreError> {
        let (mut by_then, mut later) = (0, head.0 + 1);
        while later - by_then > 1 {
            let middle = by_then + (later - by_then) / 2;
            let at = self.recorded_after(shard, Position(middle - 1)).await?;
            let at =
                at.ok_or_else(|| StoreError::Corrupt(format!("the log has no event {shard}-{middle}")))?;
            if at <= time { by_then = middle } else { later = middle }
        }
        let statement = recorded_by(shard, time, Position(by_then), head);
        let row: Option<(i64,)> = self.db().first(&statement).await?;
        Ok(Position(row.map_or(by_then, |(last,)| last)))
    }
}

/// Messages that a recipient had at a place, newest first.
fn messages_at(recipient: &RecipientId, place: Position, before: Option<Position>) -> SelectStatement {
    let last = before.map_or(place.0, |before| std::cmp::min(before.0 - 1, place.0));
    Query::select()
        .columns(["message_id", "position"])
        .from("messages")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .and_where(Expr::col("position").lte(last))
        .order_by("position", Order::Desc)
        .limit(PART)
        .to_owned()
}

/// The last of the next `LOOK_ON` places that was recorded by then: a range of the primary key.
fn recorded_by(shard: Shard, time: Timestamp, after: Position, head: Position) -> SelectStatement {
    Query::select()
        .column("position")
        .from("notification_events")
        .and_where(Expr::col("shard").eq(shard_column(shard)))
        .and_where(Expr::col("position").gt(after.0))
        .and_where(Expr::col("position").lte(std::cmp::min(head.0, after.0 + LOOK_ON)))
        .and_where(Expr::col("recorded_at_us").lte(time.as_micros()))
        .order_by("position", Order::Desc)
        .limit(1)
        .to_owned()
}
