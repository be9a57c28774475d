//! How far the projections are: what read-your-own-write waits for.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{Ledger, LedgerError};
use crate::id::{Cursor, Position, Shard};

/// How long to wait before asking the database again when another process projects.
const POLL: Duration = Duration::from_millis(20);

/// Places of the live slots as last seen by this process.
#[derive(Debug, Default)]
pub struct Progress {
    places: Mutex<HashMap<(String, Shard), Position>>,
    moved: Notify,
}

impl Progress {
    /// Notes that a projection's live slot has folded a shard up to `position`.
    pub fn reached(&self, projection: &str, shard: Shard, position: Position) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry((projection.to_owned(), shard)).or_default();
        if *place < position {
            *place = position;
            drop(places);
            self.moved.notify_waiters();
        }
    }

    fn has_passed(&self, projection: &str, cursor: Cursor) -> bool {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&(projection.to_owned(), cursor.shard)).is_some_and(|&place| place >= cursor.position)
    }
}

impl Ledger {
    /// Waits until a projection shows everything up to `cursor`; false when that took too long.
    pub async fn wait_for(
        &self,
        projection: &str,
        cursor: Cursor,
        timeout: Duration,
    ) -> Result<bool, LedgerError> {
        let deadline = Instant::now() + timeout;
        loop {
            let moved = self.progress().moved.notified();
            if self.progress().has_passed(projection, cursor) {
                return Ok(true);
            }
            self.refresh(projection).await?;
            if self.progress().has_passed(projection, cursor) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let _ = tokio::time::timeout(POLL, moved).await;
        }
    }

    async fn refresh(&self, projection: &str) -> Result<(), LedgerError> {
        // The places first: what is live after that was live when it stood there, and whatever a flip makes
        // live later is no less far.
        let places = self.store().checkpoints().await?;
        let live = self.store().projection_state(projection).await?.map(|it| it.live);
        for place in places {
            if place.projection == projection && Some(place.slot) == live {
                self.progress().reached(projection, place.shard, place.position);
            }
        }
        Ok(())
    }
}
