//! Where everything is kept. SQL lives here and nowhere else (SQL-IN-STORE).
//!
//! The verbs are whole transactions: no pool, transaction or driver row crosses this seam. The same
//! verbs exist on SQLite, PostgreSQL and MySQL/MariaDB and pass the same conformance suite.

mod api_keys;
mod baseline;
mod bulk;
mod controls;
mod db;
mod deliveries;
mod delivery_list;
mod devices;
mod digest;
mod error;
mod event_row;
mod evidence;
mod grow;
pub mod inbox;
mod load;
mod log;
mod messages;
mod past;
mod projections;
mod quarantine;
mod rebuilds;
mod redeliveries;
mod remedy;
mod schema;
mod scratch;
mod skips;
mod slots;
pub mod statistics;
mod status;
mod subjects;
mod typed;

use std::sync::Arc;

use sea_query::{Expr, Query};

use crate::{
    clock::Timestamp,
    id::{RecipientId, Shard},
};

pub use api_keys::{API_KEYS_MAX, ApiKey, Revoked};
pub use baseline::{Baseline, Engine, EventRows};
pub use controls::{Control, PauseCause};
pub use db::{AnyRow, Db, DbOptions, Dialect, Mode, Tx};
pub use deliveries::{Due, DueCount, Waiting};
pub use delivery_list::{BadPlace, DeliveryFilter, DeliveryPlace, target_of};
pub use devices::DEVICES_MAX;
pub use digest::Digest;
pub use error::StoreError;
pub use evidence::{Evidence, Reach};
pub use load::{Ahead, Loaded};
pub use log::{Applied, Entry, Home};
pub use messages::{MessageFilter, MessageRows};
pub use past::{Streams, StreamsFound};
pub use projections::{Checkpoint, ProjectError, ProjectionState, Slot, Step};
pub use quarantine::{Decided, Decision, Held, HeldEntry, HeldState, Unreadable};
pub use rebuilds::{Builder, Claim, RebuildState, STALE_AFTER};
pub use redeliveries::Redeliveries;
pub use scratch::{Scratch, ScratchError};
pub use skips::{SkipOutcome, SkippedEvent};
pub use slots::Snapshot;
pub use status::{Pace, ProjectionStatus, ShardStatus};
pub use subjects::{HeldRows, HeldTable, Subject};

/// The ledger's own database.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    identity: Arc<Identity>,
}

/// What was fixed when the ledger was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A UUID.
    pub ledger_id: String,
    /// How many shards the log has.
    pub shards: u16,
    /// When.
    pub created_at: Timestamp,
}

/// What to fix when a ledger is created.
#[derive(Debug, Clone)]
pub struct NewLedger {
    /// A fresh UUID.
    pub ledger_id: String,
    /// How many shards; none takes the database's own default: 1 on SQLite, 4 elsewhere.
    pub shards: Option<u16>,
    /// Now.
    pub created_at: Timestamp,
}

impl Store {
    /// Opens an existing ledger; where there is no file, none is made.
    pub async fn open(options: &DbOptions) -> Result<Self, StoreError> {
        if schema::is_missing_file(options)? {
            return Err(StoreError::NoLedger);
        }
        Self::identify(Db::connect(options).await?).await
    }

    /// Brings the schema up to date and creates the ledger where there is none. Makes no projection: its
    /// tables belong to whoever folds them.
    pub async fn migrate(options: &DbOptions, new: &NewLedger) -> Result<Identity, StoreError> {
        let store = Self::migrated(options, new).await?;
        store.close().await;
        Ok(store.identity().clone())
    }

    /// Brings the schema up to date, creates the ledger where there is none, and opens it.
    ///
    /// `direct` leads to the same database without a transaction pooler, which migrations need.
    pub async fn create_or_open(
        options: &DbOptions,
        direct: Option<&DbOptions>,
        new: &NewLedger,
    ) -> Result<Self, StoreError> {
        if let Some(direct) = direct {
            Self::migrate(direct, new).await?;
            return Self::open(options).await;
        }
        Self::migrated(options, new).await
    }

    async fn migrated(options: &DbOptions, new: &NewLedger) -> Result<Self, StoreError> {
        let db = Db::connect(options).await?;
        schema::migrate(&db).await?;
        schema::create_ledger(&db, new).await?;
        Self::identify(db).await
    }

    async fn identify(db: Db) -> Result<Self, StoreError> {
        let identity = schema::identity(&db).await?.ok_or(StoreError::NoLedger)?;
        Ok(Self { db, identity: Arc::new(identity) })
    }

    /// What was fixed when the ledger was created.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The database.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.identity.shards).map(Shard)
    }

    /// The shard of a recipient.
    #[must_use]
    pub fn shard_of(&self, recipient: &RecipientId) -> Shard {
        Shard::of(recipient, self.identity.shards)
    }

    /// Writes something durably that changes nothing: whether the database takes writes now. The column is
    /// the one that a service without further rights may write.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let statement = Query::update().table("ledger").value("id", Expr::col("id")).to_owned();
        self.db.exec(&statement).await.map(drop)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.db.close().await;
    }
}
