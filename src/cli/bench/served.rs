//! The whole service within this process, as `serve` starts it, on the stage's database.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::task::JoinSet;

use super::stage::Stage;
use crate::{
    config::{Config, DatabaseUrl, ProviderSettings, Role},
    service,
    supervisor::{Outcome, Stop, Supervisor},
    telemetry,
};

/// The provider that leads to the sink.
pub(super) const PROVIDER: &str = "sink";
/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service that runs; it is asked to stop when dropped.
#[derive(Debug)]
pub(super) struct Served {
    api: Option<SocketAddr>,
    stop: Stop,
    supervisor: JoinSet<io::Result<Outcome>>,
}

impl Served {
    /// Starts the parts of the service that these roles name, with no queue and no provider but the sink.
    pub(super) async fn start(
        stage: &Stage,
        roles: &[Role],
        sink: Option<ProviderSettings>,
    ) -> anyhow::Result<Self> {
        let config = config(stage, roles, sink)?;
        let supervisor = Supervisor::new(PATIENCE);
        let tasks = supervisor.tasks().clone();
        let running =
            service::start(&config, Arc::clone(&stage.clock), &tasks, telemetry::metrics()?).await?;
        let mut watch = JoinSet::new();
        watch.spawn(supervisor.run_until_stopped());
        Ok(Self { api: running.api, stop: tasks.stop().clone(), supervisor: watch })
    }

    /// Where the HTTP API listens.
    pub(super) fn api(&self) -> anyhow::Result<SocketAddr> {
        self.api.context("the service did not open its HTTP API")
    }

    /// Does something while the service runs; fails when the service ends meanwhile.
    pub(super) async fn during<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            done = work => done,
            ended = self.supervisor.join_next() => Err(match ended {
                Some(Ok(Ok(Outcome::Failed(failed)))) => failed.into(),
                _ => anyhow!("the service ended before the measurement"),
            }),
        }
    }

    /// Stops it softly and waits until it has ended.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.ask();
        match self.supervisor.join_next().await {
            Some(ended) => match ended?? {
                Outcome::Drained => Ok(()),
                Outcome::Forced { running } => Err(anyhow!("these did not stop in time: {running:?}")),
                Outcome::Failed(failed) => Err(failed.into()),
            },
            None => Err(anyhow!("the service ended before it was stopped")),
        }
    }
}

/// The provider that leads to a sink at this address.
pub(super) fn http(address: SocketAddr, concurrency: u16) -> ProviderSettings {
    let settings =
        json!({ "url": format!("http://{address}/push"), "id": "/id", "concurrency": concurrency });
    ProviderSettings { kind: "http".to_owned(), settings }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

/// What is configured, but for everything that would reach out of this machine.
fn config(stage: &Stage, roles: &[Role], sink: Option<ProviderSettings>) -> anyhow::Result<Config> {
    let mut config = stage.config.clone();
    config.database.url = DatabaseUrl::new(stage.url());
    config.database.direct_url = None;
    config.database.pooler = false;
    config.api.bind = "127.0.0.1:0".parse()?;
    config.api.keys.clear();
    config.ingest.sqs.clear();
    config.providers.clear();
    config.push.provider = None;
    config.service.roles = roles.to_vec();
    config.push.routes.clear();
    if let Some(settings) = sink {
        config.providers.insert(PROVIDER.to_owned(), settings);
        config.push.provider = Some(PROVIDER.to_owned());
    }
    Ok(config)
}
