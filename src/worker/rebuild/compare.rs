//! The comparison before a flip, table by table in the order of the keys.
//!
//! Both sides say at the same time what a range of rows comes to. Only rows of ranges that come to different
//! things are read and compared one by one.

use futures_util::future::try_join;

use super::{Comparison, What};
use crate::{
    projection::{Key, Table, Value},
    store::{Slot, Snapshot, StoreError},
};

/// Rows read at a time.
const PAGE: usize = 2_000;

/// One side: a table of a slot as it stood at one moment.
pub(super) struct Side<'s> {
    snapshot: &'s mut Snapshot,
    slot: Slot,
    table: &'static Table,
}

/// The rows of one side between two keys, read page by page.
struct Rows<'r, 's> {
    side: &'r mut Side<'s>,
    page: std::vec::IntoIter<Vec<Value>>,
    last: Option<Key>,
    upto: Option<Key>,
    ended: bool,
}

/// Compares a table of the live slot with the same of a fresh one.
pub(super) async fn compare_table(
    table: &'static Table,
    (live, left): (Slot, &mut Snapshot),
    (fresh, right): (Slot, &mut Snapshot),
    comparison: &mut Comparison,
) -> Result<(), StoreError> {
    let mut live = Side { snapshot: left, slot: live, table };
    let mut fresh = Side { snapshot: right, slot: fresh, table };
    let mut after: Option<Key> = None;
    loop {
        let ends = try_join(live.range_end(after.as_ref()), fresh.range_end(after.as_ref())).await?;
        let upto = match ends {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let within = (after.as_ref(), upto.as_ref());
        let (one, other) = try_join(
            live.snapshot.digest(table, live.slot, within),
            fresh.snapshot.digest(table, fresh.slot, within),
        )
        .await?;
        if one == other {
            comparison.rows += one.rows;
        } else {
            compare_rows(live.rows(within), fresh.rows(within), comparison).await?;
        }
        if upto.is_none() {
            return Ok(());
        }
        after = upto;
    }
}

impl<'s> Side<'s> {
    async fn range_end(&mut self, after: Option<&Key>) -> Result<Option<Key>, StoreError> {
        let rows = self.snapshot.digest_rows();
        self.snapshot.key_after(self.table, self.slot, after, rows).await
    }

    fn rows<'r>(&'r mut self, (after, upto): (Option<&Key>, Option<&Key>)) -> Rows<'r, 's> {
        let page = Vec::new().into_iter();
        Rows { side: self, page, last: after.cloned(), upto: upto.cloned(), ended: false }
    }
}

impl Rows<'_, '_> {
    async fn next(&mut self) -> Result<Option<Vec<Value>>, StoreError> {
        if self.page.len() == 0 && !self.ended {
            let Side { snapshot, slot, table } = &mut *self.side;
            let mut rows = snapshot.rows(table, *slot, self.last.as_ref(), PAGE).await?;
            self.ended = rows.len() < PAGE;
            let key = |row: &Vec<Value>| table.key_of(row);
            self.last = rows.last().map(key);
            if let (Some(upto), Some(last)) = (&self.upto, &self.last)
                && last > upto
            {
                rows.truncate(rows.partition_point(|row| key(row) <= *upto));
                self.ended = true;
            }
            self.page = rows.into_iter();
        }
        Ok(self.page.next())
    }
}

async fn compare_rows(
    mut live: Rows<'_, '_>,
    mut fresh: Rows<'_, '_>,
    comparison: &mut Comparison,
) -> Result<(), StoreError> {
    let table = live.side.table;
    let (mut one, mut other) = (live.next().await?, fresh.next().await?);
    while one.is_some() || other.is_some() {
        comparison.rows += 1;
        let keys =
            (one.as_deref().map(|row| table.key_of(row)), other.as_deref().map(|row| table.key_of(row)));
        match keys {
            (Some(key), Some(fresh_key)) if key == fresh_key => {
                let (a, b) = (one.take().unwrap_or_default(), other.take().unwrap_or_default());
                comparison.note_columns(table, &key, a, b);
            }
            (Some(key), fresh_key) if fresh_key.as_ref().is_none_or(|it| key < *it) => {
                comparison.note(table, key, What::Extra);
                one = None;
            }
            (_, Some(key)) => {
                comparison.note(table, key, What::Missing);
                other = None;
            }
            (_, None) => break,
        }
        if one.is_none() {
            one = live.next().await?;
        }
        if other.is_none() {
            other = fresh.next().await?;
        }
    }
    Ok(())
}
