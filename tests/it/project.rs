//! The projector in its loop, beside shards and projections that fail: on every database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use notification_ledger::{
    id::{RecipientId, Shard},
    ledger::Ledger,
    projection::ALL,
    store::{Mode, Slot},
    wake::Wake,
    worker::{self, Progress, WorkError, Worker, project::Project},
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    database::for_each_database,
    eventually,
    ledger::{TestLedger, forge_future, incoming},
};

const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Counts what the loop gets to hear.
struct Heard {
    projector: Project,
    ticks: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Worker for Heard {
    fn name(&self) -> &str {
        self.projector.name()
    }

    async fn tick(&mut self) -> Result<Progress, WorkError> {
        let progress = self.projector.tick().await;
        self.ticks.fetch_add(1, Ordering::SeqCst);
        self.failed.fetch_add(usize::from(progress.is_err()), Ordering::SeqCst);
        progress
    }
}

/// The worker's own loop around a projector.
struct Running {
    ticks: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), WorkError>>,
}

impl Running {
    fn start(ledger: &Ledger) -> Self {
        let projector = Project::new(ledger.clone(), 500, Wake::default());
        let (ticks, failed, stop) = (Arc::default(), Arc::default(), CancellationToken::new());
        let heard = Heard { projector, ticks: Arc::clone(&ticks), failed: Arc::clone(&failed) };
        let task = tokio::spawn(worker::run(heard, ledger.appended(), POLL, stop.clone()));
        Self { ticks, failed, stop, task }
    }

    /// Lets it look a few times more.
    async fn some_ticks(&self) {
        let from = self.ticks.load(Ordering::SeqCst);
        let more = async || self.ticks.load(Ordering::SeqCst) >= from + 6;
        eventually("the loop goes on", PATIENCE, more).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Whether these projections have folded all of a shard.
async fn is_folded(ledger: &Ledger, shard: Shard, projections: &[&str]) -> bool {
    let mut places = ledger.store().checkpoints().await.unwrap();
    places.retain(|it| {
        it.slot == Slot::A && it.shard == shard && projections.contains(&it.projection.as_str())
    });
    assert_eq!(places.len(), projections.len());
    places.iter().all(|it| it.position == it.head)
}

async fn accept(ledger: &Ledger, id: &str, recipient: &str) {
    ledger.accept(vec![incoming(id, recipient, json!({}))]).await.remove(0).unwrap();
}

/// Two recipients that live in two shards, the first in the first.
fn strangers(ledger: &Ledger) -> [(&'static str, Shard); 2] {
    let home = |id| (id, ledger.store().shard_of(&RecipientId::new(id).unwrap()));
    assert_ne!(home("user-1").1, home("user-2").1);
    [home("user-1"), home("user-2")]
}

for_each_database! {
    /// A parked shard pauses alone: the loop hears of no failure, and the other shard is folded at once.
    async fn a_parked_shard_holds_up_no_other(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        let (ledger, all) = (&it.ledger, ALL.iter().map(|it| it.name()).collect::<Vec<_>>());
        let [(one, parked), (other, free)] = strangers(ledger);
        accept(ledger, "m-1", one).await;
        forge_future(ledger.store(), parked, "m-1").await;
        let running = Running::start(ledger);
        let is_parked = async || {
            let places = ledger.store().checkpoints().await.unwrap();
            places.iter().filter(|it| it.parked.is_some()).count() == all.len()
        };
        eventually("every projection is parked there", PATIENCE, is_parked).await;
        running.some_ticks().await;
        accept(ledger, "m-2", other).await;
        eventually("the other shard is folded", Duration::from_secs(5), async || {
            is_folded(ledger, free, &all).await
        })
        .await;
        assert_eq!(running.failed.load(Ordering::SeqCst), 0, "no step failed, so none was put off");
        running.stop().await;
        it.close().await;
    }

    /// A projection that cannot be folded holds up no other, in its own shard neither; when it can, it goes on.
    async fn a_failing_projection_holds_up_no_other(db: TestDb) {
        let it = TestLedger::new(&db, 2).await;
        let ledger = &it.ledger;
        let [(one, shard), _] = strangers(ledger);
        accept(ledger, "m-1", one).await;
        let running = Running::start(ledger);
        eventually("the first is folded", PATIENCE, async || is_folded(ledger, shard, &["inbox"]).await).await;
        rename(ledger, "m-1", "m-2").await;
        accept(ledger, "m-2", one).await;
        let others = ["deliveries", "messages"];
        eventually("the others are folded", PATIENCE, async || is_folded(ledger, shard, &others).await).await;
        running.some_ticks().await;
        assert!(!is_folded(ledger, shard, &["inbox"]).await, "the forged row is in the way");
        accept(ledger, "m-3", one).await;
        eventually("the others are folded", Duration::from_secs(5), async || {
            is_folded(ledger, shard, &others).await
        })
        .await;
        assert_eq!(running.failed.load(Ordering::SeqCst), 0, "no step failed, so none was put off");

        rename(ledger, "m-2", "m-1").await;
        eventually("it goes on by itself", PATIENCE, async || is_folded(ledger, shard, &["inbox"]).await).await;
        running.stop().await;
        it.close().await;
    }
}

/// Forges the key of a row in the inbox.
async fn rename(ledger: &Ledger, from: &str, to: &str) {
    let mut tx = ledger.store().db().begin(Mode::Write).await.unwrap();
    let crime = format!("update inbox_items_a set message_id = '{to}' where message_id = '{from}'");
    tx.script(crime).await.unwrap();
    tx.commit().await.unwrap();
}
