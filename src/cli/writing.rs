//! Running a command that writes: on a ledger of its own, with appenders, until it is done or stopped.

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use crate::{
    config::Config,
    ledger::Ledger,
    service,
    supervisor::{BoxError, Outcome, Stop, Supervisor},
};

/// Runs `work` on an open ledger. Ctrl-C asks the work to stop; what it handed in becomes durable all
/// the same.
pub(super) async fn on_ledger<T, F>(
    config: &Config,
    work: impl FnOnce(Ledger, Stop) -> F + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let (ledger, appenders) = service::open_ledger(config).await?;
    let store = ledger.store().clone();
    let supervisor = Supervisor::new(config.service.shutdown_timeout);
    let tasks = supervisor.tasks().clone();
    for appender in appenders {
        // Ends with the last clone of the ledger, that is with the work.
        tasks.spawn_finite("append", appender.run().map(Ok::<_, BoxError>));
    }
    let (done, mut result) = oneshot::channel();
    let stop = tasks.stop().clone();
    tasks.spawn_finite("command", async move {
        // The receiver waits for the end of this very task.
        let _ = done.send(work(ledger, stop.clone()).await);
        stop.ask();
        Ok::<_, BoxError>(())
    });
    let outcome = supervisor.run_until_stopped().await.context("signals cannot be heard")?;
    match outcome {
        Outcome::Drained => {}
        Outcome::Forced { .. } => bail!("stopped before it had finished; run it again to go on"),
        Outcome::Failed(failed) => return Err(failed.into()),
    }
    store.close().await;
    result.try_recv().context("the command came to no result")?
}
