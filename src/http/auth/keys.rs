//! Static service keys: the configuration names them and refers to their secrets.
//!
//! Only hashes of the secrets are kept, and every one of them is compared in constant time.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Grant, Scope};
use crate::secret::Secret;

/// One caller's key.
#[derive(Debug, Clone)]
pub struct Key {
    grant: Arc<Grant>,
    hash: SecretHash,
}

/// All keys.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct SecretHash([u8; 32]);

impl Key {
    /// A key for the caller that the log is to call `name`.
    #[must_use]
    pub fn new(name: &str, secret: &Secret, scopes: Vec<Scope>) -> Self {
        let grant = Arc::new(Grant { actor: name.into(), key: name.into(), scopes });
        Self { grant, hash: SecretHash::of(secret.expose().as_bytes()) }
    }
}

impl Keys {
    /// These and no others.
    #[must_use]
    pub const fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the holder of this secret may do.
    pub(super) fn find(&self, secret: &[u8]) -> Option<Arc<Grant>> {
        let hash = SecretHash::of(secret);
        // No early end: how long this takes does not tell which key came near.
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.hash.matches(&hash)) {
                found = Some(Arc::clone(&key.grant));
            }
        }
        found
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
