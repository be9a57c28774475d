//! The rows of one message or one recipient in a live slot, beside what the log says of them, and mending them.
//!
//! Which messages a recipient has is read from the views that are by recipient, `messages` and `inbox_items`; their
//! events from the log by message id. So it costs what the recipient has, and not what the log has.

use std::collections::BTreeSet;

use sea_query::{Expr, ExprTrait, Query};

use super::{
    Mode, Slot, Store, StoreError, Tx,
    bulk::{self, Lookup},
    db::Busy,
    event_row::{EventRow, event_columns},
    log::shard_column,
    projections::{PositionRow, slot_place, write},
    slots::physical,
};
use crate::{
    id::{MessageId, Position, RecipientId, Shard},
    projection::{Changes, Projection, Table, Value, fold_in_memory},
};

/// What a part of a projection's rows is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The rows whose key begins with this message.
    Message(MessageId),
    /// Those of all messages of this recipient, and those whose key begins with the recipient.
    Recipient(RecipientId),
}

/// What a live slot holds of a subject, and what the log says.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldRows {
    /// The shard of the subject.
    pub shard: Shard,
    /// Up to where the live slot is folded there.
    pub place: Position,
    /// The end of the log there.
    pub head: Position,
    /// Table by table.
    pub tables: Vec<HeldTable>,
}

/// The same of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldTable {
    /// Which.
    pub table: &'static Table,
    /// The rows that are there.
    pub there: Vec<Vec<Value>>,
    /// Those that the fold makes.
    pub fresh: Vec<Vec<Value>>,
}

impl Subject {
    /// The subject of a row, by the first column of its table's key, if it has one.
    #[must_use]
    pub fn of(table: &Table, first: &str) -> Option<Self> {
        match table.columns[0].name {
            MESSAGE => MessageId::new(first).ok().map(Self::Message),
            RECIPIENT => RecipientId::new(first).ok().map(Self::Recipient),
            _ => None,
        }
    }

    /// Whether every row of a projection has a subject.
    #[must_use]
    pub fn covers(projection: &dyn Projection) -> bool {
        projection.tables().iter().all(|it| [MESSAGE, RECIPIENT].contains(&it.columns[0].name))
    }

    fn has(&self, table: &Table) -> bool {
        matches!(self, Self::Recipient(_)) || table.columns[0].name == MESSAGE
    }
}

const MESSAGE: &str = "message_id";
const RECIPIENT: &str = "recipient_id";

impl Store {
    /// What the live slot of a projection holds of a subject and what the log says, from one unchanging state.
    pub async fn held(
        &self,
        projection: &dyn Projection,
        live: Slot,
        subject: &Subject,
    ) -> Result<HeldRows, StoreError> {
        let shard = self.home(projection, live, subject).await?;
        let mut tx = self.db.begin(Mode::Snapshot).await?;
        let rows: Vec<PositionRow> = tx.all(&slot_place(projection.name(), live, shard)).await?;
        let held = gather(&mut tx, projection, live, (shard, place(&rows)), subject).await?;
        tx.rollback().await?;
        Ok(held)
    }

    /// Makes what the live slot of a projection holds of a subject what the log says, in one transaction in which
    /// nobody folds its shard; answers with what was held before. None if the slot is not live any more.
    pub async fn mend(
        &self,
        projection: &dyn Projection,
        live: Slot,
        subject: &Subject,
    ) -> Result<Option<HeldRows>, StoreError> {
        let shard = self.home(projection, live, subject).await?;
        let (mut tx, rows) = self
            .db
            .begin_locking::<PositionRow>(&slot_place(projection.name(), live, shard), Busy::Wait)
            .await?;
        let statement = Query::select()
            .column("live_slot")
            .from("projections")
            .and_where(Expr::col("name").eq(projection.name()))
            .to_owned();
        let now: Option<(String,)> = tx.first(&statement).await?;
        if now.is_none_or(|it| it.0 != live.as_str()) {
            tx.rollback().await?;
            return Ok(None);
        }
        let held = gather(&mut tx, projection, live, (shard, place(&rows)), subject).await?;
        for HeldTable { table, there, fresh } in &held.tables {
            write(&mut tx, live, Changes::between(table, there, fresh)).await?;
        }
        tx.commit().await?;
        Ok(Some(held))
    }

    /// The shard of a subject; of a message that the log does not have, that which its row names.
    async fn home(
        &self,
        projection: &dyn Projection,
        live: Slot,
        subject: &Subject,
    ) -> Result<Shard, StoreError> {
        let message = match subject {
            Subject::Recipient(recipient) => return Ok(self.shard_of(recipient)),
            Subject::Message(message) => message,
        };
        if let Some(home) = self.home_of(message).await? {
            return Ok(home);
        }
        for &table in projection.tables().iter().filter(|it| subject.has(it)) {
            let mut tx = self.db.begin(Mode::Read).await?;
            let rows = bulk::fetch(&mut tx, &physical(table, live), table, &[message.as_str()]).await?;
            tx.rollback().await?;
            let at = table.columns.iter().position(|it| it.name == "shard");
            if let Some(Value::Int(shard)) = rows.first().zip(at).and_then(|(row, at)| row.get(at)) {
                let known = self.shards().find(|it| i64::from(it.0) == *shard);
                return Ok(known.unwrap_or(Shard(0)));
            }
        }
        Ok(Shard(0))
    }
}

fn place(rows: &[PositionRow]) -> Position {
    rows.first().map_or(Position(0), |row| Position(row.position))
}

async fn gather(
    tx: &mut Tx,
    projection: &dyn Projection,
    live: Slot,
    (shard, place): (Shard, Position),
    subject: &Subject,
) -> Result<HeldRows, StoreError> {
    let messages = messages_of(tx, subject).await?;
    let messages: Vec<_> = messages.iter().map(String::as_str).collect();
    let columns = event_columns();
    let streams = Lookup { columns: &columns, table: "notification_events", key: MESSAGE, filter: "true" };
    let mut rows: Vec<EventRow> = bulk::look_up(tx, streams, &messages).await?;
    rows.retain(|it| it.shard == shard_column(shard) && it.position <= place.0);
    let mut events = rows.into_iter().map(EventRow::decode).collect::<Result<Vec<_>, _>>()?;
    events.sort_unstable_by_key(|it| it.position);
    let mut tables = Vec::new();
    for (table, fresh) in fold_in_memory(projection, &events) {
        if !subject.has(table) {
            continue;
        }
        let there = match subject {
            Subject::Recipient(recipient) if table.columns[0].name == RECIPIENT => {
                bulk::fetch(tx, &physical(table, live), table, &[recipient.as_str()]).await?
            }
            _ => bulk::fetch(tx, &physical(table, live), table, &messages).await?,
        };
        tables.push(HeldTable { table, there, fresh });
    }
    let statement = Query::select()
        .column("head")
        .from("log_shards")
        .and_where(Expr::col("shard").eq(shard_column(shard)))
        .to_owned();
    let head: Option<(i64,)> = tx.first(&statement).await?;
    Ok(HeldRows { shard, place, head: Position(head.map_or(0, |it| it.0)), tables })
}

async fn messages_of(tx: &mut Tx, subject: &Subject) -> Result<BTreeSet<String>, StoreError> {
    let recipient = match subject {
        Subject::Message(message) => return Ok([message.to_string()].into()),
        Subject::Recipient(recipient) => recipient,
    };
    let mut messages = BTreeSet::new();
    for view in ["messages", "inbox_items"] {
        let statement = Query::select()
            .column(MESSAGE)
            .from(view)
            .and_where(Expr::col(RECIPIENT).eq(recipient.as_str()))
            .to_owned();
        let rows: Vec<(String,)> = tx.all(&statement).await?;
        messages.extend(rows.into_iter().map(|it| it.0));
    }
    Ok(messages)
}
