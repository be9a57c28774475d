//! Whether somebody who was let in may stay: for streams, which outlast the request that opened them.

use super::{Callers, Grant, Identity, PREFIX};
use crate::{clock::Timestamp, store::StoreError};

/// What somebody was let in with, as far as it can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Pass {
    /// Nothing: there were no keys.
    Open,
    /// The key of the database that has this id.
    Issued(String),
    /// What holds until it ends: a token, or a key of the configuration.
    Lasting,
}

impl Pass {
    /// That of a caller who is known.
    pub(super) fn of(identity: &Identity) -> Self {
        let issued = |it: &Grant| it.key.strip_prefix(PREFIX).map(|id| Self::Issued(id.to_owned()));
        match identity {
            Identity::Local => Self::Open,
            Identity::Service(grant) => issued(grant).unwrap_or(Self::Lasting),
            Identity::Recipient(_) | Identity::Unknown(_) => Self::Lasting,
        }
    }
}

impl Callers {
    /// Whether this is good still. What a process has looked up it believes for
    /// [`WATCHED`](super::issued::WATCHED); for all who ask at once the database is asked once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(in crate::http) async fn still_admit(&self, pass: &Pass, now: Timestamp) -> Result<bool, StoreError> {
        match (pass, &self.issued) {
            (Pass::Open, Some(issued)) => issued.is_none_yet(now).await,
            (Pass::Issued(key_id), Some(issued)) => issued.is_good(key_id, now).await,
            (Pass::Open | Pass::Issued(_), None) | (Pass::Lasting, _) => Ok(true),
        }
    }
}
