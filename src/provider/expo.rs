//! Expo's push service: many pushes a call, a ticket for each, and later a receipt that says what came of it.
//!
//! A ticket means that Expo took a push, not that Apple or Google did; that stands in the receipt. Nothing
//! is remembered about pushes: tickets are the log's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{
    Request,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    Batch, Checked, Failure, Outcome, Parts, Provider, Push, Receipts, RetryScope, Said,
    exchange::{Answer, KEPT_MAX, Protocol},
    mask::{Mask, cut},
    settings::{BuildError, Settings},
    vendor::{Vendor, body, collapse_id, data, not_sent, object, take_optional_secret, title, ttl},
};
use crate::{
    clock::Timestamp,
    event::FailureClass,
    message::{Priority, Target},
};

/// Where Expo is.
const BASE: &str = "https://exp.host/--/api/v2";
/// Most pushes in one call.
const PUSHES_MAX: usize = 100;
/// Most tickets in one question. Expo takes a thousand, but so many errors are more than is read of an answer.
const TICKETS_MAX: usize = 100;
/// Expo has receipts ready after so long.
const ASK_AFTER: Duration = Duration::from_mins(15);
/// Longer than this neither Apple nor Google keeps a push.
const TTL_MAX: Duration = Duration::from_hours(28 * 24);
/// After a call with pushes of several projects, there is one push a call for so long.
const ALONE: Duration = Duration::from_mins(15);
/// A ticket that nobody has; for checks.
const NO_TICKET: &str = "00000000-0000-0000-0000-000000000000";

/// One Expo project.
#[derive(Debug)]
struct Expo {
    vendor: Vendor,
    authorization: Option<HeaderValue>,
    style: Style,
    /// Until when there is one push a call, in microseconds since 1970.
    alone_until: AtomicI64,
}

/// What the project's pushes have in common.
#[derive(Debug, Default)]
struct Style {
    sound: Option<String>,
    channel: Option<String>,
}

/// Builds the kind `expo`.
#[allow(clippy::needless_pass_by_value, reason = "every kind is built by one signature")]
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let mut vendor = Vendor::take(&parts, &mut settings, Some(BASE), Protocol::Any)?;
    let secret = take_optional_secret(&mut settings, "access_token")?;
    let authorization = secret.as_ref().map(|secret| {
        let mut value = HeaderValue::try_from(format!("Bearer {}", secret.expose())).map_err(|_| {
            let problem = "refers to something that cannot be sent in a header";
            settings.error("access_token", problem, "put the access token there, and nothing else")
        })?;
        value.set_sensitive(true);
        Ok(value)
    });
    let authorization = authorization.transpose()?;
    if let Some(secret) = &secret {
        vendor = vendor.hiding(secret.expose(), "[access_token]");
    }
    let sound = settings.take::<String>("sound", "the name of a sound, or \"\" for none")?;
    let sound = Some(sound.unwrap_or_else(|| "default".to_owned())).filter(|it| !it.is_empty());
    let channel = settings.take("channel_id", "the id of a notification channel on Android")?;
    settings.finish()?;
    let style = Style { sound, channel };
    Ok(Arc::new(Expo { vendor, authorization, style, alone_until: AtomicI64::new(0) }))
}

impl Provider for Expo {
    fn name(&self) -> &str {
        &self.vendor.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let mut outcomes = self.send(std::slice::from_ref(push)).await;
            outcomes.pop().unwrap_or_else(|| Outcome::Failed(uncounted()))
        }
        .boxed()
    }

    fn batch(&self) -> Option<&dyn Batch> {
        Some(self)
    }

    fn receipts(&self) -> Option<&dyn Receipts> {
        Some(self)
    }

    fn check(&self) -> BoxFuture<'_, Result<Checked, Failure>> {
        async move {
            self.receipts_of(&[NO_TICKET.to_owned()]).await?;
            Ok(match self.authorization {
                Some(_) => Checked::proven("Expo answers, and does not refuse the access token"),
                None => Checked::unproven("Expo answers; there is no access token to check"),
            })
        }
        .boxed()
    }
}

impl Batch for Expo {
    fn size_max(&self) -> usize {
        let until = Timestamp::from_micros(self.alone_until.load(Ordering::Relaxed));
        if self.vendor.now() < until { 1 } else { PUSHES_MAX }
    }

    fn push_all<'a>(&'a self, pushes: &'a [Push]) -> BoxFuture<'a, Vec<Outcome>> {
        self.send(pushes).boxed()
    }
}

impl Receipts for Expo {
    fn size_max(&self) -> usize {
        TICKETS_MAX
    }

    fn ask<'a>(&'a self, tickets: &'a [String]) -> BoxFuture<'a, Result<Vec<Said>, Failure>> {
        self.receipts_of(tickets).boxed()
    }
}

impl Expo {
    /// Makes one call for all of these that can be sent, and none where none can be.
    async fn send(&self, pushes: &[Push]) -> Vec<Outcome> {
        let now = self.vendor.now();
        let (mut sent, mut messages) = (Vec::new(), Vec::new());
        let mut outcomes: Vec<_> = pushes
            .iter()
            .map(|push| match message(push, &self.style, now) {
                Ok(message) => {
                    sent.push(push.clone());
                    messages.push(message);
                    None
                }
                Err(refused) => Some(refused),
            })
            .collect();
        let mut told =
            if sent.is_empty() { Vec::new() } else { self.call(&sent, messages).await }.into_iter();
        let told = |refused: &mut Option<Outcome>| {
            refused.take().or_else(|| told.next()).unwrap_or_else(|| Outcome::Failed(uncounted()))
        };
        outcomes.iter_mut().map(told).collect()
    }

    async fn call(&self, pushes: &[Push], messages: Vec<Value>) -> Vec<Outcome> {
        let Some(request) = self.request("send", &Value::Array(messages)) else {
            return vec![not_sent("request", "the address cannot be written down"); pushes.len()];
        };
        let mask = self.vendor.mask(pushes);
        match self.vendor.call(request, &mask).await {
            Err(failure) => vec![Outcome::Failed(failure); pushes.len()],
            Ok(answer) => match tickets(&self.vendor, &answer, pushes) {
                Ok(outcomes) => outcomes,
                Err(failure) => {
                    if failure.code == SEVERAL_PROJECTS {
                        let until = self.vendor.now().plus(ALONE).as_micros();
                        self.alone_until.store(until, Ordering::Relaxed);
                    }
                    vec![Outcome::Failed(failure); pushes.len()]
                }
            },
        }
    }

    async fn receipts_of(&self, tickets: &[String]) -> Result<Vec<Said>, Failure> {
        if tickets.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.request("getReceipts", &json!({ "ids": tickets }));
        let request = request.ok_or_else(|| Failure::new(FailureClass::Permanent, "request"))?;
        let mask = self.vendor.mask(&[]);
        let answer = self.vendor.call(request, &mask).await?;
        receipts(&self.vendor, &answer, tickets)
    }

    fn request(&self, verb: &str, body: &Value) -> Option<Request> {
        let mut request = self.vendor.post_json(&["push", verb], body.to_string().into())?;
        let proof = self.authorization.clone().map(|it| (AUTHORIZATION, it));
        request.headers_mut().extend(proof);
        Some(request)
    }
}

/// Expo's message, or why it cannot be one: one that Expo cannot read would spoil the whole call.
fn message(push: &Push, style: &Style, now: Timestamp) -> Result<Value, Outcome> {
    let Target::Token(to) = &push.target else {
        return Err(not_sent("target", &format!("Expo takes no target of kind {}", push.target.kind())));
    };
    if !is_token(to) {
        return Err(not_sent("target", "this is no Expo push token such as ExponentPushToken[…]"));
    }
    let said = &push.message;
    let text = |it: &str| Value::from(it);
    let priority = said.priority.map(|it| if it == Priority::High { "high" } else { "normal" });
    let collapse = collapse_id(push);
    let message = object([
        ("to", Some(text(to))),
        ("title", Some(text(title(said)))),
        ("body", body(said).map(text)),
        ("data", Some(data(push, |_| false).into())),
        ("ttl", ttl(said, now).map(|it| it.min(TTL_MAX).as_secs().into())),
        ("priority", priority.map(text)),
        ("sound", style.sound.as_deref().map(text)),
        ("channelId", style.channel.as_deref().map(text)),
        ("collapseId", Some(text(&collapse))),
        ("tag", Some(text(&collapse))),
        ("mutableContent", said.image_url.is_some().then_some(Value::Bool(true))),
        ("richContent", said.image_url.as_deref().map(|it| json!({ "image": it }))),
    ]);
    Ok(message.unwrap_or_default())
}

/// Whether Expo's own library would take this for a token.
fn is_token(text: &str) -> bool {
    let bracketed = ["ExponentPushToken[", "ExpoPushToken["].iter().any(|it| text.starts_with(it));
    let uuid = || {
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        parts == [8, 4, 4, 4, 12] && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    bracketed && text.ends_with(']') || uuid()
}

/// What the tickets mean, in the order of the pushes.
///
/// # Errors
/// When there are no tickets, or not as many as pushes: what became of all of them.
fn tickets(vendor: &Vendor, answer: &Answer, pushes: &[Push]) -> Result<Vec<Outcome>, Failure> {
    let data = answer.json().and_then(|mut it| Some(it.get_mut("data")?.take()));
    let list = match data.filter(|_| (200..300).contains(&answer.status)) {
        Some(Value::Array(list)) => list,
        Some(one @ Value::Object(_)) => vec![one],
        _ => return Err(refusal(vendor, answer, &vendor.mask(pushes))),
    };
    if list.len() != pushes.len() {
        return Err(Failure { status: Some(answer.status), ..uncounted() });
    }
    let outcome = |(ticket, push): (&Value, &Push)| {
        let mask = vendor.mask(std::slice::from_ref(push));
        match (status(ticket), ticket.get("id").and_then(Value::as_str)) {
            ("ok", Some(id)) if !id.is_empty() => {
                Outcome::Pending { ticket: id.to_owned(), ask_after: ASK_AFTER }
            }
            ("error", _) => Outcome::Failed(refused(ticket, answer.status, &mask)),
            _ => Outcome::Failed(Failure {
                class: FailureClass::Unknown,
                code: "no_ticket".into(),
                ..refused(ticket, answer.status, &mask)
            }),
        }
    };
    Ok(list.iter().zip(pushes).map(outcome).collect())
}

/// What the receipts mean, in the order of the tickets.
///
/// # Errors
/// When the whole question was refused.
fn receipts(vendor: &Vendor, answer: &Answer, tickets: &[String]) -> Result<Vec<Said>, Failure> {
    let mask = vendor.mask(&[]);
    let data = answer.json().and_then(|mut it| Some(it.get_mut("data")?.take()));
    let data = data.filter(|it| (200..300).contains(&answer.status) && it.is_object());
    let data = data.ok_or_else(|| refusal(vendor, answer, &mask))?;
    let said = |ticket: &String| match data.get(ticket) {
        Some(receipt) if status(receipt) == "ok" => Said::Finally(Outcome::Accepted {
            provider_message_id: Vendor::id(ticket, &mask),
            status: Some(answer.status),
        }),
        Some(receipt) if status(receipt) == "error" => {
            Said::Finally(Outcome::Failed(refused(receipt, answer.status, &mask)))
        }
        _ => Said::NotYet,
    };
    Ok(tickets.iter().map(said).collect())
}

fn status(value: &Value) -> &str {
    value.get("status").and_then(Value::as_str).unwrap_or_default()
}

/// What a ticket or a receipt of status `error` means.
fn refused(value: &Value, status: u16, mask: &Mask) -> Failure {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
    let code = value.pointer("/details/error").and_then(Value::as_str).unwrap_or("error");
    let (class, scope) = match code {
        "DeviceNotRegistered" => (InvalidTarget, RetryScope::Message),
        "MessageRateExceeded" => (Retry, RetryScope::Device),
        "InvalidCredentials" | "MismatchSenderId" => (AuthConfig, RetryScope::Message),
        "ProviderError" | "ExpoError" => (Retry, RetryScope::Message),
        // MessageTooBig, DeveloperError, and what nobody knows yet: this push was refused for good.
        _ => (Permanent, RetryScope::Message),
    };
    let answer = hide_tokens(&mask.apply(&value.to_string()));
    Failure {
        status: Some(status),
        answer: Some(cut(&answer, KEPT_MAX).to_owned()),
        scope,
        ..Failure::new(class, Vendor::id(code, mask).unwrap_or_else(|| "error".to_owned()))
    }
}

/// The code of a call with pushes of several projects.
const SEVERAL_PROJECTS: &str = "PUSH_TOO_MANY_EXPERIENCE_IDS";

/// Why a whole call was refused.
fn refusal(vendor: &Vendor, answer: &Answer, mask: &Mask) -> Failure {
    use FailureClass::{AuthConfig, Permanent, Retry};
    let json = answer.json();
    let code = json.as_ref().and_then(|it| it.pointer("/errors/0/code")?.as_str());
    let plain = vendor.by_status(code, answer, mask);
    let (class, scope) = match code {
        Some("TOO_MANY_REQUESTS") => (Retry, RetryScope::Provider),
        // Nothing was sent, and each of these pushes is good on its own.
        Some(SEVERAL_PROJECTS) => (Retry, RetryScope::Message),
        Some("PUSH_TOO_MANY_NOTIFICATIONS" | "PUSH_TOO_MANY_RECEIPTS") => (Permanent, RetryScope::Message),
        Some("UNAUTHORIZED") => (AuthConfig, RetryScope::Message),
        _ => (plain.class, plain.scope),
    };
    Failure { class, scope, answer: plain.answer.as_deref().map(hide_tokens), ..plain }
}

/// Expo took the call, and what it says cannot be told apart by push.
fn uncounted() -> Failure {
    Failure::new(FailureClass::Unknown, "ticket_count")
}

/// A text without the devices' tokens that Expo names in it, whosever they are: `ExponentPushToken[…abcd]`.
fn hide_tokens(text: &str) -> String {
    let mut pieces = text.split("PushToken[");
    let mut hidden = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find([']', '"']).unwrap_or(piece.len());
        let (token, rest) = piece.split_at(end);
        let skip = token.chars().count().saturating_sub(4).max(1);
        hidden.push_str("PushToken[…");
        hidden.extend(token.chars().skip(skip));
        hidden.push_str(rest);
    }
    hidden
}

#[cfg(test)]
mod tests;
