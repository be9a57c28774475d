//! Keeps the live slots of all projections up with the log.
//!
//! Any number of processes may run it: a step holds the checkpoint row for as long as it folds, and
//! whoever finds it held goes on with another shard. Slots that are being rebuilt are left to the
//! rebuild (LIVE-ONLY). A shard of a projection that fails or is parked pauses alone: nothing else waits
//! for it.

mod pauses;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::pauses::Pauses;
use super::{Progress, WorkError, Worker, chain};
use crate::{
    id::{Position, Shard},
    ledger::Ledger,
    metric,
    projection::{self, Projection},
    store::{Checkpoint, ProjectError, ProjectionState, Slot, Step},
    wake::Wake,
};

/// The longest that events gather before the next step.
const GATHER_MAX: Duration = Duration::from_millis(20);

/// The projector.
#[derive(Debug)]
pub struct Project {
    ledger: Ledger,
    batch_max: u64,
    folded: Wake,
    /// How long to let events gather before the next step.
    gather: Duration,
    pauses: Pauses<Place>,
}

/// One shard of one slot of a projection.
type Place = (&'static str, Slot, Shard);

/// One shard of one projection that is behind.
struct Behind {
    projection: &'static dyn Projection,
    slot: Slot,
    shard: Shard,
}

impl Behind {
    fn place(&self) -> Place {
        (self.projection.name(), self.slot, self.shard)
    }
}

impl Project {
    /// Folds up to `batch_max` events of each shard in a step; rings `folded` after each that folded.
    #[must_use]
    pub fn new(ledger: Ledger, batch_max: u64, folded: Wake) -> Self {
        Self { ledger, batch_max, folded, gather: Duration::ZERO, pauses: Pauses::default() }
    }

    /// How many events were folded, and up to where; none at all where there was nothing, or another process
    /// is at it.
    async fn fold(&self, behind: &Behind) -> Result<Option<(usize, Position)>, ProjectError> {
        let Behind { projection, slot, shard } = *behind;
        let store = self.ledger.store();
        let step = store.project(projection, slot, shard, self.batch_max, None).await?;
        let Step::Folded { events, position, .. } = step else { return Ok(None) };
        metric::projected(projection.name(), events);
        Ok(Some((events, position)))
    }

    /// Notes that a place failed, and tells it if it is news.
    fn failed(&mut self, place: Place, error: &ProjectError) {
        let (projection, _, shard) = place;
        let is_parked = matches!(error, ProjectError::Parked { .. });
        let error = chain(error);
        if self.pauses.failed(place, error.clone(), Instant::now()) {
            if is_parked {
                tracing::error!(
                    projection,
                    %shard,
                    error,
                    "this shard waits for a release that can fold the event, or for `projections skip`; all others go on"
                );
            } else {
                tracing::warn!(
                    projection,
                    %shard,
                    error,
                    "projecting failed; trying this shard again with growing pauses up to 30 s"
                );
            }
        } else {
            tracing::debug!(projection, %shard, error, "projecting failed again");
        }
    }

    /// Notes that a place works, and tells it if it had failed.
    fn worked(&mut self, place: Place) {
        let (projection, _, shard) = place;
        if let Some(failures) = self.pauses.worked(place) {
            tracing::info!(projection, %shard, failures, "projecting works again");
        }
    }
}

impl Worker for Project {
    fn name(&self) -> &'static str {
        "project"
    }

    async fn tick(&mut self) -> Result<Progress, WorkError> {
        // A step costs the database more than the few events that came in its time: while there are
        // few, as much time again is left to others. A lone event finds nobody gathering.
        sleep(std::mem::take(&mut self.gather)).await;
        let began = Instant::now();
        let store = self.ledger.store();
        let failed = |error| WorkError::retry("reading the checkpoints", error);
        let states = store.projection_states().await.map_err(failed)?;
        let checkpoints = store.checkpoints().await.map_err(failed)?;
        let mut behind = behind(&states, &checkpoints);
        for place in self.pauses.failing() {
            if !behind.iter().any(|it| it.place() == place) {
                self.worked(place); // In another process, or replaced by a rebuild.
            }
        }
        let now = Instant::now();
        behind.retain(|it| self.pauses.is_over(it.place(), now));
        let (mut events, mut full) = (0, false);
        let folded = join_all(behind.iter().map(|it| self.fold(it))).await;
        // A flip may have come in between: readers see what was folded only where the slot is live still.
        let states = if behind.is_empty() {
            states
        } else {
            self.ledger.store().projection_states().await.map_err(failed)?
        };
        for (place, result) in behind.iter().map(Behind::place).zip(folded) {
            match result {
                Ok(Some((count, position))) => {
                    let (name, slot, shard) = place;
                    if states.iter().any(|it| it.name == name && it.live == slot) {
                        self.ledger.progress().reached(name, shard, position);
                    }
                    self.worked(place);
                    events += count;
                    full |= count as u64 >= self.batch_max;
                }
                Ok(None) => {}
                Err(error) => self.failed(place, &error),
            }
        }
        if events == 0 {
            return Ok(Progress::Idle);
        }
        self.folded.wake();
        if !full {
            self.gather = began.elapsed().min(GATHER_MAX);
        }
        Ok(Progress::Worked)
    }
}

/// What there is to fold: live slots made by this release's version of the fold.
fn behind(states: &[ProjectionState], checkpoints: &[Checkpoint]) -> Vec<Behind> {
    let mut behind = Vec::new();
    for place in checkpoints {
        let Some(state) = states.iter().find(|it| it.name == place.projection) else { continue };
        let Some(projection) = projection::by_name(&place.projection) else { continue };
        if place.slot != state.live || state.version != projection.version() {
            continue;
        }
        let lag = place.head.0 - place.position.0;
        metric::projection_lag(projection.name(), place.shard, lag);
        if lag > 0 {
            behind.push(Behind { projection, slot: place.slot, shard: place.shard });
        }
    }
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_slots_of_this_version_that_lag_are_folded() {
        let state = |name: &str, version| ProjectionState {
            name: name.to_owned(),
            version,
            live: Slot::A,
            building: Some(Slot::B),
            building_version: Some(version),
        };
        let place = |projection: &str, slot, shard, position| Checkpoint {
            projection: projection.to_owned(),
            slot,
            shard: Shard(shard),
            position: Position(position),
            head: Position(10),
            parked: None,
        };
        let version = |name| projection::by_name(name).unwrap().version();
        let states = [state("inbox", version("inbox")), state("messages", version("messages") + 1)];
        let checkpoints = [
            place("inbox", Slot::A, 0, 10),
            place("inbox", Slot::A, 1, 9),
            place("inbox", Slot::B, 0, 3),
            place("messages", Slot::A, 0, 3),
            place("unheard-of", Slot::A, 0, 3),
        ];
        let behind = behind(&states, &checkpoints);
        let found: Vec<_> = behind.iter().map(|it| (it.projection.name(), it.shard.0)).collect();
        assert_eq!(found, [("inbox", 1)]);
    }
}
