//! The same for people: one line a fact, times in UTC, aligned, nothing that could steer a terminal.

use std::fmt::Write;

use super::{Audit, Entry, Shown, Summary};
use crate::{
    clock::Timestamp,
    event::{Decision, Event, Metadata, PushAttemptFailed, ReceiptKind, Recorded, SuppressReason, Verdict},
    id::DeliveryId,
    message::Target,
};

/// How much of a text stands in one line, in characters.
const LINE_MAX: usize = 120;

/// The timeline of one message.
#[must_use]
pub fn message_text(audit: &Audit) -> String {
    let mut out = head(audit);
    out.push('\n');
    let rows: Vec<_> = audit.timeline.iter().map(|entry| line(entry, audit)).collect();
    table(&mut out, &rows);
    out.push('\n');
    let mut foot = vec![field("redelivered", again(audit))];
    foot.extend(audit.projections.iter().map(|it| field("projected", shown(it))));
    table(&mut out, &foot);
    out
}

/// What a recipient was told, newest first; `more` says that older messages follow.
#[must_use]
pub fn recipient_text(recipient: &str, messages: &[Summary], more: bool) -> String {
    let mut out = String::new();
    if messages.is_empty() {
        let _ = writeln!(out, "no message for {} in that time", clean(recipient));
        return out;
    }
    let _ = writeln!(out, "messages for {}, newest first\n", clean(recipient));
    let row = |it: &Summary| {
        vec![
            time(it.received_at),
            it.message_id.clone(),
            it.notification_type.join("+"),
            format!("push {}", it.push),
            format!("inbox {}", it.inbox),
            cut(&it.title, 60),
        ]
    };
    table(&mut out, &messages.iter().map(row).collect::<Vec<_>>());
    if more {
        let last = messages.last().map(|it| it.received_at.to_string()).unwrap_or_default();
        let _ = writeln!(out, "\nolder ones follow: --until {last}");
    }
    out
}

fn head(audit: &Audit) -> String {
    let Audit { state, message, .. } = audit;
    let mut out = format!("message {} for {}\n\n", state.message_id, clean(&state.recipient_id));
    let mut rows = vec![field("title", cut(&message.title, LINE_MAX))];
    rows.extend(message.body.as_deref().map(|body| field("body", cut(body, LINE_MAX))));
    let mut about = vec![state.notification_type.join(" and ")];
    about.extend(state.category.as_ref().map(|it| format!("category {}", clean(it))));
    about.extend(state.source.as_ref().map(|it| format!("from {}", clean(it))));
    rows.push(field("type", about.join(", ")));
    rows.extend(audit.content_hash.map(|it| field("content", format!("sha256 {it:?}"))));
    rows.push(field("now", now(state)));
    table(&mut out, &rows);
    out
}

fn now(state: &Summary) -> String {
    let mut parts = Vec::new();
    let counts = state.deliveries;
    parts.push(match counts.total {
        0 | 1 => format!("push {}", state.push),
        total => format!("push {} ({} of {total} accepted)", state.push, counts.accepted),
    });
    parts.extend(state.first_delivered_at.map(|at| format!("delivered {}", time(at))));
    parts.extend(state.first_opened_at.map(|at| format!("opened {}", time(at))));
    parts.push(format!("inbox {}", state.inbox));
    parts.extend(state.cancelled_at.map(|at| format!("cancelled {}", time(at))));
    parts.extend(state.erased_at.map(|at| format!("erased {}", time(at))));
    parts.join(", ")
}

fn again(audit: &Audit) -> String {
    let it = &audit.redeliveries;
    let mut text = match (it.redelivered, it.conflicting) {
        (0, 0) => return "never".to_owned(),
        (again, 0) => times(again),
        (0, other) => format!("{} with content of a conflict", times(other)),
        (again, other) => format!("{}, and {} with content of a conflict", times(again), times(other)),
    };
    let last = it.last_at.map(|at| format!(", last {}", time(at)));
    let door = it.last_ingress.as_ref().map(|door| format!(" by {}", clean(door)));
    text.extend(last.into_iter().chain(door));
    text
}

fn shown(it: &Shown) -> String {
    let Shown { projection, position, head, .. } = it;
    let what = match (it.agrees, it.complete, it.present) {
        (false, ..) => "DIFFERS from the log; run projections verify",
        (true, false, false) => "not yet",
        (true, false, true) => "in part",
        (true, true, true) => "yes",
        (true, true, false) => "nothing of it belongs there",
    };
    let mut text = format!("{projection}: {what}, at position {position} of {head}");
    if let Some(reason) = &it.parked {
        let _ = write!(text, ", parked: {}", cut(reason, LINE_MAX));
    }
    text
}

fn line(entry: &Entry, audit: &Audit) -> Vec<String> {
    let event = &entry.0;
    let (what, mut detail) = words(event, audit);
    // Who started an attempt is part of what it says.
    let is_said = matches!(event.body, Event::PushAttemptStarted(_));
    if let Some(actor) = event.metadata.actor.as_ref().filter(|_| !is_said) {
        let comma = if detail.is_empty() { "" } else { ", " };
        let _ = write!(detail, "{comma}by {}", clean(actor));
    }
    if let Some(note) = &event.metadata.note {
        let _ = write!(detail, ": {}", clean(note));
    }
    vec![time(event.recorded_at), event.cursor().to_string(), what, detail]
}

/// What happened, and the rest of the sentence.
fn words(event: &Recorded, audit: &Audit) -> (String, String) {
    let now = event.recorded_at;
    let way = |provider: &str, id: DeliveryId| format!("{} → {}", clean(provider), target(audit, id));
    let (what, detail) = match &event.body {
        Event::MessageReceived(_) => ("received", received(&event.metadata, audit.message.occurred_at, now)),
        Event::MessageConflicted(it) => {
            let hash: String = format!("{:?}", it.content_hash).chars().take(16).collect();
            ("conflict", format!("the same id with other content, sha256 {hash}…"))
        }
        Event::MessageCancelled(it) => ("cancelled", clean(&it.reason)),
        Event::InboxSeen => ("seen", String::new()),
        Event::InboxRead => ("read", String::new()),
        Event::InboxClicked => ("clicked", String::new()),
        Event::InboxUnread => ("unread", String::new()),
        Event::InboxArchived => ("archived", String::new()),
        Event::InboxUnarchived => ("unarchived", String::new()),
        Event::InboxDeleted => ("deleted", String::new()),
        Event::InboxPresented => ("presented", "its time had come".to_owned()),
        Event::InboxExpired => ("expired", "it is in no list any more".to_owned()),
        Event::PushPlanned(it) => {
            let ways = it.deliveries.iter().map(|it| {
                let mut way = format!("{} → {}", clean(&it.provider), clean(&it.target.masked()));
                if let Some(device) = &it.device_id {
                    let _ = write!(way, " of device {}", clean(device.as_str()));
                }
                if !it.fallbacks.is_empty() {
                    let _ = write!(way, ", else {}", clean(&it.fallbacks.join(", ")));
                }
                if it.due_at > now { format!("{way}, due {}", near(it.due_at, now)) } else { way }
            });
            ("planned", ways.collect::<Vec<_>>().join("; "))
        }
        Event::PushAttemptStarted(it) => {
            let way = way(&it.provider, it.delivery_id);
            let detail = format!("{way}, held until {} by {}", near(it.lease_until, now), clean(&it.worker));
            return (format!("attempt {}", it.attempt), detail);
        }
        Event::PushAttemptSucceeded(it) => {
            let mut parts = vec![way(&it.provider, it.delivery_id)];
            parts.extend(it.status.map(|status| format!("HTTP {status}")));
            parts.extend(it.provider_message_id.as_ref().map(|id| format!("id {}", cut(id, 60))));
            parts.push(format!("{} ms", it.duration_ms));
            parts.extend((!it.settles).then(|| "too late to count".to_owned()));
            return (format!("attempt {}: accepted", it.attempt), parts.join(", "));
        }
        Event::PushAttemptPending(it) => {
            let way = way(&it.provider, it.delivery_id);
            let asked = near(it.ask_at, now);
            let detail = format!("{way}, ticket {}, to be asked for at {asked}", cut(&it.ticket, 60));
            return (format!("attempt {}: pending", it.attempt), detail);
        }
        Event::PushAttemptFailed(it) => {
            let what = format!("attempt {}: {}", it.attempt, it.class.as_str());
            return (what, failed(it, way(&it.provider, it.delivery_id), now));
        }
        Event::PushAttemptLost(it) => {
            let way = way(&it.provider, it.delivery_id);
            let detail = format!("{way}, nobody knows how it ended; {}", decision(&it.decision, now));
            return (format!("attempt {}: lost", it.attempt), detail);
        }
        Event::PushSuppressed(it) => {
            ("suppressed", format!("{}: {}", target(audit, it.delivery_id), reason(it.reason)))
        }
        Event::PushRescheduled(it) => {
            let way = way(&it.provider, it.delivery_id);
            (it.cause.as_str(), format!("{way}, due {}: {}", near(it.due_at, now), clean(&it.reason)))
        }
        Event::PushExhausted(it) => {
            let end = match it.verdict {
                Verdict::Failed => "failed",
                Verdict::Unknown => "outcome unknown",
            };
            let target = target(audit, it.delivery_id);
            ("given up", format!("{target}: {end} after {}, {}", count(it.attempts), clean(&it.reason)))
        }
        Event::PushReceipt(it) => {
            let detail = it.detail.as_ref().map(|it| format!(", {}", cut(it, LINE_MAX))).unwrap_or_default();
            let (target, kind) = (target(audit, it.delivery_id), receipt(it.kind));
            let happened =
                (event.occurred_at != now).then(|| format!(" at {}", near(event.occurred_at, now)));
            ("receipt", format!("{target}: {kind}{}{detail}", happened.unwrap_or_default()))
        }
        Event::MessageErased(it) => ("erased", clean(&it.reason)),
        Event::Skipped(it) => ("left out", format!("{}: {}", clean(&it.kind), clean(&it.reason))),
    };
    (what.to_owned(), detail)
}

fn failed(it: &PushAttemptFailed, way: String, now: Timestamp) -> String {
    let mut parts = vec![way];
    parts.extend(it.status.map(|status| format!("HTTP {status}")));
    parts.push(clean(&it.code));
    parts.extend(it.answer.as_ref().map(|answer| format!("{:?}", cut(answer, 80))));
    parts.push(format!("{} ms", it.duration_ms));
    let decision = if it.settles { decision(&it.decision, now) } else { "too late to count".to_owned() };
    format!("{}; {decision}", parts.join(", "))
}

fn decision(decision: &Decision, now: Timestamp) -> String {
    match decision {
        Decision::RetryAt { at, policy } => format!("again at {} ({})", near(*at, now), clean(policy)),
        Decision::GiveUp { policy } => format!("no further attempt ({})", clean(policy)),
    }
}

const fn reason(reason: SuppressReason) -> &'static str {
    match reason {
        SuppressReason::Expired => "expired before the first attempt",
        SuppressReason::Cancelled => "cancelled",
        SuppressReason::NoTarget => "nowhere to send it",
        SuppressReason::OptedOut => "the recipient does not want it",
        SuppressReason::Superseded => "a newer message took its place",
        SuppressReason::Moved => "the device has another target by now, which takes its place",
    }
}

/// What a receipt says; that a provider accepted a push is another matter.
const fn receipt(kind: ReceiptKind) -> &'static str {
    match kind {
        ReceiptKind::Delivered => "reached the device",
        ReceiptKind::Opened => "opened on the device",
        ReceiptKind::Dismissed => "swept away on the device",
        ReceiptKind::InvalidTarget => "the target is no more",
    }
}

fn received(how: &Metadata, occurred_at: Option<Timestamp>, recorded_at: Timestamp) -> String {
    let mut parts = vec![how.ingress.as_deref().map_or_else(|| "unknown door".to_owned(), clean)];
    parts.extend(how.envelope.as_ref().map(|it| format!("in {} envelope", clean(it))));
    parts.extend(how.queue_message_id.as_ref().map(|it| format!("queue id {}", clean(it))));
    parts.extend(how.receive_count.map(|it| format!("receive {it}")));
    parts.extend(how.sent_at.map(|at| format!("sent {}", near(at, recorded_at))));
    parts.extend(occurred_at.map(|at| format!("happened {}", near(at, recorded_at))));
    parts.extend(how.weak_id.as_ref().map(|it| format!("under a weak id ({})", clean(it))));
    if !how.unknown_fields.is_empty() {
        parts.push(format!("unknown fields {}", cut(&how.unknown_fields.join(" "), LINE_MAX)));
    }
    parts.join(", ")
}

/// The target of a delivery by what was planned.
fn target(audit: &Audit, id: DeliveryId) -> String {
    let planned = audit.timeline.iter().find_map(|entry| match &entry.0.body {
        Event::PushPlanned(plan) => plan.deliveries.iter().find(|it| it.delivery_id == id),
        _ => None,
    });
    planned.map_or_else(|| "the push".to_owned(), |it| clean(&Target::masked(&it.target)))
}

fn times(count: i64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

fn count(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

/// To the millisecond: `2026-11-22T09:00:00.123Z`.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.to_string();
    text.strip_suffix("Z")
        .and_then(|it| it.get(..it.len().saturating_sub(3)))
        .map_or_else(|| text.clone(), |it| format!("{it}Z"))
}

/// The same without the date where that is the date of `now`.
fn near(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (time(at), time(now));
    match (at.split_once('T'), now.split_once('T')) {
        (Some((day, clock)), Some((today, _))) if day == today => clock.to_owned(),
        _ => at,
    }
}

/// Without anything that a terminal could take for a command or that breaks the line.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction(c) { ' ' } else { c }).collect()
}

/// Characters that turn the direction of writing around.
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(super) fn cut(text: &str, max: usize) -> String {
    let mut cut: String = clean(text).chars().take(max).collect();
    if text.chars().count() > max {
        cut.push('…');
    }
    cut
}

fn field(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

/// Columns as wide as their widest cell; the last one as it is.
pub(super) fn table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|it| it.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<width$}  ", width = widths[at]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
