//! From a queue's message to an [`Arrival`].
//!
//! Whatever attributes a message carries are accepted: those of Spring (`JavaType`, `contentType`,
//! numbers of type `Number.java.lang.Integer`), of tracing, and any that nobody knows.

use std::collections::HashMap;

use aws_sdk_sqs::types::{Message, MessageAttributeValue, MessageSystemAttributeName};

use crate::{
    clock::Timestamp,
    event::Metadata,
    source::{Arrival, Beside, Handle},
};

/// Attributes that say how a message travelled, not what it says: they are kept in the metadata, and
/// out of quarantine, where the same message would look like another one each time it is sent.
const TRACE_ATTRIBUTES: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// What the queue handed out, as it arrived at `ingress`. The queue's own id counts as a weak id where
/// `weak_ids` says so.
pub(super) fn arrival(message: Message, ingress: &str, weak_ids: bool) -> Arrival {
    let system = message.attributes.unwrap_or_default();
    let mut attributes = message.message_attributes.unwrap_or_default();
    let message_id = message.message_id.unwrap_or_default();
    let trace = trace(&attributes, &system);
    attributes.retain(|name, _| !TRACE_ATTRIBUTES.contains(&name.as_str()));
    let text = |name| system.get(&name).cloned();
    let metadata = Metadata {
        ingress: Some(ingress.to_owned()),
        queue_message_id: Some(message_id.clone()),
        receive_count: text(MessageSystemAttributeName::ApproximateReceiveCount)
            .and_then(|count| count.parse().ok()),
        sent_at: text(MessageSystemAttributeName::SentTimestamp).and_then(|millis| timestamp(&millis)),
        actor: text(MessageSystemAttributeName::SenderId),
        trace,
        ..Metadata::default()
    };
    let body = message.body.unwrap_or_default().into_bytes();
    Arrival {
        size: body.len() as u64,
        body,
        beside: Beside {
            attributes: attributes.into_iter().map(|(name, value)| (name, plain(value))).collect(),
            weak_id: weak_ids.then(|| message_id.clone()),
        },
        metadata,
        place: format!("message {message_id}"),
        group: text(MessageSystemAttributeName::MessageGroupId),
        handle: Handle(message.receipt_handle.unwrap_or_default()),
    }
}

/// `traceparent` as OpenTelemetry's libraries send it, else what X-Ray wrote.
fn trace(
    attributes: &HashMap<String, MessageAttributeValue>,
    system: &HashMap<MessageSystemAttributeName, String>,
) -> Option<String> {
    let w3c = attributes.get("traceparent").and_then(|it| it.string_value.clone());
    w3c.or_else(|| system.get(&MessageSystemAttributeName::AwsTraceHeader).cloned())
}

/// The value as text, whatever its type is called.
fn plain(value: MessageAttributeValue) -> String {
    let bytes = || value.binary_value.map(|it| hex::encode(it.into_inner())).unwrap_or_default();
    value.string_value.unwrap_or_else(bytes)
}

fn timestamp(millis: &str) -> Option<Timestamp> {
    millis.parse::<i64>().ok()?.checked_mul(1000).map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::primitives::Blob;

    use super::*;

    fn text(data_type: &str, value: &str) -> MessageAttributeValue {
        MessageAttributeValue::builder().data_type(data_type).string_value(value).build().unwrap()
    }

    fn message() -> aws_sdk_sqs::types::builders::MessageBuilder {
        Message::builder().message_id("5fea").receipt_handle("handle").body("{}")
    }

    #[test]
    fn what_the_queue_knows_becomes_metadata() {
        let message = message()
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "3")
            .attributes(MessageSystemAttributeName::SentTimestamp, "1795338000123")
            .attributes(MessageSystemAttributeName::SenderId, "AIDAEXAMPLE")
            .attributes(MessageSystemAttributeName::MessageGroupId, "user-42")
            .attributes(MessageSystemAttributeName::from("SomethingNew"), "x")
            .build();
        let arrival = arrival(message, "sqs:n", false);
        let expected = Metadata {
            ingress: Some("sqs:n".to_owned()),
            queue_message_id: Some("5fea".to_owned()),
            receive_count: Some(3),
            sent_at: Some(Timestamp::from_micros(1_795_338_000_123_000)),
            actor: Some("AIDAEXAMPLE".to_owned()),
            ..Metadata::default()
        };
        assert_eq!(arrival.metadata, expected);
        assert_eq!((arrival.place.as_str(), arrival.group.as_deref()), ("message 5fea", Some("user-42")));
        assert_eq!((arrival.body.as_slice(), arrival.size), (&b"{}"[..], 2));
        assert_eq!(arrival.handle, Handle("handle".to_owned()));
    }

    #[test]
    fn attributes_of_any_kind_are_taken() {
        let binary =
            MessageAttributeValue::builder().data_type("Binary.custom").binary_value(Blob::new([0xca, 0xfe]));
        let message = message()
            .message_attributes("JavaType", text("String", "com.company.Notification"))
            .message_attributes("contentType", text("String", "application/json"))
            .message_attributes("priority", text("Number.java.lang.Integer", "7"))
            .message_attributes("raw", binary.build().unwrap())
            .message_attributes("messageId", text("String", "m-1"))
            .build();
        let beside = arrival(message, "sqs:n", false).beside;
        let found: Vec<_> = beside.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            found,
            [
                ("JavaType", "com.company.Notification"),
                ("contentType", "application/json"),
                ("messageId", "m-1"),
                ("priority", "7"),
                ("raw", "cafe"),
            ]
        );
        assert_eq!(beside.outside().strong_id, Some("m-1"));
    }

    #[test]
    fn the_queues_own_id_counts_only_where_that_is_configured() {
        let weak = |weak_ids| arrival(message().build(), "sqs:n", weak_ids).beside.weak_id;
        assert_eq!((weak(false), weak(true)), (None, Some("5fea".to_owned())));
    }

    #[test]
    fn traceparent_comes_before_x_ray_and_neither_goes_into_quarantine() {
        let x_ray = || message().attributes(MessageSystemAttributeName::AwsTraceHeader, "Root=1-5");
        let both = x_ray().message_attributes("traceparent", text("String", "00-aa-bb-01"));
        let both = arrival(both.build(), "sqs:n", false);
        assert_eq!(both.metadata.trace.as_deref(), Some("00-aa-bb-01"));
        assert!(both.beside.attributes.is_empty());
        assert_eq!(arrival(x_ray().build(), "sqs:n", false).metadata.trace.as_deref(), Some("Root=1-5"));
    }
}
