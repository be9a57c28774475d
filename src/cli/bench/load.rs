//! Messages as a company's services send them, and the quick way into the log for those that are only
//! there to be worked on.
//!
//! About 430 bytes of JSON each, with version 7 UUIDs as ids; every one differs from every other in its
//! texts. The numbers in them come from a fixed seed, so that two runs do the same work.

use std::sync::Arc;

use anyhow::ensure;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::task::JoinSet;

use super::stage::Stage;
use crate::{
    clock::{Clock, Timestamp},
    event::{Metadata, PlannedDelivery},
    id::{MessageId, RecipientId, Shard},
    message::{
        Parsed,
        parse::{Outside, parse},
    },
    store::{Applied, Entry, Store},
    stream::{Command, Receive},
};

/// Rows in one transaction.
pub(super) const BATCH: usize = 500;
/// Messages that are held in memory at a time.
pub(super) const SEGMENT: u64 = 50_000;
/// Ids that are remembered, evenly out of all.
const REMEMBERED: usize = 4_096;
/// What the log says of where they came from.
const INGRESS: &str = "bench";

/// Where messages are to end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In the inbox.
    Inbox,
    /// At a push provider, and nowhere else.
    Push,
}

/// Makes messages.
#[derive(Debug)]
pub(super) struct Load {
    random: fastrand::Rng,
    clock: Arc<dyn Clock>,
    kind: Kind,
    recipients: u64,
    made: usize,
    remembered: Vec<MessageId>,
}

/// One shard's entries in batches that become one transaction each.
pub(super) type Batches = Vec<Vec<Entry>>;

impl Load {
    /// Messages of this kind to so many recipients.
    pub(super) fn new(clock: Arc<dyn Clock>, kind: Kind, recipients: u64) -> Self {
        let random = fastrand::Rng::with_seed(7);
        Self { random, clock, kind, recipients: recipients.max(1), made: 0, remembered: Vec::new() }
    }

    /// With numbers of their own, where several work side by side.
    pub(super) fn with_seed(mut self, seed: u64) -> Self {
        self.random.seed(seed);
        self
    }

    /// The id of any message made so far.
    pub(super) fn any_made(&mut self) -> Option<MessageId> {
        let at = self.random.usize(0..self.remembered.len().max(1));
        self.remembered.get(at).cloned()
    }

    /// Any recipient's id.
    pub(super) fn recipient(&mut self) -> String {
        format!("user-{}", self.random.u64(0..self.recipients))
    }

    /// What stands behind an id in any of so many equal parts of the ledger; nothing in the first.
    pub(super) fn part(&mut self, parts: u64) -> String {
        match self.random.u64(0..parts.max(1)) {
            0 => String::new(),
            part => format!(".{part}"),
        }
    }

    /// A message as its producer writes it, and its id.
    pub(super) fn body(&mut self, recipient: &str) -> (MessageId, Vec<u8>) {
        let now = self.clock.now();
        let (id, number) = (MessageId::random(now), self.random.u32(10_000_000..));
        let channel = match self.kind {
            Kind::Inbox => "APP_NOTIFICATION",
            Kind::Push => "PUSH",
        };
        let category = ["pass", "order", "inquiry", "offer"][self.random.usize(0..4)];
        let body = json!({
            "messageId": id.as_str(),
            "notificationType": channel,
            "recipientId": recipient,
            "title": format!("Your pass {number} expires tomorrow"),
            "body": format!("Renew it in the app before midnight; place {} is kept for you until then.", number / 7),
            "category": category,
            "link": format!("app://passes/{number}"),
            "data": { "passId": number.to_string(), "shop": number % 97 },
            "locale": "en-GB",
            "source": "bench",
            "occurredAt": now,
        });
        self.remember(&id);
        (id, body.to_string().into_bytes())
    }

    /// Keeps an even choice of all ids in bounded space.
    fn remember(&mut self, id: &MessageId) {
        self.made += 1;
        if self.remembered.len() < REMEMBERED {
            self.remembered.push(id.clone());
            return;
        }
        let at = self.random.usize(0..self.made);
        if let Some(place) = self.remembered.get_mut(at) {
            *place = id.clone();
        }
    }

    /// A message as the ledger understands it.
    pub(super) fn message(&mut self, recipient: &str) -> anyhow::Result<Parsed> {
        let (_, body) = self.body(recipient);
        Ok(parse(&body, Outside::default())?)
    }

    /// So many messages for any recipients, sorted into the shards of the ledger and cut into batches.
    pub(super) fn batches(&mut self, store: &Store, count: u64) -> anyhow::Result<Vec<(Shard, Batches)>> {
        self.batches_planned(store, count, |_| Vec::new())
    }

    /// The same, with deliveries.
    pub(super) fn batches_planned(
        &mut self,
        store: &Store,
        count: u64,
        plan: impl Fn(&Parsed) -> Vec<PlannedDelivery>,
    ) -> anyhow::Result<Vec<(Shard, Batches)>> {
        let mut entries = Vec::new();
        for _ in 0..count {
            let recipient = self.recipient();
            let parsed = self.message(&recipient)?;
            let plan = plan(&parsed);
            entries.push(entry(parsed, plan, self.clock.now()));
        }
        Ok(by_shard(store, entries))
    }

    /// So many messages for one recipient.
    pub(super) fn batches_for(
        &mut self,
        store: &Store,
        count: u64,
        recipient: &RecipientId,
    ) -> anyhow::Result<Vec<(Shard, Batches)>> {
        let mut entries = Vec::new();
        for _ in 0..count {
            let parsed = self.message(recipient.as_str())?;
            entries.push(entry(parsed, Vec::new(), self.clock.now()));
        }
        Ok(by_shard(store, entries))
    }
}

/// Cuts a number of messages into parts that fit into memory.
pub(super) fn segments(mut count: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let segment = count.min(SEGMENT);
        count -= segment;
        (segment > 0).then_some(segment)
    })
}

/// Appends every shard's batches, one after the other in a shard, all shards at once.
pub(super) async fn append(stage: &Stage, batches: Vec<(Shard, Batches)>) -> anyhow::Result<()> {
    let mut shards = JoinSet::new();
    for (shard, batches) in batches {
        let (store, clock) = (stage.store.clone(), Arc::clone(&stage.clock));
        shards.spawn(async move {
            for batch in batches {
                let applied = store.append(shard, &batch, clock.now()).await?;
                let all = applied.iter().all(|it| matches!(it, Applied::Appended { .. }));
                ensure!(all, "the ledger refused a message that was made up for it");
            }
            Ok(())
        });
    }
    while let Some(shard) = shards.join_next().await {
        shard??;
    }
    Ok(())
}

/// Puts so many messages into the log, as preparation.
pub(super) async fn fill(
    stage: &Stage,
    load: &mut Load,
    count: u64,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    for segment in segments(count) {
        append(stage, load.batches(&stage.store, segment)?).await?;
        bar.inc(segment);
    }
    Ok(())
}

fn entry(parsed: Parsed, plan: Vec<PlannedDelivery>, now: Timestamp) -> Entry {
    let Parsed { message, content_hash, .. } = parsed;
    Entry {
        message_id: message.message_id.clone(),
        occurred_at: message.occurred_at.unwrap_or(now),
        command: Command::Receive(Box::new(Receive {
            message: Arc::new(message),
            content_hash,
            plan,
            is_nowhere: false,
            claim: None,
        })),
        metadata: Metadata { ingress: Some(INGRESS.to_owned()), ..Metadata::default() },
    }
}

fn by_shard(store: &Store, entries: Vec<Entry>) -> Vec<(Shard, Batches)> {
    let mut shards: Vec<(Shard, Batches)> = store.shards().map(|shard| (shard, Vec::new())).collect();
    for entry in entries {
        let Command::Receive(arrival) = &entry.command else { continue };
        let shard = store.shard_of(&arrival.message.recipient_id);
        let Some((_, batches)) = shards.get_mut(usize::from(shard.0)) else { continue };
        match batches.last_mut().filter(|it| it.len() < BATCH) {
            Some(batch) => batch.push(entry),
            None => batches.push(vec![entry]),
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn messages_are_of_the_contract_and_of_a_common_size() {
        for kind in [Kind::Inbox, Kind::Push] {
            let mut load = Load::new(Arc::new(SystemClock), kind, 10);
            let recipient = load.recipient();
            let (id, body) = load.body(&recipient);
            assert!((380..480).contains(&body.len()), "{} bytes", body.len());
            let parsed = parse(&body, Outside::default()).unwrap();
            assert_eq!((parsed.message.message_id, parsed.unknown_fields), (id, vec![]));
            assert_eq!(parsed.message.notification_type.inbox, kind == Kind::Inbox);
            assert!(parsed.message.expires_at.is_none(), "the bare inbox has none either");
        }
    }

    #[test]
    fn ids_are_remembered_evenly_and_in_bounded_space() {
        let mut load = Load::new(Arc::new(SystemClock), Kind::Inbox, 10);
        assert_eq!(load.any_made(), None);
        let ids: Vec<_> = (0..REMEMBERED * 3).map(|_| load.body("user-1").0).collect();
        assert_eq!(load.remembered.len(), REMEMBERED);
        let late = load.remembered.iter().filter(|id| ids[REMEMBERED * 2..].contains(id)).count();
        assert!((REMEMBERED / 4..REMEMBERED / 2).contains(&late), "{late} of the last third");
    }

    #[test]
    fn segments_add_up() {
        assert_eq!(segments(120_000).collect::<Vec<_>>(), [50_000, 50_000, 20_000]);
        assert_eq!(segments(3).collect::<Vec<_>>(), [3]);
        assert_eq!(segments(0).count(), 0);
    }
}
