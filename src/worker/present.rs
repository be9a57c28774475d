//! Lets inbox items appear at their `deliverAt` and go at their `expiresAt`.
//!
//! The projection says whose time has come, and is a hint; the log decides (DECIDE-UNDER-LOCK). Any number of
//! processes may run it. That an item appears or goes is an event, so lists and counts never ask the time.

use std::{collections::BTreeMap, time::Duration};

use super::{Progress, WorkError, Worker};
use crate::{
    event::Metadata,
    id::{Cursor, Shard},
    ledger::Ledger,
    store::{Applied, Entry},
    stream::Command,
};

/// Items of one step at the most.
const BATCH_MAX: u64 = 500;
/// How long to wait until the projection shows what a step did, so that the next does not find it again.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// Keeps the inbox's time.
#[derive(Debug)]
pub struct Present {
    ledger: Ledger,
}

impl Present {
    /// For the items of this ledger.
    #[must_use]
    pub const fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }
}

impl Worker for Present {
    fn name(&self) -> &'static str {
        "present"
    }

    async fn tick(&mut self) -> Result<Progress, WorkError> {
        let failed = |error| WorkError::retry("looking for inbox items whose time has come", error);
        let now = self.ledger.now();
        let due = self.ledger.store().inbox_due(now, BATCH_MAX).await.map_err(failed)?;
        let mut by_shard: BTreeMap<Shard, Vec<Entry>> = BTreeMap::new();
        for (shard, message_id) in due {
            let metadata = Metadata { ingress: Some("worker".to_owned()), ..Metadata::default() };
            let entry = Entry { message_id, command: Command::Present, occurred_at: now, metadata };
            by_shard.entry(shard).or_default().push(entry);
        }
        let mut progress = Progress::Idle;
        for (shard, entries) in by_shard {
            let mut last: Option<Cursor> = None;
            for applied in self.ledger.apply_in(shard, entries).await {
                let applied = applied.map_err(|error| WorkError::retry("showing inbox items", error))?;
                if matches!(applied, Applied::Appended { .. }) {
                    progress = Progress::Worked;
                }
                // Where nothing was to do any more, the projection is behind the message's last event.
                if let Applied::Appended { cursor, .. } | Applied::Unchanged { cursor } = applied {
                    last = last.filter(|it| it.position > cursor.position).or(Some(cursor));
                }
            }
            if let Some(cursor) = last {
                let shown = self.ledger.wait_for("inbox", cursor, SHOWN_WITHIN).await;
                shown.map_err(|error| WorkError::retry("waiting for the inbox", error))?;
            }
        }
        Ok(progress)
    }
}
