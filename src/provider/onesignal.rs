//! The provider OneSignal, whose status 200 is not yet success.
//!
//! One message a call, to one person, subscription or segment; the delivery's key makes a repetition
//! harmless for thirty days.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{
    Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    Outcome, Parts, Provider, Push, RetryScope,
    exchange::{Answer, BodyEnd, Protocol},
    mask::Mask,
    retry::Policy,
    settings::{BuildError, Settings},
    vendor::{Vendor, body, not_sent, take_secret, title, ttl},
};
use crate::{
    clock::Timestamp,
    event::FailureClass,
    message::{Message, Priority, Target},
};

const BASE_URL: &str = "https://api.onesignal.com";
/// How long OneSignal keeps a push for a device that is away, at most: four weeks.
const TTL_MAX: Duration = Duration::from_hours(28 * 24);
/// Longest collapse key, in bytes; of a longer one its SHA-256 is sent, which has as many digits.
const COLLAPSE_MAX: usize = 64;

/// An app at OneSignal.
#[derive(Debug)]
struct OneSignal {
    vendor: Vendor,
    app_id: String,
    headers: HeaderMap,
}

/// When attempts are repeated, where the configuration does not say.
pub(super) fn policy() -> Policy {
    Policy::default()
}

/// Builds the kind `onesignal`.
#[allow(clippy::needless_pass_by_value, reason = "every kind is built the same way")]
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let app_id = take_app_id(&mut settings)?;
    let key = take_secret(&mut settings, "api_key")?;
    let authorization = HeaderValue::try_from(format!("Key {}", key.expose()));
    let mut authorization = authorization.map_err(|_| {
        let remedy = "put the key there, in one line and without anything else";
        settings.error("api_key", "refers to something that cannot stand in a header", remedy)
    })?;
    authorization.set_sensitive(true);
    let headers = HeaderMap::from_iter([
        (AUTHORIZATION, authorization),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ]);
    let vendor = Vendor::take(&parts, &mut settings, Some(BASE_URL), Protocol::Any)?;
    settings.finish()?;
    let vendor = vendor.hiding(key.expose(), "[api_key]");
    Ok(Arc::new(OneSignal { vendor, app_id, headers }))
}

impl Provider for OneSignal {
    fn name(&self) -> &str {
        &self.vendor.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let request = match self.request(push) {
                Ok(request) => request,
                Err(outcome) => return outcome,
            };
            let mask = self.vendor.mask(std::slice::from_ref(push));
            match self.vendor.call(request, &mask).await {
                Ok(answer) => self.outcome(&answer, &mask),
                Err(failure) => Outcome::Failed(failure),
            }
        }
        .boxed()
    }
}

impl OneSignal {
    fn request(&self, push: &Push) -> Result<Request, Outcome> {
        let body = content(&self.app_id, push, self.vendor.now()).ok_or_else(|| {
            not_sent("target", "the target is a subscription of a browser and not OneSignal's")
        })?;
        let mut request = self
            .vendor
            .post(&["notifications"])
            .ok_or_else(|| not_sent("request", "base_url cannot have a path"))?;
        request.url_mut().set_query(Some("c=push"));
        *request.headers_mut() = self.headers.clone();
        *request.body_mut() = Some(body.to_string().into());
        Ok(request)
    }

    fn outcome(&self, answer: &Answer, mask: &Mask) -> Outcome {
        let json = answer.json();
        match meaning(answer.status, json.as_ref()) {
            Meaning::Sent(id) if answer.end == BodyEnd::Whole => {
                let provider_message_id = Vendor::id(id, mask);
                Outcome::Accepted { provider_message_id, status: Some(answer.status) }
            }
            Meaning::Failed(class, code, scope) => {
                let plain = format!("http_{}", answer.status);
                let code = code.as_deref().unwrap_or(&plain);
                Outcome::Failed(self.vendor.failure(class, code, scope, answer, mask))
            }
            Meaning::Sent(_) | Meaning::Unsaid => {
                let code = json.as_ref().and_then(first_error);
                Outcome::Failed(self.vendor.by_status(code.as_deref(), answer, mask))
            }
        }
    }
}

/// What an answer says.
#[derive(Debug, PartialEq)]
enum Meaning<'a> {
    /// It went out under this id.
    Sent(&'a str),
    Failed(FailureClass, Option<String>, RetryScope),
    /// Nothing that is known: the status decides, and success alone is unknown.
    Unsaid,
}

fn meaning(status: u16, json: Option<&Value>) -> Meaning<'_> {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
    let one = RetryScope::Message;
    let error = json.and_then(first_error);
    match status {
        200..=299 => {
            let Some(Value::Object(body)) = json else { return Meaning::Unsaid };
            let id = body.get("id").and_then(Value::as_str);
            // There is one recipient: one that is listed is ours.
            if let Some(kind) = invalid(body.get("errors")) {
                return Meaning::Failed(InvalidTarget, Some(kind), one);
            }
            match id {
                Some(id) if !id.is_empty() => Meaning::Sent(id),
                // Nobody was reached, whatever the words.
                Some(_) => {
                    Meaning::Failed(InvalidTarget, error.or_else(|| Some("no_recipients".into())), one)
                }
                None => Meaning::Unsaid,
            }
        }
        400 => Meaning::Failed(Permanent, error, one),
        // 404 is an app that there is not: ours is written wrongly, and no target's fault.
        401 | 403 | 404 => Meaning::Failed(AuthConfig, error, one),
        429 => Meaning::Failed(Retry, error, RetryScope::Provider),
        _ => Meaning::Unsaid,
    }
}

/// Which list of recipients that do not exist is not empty, as in `invalid_aliases`.
fn invalid(errors: Option<&Value>) -> Option<String> {
    let errors = errors?.as_object()?;
    let filled = |value: &Value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(lists) => lists.values().any(|it| it.as_array().is_none_or(|list| !list.is_empty())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    let named = |(name, value): &(&String, &Value)| name.starts_with("invalid_") && filled(value);
    errors.iter().find(named).map(|(name, _)| name.clone())
}

/// The first error in words; errors are a list of texts or of objects, an object, or a text.
fn first_error(json: &Value) -> Option<String> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(error) => {
            let named = ["code", "title", "message"].iter().find_map(|it| error.get(*it)?.as_str());
            named.map(str::to_owned)
        }
        _ => None,
    };
    let said = match json.get("errors")? {
        Value::Array(list) => list.iter().find_map(word),
        Value::Object(errors) => word(json.get("errors")?).or_else(|| errors.keys().next().cloned()),
        other => word(other),
    };
    said.filter(|it| !it.is_empty())
}

/// The body of the call; nothing for a target that OneSignal has no place for.
fn content(app_id: &str, push: &Push, now: Timestamp) -> Option<Value> {
    let message = &*push.message;
    let mut content = json!({
        "app_id": app_id,
        "target_channel": "push",
        "headings": in_languages(message, title(message)),
        // OneSignal refuses a push without contents.
        "contents": in_languages(message, body(message).unwrap_or_else(|| title(message))),
        "data": data(push),
        "idempotency_key": push.provider_key,
    });
    let (field, recipients) = match &push.target {
        Target::Alias(alias) => ("include_aliases", json!({ "external_id": [alias] })),
        Target::Token(id) => ("include_subscription_ids", json!([id])),
        Target::Topic(segment) => ("included_segments", json!([segment])),
        Target::Subscription(_) => return None,
    };
    content[field] = recipients;
    if let Some(link) = &message.link {
        // One field for addresses of the web; any other scheme is the app's own.
        let web = link.starts_with("https://") || link.starts_with("http://");
        content[if web { "url" } else { "app_url" }] = json!(link);
    }
    if let Some(image) = &message.image_url {
        content["big_picture"] = json!(image);
        content["chrome_web_image"] = json!(image);
        content["ios_attachments"] = json!({ "image": image });
    }
    if let Some(ttl) = ttl(message, now) {
        content["ttl"] = json!(ttl.min(TTL_MAX).as_secs());
    }
    if let Some(priority) = message.priority {
        content["priority"] = match priority {
            Priority::High => json!(10),
            Priority::Normal => json!(5),
        };
    }
    if let Some(key) = &message.collapse_key {
        let long = key.len() > COLLAPSE_MAX;
        let id = if long { hex::encode(Sha256::digest(key)) } else { key.clone() };
        content["web_push_topic"] = json!(id);
        content["collapse_id"] = json!(id);
    }
    Some(content)
}

/// A text under `en`, which OneSignal asks for of everyone, and under the message's own language.
fn in_languages(message: &Message, text: &str) -> Value {
    let mut texts = json!({ "en": text });
    if let Some(language) = message.locale.as_deref().and_then(language) {
        texts[language] = json!(text);
    }
    texts
}

/// OneSignal's name for the language of a tag such as `ko-KR`: two letters, and for Chinese the script.
fn language(tag: &str) -> Option<String> {
    let tag = tag.to_ascii_lowercase().replace('_', "-");
    let mut parts = tag.split('-');
    let language =
        parts.next().filter(|it| it.len() == 2 && it.bytes().all(|it| it.is_ascii_alphabetic()))?;
    if language != "zh" {
        return Some(language.to_owned());
    }
    let traditional = parts.any(|it| matches!(it, "hant" | "tw" | "hk" | "mo"));
    Some(if traditional { "zh-Hant" } else { "zh-Hans" }.to_owned())
}

/// The message's data, with the ids that lead back to it.
fn data(push: &Push) -> Map<String, Value> {
    let mut data = push.message.data.clone();
    data.insert("messageId".into(), json!(push.message.message_id.as_str()));
    data.insert("deliveryId".into(), json!(push.delivery_id.to_string()));
    data
}

fn take_app_id(settings: &mut Settings) -> Result<String, BuildError> {
    let expected = "the app's id, a UUID";
    let app_id: String = settings.require("app_id", expected)?;
    match uuid::Uuid::try_parse(&app_id) {
        Ok(id) => Ok(id.hyphenated().to_string()),
        // Not repeated: it may be the key in the wrong place.
        Err(_) => Err(settings.error("app_id", "is no UUID", format!("make it {expected}"))),
    }
}

#[cfg(test)]
mod tests;
