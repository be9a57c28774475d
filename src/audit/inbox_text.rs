//! The same for people: one line an item, aligned, nothing that could steer a terminal.

use std::fmt::Write;

use super::{
    inbox::{ChangedField, Compared, Item, ItemChange, Listed, Tally},
    text::{clean, cut, table, time},
};
use crate::clock::Timestamp;

/// How much of a title stands in one line, in characters.
const TITLE_MAX: usize = 60;
/// How much of a field that changed.
const FIELD_MAX: usize = 40;

/// An inbox, newest first; `when` says of which moment.
#[must_use]
pub(crate) fn inbox_text(recipient: &str, when: &str, list: &Listed) -> String {
    let Listed { cursor, items, next, counts } = list;
    let mut out = format!("inbox of {} {when} (cursor {cursor})\n", clean(recipient));
    let _ = writeln!(out, "{}\n", tally(counts.overall));
    if items.is_empty() {
        out.push_str("no item that was asked for\n");
    }
    table(&mut out, &items.iter().map(row).collect::<Vec<_>>());
    if let Some(next) = next {
        let _ = writeln!(out, "\nolder ones follow: --before {next}");
    }
    out
}

/// What an inbox differs in between two moments.
#[must_use]
pub(crate) fn difference_text(recipient: &str, difference: &Compared) -> String {
    let Compared { from, to, added, changed, removed, changes, next } = difference;
    let mut out = format!("inbox of {}\n\n", clean(recipient));
    let moment = |name: &str, cursor: String, counts| vec![name.to_owned(), cursor, tally(counts)];
    let moments = [
        moment("from", from.cursor.to_string(), from.counts.overall),
        moment("to", to.cursor.to_string(), to.counts.overall),
    ];
    table(&mut out, &moments);
    let _ = writeln!(out, "\n{added} added, {changed} changed, {removed} removed");
    table(&mut out, &changes.iter().map(change).collect::<Vec<_>>());
    if let Some(next) = next {
        let _ = writeln!(out, "\nearlier ones follow: --before {next}");
    }
    out
}

fn tally(Tally { unseen, unread, total }: Tally) -> String {
    format!("{total} in all, {unread} unread, {unseen} unseen")
}

fn row(item: &Item) -> Vec<String> {
    vec![
        time(item.appeared_at.unwrap_or(item.received_at)),
        item.cursor.to_string(),
        item.message_id.clone(),
        state(item),
        item.category.as_deref().map_or_else(|| "-".to_owned(), clean),
        cut(&item.title, TITLE_MAX),
    ]
}

fn state(item: &Item) -> String {
    let state = match (item.read_at, item.seen_at) {
        (Some(_), _) => "read",
        (None, Some(_)) => "unread",
        (None, None) => "unseen",
    };
    if item.archived_at.is_some() { format!("{state}, archived") } else { state.to_owned() }
}

fn change(it: &ItemChange) -> Vec<String> {
    let fields: Vec<_> = it.fields.iter().map(field).collect();
    let about = if fields.is_empty() { cut(&it.item.title, TITLE_MAX) } else { fields.join(", ") };
    vec![it.change.to_owned(), it.cursor.to_string(), it.item.message_id.clone(), about]
}

fn field(it: &ChangedField) -> String {
    let value = |value: &Option<String>| match value {
        None => "none".to_owned(),
        Some(text) => Timestamp::parse(text).map_or_else(|| cut(text, FIELD_MAX), time),
    };
    format!("{} {} → {}", it.field, value(&it.old), value(&it.new))
}
