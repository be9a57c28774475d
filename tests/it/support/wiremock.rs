//! `WireMock`, which plays services that speak JSON over HTTP/1.1 and HTTP/2 by what files in
//! `tests/doubles` say, and remembers every request. One process serves all tests that run at a time;
//! each has a part of its addresses to itself.

use std::{process::Command, sync::Arc, sync::Weak};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    free_port, http_client, random_name,
    server::{Server, double},
    variable,
};

/// One test's part of the server.
#[derive(Debug)]
pub(crate) struct Wiremock {
    running: Arc<Running>,
    prefix: String,
}

#[derive(Debug)]
struct Running {
    #[expect(dead_code, reason = "held for its drop, which ends the server")]
    server: Server,
    port: u16,
    tls_port: u16,
}

/// One request as the server remembers it.
#[derive(Debug, Clone)]
pub(crate) struct Seen(Value);

impl Wiremock {
    /// A part that plays what this file says. In the file, `{prefix}` stands for the beginning of this
    /// part's paths, and a string `{NAME}` alone for the value of this name.
    pub(crate) async fn playing(file: &str, values: &[(&str, Value)]) -> Self {
        Self::playing_at(format!("/{}", random_name()), file, values).await
    }

    /// The same for the paths that no other part has, for clients that know the paths themselves. Only
    /// one test may have a file here.
    pub(crate) async fn playing_at_root(file: &str, values: &[(&str, Value)]) -> Self {
        Self::playing_at(String::new(), file, values).await
    }

    async fn playing_at(prefix: String, file: &str, values: &[(&str, Value)]) -> Self {
        static RUNNING: Mutex<Weak<Running>> = Mutex::const_new(Weak::new());
        let running = {
            let mut shared = RUNNING.lock().await;
            if let Some(running) = shared.upgrade() {
                running
            } else {
                let running = Arc::new(Running::start().await);
                *shared = Arc::downgrade(&running);
                running
            }
        };
        let part = Self { running, prefix };
        let text = std::fs::read_to_string(double(file)).unwrap().replace("{prefix}", &part.prefix);
        let mut mappings: Value = serde_json::from_str(&text).unwrap();
        fill(&mut mappings, values);
        part.admin("mappings/import", &mappings).await;
        part
    }

    /// The address of this part with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{}{path}", self.running.port, self.prefix)
    }

    /// The port on which TLS is spoken, with a certificate that nobody vouches for.
    pub(crate) fn tls_port(&self) -> u16 {
        self.running.tls_port
    }

    /// Every request to this part whose path continues like this pattern, in the order of arrival.
    pub(crate) async fn seen(&self, path: &str) -> Vec<Seen> {
        let pattern = json!({"urlPathPattern": format!("{}{path}", self.prefix)});
        let mut found = self.admin("requests/find", &pattern).await;
        let Value::Array(requests) = found["requests"].take() else { panic!("no requests: {found}") };
        let mut requests: Vec<_> = requests.into_iter().map(Seen).collect();
        requests.sort_by_key(|it| it.0["loggedDate"].as_u64());
        requests
    }

    async fn admin(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/__admin/{path}", self.running.port);
        let answer = http_client().post(url).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Running {
    async fn start() -> Self {
        let (port, tls_port, folder) = (free_port(), free_port(), tempfile::tempdir().unwrap());
        let jar = std::fs::read_dir(format!("{}/wiremock/build", variable("LEDGER_TEST_NODE_MODULES")));
        let jar = jar.unwrap().next().unwrap().unwrap().path();
        let mut command = Command::new("java");
        // Quick to start rather than quick after an hour.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-jar"]).arg(jar);
        command.args(["--port", &port.to_string(), "--https-port", &tls_port.to_string()]);
        command.args(["--bind-address", "127.0.0.1", "--disable-banner", "--disable-request-logging"]);
        // On a busy machine a client may be silent for long, and must not find its connection closed.
        command.args(["--jetty-idle-timeout", "300000", "--jetty-acceptor-threads", "1"]);
        command.args(["--global-response-templating", "--root-dir"]);
        command.arg(folder.path());
        let (client, health) = (http_client(), format!("http://127.0.0.1:{port}/__admin/health"));
        let server = Server::start(command, folder, async || {
            client.get(&health).send().await.is_ok_and(|it| it.status().is_success())
        })
        .await;
        Self { server, port, tls_port }
    }
}

impl Seen {
    /// A header by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.0["headers"].as_object().unwrap();
        headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).and_then(|(_, it)| it.as_str())
    }

    /// The body as it came.
    pub(crate) fn body(&self) -> &str {
        self.0["body"].as_str().unwrap()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {}", self.body()))
    }
}

/// Puts values in the place of their names.
fn fill(at: &mut Value, values: &[(&str, Value)]) {
    match at {
        Value::String(text) => {
            let name = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
            let found = values.iter().find(|(it, _)| Some(*it) == name);
            if let Some((_, value)) = found {
                *at = value.clone();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|it| fill(it, values)),
        Value::Object(table) => table.values_mut().for_each(|it| fill(it, values)),
        _ => {}
    }
}
