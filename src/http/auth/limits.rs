//! How much one caller may ask for: so many requests a second, and so many at once.
//!
//! Counted in each process by itself, from the moment that it is known who calls; whoever is not let in costs
//! little and is not counted. What was not used for a while is forgotten.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter, clock::Clock, middleware::StateInformationMiddleware, state::keyed::HashMapStateStore,
};
use tokio::time::Instant;

/// More callers of a kind are not remembered.
const CALLERS_MAX: usize = 100_000;
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// Requests of one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In a second, on average; 0: as many as there are.
    pub per_s: u32,
    /// At once.
    pub burst: u32,
}

/// How much callers may ask for.
#[derive(Debug, Default)]
pub struct Limits {
    services: Option<Limiter>,
    users: Option<Limiter>,
}

/// How a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Which of the limits.
    name: &'static str,
    rate: (NonZeroU32, NonZeroU32),
    remaining: u32,
    /// Seconds until one may ask again; none where one may now.
    pub(super) wait_s: Option<u32>,
}

type Counted = RateLimiter<Arc<str>, HashMapStateStore<Arc<str>>, Ticks, StateInformationMiddleware>;

struct Limiter {
    name: &'static str,
    rate: (NonZeroU32, NonZeroU32),
    counted: Mutex<Arc<Counted>>,
}

/// Time as it passes in this process; a wall clock that is put back must lock nobody out.
#[derive(Debug, Clone)]
struct Ticks(Instant);

impl Limits {
    /// For the holder of one key, and for one user.
    #[must_use]
    pub fn new(service: Rate, user: Rate) -> Self {
        Self { services: Limiter::new("service", service), users: Limiter::new("user", user) }
    }

    /// Counts a request of the holder of a key.
    pub(super) fn count_service(&self, key: &Arc<str>) -> Option<Standing> {
        self.services.as_ref().map(|it| it.count(key))
    }

    /// Counts a request of a user.
    pub(super) fn count_user(&self, recipient: &str) -> Option<Standing> {
        self.users.as_ref().map(|it| it.count(&recipient.into()))
    }
}

impl Limiter {
    fn new(name: &'static str, rate: Rate) -> Option<Self> {
        let rate = (NonZeroU32::new(rate.per_s)?, NonZeroU32::new(rate.burst)?);
        Some(Self { name, rate, counted: Mutex::new(Arc::new(counted(rate))) })
    }

    fn count(&self, caller: &Arc<str>) -> Standing {
        let counted = self.counted();
        let standing = |remaining, wait_s| Standing { name: self.name, rate: self.rate, remaining, wait_s };
        match counted.check_key(caller) {
            Ok(state) => standing(state.remaining_burst_capacity(), None),
            Err(until) => {
                let wait = until.wait_time_from(counted.clock().now());
                standing(0, Some(whole_secs(wait).max(1)))
            }
        }
    }

    /// What is counted so far, without more callers than are remembered.
    fn counted(&self) -> Arc<Counted> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= CALLERS_MAX {
            counted.retain_recent();
            // All of them call at this very moment: they begin anew.
            if counted.len() >= CALLERS_MAX {
                *counted = Arc::new(self::counted(self.rate));
            }
        }
        Arc::clone(&counted)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limiter({} {:?})", self.name, self.rate)
    }
}

impl Standing {
    /// Tells the caller: `RateLimit-Policy` and `RateLimit`, by draft-ietf-httpapi-ratelimit-headers.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let (per_s, burst) = (self.rate.0.get(), self.rate.1.get());
        let window_s = burst.div_ceil(per_s);
        let reset_s = (burst - self.remaining.min(burst)).div_ceil(per_s);
        let name = self.name;
        for (header, text) in [
            (POLICY, format!("\"{name}\";q={burst};w={window_s}")),
            (STANDING, format!("\"{name}\";r={};t={reset_s}", self.remaining)),
        ] {
            headers.extend(HeaderValue::try_from(text).ok().map(|it| (header, it)));
        }
    }
}

fn counted((per_s, burst): (NonZeroU32, NonZeroU32)) -> Counted {
    let quota = Quota::per_second(per_s).allow_burst(burst);
    let ticks = Ticks(Instant::now());
    RateLimiter::new(quota, HashMapStateStore::default(), ticks)
}

fn whole_secs(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn told(standing: Standing) -> [String; 2] {
        let mut headers = HeaderMap::new();
        standing.tell(&mut headers);
        ["ratelimit-policy", "ratelimit"].map(|it| headers[it].to_str().unwrap().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_a_burst_and_a_rate_of_its_own() {
        let limits = Limits::new(Rate { per_s: 0, burst: 1 }, Rate { per_s: 2, burst: 3 });
        assert_eq!(limits.count_service(&"billing".into()), None, "0 is no limit");
        let count = |user| limits.count_user(user).unwrap();
        let policy = "\"user\";q=3;w=2".to_owned();
        assert_eq!(told(count("a")), [policy.clone(), "\"user\";r=2;t=1".to_owned()]);
        assert_eq!((count("a").remaining, count("a").remaining), (1, 0));
        let refused = count("a");
        assert_eq!((refused.wait_s, told(refused)), (Some(1), [policy, "\"user\";r=0;t=2".to_owned()]));
        assert_eq!(count("b").wait_s, None, "another has room");
        advance(Duration::from_millis(500)).await;
        assert_eq!((count("a").wait_s, count("a").wait_s), (None, Some(1)));
        advance(Duration::from_mins(1)).await;
        assert_eq!(count("a").remaining, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_past_is_forgotten() {
        let limiter = Limiter::new("user", Rate { per_s: 1, burst: 1 }).unwrap();
        for i in 0..CALLERS_MAX {
            limiter.count(&i.to_string().into());
        }
        assert_eq!(limiter.counted.lock().unwrap().len(), CALLERS_MAX);
        limiter.count(&"one more".into());
        assert_eq!(limiter.counted.lock().unwrap().len(), 1, "all at once");
        advance(Duration::from_secs(2)).await;
        limiter.count(&"a".into());
        assert_eq!(limiter.counted.lock().unwrap().len(), 2);
    }
}
