//! How events are written down and read back.
//!
//! A row says `type` and `schema_version` beside the payload. Old schema versions are lifted to the
//! newest when read; a type or version from the future is [`CodecError::FromTheFuture`], which parks
//! the reader instead of being skipped. The files in `tests/golden/` pin every version ever written.

use serde::{Serialize, de::DeserializeOwned};

use super::Event;

/// Why a row cannot be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer release.
    #[error("event type {kind:?} version {schema_version} is newer than this release; upgrade to go on")]
    FromTheFuture {
        /// The type in the row.
        kind: String,
        /// The version in the row.
        schema_version: i32,
    },
    /// The payload does not fit its type.
    #[error("the payload of a {kind:?} event cannot be read")]
    BadPayload {
        /// The type in the row.
        kind: String,
        /// What serde found.
        #[source]
        source: serde_json::Error,
    },
    /// It only stands for a row that is left out.
    #[error("an event that is left out is never written")]
    NeverWritten,
}

/// An event as columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// As in `push.attempt_failed`.
    pub kind: &'static str,
    /// The version of this type's payload.
    pub schema_version: i32,
    /// JSON.
    pub payload: String,
}

/// The newest schema version of every type written by this release.
const SCHEMA_VERSION: i32 = 1;

impl Event {
    /// The type's name as stored.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::MessageReceived(_) => "message.received",
            Self::MessageConflicted(_) => "message.conflicted",
            Self::MessageCancelled(_) => "message.cancelled",
            Self::InboxSeen => "inbox.seen",
            Self::InboxRead => "inbox.read",
            Self::InboxClicked => "inbox.clicked",
            Self::InboxUnread => "inbox.unread",
            Self::InboxArchived => "inbox.archived",
            Self::InboxUnarchived => "inbox.unarchived",
            Self::InboxDeleted => "inbox.deleted",
            Self::InboxPresented => "inbox.presented",
            Self::InboxExpired => "inbox.expired",
            Self::PushPlanned(_) => "push.planned",
            Self::PushAttemptStarted(_) => "push.attempt_started",
            Self::PushAttemptSucceeded(_) => "push.attempt_succeeded",
            Self::PushAttemptPending(_) => "push.attempt_pending",
            Self::PushAttemptFailed(_) => "push.attempt_failed",
            Self::PushAttemptLost(_) => "push.attempt_lost",
            Self::PushSuppressed(_) => "push.suppressed",
            Self::PushRescheduled(_) => "push.rescheduled",
            Self::PushExhausted(_) => "push.exhausted",
            Self::PushReceipt(_) => "push.receipt",
            Self::MessageErased(_) => "message.erased",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// Writes an event as columns.
///
/// # Errors
/// When the payload cannot be written as JSON, or the event only stands for one that is left out.
pub fn encode(event: &Event) -> Result<Encoded, CodecError> {
    let kind = event.kind();
    let payload = match event {
        Event::MessageReceived(it) => json(it),
        Event::MessageConflicted(it) => json(it),
        Event::MessageCancelled(it) => json(it),
        Event::PushPlanned(it) => json(it),
        Event::PushAttemptStarted(it) => json(it),
        Event::PushAttemptSucceeded(it) => json(it),
        Event::PushAttemptPending(it) => json(it),
        Event::PushAttemptFailed(it) => json(it),
        Event::PushAttemptLost(it) => json(it),
        Event::PushSuppressed(it) => json(it),
        Event::PushRescheduled(it) => json(it),
        Event::PushExhausted(it) => json(it),
        Event::PushReceipt(it) => json(it),
        Event::MessageErased(it) => json(it),
        Event::Skipped(_) => return Err(CodecError::NeverWritten),
        Event::InboxSeen
        | Event::InboxRead
        | Event::InboxClicked
        | Event::InboxUnread
        | Event::InboxArchived
        | Event::InboxUnarchived
        | Event::InboxDeleted
        | Event::InboxPresented
        | Event::InboxExpired => Ok("{}".to_owned()),
    };
    let payload = payload.map_err(|source| CodecError::BadPayload { kind: kind.to_owned(), source })?;
    Ok(Encoded { kind, schema_version: SCHEMA_VERSION, payload })
}

/// Reads an event from its columns.
///
/// # Errors
/// When the type or version is newer than this release, or the payload does not fit.
pub fn decode(kind: &str, schema_version: i32, payload: &str) -> Result<Event, CodecError> {
    let future = || CodecError::FromTheFuture { kind: kind.to_owned(), schema_version };
    if schema_version != SCHEMA_VERSION {
        return Err(future());
    }
    let event = match kind {
        "message.received" => parse(payload).map(Event::MessageReceived),
        "message.conflicted" => parse(payload).map(Event::MessageConflicted),
        "message.cancelled" => parse(payload).map(Event::MessageCancelled),
        "inbox.seen" => Ok(Event::InboxSeen),
        "inbox.read" => Ok(Event::InboxRead),
        "inbox.clicked" => Ok(Event::InboxClicked),
        "inbox.unread" => Ok(Event::InboxUnread),
        "inbox.archived" => Ok(Event::InboxArchived),
        "inbox.unarchived" => Ok(Event::InboxUnarchived),
        "inbox.deleted" => Ok(Event::InboxDeleted),
        "inbox.presented" => Ok(Event::InboxPresented),
        "inbox.expired" => Ok(Event::InboxExpired),
        "push.planned" => parse(payload).map(Event::PushPlanned),
        "push.attempt_started" => parse(payload).map(Event::PushAttemptStarted),
        "push.attempt_succeeded" => parse(payload).map(Event::PushAttemptSucceeded),
        "push.attempt_pending" => parse(payload).map(Event::PushAttemptPending),
        "push.attempt_failed" => parse(payload).map(Event::PushAttemptFailed),
        "push.attempt_lost" => parse(payload).map(Event::PushAttemptLost),
        "push.suppressed" => parse(payload).map(Event::PushSuppressed),
        "push.rescheduled" => parse(payload).map(Event::PushRescheduled),
        "push.exhausted" => parse(payload).map(Event::PushExhausted),
        "push.receipt" => parse(payload).map(Event::PushReceipt),
        "message.erased" => parse(payload).map(Event::MessageErased),
        _ => return Err(future()),
    };
    event.map_err(|source| CodecError::BadPayload { kind: kind.to_owned(), source })
}

fn json<T: Serialize>(payload: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string(payload)
}

fn parse<T: DeserializeOwned>(payload: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(payload)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde_json::Value;

    use super::*;

    /// Every type that this release writes.
    const KINDS: [&str; 23] = [
        "inbox.archived",
        "inbox.clicked",
        "inbox.deleted",
        "inbox.expired",
        "inbox.presented",
        "inbox.read",
        "inbox.seen",
        "inbox.unarchived",
        "inbox.unread",
        "message.cancelled",
        "message.conflicted",
        "message.erased",
        "message.received",
        "push.attempt_failed",
        "push.attempt_lost",
        "push.attempt_pending",
        "push.attempt_started",
        "push.attempt_succeeded",
        "push.exhausted",
        "push.planned",
        "push.receipt",
        "push.rescheduled",
        "push.suppressed",
    ];

    #[test]
    fn every_version_ever_written_is_read_and_written_alike() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
        let mut found = BTreeSet::new();
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let kind = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let payload = fs::read_to_string(&path).unwrap();
            let event = decode(&kind, 1, &payload).unwrap();
            assert_eq!(event.kind(), kind);
            let again: Value = serde_json::from_str(&encode(&event).unwrap().payload).unwrap();
            assert_eq!(again, serde_json::from_str::<Value>(&payload).unwrap(), "{kind}");
            found.insert(kind);
        }
        assert_eq!(found, KINDS.map(ToOwned::to_owned).into());
    }

    #[test]
    fn what_a_newer_release_wrote_is_told_from_what_is_broken() {
        let future =
            |kind, version| matches!(decode(kind, version, "{}"), Err(CodecError::FromTheFuture { .. }));
        assert!(future("inbox.sneezed", 1));
        assert!(future("inbox.read", 2));
        assert!(matches!(decode("push.planned", 1, "{}"), Err(CodecError::BadPayload { .. })));
    }
}
