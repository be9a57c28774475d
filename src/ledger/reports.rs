//! What devices tell of pushes that reached them.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{Ledger, LedgerError};
use crate::{
    clock::Timestamp,
    event::Metadata,
    id::{Cursor, Shard},
    store::{Applied, Entry},
    stream::{Command, Report},
};

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It is in the log now.
    Recorded(Cursor),
    /// The same was told before.
    Known(Cursor),
    /// There is no such message, or it has no such delivery, or that was never sent.
    Unknown,
}

/// Entries of one shard, with their places among all.
type Lot = (Vec<usize>, Vec<Entry>);

impl Ledger {
    /// Records what devices tell, each once. Answers in their order, when everything that is recorded is
    /// durable.
    pub async fn report(
        &self,
        reports: Vec<Report>,
        metadata: &Metadata,
    ) -> Vec<Result<Reported, LedgerError>> {
        let now = self.now();
        let ids: Vec<_> = reports.iter().map(|it| &it.message_id).collect();
        let homes = match self.store().homes_of(&ids).await {
            Ok(homes) => homes,
            Err(error) => {
                let error = LedgerError::from(error);
                return reports.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let mut answers = vec![Ok(Reported::Unknown); reports.len()];
        let mut by_shard: BTreeMap<Shard, Lot> = BTreeMap::new();
        for (at, report) in reports.into_iter().enumerate() {
            let Some(home) = homes.get(&report.message_id) else { continue };
            let (places, entries) = by_shard.entry(home.shard).or_default();
            places.push(at);
            entries.push(entry(report, home.received_at, now, metadata));
        }
        let jobs = by_shard
            .into_iter()
            .map(|(shard, (places, entries))| async move { (places, self.apply_in(shard, entries).await) });
        for (places, applied) in join_all(jobs).await {
            for (at, applied) in places.into_iter().zip(applied) {
                answers[at] = applied.map(Reported::from);
            }
        }
        answers
    }
}

fn entry(report: Report, received_at: Timestamp, now: Timestamp, metadata: &Metadata) -> Entry {
    let occurred_at = report.occurred_at(received_at, now);
    let Report { message_id, delivery_id, kind, detail, .. } = report;
    let command = Command::Report { delivery_id, kind, detail };
    Entry { message_id, command, occurred_at, metadata: metadata.clone() }
}

impl From<Applied> for Reported {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Appended { cursor, .. } => Self::Recorded(cursor),
            Applied::Unchanged { cursor } => Self::Known(cursor),
            Applied::Refused { .. } | Applied::Elsewhere(_) => Self::Unknown,
        }
    }
}
