//! What the demo plays on: a fresh folder, a push endpoint, and the service between them, put together
//! from a configuration file as any other service is.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{
    super::folder::Folder,
    app::{self, App},
    client::Client,
    endpoint::Endpoint,
};
use crate::{
    clock::SystemClock,
    config::Sources,
    ledger::Ledger,
    service::{self, Running},
    store::Store,
    supervisor::Tasks,
    telemetry,
};

/// Where the API listens, if nobody else does.
const PORT: u16 = 8080;
/// How long the database may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// What the service tells of itself, in the folder.
const LOG_FILE: &str = "service.log";

/// What a caller sends to be known, in the folder; for curl.
const HEADER_FILE: &str = "key";
/// The secret in it.
const KEY_FILE: &str = "key.secret";
/// What the app's login signs with, in the folder.
const SECRET_FILE: &str = "app.secret";

/// A service that runs, and what is around it.
#[derive(Debug)]
pub(super) struct Stage {
    /// The ledger of the service.
    pub(super) ledger: Ledger,
    /// Who calls its API.
    pub(super) client: Client,
    /// Where its pushes go.
    pub(super) endpoint: Endpoint,
    /// The file with the header that says who calls.
    pub(super) header: String,
    /// Where the app's page is.
    pub(super) page: String,
    /// Whether the usual port was taken.
    pub(super) port_taken: bool,
}

/// What is to be cleared away when everything has stopped.
#[derive(Debug, Default)]
pub(super) struct Props {
    /// The folder.
    pub(super) folder: Option<Folder>,
    /// The database in it.
    pub(super) store: Option<Store>,
}

impl Stage {
    /// Sets it up.
    pub(super) async fn set(tasks: &Tasks, props: &mut Props) -> anyhow::Result<Self> {
        let folder = props.folder.insert(Folder::new("demo")?);
        let endpoint = Endpoint::start(tasks).await?;
        let (listener, port_taken) = listen().await?;
        let bind = listener.local_addr()?;
        let app = App::new().await?;
        let page = app.origin()?;
        let key = app::new_secret()?;
        let header_file = folder.file(HEADER_FILE);
        for (file, text) in [
            (folder.file(SECRET_FILE), app.secret().expose().to_owned()),
            (folder.file(KEY_FILE), key.expose().to_owned()),
            (header_file.clone(), format!("Authorization: Bearer {}", key.expose())),
        ] {
            fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
        }
        let file = folder.file("notification-ledger.toml");
        let text = configuration(folder.path(), bind, &endpoint.url(), &page)?;
        fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
        // Nothing but this file: the environment of the machine is for other services.
        let config = Sources::none().with_file(&file).load()?.config;
        let log = File::create(folder.file(LOG_FILE)).context("the log of the service cannot be written")?;
        telemetry::start_logs_in(log, &config.telemetry.log)?;
        let metrics = telemetry::metrics()?;
        let clock = Arc::new(SystemClock);
        let Running { ledger, .. } =
            service::start_on(&config, clock, tasks, metrics, Some(listener)).await?;
        props.store = Some(ledger.store().clone());
        let client = Client::new(bind, key)?;
        app.start(client.base().to_owned(), tasks);
        Ok(Self { ledger, client, endpoint, header: header_file.display().to_string(), page, port_taken })
    }
}

impl Props {
    /// The last lines that the service wrote about itself.
    pub(super) fn last_words(&self, lines: usize) -> String {
        let text = self.folder.as_ref().and_then(|it| fs::read_to_string(it.file(LOG_FILE)).ok());
        let text = text.unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Clears it all away; for when nothing uses it any more.
    pub(super) async fn clear(self) {
        if let Some(store) = self.store {
            // What did not stop in time may hold a connection for ever.
            let _ = tokio::time::timeout(CLOSE_MAX, store.close()).await;
        }
    }
}

/// Opens the usual port, or any free one; and whether the usual one was taken. It stays open until the
/// service has it, so that nobody else can take it in between.
async fn listen() -> anyhow::Result<(TcpListener, bool)> {
    if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await {
        return Ok((listener, false));
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    Ok((any.context("there is no free port on 127.0.0.1")?, true))
}

/// The configuration: all that differs from the defaults.
fn configuration(folder: &Path, bind: SocketAddr, push_url: &str, page: &str) -> anyhow::Result<String> {
    let database = folder.join("ledger.db");
    let database = database.to_str().context("the name of the temporary folder is not UTF-8")?;
    let secret = |name: &str| {
        let file = folder.join(name);
        let file = file.to_str().context("the name of the temporary folder is not UTF-8")?;
        anyhow::Ok(toml::Value::from(format!("file:{file}")))
    };
    Ok(format!(
        r#"# Written by `notification-ledger demo`, which removes it at its end.
[database]
url = "sqlite://{database}"

[api]
bind = "{bind}"

# Everything, for whoever looks around.
[[api.keys]]
name = "demo"
secret = {key}
scopes = ["admin"]

# The app's own login and web page.
[api.users]
issuer = "{issuer}"
audience = "{audience}"
algorithms = ["HS256"]
secret = {secret}

[api.cors]
origins = ["{page}"]

[delivery]
poll_ms = 100
worker = "demo"

[push]
provider = "acme"

# A vendor that answers {{"id": …}} or {{"error": …}}. The waits are short, so that there is something to see.
[providers.acme]
kind = "http"
url = "{push_url}"
id = "/id"
code = "/error"
retry = {{ schedule_s = [0.3, 0.6, 1.2], jitter = 0, retry_after_min_s = 0.1 }}
outcomes = [{{ status = 400, pointer = "/error", equals = "{invalid}", class = "invalid_target" }}]

[telemetry]
log = "warn"
"#,
        database = percent_encoded(database),
        issuer = app::ISSUER,
        audience = app::AUDIENCE,
        secret = secret(SECRET_FILE)?,
        key = secret(KEY_FILE)?,
        invalid = super::endpoint::INVALID_TOKEN,
    ))
}

/// A path as it stands in an address.
fn percent_encoded(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    let byte = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        config::Config,
        service::{build_providers, open_store},
    };

    fn load(folder: &Path) -> Config {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let text = configuration(folder, bind, "http://127.0.0.1:9/push", "http://127.0.0.1:9").unwrap();
        for name in [SECRET_FILE, KEY_FILE] {
            fs::write(folder.join(name), [b'x'; 64]).unwrap();
        }
        let file = folder.join("notification-ledger.toml");
        fs::write(&file, text).unwrap();
        Sources::none().with_file(file).load().unwrap().config
    }

    #[test]
    fn the_configuration_has_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let providers = build_providers(&load(folder.path()), &clock).unwrap();
        assert_eq!(providers["acme"].policy.schedule[0].as_millis(), 300);
    }

    #[tokio::test]
    async fn the_database_lies_in_the_folder_whatever_that_is_called() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a b%20?c#d\"é");
        fs::create_dir(&folder).unwrap();
        let store = open_store(&load(&folder), &SystemClock).await.unwrap();
        store.close().await;
        assert!(folder.join("ledger.db").exists());
    }
}
