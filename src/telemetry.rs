//! What the service tells of itself: logs on stderr, and metrics in Prometheus' text format.
//!
//! What is counted and under which names stands in [`metric`]; here is where it is gathered.

use std::{
    fs::File,
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

use crate::metric::{self, Kind};

/// Upper bounds of the buckets of every `*_seconds` histogram: half a millisecond to half a minute.
const SECONDS_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of batch sizes.
const SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// How often the samples of histograms are taken together, lest they pile up while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the database driver says that nobody has to know: that tables of migrations are there already,
/// at every start, and, for every connection that died, that it is dead.
const NOISE: &str = "sqlx::postgres::notice=off,sqlx_core::pool::connection=off";

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Readable lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logs or metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not written as a filter is.
    #[error("{0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else set up logs in this process.
    #[error("logs cannot be set up")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    /// Somebody else set up metrics in this process.
    #[error("metrics cannot be set up")]
    Metrics(#[from] BuildError),
}

/// Starts logging to stderr: what `filter` lets through (written as `RUST_LOG` is).
///
/// # Errors
/// When the filter cannot be understood, or logs were set up before.
pub fn start_logs(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(parse_filter(filter)?).with_writer(io::stderr);
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        builder.with_ansi(terminal).with_target(false).finish().try_init()?;
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init()?;
    }
    Ok(())
}

/// Starts logging to a file instead, in readable lines.
///
/// # Errors
/// When the filter cannot be understood, or logs were set up before.
pub fn start_logs_in(file: File, filter: &str) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt().with_env_filter(parse_filter(filter)?);
    builder.with_writer(Mutex::new(file)).with_ansi(false).with_target(false).finish().try_init()?;
    Ok(())
}

/// Whether a filter for logs can be understood.
///
/// # Errors
/// When it cannot.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    parse_filter(filter).map(drop)
}

/// The recorder of this process, described and with its buckets; set up on the first call.
///
/// # Errors
/// When other code set up a recorder before.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*recorder {
        return Ok(handle.clone());
    }
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(recorder.insert(handle).clone())
}

/// Keeps the recorder's memory bounded until `stop`; one such task per process.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut interval = time::interval(UPKEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

/// The filter, without the driver's noise unless it says itself what it wants of the driver.
fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = if filter.contains("sqlx") { filter.to_owned() } else { format!("{NOISE},{filter}") };
    Ok(EnvFilter::builder().parse(filter)?)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(metric::APPEND_BATCH_SIZE.to_owned()), &SIZE_BUCKETS)
}

fn describe() {
    for (kind, name, unit, text) in metric::ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, text),
            Kind::Gauge => metrics::describe_gauge!(name, unit, text),
            Kind::Histogram => metrics::describe_histogram!(name, unit, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn times_have_explicit_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!(metric::APPEND_SECONDS).record(0.003);
            metrics::histogram!(metric::APPEND_BATCH_SIZE).record(40.0);
            metrics::counter!(metric::RECEIVED_TOTAL, "ingress" => "http").increment(2);
        });
        let text = handle.render();
        for line in [
            "notification_ledger_append_seconds_bucket{le=\"0.002\"} 0",
            "notification_ledger_append_seconds_bucket{le=\"0.005\"} 1",
            "notification_ledger_append_batch_size_bucket{le=\"50\"} 1",
            "notification_ledger_received_total{ingress=\"http\"} 2",
            "# HELP notification_ledger_received_total Messages that came in, by ingress.",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_driver_is_heard_where_somebody_asks_for_it() {
        for (filter, is_heard) in
            [("info", false), ("debug", false), ("off", false), ("info,sqlx=info", true)]
        {
            let lines = Arc::new(Mutex::new(Vec::new()));
            let writer = Arc::clone(&lines);
            let builder = tracing_subscriber::fmt().with_env_filter(parse_filter(filter).unwrap());
            let subscriber = builder.with_writer(move || Lines(Arc::clone(&writer))).finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!(target: "sqlx::postgres::notice", "noise");
                tracing::info!(target: "notification_ledger", "ours");
            });
            let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
            assert_eq!(text.contains("noise"), is_heard, "{filter}: {text}");
            assert_eq!(text.contains("ours"), filter != "off", "{filter}: {text}");
        }
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn filters_are_checked() {
        for good in ["info", "warn,sqlx=debug", "notification_ledger::worker=trace", "off"] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        assert!(check_filter("sqlx=loud").is_err());
    }
}
