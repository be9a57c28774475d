//! The real binary: started with a configuration, watched until it is ready, killed, stopped and
//! started again.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::{
    free_port, http_client,
    queue::{ACCESS_KEY, REGION},
};

/// How long a service may take until it is ready, and until it has stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `notification-ledger` with a configuration file and a port of its own. It is killed at the end of
/// the test.
#[derive(Debug)]
pub(crate) struct Service {
    folder: TempDir,
    port: u16,
    environment: Vec<(String, String)>,
    absent: Vec<&'static str>,
    process: Option<Process>,
    output: Arc<Mutex<String>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

impl Service {
    /// A service that does not run yet. In the configuration, `{port}` stands for the port that the
    /// API is to listen on and `{folder}` for an empty folder that lasts as long as the test.
    pub(crate) fn new(config: &str) -> Self {
        let service = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            environment: Vec::new(),
            absent: Vec::new(),
            process: None,
            output: Arc::default(),
        };
        service.configure(config);
        service
    }

    /// With this variable in its environment, for example a secret that the configuration refers to.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without this variable, which a service of a test has otherwise.
    pub(crate) fn without_variable(mut self, name: &'static str) -> Self {
        self.absent.push(name);
        self
    }

    /// Writes another configuration, which counts from the next start on.
    pub(crate) fn configure(&self, config: &str) {
        let folder = self.folder.path().to_string_lossy();
        let config = config.replace("{port}", &self.port.to_string()).replace("{folder}", &folder);
        std::fs::write(self.config_file(), config).unwrap();
    }

    /// Writes a file into the folder of the configuration; answers with its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Starts `serve` and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.start_with(&["serve"]).await.unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Starts the binary with these arguments and waits until `/readyz` says so; otherwise tells what
    /// happened instead, with everything that the binary printed.
    pub(crate) async fn start_with(&mut self, arguments: &[&str]) -> Result<(), String> {
        assert!(self.process.is_none(), "it runs already");
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = capture(child.stdout.take().unwrap(), self.output.clone());
        let stderr = capture(child.stderr.take().unwrap(), self.output.clone());
        self.process = Some(Process { child, readers: vec![stdout, stderr] });

        let (client, ready, end) = (http_client(), self.url("/readyz"), Instant::now() + PATIENCE);
        loop {
            if let Ok(answer) = client.get(&ready).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                self.wait().await;
                return Err(format!("it ended with {status} before it was ready:\n{}", self.output()));
            }
            if Instant::now() > end {
                self.kill().await;
                return Err(format!("it was not ready within {PATIENCE:?}:\n{}", self.output()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The API's address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it runs, and where `{folder}` stands for.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that it printed so far, over all its starts.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Whether it has ended by itself, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.child.try_wait().unwrap()
    }

    /// Kills it with SIGKILL: nothing in it gets to run any more.
    pub(crate) async fn kill(&mut self) {
        self.process.as_mut().unwrap().child.start_kill().unwrap();
        self.wait().await;
    }

    /// Asks it to stop with SIGTERM and waits until it has.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    /// Sends a signal, named as in `kill -TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().child.id().unwrap();
        let arguments = [format!("-{name}"), id.to_string()];
        assert!(std::process::Command::new("kill").args(arguments).status().unwrap().success());
    }

    /// Waits until it has ended.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let Ok(status) = tokio::time::timeout(PATIENCE, process.child.wait()).await else {
            panic!("it did not end within {PATIENCE:?}:\n{}", self.output());
        };
        for reader in process.readers {
            reader.await.unwrap();
        }
        status.unwrap()
    }

    /// Runs another command of the binary with the same configuration to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notification-ledger"));
        command.arg("--config").arg(self.config_file()).args(arguments);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.env_remove("RUST_LOG");
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", ACCESS_KEY);
        command.env("AWS_REGION", REGION).env("AWS_EC2_METADATA_DISABLED", "true");
        self.absent.iter().for_each(|name| _ = command.env_remove(name));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }
}

/// Appends what the binary prints to the output, line by line.
fn capture(stream: impl AsyncRead + Unpin + Send + 'static, output: Arc<Mutex<String>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    })
}
