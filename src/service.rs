//! Puts the service together: the only place that knows which parts there are.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{
    clock::{Clock, SystemClock},
    config::ConfigError,
    config::{Config, Database, DatabaseUrl, Role, Shards},
    http::{
        self, App,
        auth::{Callers, Issued},
    },
    id,
    ledger::{
        Ledger, LedgerOptions,
        appender::Appender,
        dispatch::{Dispatch, Dispatched, Takes},
        live::Live,
    },
    projection,
    provider::{self, Configured},
    routing::{Route, Routing},
    source::sqs::{Sqs, SqsOptions},
    store::{DbOptions, Identity, NewLedger, Store},
    supervisor::{BoxError, Tasks},
    telemetry,
    wake::Wake,
    worker::{
        self,
        announce::Announce,
        deliver::{Deliver, DeliverOptions},
        ingest,
        present::Present,
        project::Project,
        prove::Prove,
        rebuild::background::Rebuilds,
    },
};

/// The configured providers by name.
pub type Providers = BTreeMap<String, Configured>;

/// A ledger that is put together; its appenders have to be run.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// One a shard.
    pub appenders: Vec<Appender>,
    /// Who may be called.
    pub providers: Providers,
    /// The attempts that ride with arrivals, where this process delivers.
    pub dispatched: Option<Dispatched>,
}

/// Opens the database, brings its schema up to date, and makes the projections' tables.
pub async fn open_store(config: &Config, clock: &dyn Clock) -> anyhow::Result<Store> {
    let database = &config.database;
    let direct = database.direct_url.as_ref().map(|url| options(database, url, false));
    let options = options(database, &database.url, database.pooler);
    let store = Store::create_or_open(&options, direct.as_ref(), &new_ledger(config, clock))
        .await
        .with_context(|| format!("database {} cannot be used", database.url))?;
    for projection in projection::ALL {
        let state = store.ensure_projection(*projection, clock.now()).await?;
        if state.version != projection.version() {
            tracing::warn!(
                projection = projection.name(),
                has = state.version,
                wanted = projection.version(),
                "the tables of {0} are of another version: they are shown as of where they stand until {0} is rebuilt, \
                 which a process with the role project does by itself, and `projections rebuild {0}`",
                projection.name()
            );
        }
    }
    Ok(store)
}

/// Brings the schema up to date and creates the ledger where there is none, and no more: what it makes
/// belongs to its owner, and whoever serves needs no right to any of it yet.
pub async fn migrate(config: &Config, clock: &dyn Clock) -> anyhow::Result<Identity> {
    let database = &config.database;
    let (url, pooler) = match &database.direct_url {
        Some(url) => (url, false),
        None => (&database.url, database.pooler),
    };
    Store::migrate(&options(database, url, pooler), &new_ledger(config, clock))
        .await
        .with_context(|| format!("database {url} cannot be migrated"))
}

/// Opens the database as it is, for a command that only reads.
pub async fn open_existing(config: &Config) -> anyhow::Result<Store> {
    let database = &config.database;
    let store = Store::open(&options(database, &database.url, database.pooler)).await;
    store.with_context(|| format!("database {} cannot be used", database.url))
}

fn new_ledger(config: &Config, clock: &dyn Clock) -> NewLedger {
    NewLedger {
        ledger_id: id::new_ledger_id(),
        shards: match config.log.shards {
            Shards::Auto => None,
            Shards::Fixed(shards) => Some(shards),
        },
        created_at: clock.now(),
    }
}

fn options(database: &Database, url: &DatabaseUrl, pooler: bool) -> DbOptions {
    DbOptions {
        url: url.expose().to_owned(),
        pooler,
        max_connections: database.max_connections,
        acquire_timeout: database.acquire_timeout,
    }
}

/// Opens the ledger for a command that writes but does not deliver: it plans for the providers, and
/// needs none of their secrets.
pub async fn open_ledger(config: &Config) -> anyhow::Result<(Ledger, Vec<Appender>)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let routing = routing(config)?;
    let store = open_store(config, clock.as_ref()).await?;
    let options = LedgerOptions { batch_max: config.log.batch_max, routing, dispatch: None };
    Ok(Ledger::new(store, clock, options))
}

/// Opens the ledger with the given providers; with `worker`, attempts may ride with arrivals in that
/// worker's name.
pub async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    providers: Providers,
    worker: Option<&str>,
) -> anyhow::Result<Opened> {
    let store = open_store(config, clock.as_ref()).await?;
    let takes = |(name, it): (&String, &Configured)| {
        let rate = it.limits.rate.map(|it| (it.per_s, it.burst));
        (name.clone(), Takes { calls: it.concurrency, rate })
    };
    let places = providers.values().map(|it| it.concurrency).sum();
    let dispatch = |worker| Dispatch::new(worker, places, providers.iter().map(takes));
    let (dispatch, dispatched) = worker.map(dispatch).unzip();
    let routing = routing(config)?;
    let options = LedgerOptions { batch_max: config.log.batch_max, routing, dispatch };
    let (ledger, appenders) = Ledger::new(store, clock, options);
    Ok(Opened { ledger, appenders, providers, dispatched })
}

/// The configured providers and routes as planning needs them.
pub fn routing(config: &Config) -> anyhow::Result<Routing> {
    let push = &config.push;
    let mut providers = BTreeMap::new();
    for (name, it) in &config.providers {
        providers.insert(name.clone(), provider::known(name, &it.kind, it.settings.clone())?);
    }
    let route = |it: &crate::config::Route| Route {
        app: it.app.clone(),
        platform: it.platform.clone(),
        category: it.category.clone(),
        priority: it.priority,
        providers: it.providers.clone(),
    };
    Ok(Routing {
        default_provider: push.provider.clone(),
        routes: push.routes.iter().map(route).collect(),
        providers,
        to_devices: push.to_devices,
    })
}

/// Builds every configured provider; reads the secrets that they refer to.
pub fn build_providers(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Providers> {
    let build = |(name, settings): (&String, &crate::config::ProviderSettings)| {
        let built = provider::build(name, &settings.kind, settings.settings.clone(), Arc::clone(clock))?;
        Ok((name.clone(), built))
    };
    config.providers.iter().map(build).collect()
}

/// How often to look for news of the inboxes that somebody listens to, where no hint arrives.
const LOOK_FOR_NEWS: Duration = Duration::from_millis(200);

/// What was started, for whoever wants to talk to it.
#[derive(Debug)]
pub struct Running {
    /// Where the HTTP API answers.
    pub api: Option<SocketAddr>,
    /// The ledger; whoever keeps it keeps the service from coming to its end.
    pub ledger: Ledger,
}

/// Starts everything that the configured roles ask for; it ends when the tasks' stop is asked for.
///
/// First everything that can fail is made ready: keys, providers, the database, queues, the API's
/// socket. Only then anything runs, so that a start that fails takes no message and claims no delivery.
pub async fn start(
    config: &Config,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
    metrics: PrometheusHandle,
) -> anyhow::Result<Running> {
    start_on(config, clock, tasks, metrics, None).await
}

/// The same with a socket for the API that is open already, in place of the configured address.
pub async fn start_on(
    config: &Config,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
    metrics: PrometheusHandle,
    listener: Option<TcpListener>,
) -> anyhow::Result<Running> {
    let roles = config.service.role_set();
    let has = |role| roles.contains(&role);
    let keys = config.api.read_keys().map_err(ConfigError::Invalid)?;
    let (users, fetching) = config.api.users.build().map_err(|it| ConfigError::Invalid(vec![it]))?;
    let providers = build_providers(config, &clock)?;
    let queues = if has(Role::Ingest) { open_queues(config).await? } else { Vec::new() };
    let worker = config.delivery.worker_name();
    let worker = has(Role::Deliver).then_some(worker.as_str());
    let Opened { ledger, appenders, providers, dispatched } =
        open(config, Arc::clone(&clock), providers, worker).await?;
    let listener = match listener {
        _ if !has(Role::Api) => None,
        Some(listener) => Some(listener),
        None => Some(listen(config, ledger.store()).await?),
    };
    let api = listener.as_ref().map(TcpListener::local_addr).transpose()?;

    for appender in appenders {
        // Ends when the last clone of the ledger is gone, that is after everybody else.
        tasks.spawn_finite("append", appender.run().map(Ok::<_, BoxError>));
    }
    let stop = tasks.stop().soft();
    let folded = Wake::default();
    let rebuilds = Rebuilds::new(ledger.store().clone(), Arc::clone(&clock), tasks.clone());
    if has(Role::Project) {
        let renew = rebuilds.clone();
        tasks.spawn_finite("rebuild", async move {
            renew.renew().await;
            Ok::<_, BoxError>(())
        });
        let project = Project::new(ledger.clone(), config.projection.batch_max as u64, folded.clone());
        let run = worker::run(project, ledger.appended(), config.projection.poll, stop.clone());
        tasks.spawn("project", run);
        let present =
            worker::run(Present::new(ledger.clone()), folded.clone(), config.projection.poll, stop.clone());
        tasks.spawn("present", present);
        if config.projection.prove_recipients > 0 {
            let recipients = config.projection.prove_recipients;
            let prove = Prove::new(ledger.clone(), Arc::clone(&clock), recipients, fastrand::Rng::new());
            let run = worker::run(prove, Wake::default(), config.projection.prove_every, stop.clone());
            tasks.spawn("prove", run);
        }
    }
    if let Some(dispatched) = dispatched {
        let options = DeliverOptions { batch_max: config.delivery.batch_max, poll: config.delivery.poll };
        let deliver = Deliver::new(ledger.clone(), dispatched, providers.into_values(), &options);
        tasks.spawn("deliver", deliver.run(folded.clone(), stop.clone()));
    }
    for (queue, pollers_max) in queues {
        for poller in ingest::pollers(queue, ledger.clone(), pollers_max) {
            let (name, stop) = (poller.name(), stop.clone());
            tasks.spawn(name, poller.run(stop).map(Ok::<_, BoxError>));
        }
    }
    let upkeep = telemetry::upkeep(metrics.clone(), stop.clone());
    tasks.spawn("metrics", upkeep.map(Ok::<_, BoxError>));
    if let Some(listener) = listener {
        let settings = http::Settings {
            wait_for_projection: config.api.wait_for_projection,
            body_limit_bytes: config.api.body_limit_bytes,
            request_timeout: config.api.request_timeout,
            recheck: http::RECHECK,
            pages: config.api.cors.pages(),
        };
        if let Some(fetching) = fetching {
            tasks.spawn("users' keys", fetching.run(stop.clone()).map(Ok::<_, BoxError>));
        }
        let issued = Arc::new(Issued::new(ledger.store().clone()));
        let note = Arc::clone(&issued).note_uses(stop.clone());
        tasks.spawn("uses of keys", note.map(Ok::<_, BoxError>));
        let limits = config.api.limits.build();
        let callers = Callers::new(keys, users).with_issued(issued).with_limits(limits);
        let live = Live::new(config.api.streams_max);
        let announce = Announce::new(ledger.clone(), Arc::clone(&live));
        tasks.spawn("announce", worker::run(announce, folded, LOOK_FOR_NEWS, stop.clone()));
        let app = App { ledger: ledger.clone(), callers, settings, live, rebuilds, metrics: Some(metrics) };
        tasks.spawn("api", http::serve(listener, app, stop));
    }
    Ok(Running { api, ledger })
}

/// Opens the API's socket.
async fn listen(config: &Config, store: &Store) -> anyhow::Result<TcpListener> {
    let api = &config.api;
    let has_callers = api.has_callers() || store.has_api_keys().await?;
    if !has_callers && !api.is_loopback() {
        bail!(
            "api.bind is {}, which others can reach, and there is no key; make one with `notification-ledger keys \
             create NAME --scope SCOPE`, or configure [[api.keys]] or [api.users], or bind to 127.0.0.1",
            api.bind
        );
    }
    let listener = TcpListener::bind(api.bind).await;
    let listener = listener.with_context(|| format!("api.bind: {} cannot be listened on", api.bind))?;
    let address = listener.local_addr()?;
    if has_callers {
        let (keys, users) = (api.keys.len(), api.users.is_set());
        tracing::info!(%address, keys, users, "the API answers callers with a key or a token");
    } else {
        tracing::warn!(%address, "there is no API key: the API answers everybody on this machine, and nobody else");
    }
    Ok(listener)
}

/// Finds every configured queue.
async fn open_queues(config: &Config) -> anyhow::Result<Vec<(Sqs, usize)>> {
    let mut queues = Vec::new();
    for queue in &config.ingest.sqs {
        let options = SqsOptions {
            name: queue.name.clone(),
            queue: queue.queue_url.clone(),
            endpoint_url: queue.endpoint_url.clone(),
            region: queue.region.clone(),
            visibility_timeout: queue.visibility_timeout,
            wait: queue.wait,
            weak_ids: queue.weak_ids,
        };
        let source = Sqs::open(options).await;
        let source = source.with_context(|| format!("queue {} cannot be used", queue.name))?;
        queues.push((source, queue.pollers_max));
    }
    Ok(queues)
}
