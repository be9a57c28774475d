//! Google's access tokens: a signed assertion of the service account is exchanged for one, which is shared
//! by all pushes and renewed before it ends. Whoever comes while it is fetched waits for the same answer.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Url, header::HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    clock::{Clock, Timestamp},
    event::FailureClass,
    provider::{
        Failure, Parts,
        exchange::{Answer, Protocol, client, exchange},
        mask::Mask,
        rule::{Class, by_status},
        vendor::Vendor,
    },
    secret::Secret,
};

/// Whom an assertion is for, wherever it is sent: as Google's own libraries have it.
const AUDIENCE: &str = "https://oauth2.googleapis.com/token";
/// What a token may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An assertion is good for this long; Google takes no more than an hour.
const ASSERTION_SECS: i64 = 3600;
/// A token is renewed this long before it ends.
const EARLY: Duration = Duration::from_mins(5);
/// After a renewal that failed, the token that is still good is used for this long before another try.
const RENEW_PAUSE: Duration = Duration::from_secs(15);
/// How long a token is good where the answer does not say, and at most.
const GOOD_SECS: u64 = 3600;

/// A service account, as its JSON key file has it.
pub(super) struct Account {
    pub(super) project: Option<String>,
    email: String,
    key_id: Option<String>,
    key: EncodingKey,
    url: Url,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.email)
    }
}

#[derive(Deserialize)]
struct KeyFile {
    project_id: Option<String>,
    client_email: String,
    private_key_id: Option<String>,
    private_key: String,
    token_uri: Option<String>,
}

impl Account {
    /// Reads a key file. What is wrong reads on after the key of the settings, and repeats nothing of it.
    pub(super) fn parse(json: &str) -> Result<Self, &'static str> {
        let wrong = "refers to something that is no JSON with client_email and private_key";
        let file: KeyFile = serde_json::from_str(json).map_err(|_| wrong)?;
        let key = EncodingKey::from_rsa_pem(file.private_key.as_bytes())
            .map_err(|_| "refers to JSON whose private_key is no RSA key in PEM")?;
        let url = Url::parse(file.token_uri.as_deref().unwrap_or(AUDIENCE)).ok();
        let url = url.filter(|it| matches!(it.scheme(), "http" | "https") && it.has_host());
        Ok(Self {
            project: file.project_id,
            email: file.client_email,
            key_id: file.private_key_id,
            key,
            url: url.ok_or("refers to JSON whose token_uri is no address that can be called")?,
        })
    }

    /// What proves to Google who asks.
    fn assertion(&self, now: Timestamp) -> jsonwebtoken::errors::Result<String> {
        let issued = now.as_micros() / 1_000_000;
        let header = Header { kid: self.key_id.clone(), ..Header::new(Algorithm::RS256) };
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": AUDIENCE, "iat": issued, "exp": issued + ASSERTION_SECS,
        });
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}

/// An access token.
#[derive(Debug)]
pub(super) struct Token {
    /// `Bearer …`, ready to send; not shown.
    pub(super) header: HeaderValue,
    pub(super) secret: Secret,
    /// Since when we have it.
    pub(super) since: Timestamp,
    /// When the next one is fetched.
    renew_at: Timestamp,
    until: Timestamp,
}

/// The access token of one service account, and how to get the next.
#[derive(Debug)]
pub(super) struct Tokens {
    account: Account,
    client: Client,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    /// Held by the one that fetches.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    token: Option<Arc<Token>>,
    /// How the last exchange failed, if it did.
    failure: Option<Failure>,
    /// How many exchanges have ended.
    ended: u64,
    /// No renewal of a token that is still good before this.
    renew_from: Timestamp,
}

impl Known {
    fn good(&self, now: Timestamp) -> Option<Arc<Token>> {
        self.token.clone().filter(|it| it.until > now)
    }
}

impl Tokens {
    /// Of this account; fetches nothing yet.
    pub(super) fn new(account: Account, parts: Parts) -> reqwest::Result<Self> {
        let plain = account.url.scheme() == "http";
        // Half of a push's time, so that the push itself still has some.
        let client = client(parts.timeout / 2, 1, Protocol::Any, plain)?;
        let clock = parts.clock;
        Ok(Self { account, client, clock, known: Mutex::default(), flight: tokio::sync::Mutex::default() })
    }

    /// The token to use now.
    ///
    /// # Errors
    /// What the push came to that cannot be sent without one.
    pub(super) async fn token(&self) -> Result<Arc<Token>, Failure> {
        let now = self.clock.now();
        let (good, ended, renew_from) = {
            let known = self.known();
            (known.good(now), known.ended, known.renew_from)
        };
        let _flight = match good {
            Some(token) if now < token.renew_at.max(renew_from) => return Ok(token),
            // Whoever renews it, nobody has to wait for that while this one is good.
            Some(token) => match self.flight.try_lock() {
                Ok(flight) => flight,
                Err(_) => return Ok(token),
            },
            None => self.flight.lock().await,
        };
        {
            let known = self.known();
            // Another one asked meanwhile: its answer is ours.
            match (known.ended == ended, known.good(now), &known.failure) {
                (false, Some(token), _) => return Ok(token),
                (false, None, Some(failure)) => return Err(failure.clone()),
                _ => {}
            }
        }
        let fetched = self.fetch(now).await;
        let mut known = self.known();
        known.ended += 1;
        match fetched {
            Ok(token) => {
                let token = Arc::new(token);
                (known.token, known.failure) = (Some(Arc::clone(&token)), None);
                Ok(token)
            }
            Err(failure) => {
                known.failure = Some(failure.clone());
                known.renew_from = now.plus(RENEW_PAUSE);
                known.good(now).ok_or(failure)
            }
        }
    }

    /// Never uses this token again.
    pub(super) fn forget(&self, token: &Arc<Token>) {
        let mut known = self.known();
        if known.token.as_ref().is_some_and(|it| Arc::ptr_eq(it, token)) {
            known.token = None;
            known.failure = None;
        }
    }

    async fn fetch(&self, now: Timestamp) -> Result<Token, Failure> {
        let bad_key = |_| Failure::new(FailureClass::AuthConfig, "credentials");
        let assertion = self.account.assertion(now).map_err(bad_key)?;
        let mask = Mask::default().and(&assertion, "[assertion]");
        let form = [("grant_type", GRANT), ("assertion", &assertion)];
        let request = self.client.post(self.account.url.clone()).form(&form).build();
        let request = request.map_err(|_| Failure::new(FailureClass::AuthConfig, "credentials"))?;
        let answer = exchange(&self.client, request).await.map_err(|failure| Failure {
            // No push was sent, whatever became of this.
            class: FailureClass::Retry,
            code: format!("token_{}", failure.code),
            answer: failure.answer.map(|it| mask.apply(&it)),
            ..failure
        })?;
        granted(&answer, now).ok_or_else(|| refused(&answer, now, &mask))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token in an answer.
fn granted(answer: &Answer, now: Timestamp) -> Option<Token> {
    let body = answer.json().filter(|_| (200..300).contains(&answer.status))?;
    let text = body.get("access_token")?.as_str().filter(|it| !it.is_empty())?;
    let mut header = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
    header.set_sensitive(true);
    let seconds = body.get("expires_in").and_then(Value::as_u64).unwrap_or(GOOD_SECS).min(GOOD_SECS);
    let good = Duration::from_secs(seconds);
    let renew_at = now.plus(good.saturating_sub(EARLY).max(good / 2));
    Some(Token { header, secret: Secret::new(text), since: now, renew_at, until: now.plus(good) })
}

/// Why there is no token. What Google says in a 2xx is not recorded: a token may stand in it.
fn refused(answer: &Answer, now: Timestamp, mask: &Mask) -> Failure {
    let named = || Some(answer.json()?.get("error")?.as_str()?.to_owned());
    let (class, code) = match by_status(answer.status) {
        Class::Accepted => (FailureClass::Retry, Some("token_unreadable".to_owned())),
        Class::Failed(FailureClass::Retry) => (FailureClass::Retry, None),
        Class::Failed(_) => (FailureClass::AuthConfig, named()),
    };
    let code = code.and_then(|it| Vendor::id(&it, mask));
    let code = code.unwrap_or_else(|| format!("token_http_{}", answer.status));
    Failure {
        status: Some(answer.status),
        answer: answer.kept(mask).filter(|_| !(200..300).contains(&answer.status)),
        retry_after: answer.retry_after(now),
        ..Failure::new(class, code)
    }
}
