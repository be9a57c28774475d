//! Who calls, and what they may do: static service keys with scopes.
//!
//! Only hashes of the secrets are kept, and every one of them is compared in constant time. Without
//! any key the API is for this machine alone (the configuration sees to the address): then everything
//! is allowed, except to web pages, which a browser on this machine could carry here.

use std::{fmt, marker::PhantomData, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{
    App,
    problem::{Kind, Problem},
};
use crate::secret::Secret;

/// The actor where no key is configured.
const LOCAL: &str = "local";

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

/// One caller's key.
#[derive(Debug, Clone)]
pub struct Key {
    actor: Arc<str>,
    hash: SecretHash,
    scopes: Vec<Scope>,
}

/// All keys.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct SecretHash([u8; 32]);

/// Who calls, as far as it is known; made once a request.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// Somebody on this machine; there are no keys.
    Local,
    /// The holder of the key at this place.
    Key(usize),
    /// Nobody we know.
    Unknown(Problem),
}

/// A caller that may do what `N` stands for; the first thing every handler asks for.
#[derive(Debug)]
pub(super) struct Caller<N> {
    /// Stands in the log as the actor.
    pub(super) actor: Arc<str>,
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

impl Key {
    /// A key for the caller that the log is to call `name`.
    #[must_use]
    pub fn new(name: &str, secret: &Secret, scopes: Vec<Scope>) -> Self {
        Self { actor: name.into(), hash: SecretHash::of(secret.expose().as_bytes()), scopes }
    }

    fn opens(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|it| *it == scope || *it == Scope::Admin)
    }
}

impl Keys {
    /// These and no others; none at all lets everybody on this machine do everything.
    #[must_use]
    pub const fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Who sent these headers.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Identity {
        if self.0.is_empty() {
            return local(headers);
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let remedy = "send Authorization: Bearer SECRET with the secret of a key in api.keys";
            return Identity::Unknown(unauthenticated("the request carries no key", remedy));
        };
        let Some(secret) = bearer(value.as_bytes()) else {
            let detail = "the Authorization header is not of the form Bearer SECRET";
            return Identity::Unknown(unauthenticated(detail, "send Authorization: Bearer SECRET"));
        };
        let hash = SecretHash::of(secret);
        // No early end: how long this takes does not tell which key came near.
        let mut found = None;
        for (at, key) in self.0.iter().enumerate() {
            if bool::from(key.hash.matches(&hash)) {
                found = Some(at);
            }
        }
        let unknown = || unauthenticated("no such key", "check the secret against the one in api.keys");
        found.map_or_else(|| Identity::Unknown(unknown()), Identity::Key)
    }

    /// The name of whoever calls, for logs; a dash where nobody is known.
    pub(super) fn actor(&self, identity: &Identity) -> &str {
        match identity {
            Identity::Local => LOCAL,
            Identity::Key(at) => self.0.get(*at).map_or("-", |key| &key.actor),
            Identity::Unknown(_) => "-",
        }
    }

    fn allow(&self, identity: &Identity, scope: Scope) -> Result<Arc<str>, Problem> {
        match identity {
            Identity::Local => Ok(LOCAL.into()),
            Identity::Key(at) => match self.0.get(*at) {
                Some(key) if key.opens(scope) => Ok(Arc::clone(&key.actor)),
                _ => Err(Problem::new(
                    Kind::Forbidden,
                    format!("the key does not have the scope {scope}"),
                    "use another key, or add the scope to this one in api.keys",
                )),
            },
            Identity::Unknown(problem) => Err(problem.clone()),
        }
    }
}

impl SecretHash {
    fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl<N: Needs> FromRequestParts<Arc<App>> for Caller<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let unknown = || Identity::Unknown(Problem::fault());
        let identity = parts.extensions.get::<Identity>().cloned().unwrap_or_else(unknown);
        Ok(Self { actor: app.keys.allow(&identity, N::SCOPE)?, needs: PhantomData })
    }
}

fn unauthenticated(detail: &'static str, remedy: &'static str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail, remedy)
}

/// The secret of `Bearer SECRET`; the scheme's name may be in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(7)?;
    let secret = secret.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !secret.is_empty()).then_some(secret)
}

/// Without keys whoever reaches the address may call; but a page in this machine's browser must not
/// make it do so, neither across origins nor through a name that it made point here.
fn local(headers: &HeaderMap) -> Identity {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST);
    let own = |origin: &str| host.is_some_and(|host| origin.strip_prefix("http://") == Some(host));
    let foreign_host = host.is_some_and(|host| !is_loopback(host));
    let foreign_origin = headers.contains_key(header::ORIGIN) && !text(header::ORIGIN).is_some_and(own);
    if foreign_host || foreign_origin {
        return Identity::Unknown(Problem::new(
            Kind::Forbidden,
            "without keys the API answers programs on this machine only, not web pages or other names",
            "call it as http://127.0.0.1 or http://localhost, or configure api.keys",
        ));
    }
    Identity::Local
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
mod tests {
    use super::*;

    fn keys() -> Keys {
        let key =
            |name, secret: &str, scopes: &[Scope]| Key::new(name, &Secret::new(secret), scopes.to_vec());
        Keys::new(vec![
            key("billing", "secret of billing", &[Scope::MessagesWrite]),
            key("support", "secret of support", &[Scope::Admin]),
        ])
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_opens_its_scopes_and_no_others() {
        let keys = keys();
        for (secret, scope, actor) in [
            ("Bearer secret of billing", Scope::MessagesWrite, Some("billing")),
            ("bearer  secret of billing", Scope::MessagesWrite, Some("billing")),
            ("Bearer secret of billing", Scope::InboxRead, None),
            ("Bearer secret of support", Scope::InboxRead, Some("support")),
            ("Bearer secret of support", Scope::Metrics, Some("support")),
            ("Bearer secret of nobody", Scope::MessagesWrite, None),
            ("Bearer ", Scope::MessagesWrite, None),
            ("Basic c2VjcmV0", Scope::MessagesWrite, None),
            ("B", Scope::MessagesWrite, None),
        ] {
            let identity = keys.identify(&headers(&[("authorization", secret)]));
            let allowed = keys.allow(&identity, scope).ok();
            assert_eq!(allowed.as_deref(), actor, "{secret} {scope}");
        }
    }

    #[test]
    fn without_keys_programs_may_do_everything_and_pages_nothing() {
        let keys = Keys::default();
        for (list, allowed) in [
            (&[][..], true),
            (&[("host", "127.0.0.1:8080")][..], true),
            (&[("host", "localhost:8080")][..], true),
            (&[("host", "[::1]:8080")][..], true),
            (&[("host", "ledger.evil.example:8080")][..], false),
            (&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")][..], false),
            (&[("host", "127.0.0.1:8080"), ("origin", "null")][..], false),
            (&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")][..], true),
        ] {
            let identity = keys.identify(&headers(list));
            assert_eq!(keys.allow(&identity, Scope::Admin).is_ok(), allowed, "{list:?}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let shown = format!("{:?}", keys());
        assert!(!shown.contains("secret of"), "{shown}");
    }

    #[test]
    fn a_scope_is_written_as_it_is_read() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::from_value::<Scope>(scope.as_str().into()).unwrap(), scope);
        }
    }
}
