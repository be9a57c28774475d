//! Who rebuilds a projection: one process at a time, by a row and a heartbeat.
//!
//! A claim is a row's columns, taken and renewed by compare-and-set, so that no session holds anything
//! (TRANSACTION-IS-ALL). Whoever has not been seen for [`STALE_AFTER`] is taken for dead, and the next one goes on
//! from the checkpoints.

use std::time::Duration;

use sea_query::{Expr, ExprTrait, Order, Query, UpdateStatement};
use sqlx::FromRow;

use super::{Store, StoreError, Tx};
use crate::clock::Timestamp;

/// How long nothing may be seen of who rebuilds until somebody else may go on.
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// The right to fold, flip and drop the slot that is not live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    projection: &'static str,
    by: String,
    since: Timestamp,
}

/// Who rebuilds a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Machine and process.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// When it last said that it is at it.
    pub seen: Timestamp,
    /// How many events were folded when it began.
    pub from_events: i64,
}

impl Builder {
    /// Whether it is taken for dead.
    fn is_stale(&self, now: Timestamp) -> bool {
        self.seen < now.minus(STALE_AFTER)
    }
}

/// What the catalogue says about rebuilding a projection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildState {
    /// Who is at it.
    pub builder: Option<Builder>,
    /// Whether a service goes on with it by itself at its next start; and then, whether it accepts differences.
    pub goes_on: Option<bool>,
    /// The version of fold and tables that made the slot which is not live, if that is known.
    pub old_version: Option<i32>,
    /// When the live slot was gone back to, if it was.
    pub rolled_back_at: Option<Timestamp>,
    /// How the last rebuild ended, as whoever did it wrote it down.
    pub last_result: Option<String>,
}

impl RebuildState {
    /// Who is at it, if somebody is who is not taken for dead.
    #[must_use]
    pub fn at_it(&self, now: Timestamp) -> Option<&Builder> {
        self.builder.as_ref().filter(|it| !it.is_stale(now))
    }
}

#[derive(FromRow)]
struct Row {
    name: String,
    building_by: Option<String>,
    building_since_us: Option<i64>,
    building_seen_us: Option<i64>,
    building_from_events: Option<i64>,
    building_goes_on: Option<i32>,
    old_version: Option<i32>,
    rolled_back_at_us: Option<i64>,
    last_result: Option<String>,
}

impl Claim {
    /// Of which projection.
    #[must_use]
    pub const fn projection(&self) -> &'static str {
        self.projection
    }
}

impl Store {
    /// What the catalogue says about rebuilding each projection, by name.
    pub async fn rebuild_states(&self) -> Result<Vec<(String, RebuildState)>, StoreError> {
        let statement = Query::select()
            .columns(["name", "building_by", "building_since_us", "building_seen_us", "building_from_events"])
            .columns(["building_goes_on", "old_version", "rolled_back_at_us", "last_result"])
            .from("projections")
            .order_by("name", Order::Asc)
            .to_owned();
        let rows: Vec<Row> = self.db.all(&statement).await?;
        Ok(rows.into_iter().map(|row| (row.name.clone(), row.read())).collect())
    }

    /// What the catalogue says about rebuilding a projection; nothing where it is not there.
    pub async fn rebuild_state(&self, projection: &str) -> Result<RebuildState, StoreError> {
        let states = self.rebuild_states().await?;
        Ok(states.into_iter().find(|it| it.0 == projection).map(|it| it.1).unwrap_or_default())
    }

    /// Takes the right to rebuild, unless somebody who is not taken for dead has it. `by` is who takes it.
    pub async fn claim_rebuild(
        &self,
        projection: &'static str,
        by: &str,
        now: Timestamp,
    ) -> Result<Option<Claim>, StoreError> {
        let gone = Expr::col("building_seen_us").lt(now.minus(STALE_AFTER).as_micros());
        let free = Expr::col("building_by").is_null().or(gone);
        let claim = Claim { projection, by: by.to_owned(), since: now };
        let taken = self.db.exec(claim.take().and_where(free)).await? == 1;
        Ok(taken.then_some(claim))
    }

    /// Takes the right to rebuild from whoever has it, who notices and stops.
    pub async fn seize_rebuild(
        &self,
        projection: &'static str,
        by: &str,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        let claim = Claim { projection, by: by.to_owned(), since: now };
        self.db.exec(&claim.take()).await?;
        Ok(claim)
    }

    /// Says that whoever has the claim is at it still; false when somebody else took it.
    pub async fn renew_rebuild(&self, claim: &Claim, now: Timestamp) -> Result<bool, StoreError> {
        Ok(self.db.exec(&claim.renew(now)).await? == 1)
    }

    /// Notes how many events were folded when this rebuild began, and whether a service goes on with it by
    /// itself (and then, whether it accepts differences).
    pub async fn begin_rebuild(
        &self,
        claim: &Claim,
        from_events: i64,
        goes_on: Option<bool>,
    ) -> Result<(), StoreError> {
        let statement = claim
            .update()
            .value("building_from_events", from_events)
            .value("building_goes_on", goes_on.map(i32::from))
            .to_owned();
        self.db.exec(&statement).await.map(drop)
    }

    /// Gives the claim back. `is_over`: no service is to go on with the rebuild by itself; else that stays as it
    /// was. With a `result`, that is what is shown as the last one from now on.
    pub async fn release_rebuild(
        &self,
        claim: &Claim,
        is_over: bool,
        result: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut statement = claim.update();
        statement
            .value("building_by", Option::<String>::None)
            .value("building_since_us", Option::<i64>::None)
            .value("building_seen_us", Option::<i64>::None)
            .value("building_from_events", Option::<i64>::None);
        if is_over {
            statement.value("building_goes_on", Option::<i32>::None);
        }
        if let Some(result) = result {
            statement.value("last_result", result);
        }
        self.db.exec(&statement).await.map(drop)
    }
}

/// Holds the catalogue's row for the claim until the transaction ends; false when somebody else took it.
pub(super) async fn hold(tx: &mut Tx, claim: &Claim, now: Timestamp) -> Result<bool, StoreError> {
    Ok(tx.exec(&claim.renew(now)).await? == 1)
}

impl Claim {
    fn take(&self) -> UpdateStatement {
        Query::update()
            .table("projections")
            .value("building_by", self.by.as_str())
            .value("building_since_us", self.since.as_micros())
            .value("building_seen_us", self.since.as_micros())
            .value("building_from_events", 0_i64)
            .and_where(Expr::col("name").eq(self.projection))
            .to_owned()
    }

    /// An update for as long as the claim holds.
    fn update(&self) -> UpdateStatement {
        Query::update()
            .table("projections")
            .and_where(Expr::col("name").eq(self.projection))
            .and_where(Expr::col("building_by").eq(self.by.as_str()))
            .and_where(Expr::col("building_since_us").eq(self.since.as_micros()))
            .to_owned()
    }

    fn renew(&self, now: Timestamp) -> UpdateStatement {
        self.update().value("building_seen_us", now.as_micros()).to_owned()
    }
}

impl Row {
    fn read(self) -> RebuildState {
        let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
        let builder = self.building_by.map(|by| Builder {
            by,
            since: time(self.building_since_us).unwrap_or_default(),
            seen: time(self.building_seen_us).unwrap_or_default(),
            from_events: self.building_from_events.unwrap_or_default(),
        });
        RebuildState {
            builder,
            goes_on: self.building_goes_on.map(|it| it != 0),
            old_version: self.old_version,
            rolled_back_at: time(self.rolled_back_at_us),
            last_result: self.last_result,
        }
    }
}
