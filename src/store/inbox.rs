//! Reading the inbox: the list, the counts, and what is unread.
//!
//! Every query names one recipient and is bounded, so its cost does not grow with the ledger. All of
//! them read through the views, that is, from whichever slot is live.

use sea_query::{Alias, Expr, ExprTrait, IntoColumnRef, JoinType, Order, Query, SelectStatement};
use sqlx::FromRow;

use super::{Store, StoreError, typed::Typed};
use crate::{
    id::{MessageId, Position, RecipientId},
    projection::{
        Row,
        inbox::{InboxCounter, InboxItem},
    },
};

/// Items of one list at the most.
pub const LIST_MAX: u64 = 100;

/// Which items of an inbox to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxFilter {
    /// Older than the item at this position.
    pub before: Option<Position>,
    /// Those that were put away.
    pub archived: Archived,
    /// Only those that are not read.
    pub unread: bool,
    /// How many, 1 to [`LIST_MAX`].
    pub limit: u64,
}

/// What to do with items that were put away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archived {
    /// Leave them out.
    Without,
    /// List them among the others.
    With,
    /// List nothing else.
    Only,
}

/// A part of an inbox, with the counts of the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// Newest first.
    pub items: Vec<InboxItem>,
    /// Whether older ones follow.
    pub more: bool,
    /// Of the whole inbox, archived items left out.
    pub counts: Counts,
}

/// How many items are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Never shown.
    pub unseen: i64,
    /// Not read.
    pub unread: i64,
    /// All.
    pub total: i64,
}

/// The counts of an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxCounts {
    /// Of the whole inbox.
    pub overall: Counts,
    /// Of each category that has, or had, an item; items without a category are in none.
    pub by_category: Vec<(String, Counts)>,
}

impl Store {
    /// A part of an inbox, newest first, with the counts of the same moment, in one statement.
    ///
    /// The items ride on `inbox_items_recipient` (recipient, position descending), the counts on the
    /// primary key of `inbox_counters`. Filters look at the items of this one recipient only.
    pub async fn inbox(&self, recipient: &RecipientId, filter: InboxFilter) -> Result<InboxPage, StoreError> {
        let limit = filter.limit.clamp(1, LIST_MAX);
        let rows: Vec<Typed<InboxItem>> = self.db().all(&page(recipient, filter, limit + 1)).await?;
        let counts = rows.first().map(|row| Counts::read(&row.numbers)).unwrap_or_default();
        let mut items: Vec<_> = rows.into_iter().filter_map(|it| it.row).collect();
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > keep;
        items.truncate(keep);
        Ok(InboxPage { items, more, counts })
    }

    /// The counts of an inbox, overall and by category; a range of the primary key of `inbox_counters`.
    pub async fn inbox_counts(&self, recipient: &RecipientId) -> Result<InboxCounts, StoreError> {
        let statement = Query::select()
            .columns(InboxCounter::TABLE.columns.iter().map(|it| it.name))
            .from("inbox_counters")
            .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
            .order_by("category", Order::Asc)
            .to_owned();
        let rows: Vec<Typed<InboxCounter>> = self.db().all(&statement).await?;
        let mut counts = InboxCounts::default();
        for row in rows.into_iter().filter_map(|it| it.row) {
            let these = Counts { unseen: row.unseen, unread: row.unread, total: row.total };
            if row.category.is_empty() {
                counts.overall = these;
            } else {
                counts.by_category.push((row.category, these));
            }
        }
        Ok(counts)
    }

    /// Messages that are unread and not put away, from `upto` backwards, newest first; at most `limit`.
    ///
    /// Rides on `inbox_items_recipient` (recipient, position descending).
    pub async fn unread_upto(
        &self,
        recipient: &RecipientId,
        upto: Position,
        limit: u64,
    ) -> Result<Vec<(MessageId, Position)>, StoreError> {
        #[derive(FromRow)]
        struct Unread {
            message_id: String,
            position: i64,
        }
        let statement = Query::select()
            .columns(["message_id", "position"])
            .from("inbox_items")
            .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
            .and_where(Expr::col("position").lte(upto.0))
            .and_where(Expr::col("read_at_us").is_null())
            .and_where(Expr::col("archived_at_us").is_null())
            .order_by("position", Order::Desc)
            .limit(limit)
            .to_owned();
        let rows: Vec<Unread> = self.db().all(&statement).await?;
        let read = |row: Unread| {
            let id = MessageId::new(&row.message_id)
                .map_err(|error| StoreError::Corrupt(format!("inbox_items.message_id {error}")))?;
            Ok((id, Position(row.position)))
        };
        rows.into_iter().map(read).collect()
    }
}

impl Counts {
    /// In the order in which [`page`] selects them; all zero where there is no counter yet.
    fn read(numbers: &[Option<i64>]) -> Self {
        let number = |at: usize| numbers.get(at).copied().flatten().unwrap_or(0);
        Self { unseen: number(0), unread: number(1), total: number(2) }
    }
}

/// The items beside the counts: one row at least, with an empty item where there is none.
fn page(recipient: &RecipientId, filter: InboxFilter, limit: u64) -> SelectStatement {
    let always = || Expr::cust("1 = 1");
    let one = Query::select().expr_as(Expr::cust("1"), Alias::new("one")).to_owned();
    let columns = InboxItem::TABLE.columns.iter().map(|it| ("i", it.name).into_column_ref());
    let counter =
        Expr::col(("c", "recipient_id")).eq(recipient.as_str()).and(Expr::col(("c", "category")).eq(""));
    Query::select()
        .columns(columns)
        .columns([("c", "unseen"), ("c", "unread"), ("c", "total")])
        .from_subquery(one, "o")
        .join_as(JoinType::LeftJoin, "inbox_counters", "c", counter)
        .join_subquery(JoinType::LeftJoin, items(recipient, filter, limit), "i", always())
        .order_by(("i", "position"), Order::Desc)
        .to_owned()
}

fn items(recipient: &RecipientId, filter: InboxFilter, limit: u64) -> SelectStatement {
    let mut statement = Query::select();
    statement
        .columns(InboxItem::TABLE.columns.iter().map(|it| it.name))
        .from("inbox_items")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .order_by("position", Order::Desc)
        .limit(limit);
    if let Some(before) = filter.before {
        statement.and_where(Expr::col("position").lt(before.0));
    }
    match filter.archived {
        Archived::Without => _ = statement.and_where(Expr::col("archived_at_us").is_null()),
        Archived::Only => _ = statement.and_where(Expr::col("archived_at_us").is_not_null()),
        Archived::With => {}
    }
    if filter.unread {
        statement.and_where(Expr::col("read_at_us").is_null());
    }
    statement
}
