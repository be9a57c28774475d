//! The numbers the service counts, each named once.
//!
//! Names, meaning and units are what operators build alerts on; `docs/operating.md` lists them. Labels
//! are few and small by construction: never an id, never a recipient.

use std::{sync::Arc, time::Duration};

use metrics::{SharedString, Unit, counter, gauge, histogram};

use crate::{event::FailureClass, id::Shard, message::RejectionCode, projection};

/// Messages that came in. Labels: `ingress`.
pub const RECEIVED_TOTAL: &str = "notification_ledger_received_total";
/// Messages appended to the log. Labels: `ingress`.
pub const APPENDED_TOTAL: &str = "notification_ledger_appended_total";
/// Messages that the log already had, with the same content. Labels: `ingress`.
pub const REDELIVERED_TOTAL: &str = "notification_ledger_redelivered_total";
/// Messages whose id the log already had with other content. Labels: `ingress`.
pub const CONFLICTS_TOTAL: &str = "notification_ledger_conflicts_total";
/// Inputs put into quarantine. Labels: `reason`.
pub const QUARANTINED_TOTAL: &str = "notification_ledger_quarantined_total";
/// Inputs refused with an answer. Labels: `ingress`, `reason`.
pub const REJECTED_TOTAL: &str = "notification_ledger_rejected_total";
/// How long one append transaction took.
pub const APPEND_SECONDS: &str = "notification_ledger_append_seconds";
/// Messages and commands in one append transaction.
pub const APPEND_BATCH_SIZE: &str = "notification_ledger_append_batch_size";
/// Messages and commands that went through an append transaction, whatever came of them.
pub const APPEND_ENTRIES_TOTAL: &str = "notification_ledger_append_entries_total";
/// Events folded into a live slot. Labels: `projection`.
pub const PROJECTED_TOTAL: &str = "notification_ledger_projected_total";
/// Events that a projection has not folded yet. Labels: `projection`, `shard`.
pub const PROJECTION_LAG_EVENTS: &str = "notification_ledger_projection_lag_events";
/// Age of the oldest event that a projection has not folded yet. Labels: `projection`.
pub const PROJECTION_LAG_SECONDS: &str = "notification_ledger_projection_lag_seconds";
/// 1 while some process rebuilds a projection. Labels: `projection`.
pub const REBUILD_RUNNING: &str = "notification_ledger_rebuild_running";
/// Events that the slot which is rebuilt has folded. Labels: `projection`, `shard`.
pub const REBUILD_FOLDED_EVENTS: &str = "notification_ledger_rebuild_folded_events";
/// Events that it has to fold. Labels: `projection`, `shard`.
pub const REBUILD_ALL_EVENTS: &str = "notification_ledger_rebuild_all_events";
/// Events that a rebuild folds a second. Labels: `projection`.
pub const REBUILD_EVENTS_PER_SECOND: &str = "notification_ledger_rebuild_events_per_second";
/// 1 while the live tables are of another version than this release's, and stand still. Labels: `projection`.
pub const PROJECTION_STANDS_STILL: &str = "notification_ledger_projection_stands_still";
/// Rows of a projection's live tables that are not what the log says, among those proved in the last step; must be 0.
/// Labels: `projection`.
pub const PROJECTION_DRIFT_ROWS: &str = "notification_ledger_projection_drift_rows";
/// Rows of a projection's live tables that were proved against the log. Labels: `projection`.
pub const PROJECTION_PROVED_ROWS_TOTAL: &str = "notification_ledger_projection_proved_rows_total";
/// Deliveries whose time has come, up to 100,000. Labels: `provider`, empty while unplanned.
pub const DELIVERIES_DUE: &str = "notification_ledger_deliveries_due";
/// Deliveries whose time came more than a minute ago. Labels: `provider`, empty while unplanned.
pub const DELIVERIES_OVERDUE: &str = "notification_ledger_deliveries_overdue";
/// Attempts to push that ended. Labels: `provider`, `outcome`.
pub const DELIVERY_ATTEMPTS_TOTAL: &str = "notification_ledger_delivery_attempts_total";
/// How long the call to the provider took. Labels: `provider`.
pub const DELIVERY_SECONDS: &str = "notification_ledger_delivery_seconds";
/// Times that a provider was paused by itself; an alert. Labels: `provider`, `cause`.
pub const PROVIDER_PAUSED_TOTAL: &str = "notification_ledger_provider_paused_total";
/// 1 for the state that a provider is in: `open`, `probing`, `held`, `broken`, `paused`. Labels: `provider`, `state`.
pub const PROVIDER_STATE: &str = "notification_ledger_provider_state";
/// Messages given back to a source because they could not be taken. Labels: `ingress`.
pub const GIVEN_BACK_TOTAL: &str = "notification_ledger_given_back_total";
/// From a producer's send to the commit. Labels: `ingress`.
pub const AGE_SECONDS: &str = "notification_ledger_age_seconds";
/// Queue messages handed out for the second time or more. Labels: `ingress`.
pub const HANDED_OUT_AGAIN_TOTAL: &str = "notification_ledger_handed_out_again_total";
/// Queue messages deleted after they were appended. Labels: `queue`.
pub const SQS_DELETED_TOTAL: &str = "notification_ledger_sqs_deleted_total";
/// Deletions that the queue refused. Labels: `queue`.
pub const SQS_DELETE_FAILED_TOTAL: &str = "notification_ledger_sqs_delete_failed_total";
/// Polls that failed. Labels: `queue`, `code`.
pub const SQS_RECEIVE_ERRORS_TOTAL: &str = "notification_ledger_sqs_receive_errors_total";
/// Long polls that may run at this moment. Labels: `queue`.
pub const SQS_POLLERS: &str = "notification_ledger_sqs_pollers";
/// HTTP requests. Labels: `method`, `route`, `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "notification_ledger_http_requests_total";
/// How long an HTTP request took. Labels: `method`, `route`.
pub const HTTP_SECONDS: &str = "notification_ledger_http_seconds";
/// Inboxes that are streamed at this moment.
pub const HTTP_STREAMS: &str = "notification_ledger_http_streams";

/// All of them: kind, name, unit, and what `/metrics` says about it.
#[rustfmt::skip]
pub const ALL: [(Kind, &str, Unit, &str); 35] = [
    (Kind::Counter, RECEIVED_TOTAL, Unit::Count, "Messages that came in, by ingress."),
    (Kind::Counter, APPENDED_TOTAL, Unit::Count, "Messages appended to the log, by ingress."),
    (Kind::Counter, REDELIVERED_TOTAL, Unit::Count, "Messages the log already had, with the same content, by ingress."),
    (Kind::Counter, CONFLICTS_TOTAL, Unit::Count, "Messages whose id the log already had with other content, by ingress."),
    (Kind::Counter, QUARANTINED_TOTAL, Unit::Count, "Inputs put into quarantine, by reason."),
    (Kind::Counter, REJECTED_TOTAL, Unit::Count, "Inputs refused with an answer, by ingress and reason."),
    (Kind::Histogram, APPEND_SECONDS, Unit::Seconds, "How long one append transaction took."),
    (Kind::Counter, APPEND_ENTRIES_TOTAL, Unit::Count, "Messages and commands that went through an append transaction."),
    (Kind::Histogram, APPEND_BATCH_SIZE, Unit::Count, "Messages and commands in one append transaction."),
    (Kind::Counter, PROJECTED_TOTAL, Unit::Count, "Events folded into the live slot, by projection."),
    (Kind::Gauge, PROJECTION_LAG_EVENTS, Unit::Count, "Events not folded yet, by projection and shard."),
    (Kind::Gauge, PROJECTION_LAG_SECONDS, Unit::Seconds, "Age of the oldest event not folded yet, by projection."),
    (Kind::Gauge, REBUILD_RUNNING, Unit::Count, "1 while some process rebuilds a projection, by projection."),
    (Kind::Gauge, REBUILD_FOLDED_EVENTS, Unit::Count, "Events that the rebuilt slot has folded, by projection and shard."),
    (Kind::Gauge, REBUILD_ALL_EVENTS, Unit::Count, "Events that the rebuilt slot has to fold, by projection and shard."),
    (Kind::Gauge, REBUILD_EVENTS_PER_SECOND, Unit::Count, "Events that a rebuild folds a second, by projection."),
    (Kind::Gauge, PROJECTION_STANDS_STILL, Unit::Count, "1 while the live tables are of another version than this release's, by projection."),
    (Kind::Gauge, PROJECTION_DRIFT_ROWS, Unit::Count, "Rows proved last that are not what the log says, by projection; must be 0."),
    (Kind::Counter, PROJECTION_PROVED_ROWS_TOTAL, Unit::Count, "Rows of live tables proved against the log, by projection."),
    (Kind::Gauge, DELIVERIES_DUE, Unit::Count, "Deliveries whose time has come, by provider."),
    (Kind::Gauge, DELIVERIES_OVERDUE, Unit::Count, "Deliveries whose time came more than a minute ago, by provider."),
    (Kind::Counter, DELIVERY_ATTEMPTS_TOTAL, Unit::Count, "Attempts to push that ended, by provider and outcome."),
    (Kind::Histogram, DELIVERY_SECONDS, Unit::Seconds, "How long the call to the provider took, by provider."),
    (Kind::Counter, PROVIDER_PAUSED_TOTAL, Unit::Count, "Times that a provider was paused by itself, by provider and cause."),
    (Kind::Gauge, PROVIDER_STATE, Unit::Count, "1 for the state that a provider is in, by provider and state."),
    (Kind::Counter, GIVEN_BACK_TOTAL, Unit::Count, "Messages given back to a source because they could not be taken, by ingress."),
    (Kind::Histogram, AGE_SECONDS, Unit::Seconds, "From a producer's send to the commit, by ingress."),
    (Kind::Counter, HANDED_OUT_AGAIN_TOTAL, Unit::Count, "Queue messages handed out for the second time or more, by ingress."),
    (Kind::Counter, SQS_DELETED_TOTAL, Unit::Count, "Queue messages deleted after they were appended, by queue."),
    (Kind::Counter, SQS_DELETE_FAILED_TOTAL, Unit::Count, "Deletions the queue refused, by queue."),
    (Kind::Counter, SQS_RECEIVE_ERRORS_TOTAL, Unit::Count, "Polls that failed, by queue and code."),
    (Kind::Gauge, SQS_POLLERS, Unit::Count, "Long polls that may run at this moment, by queue."),
    (Kind::Counter, HTTP_REQUESTS_TOTAL, Unit::Count, "HTTP requests, by method, route and status."),
    (Kind::Histogram, HTTP_SECONDS, Unit::Seconds, "How long an HTTP request took, by method and route."),
    (Kind::Gauge, HTTP_STREAMS, Unit::Count, "Inboxes that are streamed at this moment."),
];

/// What a number can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grow.
    Counter,
    /// Go up and down.
    Gauge,
    /// Be spread over buckets.
    Histogram,
}

/// The ingress label of the HTTP API.
pub const HTTP: &str = "http";

/// Begins every counter at 0 whose labels are known before anything happens, so that the first count
/// is a rise and not a series out of nowhere: for these providers, and these queues by their names.
pub fn begin<'a>(providers: impl Iterator<Item = &'a str>, queues: impl Iterator<Item = &'a str>) {
    let door = |ingress: &str| {
        received(ingress, 0);
        accepted(ingress, 0, 0, 0);
    };
    door(HTTP);
    counter!(APPEND_ENTRIES_TOTAL).increment(0);
    for reason in RejectionCode::ALL.map(RejectionCode::as_str) {
        counter!(QUARANTINED_TOTAL, "reason" => reason).increment(0);
        counter!(REJECTED_TOTAL, "ingress" => HTTP, "reason" => reason).increment(0);
    }
    for it in projection::ALL {
        projected(it.name(), 0);
        counter!(PROJECTION_PROVED_ROWS_TOTAL, "projection" => it.name()).increment(0);
    }
    for provider in providers {
        for outcome in
            FailureClass::ALL.map(FailureClass::as_str).into_iter().chain(["accepted", "pending", "lost"])
        {
            counter!(DELIVERY_ATTEMPTS_TOTAL, "provider" => provider.to_owned(), "outcome" => outcome)
                .increment(0);
        }
        for cause in ["auth_config", "invalid_targets"] {
            counter!(PROVIDER_PAUSED_TOTAL, "provider" => provider.to_owned(), "cause" => cause).increment(0);
        }
        provider_state(provider, "open");
    }
    for queue in queues {
        let ingress = format!("sqs:{queue}");
        door(&ingress);
        given_back(&ingress, 0);
        handed_out_again(&ingress, 0);
        queue_deleted(queue, 0, 0);
    }
}

/// Messages that came in by a door, whatever becomes of them.
pub fn received(ingress: &str, count: usize) {
    counter!(RECEIVED_TOTAL, "ingress" => ingress.to_owned()).increment(count as u64);
}

/// What became of messages that came in by a door: how many were new, known, and in conflict.
pub fn accepted(ingress: &str, appended: usize, redelivered: usize, conflicts: usize) {
    let outcomes =
        [(APPENDED_TOTAL, appended), (REDELIVERED_TOTAL, redelivered), (CONFLICTS_TOTAL, conflicts)];
    for (name, count) in outcomes {
        counter!(name, "ingress" => ingress.to_owned()).increment(count as u64);
    }
}

/// One input put into quarantine.
pub fn quarantined(reason: &'static str) {
    counter!(QUARANTINED_TOTAL, "reason" => reason).increment(1);
}

/// Messages given back to a source because they could not be taken.
pub fn given_back(ingress: &str, count: usize) {
    counter!(GIVEN_BACK_TOTAL, "ingress" => ingress.to_owned()).increment(count as u64);
}

/// One message became durable this long after its producer sent it.
pub fn age(ingress: &str, age: Duration) {
    histogram!(AGE_SECONDS, "ingress" => ingress.to_owned()).record(age.as_secs_f64());
}

/// Messages of a queue that were handed out before.
pub fn handed_out_again(ingress: &str, count: usize) {
    counter!(HANDED_OUT_AGAIN_TOTAL, "ingress" => ingress.to_owned()).increment(count as u64);
}

/// A batch of deletions from a queue.
pub fn queue_deleted(queue: &str, deleted: usize, failed: usize) {
    counter!(SQS_DELETED_TOTAL, "queue" => queue.to_owned()).increment(deleted as u64);
    counter!(SQS_DELETE_FAILED_TOTAL, "queue" => queue.to_owned()).increment(failed as u64);
}

/// One poll of a queue that failed.
pub fn queue_receive_failed(queue: &str, code: &str) {
    let labels = [("queue", queue.to_owned()), ("code", code.to_owned())];
    counter!(SQS_RECEIVE_ERRORS_TOTAL, &labels).increment(1);
}

/// How many pollers of a queue may run now.
pub fn queue_pollers(queue: &str, count: usize) {
    #[allow(clippy::cast_precision_loss, reason = "there are tens of pollers at most")]
    gauge!(SQS_POLLERS, "queue" => queue.to_owned()).set(count as f64);
}

/// One transaction of an appender.
pub fn appended(entries: usize, took: Duration) {
    histogram!(APPEND_SECONDS).record(took.as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "batches have thousands of entries at most")]
    histogram!(APPEND_BATCH_SIZE).record(entries as f64);
    counter!(APPEND_ENTRIES_TOTAL).increment(entries as u64);
}

/// Events folded into a projection's live slot.
pub fn projected(projection: &'static str, events: usize) {
    counter!(PROJECTED_TOTAL, "projection" => projection).increment(events as u64);
}

/// How many events a projection's live slot is behind the head of a shard.
pub fn projection_lag(projection: &'static str, shard: Shard, events: i64) {
    let labels = [("projection", projection.to_owned()), ("shard", shard.to_string())];
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!(PROJECTION_LAG_EVENTS, &labels).set(events as f64);
}

/// An attempt to push ended, or was given up as lost.
pub fn attempt_ended(provider: &str, outcome: &'static str) {
    counter!(DELIVERY_ATTEMPTS_TOTAL, "provider" => provider.to_owned(), "outcome" => outcome).increment(1);
}

/// A provider was paused, not by an operator.
pub fn provider_paused(provider: &str, cause: &'static str) {
    counter!(PROVIDER_PAUSED_TOTAL, "provider" => provider.to_owned(), "cause" => cause).increment(1);
}

/// Every state that a provider can be in.
pub const PROVIDER_STATES: [&str; 5] = ["open", "probing", "held", "broken", "paused"];

/// The state that a provider is in.
pub fn provider_state(provider: &str, state: &'static str) {
    for it in PROVIDER_STATES {
        let is_so = if it == state { 1.0 } else { 0.0 };
        gauge!(PROVIDER_STATE, "provider" => provider.to_owned(), "state" => it).set(is_so);
    }
}

/// A provider was called.
pub fn provider_called(provider: &str, took: Duration) {
    histogram!(DELIVERY_SECONDS, "provider" => provider.to_owned()).record(took.as_secs_f64());
}

/// What is due for a provider, and what has been for more than a minute.
pub fn deliveries_due(provider: &str, due: u64, overdue: u64) {
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    for (name, count) in [(DELIVERIES_DUE, due), (DELIVERIES_OVERDUE, overdue)] {
        gauge!(name, "provider" => provider.to_owned()).set(count as f64);
    }
}

/// Age of the oldest event that a projection has not folded yet.
pub fn projection_age(projection: &str, age: Duration) {
    gauge!(PROJECTION_LAG_SECONDS, "projection" => projection.to_owned()).set(age.as_secs_f64());
}

/// How fast a projection is rebuilt; none where nobody is at it.
pub fn rebuild(projection: &str, events_per_s: Option<f64>) {
    let running = if events_per_s.is_some() { 1.0 } else { 0.0 };
    gauge!(REBUILD_RUNNING, "projection" => projection.to_owned()).set(running);
    let per_s = events_per_s.unwrap_or_default();
    gauge!(REBUILD_EVENTS_PER_SECOND, "projection" => projection.to_owned()).set(per_s);
}

/// How far a projection is rebuilt in one shard.
pub fn rebuild_place(projection: &str, shard: Shard, folded: i64, all: i64) {
    let labels = [("projection", projection.to_owned()), ("shard", shard.to_string())];
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    for (name, events) in [(REBUILD_FOLDED_EVENTS, folded), (REBUILD_ALL_EVENTS, all)] {
        gauge!(name, &labels).set(events as f64);
    }
}

/// Whether a projection's live tables stand still because they are of another version.
pub fn projection_stands_still(projection: &str, is_so: bool) {
    let value = if is_so { 1.0 } else { 0.0 };
    gauge!(PROJECTION_STANDS_STILL, "projection" => projection.to_owned()).set(value);
}

/// Rows of a projection's live tables were proved, and so many of them were wrong.
pub fn proved(projection: &'static str, rows: u64, differing: u64) {
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!(PROJECTION_DRIFT_ROWS, "projection" => projection).set(differing as f64);
    counter!(PROJECTION_PROVED_ROWS_TOTAL, "projection" => projection).increment(rows);
}

/// One input refused with an answer.
pub fn rejected(ingress: &'static str, reason: &'static str) {
    counter!(REJECTED_TOTAL, "ingress" => ingress, "reason" => reason).increment(1);
}

/// One HTTP request. `route` is the pattern, never the path.
pub fn answered(method: &'static str, route: &str, status: u16, took: Duration) {
    // Shared, so that a request costs one copy of it.
    let route = SharedString::from_shared(Arc::from(route));
    let labels = [("method", method.into()), ("route", route.clone()), ("status", status_label(status))];
    counter!(HTTP_REQUESTS_TOTAL, &labels).increment(1);
    histogram!(HTTP_SECONDS, "method" => method, "route" => route).record(took.as_secs_f64());
}

/// How many inboxes are streamed.
pub fn streams(count: usize) {
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!(HTTP_STREAMS).set(count as f64);
}

/// The status as text; the everyday ones without an allocation.
fn status_label(status: u16) -> SharedString {
    match status {
        200 => "200".into(),
        201 => "201".into(),
        409 => "409".into(),
        422 => "422".into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All but those whose labels are known only when they are counted.
    #[test]
    fn counters_begin_at_zero() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || begin(["acme"].into_iter(), ["jobs"].into_iter()));
        let text = handle.render();
        let late = [SQS_RECEIVE_ERRORS_TOTAL, HTTP_REQUESTS_TOTAL];
        for (kind, name, ..) in ALL.iter().filter(|(_, name, ..)| !late.contains(name)) {
            let is_there = text.lines().any(|it| it.starts_with(name) && it.ends_with(" 0"));
            assert!(*kind != Kind::Counter || is_there, "{name} is missing in\n{text}");
        }
        for line in [
            "notification_ledger_appended_total{ingress=\"http\"} 0",
            "notification_ledger_appended_total{ingress=\"sqs:jobs\"} 0",
            "notification_ledger_quarantined_total{reason=\"not_json\"} 0",
            "notification_ledger_delivery_attempts_total{provider=\"acme\",outcome=\"auth_config\"} 0",
            "notification_ledger_delivery_attempts_total{provider=\"acme\",outcome=\"lost\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_described_once_and_named_by_its_kind() {
        let names: BTreeSet<&str> = ALL.iter().map(|(_, name, ..)| *name).collect();
        assert_eq!(names.len(), ALL.len());
        for (kind, name, ..) in &ALL {
            assert!(name.starts_with("notification_ledger_"), "{name}");
            assert_eq!(matches!(kind, Kind::Counter), name.ends_with("_total"), "{name}");
        }
    }
}
