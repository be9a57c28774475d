//! Devices: registered, found, and put down as dead. The registry changes in place; who was told what
//! through which device stands in the log.

use std::collections::HashMap;

use sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use sqlx::FromRow;

use super::{
    Mode, Store, StoreError,
    bulk::{self, Lookup},
    deliveries::target,
};
use crate::{
    clock::Timestamp,
    device::{Death, Device, Obituary, Registration, target_hash},
    id::{DeviceId, RecipientId},
    message::{Target, subscription::Subscription},
};

/// Most devices of one recipient; the longest unseen make place for more.
pub const DEVICES_MAX: usize = 64;

const COLUMNS: [&str; 16] = [
    "recipient_id",
    "device_id",
    "app",
    "platform",
    "kind",
    "environment",
    "target_kind",
    "target",
    "locale",
    "time_zone",
    "created_at_us",
    "registered_at_us",
    "last_seen_at_us",
    "dead_at_us",
    "dead_by",
    "dead_reason",
];

#[derive(FromRow)]
struct Row {
    recipient_id: String,
    device_id: String,
    app: String,
    platform: String,
    kind: String,
    environment: String,
    target_kind: String,
    target: String,
    locale: Option<String>,
    time_zone: Option<String>,
    created_at_us: i64,
    registered_at_us: i64,
    last_seen_at_us: i64,
    dead_at_us: Option<i64>,
    dead_by: Option<String>,
    dead_reason: Option<String>,
}

impl Store {
    /// Registers a device, anew or again; it lives from now on. A target belongs to one device: whoever
    /// had it before (the last user of the same phone, say) loses it.
    pub async fn put_device(
        &self,
        recipient: &RecipientId,
        it: &Registration,
        now: Timestamp,
    ) -> Result<Device, StoreError> {
        loop {
            match self.try_put_device(recipient, it, now).await {
                Ok(Some(device)) => return Ok(device),
                // Somebody else registered the same target at the same time; the last one gets it.
                Ok(None) => {}
                Err(error) if error.is_unique_violation() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_put_device(
        &self,
        recipient: &RecipientId,
        it: &Registration,
        now: Timestamp,
    ) -> Result<Option<Device>, StoreError> {
        let target = canonical(&it.target);
        let hash = target_hash(&target);
        let mut tx = self.db.begin(Mode::Write).await?;
        let others = Expr::col("recipient_id")
            .ne(recipient.as_str())
            .or(Expr::col("device_id").ne(it.device_id.as_str()));
        let moved = Query::delete()
            .from_table("devices")
            .and_where(Expr::col("target_hash").eq(hash.as_str()))
            .and_where(Expr::col("kind").eq(it.kind.as_str()))
            .and_where(others)
            .to_owned();
        tx.exec(&moved).await?;
        let (now_us, seen) = (now.as_micros(), it.last_seen_at.unwrap_or(now).as_micros());
        let insert = Query::insert()
            .into_table("devices")
            .columns(COLUMNS.into_iter().chain(["target_hash"]))
            .values([
                recipient.as_str().into(),
                it.device_id.as_str().into(),
                it.app.as_str().into(),
                it.platform.as_str().into(),
                it.kind.as_str().into(),
                it.environment.as_str().into(),
                target.kind().into(),
                target.value().into(),
                it.locale.clone().into(),
                it.time_zone.clone().into(),
                now_us.into(),
                now_us.into(),
                seen.into(),
                None::<i64>.into(),
                None::<String>.into(),
                None::<String>.into(),
                hash.into(),
            ])
            .map_err(|error| StoreError::Corrupt(format!("a device's columns and values differ: {error}")))?
            .on_conflict(
                OnConflict::columns(["recipient_id", "device_id"])
                    .update_columns(COLUMNS.into_iter().skip(2).filter(|it| *it != "created_at_us"))
                    .update_column("target_hash")
                    .to_owned(),
            )
            .to_owned();
        tx.exec(&insert).await?;
        let rows: Vec<Row> = tx.all(&of(recipient)).await?;
        if rows.iter().all(|row| row.device_id != it.device_id.as_str()) {
            // On MySQL, where another device got the target at the same moment and was taken for this one.
            tx.rollback().await?;
            return Ok(None);
        }
        // Never the one that has just registered, however long ago its app says it was used.
        let others = rows.iter().filter(|row| row.device_id != it.device_id.as_str());
        for surplus in others.skip(DEVICES_MAX - 1) {
            let statement = Query::delete()
                .from_table("devices")
                .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
                .and_where(Expr::col("device_id").eq(surplus.device_id.as_str()))
                .to_owned();
            tx.exec(&statement).await?;
        }
        tx.commit().await?;
        let devices = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
        Ok(devices.into_iter().find(|device| device.registration.device_id == it.device_id))
    }

    /// The devices of a recipient, dead ones too, the last seen first.
    pub async fn devices(&self, recipient: &RecipientId) -> Result<Vec<Device>, StoreError> {
        let rows: Vec<Row> = self.db.all(&of(recipient)).await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The living devices of these recipients, in one query; in none where there is nobody to ask about.
    pub async fn living_devices(
        &self,
        recipients: &[&RecipientId],
    ) -> Result<HashMap<RecipientId, Vec<Device>>, StoreError> {
        if recipients.is_empty() {
            return Ok(HashMap::new());
        }
        let columns = COLUMNS.join(", ");
        let lookup =
            Lookup { columns: &columns, table: "devices", key: "recipient_id", filter: "dead_at_us is null" };
        let mut keys: Vec<_> = recipients.iter().map(|it| it.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut tx = self.db.begin(Mode::Read).await?;
        let rows: Vec<Row> = bulk::look_up(&mut tx, lookup, &keys).await?;
        tx.commit().await?;
        let mut devices: HashMap<RecipientId, Vec<Device>> = HashMap::new();
        for row in rows {
            let device = row.read()?;
            devices.entry(device.recipient_id.clone()).or_default().push(device);
        }
        for devices in devices.values_mut() {
            devices.sort_by(|one, other| one.registration.device_id.cmp(&other.registration.device_id));
        }
        Ok(devices)
    }

    /// Removes a device; whether there was one.
    pub async fn remove_device(
        &self,
        recipient: &RecipientId,
        device: &DeviceId,
    ) -> Result<bool, StoreError> {
        let statement = Query::delete()
            .from_table("devices")
            .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
            .and_where(Expr::col("device_id").eq(device.as_str()))
            .to_owned();
        let mut tx = self.db.begin(Mode::Write).await?;
        let removed = tx.exec(&statement).await?;
        tx.commit().await?;
        Ok(removed > 0)
    }

    /// Puts down as dead what providers say is: of each target the living device, unless it registered
    /// later. Answers how many.
    pub async fn bury_devices(&self, dead: &[Obituary], now: Timestamp) -> Result<u64, StoreError> {
        let mut dead: Vec<_> = dead.iter().map(|it| (target_hash(&it.target), it)).collect();
        // One order everywhere, so that two workers cannot deadlock.
        dead.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut tx = self.db.begin(Mode::Write).await?;
        let mut buried = 0;
        for (hash, it) in dead {
            let mut statement = Query::update();
            statement
                .table("devices")
                .value("dead_at_us", now.as_micros())
                .value("dead_by", it.provider.as_str())
                .value("dead_reason", it.reason.as_str())
                .and_where(Expr::col("target_hash").eq(hash))
                .and_where(Expr::col("dead_at_us").is_null())
                .and_where(Expr::col("registered_at_us").lte(it.as_of.as_micros()));
            if let Some((kind, environment)) = &it.service {
                statement.and_where(Expr::col("kind").eq(kind.as_str()));
                statement.and_where(Expr::col("environment").eq(environment.as_str()));
            }
            buried += tx.exec(&statement).await?;
        }
        tx.commit().await?;
        Ok(buried)
    }

    /// Takes back what one provider said of devices since a time: it said so of too many to be believed.
    /// Answers how many.
    pub async fn unbury_devices(&self, provider: &str, since: Timestamp) -> Result<u64, StoreError> {
        let statement = Query::update()
            .table("devices")
            .value("dead_at_us", None::<i64>)
            .value("dead_by", None::<String>)
            .value("dead_reason", None::<String>)
            .and_where(Expr::col("dead_by").eq(provider))
            .and_where(Expr::col("dead_at_us").gte(since.as_micros()))
            .to_owned();
        let mut tx = self.db.begin(Mode::Write).await?;
        let revived = tx.exec(&statement).await?;
        tx.commit().await?;
        Ok(revived)
    }
}

/// A subscription in its one form, by which deliveries to it are told apart; anything else as it is.
fn canonical(target: &Target) -> Target {
    match target {
        Target::Subscription(text) => {
            let read = Subscription::read(text);
            Target::Subscription(read.map_or_else(|_| text.clone(), |it| it.canonical()))
        }
        Target::Token(_) | Target::Topic(_) | Target::Alias(_) => target.clone(),
    }
}

fn of(recipient: &RecipientId) -> sea_query::SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from("devices")
        .and_where(Expr::col("recipient_id").eq(recipient.as_str()))
        .order_by("last_seen_at_us", Order::Desc)
        .order_by("device_id", Order::Asc)
        .to_owned()
}

impl Row {
    fn read(self) -> Result<Device, StoreError> {
        let corrupt =
            |what: &str, error: &dyn std::fmt::Display| StoreError::Corrupt(format!("{what} {error}"));
        let target = target(&self.target_kind, self.target)
            .ok_or_else(|| corrupt("devices has the target kind", &self.target_kind))?;
        let dead = self.dead_at_us.map(|at| Death {
            at: Timestamp::from_micros(at),
            by: self.dead_by.unwrap_or_default(),
            reason: self.dead_reason.unwrap_or_default(),
        });
        Ok(Device {
            recipient_id: RecipientId::try_from(self.recipient_id)
                .map_err(|error| corrupt("devices.recipient_id", &error))?,
            registration: Registration {
                device_id: DeviceId::try_from(self.device_id)
                    .map_err(|error| corrupt("devices.device_id", &error))?,
                app: self.app,
                platform: self.platform,
                kind: self.kind,
                environment: self.environment,
                target,
                locale: self.locale,
                time_zone: self.time_zone,
                last_seen_at: Some(Timestamp::from_micros(self.last_seen_at_us)),
            },
            created_at: Timestamp::from_micros(self.created_at_us),
            registered_at: Timestamp::from_micros(self.registered_at_us),
            dead,
        })
    }
}
