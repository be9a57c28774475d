//! From the body of a registration to a [`Registration`], or to what is wrong with it.
//!
//! The rules of the contract's texts hold here too: null and an empty text count as absent, and what not
//! every database can hold is refused. A field that nobody knows is refused as well, because an app's slip
//! (`timezone`) would go unnoticed for years.

use super::{PRODUCTION, Registration, SANDBOX};
use crate::{
    clock::Timestamp,
    id::DeviceId,
    message::{
        Rejection, RejectionCode, Target,
        contract::{Fields, LOCALE, TARGET, Text, one_of, subscription, text, time},
        json::{self, Json},
        parse,
    },
};

const APP: Text = Text::line(128);
const WORD: Text = Text::line(64);
const FIELDS: &str = "platform, app, kind, environment, token or subscription, locale, timeZone, lastSeenAt";
const PLATFORM_REMEDY: &str = "send ios, android, web or your own word: 1–64 of A–Z a–z 0–9 . _ : -";
const ENVIRONMENT_REMEDY: &str = "use \"production\" or \"sandbox\"";
const TIME_ZONE_REMEDY: &str = "send the name of a time zone, such as Asia/Seoul";
const TARGET_REMEDY: &str = "send exactly one of token and subscription";

/// A push service as far as registrations need it.
#[derive(Debug, Clone, Copy)]
pub struct PushService {
    /// The kind of provider that speaks to it.
    pub kind: &'static str,
    /// Which targets are its.
    pub takes: fn(&Target) -> bool,
}

impl Registration {
    /// Reads what an app says of a device. A `lastSeenAt` ahead of `now` becomes `now`: a device whose clock
    /// is wrong is a device all the same.
    ///
    /// # Errors
    /// When it is no registration with one of these push services.
    pub fn parse(
        device_id: DeviceId,
        body: &[u8],
        services: &[PushService],
        now: Timestamp,
    ) -> Result<Self, Rejection> {
        let remedy = "send the device as one JSON object";
        let document = json::read(parse::text(body)?, "the body").map_err(|it| match it.code {
            RejectionCode::NotJson => Rejection { remedy: remedy.to_owned(), ..it },
            _ => it,
        })?;
        let Json::Object(object) = document else {
            let problem = format!("the body is {}, not an object", document.kind());
            return Err(Rejection::new(RejectionCode::WrongType, problem, remedy));
        };
        let mut fields = Fields::new(object);
        let platform = fields.require("platform", platform, PLATFORM_REMEDY)?;
        let app = fields.text("app", &APP)?.unwrap_or_default();
        let kinds = || services.iter().map(|it| it.kind).collect::<Vec<_>>().join(", ");
        let kind_remedy = format!("use the kind of provider whose token it is: {}", kinds());
        let service = |value| one_of(value, services, |it| it.kind, &kind_remedy);
        let service = fields.require("kind", service, &kind_remedy)?;
        let environments = [PRODUCTION, SANDBOX];
        let environment = |value| one_of(value, &environments, |it| *it, ENVIRONMENT_REMEDY);
        let environment = fields.take("environment", environment)?.unwrap_or(PRODUCTION);
        let registration = Self {
            device_id,
            app,
            platform,
            kind: service.kind.to_owned(),
            environment: environment.to_owned(),
            target: target(&mut fields, service)?,
            locale: fields.text("locale", &LOCALE)?,
            time_zone: fields.take("timeZone", time_zone)?,
            last_seen_at: fields.take("lastSeenAt", time)?.map(|it| it.min(now)),
        };
        fields.finish("a device", FIELDS)?;
        Ok(registration)
    }
}

fn target(fields: &mut Fields<'_>, service: PushService) -> Result<Target, Rejection> {
    let token = fields.text("token", &TARGET)?.map(Target::Token);
    let target = match (token, fields.take("subscription", subscription)?) {
        (Some(target), None) | (None, Some(target)) => target,
        (None, None) => {
            return Err(Rejection::new(RejectionCode::MissingField, "is missing or empty", TARGET_REMEDY)
                .within("token"));
        }
        (Some(_), Some(_)) => {
            let problem = "stands beside a subscription";
            return Err(Rejection::new(RejectionCode::BadValue, problem, TARGET_REMEDY).within("token"));
        }
    };
    if (service.takes)(&target) {
        return Ok(target);
    }
    let problem = format!("is nothing that a provider of kind {} takes", service.kind);
    let remedy = "check kind, or send what its push service gave to the device";
    Err(Rejection::new(RejectionCode::BadValue, problem, remedy).within(target.kind()))
}

fn platform(value: Json<'_>) -> Result<Option<String>, Rejection> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    let Some(text) = text(value, &WORD)? else { return Ok(None) };
    match text.chars().find(|&c| !allowed(c)) {
        None => Ok(Some(text)),
        Some(bad) => {
            let problem = format!("contains {bad:?}, which is not allowed");
            Err(Rejection::new(RejectionCode::BadCharacter, problem, PLATFORM_REMEDY))
        }
    }
}

/// The shape of an IANA name. Which of them there are changes several times a year and is not asked here.
fn time_zone(value: Json<'_>) -> Result<Option<String>, Rejection> {
    let Some(text) = text(value, &WORD)? else { return Ok(None) };
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-');
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(allowed)
    };
    if text.split('/').count() <= 3 && text.split('/').all(part) {
        return Ok(Some(text));
    }
    Err(Rejection::new(RejectionCode::BadValue, "is no name of a time zone", TIME_ZONE_REMEDY))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SERVICES: [PushService; 2] = [
        PushService { kind: "fcm", takes: |it| matches!(it, Target::Token(_) | Target::Topic(_)) },
        PushService { kind: "webpush", takes: |it| matches!(it, Target::Subscription(_)) },
    ];

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T09:00:00Z").unwrap()
    }

    fn parse(body: &[u8]) -> Result<Registration, Rejection> {
        Registration::parse(DeviceId::new("d-1").unwrap(), body, &SERVICES, now())
    }

    /// The least that there has to be, with these fields instead of or beside it; null takes one away.
    fn with(fields: &Value) -> Result<Registration, Rejection> {
        let mut body = json!({ "platform": "ios", "kind": "fcm", "token": "t-1" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        parse(body.to_string().as_bytes())
    }

    fn subscription() -> Value {
        json!({ "endpoint": "https://push.example.net/1", "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg" } })
    }

    #[test]
    fn little_is_needed_and_everything_is_taken() {
        let least = with(&json!({})).unwrap();
        assert_eq!(
            (least.app.as_str(), least.environment.as_str(), least.last_seen_at),
            ("", PRODUCTION, None)
        );
        assert_eq!(least.target, Target::Token("t-1".to_owned()));
        let full = with(&json!({ "app": "사내 앱", "environment": "sandbox", "locale": "ko-KR",
            "timeZone": "America/Argentina/Buenos_Aires", "lastSeenAt": "2026-11-22T08:00:00+00:00" }))
        .unwrap();
        assert_eq!((full.app.as_str(), full.environment.as_str()), ("사내 앱", SANDBOX));
        assert_eq!(full.locale.as_deref(), Some("ko-KR"));
        assert_eq!(full.time_zone.as_deref(), Some("America/Argentina/Buenos_Aires"));
        assert_eq!(full.last_seen_at, Timestamp::parse("2026-11-22T08:00:00Z"));
    }

    #[test]
    fn a_browser_registers_its_subscription() {
        let fields =
            json!({ "platform": "web", "kind": "webpush", "token": null, "subscription": subscription() });
        let it = with(&fields).unwrap();
        assert_eq!(it.target.kind(), "subscription");
    }

    #[test]
    fn a_clock_that_runs_ahead_makes_no_device_of_the_future() {
        let it = with(&json!({ "lastSeenAt": "2031-01-01T00:00:00Z" })).unwrap();
        assert_eq!(it.last_seen_at, Some(now()));
    }

    #[test]
    fn what_is_no_registration_is_refused_by_its_field() {
        use RejectionCode::{BadCharacter, BadTime, BadValue, MissingField, TooLong, WrongType};
        let long = |n: usize| "x".repeat(n);
        for (fields, field, code) in [
            (json!({ "platform": null }), "platform", MissingField),
            (json!({ "platform": "" }), "platform", MissingField),
            (json!({ "platform": long(65) }), "platform", TooLong),
            (json!({ "platform": "안드로이드" }), "platform", BadCharacter),
            (json!({ "platform": "i os" }), "platform", BadCharacter),
            (json!({ "platform": 1 }), "platform", WrongType),
            (json!({ "app": long(129) }), "app", TooLong),
            (json!({ "app": "a\u{7}" }), "app", BadCharacter),
            (json!({ "app": "a\u{0}" }), "app", BadCharacter),
            (json!({ "kind": null }), "kind", MissingField),
            (json!({ "kind": "FCM" }), "kind", BadValue),
            (json!({ "environment": "test" }), "environment", BadValue),
            (json!({ "token": null }), "token", MissingField),
            (json!({ "token": long(4097) }), "token", TooLong),
            (json!({ "token": "a\nb" }), "token", BadCharacter),
            (json!({ "token": "a\u{0}b" }), "token", BadCharacter),
            (json!({ "subscription": subscription() }), "token", BadValue),
            (json!({ "kind": "webpush" }), "token", BadValue),
            (json!({ "token": null, "subscription": subscription() }), "subscription", BadValue),
            (
                json!({ "token": null, "subscription": { "endpoint": "x" } }),
                "subscription.endpoint",
                BadValue,
            ),
            (json!({ "locale": long(36) }), "locale", TooLong),
            (json!({ "timeZone": "+09:00" }), "timeZone", BadValue),
            (json!({ "timeZone": "Asia/" }), "timeZone", BadValue),
            (json!({ "timeZone": "a/b/c/d" }), "timeZone", BadValue),
            (json!({ "timeZone": long(65) }), "timeZone", TooLong),
            (json!({ "lastSeenAt": "yesterday" }), "lastSeenAt", BadTime),
            (json!({ "timezone": "Asia/Seoul" }), "timezone", BadValue),
        ] {
            let rejection = with(&fields).unwrap_err();
            assert_eq!((rejection.field.as_deref(), rejection.code), (Some(field), code), "{fields}");
            assert!(!rejection.to_string().contains("t-1"), "{rejection}");
        }
    }

    #[test]
    fn whoever_names_no_known_kind_is_told_all_of_them() {
        let rejection = with(&json!({ "kind": "gcm" })).unwrap_err();
        assert!(rejection.remedy.ends_with("fcm, webpush"), "{rejection}");
    }

    #[test]
    fn what_two_readers_would_read_in_two_ways_is_refused() {
        for (body, code) in [
            (&br#"{"platform":"ios","platform":"web"}"#[..], RejectionCode::DuplicateKey),
            (b"[]", RejectionCode::WrongType),
            (b"", RejectionCode::NotJson),
            (b"\xff", RejectionCode::NotUtf8),
        ] {
            let rejection = parse(body).unwrap_err();
            assert_eq!(rejection.code, code);
            assert!(!rejection.remedy.contains("message"), "{rejection}");
        }
    }
}
