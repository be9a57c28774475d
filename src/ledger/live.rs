//! Who listens to which inbox, in this process.
//!
//! A hint without data that an inbox may have changed, given to those who listen to it and to nobody else.
//! What changed they read themselves, from the place they are at; so a hint too many does no harm, and one
//! that comes while a listener is busy is not lost.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::{id::RecipientId, metric};

/// Listeners of one recipient at the most.
const OF_ONE_MAX: usize = 32;
/// Listeners that read at once: a hint to many must not take the database from everybody else.
const READS_MAX: usize = 4;

/// All listeners of this process.
#[derive(Debug)]
pub struct Live {
    places: Mutex<Places>,
    reads: Semaphore,
    max: usize,
}

#[derive(Debug, Default)]
struct Places {
    count: usize,
    by_recipient: HashMap<RecipientId, watch::Sender<()>>,
}

/// A listener's place; given back when it is dropped.
#[derive(Debug)]
pub struct Listening {
    live: Arc<Live>,
    recipient: RecipientId,
    hint: watch::Receiver<()>,
}

/// There is no place for another listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// In the whole process.
    #[error("this process has as many open streams as it may have")]
    Full,
    /// For this recipient.
    #[error("the recipient has {OF_ONE_MAX} open streams, as many as there may be")]
    OfOne,
}

impl Live {
    /// With room for so many listeners.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { places: Mutex::default(), reads: Semaphore::new(READS_MAX), max })
    }

    /// Begins to listen to an inbox.
    ///
    /// # Errors
    /// Where there is no place.
    pub fn listen(self: &Arc<Self>, recipient: &RecipientId) -> Result<Listening, NoPlace> {
        let mut places = self.places();
        if places.count >= self.max {
            return Err(NoPlace::Full);
        }
        let hint = match places.by_recipient.entry(recipient.clone()) {
            Entry::Vacant(vacant) => vacant.insert(watch::channel(()).0).subscribe(),
            Entry::Occupied(entry) if entry.get().receiver_count() >= OF_ONE_MAX => {
                return Err(NoPlace::OfOne);
            }
            Entry::Occupied(entry) => entry.get().subscribe(),
        };
        places.count += 1;
        metric::streams(places.count);
        drop(places);
        Ok(Listening { live: Arc::clone(self), recipient: recipient.clone(), hint })
    }

    /// Waits for the turn to read what changed, which lasts as long as what this answers.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.reads.acquire().await.ok()
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.places().count > 0
    }

    /// Tells those who listen to these inboxes.
    pub fn tell<'r>(&self, recipients: impl IntoIterator<Item = &'r RecipientId>) {
        let places = self.places();
        for recipient in recipients {
            if let Some(hint) = places.by_recipient.get(recipient) {
                hint.send_replace(());
            }
        }
    }

    /// Tells everybody of whom this holds.
    pub fn tell_all(&self, is_meant: impl Fn(&RecipientId) -> bool) {
        for (recipient, hint) in &self.places().by_recipient {
            if is_meant(recipient) {
                hint.send_replace(());
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Ends with the next hint, or with one that came since the last.
    pub async fn hint(&mut self) {
        // The sender lives as long as this place.
        let _ = self.hint.changed().await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut places = self.live.places();
        places.count -= 1;
        metric::streams(places.count);
        if places.by_recipient.get(&self.recipient).is_some_and(|hint| hint.receiver_count() <= 1) {
            places.by_recipient.remove(&self.recipient);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn recipient(id: &str) -> RecipientId {
        RecipientId::new(id).unwrap()
    }

    #[test]
    fn a_hint_reaches_whom_it_is_for_also_before_they_wait() {
        let live = Live::new(10);
        let (one, two) = (recipient("user-1"), recipient("user-2"));
        let mut first = live.listen(&one).unwrap();
        let mut again = live.listen(&one).unwrap();
        let mut other = live.listen(&two).unwrap();
        live.tell([&one]);
        for (listening, is_told) in [(&mut first, true), (&mut again, true), (&mut other, false)] {
            assert_eq!(listening.hint().now_or_never().is_some(), is_told);
            assert!(listening.hint().now_or_never().is_none(), "one hint is heard once");
        }
        live.tell_all(|it| *it == two);
        assert!(other.hint().now_or_never().is_some() && first.hint().now_or_never().is_none());
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let live = Live::new(OF_ONE_MAX + 1);
        assert!(!live.is_heard());
        let one = recipient("user-1");
        let mut all: Vec<_> = (0..OF_ONE_MAX).map(|_| live.listen(&one).unwrap()).collect();
        assert_eq!(live.listen(&one).unwrap_err(), NoPlace::OfOne);
        let other = live.listen(&recipient("user-2")).unwrap();
        assert_eq!(live.listen(&recipient("user-3")).unwrap_err(), NoPlace::Full);
        drop(other);
        all.pop();
        all.push(live.listen(&one).unwrap());
        drop(all);
        assert!(!live.is_heard() && live.places().by_recipient.is_empty());
    }
}
