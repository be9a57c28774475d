//! Why input cannot become a message, in words that its producer can act on.
//!
//! A rejection never quotes texts or targets of a message, only ids, types and the few values that
//! the contract lists, so that it may be logged.

use std::fmt;

use super::json::Json;
use crate::id::BadId;

/// Why input cannot become a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}; {remedy}", .field.as_ref().map(|it| format!("{it} ")).unwrap_or_default())]
pub struct Rejection {
    /// For machines.
    pub code: RejectionCode,
    /// The path of the field, as `push.targets[0].token`; none when it is about the whole body.
    pub field: Option<String>,
    /// What is wrong with it, as the rest of a sentence.
    pub problem: String,
    /// What the producer should do.
    pub remedy: String,
}

/// The kinds of rejection, stable for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    /// More bytes than a message may have.
    TooLarge,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not JSON.
    NotJson,
    /// An object names a member twice, so what was meant depends on who reads it.
    DuplicateKey,
    /// Objects and lists, or envelopes, lie deeper in one another than allowed.
    TooDeep,
    /// Another JSON type than the contract says.
    WrongType,
    /// A required field is absent, null or empty.
    MissingField,
    /// Neither the body nor anything beside it names the message.
    MissingId,
    /// A text, list or object is longer than allowed.
    TooLong,
    /// A `notificationType` that does not exist.
    UnknownType,
    /// A character that is not allowed there.
    BadCharacter,
    /// No RFC 3339 time with an offset.
    BadTime,
    /// The right type, but none of the values allowed.
    BadValue,
    /// The message itself lies in S3; this is a pointer to it.
    S3Pointer,
}

impl RejectionCode {
    /// Every code.
    pub const ALL: [Self; 14] = [
        Self::TooLarge,
        Self::NotUtf8,
        Self::NotJson,
        Self::DuplicateKey,
        Self::TooDeep,
        Self::WrongType,
        Self::MissingField,
        Self::MissingId,
        Self::TooLong,
        Self::UnknownType,
        Self::BadCharacter,
        Self::BadTime,
        Self::BadValue,
        Self::S3Pointer,
    ];

    /// As written in quarantine, answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::DuplicateKey => "duplicate_key",
            Self::TooDeep => "too_deep",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::MissingId => "missing_id",
            Self::TooLong => "too_long",
            Self::UnknownType => "unknown_type",
            Self::BadCharacter => "bad_character",
            Self::BadTime => "bad_time",
            Self::BadValue => "bad_value",
            Self::S3Pointer => "s3_pointer",
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rejection {
    /// About the whole body, or about a field that [`Self::within`] names on the way out.
    pub(crate) fn new(code: RejectionCode, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, field: None, problem: problem.into(), remedy: remedy.into() }
    }

    /// The same one step further out: `token` within `targets[0]` within `push`.
    #[must_use]
    pub(crate) fn within(mut self, step: &str) -> Self {
        self.field = Some(self.field.map_or_else(|| step.to_owned(), |inner| join(step, &inner)));
        self
    }

    /// `value` has another type than `wanted`, such as `a string`.
    pub(crate) fn wrong_type(value: &Json<'_>, wanted: &str) -> Self {
        Self::new(RejectionCode::WrongType, format!("is {}", value.kind()), format!("send {wanted}"))
    }

    /// `bad` is what is wrong with an id.
    pub(crate) fn bad_id(bad: &BadId, remedy: &str) -> Self {
        let code = match bad {
            BadId::Empty => RejectionCode::MissingField,
            BadId::TooLong(_) => RejectionCode::TooLong,
            BadId::BadCharacter(_) | BadId::Untrimmed => RejectionCode::BadCharacter,
        };
        Self::new(code, bad.to_string(), remedy)
    }
}

/// A member's name as a step of a path: bare where it reads as one, else quoted; cut when long.
pub(super) fn step(key: &str) -> String {
    const SHOWN_MAX: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
    if !key.is_empty() && key.len() <= SHOWN_MAX && key.chars().all(plain) {
        return key.to_owned();
    }
    let shown: String = key.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < key.len() { "…" } else { "" };
    format!("[{shown:?}{more}]")
}

/// One path after another.
pub(super) fn join(outer: &str, inner: &str) -> String {
    let dot = if inner.starts_with('[') { "" } else { "." };
    format!("{outer}{dot}{inner}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_snake_case_name() {
        let names: std::collections::HashSet<_> = RejectionCode::ALL.iter().map(|it| it.as_str()).collect();
        assert_eq!(names.len(), RejectionCode::ALL.len());
        assert!(names.iter().all(|it| it.chars().all(|c| c.is_ascii_lowercase() || "_38".contains(c))));
    }

    #[test]
    fn paths_are_built_from_the_inside_out() {
        let rejection = Rejection::new(RejectionCode::TooLong, "is long", "cut it");
        let rejection = rejection.within("token").within("[2]").within("targets").within("push");
        assert_eq!(rejection.field.as_deref(), Some("push.targets[2].token"));
        assert_eq!(rejection.to_string(), "push.targets[2].token is long; cut it");
    }

    #[test]
    fn odd_names_are_quoted_and_long_ones_cut() {
        assert_eq!(step("passId"), "passId");
        assert_eq!(step("a b\n"), r#"["a b\n"]"#);
        assert_eq!(step(""), r#"[""]"#);
        assert_eq!(step(&"x".repeat(70)), format!("[\"{}\"…]", "x".repeat(64)));
    }
}
