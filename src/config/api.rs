//! `[api]`: where the HTTP API listens and who may call it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use axum::http::HeaderValue;
use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::{
    problem::Problem,
    users::Users,
    value::{at_least_one, list, millis, within},
};
use crate::{
    http::Pages,
    http::auth::{self, Key, Keys, Rate, Scope},
    secret::{Secret, SecretRef},
};

/// Shorter secrets can be guessed.
const SECRET_MIN: usize = 16;

/// More requests a second, or at once, are no limit.
const RATE_MAX: u64 = 1_000_000;

/// `[api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where to listen.
    #[serde(deserialize_with = "address")]
    pub bind: SocketAddr,
    /// How long a request may take.
    #[serde(rename = "request_timeout_ms", deserialize_with = "millis")]
    pub request_timeout: Duration,
    /// How long a request body may be.
    pub body_limit_bytes: usize,
    /// How long a read waits for the projection to reach the cursor it names.
    #[serde(rename = "wait_for_projection_ms", deserialize_with = "millis")]
    pub wait_for_projection: Duration,
    /// How many inboxes may be streamed at once.
    pub streams_max: usize,
    /// Who may call.
    #[serde(default, deserialize_with = "list")]
    pub keys: Vec<ApiKey>,
    /// Whose tokens open the inbox of their own.
    pub users: Users,
    /// How much each caller may ask for.
    pub limits: Limits,
    /// Which web pages may read answers.
    pub cors: Cors,
}

/// `[api.cors]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins of pages, or `*` for all.
    #[serde(deserialize_with = "list")]
    pub origins: Vec<String>,
}

impl Cors {
    /// The pages, as the API needs them.
    #[must_use]
    pub fn pages(&self) -> Pages {
        if self.origins.is_empty() {
            return Pages::Own;
        }
        if self.origins.iter().any(|it| it == "*") {
            return Pages::Any;
        }
        Pages::Of(self.origins.iter().filter_map(|it| HeaderValue::from_str(it).ok()).collect())
    }

    fn validate(&self) -> Vec<Problem> {
        let is_origin = |text: &str| {
            let Ok(url) = Url::parse(text) else { return false };
            let port = url.port().map_or(String::new(), |it| format!(":{it}"));
            let host = url.host_str().unwrap_or_default();
            !text.contains('*') && format!("{}://{host}{port}", url.scheme()) == text
        };
        let mut problems = Vec::new();
        for (i, origin) in self.origins.iter().enumerate() {
            if origin != "*" && !is_origin(origin) {
                problems.push(Problem::new(
                    format!("api.cors.origins[{i}]"),
                    format!("is {origin:?}, no origin of a web page"),
                    "write scheme, host and port as a browser does, with nothing behind: https://app.example",
                ));
            }
        }
        if self.origins.len() > 1 && self.origins.iter().any(|it| it == "*") {
            problems.push(Problem::new(
                "api.cors.origins",
                "names * beside other origins, which it has in it",
                "name * alone, or the origins alone",
            ));
        }
        problems
    }
}

/// `[api.limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests a second of the holder of one key; 0: as many as there are.
    pub key_per_s: u32,
    /// And at once.
    pub key_burst: u32,
    /// Requests a second of one user; 0: as many as there are.
    pub user_per_s: u32,
    /// And at once.
    pub user_burst: u32,
}

impl Limits {
    fn validate(self) -> Vec<Problem> {
        let pairs = [("key", self.key_per_s, self.key_burst), ("user", self.user_per_s, self.user_burst)];
        let wrong = |(name, per_s, burst): (&str, u32, u32)| {
            let rate = within(format!("api.limits.{name}_per_s"), per_s.into(), 0..=RATE_MAX);
            let least = u64::from(per_s != 0);
            rate.or_else(|| within(format!("api.limits.{name}_burst"), burst.into(), least..=RATE_MAX))
        };
        pairs.into_iter().filter_map(wrong).collect()
    }

    /// As the API counts.
    #[must_use]
    pub fn build(self) -> auth::Limits {
        let key = Rate { per_s: self.key_per_s, burst: self.key_burst };
        auth::Limits::new(key, Rate { per_s: self.user_per_s, burst: self.user_burst })
    }
}

/// `[[api.keys]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Who calls with it; stands in the log as the actor.
    pub name: String,
    /// Where the secret stands.
    pub secret: SecretRef,
    /// What it opens.
    #[serde(deserialize_with = "list")]
    pub scopes: Vec<Scope>,
}

impl Api {
    /// Whether only this machine can reach the API.
    pub fn is_loopback(&self) -> bool {
        self.bind.ip().to_canonical().is_loopback()
    }

    /// Whether anybody is let in by a key or a token, so that others are not.
    pub const fn has_callers(&self) -> bool {
        !self.keys.is_empty() || self.users.is_set()
    }

    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.users.validate();
        problems.extend(self.limits.validate());
        problems.extend(self.cors.validate());
        problems.extend(at_least_one("api.request_timeout_ms", self.request_timeout));
        problems.extend(within("api.body_limit_bytes", self.body_limit_bytes as u64, 1024..=256 << 20));
        problems.extend(within("api.streams_max", self.streams_max as u64, 1..=1_000_000));
        if self.wait_for_projection >= self.request_timeout {
            problems.push(Problem::new(
                "api.wait_for_projection_ms",
                "is not shorter than api.request_timeout_ms, which would end the request first",
                "make it shorter",
            ));
        }
        let mut names = BTreeSet::new();
        for (i, key) in self.keys.iter().enumerate() {
            if key.name.is_empty() {
                problems.push(Problem::new(
                    format!("api.keys[{i}].name"),
                    "is empty",
                    "name the caller; the name stands in the log",
                ));
            } else if !names.insert(&key.name) {
                problems.push(Problem::new(
                    format!("api.keys[{i}].name"),
                    format!("is {:?}, like another key's", key.name),
                    "give every key a name of its own",
                ));
            }
            if key.scopes.is_empty() {
                problems.push(Problem::new(
                    format!("api.keys[{i}].scopes"),
                    "is empty, so that the key opens nothing",
                    "give it at least one scope, for example messages:write",
                ));
            }
        }
        problems
    }

    /// Reads every secret: the keys as the API needs them.
    ///
    /// # Errors
    /// When secrets cannot be read, or could be guessed; all of them are named.
    pub fn read_keys(&self) -> Result<Keys, Vec<Problem>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (i, key) in self.keys.iter().enumerate() {
            match key.read_secret(&format!("api.keys[{i}]")) {
                Ok(secret) => keys.push(Key::new(&key.name, &secret, key.scopes.clone())),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(Keys::new(keys)) } else { Err(problems) }
    }
}

impl ApiKey {
    /// Reads the secret.
    ///
    /// # Errors
    /// When it cannot be read, or could be guessed; `key` is where the key stands: `api.keys[0]`.
    pub fn read_secret(&self, key: &str) -> Result<Secret, Problem> {
        let key = format!("{key}.secret");
        let secret = self.secret.read().map_err(|it| Problem::new(&key, it.to_string(), it.remedy()))?;
        if secret.expose().chars().count() < SECRET_MIN {
            return Err(Problem::new(
                key,
                format!(
                    "is {}, which holds fewer than {SECRET_MIN} characters and could be guessed",
                    self.secret
                ),
                "put a longer one there, for example from openssl rand -hex 32",
            ));
        }
        Ok(secret)
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let near = text
            .strip_prefix("localhost:")
            .map_or("127.0.0.1:8080".to_owned(), |port| format!("127.0.0.1:{port}"));
        de::Error::custom(format!(
            "is {text:?}, not an address and a port; write for example {near} or [::1]:8080"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_origin_is_named() {
        for (origins, wrong) in [
            (&[][..], 0),
            (&["*"], 0),
            (&["https://app.example", "http://localhost:3000", "capacitor://localhost"], 0),
            (&["https://app.example/"], 1),
            (&["app.example", "null", "https://*.app.example", "https://app.example:443"], 4),
            (&["*", "https://app.example"], 1),
        ] {
            let cors = Cors { origins: origins.iter().map(|&it| it.to_owned()).collect() };
            assert_eq!(cors.validate().len(), wrong, "{origins:?}: {:?}", cors.validate());
        }
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "qwertz").unwrap();
        let secret = SecretRef::File(path);
        let key = ApiKey { name: "a".into(), secret, scopes: vec![] };
        let problem = key.read_secret("api.keys[0]").unwrap_err().to_string();
        assert!(problem.starts_with("api.keys[0].secret is file:"), "{problem}");
        assert!(problem.contains("could be guessed") && !problem.contains("qwertz"), "{problem}");
    }
}
