//! A ledger made large in little time, to measure at that size: what is there, copied to other recipients
//! within the database.
//!
//! Nothing of the service uses this; whoever measures makes a scratch database first.

use super::{Dialect, Mode, StoreError, baseline::Baseline, event_row::COLUMNS};
use crate::{
    id::{Position, Shard},
    projection::{Projection as _, inbox::Inbox},
};

impl Baseline {
    /// Copies events of a shard and what they made of an inbox (slot `a`, which has folded all of them).
    ///
    /// Messages and recipients of the copy have its number behind a dot, `user-7.1`; its events stand behind
    /// all of the earlier copies. `head` is the shard's at first. Only after [`Self::end_copies`] is the
    /// ledger whole again.
    pub async fn copy_events(
        &self,
        copy: u64,
        shard: Shard,
        head: Position,
        (after, upto): (Position, Position),
    ) -> Result<(), StoreError> {
        let (shard, after, upto) = (shard.0, after.0, upto.0);
        let events = COLUMNS.map(|it| it.name);
        let items = Inbox.tables()[0].columns.iter().map(|it| it.name).collect::<Vec<_>>();
        let range = format!("e.shard = {shard} and e.position > {after} and e.position <= {upto}");
        let mut tx = self.db.begin(Mode::Write).await?;
        tx.script(format!(
            "insert into notification_events ({}) select {} from notification_events e where {range}",
            events.join(", "),
            self.copied("e", &events, copy, head),
        ))
        .await?;
        tx.script(format!(
            "insert into inbox_items_a ({}) select {} from notification_events e \
             join inbox_items_a i on i.message_id = e.message_id where {range}",
            items.join(", "),
            self.copied("i", &items, copy, head),
        ))
        .await?;
        tx.commit().await
    }

    /// Copies the counters of a shard, once for each copy.
    pub async fn copy_counters(&self, copy: u64, shard: Shard, head: Position) -> Result<(), StoreError> {
        let columns = Inbox.tables()[1].columns.iter().map(|it| it.name).collect::<Vec<_>>();
        let mut tx = self.db.begin(Mode::Write).await?;
        tx.script(format!(
            "insert into inbox_counters_a ({}) select {} from inbox_counters_a c \
             where c.shard = {} and c.last_position <= {} and c.recipient_id not like '%.%'",
            columns.join(", "),
            self.copied("c", &columns, copy, head),
            shard.0,
            head.0,
        ))
        .await?;
        tx.commit().await
    }

    /// Moves the heads of all shards, and the checkpoints of the inbox, to the end of the last copy.
    pub async fn end_copies(&self, copies: u64) -> Result<(), StoreError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        let times = copies + 1;
        tx.script(format!("update log_shards set head = head * {times}")).await?;
        let checkpoints = "update projection_checkpoints set position = position";
        tx.script(format!("{checkpoints} * {times} where projection = 'inbox'")).await?;
        tx.commit().await
    }

    /// Columns as they stand in a copy.
    fn copied(&self, table: &str, columns: &[&str], copy: u64, head: Position) -> String {
        let value = |column: &&str| {
            let own = format!("{table}.{column}");
            match *column {
                "message_id" | "recipient_id" if self.dialect() == Dialect::MySql => {
                    format!("concat({own}, '.{copy}')")
                }
                "message_id" | "recipient_id" => format!("{own} || '.{copy}'"),
                "position" | "last_position" => format!("{own} + {copy} * {}", head.0),
                _ => own,
            }
        };
        columns.iter().map(value).collect::<Vec<_>>().join(", ")
    }
}
