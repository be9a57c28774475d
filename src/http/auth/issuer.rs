//! An app's login for tests: it signs tokens, right ones and wrong ones, and publishes its keys.

use std::sync::OnceLock;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto::sign, jwk::Jwk};
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    http::auth::Rules,
    provider::double::{Key, ec_key, rsa_key},
};

/// A secret of the least length.
pub(in crate::http) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// What signs.
pub(in crate::http) struct Issuer {
    pub(in crate::http) rsa: Key,
    pub(in crate::http) ec: Key,
}

impl Issuer {
    /// The one of all tests: making keys takes a while.
    pub(in crate::http) fn get() -> &'static Self {
        static ISSUER: OnceLock<Issuer> = OnceLock::new();
        ISSUER.get_or_init(|| Self { rsa: rsa_key(), ec: ec_key() })
    }

    pub(in crate::http) fn key(&self, algorithm: Algorithm) -> EncodingKey {
        match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(self.ec.pem.as_bytes()).unwrap(),
            Algorithm::HS256 => EncodingKey::from_secret(SECRET),
            _ => EncodingKey::from_rsa_pem(self.rsa.pem.as_bytes()).unwrap(),
        }
    }

    /// The published form of a key, with these members changed.
    pub(in crate::http) fn jwk(&self, algorithm: Algorithm, changed: &Value) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key(algorithm), algorithm).unwrap();
        merged(serde_json::to_value(jwk).unwrap(), changed)
    }

    /// The set of an ordinary login: two keys with names.
    pub(in crate::http) fn set(&self) -> String {
        let rsa = self.jwk(Algorithm::RS256, &json!({ "kid": "rsa", "use": "sig" }));
        let ec = self.jwk(Algorithm::ES256, &json!({ "kid": "ec" }));
        json!({ "keys": [rsa, ec] }).to_string()
    }

    /// A token with a right signature over these claims.
    pub(in crate::http) fn token(&self, kid: Option<&str>, algorithm: Algorithm, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        let header = serde_json::to_value(header).unwrap();
        let message = message(&header, claims);
        let signature = sign(message.as_bytes(), &self.key(algorithm), algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// What is signed.
pub(in crate::http) fn message(header: &Value, claims: &Value) -> String {
    let part = |it: &Value| BASE64_URL_SAFE_NO_PAD.encode(it.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// The claims of a good token, with these changed; null removes one.
pub(in crate::http) fn claims(now: Timestamp, changed: &Value) -> Value {
    let now = now.as_micros() / 1_000_000;
    let good = json!({
        "iss": "https://login.example", "aud": "ledger", "sub": "user-1", "iat": now, "exp": now + 300,
    });
    merged(good, changed)
}

/// Rules that such tokens keep.
pub(in crate::http) fn rules(algorithms: &[Algorithm]) -> Rules {
    Rules {
        issuer: "https://login.example".to_owned(),
        audience: "ledger".to_owned(),
        algorithms: algorithms.to_vec(),
        recipient_claim: "sub".to_owned(),
        leeway: std::time::Duration::from_secs(30),
    }
}

fn merged(mut value: Value, changed: &Value) -> Value {
    let map = value.as_object_mut().unwrap();
    for (name, value) in changed.as_object().unwrap() {
        if value.is_null() {
            map.remove(name)
        } else {
            map.insert(name.clone(), value.clone())
        };
    }
    value
}
