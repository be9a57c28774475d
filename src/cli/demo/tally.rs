//! Counting what the log says. Pure: events in, numbers out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    event::{Decision, Event, Recorded},
    id::{DeliveryId, MessageId, Position, RecipientId, Shard},
};

/// What a log, or its beginning, says in numbers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Events.
    pub(super) events: usize,
    /// Whether the positions of every shard are 1, 2, 3 … up to their number.
    pub(super) gapless: bool,
    /// Messages, each once.
    pub(super) messages: usize,
    /// Who they are for.
    pub(super) recipients: BTreeSet<RecipientId>,
    /// Messages by where they are to go: the inbox, a push.
    pub(super) kinds: BTreeMap<(bool, bool), usize>,
    /// Messages in Korean.
    pub(super) korean: usize,
    /// Messages that came with other words under the same id.
    pub(super) conflicts: usize,
    /// Deliveries that were planned.
    pub(super) deliveries: usize,
    /// Calls, each written down before it was made.
    pub(super) attempts: usize,
    /// Deliveries that the provider took.
    pub(super) accepted: usize,
    /// Failed attempts after which another was decided, by status.
    pub(super) retried: BTreeMap<u16, usize>,
    /// Failed attempts after which none was, by code.
    pub(super) given_up: BTreeMap<String, usize>,
    /// Attempts of which nobody knows how they ended.
    pub(super) lost: usize,
    /// Items that were marked as read.
    pub(super) read: usize,
    /// Deliveries that have not come to an end.
    pub(super) open: usize,
    /// The message in the inbox that took the most attempts, the first of several.
    pub(super) laborious: Option<(MessageId, RecipientId)>,
}

impl Tally {
    /// Counts the events of all shards, each shard's in order.
    pub(super) fn of(events: &[Recorded]) -> Self {
        let mut tally = Self { events: events.len(), gapless: gapless(events), ..Self::default() };
        let mut open: HashSet<DeliveryId> = HashSet::new();
        for event in events {
            tally.count(event, &mut open);
        }
        tally.open = open.len();
        tally.laborious = laborious(events);
        tally
    }

    fn count(&mut self, event: &Recorded, open: &mut HashSet<DeliveryId>) {
        match &event.body {
            Event::MessageReceived(it) => {
                let message = &it.message;
                self.messages += 1;
                self.recipients.insert(message.recipient_id.clone());
                *self.kinds.entry((message.for_inbox(), message.for_push())).or_default() += 1;
                self.korean += usize::from(message.locale.as_deref().is_some_and(|it| it.starts_with("ko")));
            }
            Event::MessageConflicted(_) => self.conflicts += 1,
            Event::PushPlanned(it) => {
                self.deliveries += it.deliveries.len();
                open.extend(it.deliveries.iter().map(|it| it.delivery_id));
            }
            Event::PushAttemptStarted(_) => self.attempts += 1,
            Event::PushAttemptSucceeded(it) => {
                self.accepted += usize::from(it.settles);
                open.remove(&it.delivery_id);
            }
            Event::PushAttemptFailed(it) => match &it.decision {
                Decision::RetryAt { .. } => *self.retried.entry(it.status.unwrap_or(0)).or_default() += 1,
                Decision::GiveUp { .. } => *self.given_up.entry(it.code.clone()).or_default() += 1,
            },
            Event::PushAttemptLost(_) => self.lost += 1,
            Event::PushSuppressed(it) => drop(open.remove(&it.delivery_id)),
            Event::PushExhausted(it) => drop(open.remove(&it.delivery_id)),
            Event::InboxRead => self.read += 1,
            Event::MessageCancelled(_)
            | Event::InboxSeen
            | Event::InboxClicked
            | Event::InboxUnread
            | Event::InboxArchived
            | Event::InboxUnarchived
            | Event::InboxDeleted
            | Event::InboxPresented
            | Event::InboxExpired
            | Event::PushAttemptPending(_)
            | Event::PushRescheduled(_)
            | Event::PushReceipt(_)
            | Event::MessageErased(_)
            | Event::Skipped(_) => {}
        }
    }

    /// How many messages go to the inbox, to push, as said.
    pub(super) fn kind(&self, inbox: bool, push: bool) -> usize {
        self.kinds.get(&(inbox, push)).copied().unwrap_or_default()
    }
}

fn gapless(events: &[Recorded]) -> bool {
    let mut last: HashMap<Shard, Position> = HashMap::new();
    events.iter().all(|event| {
        let before = last.insert(event.shard, event.position).unwrap_or_default();
        event.position.0 == before.0 + 1
    })
}

fn laborious(events: &[Recorded]) -> Option<(MessageId, RecipientId)> {
    let mut messages: Vec<(&Recorded, usize)> = Vec::new();
    for event in events {
        match &event.body {
            Event::MessageReceived(it) if it.message.for_inbox() => messages.push((event, 0)),
            Event::PushAttemptStarted(_) => {
                let own = messages.iter_mut().find(|(first, _)| first.message_id == event.message_id);
                if let Some((_, attempts)) = own {
                    *attempts += 1;
                }
            }
            _ => {}
        }
    }
    let most = messages.iter().map(|it| it.1).max()?;
    let (first, _) = messages.into_iter().find(|it| it.1 == most)?;
    Some((first.message_id.clone(), first.recipient_id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        event::{
            FailureClass, MessageReceived, Metadata, PlannedDelivery, PushAttemptFailed, PushAttemptStarted,
            PushAttemptSucceeded, PushExhausted, PushPlanned, Verdict,
        },
        id::Version,
        message::{
            Target,
            parse::{Outside, parse},
        },
    };

    /// These events of these messages, in this order in one shard.
    fn log(events: Vec<(&str, Event)>) -> Vec<Recorded> {
        let record = |(at, (id, body)): (usize, (&str, Event))| Recorded {
            shard: Shard(0),
            position: Position(i64::try_from(at).unwrap() + 1),
            message_id: id.parse().unwrap(),
            version: Version(0),
            recipient_id: "user-1".parse().unwrap(),
            occurred_at: Timestamp::default(),
            recorded_at: Timestamp::default(),
            body,
            metadata: Metadata::default(),
        };
        events.into_iter().enumerate().map(record).collect()
    }

    fn received(id: &str, kind: &str) -> Event {
        let body = format!(
            r#"{{"messageId":"{id}","notificationType":{kind},"recipientId":"user-1","title":"t","locale":"ko"}}"#
        );
        Event::MessageReceived(MessageReceived {
            message: parse(body.as_bytes(), Outside::default()).unwrap().message.into(),
        })
    }

    fn delivery(id: &str) -> DeliveryId {
        DeliveryId::new(&id.parse().unwrap(), "token:t")
    }

    fn planned(id: &str) -> Event {
        let delivery = PlannedDelivery {
            delivery_id: delivery(id),
            target: Target::Token("t".into()),
            provider: "acme".into(),
            fallbacks: Vec::new(),
            device_id: None,
            due_at: Timestamp::default(),
            expires_at: None,
        };
        Event::PushPlanned(PushPlanned { deliveries: vec![delivery] })
    }

    fn started(id: &str, attempt: u32) -> Event {
        Event::PushAttemptStarted(PushAttemptStarted {
            delivery_id: delivery(id),
            attempt,
            provider: "acme".into(),
            provider_key: "k".into(),
            lease_until: Timestamp::default(),
            worker: "w".into(),
        })
    }

    fn failed(id: &str, decision: Decision) -> Event {
        Event::PushAttemptFailed(PushAttemptFailed {
            delivery_id: delivery(id),
            attempt: 1,
            provider: "acme".into(),
            class: FailureClass::Retry,
            code: "c".into(),
            status: Some(503),
            answer: None,
            duration_ms: 1,
            decision,
            settles: true,
        })
    }

    fn succeeded(id: &str) -> Event {
        Event::PushAttemptSucceeded(PushAttemptSucceeded {
            delivery_id: delivery(id),
            attempt: 2,
            provider: "acme".into(),
            provider_message_id: None,
            status: Some(200),
            duration_ms: 1,
            settles: true,
        })
    }

    fn again() -> Decision {
        Decision::RetryAt { at: Timestamp::default(), policy: "p".into() }
    }

    #[test]
    fn a_delivery_is_open_until_it_is_accepted_or_given_up() {
        let both = r#"["PUSH","APP_NOTIFICATION"]"#;
        let mut events = vec![
            ("m-1", received("m-1", r#""APP_NOTIFICATION""#)),
            ("m-2", received("m-2", both)),
            ("m-2", planned("m-2")),
            ("m-2", started("m-2", 1)),
            ("m-2", failed("m-2", again())),
            ("m-3", received("m-3", both)),
            ("m-3", planned("m-3")),
            ("m-3", started("m-3", 1)),
            ("m-3", failed("m-3", Decision::GiveUp { policy: "p".into() })),
        ];
        let tally = Tally::of(&log(events.clone()));
        assert_eq!((tally.open, tally.deliveries, tally.attempts), (2, 2, 2));
        events.extend([
            (
                "m-3",
                Event::PushExhausted(PushExhausted {
                    delivery_id: delivery("m-3"),
                    verdict: Verdict::Failed,
                    reason: "r".into(),
                    attempts: 1,
                }),
            ),
            ("m-2", started("m-2", 2)),
            ("m-2", succeeded("m-2")),
        ]);
        let tally = Tally::of(&log(events));
        assert_eq!((tally.open, tally.accepted, tally.attempts, tally.korean), (0, 1, 3, 3));
        assert_eq!((tally.kind(true, false), tally.kind(true, true), tally.kind(false, true)), (1, 2, 0));
        assert_eq!((tally.retried.get(&503), tally.given_up.get("c")), (Some(&1), Some(&1)));
        assert_eq!(tally.laborious.map(|it| it.0.to_string()).as_deref(), Some("m-2"));
    }

    #[test]
    fn a_missing_position_is_noticed() {
        let mut events = log(vec![("m-1", received("m-1", r#""PUSH""#)), ("m-1", planned("m-1"))]);
        assert!(Tally::of(&events).gapless);
        events[1].position = Position(3);
        assert!(!Tally::of(&events).gapless);
        assert!(!Tally::of(&events[1..]).gapless);
    }
}
