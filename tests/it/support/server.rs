//! A server program that a test starts for itself: it ends with the test.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::eventually;

/// How long a server may take until it is ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server, with a folder of its own.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts a command, with its output in a file of the folder, and waits until the probe holds.
    pub(crate) async fn start(
        mut command: Command,
        folder: TempDir,
        mut is_ready: impl AsyncFnMut() -> bool,
    ) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, folder };
        eventually(&format!("{command:?} is ready"), PATIENCE, async || {
            assert!(server.child.try_wait().unwrap().is_none(), "{command:?} ended:\n{}", server.printed());
            is_ready().await
        })
        .await;
        server
    }

    /// Everything that it printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// A file of its folder.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails only where it has ended already
        let _ = self.child.wait();
    }
}

/// A file of the repository's folder of doubles.
pub(crate) fn double(name: &str) -> String {
    format!("{}/tests/doubles/{name}", env!("CARGO_MANIFEST_DIR"))
}
