//! One process at a time: taking the right to rebuild, keeping it while at work, and saying who has it.

use std::{fmt, process, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Rebuild, RebuildError};
use crate::{
    clock::Timestamp,
    store::{Claim, ProjectError, STALE_AFTER, StoreError},
    supervisor,
};

/// How often whoever rebuilds says that it is at it.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Who is at it, since when, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtIt {
    /// Which projection.
    pub projection: &'static str,
    /// Machine and process.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// How long ago it was last seen.
    pub seen_ago: Duration,
    /// Events folded.
    pub done: i64,
    /// Events to fold.
    pub all: i64,
}

impl fmt::Display for AtIt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { projection, by, since, seen_ago, done, all } = self;
        write!(
            f,
            "{by} is at {projection} since {since}, with {done} of {all} events folded, and was last seen {} s ago; \
             wait for it, or stop it with `projections abort {projection}`; who is not seen for {} s may be taken \
             over from",
            seen_ago.as_secs(),
            STALE_AFTER.as_secs(),
        )
    }
}

/// This process, for others to find.
fn who() -> String {
    format!("{} pid {}", supervisor::host_name(), process::id())
}

impl Rebuild {
    /// Takes the right to rebuild; says who has it where somebody does.
    pub async fn claim(&self) -> Result<Claim, RebuildError> {
        let name = self.projection.name();
        // Who holds it may give it back between the two questions.
        for _ in 0..3 {
            if let Some(claim) = self.store.claim_rebuild(name, &who(), self.clock.now()).await? {
                return Ok(claim);
            }
            if let Some(at_it) = self.at_it().await? {
                return Err(RebuildError::UnderWay(Box::new(at_it)));
            }
            if self.store.projection_state(name).await?.is_none() {
                return Err(RebuildError::NotThere(name));
            }
        }
        Err(RebuildError::Contended(name))
    }

    /// Takes the right to rebuild from whoever has it.
    pub(super) async fn seize(&self) -> Result<Claim, StoreError> {
        self.store.seize_rebuild(self.projection.name(), &who(), self.clock.now()).await
    }

    /// Who is at it, if somebody is who is not taken for dead.
    pub async fn at_it(&self) -> Result<Option<AtIt>, StoreError> {
        let (name, now) = (self.projection.name(), self.clock.now());
        let state = self.store.rebuild_state(name).await?;
        let Some(builder) = state.at_it(now) else { return Ok(None) };
        let building = self.store.projection_state(name).await?.and_then(|it| it.building);
        let mut checkpoints = self.store.checkpoints().await?;
        checkpoints.retain(|it| it.projection == name && Some(it.slot) == building);
        Ok(Some(AtIt {
            projection: name,
            by: builder.by.clone(),
            since: builder.since,
            seen_ago: now.since(builder.seen),
            done: checkpoints.iter().map(|it| it.position.0).sum(),
            all: checkpoints.iter().map(|it| it.head.0).sum(),
        }))
    }

    /// Does the work as long as the claim holds and no stop is asked for. What is cut off is cut off between
    /// two transactions, or takes the one it is in back.
    pub(super) async fn keep<T>(
        &self,
        claim: &Claim,
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, RebuildError>>,
    ) -> Result<T, RebuildError> {
        let name = self.projection.name();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(RebuildError::Stopped(name)),
            done = work => {
                // Whoever aborts drops the tables under those who are at work.
                if done.is_err() && !self.renew(claim).await.unwrap_or(true) {
                    return Err(taken(name));
                }
                done
            }
            () = self.lost(claim) => Err(taken(name)),
        }
    }

    /// Says every few seconds that somebody is at it; ends when somebody else took over.
    async fn lost(&self, claim: &Claim) {
        loop {
            sleep(HEARTBEAT).await;
            match self.renew(claim).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(
                    projection = claim.projection(),
                    %error,
                    "could not say that the rebuild is under way; saying so again soon"
                ),
            }
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<bool, StoreError> {
        self.store.renew_rebuild(claim, self.clock.now()).await
    }

    /// Gives the claim back; where that fails it runs out by itself.
    pub(super) async fn give_back(&self, claim: &Claim, is_over: bool, result: Option<&str>) {
        if let Err(error) = self.store.release_rebuild(claim, is_over, result).await {
            tracing::warn!(
                projection = claim.projection(),
                %error,
                "that nobody rebuilds any more could not be noted; it shows within {} s",
                STALE_AFTER.as_secs()
            );
        }
    }
}

fn taken(name: &'static str) -> RebuildError {
    RebuildError::Project(ProjectError::Taken(name))
}
