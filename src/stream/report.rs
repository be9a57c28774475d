//! What an app tells of a push that reached its device: read from JSON, or refused field by field.

use crate::{
    clock::Timestamp,
    event::ReceiptKind,
    id::{DeliveryId, MessageId},
    message::{
        Rejection, RejectionCode,
        contract::{Fields, Text, one_of, text, time},
        json::{self, Json},
    },
};

const DETAIL: Text = Text::line(256);
const FIELDS: &str = "messageId, deliveryId, kind, at, detail";
const IDS_REMEDY: &str = "send messageId and deliveryId as they stand in the data of the push";
const KIND_REMEDY: &str = "use \"delivered\", \"opened\" or \"dismissed\"";
/// What apps can know; that a target is no more is for push services to say.
const KINDS: [ReceiptKind; 3] = [ReceiptKind::Delivered, ReceiptKind::Opened, ReceiptKind::Dismissed];

/// Word from a device about one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of which message.
    pub message_id: MessageId,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// What happened.
    pub kind: ReceiptKind,
    /// When, by the device's clock.
    pub at: Option<Timestamp>,
    /// More, in the app's words.
    pub detail: Option<String>,
}

impl Report {
    /// Reads one report.
    ///
    /// # Errors
    /// When a field is missing, wrong or unknown.
    pub fn parse(body: &str) -> Result<Self, Rejection> {
        let document = json::read(body, "the receipt")?;
        let Json::Object(object) = document else {
            let problem = format!("the receipt is {}, not an object", document.kind());
            let remedy = format!("send an object of {FIELDS}");
            return Err(Rejection::new(RejectionCode::WrongType, problem, remedy));
        };
        let mut fields = Fields::new(object);
        let report = Self {
            message_id: fields.require("messageId", message_id, IDS_REMEDY)?,
            delivery_id: fields.require("deliveryId", delivery_id, IDS_REMEDY)?,
            kind: fields.require(
                "kind",
                |it| one_of(it, &KINDS, |it| it.as_str(), KIND_REMEDY),
                KIND_REMEDY,
            )?,
            at: fields.take("at", time)?,
            detail: fields.text("detail", &DETAIL)?,
        };
        fields.finish("a receipt", FIELDS)?;
        Ok(report)
    }

    /// When it happened, as far as that can be: not before the message came, and not in the future. A device
    /// whose clock is wrong is believed in everything else.
    #[must_use]
    pub fn occurred_at(&self, received_at: Timestamp, now: Timestamp) -> Timestamp {
        self.at.filter(|at| (received_at..=now).contains(at)).unwrap_or(now)
    }
}

fn message_id(value: Json<'_>) -> Result<Option<MessageId>, Rejection> {
    let Some(text) = text(value, &DETAIL)? else { return Ok(None) };
    MessageId::new(&text).map(Some).map_err(|bad| Rejection::bad_id(&bad, IDS_REMEDY))
}

fn delivery_id(value: Json<'_>) -> Result<Option<DeliveryId>, Rejection> {
    let Some(text) = text(value, &DETAIL)? else { return Ok(None) };
    let wrong = |_| Rejection::new(RejectionCode::BadValue, "is not a UUID", IDS_REMEDY);
    text.parse().map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DELIVERY: &str = "6ba7b810-9dad-51d1-80b4-00c04fd430c8";

    /// The least that there has to be, with these fields instead of or beside it; null takes one away.
    fn with(fields: &Value) -> Result<Report, Rejection> {
        let mut body = json!({ "messageId": "m-1", "deliveryId": DELIVERY, "kind": "opened" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Report::parse(&body.to_string())
    }

    #[test]
    fn little_is_needed_and_everything_is_taken() {
        let least = with(&json!({})).unwrap();
        assert_eq!((least.delivery_id.to_string().as_str(), least.kind), (DELIVERY, ReceiptKind::Opened));
        assert_eq!((least.at, least.detail), (None, None));
        let full = json!({ "kind": "dismissed", "at": "2026-11-22T18:00:00+09:00", "detail": "왼쪽으로" });
        let full = with(&full).unwrap();
        assert_eq!(full.kind, ReceiptKind::Dismissed);
        assert_eq!(full.at, Timestamp::parse("2026-11-22T09:00:00Z"));
        assert_eq!(full.detail.as_deref(), Some("왼쪽으로"));
    }

    #[test]
    fn what_is_no_receipt_is_refused_by_its_field() {
        use RejectionCode::{BadCharacter, BadTime, BadValue, MissingField, TooLong, WrongType};
        for (fields, field, code) in [
            (json!({ "messageId": null }), "messageId", MissingField),
            (json!({ "messageId": "a b" }), "messageId", BadCharacter),
            (json!({ "messageId": "x".repeat(129) }), "messageId", TooLong),
            (json!({ "deliveryId": null }), "deliveryId", MissingField),
            (json!({ "deliveryId": "d-1" }), "deliveryId", BadValue),
            (json!({ "deliveryId": 1 }), "deliveryId", WrongType),
            (json!({ "kind": null }), "kind", MissingField),
            (json!({ "kind": "seen" }), "kind", BadValue),
            (json!({ "kind": "invalid_target" }), "kind", BadValue),
            (json!({ "at": "now" }), "at", BadTime),
            (json!({ "detail": "x".repeat(257) }), "detail", TooLong),
            (json!({ "detail": "a\u{0}" }), "detail", BadCharacter),
            (json!({ "recipientId": "user-1" }), "recipientId", BadValue),
        ] {
            let rejection = with(&fields).unwrap_err();
            assert_eq!((rejection.field.as_deref(), rejection.code), (Some(field), code), "{fields}");
        }
        assert_eq!(Report::parse("17").unwrap_err().code, WrongType);
    }

    #[test]
    fn a_time_that_cannot_be_becomes_now() {
        let at = |text: &str| Timestamp::parse(&format!("2026-11-22T{text}Z")).unwrap();
        let (received, now) = (at("09:00:00"), at("10:00:00"));
        for (told, taken) in [
            (None, now),
            (Some("08:59:59"), now),
            (Some("09:00:00"), received),
            (Some("09:30:00"), at("09:30:00")),
            (Some("10:00:00"), now),
            (Some("10:00:01"), now),
        ] {
            let report = Report { at: told.map(at), ..with(&json!({})).unwrap() };
            assert_eq!(report.occurred_at(received, now), taken, "{told:?}");
        }
    }
}
