//! Proves the tables of a few recipients at a time, chosen at random, against the log.
//!
//! A recipient is drawn by drawing an event: who has more of them is looked at more often. What was found wrong is
//! looked at again in every step, until it is mended, so that the metric stays above 0 as long.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Progress, WorkError, Worker,
    rebuild::{Comparison, Difference, Rebuild, RebuildError},
};
use crate::{
    clock::Clock,
    id::{Position, RecipientId},
    ledger::Ledger,
    metric,
    projection::{ALL, Projection},
    store::{StoreError, Subject},
};

/// Recipients that are known to be wrong and looked at again at the most.
const WRONG_MAX: usize = 100;
/// Differences that one line of the log names.
const NAMED: usize = 5;

/// The prover.
#[derive(Debug)]
pub struct Prove {
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    recipients: usize,
    random: fastrand::Rng,
    wrong: BTreeSet<RecipientId>,
}

impl Prove {
    /// Proves so many recipients in a step.
    #[must_use]
    pub const fn new(
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        recipients: usize,
        random: fastrand::Rng,
    ) -> Self {
        Self { ledger, clock, recipients, random, wrong: BTreeSet::new() }
    }

    /// Recipients of events anywhere in the log, and those that were wrong before.
    async fn draw(&mut self) -> Result<BTreeSet<RecipientId>, StoreError> {
        let mut drawn = self.wrong.clone();
        let mut heads = self.ledger.store().heads().await?;
        heads.retain(|it| it.position.0 > 0);
        if heads.is_empty() {
            return Ok(drawn);
        }
        for _ in 0..self.recipients {
            let head = heads[self.random.usize(0..heads.len())];
            let at = self.random.i64(1..=head.position.0);
            let store = self.ledger.store();
            drawn.extend(store.recipients_between(head.shard, Position(at - 1), Position(at)).await?);
        }
        Ok(drawn)
    }

    /// How many rows of a projection differ among these recipients.
    async fn prove(
        &mut self,
        projection: &'static dyn Projection,
        recipients: &BTreeSet<RecipientId>,
    ) -> Result<u64, RebuildError> {
        let (store, clock) = (self.ledger.store().clone(), Arc::clone(&self.clock));
        let rebuild = Rebuild { store, projection, clock };
        let (mut rows, mut differing) = (0, 0);
        for recipient in recipients {
            let found = match rebuild.verify_subject(&Subject::Recipient(recipient.clone())).await {
                Ok(found) => found,
                // Nothing is live that this release could prove.
                Err(RebuildError::OtherVersion(_) | RebuildError::NotThere(_)) => return Ok(0),
                Err(error) => return Err(error),
            };
            rows += found.rows;
            differing += found.differing;
            if found.differing > 0 {
                let is_news = !self.wrong.contains(recipient);
                if is_news && self.wrong.len() < WRONG_MAX {
                    self.wrong.insert(recipient.clone());
                }
                if is_news {
                    tell(projection.name(), recipient, &found);
                }
            }
        }
        metric::proved(projection.name(), rows, differing);
        Ok(differing)
    }
}

/// Names rows and columns, and no content.
fn tell(projection: &'static str, recipient: &RecipientId, found: &Comparison) {
    let named = found.differences.iter().take(NAMED).map(Difference::place);
    tracing::error!(
        projection,
        %recipient,
        rows = found.differing,
        first = %named.collect::<Vec<_>>().join("; "),
        "rows are not what the log says: `projections verify {projection} --repair` mends them"
    );
}

impl Worker for Prove {
    fn name(&self) -> &'static str {
        "prove"
    }

    async fn tick(&mut self) -> Result<Progress, WorkError> {
        let failed = |error| WorkError::retry("drawing recipients to prove", error);
        let recipients = self.draw().await.map_err(failed)?;
        let mut differing = 0;
        for &projection in ALL.iter().filter(|it| Subject::covers(**it)) {
            let failed = |error| WorkError::retry("proving what is live", error);
            differing += self.prove(projection, &recipients).await.map_err(failed)?;
        }
        if differing == 0 {
            self.wrong.clear();
        }
        Ok(Progress::Idle)
    }
}
