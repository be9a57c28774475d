//! The whole service within the test's own process: by a clock that the test moves, over a real socket.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use notification_ledger::{
    clock::Clock,
    config::Sources,
    service,
    supervisor::{Outcome, Stop, Supervisor},
    telemetry,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long a service may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service that runs; the test ends it with [`Served::stop`].
#[derive(Debug)]
pub(crate) struct Served {
    address: SocketAddr,
    stop: Stop,
    ended: JoinHandle<io::Result<Outcome>>,
}

impl Served {
    /// Starts all that the configuration asks for, and the API on a port that is free. In the
    /// configuration, `{folder}` stands for this folder.
    pub(crate) async fn start(config: &str, folder: &TempDir, clock: Arc<dyn Clock>) -> Self {
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config.replace("{folder}", &folder.path().to_string_lossy())).unwrap();
        let sources = Sources::none().with_file(&file).with_option("api.bind", "127.0.0.1:0", "test");
        let config = sources.load().unwrap().config;
        let supervisor = Supervisor::new(PATIENCE);
        let tasks = supervisor.tasks().clone();
        let running = service::start(&config, clock, &tasks, telemetry::metrics().unwrap()).await.unwrap();
        let ended = tokio::spawn(supervisor.run_until_stopped());
        Self { address: running.api.unwrap(), stop: tasks.stop().clone(), ended }
    }

    /// The API's address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends it; panics where a part of it died, or did not end.
    pub(crate) async fn stop(self) {
        self.stop.ask();
        let ended = self.ended.await.unwrap().unwrap();
        assert!(matches!(ended, Outcome::Drained), "{ended:?}");
    }
}
