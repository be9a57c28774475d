//! Wake-ups: hints without data that there is something to do.

use std::sync::Arc;

use tokio::sync::{Notify, futures::Notified};

/// A hint without data that there is something to do; clones give and hear the same hint.
///
/// Everyone who listens hears it. A hint may be lost when nobody listens, which is why every worker
/// listens before it looks, and polls besides.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Wakes everyone who listens.
    pub fn wake(&self) {
        self.0.notify_waiters();
    }

    /// Ends with the next hint; listening begins when it is first polled or enabled.
    pub fn listen(&self) -> Notified<'_> {
        self.0.notified()
    }
}
