//! What runs by itself: workers, each a bounded and idempotent step, and the one loop around them.
//!
//! A worker knows nothing of waiting, of stopping or of trying again; [`run`] does that for all. The
//! loop never interrupts a step: a soft stop is seen between steps.

pub mod announce;
pub mod deliver;
pub mod ingest;
pub mod present;
pub mod project;
pub mod prove;
pub mod rebuild;

use std::{error::Error, pin::pin, time::Duration};

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::wake::Wake;

/// The first pause after a step that failed; doubled with each further failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest pause after steps that failed.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Something was done, and there may be more: the next step follows at once.
    Worked,
    /// There was nothing to do: the next step follows a wake-up or the poll interval.
    Idle,
}

/// Why a step could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// Something it needs is not there at the moment: the step is tried again after a pause.
    #[error("{doing} failed for now")]
    Retry {
        /// What was being done: "reading the log".
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No later step can succeed either: the worker ends, and the process with it.
    #[error("{doing} cannot go on")]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl WorkError {
    /// An error that passes by itself.
    pub fn retry(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Retry { doing, source: source.into() }
    }

    /// An error that stays.
    pub fn fatal(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Fatal { doing, source: source.into() }
    }
}

/// One thing that runs by itself.
pub trait Worker: Send {
    /// What it is called in logs: `project inbox`.
    fn name(&self) -> &str;

    /// Does one bounded step. Doing the same step again after a crash must be harmless.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, WorkError>> + Send;
}

/// Runs the worker until `stop` is cancelled, or a step fails for good.
///
/// # Errors
/// The [`WorkError::Fatal`] that ended it.
pub async fn run<W: Worker>(
    mut worker: W,
    wake: Wake,
    poll: Duration,
    stop: CancellationToken,
) -> Result<(), WorkError> {
    let mut trouble = Trouble::default();
    while !stop.is_cancelled() {
        // Listening begins before the step looks for work: what arrives while it looks is not missed.
        let mut hint = pin!(wake.listen());
        hint.as_mut().enable();
        match worker.tick().await {
            Ok(progress) => {
                trouble.passed(worker.name());
                if progress == Progress::Idle {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = hint => {}
                        () = time::sleep(poll) => {}
                    }
                }
            }
            Err(WorkError::Retry { doing, source }) => {
                // No hint shortens this pause: a hint says that there is work, not that it can be done.
                let pause = trouble.met(worker.name(), doing, source.as_ref());
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = time::sleep(pause) => {}
                }
            }
            Err(fatal @ WorkError::Fatal { .. }) => return Err(fatal),
        }
    }
    Ok(())
}

/// Pauses that grow: each between half of the present bound and the bound, the bound doubling from
/// 200 ms to 30 s.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next_pause(&mut self) -> Duration {
        let bound = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// How many failures there were since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What went wrong last, so that the same trouble is told once and not at every attempt.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<String>,
    backoff: Backoff,
}

impl Trouble {
    /// Notes a failure, tells it if it is news, and says how long to pause.
    fn met(&mut self, worker: &str, doing: &str, error: &(dyn Error + 'static)) -> Duration {
        let text = chain(error);
        let pause = self.backoff.next_pause();
        if self.told.as_deref() == Some(text.as_str()) {
            tracing::debug!(worker, error = text, failures = self.backoff.failures(), "{doing} failed again");
        } else {
            tracing::warn!(
                worker,
                error = text,
                "{doing} failed; trying again with growing pauses up to 30 s"
            );
            self.told = Some(text);
        }
        pause
    }

    /// Notes a success.
    fn passed(&mut self, worker: &str) {
        if self.told.take().is_some() {
            tracing::info!(worker, failures = self.backoff.failures(), "{worker} works again");
        }
        self.backoff.reset();
    }
}

/// The error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
