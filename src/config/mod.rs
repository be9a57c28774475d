//! The configuration: what there is to set, and what may be set to what.
//!
//! `config.default.toml` is built in and holds every key; a file holds what differs, the environment
//! comes after the file, the command line last. Every section is a struct whose `validate` says all
//! that is wrong with it; nothing here reads a secret or opens a connection.

mod api;
mod database;
mod ingest;
mod load;
mod problem;
mod process;
mod push;
mod show;
mod users;
mod value;
mod work;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use self::{
    api::{Api, ApiKey, Limits},
    database::{Database, DatabaseUrl, Log, Shards},
    ingest::{Ingest, Sqs},
    load::{Loaded, Sources},
    problem::{ConfigError, Problem},
    process::{Role, Service, Telemetry},
    push::{ProviderSettings, Push, Route},
    users::{Signature, Users},
    work::{Delivery, Projection},
};

/// Every key there is, with its default and what it means, as a TOML file.
pub const DEFAULT: &str = include_str!("../../config.default.toml");

/// All sections.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the ledger is kept.
    pub database: Database,
    /// How it is cut.
    pub log: Log,
    /// The HTTP API.
    pub api: Api,
    /// The queues.
    pub ingest: Ingest,
    /// How projections are kept up.
    pub projection: Projection,
    /// How deliveries are worked off.
    pub delivery: Delivery,
    /// Where pushes go that name no provider.
    pub push: Push,
    /// The providers by name.
    #[serde(default)]
    pub providers: BTreeMap<String, ProviderSettings>,
    /// Logs.
    pub telemetry: Telemetry,
    /// What this process does.
    pub service: Service,
}

impl Config {
    /// Everything that is wrong, within the sections and between them.
    pub fn validate(&self) -> Vec<Problem> {
        [
            self.database.validate(),
            self.log.validate(),
            self.api.validate(),
            self.ingest.validate(),
            self.projection.validate(),
            self.delivery.validate(),
            self.push.validate(&self.providers),
            self.telemetry.validate(),
            self.service.validate(),
        ]
        .concat()
    }

    /// Reads every secret that the API refers to, and says which cannot be used.
    pub fn check_secrets(&self) -> Vec<Problem> {
        let keys = self.api.keys.iter().enumerate();
        let keys = keys.filter_map(|(i, key)| key.read_secret(&format!("api.keys[{i}]")).err());
        keys.chain(self.api.users.read_secret().err()).collect()
    }
}

#[cfg(test)]
mod tests;
