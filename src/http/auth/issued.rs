//! Keys that are made and revoked while the service runs, and how they are written.
//!
//! `nl_live_` + 12 characters that name the key + `_` + 43 that are secret + 6 of a checksum, all of the 62
//! letters and digits. The beginning lets scanners of secrets find a key that was committed; the checksum lets
//! a mistyped one be refused before the database is asked. The database has the hash of the whole: of 256
//! random bits, so that a slow hash would protect nothing.
//!
//! What a process has looked up it believes for [`KEPT`], found or not: so long a revoked key may live on. For
//! streams that are open it believes it for less, since they ask from time to time only.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Grant, Scope};
use crate::{
    clock::Timestamp,
    secret::Secret,
    store::{ApiKey, Store, StoreError},
};

/// What every key begins with.
pub const PREFIX: &str = "nl_live_";
const ID_LEN: usize = 12;
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How long what was looked up is believed.
pub const KEPT: Duration = Duration::from_secs(10);
/// How long it is believed for the streams that are open by it: so that they end, asked every few seconds, while
/// what was looked up for a request would be believed.
pub(super) const WATCHED: Duration = Duration::from_secs(5);
/// More than so many keys are not remembered.
const KEPT_MAX: usize = 10_000;
/// How often it is written which keys were used.
const NOTED_EVERY: Duration = Duration::from_mins(1);

/// The keys in the database, as far as this process has asked for them.
#[derive(Debug)]
pub struct Issued {
    store: Store,
    known: Mutex<Known>,
    /// Held by the one stream that asks for all.
    asking: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<String, (Timestamp, Option<Arc<Held>>)>,
    /// Whether there is any key, and since when that is known; once there is, there always is.
    any: Option<(Timestamp, bool)>,
    /// Used since that was last written.
    used: HashMap<String, Timestamp>,
}

#[derive(Debug)]
struct Held {
    hash: Vec<u8>,
    grant: Arc<Grant>,
    expires_at: Option<Timestamp>,
    is_revoked: bool,
}

/// Why a text that begins like a key is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAKey {
    #[error("the key is mistyped or cut off: its checksum is wrong")]
    Mistyped,
    #[error("no such key")]
    Unknown,
    #[error("the key has expired, at {0}")]
    Expired(Timestamp),
    #[error("the key was revoked")]
    Revoked,
}

impl NotAKey {
    /// What the caller can do about it.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::Mistyped => "copy the whole key once more",
            Self::Unknown => {
                "use a key of this ledger; `notification-ledger keys list` shows those there are"
            }
            Self::Expired(_) | Self::Revoked => "make another with `notification-ledger keys create`",
        }
    }
}

/// Makes a key for whom the log is to call `name`: what the database keeps, and the key itself, which
/// nobody can show again.
///
/// # Errors
/// When the system gives no random bytes.
pub fn issue(
    name: &str,
    scopes: &[Scope],
    by: &str,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(ApiKey, Secret), &'static str> {
    let key_id = random(ID_LEN)?;
    let text = with_checksum(format!("{PREFIX}{key_id}_{}", random(SECRET_LEN)?));
    let key = ApiKey {
        key_id,
        name: name.to_owned(),
        hash: hex::encode(Sha256::digest(&text)),
        scopes: scopes.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(" "),
        created_at: now,
        created_by: by.to_owned(),
        expires_at,
        last_used_at: None,
        revoked: None,
    };
    Ok((key, Secret::new(text)))
}

impl Issued {
    /// The keys of this ledger; asks for none yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, known: Mutex::default(), asking: AsyncMutex::default() }
    }

    /// Whether a key was ever made; that there is none is believed for [`KEPT`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn any(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.any_within(KEPT, now).await
    }

    async fn any_within(&self, kept: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let is_known = |(since, any): &(Timestamp, bool)| *any || is_fresh(*since, kept, now);
        if let Some((_, any)) = self.known().any.filter(is_known) {
            return Ok(any);
        }
        let any = self.store.has_api_keys().await?;
        self.known().any = Some((now, any));
        Ok(any)
    }

    /// What the holder of this key may do.
    pub(super) async fn find(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Result<Arc<Grant>, NotAKey>, StoreError> {
        let Some(key_id) = key_id(text) else { return Ok(Err(NotAKey::Mistyped)) };
        let Some(held) = self.look_up(key_id, KEPT, now).await? else { return Ok(Err(NotAKey::Unknown)) };
        let hash: [u8; 32] = Sha256::digest(text).into();
        Ok(if !bool::from(hash[..].ct_eq(&held.hash)) {
            Err(NotAKey::Unknown)
        } else if let Err(why) = held.is_good(now) {
            Err(why)
        } else {
            let mut known = self.known();
            // Looked for first, so that nothing is allocated for a key that is noted already.
            if let Some(at) = known.used.get_mut(key_id) {
                *at = now;
            } else {
                known.used.insert(key_id.to_owned(), now);
            }
            Ok(Arc::clone(&held.grant))
        })
    }

    /// Whether the key of this id is taken still, asked for a stream.
    pub(super) async fn is_good(&self, key_id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let _alone = self.asking.lock().await;
        let held = self.look_up(key_id, WATCHED, now).await?;
        Ok(held.is_some_and(|it| it.is_good(now).is_ok()))
    }

    /// Whether no key was made still, asked for a stream.
    pub(super) async fn is_none_yet(&self, now: Timestamp) -> Result<bool, StoreError> {
        let _alone = self.asking.lock().await;
        Ok(!self.any_within(WATCHED, now).await?)
    }

    async fn look_up(
        &self,
        key_id: &str,
        kept: Duration,
        now: Timestamp,
    ) -> Result<Option<Arc<Held>>, StoreError> {
        let is_known = |(since, _): &&(Timestamp, _)| is_fresh(*since, kept, now);
        if let Some((_, held)) = self.known().keys.get(key_id).filter(is_known) {
            return Ok(held.clone());
        }
        let held = self.store.api_key(key_id).await?.map(|key| Arc::new(Held::of(&key)));
        let mut known = self.known();
        if known.keys.len() >= KEPT_MAX {
            known.keys.retain(|_, (since, _)| is_fresh(*since, KEPT, now));
            // Somebody guesses: whoever has a key is looked up again.
            if known.keys.len() >= KEPT_MAX {
                known.keys.clear();
            }
        }
        known.keys.insert(key_id.to_owned(), (now, held.clone()));
        Ok(held)
    }

    /// Writes down from time to time, and at the end, which keys were used.
    pub async fn note_uses(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = interval(NOTED_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.note().await;
        }
        self.note().await;
    }

    /// Writes down which keys were used, and when.
    pub(in crate::http) async fn note(&self) {
        let used: Vec<_> = mem::take(&mut self.known().used).into_iter().collect();
        if used.is_empty() {
            return;
        }
        if let Err(error) = self.store.touch_api_keys(&used).await {
            tracing::debug!(error = %error, keys = used.len(), "it could not be noted that keys were used");
            let mut known = self.known();
            for (key_id, at) in used {
                known.used.entry(key_id).or_insert(at); // Used meanwhile: that is later.
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn of(key: &ApiKey) -> Self {
        // A scope of a later release opens nothing here.
        let scope = |word: &str| Scope::ALL.into_iter().find(|it| it.as_str() == word);
        let scopes = key.scopes.split(' ').filter_map(scope).collect();
        Self {
            hash: hex::decode(&key.hash).unwrap_or_default(),
            grant: Arc::new(Grant {
                actor: key.name.as_str().into(),
                // No name of the configuration's begins so.
                key: format!("{PREFIX}{}", key.key_id).into(),
                scopes,
            }),
            expires_at: key.expires_at,
            is_revoked: key.revoked.is_some(),
        }
    }

    fn is_good(&self, now: Timestamp) -> Result<(), NotAKey> {
        match self.expires_at {
            _ if self.is_revoked => Err(NotAKey::Revoked),
            Some(at) if at <= now => Err(NotAKey::Expired(at)),
            _ => Ok(()),
        }
    }
}

/// A clock that was put back makes nothing young.
fn is_fresh(since: Timestamp, kept: Duration, now: Timestamp) -> bool {
    since <= now && now.since(since) < kept
}

/// The public part of a key whose checksum is right.
fn key_id(text: &str) -> Option<&str> {
    let is_digit = |it: u8| it.is_ascii_alphanumeric();
    let rest = text.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_once('_')?;
    let is_whole = id.len() == ID_LEN && secret.len() == SECRET_LEN + CHECKSUM_LEN;
    if !is_whole || !id.bytes().chain(secret.bytes()).all(is_digit) {
        return None;
    }
    let front = &text[..text.len() - CHECKSUM_LEN];
    (with_checksum(front.to_owned()) == text).then_some(id)
}

fn with_checksum(mut text: String) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    text.extend(digits.map(char::from));
    text
}

/// So many digits, each as likely as any other.
fn random(len: usize) -> Result<String, &'static str> {
    let mut text = String::with_capacity(len);
    let mut bytes = [0; 64];
    while text.len() < len {
        rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes")?;
        // 248 is four times 62: what lies above would make the first digits likelier.
        let fair = bytes.iter().filter(|it| **it < 248).map(|it| char::from(DIGITS[usize::from(it % 62)]));
        text.extend(fair.take(len - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000)
    }

    fn made() -> (ApiKey, String) {
        let (key, secret) =
            issue("billing", &[Scope::MessagesWrite, Scope::InboxRead], "me", now(), None).unwrap();
        (key, secret.expose().to_owned())
    }

    #[test]
    fn a_key_is_written_in_one_way() {
        let (key, text) = made();
        assert_eq!((text.len(), key_id(&text)), (8 + 12 + 1 + 43 + 6, Some(key.key_id.as_str())));
        assert_eq!(key.scopes, "messages:write inbox:read");
        assert_eq!(key.hash, hex::encode(Sha256::digest(&text)));
        assert!(!format!("{key:?}").contains(&text[21..]), "nothing keeps the key");
        assert_ne!(made().1, text);
        let known =
            with_checksum("nl_live_000000000000_0000000000000000000000000000000000000000000".to_owned());
        assert_eq!(&known[64..], "0FjfDJ", "whoever scans for keys relies on the checksum");
    }

    #[test]
    fn a_slip_of_the_pen_is_found_without_the_database() {
        let text = made().1;
        for at in PREFIX.len()..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(key_id(std::str::from_utf8(&other).unwrap()), None, "{at}");
        }
        for wrong in ["", "nl_live_", &text[..text.len() - 1], &text[1..], &format!("{text}0"), "nl_live_ä_ä"]
        {
            assert_eq!(key_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_clock_that_was_put_back_keeps_nothing_alive() {
        let is_fresh = |at| is_fresh(now(), KEPT, at);
        assert!(is_fresh(now()) && is_fresh(now().plus(Duration::from_millis(9999))));
        assert!(!is_fresh(now().plus(KEPT)) && !is_fresh(now().minus(Duration::from_secs(1))));
    }
}
