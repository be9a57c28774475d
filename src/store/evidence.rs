//! Everything the database knows of one message, from one unchanging state of it.

use sea_query::{Expr, ExprTrait, JoinType, Order, Query, SelectStatement};
use sqlx::FromRow;

use super::{
    Mode, Redeliveries, Store, StoreError, Tx,
    log::{read_stream, shard_column},
    messages::{self, MessageRows},
    redeliveries::read_redeliveries,
};
use crate::{
    event::Recorded,
    id::{MessageId, Position, Shard},
    message::ContentHash,
};

/// What is known of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Its events, in order; at least one.
    pub events: Vec<Recorded>,
    /// The hash of its content as it was recorded.
    pub content_hash: Option<ContentHash>,
    /// Arrivals that appended nothing.
    pub redeliveries: Redeliveries,
    /// How far each projection's live slot has folded the message's shard, by name.
    pub reach: Vec<Reach>,
    /// What the projections show.
    pub rows: MessageRows,
}

/// How far a projection's live slot has folded one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The projection's name.
    pub projection: String,
    /// Everything up to here is folded.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// Why it does not go on, if it does not.
    pub parked: Option<String>,
}

impl Store {
    /// What is known of a message, if the log has it.
    pub async fn evidence(&self, message: &MessageId) -> Result<Option<Evidence>, StoreError> {
        let mut tx = self.db().begin(Mode::Snapshot).await?;
        let (events, content_hash) = read_stream(&mut tx, message).await?;
        let Some(first) = events.first() else {
            tx.rollback().await?;
            return Ok(None);
        };
        let reach = read_reach(&mut tx, first.shard).await?;
        let redeliveries = read_redeliveries(&mut tx, message).await?;
        let rows = messages::read_rows(&mut tx, message).await?;
        tx.rollback().await?;
        Ok(Some(Evidence { events, content_hash, redeliveries, reach, rows }))
    }
}

pub(super) async fn read_reach(tx: &mut Tx, shard: Shard) -> Result<Vec<Reach>, StoreError> {
    #[derive(FromRow)]
    struct Row {
        projection: String,
        position: i64,
        head: i64,
        parked_reason: Option<String>,
    }
    let rows: Vec<Row> = tx.all(&reach(shard)).await?;
    let reach = |row: Row| Reach {
        projection: row.projection,
        position: Position(row.position),
        head: Position(row.head),
        parked: row.parked_reason,
    };
    Ok(rows.into_iter().map(reach).collect())
}

/// The checkpoints of the live slots for one shard; a handful of rows by primary keys.
fn reach(shard: Shard) -> SelectStatement {
    let live = Expr::col(("p", "name"))
        .equals(("c", "projection"))
        .and(Expr::col(("p", "live_slot")).equals(("c", "slot")));
    Query::select()
        .columns([("c", "projection"), ("c", "position"), ("s", "head"), ("c", "parked_reason")])
        .from_as("projection_checkpoints", "c")
        .join_as(JoinType::InnerJoin, "projections", "p", live)
        .join_as(JoinType::InnerJoin, "log_shards", "s", Expr::col(("s", "shard")).equals(("c", "shard")))
        .and_where(Expr::col(("c", "shard")).eq(shard_column(shard)))
        .order_by(("c", "projection"), Order::Asc)
        .to_owned()
}
