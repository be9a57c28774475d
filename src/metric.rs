//! The numbers the service counts, each named once.
//!
//! Names, meaning and units are what operators build alerts on; `docs/operating.md` lists them.

use std::time::Duration;

use metrics::{counter, histogram};

/// One transaction of an appender.
pub fn appended(entries: usize, took: Duration) {
    histogram!("notification_ledger_append_seconds").record(took.as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "batches have thousands of entries at most")]
    histogram!("notification_ledger_append_batch_size").record(entries as f64);
    counter!("notification_ledger_append_entries_total").increment(entries as u64);
}
