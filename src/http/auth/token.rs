//! A user's token (a JWT by RFC 7519) read and judged: pure, by rules and keys and a time that come in.
//!
//! The libraries' own validation is not used: it takes the time from the machine and lets claims be absent.
//! From `jsonwebtoken` comes the comparison of a signature, for one algorithm and one key that were chosen
//! here. Nothing a token says leads anywhere: `jku`, `x5u`, `jwk` and `x5c` are not read.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    crypto::verify,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{clock::Timestamp, id::RecipientId};

/// Longer texts are no tokens.
const TOKEN_MAX: usize = 16 * 1024;
/// More keys of a set are not looked at.
const KEYS_MAX: usize = 100;

/// What a token has to say to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who made it: its `iss`.
    pub issuer: String,
    /// Whom it is for: one of its `aud`.
    pub audience: String,
    /// How it may be signed; all of them symmetric, or none.
    pub algorithms: Vec<Algorithm>,
    /// The claim that holds the recipient.
    pub recipient_claim: String,
    /// By how much clocks may differ.
    pub leeway: Duration,
}

/// The keys that tokens are signed with.
#[derive(Clone, Default)]
pub struct KeySet(Vec<Signer>);

#[derive(Clone)]
struct Signer {
    id: Option<String>,
    /// The algorithms it may be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a token is not taken; its own words are not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the token is not a signed JWT")]
    NotAToken,
    #[error("the token is signed by an algorithm that is not in api.users.algorithms")]
    Algorithm,
    #[error("the token asks for an extension that is not understood (crit)")]
    Extension,
    #[error("the token does not name its key (kid), and there are several")]
    KeyUnnamed,
    #[error("the token is signed with a key that is not known")]
    KeyUnknown,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token has no {0}")]
    Missing(Claim),
    #[error("the token's {0} cannot be read")]
    Unreadable(Claim),
}

/// A claim that the answer may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Exp,
    Nbf,
    Iat,
    Iss,
    Aud,
    Recipient,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) recipient: RecipientId,
    /// From then on the token is not taken any more.
    pub(super) until: Timestamp,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Refused {
    /// What the caller can do about it.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::NotAToken => "send Authorization: Bearer TOKEN with a signed JWT of the app's login",
            Self::Expired => "get a new token from the app's login",
            Self::NotYet => "compare the clocks of the issuer and of this service",
            Self::Missing(Claim::Recipient) | Self::Unreadable(Claim::Recipient) => {
                "have the issuer put the recipient into the claim that api.users.recipient_claim names"
            }
            _ => "send a token of the issuer that api.users names, made for this API",
        }
    }
}

impl KeySet {
    /// One secret that both sides have.
    #[must_use]
    pub fn symmetric(secret: &[u8]) -> Self {
        let (id, algorithms) = (None, vec![Algorithm::HS256]);
        Self(vec![Signer { id, algorithms, key: DecodingKey::from_secret(secret) }])
    }

    /// The keys of a JWK Set (RFC 7517) that sign by one of these algorithms; others are passed over, as are
    /// symmetric ones, which have no place in a set that is published.
    pub(super) fn parse(json: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        let signer = |it: &Value| Signer::of(&Jwk::deserialize(it).ok()?, algorithms);
        Some(Self(keys.iter().take(KEYS_MAX).filter_map(signer).collect()))
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The one key that this token must be signed with.
    fn choose(&self, header: &Header, algorithm: Algorithm) -> Result<&Signer, Refused> {
        let signer = match (&header.kid, self.0.as_slice()) {
            // A key without a name is as good as one of any name where it is the only one.
            (None, [only]) | (Some(_), [only @ Signer { id: None, .. }]) => only,
            (None, []) => return Err(Refused::KeyUnknown),
            (None, _) => return Err(Refused::KeyUnnamed),
            (Some(id), keys) => {
                let named = |it: &&Signer| it.id.as_ref() == Some(id);
                // A name may stand for keys of several kinds.
                let mut fit = keys.iter().filter(named).filter(|it| it.algorithms.contains(&algorithm));
                match fit.next() {
                    Some(signer) => signer,
                    None if keys.iter().any(|it| named(&it)) => return Err(Refused::Algorithm),
                    None => return Err(Refused::KeyUnknown),
                }
            }
        };
        if signer.algorithms.contains(&algorithm) { Ok(signer) } else { Err(Refused::Algorithm) }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.0.len())
    }
}

impl Signer {
    fn of(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|it| it.contains(&KeyOperations::Verify));
        let family = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
            AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P256 => AlgorithmFamily::Ec,
            _ => return None,
        };
        let own = |it: &&Algorithm| common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(**it));
        let algorithms: Vec<_> =
            algorithms.iter().filter(|it| it.family() == family).filter(own).copied().collect();
        let key = DecodingKey::from_jwk(jwk).ok()?;
        (signs && !algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, key })
    }
}

/// Whose token it is, if it is signed by one of the keys and keeps all rules.
///
/// # Errors
/// The first thing that is wrong with it. Before the signature was found right that is about the signature.
pub(super) fn user(token: &str, keys: &KeySet, rules: &Rules, now: Timestamp) -> Result<User, Refused> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refused::NotAToken);
    };
    if token.len() > TOKEN_MAX {
        return Err(Refused::NotAToken);
    }
    let message = &token[..header.len() + 1 + claims.len()];
    let header: Header = decoded(header)?;
    let algorithm = rules.algorithms.iter().find(|it| name(**it) == Some(header.alg.as_str()));
    let algorithm = *algorithm.ok_or(Refused::Algorithm)?;
    if header.crit.is_some() {
        return Err(Refused::Extension);
    }
    let signer = keys.choose(&header, algorithm)?;
    let is_right = verify(signature, message.as_bytes(), &signer.key, algorithm);
    if !is_right.unwrap_or(false) {
        return Err(Refused::Signature);
    }
    judge(&decoded(claims)?, rules, now)
}

/// Whose the claims of a token with a right signature are.
fn judge(claims: &Map<String, Value>, rules: &Rules, now: Timestamp) -> Result<User, Refused> {
    let (latest, earliest) = (secs(now.plus(rules.leeway)), secs(now.minus(rules.leeway)));
    let issuer = claims.get("iss").ok_or(Refused::Missing(Claim::Iss))?;
    if issuer.as_str() != Some(rules.issuer.as_str()) {
        return Err(Refused::Issuer);
    }
    let is_ours = |it: &Value| it.as_str() == Some(rules.audience.as_str());
    match claims.get("aud").ok_or(Refused::Missing(Claim::Aud))? {
        Value::Array(list) if list.iter().any(is_ours) => {}
        Value::Array(_) => return Err(Refused::Audience),
        one if is_ours(one) => {}
        _ => return Err(Refused::Audience),
    }
    let expiry = time(claims, "exp", Claim::Exp)?.ok_or(Refused::Missing(Claim::Exp))?;
    if expiry <= earliest {
        return Err(Refused::Expired);
    }
    for (name, claim) in [("nbf", Claim::Nbf), ("iat", Claim::Iat)] {
        if time(claims, name, claim)?.is_some_and(|it| it > latest) {
            return Err(Refused::NotYet);
        }
    }
    let recipient = claims.get(&rules.recipient_claim).ok_or(Refused::Missing(Claim::Recipient))?;
    let recipient = recipient.as_str().and_then(|it| RecipientId::new(it).ok());
    let recipient = recipient.ok_or(Refused::Unreadable(Claim::Recipient))?;
    #[expect(clippy::cast_possible_truncation, reason = "what is out of range is at its end")]
    let until = Timestamp::from_micros((expiry * 1e6) as i64).plus(rules.leeway);
    Ok(User { recipient, until })
}

/// A claim that is a time: seconds since 1970, perhaps with a fraction.
fn time(claims: &Map<String, Value>, name: &str, claim: Claim) -> Result<Option<f64>, Refused> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    value.as_f64().map(Some).ok_or(Refused::Unreadable(claim))
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of this age need 51 bits")]
fn secs(time: Timestamp) -> f64 {
    time.as_micros() as f64 / 1e6
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Refused> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::NotAToken)?;
    serde_json::from_slice(&json).map_err(|_| Refused::NotAToken)
}

/// As the header of a token writes it; none for what is never taken.
pub(crate) const fn name(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::HS256 => Some("HS256"),
        Algorithm::RS256 => Some("RS256"),
        Algorithm::ES256 => Some("ES256"),
        _ => None,
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exp => "expiry (exp)",
            Self::Nbf => "beginning (nbf)",
            Self::Iat => "time of issue (iat)",
            Self::Iss => "issuer (iss)",
            Self::Aud => "audience (aud)",
            Self::Recipient => "recipient",
        })
    }
}

#[cfg(test)]
mod tests;
