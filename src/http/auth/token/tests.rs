//! Every way in which a token can be wrong, and the few in which it is right.

use jsonwebtoken::{EncodingKey, crypto::sign};
use serde_json::json;

use super::{
    super::issuer::{Issuer, SECRET, claims, message, rules},
    *,
};

const BOTH: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T09:00:00Z").unwrap()
}

fn at(seconds: i64) -> i64 {
    now().as_micros() / 1_000_000 + seconds
}

fn published() -> KeySet {
    KeySet::parse(Issuer::get().set().as_bytes(), &BOTH).unwrap()
}

fn judged(token: &str, keys: &KeySet, rules: &Rules) -> Result<String, Refused> {
    user(token, keys, rules, now()).map(|it| it.recipient.as_str().to_owned())
}

#[test]
fn claims_are_all_there_and_all_right() {
    let (keys, rules) = (published(), rules(&BOTH));
    let user = || Ok("user-1".to_owned());
    for (changed, expected) in [
        (json!({}), user()),
        (json!({ "aud": ["other", "ledger"] }), user()),
        (json!({ "nbf": at(30) }), user()),
        (json!({ "exp": at(-29) }), user()),
        (json!({ "exp": 1_900_000_000.5 }), user()),
        (json!({ "iat": null }), user()),
        (json!({ "sub": "user-2" }), Ok("user-2".to_owned())),
        (json!({ "exp": at(-30) }), Err(Refused::Expired)),
        (json!({ "exp": at(-3600) }), Err(Refused::Expired)),
        (json!({ "exp": null }), Err(Refused::Missing(Claim::Exp))),
        (json!({ "exp": "1900000000" }), Err(Refused::Unreadable(Claim::Exp))),
        (json!({ "nbf": at(31) }), Err(Refused::NotYet)),
        (json!({ "nbf": "soon" }), Err(Refused::Unreadable(Claim::Nbf))),
        (json!({ "iat": at(31) }), Err(Refused::NotYet)),
        (json!({ "iss": "https://login.example/" }), Err(Refused::Issuer)),
        (json!({ "iss": ["https://login.example"] }), Err(Refused::Issuer)),
        (json!({ "iss": null }), Err(Refused::Missing(Claim::Iss))),
        (json!({ "aud": "ledgers" }), Err(Refused::Audience)),
        (json!({ "aud": [] }), Err(Refused::Audience)),
        (json!({ "aud": { "ledger": true } }), Err(Refused::Audience)),
        (json!({ "aud": null }), Err(Refused::Missing(Claim::Aud))),
        (json!({ "sub": null }), Err(Refused::Missing(Claim::Recipient))),
        (json!({ "sub": 42 }), Err(Refused::Unreadable(Claim::Recipient))),
        (json!({ "sub": "" }), Err(Refused::Unreadable(Claim::Recipient))),
        (json!({ "sub": " user-1" }), Err(Refused::Unreadable(Claim::Recipient))),
        (json!({ "sub": "user\n1" }), Err(Refused::Unreadable(Claim::Recipient))),
    ] {
        for (kid, algorithm) in [("rsa", Algorithm::RS256), ("ec", Algorithm::ES256)] {
            let token = Issuer::get().token(Some(kid), algorithm, &claims(now(), &changed));
            assert_eq!(judged(&token, &keys, &rules), expected, "{kid} {changed}");
        }
    }
}

#[test]
fn the_recipient_stands_in_the_claim_that_is_configured() {
    let rules = Rules { recipient_claim: "https://app.example/id".to_owned(), ..rules(&BOTH) };
    let claims = claims(now(), &json!({ "https://app.example/id": "user-7" }));
    let token = Issuer::get().token(Some("ec"), Algorithm::ES256, &claims);
    assert_eq!(judged(&token, &published(), &rules).unwrap(), "user-7");
}

#[test]
fn only_a_signature_of_a_known_key_by_a_named_algorithm_counts() {
    let (issuer, good) = (Issuer::get(), claims(now(), &json!({})));
    let signed = |header: Value, key: &EncodingKey, algorithm| {
        let message = message(&header, &good);
        format!("{message}.{}", sign(message.as_bytes(), key, algorithm).unwrap())
    };
    let rsa = issuer.key(Algorithm::RS256);
    let with_rsa = |header| signed(header, &rsa, Algorithm::RS256);
    let stranger = EncodingKey::from_ec_pem(crate::provider::double::ec_key().pem.as_bytes()).unwrap();
    let public = EncodingKey::from_secret(&issuer.rsa.public);
    let right = issuer.token(Some("rsa"), Algorithm::RS256, &good);
    let (front, _) = right.rsplit_once('.').unwrap();
    let other =
        message(&json!({ "alg": "RS256", "kid": "rsa" }), &claims(now(), &json!({ "sub": "user-2" })));
    let (_, signature) = right.rsplit_once('.').unwrap();
    for (what, token, expected) in [
        ("no signature", format!("{}.", message(&json!({ "alg": "none" }), &good)), Refused::Algorithm),
        ("None", format!("{}.", message(&json!({ "alg": "None", "kid": "rsa" }), &good)), Refused::Algorithm),
        (
            "the public key as a secret",
            signed(json!({ "alg": "HS256", "kid": "rsa" }), &public, Algorithm::HS256),
            Refused::Algorithm,
        ),
        (
            "an algorithm not named",
            signed(json!({ "alg": "RS512", "kid": "rsa" }), &rsa, Algorithm::RS512),
            Refused::Algorithm,
        ),
        ("a key of another kind", with_rsa(json!({ "alg": "RS256", "kid": "ec" })), Refused::Algorithm),
        ("no name", with_rsa(json!({ "alg": "RS256" })), Refused::KeyUnnamed),
        ("an unknown name", with_rsa(json!({ "alg": "RS256", "kid": "old" })), Refused::KeyUnknown),
        ("crit", with_rsa(json!({ "alg": "RS256", "kid": "rsa", "crit": ["exp"] })), Refused::Extension),
        (
            "a stranger",
            signed(json!({ "alg": "ES256", "kid": "ec" }), &stranger, Algorithm::ES256),
            Refused::Signature,
        ),
        (
            "a key that the token brings",
            signed(
                json!({ "alg": "ES256", "kid": "ec", "jku": "https://evil.example", "jwk": { "kty": "EC" } }),
                &stranger,
                Algorithm::ES256,
            ),
            Refused::Signature,
        ),
        ("cut off", format!("{front}."), Refused::Signature),
        ("exchanged claims", format!("{other}.{signature}"), Refused::Signature),
        ("two parts", front.to_owned(), Refused::NotAToken),
        ("four parts", format!("{right}.x"), Refused::NotAToken),
        ("padded", format!("{right}="), Refused::Signature),
        ("no JSON", format!("e30x.{front}"), Refused::NotAToken),
        ("too long", format!("{}.a.b", "a".repeat(TOKEN_MAX)), Refused::NotAToken),
    ] {
        assert_eq!(judged(&token, &published(), &rules(&BOTH)), Err(expected), "{what}");
    }
    assert!(judged(&right, &published(), &rules(&BOTH)).is_ok());
}

#[test]
fn a_shared_secret_signs_by_its_own_algorithm_only() {
    let (keys, rules) = (KeySet::symmetric(SECRET), rules(&[Algorithm::HS256]));
    let (issuer, good) = (Issuer::get(), claims(now(), &json!({})));
    for kid in [None, Some("any")] {
        assert!(judged(&issuer.token(kid, Algorithm::HS256, &good), &keys, &rules).is_ok());
    }
    let other = message(&json!({ "alg": "HS256" }), &good);
    let other = format!(
        "{other}.{}",
        sign(other.as_bytes(), &EncodingKey::from_secret(b"x"), Algorithm::HS256).unwrap()
    );
    assert_eq!(judged(&other, &keys, &rules), Err(Refused::Signature));
    assert_eq!(judged(&issuer.token(None, Algorithm::RS256, &good), &keys, &rules), Err(Refused::Algorithm));
}

#[test]
fn keys_are_used_for_what_they_are_published_for() {
    let (issuer, good) = (Issuer::get(), claims(now(), &json!({})));
    let rsa = |changed| issuer.jwk(Algorithm::RS256, &changed);
    for (what, jwk, usable) in [
        ("as it is", rsa(json!({})), true),
        ("without alg", rsa(json!({ "alg": null })), true),
        ("for signatures", rsa(json!({ "use": "sig", "key_ops": ["verify"] })), true),
        ("for encryption", rsa(json!({ "use": "enc" })), false),
        ("not to verify", rsa(json!({ "key_ops": ["encrypt"] })), false),
        ("for another algorithm", rsa(json!({ "alg": "RS512" })), false),
        ("for an unknown algorithm", rsa(json!({ "alg": "XS1" })), false),
        ("a secret", json!({ "kty": "oct", "k": "c2VjcmV0" }), false),
        ("of an unknown kind", json!({ "kty": "XYZ" }), false),
        ("not a key", json!("key"), false),
    ] {
        let set = json!({ "keys": [jwk] }).to_string();
        let keys = KeySet::parse(set.as_bytes(), &BOTH).unwrap();
        assert_eq!(keys.len(), usize::from(usable), "{what}");
        for kid in [None, Some("any")] {
            let judged = judged(&issuer.token(kid, Algorithm::RS256, &good), &keys, &rules(&BOTH));
            let expected = if usable { Ok("user-1".to_owned()) } else { Err(Refused::KeyUnknown) };
            assert_eq!(judged, expected, "{what}");
        }
    }
    assert!(KeySet::parse(b"{}", &BOTH).is_none());
    assert!(KeySet::parse(b"<html>", &BOTH).is_none());
    let many = json!({ "keys": vec![rsa(json!({})); KEYS_MAX + 1] }).to_string();
    assert_eq!(KeySet::parse(many.as_bytes(), &BOTH).unwrap().len(), KEYS_MAX);
}
