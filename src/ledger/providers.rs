//! What operators see of providers and do with them: which there are, what waits for each, pausing one.
//!
//! Pauses hold for every process. What one process has found out by itself, such as an open breaker, stands
//! in its metrics only.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Ledger, LedgerError,
    operate::{Denied, Who},
};
use crate::{
    clock::Timestamp,
    routing::Routing,
    store::{Control, PauseCause, Store, StoreError},
};

/// What is due for longer than this is overdue; as in the metrics.
const OVERDUE: Duration = Duration::from_mins(1);

/// A provider, as every process sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// Its kind; none where it is not configured (any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `paused` or `running`.
    pub state: &'static str,
    /// What it was last paused or resumed for, and by whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastControl>,
    /// Deliveries whose time has come.
    pub due: u64,
    /// Of these, for more than a minute.
    pub overdue: u64,
}

/// Who paused or resumed a provider, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastControl {
    /// `operator`, `auth_config` or `invalid_targets`.
    pub cause: &'static str,
    /// An operator, the name of an API key, or a worker.
    pub actor: String,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When the pause ends by itself, with one call to find out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl ProviderStatus {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), state: "running", ..Self::default() }
    }
}

impl From<Control> for LastControl {
    fn from(it: Control) -> Self {
        let Control { cause, actor, reason, at, until, .. } = it;
        Self { cause: cause.as_str(), actor, reason, since: at, until }
    }
}

impl Ledger {
    /// Every provider that is configured, was ever paused, or has deliveries waiting; by name.
    pub async fn providers(&self) -> Result<Vec<ProviderStatus>, LedgerError> {
        Ok(provider_statuses(self.store(), self.routing(), self.now()).await?)
    }

    /// Pauses a provider for every process until somebody resumes it, or resumes it; whether it was not so
    /// before.
    pub async fn control_provider(
        &self,
        provider: &str,
        is_pause: bool,
        who: &Who,
    ) -> Result<Result<bool, Denied>, LedgerError> {
        if !self.has_provider(provider) {
            return Ok(Err(Denied::UnknownProvider(provider.to_owned())));
        }
        let control = Control {
            number: 0,
            provider: provider.to_owned(),
            is_pause,
            cause: PauseCause::Operator,
            actor: who.by.clone(),
            reason: who.reason(),
            at: self.now(),
            until: None,
        };
        Ok(Ok(self.store().control(&control).await?))
    }
}

/// The same for whoever only reads.
pub async fn provider_statuses(
    store: &Store,
    routing: &Routing,
    now: Timestamp,
) -> Result<Vec<ProviderStatus>, StoreError> {
    let mut providers: BTreeMap<String, ProviderStatus> = BTreeMap::new();
    let of = |name: &str| ProviderStatus::named(name);
    for (name, known) in &routing.providers {
        providers.entry(name.clone()).or_insert_with(|| of(name)).kind = Some(known.kind.clone());
    }
    for control in store.controls().await? {
        let it = providers.entry(control.provider.clone()).or_insert_with(|| of(&control.provider));
        it.state = if control.is_pause { "paused" } else { "running" };
        it.last = Some(control.into());
    }
    for count in store.count_due(now, now.minus(OVERDUE)).await? {
        // What is not planned yet waits for nobody in particular.
        let Some(name) = count.provider else { continue };
        let it = providers.entry(name.clone()).or_insert_with(|| of(&name));
        (it.due, it.overdue) = (count.due, count.overdue);
    }
    Ok(providers.into_values().collect())
}
