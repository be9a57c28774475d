//! The declarative HTTP provider: a push service described in the configuration, without code.
//!
//! What to send is a template, what the answer means is a list of rules; both are checked when the
//! provider is built. `docs/providers.md` shows how to write them.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{
    Client, Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    Failure, Outcome, Parts, Provider, Push, RetryScope,
    exchange::{Answer, BodyEnd, Protocol, client, exchange},
    mask::Mask,
    rule::{Class, Place, Rule, Seen, by_status, judge},
    settings::{BuildError, Settings},
    template::{BadTemplate, Body, Scope, Secrets, Text, Unfilled, UrlTemplate},
    vendor::not_sent,
};
use crate::{clock::Clock, event::FailureClass, secret::Secret};

/// A push service as the configuration describes it.
#[derive(Debug)]
struct Http {
    name: String,
    client: Client,
    clock: Arc<dyn Clock>,
    method: Method,
    url: UrlTemplate,
    headers: Vec<(HeaderName, Text)>,
    body: Option<Body>,
    id: Option<Place>,
    code: Option<Place>,
    outcomes: Vec<Rule>,
    mask: Mask,
}

/// Builds the kind `http`.
pub(super) fn build(parts: Parts, mut settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    let secrets = take_secrets(&mut settings)?;
    let url = settings.require::<String>("url", "a URL such as \"https://push.example.com/v1/send\"")?;
    let url = UrlTemplate::parse(&url, &secrets).map_err(|bad| bad_template(&settings, "url", &bad))?;
    let method = take_method(&mut settings)?;
    let headers = take_headers(&mut settings, &secrets)?;
    let body = take_body(&mut settings, &method, &secrets)?;
    let id = Place::take(&mut settings, "id")?;
    let code = Place::take(&mut settings, "code")?;
    let outcomes = settings.take_tables("outcomes")?;
    let outcomes = outcomes.into_iter().map(Rule::take).collect::<Result<_, _>>()?;
    let client =
        client(parts.timeout, parts.concurrency, Protocol::Any, url.is_plain_http()).map_err(|error| {
            settings.error(
                "url",
                format!("cannot be called: {error}"),
                "install the system's root certificates",
            )
        })?;
    settings.finish()?;
    let hide =
        |mask: Mask, (name, secret): (&String, &Secret)| mask.and(secret.expose(), format!("[{name}]"));
    let mask = secrets.iter().fold(Mask::default(), hide);
    let Parts { name, clock, .. } = parts;
    Ok(Arc::new(Http { name, client, clock, method, url, headers, body, id, code, outcomes, mask }))
}

impl Provider for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        async move {
            let request = match self.request(push) {
                Ok(request) => request,
                Err(unfilled) => return not_sent("template", &unfilled.to_string()),
            };
            let mask = self.mask.clone().and_target(&push.target);
            match exchange(&self.client, request).await {
                Ok(answer) => self.outcome(&answer, &mask),
                Err(failure) => {
                    let answer = failure.answer.map(|it| mask.apply(&it));
                    Outcome::Failed(Failure { answer, ..failure })
                }
            }
        }
        .boxed()
    }
}

impl Http {
    fn request(&self, push: &Push) -> Result<Request, Unfilled> {
        let scope = Scope { push, now: self.clock.now() };
        let mut request = Request::new(self.method.clone(), self.url.render(&scope)?);
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        if let Some(body) = &self.body {
            let body = body.render(&scope).unwrap_or_else(|| json!({}));
            *request.body_mut() = Some(body.to_string().into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, text) in &self.headers {
            if let Some(value) = text.header(&scope)? {
                headers.insert(name, value);
            }
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn outcome(&self, answer: &Answer, mask: &Mask) -> Outcome {
        let status = Some(answer.status);
        let json = answer.json();
        let seen = Seen { status: answer.status, headers: &answer.headers, json: json.as_ref() };
        let named = |place: Option<&Place>| Some(mask.name(&place?.read(&seen)?));
        let (class, code) = match answer.end {
            // Without its body, an answer proves nothing but what its status alone proves.
            BodyEnd::Broken(how) if by_status(answer.status) != Class::Failed(FailureClass::Retry) => {
                (Class::Failed(FailureClass::Unknown), Some(how.to_owned()))
            }
            _ => {
                let (class, place) = judge(&self.outcomes, &seen);
                (class, named(place).or_else(|| named(self.code.as_ref())))
            }
        };
        match class {
            Class::Accepted => Outcome::Accepted { provider_message_id: named(self.id.as_ref()), status },
            Class::Failed(class) => Outcome::Failed(Failure {
                class,
                code: code.unwrap_or_else(|| format!("http_{}", answer.status)),
                status,
                answer: answer.kept(mask),
                retry_after: answer.retry_after(self.clock.now()),
                scope: if answer.status == 429 { RetryScope::Provider } else { RetryScope::Message },
                as_of: None,
                is_suspect: false,
            }),
        }
    }
}

fn bad_template(settings: &Settings, key: &str, bad: &BadTemplate) -> BuildError {
    settings.error(key, bad.to_string(), bad.remedy())
}

fn take_secrets(settings: &mut Settings) -> Result<Secrets, BuildError> {
    let Some(mut table) = settings.take_table("secrets")? else { return Ok(Secrets::new()) };
    let mut secrets = Secrets::new();
    for (name, reference) in table.take_texts()? {
        let named = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
        if name.is_empty() || !name.chars().all(named) {
            let remedy = "use letters, digits, _ and - so that {{secret.NAME}} can name it";
            return Err(table.error(&name, "cannot be the name of a secret", remedy));
        }
        let secret = Secret::resolve(&reference);
        let secret = secret.map_err(|error| table.error(&name, error.to_string(), error.remedy()))?;
        secrets.insert(name, secret);
    }
    Ok(secrets)
}

fn take_method(settings: &mut Settings) -> Result<Method, BuildError> {
    let known = [Method::POST, Method::PUT, Method::PATCH, Method::GET, Method::DELETE];
    let names: Vec<_> = known.iter().map(Method::as_str).collect();
    let expected = format!("one of: {}", names.join(", "));
    let Some(name) = settings.take::<String>("method", &expected)? else { return Ok(Method::POST) };
    let method = known.into_iter().find(|it| it.as_str() == name);
    method.ok_or_else(|| settings.error("method", format!("is {name:?}"), format!("make it {expected}")))
}

fn take_headers(settings: &mut Settings, secrets: &Secrets) -> Result<Vec<(HeaderName, Text)>, BuildError> {
    let Some(mut table) = settings.take_table("headers")? else { return Ok(Vec::new()) };
    let given = table.take_texts()?;
    let read = |(key, template): (String, String)| {
        let name = key.parse::<HeaderName>().ok().filter(|it| !OF_THE_CONNECTION.contains(&it.as_str()));
        let refused = || table.error(&key, "is no header that can be set", "use another header");
        let name = name.ok_or_else(refused)?;
        let text = Text::parse(&template, secrets).map_err(|bad| bad_template(&table, &key, &bad))?;
        if [AUTHORIZATION, COOKIE].contains(&name) && !text.has_secret() {
            let remedy = "keep the credential under secrets, and write it as {{secret.NAME}}";
            return Err(table.error(&key, "holds no {{secret.NAME}}", remedy));
        }
        if template.chars().any(char::is_control) {
            return Err(table.error(&key, "has a control character", "write it in one line"));
        }
        Ok((name, text))
    };
    given.into_iter().map(read).collect()
}

/// Headers that belong to the connection, not to what is sent over it.
const OF_THE_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A table is taken as it stands, a text is read as JSON, and the empty text is no body at all.
fn take_body(
    settings: &mut Settings,
    method: &Method,
    secrets: &Secrets,
) -> Result<Option<Body>, BuildError> {
    let bodiless = [Method::GET, Method::DELETE].contains(method);
    let template = match settings.take_value("body") {
        None if bodiless => return Ok(None),
        None => default_body(),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(_) if bodiless => {
            let problem = format!("is set, and {method} sends none");
            return Err(settings.error("body", problem, "leave it out, or use another method"));
        }
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
            let remedy = "make it JSON, with placeholders inside quotes, or a table";
            settings.error("body", format!("is a text that is not JSON: {error}"), remedy)
        })?,
        Some(other) => other,
    };
    Body::parse(&template, secrets).map(Some).map_err(|bad| bad_template(settings, "body", &bad))
}

fn default_body() -> Value {
    json!({
        "deliveryId": "{{deliveryId}}",
        "attempt": "{{attempt}}",
        "idempotencyKey": "{{providerKey}}",
        "messageId": "{{message.messageId}}",
        "recipientId": "{{recipientId}}",
        "target": { "kind": "{{target.kind}}", "value": "{{target.value}}" },
        "title": "{{title}}",
        "body": "{{body}}",
        "category": "{{message.category}}",
        "link": "{{message.link}}",
        "imageUrl": "{{message.imageUrl}}",
        "data": "{{message.data}}",
        "locale": "{{message.locale}}",
        "collapseKey": "{{message.collapseKey}}",
        "priority": "{{message.priority}}",
        "expiresAt": "{{message.expiresAt}}",
    })
}

#[cfg(test)]
mod tests;
