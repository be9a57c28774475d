//! What the adapters of push services share: the address that can be changed, connections, what is hidden
//! of answers, and what an answer means where its body does not say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Client, Method, Request, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Failure, Outcome, Parts, Push, RetryScope,
    exchange::{Answer, BodyEnd, Protocol, client, exchange},
    mask::Mask,
    rule::{Class, by_status},
    settings::{BuildError, Settings},
};
use crate::{
    clock::{Clock, Timestamp},
    event::FailureClass,
    message::Message,
    secret::Secret,
};

/// Longest name under which pushes replace each other, in bytes: as Apple takes it.
const COLLAPSE_ID_MAX: usize = 64;
/// Most connections to one service.
const CONNECTIONS_MAX: u64 = 64;

/// A push service that can be called.
#[derive(Debug)]
pub(super) struct Vendor {
    pub(super) name: String,
    pub(super) clock: Arc<dyn Clock>,
    /// What must not be recorded, whatever the push.
    mask: Mask,
    base: Option<Url>,
    connections: Vec<Connection>,
}

/// A client of its own, which is one connection where HTTP/2 is spoken.
#[derive(Debug)]
struct Connection {
    client: Client,
    calls: AtomicUsize,
}

/// One call in flight on a connection.
struct Call<'a>(&'a Connection);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Vendor {
    /// A service at `base_url` of the settings, else at `base`; none for a service whose addresses come
    /// with the targets. Takes the keys `base_url` and `connections`.
    pub(super) fn take(
        parts: &Parts,
        settings: &mut Settings,
        base: Option<&str>,
        protocol: Protocol,
    ) -> Result<Self, BuildError> {
        let base = base.map(|it| take_base_url(settings, it)).transpose()?;
        let plain = base.as_ref().is_some_and(|it| it.scheme() == "http");
        Ok(Self { base, ..Self::anywhere(parts, settings, protocol, plain)? })
    }

    /// A service without an address of its own, which is called without TLS only where `plain_http` says
    /// so. Takes the key `connections`.
    pub(super) fn anywhere(
        parts: &Parts,
        settings: &mut Settings,
        protocol: Protocol,
        plain_http: bool,
    ) -> Result<Self, BuildError> {
        let count = settings.take_integer("connections", 1, 1..=CONNECTIONS_MAX)?;
        let connection = |_| {
            let client = client(parts.timeout, parts.concurrency, protocol, plain_http)?;
            Ok(Connection { client, calls: AtomicUsize::new(0) })
        };
        let connections = (0..count).map(connection).collect::<reqwest::Result<_>>().map_err(|error| {
            let problem = format!("cannot call anything: {error}");
            settings.error("", problem, "install the system's root certificates")
        })?;
        let Parts { name, clock, .. } = parts;
        let (name, clock) = (name.clone(), Arc::clone(clock));
        Ok(Self { name, clock, mask: Mask::default(), base: None, connections })
    }

    /// Also hides this secret in whatever is recorded.
    pub(super) fn hiding(mut self, secret: &str, shown: &str) -> Self {
        self.mask = self.mask.and(secret, shown);
        self
    }

    /// The present moment.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A `POST` to a path below the base; segments are written as they are, and escaped where they must be.
    pub(super) fn post(&self, segments: &[&str]) -> Option<Request> {
        let mut url = self.base.clone()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(Request::new(Method::POST, url))
    }

    /// The same with a body of JSON.
    pub(super) fn post_json(&self, segments: &[&str], body: Vec<u8>) -> Option<Request> {
        let mut request = self.post(segments)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.into());
        Some(request)
    }

    /// What hides the secrets of this push too.
    pub(super) fn mask(&self, pushes: &[Push]) -> Mask {
        pushes.iter().fold(self.mask.clone(), |mask, push| mask.and_target(&push.target))
    }

    /// Makes one call over the connection with the fewest calls.
    ///
    /// # Errors
    /// When no status came: what the attempt came to.
    pub(super) async fn call(&self, request: Request, mask: &Mask) -> Result<Answer, Failure> {
        let least = self.connections.iter().min_by_key(|it| it.calls.load(Ordering::Relaxed));
        let Some(connection) = least else { return Err(Failure::new(FailureClass::Retry, "connect")) };
        connection.calls.fetch_add(1, Ordering::Relaxed);
        let _call = Call(connection);
        exchange(&connection.client, request).await.map_err(|failure| {
            let answer = failure.answer.map(|it| mask.apply(&it));
            Failure { answer, ..failure }
        })
    }

    /// A failure as this answer tells it.
    pub(super) fn failure(
        &self,
        class: FailureClass,
        code: &str,
        scope: RetryScope,
        answer: &Answer,
        mask: &Mask,
    ) -> Failure {
        Failure {
            status: Some(answer.status),
            answer: answer.kept(mask),
            retry_after: answer.retry_after(self.now()),
            scope,
            ..Failure::new(class, mask.name(code))
        }
    }

    /// What an answer means whose body says nothing that is known: its status decides. A 2xx that broke
    /// off or that nobody can read is unknown, never accepted.
    pub(super) fn by_status(&self, code: Option<&str>, answer: &Answer, mask: &Mask) -> Failure {
        let (class, ours) = match (answer.end, by_status(answer.status)) {
            (_, Class::Failed(FailureClass::Retry)) => (FailureClass::Retry, None),
            (BodyEnd::Broken(how), _) => (FailureClass::Unknown, Some(how)),
            (_, Class::Accepted) => (FailureClass::Unknown, None),
            (_, Class::Failed(class)) => (class, None),
        };
        let scope = if answer.status == 429 { RetryScope::Provider } else { RetryScope::Message };
        let status = format!("http_{}", answer.status);
        self.failure(class, ours.or(code).unwrap_or(&status), scope, answer, mask)
    }

    /// The provider's id for a push, as it may be recorded.
    pub(super) fn id(text: &str, mask: &Mask) -> Option<String> {
        Some(mask.name(text)).filter(|it| !it.is_empty())
    }
}

/// A push that this adapter cannot write down for its service: nothing was sent.
pub(super) fn not_sent(code: &str, why: &str) -> Outcome {
    let answer = Some(format!("not sent: {why}"));
    Outcome::Failed(Failure { answer, ..Failure::new(FailureClass::Permanent, code) })
}

/// What to show: the push's own title, else the message's.
pub(super) fn title(message: &Message) -> &str {
    message.push.as_ref().and_then(|it| it.title.as_deref()).unwrap_or(&message.title)
}

/// What to show below it: the push's own body, else the message's.
pub(super) fn body(message: &Message) -> Option<&str> {
    message.push.as_ref().and_then(|it| it.body.as_deref()).or(message.body.as_deref())
}

/// How long the push may still be shown, in whole seconds; none where the message does not say.
pub(super) fn ttl(message: &Message, now: Timestamp) -> Option<Duration> {
    message.expires_at.map(|at| Duration::from_secs(at.since(now).as_secs()))
}

/// The name under which a push replaces what the device shows already: the message's collapse key, else the
/// delivery, so that a repetition after an unknown outcome replaces itself. At most 64 bytes of visible
/// ASCII; a key that is not that is hashed.
pub(super) fn collapse_id(push: &Push) -> String {
    match &push.message.collapse_key {
        None => push.delivery_id.to_string(),
        Some(key) if key.len() <= COLLAPSE_ID_MAX && key.bytes().all(|it| it.is_ascii_graphic()) => {
            key.clone()
        }
        Some(key) => hex::encode(Sha256::digest(key.as_bytes())),
    }
}

/// What the app gets with a push: the message's `data`, and under names of ours which message and which
/// delivery it is, and where a tap leads. A key that has such a name, or that the service keeps for itself,
/// gets `data.` put before it.
pub(super) fn data(push: &Push, reserved: fn(&str) -> bool) -> Map<String, Value> {
    let message = &push.message;
    let mut data = Map::new();
    data.insert("messageId".into(), message.message_id.to_string().into());
    data.insert("deliveryId".into(), push.delivery_id.to_string().into());
    data.extend(message.link.clone().map(|it| ("link".to_owned(), it.into())));
    let taken = |key: &str| reserved(key) || ["messageId", "deliveryId", "link"].contains(&key);
    let (renamed, plain): (Vec<_>, Vec<_>) = message.data.iter().partition(|(key, _)| taken(key));
    data.extend(plain.into_iter().map(|(key, value)| (key.clone(), value.clone())));
    for (key, value) in renamed {
        data.entry(format!("data.{key}")).or_insert_with(|| value.clone());
    }
    data
}

/// An object of what is there; nothing where nothing is.
pub(super) fn object<const N: usize>(pairs: [(&str, Option<Value>); N]) -> Option<Value> {
    let there = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let map: Map<_, _> = there.collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

/// Takes true or false.
pub(super) fn take_bool(settings: &mut Settings, key: &'static str, plain: bool) -> Result<bool, BuildError> {
    Ok(settings.take(key, "true or false")?.unwrap_or(plain))
}

/// Takes a secret that must be there, by its reference.
pub(super) fn take_secret(settings: &mut Settings, key: &'static str) -> Result<Secret, BuildError> {
    let reference: String = settings.require(key, REFERENCE)?;
    resolve(settings, key, &reference)
}

/// Takes a secret that may be there, by its reference.
pub(super) fn take_optional_secret(
    settings: &mut Settings,
    key: &'static str,
) -> Result<Option<Secret>, BuildError> {
    let reference = settings.take::<String>(key, REFERENCE)?;
    reference.map(|it| resolve(settings, key, &it)).transpose()
}

const REFERENCE: &str = "env:NAME or file:PATH";

fn resolve(settings: &Settings, key: &str, reference: &str) -> Result<Secret, BuildError> {
    let secret = Secret::resolve(reference);
    secret.map_err(|error| settings.error(key, error.to_string(), error.remedy()))
}

fn take_base_url(settings: &mut Settings, base: &str) -> Result<Url, BuildError> {
    let expected = format!("an address such as {base:?}, without query");
    let text = settings.take::<String>("base_url", &expected)?.unwrap_or_else(|| base.to_owned());
    let url = Url::parse(&text).ok().filter(|it| {
        matches!(it.scheme(), "http" | "https")
            && it.has_host()
            && it.username().is_empty()
            && it.password().is_none()
            && it.query().is_none()
            && it.fragment().is_none()
    });
    url.ok_or_else(|| {
        settings.error("base_url", "is no address that can be called", format!("make it {expected}"))
    })
}
