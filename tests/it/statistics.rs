//! What is counted, on every database: after an upgrade that brings the counts, over shards, and after a rebuild.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use notification_ledger::{
    clock::{Clock, ManualClock},
    event::{Event, Metadata},
    id::{MessageId, RecipientId},
    projection::{
        Projection as _, Row as _,
        statistics::{CATEGORIES_MAX, DailyCount, OTHERS, Statistics},
    },
    store::{
        Mode, Slot, Store,
        statistics::{CountBy, CountFilter},
    },
    stream::Mark,
    wake::Wake,
    worker::{Progress, Worker, project::Project, rebuild::Rebuild},
};
use serde_json::json;

use crate::support::{
    database::for_each_database,
    ledger::{TestLedger, incoming, manual_clock, open_store},
};

const QUIET: &(dyn Fn(u64, u64) + Send + Sync) = &|_, _| {};
const DAYS: usize = 3;
/// Databases may find some of them alike where they compare letters instead of bytes.
const CATEGORIES: [&str; 5] = ["pass", "Pass", "päss", "안내", "pass/1"];

/// On each of three days 20 messages of every category and 20 without one, to seven recipients, of which some are read.
async fn fill(it: &TestLedger, clock: &ManualClock) {
    for day in 0..DAYS {
        for (at, category) in CATEGORIES.iter().map(Some).chain([None]).enumerate() {
            let id = |n: usize| format!("m-{day}-{at}-{n}");
            let recipient = |n: usize| format!("user-{}", n % 7);
            let fields = category.map_or_else(|| json!({}), |it| json!({ "category": it }));
            let messages = (0..20).map(|n| incoming(&id(n), &recipient(n), fields.clone()));
            for receipt in it.ledger.accept(messages.collect()).await {
                receipt.unwrap();
            }
            for n in 0..=at {
                let marks = vec![(MessageId::new(&id(n)).unwrap(), Mark::Read)];
                let recipient = RecipientId::new(&recipient(n)).unwrap();
                for marked in it.ledger.mark(&recipient, marks, &Metadata::default()).await {
                    marked.unwrap().unwrap();
                }
            }
        }
        clock.advance(Duration::from_hours(24));
    }
}

async fn project(it: &TestLedger) {
    let mut projector = Project::new(it.ledger.clone(), 37, Wake::default());
    while projector.tick().await.unwrap() == Progress::Worked {}
}

fn rebuild(store: &Store, clock: &Arc<ManualClock>) -> Rebuild {
    Rebuild { store: store.clone(), projection: &Statistics, clock: clock.clone() }
}

fn filter(category: Option<&str>) -> CountFilter {
    let [since, until] = ["2026-11-22", "2026-11-24"].map(|it| it.parse().unwrap());
    CountFilter { since, until, category: category.map(ToOwned::to_owned) }
}

/// Received and read by what is told apart.
async fn counted(store: &Store, by: CountBy, category: Option<&str>) -> BTreeMap<String, (i64, i64)> {
    let rows = store.counted(&filter(category), by).await.unwrap();
    let named = |it: DailyCount| {
        let name = if by == CountBy::Day { it.day } else { it.category };
        (name, (it.messages_received, it.items_read))
    };
    rows.into_iter().map(named).collect()
}

/// What the events say, one by one.
async fn plain_count(it: &TestLedger, by: CountBy) -> BTreeMap<String, (i64, i64)> {
    let (mut counts, mut categories) = (BTreeMap::<_, (i64, i64)>::new(), BTreeMap::new());
    for event in it.log().await {
        if let Event::MessageReceived(first) = &event.body {
            categories.insert(event.message_id.clone(), first.message.category.clone().unwrap_or_default());
        }
        let day = event.recorded_at.to_string()[..10].to_owned();
        let name = if by == CountBy::Day { day } else { categories[&event.message_id].clone() };
        let (received, read) = counts.entry(name).or_default();
        match event.body.kind() {
            "message.received" => *received += 1,
            "inbox.read" => *read += 1,
            _ => {}
        }
    }
    counts
}

async fn expect_counted(it: &TestLedger) {
    for by in [CountBy::Day, CountBy::Category] {
        assert_eq!(counted(it.ledger.store(), by, None).await, plain_count(it, by).await, "{by:?}");
    }
}

/// Leaves the database as an older release had it, which knew nothing of the counts.
async fn forget(store: &Store) {
    let mut tx = store.db().begin(Mode::Write).await.unwrap();
    for table in Statistics.tables() {
        tx.script(format!("drop view {}", table.name)).await.unwrap();
        tx.script(format!("drop table {}_a", table.name)).await.unwrap();
    }
    for (table, column) in [("projection_checkpoints", "projection"), ("projections", "name")] {
        tx.script(format!("delete from {table} where {column} = 'statistics'")).await.unwrap();
    }
    tx.commit().await.unwrap();
}

for_each_database! {
    /// A ledger that an older release filled is counted from its first event on, beside what goes on; and the
    /// counts are those of a plain count, by day and by category, over all shards.
    async fn an_upgraded_ledger_counts_what_it_had(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 3).await, clock.clone());
        let store = it.ledger.store();
        forget(store).await;
        fill(&it, &clock).await;
        project(&it).await;
        assert_eq!(store.projection_state("statistics").await.unwrap(), None);

        // As every start does with all projections.
        let state = store.ensure_projection(&Statistics, clock.now()).await.unwrap();
        assert_eq!((state.version, state.live), (Statistics.version(), Slot::A));
        let head: i64 = store.heads().await.unwrap().iter().map(|it| it.position.0).sum();
        assert_eq!(store.behind("statistics").await.unwrap(), head);
        assert_eq!(store.behind("inbox").await.unwrap(), 0);
        assert!(counted(store, CountBy::Day, None).await.is_empty());
        project(&it).await;
        assert_eq!(store.behind("statistics").await.unwrap(), 0);
        expect_counted(&it).await;

        let [first, ..] = CATEGORIES;
        let days = counted(store, CountBy::Day, Some(first)).await;
        assert_eq!(days.values().copied().collect::<Vec<_>>(), [(20, 1); DAYS]);
        assert_eq!(counted(store, CountBy::Day, Some("")).await.values().next(), Some(&(20, 6)));
        let shards: Vec<_> = store.snapshot().await.unwrap().rows(DailyCount::TABLE, Slot::A, None, 1_000).await.unwrap();
        assert!(shards.len() > CATEGORIES.len() * DAYS, "several shards count");
        it.close().await;
    }

    /// A rebuild comes to the same counts, row by row, and so does what is counted after it.
    async fn a_rebuild_counts_the_same(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 3).await, clock.clone());
        fill(&it, &clock).await;
        project(&it).await;
        let store = it.ledger.store();
        let rebuilt = rebuild(store, &clock).rebuild(false, false, QUIET).await.unwrap();
        assert!(rebuilt.flipped, "{rebuilt:?}");
        let comparison = rebuilt.comparison.unwrap();
        assert_eq!(comparison.differing, 0, "{comparison:?}");
        expect_counted(&it).await;
        for receipt in it.ledger.accept(vec![incoming("late", "user-1", json!({ "category": "pass" }))]).await {
            receipt.unwrap();
        }
        project(&it).await;
        let proof = rebuild(store, &clock).verify(false, QUIET).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0), "{proof:?}");

        // A row that somebody changed by hand is found by its name.
        let mut tx = store.db().begin(Mode::Write).await.unwrap();
        let crime = "update daily_counts_b set items_read = items_read + 1 where category = 'pass' and day = '2026-11-23'";
        tx.script(crime.to_owned()).await.unwrap();
        tx.commit().await.unwrap();
        let proof = rebuild(store, &clock).verify(false, QUIET).await.unwrap();
        assert!(proof.differing > 0, "{proof:?}");
        it.close().await;
    }

    /// Producers that make categories up do not make the counts grow without end, whatever is folded at a time.
    async fn categories_without_end_are_counted_together(db: TestDb) {
        let clock = manual_clock();
        let it = TestLedger::on(open_store(&db, 1).await, clock.clone());
        let messages = (0..CATEGORIES_MAX + 50)
            .map(|n| incoming(&format!("m-{n}"), "user-1", json!({ "category": format!("c-{n}") })));
        for receipt in it.ledger.accept(messages.collect()).await {
            receipt.unwrap();
        }
        project(&it).await;
        let store = it.ledger.store();
        assert_eq!(counted(store, CountBy::Category, Some(OTHERS)).await[OTHERS], (50, 0));
        assert_eq!(counted(store, CountBy::Category, Some("c-199")).await["c-199"], (1, 0));
        assert_eq!(counted(store, CountBy::Category, None).await.len(), CATEGORIES_MAX);
        let proof = rebuild(store, &clock).verify(false, QUIET).await.unwrap();
        assert_eq!((proof.differing, proof.behind_events()), (0, 0), "{proof:?}");
        it.close().await;
    }
}
