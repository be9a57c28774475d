//! Deliveries as operators look for them: those in one status, page by page, and one with its attempts.
//!
//! One status a question, so that every answer is one range of one index; what narrows it down further is
//! looked at row by row within that range. Nothing here is decided: what may be done with a delivery is
//! asked of the log when it is done.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sea_query::{Cond, Expr, ExprTrait, Order, Query, SelectStatement};

use super::{Mode, Store, StoreError, deliveries::target, messages::rows_of, typed::Typed};
use crate::{
    clock::Timestamp,
    event::FailureClass,
    id::{DeliveryId, MessageId, RecipientId},
    message::Target,
    projection::{
        Row,
        deliveries::{DeliveryStatus, PushAttempt, PushDelivery},
    },
};

/// Which deliveries of one status to list; nothing in it means all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// Of this provider.
    pub provider: Option<String>,
    /// Whose last failure is of this kind.
    pub class: Option<FailureClass>,
    /// Last changed at this time or later.
    pub since: Option<Timestamp>,
    /// Last changed before this time.
    pub until: Option<Timestamp>,
    /// For this recipient.
    pub recipient: Option<RecipientId>,
}

/// Where a page ended and the next one begins. Written as a text that tells nobody anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPlace {
    /// The status of the list.
    pub status: DeliveryStatus,
    provider: String,
    at_us: i64,
    message_id: String,
    delivery_id: String,
}

/// The text is no place in a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a list of deliveries; use the `next` of an answer")]
pub struct BadPlace(String);

/// What the deliveries of a status are listed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sorted {
    /// Provider by provider, the longest due first: rides on `push_deliveries_due`.
    Due,
    /// Those that changed first come first: rides on `push_deliveries_ended`.
    Change,
    /// By message: rides on the primary key, past deliveries in other statuses.
    Message,
}

impl Sorted {
    const fn of(status: DeliveryStatus) -> Self {
        match status {
            DeliveryStatus::Unplanned
            | DeliveryStatus::Scheduled
            | DeliveryStatus::Retrying
            | DeliveryStatus::Attempting
            | DeliveryStatus::Pending => Self::Due,
            DeliveryStatus::Failed | DeliveryStatus::Unknown | DeliveryStatus::Suppressed => Self::Change,
            DeliveryStatus::Accepted => Self::Message,
        }
    }
}

impl Store {
    /// Up to `limit` deliveries in this status after `after`, and where the next ones begin, if there are
    /// any.
    ///
    /// What is open comes provider by provider, the longest due first (`push_deliveries_due`: status,
    /// provider, due, message, delivery). What ended badly comes in the order of its last change
    /// (`push_deliveries_ended`: status, change, message, delivery), and `since` and `until` bound the range.
    /// What was accepted comes by message on the primary key: no index knows its times or its status.
    pub async fn deliveries(
        &self,
        status: DeliveryStatus,
        filter: &DeliveryFilter,
        after: Option<&DeliveryPlace>,
        limit: u64,
    ) -> Result<(Vec<PushDelivery>, Option<DeliveryPlace>), StoreError> {
        let rows: Vec<Typed<PushDelivery>> = self.db().all(&list(status, filter, after, limit + 1)).await?;
        let mut found: Vec<_> = rows.into_iter().filter_map(|it| it.row).collect();
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > keep;
        found.truncate(keep);
        let next = found.last().filter(|_| more).map(|it| DeliveryPlace::of(status, it));
        Ok((found, next))
    }

    /// One delivery with every attempt at it, as the projection shows them. Rides on the primary keys.
    pub async fn delivery(
        &self,
        message: &MessageId,
        delivery: DeliveryId,
    ) -> Result<Option<(PushDelivery, Vec<PushAttempt>)>, StoreError> {
        let mut tx = self.db().begin(Mode::Snapshot).await?;
        let deliveries: Vec<PushDelivery> = rows_of(&mut tx, message).await?;
        let mut attempts: Vec<PushAttempt> = rows_of(&mut tx, message).await?;
        tx.rollback().await?;
        let delivery = delivery.to_string();
        attempts.retain(|it| it.delivery_id == delivery);
        Ok(deliveries.into_iter().find(|it| it.delivery_id == delivery).map(|it| (it, attempts)))
    }
}

/// Where a delivery goes; none while that is not known, and once it is erased.
#[must_use]
pub fn target_of(row: &PushDelivery) -> Option<Target> {
    let (kind, value) = (row.target_kind.as_ref()?, row.target.as_ref()?);
    target(kind, value.clone()).filter(|it| !it.value().is_empty())
}

fn list(
    status: DeliveryStatus,
    filter: &DeliveryFilter,
    after: Option<&DeliveryPlace>,
    limit: u64,
) -> SelectStatement {
    let mut statement = Query::select();
    statement
        .columns(PushDelivery::TABLE.columns.iter().map(|it| it.name))
        .from("push_deliveries")
        .and_where(Expr::col("status").eq(status.as_str()))
        .limit(limit);
    match Sorted::of(status) {
        Sorted::Due => {
            // Says what the index says of its rows.
            statement.and_where(Expr::col("due_at_us").is_not_null());
            if status == DeliveryStatus::Unplanned {
                statement.and_where(Expr::col("provider").is_null());
            }
            statement.order_by("provider", Order::Asc).order_by("due_at_us", Order::Asc);
        }
        Sorted::Change => {
            statement.and_where(Expr::cust("status in ('failed', 'unknown', 'suppressed')"));
            statement.order_by("updated_at_us", Order::Asc);
        }
        Sorted::Message => {}
    }
    statement.order_by("message_id", Order::Asc).order_by("delivery_id", Order::Asc);
    if let Some(provider) = &filter.provider {
        statement.and_where(Expr::col("provider").eq(provider.as_str()));
    }
    if let Some(class) = filter.class {
        statement.and_where(Expr::col("last_class").eq(class.as_str()));
    }
    if let Some(since) = filter.since {
        statement.and_where(Expr::col("updated_at_us").gte(since.as_micros()));
    }
    if let Some(until) = filter.until {
        statement.and_where(Expr::col("updated_at_us").lt(until.as_micros()));
    }
    if let Some(recipient) = &filter.recipient {
        statement.and_where(Expr::col("recipient_id").eq(recipient.as_str()));
    }
    if let Some(after) = after {
        statement.cond_where(behind(status, after));
    }
    statement
}

/// What comes after a place, with a bound on the leading column first, so that the range begins there.
fn behind(status: DeliveryStatus, place: &DeliveryPlace) -> Cond {
    let (message, delivery) = (place.message_id.as_str(), place.delivery_id.as_str());
    let by_message = || {
        let same = Expr::col("message_id").eq(message).and(Expr::col("delivery_id").gt(delivery));
        Expr::col("message_id").gt(message).or(same)
    };
    let by_time = |column: &'static str| {
        let same = Expr::col(column).eq(place.at_us).and(by_message());
        Expr::col(column).gt(place.at_us).or(same)
    };
    match Sorted::of(status) {
        Sorted::Message => Cond::all().add(Expr::col("message_id").gte(message)).add(by_message()),
        Sorted::Change => {
            Cond::all().add(Expr::col("updated_at_us").gte(place.at_us)).add(by_time("updated_at_us"))
        }
        Sorted::Due if status == DeliveryStatus::Unplanned => {
            Cond::all().add(Expr::col("due_at_us").gte(place.at_us)).add(by_time("due_at_us"))
        }
        Sorted::Due => {
            let provider = place.provider.as_str();
            let same = Expr::col("provider").eq(provider).and(by_time("due_at_us"));
            let later = Expr::col("provider").gt(provider).or(same);
            Cond::all().add(Expr::col("provider").gte(provider)).add(later)
        }
    }
}

impl DeliveryPlace {
    /// Before the first delivery in this status.
    #[must_use]
    pub fn start(status: DeliveryStatus) -> Self {
        let (provider, message_id, delivery_id) = (String::new(), String::new(), String::new());
        Self { status, provider, at_us: i64::MIN, message_id, delivery_id }
    }

    fn of(status: DeliveryStatus, row: &PushDelivery) -> Self {
        let at = match Sorted::of(status) {
            Sorted::Due => row.due_at_us,
            Sorted::Change => Some(row.updated_at_us),
            Sorted::Message => None,
        };
        Self {
            status,
            provider: row.provider.clone().unwrap_or_default(),
            at_us: at.map_or(0, Timestamp::as_micros),
            message_id: row.message_id.clone(),
            delivery_id: row.delivery_id.clone(),
        }
    }
}

impl fmt::Display for DeliveryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, provider, at_us, message_id, delivery_id } = self;
        let text = serde_json::json!([status.as_str(), provider, at_us, message_id, delivery_id]).to_string();
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

impl FromStr for DeliveryPlace {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        type Parts = (String, String, i64, String, String);
        let bad = || BadPlace(text.chars().take(64).collect());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let parts: Parts = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let (status, provider, at_us, message_id, delivery_id) = parts;
        let status = DeliveryStatus::from_word(&status).ok_or_else(bad)?;
        Ok(Self { status, provider, at_us, message_id, delivery_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every list is a range of the index that it names, without sorting; where both a status alone and a
    /// place are given.
    #[tokio::test]
    async fn every_list_rides_on_its_index() {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        let ddl = include_str!("../../projections/deliveries/sqlite.sql").replace("{slot}", "a");
        sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await.unwrap();
        for (status, index) in [
            (DeliveryStatus::Unplanned, "push_deliveries_a_due (status=? AND provider=?"),
            (DeliveryStatus::Retrying, "push_deliveries_a_due (status=?"),
            (DeliveryStatus::Failed, "push_deliveries_a_ended (status=?"),
            (DeliveryStatus::Accepted, "sqlite_autoindex_push_deliveries_a_1"),
        ] {
            let place = DeliveryPlace { message_id: "m".to_owned(), ..DeliveryPlace::start(status) };
            for after in [None, Some(&place)] {
                let statement = list(status, &DeliveryFilter::default(), after, 10);
                let sql = statement.to_string(sea_query::SqliteQueryBuilder);
                let sql = sql.replace("\"push_deliveries\"", "push_deliveries_a");
                let explain = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
                let plan: Vec<(i64, i64, i64, String)> =
                    sqlx::query_as(explain).fetch_all(&pool).await.unwrap();
                let plan: String = plan.into_iter().map(|it| it.3 + "\n").collect();
                assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{status}: {plan}{sql}");
            }
        }
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is_one() {
        let place = DeliveryPlace {
            status: DeliveryStatus::Failed,
            provider: "에크미/acme".to_owned(),
            at_us: -7,
            message_id: "m-1".to_owned(),
            delivery_id: "d".to_owned(),
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "0-42", "W10", &URL_SAFE_NO_PAD.encode(r#"["gone","",0,"",""]"#)] {
            assert!(text.parse::<DeliveryPlace>().is_err(), "{text}");
        }
    }
}
