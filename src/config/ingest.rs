//! `[ingest]`: the queues that messages come from.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;

use super::{
    problem::Problem,
    value::{list, non_empty, seconds, within},
};

/// `[ingest]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// The queues.
    #[serde(default, deserialize_with = "list")]
    pub sqs: Vec<Sqs>,
}

/// `[[ingest.sqs]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sqs {
    /// What it is called here.
    pub name: String,
    /// Its URL, its ARN, or its name.
    pub queue_url: String,
    /// The server, when it is not AWS.
    #[serde(default, deserialize_with = "non_empty")]
    pub endpoint_url: Option<String>,
    /// The region, when neither the ARN nor the environment names it.
    #[serde(default, deserialize_with = "non_empty")]
    pub region: Option<String>,
    /// Long polls that run at once at most.
    #[serde(default = "pollers_max")]
    pub pollers_max: usize,
    /// How long a received message is hidden from other receivers.
    #[serde(rename = "visibility_timeout_s", default = "visibility_timeout", deserialize_with = "seconds")]
    pub visibility_timeout: Duration,
    /// How long a poll waits for messages.
    #[serde(rename = "wait_s", default = "wait", deserialize_with = "seconds")]
    pub wait: Duration,
    /// Whether the queue's own message id will do where the producer gave none.
    #[serde(default)]
    pub weak_ids: bool,
}

// The defaults of one queue; config.default.toml shows them in its example, and a test compares.
const fn pollers_max() -> usize {
    4
}
const fn visibility_timeout() -> Duration {
    Duration::from_mins(1)
}
const fn wait() -> Duration {
    Duration::from_secs(20)
}

impl Ingest {
    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        for (i, queue) in self.sqs.iter().enumerate() {
            let key = |name: &str| format!("ingest.sqs[{i}].{name}");
            if queue.name.is_empty() {
                problems.push(Problem::new(
                    key("name"),
                    "is empty",
                    "name the queue; the name stands in logs and metrics",
                ));
            } else if !names.insert(&queue.name) {
                problems.push(Problem::new(
                    key("name"),
                    format!("is {:?}, like another queue's", queue.name),
                    "give every queue a name of its own",
                ));
            }
            if !is_queue(&queue.queue_url) {
                problems.push(Problem::new(
                    key("queue_url"),
                    format!("is {:?}, which names no queue", queue.queue_url),
                    "give its URL (https://…), its ARN (arn:aws:sqs:REGION:ACCOUNT:NAME) or its name",
                ));
            }
            if let Some(url) = &queue.endpoint_url
                && !is_http(url)
            {
                problems.push(Problem::new(
                    key("endpoint_url"),
                    format!("is {url:?}, not an http address"),
                    "write for example http://127.0.0.1:9324, or leave it away for AWS",
                ));
            }
            problems.extend(within(key("pollers_max"), queue.pollers_max as u64, 1..=64));
            problems.extend(within(
                key("visibility_timeout_s"),
                queue.visibility_timeout.as_secs(),
                // Less leaves no time to append and delete before the queue hands the messages out again.
                10..=43_200,
            ));
            problems.extend(within(key("wait_s"), queue.wait.as_secs(), 0..=20));
        }
        problems
    }
}

fn is_queue(text: &str) -> bool {
    if text.starts_with("arn:") {
        let parts: Vec<&str> = text.split(':').collect();
        return parts.len() == 6 && parts[2] == "sqs" && !parts[3].is_empty() && is_queue_name(parts[5]);
    }
    is_http(text) || is_queue_name(text)
}

fn is_http(text: &str) -> bool {
    ["http://", "https://"].iter().any(|it| text.strip_prefix(it).is_some_and(|rest| !rest.is_empty()))
}

/// SQS: up to 80 letters, digits, `-` and `_`, and `.fifo` at the end.
fn is_queue_name(text: &str) -> bool {
    let stem = text.strip_suffix(".fifo").unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=80).contains(&text.len()) && !stem.is_empty() && stem.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_url_arn_or_name() {
        for good in [
            "https://sqs.eu-central-1.amazonaws.com/123456789012/notifications",
            "http://127.0.0.1:9324/000000000000/q.fifo",
            "arn:aws:sqs:eu-central-1:123456789012:notifications.fifo",
            "arn:aws-cn:sqs:cn-north-1:123456789012:q",
            "notifications",
        ] {
            assert!(is_queue(good), "{good}");
        }
        for bad in
            ["", "https://", "arn:aws:sns:eu-central-1:1:topic", "arn:aws:sqs:::", "a b", ".fifo", "q.txt"]
        {
            assert!(!is_queue(bad), "{bad}");
        }
    }
}
