//! Evidence beside the log: how often a message came again, without an event for each time.

use std::collections::HashMap;

use sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sqlx::FromRow;

use super::{
    Store, StoreError, Tx,
    bulk::{self, Cell, Kind, OnDuplicate, Spec},
};
use crate::{clock::Timestamp, id::MessageId};

/// Columns of `message_redeliveries`: the key, two counts to add up, and what the last one looked like.
const AGAIN_COLUMNS: [Spec; 5] = [
    Spec { name: "message_id", kind: Kind::Text },
    Spec { name: "redelivered", kind: Kind::Int },
    Spec { name: "conflicting", kind: Kind::Int },
    Spec { name: "last_at_us", kind: Kind::Int },
    Spec { name: "last_ingress", kind: Kind::Text },
];

/// Arrivals that need no event.
#[derive(Default)]
pub(super) struct Again {
    pub(super) redelivered: i64,
    pub(super) conflicting: i64,
    pub(super) ingress: Option<String>,
}

/// Evidence of arrivals that appended nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redeliveries {
    /// The same content again.
    pub redelivered: i64,
    /// Other content that had been recorded as a conflict before.
    pub conflicting: i64,
    /// The last time of either.
    pub last_at: Option<Timestamp>,
    /// The door it last came in by.
    pub last_ingress: Option<String>,
}

#[derive(FromRow)]
struct AgainRow {
    redelivered: i64,
    conflicting: i64,
    last_at_us: i64,
    last_ingress: Option<String>,
}

impl From<AgainRow> for Redeliveries {
    fn from(row: AgainRow) -> Self {
        Self {
            redelivered: row.redelivered,
            conflicting: row.conflicting,
            last_at: Some(Timestamp::from_micros(row.last_at_us)),
            last_ingress: row.last_ingress,
        }
    }
}

impl Store {
    /// How often a message came again.
    pub async fn redeliveries(&self, message: &MessageId) -> Result<Redeliveries, StoreError> {
        let row: Option<AgainRow> = self.db.first(&redeliveries_of(message)).await?;
        Ok(row.map(Redeliveries::from).unwrap_or_default())
    }
}

/// Adds to the evidence of arrivals that appended nothing.
pub(super) async fn count_again(
    tx: &mut Tx,
    again: HashMap<MessageId, Again>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut again: Vec<_> = again.into_iter().collect();
    // One order everywhere, so that two shards that count the same messages cannot deadlock.
    again.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let rows = again.into_iter().map(|(id, it)| {
        vec![
            Cell::Text(id.into()),
            Cell::Int(it.redelivered),
            Cell::Int(it.conflicting),
            Cell::Int(now.as_micros()),
            it.ingress.map_or(Cell::Null, Cell::Text),
        ]
    });
    bulk::insert(
        tx,
        "message_redeliveries",
        &AGAIN_COLUMNS,
        rows.collect(),
        OnDuplicate::Add { key_len: 1, add: 2 },
    )
    .await
}

fn redeliveries_of(message: &MessageId) -> SelectStatement {
    Query::select()
        .columns(["redelivered", "conflicting", "last_at_us", "last_ingress"])
        .from("message_redeliveries")
        .and_where(Expr::col("message_id").eq(message.as_str()))
        .to_owned()
}

/// How often a message came again, within a transaction.
pub(super) async fn read_redeliveries(tx: &mut Tx, message: &MessageId) -> Result<Redeliveries, StoreError> {
    let row: Option<AgainRow> = tx.first(&redeliveries_of(message)).await?;
    Ok(row.map(Redeliveries::from).unwrap_or_default())
}
