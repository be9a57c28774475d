//! The rows of one batch of events: which to load, and what became of them.
//!
//! A projector asks every event of the batch which rows it may change ([`Keys`]), loads those in one
//! query a table, folds all events over them in memory ([`Rows`]) and writes the difference
//! ([`Changes`]). Rows are always loaded by the first column of their key (a message id or a
//! recipient id): one list of texts is a query that every database answers with one index range
//! each, and it brings along the rows whose whole key the event cannot name.
//!
//! Who folds many batches in a row keeps the rows between them: they are written time and again
//! ([`Rows::changes`]), and those that were not used for longest are forgotten ([`Rows::forget`]).

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    mem,
};

use super::row::{Key, Row, Table, Value};

/// About how many bytes a key takes among the rows, beside the rows.
const ENTRY_BYTES: usize = 128;

/// First key columns of rows to load, by table, each once.
#[derive(Debug, Default)]
pub struct Keys<'e> {
    tables: Vec<(&'static str, HashMap<Cow<'e, str>, Want>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Load,
    Fresh,
}

impl<'e> Keys<'e> {
    /// Asks for every row of `R`'s table whose key begins with `first`.
    pub fn want<R: Row>(&mut self, first: impl Into<Cow<'e, str>>) {
        self.table(R::TABLE).entry(first.into()).or_insert(Want::Load);
    }

    /// States that before this event no row of `R`'s table has a key that begins with `first`, so
    /// that later events of the batch need not load it either.
    pub fn fresh<R: Row>(&mut self, first: impl Into<Cow<'e, str>>) {
        self.table(R::TABLE).entry(first.into()).or_insert(Want::Fresh);
    }

    /// The first key columns whose rows are to be loaded from `table`, in byte order.
    #[must_use]
    pub fn of(&self, table: &Table) -> Vec<&str> {
        let mut firsts: Vec<_> = self.that(table, Want::Load).collect();
        firsts.sort_unstable();
        firsts
    }

    fn that(&self, table: &Table, want: Want) -> impl Iterator<Item = &str> {
        let wants = self.tables.iter().filter(|(name, _)| *name == table.name).flat_map(|(_, it)| it);
        wants.filter(move |(_, it)| **it == want).map(|(first, _)| &**first)
    }

    fn table(&mut self, table: &'static Table) -> &mut HashMap<Cow<'e, str>, Want> {
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
    /// How often [`Rows::changes`] was asked.
    step: u64,
}

/// The rows of one table by the first column of their key.
type Groups = HashMap<Box<str>, Group>;

/// The rows whose key begins alike.
#[derive(Debug, Default)]
struct Group {
    cells: Vec<Cell>,
    /// Whether all that the database has of them is here.
    whole: bool,
    /// Whether they were asked for, and did not just begin to be.
    wanted: bool,
    /// The step that used it last.
    used: u64,
}

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

impl Changes {
    /// What makes rows that are there into those that ought to be; neither need be sorted.
    #[must_use]
    pub fn between(table: &'static Table, there: &[Vec<Value>], wanted: &[Vec<Value>]) -> Self {
        let by_key = |rows: &[Vec<Value>]| -> BTreeMap<Key, Vec<Value>> {
            rows.iter().map(|row| (table.key_of(row), row.clone())).collect()
        };
        let (mut there, wanted) = (by_key(there), by_key(wanted));
        let mut changes = Self { table, inserts: Vec::new(), updates: Vec::new(), deletes: Vec::new() };
        for (key, row) in wanted {
            match there.remove(&key) {
                None => changes.inserts.push(row),
                Some(old) if old != row => changes.updates.push(row),
                Some(_) => {}
            }
        }
        changes.deletes = there.into_keys().collect();
        changes
    }
}

impl Rows {
    /// Puts a row loaded from the database, unless it is known already: what is known is newer.
    pub fn load(&mut self, table: &'static Table, row: Vec<Value>) {
        let (first, rest) = split(table, &row);
        let step = self.step;
        let group = self.groups(table).entry(first.into()).or_default();
        group.used = step;
        if !group.cells.iter().any(|cell| split(table, &cell.row).1 == rest) {
            group.cells.push(Cell { row, stored: true, dirty: false, gone: false });
        }
    }

    /// The first key columns of rows of `table` that `keys` wants and that have yet to be loaded.
    #[must_use]
    pub fn missing<'k>(&self, keys: &'k Keys<'_>, table: &'static Table) -> Vec<&'k str> {
        let groups = self.tables.iter().find(|(it, _)| it.name == table.name).map(|(_, groups)| groups);
        let is_missing = |first: &&str| groups.and_then(|it| it.get(*first)).is_none_or(|it| !it.whole);
        keys.of(table).into_iter().filter(is_missing).collect()
    }

    /// States that all rows of `table` that `keys` speaks of are here, as far as there are any: loaded by
    /// now, or not there before.
    pub fn complete(&mut self, keys: &Keys<'_>, table: &'static Table) {
        let step = self.step;
        let groups = self.groups(table);
        for want in [Want::Load, Want::Fresh] {
            for first in keys.that(table, want) {
                let group = match groups.get_mut(first) {
                    Some(group) => group,
                    None => groups.entry(first.into()).or_default(),
                };
                (group.whole, group.used) = (true, step);
                group.wanted |= want == Want::Load;
            }
        }
    }

    /// The row with this key, if there is one.
    pub fn get<R: Row>(&mut self, first: &str, rest: &[Value]) -> Option<R> {
        let cell = self.find(R::TABLE, first, rest).filter(|cell| !cell.gone)?;
        Some(R::from_values(cell.row.clone()))
    }

    /// Whether there is a row with this key.
    pub fn has<R: Row>(&mut self, first: &str, rest: &[Value]) -> bool {
        self.find(R::TABLE, first, rest).is_some_and(|cell| !cell.gone)
    }

    /// How many rows have a key that begins with `first`.
    pub fn count<R: Row>(&mut self, first: &str) -> usize {
        let group = self.group(R::TABLE, first);
        group.map_or(0, |it| it.cells.iter().filter(|cell| !cell.gone).count())
    }

    /// Changes the row with this key, and says whether there was one.
    pub fn change<R: Row>(&mut self, first: &str, rest: &[Value], change: impl FnOnce(&mut R)) -> bool {
        let cell = self.find(R::TABLE, first, rest).filter(|cell| !cell.gone);
        cell.map(|cell| cell.change(change)).is_some()
    }

    /// Changes every row whose key begins with `first`.
    pub fn change_all<R: Row>(&mut self, first: &str, mut change: impl FnMut(&mut R)) {
        let cells = self.group(R::TABLE, first).into_iter().flat_map(|it| &mut it.cells);
        for cell in cells.filter(|cell| !cell.gone) {
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

    /// What the fold changed in each of `tables` since this was last asked. The rows stay, and count as
    /// stored from now on: who asks has to write.
    #[must_use]
    pub fn changes(&mut self, tables: &'static [&'static Table]) -> Vec<Changes> {
        let step = self.step;
        self.step += 1;
        let of_table = |table: &&'static Table| {
            let mut changes = Changes::none(table);
            let groups = self.groups(table).values_mut().filter(|group| group.used == step);
            for cell in groups.flat_map(|group| &mut group.cells).filter(|cell| cell.dirty) {
                changes.note(cell.gone, cell.stored, cell.row.clone());
                (cell.dirty, cell.stored) = (false, !cell.gone);
            }
            changes.sorted()
        };
        tables.iter().map(of_table).collect()
    }

    /// Forgets new rows that nobody asked for again, and the rows that were not used for longest, so that at
    /// most about `bytes` are left. What was used for the last [`Rows::changes`] or since stays whatever it
    /// takes: it may not be written yet.
    pub fn forget(&mut self, bytes: usize) {
        let unwritten = self.step.saturating_sub(1);
        for (_, groups) in &mut self.tables {
            groups.retain(|_, group| group.wanted || group.used >= unwritten);
        }
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        for group in self.tables.iter().flat_map(|(_, groups)| groups.values()) {
            *sizes.entry(group.used).or_default() += group.size();
        }
        let mut kept = 0;
        let is_fitting = |(_, size): &(u64, usize)| {
            kept += size;
            kept <= bytes
        };
        let oldest = sizes.into_iter().rev().take_while(is_fitting).last().map_or(self.step, |it| it.0);
        let oldest = oldest.min(unwritten);
        for (_, groups) in &mut self.tables {
            groups.retain(|_, group| group.used >= oldest);
        }
    }

    /// About how many bytes the rows take that were used since [`Rows::changes`] was last asked.
    #[must_use]
    pub fn fresh_bytes(&self) -> usize {
        let groups = self.tables.iter().flat_map(|(_, groups)| groups.values());
        groups.filter(|group| group.used == self.step).map(Group::size).sum()
    }

    fn take_changes(&mut self, table: &'static Table) -> Changes {
        let mut changes = Changes::none(table);
        for cell in self.take(table).filter(|cell| cell.dirty) {
            changes.note(cell.gone, cell.stored, cell.row);
        }
        changes.sorted()
    }

    fn take(&mut self, table: &Table) -> impl Iterator<Item = Cell> + use<> {
        let groups = self.tables.iter_mut().find(|(it, _)| it.name == table.name);
        let groups = groups.map(|(_, groups)| mem::take(groups)).unwrap_or_default();
        groups.into_values().flat_map(|group| group.cells)
    }

    fn group(&mut self, table: &Table, first: &str) -> Option<&mut Group> {
        let step = self.step;
        let (_, groups) = self.tables.iter_mut().find(|(it, _)| it.name == table.name)?;
        let group = groups.get_mut(first)?;
        group.used = step;
        Some(group)
    }

    fn find(&mut self, table: &Table, first: &str, rest: &[Value]) -> Option<&mut Cell> {
        let group = self.group(table, first)?;
        group.cells.iter_mut().find(|cell| split(table, &cell.row).1 == rest)
    }

    fn insert(&mut self, table: &'static Table, cell: Cell) {
        let step = self.step;
        let first = split(table, &cell.row).0.into();
        let group = self.groups(table).entry(first).or_default();
        group.cells.push(cell);
        group.used = step;
    }

    fn groups(&mut self, table: &'static Table) -> &mut Groups {
        let index = self.tables.iter().position(|(it, _)| it.name == table.name).unwrap_or_else(|| {
            self.tables.push((table, Groups::new()));
            self.tables.len() - 1
        });
        &mut self.tables[index].1
    }
}

impl Changes {
    const fn none(table: &'static Table) -> Self {
        Self { table, inserts: Vec::new(), updates: Vec::new(), deletes: Vec::new() }
    }

    fn note(&mut self, gone: bool, stored: bool, row: Vec<Value>) {
        match (gone, stored) {
            (false, false) => self.inserts.push(row),
            (false, true) => self.updates.push(row),
            (true, true) => self.deletes.push(self.table.key_of(&row)),
            (true, false) => {}
        }
    }

    fn sorted(mut self) -> Self {
        self.inserts.sort_unstable();
        self.updates.sort_unstable();
        self.deletes.sort_unstable();
        self
    }
}

impl Group {
    /// About how many bytes it takes, key and all.
    fn size(&self) -> usize {
        let text = |value: &Value| if let Value::Text(text) = value { text.capacity() } else { 0 };
        let cell = |cell: &Cell| {
            size_of::<Cell>()
                + cell.row.capacity() * size_of::<Value>()
                + cell.row.iter().map(text).sum::<usize>()
        };
        ENTRY_BYTES + self.cells.iter().map(cell).sum::<usize>()
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

    #[test]
    fn what_lies_between_two_sets_of_rows_makes_one_of_the_other() {
        use crate::projection::{Row as _, inbox::InboxCounter};
        let table = InboxCounter::TABLE;
        let row = |key: &str, cell: i64| -> Vec<Value> {
            let cells = table.columns.iter().map(|_| Value::Int(cell));
            let keys = (0..table.key_len).map(|at| Value::text(format!("{key}{at}")));
            keys.chain(cells.skip(table.key_len)).collect()
        };
        let key = |it: &str| table.key_of(&row(it, 0));
        let (a, b, c) = (row("a", 1), row("b", 1), row("c", 1));
        for (there, wanted, (inserts, updates, deletes)) in [
            (vec![], vec![], (vec![], vec![], vec![])),
            (vec![b.clone(), a.clone()], vec![a.clone(), b.clone()], (vec![], vec![], vec![])),
            (vec![], vec![b.clone(), a.clone()], (vec![a.clone(), b.clone()], vec![], vec![])),
            (vec![c.clone(), a.clone()], vec![], (vec![], vec![], vec![key("a"), key("c")])),
            (
                vec![a.clone(), row("b", 2)],
                vec![b.clone(), c.clone()],
                (vec![c.clone()], vec![b.clone()], vec![key("a")]),
            ),
        ] {
            let changes = Changes::between(table, &there, &wanted);
            assert_eq!((changes.inserts, changes.updates, changes.deletes), (inserts, updates, deletes));
        }
    }

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
    fn rows_that_are_kept_are_written_once_for_each_change() {
        let tables = &[Leaf::TABLE];
        let mut rows = Rows::default();
        let mut keys = Keys::default();
        keys.fresh::<Leaf>("oak");
        keys.want::<Leaf>("elm");
        assert_eq!(rows.missing(&keys, Leaf::TABLE), ["elm"]);
        rows.load(Leaf::TABLE, leaf("elm", 1, "green").into_values());
        rows.complete(&keys, Leaf::TABLE);
        assert!(rows.missing(&keys, Leaf::TABLE).is_empty());

        rows.put(leaf("oak", 1, "green"));
        rows.remove::<Leaf>("elm", &[Value::Int(1)]);
        let first = rows.changes(tables).remove(0);
        assert_eq!(first.inserts, [leaf("oak", 1, "green").into_values()]);
        assert_eq!(first.deletes, [vec![Value::text("elm"), Value::Int(1)]]);
        // What the database shows until that is written is older than what is known.
        rows.load(Leaf::TABLE, leaf("elm", 1, "green").into_values());
        assert!(!rows.change("elm", &[Value::Int(1)], |_: &mut Leaf| ()));

        rows.change("oak", &[Value::Int(1)], |it: &mut Leaf| it.colour = "red".into());
        rows.put(leaf("elm", 1, "red"));
        let second = rows.changes(tables).remove(0);
        assert_eq!(second.updates, [leaf("oak", 1, "red").into_values()]);
        assert_eq!(second.inserts, [leaf("elm", 1, "red").into_values()]);
        let third = rows.changes(tables).remove(0);
        assert_eq!((third.inserts.len(), third.updates.len(), third.deletes.len()), (0, 0, 0));
    }

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let mut rows = Rows::default();
        let key = |first| {
            let mut keys = Keys::default();
            keys.want::<Leaf>(first);
            keys
        };
        for tree in ["ash", "elm", "oak"] {
            rows.put(leaf(tree, 1, "green"));
            rows.complete(&key(tree), Leaf::TABLE);
            let _ = rows.changes(&[Leaf::TABLE]);
        }
        let known =
            |rows: &Rows| ["ash", "elm", "oak"].map(|tree| rows.missing(&key(tree), Leaf::TABLE).is_empty());
        rows.forget(usize::MAX);
        assert_eq!(known(&rows), [true, true, true]);
        let one = rows.tables[0].1["oak"].size();
        rows.forget(one * 2);
        assert_eq!(known(&rows), [false, true, true]);
        rows.forget(0);
        assert_eq!(known(&rows), [false, false, true], "the last may not be written yet");
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
