//! Encrypting a push for one browser: RFC 8291, in one record of RFC 8188.
//!
//! Pure but for the key and the salt, which come in and must be new for every push.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};

use crate::message::subscription::{P256DH_BYTES, Subscription};

/// Most bytes of a text: services take 4096 of the whole body.
pub(super) const TEXT_MAX: usize = 3993;
pub(super) const SALT_BYTES: usize = 16;

const RECORD_BYTES: u32 = 4096;
/// What follows the last byte of the last record.
const LAST: u8 = 2;

/// So many bytes of a derived key.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// The body of the call; nothing where the browser's key is no point of the curve.
pub(super) fn encrypt(
    text: &[u8],
    to: &Subscription,
    ours: &PrivateKey,
    salt: [u8; SALT_BYTES],
) -> Option<Vec<u8>> {
    let public = ours.compute_public_key().ok()?;
    let public: &[u8; P256DH_BYTES] = public.as_ref().try_into().ok()?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, &to.p256dh[..]);
    let secret =
        agree(ours, theirs, (), |shared| Ok(Salt::new(HKDF_SHA256, &to.auth).extract(shared))).ok()?;
    let input: [u8; 32] = derive(&secret, &[b"WebPush: info\0", &to.p256dh, public])?;
    let secret = Salt::new(HKDF_SHA256, &salt).extract(&input);
    let key: [u8; 16] = derive(&secret, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce: [u8; 12] = derive(&secret, &[b"Content-Encoding: nonce\0"])?;

    let mut record = [text, &[LAST]].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record).ok()?;
    let key_bytes = u8::try_from(public.len()).ok()?;
    Some([&salt[..], &RECORD_BYTES.to_be_bytes(), &[key_bytes], public, &record].concat())
}

fn derive<const N: usize>(secret: &Prk, info: &[&[u8]]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    secret.expand(info, Bytes(N)).ok()?.fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    fn bytes(base64: &str) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(base64).unwrap()
    }

    pub(in super::super) const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    pub(in super::super) const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const BROWSER: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
    const OURS: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";

    fn browser() -> Subscription {
        let keys = json!({ "p256dh": P256DH, "auth": AUTH });
        Subscription::parse(&json!({ "endpoint": "https://push.example.net/1", "keys": keys })).unwrap()
    }

    fn private(base64: &str) -> PrivateKey {
        PrivateKey::from_private_key(&ECDH_P256, &bytes(base64)).unwrap()
    }

    /// What the browser of RFC 8291, appendix A, reads in a body.
    pub(in super::super) fn decrypt(body: &[u8]) -> Vec<u8> {
        let (salt, rest) = body.split_at(SALT_BYTES);
        assert_eq!(rest[..5], [0, 0, 0x10, 0, 65]);
        let (theirs, record) = rest[5..].split_at(P256DH_BYTES);
        let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
        let auth = Salt::new(HKDF_SHA256, &bytes(AUTH));
        let secret = agree(&private(BROWSER), peer, (), |shared| Ok(auth.extract(shared))).unwrap();
        let input: [u8; 32] = derive(&secret, &[b"WebPush: info\0", &bytes(P256DH), theirs]).unwrap();
        let secret = Salt::new(HKDF_SHA256, salt).extract(&input);
        let key: [u8; 16] = derive(&secret, &[b"Content-Encoding: aes128gcm\0"]).unwrap();
        let nonce: [u8; 12] = derive(&secret, &[b"Content-Encoding: nonce\0"]).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut record = record.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = key.open_in_place(nonce, Aad::empty(), &mut record).unwrap();
        let (last, text) = text.split_last().unwrap();
        assert_eq!(*last, LAST);
        text.to_vec()
    }

    #[test]
    fn the_example_of_rfc_8291_comes_out_byte_for_byte() {
        let text = b"When I grow up, I want to be a watermelon";
        let salt = bytes(SALT).try_into().unwrap();
        let body = encrypt(text, &browser(), &private(OURS), salt).unwrap();
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD.encode(&body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6\
             TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4\
             a-fN"
        );
        assert_eq!(decrypt(&body), text);
    }

    #[test]
    fn the_longest_text_fills_a_body_of_4096_bytes() {
        let text = vec![b'x'; TEXT_MAX];
        let body = encrypt(&text, &browser(), &private(OURS), [7; SALT_BYTES]).unwrap();
        assert_eq!((body.len(), decrypt(&body)), (4096, text));
    }

    #[test]
    fn a_key_off_the_curve_gets_nothing() {
        let mut to = browser();
        to.p256dh[64] ^= 1;
        assert_eq!(encrypt(b"text", &to, &private(OURS), [7; SALT_BYTES]), None);
    }
}
