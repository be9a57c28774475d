//! Pauses of providers: who paused or resumed which, and why. Nothing is overwritten; of each provider the
//! last row holds, for every process.

use sea_query::{Expr, ExprTrait, JoinType, Order, Query};
use sqlx::FromRow;

use super::{Mode, Store, StoreError};
use crate::clock::Timestamp;

/// A pause or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The how-manieth of its provider; the highest holds. 0 for what is not written yet.
    pub number: i64,
    /// Which provider.
    pub provider: String,
    /// Whether it is paused by this, or resumed.
    pub is_pause: bool,
    /// What it comes from.
    pub cause: PauseCause,
    /// Who: an operator, the name of an API key, a worker.
    pub actor: String,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// When a pause ends by itself, with one call to find out; none: not before somebody resumes it.
    pub until: Option<Timestamp>,
}

/// What a provider is paused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PauseCause {
    /// Somebody wants it so.
    Operator,
    /// It refuses our credentials or configuration.
    AuthConfig,
    /// It calls so many targets invalid that it is not believed.
    InvalidTargets,
}

impl PauseCause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operator, Self::AuthConfig, Self::InvalidTargets];

    /// As written in the database and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::AuthConfig => "auth_config",
            Self::InvalidTargets => "invalid_targets",
        }
    }
}

#[derive(FromRow)]
struct Row {
    provider: String,
    number: i64,
    action: String,
    cause: String,
    actor: String,
    reason: String,
    at_us: i64,
    until_us: Option<i64>,
}

const COLUMNS: [&str; 8] = ["provider", "number", "action", "cause", "actor", "reason", "at_us", "until_us"];

impl Store {
    /// What holds for every provider that was ever paused.
    pub async fn controls(&self) -> Result<Vec<Control>, StoreError> {
        let last = Query::select()
            .column("provider")
            .expr_as(Expr::col("number").max(), "number")
            .from("provider_controls")
            .group_by_col("provider")
            .to_owned();
        let is_last = Expr::col(("c", "provider"))
            .equals(("l", "provider"))
            .and(Expr::col(("c", "number")).equals(("l", "number")));
        let statement = Query::select()
            .columns(COLUMNS.map(|it| ("c", it)))
            .from_as("provider_controls", "c")
            .join_subquery(JoinType::InnerJoin, last, "l", is_last)
            .order_by(("c", "provider"), Order::Asc)
            .to_owned();
        let rows: Vec<Row> = self.db.all(&statement).await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The last pauses and resumptions of a provider, the newest first.
    pub async fn control_history(&self, provider: &str, limit: u64) -> Result<Vec<Control>, StoreError> {
        let rows: Vec<Row> = self.db.all(&of(provider, limit)).await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// Pauses or resumes a provider. Nothing is written, and nothing comes back, where it is so already:
    /// paused for the same cause to the same end or later, or running.
    pub async fn control(&self, wanted: &Control) -> Result<bool, StoreError> {
        loop {
            match self.try_control(wanted).await {
                // Somebody else took the next number at the same time; what holds now is another matter.
                Err(error) if error.is_unique_violation() => {}
                done => return done,
            }
        }
    }

    async fn try_control(&self, wanted: &Control) -> Result<bool, StoreError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        let last: Option<Row> = tx.first(&of(&wanted.provider, 1)).await?;
        let number = last.as_ref().map_or(1, |it| it.number + 1);
        let last = last.map(Row::read).transpose()?;
        if last.as_ref().map_or(!wanted.is_pause, |it| it.covers(wanted)) {
            tx.commit().await?;
            return Ok(false);
        }
        let insert = Query::insert()
            .into_table("provider_controls")
            .columns(COLUMNS)
            .values([
                wanted.provider.as_str().into(),
                number.into(),
                if wanted.is_pause { "pause" } else { "resume" }.into(),
                wanted.cause.as_str().into(),
                wanted.actor.as_str().into(),
                wanted.reason.as_str().into(),
                wanted.at.as_micros().into(),
                wanted.until.map(Timestamp::as_micros).into(),
            ])
            .map_err(|error| StoreError::Corrupt(format!("a control's columns and values differ: {error}")))?
            .to_owned();
        tx.exec(&insert).await?;
        tx.commit().await?;
        Ok(true)
    }
}

fn of(provider: &str, limit: u64) -> sea_query::SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from("provider_controls")
        .and_where(Expr::col("provider").eq(provider))
        .order_by("number", Order::Desc)
        .limit(limit)
        .to_owned()
}

impl Control {
    /// Whether this, which holds, makes `wanted` unnecessary. A pause by an operator is stronger than any
    /// other and only an operator ends it.
    fn covers(&self, wanted: &Self) -> bool {
        let by_operator = |it: &Self| it.cause == PauseCause::Operator;
        match (self.is_pause, wanted.is_pause) {
            (false, false) => true,
            (false, true) => false,
            (true, false) => by_operator(self) && !by_operator(wanted),
            (true, true) if by_operator(self) || by_operator(wanted) => by_operator(self),
            (true, true) => {
                self.cause == wanted.cause
                    && self.until.is_none_or(|held| wanted.until.is_some_and(|end| end <= held))
                    || self.until.is_none()
            }
        }
    }
}

impl Row {
    fn read(self) -> Result<Control, StoreError> {
        let cause = PauseCause::ALL.into_iter().find(|it| it.as_str() == self.cause);
        let cause = cause.ok_or_else(|| {
            StoreError::Corrupt(format!("provider_controls has the cause {:?}", self.cause))
        })?;
        Ok(Control {
            number: self.number,
            provider: self.provider,
            is_pause: self.action == "pause",
            cause,
            actor: self.actor,
            reason: self.reason,
            at: Timestamp::from_micros(self.at_us),
            until: self.until_us.map(Timestamp::from_micros),
        })
    }
}
