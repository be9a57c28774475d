//! The schemas of what is written as text, and of bodies that are read field by field: no derived type says
//! what these may hold.

use std::borrow::Cow;

use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Object, ObjectBuilder, RefOr,
        schema::{KnownFormat, Schema, SchemaFormat, Type},
    },
};

use crate::{
    audit::Entry,
    clock::{Day, Timestamp},
    http::problem::Kind,
    id::{Cursor, DeliveryId, DeviceId, MessageId, Position, QuarantineId, RecipientId, Shard},
    ledger::operate::REPLAYED,
    message::ContentHash,
    projection::{
        deliveries::DeliveryStatus,
        messages::{Engagement, PushState},
    },
    provider::KINDS,
    store::DeliveryPlace,
};

/// The contract of the message, which producers read by itself, too.
const MESSAGE: &str = include_str!("../../../docs/message.schema.json");
const BODIES: &str = include_str!("bodies.json");

const PLAIN: &str = "^[A-Za-z0-9._:-]{1,128}$";
/// No control characters, and no white space at an end.
const OPAQUE: &str = "^[^\\u0000-\\u0020\\u007F-\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000]\
    ([^\\u0000-\\u001F\\u007F-\\u009F]*[^\\u0000-\\u0020\\u007F-\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\
    \\u202F\\u205F\\u3000])?$";
const CURSOR: &str = "^([0-9]{1,4}|[1-5][0-9]{4})-[0-9]{1,18}$";

/// What may be posted as messages.
pub(in crate::http) struct Sending;
/// What is answered to it.
pub(in crate::http) struct SendingAnswer;
/// What may be posted as receipts.
pub(in crate::http) struct Receipts;
/// What may be put as a device.
pub(in crate::http) struct Registration;
/// What a recipient can do with items.
pub(in crate::http) struct Verb;
/// A status that a replay may take up.
pub(in crate::http) struct Replayable;

/// The schemas that are written as JSON, by name. References within the message's lead to where it stands.
pub(super) fn written() -> Vec<(String, Value)> {
    let message = MESSAGE.replace("\"#/$defs/", "\"#/components/schemas/Message/$defs/");
    let mut message: Value = serde_json::from_str(&message).unwrap_or_default();
    if let Value::Object(message) = &mut message {
        message.remove("$id");
        message.remove("$schema");
    }
    let mut bodies: serde_json::Map<_, _> = serde_json::from_str(BODIES).unwrap_or_default();
    bodies.insert("Message".to_owned(), message);
    if let Some(kind) = bodies.get_mut("Registration").and_then(|it| it.pointer_mut("/properties/kind")) {
        kind["enum"] = KINDS.iter().map(|it| it.name).collect();
    }
    bodies.into_iter().collect()
}

macro_rules! schemas {
    ($($type:ty, $name:literal: $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }
        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    )*};
}
schemas! {
    MessageId, "MessageId": text("Chosen by the producer").pattern(Some(PLAIN));
    DeviceId, "DeviceId": text("The app's own id of an installation").pattern(Some(PLAIN));
    RecipientId, "RecipientId":
        text("The company's own, opaque id of a person").pattern(Some(OPAQUE)).min_length(Some(1)).max_length(Some(128));
    DeliveryId, "DeliveryId": uuid("One push of one message to one target");
    QuarantineId, "QuarantineId": uuid("One input in quarantine");
    Cursor, "Cursor": text("A place in the log").pattern(Some(CURSOR)).examples(["0-1042"]);
    DeliveryPlace, "DeliveryPlace": text("A place in a list of deliveries: the next of an answer").pattern(Some("^[0-9A-Za-z._~-]+$"));
    Timestamp, "Timestamp":
        text("RFC 3339; answers are in UTC with six decimals")
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2026-11-22T09:00:00.000000Z"]);
    Day, "Day":
        text("A day in UTC").format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))).examples(["2026-11-22"]);
    ContentHash, "ContentHash": text("SHA-256 of the message's canonical form");
    Shard, "Shard": number("One slice of the log");
    Position, "Position": number("A place in a shard");
    Kind, "ProblemType": words("A type of problem", Kind::ALL.map(Kind::urn));
    DeliveryStatus, "DeliveryStatus":
        words("Where a delivery stands", DeliveryStatus::ALL.iter().map(|it| it.as_str()));
    PushState, "PushState": words("What became of the pushes", PushState::ALL.iter().map(|it| it.as_str()));
    Engagement, "Engagement":
        words("What the recipient did with the item", Engagement::ALL.iter().map(|it| it.as_str()));
    Replayable, "Replayable":
        words("A status that a replay may take up", REPLAYED.map(DeliveryStatus::as_str));
    Verb, "Verb": words("What a recipient did", super::super::inbox::VERBS.map(|(word, _)| word));
    Entry, "AuditEntry": Object::new();
    Sending, "Sending": Object::new();
    SendingAnswer, "SendingAnswer": Object::new();
    Receipts, "Receipts": Object::new();
    Registration, "Registration": Object::new();
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn uuid(description: &str) -> ObjectBuilder {
    text(description).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}

fn number(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).description(Some(description))
}

fn words<W: Into<Value>>(description: &str, words: impl IntoIterator<Item = W>) -> ObjectBuilder {
    text(description).enum_values(Some(words))
}
