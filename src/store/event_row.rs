//! A row of the log, and how it becomes an event.

use sqlx::FromRow;

use super::{
    StoreError,
    bulk::{Kind, Spec},
    log::{message_id, recipient_id, shard},
};
use crate::{
    clock::Timestamp,
    event::{
        Event, Metadata, Recorded, Skipped,
        codec::{self, CodecError},
    },
    id::{Position, Version},
};

/// Columns of `notification_events`, in the order they are written and read.
pub(super) const COLUMNS: [Spec; 12] = [
    Spec { name: "shard", kind: Kind::Int },
    Spec { name: "position", kind: Kind::Int },
    Spec { name: "message_id", kind: Kind::Text },
    Spec { name: "version", kind: Kind::Int },
    Spec { name: "type", kind: Kind::Text },
    Spec { name: "schema_version", kind: Kind::Int },
    Spec { name: "recipient_id", kind: Kind::Text },
    Spec { name: "occurred_at_us", kind: Kind::Int },
    Spec { name: "recorded_at_us", kind: Kind::Int },
    Spec { name: "content_hash", kind: Kind::Bytes },
    Spec { name: "payload", kind: Kind::Text },
    Spec { name: "metadata", kind: Kind::Text },
];

/// Why an operator left an event out; null for nearly all. A look-up by primary key in a table that is empty
/// nearly everywhere.
pub(super) const SKIPPED: &str = "(select k.reason from skipped_events k where k.shard = notification_events.shard \
                       and k.position = notification_events.position)";

/// All columns of an [`EventRow`], as in a statement.
pub(super) fn event_columns() -> String {
    format!("{}, {SKIPPED} as skipped", COLUMNS.map(|it| it.name).join(", "))
}

/// A row of `notification_events` as it stands.
#[derive(FromRow)]
pub(super) struct EventRow {
    pub(super) shard: i16,
    pub(super) position: i64,
    pub(super) message_id: String,
    pub(super) version: i32,
    #[sqlx(rename = "type")]
    pub(super) kind: String,
    pub(super) schema_version: i16,
    pub(super) recipient_id: String,
    pub(super) occurred_at_us: i64,
    pub(super) recorded_at_us: i64,
    pub(super) content_hash: Option<Vec<u8>>,
    pub(super) payload: String,
    pub(super) metadata: String,
    /// Why it is left out, if it is.
    pub(super) skipped: Option<String>,
}

impl EventRow {
    pub(super) fn decode(self) -> Result<Recorded, StoreError> {
        let (body, metadata) = if let Some(reason) = self.skipped {
            // Whatever is wrong with it.
            (Event::Skipped(Skipped { kind: self.kind, reason }), Metadata::default())
        } else {
            let bad = |source| StoreError::Codec { shard: self.shard, position: self.position, source };
            let schema_version = i32::from(self.schema_version);
            let body = codec::decode(&self.kind, schema_version, &self.payload).map_err(bad)?;
            let metadata = serde_json::from_str(&self.metadata)
                .map_err(|source| CodecError::BadPayload { kind: "metadata".to_owned(), source })
                .map_err(bad)?;
            (body, metadata)
        };
        Ok(Recorded {
            shard: shard(self.shard)?,
            position: Position(self.position),
            message_id: message_id(self.message_id)?,
            version: Version(self.version),
            recipient_id: recipient_id(self.recipient_id)?,
            occurred_at: Timestamp::from_micros(self.occurred_at_us),
            recorded_at: Timestamp::from_micros(self.recorded_at_us),
            body,
            metadata,
        })
    }
}
