//! What the cases have no room for: more categories than are counted by name.

use std::collections::BTreeMap;

use serde_json::json;

use super::{CATEGORIES_MAX, DailyCount, OTHERS, Statistics};
use crate::{
    clock::Timestamp,
    event::{Event, MessageReceived, Metadata, Recorded},
    id::{MessageId, Position, RecipientId, Shard, Version},
    projection::{Row as _, fold_in_memory},
};

fn event(position: usize, message: &str, version: i32, body: Event) -> Recorded {
    let at = Timestamp::from_micros(i64::try_from(position).unwrap());
    Recorded {
        shard: Shard(3),
        position: Position(i64::try_from(position).unwrap()),
        message_id: MessageId::new(message).unwrap(),
        version: Version(version),
        recipient_id: RecipientId::new("user-1").unwrap(),
        occurred_at: at,
        recorded_at: at,
        body,
        metadata: Metadata::default(),
    }
}

fn received(message: &str, category: &str) -> Event {
    let message = json!({
        "messageId": message, "recipientId": "user-1", "notificationType": ["APP_NOTIFICATION"],
        "title": "Hello", "category": category,
    });
    Event::MessageReceived(MessageReceived { message: serde_json::from_value(message).unwrap() })
}

#[test]
fn categories_beyond_the_first_of_a_day_are_counted_together() {
    let mut log = Vec::new();
    for n in 0..CATEGORIES_MAX + 10 {
        // Two of each, and one that is read, also of those that have no name of their own.
        for id in [format!("m-{n}"), format!("n-{n}")] {
            log.push(event(log.len() + 1, &id, 0, received(&id, &format!("c-{n}"))));
        }
        log.push(event(log.len() + 1, &format!("m-{n}"), 1, Event::InboxRead));
    }
    let (_, rows) = fold_in_memory(&Statistics, &log).swap_remove(0);
    let rows: BTreeMap<_, _> =
        rows.into_iter().map(DailyCount::from_values).map(|it| (it.category.clone(), it)).collect();
    assert_eq!(rows.len(), CATEGORIES_MAX + 1);
    let counts = |category: &str| (rows[category].messages_received, rows[category].items_read);
    assert_eq!(counts("c-0"), (2, 1));
    assert_eq!(counts(&format!("c-{}", CATEGORIES_MAX - 1)), (2, 1));
    assert_eq!(counts(OTHERS), (20, 10));
    assert!(
        rows.values()
            .all(|it| (it.slice.as_str(), it.day.as_str(), it.shard) == ("1970-01-01/3", "1970-01-01", 3))
    );
}
