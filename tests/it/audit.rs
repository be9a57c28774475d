//! `audit` on the command line: the real binary over a ledger that another process wrote.

use std::process::Output;

use notification_ledger::{
    event::Metadata,
    id::{MessageId, RecipientId},
    projection::ALL,
    store::Slot,
    stream::Mark,
};
use serde_json::{Value, json};

use crate::support::{
    database::{Kind, TestDb},
    ledger::{TestLedger, incoming, project_all},
    service::Service,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_a_message_is_printed_for_people_and_for_machines() {
    let db = TestDb::new(Kind::Sqlite).await;
    let ledger = TestLedger::new(&db, 1).await;
    let fields = json!({"push": {"targets": [{"token": "secret-device-token"}]}});
    for receipt in ledger.ledger.accept(vec![incoming("m-1", "user-1", fields)]).await {
        receipt.unwrap();
    }
    let (user, message) = (RecipientId::new("user-1").unwrap(), MessageId::new("m-1").unwrap());
    for marked in ledger.ledger.mark(&user, vec![(message, Mark::Read)], &Metadata::default()).await {
        marked.unwrap().unwrap();
    }
    for projection in ALL {
        project_all(ledger.ledger.store(), *projection, Slot::A, 100).await;
    }
    ledger.close().await;

    let service = Service::new(&format!("[database]\nurl = \"{}\"\n", db.url()));
    let text = succeeded(&service.run(&["audit", "message", "m-1"]).await);
    for expected in
        ["message m-1 for user-1", "title of m-1", "received", "read", "inbox: yes, at position 2 of 2"]
    {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    let json = succeeded(&service.run(&["audit", "message", "m-1", "--json"]).await);
    assert!(!json.contains("secret-device"), "{json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["state"]["inbox"], "read");

    let list = succeeded(&service.run(&["audit", "recipient", "user-1"]).await);
    assert!(list.contains("m-1") && list.contains("inbox read"), "{list}");
    let none = ["audit", "recipient", "user-1", "--until", "2020-01-01T00:00:00Z", "--json"];
    let none: Value = serde_json::from_str(&succeeded(&service.run(&none).await)).unwrap();
    assert_eq!(none, json!({"messages": [], "more": false}));

    let unknown = service.run(&["audit", "message", "m-2"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("the log has no message m-2"), "{unknown:?}");
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
