//! What the log means: projections, each a pure fold from events to rows.
//!
//! A projection is one file here and one folder under `projections/` (tables and indexes in three
//! dialects, example cases). It never does IO, never asks for the time, and derives its rows from
//! events alone, so it may be thrown away and folded anew at any moment.

pub mod deliveries;
pub mod inbox;
pub mod messages;
pub mod row;

use std::collections::HashMap;

use crate::event::Recorded;

pub use row::{Column, ColumnKind, Key, Row, Table, Value};

/// Every projection of the product.
pub static ALL: &[&dyn Projection] = &[&inbox::Inbox, &deliveries::Deliveries, &messages::Messages];

/// The projection of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Projection> {
    ALL.iter().find(|it| it.name() == name).copied()
}

/// A pure fold over typed rows.
pub trait Projection: Send + Sync {
    /// Its name: the folder under `projections/` and the word operators type.
    fn name(&self) -> &'static str;

    /// Raised whenever fold or tables change; a newer version is rebuilt from the log.
    fn version(&self) -> i32;

    /// Its tables, in the order of the dialect files.
    fn tables(&self) -> &'static [&'static Table];

    /// Its tables' DDL with `{slot}` for the slot: SQLite, PostgreSQL, MySQL.
    fn ddl(&self) -> Ddl;

    /// Says which existing rows `event` may change, so that they can be loaded in one go. A row that
    /// is certain not to exist yet need not be named.
    fn touches(&self, event: &Recorded, keys: &mut Keys);

    /// Applies `event`. All rows named by [`Projection::touches`] are in `rows`, if they exist.
    fn fold(&self, event: &Recorded, rows: &mut Rows);
}

/// A projection's tables and indexes in every dialect, with `{slot}` as the only placeholder.
#[derive(Debug, Clone, Copy)]
pub struct Ddl {
    /// For SQLite.
    pub sqlite: &'static str,
    /// For PostgreSQL.
    pub postgres: &'static str,
    /// For MySQL and MariaDB.
    pub mysql: &'static str,
}

/// Keys of rows to load, by table, each once.
#[derive(Debug, Default)]
pub struct Keys {
    by_table: HashMap<&'static str, std::collections::HashSet<Key>>,
}

impl Keys {
    /// Asks for the row of `R`'s table with this key.
    pub fn want<R: Row>(&mut self, key: Key) {
        self.by_table.entry(R::TABLE.name).or_default().insert(key);
    }

    /// The keys asked for in `table`, in no particular order.
    #[must_use]
    pub fn of(&self, table: &Table) -> Vec<&Key> {
        self.by_table.get(table.name).map(|keys| keys.iter().collect()).unwrap_or_default()
    }
}

/// The rows a fold works on: what was loaded, and what became of it.
#[derive(Debug, Default)]
pub struct Rows {
    by_table: HashMap<&'static str, HashMap<Key, Cell>>,
}

#[derive(Debug, Default)]
struct Cell {
    /// Whether the row is in the database.
    stored: bool,
    /// Whether the fold changed it.
    dirty: bool,
    /// The row now; absent means there is none.
    row: Option<Vec<Value>>,
}

/// What has to be written to one table.
#[derive(Debug)]
pub struct Changes {
    /// The table.
    pub table: &'static Table,
    /// Rows to insert or overwrite, sorted by key.
    pub upserts: Vec<Vec<Value>>,
    /// Keys of rows to delete, sorted.
    pub deletes: Vec<Key>,
}

impl Rows {
    /// Puts a row loaded from the database.
    pub fn load(&mut self, table: &Table, row: Vec<Value>) {
        let key = table.key_of(&row);
        let cell = Cell { stored: true, dirty: false, row: Some(row) };
        self.by_table.entry(table.name).or_default().insert(key, cell);
    }

    /// The row with this key, if there is one.
    #[must_use]
    pub fn get<R: Row>(&self, key: &Key) -> Option<R> {
        let cell = self.by_table.get(R::TABLE.name)?.get(key)?;
        cell.row.clone().map(R::from_values)
    }

    /// Changes the row with this key where there is one.
    pub fn change<R: Row>(&mut self, key: &Key, change: impl FnOnce(&mut R)) {
        let cell = self.by_table.get_mut(R::TABLE.name).and_then(|table| table.get_mut(key));
        let Some(cell) = cell else { return };
        let Some(values) = cell.row.take() else { return };
        let mut row = R::from_values(values);
        change(&mut row);
        cell.row = Some(row.into_values());
        cell.dirty = true;
    }

    /// Inserts or overwrites a row.
    pub fn put<R: Row>(&mut self, row: R) {
        let values = row.into_values();
        let key = R::TABLE.key_of(&values);
        let cell = self.by_table.entry(R::TABLE.name).or_default().entry(key).or_default();
        cell.row = Some(values);
        cell.dirty = true;
    }

    /// Removes a row, if it is there.
    pub fn remove<R: Row>(&mut self, key: &Key) {
        let cell = self.by_table.get_mut(R::TABLE.name).and_then(|table| table.get_mut(key));
        if let Some(cell) = cell {
            cell.row = None;
            cell.dirty = true;
        }
    }

    /// Every row of `table` as it stands, sorted by key.
    #[must_use]
    pub fn all(&self, table: &Table) -> Vec<Vec<Value>> {
        let cells = self.by_table.get(table.name).into_iter().flat_map(HashMap::values);
        let mut rows: Vec<_> = cells.filter_map(|cell| cell.row.clone()).collect();
        rows.sort_unstable();
        rows
    }

    /// What the fold changed in each of `tables`, to be written in bulk.
    #[must_use]
    pub fn into_changes(mut self, tables: &'static [&'static Table]) -> Vec<Changes> {
        let mut changes = Vec::with_capacity(tables.len());
        for &table in tables {
            let mut upserts = Vec::new();
            let mut deletes = Vec::new();
            for (key, cell) in self.by_table.remove(table.name).unwrap_or_default() {
                match cell {
                    Cell { dirty: false, .. } | Cell { stored: false, row: None, .. } => {}
                    Cell { row: Some(row), .. } => upserts.push(row),
                    Cell { row: None, .. } => deletes.push(key),
                }
            }
            upserts.sort_unstable();
            deletes.sort_unstable();
            changes.push(Changes { table, upserts, deletes });
        }
        changes
    }
}
