//! Rows of a projection's table as their Rust type, from any of the three drivers.

use sqlx::{FromRow, Row as _, mysql::MySqlRow, postgres::PgRow, sqlite::SqliteRow};

use crate::projection::{ColumnKind, Row, Value};

/// What a statement answered that selects all columns of a table, in their order, and then perhaps others.
#[derive(Debug)]
pub(super) struct Typed<R> {
    /// The row; none where an outer join found none.
    pub(super) row: Option<R>,
}

impl<R: Row> Typed<R> {
    pub(super) fn read(
        int: impl Fn(usize) -> Result<Option<i64>, sqlx::Error>,
        text: impl Fn(usize) -> Result<Option<String>, sqlx::Error>,
    ) -> Result<Self, sqlx::Error> {
        let columns = R::TABLE.columns;
        let mut values = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            values.push(match column.kind {
                ColumnKind::Int => int(at)?.map_or(Value::Null, Value::Int),
                ColumnKind::Text => text(at)?.map_or(Value::Null, Value::Text),
            });
        }
        // The first column of every key is text and never null.
        let row = (values.first() != Some(&Value::Null)).then(|| R::from_values(values));
        Ok(Self { row })
    }
}

macro_rules! from_row {
    ($($driver:ty),*) => {$(
        impl<R: Row> FromRow<'_, $driver> for Typed<R> {
            fn from_row(row: &$driver) -> Result<Self, sqlx::Error> {
                Self::read(|at| row.try_get(at), |at| row.try_get(at))
            }
        }
    )*};
}
from_row!(SqliteRow, PgRow, MySqlRow);
