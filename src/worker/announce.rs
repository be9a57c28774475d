//! Tells those who listen to an inbox that it may have changed.
//!
//! One task a process, whoever projects: it reads how far the inbox is, and from the log for whom there were
//! events since. So the database is asked once for all listeners, and not at all while nobody listens.

use std::{collections::HashMap, sync::Arc};

use super::{Progress, WorkError, Worker};
use crate::{
    id::{Position, Shard},
    ledger::{Ledger, live::Live},
};

/// Events between two looks, from which on everybody of the shard is told rather than those they are about.
const RANGE_MAX: i64 = 5_000;

/// Looks how far the inbox is.
#[derive(Debug)]
pub struct Announce {
    ledger: Ledger,
    live: Arc<Live>,
    /// How far everybody was told.
    told: HashMap<Shard, Position>,
}

impl Announce {
    /// To the listeners of this process.
    #[must_use]
    pub fn new(ledger: Ledger, live: Arc<Live>) -> Self {
        Self { ledger, live, told: HashMap::new() }
    }

    async fn announce(&self, shard: Shard, after: Option<Position>, upto: Position) -> Result<(), WorkError> {
        let store = self.ledger.store();
        match after {
            Some(after) if upto.0 - after.0 <= RANGE_MAX => {
                let recipients = store.recipients_between(shard, after, upto).await;
                let failed = |error| WorkError::retry("reading for whom there is news", error);
                self.live.tell(&recipients.map_err(failed)?);
            }
            _ => self.live.tell_all(|recipient| store.shard_of(recipient) == shard),
        }
        Ok(())
    }
}

impl Worker for Announce {
    fn name(&self) -> &'static str {
        "announce"
    }

    async fn tick(&mut self) -> Result<Progress, WorkError> {
        if !self.live.is_heard() {
            self.told.clear();
            return Ok(Progress::Idle);
        }
        let places = self.ledger.store().projected("inbox").await;
        let places = places.map_err(|error| WorkError::retry("looking how far the inbox is", error))?;
        for (shard, upto) in places {
            let told = self.told.get(&shard).copied();
            if told != Some(upto) {
                self.announce(shard, told, upto).await?;
                self.told.insert(shard, upto);
            }
        }
        Ok(Progress::Idle)
    }
}
