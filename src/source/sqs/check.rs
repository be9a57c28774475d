//! What is looked at once at the start: settings of the queue that will hurt one day.

use std::{collections::HashMap, time::Duration};

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::Value;

use crate::source::KEPT_BYTES_MAX;

/// Receives after which a message moves to the dead-letter queue, at the least: a crash at a bad
/// moment costs one, a restart of the database another.
const RECEIVES_MIN: u64 = 3;

/// The attributes of a queue.
pub(super) type Attributes = HashMap<QueueAttributeName, String>;

/// The ARN of the dead-letter queue, where there is one.
pub(super) fn dead_letter_arn(queue: &Attributes) -> Option<String> {
    let policy = redrive_policy(queue)?;
    Some(policy.get("deadLetterTargetArn")?.as_str()?.to_owned())
}

/// What is wrong with a queue that is received from with this visibility timeout, while a call may
/// take `call_max`; each as a sentence with what to do. The dead-letter queue's attributes are looked
/// at where they could be read.
pub(super) fn warnings(
    queue: &Attributes,
    dead_letter: Option<&Attributes>,
    visibility_timeout: Duration,
    call_max: Duration,
) -> Vec<String> {
    let mut found = Vec::new();
    match redrive_policy(queue) {
        None => found.push(
            "the queue has no dead-letter queue: what cannot be taken comes back until its retention \
             ends; give it a redrive policy"
                .to_owned(),
        ),
        Some(policy) => {
            let receives = policy.get("maxReceiveCount").and_then(number);
            if let Some(receives) = receives.filter(|&it| it < RECEIVES_MIN) {
                found.push(format!(
                    "the queue moves a message to its dead-letter queue after {receives} receives, so a \
                     restart at a bad moment may do it; allow at least 5"
                ));
            }
        }
    }
    if visibility_timeout < call_max {
        found.push(format!(
            "visibility_timeout_s is {}, and a single call may take {} s: messages will be handed out \
             twice; use at least 60",
            visibility_timeout.as_secs(),
            call_max.as_secs(),
        ));
    }
    let retention = |of: &Attributes| attribute(of, &QueueAttributeName::MessageRetentionPeriod);
    if let (Some(own), Some(dead)) = (retention(queue), dead_letter.and_then(retention))
        && dead <= own
    {
        found.push(format!(
            "the dead-letter queue keeps messages for {dead} s and the queue for {own} s, counted from \
             the first send: a message may vanish soon after it was moved; keep them longer there"
        ));
    }
    let largest = attribute(queue, &QueueAttributeName::MaximumMessageSize);
    if let Some(largest) = largest.filter(|&it| it > KEPT_BYTES_MAX as u64) {
        found.push(format!(
            "the queue takes messages of {largest} bytes, of which quarantine keeps {KEPT_BYTES_MAX}; \
             lower its maximum message size"
        ));
    }
    found
}

fn redrive_policy(queue: &Attributes) -> Option<Value> {
    serde_json::from_str(queue.get(&QueueAttributeName::RedrivePolicy)?).ok()
}

fn attribute(of: &Attributes, name: &QueueAttributeName) -> Option<u64> {
    of.get(name)?.parse().ok()
}

/// A number, which some consoles write as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const CALL: Duration = Duration::from_secs(25);

    fn queue(redrive: Option<&str>, retention: &str) -> Attributes {
        let mut queue = Attributes::from([
            (QueueAttributeName::MessageRetentionPeriod, retention.to_owned()),
            (QueueAttributeName::MaximumMessageSize, "1048576".to_owned()),
        ]);
        queue.extend(redrive.map(|it| (QueueAttributeName::RedrivePolicy, it.to_owned())));
        queue
    }

    #[test]
    fn a_well_kept_queue_gives_no_warning() {
        let queue = queue(Some(r#"{"deadLetterTargetArn":"arn:dead","maxReceiveCount":"5"}"#), "345600");
        let dead = self::queue(None, "1209600");
        assert_eq!(warnings(&queue, Some(&dead), MINUTE, CALL), Vec::<String>::new());
        assert_eq!(dead_letter_arn(&queue).as_deref(), Some("arn:dead"));
    }

    #[test]
    fn each_setting_that_will_hurt_is_named() {
        let redrive = Some(r#"{"deadLetterTargetArn":"arn:dead","maxReceiveCount":1}"#);
        let dead = queue(None, "345600");
        let mut large = queue(redrive, "1209600");
        large.insert(QueueAttributeName::MaximumMessageSize, "2097152".to_owned());
        for (queue, dead, visibility, expected) in [
            (queue(None, "345600"), None, MINUTE, "no dead-letter queue"),
            (queue(redrive, "60"), None, MINUTE, "after 1 receives"),
            (queue(redrive, "60"), None, Duration::from_secs(10), "visibility_timeout_s is 10"),
            (queue(redrive, "345600"), Some(&dead), MINUTE, "keeps messages for 345600 s"),
            (large, None, MINUTE, "2097152 bytes"),
        ] {
            let found = warnings(&queue, dead, visibility, CALL);
            assert!(found.iter().any(|it| it.contains(expected)), "{expected}: {found:?}");
        }
    }
}
