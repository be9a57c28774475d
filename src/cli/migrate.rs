//! `migrate`: brings the database's schema up to date.

use clap::Args;

use super::{Exit, Global, Logs, print};
use crate::{clock::SystemClock, service};

/// Bring the database's schema up to date, and create the ledger where there is none
///
/// `serve` does so by itself at start; this is for deployments that keep the rights to change tables
/// away from the service. Migrations only ever add.
#[derive(Debug, Args)]
pub(super) struct Options {}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        let store = service::open_store(&config, &SystemClock).await?;
        let identity = store.identity();
        print(format_args!(
            "ledger {} with {} shards is up to date, created {}",
            identity.ledger_id, identity.shards, identity.created_at
        ))?;
        store.close().await;
        Ok(Exit::Well)
    }
}
