//! What the delivery worker asks of the deliveries projection: what is due, and how much of it.
//!
//! The answers are hints. The projection may lag behind the log; whether a delivery is really waiting
//! is decided under the shard's lock when it is claimed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sea_query::{CaseStatement, Cond, Expr, ExprTrait, Func, LikeExpr, Order, Query};
use sqlx::FromRow;

use super::{
    Mode, Store, StoreError,
    bulk::{self, Lookup},
    log::{message_id, wide_shard},
};
use crate::{
    clock::Timestamp,
    event::{Event, codec},
    id::{DeliveryId, MessageId, Shard},
    message::{Message, Target},
    projection::deliveries::DeliveryStatus,
};

/// Deliveries that are counted at the most, so that a large backlog does not make counting dear.
const COUNTED_MAX: u64 = 100_000;
/// Collapse keys in one question at the most.
const KEYS_MAX: usize = 50;

/// What is looked for: deliveries in one status that wait for one provider, or for none yet.
///
/// One range of one index, so that what waits for a slow provider, or for one that this process does
/// not have, is never in the way.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// The status.
    pub status: DeliveryStatus,
    /// The provider; none while unplanned.
    pub provider: Option<&'a str>,
    /// Only what another provider could take.
    pub routed: bool,
}

/// A delivery that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Of which message.
    pub message_id: MessageId,
    /// Which delivery; while unplanned, what stands for the deliveries to come.
    pub delivery_id: DeliveryId,
    /// The shard of the message.
    pub shard: Shard,
    /// Where to; none while unplanned, and once erased.
    pub target: Option<Target>,
    /// How many attempts were started.
    pub attempts: u32,
    /// How many of them do not count for its policy.
    pub uncounted: u32,
    /// Since when: the time of the attempt, the end of the lease, or the time to plan.
    pub due_at: Timestamp,
    /// Not to be sent after.
    pub expires_at: Option<Timestamp>,
    /// From when on its age counts.
    pub first_due_at: Timestamp,
    /// Whether another provider could take it.
    pub has_next: bool,
    /// The registered device that the target is of.
    pub device_id: Option<String>,
    /// Who it is for.
    pub recipient_id: String,
    /// Of pushes with the same key only the newest is sent.
    pub collapse_key: Option<String>,
    /// What to ask the provider with while it is pending.
    pub ticket: Option<String>,
    /// Since when it is pending.
    pub pending_since: Option<Timestamp>,
    /// Where `message.received` stands in the shard.
    pub received: i64,
    /// The last event in the shard that the row knows of.
    pub position: i64,
}

/// How much is due in one status for one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCount {
    /// The provider; none while unplanned.
    pub provider: Option<String>,
    /// Due now.
    pub due: u64,
    /// Of these, due for longer than was asked for.
    pub overdue: u64,
}

#[derive(FromRow)]
struct DueRow {
    message_id: String,
    delivery_id: String,
    shard: i64,
    target_kind: Option<String>,
    target: Option<String>,
    attempts: i64,
    uncounted: i64,
    due_at_us: i64,
    expires_at_us: Option<i64>,
    first_due_at_us: i64,
    recipient_id: String,
    device_id: Option<String>,
    provider: Option<String>,
    route: Option<String>,
    collapse_key: Option<String>,
    provider_message_id: Option<String>,
    pending_since_us: Option<i64>,
    position: i64,
    last_position: i64,
}

#[derive(FromRow)]
struct NewestRow {
    recipient_id: String,
    collapse_key: Option<String>,
    target: Option<String>,
    newest: i64,
}

#[derive(FromRow)]
struct CountRow {
    provider: Option<String>,
    due: i64,
    overdue: i64,
}

#[derive(FromRow)]
struct ReceivedRow {
    shard: i16,
    position: i64,
    message_id: String,
    schema_version: i16,
    #[sqlx(rename = "type")]
    kind: String,
    payload: String,
}

impl Store {
    /// Up to `limit` deliveries that are due, longest first, after one that was given before.
    pub async fn due(
        &self,
        waiting: Waiting<'_>,
        now: Timestamp,
        after: Option<&Due>,
        limit: u64,
    ) -> Result<Vec<Due>, StoreError> {
        let mut statement = Query::select();
        statement
            .columns(["message_id", "delivery_id", "shard", "target_kind", "target", "attempts"])
            .columns(["due_at_us", "expires_at_us", "first_due_at_us", "recipient_id", "provider", "route"])
            .columns(["device_id", "uncounted"])
            .columns(["collapse_key", "provider_message_id", "pending_since_us", "position", "last_position"])
            .from("push_deliveries")
            .and_where(Expr::col("status").eq(waiting.status.as_str()))
            .and_where(match waiting.provider {
                Some(provider) => Expr::col("provider").eq(provider),
                None => Expr::col("provider").is_null(),
            })
            .and_where(Expr::col("due_at_us").lte(now.as_micros()))
            .order_by("due_at_us", Order::Asc)
            .order_by("message_id", Order::Asc)
            .order_by("delivery_id", Order::Asc)
            .limit(limit);
        if let (true, Some(provider)) = (waiting.routed, waiting.provider) {
            // Nobody stands behind the last of a route.
            let last = LikeExpr::new(format!("%,{}", provider.replace('_', "!_"))).escape('!');
            statement.and_where(Expr::col("route").not_like(last));
        }
        if let Some(after) = after {
            let (due_at, message) = (after.due_at.as_micros(), after.message_id.as_str());
            let later = Expr::col("due_at_us").gt(due_at).or(Expr::col("message_id").gt(message)).or(
                Expr::col("message_id")
                    .eq(message)
                    .and(Expr::col("delivery_id").gt(after.delivery_id.to_string())),
            );
            statement.and_where(Expr::col("due_at_us").gte(due_at)).and_where(later);
        }
        let rows: Vec<DueRow> = self.db.all(&statement).await?;
        rows.into_iter().map(DueRow::read).collect()
    }

    /// How much is due for each provider, and how much of it since before `overdue_since`. Counts the
    /// first 100,000 only.
    pub async fn count_due(
        &self,
        now: Timestamp,
        overdue_since: Timestamp,
    ) -> Result<Vec<DueCount>, StoreError> {
        let open = [
            DeliveryStatus::Unplanned,
            DeliveryStatus::Scheduled,
            DeliveryStatus::Retrying,
            DeliveryStatus::Attempting,
        ];
        let due = Query::select()
            .columns(["provider", "due_at_us"])
            .from("push_deliveries")
            .and_where(Expr::col("status").is_in(open.map(DeliveryStatus::as_str)))
            .and_where(Expr::col("due_at_us").lte(now.as_micros()))
            .limit(COUNTED_MAX)
            .to_owned();
        let is_overdue = Expr::col("due_at_us").lt(overdue_since.as_micros());
        let overdue = CaseStatement::new().case(is_overdue, 1_i32);
        let statement = Query::select()
            .column("provider")
            .expr_as(Func::count(Expr::col("due_at_us")), "due")
            .expr_as(Func::count(overdue), "overdue")
            .from_subquery(due, "due_deliveries")
            .group_by_col("provider")
            .to_owned();
        let rows: Vec<CountRow> = self.db.all(&statement).await?;
        let count = |row: CountRow| DueCount {
            provider: row.provider,
            due: row.due.unsigned_abs(),
            overdue: row.overdue.unsigned_abs(),
        };
        Ok(rows.into_iter().map(count).collect())
    }

    /// Which of these are not the newest push to their target under their collapse key, of those that are
    /// sent or about to be: what was cancelled, failed or is for later takes nobody's place.
    ///
    /// Rides on `push_deliveries_collapse` (recipient, key, position).
    pub async fn superseded(&self, due: &[Due], now: Timestamp) -> Result<HashSet<DeliveryId>, StoreError> {
        let counting = [
            DeliveryStatus::Scheduled,
            DeliveryStatus::Retrying,
            DeliveryStatus::Attempting,
            DeliveryStatus::Pending,
            DeliveryStatus::Accepted,
        ];
        let on_the_way = [DeliveryStatus::Attempting, DeliveryStatus::Pending, DeliveryStatus::Accepted];
        let keyed: Vec<_> = due.iter().filter(|it| it.collapse_key.is_some()).collect();
        let mut superseded = HashSet::new();
        for part in keyed.chunks(KEYS_MAX) {
            let own = |it: &&Due| {
                let recipient = Expr::col("recipient_id").eq(it.recipient_id.as_str());
                recipient.and(Expr::col("collapse_key").eq(it.collapse_key.clone()))
            };
            let statement = Query::select()
                .columns(["recipient_id", "collapse_key", "target"])
                .expr_as(Expr::col("position").max(), "newest")
                .from("push_deliveries")
                .cond_where(part.iter().fold(Cond::any(), |any, it| any.add(own(it))))
                .and_where(Expr::col("status").is_in(counting.map(DeliveryStatus::as_str)))
                .and_where(Expr::col("first_due_at_us").lte(now.as_micros()))
                .cond_where(
                    // What has expired is not sent either, unless it is on its way already.
                    Cond::any()
                        .add(Expr::col("expires_at_us").is_null())
                        .add(Expr::col("expires_at_us").gt(now.as_micros()))
                        .add(Expr::col("status").is_in(on_the_way.map(DeliveryStatus::as_str))),
                )
                .group_by_columns(["recipient_id", "collapse_key", "target"])
                .to_owned();
            let rows: Vec<NewestRow> = self.db.all(&statement).await?;
            let own = |it: &NewestRow| {
                ((it.recipient_id.clone(), it.collapse_key.clone(), it.target.clone()), it.newest)
            };
            let newest: HashMap<_, _> = rows.iter().map(own).collect();
            let is_older = |it: &&&Due| {
                let target = it.target.as_ref().map(|it| it.value().to_owned());
                let key = (it.recipient_id.clone(), it.collapse_key.clone(), target);
                newest.get(&key).is_some_and(|at| *at > it.received)
            };
            superseded.extend(part.iter().filter(is_older).map(|it| it.delivery_id));
        }
        Ok(superseded)
    }

    /// The messages of these ids as they were received.
    pub async fn received(&self, ids: &[&MessageId]) -> Result<HashMap<MessageId, Arc<Message>>, StoreError> {
        let lookup = Lookup {
            columns: "shard, position, message_id, schema_version, type, payload",
            table: "notification_events",
            key: "message_id",
            filter: "version = 0",
        };
        let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
        let mut tx = self.db.begin(Mode::Read).await?;
        let rows: Vec<ReceivedRow> = bulk::look_up(&mut tx, lookup, &ids).await?;
        tx.commit().await?;
        let mut messages = HashMap::with_capacity(rows.len());
        for row in rows {
            let (shard, position) = (row.shard, row.position);
            let event = codec::decode(&row.kind, i32::from(row.schema_version), &row.payload)
                .map_err(|source| StoreError::Codec { shard, position, source })?;
            if let Event::MessageReceived(it) = event {
                messages.insert(message_id(row.message_id)?, it.message);
            }
        }
        Ok(messages)
    }
}

/// Whether somebody stands behind the provider in the route; as in [`crate::stream`].
fn has_next(provider: Option<&str>, route: Option<&str>) -> bool {
    let mut route = route.unwrap_or_default().split(',');
    route.any(|it| Some(it) == provider) && route.next().is_some()
}

impl DueRow {
    fn read(self) -> Result<Due, StoreError> {
        let message_id = message_id(self.message_id)?;
        let delivery_id =
            self.delivery_id.parse().map_err(|error| StoreError::Corrupt(format!("delivery_id {error}")))?;
        let target = self.target_kind.zip(self.target).and_then(|(kind, value)| target(&kind, value));
        // A delivery's id is made of its target, so a target that was erased is told apart.
        let target = target.filter(|it| DeliveryId::new(&message_id, &it.canonical()) == delivery_id);
        let shard = wide_shard(self.shard)?;
        Ok(Due {
            message_id,
            delivery_id,
            shard,
            target,
            attempts: u32::try_from(self.attempts).unwrap_or(0),
            uncounted: u32::try_from(self.uncounted).unwrap_or(0),
            due_at: Timestamp::from_micros(self.due_at_us),
            expires_at: self.expires_at_us.map(Timestamp::from_micros),
            first_due_at: Timestamp::from_micros(self.first_due_at_us),
            has_next: has_next(self.provider.as_deref(), self.route.as_deref()),
            device_id: self.device_id,
            recipient_id: self.recipient_id,
            collapse_key: self.collapse_key,
            ticket: self.provider_message_id,
            pending_since: self.pending_since_us.map(Timestamp::from_micros),
            received: self.position,
            position: self.last_position,
        })
    }
}

pub(super) fn target(kind: &str, value: String) -> Option<Target> {
    match kind {
        "token" => Some(Target::Token(value)),
        "topic" => Some(Target::Topic(value)),
        "alias" => Some(Target::Alias(value)),
        "subscription" => Some(Target::Subscription(value)),
        _ => None,
    }
}
