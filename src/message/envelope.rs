//! Taking off what other services wrapped around a message.
//!
//! Known are the SNS notification, the `EventBridge` event and the structured `CloudEvent`, one in
//! another to a small depth. What names a `notificationType` is a message, whatever else it holds. A
//! pointer of the S3 extended client is recognised and refused: the message is not in it.

use std::borrow::Cow;

use super::{
    Rejection, RejectionCode,
    json::{self, Json, Object},
};

/// How many envelopes may lie in one another.
const LAYERS_MAX: usize = 3;

/// The class names that the extended clients write, new and old.
const S3_POINTERS: [&str; 2] =
    ["software.amazon.payloadoffloading.PayloadS3Pointer", "com.amazon.sqs.javamessaging.MessageS3Pointer"];

/// What was inside.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    /// What should be a message.
    pub content: Json<'a>,
    /// The outermost envelope: `sns`, `eventbridge`, `cloudevents`.
    pub envelope: Option<&'static str>,
    /// A strong id on the innermost envelope that has one: a `CloudEvent`'s `id`, or the attribute
    /// `messageId` or `id` that the producer gave to SNS. The ids that SNS and `EventBridge` make
    /// themselves are weak, since a producer's retry makes new ones, and are not looked at.
    pub strong_id: Option<Cow<'a, str>>,
}

/// Takes off every envelope.
///
/// # Errors
/// When an envelope holds no JSON, when they are too many, or when there is only a pointer to S3.
pub(super) fn open(document: Json<'_>) -> Result<Opened<'_>, Rejection> {
    let mut opened = Opened { content: document, envelope: None, strong_id: None };
    for _ in 0..=LAYERS_MAX {
        let object = match opened.content {
            Json::Object(object) => object,
            content if is_s3_pointer(&content) => return Err(s3_pointer()),
            content => return Ok(Opened { content, ..opened }),
        };
        let Some(kind) = Kind::of(&object) else {
            return Ok(Opened { content: Json::Object(object), ..opened });
        };
        let (content, strong_id) = kind.take_off(object)?;
        opened = Opened {
            content,
            envelope: opened.envelope.or(Some(kind.name())),
            strong_id: strong_id.or(opened.strong_id),
        };
    }
    let problem = format!("the message lies in more than {LAYERS_MAX} envelopes");
    Err(Rejection::new(RejectionCode::TooDeep, problem, "send it with fewer services in between"))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sns,
    EventBridge,
    CloudEvents,
}

impl Kind {
    fn of(object: &Object<'_>) -> Option<Self> {
        let text = |key: &str| object.get(key).and_then(Json::as_text);
        if object.get("notificationType").is_some() {
            return None;
        }
        if text("Type") == Some("Notification") && text("TopicArn").is_some() && text("Message").is_some() {
            return Some(Self::Sns);
        }
        if text("detail-type").is_some() && text("source").is_some() && object.get("detail").is_some() {
            return Some(Self::EventBridge);
        }
        (text("specversion").is_some() && object.get("type").is_some()).then_some(Self::CloudEvents)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sns => "sns",
            Self::EventBridge => "eventbridge",
            Self::CloudEvents => "cloudevents",
        }
    }

    fn take_off(self, mut object: Object<'_>) -> Result<Layer<'_>, Rejection> {
        match self {
            Self::Sns => {
                let content = object.take("Message").unwrap_or(Json::Null);
                let id = object.take("MessageAttributes").and_then(sns_attribute_id);
                Ok((inner(content, "the Message of the SNS notification")?, id))
            }
            Self::EventBridge => Ok((object.take("detail").unwrap_or(Json::Null), None)),
            Self::CloudEvents => cloud_event(object),
        }
    }
}

/// What lay in an envelope, and the strong id on it.
type Layer<'a> = (Json<'a>, Option<Cow<'a, str>>);

fn cloud_event(mut object: Object<'_>) -> Result<Layer<'_>, Rejection> {
    let version = object.get("specversion").and_then(Json::as_text).unwrap_or_default();
    if version != "1.0" {
        let problem = format!("is {:?}, not 1.0", version.chars().take(16).collect::<String>());
        let rejection = Rejection::new(RejectionCode::BadValue, problem, "send a CloudEvents 1.0 event");
        return Err(rejection.within("specversion"));
    }
    let id = object.take("id").and_then(Json::into_text);
    match object.take("data") {
        Some(data) => Ok((inner(data, "the data of the CloudEvent")?, id)),
        None if object.get("data_base64").is_some() => {
            let problem = "holds the message as base64";
            let remedy = "send it as JSON in data";
            Err(Rejection::new(RejectionCode::BadValue, problem, remedy).within("data_base64"))
        }
        None => {
            let remedy = "put the message into the CloudEvent's data";
            Err(Rejection::new(RejectionCode::MissingField, "is missing", remedy).within("data"))
        }
    }
}

/// What lies in an envelope, where it may be JSON written as text.
fn inner<'a>(content: Json<'a>, what: &str) -> Result<Json<'a>, Rejection> {
    match content {
        Json::Text(text) => Ok(json::read(&text, what)?.into_owned()),
        content => Ok(content),
    }
}

/// `{"messageId": {"Type": "String", "Value": "…"}}`, or the same under `id`.
fn sns_attribute_id(attributes: Json<'_>) -> Option<Cow<'_, str>> {
    let Json::Object(mut attributes) = attributes else { return None };
    match attributes.take("messageId").or_else(|| attributes.take("id"))? {
        Json::Object(mut attribute) => attribute.take("Value")?.into_text(),
        _ => None,
    }
}

fn is_s3_pointer(content: &Json<'_>) -> bool {
    let Json::List(list) = content else { return false };
    let class = list.first().and_then(Json::as_text);
    class.is_some_and(|class| S3_POINTERS.contains(&class))
}

fn s3_pointer() -> Rejection {
    Rejection::new(
        RejectionCode::S3Pointer,
        "the body is a pointer of the SQS extended client to an object in S3, not a message",
        "send messages of at most 256 KiB without the extended client",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn opened(document: &Value) -> (Value, Option<&'static str>, Option<String>) {
        let text = document.to_string();
        let opened = open(json::read(&text, "the body").unwrap()).unwrap();
        (opened.content.into(), opened.envelope, opened.strong_id.map(Cow::into_owned))
    }

    fn refused(document: &Value) -> (RejectionCode, String) {
        let text = document.to_string();
        let rejection = open(json::read(&text, "the body").unwrap()).unwrap_err();
        (rejection.code, rejection.to_string())
    }

    fn sns(message: &Value) -> Value {
        json!({
            "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:eu-west-1:123456789012:passes", "Message": message.to_string(),
            "Timestamp": "2026-11-22T09:00:00.000Z", "SignatureVersion": "1", "Signature": "EXAMPLE",
            "SigningCertURL": "https://sns.example/cert.pem", "UnsubscribeURL": "https://sns.example/u",
        })
    }

    fn eventbridge(detail: &Value) -> Value {
        json!({
            "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "pass.expiring",
            "source": "company.passes", "account": "123456789012", "time": "2026-11-22T09:00:00Z",
            "region": "eu-west-1", "resources": [], "detail": detail,
        })
    }

    fn cloud(data: &Value) -> Value {
        json!({"specversion": "1.0", "id": "A234-1234", "source": "/passes", "type": "pass.expiring", "data": data})
    }

    #[test]
    fn each_envelope_comes_off() {
        let message = json!({"notificationType": "PUSH"});
        assert_eq!(opened(&message), (message.clone(), None, None));
        assert_eq!(opened(&sns(&message)), (message.clone(), Some("sns"), None));
        assert_eq!(opened(&eventbridge(&message)), (message.clone(), Some("eventbridge"), None));
        let id = Some("A234-1234".to_owned());
        assert_eq!(opened(&cloud(&message)), (message.clone(), Some("cloudevents"), id.clone()));
        let as_text = cloud(&Value::String(message.to_string()));
        assert_eq!(opened(&as_text), (message, Some("cloudevents"), id));
    }

    #[test]
    fn envelopes_lie_in_one_another_to_a_small_depth() {
        let message = json!({"notificationType": "PUSH"});
        let three = sns(&eventbridge(&cloud(&message)));
        assert_eq!(opened(&three), (message, Some("sns"), Some("A234-1234".to_owned())));
        assert_eq!(
            refused(&sns(&three)),
            (
                RejectionCode::TooDeep,
                "the message lies in more than 3 envelopes; send it with fewer services in between"
                    .to_owned(),
            ),
        );
    }

    #[test]
    fn the_attribute_given_to_sns_is_a_strong_id() {
        let mut document = sns(&json!({}));
        document["MessageAttributes"] = json!({"id": {"Type": "String", "Value": "b-2"}});
        assert_eq!(opened(&document).2.as_deref(), Some("b-2"));
        document["MessageAttributes"]["messageId"] = json!({"Type": "String", "Value": "m-1"});
        assert_eq!(opened(&document).2.as_deref(), Some("m-1"));
    }

    #[test]
    fn a_message_is_no_envelope_whatever_else_it_holds() {
        let mut message = cloud(&json!({"passId": 7}));
        message["notificationType"] = json!("PUSH");
        assert_eq!(opened(&message), (message, None, None));
    }

    #[test]
    fn a_pointer_to_s3_is_told_from_a_message() {
        for class in S3_POINTERS {
            let pointer = json!([class, {"s3BucketName": "b", "s3Key": "k"}]);
            let expected = "the body is a pointer of the SQS extended client to an object in S3, not a \
                            message; send messages of at most 256 KiB without the extended client";
            assert_eq!(refused(&pointer), (RejectionCode::S3Pointer, expected.to_owned()));
            assert_eq!(refused(&sns(&pointer)).0, RejectionCode::S3Pointer);
        }
        assert_eq!(opened(&json!(["other", {}])).1, None);
    }

    #[test]
    fn an_envelope_without_a_message_says_what_is_missing() {
        let mut plain = sns(&Value::Null);
        plain["Message"] = json!("hello");
        assert_eq!(
            refused(&plain).1,
            "the Message of the SNS notification is not JSON: expected value at line 1 column 1; \
             send the message as one JSON object",
        );
        let mut event = cloud(&Value::Null);
        event["specversion"] = json!("0.3");
        assert_eq!(refused(&event).1, "specversion is \"0.3\", not 1.0; send a CloudEvents 1.0 event");
        event["specversion"] = json!("1.0");
        event.as_object_mut().unwrap().remove("data");
        assert_eq!(refused(&event).1, "data is missing; put the message into the CloudEvent's data");
        event["data_base64"] = json!("e30=");
        assert_eq!(refused(&event).1, "data_base64 holds the message as base64; send it as JSON in data");
    }
}
