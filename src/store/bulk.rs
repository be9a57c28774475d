//! Many rows in one statement.
//!
//! `PostgreSQL` takes columns as arrays (`unnest`): one statement text for every number of rows and a
//! tenth of the client's CPU of a long `values` list. SQLite takes keys to look up as one JSON array.
//! Where rows have to be spelt out, their number is cut into powers of two, so that prepared
//! statements stay few.

use std::fmt::Write as _;

use sqlx::{
    AssertSqlSafe, MySql, Postgres, Row as _, Sqlite, mysql::MySqlArguments, postgres::PgArguments,
    query::Query, sqlite::SqliteArguments,
};

use super::{AnyRow, Dialect, StoreError, Tx};
use crate::projection::{Column, ColumnKind, Key, Table, Value};

/// Rows in one spelt-out statement at the most.
const MAX_ROWS: usize = 512;
/// Bytes in one spelt-out statement at the most, unless one row alone has more; MySQL takes 16 MiB by
/// default.
const MAX_BYTES: usize = 4 << 20;
/// Keys in one look-up at the most.
const MAX_KEYS: usize = 2048;

/// A column to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a column to write holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Bytes,
}

/// One value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    const fn size(&self) -> usize {
        match self {
            Self::Null | Self::Int(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Int(number) => Self::Int(number),
            Value::Text(text) => Self::Text(text),
        }
    }
}

impl From<Column> for Spec {
    fn from(column: Column) -> Self {
        let kind = match column.kind {
            ColumnKind::Int => Kind::Int,
            ColumnKind::Text => Kind::Text,
        };
        Self { name: column.name, kind }
    }
}

/// What to do where the key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDuplicate {
    /// Nothing is written and the transaction is lost.
    Fail,
    /// The first `key_len` columns are the key; the others are overwritten.
    Overwrite { key_len: usize },
    /// As above, but the `add` columns after the key are added to what is there.
    Add { key_len: usize, add: usize },
}

/// Inserts rows.
pub(super) async fn insert(
    tx: &mut Tx,
    table: &str,
    columns: &[Spec],
    rows: Vec<Vec<Cell>>,
    on_duplicate: OnDuplicate,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    match tx {
        Tx::Postgres { tx, persistent } => {
            let sql = unnest_insert(table, columns, on_duplicate);
            let query = bind_columns(sqlx::query(AssertSqlSafe(sql)), columns, rows);
            query.persistent(*persistent).execute(&mut **tx).await?;
        }
        Tx::Sqlite(tx) => {
            let mut rows = rows.into_iter();
            for size in powers_of_two(rows.len()) {
                let sql =
                    values_insert(table, columns, size, &standard_conflict(table, columns, on_duplicate));
                let cells = rows.by_ref().take(size).flatten();
                let query = cells.fold(sqlx::query(AssertSqlSafe(sql)), bind_sqlite);
                query.execute(&mut **tx).await?;
            }
        }
        Tx::MySql(tx) => {
            let sizes = statement_sizes(&rows);
            let mut rows = rows.into_iter();
            for size in sizes {
                let sql = values_insert(table, columns, size, &mysql_conflict(columns, on_duplicate));
                let cells = rows.by_ref().take(size).flatten();
                let query = cells.fold(sqlx::query(AssertSqlSafe(sql)), bind_mysql);
                query.execute(&mut **tx).await?;
            }
        }
    }
    Ok(())
}

/// Rows to look up by the first column of an index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) columns: &'a str,
    pub(super) table: &'a str,
    pub(super) key: &'a str,
    /// What else must hold, `true` if nothing.
    pub(super) filter: &'a str,
}

impl Lookup<'_> {
    /// One text for any number of keys. The planner is left no choice between the index, key by key,
    /// and the whole table: what it knows of a table that just grew is wrong.
    fn in_postgres(&self) -> String {
        let Self { columns, table, key, filter } = self;
        format!(
            "select found.* from unnest($1::text[]) as wanted(wanted_key) cross join lateral \
             (select {columns} from {table} where {key} = wanted_key and {filter} offset 0) as found"
        )
    }

    fn in_sqlite(&self) -> String {
        let Self { columns, table, key, filter } = self;
        format!("select {columns} from {table} where {filter} and {key} in (select value from json_each(?))")
    }

    fn in_mysql(&self, keys: usize) -> String {
        let Self { columns, table, key, filter } = self;
        let marks = vec!["?"; keys].join(",");
        format!("select {columns} from {table} where {filter} and {key} in ({marks})")
    }
}

/// Looks rows up; each key is to be given once. They come in no order.
pub(super) async fn look_up<T: AnyRow>(
    tx: &mut Tx,
    lookup: Lookup<'_>,
    keys: &[&str],
) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    for keys in keys.chunks(MAX_KEYS) {
        let found = match tx {
            Tx::Postgres { tx, persistent } => {
                let query = sqlx::query_as(AssertSqlSafe(lookup.in_postgres())).bind(keys);
                query.persistent(*persistent).fetch_all(&mut **tx).await?
            }
            Tx::Sqlite(tx) => {
                let keys = serde_json::Value::from(keys).to_string();
                sqlx::query_as(AssertSqlSafe(lookup.in_sqlite())).bind(keys).fetch_all(&mut **tx).await?
            }
            Tx::MySql(tx) => {
                let size = keys.len().next_power_of_two();
                let padded = keys.iter().chain(keys.last().into_iter().cycle()).take(size);
                let query = sqlx::query_as(AssertSqlSafe(lookup.in_mysql(size)));
                padded.fold(query, |query, key| query.bind(*key)).fetch_all(&mut **tx).await?
            }
        };
        rows.extend(found);
    }
    Ok(rows)
}

/// Reads the rows of a projection's table whose key begins with one of these texts.
pub(super) async fn fetch(
    tx: &mut Tx,
    physical: &str,
    table: &'static Table,
    firsts: &[&str],
) -> Result<Vec<Vec<Value>>, StoreError> {
    let columns = column_names(table);
    let lookup = Lookup { columns: &columns, table: physical, key: table.columns[0].name, filter: "true" };
    let mut found = Vec::new();
    for keys in firsts.chunks(MAX_KEYS) {
        match tx {
            Tx::Postgres { tx, persistent } => {
                let query = sqlx::query(AssertSqlSafe(lookup.in_postgres())).bind(keys);
                for row in query.persistent(*persistent).fetch_all(&mut **tx).await? {
                    found.push(read_row(table, |at| row.try_get(at), |at| row.try_get(at))?);
                }
            }
            Tx::Sqlite(tx) => {
                let keys = serde_json::Value::from(keys).to_string();
                let query = sqlx::query(AssertSqlSafe(lookup.in_sqlite())).bind(keys);
                for row in query.fetch_all(&mut **tx).await? {
                    found.push(read_row(table, |at| row.try_get(at), |at| row.try_get(at))?);
                }
            }
            Tx::MySql(tx) => {
                let size = keys.len().next_power_of_two();
                let padded = keys.iter().chain(keys.last().into_iter().cycle()).take(size);
                let query = sqlx::query(AssertSqlSafe(lookup.in_mysql(size)));
                let query = padded.fold(query, |query, key| query.bind(*key));
                for row in query.fetch_all(&mut **tx).await? {
                    found.push(read_row(table, |at| row.try_get(at), |at| row.try_get(at))?);
                }
            }
        }
    }
    Ok(found)
}

/// Reads up to `limit` rows of a projection's table in key order, after a key.
pub(super) async fn scan(
    tx: &mut Tx,
    physical: &str,
    table: &'static Table,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<Vec<Value>>, StoreError> {
    let (names, keys) = (column_names(table), key_names(table));
    let (condition, bound) = between(tx.dialect(), table, after, None);
    let sql = format!("select {names} from {physical}{condition} order by {keys} limit {limit}");
    rows_of(tx, table, sql, bound).await
}

/// The condition that a key is after one and not after another, and what is to be bound to it.
pub(super) fn between(
    dialect: Dialect,
    table: &Table,
    after: Option<&Key>,
    upto: Option<&Key>,
) -> (String, Vec<Cell>) {
    let (mut sql, mut bound) = (String::new(), Vec::new());
    let (first, keys) = (table.columns[0].name, key_names(table));
    for (key, of_first, of_all) in [(after, ">=", ">"), (upto, "<=", "<=")] {
        let Some(key) = key else { continue };
        let mut mark = |value: &Value| {
            bound.push(Cell::from(value.clone()));
            if dialect == Dialect::Postgres { format!("${}", bound.len()) } else { "?".to_owned() }
        };
        // The condition on the first column alone is the index range; MySQL makes none of the other.
        let one = key.first().map(&mut mark).unwrap_or_default();
        let all = key.iter().map(mark).collect::<Vec<_>>().join(",");
        let word = if sql.is_empty() { "where" } else { "and" };
        let _ = write!(sql, " {word} {first} {of_first} {one} and ({keys}) {of_all} ({all})");
    }
    (sql, bound)
}

/// Runs a statement whose rows have the columns of `table`.
pub(super) async fn rows_of(
    tx: &mut Tx,
    table: &Table,
    sql: String,
    bound: Vec<Cell>,
) -> Result<Vec<Vec<Value>>, StoreError> {
    let (sql, mut found) = (AssertSqlSafe(sql), Vec::new());
    match tx {
        Tx::Postgres { tx, persistent } => {
            let query = bound.into_iter().fold(sqlx::query(sql), bind_postgres);
            for row in query.persistent(*persistent).fetch_all(&mut **tx).await? {
                found.push(read_row(table, |at| row.try_get(at), |at| row.try_get(at))?);
            }
        }
        Tx::Sqlite(tx) => {
            let query = bound.into_iter().fold(sqlx::query(sql), bind_sqlite);
            for row in query.fetch_all(&mut **tx).await? {
                found.push(read_row(table, |at| row.try_get(at), |at| row.try_get(at))?);
            }
        }
        Tx::MySql(tx) => {
            let query = bound.into_iter().fold(sqlx::query(sql), bind_mysql);
            for row in query.fetch_all(&mut **tx).await? {
                found.push(read_row(table, |at| row.try_get(at), |at| row.try_get(at))?);
            }
        }
    }
    Ok(found)
}

/// Deletes the rows of a projection's table that have one of these keys.
pub(super) async fn delete(
    tx: &mut Tx,
    physical: &str,
    table: &'static Table,
    keys: &[Key],
) -> Result<(), StoreError> {
    for keys in keys.chunks(MAX_KEYS) {
        let mut sql = format!("delete from {physical} where ");
        match tx {
            Tx::Postgres { tx, persistent } => {
                sql.push_str(&unnest_keys(table));
                let query = bind_key_columns(sqlx::query(AssertSqlSafe(sql)), table, keys);
                query.persistent(*persistent).execute(&mut **tx).await?;
            }
            Tx::Sqlite(tx) => {
                sql.push_str(&json_keys(table));
                let query = sqlx::query(AssertSqlSafe(sql)).bind(keys_as_json(keys));
                query.execute(&mut **tx).await?;
            }
            Tx::MySql(tx) => {
                let size = keys.len().next_power_of_two();
                sql.push_str(&listed_keys(table, size));
                let query = repeat_last(keys, size).fold(sqlx::query(AssertSqlSafe(sql)), bind_mysql);
                query.execute(&mut **tx).await?;
            }
        }
    }
    Ok(())
}

/// Reads a row of known column kinds through the driver's own getters.
fn read_row(
    table: &Table,
    int: impl Fn(usize) -> Result<Option<i64>, sqlx::Error>,
    text: impl Fn(usize) -> Result<Option<String>, sqlx::Error>,
) -> Result<Vec<Value>, StoreError> {
    let mut row = Vec::with_capacity(table.columns.len());
    for (at, column) in table.columns.iter().enumerate() {
        row.push(match column.kind {
            ColumnKind::Int => int(at)?.map_or(Value::Null, Value::Int),
            ColumnKind::Text => text(at)?.map_or(Value::Null, Value::Text),
        });
    }
    Ok(row)
}

/// How many rows go into each statement.
fn statement_sizes(rows: &[Vec<Cell>]) -> Vec<usize> {
    let mut sizes = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for row in rows {
        let size: usize = row.iter().map(Cell::size).sum();
        if count > 0 && bytes + size > MAX_BYTES {
            sizes.extend(powers_of_two(count));
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes += size;
    }
    sizes.extend(powers_of_two(count));
    sizes
}

/// Cuts a number of rows into statement sizes: 700 becomes 512, 128, 32, 16, 8, 4.
fn powers_of_two(rows: usize) -> impl Iterator<Item = usize> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let size = if left >= MAX_ROWS { MAX_ROWS } else { 1 << left.checked_ilog2()? };
        left -= size;
        Some(size)
    })
}

fn names(columns: &[Spec]) -> String {
    columns.iter().map(|it| it.name).collect::<Vec<_>>().join(", ")
}

pub(super) fn values_insert(table: &str, columns: &[Spec], rows: usize, conflict: &str) -> String {
    let row = format!("({})", vec!["?"; columns.len()].join(","));
    let mut sql = format!("insert into {table} ({}) values ", names(columns));
    sql.reserve((row.len() + 1) * rows + conflict.len());
    for at in 0..rows {
        sql.push_str(if at == 0 { "" } else { "," });
        sql.push_str(&row);
    }
    sql.push_str(conflict);
    sql
}

pub(super) fn unnest_insert(table: &str, columns: &[Spec], on_duplicate: OnDuplicate) -> String {
    let arrays: Vec<_> =
        columns.iter().zip(1..).map(|(column, at)| format!("${at}::{}[]", array_type(column.kind))).collect();
    let conflict = standard_conflict(table, columns, on_duplicate);
    format!("insert into {table} ({}) select * from unnest({}){conflict}", names(columns), arrays.join(", "))
}

const fn array_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint",
        Kind::Text => "text",
        Kind::Bytes => "bytea",
    }
}

/// What follows `values` or `select`; `PostgreSQL` and SQLite say it alike.
fn standard_conflict(table: &str, columns: &[Spec], on_duplicate: OnDuplicate) -> String {
    let Some((key_len, set)) = assignments(columns, on_duplicate, |name, add| {
        if add { format!("{table}.{name} + excluded.{name}") } else { format!("excluded.{name}") }
    }) else {
        return String::new();
    };
    format!(" on conflict ({}) do update set {set}", names(&columns[..key_len]))
}

fn mysql_conflict(columns: &[Spec], on_duplicate: OnDuplicate) -> String {
    let set = assignments(columns, on_duplicate, |name, add| {
        if add { format!("{name} + values({name})") } else { format!("values({name})") }
    });
    set.map(|(_, set)| format!(" on duplicate key update {set}")).unwrap_or_default()
}

/// `column = value, …` for every column after the key, and how long the key is.
fn assignments(
    columns: &[Spec],
    on_duplicate: OnDuplicate,
    value: impl Fn(&str, bool) -> String,
) -> Option<(usize, String)> {
    let (key_len, add) = match on_duplicate {
        OnDuplicate::Fail => return None,
        OnDuplicate::Overwrite { key_len } => (key_len, 0),
        OnDuplicate::Add { key_len, add } => (key_len, add),
    };
    let set = columns[key_len..].iter().enumerate();
    let set: Vec<_> = set.map(|(at, it)| format!("{} = {}", it.name, value(it.name, at < add))).collect();
    Some((key_len, set.join(", ")))
}

pub(super) fn column_names(table: &Table) -> String {
    table.columns.iter().map(|it| it.name).collect::<Vec<_>>().join(", ")
}

pub(super) fn key_names(table: &Table) -> String {
    let names: Vec<_> = table.columns[..table.key_len].iter().map(|it| it.name).collect();
    names.join(", ")
}

fn unnest_keys(table: &Table) -> String {
    let arrays: Vec<_> = table.columns[..table.key_len]
        .iter()
        .zip(1..)
        .map(|(column, at)| format!("${at}::{}[]", array_type(Spec::from(*column).kind)))
        .collect();
    if let [array] = &arrays[..] {
        return format!("{} = any({array})", key_names(table));
    }
    format!("({}) in (select * from unnest({}))", key_names(table), arrays.join(", "))
}

fn json_keys(table: &Table) -> String {
    let parts: Vec<_> = (0..table.key_len).map(|at| format!("json_extract(value, '$[{at}]')")).collect();
    format!("({}) in (select {} from json_each(?))", key_names(table), parts.join(", "))
}

fn keys_as_json(keys: &[Key]) -> String {
    serde_json::json!(keys).to_string()
}

fn listed_keys(table: &Table, size: usize) -> String {
    let key = format!("({})", vec!["?"; table.key_len].join(","));
    format!("({}) in ({})", key_names(table), vec![key; size].join(","))
}

fn repeat_last(keys: &[Key], size: usize) -> impl Iterator<Item = Cell> {
    let last = keys.last().into_iter().cycle();
    keys.iter().chain(last).take(size).flat_map(|key| key.iter().cloned().map(Cell::from))
}

pub(super) fn bind_sqlite(
    query: Query<'_, Sqlite, SqliteArguments>,
    cell: Cell,
) -> Query<'_, Sqlite, SqliteArguments> {
    match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Int(number) => query.bind(number),
        Cell::Text(text) => query.bind(text),
        Cell::Bytes(bytes) => query.bind(bytes),
    }
}

pub(super) fn bind_mysql(
    query: Query<'_, MySql, MySqlArguments>,
    cell: Cell,
) -> Query<'_, MySql, MySqlArguments> {
    match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Int(number) => query.bind(number),
        Cell::Text(text) => query.bind(text),
        Cell::Bytes(bytes) => query.bind(bytes),
    }
}

pub(super) fn bind_postgres(query: PgQuery<'_>, cell: Cell) -> PgQuery<'_> {
    match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Int(number) => query.bind(number),
        Cell::Text(text) => query.bind(text),
        Cell::Bytes(bytes) => query.bind(bytes),
    }
}

pub(super) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Turns rows into one array a column.
pub(super) fn bind_columns<'q>(
    mut query: PgQuery<'q>,
    columns: &[Spec],
    rows: Vec<Vec<Cell>>,
) -> PgQuery<'q> {
    let mut by_column: Vec<Vec<Cell>> = columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        for (column, cell) in by_column.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    for (spec, cells) in columns.iter().zip(by_column) {
        query = bind_array(query, spec.kind, cells);
    }
    query
}

fn bind_key_columns<'q>(mut query: PgQuery<'q>, table: &Table, keys: &[Key]) -> PgQuery<'q> {
    for (at, column) in table.columns[..table.key_len].iter().enumerate() {
        let cells = keys.iter().filter_map(|key| key.get(at)).cloned().map(Cell::from).collect();
        query = bind_array(query, Spec::from(*column).kind, cells);
    }
    query
}

fn bind_array(query: PgQuery<'_>, kind: Kind, cells: Vec<Cell>) -> PgQuery<'_> {
    match kind {
        Kind::Int => {
            let int = |cell| if let Cell::Int(number) = cell { Some(number) } else { None };
            query.bind(cells.into_iter().map(int).collect::<Vec<Option<i64>>>())
        }
        Kind::Text => {
            let text = |cell| if let Cell::Text(text) = cell { Some(text) } else { None };
            query.bind(cells.into_iter().map(text).collect::<Vec<Option<String>>>())
        }
        Kind::Bytes => {
            let bytes = |cell| if let Cell::Bytes(bytes) = cell { Some(bytes) } else { None };
            query.bind(cells.into_iter().map(bytes).collect::<Vec<Option<Vec<u8>>>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_few_statement_shapes() {
        let sizes = |rows| powers_of_two(rows).collect::<Vec<_>>();
        assert_eq!(sizes(0), Vec::<usize>::new());
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(700), [512, 128, 32, 16, 8, 4]);
        assert_eq!(sizes(1024), [512, 512]);
    }

    #[test]
    fn a_statement_stays_below_what_the_server_takes() {
        let row = |bytes| vec![Cell::Text("x".repeat(bytes))];
        assert_eq!(statement_sizes(&[row(MAX_BYTES), row(1), row(1), row(MAX_BYTES)]), [1, 2, 1]);
    }
}
