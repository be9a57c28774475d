//! What a benchmark runs on: a ledger of its own in a scratch database, removed at the end.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::samples::{Samples, millis};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, Loaded, Shards},
    projection,
    store::{Baseline, DbOptions, Engine, NewLedger, Scratch, Store},
};

/// Syncs that are timed to tell a disk from memory.
const SYNCS: usize = 50;

/// A fresh ledger and everything around it.
#[derive(Debug)]
pub(super) struct Stage {
    /// The ledger's database.
    pub(super) store: Store,
    /// The same database without a ledger.
    pub(super) baseline: Baseline,
    /// The machine's clock.
    pub(super) clock: Arc<dyn Clock>,
    /// What is configured besides.
    pub(super) config: Config,
    /// Which database it is.
    pub(super) engine: Engine,
    /// How long the disk takes for a small write, where that can be measured from here.
    pub(super) sync_ms: Option<f64>,
    scratch: Scratch,
}

impl Stage {
    /// Makes the scratch database beside the configured one, or in the folder for temporary files where
    /// none is configured, and a ledger in it. The tables of projections are not made yet.
    pub(super) async fn open(loaded: Loaded, shards: Option<u16>) -> anyhow::Result<Self> {
        let is_given = loaded.origin("database.url").is_some();
        let config = loaded.config;
        let beside = if is_given {
            config.database.migration_url().expose().to_owned()
        } else {
            format!("sqlite://{}", std::env::temp_dir().join("bench.db").display())
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let name = format!("bench_{:016x}", fastrand::u64(..));
        let scratch = Scratch::make(&beside, &name).await?;
        match Self::furnish(&scratch, &config, clock.as_ref(), shards).await {
            Ok((store, engine, sync_ms)) => {
                let baseline = Baseline::new(&store);
                Ok(Self { store, baseline, clock, config, engine, sync_ms, scratch })
            }
            Err(error) => {
                // The first error is the one to tell of.
                let _ = scratch.remove().await;
                Err(error)
            }
        }
    }

    async fn furnish(
        scratch: &Scratch,
        config: &Config,
        clock: &dyn Clock,
        shards: Option<u16>,
    ) -> anyhow::Result<(Store, Engine, Option<f64>)> {
        let options = DbOptions {
            url: scratch.url().to_owned(),
            pooler: false,
            max_connections: config.database.max_connections,
            acquire_timeout: config.database.acquire_timeout,
        };
        let configured = match config.log.shards {
            Shards::Auto => None,
            Shards::Fixed(shards) => Some(shards),
        };
        let new = NewLedger {
            ledger_id: "bench".to_owned(),
            shards: shards.or(configured),
            created_at: clock.now(),
        };
        let store = Store::create_or_open(&options, None, &new).await?;
        let engine = Baseline::new(&store).engine().await?;
        let sync_ms = scratch.folder().map(time_sync).transpose()?;
        Ok((store, engine, sync_ms))
    }

    /// Where the database is.
    pub(super) fn url(&self) -> &str {
        self.scratch.url()
    }

    /// Makes the tables of all projections.
    pub(super) async fn make_projections(&self) -> anyhow::Result<()> {
        for projection in projection::ALL {
            self.store.ensure_projection(*projection, self.clock.now()).await?;
        }
        Ok(())
    }

    /// How many events the log holds.
    pub(super) async fn events(&self) -> anyhow::Result<u64> {
        let heads = self.store.heads().await?;
        Ok(heads.iter().map(|it| u64::try_from(it.position.0).unwrap_or(0)).sum())
    }

    /// Removes the scratch database.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.store.close().await;
        self.scratch.remove().await.context("the scratch database stays behind; remove it by hand")
    }
}

/// The median time that the disk under a folder takes to keep a page.
fn time_sync(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("sync");
    let mut file = File::create(&path)?;
    let mut samples = Samples::default();
    for _ in 0..SYNCS {
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    std::fs::remove_file(path)?;
    let [median]: [Duration; 1] = samples.at([500]);
    Ok(millis(median))
}
