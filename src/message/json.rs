//! From text to a JSON value, refusing what two readers could understand differently.
//!
//! A member named twice and U+0000 are refused at any depth: the first because parsers disagree on
//! which one counts, the second because not every database can hold it. Nesting is bounded, so that
//! nobody downstream has to fear a deep value.

use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, map::Entry};

use super::{Rejection, RejectionCode, rejection};

/// How many objects and lists may lie in one another.
pub(super) const DEPTH_MAX: usize = 32;

/// Reads one JSON text; `what` names it in rejections, as in `the body`.
///
/// # Errors
/// When it is not JSON, or not JSON that everybody would read the same way.
pub(super) fn read(text: &str, what: &str) -> Result<Value, Rejection> {
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
struct Reader<'a> {
    depth: usize,
    fault: &'a RefCell<Option<Rejection>>,
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

    /// Only strings with an escape can hold U+0000, and those never come borrowed.
    fn unescaped<E: Error>(self, text: &str) -> Result<String, E> {
        if text.contains('\0') {
            let remedy = "leave the character out; it cannot be stored everywhere";
            return Err(self.refuse(RejectionCode::BadCharacter, "contains '\\0'", remedy));
        }
        Ok(text.to_owned())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.unescaped(text).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        loop {
            match list.next_element_seed(inner) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => return Ok(Value::Array(values)),
                Err(error) => {
                    inner.step(|| format!("[{}]", values.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key_seed(Key(inner))? {
            match object.entry(key) {
                Entry::Vacant(place) => match members.next_value_seed(inner) {
                    Ok(value) => {
                        place.insert(value);
                    }
                    Err(error) => {
                        inner.step(|| rejection::step(place.key()));
                        return Err(error);
                    }
                },
                Entry::Occupied(place) => {
                    let error = inner.refuse(RejectionCode::DuplicateKey, "appears twice", "send it once");
                    inner.step(|| rejection::step(place.key()));
                    return Err(error);
                }
            }
        }
        Ok(Value::Object(object))
    }
}

/// A member's name.
struct Key<'a>(Reader<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        self.0.unescaped(text).inspect_err(|_: &E| self.0.step(|| rejection::step(text)))
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
            assert_eq!(read(text, "the body"), Ok(serde_json::from_str(text).unwrap()));
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
