//! Proving and mending a part of a projection: the rows of one message or one recipient.

use std::collections::BTreeMap;

use super::{Comparison, OnProgress, Rebuild, RebuildError, What};
use crate::{
    projection::{Key, Table, Value},
    store::{HeldRows, HeldTable, Slot, Subject},
};

/// Subjects mended one by one at the most; where more differ, the whole is to be rebuilt.
pub const SUBJECTS_MAX: usize = 10_000;
/// How often to begin again when another slot becomes live meanwhile.
const TRIES: usize = 3;

/// What a repair came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// What differed before.
    pub found: Comparison,
    /// How many messages and recipients were folded anew.
    pub subjects: usize,
    /// How many of their rows were written or removed.
    pub mended: u64,
    /// What differs of them after.
    pub left: Comparison,
}

impl Rebuild {
    /// Compares the rows of a subject with a fold of its events, at the place of the live slot. Nothing waits for it.
    pub async fn verify_subject(&self, subject: &Subject) -> Result<Comparison, RebuildError> {
        let live = self.by_subject().await?;
        Ok(compared(&self.store.held(self.projection, live, subject).await?))
    }

    /// Makes the rows of a subject in the live slot what the log says, in one transaction; answers with what
    /// differed before. Events that are not folded yet are left to the projector.
    pub async fn mend(&self, subject: &Subject) -> Result<Comparison, RebuildError> {
        for _ in 0..TRIES {
            let live = self.by_subject().await?;
            if let Some(held) = self.store.mend(self.projection, live, subject).await? {
                let found = compared(&held);
                if found.differing > 0 {
                    let (projection, rows) = (self.projection.name(), found.differing);
                    tracing::warn!(
                        projection,
                        ?subject,
                        rows,
                        "rows that were not what the log says were mended"
                    );
                }
                return Ok(found);
            }
        }
        Err(RebuildError::Contended(self.projection.name()))
    }

    /// Verifies the whole, mends the messages and recipients whose rows differ, and verifies these again.
    pub async fn repair(&self, restart: bool, progress: OnProgress<'_>) -> Result<Repaired, RebuildError> {
        self.by_subject().await?;
        let found = Box::pin(self.verify(restart, progress)).await?;
        if found.subjects.len() > SUBJECTS_MAX {
            return Err(RebuildError::TooMany(self.projection.name()));
        }
        let mut repaired =
            Repaired { subjects: found.subjects.len(), mended: 0, left: Comparison::default(), found };
        for subject in &repaired.found.subjects {
            repaired.mended += self.mend(subject).await?.differing;
        }
        for subject in &repaired.found.subjects {
            repaired.left.add(self.verify_subject(subject).await?);
        }
        Ok(repaired)
    }

    /// The live slot, if its rows can be told apart by subject and were made by this fold.
    async fn by_subject(&self) -> Result<Slot, RebuildError> {
        let name = self.projection.name();
        if !Subject::covers(self.projection) {
            return Err(RebuildError::OfMany(name));
        }
        let state = self.store.projection_state(name).await?.ok_or(RebuildError::NotThere(name))?;
        if state.version != self.projection.version() {
            return Err(RebuildError::OtherVersion(name));
        }
        Ok(state.live)
    }
}

/// The rows that are there against those that the fold makes.
fn compared(held: &HeldRows) -> Comparison {
    let mut comparison = Comparison {
        places: vec![(held.shard, held.place)],
        heads: vec![(held.shard, held.head)],
        ..Comparison::default()
    };
    for HeldTable { table, there, fresh } in &held.tables {
        compare_rows(table, there, fresh, &mut comparison);
    }
    comparison
}

fn compare_rows(table: &Table, live: &[Vec<Value>], fresh: &[Vec<Value>], comparison: &mut Comparison) {
    let by_key = |rows: &[Vec<Value>]| -> BTreeMap<Key, Vec<Value>> {
        rows.iter().map(|row| (table.key_of(row), row.clone())).collect()
    };
    let (mut live, fresh) = (by_key(live), by_key(fresh));
    for (key, fresh) in fresh {
        comparison.rows += 1;
        match live.remove(&key) {
            Some(live) => comparison.note_columns(table, &key, live, fresh),
            None => comparison.note(table, key, What::Missing),
        }
    }
    for (key, _) in live {
        comparison.rows += 1;
        comparison.note(table, key, What::Extra);
    }
}

impl Comparison {
    /// Adds what was found of another part of the same projection.
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.differing += other.differing;
        for difference in other.differences {
            self.name(difference);
        }
        self.subjects.extend(other.subjects);
    }
}
