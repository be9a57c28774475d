//! `migrate`: brings the database's schema up to date.

use clap::Args;

use super::{Exit, Global, Logs, print};
use crate::{clock::SystemClock, service};

/// Bring the database's schema up to date, and create the ledger where there is none
///
/// `serve` does so by itself at start; this is for deployments that keep the rights to change tables
/// away from the service. The tables of projections are left to whoever serves. Migrations only ever
/// add.
#[derive(Debug, Args)]
pub(super) struct Options {}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        let identity = service::migrate(&config, &SystemClock).await?;
        print(format_args!(
            "ledger {} with {} shards is up to date, created {}",
            identity.ledger_id, identity.shards, identity.created_at
        ))?;
        Ok(Exit::Well)
    }
}
