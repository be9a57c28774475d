//! How the projections are: what is live, what is being rebuilt, and how far each is behind the log.

use std::time::Duration;

use super::{Checkpoint, ProjectionState, Slot, Store, StoreError};
use crate::{
    clock::Timestamp,
    id::{Position, Shard},
};

/// How one projection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version of fold and tables that made the live slot.
    pub version: i32,
    /// What is read.
    pub live: Slot,
    /// What is being rebuilt, if anything is.
    pub building: Option<Slot>,
    /// The live slot, shard by shard.
    pub shards: Vec<ShardStatus>,
    /// The slot that is being rebuilt, shard by shard.
    pub building_shards: Vec<ShardStatus>,
    /// The slot that was live before, shard by shard, as long as it is kept.
    pub old_shards: Vec<ShardStatus>,
}

/// How far one slot has folded one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which shard.
    pub shard: Shard,
    /// Everything up to here is folded.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// How many events are waiting.
    pub lag_events: i64,
    /// For how long the oldest of them has been waiting; zero when none is.
    pub lag: Duration,
    /// Why it does not go on, if it does not.
    pub parked: Option<String>,
}

impl Store {
    /// How every projection is. The age of what waits is read by primary key, one look-up for each
    /// place that is behind.
    pub async fn projection_status(&self, now: Timestamp) -> Result<Vec<ProjectionStatus>, StoreError> {
        let states = self.projection_states().await?;
        let checkpoints = self.checkpoints().await?;
        let mut projections = Vec::with_capacity(states.len());
        for ProjectionState { name, version, live, building, .. } in states {
            let of = |slot| {
                let own = |it: &&Checkpoint| it.projection == name && Some(it.slot) == slot;
                checkpoints.iter().filter(own).cloned().collect::<Vec<_>>()
            };
            let shards = self.shard_status(of(Some(live)), now).await?;
            let building_shards = self.shard_status(of(building), now).await?;
            let old = building.is_none().then(|| live.other());
            let old_shards = self.shard_status(of(old), now).await?;
            projections.push(ProjectionStatus {
                name,
                version,
                live,
                building,
                shards,
                building_shards,
                old_shards,
            });
        }
        Ok(projections)
    }

    async fn shard_status(
        &self,
        places: Vec<Checkpoint>,
        now: Timestamp,
    ) -> Result<Vec<ShardStatus>, StoreError> {
        let mut status = Vec::with_capacity(places.len());
        for Checkpoint { shard, position, head, parked, .. } in places {
            let lag_events = head.0 - position.0;
            let waiting = if lag_events > 0 { self.recorded_after(shard, position).await? } else { None };
            let lag = waiting.map(|since| now.since(since)).unwrap_or_default();
            status.push(ShardStatus { shard, position, head, lag_events, lag, parked });
        }
        Ok(status)
    }
}
