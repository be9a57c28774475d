//! Saying who pushes, to push services: VAPID (RFC 8292).
//!
//! A token is signed for each service, by its origin, and used again for half a day: signing is the
//! dearest part of a push after its encryption.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::json;

use crate::clock::Timestamp;

/// How long a token is used.
const USED: Duration = Duration::from_hours(12);
/// How long it holds: services take at most 24 hours, by clocks of their own.
const HOLDS: Duration = Duration::from_hours(23);
/// Most services that tokens are kept for. Names of hosts come from devices, so there could be any number.
const KEPT_MAX: usize = 64;

/// Who pushes.
pub(super) struct Vapid {
    pair: EcdsaKeyPair,
    /// The key that browsers subscribe with, as base64url.
    public: String,
    subject: String,
    tokens: Mutex<HashMap<String, (Timestamp, String)>>,
}

impl fmt::Debug for Vapid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vapid({}, {})", self.public, self.subject)
    }
}

impl Vapid {
    /// From a private key on P-256: 32 bytes as base64url, or PEM. Nothing where it is neither.
    pub(super) fn new(key: &str, subject: String) -> Option<Self> {
        let pair = if key.contains("-----BEGIN") {
            let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
            EcdsaKeyPair::from_private_key_der(alg, &pem(key)?).ok()?
        } else {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(key.trim().trim_end_matches('=')).ok()?;
            let private = PrivateKey::from_private_key(&ECDH_P256, &bytes).ok()?;
            let public = private.compute_public_key().ok()?;
            let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
            EcdsaKeyPair::from_private_key_and_public_key(alg, &bytes, public.as_ref()).ok()?
        };
        let public = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Some(Self { pair, public, subject, tokens: Mutex::default() })
    }

    /// The key that browsers subscribe with (`applicationServerKey`), as base64url.
    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// The token for the service at this origin; nothing where no signature can be made.
    pub(super) fn token(&self, origin: &str, now: Timestamp) -> Option<String> {
        // Whoever panicked here left whole entries behind.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, token)) = tokens.get(origin)
            && *made <= now
            && now.since(*made) < USED
        {
            return Some(token.clone());
        }
        let token = self.sign(origin, now)?;
        if tokens.len() >= KEPT_MAX {
            tokens.clear();
        }
        tokens.insert(origin.to_owned(), (now, token.clone()));
        Some(token)
    }

    /// The value of `Authorization` with this token.
    pub(super) fn authorization(&self, token: &str) -> String {
        format!("vapid t={token}, k={}", self.public)
    }

    fn sign(&self, origin: &str, now: Timestamp) -> Option<String> {
        let expires = now.plus(HOLDS).as_micros().div_euclid(1_000_000);
        let header = json!({ "typ": "JWT", "alg": "ES256" }).to_string();
        let claims = json!({ "aud": origin, "exp": expires, "sub": self.subject }).to_string();
        let signed = [header, claims].map(|it| BASE64_URL_SAFE_NO_PAD.encode(it)).join(".");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The bytes of the first private key in a PEM text.
fn pem(text: &str) -> Option<Vec<u8>> {
    let block = |label: &str| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
        let (base64, _) = rest.split_once(&format!("-----END {label}-----"))?;
        Some(base64.split_whitespace().collect::<String>())
    };
    BASE64_STANDARD.decode(block("PRIVATE KEY").or_else(|| block("EC PRIVATE KEY"))?).ok()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
    use serde_json::Value;

    use super::*;

    /// The keys of RFC 8292 are not given; these are those of RFC 8291's sender.
    const KEY: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    const PUBLIC: &str =
        "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";

    fn vapid() -> Vapid {
        Vapid::new(KEY, "mailto:ops@example.com".into()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_token_is_for_one_service_and_holds_less_than_a_day() {
        let vapid = vapid();
        let now = at("2026-11-23T08:00:00Z");
        let token = vapid.token("https://push.example.net", now).unwrap();
        let point = BASE64_URL_SAFE_NO_PAD.decode(PUBLIC).unwrap();
        let [x, y] = [&point[1..33], &point[33..]].map(|it| BASE64_URL_SAFE_NO_PAD.encode(it));
        let mut rules = Validation::new(Algorithm::ES256);
        rules.validate_exp = false;
        rules.set_audience(&["https://push.example.net"]);
        let key = DecodingKey::from_ec_components(&x, &y).unwrap();
        let claims = decode::<Value>(&token, &key, &rules).unwrap().claims;
        assert_eq!(claims["sub"], "mailto:ops@example.com");
        let holds = claims["exp"].as_i64().unwrap() - now.as_micros() / 1_000_000;
        assert!((12 * 3600..=24 * 3600).contains(&holds), "{holds}");
        assert_eq!(decode_header(&token).unwrap().typ.as_deref(), Some("JWT"));
        assert_eq!(vapid.authorization(&token), format!("vapid t={token}, k={PUBLIC}"));
        assert_eq!(format!("{vapid:?}"), format!("Vapid({PUBLIC}, mailto:ops@example.com)"));
    }

    #[test]
    fn a_token_is_used_for_half_a_day_and_only_for_its_service() {
        let vapid = vapid();
        let token = |origin: &str, now: &str| vapid.token(origin, at(now)).unwrap();
        let first = token("https://a.example", "2026-11-23T08:00:00Z");
        assert_eq!(token("https://a.example", "2026-11-23T19:59:59Z"), first);
        assert_ne!(token("https://b.example", "2026-11-23T08:00:00Z"), first);
        assert_ne!(token("https://a.example", "2026-11-23T20:00:00Z"), first);
        // A clock that was set back: the token would hold for too long.
        let later = token("https://a.example", "2026-11-23T20:00:00Z");
        assert_ne!(token("https://a.example", "2026-11-23T08:00:00Z"), later);
    }

    #[test]
    fn tokens_are_kept_for_so_many_services_and_no_more() {
        let vapid = vapid();
        for number in 0..1_000 {
            vapid.token(&format!("https://{number}.example"), Timestamp::from_micros(0)).unwrap();
        }
        assert!(vapid.tokens.lock().unwrap().len() <= KEPT_MAX);
    }

    #[test]
    fn a_key_is_read_as_bytes_and_as_pem() {
        let pair = &vapid().pair;
        let wrapped = |label: &str, der: &[u8]| {
            let base64 = BASE64_STANDARD.encode(der);
            let (first, rest) = base64.split_at(64);
            format!("-----BEGIN {label}-----\n{first}\n{rest}\n-----END {label}-----\n")
        };
        let pkcs8 = wrapped("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
        let sec1 = {
            use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
            let private =
                PrivateKey::from_private_key(&ECDH_P256, &BASE64_URL_SAFE_NO_PAD.decode(KEY).unwrap());
            let der: EcPrivateKeyRfc5915Der<'_> = private.unwrap().as_der().unwrap();
            wrapped("EC PRIVATE KEY", der.as_ref())
        };
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for key in [KEY.to_owned(), format!("{KEY}=\n"), pkcs8, sec1.clone(), format!("{parameters}{sec1}")] {
            let vapid = Vapid::new(&key, "https://example.com/".into()).unwrap();
            assert_eq!(vapid.public(), PUBLIC);
        }
        for key in
            ["", "AAAA", "not base64", PUBLIC, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
        {
            assert!(Vapid::new(key, String::new()).is_none(), "{key}");
        }
        let zero = BASE64_URL_SAFE_NO_PAD.encode([0; 32]);
        assert!(Vapid::new(&zero, String::new()).is_none());
    }
}
