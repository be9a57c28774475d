//! What the loop promises, on a clock that stands still until everybody waits.

use std::{
    collections::VecDeque,
    sync::Arc,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;

use super::*;

/// Plays a script of steps; when it is over, every further step is idle.
struct Scripted {
    script: Arc<Mutex<VecDeque<Result<Progress, WorkError>>>>,
    ticks: Arc<AtomicUsize>,
    wake_within_tick: Option<Wake>,
}

impl Scripted {
    fn new(script: impl IntoIterator<Item = Result<Progress, WorkError>>) -> Self {
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        Self { script, ticks: Arc::default(), wake_within_tick: None }
    }
}

impl Worker for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn tick(&mut self) -> Result<Progress, WorkError> {
        self.ticks.fetch_add(1, Ordering::SeqCst);
        if let Some(wake) = self.wake_within_tick.take() {
            wake.wake();
        }
        self.script.lock().unwrap().pop_front().unwrap_or(Ok(Progress::Idle))
    }
}

const POLL: Duration = Duration::from_mins(1);

fn later() -> WorkError {
    WorkError::retry("reading the log", "the database is away")
}

#[tokio::test(start_paused = true)]
async fn work_is_followed_by_work_at_once_and_idleness_by_the_poll_interval() {
    let worker = Scripted::new([Ok(Progress::Worked), Ok(Progress::Worked), Ok(Progress::Idle)]);
    let (ticks, stop, start) = (worker.ticks.clone(), CancellationToken::new(), Instant::now());
    let running = in_background(run(worker, Wake::default(), POLL, stop.clone()));
    time::sleep(POLL / 2).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 3, "no pause after work");
    time::sleep(POLL).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 4, "one look per interval");
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), POLL * 3 / 2, "a stop does not wait for the interval");
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_ends_the_wait() {
    let worker = Scripted::new([]);
    let (ticks, stop, wake) = (worker.ticks.clone(), CancellationToken::new(), Wake::default());
    let running = in_background(run(worker, wake.clone(), POLL, stop.clone()));
    time::sleep(Duration::from_secs(1)).await;
    wake.wake();
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 2);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_during_the_step_is_not_lost() {
    let mut worker = Scripted::new([]);
    let (ticks, stop, wake) = (worker.ticks.clone(), CancellationToken::new(), Wake::default());
    worker.wake_within_tick = Some(wake.clone());
    let running = in_background(run(worker, wake, POLL, stop.clone()));
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 2, "the step that was idle is followed by another at once");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn trouble_is_met_with_growing_pauses_that_a_wake_up_does_not_shorten() {
    let worker = Scripted::new(std::iter::repeat_with(|| Err(later())).take(3));
    let (ticks, stop, wake) = (worker.ticks.clone(), CancellationToken::new(), Wake::default());
    let running = in_background(run(worker, wake.clone(), POLL, stop.clone()));
    time::sleep(Duration::from_millis(50)).await;
    wake.wake();
    time::sleep(Duration::from_millis(40)).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 1);
    time::sleep(Duration::from_millis(200 + 400 + 800)).await;
    assert_eq!(ticks.load(Ordering::SeqCst), 4, "three pauses are at most 1.4 s together");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_pass_ends_the_worker_with_its_reason() {
    let worker = Scripted::new([Err(WorkError::fatal("reading event 3 of m-1", "a type from the future"))]);
    let error = run(worker, Wake::default(), POLL, CancellationToken::new()).await.unwrap_err();
    assert_eq!(chain(&error), "reading event 3 of m-1 cannot go on: a type from the future");
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_no_step_begins() {
    let (worker, stop) = (Scripted::new([]), CancellationToken::new());
    let ticks = worker.ticks.clone();
    stop.cancel();
    run(worker, Wake::default(), POLL, stop).await.unwrap();
    assert_eq!(ticks.load(Ordering::SeqCst), 0);
}

#[test]
fn pauses_grow_to_the_bound_and_start_again_after_success() {
    let mut backoff = Backoff::default();
    let mut bound = BACKOFF_FIRST;
    for _ in 0..40 {
        let pause = backoff.next_pause();
        assert!(pause >= bound / 2 && pause <= bound, "{pause:?} for {bound:?}");
        bound = (bound * 2).min(BACKOFF_MAX);
    }
    backoff.reset();
    assert!(backoff.next_pause() <= BACKOFF_FIRST);
}

#[allow(clippy::disallowed_methods, reason = "the loop is tested without the supervisor")]
fn in_background<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}
