//! What a rebuild does with many events at a time: reads them ahead, and loads what they came to in bulk.
//!
//! Nothing is locked while events are read and folded. The write is one short transaction that takes the
//! checkpoint, finds it where the fold began, writes the rows and moves it (ROWS-WITH-CHECKPOINT). The rows of
//! a slot change together with the checkpoint of their shard and not otherwise, so a fold over rows that were
//! read before is right if the checkpoint has not moved, and is thrown away if it has.

use std::io::Write as _;

use super::{
    Db, Mode, ProjectError, Slot, Store, StoreError, Tx, bulk,
    db::Busy,
    event_row::EventRow,
    log::{decode_range, range},
    projections::{PositionRow, explain, move_checkpoint, slot_place, write},
    slots::physical,
};
use crate::{
    event::Recorded,
    id::{Position, Shard},
    projection::{Changes, Keys, Projection, Rows, Table, Value},
};

/// Bytes that are handed to a `copy` at a time.
const COPY_BYTES: usize = 256 << 10;

/// Events of a shard, read ahead of those who fold them.
#[derive(Debug)]
pub struct Ahead {
    /// In order, without a gap.
    pub events: Vec<Recorded>,
    /// About how many bytes they take in the log.
    pub bytes: usize,
    /// Why the event after the last of these cannot be read, where it cannot.
    pub stopped: Option<StoreError>,
}

/// What became of rows that were to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// They are there, and the checkpoint says so.
    Done,
    /// Another process holds the checkpoint, or has moved it: what was folded is of no use any more.
    Overtaken,
}

impl Store {
    /// Reads up to `limit` events of a shard after one position and up to another.
    pub async fn read_ahead(
        &self,
        shard: Shard,
        after: Position,
        upto: Position,
        limit: u64,
    ) -> Result<Ahead, StoreError> {
        let rows: Vec<EventRow> = self.db.all(&range(shard, after, Some(upto), limit)).await?;
        let bytes = rows.iter().map(|row| row.payload.len() + row.metadata.len()).sum();
        let (events, stopped) = decode_range(rows)?;
        Ok(Ahead { events, bytes, stopped })
    }

    /// Brings the rows of a slot that `keys` wants into `rows`, as far as they are not there yet.
    pub async fn read_slot(
        &self,
        projection: &dyn Projection,
        slot: Slot,
        keys: &Keys<'_>,
        rows: &mut Rows,
    ) -> Result<(), StoreError> {
        for &table in projection.tables() {
            let firsts = rows.missing(keys, table);
            if !firsts.is_empty() {
                let mut tx = self.db.begin(Mode::Read).await?;
                for row in bulk::fetch(&mut tx, &physical(table, slot), table, &firsts).await? {
                    rows.load(table, row);
                }
                tx.rollback().await?;
            }
            rows.complete(keys, table);
        }
        Ok(())
    }

    /// Writes what the events of a shard from one position to another came to, and moves the checkpoint.
    pub async fn load_slot(
        &self,
        projection: &dyn Projection,
        slot: Slot,
        (shard, from, to): (Shard, Position, Position),
        changes: Vec<Changes>,
    ) -> Result<Loaded, StoreError> {
        let place = slot_place(projection.name(), slot, shard);
        let (mut tx, rows) = self.db.begin_locking::<PositionRow>(&place, Busy::Skip).await?;
        if rows.first().is_none_or(|row| row.position != from.0) {
            tx.rollback().await?;
            return Ok(Loaded::Overtaken);
        }
        for mut changes in changes {
            if let Tx::Postgres { .. } = tx {
                // Before anything is inserted, so that a key that goes and comes back is free.
                let deletes = std::mem::take(&mut changes.deletes);
                bulk::delete(&mut tx, &physical(changes.table, slot), changes.table, &deletes).await?;
                let inserts = std::mem::take(&mut changes.inserts);
                copy_in(&mut tx, &physical(changes.table, slot), changes.table, inserts).await?;
            }
            write(&mut tx, slot, changes).await?;
        }
        move_checkpoint(&mut tx, projection.name(), slot, shard, from, to).await?;
        tx.commit().await?;
        Ok(Loaded::Done)
    }

    /// Notes that a shard of a slot waits before an event that cannot be read, and answers with the error to
    /// tell.
    pub async fn park_slot(
        &self,
        projection: &dyn Projection,
        slot: Slot,
        (shard, after): (Shard, Position),
        source: StoreError,
    ) -> ProjectError {
        let parked = ProjectError::Parked { projection: projection.name(), shard, after, source };
        match self.park(projection.name(), slot, shard, Some(&explain(&parked))).await {
            Ok(()) => parked,
            Err(error) => error.into(),
        }
    }

    /// How many shards may be loaded at the same time without taking the connections from everybody else:
    /// each takes up to three, one to read ahead, one to look rows up and one to write.
    #[must_use]
    pub fn load_width(&self) -> usize {
        match &self.db {
            // One writes at a time.
            Db::Sqlite { .. } => 2,
            Db::Postgres { pool, .. } => width(pool.options().get_max_connections()),
            Db::MySql(pool) => width(pool.options().get_max_connections()),
        }
    }
}

fn width(connections: u32) -> usize {
    (connections as usize / 4).max(1)
}

/// Inserts rows the way that costs PostgreSQL least. A row whose key is taken undoes the transaction.
async fn copy_in(tx: &mut Tx, name: &str, table: &Table, rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
    let Tx::Postgres { tx, .. } = tx else {
        return Err(StoreError::Corrupt("copied into a database that cannot copy".to_owned()));
    };
    if rows.is_empty() {
        return Ok(());
    }
    let columns = bulk::column_names(table);
    let mut copy = tx.copy_in_raw(&format!("copy {name} ({columns}) from stdin")).await?;
    let mut text = Vec::with_capacity(COPY_BYTES + COPY_BYTES / 4);
    for row in rows {
        copy_row(&row, &mut text);
        if text.len() >= COPY_BYTES {
            copy.send(text.as_slice()).await?;
            text.clear();
        }
    }
    copy.send(text.as_slice()).await?;
    copy.finish().await?;
    Ok(())
}

/// A row in the text format of `copy`.
fn copy_row(row: &[Value], text: &mut Vec<u8>) {
    for (at, value) in row.iter().enumerate() {
        if at > 0 {
            text.push(b'\t');
        }
        match value {
            Value::Null => text.extend_from_slice(b"\\N"),
            // A vector takes all that it is given.
            Value::Int(number) => _ = write!(text, "{number}"),
            Value::Text(value) => copy_text(value.as_bytes(), text),
        }
    }
    text.push(b'\n');
}

fn copy_text(value: &[u8], text: &mut Vec<u8>) {
    let is_special = |it: &u8| matches!(it, b'\\' | b'\n' | b'\r' | b'\t');
    let mut rest = value;
    while let Some(at) = rest.iter().position(is_special) {
        text.extend_from_slice(&rest[..at]);
        let escaped = match rest[at] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        };
        text.extend_from_slice(&[b'\\', escaped]);
        rest = &rest[at + 1..];
    }
    text.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_row_keeps_what_the_format_needs_for_itself() {
        let row =
            [Value::text("a\tb\\N\r\n"), Value::Null, Value::Int(-7), Value::text(""), Value::text("\\.")];
        let mut text = Vec::new();
        copy_row(&row, &mut text);
        assert_eq!(String::from_utf8(text).unwrap(), "a\\tb\\\\N\\r\\n\t\\N\t-7\t\t\\\\.\n");
    }
}
