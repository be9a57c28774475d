//! An SQS queue with a dead-letter queue, on the server program that `tests/run` starts.

use std::collections::HashMap;

use aws_sdk_sqs::{
    Client,
    config::{Credentials, Region},
    types::{QueueAttributeName, SendMessageBatchRequestEntry},
};

use super::{random_name, variable};

/// What an access key must be for the server program; it takes any.
pub(crate) const ACCESS_KEY: &str = "test";
/// The region that tests use.
pub(crate) const REGION: &str = "us-east-1";

/// A queue of a test's own.
#[derive(Debug)]
pub(crate) struct Queue {
    /// For whatever the verbs here do not cover.
    pub(crate) client: Client,
    /// The queue's address.
    pub(crate) url: String,
    /// The dead-letter queue's address.
    pub(crate) dead_letter_url: String,
}

/// How a queue behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueSettings {
    /// How long a message that was received stays hidden.
    pub(crate) visibility_timeout_s: u32,
    /// After how many receives a message moves to the dead-letter queue.
    pub(crate) max_receive_count: u32,
    /// Whether the queue keeps the order within a message group.
    pub(crate) fifo: bool,
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Waiting to be received.
    pub(crate) visible: usize,
    /// Received and neither deleted nor visible again.
    pub(crate) in_flight: usize,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { visibility_timeout_s: 30, max_receive_count: 5, fifo: false }
    }
}

impl Depth {
    /// No message at all.
    pub(crate) const EMPTY: Self = Self { visible: 0, in_flight: 0 };
}

impl Queue {
    /// A queue and its dead-letter queue.
    pub(crate) async fn new(settings: QueueSettings) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .endpoint_url(variable("LEDGER_TEST_SQS_ENDPOINT"))
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "tests"))
            .build();
        let client = Client::from_conf(config);
        let ending = if settings.fifo { ".fifo" } else { "" };
        let name = random_name();
        let kind = settings.fifo.then(|| (QueueAttributeName::FifoQueue, "true".to_owned()));

        let dead_letter_name = format!("{name}_dead{ending}");
        let dead_letter_url = create(&client, dead_letter_name, kind.iter().cloned().collect()).await;
        let dead_letter_arn = attribute(&client, &dead_letter_url, QueueAttributeName::QueueArn).await;
        let redrive = serde_json::json!({
            "deadLetterTargetArn": dead_letter_arn,
            "maxReceiveCount": settings.max_receive_count,
        });
        let attributes = [
            (QueueAttributeName::VisibilityTimeout, settings.visibility_timeout_s.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        ];
        let attributes = attributes.into_iter().chain(kind).collect();
        let url = create(&client, format!("{name}{ending}"), attributes).await;
        Self { client, url, dead_letter_url }
    }

    /// Sends these bodies, ten in a request.
    pub(crate) async fn send(&self, bodies: &[String]) {
        for batch in bodies.chunks(10) {
            let entry = |(index, body): (usize, &String)| {
                SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(body)
                    .build()
                    .unwrap()
            };
            let entries = batch.iter().enumerate().map(entry).collect();
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            let answer = request.send().await.unwrap();
            assert!(answer.failed().is_empty(), "{:?}", answer.failed());
        }
    }

    /// How many messages the queue holds.
    pub(crate) async fn depth(&self) -> Depth {
        depth(&self.client, &self.url).await
    }

    /// How many messages the dead-letter queue holds.
    pub(crate) async fn dead_letter_depth(&self) -> Depth {
        depth(&self.client, &self.dead_letter_url).await
    }
}

async fn create(client: &Client, name: String, attributes: HashMap<QueueAttributeName, String>) -> String {
    let request = client.create_queue().queue_name(name).set_attributes(Some(attributes));
    request.send().await.unwrap().queue_url.unwrap()
}

async fn attribute(client: &Client, url: &str, name: QueueAttributeName) -> String {
    let request = client.get_queue_attributes().queue_url(url).attribute_names(name.clone());
    request.send().await.unwrap().attributes.unwrap().remove(&name).unwrap()
}

async fn depth(client: &Client, url: &str) -> Depth {
    use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};
    let names = vec![ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
    // One request: between two, a message could move from one count to the other and be missed.
    let request = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names));
    let attributes = request.send().await.unwrap().attributes.unwrap();
    Depth {
        visible: attributes[&ApproximateNumberOfMessages].parse().unwrap(),
        in_flight: attributes[&ApproximateNumberOfMessagesNotVisible].parse().unwrap(),
    }
}
