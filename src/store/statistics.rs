//! Reading what is counted: the rows of all shards added up, by day or by category.

use sea_query::{
    Expr, ExprTrait, MysqlQueryBuilder, Order, PostgresQueryBuilder, Query, SelectStatement,
    SqliteQueryBuilder,
};

use super::{Dialect, Store, StoreError, typed::Typed};
use crate::{
    clock::Day,
    projection::{ColumnKind, Row, statistics::DailyCount},
};

/// How many days to add up at the most.
pub const DAYS_MAX: i64 = 366;
/// How many categories to tell apart at the most.
pub const CATEGORIES_MAX: u64 = 200;

/// What to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountFilter {
    /// The first day.
    pub since: Day,
    /// The last day, not more than [`DAYS_MAX`] after the first.
    pub until: Day,
    /// Of this category only; the empty one is that of messages without.
    pub category: Option<String>,
}

/// What to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountBy {
    /// Days, in their order; those on which nothing was counted are missing.
    Day,
    /// Categories, those of most messages first, [`CATEGORIES_MAX`] at the most.
    Category,
}

impl Store {
    /// What was counted, a row for each day or category; what is not told apart stands for any of it.
    ///
    /// Rides on the key of `daily_counts`, which begins with the day.
    pub async fn counted(&self, filter: &CountFilter, by: CountBy) -> Result<Vec<DailyCount>, StoreError> {
        let rows: Vec<Typed<DailyCount>> = self.db().all(&counted(self.db().dialect(), filter, by)).await?;
        Ok(rows.into_iter().filter_map(|it| it.row).collect())
    }

    /// How many events of the log the live slot of a projection lacks.
    pub async fn behind(&self, projection: &str) -> Result<i64, StoreError> {
        let live = self.projection_state(projection).await?.map(|it| it.live);
        let places = self.checkpoints().await?.into_iter();
        let own = places.filter(|it| it.projection == projection && Some(it.slot) == live);
        Ok(own.map(|it| it.head.0 - it.position.0).sum())
    }
}

/// What is read of the counts, with the index it rides on (of the live slot, whose name stands for `{slot}`) and as the
/// text that a database is given: for whoever wants to see how the database goes about it.
#[must_use]
pub fn explained(dialect: Dialect, filter: &CountFilter) -> Vec<(&'static str, String)> {
    let text = |statement: SelectStatement| match dialect {
        Dialect::Sqlite => statement.to_string(SqliteQueryBuilder),
        Dialect::Postgres => statement.to_string(PostgresQueryBuilder),
        Dialect::MySql => statement.to_string(MysqlQueryBuilder),
    };
    let statements = [CountBy::Day, CountBy::Category].map(|by| text(counted(dialect, filter, by)));
    statements.map(|it| ("daily_counts_{slot}", it)).into()
}

fn counted(dialect: Dialect, filter: &CountFilter, by: CountBy) -> SelectStatement {
    let by = match by {
        CountBy::Day => "day",
        CountBy::Category => "category",
    };
    // Sums of integers are of another type in some databases.
    let whole = match dialect {
        Dialect::Sqlite => "integer",
        Dialect::Postgres => "bigint",
        Dialect::MySql => "signed",
    };
    let column = |name: &'static str, kind| -> Expr {
        match (name, kind) {
            _ if name == by => Expr::col(name),
            ("shard", _) | (_, ColumnKind::Text) => Expr::col(name).min(),
            ("last_position", _) => Expr::col(name).max(),
            (_, ColumnKind::Int) => Expr::col(name).sum().cast_as(whole),
        }
    };
    let mut statement = Query::select();
    statement
        .exprs(DailyCount::TABLE.columns.iter().map(|it| column(it.name, it.kind)))
        .from("daily_counts")
        .and_where(Expr::col("slice").gte(filter.since.to_string()))
        .and_where(Expr::col("slice").lt(filter.until.plus(1).to_string()))
        .group_by_col(by);
    if let Some(category) = &filter.category {
        statement.and_where(Expr::col("category").eq(category));
    }
    if by == "category" {
        statement.order_by_expr(Expr::col("messages_received").sum(), Order::Desc).limit(CATEGORIES_MAX);
    }
    statement.order_by(by, Order::Asc).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts_ride_on_their_key() {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        let ddl = include_str!("../../projections/statistics/sqlite.sql").replace("{slot}", "a");
        sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await.unwrap();
        let [since, until] = ["2026-11-01", "2026-11-30"].map(|it| it.parse().unwrap());
        for category in [None, Some("pass".to_owned())] {
            for (_, sql) in explained(Dialect::Sqlite, &CountFilter { since, until, category }) {
                let sql = sql.replace("\"daily_counts\"", "daily_counts_a");
                let explain = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
                let plan: Vec<(i64, i64, i64, String)> =
                    sqlx::query_as(explain).fetch_all(&pool).await.unwrap();
                let plan: String = plan.into_iter().map(|it| it.3 + "\n").collect();
                assert!(plan.contains("PRIMARY KEY (slice>? AND slice<?)"), "{plan}{sql}");
            }
        }
    }
}
