//! How the projections are: what is live, what is being rebuilt, and how far each is behind the log.

use std::time::Duration;

use super::{Checkpoint, ProjectionState, RebuildState, Slot, Store, StoreError};
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
    /// Who rebuilds it, and how that ended last.
    pub rebuild: RebuildState,
}

/// How far a rebuild is, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Events folded.
    pub done_events: i64,
    /// Events in the log.
    pub all_events: i64,
    /// How much of them that is.
    pub percent: f64,
    /// Events a second since it was begun or gone on with; 0 where nobody is at it.
    pub events_per_s: f64,
    /// How long it takes at that pace, where there is one.
    pub left_s: Option<f64>,
}

impl ProjectionStatus {
    /// How far the rebuild is, if there is one.
    #[must_use]
    pub fn pace(&self, now: Timestamp) -> Option<Pace> {
        self.building?;
        let done = self.building_shards.iter().map(|it| it.position.0).sum();
        let all = self.building_shards.iter().map(|it| it.head.0).sum();
        let builder = self.rebuild.at_it(now);
        Some(Pace::of(done, all, builder.map(|it| (it.from_events, now.since(it.since)))))
    }
}

impl Pace {
    /// From what is done of all, and from how many events on it was begun how long ago.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn of(done: i64, all: i64, begun: Option<(i64, Duration)>) -> Self {
        let events_per_s = begun.map_or(0.0, |(from, took)| {
            let took_s = took.as_secs_f64();
            if took_s > 0.0 { done.saturating_sub(from).max(0) as f64 / took_s } else { 0.0 }
        });
        let left_s = (events_per_s > 0.0).then(|| (all - done).max(0) as f64 / events_per_s);
        let percent = if all > 0 { 100.0 * done as f64 / all as f64 } else { 100.0 };
        Self { done_events: done, all_events: all, percent, events_per_s, left_s }
    }
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
        let mut rebuilds = self.rebuild_states().await?;
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
            let rebuild = rebuilds.iter_mut().find(|it| it.0 == name).map(|it| std::mem::take(&mut it.1));
            projections.push(ProjectionStatus {
                rebuild: rebuild.unwrap_or_default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_counts_what_was_done_since_it_was_begun() {
        let begun = Some((1_000, Duration::from_secs(10)));
        let pace = Pace::of(3_000, 10_000, begun);
        let expected = Pace {
            done_events: 3_000,
            all_events: 10_000,
            percent: 30.0,
            events_per_s: 200.0,
            left_s: Some(35.0),
        };
        assert_eq!(pace, expected);
        let idle = Pace::of(3_000, 10_000, None);
        assert_eq!((idle.events_per_s, idle.left_s), (0.0, None));
        let at_once = Pace::of(0, 0, Some((0, Duration::ZERO)));
        assert_eq!((at_once.percent, at_once.left_s), (100.0, None));
    }
}
