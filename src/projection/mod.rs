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
pub mod statistics;

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    event::{Event, Recorded},
    id::Cursor,
};

pub use batch::{Changes, Keys, Rows};
pub use row::{Column, ColumnKind, Field, Key, Row, Table, Value};

/// Every projection of the product.
pub static ALL: &[&dyn Projection] =
    &[&inbox::Inbox, &deliveries::Deliveries, &messages::Messages, &statistics::Statistics];

/// The projection of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Projection> {
    ALL.iter().find(|it| it.name() == name).copied()
}

/// A pure fold over typed rows.
pub trait Projection: Send + Sync {
    /// Its name: the folder under `projections/` and the word operators type.
    fn name(&self) -> &'static str;

    /// Raised whenever fold or tables change; a newer version is rebuilt from the log (VERSIONED).
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

/// Which existing rows the events may change.
pub fn touched<'e>(projection: &dyn Projection, events: &'e [Recorded]) -> Keys<'e> {
    let mut keys = Keys::default();
    for event in counted(events) {
        projection.touches(event, &mut keys);
    }
    keys
}

/// An event that a fold fails at, which is a fault of the fold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fold of {kind} event {event} fails: {panic}")]
pub struct Unfoldable {
    /// Which event.
    pub event: Cursor,
    /// Its type.
    pub kind: &'static str,
    /// With what the fold panicked.
    pub panic: String,
}

/// Folds `events` in order, but for those that are left out. Where the fold panics, the event is named, and
/// `rows` are of no use any more.
///
/// # Errors
/// When the fold panics at an event.
pub fn fold_all(projection: &dyn Projection, events: &[Recorded], rows: &mut Rows) -> Result<(), Unfoldable> {
    let at = Cell::new(None);
    let fold = || {
        for event in counted(events) {
            at.set(Some(event));
            projection.fold(event, rows);
        }
    };
    // What a panic leaves half done is thrown away with the rows.
    catch_unwind(AssertUnwindSafe(fold)).map_err(|panic| {
        let event = at.get();
        Unfoldable {
            event: event.map_or(Cursor::start(), Recorded::cursor),
            kind: event.map_or("no", |it| it.body.kind()),
            panic: panic_text(panic.as_ref()),
        }
    })
}

/// The events without those that are left out.
fn counted<'e>(events: impl IntoIterator<Item = &'e Recorded>) -> impl Iterator<Item = &'e Recorded> {
    events.into_iter().filter(|it| !matches!(it.body, Event::Skipped(_)))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

/// Folds `events`, the whole history in order, and answers with all rows of every table, by key.
///
/// Everything is held in memory: for tests and for proofs over one message or recipient.
pub fn fold_in_memory<'e>(
    projection: &dyn Projection,
    events: impl IntoIterator<Item = &'e Recorded>,
) -> Vec<(&'static Table, Vec<Vec<Value>>)> {
    let mut rows = Rows::default();
    for event in counted(events) {
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
