//! `[api.users]`: whose tokens open the inbox of their own.

use std::{path::PathBuf, time::Duration};

use jsonwebtoken::Algorithm;
use reqwest::Url;
use serde::{Deserialize, Deserializer, de};

use super::{
    problem::Problem,
    value::{list, non_empty, seconds, within},
};
use crate::{
    http::auth::{Fetching, Origin, Published, Rules, Users as Callers},
    secret::{Secret, SecretRef},
};

/// Shorter secrets can be guessed; RFC 7518 asks for as much.
const SECRET_MIN_BYTES: usize = 32;
/// Clocks that differ by more are wrong.
const LEEWAY_MAX_S: u64 = 60;

/// `[api.users]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// Who makes the tokens; without it none is taken.
    #[serde(deserialize_with = "non_empty")]
    pub issuer: Option<String>,
    /// Whom they are for.
    #[serde(deserialize_with = "non_empty")]
    pub audience: Option<String>,
    /// How they may be signed.
    #[serde(deserialize_with = "list")]
    pub algorithms: Vec<Signature>,
    /// Where the keys are published.
    #[serde(deserialize_with = "non_empty")]
    pub jwks_url: Option<String>,
    /// The file with the keys.
    #[serde(deserialize_with = "non_empty")]
    pub jwks_file: Option<PathBuf>,
    /// Where the secret stands that the issuer shares.
    #[serde(deserialize_with = "reference")]
    pub secret: Option<SecretRef>,
    /// The claim that holds the recipient.
    pub recipient_claim: String,
    /// By how much clocks may differ.
    #[serde(rename = "leeway_s", deserialize_with = "seconds")]
    pub leeway: Duration,
}

/// How tokens may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Signature {
    /// HMAC with SHA-256: a secret that both sides have.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

impl Users {
    /// Whether users' tokens are taken.
    pub const fn is_set(&self) -> bool {
        self.issuer.is_some()
    }

    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, problem: &str, remedy: &str| {
            problems.push(Problem::new(format!("api.users.{key}"), problem, remedy));
        };
        let places = [
            ("jwks_url", self.jwks_url.is_some()),
            ("jwks_file", self.jwks_file.is_some()),
            ("secret", self.secret.is_some()),
        ];
        let set: Vec<_> = places.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key).collect();
        if !self.is_set() {
            if self.audience.is_some() || !set.is_empty() {
                wrong(
                    "issuer",
                    "is not set, so that no user's token is taken",
                    "name who makes the tokens (their iss), or remove the rest of api.users",
                );
            }
            return problems;
        }
        if self.audience.is_none() {
            wrong(
                "audience",
                "is not set",
                "name whom the tokens are for (their aud), so that no other counts",
            );
        }
        if self.recipient_claim.is_empty() {
            wrong("recipient_claim", "is empty", "name the claim that holds the recipient, for example sub");
        }
        match set.as_slice() {
            [] => wrong(
                "jwks_url",
                "is not set, and neither is jwks_file nor secret, so that no signature can be judged",
                "say where the issuer's keys are, with one of the three",
            ),
            [_] => {}
            [_, second, ..] => {
                wrong(
                    second,
                    "is set beside another source of keys",
                    "keep one of jwks_url, jwks_file and secret",
                );
            }
        }
        if let Some(url) = &self.jwks_url
            && let Err((problem, remedy)) = address(url)
        {
            wrong("jwks_url", problem, remedy);
        }
        let symmetric = |it: &Signature| *it == Signature::Hs256;
        let has_secret = self.secret.is_some();
        if self.algorithms.is_empty() {
            wrong(
                "algorithms",
                "is empty, so that no token is taken",
                "name how the issuer signs, for example RS256",
            );
        } else if !self.algorithms.iter().all(|it| symmetric(it) == has_secret) {
            let (problem, remedy) = if has_secret {
                (
                    "holds another algorithm than HS256, the only one that signs with a secret",
                    "write [\"HS256\"]",
                )
            } else {
                ("holds HS256, which signs with a secret, beside keys that are published", "remove HS256")
            };
            wrong("algorithms", problem, remedy);
        }
        problems.extend(within("api.users.leeway_s", self.leeway.as_secs(), 0..=LEEWAY_MAX_S));
        problems
    }

    /// Reads the shared secret, where there is one.
    ///
    /// # Errors
    /// When it cannot be read, or could be guessed.
    pub fn read_secret(&self) -> Result<Option<Secret>, Problem> {
        let Some(reference) = self.secret.as_ref().filter(|_| self.is_set()) else { return Ok(None) };
        let key = "api.users.secret";
        let secret = reference.read().map_err(|it| Problem::new(key, it.to_string(), it.remedy()))?;
        if secret.expose().len() < SECRET_MIN_BYTES {
            return Err(Problem::new(
                key,
                format!(
                    "is {reference}, which holds fewer than {SECRET_MIN_BYTES} bytes and could be guessed"
                ),
                "put a longer one there and at the issuer, for example from openssl rand -hex 32",
            ));
        }
        Ok(Some(secret))
    }

    /// The users as the API needs them, and the task that fetches their keys; none where no token is taken.
    ///
    /// # Errors
    /// When the secret cannot be used, or TLS cannot be set up.
    pub fn build(&self) -> Result<(Option<Callers>, Option<Fetching<Published>>), Problem> {
        let (Some(issuer), Some(audience)) = (self.issuer.clone(), self.audience.clone()) else {
            return Ok((None, None));
        };
        let rules = Rules {
            issuer,
            audience,
            algorithms: self.algorithms.iter().map(|it| it.algorithm()).collect(),
            recipient_claim: self.recipient_claim.clone(),
            leeway: self.leeway,
        };
        if let Some(secret) = self.read_secret()? {
            return Ok((Some(Callers::with_secret(rules, secret.expose().as_bytes())), None));
        }
        let unusable =
            |problem: String, remedy: &'static str| Problem::new("api.users.jwks_url", problem, remedy);
        let origin = match (&self.jwks_file, &self.jwks_url) {
            (Some(path), _) => Origin::File(path.clone()),
            (None, Some(url)) => {
                Origin::Url(address(url).map_err(|(problem, remedy)| unusable(problem.to_owned(), remedy))?)
            }
            (None, None) => return Ok((None, None)),
        };
        let built = Callers::with_keys_at(rules, origin);
        let (users, fetching) = built.map_err(|error| {
            unusable(format!("cannot be called: {error}"), "install the root certificates of this machine")
        })?;
        Ok((Some(users), Some(fetching)))
    }
}

impl Signature {
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
        }
    }
}

/// Whoever can change the keys on their way can be every user: HTTPS, or this machine.
fn address(text: &str) -> Result<Url, (&'static str, &'static str)> {
    let url = Url::parse(text).map_err(|_| ("is no address", "write it as https://HOST/PATH"))?;
    let is_local = url.host_str().is_some_and(|it| matches!(it, "127.0.0.1" | "[::1]" | "localhost"));
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_local => Ok(url),
        "http" => Err(("is not encrypted, so that keys could be exchanged on their way", "use https")),
        _ => Err(("is no address on the web", "write it as https://HOST/PATH")),
    }
}

fn reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretRef>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}
