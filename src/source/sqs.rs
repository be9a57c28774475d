//! Amazon SQS, and every server that speaks its protocol.
//!
//! Nothing is deleted here unless the caller says that it is durable; everything that fails towards
//! the queue is safe, because the queue hands the message out again and the ledger knows its id.
//!
//! Two clients: one polls, so that its long waits never hold up a deletion. The SDK knows no time
//! limit by itself, and a poll whose answer is lost would hang for ever, so every attempt has one.
//! Its own retries are off: polls are repeated by whoever calls [`Source::receive`], with growing
//! pauses, and batches entry by entry in [`Sqs::settle`](Source::settle).

mod address;
mod arrival;
mod check;
mod tries;

use std::{error::Error as StdError, iter::successors, time::Duration};

use aws_config::{
    SdkConfig, environment::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
    profile::ProfileFileRegionProvider,
};
use aws_sdk_sqs::{
    Client,
    config::{Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{
        ChangeMessageVisibilityBatchRequestEntry as ChangeEntry,
        DeleteMessageBatchRequestEntry as DeleteEntry, MessageSystemAttributeName, QueueAttributeName,
    },
};

use self::{
    address::Address,
    arrival::arrival,
    check::{Attributes, dead_letter_arn, warnings},
    tries::{TRIES, Tries},
};
use super::{Arrival, Handle, Settlement, Source, SourceError};
use crate::metric;

/// Messages in one request, which is what SQS allows.
const BATCH_MAX: usize = 10;
/// How much longer than its wait a poll may take.
const POLL_SLACK: Duration = Duration::from_secs(8);
/// How long any other call may take.
const CALL_MAX: Duration = Duration::from_secs(5);
/// The region where an emulator is addressed and nobody says one.
const EMULATOR_REGION: &str = "us-east-1";

/// A queue to receive from.
#[derive(Debug, Clone)]
pub struct SqsOptions {
    /// What it is called in logs, metrics and the log's metadata.
    pub name: String,
    /// Its URL, its ARN, or its name.
    pub queue: String,
    /// A server other than AWS.
    pub endpoint_url: Option<String>,
    /// None: as the address says, else as the AWS tools find it.
    pub region: Option<String>,
    /// How long a received message is hidden from other receivers.
    pub visibility_timeout: Duration,
    /// How long a poll waits for messages, up to 20 seconds.
    pub wait: Duration,
    /// Whether the queue's own id may stand in for a message id.
    pub weak_ids: bool,
}

/// One queue.
#[derive(Debug)]
pub struct Sqs {
    ingress: String,
    options: SqsOptions,
    queue_url: String,
    polls: Client,
    calls: Client,
}

impl Sqs {
    /// Finds the queue with the credentials and the region that the AWS tools would use, and looks at
    /// its settings once; warns about those that will hurt. A service that does not answer right now
    /// is no reason to fail, a queue that does not exist is.
    ///
    /// # Errors
    /// When the address makes no sense, the queue does not exist, or its name cannot be looked up.
    pub async fn open(options: SqsOptions) -> Result<Self, SourceError> {
        let (_, region) = address::parse(&options.queue)?;
        let loader = aws_config::defaults(aws_config::BehaviorVersion::latest());
        // Where nobody says a region, the tools ask the machine's metadata service, which takes a while
        // to not be there; an emulator is not worth that.
        let loader = match options.region.clone().or(region).map(Region::new) {
            Some(region) => loader.region(region),
            None if options.endpoint_url.is_some() => loader.region(
                RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                    .or_else(ProfileFileRegionProvider::new())
                    .or_else(EMULATOR_REGION),
            ),
            None => loader,
        };
        Self::open_with(options, &loader.load().await).await
    }

    /// As [`Self::open`], with credentials from elsewhere.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with(options: SqsOptions, config: &SdkConfig) -> Result<Self, SourceError> {
        let (address, region) = address::parse(&options.queue)?;
        let [polls, calls] = clients(&options, region, config, options.wait + POLL_SLACK);
        let queue_url = match address {
            Address::Url(url) => url,
            Address::Name { name, account } => {
                let request = calls.get_queue_url().queue_name(&name).set_queue_owner_aws_account_id(account);
                let answer =
                    request.send().await.map_err(|error| failed("looking up the queue", &name, error))?;
                answer.queue_url.unwrap_or_default()
            }
        };
        let ingress = format!("sqs:{}", options.name);
        let queue = Self { ingress, options, queue_url, polls, calls };
        match queue.check().await {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(queue = queue.options.name, "{warning}");
                }
            }
            Err(error @ SourceError::Missing { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(
                    queue = queue.options.name,
                    error = chain(&error),
                    "the queue's settings could not be read"
                );
            }
        }
        Ok(queue)
    }

    /// The address that it is received from.
    #[must_use]
    pub fn queue_url(&self) -> &str {
        &self.queue_url
    }

    async fn check(&self) -> Result<Vec<String>, SourceError> {
        let queue = self.attributes(&self.queue_url).await?;
        let dead_letter = match dead_letter_arn(&queue) {
            // Often another team's, and then not ours to look at.
            Some(arn) => self.attributes_by_arn(&arn).await.ok(),
            None => None,
        };
        Ok(warnings(&queue, dead_letter.as_ref(), self.options.visibility_timeout, CALL_MAX * TRIES))
    }

    async fn attributes(&self, url: &str) -> Result<Attributes, SourceError> {
        let request = self.calls.get_queue_attributes().queue_url(url);
        let answer = request.attribute_names(QueueAttributeName::All).send().await;
        let answer = answer.map_err(|error| failed("reading the queue's settings", url, error))?;
        Ok(answer.attributes.unwrap_or_default())
    }

    async fn attributes_by_arn(&self, arn: &str) -> Result<Attributes, SourceError> {
        let (Address::Name { name, account }, _) = address::parse(arn)? else {
            return Err(SourceError::BadAddress { address: arn.to_owned() });
        };
        let request = self.calls.get_queue_url().queue_name(&name).set_queue_owner_aws_account_id(account);
        let answer = request.send().await.map_err(|error| failed("looking up the queue", arn, error))?;
        self.attributes(&answer.queue_url.unwrap_or_default()).await
    }

    /// Deletes these, again and again where the queue fails; what is left comes back by itself.
    async fn delete(&self, handles: &[Handle]) {
        let mut tries = Tries::new(handles.to_vec());
        while tries.go_on().await {
            let entry = |(at, handle): (usize, &Handle)| {
                DeleteEntry::builder().id(at.to_string()).receipt_handle(&handle.0).build()
            };
            let entries = tries.left.iter().enumerate().filter_map(|it| entry(it).ok()).collect();
            let request = self.calls.delete_message_batch().queue_url(&self.queue_url);
            let answer = request.set_entries(Some(entries)).send().await;
            tries.answered(
                answer
                    .map(|it| it.failed)
                    .map_err(|error| failed("deleting messages", &self.queue_url, error)),
            );
        }
        let left = tries.given_up();
        metric::queue_deleted(&self.options.name, handles.len() - left, left);
        if left > 0 {
            tracing::warn!(
                queue = self.options.name,
                left,
                "messages that are in the log could not be deleted; they come again as redeliveries"
            );
        }
    }

    /// Sets how long these stay hidden from now on, each in whole seconds.
    async fn hide(&self, messages: &[(Handle, Duration)]) {
        let mut tries = Tries::new(messages.to_vec());
        while tries.go_on().await {
            let entry = |(at, (handle, hidden)): (usize, &(Handle, Duration))| {
                let entry = ChangeEntry::builder().id(at.to_string()).receipt_handle(&handle.0);
                entry.visibility_timeout(whole_seconds(*hidden)).build()
            };
            let entries = tries.left.iter().enumerate().filter_map(|it| entry(it).ok()).collect();
            let request = self.calls.change_message_visibility_batch().queue_url(&self.queue_url);
            let answer = request.set_entries(Some(entries)).send().await;
            tries.answered(
                answer
                    .map(|it| it.failed)
                    .map_err(|error| failed("changing visibility", &self.queue_url, error)),
            );
        }
        let left = tries.given_up();
        if left > 0 {
            tracing::debug!(queue = self.options.name, left, "visibility could not be changed");
        }
    }
}

impl Source for Sqs {
    fn ingress(&self) -> &str {
        &self.ingress
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn hidden_for(&self) -> Option<Duration> {
        Some(self.options.visibility_timeout)
    }

    async fn receive(&self) -> Result<Vec<Arrival>, SourceError> {
        let request = self.polls.receive_message().queue_url(&self.queue_url);
        let answer = request
            .max_number_of_messages(10)
            .wait_time_seconds(whole_seconds(self.options.wait))
            .visibility_timeout(whole_seconds(self.options.visibility_timeout))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await;
        let answer = answer.map_err(|error| {
            let error = failed("receiving", &self.queue_url, error);
            metric::queue_receive_failed(&self.options.name, error.code());
            error
        })?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages.map(|message| arrival(message, &self.ingress, self.options.weak_ids)).collect())
    }

    async fn keep(&self, handles: &[Handle]) {
        let hidden = |handle: &Handle| (handle.clone(), self.options.visibility_timeout);
        self.hide(&handles.iter().map(hidden).collect::<Vec<_>>()).await;
    }

    async fn settle(&self, settlements: Vec<(Handle, Settlement)>) {
        let (mut done, mut back) = (Vec::new(), Vec::new());
        for (handle, settlement) in settlements {
            match settlement {
                Settlement::Done => done.push(handle),
                Settlement::GiveBack(after) => back.push((handle, after)),
            }
        }
        // First what is done: in a FIFO queue the next of a group is handed out only when those before
        // it are gone.
        for done in done.chunks(BATCH_MAX) {
            self.delete(done).await;
        }
        for back in back.chunks(BATCH_MAX) {
            self.hide(back).await;
        }
    }
}

impl SourceError {
    /// A word for metrics.
    fn code(&self) -> &str {
        match self {
            Self::Failed { code, .. } => code,
            Self::Missing { .. } => "QueueDoesNotExist",
            Self::NoCredentials { .. } => "credentials",
            Self::BadAddress { .. } | Self::Unreadable(_) => "other",
        }
    }
}

/// A client to poll with and one for everything else.
fn clients(
    options: &SqsOptions,
    region: Option<String>,
    config: &SdkConfig,
    poll_max: Duration,
) -> [Client; 2] {
    let emulator = options.endpoint_url.as_ref().map(|_| Region::new(EMULATOR_REGION));
    let region = options.region.clone().or(region).map(Region::new);
    let region = region.or_else(|| config.region().cloned()).or(emulator);
    [poll_max, CALL_MAX].map(|attempt_max| {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt_max).build();
        let mut builder = aws_sdk_sqs::config::Builder::from(config);
        builder = builder.retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        builder.set_region(region.clone());
        if let Some(url) = &options.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        Client::from_conf(builder.build())
    })
}

/// What a failed call means to the caller.
fn failed<E, R>(doing: &'static str, queue: &str, error: SdkError<E, R>) -> SourceError
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = match &error {
        SdkError::TimeoutError(_) => "timeout".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "timeout".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_io() => "connect".to_owned(),
        error => error.code().unwrap_or("other").to_owned(),
    };
    // The name in the SDK's model, and the one that servers of the older protocol send.
    if matches!(code.as_str(), "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue") {
        return SourceError::Missing { queue: queue.to_owned() };
    }
    if lacks_credentials(&error) {
        return SourceError::NoCredentials { doing, source: error.into() };
    }
    SourceError::Failed { doing, code, source: error.into() }
}

/// Whether the request could not be signed: none of the SDK's providers had credentials. Its error for
/// that is not among what it lets others name.
fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    let is_it = |it: &(dyn StdError + 'static)| {
        let text = it.to_string();
        text.contains("credential provider") || text.contains("credentials provider")
    };
    successors(Some(error), |&it| it.source()).any(is_it)
}

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// The error and its causes in one line.
fn chain(error: &(dyn StdError + 'static)) -> String {
    successors(Some(error), |&it| it.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_poll_whose_answer_never_comes_ends_by_itself() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let options = SqsOptions {
            name: "n".to_owned(),
            queue: format!("{url}/000000000000/n"),
            endpoint_url: Some(url),
            region: None,
            visibility_timeout: Duration::from_mins(1),
            wait: Duration::from_secs(20),
            weak_ids: false,
        };
        let credentials = Credentials::new("test", "test", None, None, "tests");
        let config = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let [polls, calls] = clients(&options, None, &config, Duration::from_millis(100));
        let queue_url = options.queue.clone();
        let queue = Sqs { ingress: "sqs:n".to_owned(), options, queue_url, polls, calls };
        let error = queue.receive().await.unwrap_err();
        assert!(matches!(&error, SourceError::Failed { code, .. } if code == "timeout"), "{error:?}");
    }
}
