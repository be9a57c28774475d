//! What tells, without handing rows over, whether two ranges of rows are equal.
//!
//! The database looks at every column of every row by itself, and only what that comes to travels.

use super::{
    Dialect, Slot, Snapshot, StoreError,
    bulk::{between, column_names, key_names, rows_of},
    slots::physical,
};
use crate::projection::{Column, ColumnKind, Key, Table, Value};

/// What a range of rows comes to. Two that are equal stand for equal rows: on SQLite, which has no hash,
/// because they hold the rows; elsewhere as surely as the sum of a hash of each row can say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// How many rows.
    pub rows: u64,
    sum: Value,
}

/// The columns of a digest.
const DIGEST: Table = Table {
    name: "digest",
    columns: &[
        Column { name: "counted", kind: ColumnKind::Int, nullable: false },
        Column { name: "summed", kind: ColumnKind::Text, nullable: true },
    ],
    key_len: 0,
};

impl Snapshot {
    /// How many rows are well put into one digest.
    #[must_use]
    pub const fn digest_rows(&self) -> usize {
        match self.tx.dialect() {
            Dialect::Sqlite => 500,
            Dialect::Postgres | Dialect::MySql => 50_000,
        }
    }

    /// The key of the row that is so many rows after a key; none where there are not as many.
    pub async fn key_after(
        &mut self,
        table: &Table,
        slot: Slot,
        after: Option<&Key>,
        rows: usize,
    ) -> Result<Option<Key>, StoreError> {
        let (condition, bound) = between(self.tx.dialect(), table, after, None);
        let (keys, from) = (key_names(table), physical(table, slot));
        let skipped = rows.saturating_sub(1);
        let sql = format!("select {keys} from {from}{condition} order by {keys} limit 1 offset {skipped}");
        let of_keys = Table { columns: &table.columns[..table.key_len], ..*table };
        Ok(rows_of(&mut self.tx, &of_keys, sql, bound).await?.pop())
    }

    /// What the rows come to whose keys are after one and not after another.
    pub async fn digest(
        &mut self,
        table: &Table,
        slot: Slot,
        (after, upto): (Option<&Key>, Option<&Key>),
    ) -> Result<Digest, StoreError> {
        let dialect = self.tx.dialect();
        let (condition, bound) = between(dialect, table, after, upto);
        let (columns, keys, from) = (column_names(table), key_names(table), physical(table, slot));
        let of_each = |what: fn(&str) -> String, between: &str| {
            table.columns.iter().map(|it| what(it.name)).collect::<Vec<_>>().join(between)
        };
        let sql = match dialect {
            // In the order of the keys, as the index gives them.
            Dialect::Sqlite => format!(
                "select count(*), group_concat(line, ';') from \
                 (select {} as line from {from}{condition} order by {keys})",
                of_each(|it| format!("quote({it})"), "||','||"),
            ),
            Dialect::Postgres => format!(
                "select count(*), sum(hashtextextended(line::text, 0))::text from \
                 (select {columns} from {from}{condition}) as line"
            ),
            // Hexadecimal digits, so that columns of different character sets go together.
            Dialect::MySql => format!(
                "select count(*), cast(sum(cast(conv(left(md5(concat_ws(',', {})), 15), 16, 10) as unsigned)) \
                 as char) from {from}{condition}",
                of_each(|it| format!("coalesce(hex({it}), '-')"), ", "),
            ),
        };
        match rows_of(&mut self.tx, &DIGEST, sql, bound).await?.pop().as_deref() {
            Some([Value::Int(rows), sum]) => {
                Ok(Digest { rows: u64::try_from(*rows).unwrap_or(0), sum: sum.clone() })
            }
            other => Err(StoreError::Corrupt(format!("a digest of {from} is {other:?}"))),
        }
    }
}
