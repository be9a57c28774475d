//! nginx as a push service that speaks HTTP/2 and keeps up under load; what it is told stands in
//! `tests/doubles/nginx.conf`.

use std::process::Command;

use super::{
    free_port,
    server::{Server, double},
    variable,
};

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    server: Server,
    port: u16,
}

/// One request that it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) apns_id: String,
    pub(crate) status: u16,
    pub(crate) connection: u64,
}

impl Nginx {
    /// An nginx that takes so many streams at a time, and so many requests a connection before it says
    /// that it takes no more.
    pub(crate) async fn start(streams: u32, requests: u32) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let text = std::fs::read_to_string(double("nginx.conf")).unwrap();
        let file = folder.path().join("nginx.conf");
        let text = text.replace("{folder}", folder.path().to_str().unwrap());
        let text = text.replace("{port}", &port.to_string()).replace("{streams}", &streams.to_string());
        std::fs::write(&file, text.replace("{requests}", &requests.to_string())).unwrap();
        let mut command = Command::new(variable("LEDGER_TEST_NGINX"));
        command.arg("-e").arg("stderr").arg("-c").arg(file).arg("-p").arg(folder.path());
        let server = Server::start(command, folder, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { server, port }
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every request that it answered, in the order of its answers.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        let answered = |line: &str| {
            let [apns_id, status, connection] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let apns_id: &str = apns_id;
            let (status, connection) = (status.parse().unwrap(), connection.parse().unwrap());
            Answered { apns_id: apns_id.to_owned(), status, connection }
        };
        self.server.read("seen").lines().map(answered).collect()
    }
}
