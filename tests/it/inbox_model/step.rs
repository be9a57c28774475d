//! What several clients did at once, explained by the log: each answer and each event has to follow from
//! the model, in the order of the log.

use std::collections::BTreeMap;

use notification_ledger::{
    event::{Event, Recorded},
    id::{Cursor, Position},
    store::inbox::{Archived, InboxFilter},
};
use serde_json::Value;

use super::model::{Effect, Message, Model, Note, Verb};

/// What one client asks for.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Send { id: String, note: Note },
    Mark { whose: usize, verb: Verb, id: String },
    MarkNamed { whose: usize, verb: Verb, ids: Vec<String> },
    MarkUpTo { whose: usize, verb: Verb, up_to: Cursor, filter: InboxFilter },
}

/// A request with its answer.
#[derive(Debug)]
pub(super) struct Call {
    /// Who asked, as the log names them; each client asks for one thing in a step.
    pub(super) actor: String,
    pub(super) request: Request,
    pub(super) status: u16,
    pub(super) answer: Value,
}

/// How everything changed in one step.
struct Course<'a> {
    events: &'a [Recorded],
    /// What each message was, before the step and after each event on it; none before it was there.
    messages: BTreeMap<String, Vec<Option<Message>>>,
    /// The counts of each recipient, and from which position on they stand.
    counts: BTreeMap<usize, Vec<(Position, Value)>>,
    /// Whether the counts of answers may be a little old.
    may_be_old: bool,
}

/// Takes the events of a step into the model; tells what does not follow from what.
pub(super) fn explain(
    model: &mut Model,
    events: &[Recorded],
    calls: &[Call],
    recipients: usize,
    may_be_old: bool,
) -> Result<(), String> {
    let named = calls.iter().flat_map(|it| it.request.ids());
    let known = model.messages.keys().map(String::as_str);
    let messages =
        known.chain(named).map(|id| (id.to_owned(), vec![model.messages.get(id).cloned()])).collect();
    let counts = (0..recipients).map(|it| (it, vec![(Position(0), model.counts(it))])).collect();
    let mut course = Course { events, messages, counts, may_be_old };
    for event in events {
        course.follow(model, event, calls).map_err(|why| format!("{}: {why}", told(event)))?;
    }
    for call in calls {
        course.check(call).map_err(|why| format!("{call:?}: {why}"))?;
    }
    Ok(())
}

/// An event in a line.
pub(super) fn told(it: &Recorded) -> String {
    let body = format!("{:?}", it.body);
    let name = body.split(['(', ' ', '{']).next().unwrap_or_default();
    let actor = it.metadata.actor.as_deref().unwrap_or("nobody");
    format!("{} {name} of {} by {actor} at {}", it.cursor(), it.message_id, it.occurred_at)
}

impl Request {
    /// The messages it names.
    fn ids(&self) -> Vec<&str> {
        match self {
            Self::Send { id, .. } | Self::Mark { id, .. } => vec![id],
            Self::MarkNamed { ids, .. } => ids.iter().map(String::as_str).collect(),
            Self::MarkUpTo { .. } => Vec::new(),
        }
    }
}

impl Course<'_> {
    /// Takes in an event, if somebody asked for it and it changes something.
    fn follow(&mut self, model: &mut Model, event: &Recorded, calls: &[Call]) -> Result<(), String> {
        let id = event.message_id.as_str();
        let verb = Verb::told_by(&event.body);
        match event.body {
            Event::MessageReceived(_) | Event::MessageConflicted(_) => {}
            Event::InboxPresented | Event::InboxExpired => return self.follow_time(model, event),
            _ if verb.is_none() => return Ok(()),
            _ => {}
        }
        let call = calls.iter().find(|it| event.metadata.actor.as_ref() == Some(&it.actor));
        let request = &call.ok_or("nobody of this step is named")?.request;
        let before = self.messages.get(id).ok_or("nobody named the message")?;
        let now = before.last().cloned().flatten();
        let after = match (&event.body, request, now) {
            (Event::MessageReceived(_), Request::Send { id: sent, note }, None) if sent == id => {
                Message::new(*note, event.cursor(), event.recorded_at)
            }
            (Event::MessageConflicted(_), Request::Send { id: sent, note }, Some(mut it))
                if sent == id && it.note != *note && !it.conflicts.contains(note) =>
            {
                it.conflicts.push(*note);
                it
            }
            (_, request, Some(mut it)) => {
                let verb = verb.ok_or("it does not follow from the request")?;
                if !request.may_mark(verb, id, before) {
                    return Err(format!("{request:?} does not mean it"));
                }
                if it.effect_of(verb) != Effect::Marked {
                    return Err(format!("it changes nothing: {it:?}"));
                }
                it.mark(verb, event.occurred_at);
                it
            }
            _ => return Err("it does not follow from the request".to_owned()),
        };
        self.note(model, event, after);
        Ok(())
    }

    /// Takes in that an item comes or goes by itself.
    fn follow_time(&mut self, model: &mut Model, event: &Recorded) -> Result<(), String> {
        let known = model.messages.get(event.message_id.as_str());
        let mut it = known.cloned().ok_or("there is no such message")?;
        match event.body {
            Event::InboxPresented => it.appear(event.cursor(), event.occurred_at)?,
            _ => it.expire(event.occurred_at)?,
        }
        self.note(model, event, it);
        Ok(())
    }

    /// Keeps what a message is after an event.
    fn note(&mut self, model: &mut Model, event: &Recorded, after: Message) {
        let (id, to) = (event.message_id.as_str(), after.note.to);
        model.messages.insert(id.to_owned(), after.clone());
        self.messages.entry(id.to_owned()).or_default().push(Some(after));
        self.counts.entry(to).or_default().push((event.position, model.counts(to)));
    }

    /// Whether an answer follows from what the messages were in this step.
    fn check(&self, call: &Call) -> Result<(), String> {
        let own: Vec<_> =
            self.events.iter().filter(|it| it.metadata.actor.as_ref() == Some(&call.actor)).collect();
        let result = call.answer["result"].as_str();
        match &call.request {
            Request::Send { id, note } => {
                let was = |what: &dyn Fn(&Message) -> bool| self.was(id, |it| it.is_some_and(what));
                let expected = match own.iter().map(|it| &it.body).next() {
                    Some(Event::MessageReceived(_)) => (201, Some("appended")),
                    Some(_) => (409, Some("conflict")),
                    None if was(&|it| it.note == *note) => (200, Some("redelivered")),
                    None if was(&|it| it.conflicts.contains(note)) => (409, Some("conflict")),
                    None => return Err("nothing was recorded".to_owned()),
                };
                same(&(call.status, result), &expected)
            }
            Request::Mark { whose, verb, id } => {
                let problem = call.answer["type"].as_str().and_then(|it| it.rsplit(['/', ':', '#']).next());
                let effect = match (call.status, problem, own.len()) {
                    (200, _, 1) => Effect::Marked,
                    (200, _, 0) => Effect::Already,
                    (404, Some("not-in-inbox"), 0) => Effect::NotInInbox,
                    (404, Some("unknown-message"), 0) => Effect::Unknown,
                    _ => return Err(format!("this answer and {} events", own.len())),
                };
                self.check_effect(*whose, *verb, id, effect)?;
                if let Some(event) = own.first() {
                    same(&call.answer["cursor"], &event.cursor().to_string().into())?;
                }
                if call.status == 200 { self.check_counts(*whose, &call.answer) } else { Ok(()) }
            }
            Request::MarkNamed { whose, verb, ids } => {
                same(&(call.status, &call.answer["marked"]), &(200, &own.len().into()))?;
                let results = call.answer["results"].as_array().map_or(&[][..], Vec::as_slice);
                let named: Vec<_> = results.iter().filter_map(|it| it["messageId"].as_str()).collect();
                same(&named, &ids.iter().map(String::as_str).collect())?;
                for (id, result) in ids.iter().zip(results) {
                    let effect = match result["result"].as_str() {
                        Some("marked") => Effect::Marked,
                        Some("already") => Effect::Already,
                        Some("not-in-inbox") => Effect::NotInInbox,
                        _ => Effect::Unknown,
                    };
                    self.check_effect(*whose, *verb, id, effect)?;
                }
                let marked: Vec<_> = results.iter().filter(|it| it["result"] == "marked").collect();
                same(&marked.len(), &own.len())?;
                for (event, result) in own.iter().zip(marked) {
                    same(&result["cursor"], &event.cursor().to_string().into())?;
                }
                self.check_counts(*whose, &call.answer)
            }
            Request::MarkUpTo { whose, verb, up_to, filter } => {
                same(&(call.status, &call.answer["marked"]), &(200, &own.len().into()))?;
                for (id, states) in &self.messages {
                    let marked = own.iter().any(|it| it.message_id.as_str() == id);
                    let may_be_left = |it: &Option<Message>| {
                        it.as_ref().is_none_or(|it| {
                            it.note.to != *whose
                                || it.cursor.position > up_to.position
                                || !it.matches(&meant(*verb, filter))
                                || it.effect_of(*verb) != Effect::Marked
                        })
                    };
                    if !marked && !self.may_be_old && !states.iter().any(may_be_left) {
                        return Err(format!("{id} was left as it is"));
                    }
                }
                self.check_counts(*whose, &call.answer)
            }
        }
    }

    fn was(&self, id: &str, what: impl Fn(Option<&Message>) -> bool) -> bool {
        self.messages.get(id).is_some_and(|states| states.iter().any(|it| what(it.as_ref())))
    }

    /// Whether a verb could have this effect at some moment of the step.
    fn check_effect(&self, whose: usize, verb: Verb, id: &str, effect: Effect) -> Result<(), String> {
        let could = self.was(id, |it| match it {
            Some(it) if it.note.to == whose => it.effect_of(verb) == effect,
            _ => effect == Effect::Unknown,
        });
        if could { Ok(()) } else { Err(format!("{id} could not be {effect:?}: {:?}", self.messages.get(id))) }
    }

    /// Whether the counts of an answer are those of some moment after its cursor.
    fn check_counts(&self, whose: usize, answer: &Value) -> Result<(), String> {
        let Some(cursor) = answer["cursor"].as_str() else { return Ok(()) };
        let cursor: Cursor = cursor.parse().map_err(|it| format!("{it}"))?;
        let counts = &answer["counts"];
        if self.may_be_old && !counts.is_null() {
            return Ok(());
        }
        let course = &self.counts[&whose];
        let ends = course.iter().skip(1).map(|it| it.0).chain([Position(i64::MAX)]);
        let mut fitting = course.iter().zip(ends).filter(|(_, end)| *end > cursor.position).map(|it| &it.0.1);
        if fitting.any(|it| it == counts) { Ok(()) } else { Err(format!("counts were {course:?}")) }
    }
}

impl Request {
    /// Whether it may be why a message is marked that was these things so far.
    fn may_mark(&self, verb: Verb, id: &str, states: &[Option<Message>]) -> bool {
        let is_own = |whose: usize| states.iter().flatten().all(|it| it.note.to == whose);
        match self {
            Self::Send { .. } => false,
            Self::Mark { whose, verb: asked, id: named } => is_own(*whose) && *asked == verb && named == id,
            Self::MarkNamed { whose, verb: asked, ids } => {
                is_own(*whose) && *asked == verb && ids.iter().any(|it| it == id)
            }
            Self::MarkUpTo { whose, verb: asked, up_to, filter } => {
                let is_meant =
                    |it: &Message| it.cursor.position <= up_to.position && it.matches(&meant(verb, filter));
                is_own(*whose) && *asked == verb && states.iter().flatten().any(is_meant)
            }
        }
    }
}

/// What is brought back was put away, whatever the filter says of the rest.
fn meant(verb: Verb, filter: &InboxFilter) -> InboxFilter {
    match (verb, filter.archived) {
        (Verb::Unarchive, Archived::Exclude) => InboxFilter { archived: Archived::Only, ..filter.clone() },
        _ => filter.clone(),
    }
}

pub(super) fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}\nexpected {expected:?}")) }
}
