//! Runs `projections/<name>/cases/*.json`: given these events, expect these rows.
//!
//! Each case is folded in three ways that must agree: all at once in memory, event by event, and as
//! one batch, the last two over a store that hands out rows by key as the databases do. Cases are
//! short because everything has a default:
//!
//! - An event is of message `m-1`, at the time of the event before it (the first at 09:00), recorded
//!   when it happened. The recipient of a message is `user-1` until its `message.received` says else.
//! - `payload` needs only what the case is about. That of `message.received` and
//!   `message.conflicted` is the message itself, to inbox and push unless it says else.
//! - A text such as `09:05` or `09:05:30` is that time on 22 November 2026, UTC.
//! - A target is written `token:a`, and so is the id of the delivery to it; `unplanned` is the one
//!   that stands for them all. Payloads about a delivery are about `token:a`.
//! - `rows` names tables; every row must be there, no other, and every column that is named must be
//!   equal. `_us` columns are written as times.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value as Json, json};

use super::{ALL, Changes, Key, Keys, Projection, Rows, Table, Value, fold_in_memory};
use crate::{
    clock::Timestamp,
    event::{Metadata, Recorded, codec},
    id::{DeliveryId, MessageId, Position, RecipientId, Shard, Version},
    message::Target,
};

/// What a fold comes to.
pub(super) type Tables = Vec<(&'static Table, Vec<Vec<Value>>)>;

#[test]
fn every_case_folds_to_its_rows() {
    let mut faults = String::new();
    for &projection in ALL {
        let files = case_files(projection.name());
        assert!(!files.is_empty(), "{} has no cases", projection.name());
        for file in files {
            if let Err(fault) = check(projection, &file) {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                writeln!(faults, "{}/cases/{name}: {fault}", projection.name()).unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

fn case_files(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("projections").join(name).join("cases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    files
}

fn check(projection: &'static dyn Projection, file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).unwrap();
    let case: Json = serde_json::from_str(&text).map_err(|it| it.to_string())?;
    let known = ["about", "events", "rows"];
    if let Some(other) = case.as_object().ok_or("no object")?.keys().find(|it| !known.contains(&it.as_str()))
    {
        return Err(format!("has {other:?}, but a case has {known:?}"));
    }
    let events = read_events(case["events"].as_array().ok_or("has no events")?)?;

    let rows = fold_in_memory(projection, &events);
    for batch in [1, events.len()] {
        let batched = fold_in_batches(projection, events.chunks(batch))?;
        if batched != rows {
            let shown =
                |it: &Tables| it.iter().map(|(table, rows)| show_all(table, rows)).collect::<String>();
            let (memory, batched) = (shown(&rows), shown(&batched));
            return Err(format!("in batches of {batch} it folds to\n{batched}instead of\n{memory}"));
        }
    }
    let expected = case["rows"].as_object().filter(|it| !it.is_empty()).ok_or("expects no rows")?;
    expected.iter().try_for_each(|(name, expected)| compare(name, expected, &rows))
}

/// Folds batch by batch over a store that hands out rows by key.
pub(super) fn fold_in_batches<'e>(
    projection: &'static dyn Projection,
    batches: impl Iterator<Item = &'e [Recorded]>,
) -> Result<Tables, String> {
    let mut kept = Kept::default();
    for batch in batches {
        let mut keys = Keys::default();
        for event in batch {
            projection.touches(event, &mut keys);
        }
        let mut rows = Rows::default();
        for &table in projection.tables() {
            kept.load(table, &keys.of(table), &mut rows);
        }
        for event in batch {
            projection.fold(event, &mut rows);
        }
        for changes in rows.into_changes(projection.tables()) {
            kept.apply(changes)?;
        }
    }
    let all = |&table: &&'static Table| (table, kept.rows(table).into_values().collect());
    Ok(projection.tables().iter().map(all).collect())
}

/// Folds ranges one after the other over rows that stay in memory, as far as `bytes` reach. What a range came
/// to is written while the next is folded.
pub(super) fn fold_in_ranges<'e>(
    projection: &'static dyn Projection,
    ranges: impl Iterator<Item = &'e [Recorded]>,
    bytes: usize,
) -> Result<Tables, String> {
    let (mut kept, mut rows, mut writing) = (Kept::default(), Rows::default(), Vec::new());
    for range in ranges {
        let mut keys = Keys::default();
        for event in range {
            projection.touches(event, &mut keys);
        }
        for &table in projection.tables() {
            let missing = rows.missing(&keys, table);
            kept.load(table, &missing, &mut rows);
            rows.complete(&keys, table);
        }
        for event in range {
            projection.fold(event, &mut rows);
        }
        for changes in std::mem::replace(&mut writing, rows.changes(projection.tables())) {
            kept.apply(changes)?;
        }
        rows.forget(bytes);
    }
    for changes in writing {
        kept.apply(changes)?;
    }
    let all = |&table: &&'static Table| (table, kept.rows(table).into_values().collect());
    Ok(projection.tables().iter().map(all).collect())
}

/// Tables as a database keeps them: refuses to insert a row twice or to change one that is not there.
#[derive(Default)]
struct Kept(BTreeMap<&'static str, BTreeMap<Key, Vec<Value>>>);

impl Kept {
    fn rows(&self, table: &Table) -> BTreeMap<Key, Vec<Value>> {
        self.0.get(table.name).cloned().unwrap_or_default()
    }

    fn load(&self, table: &'static Table, firsts: &[&str], rows: &mut Rows) {
        for first in firsts {
            let start = vec![Value::text(*first)];
            let under = self.0.get(table.name).into_iter().flat_map(|it| it.range(start.clone()..));
            for (_, row) in under.take_while(|(key, _)| key[0] == start[0]) {
                rows.load(table, row.clone());
            }
        }
    }

    fn apply(&mut self, changes: Changes) -> Result<(), String> {
        let Changes { table, inserts, updates, deletes } = changes;
        let rows = self.0.entry(table.name).or_default();
        let check = |key: &Key, there: bool, expected: bool| {
            let was = if there { "is there already" } else { "is not there" };
            let fault = || format!("the row {key:?} of {} {was}; does the fold ask for it?", table.name);
            if there == expected { Ok(()) } else { Err(fault()) }
        };
        for row in inserts {
            let key = table.key_of(&row);
            check(&key, rows.insert(key.clone(), row).is_some(), false)?;
        }
        for row in updates {
            let key = table.key_of(&row);
            check(&key, rows.insert(key.clone(), row).is_some(), true)?;
        }
        for key in deletes {
            check(&key, rows.remove(&key).is_some(), true)?;
        }
        Ok(())
    }
}

fn read_events(events: &[Json]) -> Result<Vec<Recorded>, String> {
    let mut at = json!("09:00");
    let mut recipients: BTreeMap<String, String> = BTreeMap::new();
    let mut versions: BTreeMap<String, i32> = BTreeMap::new();
    let mut recorded = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let event = event.as_object().ok_or("an event is an object")?;
        let known = ["type", "at", "recordedAt", "messageId", "payload", "metadata"];
        if let Some(other) = event.keys().find(|it| !known.contains(&it.as_str())) {
            return Err(format!("event {index} has {other:?}, but an event has {known:?}"));
        }
        at = event.get("at").cloned().unwrap_or(at);
        let kind = event.get("type").and_then(Json::as_str).ok_or("an event needs a type")?;
        let message = event.get("messageId").and_then(Json::as_str).unwrap_or("m-1");
        let given = event.get("payload").cloned().unwrap_or_else(|| json!({}));
        if let Some(recipient) = given["recipientId"].as_str() {
            recipients.insert(message.into(), recipient.into());
        }
        let recipient = recipients.get(message).map_or("user-1", String::as_str);
        let payload = payload(kind, given, message, recipient, &at);
        let body = codec::decode(kind, 1, &payload.to_string())
            .map_err(|it| format!("event {index}, {it}: {payload}"))?;
        let metadata = event.get("metadata").cloned().unwrap_or_else(|| json!({}));
        let version = versions.entry(message.into()).and_modify(|it| *it += 1).or_insert(0);
        recorded.push(Recorded {
            shard: Shard(0),
            position: Position(i64::try_from(index).unwrap() + 1),
            message_id: MessageId::new(message).unwrap(),
            version: Version(*version),
            recipient_id: RecipientId::new(recipient).unwrap(),
            occurred_at: time(&at)?,
            recorded_at: time(event.get("recordedAt").unwrap_or(&at))?,
            body,
            metadata: serde_json::from_value::<Metadata>(metadata).map_err(|it| it.to_string())?,
        });
    }
    Ok(recorded)
}

/// What is given, with a default for everything else that an event of this type needs.
fn payload(kind: &str, given: Json, message: &str, recipient: &str, at: &Json) -> Json {
    let news = json!({
        "messageId": message, "recipientId": recipient,
        "notificationType": ["APP_NOTIFICATION", "PUSH"], "title": "Hello",
    });
    let about = |more: Json| {
        let provider = json!({"deliveryId": "token:a", "attempt": 1, "provider": "acme"});
        merge(merge(provider, more), given.clone())
    };
    let mut payload = match kind {
        "message.received" => json!({ "message": merge(news, given) }),
        "message.conflicted" => json!({ "contentHash": "00".repeat(32), "message": merge(news, given) }),
        "message.cancelled" | "message.erased" => merge(json!({ "reason": "as asked" }), given),
        "push.planned" => {
            let plan = |plan: &Json| {
                let to = json!({"deliveryId": plan["target"], "provider": "acme", "dueAt": at});
                let mut plan = merge(to, plan.clone());
                plan["target"] = json!(target(plan["target"].as_str().unwrap_or_default()));
                plan
            };
            let plans = given["deliveries"].as_array().into_iter().flatten().map(plan);
            json!({ "deliveries": plans.collect::<Vec<_>>() })
        }
        "push.attempt_started" => {
            about(json!({"providerKey": "key", "leaseUntil": "23:00", "worker": "worker-1"}))
        }
        "push.attempt_succeeded" | "push.attempt_pending" => {
            about(json!({"durationMs": 100, "settles": true}))
        }
        "push.attempt_failed" => about(json!({
            "class": "retry", "code": "http_503", "status": 503, "durationMs": 100, "settles": true,
        })),
        "push.rescheduled" => about(json!({"dueAt": at})),
        "push.attempt_lost" | "push.suppressed" | "push.receipt" => about(json!({})),
        "push.exhausted" => about(json!({"reason": "3 attempts were made", "attempts": 1})),
        _ => given,
    };
    spell_out(&mut payload, message);
    payload
}

/// `over` laid over `base`, field by field.
fn merge(mut base: Json, over: Json) -> Json {
    match (&mut base, over) {
        (Json::Object(fields), Json::Object(over)) => {
            for (name, value) in over {
                let before = fields.remove(&name).unwrap_or(Json::Null);
                fields.insert(name, merge(before, value));
            }
            base
        }
        (_, over) => over,
    }
}

/// Writes short times and the ids of deliveries in full, in place.
fn spell_out(json: &mut Json, message: &str) {
    match json {
        Json::String(_) => {
            if let Ok(time) = time(json) {
                *json = json!(time);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|it| spell_out(it, message)),
        Json::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(to) if name == "deliveryId" => {
                        *field = json!(delivery_id(message, to));
                    }
                    _ => spell_out(field, message),
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn delivery_id(message: &str, to: &str) -> String {
    let message = MessageId::new(message).unwrap();
    let to = if to == "unplanned" { String::new() } else { target(to).canonical() };
    DeliveryId::new(&message, &to).to_string()
}

fn target(text: &str) -> Target {
    let (kind, value) = text.split_once(':').unwrap_or(("token", text));
    match kind {
        "topic" => Target::Topic(value.into()),
        "alias" => Target::Alias(value.into()),
        "subscription" => Target::Subscription(value.into()),
        _ => Target::Token(value.into()),
    }
}

/// A time in full, or as `09:05` or `09:05:30`.
fn time(json: &Json) -> Result<Timestamp, String> {
    let text = json.as_str().unwrap_or_default();
    let full = match text.len() {
        5 => format!("2026-11-22T{text}:00Z"),
        8 => format!("2026-11-22T{text}Z"),
        _ => text.to_owned(),
    };
    Timestamp::parse(&full).ok_or_else(|| format!("{json} is not a time"))
}

/// Every expected row is there, and no other.
fn compare(name: &str, expected: &Json, tables: &Tables) -> Result<(), String> {
    let (table, rows) =
        tables.iter().find(|(table, _)| table.name == name).ok_or_else(|| format!("has no table {name}"))?;
    let mut left: Vec<_> = rows.iter().map(|row| show(table, row)).collect();
    let mut missing = Vec::new();
    for expected in expected.as_array().ok_or("rows are a list")? {
        let expected = expected.as_object().ok_or("a row is an object")?;
        let expected = spell_out_row(table, expected)?;
        match left.iter().position(|row| expected.iter().all(|(column, value)| row[column] == *value)) {
            Some(found) => _ = left.remove(found),
            None => missing.push(expected),
        }
    }
    let mut fault = String::new();
    for expected in missing {
        let differing =
            |row: &Map<String, Json>| expected.iter().filter(|(it, value)| row[*it] != **value).count();
        writeln!(fault, "{name} lacks {}", Json::Object(expected.clone())).unwrap();
        if let Some(nearest) = (0..left.len()).min_by_key(|index| differing(&left[*index])) {
            let nearest = left.remove(nearest);
            for (column, value) in expected.iter().filter(|(it, value)| nearest[*it] != **value) {
                writeln!(fault, "    {column} is {}, not {value}", nearest[column]).unwrap();
            }
        }
    }
    for row in left {
        writeln!(fault, "{name} has {}", Json::Object(row)).unwrap();
    }
    if fault.is_empty() { Ok(()) } else { Err(fault) }
}

/// An expected row with times and ids as [`show`] writes them.
fn spell_out_row(table: &Table, row: &Map<String, Json>) -> Result<Map<String, Json>, String> {
    let unknown = row.keys().find(|it| table.columns.iter().all(|column| column.name != it.as_str()));
    if let Some(unknown) = unknown {
        return Err(format!("{} has no column {unknown}", table.name));
    }
    let message = row.get("message_id").and_then(Json::as_str).unwrap_or("m-1").to_owned();
    let mut row = row.clone();
    for (column, value) in &mut row {
        if let Some(yes) = value.as_bool() {
            *value = json!(i64::from(yes));
        } else if column.ends_with("_us") && value.is_string() {
            *value = json!(time(value)?);
        } else if let (true, Some(to)) = (column == "delivery_id", value.as_str()) {
            *value = json!(delivery_id(&message, to));
        }
    }
    Ok(row)
}

/// A row as an object, times written as such.
fn show(table: &Table, row: &[Value]) -> Map<String, Json> {
    let cell = |name: &str, value: &Value| match value {
        Value::Int(micros) if name.ends_with("_us") => json!(Timestamp::from_micros(*micros)),
        other => json!(other),
    };
    let cells = table.columns.iter().zip(row);
    cells.map(|(column, value)| (column.name.to_owned(), cell(column.name, value))).collect()
}

fn show_all(table: &Table, rows: &[Vec<Value>]) -> String {
    let mut shown = String::new();
    for row in rows {
        writeln!(shown, "  {} {}", table.name, Json::Object(show(table, row))).unwrap();
    }
    shown
}
