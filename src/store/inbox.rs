//! Reading the inbox: the list, the counts, and what is unread.
//!
//! Every query names one recipient and is bounded, so its cost does not grow with the ledger. All of
//! them read through the views, that is, from whichever slot is live.

use sea_query::{
    Expr, ExprTrait, JoinType, MysqlQueryBuilder, Order, PostgresQueryBuilder, Query, SelectStatement,
    SqliteQueryBuilder, UnionType,
};
use sqlx::{FromRow, Row as _, mysql::MySqlRow, postgres::PgRow, sqlite::SqliteRow};

use super::{
    Dialect, Store, StoreError,
    log::{message_id, wide_shard},
    typed::Typed,
};
use crate::{
    clock::Timestamp,
    id::{MessageId, Position, RecipientId, Shard},
    projection::{
        Row,
        inbox::{InboxCounter, InboxItem, WAITING},
    },
};

pub use crate::inbox::{Archived, Counts, InboxCounts, InboxFilter, InboxPage, Status};

/// Items of one list at the most.
pub const LIST_MAX: u64 = 100;
/// More than any item has; for whoever begins with the newest.
const NEWEST: Position = Position(i64::MAX);

/// What changed in an inbox since a place, and the counts of the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxChanges {
    /// As they are by now, also those that are gone, by the place of their last change.
    pub items: Vec<InboxItem>,
    /// Whether there are more, which are not listed.
    pub more: bool,
    /// Of the whole inbox, archived items left out.
    pub counts: InboxCounts,
}

impl Store {
    /// A part of an inbox, newest first and at most [`LIST_MAX`], with the counts of the same moment, in one
    /// statement.
    ///
    /// The items are ranges of `inbox_items_recipient` (recipient, state, newest first), or with a category of
    /// `inbox_items_category`, one for each state that is asked for; the counts are a range of the primary key of
    /// `inbox_counters`. Times look at what lies in these ranges.
    pub async fn inbox(
        &self,
        recipient: &RecipientId,
        filter: &InboxFilter,
        limit: u64,
    ) -> Result<InboxPage, StoreError> {
        let limit = limit.clamp(1, LIST_MAX);
        let statement = page(self.db().dialect(), recipient, filter, limit + 1);
        let rows: Vec<PageRow> = self.db().all(&statement).await?;
        let (mut items, counts) = PageRow::parted(rows);
        items.sort_unstable_by_key(|it| std::cmp::Reverse(it.position));
        let more = cut(&mut items, limit);
        Ok(InboxPage { items, more, counts })
    }

    /// What changed after a place, oldest first and at most `limit` items, with the counts of the same moment,
    /// in one statement; without a place, the counts alone.
    ///
    /// The items are a range of `inbox_items_changes`.
    pub async fn inbox_changes(
        &self,
        recipient: &RecipientId,
        after: Option<Position>,
        limit: u64,
    ) -> Result<InboxChanges, StoreError> {
        let rows: Vec<PageRow> = self.db().all(&changes(recipient, after, limit + 1)).await?;
        let (mut items, counts) = PageRow::parted(rows);
        items.sort_unstable_by_key(|it| it.last_position);
        let more = cut(&mut items, limit);
        Ok(InboxChanges { items, more, counts })
    }

    /// The counts of an inbox, overall and by category; a range of the primary key of `inbox_counters`.
    pub async fn inbox_counts(&self, recipient: &RecipientId) -> Result<InboxCounts, StoreError> {
        let rows: Vec<Typed<InboxCounter>> = self.db().all(&counters(recipient)).await?;
        let mut counts = InboxCounts::default();
        for row in rows.into_iter().filter_map(|it| it.row) {
            let these = Counts { unseen: row.unseen, unread: row.unread, total: row.total };
            counts.take(row.category, these, row.last_position);
        }
        Ok(counts)
    }

    /// The ids and places of items, newest first, at most `limit`. The same ranges as of [`Store::inbox`].
    pub async fn inbox_ids(
        &self,
        recipient: &RecipientId,
        filter: &InboxFilter,
        limit: u64,
    ) -> Result<Vec<(MessageId, Position)>, StoreError> {
        #[derive(FromRow)]
        struct Found {
            message_id: String,
            position: i64,
        }
        let statement = ids(self.db().dialect(), recipient, filter, limit);
        let rows: Vec<Found> = self.db().all(&statement).await?;
        rows.into_iter().map(|row| Ok((message_id(row.message_id)?, Position(row.position)))).collect()
    }

    /// Items that appear or go by themselves and whose time has come, the longest due first: a range of
    /// `inbox_items_due`.
    pub async fn inbox_due(&self, now: Timestamp, limit: u64) -> Result<Vec<(Shard, MessageId)>, StoreError> {
        #[derive(FromRow)]
        struct Found {
            shard: i64,
            message_id: String,
        }
        let rows: Vec<Found> = self.db().all(&due(now, limit)).await?;
        rows.into_iter().map(|row| Ok((wide_shard(row.shard)?, message_id(row.message_id)?))).collect()
    }
}

/// Leaves so many, and says whether there were more.
fn cut(items: &mut Vec<InboxItem>, limit: u64) -> bool {
    let keep = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > keep;
    items.truncate(keep);
    more
}

/// A row of [`with_counters`].
enum PageRow {
    Item(Box<InboxItem>),
    Counter(String, Counts, i64),
}

impl PageRow {
    /// The items as they came, and the counts.
    fn parted(rows: Vec<Self>) -> (Vec<InboxItem>, InboxCounts) {
        let (mut items, mut counts) = (Vec::new(), InboxCounts::default());
        for row in rows {
            match row {
                Self::Item(item) => items.push(*item),
                Self::Counter(category, these, last) => counts.take(category, these, last),
            }
        }
        counts.by_category.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        (items, counts)
    }
}

macro_rules! page_row {
    ($($driver:ty),*) => {$(
        impl FromRow<'_, $driver> for PageRow {
            fn from_row(row: &$driver) -> Result<Self, sqlx::Error> {
                let typed = Typed::<InboxItem>::read(|at| row.try_get(at), |at| row.try_get(at))?;
                Ok(match typed.row {
                    Some(item) => Self::Item(Box::new(item)),
                    None => Self::Counter(
                        row.try_get("counter")?,
                        Counts {
                            unseen: row.try_get("unseen")?,
                            unread: row.try_get("unread")?,
                            total: row.try_get("total")?,
                        },
                        row.try_get("counter_last")?,
                    ),
                })
            }
        }
    )*};
}
page_row!(SqliteRow, PgRow, MySqlRow);

/// What is read of an inbox, each by the index it rides on (of the live slot, whose name stands for `{slot}`) and as
/// the text that a database is given: for whoever wants to see how the database goes about it.
#[must_use]
pub fn explained(
    dialect: Dialect,
    recipient: &RecipientId,
    filter: &InboxFilter,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let text = |statement: SelectStatement| match dialect {
        Dialect::Sqlite => statement.to_string(SqliteQueryBuilder),
        Dialect::Postgres => statement.to_string(PostgresQueryBuilder),
        Dialect::MySql => statement.to_string(MysqlQueryBuilder),
    };
    let of_lists = match filter.category {
        None => "inbox_items_{slot}_recipient",
        Some(_) => "inbox_items_{slot}_category",
    };
    let after = filter.before.unwrap_or(Position(0));
    vec![
        (of_lists, text(page(dialect, recipient, filter, LIST_MAX))),
        (of_lists, text(ids(dialect, recipient, filter, LIST_MAX))),
        ("inbox_items_{slot}_changes", text(changes(recipient, Some(after), LIST_MAX))),
        ("inbox_items_{slot}_due", text(due(now, LIST_MAX))),
        ("inbox_counters_{slot}", text(counters(recipient))),
    ]
}

/// All counters of an inbox.
fn counters(recipient: &RecipientId) -> SelectStatement {
    Query::select()
        .columns(InboxCounter::TABLE.columns.iter().map(|it| it.name))
        .from("inbox_counters")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .order_by("category", Order::Asc)
        .to_owned()
}

/// Ids and places of what a list shows.
fn ids(dialect: Dialect, recipient: &RecipientId, filter: &InboxFilter, limit: u64) -> SelectStatement {
    let columns = ["message_id", "position"];
    Query::select()
        .columns(columns)
        .from_subquery(items(dialect, recipient, filter, limit, &columns), "found")
        .order_by("position", Order::Desc)
        .limit(limit)
        .to_owned()
}

/// What appears or goes by itself, and its time has come.
fn due(now: Timestamp, limit: u64) -> SelectStatement {
    Query::select()
        .columns(["shard", "message_id"])
        .from("inbox_items")
        .and_where(Expr::col("due_at_us").lte(now.as_micros()))
        .order_by("due_at_us", Order::Asc)
        .limit(limit)
        .to_owned()
}

/// What a list shows.
fn page(dialect: Dialect, recipient: &RecipientId, filter: &InboxFilter, limit: u64) -> SelectStatement {
    let names = names();
    with_counters(recipient, &names, items(dialect, recipient, filter, limit, &names))
}

/// What changed, gone or not; what waits for its time is nobody's business yet.
fn changes(recipient: &RecipientId, after: Option<Position>, limit: u64) -> SelectStatement {
    let names = names();
    let items = Query::select()
        .columns(names.iter().copied())
        .from("inbox_items")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .and_where(Expr::col("last_position").gt(after.unwrap_or(NEWEST).0))
        .and_where(Expr::col("state").ne(WAITING))
        .order_by("last_position", Order::Asc)
        .limit(limit)
        .to_owned();
    with_counters(recipient, &names, items)
}

/// The columns of an item.
fn names() -> Vec<&'static str> {
    InboxItem::TABLE.columns.iter().map(|it| it.name).collect()
}

/// The items, and the counters below them; each half leaves the other's columns empty.
///
/// The views stand in the order in which a flip takes them over: `PostgreSQL` locks them one by one, and whoever
/// went the other way would meet it in a deadlock.
fn with_counters(recipient: &RecipientId, names: &[&'static str], items: SelectStatement) -> SelectStatement {
    let of_counters = ["unseen", "unread", "total"];
    let nothing = || Expr::cust("null");
    let mut page = Query::select();
    page.columns(names.iter().copied()).from_subquery(items, "i");
    for name in of_counters.into_iter().chain(["counter", "counter_last"]) {
        page.expr_as(nothing(), name);
    }
    let counters = Query::select()
        .exprs(names.iter().map(|_| nothing()))
        .columns(of_counters)
        .columns(["category", "last_position"])
        .from("inbox_counters")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .to_owned();
    page.union(UnionType::All, counters).to_owned()
}

/// So many items of each state that is asked for: a range of an index each.
fn items(
    dialect: Dialect,
    recipient: &RecipientId,
    filter: &InboxFilter,
    limit: u64,
    columns: &[&'static str],
) -> SelectStatement {
    let states = filter.states();
    let of = |state: Expr| range(recipient, filter, limit, columns, state);
    if dialect == Dialect::Postgres && states.len() > 1 {
        // One range is planned, and run for each state: planning is what a list costs there.
        return Query::select()
            .columns(columns.iter().map(|it| ("r", *it)))
            .from_values(states, "s")
            .join_lateral(JoinType::InnerJoin, of(Expr::col(("s", "column1"))), "r", Expr::cust("true"))
            .order_by(("r", "position"), Order::Desc)
            .limit(limit)
            .to_owned();
    }
    let mut ranges = states.into_iter().map(|state| {
        let range = of(Expr::value(state));
        Query::select().columns(columns.iter().copied()).from_subquery(range, "r").to_owned()
    });
    let first = ranges.next().unwrap_or_default();
    ranges.fold(first, |mut all, range| all.union(UnionType::All, range).to_owned())
}

/// So many items of one state, newest first: a range of an index.
fn range(
    recipient: &RecipientId,
    filter: &InboxFilter,
    limit: u64,
    columns: &[&'static str],
    state: Expr,
) -> SelectStatement {
    let mut statement = Query::select();
    statement
        .columns(columns.iter().copied())
        .from("inbox_items")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .and_where(Expr::col("state").eq(state))
        .and_where(Expr::col("position").lt(filter.before.unwrap_or(NEWEST).0))
        .order_by("position", Order::Desc)
        .limit(limit);
    if let Some(category) = &filter.category {
        statement.and_where(Expr::col("category").eq(category.as_str()));
    }
    if let Some(since) = filter.since {
        statement.and_where(Expr::col("appeared_at_us").gte(since.as_micros()));
    }
    if let Some(until) = filter.until {
        statement.and_where(Expr::col("appeared_at_us").lt(until.as_micros()));
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every list is a merge of ranges of one index and the primary key of the counters; nothing is read whole.
    #[tokio::test]
    async fn every_list_rides_on_its_index() {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        let ddl = include_str!("../../projections/inbox/sqlite.sql").replace("{slot}", "a");
        sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await.unwrap();
        let recipient = RecipientId::new("user-1").unwrap();
        for status in [Status::All, Status::Unseen, Status::Unread, Status::Read] {
            for archived in [Archived::Exclude, Archived::Include, Archived::Only] {
                for category in [None, Some("pass".to_owned())] {
                    let index = match category {
                        None => "inbox_items_a_recipient (recipient_id=? AND state=? AND position<?)",
                        Some(_) => {
                            "inbox_items_a_category (recipient_id=? AND category=? AND state=? AND position<?)"
                        }
                    };
                    let filter = InboxFilter { status, archived, category, ..InboxFilter::default() };
                    let sql = page(Dialect::Sqlite, &recipient, &filter, 11).to_string(SqliteQueryBuilder);
                    let sql = sql
                        .replace("\"inbox_items\"", "inbox_items_a")
                        .replace("\"inbox_counters\"", "inbox_counters_a");
                    let explain = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
                    let plan: Vec<(i64, i64, i64, String)> =
                        sqlx::query_as(explain).fetch_all(&pool).await.unwrap();
                    let plan: String = plan.into_iter().map(|it| it.3 + "\n").collect();
                    assert_eq!(plan.matches(index).count(), filter.states().len(), "{filter:?}: {plan}{sql}");
                    assert!(plan.contains("PRIMARY KEY (recipient_id=?)"), "{plan}");
                    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
                }
            }
        }
    }
}
