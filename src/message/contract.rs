//! The contract field by field: types, limits, and what to tell a producer who missed them.
//!
//! `docs/message.schema.json` says the same to machines; the schema's tests hold the two together.
//! Null counts as absent, and so does an empty text, because many serialisers write one for nothing.

use std::{collections::HashSet, io};

use serde_json::{Map, Value};

use super::{
    Channels, Message, Priority, PushOptions, Rejection, RejectionCode, Target,
    json::{Json, Object},
    rejection::{join, step},
    subscription::{Fault, Subscription},
};
use crate::{
    clock::Timestamp,
    id::{BadId, MessageId, RecipientId},
};

/// What a text may be.
pub(crate) struct Text {
    max: usize,
    unit: Unit,
    /// Whether line feed, carriage return and tab may stand in it.
    lines: bool,
}

#[derive(PartialEq)]
enum Unit {
    Characters,
    Bytes,
}

impl Text {
    /// So many characters, none of them a control character.
    pub(crate) const fn line(max: usize) -> Self {
        Self { max, unit: Unit::Characters, lines: false }
    }
}

const TITLE: Text = Text::line(512);
const BODY: Text = Text { max: 8 * 1024, unit: Unit::Bytes, lines: true };
const CATEGORY: Text = Text::line(64);
const LINK: Text = Text::line(2048);
pub(crate) const LOCALE: Text = Text::line(35);
const SOURCE: Text = Text::line(128);
const COLLAPSE_KEY: Text = Text::line(64);
const PROVIDER: Text = Text::line(64);
pub(crate) const TARGET: Text = Text::line(4096);
const TARGETS_MAX: usize = 100;
const DATA_BYTES_MAX: usize = 64 * 1024;
/// How many unknown fields are reported; all are kept.
const REPORTED_MAX: usize = 64;

const MESSAGE_ID_REMEDY: &str = "use 1–128 of A–Z a–z 0–9 . _ : - (a UUIDv7 is best)";
const RECIPIENT_ID_REMEDY: &str =
    "use 1–128 characters, no control characters and no white space at either end";
const TYPE_REMEDY: &str = r#"use "APP_NOTIFICATION", "PUSH" or a list of both"#;
const TIME_REMEDY: &str = "send an RFC 3339 time with an offset, such as 2026-11-22T09:00:00Z";
const TARGET_REMEDY: &str = "send an object with exactly one of token, topic, alias and subscription";
const SUBSCRIPTION_REMEDY: &str =
    "send what PushSubscription.toJSON() gives in the browser: endpoint, and p256dh and auth under keys";

/// An object of which known fields are taken; what is left is unknown.
pub(crate) struct Fields<'a>(Object<'a>);

impl<'a> Fields<'a> {
    pub(crate) const fn new(object: Object<'a>) -> Self {
        Self(object)
    }

    /// The message id of the body, if it has one. An empty one is a fault, not an absence.
    pub(super) fn message_id(&mut self) -> Result<Option<MessageId>, Rejection> {
        self.take("messageId", |value| match value {
            Json::Text(text) => MessageId::new(&text).map(Some).map_err(|bad| bad_message_id(&bad)),
            other => Err(Rejection::wrong_type(&other, "a string")),
        })
    }

    /// Everything else of the message, and the paths of what the contract does not know.
    pub(super) fn message(mut self, message_id: MessageId) -> Result<(Message, Vec<String>), Rejection> {
        let mut message = Message {
            message_id,
            notification_type: self.require("notificationType", |it| channels(&it), TYPE_REMEDY)?,
            recipient_id: self.require("recipientId", recipient_id, RECIPIENT_ID_REMEDY)?,
            title: self.require("title", |it| text(it, &TITLE), "send what the recipient is to read")?,
            body: self.text("body", &BODY)?,
            category: self.text("category", &CATEGORY)?,
            link: self.text("link", &LINK)?,
            image_url: self.text("imageUrl", &LINK)?,
            data: self.take("data", data)?.unwrap_or_default(),
            locale: self.text("locale", &LOCALE)?,
            source: self.text("source", &SOURCE)?,
            occurred_at: self.take("occurredAt", time)?,
            deliver_at: self.take("deliverAt", time)?,
            expires_at: self.take("expiresAt", time)?,
            collapse_key: self.text("collapseKey", &COLLAPSE_KEY)?,
            priority: self.take("priority", |it| priority(&it))?,
            push: None,
            unknown: Map::new(),
        };
        let push = self.take("push", push)?;
        message.unknown = self.0.into_map();
        if let Some((push, unknown)) = push {
            message.push = (push != PushOptions::default()).then_some(push);
            // No clash: the field of this name has just been taken.
            keep(&mut message.unknown, "push", unknown);
        }
        let unknown_fields = paths(&message.unknown);
        Ok((message, unknown_fields))
    }

    /// There is no message id anywhere.
    pub(super) fn missing_id(&self) -> Rejection {
        let remedy = "send an id that stays the same when you retry (a UUIDv7 is best): in the body, as \
                      the SQS message attribute messageId, or as the header Idempotency-Key";
        let rejection = self.missing("messageId", remedy);
        Rejection { code: RejectionCode::MissingId, ..rejection }
    }

    /// One field, where it is there and is not null.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Json<'a>) -> Result<Option<T>, Rejection>,
    ) -> Result<Option<T>, Rejection> {
        match self.0.take(name) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => read(value).map_err(|rejection| rejection.within(name)),
        }
    }

    /// One field that has to be there; `remedy` says what to send.
    pub(crate) fn require<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Json<'a>) -> Result<Option<T>, Rejection>,
        remedy: &str,
    ) -> Result<T, Rejection> {
        self.take(name, read)?.ok_or_else(|| self.missing(name, remedy))
    }

    /// One text; none where it is empty.
    pub(crate) fn text(&mut self, name: &str, rule: &Text) -> Result<Option<String>, Rejection> {
        self.take(name, |value| text(value, rule))
    }

    /// Refuses what nobody took of `what`, where a slip would otherwise go unnoticed.
    pub(crate) fn finish(self, what: &str, fields: &str) -> Result<(), Rejection> {
        let Some(name) = self.0.names().next() else { return Ok(()) };
        let (problem, remedy) =
            (format!("is no field of {what}"), format!("leave it out; there are {fields}"));
        Err(Rejection::new(RejectionCode::BadValue, problem, remedy).within(&step(name)))
    }

    fn missing(&self, name: &str, remedy: &str) -> Rejection {
        let letters = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
        let lookalike = self.0.names().find(|key| letters(key) == letters(name));
        let remedy =
            lookalike.map_or_else(|| remedy.to_owned(), |key| format!("rename {} to {name}", step(key)));
        Rejection::new(RejectionCode::MissingField, "is missing or empty", remedy).within(name)
    }
}

/// What is wrong with a message id, wherever it came from.
pub(super) fn bad_message_id(bad: &BadId) -> Rejection {
    let rejection = Rejection::bad_id(bad, MESSAGE_ID_REMEDY);
    match bad {
        BadId::Empty => Rejection { code: RejectionCode::MissingId, ..rejection },
        _ => rejection,
    }
}

fn recipient_id(value: Json<'_>) -> Result<Option<RecipientId>, Rejection> {
    match value {
        Json::Text(text) if text.is_empty() => Ok(None),
        Json::Text(text) => match RecipientId::new(&text) {
            Ok(id) => Ok(Some(id)),
            Err(bad) => Err(Rejection::bad_id(&bad, RECIPIENT_ID_REMEDY)),
        },
        other => Err(Rejection::wrong_type(&other, "a string")),
    }
}

fn channels(value: &Json<'_>) -> Result<Option<Channels>, Rejection> {
    let mut channels = Channels { inbox: false, push: false };
    let mut add = |value: &Json<'_>| match value.as_text() {
        Some("APP_NOTIFICATION") => {
            channels.inbox = true;
            Ok(())
        }
        Some("PUSH") => {
            channels.push = true;
            Ok(())
        }
        Some(other) => {
            let problem = format!("is {}, which is not known", quoted(other));
            Err(Rejection::new(RejectionCode::UnknownType, problem, TYPE_REMEDY))
        }
        None => {
            let problem = format!("is {}", value.kind());
            Err(Rejection::new(RejectionCode::WrongType, problem, TYPE_REMEDY))
        }
    };
    match value {
        Json::List(list) => each(list.iter(), |_, it| add(it))?,
        one => add(one)?,
    }
    Ok((channels.inbox || channels.push).then_some(channels))
}

/// Reads a text by its rule; none where it is empty.
pub(crate) fn text(value: Json<'_>, rule: &Text) -> Result<Option<String>, Rejection> {
    let Json::Text(text) = value else { return Err(Rejection::wrong_type(&value, "a string")) };
    let (length, unit) = match rule.unit {
        // There are never more characters than bytes: most texts need no counting.
        Unit::Characters if text.len() <= rule.max => (0, "characters"),
        Unit::Characters => (text.chars().count(), "characters"),
        Unit::Bytes => (text.len(), "bytes of UTF-8"),
    };
    if length > rule.max {
        let problem = format!("has {length} {unit}, more than {}", rule.max);
        return Err(Rejection::new(RejectionCode::TooLong, problem, "shorten it"));
    }
    let allowed = |c: char| !c.is_control() || (rule.lines && matches!(c, '\n' | '\r' | '\t'));
    if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
        let remedy = if rule.lines {
            "leave control characters other than line feed, carriage return and tab out"
        } else {
            "leave control characters out"
        };
        return Err(Rejection::new(RejectionCode::BadCharacter, format!("contains {bad:?}"), remedy));
    }
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

/// One of few words; what is not known is not repeated, for it could be a token in the wrong place.
pub(crate) fn one_of<T: Copy>(
    value: Json<'_>,
    list: &[T],
    word: impl Fn(&T) -> &'static str,
    remedy: &str,
) -> Result<Option<T>, Rejection> {
    let Some(text) = text(value, &PROVIDER)? else { return Ok(None) };
    let found = list.iter().find(|it| word(it) == text).copied();
    found.map(Some).ok_or_else(|| Rejection::new(RejectionCode::BadValue, "is not known", remedy))
}

/// Reads an RFC 3339 time from 1970 on.
pub(crate) fn time(value: Json<'_>) -> Result<Option<Timestamp>, Rejection> {
    let Json::Text(text) = value else {
        let problem = format!("is {}", value.kind());
        return Err(Rejection::new(RejectionCode::WrongType, problem, TIME_REMEDY));
    };
    // Other years could not be written back as they came once they are moved to UTC.
    let years = Timestamp::from_micros(0)..Timestamp::from_micros(253_402_300_800_000_000);
    match Timestamp::parse(&text).filter(|_| rfc3339(&text)) {
        Some(time) if years.contains(&time) => Ok(Some(time)),
        Some(_) => {
            let remedy = "send a time from 1970 to 9999";
            Err(Rejection::new(RejectionCode::BadTime, format!("is {}", quoted(&text)), remedy))
        }
        None => {
            let problem = format!("is {}, not an RFC 3339 time", quoted(&text));
            Err(Rejection::new(RejectionCode::BadTime, problem, TIME_REMEDY))
        }
    }
}

/// Whether the text has the shape that the schema's pattern describes; the calendar is not checked.
fn rfc3339(text: &str) -> bool {
    let shape = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                b'+' => byte == b'+' || byte == b'-',
                _ => byte == like,
            })
    };
    let Some((second, rest)) = text.split_at_checked(19) else { return false };
    let fraction =
        rest.strip_prefix('.').map_or(0, |it| 1 + it.bytes().take_while(u8::is_ascii_digit).count());
    let Some(offset) = rest.get(fraction..) else { return false };
    shape(second, "0000-00-00T00:00:00") && fraction != 1 && (offset == "Z" || shape(offset, "+00:00"))
}

fn priority(value: &Json<'_>) -> Result<Option<Priority>, Rejection> {
    let problem = match value.as_text() {
        Some("normal") => return Ok(Some(Priority::Normal)),
        Some("high") => return Ok(Some(Priority::High)),
        Some(other) => format!("is {}", quoted(other)),
        None => return Err(Rejection::wrong_type(value, r#""normal" or "high""#)),
    };
    Err(Rejection::new(RejectionCode::BadValue, problem, r#"use "normal" or "high""#))
}

fn data(value: Json<'_>) -> Result<Option<Map<String, Value>>, Rejection> {
    let Json::Object(data) = value else { return Err(Rejection::wrong_type(&value, "an object")) };
    let data = data.into_map();
    let mut size = Size(0);
    // Counting cannot fail, and a value read from JSON can be written as JSON.
    let _ = serde_json::to_writer(&mut size, &data);
    if size.0 > DATA_BYTES_MAX {
        let problem = format!("has {} bytes as JSON, more than {DATA_BYTES_MAX}", size.0);
        return Err(Rejection::new(RejectionCode::TooLong, problem, "send a link to what is long"));
    }
    Ok(Some(data))
}

/// The options, and what is unknown in them.
type Push = (PushOptions, Map<String, Value>);

fn push(value: Json<'_>) -> Result<Option<Push>, Rejection> {
    let Json::Object(object) = value else { return Err(Rejection::wrong_type(&value, "an object")) };
    let mut fields = Fields(object);
    let provider = fields.text("provider", &PROVIDER)?;
    let (targets, unknown) = fields.take("targets", targets)?.unwrap_or_default();
    let title = fields.text("title", &TITLE)?;
    let body = fields.text("body", &BODY)?;
    let mut rest = fields.0.into_map();
    keep(&mut rest, "targets", unknown);
    Ok(Some((PushOptions { provider, targets, title, body }, rest)))
}

/// The targets, each once, and what is unknown in them by their place in the list.
type Targets = (Vec<Target>, Map<String, Value>);

fn targets(value: Json<'_>) -> Result<Option<Targets>, Rejection> {
    let Json::List(list) = value else { return Err(Rejection::wrong_type(&value, "a list")) };
    if list.len() > TARGETS_MAX {
        let problem = format!("has {} entries, more than {TARGETS_MAX}", list.len());
        let remedy = "split the message, or push to a topic";
        return Err(Rejection::new(RejectionCode::TooLong, problem, remedy));
    }
    let mut seen = HashSet::with_capacity(list.len());
    let mut targets = Vec::with_capacity(list.len());
    let mut unknown = Map::new();
    each(list, |index, value| {
        let (target, rest) = target(value)?;
        if seen.insert(target.clone()) {
            targets.push(target);
        }
        keep(&mut unknown, &index.to_string(), rest);
        Ok(())
    })?;
    Ok(Some((targets, unknown)))
}

fn target(value: Json<'_>) -> Result<(Target, Map<String, Value>), Rejection> {
    let Json::Object(object) = value else {
        return Err(Rejection::new(RejectionCode::WrongType, format!("is {}", value.kind()), TARGET_REMEDY));
    };
    let mut fields = Fields(object);
    let token = fields.text("token", &TARGET)?.map(Target::Token);
    let topic = fields.text("topic", &TARGET)?.map(Target::Topic);
    let alias = fields.text("alias", &TARGET)?.map(Target::Alias);
    let subscription = fields.take("subscription", subscription)?;
    let mut named = [token, topic, alias, subscription].into_iter().flatten();
    match (named.next(), named.next()) {
        (Some(target), None) => Ok((target, fields.0.into_map())),
        (None, _) => Err(Rejection::new(RejectionCode::MissingField, "names no target", TARGET_REMEDY)),
        (Some(_), Some(_)) => {
            Err(Rejection::new(RejectionCode::BadValue, "names more than one target", TARGET_REMEDY))
        }
    }
}

/// A subscription is one thing and a secret: what else the browser says in it is not kept.
pub(crate) fn subscription(value: Json<'_>) -> Result<Option<Target>, Rejection> {
    if !matches!(value, Json::Object(_)) {
        let problem = format!("is {}", value.kind());
        return Err(Rejection::new(RejectionCode::WrongType, problem, SUBSCRIPTION_REMEDY));
    }
    match Subscription::parse(&value.into()) {
        Ok(subscription) => Ok(Some(Target::Subscription(subscription.canonical()))),
        Err(bad) => {
            let code = match bad.fault {
                Fault::Missing => RejectionCode::MissingField,
                Fault::Type => RejectionCode::WrongType,
                Fault::Length => RejectionCode::TooLong,
                Fault::Value => RejectionCode::BadValue,
            };
            Err(Rejection::new(code, bad.problem, SUBSCRIPTION_REMEDY).within(bad.field))
        }
    }
}

fn each<T>(
    list: impl IntoIterator<Item = T>,
    mut read: impl FnMut(usize, T) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    list.into_iter()
        .enumerate()
        .try_for_each(|(index, it)| read(index, it).map_err(|it| it.within(&format!("[{index}]"))))
}

fn keep(unknown: &mut Map<String, Value>, name: &str, inner: Map<String, Value>) {
    if !inner.is_empty() {
        unknown.insert(name.to_owned(), Value::Object(inner));
    }
}

/// The unknown fields as paths; those of `push` and its targets lie under the known names.
fn paths(unknown: &Map<String, Value>) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, value) in unknown {
        match value {
            Value::Object(push) if name == "push" => push_paths(push, &mut paths),
            _ => paths.push(step(name)),
        }
    }
    let more = paths.len().saturating_sub(REPORTED_MAX);
    if more > 0 {
        paths.truncate(REPORTED_MAX);
        paths.push(format!("… and {more} more"));
    }
    paths
}

fn push_paths(push: &Map<String, Value>, paths: &mut Vec<String>) {
    for (name, value) in push {
        match value {
            Value::Object(targets) if name == "targets" => {
                for (index, target) in targets {
                    let names = target.as_object().into_iter().flat_map(Map::keys);
                    paths.extend(names.map(|it| join(&format!("push.targets[{index}]"), &step(it))));
                }
            }
            _ => paths.push(join("push", &step(name))),
        }
    }
}

fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

/// How long what is written to it would be.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
