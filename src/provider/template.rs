//! Templates for what a provider is sent: JSON bodies, URLs and header values with `{{placeholders}}`.
//!
//! Templates are checked when the provider is built, so that a typing error is an error at start and
//! not a failed push at night. A text that is one placeholder and nothing else becomes the typed JSON
//! value; where that value is missing, the key goes with it, and a table or list that loses everything
//! this way goes too. Every destination has its own guard: JSON is serialised, URL parts are
//! percent-encoded and cannot climb out of their path, header values cannot start a new line.

use std::{collections::BTreeMap, fmt::Write};

use reqwest::{Url, header::HeaderValue};
use serde_json::{Map, Value};

use super::{Push, vendor};
use crate::{
    clock::Timestamp,
    message::{Priority, Target},
    secret::Secret,
};

/// The secrets that templates may name as `{{secret.NAME}}`.
pub(crate) type Secrets = BTreeMap<String, Secret>;

/// What placeholders are filled from.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) push: &'a Push,
    pub(crate) now: Timestamp,
}

/// A text with placeholders.
#[derive(Debug)]
pub(crate) struct Text(Vec<Part>);

/// A JSON value whose texts may hold placeholders.
#[derive(Debug)]
pub(crate) enum Body {
    Plain(Value),
    Text(Text),
    List(Vec<Body>),
    Table(Vec<(String, Body)>),
}

/// A URL with placeholders behind the host.
#[derive(Debug)]
pub(crate) struct UrlTemplate(Text);

/// Why a template cannot be used; reads on after the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTemplate {
    #[error("has {{{{ without }}}}")]
    Unclosed,
    #[error("names {{{{{0}}}}}, which is not known")]
    Unknown(String),
    #[error("has a placeholder in the key {0:?}")]
    InKey(String),
    #[error("is no URL: {0}")]
    NotAUrl(String),
    #[error("does not begin with http:// or https:// and a host")]
    NoHost,
    #[error("has a placeholder before the path")]
    InHost,
    #[error("has a user name, a password or a fragment")]
    HasUserOrFragment,
    #[error("has a . or .. as a part of its path")]
    DotSegment,
}

/// Why a template cannot be filled from this push.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfilled {
    #[error("the URL needs {{{{{0}}}}}, and this push has none")]
    Missing(String),
    #[error("a value would turn the URL's path into another one")]
    OtherPath,
    #[error("the value is not allowed in a header")]
    NotAHeader,
}

#[derive(Debug)]
enum Part {
    Plain(String),
    Value(Placeholder),
}

/// The first of several sources that has a value.
#[derive(Debug)]
struct Placeholder {
    written: String,
    sources: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    Field(fn(&Scope<'_>) -> Option<Value>),
    Data(String),
    Secret(Secret),
}

type Field = (&'static str, fn(&Scope<'_>) -> Option<Value>);

/// Every name a placeholder may have, besides `message.data.KEY` and `secret.NAME`.
const FIELDS: &[Field] = &[
    ("title", |it| text(vendor::title(&it.push.message))),
    ("body", |it| vendor::body(&it.push.message).and_then(text)),
    ("deliveryId", |it| text(&it.push.delivery_id)),
    ("attempt", |it| Some(it.push.attempt.into())),
    ("providerKey", |it| text(&it.push.provider_key)),
    ("recipientId", |it| text(&it.push.message.recipient_id)),
    ("ttlSeconds", |it| it.push.message.expires_at.map(|at| at.since(it.now).as_secs().into())),
    ("target.kind", |it| text(it.push.target.kind())),
    ("target.value", |it| text(it.push.target.value())),
    ("target.token", |it| target(it, |it| matches!(it, Target::Token(_)))),
    ("target.topic", |it| target(it, |it| matches!(it, Target::Topic(_)))),
    ("target.alias", |it| target(it, |it| matches!(it, Target::Alias(_)))),
    ("message.messageId", |it| text(&it.push.message.message_id)),
    ("message.notificationType", |it| serde_json::to_value(it.push.message.notification_type).ok()),
    ("message.recipientId", |it| text(&it.push.message.recipient_id)),
    ("message.title", |it| text(&it.push.message.title)),
    ("message.body", |it| optional(it.push.message.body.as_ref())),
    ("message.category", |it| optional(it.push.message.category.as_ref())),
    ("message.link", |it| optional(it.push.message.link.as_ref())),
    ("message.imageUrl", |it| optional(it.push.message.image_url.as_ref())),
    ("message.data", |it| {
        Some(&it.push.message.data).filter(|it| !it.is_empty()).cloned().map(Value::Object)
    }),
    ("message.locale", |it| optional(it.push.message.locale.as_ref())),
    ("message.source", |it| optional(it.push.message.source.as_ref())),
    ("message.occurredAt", |it| it.push.message.occurred_at.as_ref().and_then(text)),
    ("message.deliverAt", |it| it.push.message.deliver_at.as_ref().and_then(text)),
    ("message.expiresAt", |it| it.push.message.expires_at.as_ref().and_then(text)),
    ("message.collapseKey", |it| optional(it.push.message.collapse_key.as_ref())),
    ("message.priority", |it| it.push.message.priority.and_then(priority)),
];

#[allow(clippy::unnecessary_wraps, reason = "every field answers with an option")]
fn text(value: &(impl ToString + ?Sized)) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

fn optional(value: Option<&String>) -> Option<Value> {
    value.and_then(text)
}

fn priority(priority: Priority) -> Option<Value> {
    serde_json::to_value(priority).ok()
}

fn target(scope: &Scope<'_>, wanted: fn(&Target) -> bool) -> Option<Value> {
    Some(&scope.push.target).filter(|it| wanted(it)).and_then(|it| text(it.value()))
}

impl BadTemplate {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Unclosed => "close every {{ with }}".into(),
            Self::Unknown(_) => {
                let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
                format!("use one of: {}, message.data.KEY, secret.NAME from secrets", names.join(", "))
            }
            Self::InKey(_) => "use placeholders in values only".into(),
            Self::NotAUrl(_) | Self::NoHost => "write it like https://push.example.com/v1/send".into(),
            Self::InHost => "write scheme and host out; placeholders may stand in path and query".into(),
            Self::HasUserOrFragment => {
                "leave it out; credentials belong in a header, as {{secret.NAME}}".into()
            }
            Self::DotSegment => "write the path out".into(),
        }
    }
}

impl Text {
    /// Reads a text; every placeholder must be known.
    pub(crate) fn parse(template: &str, secrets: &Secrets) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or(BadTemplate::Unclosed)?;
            if !before.is_empty() {
                parts.push(Part::Plain(before.to_owned()));
            }
            parts.push(Part::Value(Placeholder::parse(inside.trim(), secrets)?));
            rest = after;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Plain(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Whether a secret is in it.
    pub(crate) fn has_secret(&self) -> bool {
        self.placeholders().any(|it| it.sources.iter().any(|it| matches!(it, Source::Secret(_))))
    }

    /// The typed value where it is one placeholder, else a text; nothing where that value is missing.
    pub(crate) fn value(&self, scope: &Scope<'_>) -> Option<Value> {
        match self.0.as_slice() {
            [Part::Value(only)] => only.value(scope),
            _ => Some(Value::String(self.interpolated(scope))),
        }
    }

    /// The text as a header's value; nothing where it is one placeholder whose value is missing.
    pub(crate) fn header(&self, scope: &Scope<'_>) -> Result<Option<HeaderValue>, Unfilled> {
        let Some(value) = self.value(scope) else { return Ok(None) };
        let mut header = HeaderValue::from_str(&written(value)).map_err(|_| Unfilled::NotAHeader)?;
        header.set_sensitive(self.has_secret());
        Ok(Some(header))
    }

    fn interpolated(&self, scope: &Scope<'_>) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Plain(text) => text.clone(),
            Part::Value(placeholder) => placeholder.value(scope).map(written).unwrap_or_default(),
        });
        parts.collect()
    }

    fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| match part {
            Part::Plain(_) => None,
            Part::Value(placeholder) => Some(placeholder),
        })
    }
}

impl Placeholder {
    fn parse(inside: &str, secrets: &Secrets) -> Result<Self, BadTemplate> {
        let source = |name: &str| {
            let unknown = || BadTemplate::Unknown(name.to_owned());
            if let Some(key) = name.strip_prefix("message.data.").filter(|it| !it.is_empty()) {
                return Ok(Source::Data(key.to_owned()));
            }
            if let Some(secret) = name.strip_prefix("secret.") {
                return secrets.get(secret).cloned().map(Source::Secret).ok_or_else(unknown);
            }
            let field = FIELDS.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
            Ok(Source::Field(field.1))
        };
        let sources = inside.split('|').map(|it| source(it.trim())).collect::<Result<_, _>>()?;
        Ok(Self { written: inside.to_owned(), sources })
    }

    fn value(&self, scope: &Scope<'_>) -> Option<Value> {
        let found = self.sources.iter().find_map(|source| match source {
            Source::Field(field) => field(scope),
            Source::Data(key) => from_data(&scope.push.message.data, key).cloned(),
            Source::Secret(secret) => text(secret.expose()),
        });
        found.filter(|it| !it.is_null())
    }
}

/// The value under a key, or under keys inside one another where `key` has dots.
fn from_data<'a>(data: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let whole = data.get(key).filter(|it| !it.is_null());
    whole.or_else(|| {
        let (outer, inner) = key.split_once('.')?;
        from_data(data.get(outer)?.as_object()?, inner)
    })
}

/// A value as it stands inside a text: texts as they are, anything else as JSON.
fn written(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

impl Body {
    /// Reads a JSON value; placeholders stand in texts, not in keys.
    pub(crate) fn parse(template: &Value, secrets: &Secrets) -> Result<Self, BadTemplate> {
        match template {
            Value::String(text) => Ok(Self::Text(Text::parse(text, secrets)?)),
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(|it| Self::parse(it, secrets)).collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(map) if !map.is_empty() => {
                let entry = |(key, value): (&String, &Value)| {
                    if key.contains("{{") {
                        return Err(BadTemplate::InKey(key.clone()));
                    }
                    Ok((key.clone(), Self::parse(value, secrets)?))
                };
                map.iter().map(entry).collect::<Result<_, _>>().map(Self::Table)
            }
            plain => Ok(Self::Plain(plain.clone())),
        }
    }

    /// The JSON value; nothing where everything in it is missing.
    pub(crate) fn render(&self, scope: &Scope<'_>) -> Option<Value> {
        match self {
            Self::Plain(value) => Some(value.clone()),
            Self::Text(text) => text.value(scope),
            Self::List(items) => {
                let left: Vec<_> = items.iter().filter_map(|it| it.render(scope)).collect();
                (!left.is_empty()).then_some(Value::Array(left))
            }
            Self::Table(entries) => {
                let entry = |(key, it): &(String, Self)| Some((key.clone(), it.render(scope)?));
                let left: Map<_, _> = entries.iter().filter_map(entry).collect();
                (!left.is_empty()).then_some(Value::Object(left))
            }
        }
    }
}

impl UrlTemplate {
    /// Reads a URL; scheme and host are written out.
    pub(crate) fn parse(template: &str, secrets: &Secrets) -> Result<Self, BadTemplate> {
        let text = Text::parse(template, secrets)?;
        let fixed = template.split("{{").next().unwrap_or_default();
        let host = ["https://", "http://"].iter().find_map(|it| fixed.strip_prefix(it));
        let host = host.filter(|it| !it.is_empty());
        let Some(host) = host else { return Err(BadTemplate::NoHost) };
        if text.placeholders().next().is_some() && !host.contains(['/', '?']) {
            return Err(BadTemplate::InHost);
        }
        let sample = text.filled(|_| Ok::<_, BadTemplate>("x".to_owned()))?;
        if has_dot_segment(&sample) {
            return Err(BadTemplate::DotSegment);
        }
        let url = Url::parse(&sample).map_err(|error| BadTemplate::NotAUrl(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(BadTemplate::HasUserOrFragment);
        }
        Ok(Self(text))
    }

    /// Whether calls go over plain HTTP.
    pub(crate) fn is_plain_http(&self) -> bool {
        matches!(self.0.0.first(), Some(Part::Plain(text)) if text.starts_with("http://"))
    }

    /// The URL; a value that is missing or empty would call another one, so it is an error.
    pub(crate) fn render(&self, scope: &Scope<'_>) -> Result<Url, Unfilled> {
        let filled = self.0.filled(|placeholder| {
            let value = placeholder.value(scope).map(written).filter(|it| !it.is_empty());
            let missing = || Unfilled::Missing(placeholder.written.clone());
            value.map(|it| percent_encoded(&it)).ok_or_else(missing)
        })?;
        if has_dot_segment(&filled) {
            return Err(Unfilled::OtherPath);
        }
        Url::parse(&filled).map_err(|_| Unfilled::OtherPath)
    }
}

impl Text {
    fn filled<E>(&self, fill: impl Fn(&Placeholder) -> Result<String, E>) -> Result<String, E> {
        let parts = self.0.iter().map(|part| match part {
            Part::Plain(text) => Ok(text.clone()),
            Part::Value(placeholder) => fill(placeholder),
        });
        parts.collect()
    }
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// URL parsers take `.` and `..` for steps in the path, so that a value could lead elsewhere.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    path.split('/').any(|it| matches!(it, "." | ".."))
}

#[cfg(test)]
mod tests;
