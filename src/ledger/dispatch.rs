//! Room for calls right after the commit.
//!
//! Where the process that accepts a message also delivers and has a free place to call from, the plan
//! and the start of the first attempt ride in the very transaction that appends the message: one
//! commit before the call, and no round through the projection.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    clock::Timestamp,
    event::{Event, PushAttemptStarted},
    message::{Message, Target},
    stream::{Claim, Origin},
};

/// Places to call from that were reserved for one message.
#[derive(Debug, Default)]
pub struct Permits(Option<OwnedSemaphorePermit>);

impl Permits {
    /// Whether nothing was reserved.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// An attempt that is claimed and durable, and now has to be made.
#[derive(Debug)]
pub struct Started {
    /// The claim as recorded.
    pub attempt: PushAttemptStarted,
    /// Where to.
    pub target: Target,
    /// What to say.
    pub message: Arc<Origin>,
    /// The place it was given; free again when dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Started {
    /// The message to push.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message.message
    }
}

/// The accepting side.
#[derive(Debug, Clone)]
pub struct Dispatch {
    worker: String,
    places: Arc<Semaphore>,
    started: mpsc::UnboundedSender<Started>,
}

/// The delivering side.
#[derive(Debug)]
pub struct Dispatched {
    /// Attempts to make at once. Never more than there are places.
    pub started: mpsc::UnboundedReceiver<Started>,
    /// The places, shared with the deliveries that come from the projection.
    pub places: Arc<Semaphore>,
}

impl Dispatch {
    /// A way for up to `places` calls at a time under this worker's name.
    #[must_use]
    pub fn new(worker: &str, places: usize) -> (Self, Dispatched) {
        let places = Arc::new(Semaphore::new(places));
        let (sender, started) = mpsc::unbounded_channel();
        let dispatch = Self { worker: worker.to_owned(), places: Arc::clone(&places), started: sender };
        (dispatch, Dispatched { started, places })
    }

    /// Reserves places for `count` calls, all or none; none while the worker is stopping.
    #[must_use]
    pub fn reserve(&self, count: usize) -> Option<Permits> {
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        let permit = Arc::clone(&self.places).try_acquire_many_owned(count).ok()?;
        Some(Permits(Some(permit)))
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
            let permit = permits.as_mut().and_then(|permits| permits.split(1));
            let (attempt, target) = (attempt.clone(), plan.target.clone());
            let message = Arc::clone(origin);
            if self.started.send(Started { attempt, target, message, permit }).is_err() {
                tracing::warn!("the delivery worker is gone; a started attempt runs into its lease");
            }
        }
    }
}
