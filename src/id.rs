//! Names of things: messages, recipients, deliveries, shards and places in the log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;

/// Longest message id, in characters (they are ASCII).
pub const MESSAGE_ID_MAX: usize = 128;
/// Longest recipient id, in characters.
pub const RECIPIENT_ID_MAX: usize = 128;

/// The id a producer chose for a message: 1–128 of `[A-Za-z0-9._:-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(Box<str>);

/// The company's own, opaque id of a person: 1–128 characters, no control characters, no space at
/// either end (MySQL's collations ignore trailing spaces, so such ids could not be told apart).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecipientId(Box<str>);

/// The app's own id of a device or installation of one recipient: 1–128 of `[A-Za-z0-9._:-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(Box<str>);

/// Why a text cannot be an id; reads as the rest of a sentence after the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// No character at all.
    #[error("is empty")]
    Empty,
    /// More than [`MESSAGE_ID_MAX`] or [`RECIPIENT_ID_MAX`] characters.
    #[error("has {0} characters, more than 128")]
    TooLong(usize),
    /// A character outside the allowed set.
    #[error("contains {0:?}, which is not allowed")]
    BadCharacter(char),
    /// White space at an end.
    #[error("begins or ends with white space")]
    Untrimmed,
}

impl MessageId {
    /// A new id as producers are told to make them: a version 7 UUID, so that what came later sorts later.
    #[must_use]
    pub fn random(now: Timestamp) -> Self {
        Self(time_ordered(now).to_string().into())
    }

    /// Checks and takes the text.
    ///
    /// # Errors
    /// When the text breaks the rule stated on the type.
    pub fn new(text: &str) -> Result<Self, BadId> {
        plain(text).map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviceId {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// When the text breaks the rule stated on the type.
    pub fn new(text: &str) -> Result<Self, BadId> {
        plain(text).map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text of 1–128 of `[A-Za-z0-9._:-]`.
fn plain(text: &str) -> Result<Box<str>, BadId> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
        return Err(BadId::BadCharacter(bad));
    }
    match text.len() {
        0 => Err(BadId::Empty),
        len if len > MESSAGE_ID_MAX => Err(BadId::TooLong(len)),
        _ => Ok(text.into()),
    }
}

impl RecipientId {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// When the text breaks the rule stated on the type.
    pub fn new(text: &str) -> Result<Self, BadId> {
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            return Err(BadId::BadCharacter(bad));
        }
        match text.chars().count() {
            0 => Err(BadId::Empty),
            len if len > RECIPIENT_ID_MAX => Err(BadId::TooLong(len)),
            _ if text.trim() != text => Err(BadId::Untrimmed),
            _ => Ok(Self(text.into())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_id {
    ($($id:ident),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $id {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $id {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                Self::new(&text)
            }
        }
        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.0.into()
            }
        }
    )*};
}
text_id!(MessageId, RecipientId, DeviceId);

/// One push of one message to one target; the same on every attempt and after every rebuild.
///
/// A version 5 UUID (RFC 9562) of the message id and the target, so it needs no source of chance
/// and serves providers that want a UUID as their idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    const NAMESPACE: Uuid = Uuid::from_u128(0x6e6f_7469_6669_4c61_9d65_6467_6572_0001);

    /// The delivery of `message` to the target written as `target` (its canonical text).
    #[must_use]
    pub fn new(message: &MessageId, target: &str) -> Self {
        let name = format!("{message}\n{target}");
        Self(Uuid::new_v5(&Self::NAMESPACE, name.as_bytes()))
    }

    /// What stands for the deliveries of `message` while none is planned.
    #[must_use]
    pub fn stand_in(message: &MessageId) -> Self {
        Self::new(message, "")
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DeliveryId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// One input held in quarantine. A version 7 UUID: what came later sorts later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuarantineId(Uuid);

impl QuarantineId {
    /// A new id for something that came in at `now`.
    #[must_use]
    pub fn random(now: Timestamp) -> Self {
        Self(time_ordered(now))
    }
}

impl fmt::Display for QuarantineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for QuarantineId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A random version 7 UUID of this moment.
fn time_ordered(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.as_micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}

/// One slice of the log; all events of a recipient are in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a recipient in a ledger of `count` shards: `xxh3_64(recipient) mod count`.
    ///
    /// A stored promise: it decides where history lies and must never change.
    #[must_use]
    pub fn of(recipient: &RecipientId, count: u16) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(recipient.as_str().as_bytes());
        let shard = hash % u64::from(count.max(1));
        Self(u16::try_from(shard).unwrap_or(0))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in one shard of the log: 1, 2, 3 … without a gap; 0 is before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub i64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fresh id for a ledger that is being created.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one door to random ids")]
pub fn new_ledger_id() -> String {
    Uuid::now_v7().to_string()
}

/// Which event of its message this is: 0 is `message.received`, then 1, 2, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub i32);

/// A place in the whole log, written `shard-position`, as in `3-1042`.
///
/// Answered by every write; a read that carries it waits until the projection has passed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The shard.
    pub shard: Shard,
    /// The place in the shard.
    pub position: Position,
}

impl Cursor {
    /// Before the first event of the first shard.
    #[must_use]
    pub const fn start() -> Self {
        Self { shard: Shard(0), position: Position(0) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.position)
    }
}

/// The text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cursor such as 0-42; use one that an answer of this ledger gave")]
pub struct BadCursor(String);

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let bad = || BadCursor(text.chars().take(64).collect());
        let (shard, position) = text.split_once('-').ok_or_else(bad)?;
        let position: i64 = position.parse().map_err(|_| bad())?;
        if position < 0 {
            return Err(bad());
        }
        Ok(Self { shard: Shard(shard.parse().map_err(|_| bad())?), position: Position(position) })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_keep_to_their_alphabet() {
        assert!(MessageId::new("3f0c.A_b:c-9").is_ok());
        assert_eq!(MessageId::new(""), Err(BadId::Empty));
        assert_eq!(MessageId::new("a b"), Err(BadId::BadCharacter(' ')));
        assert_eq!(MessageId::new(&"x".repeat(129)), Err(BadId::TooLong(129)));
    }

    #[test]
    fn a_random_message_id_sorts_by_time() {
        let id = |micros| MessageId::random(Timestamp::from_micros(micros));
        let (early, late) = (id(1_795_000_000_000_000), id(1_795_000_000_001_000));
        assert!(early < late, "{early} {late}");
        assert_eq!(MessageId::new(early.as_str()), Ok(early));
    }

    #[test]
    fn recipient_ids_count_characters_not_bytes() {
        assert!(RecipientId::new(&"한".repeat(128)).is_ok());
        assert_eq!(RecipientId::new("a "), Err(BadId::Untrimmed));
        assert_eq!(RecipientId::new("a\u{7}b"), Err(BadId::BadCharacter('\u{7}')));
    }

    #[test]
    fn the_shard_of_a_recipient_is_a_stored_promise() {
        let shard = |id: &str| RecipientId::new(id).map(|id| Shard::of(&id, 4).0);
        assert_eq!(["user-1", "user-2", "user-42", "한"].map(shard), [Ok(1), Ok(0), Ok(1), Ok(2)]);
    }

    #[test]
    fn what_came_later_sorts_later_in_quarantine() {
        let id = |micros| QuarantineId::random(Timestamp::from_micros(micros));
        let (early, late) = (id(1_795_000_000_000_000), id(1_795_000_000_001_000));
        assert!(early.to_string() < late.to_string() && early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn cursors_read_back_as_written() {
        let cursor = Cursor { shard: Shard(3), position: Position(1042) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!("3".parse::<Cursor>().is_err());
        assert!("3--1".parse::<Cursor>().is_err());
    }
}
