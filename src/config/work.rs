//! `[projection]` and `[delivery]`: how the workers take their steps.

use std::time::Duration;

use serde::Deserialize;

use super::{
    problem::Problem,
    value::{at_least_one, millis, non_empty, seconds, within},
};
use crate::supervisor;

/// `[projection]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Projection {
    /// Events of one step.
    pub batch_max: usize,
    /// How often to look without a hint.
    #[serde(rename = "poll_ms", deserialize_with = "millis")]
    pub poll: Duration,
    /// Recipients proved each time; 0 for none.
    pub prove_recipients: usize,
    /// How often.
    #[serde(rename = "prove_every_s", deserialize_with = "seconds")]
    pub prove_every: Duration,
}

/// `[delivery]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Deliveries of one step.
    pub batch_max: usize,
    /// How often to look without a hint.
    #[serde(rename = "poll_ms", deserialize_with = "millis")]
    pub poll: Duration,
    /// The configured name of this process; see [`Delivery::worker_name`].
    #[serde(deserialize_with = "non_empty")]
    pub worker: Option<String>,
}

impl Projection {
    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(within("projection.batch_max", self.batch_max as u64, 1..=10_000));
        problems.extend(at_least_one("projection.poll_ms", self.poll));
        problems.extend(within("projection.prove_recipients", self.prove_recipients as u64, 0..=1_000));
        problems.extend(at_least_one("projection.prove_every_s", self.prove_every));
        problems
    }
}

impl Delivery {
    /// What this process is called in the log of attempts: the configured name, else the host's name
    /// and the process id.
    pub fn worker_name(&self) -> String {
        self.worker.clone().unwrap_or_else(|| format!("{}-{}", supervisor::host_name(), std::process::id()))
    }

    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(within("delivery.batch_max", self.batch_max as u64, 1..=1_000));
        problems.extend(at_least_one("delivery.poll_ms", self.poll));
        if self.worker.as_ref().is_some_and(|it| it.chars().count() > 128) {
            problems.push(Problem::new(
                "delivery.worker",
                "is longer than 128 characters",
                "use a shorter name",
            ));
        }
        problems
    }
}
