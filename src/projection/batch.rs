//! The rows of one batch of events: which to load, and what became of them.
//!
//! A projector asks every event of the batch which rows it may change ([`Keys`]), loads those in one
//! query a table, folds all events over them in memory ([`Rows`]) and writes the difference
//! ([`Changes`]). Rows are always loaded by the first column of their key (a message id or a
//! recipient id): one list of texts is a query that every database answers with one index range
//! each, and it brings along the rows whose whole key the event cannot name.

use std::{collections::HashMap, mem};

use super::row::{Key, Row, Table, Value};

/// First key columns of rows to load, by table, each once.
#[derive(Debug, Default)]
pub struct Keys<'e> {
    tables: Vec<(&'static str, HashMap<&'e str, Want>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Load,
    Fresh,
}

impl<'e> Keys<'e> {
    /// Asks for every row of `R`'s table whose key begins with `first`.
    pub fn want<R: Row>(&mut self, first: &'e str) {
        self.table(R::TABLE).entry(first).or_insert(Want::Load);
    }

    /// States that before this event no row of `R`'s table has a key that begins with `first`, so
    /// that later events of the batch need not load it either.
    pub fn fresh<R: Row>(&mut self, first: &'e str) {
        self.table(R::TABLE).entry(first).or_insert(Want::Fresh);
    }

    /// The first key columns whose rows are to be loaded from `table`, in byte order.
    #[must_use]
    pub fn of(&self, table: &Table) -> Vec<&'e str> {
        let wants = self.tables.iter().filter(|(name, _)| *name == table.name).flat_map(|(_, it)| it);
        let mut firsts: Vec<_> =
            wants.filter(|(_, want)| **want == Want::Load).map(|(first, _)| *first).collect();
        firsts.sort_unstable();
        firsts
    }

    fn table(&mut self, table: &'static Table) -> &mut HashMap<&'e str, Want> {
        let index = self.tables.iter().position(|(name, _)| *name == table.name).unwrap_or_else(|| {
            self.tables.push((table.name, HashMap::new()));
            self.tables.len() - 1
        });
        &mut self.tables[index].1
    }
}

/// The rows a fold works on: what was loaded, and what became of it.
///
/// A row is named by the first column of its key and the rest of it.
#[derive(Debug, Default)]
pub struct Rows {
    tables: Vec<(&'static Table, Groups)>,
}

/// The rows of one table by the first column of their key.
type Groups = HashMap<Box<str>, Vec<Cell>>;

#[derive(Debug)]
struct Cell {
    row: Vec<Value>,
    /// Whether the row is in the database.
    stored: bool,
    /// Whether the fold changed it.
    dirty: bool,
    /// Whether the fold removed it; the values stay for the key.
    gone: bool,
}

/// What has to be written to one table.
#[derive(Debug)]
pub struct Changes {
    /// The table.
    pub table: &'static Table,
    /// Rows that are new, sorted by key.
    pub inserts: Vec<Vec<Value>>,
    /// Rows that were loaded and changed, sorted by key.
    pub updates: Vec<Vec<Value>>,
    /// Keys of loaded rows to delete, sorted.
    pub deletes: Vec<Key>,
}

impl Rows {
    /// Puts a row loaded from the database.
    pub fn load(&mut self, table: &'static Table, row: Vec<Value>) {
        self.insert(table, Cell { row, stored: true, dirty: false, gone: false });
    }

    /// Changes the row with this key, and says whether there was one.
    pub fn change<R: Row>(&mut self, first: &str, rest: &[Value], change: impl FnOnce(&mut R)) -> bool {
        let cell = self.find(R::TABLE, first, rest).filter(|cell| !cell.gone);
        cell.map(|cell| cell.change(change)).is_some()
    }

    /// Changes every row whose key begins with `first`.
    pub fn change_all<R: Row>(&mut self, first: &str, mut change: impl FnMut(&mut R)) {
        for cell in self.group(R::TABLE, first).into_iter().flatten().filter(|cell| !cell.gone) {
            cell.change(&mut change);
        }
    }

    /// Inserts a row, or overwrites the one with its key.
    pub fn put<R: Row>(&mut self, row: R) {
        let table = R::TABLE;
        let row = row.into_values();
        let (first, rest) = split(table, &row);
        match self.find(table, first, rest) {
            Some(cell) => *cell = Cell { row, stored: cell.stored, dirty: true, gone: false },
            None => self.insert(table, Cell { row, stored: false, dirty: true, gone: false }),
        }
    }

    /// Removes the row with this key and answers with it, if there was one.
    pub fn remove<R: Row>(&mut self, first: &str, rest: &[Value]) -> Option<R> {
        let cell = self.find(R::TABLE, first, rest).filter(|cell| !cell.gone)?;
        (cell.dirty, cell.gone) = (true, true);
        Some(R::from_values(cell.row.clone()))
    }

    /// Every row of each of `tables` as it stands, sorted by key.
    #[must_use]
    pub fn into_all(mut self, tables: &'static [&'static Table]) -> Vec<(&'static Table, Vec<Vec<Value>>)> {
        let all = |&table: &&'static Table| {
            let mut rows: Vec<_> = self.take(table).filter(|cell| !cell.gone).map(|cell| cell.row).collect();
            rows.sort_unstable();
            (table, rows)
        };
        tables.iter().map(all).collect()
    }

    /// What the fold changed in each of `tables`, to be written in bulk.
    #[must_use]
    pub fn into_changes(mut self, tables: &'static [&'static Table]) -> Vec<Changes> {
        tables.iter().map(|table| self.take_changes(table)).collect()
    }

    fn take_changes(&mut self, table: &'static Table) -> Changes {
        let mut changes = Changes { table, inserts: Vec::new(), updates: Vec::new(), deletes: Vec::new() };
        for cell in self.take(table).filter(|cell| cell.dirty) {
            match cell {
                Cell { gone: false, stored: false, row, .. } => changes.inserts.push(row),
                Cell { gone: false, stored: true, row, .. } => changes.updates.push(row),
                Cell { gone: true, stored: true, row, .. } => changes.deletes.push(table.key_of(&row)),
                Cell { gone: true, stored: false, .. } => {}
            }
        }
        changes.inserts.sort_unstable();
        changes.updates.sort_unstable();
        changes.deletes.sort_unstable();
        changes
    }

    fn take(&mut self, table: &Table) -> impl Iterator<Item = Cell> + use<> {
        let groups = self.tables.iter_mut().find(|(it, _)| it.name == table.name);
        let groups = groups.map(|(_, groups)| mem::take(groups)).unwrap_or_default();
        groups.into_values().flatten()
    }

    fn group(&mut self, table: &Table, first: &str) -> Option<&mut Vec<Cell>> {
        let (_, groups) = self.tables.iter_mut().find(|(it, _)| it.name == table.name)?;
        groups.get_mut(first)
    }

    fn find(&mut self, table: &Table, first: &str, rest: &[Value]) -> Option<&mut Cell> {
        let group = self.group(table, first)?;
        group.iter_mut().find(|cell| split(table, &cell.row).1 == rest)
    }

    fn insert(&mut self, table: &'static Table, cell: Cell) {
        let index = self.tables.iter().position(|(it, _)| it.name == table.name).unwrap_or_else(|| {
            self.tables.push((table, Groups::new()));
            self.tables.len() - 1
        });
        let first = split(table, &cell.row).0.into();
        self.tables[index].1.entry(first).or_default().push(cell);
    }
}

impl Cell {
    fn change<R: Row>(&mut self, change: impl FnOnce(&mut R)) {
        let mut row = R::from_values(mem::take(&mut self.row));
        change(&mut row);
        self.row = row.into_values();
        self.dirty = true;
    }
}

/// The first column of a row's key, and the rest of it.
fn split<'r>(table: &Table, row: &'r [Value]) -> (&'r str, &'r [Value]) {
    match row.get(..table.key_len) {
        Some([Value::Text(first), rest @ ..]) => (first, rest),
        _ => ("", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::rows! {
        /// A row to try things on.
        #[allow(unreachable_pub, reason = "rows are public where they are not tests")]
        struct Leaf in "leaves", key 2 {
            /// The first key column.
            tree: String,
            /// The second.
            number: i64,
            /// What is not key.
            colour: String,
        }
    }

    fn leaf(tree: &str, number: i64, colour: &str) -> Leaf {
        Leaf { tree: tree.into(), number, colour: colour.into() }
    }

    #[test]
    fn changes_tell_new_rows_from_changed_and_removed_ones() {
        let mut rows = Rows::default();
        for number in 1..=3 {
            rows.load(Leaf::TABLE, leaf("oak", number, "green").into_values());
        }
        assert!(rows.change("oak", &[Value::Int(1)], |it: &mut Leaf| it.colour = "red".into()));
        assert_eq!(rows.remove::<Leaf>("oak", &[Value::Int(2)]), Some(leaf("oak", 2, "green")));
        rows.put(leaf("elm", 1, "green"));
        rows.put(leaf("elm", 2, "green"));
        assert!(rows.remove::<Leaf>("elm", &[Value::Int(2)]).is_some());
        assert!(!rows.change("elm", &[Value::Int(2)], |_: &mut Leaf| ()), "removed rows are not there");

        let changes = rows.into_changes(&[Leaf::TABLE]);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].inserts, [leaf("elm", 1, "green").into_values()]);
        assert_eq!(changes[0].updates, [leaf("oak", 1, "red").into_values()]);
        assert_eq!(changes[0].deletes, [vec![Value::text("oak"), Value::Int(2)]]);
    }

    #[test]
    fn a_removed_row_that_comes_back_is_an_update() {
        let mut rows = Rows::default();
        rows.load(Leaf::TABLE, leaf("oak", 1, "green").into_values());
        rows.remove::<Leaf>("oak", &[Value::Int(1)]);
        rows.put(leaf("oak", 1, "red"));
        let changes = rows.into_changes(&[Leaf::TABLE]);
        assert_eq!(changes[0].updates, [leaf("oak", 1, "red").into_values()]);
        assert_eq!((changes[0].inserts.len(), changes[0].deletes.len()), (0, 0));
    }

    #[test]
    fn what_is_fresh_is_not_loaded() {
        let mut keys = Keys::default();
        keys.fresh::<Leaf>("elm");
        keys.want::<Leaf>("oak");
        keys.want::<Leaf>("elm");
        keys.want::<Leaf>("ash");
        assert_eq!(keys.of(Leaf::TABLE), ["ash", "oak"]);
    }
}
