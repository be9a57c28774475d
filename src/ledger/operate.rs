//! What operators do with deliveries: try again now, cancel, replay.
//!
//! Each is asked of the log under the shard's lock, so that nothing that a provider took is ever sent
//! again, and each is recorded with who did it. What the projection shows only says whom to ask about.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use futures_util::future::join_all;

use super::{Ledger, LedgerError, Marked, answer};
use crate::{
    clock::Timestamp,
    event::{Event, FailureClass, Metadata, RescheduleCause, SuppressReason},
    id::{DeliveryId, MessageId, RecipientId, Shard},
    message::Target,
    projection::deliveries::{DeliveryStatus, PushDelivery},
    store::{Applied, DeliveryFilter, DeliveryPlace, Entry, StoreError, target_of},
    stream::{Command, Refusal},
};

/// What can be delivered again, in this order.
pub const REPLAYED: [DeliveryStatus; 4] =
    [DeliveryStatus::Failed, DeliveryStatus::Unknown, DeliveryStatus::Scheduled, DeliveryStatus::Retrying];
/// Deliveries that one step of a replay takes.
const PAGE: u64 = 500;

/// Who does something, by which door, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// An operator, or the name of an API key.
    pub by: String,
    /// `http` or `cli`.
    pub ingress: &'static str,
    /// Why, in their own words.
    pub reason: Option<String>,
}

/// Why something is not done. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It does not fit what has become of the message.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No provider of this name is configured.
    #[error("no provider {0:?} is configured")]
    UnknownProvider(String),
    /// What waits is sent by itself, unless it is to go elsewhere.
    #[error("what waits is sent by itself; only through another provider can it be replayed")]
    Waits,
    /// It is what stands for deliveries that are not planned, now or for ever.
    #[error("nothing is planned for this push: it waits for its time or a provider, or had nowhere to go")]
    Unplanned,
    /// The provider takes no such target.
    #[error("the provider {0:?} does not take a target of this kind")]
    Unfit(String),
}

/// What to deliver again, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// Those in these statuses: given up (failed, unknown), or waiting (scheduled, retrying) for another
    /// provider than [`Replay::through`].
    pub statuses: Vec<DeliveryStatus>,
    /// Of these, which.
    pub filter: DeliveryFilter,
    /// Through whom; none leaves each with its provider.
    pub through: Option<String>,
    /// How many become due in a second; none makes all of them due at once.
    pub rate_per_s: Option<f64>,
    /// When the first becomes due; none, and what is over, mean now.
    pub start_at: Option<Timestamp>,
    /// Go on there.
    pub after: Option<DeliveryPlace>,
    /// Only count.
    pub is_dry: bool,
}

/// How far a replay has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Deliveries that were looked at.
    pub matched: u64,
    /// Of these, those that are sent again; in a dry run, those that would be.
    pub rescheduled: u64,
    /// Those that are not, because they have expired or would have before their turn.
    pub expired: u64,
    /// … because no configured provider takes them.
    pub unfit: u64,
    /// … because a provider has taken them meanwhile.
    pub accepted: u64,
    /// … because they are under way or cancelled meanwhile.
    pub under_way: u64,
}

/// A replay under way, a page at a time.
#[derive(Debug)]
pub struct Replaying {
    ledger: Ledger,
    who: Who,
    filter: DeliveryFilter,
    statuses: VecDeque<DeliveryStatus>,
    through: Option<String>,
    /// How long one delivery becomes due after the other.
    step: Duration,
    is_dry: bool,
    next_due: Timestamp,
    after: Option<DeliveryPlace>,
    so_far: Replayed,
}

impl Who {
    /// As it is recorded, with the reason where the event has no place for it.
    fn metadata(&self, with_reason: bool) -> Metadata {
        Metadata {
            ingress: Some(self.ingress.to_owned()),
            actor: Some(self.by.clone()),
            note: self.reason.clone().filter(|_| with_reason),
            ..Metadata::default()
        }
    }

    pub(super) fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| "no reason given".to_owned())
    }
}

impl Ledger {
    /// Lets a delivery that waits, or that was given up, be tried now; through another provider, where one
    /// is named. What was accepted is refused.
    pub async fn retry_delivery(
        &self,
        message: &MessageId,
        delivery_id: DeliveryId,
        through: Option<String>,
        who: &Who,
    ) -> Result<Result<Marked, Denied>, LedgerError> {
        let (shard, target) = match self.planned(message, delivery_id).await? {
            Ok(found) => found,
            // What stood for the deliveries that were never planned.
            Err(Refusal::UnknownDelivery) if delivery_id == DeliveryId::stand_in(message) => {
                return Ok(Err(Denied::Unplanned));
            }
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        if let Some(Err(denied)) = through.as_deref().map(|it| self.can_take(it, &target)) {
            return Ok(Err(denied));
        }
        let command = Command::Reschedule {
            delivery_id,
            provider: through,
            due_at: self.now(),
            cause: RescheduleCause::Retry,
            reason: who.reason(),
        };
        self.operate(shard, message, command, who.metadata(false)).await
    }

    /// Takes care that a delivery that waits is not sent, or that nothing is planned for a push that waits for
    /// that. What is under way is not called back.
    pub async fn cancel_delivery(
        &self,
        message: &MessageId,
        delivery_id: DeliveryId,
        who: &Who,
    ) -> Result<Result<Marked, Denied>, LedgerError> {
        let shard = match self.planned(message, delivery_id).await? {
            Ok((shard, _)) => shard,
            // What stands for deliveries to come; the log knows whether they have come.
            Err(Refusal::UnknownDelivery) if delivery_id == DeliveryId::stand_in(message) => {
                match self.store().home_of(message).await? {
                    Some(shard) => shard,
                    None => return Ok(Err(Refusal::UnknownMessage.into())),
                }
            }
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let command = Command::Suppress { delivery_id, reason: SuppressReason::Cancelled };
        self.operate(shard, message, command, who.metadata(true)).await
    }

    /// Begins to deliver again what was not delivered; nothing happens before [`Replaying::page`].
    ///
    /// # Errors
    /// When the provider that it is to go through is not configured, or none is named for what waits.
    pub fn replay(&self, replay: Replay, who: Who) -> Result<Replaying, Denied> {
        if let Some(name) = replay.through.as_ref().filter(|it| !self.has_provider(it)) {
            return Err(Denied::UnknownProvider(name.clone()));
        }
        let waits = |it: &DeliveryStatus| matches!(it, DeliveryStatus::Scheduled | DeliveryStatus::Retrying);
        if replay.through.is_none() && replay.statuses.iter().any(waits) {
            return Err(Denied::Waits);
        }
        let now = self.now();
        let mut statuses: VecDeque<_> = REPLAYED.into();
        statuses.retain(|it| replay.statuses.contains(it));
        if let Some(after) = &replay.after {
            while statuses.front().is_some_and(|it| *it != after.status) {
                statuses.pop_front();
            }
        }
        // What fails while it runs is not taken up by it again.
        let end = now.plus(Duration::from_micros(1));
        let filter = DeliveryFilter {
            until: Some(replay.filter.until.map_or(end, |it| it.min(end))),
            ..replay.filter
        };
        let step =
            replay.rate_per_s.map(|it| Duration::try_from_secs_f64(it.recip()).unwrap_or(Duration::MAX));
        Ok(Replaying {
            ledger: self.clone(),
            who,
            filter,
            statuses,
            through: replay.through,
            step: step.unwrap_or_default(),
            is_dry: replay.is_dry,
            next_due: replay.start_at.map_or(now, |it| it.max(now)),
            after: replay.after,
            so_far: Replayed::default(),
        })
    }

    /// Where a message lives, and where one of its deliveries goes, by the log.
    async fn planned(
        &self,
        message: &MessageId,
        delivery_id: DeliveryId,
    ) -> Result<Result<(Shard, Target), Refusal>, LedgerError> {
        let events = self.store().stream(message).await?;
        let Some(first) = events.first() else { return Ok(Err(Refusal::UnknownMessage)) };
        let plans = events.iter().filter_map(|it| match &it.body {
            Event::PushPlanned(plan) => Some(&plan.deliveries),
            _ => None,
        });
        let planned = plans.flatten().find(|it| it.delivery_id == delivery_id);
        Ok(planned.map(|it| (first.shard, it.target.clone())).ok_or(Refusal::UnknownDelivery))
    }

    async fn operate(
        &self,
        shard: Shard,
        message: &MessageId,
        command: Command,
        metadata: Metadata,
    ) -> Result<Result<Marked, Denied>, LedgerError> {
        let entry = Entry { message_id: message.clone(), command, occurred_at: self.now(), metadata };
        let applied = self.apply_in(shard, vec![entry]).await.pop().unwrap_or(Err(LedgerError::Stopping))?;
        Ok(answer(applied).map_err(Denied::from))
    }

    pub(super) fn has_provider(&self, name: &str) -> bool {
        self.routing().providers.contains_key(name)
    }

    fn can_take(&self, provider: &str, target: &Target) -> Result<(), Denied> {
        match self.routing().providers.get(provider) {
            None => Err(Denied::UnknownProvider(provider.to_owned())),
            Some(known) if !(known.takes)(target) => Err(Denied::Unfit(provider.to_owned())),
            Some(_) => Ok(()),
        }
    }
}

impl Replaying {
    /// Takes the next deliveries; false when there are no more.
    ///
    /// Cut off anywhere, it can be run again: what is waiting by then is not in the list any more.
    pub async fn page(&mut self) -> Result<bool, LedgerError> {
        let Some(status) = self.statuses.front().copied() else { return Ok(false) };
        let store = self.ledger.store();
        let (rows, next) = store.deliveries(status, &self.filter, self.after.as_ref(), PAGE).await?;
        self.so_far.matched += rows.len() as u64;
        let mut by_shard: BTreeMap<Shard, Vec<Entry>> = BTreeMap::new();
        let living = self.living(&rows).await?;
        for row in &rows {
            if let Some((shard, entry)) = self.again(row, &living)? {
                by_shard.entry(shard).or_default().push(entry);
            }
        }
        let jobs = by_shard.into_iter().map(|(shard, entries)| self.ledger.apply_in(shard, entries));
        for applied in join_all(jobs).await.into_iter().flatten() {
            self.so_far.count(&applied?);
        }
        self.after = next.or_else(|| {
            self.statuses.pop_front();
            self.statuses.front().copied().map(DeliveryPlace::start)
        });
        Ok(self.after.is_some())
    }

    /// What has become of it.
    #[must_use]
    pub const fn so_far(&self) -> &Replayed {
        &self.so_far
    }

    /// When the next one is to become due, for whoever goes on at the same rate.
    #[must_use]
    pub const fn next_due(&self) -> Timestamp {
        self.next_due
    }

    /// Where to go on; none at the end.
    #[must_use]
    pub const fn place(&self) -> Option<&DeliveryPlace> {
        self.after.as_ref()
    }

    /// Devices that live and their targets, of those among these that a provider called dead.
    async fn living(&self, rows: &[PushDelivery]) -> Result<Living, LedgerError> {
        let dead = rows.iter().filter(|it| it.device_id.is_some() && is_gone(it));
        let recipients: Vec<_> = dead.filter_map(|it| RecipientId::new(&it.recipient_id).ok()).collect();
        let living = self.ledger.store().living_devices(&recipients.iter().collect::<Vec<_>>()).await?;
        let mut found = Living::default();
        for device in living.into_values().flatten() {
            let recipient = device.recipient_id.to_string();
            found.devices.insert((recipient.clone(), device.registration.device_id.to_string()));
            found.targets.insert((recipient, device.registration.target));
        }
        Ok(found)
    }

    /// Asks for one delivery to be sent again, unless it is plain that nothing would come of it.
    fn again(&mut self, row: &PushDelivery, living: &Living) -> Result<Option<(Shard, Entry)>, LedgerError> {
        if self.through.is_some() && row.provider == self.through && row.due_at_us.is_some() {
            self.so_far.under_way += 1;
            return Ok(None);
        }
        // What is for later stays so.
        let later = row.due_at_us.filter(|_| row.status == DeliveryStatus::Scheduled);
        let due_at = later.map_or(self.next_due, |it| it.max(self.next_due));
        if row.expires_at_us.is_some_and(|end| end <= due_at) {
            self.so_far.expired += 1;
            return Ok(None);
        }
        // A target that is no more takes nothing. Of devices we know; of others whoever names the class does.
        let is_asked_for = self.filter.class.is_some() && row.device_id.is_none();
        if is_gone(row) && !is_asked_for && !living.has(row) {
            self.so_far.unfit += 1;
            return Ok(None);
        }
        let through = self.through.as_deref().or(row.provider.as_deref());
        let can_take = |name, target: &Target| self.ledger.can_take(name, target).is_ok();
        if !through.zip(target_of(row)).is_some_and(|(name, target)| can_take(name, &target)) {
            self.so_far.unfit += 1;
            return Ok(None);
        }
        self.next_due = self.next_due.plus(self.step);
        if self.is_dry {
            self.so_far.rescheduled += 1;
            return Ok(None);
        }
        let corrupt = |what: &str| {
            let text = format!("push_deliveries has {what} of {:?}", row.message_id);
            LedgerError::from(StoreError::Corrupt(text))
        };
        let shard = u16::try_from(row.shard).map_err(|_| corrupt("the shard"))?;
        let message_id = MessageId::new(&row.message_id).map_err(|_| corrupt("the id"))?;
        let command = Command::Reschedule {
            delivery_id: row.delivery_id.parse().map_err(|_| corrupt("the delivery"))?,
            provider: self.through.clone(),
            due_at,
            cause: RescheduleCause::Replay,
            reason: self.who.reason(),
        };
        let (occurred_at, metadata) = (self.ledger.now(), self.who.metadata(false));
        Ok(Some((Shard(shard), Entry { message_id, command, occurred_at, metadata })))
    }
}

/// What lives of what was called dead.
#[derive(Debug, Default)]
struct Living {
    devices: HashSet<(String, String)>,
    targets: HashSet<(String, Target)>,
}

impl Living {
    /// Whether the device lives, be it with another target, or another with its target.
    fn has(&self, row: &PushDelivery) -> bool {
        let recipient = || row.recipient_id.clone();
        let device = row.device_id.clone().map(|it| (recipient(), it));
        let target = target_of(row).map(|it| (recipient(), it));
        device.is_some_and(|it| self.devices.contains(&it))
            || target.is_some_and(|it| self.targets.contains(&it))
    }
}

/// Whether its target was called no more.
fn is_gone(row: &PushDelivery) -> bool {
    row.last_class.as_deref() == Some(FailureClass::InvalidTarget.as_str())
}

impl Replayed {
    const fn count(&mut self, applied: &Applied) {
        let counter = match applied {
            Applied::Appended { .. } => &mut self.rescheduled,
            Applied::Refused { refusal: Refusal::AlreadyAccepted, .. } => &mut self.accepted,
            Applied::Refused { refusal: Refusal::Expired, .. } => &mut self.expired,
            Applied::Unchanged { .. } | Applied::Refused { .. } | Applied::Elsewhere(_) => {
                &mut self.under_way
            }
        };
        *counter += 1;
    }

    /// Those that are not sent again.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.expired + self.unfit + self.accepted + self.under_way
    }
}
