//! `serve`: runs the service until it is told to stop.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::{Exit, Global, Logs, config};
use crate::{
    clock::SystemClock,
    config::{Config, ConfigError, Role},
    metric, service,
    supervisor::{Outcome, Supervisor},
    telemetry,
};

/// Run the service: take messages from the queues, keep the projections up, push, answer HTTP
///
/// Which of these this process does is set by service.roles; any number of processes may share one
/// database. The first SIGTERM or Ctrl-C finishes what is under way and ends with 0; the second ends at
/// once. If a part of it dies, the whole process ends with 1.
#[derive(Debug, Args)]
pub(super) struct Options {}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let loaded = global.start(Logs::Service)?;
        let problems = config::beyond_values(&loaded);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems).into());
        }
        serve(&loaded.config).await
    }
}

async fn serve(config: &Config) -> anyhow::Result<Exit> {
    let roles: Vec<_> = config.service.role_set().into_iter().map(Role::as_str).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        database = config.database.url.scheme(),
        roles = roles.join(","),
        "starting"
    );
    let metrics = telemetry::metrics()?;
    let queues = config.ingest.sqs.iter().map(|it| it.name.as_str());
    metric::begin(config.providers.keys().map(String::as_str), queues);
    let supervisor = Supervisor::new(config.service.shutdown_timeout);
    service::start(config, Arc::new(SystemClock), supervisor.tasks(), metrics).await?;
    match supervisor.run_until_stopped().await.context("signals cannot be heard")? {
        Outcome::Drained => {
            tracing::info!("stopped: everything under way was finished");
            Ok(Exit::Well)
        }
        Outcome::Forced { running } => {
            tracing::warn!(?running, "stopped before everything had finished; nothing durable is lost");
            Ok(Exit::Wrong)
        }
        Outcome::Failed(failed) => Err(failed.into()),
    }
}
