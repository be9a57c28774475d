//! What operators do with the slot that is not live: go back to it, drop it, give up building it.

use tokio_util::sync::CancellationToken;

use super::{Behind, OnProgress, Rebuild, RebuildError};
use crate::{
    clock::Timestamp,
    id::{Position, Shard},
    store::{ProjectionState, RebuildState, Slot},
};

/// Why the slot that is not live is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is nothing to go back to.
    #[error("{0} has no old slot: it was not rebuilt yet, or the old slot was dropped or built over")]
    NoOldSlot(&'static str),
    /// It is no old one.
    #[error(
        "slot {slot} of {projection} is being built, or was built and not made live: `projections rebuild {projection}` \
         goes on with it, `projections abort {projection}` drops it"
    )]
    BeingBuilt {
        /// Which projection.
        projection: &'static str,
        /// Which slot.
        slot: Slot,
    },
    /// Its rows cannot be folded on.
    #[error(
        "slot {slot} of {projection} was made by {}, and this release makes version {wanted}: it cannot be folded on \
         and would be shown as of where it stands, {lag_events} events back, until the next start of a service \
         rebuilds it; `--accept` goes back to it all the same",
        .version.map_or_else(|| "an unknown version".to_owned(), |it| format!("version {it}"))
    )]
    OtherVersion {
        /// Which projection.
        projection: &'static str,
        /// Which slot.
        slot: Slot,
        /// What made it, where it is known.
        version: Option<i32>,
        /// What this release makes.
        wanted: i32,
        /// How many events it lacks.
        lag_events: i64,
    },
    /// This release cannot read its tables.
    #[error(
        "the tables of slot {slot} of {projection} are not there, or lack columns that this release reads"
    )]
    Unreadable {
        /// Which projection.
        projection: &'static str,
        /// Which slot.
        slot: Slot,
    },
    /// It cannot be brought up to the live slot.
    #[error("slot {slot} of {projection} cannot be folded up to what is live: shard {shard}: {reason}")]
    NotFolded {
        /// Which projection.
        projection: &'static str,
        /// Which slot.
        slot: Slot,
        /// Which shard.
        shard: Shard,
        /// Why not.
        reason: String,
    },
}

/// What going back came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolledBack {
    /// The old slot is live again.
    Now {
        /// Which it is.
        slot: Slot,
        /// How many events of the log it lacks for good, because this release cannot fold it on.
        stands_behind: Option<i64>,
    },
    /// It was gone back to before, and nothing was rebuilt since.
    Before {
        /// What is live.
        slot: Slot,
        /// Since when.
        at: Timestamp,
    },
}

/// What giving up came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aborted {
    /// The slot that was dropped, if anything was built.
    pub slot: Option<Slot>,
    /// Who was at it.
    pub by: Option<String>,
}

impl Rebuild {
    /// Makes the slot live again that was live before the last rebuild, after folding it up to where the live one
    /// is: no reader sees a step back. Where it was made by another version it cannot be folded; it is then
    /// taken as it stands, if that is accepted. Done twice it is done once.
    pub async fn rollback(&self, accept: bool, progress: OnProgress<'_>) -> Result<RolledBack, RebuildError> {
        let claim = self.claim().await?;
        let never = CancellationToken::new();
        let prepared = self.keep(&claim, &never, self.prepare_back(accept, progress));
        // It is large, and whoever waits for it need not be.
        let done = Box::pin(prepared).await;
        let done = match done {
            Ok(Back::Before(slot, at)) => Ok(RolledBack::Before { slot, at }),
            Ok(Back::To { slot, version, stands_behind }) => {
                let now = self.clock.now();
                let flip = self.store.flip_back(&claim, self.projection, (slot, version), now);
                let flipped = Box::pin(flip).await;
                flipped.map(|()| RolledBack::Now { slot, stands_behind }).map_err(RebuildError::from)
            }
            Err(error) => Err(error),
        };
        self.give_back(&claim, false, None).await;
        done
    }

    async fn prepare_back(&self, accept: bool, progress: OnProgress<'_>) -> Result<Back, RebuildError> {
        let projection = self.projection.name();
        let (state, more) = self.catalogue().await?;
        let slot = state.live.other();
        if let Some(at) = more.rolled_back_at {
            return Ok(Back::Before(state.live, at));
        }
        if state.building == Some(slot) {
            return Err(Refused::BeingBuilt { projection, slot }.into());
        }
        let (done, live) = (self.places(slot).await?, self.places(state.live).await?);
        if done.is_empty() {
            return Err(Refused::NoOldSlot(projection).into());
        }
        if !self.store.is_readable(self.projection, slot).await? {
            return Err(Refused::Unreadable { projection, slot }.into());
        }
        let wanted = self.projection.version();
        if more.old_version == Some(wanted) {
            let behind = self.catch_up(slot, &done, &live, progress).await;
            if let Some(Behind { shard, reason }) = behind.into_iter().next() {
                return Err(Refused::NotFolded { projection, slot, shard, reason }.into());
            }
            return Ok(Back::To { slot, version: wanted, stands_behind: None });
        }
        let heads = self.heads().await?;
        let sum = |places: &[(_, Position)]| places.iter().map(|it| it.1.0).sum::<i64>();
        let lag_events = sum(&heads) - sum(&done);
        if !accept {
            let version = more.old_version;
            return Err(Refused::OtherVersion { projection, slot, version, wanted, lag_events }.into());
        }
        // What made it is not known where an older release flipped; nobody folds it on then.
        let version = more.old_version.unwrap_or(0);
        Ok(Back::To { slot, version, stands_behind: Some(lag_events) })
    }

    /// Drops the slot that was live before; says which, if there was one.
    pub async fn drop_old(&self) -> Result<Option<Slot>, RebuildError> {
        let claim = self.claim().await?;
        let done = self.drop_old_as().await;
        self.give_back(&claim, false, None).await;
        done
    }

    async fn drop_old_as(&self) -> Result<Option<Slot>, RebuildError> {
        let (state, _) = self.catalogue().await?;
        let slot = state.live.other();
        if state.building == Some(slot) {
            return Err(Refused::BeingBuilt { projection: self.projection.name(), slot }.into());
        }
        if self.places(slot).await?.is_empty() {
            return Ok(None);
        }
        self.store.drop_slot(self.projection, slot, self.clock.now()).await?;
        Ok(Some(slot))
    }

    /// Stops whoever is rebuilding and drops what was built so far; says what, if there was anything.
    pub async fn abort(&self) -> Result<Option<Aborted>, RebuildError> {
        let now = self.clock.now();
        let (_, more) = self.catalogue().await?;
        let by = more.at_it(now).map(|it| it.by.clone());
        let claim = self.seize().await?;
        let done = self.drop_building(by).await;
        self.give_back(&claim, true, None).await;
        done
    }

    async fn drop_building(&self, by: Option<String>) -> Result<Option<Aborted>, RebuildError> {
        // Whoever was at it may have flipped until the claim was taken away.
        let slot = self.catalogue().await?.0.building;
        if let Some(slot) = slot {
            self.store.drop_slot(self.projection, slot, self.clock.now()).await?;
        }
        Ok((slot.is_some() || by.is_some()).then_some(Aborted { slot, by }))
    }

    async fn catalogue(&self) -> Result<(ProjectionState, RebuildState), RebuildError> {
        let name = self.projection.name();
        let state = self.store.projection_state(name).await?.ok_or(RebuildError::NotThere(name))?;
        Ok((state, self.store.rebuild_state(name).await?))
    }
}

/// What there is to go back to.
enum Back {
    Before(Slot, Timestamp),
    To { slot: Slot, version: i32, stands_behind: Option<i64> },
}
