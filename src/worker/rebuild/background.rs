//! Rebuilds beside everything else that a process does: those that somebody asks for over HTTP, and those that
//! nobody has to ask for, because this release folds a projection in another way than its tables were made, because
//! its tables are gone, or because a service was stopped in the middle of one.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{Duration, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Rebuild, RebuildError, Rebuilt, Wish};
use crate::{
    clock::Clock,
    projection::{ALL, Projection},
    store::{Claim, ProjectionState, RebuildState, Store},
    supervisor::{BoxError, Tasks},
    worker::{Backoff, chain},
};

/// How often to look whether whoever rebuilds is done, or died.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Rebuilds by this process, under its supervisor.
#[derive(Debug, Clone)]
pub struct Rebuilds {
    store: Store,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

/// What became of a projection that may have to be rebuilt.
enum Renewed {
    /// Its tables are as this release makes them.
    Not,
    /// This process rebuilt it.
    Here,
    /// Somebody else is at it.
    Elsewhere,
}

impl Rebuilds {
    /// Of the projections in this database.
    #[must_use]
    pub const fn new(store: Store, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { store, clock, tasks }
    }

    /// One projection's.
    #[must_use]
    pub fn of(&self, projection: &'static dyn Projection) -> Rebuild {
        Rebuild { store: self.store.clone(), projection, clock: Arc::clone(&self.clock) }
    }

    /// Starts a rebuild, and answers as soon as it is certain that nobody else is at it. A soft stop cuts it off
    /// between two steps, and the next start goes on with it.
    pub async fn start(
        &self,
        projection: &'static dyn Projection,
        restart: bool,
        accept: bool,
    ) -> Result<(), RebuildError> {
        let rebuild = self.of(projection);
        let claim = rebuild.claim().await?;
        let (stop, wish) = (self.tasks.stop().soft(), Wish { restart, accept, goes_on: true });
        self.tasks.spawn_finite(format!("rebuild {}", projection.name()), async move {
            let _ = run(&rebuild, &claim, &stop, wish).await; // told there
            Ok::<_, BoxError>(())
        });
        Ok(())
    }

    /// Does something to the end even if whoever asked goes away.
    pub async fn finish<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, RebuildError>> + Send + 'static,
    ) -> Result<T, RebuildError> {
        let (tell, told) = oneshot::channel();
        self.tasks.spawn_finite(name, async move {
            let _ = tell.send(work.await); // nobody may want to know any more
            Ok::<_, BoxError>(())
        });
        told.await.unwrap_or(Err(RebuildError::Stopped("projection")))
    }

    /// Rebuilds what has to be rebuilt, one projection after the other, until nothing is left or a stop is asked
    /// for; of several processes one does it, and another goes on when that died. Says what this one did.
    ///
    /// A projection is looked at until it is as this release makes it, and not again: who goes back to older tables
    /// while the service runs is left alone until the next start.
    pub async fn renew(&self) -> Vec<&'static str> {
        let stop = self.tasks.stop().soft();
        let (mut pending, mut rebuilt) = (ALL.to_vec(), Vec::new());
        let (mut told, mut backoff) = (BTreeMap::new(), Backoff::default());
        while !pending.is_empty() && !stop.is_cancelled() {
            let (mut left, mut pause) = (Vec::new(), LOOK_AGAIN);
            for projection in pending {
                match self.renew_one(projection, &stop).await {
                    Ok(Renewed::Not) => {}
                    Ok(Renewed::Here) => rebuilt.push(projection.name()),
                    Ok(Renewed::Elsewhere) => left.push(projection),
                    Err(RebuildError::Stopped(_)) => return rebuilt,
                    Err(error) => {
                        let error = chain(&error);
                        if told.insert(projection.name(), error.clone()).as_ref() != Some(&error) {
                            let name = projection.name();
                            tracing::warn!(
                                projection = name,
                                error,
                                "{name} could not be rebuilt; trying again"
                            );
                        }
                        pause = pause.max(backoff.next_pause());
                        left.push(projection);
                    }
                }
            }
            pending = left;
            if !pending.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(pause) => {}
                }
            }
        }
        rebuilt
    }

    async fn renew_one(
        &self,
        projection: &'static dyn Projection,
        stop: &CancellationToken,
    ) -> Result<Renewed, RebuildError> {
        let rebuild = self.of(projection);
        let Some(_) = self.is_due(projection).await? else { return Ok(Renewed::Not) };
        let claim = match rebuild.claim().await {
            Ok(claim) => claim,
            Err(RebuildError::UnderWay(_)) => return Ok(Renewed::Elsewhere),
            Err(error) => return Err(error),
        };
        // Somebody else may have come to the end of it since.
        let accept = match self.is_due(projection).await {
            Ok(Some(accept)) => accept,
            other => {
                rebuild.give_back(&claim, false, None).await;
                return other.map(|_| Renewed::Not);
            }
        };
        let wish = Wish { restart: false, accept, goes_on: true };
        run(&rebuild, &claim, stop, wish).await.map(|_| Renewed::Here)
    }

    /// Whether it has to be rebuilt, and then, whether differences are accepted.
    async fn is_due(&self, projection: &dyn Projection) -> Result<Option<bool>, RebuildError> {
        let Some(state) = self.store.projection_state(projection.name()).await? else { return Ok(None) };
        let more = self.store.rebuild_state(projection.name()).await?;
        let is_lost =
            state.version == projection.version() && !self.store.is_readable(projection, state.live).await?;
        Ok(due(&state, is_lost, &more, projection.version()))
    }
}

/// `is_lost` says that the live tables are not there, or not as this version makes them.
fn due(state: &ProjectionState, is_lost: bool, more: &RebuildState, wanted: i32) -> Option<bool> {
    let is_old = state.version < wanted;
    // What a newer release has made is left to it.
    more.goes_on.or((is_old || is_lost).then_some(false)).filter(|_| state.version <= wanted)
}

/// Runs a rebuild and tells how it went.
async fn run(
    rebuild: &Rebuild,
    claim: &Claim,
    stop: &CancellationToken,
    wish: Wish,
) -> Result<Rebuilt, RebuildError> {
    let name = rebuild.projection.name();
    tracing::info!(projection = name, "rebuilding {name} beside what is live, which is shown meanwhile");
    let built = rebuild.rebuild_as(claim, stop, wish, &|_, _| {}).await;
    match &built {
        Ok(Rebuilt { slot, flipped: true, .. }) => {
            tracing::info!(projection = name, %slot, "{name} is rebuilt, and slot {slot} is live");
        }
        Ok(Rebuilt { slot, comparison, .. }) => {
            let differing = comparison.as_ref().map(|it| it.differing);
            tracing::warn!(
                projection = name,
                differing,
                "{name} was rebuilt and differs from what is live, which stays; slot {slot} is kept"
            );
        }
        Err(RebuildError::Stopped(_)) => {
            tracing::info!(
                projection = name,
                "the rebuild of {name} is cut off; the next start goes on with it"
            );
        }
        Err(error) => tracing::warn!(projection = name, error = chain(error), "the rebuild of {name} failed"),
    }
    built
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Slot;

    #[test]
    fn older_and_lost_tables_and_what_was_cut_off_are_due_and_newer_tables_are_not() {
        let state = |version| ProjectionState {
            name: "inbox".to_owned(),
            version,
            live: Slot::A,
            building: None,
            building_version: None,
        };
        let more = |goes_on| RebuildState { goes_on, ..RebuildState::default() };
        for (version, is_lost, goes_on, expected) in [
            (3, false, None, None),
            (3, true, None, Some(false)),
            (2, false, None, Some(false)),
            (2, false, Some(true), Some(true)),
            (3, false, Some(false), Some(false)),
            (4, false, None, None),
            (4, true, None, None),
            (4, false, Some(true), None),
        ] {
            let found = due(&state(version), is_lost, &more(goes_on), 3);
            assert_eq!(found, expected, "{version} {is_lost} {goes_on:?}");
        }
    }
}
