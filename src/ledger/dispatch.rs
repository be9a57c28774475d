//! Room for calls right after the commit.
//!
//! Where the process that accepts a message also delivers and has a free place to call from, the plan
//! and the start of the first attempt ride in the very transaction that appends the message: one
//! commit before the call, and no round through the projection.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    clock::Timestamp,
    event::{Event, PushAttemptStarted},
    message::{Message, Target},
    stream::{Claim, Origin},
};

/// Places to call from: so many in all, and so many for each provider. Clones share them.
#[derive(Debug, Clone)]
pub struct Places(Arc<Rooms>);

#[derive(Debug)]
struct Rooms {
    all: Arc<Semaphore>,
    size: u32,
    providers: BTreeMap<String, Room>,
    closed: AtomicBool,
}

/// What one provider takes at a time.
#[derive(Debug)]
struct Room {
    calls: Arc<Semaphore>,
    /// Not before the worker says so, who knows of pauses.
    open: AtomicBool,
    /// How fast it may be called.
    pace: Option<DefaultDirectRateLimiter>,
}

/// What one provider takes.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// Calls at a time.
    pub calls: usize,
    /// Pushes a second and at once; none: as many as there are.
    pub rate: Option<(u32, u32)>,
}

/// Places that were reserved for one message, by provider.
#[derive(Debug, Default)]
pub struct Permits(BTreeMap<String, Place>);

/// One place or several, free again when dropped.
#[derive(Debug)]
pub struct Place {
    all: OwnedSemaphorePermit,
    of_provider: OwnedSemaphorePermit,
}

/// An attempt that is claimed and durable, and now has to be made.
#[derive(Debug)]
pub struct Started {
    /// The claim as recorded.
    pub attempt: PushAttemptStarted,
    /// Where to.
    pub target: Target,
    /// Whether that is a registered device.
    pub to_device: bool,
    /// What to say.
    pub message: Arc<Origin>,
    /// The place it was given, if it was given one.
    pub place: Option<Place>,
}

/// The accepting side.
#[derive(Debug, Clone)]
pub struct Dispatch {
    worker: String,
    places: Places,
    started: mpsc::UnboundedSender<Started>,
}

/// The delivering side.
#[derive(Debug)]
pub struct Dispatched {
    /// Whose name the claims are in.
    pub worker: String,
    /// Attempts to make at once. Never more than there are places.
    pub started: mpsc::UnboundedReceiver<Started>,
    /// The places, shared with the deliveries that come from the projection.
    pub places: Places,
}

impl Places {
    fn new(size: usize, providers: impl IntoIterator<Item = (String, Takes)>) -> Self {
        let size = u32::try_from(size.clamp(1, 100_000)).unwrap_or(1);
        let pace = |(per_s, burst): (u32, u32)| {
            let quota = Quota::per_second(NonZeroU32::new(per_s)?).allow_burst(NonZeroU32::new(burst)?);
            Some(RateLimiter::direct(quota))
        };
        let room = |takes: Takes| Room {
            calls: Arc::new(Semaphore::new(takes.calls.clamp(1, 100_000))),
            open: AtomicBool::new(false),
            pace: takes.rate.and_then(pace),
        };
        let providers = providers.into_iter().map(|(name, takes)| (name, room(takes))).collect();
        let all = Arc::new(Semaphore::new(size as usize));
        Self(Arc::new(Rooms { all, size, providers, closed: AtomicBool::new(false) }))
    }

    /// How many there are in all.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size as usize
    }

    /// Waits for a place for a call to this provider; none for a provider that has no places at all.
    pub async fn enter(&self, provider: &str) -> Option<Place> {
        let room = self.0.providers.get(provider)?;
        // The narrower door first: whoever waits for a slow provider keeps no place from the others.
        let of_provider = Arc::clone(&room.calls).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.0.all).acquire_owned().await.ok()?;
        Some(Place { all, of_provider })
    }

    /// Whether one more push to this provider may begin now; it then counts as begun.
    #[must_use]
    pub fn admit(&self, provider: &str) -> bool {
        let pace = self.0.providers.get(provider).and_then(|it| it.pace.as_ref());
        pace.is_none_or(|it| it.check().is_ok())
    }

    /// Whether arrivals for this provider may take places.
    pub fn set_open(&self, provider: &str, open: bool) {
        if let Some(room) = self.0.providers.get(provider) {
            room.open.store(open, Ordering::Release);
        }
    }

    /// From now on no arrival takes a place.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// Waits until every place is free, reserved ones too.
    pub async fn all_free(&self) {
        // The semaphore is never closed; the permits are given back at once.
        let _ = self.0.all.acquire_many(self.0.size).await;
    }

    fn reserve(&self, provider: &str, count: u32) -> Option<Place> {
        let room = self.0.providers.get(provider).filter(|it| it.open.load(Ordering::Acquire))?;
        let of_provider = Arc::clone(&room.calls).try_acquire_many_owned(count).ok()?;
        let all = Arc::clone(&self.0.all).try_acquire_many_owned(count).ok()?;
        let count = NonZeroU32::new(count)?;
        if room.pace.as_ref().is_some_and(|it| !matches!(it.check_n(count), Ok(Ok(())))) {
            return None;
        }
        // Asked last: a worker that closes first and then waits for all places misses none.
        (!self.0.closed.load(Ordering::Acquire)).then_some(Place { all, of_provider })
    }
}

impl Place {
    fn split(&mut self) -> Option<Self> {
        Some(Self { all: self.all.split(1)?, of_provider: self.of_provider.split(1)? })
    }
}

impl Permits {
    /// Whether nothing was reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Started {
    /// The message to push.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message.message
    }
}

impl Dispatch {
    /// A way for up to `places` calls at a time under this worker's name, of which each provider takes
    /// as many as it says.
    #[must_use]
    pub fn new(
        worker: &str,
        places: usize,
        providers: impl IntoIterator<Item = (String, Takes)>,
    ) -> (Self, Dispatched) {
        let places = Places::new(places, providers);
        let (sender, started) = mpsc::unbounded_channel();
        let worker = worker.to_owned();
        let dispatch = Self { worker: worker.clone(), places: places.clone(), started: sender };
        (dispatch, Dispatched { worker, started, places })
    }

    /// Reserves a place for a call to each of these providers, who may be named more than once, all or
    /// none; none while the worker is stopping, while one of them is paused, may be for all that the worker
    /// knows yet, or is called as fast as it may be, and where somebody already waits for a place.
    #[must_use]
    pub fn reserve<'a>(&self, providers: impl IntoIterator<Item = &'a str>) -> Option<Permits> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for provider in providers {
            *counts.entry(provider).or_default() += 1;
        }
        let place = |(provider, count): (&str, u32)| {
            Some((provider.to_owned(), self.places.reserve(provider, count)?))
        };
        counts.into_iter().map(place).collect::<Option<_>>().map(Permits)
    }

    /// A claim in this worker's name.
    #[must_use]
    pub fn claim(&self, lease_until: Timestamp) -> Claim {
        Claim { worker: self.worker.clone(), lease_until }
    }

    /// Hands over the attempts that were started. If the worker is gone they run into their lease.
    pub fn send(&self, events: &[Event], origin: &Arc<Origin>, permits: Permits) {
        let mut permits = permits.0;
        let planned = events.iter().find_map(|event| match event {
            Event::PushPlanned(it) => Some(&it.deliveries),
            _ => None,
        });
        for event in events {
            let Event::PushAttemptStarted(attempt) = event else { continue };
            let plan = planned.into_iter().flatten().find(|it| it.delivery_id == attempt.delivery_id);
            let Some(plan) = plan else { continue };
            let place = permits.get_mut(&attempt.provider).and_then(Place::split);
            let started = Started {
                attempt: attempt.clone(),
                target: plan.target.clone(),
                to_device: plan.device_id.is_some(),
                message: Arc::clone(origin),
                place,
            };
            if self.started.send(started).is_err() {
                tracing::warn!("the delivery worker is gone; a started attempt runs into its lease");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn dispatch() -> (Dispatch, Dispatched) {
        let takes = |calls| Takes { calls, rate: None };
        let both = Dispatch::new("w", 3, [("acme".to_owned(), takes(2)), ("bravo".to_owned(), takes(9))]);
        for provider in ["acme", "bravo"] {
            both.1.places.set_open(provider, true);
        }
        both
    }

    #[test]
    fn places_are_reserved_all_or_none_within_both_bounds() {
        let (dispatch, _dispatched) = dispatch();
        assert!(dispatch.reserve(vec!["acme"; 3]).is_none(), "acme takes two at a time");
        let two = dispatch.reserve(vec!["acme"; 2]).unwrap();
        assert!(dispatch.reserve(vec!["acme"; 1]).is_none());
        assert!(dispatch.reserve(vec!["bravo"; 2]).is_none(), "one place is left in all");
        let one = dispatch.reserve(vec!["bravo"; 1]).unwrap();
        drop((two, one));
        assert!(dispatch.reserve(vec!["bravo"; 3]).is_some(), "free again when dropped");
        assert!(dispatch.reserve(vec!["unheard-of"; 1]).is_none());
        assert!(dispatch.reserve([]).is_some_and(|it| it.is_empty()));
    }

    #[test]
    fn a_closed_worker_and_a_paused_provider_take_no_arrivals() {
        let (dispatch, dispatched) = dispatch();
        dispatched.places.set_open("acme", false);
        assert!(dispatch.reserve(vec!["acme"; 1]).is_none());
        assert!(dispatch.reserve(vec!["bravo"; 1]).is_some());
        dispatched.places.set_open("acme", true);
        assert!(dispatch.reserve(vec!["acme"; 1]).is_some());
        dispatched.places.close();
        assert!(dispatch.reserve(vec!["acme"; 1]).is_none());
    }

    #[test]
    fn nobody_is_called_faster_than_it_may_be() {
        let takes = Takes { calls: 9, rate: Some((1, 3)) };
        let (dispatch, dispatched) = Dispatch::new("w", 9, [("acme".to_owned(), takes)]);
        assert!(dispatch.reserve(["acme"]).is_none(), "not known to be open");
        dispatched.places.set_open("acme", true);
        assert!(dispatched.places.admit("acme"));
        assert!(dispatch.reserve(["acme"; 2]).is_some());
        assert!(!dispatched.places.admit("acme"));
        assert!(dispatch.reserve(["acme"]).is_none());
        assert!(dispatched.places.admit("bravo"), "without a limit");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_place_comes_before_new_arrivals() {
        let (dispatch, dispatched) = dispatch();
        let held = dispatch.reserve(vec!["acme"; 2]).unwrap();
        let mut waiting = std::pin::pin!(dispatched.places.enter("acme"));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        assert!(dispatch.reserve(vec!["acme"; 2]).is_none());
        assert!(waiting.await.is_some());
        dispatched.places.all_free().await;
    }
}
