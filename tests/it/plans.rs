//! How the databases go about what is read of an inbox, and of the counts: by a range of an index, whatever is asked for. That SQLite does
//! is a test beside the statements.

use notification_ledger::{
    clock::Timestamp,
    id::{Position, RecipientId},
    projection::{Row as _, statistics::DailyCount},
    store::{
        Dialect,
        inbox::{Archived, InboxFilter, Status, explained},
        statistics::{self, CountFilter},
    },
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};

use crate::support::{
    database::{Kind, TestDb},
    ledger::open_store,
};

/// 20,000 items, a quarter of them in one inbox, few of them of one category or with an end to come.
const ITEMS: &str = "insert into inbox_items_a (message_id, recipient_id, shard, position, title, category, \
    received_at_us, appeared_at_us, state, due_at_us, last_position) \
    select concat('m-', n), case when mod(n, 4) = 0 then 'user-1' else concat('user-', mod(n, 500)) end, 0, n, 'News', \
    case when mod(n, 40) = 0 then 'pass' else 'news' end, n, n, mod(n, 6), \
    case when mod(n, 50) = 0 then n end, n from NUMBERS";
const COUNTERS: &str = "insert into inbox_counters_a (recipient_id, category, shard, unseen, unread, total, last_position) \
    select concat('user-', mod(n, 2000)), concat('c-', n / 2000), 0, 1, 1, 1, n from NUMBERS";

/// 51 years, a day of each: 400 categories in four shards.
fn counts() -> String {
    let names: Vec<_> = DailyCount::TABLE.columns.iter().map(|it| it.name).collect();
    let values = names.iter().map(|name| match *name {
        "slice" => "concat(2000 + floor(n / 400), '-11-22/', mod(n, 4))",
        "category" => "concat('c-', mod(n, 400))",
        "day" => "concat(2000 + floor(n / 400), '-11-22')",
        _ => "1",
    });
    let values = values.collect::<Vec<_>>().join(", ");
    format!("insert into daily_counts_a ({}) select {values} from NUMBERS", names.join(", "))
}

/// Every statement with the index that it has to ride on.
fn statements(dialect: Dialect) -> Vec<(String, String)> {
    let recipient = RecipientId::new("user-1").unwrap();
    let mut all = Vec::new();
    for status in [Status::All, Status::Unseen, Status::Unread, Status::Read] {
        for archived in [Archived::Exclude, Archived::Include, Archived::Only] {
            for category in [None, Some("pass".to_owned())] {
                let before = Some(Position(19_500));
                let filter = InboxFilter { before, status, archived, category, ..InboxFilter::default() };
                all.extend(explained(dialect, &recipient, &filter, Timestamp::from_micros(500)));
            }
        }
    }
    for category in [None, Some("c-1".to_owned())] {
        let [since, until] = ["2026-01-01", "2026-12-31"].map(|it| it.parse().unwrap());
        all.extend(statistics::explained(dialect, &CountFilter { since, until, category }));
    }
    all.into_iter().map(|(index, sql)| (index.replace("{slot}", "a"), sql)).collect()
}

/// Every object of a plan that has a member of this name.
fn having<'p>(plan: &'p Value, name: &str, found: &mut Vec<&'p Value>) {
    if plan.get(name).is_some() {
        found.push(plan);
    }
    match plan {
        Value::Array(list) => list.iter().for_each(|it| having(it, name, found)),
        Value::Object(members) => members.values().for_each(|it| having(it, name, found)),
        _ => {}
    }
}

#[tokio::test]
async fn postgres_reads_ranges_of_indexes() {
    let db = TestDb::new(Kind::Postgres).await;
    let store = open_store(&db, 1).await;
    let mut connection = PgConnection::connect(db.url()).await.unwrap();
    for fill in [ITEMS, COUNTERS, &counts()] {
        let fill = fill.replace("NUMBERS", "generate_series(1, 20000) as numbers (n)");
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql("analyze").execute(&mut connection).await.unwrap();
    for (index, sql) in statements(Dialect::Postgres) {
        let explain = AssertSqlSafe(format!("explain (format json) {sql}"));
        let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut connection).await.unwrap();
        let text = plan.to_string();
        assert!(!text.contains("Seq Scan"), "{sql}\n{plan:#}");
        assert!(text.contains(&format!("\"Index Name\":\"{index}")), "{index}: {sql}\n{plan:#}");
    }
    connection.close().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn mariadb_reads_ranges_of_indexes() {
    let db = TestDb::new(Kind::Mysql).await;
    let store = open_store(&db, 1).await;
    let mut connection = MySqlConnection::connect(db.url()).await.unwrap();
    for fill in [ITEMS, COUNTERS, &counts()] {
        let fill = fill.replace("NUMBERS", "(select seq as n from seq_1_to_20000) as numbers");
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql("analyze table inbox_items_a, inbox_counters_a, daily_counts_a")
        .execute(&mut connection)
        .await
        .unwrap();
    for (index, sql) in statements(Dialect::MySql) {
        let explain = AssertSqlSafe(format!("explain format=json {sql}"));
        let plan: String = sqlx::query_scalar(explain).fetch_one(&mut connection).await.unwrap();
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let mut tables = Vec::new();
        having(&plan, "table_name", &mut tables);
        let of_ours = |it: &&&Value| it["table_name"].as_str().is_some_and(|it| !it.starts_with('<'));
        let ours: Vec<_> = tables.iter().filter(of_ours).collect();
        assert!(!ours.is_empty(), "{plan:#}");
        for table in ours {
            let access = table["access_type"].as_str().unwrap();
            assert!(matches!(access, "range" | "ref"), "{access}: {sql}\n{plan:#}");
        }
        let is_key = ["inbox_counters_a", "daily_counts_a"].contains(&index.as_str());
        let key = if is_key { "PRIMARY" } else { &index };
        assert!(tables.iter().any(|it| it["key"] == key), "{key}: {sql}\n{plan:#}");
    }
    connection.close().await.unwrap();
    store.close().await;
}
