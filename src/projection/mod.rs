//! What the log means: projections, each a pure fold from events to rows.
//!
//! A projection is one file here and one folder under `projections/` (tables and indexes in three
//! dialects, example cases). It never does IO, never asks for the time, and derives its rows from
//! events alone, so it may be thrown away and folded anew at any moment (FOLD-IS-PURE).

pub mod batch;
pub mod deliveries;
pub mod inbox;
pub mod messages;
pub mod row;

use crate::event::Recorded;

pub use batch::{Changes, Keys, Rows};
pub use row::{Column, ColumnKind, Field, Key, Row, Table, Value};

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
    fn touches<'e>(&self, event: &'e Recorded, keys: &mut Keys<'e>);

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

/// The part of a dialect file before this line makes tables, the part after it indexes, so that a
/// bulk load can make the indexes last.
const INDEXES: &str = "-- indexes";

/// The statements of one dialect's DDL for one slot: those that make tables, and those that make
/// indexes.
#[must_use]
pub fn statements(ddl: &str, slot: &str) -> (Vec<String>, Vec<String>) {
    let (tables, indexes) = ddl.split_once(INDEXES).unwrap_or((ddl, ""));
    let split = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|it| !it.starts_with("--")).collect();
        let text = lines.join("\n");
        let statements = text.split(';').map(str::trim).filter(|it| !it.is_empty());
        statements.map(|it| it.replace("{slot}", slot)).collect()
    };
    (split(tables), split(indexes))
}

/// Folds `events`, the whole history in order, and answers with all rows of every table, by key.
///
/// Everything is held in memory: for tests and for proofs over one message or recipient.
pub fn fold_in_memory<'e>(
    projection: &dyn Projection,
    events: impl IntoIterator<Item = &'e Recorded>,
) -> Vec<(&'static Table, Vec<Vec<Value>>)> {
    let mut rows = Rows::default();
    for event in events {
        projection.fold(event, &mut rows);
    }
    rows.into_all(projection.tables())
}

/// How long a text may be that is part of a key or an index, in characters.
const LABEL_MAX: usize = 128;

/// A text fit for a key or an index in every database: cut to a length they all take, and without
/// white space at either end, which MySQL would not tell apart. Nothing is left of a blank one.
fn label(text: Option<&str>) -> Option<String> {
    let label: String = text?.trim().chars().take(LABEL_MAX).collect();
    let label = label.trim_end();
    (!label.is_empty()).then(|| label.to_owned())
}

/// A JSON object as text; none for the empty one.
fn data_text(data: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    if data.is_empty() { None } else { serde_json::to_string(data).ok() }
}

#[cfg(test)]
mod case_tests;
#[cfg(test)]
mod ddl_tests;
#[cfg(test)]
pub(crate) mod history_tests;
