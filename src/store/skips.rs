//! Events that are left out: the way past an event that no release can fold.
//!
//! It is a decision about the log and not about one projection: every fold passes the event over from then on,
//! so that what is live and what is folded anew stay equal. The event stays in the log as it is.

use sea_query::{Expr, ExprTrait, JoinType, Order, Query, SelectStatement};
use sqlx::FromRow;

use super::{
    Mode, Store, StoreError,
    log::{message_id, shard, shard_column},
};
use crate::{
    clock::Timestamp,
    id::{Cursor, MessageId, Position},
};

/// An event that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedEvent {
    /// Which.
    pub event: Cursor,
    /// The message it is about.
    pub message_id: MessageId,
    /// Its type, of this release or of another.
    pub kind: String,
    /// Why, in the words of who decided it.
    pub reason: String,
    /// What a projection that waited before it said.
    pub problem: String,
    /// Who decided it.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

/// What became of the wish to leave an event out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipOutcome {
    /// It is left out from now on, or was before.
    Skipped {
        /// As it is recorded.
        event: SkippedEvent,
        /// Whether it was not so before.
        is_new: bool,
        /// Projections whose live slot had folded it before: they differ from a fold that leaves it out.
        folded: Vec<String>,
    },
    /// The log has no such event.
    NoEvent,
    /// No projection waits before it.
    NotParked,
}

#[derive(FromRow)]
struct Row {
    shard: i16,
    position: i64,
    message_id: String,
    #[sqlx(rename = "type")]
    kind: String,
    reason: String,
    problem: String,
    actor: String,
    skipped_at_us: i64,
}

impl Store {
    /// Every event that is left out, in the order of the log.
    pub async fn skipped_events(&self) -> Result<Vec<SkippedEvent>, StoreError> {
        let rows: Vec<Row> = self.db.all(&skipped()).await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// Leaves an event out of every fold, if a projection waits before it; done twice it is done once.
    pub async fn skip_event(
        &self,
        event: Cursor,
        reason: &str,
        actor: &str,
        now: Timestamp,
    ) -> Result<SkipOutcome, StoreError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        let known: Option<(i64,)> = tx.first(&at("notification_events", event)).await?;
        if known.is_none() {
            tx.rollback().await?;
            return Ok(SkipOutcome::NoEvent);
        }
        let before: Option<(i64,)> = tx.first(&at("skipped_events", event)).await?;
        let places: Vec<(String, i64, Option<String>)> = tx.all(&live_places(event)).await?;
        if before.is_none() {
            let waits = |it: &&(String, i64, Option<String>)| it.1 == event.position.0 - 1 && it.2.is_some();
            let Some(problem) = places.iter().find(waits).and_then(|it| it.2.clone()) else {
                tx.rollback().await?;
                return Ok(SkipOutcome::NotParked);
            };
            let row = Query::insert()
                .into_table("skipped_events")
                .columns(["shard", "position", "reason", "problem", "actor", "skipped_at_us"])
                .values_panic([
                    Expr::value(shard_column(event.shard)),
                    Expr::value(event.position.0),
                    Expr::value(reason),
                    Expr::value(problem),
                    Expr::value(actor),
                    Expr::value(now.as_micros()),
                ])
                .to_owned();
            tx.exec(&row).await?;
        }
        let mut statement = skipped();
        statement.and_where(Expr::col(("k", "shard")).eq(shard_column(event.shard)));
        statement.and_where(Expr::col(("k", "position")).eq(event.position.0));
        let row: Option<Row> = tx.first(&statement).await?;
        tx.commit().await?;
        let row = row.ok_or_else(|| StoreError::Corrupt(format!("event {event} vanished")))?;
        let folded = places.into_iter().filter(|it| it.1 >= event.position.0).map(|it| it.0);
        let folded = if before.is_none() { folded.collect() } else { Vec::new() };
        Ok(SkipOutcome::Skipped { event: row.read()?, is_new: before.is_none(), folded })
    }
}

fn at(table: &'static str, event: Cursor) -> SelectStatement {
    Query::select()
        .column("position")
        .from(table)
        .and_where(Expr::col("shard").eq(shard_column(event.shard)))
        .and_where(Expr::col("position").eq(event.position.0))
        .to_owned()
}

/// How far the live slots have folded the event's shard, and why they do not go on.
fn live_places(event: Cursor) -> SelectStatement {
    let live = Expr::col(("p", "name"))
        .equals(("c", "projection"))
        .and(Expr::col(("p", "live_slot")).equals(("c", "slot")));
    Query::select()
        .columns([("c", "projection"), ("c", "position"), ("c", "parked_reason")])
        .from_as("projection_checkpoints", "c")
        .join_as(JoinType::InnerJoin, "projections", "p", live)
        .and_where(Expr::col(("c", "shard")).eq(shard_column(event.shard)))
        .order_by(("c", "projection"), Order::Asc)
        .to_owned()
}

fn skipped() -> SelectStatement {
    let is_same = Expr::col(("e", "shard"))
        .equals(("k", "shard"))
        .and(Expr::col(("e", "position")).equals(("k", "position")));
    Query::select()
        .columns([("k", "shard"), ("k", "position"), ("e", "message_id"), ("e", "type")])
        .columns([("k", "reason"), ("k", "problem"), ("k", "actor"), ("k", "skipped_at_us")])
        .from_as("skipped_events", "k")
        .join_as(JoinType::InnerJoin, "notification_events", "e", is_same)
        .order_by(("k", "shard"), Order::Asc)
        .order_by(("k", "position"), Order::Asc)
        .to_owned()
}

impl Row {
    fn read(self) -> Result<SkippedEvent, StoreError> {
        Ok(SkippedEvent {
            event: Cursor { shard: shard(self.shard)?, position: Position(self.position) },
            message_id: message_id(self.message_id)?,
            kind: self.kind,
            reason: self.reason,
            problem: self.problem,
            actor: self.actor,
            at: Timestamp::from_micros(self.skipped_at_us),
        })
    }
}
