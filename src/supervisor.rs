//! Tasks and their end: the one door to `tokio::spawn`, a soft and a hard stop, and the rule that
//! nothing dies unnoticed (ONE-DOOR-TO-SPAWN).
//!
//! A soft stop asks: workers finish the step they are in, servers finish the answers they owe. A hard
//! stop drops every task at its next point of rest, which is safe because the log survives a crash at
//! any point. The first SIGTERM or Ctrl-C is a soft stop, the second a hard one, and so is a soft
//! stop that takes too long.

use std::{
    any::Any,
    collections::BTreeMap,
    error::Error,
    fs,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a hard stop waits for tasks that do not come to a point of rest.
const HARD_STOP_GRACE: Duration = Duration::from_secs(1);

/// Any error, boxed.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The two ways to be asked to stop; clones hear the same. A hard stop is a soft stop as well.
#[derive(Debug, Clone)]
pub struct Stop {
    soft: CancellationToken,
    hard: CancellationToken,
}

/// Starts tasks and may ask everything to stop; given to whoever has something to run.
#[derive(Debug, Clone)]
pub struct Tasks {
    stop: Stop,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<u64, String>>>,
    ended: mpsc::UnboundedSender<TaskFailed>,
}

/// Waits until the process is to end, and sees to it that it does.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    ended: mpsc::UnboundedReceiver<TaskFailed>,
    shutdown_timeout: Duration,
}

/// How it all ended.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// Everything finished what it was doing.
    Drained,
    /// A hard stop was needed; these tasks were still running when it came.
    Forced {
        /// Their names.
        running: Vec<String>,
    },
    /// A task ended that should not have; everything else was stopped because of it.
    Failed(TaskFailed),
}

/// A task that ended badly, or too early.
#[derive(Debug, thiserror::Error)]
#[error("{task} ended, and everything else was stopped because of it")]
pub struct TaskFailed {
    /// What the task is called.
    pub task: String,
    /// Why it ended.
    #[source]
    pub reason: BoxError,
}

/// What the machine is called; `host` where nothing says so.
#[must_use]
pub fn host_name() -> String {
    let name =
        fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    let name = name.map(|it| it.trim().to_owned()).unwrap_or_default();
    if name.is_empty() { "host".to_owned() } else { name }
}

impl Stop {
    /// A pair that nobody has asked to stop.
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        Self { soft: hard.child_token(), hard }
    }

    /// Asks for a soft stop.
    pub fn ask(&self) {
        self.soft.cancel();
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Ends when a stop is asked for.
    pub async fn asked(&self) {
        self.soft.cancelled().await;
    }

    /// The token behind the soft stop, for code that takes one.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// The stop that these tasks are to heed.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Starts something that is to run until a stop is asked for. If it fails, panics, or ends before
    /// that, the whole process stops.
    pub fn spawn<F, E>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let stop = self.stop.clone();
        self.start(name.into(), async move {
            match future.await {
                Ok(()) if !stop.is_asked() => Err("it ended although no stop was asked for".into()),
                Ok(()) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
    }

    /// Starts something that ends by itself. If it fails or panics, the whole process stops.
    pub fn spawn_finite<F, E>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.start(name.into(), async move { future.await.map_err(Into::into) });
    }

    #[allow(clippy::disallowed_methods, reason = "the one door: started here, tasks are waited for")]
    fn start<F>(&self, name: String, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let id = self.enter(&name);
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let result = tokio::select! {
                biased;
                () = tasks.stop.hard.cancelled() => Ok(()),
                result = AssertUnwindSafe(future).catch_unwind() => {
                    result.unwrap_or_else(|panic| Err(panic_text(panic.as_ref()).into()))
                }
            };
            if let Err(reason) = result {
                // The receiver is gone only when the supervisor has already come to its end.
                let _ = tasks.ended.send(TaskFailed { task: name, reason });
            }
            tasks.names().remove(&id);
        });
    }

    fn enter(&self, name: &str) -> u64 {
        let mut names = self.names();
        let id = names.last_key_value().map_or(0, |(id, _)| id + 1);
        names.insert(id, name.to_owned());
        id
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// A supervisor whose soft stop becomes a hard one after `shutdown_timeout`.
    pub fn new(shutdown_timeout: Duration) -> Self {
        let (sender, ended) = mpsc::unbounded_channel();
        let tasks =
            Tasks { stop: Stop::new(), tracker: TaskTracker::new(), running: Arc::default(), ended: sender };
        Self { tasks, ended, shutdown_timeout }
    }

    /// What starts tasks under this supervisor.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Waits for a signal, a request to stop or a task that dies; then for everything to finish.
    ///
    /// # Errors
    /// When the process may not listen for signals.
    pub async fn run_until_stopped(self) -> std::io::Result<Outcome> {
        let signals = listen_for_signals()?;
        Ok(self.run(signals).await)
    }

    async fn run(mut self, mut signals: mpsc::UnboundedReceiver<&'static str>) -> Outcome {
        let stop = self.tasks.stop.clone();
        let mut failed = None;
        let mut draining_since = None;
        let forced = loop {
            let deadline = draining_since.map_or_else(Instant::now, |it: Instant| it + self.shutdown_timeout);
            tokio::select! {
                biased;
                Some(failure) = self.ended.recv() => {
                    tracing::error!(task = failure.task, error = failure.reason, "{} ended; stopping", failure.task);
                    failed.get_or_insert(failure);
                    stop.ask();
                }
                Some(signal) = signals.recv() => {
                    if stop.is_asked() {
                        tracing::warn!(signal, "stopping at once");
                        break true;
                    }
                    tracing::info!(signal, "stopping: finishing what is under way; a second {signal} stops at once");
                    stop.ask();
                }
                () = stop.asked(), if draining_since.is_none() => {
                    draining_since = Some(Instant::now());
                    self.tasks.tracker.close();
                }
                () = self.tasks.tracker.wait(), if draining_since.is_some() => break false,
                () = time::sleep_until(deadline), if draining_since.is_some() => {
                    tracing::warn!(running = ?self.running(), "not everything finished in time; stopping at once");
                    break true;
                }
            }
        };
        let running = self.running();
        if forced {
            stop.hard.cancel();
            let _ = time::timeout(HARD_STOP_GRACE, self.tasks.tracker.wait()).await;
        }
        // A task may have failed in the very moment in which the last one finished.
        match failed.or_else(|| self.ended.try_recv().ok()) {
            Some(failure) => Outcome::Failed(failure),
            None if forced => Outcome::Forced { running },
            None => Outcome::Drained,
        }
    }

    fn running(&self) -> Vec<String> {
        self.tasks.names().values().cloned().collect()
    }
}

/// The names of the signals that ask for a stop, as they arrive.
#[allow(clippy::disallowed_methods, reason = "it must outlive every other task, and holds nothing")]
fn listen_for_signals() -> std::io::Result<mpsc::UnboundedReceiver<&'static str>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    it = terminate.recv() => it.map(|()| "SIGTERM"),
                    it = interrupt.recv() => it.map(|()| "Ctrl-C"),
                };
                let Some(name) = name else { return };
                if sender.send(name).is_err() {
                    return;
                }
            }
        });
    }
    #[cfg(not(unix))]
    tokio::spawn(
        async move { while tokio::signal::ctrl_c().await.is_ok() && sender.send("Ctrl-C").is_ok() {} },
    );
    Ok(receiver)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a text"))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(25);

    /// Runs the supervisor with signals at these moments.
    async fn run(supervisor: Supervisor, signals_at_ms: &[u64]) -> Outcome {
        let (sender, receiver) = mpsc::unbounded_channel();
        let moments = signals_at_ms.to_vec();
        let start = Instant::now();
        let send = async move {
            for at_ms in moments {
                time::sleep_until(start + Duration::from_millis(at_ms)).await;
                let _ = sender.send("SIGTERM");
            }
            pending::<()>().await;
        };
        tokio::select! {
            outcome = supervisor.run(receiver) => outcome,
            () = send => unreachable!(),
        }
    }

    /// A task that needs so long to finish once it is asked.
    async fn drains_in(stop: Stop, ms: u64) -> Result<(), BoxError> {
        stop.asked().await;
        time::sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_lets_everything_finish() {
        let supervisor = Supervisor::new(TIMEOUT);
        let tasks = supervisor.tasks();
        tasks.spawn("api", drains_in(tasks.stop().clone(), 500));
        tasks.spawn_finite("rebuild", async { Ok::<(), BoxError>(()) });
        let start = Instant::now();
        assert!(matches!(run(supervisor, &[1_000]).await, Outcome::Drained));
        assert_eq!(start.elapsed(), Duration::from_millis(1_500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_signal_stops_at_once_and_names_what_was_running() {
        let supervisor = Supervisor::new(TIMEOUT);
        let tasks = supervisor.tasks();
        tasks.spawn("deliver", drains_in(tasks.stop().clone(), 10_000));
        tasks.spawn("api", drains_in(tasks.stop().clone(), 1));
        let start = Instant::now();
        let outcome = run(supervisor, &[1_000, 2_000]).await;
        assert!(matches!(&outcome, Outcome::Forced { running } if running == &["deliver"]), "{outcome:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_soft_stop_that_takes_too_long_becomes_a_hard_one() {
        let supervisor = Supervisor::new(TIMEOUT);
        supervisor.tasks().spawn("stuck", pending::<Result<(), BoxError>>());
        let start = Instant::now();
        let outcome = run(supervisor, &[1_000]).await;
        assert!(matches!(&outcome, Outcome::Forced { running } if running == &["stuck"]), "{outcome:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(1) + TIMEOUT);
    }

    /// Runs one task that ends badly beside one that drains; gives the name and the reason.
    async fn fails(start: impl FnOnce(&Tasks)) -> (String, String) {
        let supervisor = Supervisor::new(TIMEOUT);
        let tasks = supervisor.tasks();
        tasks.spawn("api", drains_in(tasks.stop().clone(), 500));
        start(tasks);
        match run(supervisor, &[]).await {
            Outcome::Failed(it) => (it.task, it.reason.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_dies_ends_everything_and_is_named() {
        let error = |it: &Tasks| it.spawn("project inbox", async { Err("the disk is full") });
        assert_eq!(fails(error).await, ("project inbox".into(), "the disk is full".into()));

        let early = |it: &Tasks| it.spawn("deliver", async { Ok::<(), BoxError>(()) });
        assert_eq!(fails(early).await, ("deliver".into(), "it ended although no stop was asked for".into()));

        let panic = |it: &Tasks| {
            it.spawn_finite("rebuild", async {
                assert_eq!(7, 8, "position 7 is missing");
                Ok::<(), BoxError>(())
            });
        };
        let (task, reason) = fails(panic).await;
        assert!(
            task == "rebuild" && reason.contains("panicked: ") && reason.contains("position 7"),
            "{reason}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_may_ask_for_the_stop_itself() {
        let supervisor = Supervisor::new(TIMEOUT);
        let tasks = supervisor.tasks();
        let stop = tasks.stop().clone();
        tasks.spawn_finite("demo", async move {
            stop.ask();
            Ok::<(), BoxError>(())
        });
        assert!(matches!(run(supervisor, &[]).await, Outcome::Drained));
    }
}
