//! What devices tell of pushes, on every database.

use std::time::Duration;

use notification_ledger::{
    clock::{Clock, Timestamp},
    event::{Event, Metadata, ReceiptKind},
    id::{DeliveryId, MessageId, Shard},
    ledger::{Ledger, LedgerOptions, reports::Reported},
    routing::Routing,
    stream::Report,
};
use serde_json::json;

use crate::{
    operate::start,
    support::{
        database::for_each_database,
        ledger::{incoming, manual_clock, open_store},
    },
};

fn report(message: &str, target: &str, kind: ReceiptKind, at: Option<Timestamp>) -> Report {
    let message_id = MessageId::new(message).unwrap();
    let delivery_id = DeliveryId::new(&message_id, target);
    Report { message_id, delivery_id, kind, at, detail: Some("왼쪽으로 🙂".to_owned()) }
}

fn words(answers: &[Reported]) -> Vec<&'static str> {
    let word = |it: &Reported| match it {
        Reported::Recorded(_) => "recorded",
        Reported::Known(_) => "known",
        Reported::Unknown => "unknown",
    };
    answers.iter().map(word).collect()
}

for_each_database! {
    /// Reports on messages of many shards go to their homes, each once, and are answered in their order.
    async fn reports_find_their_messages_and_count_once(db: TestDb) {
        let (store, clock) = (open_store(&db, 4).await, manual_clock());
        let options = LedgerOptions {
            batch_max: 500,
            routing: Routing::universal([("push".to_owned(), Duration::from_mins(1))]),
            dispatch: None,
        };
        let (ledger, appenders) = Ledger::new(store.clone(), clock.clone(), options);
        for appender in appenders {
            tokio::spawn(appender.run());
        }
        let received_at = clock.now();
        let fields = json!({ "notificationType": "PUSH", "push": { "targets": [{ "token": "t" }] } });
        let arrivals =
            (0..20).map(|it| incoming(&format!("m-{it}"), &format!("user-{it}"), fields.clone())).collect();
        assert!(ledger.accept(arrivals).await.iter().all(Result::is_ok));
        for it in 0..20 {
            start(&ledger, &format!("m-{it}")).await;
        }
        clock.advance(Duration::from_mins(10));
        let then = received_at.plus(Duration::from_mins(5));

        let mut reports: Vec<_> = (0..20)
            .rev()
            .map(|it| report(&format!("m-{it}"), "token:t", ReceiptKind::Opened, Some(then)))
            .collect();
        reports.insert(5, report("m-none", "token:t", ReceiptKind::Opened, None));
        reports.insert(9, report("m-3", "token:other", ReceiptKind::Opened, None));
        reports.push(report("m-3", "token:t", ReceiptKind::Opened, None));
        reports.push(report("m-3", "token:t", ReceiptKind::Dismissed, Some(Timestamp::from_micros(1))));
        let mut expected = vec!["recorded"; 24];
        (expected[5], expected[9], expected[22]) = ("unknown", "unknown", "known");
        let tell = || async {
            let answers = ledger.report(reports.clone(), &Metadata::default()).await;
            answers.into_iter().collect::<Result<Vec<_>, _>>().unwrap()
        };
        let answers = tell().await;
        assert_eq!(words(&answers), expected);
        let shards: std::collections::BTreeSet<Shard> = answers
            .iter()
            .filter_map(|it| match it {
                Reported::Recorded(cursor) => Some(cursor.shard),
                _ => None,
            })
            .collect();
        assert!(shards.len() > 1, "{shards:?}");
        let again = words(&tell().await);
        assert_eq!(again.iter().filter(|it| **it == "known").count(), 22, "{again:?}");

        let stream = store.stream(&MessageId::new("m-3").unwrap()).await.unwrap();
        let receipts: Vec<_> = stream
            .iter()
            .filter_map(|it| match &it.body {
                Event::PushReceipt(receipt) => Some((receipt.kind, it.occurred_at, receipt.detail.as_deref())),
                _ => None,
            })
            .collect();
        let detail = Some("왼쪽으로 🙂");
        let told = [(ReceiptKind::Opened, then, detail), (ReceiptKind::Dismissed, clock.now(), detail)];
        assert_eq!(receipts, told, "a time before the message came cannot be");
        assert_eq!(ledger.report(Vec::new(), &Metadata::default()).await.len(), 0);
    }
}
