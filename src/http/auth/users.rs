//! The users of an app: their tokens, and the keys these are signed with, which are somewhere else.
//!
//! Keys are fetched when the first token comes and again from time to time, by one task of the process, so
//! that however many ask there is one fetch, and whoever hangs up does not cut it off. A token with an
//! unknown key asks for another fetch, but not more often than [`Pace::pause`] allows. What was fetched
//! before is kept when a fetch fails: an issuer that is down locks nobody out.

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{Client, Url};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::token::{self, KeySet, Refused, Rules, User};
use crate::clock::Timestamp;

/// A fetch takes no longer.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// A request waits no longer for a fetch.
const WAIT_MAX: Duration = Duration::from_secs(6);
/// Larger sets of keys are not read, in bytes.
const SET_MAX: usize = 256 * 1024;
/// While there are no keys at all: how often they are looked for.
pub(super) const RETRY_S: u32 = 5;

/// Whoever has a token of the app's login.
#[derive(Debug)]
pub struct Users {
    rules: Rules,
    pace: Pace,
    known: watch::Receiver<Known>,
    wanted: Arc<Notify>,
}

/// Where keys come from that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A JWK Set at this address.
    Url(Url),
    /// A JWK Set in this file.
    File(PathBuf),
}

/// The task that fetches the keys.
pub struct Fetching<S> {
    source: S,
    pace: Pace,
    known: watch::Sender<Known>,
    wanted: Arc<Notify>,
}

/// Where a set of keys is read.
pub trait Source: Send {
    /// The set that there is now; none where it is still the one of last time.
    fn fetch(&mut self) -> impl Future<Output = Result<Option<KeySet>, FetchError>> + Send;
}

/// A set of keys and where it is.
#[derive(Debug)]
pub struct Published {
    place: Place,
    rules: Rules,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    File(#[source] io::Error),
    /// The address does not answer.
    #[error("the address does not answer")]
    Http(#[source] reqwest::Error),
    /// It answers, but not with a set.
    #[error("the address answers {0}")]
    Status(u16),
    /// Larger than any set of keys.
    #[error("there are more than {SET_MAX} bytes")]
    TooLong,
    /// It is something else, or has no key that is of use.
    #[error("there is no key in it that signs by an algorithm of api.users.algorithms")]
    NoKeys,
    /// It took too long.
    #[error("it took longer than {} s", FETCH_MAX.as_secs())]
    Late,
}

/// Why it is not known whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKnown {
    /// The token is not taken.
    Refused(Refused),
    /// There are no keys to judge it by.
    NoKeys,
}

/// How often keys are fetched.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// By itself.
    refresh: Duration,
    /// Not sooner again, whoever asks.
    pause: Duration,
}

#[derive(Debug, Default, Clone)]
struct Known {
    keys: Option<Arc<KeySet>>,
    /// When the last fetch ended, well or not.
    ended: Option<Instant>,
}

#[derive(Debug)]
enum Place {
    Url(Client, Url),
    File(PathBuf, Option<SystemTime>),
}

impl Users {
    /// Whose tokens are signed with a secret that the issuer shares.
    #[must_use]
    pub fn with_secret(rules: Rules, secret: &[u8]) -> Self {
        let known = Known { keys: Some(Arc::new(KeySet::symmetric(secret))), ended: None };
        Self { rules, pace: Pace::SLOW, known: watch::channel(known).1, wanted: Arc::default() }
    }

    /// Whose tokens are signed with published keys; the task fetches them.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn with_keys_at(rules: Rules, origin: Origin) -> reqwest::Result<(Self, Fetching<Published>)> {
        let (source, pace) = match origin {
            Origin::Url(url) => (Place::Url(client(&url)?, url), Pace::SLOW),
            Origin::File(path) => (Place::File(path, None), Pace::QUICK),
        };
        Ok(Self::with_keys_of(rules.clone(), Published { place: source, rules }, pace))
    }

    fn with_keys_of<S: Source>(rules: Rules, source: S, pace: Pace) -> (Self, Fetching<S>) {
        let (sender, known) = watch::channel(Known::default());
        let wanted = Arc::<Notify>::default();
        let fetching = Fetching { source, pace, known: sender, wanted: Arc::clone(&wanted) };
        (Self { rules, pace, known, wanted }, fetching)
    }

    /// Whose token it is.
    pub(super) async fn user(&self, token: &str, now: Timestamp) -> Result<User, NotKnown> {
        let mut known = self.known.borrow().clone();
        if known.keys.is_none() {
            known = self.fetched_after(known).await;
        }
        let judge = |keys: &KeySet| token::user(token, keys, &self.rules, now);
        let keys = known.keys.clone().ok_or(NotKnown::NoKeys)?;
        match judge(&keys) {
            Err(Refused::KeyUnknown) => {
                let newer = self.fetched_after(known).await.keys.ok_or(NotKnown::NoKeys)?;
                if Arc::ptr_eq(&newer, &keys) { Err(Refused::KeyUnknown) } else { judge(&newer) }
            }
            judged => judged,
        }
        .map_err(NotKnown::Refused)
    }

    /// What is known after the next fetch, or still, where it is too soon for one.
    async fn fetched_after(&self, before: Known) -> Known {
        if self.pace.next(&before).is_some_and(|it| it > Instant::now()) {
            return before;
        }
        let mut receiver = self.known.clone();
        self.wanted.notify_one();
        let news = receiver.wait_for(|it| it.ended > before.ended);
        match timeout(WAIT_MAX, news).await {
            Ok(Ok(known)) => known.clone(),
            // Nobody fetches, or not in time.
            _ => before,
        }
    }
}

impl Pace {
    /// For what is far away.
    const SLOW: Self = Self { refresh: Duration::from_mins(10), pause: Duration::from_mins(1) };
    /// For what is near.
    const QUICK: Self = Self { refresh: Duration::from_secs(10), pause: Duration::from_secs(10) };

    /// The earliest time for a fetch; none for at once.
    fn next(self, known: &Known) -> Option<Instant> {
        let retry = Duration::from_secs(RETRY_S.into());
        let pause = if known.keys.is_some() { self.pause } else { retry };
        known.ended.map(|it| it + pause)
    }
}

impl<S: Source> Fetching<S> {
    /// Fetches keys when they are wanted for the first time, and from then on from time to time.
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.fetch_for_ever()).await;
    }

    async fn fetch_for_ever(&mut self) {
        self.wanted.notified().await;
        loop {
            let fetched = timeout(FETCH_MAX, self.source.fetch()).await.unwrap_or(Err(FetchError::Late));
            let failed = fetched.is_err();
            self.known.send_modify(|known| {
                match fetched {
                    Ok(Some(keys)) => {
                        tracing::debug!(keys = keys.len(), "the keys of users' tokens were read");
                        known.keys = Some(Arc::new(keys));
                    }
                    Ok(None) => {}
                    Err(error) => tell(&error, known.keys.is_some()),
                }
                known.ended = Some(Instant::now());
            });
            let now = Instant::now();
            let earliest = self.pace.next(&self.known.borrow()).unwrap_or(now);
            let by_itself = if failed { earliest } else { now + self.pace.refresh };
            sleep_until(earliest).await;
            tokio::select! {
                () = sleep_until(by_itself) => {}
                () = self.wanted.notified() => {}
            }
        }
    }
}

impl<S> fmt::Debug for Fetching<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Source for Published {
    async fn fetch(&mut self) -> Result<Option<KeySet>, FetchError> {
        let (json, modified) = match &self.place {
            Place::Url(client, url) => (get(client, url).await?, None),
            Place::File(path, known) => {
                let metadata = tokio::fs::metadata(path).await.map_err(FetchError::File)?;
                let modified = metadata.modified().ok();
                if modified.is_some() && modified == *known {
                    return Ok(None);
                }
                if metadata.len() > SET_MAX as u64 {
                    return Err(FetchError::TooLong);
                }
                (tokio::fs::read(path).await.map_err(FetchError::File)?, modified)
            }
        };
        let keys = KeySet::parse(&json, &self.rules.algorithms).filter(|it| it.len() > 0);
        let keys = keys.ok_or(FetchError::NoKeys)?;
        if let Place::File(_, known) = &mut self.place {
            *known = modified;
        }
        Ok(Some(keys))
    }
}

/// No redirects and no proxy of the environment: keys come from where the configuration says.
fn client(url: &Url) -> reqwest::Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!("notification-ledger/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(FETCH_MAX)
        .pool_max_idle_per_host(0);
    // Plain HTTP needs no root certificates, and must work on a machine that has none.
    if url.scheme() == "http" { builder.tls_certs_only([]).build() } else { builder.build() }
}

async fn get(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let http = |error: reqwest::Error| FetchError::Http(error.without_url());
    let mut response = client.get(url.clone()).send().await.map_err(http)?;
    if response.status().as_u16() != 200 {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http)? {
        if body.len() + chunk.len() > SET_MAX {
            return Err(FetchError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn tell(error: &FetchError, are_known: bool) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    if are_known {
        tracing::warn!(%error, source, "the keys of users' tokens cannot be read; those that are known stay");
    } else {
        tracing::error!(%error, source, "the keys of users' tokens cannot be read; no user can be let in");
    }
}

#[cfg(test)]
mod tests;
