//! Who calls, and what they may do.
//!
//! Services have keys with scopes and reach the inboxes of all recipients. The users of an app have the
//! tokens of its login and reach their own inbox, by routes that name no recipient: whose inbox it is
//! stands in the token and nowhere else. Without any key the API is for this machine alone: then
//! everything is allowed, except to web pages, which a browser on this machine could carry here.

mod issued;
mod keys;
mod limits;
mod pass;
mod token;
mod users;

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    sync::{Arc, OnceLock},
};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, header, request::Parts},
};
use serde::Deserialize;

pub(super) use self::pass::Pass;
pub use self::{
    issued::{Issued, KEPT, PREFIX, issue},
    keys::{Key, Keys},
    limits::{Limits, Rate},
    token::{KeySet, Rules},
    users::{FetchError, Fetching, Origin, Published, Source, Users},
};
use self::{
    limits::Standing,
    users::{NotKnown, RETRY_S},
};
use super::{
    App,
    extract::{RecipientPath, Segments},
    problem::{About, Kind, Problem},
};
use crate::{clock::Timestamp, event::Metadata, id::RecipientId, metric};

/// The actor where no key is configured.
const LOCAL: &str = "local";
/// The actor where recipients do something with their own inbox; the event says who it is.
const RECIPIENT: &str = "recipient";
/// The door of those who come with a token of their own.
const OWN_INBOX: &str = "inbox";

/// What a key may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Scope {
    /// Post messages.
    #[serde(rename = "messages:write")]
    MessagesWrite,
    /// Look at messages, deliveries and their attempts.
    #[serde(rename = "messages:read")]
    MessagesRead,
    /// List inboxes and counts.
    #[serde(rename = "inbox:read")]
    InboxRead,
    /// Mark as read, archive, and so on.
    #[serde(rename = "inbox:write")]
    InboxWrite,
    /// Look at the devices of recipients.
    #[serde(rename = "devices:read")]
    DevicesRead,
    /// Register and remove devices.
    #[serde(rename = "devices:write")]
    DevicesWrite,
    /// Tell what devices did with pushes.
    #[serde(rename = "receipts:write")]
    ReceiptsWrite,
    /// Retry, cancel and replay deliveries.
    #[serde(rename = "deliveries")]
    Deliveries,
    /// Pause and resume providers.
    #[serde(rename = "providers")]
    Providers,
    /// List, retry and discard quarantined input.
    #[serde(rename = "quarantine")]
    Quarantine,
    /// Status, rebuild, verify.
    #[serde(rename = "projections")]
    Projections,
    /// Read `/metrics`.
    #[serde(rename = "metrics")]
    Metrics,
    /// Everything.
    #[serde(rename = "admin")]
    Admin,
}

/// Everybody who may call, and how they show who they are.
#[derive(Debug, Default)]
pub struct Callers {
    keys: Keys,
    users: Option<Users>,
    issued: Option<Arc<Issued>>,
    limits: Limits,
}

/// What a service may do.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// Stands in the log as the actor.
    actor: Arc<str>,
    /// Which key it is, for limits.
    key: Arc<str>,
    scopes: Vec<Scope>,
}

/// Who calls, as far as it is known.
#[derive(Debug, Clone)]
enum Identity {
    /// Somebody on this machine; there are no keys.
    Local,
    /// The holder of a key.
    Service(Arc<Grant>),
    /// A user of the app.
    Recipient(token::User),
    /// Nobody we know.
    Unknown(Problem),
}

/// Who sent a request, from the moment that a handler asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<OnceLock<Seen>>);

#[derive(Debug, Clone)]
struct Seen {
    identity: Identity,
    /// Where there is a limit.
    standing: Option<Standing>,
}

/// A caller that may do what `N` stands for; the first thing every handler asks for.
#[derive(Debug)]
pub(super) struct Caller<N> {
    /// Stands in the log as the actor.
    pub(super) actor: Arc<str>,
    needs: PhantomData<N>,
}

/// An inbox that the caller may do with what `N` stands for: the caller's own where the route names no
/// recipient, else that of the recipient it names.
#[derive(Debug)]
pub(super) struct InboxOf<N> {
    /// Whose inbox it is.
    pub(super) recipient: RecipientId,
    /// Stands in the log as the actor.
    actor: Arc<str>,
    /// Stands in the log as the door.
    ingress: &'static str,
    /// When a token that was shown is not taken any more.
    pub(super) until: Option<Timestamp>,
    /// What the caller was let in with.
    pub(super) pass: Pass,
    needs: PhantomData<N>,
}

/// What a route needs.
pub(super) trait Needs {
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($name:ident),*) => {$(
        /// A route's need of the scope of this name.
        #[derive(Debug)]
        pub(super) struct $name;
        impl Needs for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}
needs!(
    MessagesWrite,
    MessagesRead,
    InboxRead,
    InboxWrite,
    DevicesRead,
    DevicesWrite,
    ReceiptsWrite,
    Deliveries,
    Providers,
    Quarantine,
    Projections,
    Metrics
);

impl Scope {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::MessagesWrite,
        Self::MessagesRead,
        Self::InboxRead,
        Self::InboxWrite,
        Self::DevicesRead,
        Self::DevicesWrite,
        Self::ReceiptsWrite,
        Self::Deliveries,
        Self::Providers,
        Self::Quarantine,
        Self::Projections,
        Self::Metrics,
        Self::Admin,
    ];

    /// As it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessagesWrite => "messages:write",
            Self::MessagesRead => "messages:read",
            Self::InboxRead => "inbox:read",
            Self::InboxWrite => "inbox:write",
            Self::DevicesRead => "devices:read",
            Self::DevicesWrite => "devices:write",
            Self::ReceiptsWrite => "receipts:write",
            Self::Deliveries => "deliveries",
            Self::Providers => "providers",
            Self::Quarantine => "quarantine",
            Self::Projections => "projections",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Callers {
    /// The holders of these keys, and users with tokens; without either, everybody on this machine.
    #[must_use]
    pub fn new(keys: Keys, users: Option<Users>) -> Self {
        Self { keys, users, ..Self::default() }
    }

    /// None of whom may ask for more than this.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// And the holders of keys that are in the database; as soon as there is one, nobody else is let in.
    #[must_use]
    pub fn with_issued(self, issued: Arc<Issued>) -> Self {
        Self { issued: Some(issued), ..self }
    }

    /// Who sent this request; asked and counted once a request.
    ///
    /// # Errors
    /// When that one may ask for no more now.
    async fn of(&self, parts: &Parts, now: Timestamp) -> Result<Identity, Problem> {
        let known = parts.extensions.get::<Known>();
        if let Some(seen) = known.and_then(|it| it.0.get()) {
            return seen.clone().admitted();
        }
        let identity = self.identify(&parts.headers, now).await.unwrap_or_else(Identity::Unknown);
        let standing = match &identity {
            Identity::Service(grant) => self.limits.count_service(&grant.key),
            Identity::Recipient(user) => self.limits.count_user(user.recipient.as_str()),
            Identity::Local | Identity::Unknown(_) => None,
        };
        let seen = Seen { identity, standing };
        if let Some(known) = known {
            // Handlers ask one after the other.
            let _ = known.0.set(seen.clone());
        }
        seen.admitted()
    }

    async fn identify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, Problem> {
        if self.is_open(now).await? {
            return local(headers);
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let remedy =
                "send Authorization: Bearer with the secret of a key, or to /v1/inbox with a user's token";
            return Err(unauthenticated("the request carries no key and no token", remedy));
        };
        let Some(secret) = bearer(value.as_bytes()) else {
            let detail = "the Authorization header is not of the form Bearer SECRET";
            return Err(unauthenticated(detail, "send Authorization: Bearer SECRET"));
        };
        if let Some(grant) = self.keys.find(secret) {
            return Ok(Identity::Service(grant));
        }
        let text = std::str::from_utf8(secret).unwrap_or_default();
        match (&self.issued, &self.users) {
            (Some(issued), _) if text.starts_with(PREFIX) => {
                let found = issued.find(text, now).await?;
                found.map(Identity::Service).map_err(|why| refused(why.to_string(), why.remedy()))
            }
            (_, Some(users)) if text.contains('.') => user(users, text, now).await,
            _ => Err(refused("no such key", "check the secret against the one in api.keys")),
        }
    }

    /// Whether nobody was ever given a key or a token.
    async fn is_open(&self, now: Timestamp) -> Result<bool, Problem> {
        if !self.keys.is_empty() || self.users.is_some() {
            return Ok(false);
        }
        match &self.issued {
            Some(issued) => Ok(!issued.any(now).await?),
            None => Ok(true),
        }
    }
}

impl Grant {
    fn opens(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|it| *it == scope || *it == Scope::Admin)
    }
}

impl Known {
    /// The name of whoever calls, for logs; a dash where nobody is known, or nobody asked.
    pub(super) fn actor(&self) -> &str {
        match self.0.get().map(|it| &it.identity) {
            Some(Identity::Local) => LOCAL,
            Some(Identity::Service(grant)) => &grant.actor,
            Some(Identity::Recipient(_)) => RECIPIENT,
            Some(Identity::Unknown(_)) | None => "-",
        }
    }

    /// Tells a limited caller how it stands.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(standing) = self.0.get().and_then(|it| it.standing) {
            standing.tell(headers);
        }
    }
}

impl Seen {
    fn admitted(self) -> Result<Identity, Problem> {
        let Some(wait_s) = self.standing.and_then(|it| it.wait_s) else { return Ok(self.identity) };
        let detail = "this caller asks for more than api.limits allows";
        let remedy =
            "wait as long as Retry-After says, and then as RateLimit says; send many messages in one request";
        Err(Problem::new(Kind::RateLimited, detail, remedy).retry_after(wait_s))
    }
}

impl Identity {
    /// The actor of what it may do with everybody's.
    fn allow(&self, scope: Scope) -> Result<Arc<str>, Problem> {
        match self {
            Self::Local => Ok(LOCAL.into()),
            Self::Service(grant) if grant.opens(scope) => Ok(Arc::clone(&grant.actor)),
            Self::Service(_) => Err(Problem::new(
                Kind::Forbidden,
                format!("the key does not have the scope {scope}"),
                "use another key, or add the scope to this one where it is in api.keys",
            )),
            Self::Recipient(_) => Err(Problem::new(
                Kind::Forbidden,
                "a user's token opens the user's own inbox, at /v1/inbox, and nothing else",
                "call /v1/inbox, or use a key with the scope",
            )),
            Self::Unknown(problem) => Err(problem.clone()),
        }
    }

    /// The recipient whose own inbox it is.
    fn user(self) -> Result<token::User, Problem> {
        match self {
            Self::Recipient(user) => Ok(user),
            Self::Local => Err(unauthenticated(
                "whose inbox it is stands in a user's token, and this API takes none",
                "configure api.users, or call /v1/recipients/{recipientId}/inbox",
            )),
            Self::Service(_) => Err(Problem::new(
                Kind::Forbidden,
                "a key has no inbox of its own",
                "call /v1/recipients/{recipientId}/inbox, or send a user's token",
            )),
            Self::Unknown(problem) => Err(problem),
        }
    }
}

impl<N> InboxOf<N> {
    /// Whether the caller came by the door of users.
    pub(super) fn is_own(&self) -> bool {
        self.ingress == OWN_INBOX
    }

    /// What the log keeps about who did something here.
    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            ingress: Some(self.ingress.to_owned()),
            actor: Some(self.actor.as_ref().to_owned()),
            ..Metadata::default()
        }
    }
}

impl<N: Needs> FromRequestParts<Arc<App>> for Caller<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let identity = app.callers.of(parts, app.ledger.now()).await?;
        Ok(Self { actor: identity.allow(N::SCOPE)?, needs: PhantomData })
    }
}

impl<N: Needs> FromRequestParts<Arc<App>> for InboxOf<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let identity = app.callers.of(parts, app.ledger.now()).await?;
        let pass = Pass::of(&identity);
        if names_recipient(parts).await {
            let actor = identity.allow(N::SCOPE)?;
            let Segments(RecipientPath { recipient }) = Segments::from_request_parts(parts, app).await?;
            let (ingress, until) = (metric::HTTP, None);
            return Ok(Self { recipient, actor, ingress, until, pass, needs: PhantomData });
        }
        let token::User { recipient, until } = identity.user()?;
        let (actor, until) = (RECIPIENT.into(), Some(until));
        Ok(Self { recipient, actor, ingress: OWN_INBOX, until, pass, needs: PhantomData })
    }
}

/// Whether the route, not the request, has a place for a recipient. A path that cannot be read at all
/// counts as one that does, which asks for more.
async fn names_recipient(parts: &mut Parts) -> bool {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    params.map_or(true, |it| it.iter().any(|(name, _)| name == "recipient"))
}

/// Whose token it is.
async fn user(users: &Users, token: &str, now: Timestamp) -> Result<Identity, Problem> {
    users.user(token, now).await.map(Identity::Recipient).map_err(|why| match why {
        NotKnown::Refused(why) => refused(why.to_string(), why.remedy()),
        NotKnown::NoKeys => {
            let detail = "the keys that users' tokens are signed with cannot be read";
            Problem::new(Kind::Unavailable, detail, "send the same request again").retry_after(RETRY_S)
        }
    })
}

/// Nothing was sent that says who calls.
fn unauthenticated(detail: &'static str, remedy: &'static str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail, remedy)
}

/// What was sent is not taken.
fn refused(detail: impl Into<Cow<'static, str>>, remedy: &'static str) -> Problem {
    let about = About { challenge: Some("invalid_token"), ..About::default() };
    Problem::new(Kind::Unauthenticated, detail, remedy).about(about)
}

/// The secret of `Bearer SECRET`; the scheme's name may be in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(7)?;
    let secret = secret.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !secret.is_empty()).then_some(secret)
}

/// Without keys whoever reaches the address may call; but a page in this machine's browser must not
/// make it do so, neither across origins nor through a name that it made point here.
fn local(headers: &HeaderMap) -> Result<Identity, Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST);
    let own = |origin: &str| host.is_some_and(|host| origin.strip_prefix("http://") == Some(host));
    let foreign_host = host.is_some_and(|host| !is_loopback(host));
    let foreign_origin = headers.contains_key(header::ORIGIN) && !text(header::ORIGIN).is_some_and(own);
    if foreign_host || foreign_origin {
        return Err(Problem::new(
            Kind::Forbidden,
            "without keys the API answers programs on this machine only, not web pages or other names",
            "call it as http://127.0.0.1 or http://localhost, or make a key",
        ));
    }
    Ok(Identity::Local)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
pub(in crate::http) mod issuer;
#[cfg(test)]
mod tests;
