//! What an answer means: ordered rules of the configuration, then the status code.
//!
//! Pure. A target is invalid only where a rule says so: a bare 404 or 410 as likely means a wrong
//! address or project, and believing it would wipe out every device at once.

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::Value;

use super::settings::{BuildError, Settings};
use crate::event::FailureClass;

/// The parts of an answer that rules look at.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    /// The body, where it is JSON and came whole.
    pub(crate) json: Option<&'a Value>,
}

/// Where a text stands in an answer: a JSON pointer, or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Pointer(String),
    Header(HeaderName),
}

/// One rule: if everything it asks for is so, the answer means `class`.
#[derive(Debug)]
pub(crate) struct Rule {
    statuses: Vec<Statuses>,
    header: Option<(HeaderName, Test)>,
    pointer: Option<(String, Test)>,
    class: Class,
    code: Option<Place>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Accepted,
    Failed(FailureClass),
}

/// One status, or all of a hundred.
#[derive(Debug, PartialEq, Eq)]
enum Statuses {
    One(u16),
    Hundred(u16),
}

#[derive(Debug)]
enum Test {
    Exists(bool),
    Equals(Value),
    Contains(String),
}

const CLASSES: &[(&str, Class)] = &[
    ("accepted", Class::Accepted),
    ("retry", Class::Failed(FailureClass::Retry)),
    ("invalid_target", Class::Failed(FailureClass::InvalidTarget)),
    ("permanent", Class::Failed(FailureClass::Permanent)),
    ("auth_config", Class::Failed(FailureClass::AuthConfig)),
    ("unknown", Class::Failed(FailureClass::Unknown)),
];

/// The class of the first rule that holds, and where that rule finds the code; else the status decides.
pub(crate) fn judge<'a>(rules: &'a [Rule], seen: &Seen<'_>) -> (Class, Option<&'a Place>) {
    let rule = rules.iter().find(|it| it.holds(seen));
    rule.map_or_else(|| (by_status(seen.status), None), |it| (it.class, it.code.as_ref()))
}

/// What a status means where no rule knows better.
pub(crate) const fn by_status(status: u16) -> Class {
    match status {
        200..=299 => Class::Accepted,
        401 | 403 => Class::Failed(FailureClass::AuthConfig),
        408 | 425 | 429 | 500..=599 => Class::Failed(FailureClass::Retry),
        _ => Class::Failed(FailureClass::Permanent),
    }
}

impl Place {
    /// Takes a place such as `/message/id` or `header:apns-id`.
    pub(crate) fn take(settings: &mut Settings, key: &'static str) -> Result<Option<Self>, BuildError> {
        let expected = "a JSON pointer such as \"/message/id\", or \"header:\" with a header's name";
        let Some(text) = settings.take::<String>(key, expected)? else { return Ok(None) };
        let header = text.strip_prefix("header:").and_then(|it| it.trim().parse().ok());
        let place = match header {
            Some(name) => Some(Self::Header(name)),
            None => text.starts_with('/').then(|| Self::Pointer(text.clone())),
        };
        let wrong = || settings.error(key, format!("is {text:?}"), format!("make it {expected}"));
        place.map(Some).ok_or_else(wrong)
    }

    /// The text that stands there; numbers are written out, nothing else counts.
    pub(crate) fn read(&self, seen: &Seen<'_>) -> Option<String> {
        let text = match self {
            Self::Header(name) => seen.headers.get(name)?.to_str().ok()?.to_owned(),
            Self::Pointer(pointer) => match seen.json?.pointer(pointer)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            },
        };
        Some(text).filter(|it| !it.is_empty())
    }
}

impl Rule {
    /// Reads one table of `outcomes`.
    pub(crate) fn take(mut settings: Settings) -> Result<Self, BuildError> {
        let statuses = take_statuses(&mut settings)?;
        let header = take_header(&mut settings)?;
        let pointer = settings.take::<String>("pointer", POINTER)?;
        let test = take_test(&mut settings)?;
        let pointer = match (pointer, test) {
            (Some(pointer), _) if !pointer.starts_with('/') => {
                let problem = format!("is {pointer:?}");
                return Err(settings.error("pointer", problem, format!("make it {POINTER}")));
            }
            (Some(pointer), test) => Some((pointer, test.unwrap_or(Test::Exists(true)))),
            (None, None) => None,
            (None, Some(_)) => {
                let problem = "has equals, contains or exists without a pointer";
                return Err(settings.error("", problem, format!("add pointer, {POINTER}")));
            }
        };
        if statuses.is_empty() && header.is_none() && pointer.is_none() {
            let remedy = "give it a status, a header or a pointer to look at";
            return Err(settings.error("", "would hold for every answer", remedy));
        }
        let class = take_class(&mut settings)?;
        let code = Place::take(&mut settings, "code")?;
        settings.finish()?;
        Ok(Self { statuses, header, pointer, class, code })
    }

    fn holds(&self, seen: &Seen<'_>) -> bool {
        let status = self.statuses.is_empty() || self.statuses.iter().any(|it| it.holds(seen.status));
        let header = self.header.as_ref().is_none_or(|(name, test)| {
            let value = seen.headers.get(name).map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
            test.holds(value.map(Value::String).as_ref())
        });
        let pointer = self.pointer.as_ref();
        status
            && header
            && pointer.is_none_or(|(at, test)| test.holds(seen.json.and_then(|it| it.pointer(at))))
    }
}

const POINTER: &str = "a JSON pointer such as \"/error/code\"";
const STATUS: &str = "a status such as 429, a hundred such as \"5xx\", or a list of these";

fn take_statuses(settings: &mut Settings) -> Result<Vec<Statuses>, BuildError> {
    let listed = match settings.take_value("status") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(one) => vec![one],
    };
    let read = |value: &Value| match value {
        Value::Number(number) => {
            let status = number.as_u64().filter(|it| (100..=599).contains(it))?;
            u16::try_from(status).ok().map(Statuses::One)
        }
        Value::String(text) => {
            let hundred = text.strip_suffix("xx")?.parse().ok()?;
            (1..=5).contains(&hundred).then_some(Statuses::Hundred(hundred))
        }
        _ => None,
    };
    let statuses: Option<Vec<_>> = listed.iter().map(read).collect();
    statuses.ok_or_else(|| settings.error("status", "cannot be used", format!("make it {STATUS}")))
}

fn take_header(settings: &mut Settings) -> Result<Option<(HeaderName, Test)>, BuildError> {
    let Some(mut table) = settings.take_table("header")? else { return Ok(None) };
    let name: String = table.require("name", "the header's name")?;
    let parsed = name.parse();
    let name = parsed.map_err(|_| table.error("name", format!("is {name:?}"), "make it a header's name"))?;
    let test = take_test(&mut table)?.unwrap_or(Test::Exists(true));
    table.finish()?;
    Ok(Some((name, test)))
}

fn take_test(settings: &mut Settings) -> Result<Option<Test>, BuildError> {
    let equals = settings.take_value("equals").map(Test::Equals);
    let contains = settings.take("contains", "a text")?.map(Test::Contains);
    let exists = settings.take("exists", "true or false")?.map(Test::Exists);
    let mut tests = equals.into_iter().chain(contains).chain(exists);
    let first = tests.next();
    if tests.next().is_some() {
        let remedy = "keep one of them, and write another rule for the other";
        return Err(settings.error("", "has more than one of equals, contains and exists", remedy));
    }
    Ok(first)
}

fn take_class(settings: &mut Settings) -> Result<Class, BuildError> {
    let names: Vec<_> = CLASSES.iter().map(|(name, _)| *name).collect();
    let expected = format!("one of: {}", names.join(", "));
    let class: String = settings.require("class", &expected)?;
    let known = CLASSES.iter().find(|(name, _)| *name == class);
    let wrong = || settings.error("class", format!("is {class:?}"), format!("make it {expected}"));
    known.map(|(_, class)| *class).ok_or_else(wrong)
}

impl Statuses {
    const fn holds(&self, status: u16) -> bool {
        match self {
            Self::One(one) => status == *one,
            Self::Hundred(hundred) => status / 100 == *hundred,
        }
    }
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Exists(wanted) => value.is_some() == *wanted,
            Self::Equals(wanted) => value.is_some_and(|it| equal(it, wanted)),
            Self::Contains(wanted) => value.is_some_and(|it| match it {
                Value::String(text) => text.contains(wanted.as_str()),
                Value::Array(items) => items.iter().any(|it| it == wanted.as_str()),
                _ => false,
            }),
        }
    }
}

/// Equal as JSON; numbers by value, so that 1 and 1.0 are one.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && b.is_number() && a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests;
