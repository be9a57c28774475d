//! From text to a JSON value, refusing what two readers could understand differently.
//!
//! A member named twice and U+0000 are refused at any depth: the first because parsers disagree on
//! which one counts, the second because not every database can hold it. Nesting is bounded, so that
//! nobody downstream has to fear a deep value.
//!
//! The value is our own and lives only while a message is read: texts without escapes stay in the
//! input, and objects are short lists, which halves the time of reading into `serde_json::Value`.

use std::{borrow::Cow, cell::RefCell, collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::{Rejection, RejectionCode, rejection::step};

/// How many objects and lists may lie in one another.
pub(crate) const DEPTH_MAX: usize = 32;

/// A JSON value of the input `'a`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Object<'a>),
}

/// The members of an object, no two of one name, in no order that means anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The type, with its article.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The same without the input.
    pub(crate) fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(it) => Json::Bool(it),
            Self::Number(it) => Json::Number(it),
            Self::Text(it) => Json::Text(Cow::Owned(it.into_owned())),
            Self::List(it) => Json::List(it.into_iter().map(Self::into_owned).collect()),
            Self::Object(Object(it)) => {
                let owned =
                    it.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned()));
                Json::Object(Object(owned.collect()))
            }
        }
    }
}

impl<'a> Object<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().find(|member| member.0 == name).map(|member| &member.1)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Json<'a>> {
        let index = self.0.iter().position(|member| member.0 == name)?;
        Some(self.0.swap_remove(index).1)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|member| &*member.0)
    }

    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value.into())).collect()
    }
}

impl From<Json<'_>> for Value {
    fn from(json: Json<'_>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(it) => Self::Bool(it),
            Json::Number(it) => Self::Number(it),
            Json::Text(it) => Self::String(it.into_owned()),
            Json::List(it) => it.into_iter().map(Self::from).collect(),
            Json::Object(it) => Self::Object(it.into_map()),
        }
    }
}

/// Reads one JSON text; `what` names it in rejections, as in `the body`.
///
/// # Errors
/// When it is not JSON, or not JSON that everybody would read the same way.
pub(crate) fn read<'a>(text: &'a str, what: &str) -> Result<Json<'a>, Rejection> {
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Reader { depth: 0, fault: &fault }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| fault.take().unwrap_or_else(|| not_json(text, what, &error)))
}

fn not_json(text: &str, what: &str, error: &serde_json::Error) -> Rejection {
    let (problem, remedy) = if text.trim_ascii().is_empty() {
        (format!("{what} is empty"), "send the message as one JSON object")
    } else if text.starts_with('\u{feff}') {
        (format!("{what} begins with a byte order mark"), "write it as UTF-8 without one")
    } else {
        (format!("{what} is not JSON: {error}"), "send the message as one JSON object")
    };
    Rejection::new(RejectionCode::NotJson, problem, remedy)
}

/// Reads a value that lies in `depth` objects and lists. What it finds wrong goes to `fault`,
/// because the deserializer's own error can carry text only; each level adds its step to the path.
#[derive(Clone, Copy)]
struct Reader<'f> {
    depth: usize,
    fault: &'f RefCell<Option<Rejection>>,
}

impl Reader<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth < DEPTH_MAX {
            return Ok(Self { depth: self.depth + 1, ..self });
        }
        let problem = format!("is nested deeper than {DEPTH_MAX} levels");
        Err(self.refuse(RejectionCode::TooDeep, &problem, "send a flatter message"))
    }

    fn refuse<E: Error>(self, code: RejectionCode, problem: &str, remedy: &str) -> E {
        self.fault.replace(Some(Rejection::new(code, problem, remedy)));
        E::custom(problem)
    }

    fn step(self, step: impl FnOnce() -> String) {
        // The outermost levels carry the news; the path of what lies too deep would be a page.
        let fault = self.fault.take();
        self.fault.replace(fault.map(|it| {
            let deep = it.code == RejectionCode::TooDeep;
            if deep && self.depth > 2 { it } else { it.within(&step()) }
        }));
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        TextReader { reader: self, is_name: false }.visit_borrowed_str(text).map(Json::Text)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        TextReader { reader: self, is_name: false }.visit_str(text).map(Json::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        loop {
            match list.next_element_seed(inner) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => return Ok(Json::List(values)),
                Err(error) => {
                    inner.step(|| format!("[{}]", values.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let inner = self.inner()?;
        let mut object = Vec::with_capacity(if self.depth == 0 { 16 } else { 4 });
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key_seed(TextReader { reader: inner, is_name: true })? {
            let value = if is_new(&object, &mut seen, &name) {
                members.next_value_seed(inner)
            } else {
                Err(inner.refuse(RejectionCode::DuplicateKey, "appears twice", "send it once"))
            };
            match value {
                Ok(value) => object.push((name, value)),
                Err(error) => {
                    inner.step(|| step(&name));
                    return Err(error);
                }
            }
        }
        Ok(Json::Object(Object(object)))
    }
}

/// Whether the object has no member of this name yet. Few are looked through; of many the names go
/// into a set.
fn is_new(object: &[(Cow<'_, str>, Json<'_>)], seen: &mut HashSet<String>, name: &str) -> bool {
    const FEW: usize = 32;
    if object.len() < FEW {
        return object.iter().all(|member| member.0 != name);
    }
    if seen.is_empty() {
        seen.extend(object.iter().map(|member| member.0.to_string()));
    }
    seen.insert(name.to_owned())
}

/// Reads a text, as a value or as a member's name.
struct TextReader<'f> {
    reader: Reader<'f>,
    is_name: bool,
}

impl<'de> DeserializeSeed<'de> for TextReader<'_> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextReader<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    /// Texts with an escape come here, and only they can hold U+0000.
    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        if text.contains('\0') {
            let remedy = "leave the character out; it cannot be stored everywhere";
            let error = self.reader.refuse(RejectionCode::BadCharacter, "contains '\\0'", remedy);
            if self.is_name {
                self.reader.step(|| step(text));
            }
            return Err(error);
        }
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<String> {
        read(text, "the body").err().map(|it| format!("{} {it}", it.code))
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in [
            "null",
            " [true, -1, 18446744073709551615, 0.1, -0.0, 1e300, \"\"] ",
            r#"{"a": {"b": [{"c": "\u00e9\ud83d\ude00\n"}]}, "": {}, "é": []}"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text, "the body").map(Value::from), Ok(value));
        }
    }

    #[test]
    fn a_member_named_twice_is_refused_where_it_is() {
        for (text, expected) in [
            (r#"{"a":1,"a":1}"#, "duplicate_key a appears twice; send it once"),
            (r#"{"a":{"b":[0,{"c":1,"\u0063":2}]}}"#, "duplicate_key a.b[1].c appears twice; send it once"),
            (r#"[[{"x y":1,"x y":2}]]"#, r#"duplicate_key [0][0]["x y"] appears twice; send it once"#),
        ] {
            assert_eq!(refused(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_member_named_twice_among_very_many_is_found() {
        for (first, second) in [(0, 999), (30, 31), (31, 32), (32, 33), (500, 999)] {
            let name = |n| if n == second { first } else { n };
            let members: Vec<_> = (0..1000).map(|n| format!("\"n{}\":0", name(n))).collect();
            let expected = format!("duplicate_key n{first} appears twice; send it once");
            assert_eq!(refused(&format!("{{{}}}", members.join(","))), Some(expected));
        }
        let members: Vec<_> = (0..1000).map(|n| format!("\"n{n}\":0")).collect();
        assert_eq!(refused(&format!("{{{}}}", members.join(","))), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(refused(&nested(DEPTH_MAX)), None);
        let expected = "too_deep [0][0] is nested deeper than 32 levels; send a flatter message";
        assert_eq!(refused(&nested(DEPTH_MAX + 1)).as_deref(), Some(expected));
        assert_eq!(refused(&nested(100_000)).as_deref(), Some(expected));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(40), "}".repeat(40));
        assert_eq!(
            refused(&objects).as_deref(),
            Some("too_deep a.a is nested deeper than 32 levels; send a flatter message"),
        );
    }

    #[test]
    fn the_character_zero_is_refused_in_names_and_values() {
        let tail = r"contains '\0'; leave the character out; it cannot be stored everywhere";
        assert_eq!(refused(r#"{"a":["\u0000"]}"#), Some(format!("bad_character a[0] {tail}")));
        assert_eq!(refused(r#"{"a\u0000":1}"#), Some(format!(r#"bad_character ["a\0"] {tail}"#)));
        assert_eq!(refused(r#"{"a":"\\u0000"}"#), None, "an escaped backslash is no zero");
    }

    #[test]
    fn what_is_not_json_is_told_with_its_place() {
        for (text, expected) in [
            ("", "the body is empty"),
            (" \n", "the body is empty"),
            ("hello", "the body is not JSON: expected value at line 1 column 1"),
            ("{\"a\":1", "the body is not JSON: EOF while parsing an object at line 1 column 6"),
            ("{} {}", "the body is not JSON: trailing characters at line 1 column 4"),
            (
                "[\"a\tb\"]",
                "the body is not JSON: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 4",
            ),
            ("[\"\\ud800\"]", "the body is not JSON: unexpected end of hex escape at line 1 column 9"),
            ("[NaN]", "the body is not JSON: expected value at line 1 column 2"),
            ("[1e999]", "the body is not JSON: number out of range at line 1 column 6"),
            ("\u{feff}{}", "the body begins with a byte order mark"),
        ] {
            let rejection = read(text, "the body").unwrap_err();
            assert_eq!((rejection.code, rejection.problem.as_str()), (RejectionCode::NotJson, expected));
        }
    }
}
