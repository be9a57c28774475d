//! `docs/producers.md` says what is so: its code runs, its JSON is JSON, its codes are the codes.

use std::collections::BTreeSet;

use notification_ledger::{
    ledger::{Receipt, intake::Taken},
    message::RejectionCode,
    source::{Source, sqs::Sqs},
};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    ingest::{credentials, options},
    support::{
        database::{Kind, TestDb},
        ledger::TestLedger,
        queue::{ACCESS_KEY, Queue, QueueSettings, REGION},
        variable,
    },
};

const PAGE: &str = include_str!("../../docs/producers.md");

/// The blocks of code in one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    PAGE.split(begin.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Has a producer of the page send 23 messages, two of them twice, and looks at what the ledger got.
async fn sends_messages(mut command: Command) {
    let (db, queue) = (TestDb::new(Kind::Sqlite).await, Queue::new(QueueSettings::default()).await);
    let test = TestLedger::new(&db, 1).await;
    command.env("NOTIFICATIONS_QUEUE_URL", &queue.url);
    command.env("AWS_DEFAULT_REGION", REGION).env("AWS_REGION", REGION);
    command.env("AWS_ENDPOINT_URL", variable("LEDGER_TEST_SQS_ENDPOINT"));
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", ACCESS_KEY);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let source = Sqs::open_with(options(&queue.url), &credentials()).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < 25 {
        taken.extend(test.ledger.take_in(source.ingress(), source.receive().await.unwrap()).await);
    }
    let count = |wanted: fn(&Taken) -> bool| taken.iter().filter(|it| wanted(it)).count();
    assert_eq!(count(|it| matches!(it, Taken::Accepted(Receipt::Appended(_)))), 23);
    assert_eq!(count(|it| matches!(it, Taken::Accepted(Receipt::Redelivered(_)))), 2);
    for event in test.log().await {
        let id: uuid::Uuid = event.message_id.as_str().parse().unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
    }
    test.close().await;
}

#[tokio::test]
async fn the_python_producer_of_the_page_sends_messages() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notify.py"), blocks("python")[0]).unwrap();
    let script = "from notify import notification, send\n\
                  messages = [notification('user-42', f'title {n}', category='pass') for n in range(23)]\n\
                  send(messages)\n\
                  send(messages[:2])\n";
    let mut command = Command::new(variable("LEDGER_TEST_PYTHON"));
    command.args(["-B", "-c", script]).current_dir(folder.path());
    sends_messages(command).await;
}

#[tokio::test]
async fn the_node_producer_of_the_page_sends_messages() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notify.mjs"), blocks("js")[0]).unwrap();
    let script = "import { notification, send } from './notify.mjs';\n\
                  const title = (_, n) => notification('user-42', `title ${n}`, { category: 'pass' });\n\
                  const messages = Array.from({ length: 23 }, title);\n\
                  await send(messages);\n\
                  await send(messages.slice(0, 2));\n";
    std::fs::write(folder.path().join("main.mjs"), script).unwrap();
    let modules = variable("LEDGER_TEST_NODE_MODULES");
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let mut command = Command::new("node");
    command.arg("main.mjs").current_dir(folder.path());
    sends_messages(command).await;
}

#[test]
fn the_policies_of_the_page_are_json() {
    let policies = blocks("json");
    assert_eq!(policies.len(), 3);
    for policy in policies {
        let policy: Value = serde_json::from_str(policy).unwrap_or_else(|error| panic!("{error}: {policy}"));
        assert_eq!(policy["Version"], "2012-10-17");
    }
}

#[test]
fn the_page_explains_every_code_and_no_other() {
    let table = PAGE.split("\n## What is refused").nth(1).unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let explained: BTreeSet<_> =
        cells.flat_map(|cell| cell.split(", ")).map(|code| code.trim_matches('`')).collect();
    assert_eq!(explained, RejectionCode::ALL.iter().map(|it| it.as_str()).collect());
}
