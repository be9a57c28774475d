//! Reading what the projections show of messages: of one in every table, and of all of a recipient.

use sea_query::{Expr, ExprTrait, Order, Query};

use super::{Store, StoreError, Tx, typed::Typed};
use crate::{
    clock::Timestamp,
    id::{MessageId, Position, RecipientId},
    projection::{
        Row,
        deliveries::{PushAttempt, PushDelivery},
        inbox::InboxItem,
        messages::MessageRow,
    },
};

/// What the projections show of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageRows {
    /// Its row in `messages`.
    pub message: Option<MessageRow>,
    /// Its row in `inbox_items`.
    pub item: Option<InboxItem>,
    /// Its rows in `push_deliveries`, by delivery.
    pub deliveries: Vec<PushDelivery>,
    /// Its rows in `push_attempts`, by delivery and attempt.
    pub attempts: Vec<PushAttempt>,
}

/// Which messages of a recipient to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageFilter {
    /// Older than the message at this position.
    pub before: Option<Position>,
    /// Received at this time or later.
    pub since: Option<Timestamp>,
    /// Received before this time.
    pub until: Option<Timestamp>,
    /// How many at the most.
    pub limit: u64,
}

impl Store {
    /// The messages of a recipient, newest first, and whether older ones follow.
    ///
    /// Rides on `messages_recipient` (recipient, position descending); the times are looked at among
    /// the messages of this one recipient only.
    pub async fn messages_of(
        &self,
        recipient: &RecipientId,
        filter: MessageFilter,
    ) -> Result<(Vec<MessageRow>, bool), StoreError> {
        let mut statement = Query::select();
        statement
            .columns(MessageRow::TABLE.columns.iter().map(|it| it.name))
            .from("messages")
            .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
            .order_by("position", Order::Desc)
            .limit(filter.limit + 1);
        if let Some(before) = filter.before {
            statement.and_where(Expr::col("position").lt(before.0));
        }
        if let Some(since) = filter.since {
            statement.and_where(Expr::col("received_at_us").gte(since.as_micros()));
        }
        if let Some(until) = filter.until {
            statement.and_where(Expr::col("received_at_us").lt(until.as_micros()));
        }
        let rows: Vec<Typed<MessageRow>> = self.db().all(&statement).await?;
        let mut messages: Vec<_> = rows.into_iter().filter_map(|it| it.row).collect();
        let keep = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let more = messages.len() > keep;
        messages.truncate(keep);
        Ok((messages, more))
    }
}

/// Reads what the projections show of one message. Every key of these tables begins with it.
pub(super) async fn read_rows(tx: &mut Tx, message: &MessageId) -> Result<MessageRows, StoreError> {
    Ok(MessageRows {
        message: rows_of(tx, message).await?.pop(),
        item: rows_of(tx, message).await?.pop(),
        deliveries: rows_of(tx, message).await?,
        attempts: rows_of(tx, message).await?,
    })
}

pub(super) async fn rows_of<R: Row + Send + Unpin>(
    tx: &mut Tx,
    message: &MessageId,
) -> Result<Vec<R>, StoreError> {
    let table = R::TABLE;
    let mut statement = Query::select();
    statement
        .columns(table.columns.iter().map(|it| it.name))
        .from(table.name)
        .and_where(Expr::col(table.columns[0].name).eq(message.as_str()));
    for column in &table.columns[1..table.key_len] {
        statement.order_by(column.name, Order::Asc);
    }
    let rows: Vec<Typed<R>> = tx.all(&statement).await?;
    Ok(rows.into_iter().filter_map(|it| it.row).collect())
}
