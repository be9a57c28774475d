//! What an inbox is, said once more and as simply as can be: messages in memory, lists by looking at all
//! of them, counts by counting.

use std::collections::BTreeMap;

use notification_ledger::{
    clock::Timestamp,
    event::Event,
    id::Cursor,
    store::inbox::{Archived, InboxFilter, Status},
};
use serde_json::{Map, Value, json};

/// What a recipient does with items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Seen,
    Read,
    Clicked,
    Unread,
    Archive,
    Unarchive,
    Delete,
}

/// What becomes of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Marked,
    Already,
    NotInInbox,
    Unknown,
}

/// What a producer sends under an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// For whom, of those in the history.
    pub(super) to: usize,
    pub(super) category: Option<&'static str>,
    /// Which of several titles.
    pub(super) title: u8,
    /// Not for the inbox.
    pub(super) push_only: bool,
    /// Not in the inbox before.
    pub(super) deliver_at: Option<Timestamp>,
    /// Not in the inbox from then on.
    pub(super) expires_at: Option<Timestamp>,
}

/// A message as everybody has to see it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) note: Note,
    /// Where it stands in lists.
    pub(super) cursor: Cursor,
    pub(super) received_at: Timestamp,
    /// When it was first in the inbox.
    pub(super) appeared_at: Option<Timestamp>,
    pub(super) place: Place,
    /// Other contents that were sent under its id.
    pub(super) conflicts: Vec<Note>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In no inbox, ever.
    Nowhere,
    /// It will be in the inbox.
    Waiting,
    /// In the inbox.
    Shown(Marks),
    /// The recipient removed it.
    Removed,
    /// Its end has come.
    Expired,
}

/// What was done with an item, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks {
    seen: Option<Timestamp>,
    read: Option<Timestamp>,
    clicked: Option<Timestamp>,
    archived: Option<Timestamp>,
}

/// All inboxes of a history.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// By their ids.
    pub(super) messages: BTreeMap<String, Message>,
}

impl Verb {
    pub(super) const ALL: [Self; 7] =
        [Self::Seen, Self::Read, Self::Clicked, Self::Unread, Self::Archive, Self::Unarchive, Self::Delete];

    /// As it stands in a path.
    pub(super) fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// What an event tells of, if it is a verb.
    pub(super) fn told_by(event: &Event) -> Option<Self> {
        Some(match event {
            Event::InboxSeen => Self::Seen,
            Event::InboxRead => Self::Read,
            Event::InboxClicked => Self::Clicked,
            Event::InboxUnread => Self::Unread,
            Event::InboxArchived => Self::Archive,
            Event::InboxUnarchived => Self::Unarchive,
            Event::InboxDeleted => Self::Delete,
            _ => return None,
        })
    }
}

impl Message {
    pub(super) fn new(note: Note, cursor: Cursor, received_at: Timestamp) -> Self {
        let waits = note.deliver_at.is_some_and(|it| it > received_at);
        let is_over = note.expires_at.is_some_and(|it| it <= received_at);
        let place = match (note.push_only || is_over, waits) {
            (true, _) => Place::Nowhere,
            (false, true) => Place::Waiting,
            (false, false) => Place::Shown(Marks::default()),
        };
        let appeared_at = matches!(place, Place::Shown(_)).then_some(received_at);
        Self { note, cursor, received_at, appeared_at, place, conflicts: Vec::new() }
    }

    /// Whether it has to come or go by now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let comes = self.place == Place::Waiting && self.note.deliver_at.is_some_and(|it| it <= now);
        let is_here = matches!(self.place, Place::Waiting | Place::Shown(_));
        comes || (is_here && self.note.expires_at.is_some_and(|it| it <= now))
    }

    /// Lets it come; tells why it cannot.
    pub(super) fn appear(&mut self, cursor: Cursor, at: Timestamp) -> Result<(), String> {
        if self.place != Place::Waiting || !self.is_due(at) {
            return Err(format!("it does not come now: {self:?}"));
        }
        (self.place, self.cursor, self.appeared_at) = (Place::Shown(Marks::default()), cursor, Some(at));
        Ok(())
    }

    /// Lets it go; tells why it does not.
    pub(super) fn expire(&mut self, at: Timestamp) -> Result<(), String> {
        if !self.is_due(at) || self.note.expires_at.is_none_or(|it| it > at) {
            return Err(format!("it does not go now: {self:?}"));
        }
        self.place = Place::Expired;
        Ok(())
    }

    /// What a verb would do now.
    pub(super) fn effect_of(&self, verb: Verb) -> Effect {
        let already = match (self.place, verb) {
            (Place::Removed, Verb::Delete) => true,
            (Place::Nowhere | Place::Waiting | Place::Removed | Place::Expired, _) => {
                return Effect::NotInInbox;
            }
            (Place::Shown(it), Verb::Seen) => it.seen.is_some(),
            (Place::Shown(it), Verb::Read) => it.read.is_some(),
            (Place::Shown(it), Verb::Clicked) => it.clicked.is_some() && it.read.is_some(),
            (Place::Shown(it), Verb::Unread) => it.read.is_none(),
            (Place::Shown(it), Verb::Archive) => it.archived.is_some(),
            (Place::Shown(it), Verb::Unarchive) => it.archived.is_none(),
            (Place::Shown(_), Verb::Delete) => false,
        };
        if already { Effect::Already } else { Effect::Marked }
    }

    /// Does it.
    pub(super) fn mark(&mut self, verb: Verb, at: Timestamp) {
        let Place::Shown(it) = &mut self.place else { return };
        match verb {
            Verb::Seen => _ = it.seen.get_or_insert(at),
            Verb::Read => (it.seen, it.read) = (it.seen.or(Some(at)), Some(at)),
            Verb::Clicked => {
                (it.seen, it.read) = (it.seen.or(Some(at)), it.read.or(Some(at)));
                it.clicked.get_or_insert(at);
            }
            Verb::Unread => it.read = None,
            Verb::Archive => it.archived = Some(at),
            Verb::Unarchive => it.archived = None,
            Verb::Delete => self.place = Place::Removed,
        }
    }

    /// Whether a list with this filter has it.
    pub(super) fn matches(&self, filter: &InboxFilter) -> bool {
        let Place::Shown(it) = self.place else { return false };
        let status = match filter.status {
            Status::All => true,
            Status::Unseen => it.seen.is_none(),
            Status::Unread => it.read.is_none(),
            Status::Read => it.read.is_some(),
        };
        let archived = match filter.archived {
            Archived::Exclude => it.archived.is_none(),
            Archived::Include => true,
            Archived::Only => it.archived.is_some(),
        };
        status
            && archived
            && filter.category.as_deref().is_none_or(|it| Some(it) == self.note.category)
            && filter.since.is_none_or(|it| self.appeared_at >= Some(it))
            && filter.until.is_none_or(|it| self.appeared_at < Some(it))
    }

    fn shown(&self, id: &str) -> Value {
        let Place::Shown(it) = self.place else { return Value::Null };
        let mut shown = json!({
            "messageId": id,
            "cursor": self.cursor.to_string(),
            "title": format!("title {}", self.note.title),
            "receivedAt": self.received_at.to_string(),
        });
        if let Some(category) = self.note.category {
            shown["category"] = category.into();
        }
        let marks = [
            ("appearedAt", self.appeared_at),
            ("expiresAt", self.note.expires_at),
            ("seenAt", it.seen),
            ("readAt", it.read),
            ("clickedAt", it.clicked),
            ("archivedAt", it.archived),
        ];
        for (name, at) in marks {
            if let Some(at) = at {
                shown[name] = at.to_string().into();
            }
        }
        shown
    }
}

impl Model {
    /// The items of a list, newest first, as the API shows them.
    pub(super) fn list(&self, of: usize, filter: &InboxFilter) -> Vec<Value> {
        let mut found: Vec<_> =
            self.messages.iter().filter(|(_, it)| it.note.to == of && it.matches(filter)).collect();
        found.sort_unstable_by_key(|(_, it)| std::cmp::Reverse(it.cursor.position));
        found.into_iter().map(|(id, it)| it.shown(id)).collect()
    }

    /// The counts of an inbox, as the API shows them.
    pub(super) fn counts(&self, of: usize) -> Value {
        let ever: Vec<_> =
            self.messages.values().filter(|it| it.note.to == of && it.appeared_at.is_some()).collect();
        let count = |category: Option<&str>| {
            let of = |status| {
                let filter =
                    InboxFilter { status, category: category.map(str::to_owned), ..InboxFilter::default() };
                ever.iter().filter(|it| it.matches(&filter)).count()
            };
            json!({"unseen": of(Status::Unseen), "unread": of(Status::Unread), "total": of(Status::All)})
        };
        let mut counts = count(None);
        let categories = ever.iter().filter_map(|it| it.note.category);
        let categories: Map<String, Value> = categories.map(|it| (it.to_owned(), count(Some(it)))).collect();
        counts["categories"] = categories.into();
        counts
    }
}
