//! Where messages come from: the port that every queue and file is behind.
//!
//! A source hands out what arrived and is told what became of it. It does not parse, keeps nothing,
//! and forgets an arrival only when it is told that the arrival is durable elsewhere.

pub mod ndjson;
pub mod sqs;

use std::{collections::BTreeMap, error::Error, fmt, future::Future, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{event::Metadata, message::Outside};

/// Most bytes of an arrival that are kept: what is longer cannot be a message, and goes into quarantine
/// with its beginning and its size.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// What the queue's own message id is called where it stands in for a message id.
const WEAK_KIND: &str = "sqs";
/// The attributes that hold a strong id, the first one found counting.
const ID_ATTRIBUTES: [&str; 2] = ["messageId", "id"];

/// Input that arrived, not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The bytes, or their beginning where there are more than may be kept.
    pub body: Vec<u8>,
    /// How many bytes there were.
    pub size: u64,
    /// What the producer said beside the body.
    pub beside: Beside,
    /// How it came.
    pub metadata: Metadata,
    /// Where at the source it was found: `message 5fea…`, `line 17`.
    pub place: String,
    /// Arrivals of one group are to be taken in order; none where order does not matter.
    pub group: Option<String>,
    /// What the source knows it by.
    pub handle: Handle,
}

/// What a producer said beside the body; kept with the body where that goes into quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Beside {
    /// The message attributes; binary ones in hexadecimal digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The queue's own id, where it may stand in for a message id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weak_id: Option<String>,
}

/// What a source knows an arrival by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handle(pub String);

/// What became of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is durable: the source may forget it.
    Done,
    /// It could not be taken: the source is to hand it out again after this time.
    GiveBack(Duration),
}

/// Why nothing could be received.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address of the queue makes no sense.
    #[error("{address:?} is no queue; use its URL, its ARN or its name")]
    BadAddress {
        /// As configured.
        address: String,
    },
    /// There is no such queue.
    #[error("the queue {queue} does not exist; create it, or correct its address, region and account")]
    Missing {
        /// Its address.
        queue: String,
    },
    /// There is nothing to sign requests with.
    #[error(
        "{doing} failed: there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give \
         the machine, the container or the pod a role that may use the queue"
    )]
    NoCredentials {
        /// What was tried.
        doing: &'static str,
        /// Where they were looked for.
        source: BoxError,
    },
    /// The service did not do it; the same may succeed later.
    #[error("{doing} failed ({code})")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The service's code, or ours: `timeout`, `connect`.
        code: String,
        /// What the service said.
        source: BoxError,
    },
    /// The file or stream cannot be read.
    #[error("the input cannot be read")]
    Unreadable(#[from] std::io::Error),
}

type BoxError = Box<dyn Error + Send + Sync>;

/// Where messages come from.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// The door's name in the log, in metrics and in quarantine: `sqs:notifications`.
    fn ingress(&self) -> &str;

    /// Arrivals in one batch at the most; a full batch says that there are probably more.
    fn batch_max(&self) -> usize;

    /// How long an arrival is kept from other receivers; none where nobody else can receive it.
    fn hidden_for(&self) -> Option<Duration>;

    /// Waits for arrivals, within the patience of the source. None: a queue has none at the moment, a
    /// file has ended.
    fn receive(&self) -> impl Future<Output = Result<Vec<Arrival>, SourceError>> + Send;

    /// Keeps arrivals from other receivers for another [`Self::hidden_for`]. What fails here is
    /// handed out again, which is harmless.
    fn keep(&self, handles: &[Handle]) -> impl Future<Output = ()> + Send;

    /// Says what became of arrivals. What fails here is handed out again, which is harmless.
    fn settle(&self, settlements: Vec<(Handle, Settlement)>) -> impl Future<Output = ()> + Send;
}

impl Beside {
    /// The part that a message may take its id from.
    #[must_use]
    pub fn outside(&self) -> Outside<'_> {
        let strong = ID_ATTRIBUTES.iter().find_map(|&name| self.attributes.get(name));
        Outside {
            strong_id: strong.map(String::as_str),
            weak_id: self.weak_id.as_deref().map(|id| (WEAK_KIND, id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(attributes: &[(&str, &str)]) -> Beside {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Beside { attributes: attributes.iter().map(owned).collect(), weak_id: None }
    }

    #[test]
    fn the_attribute_message_id_comes_before_id() {
        for (attributes, expected) in [
            (&[][..], None),
            (&[("contentType", "application/json")], None),
            (&[("id", "b")], Some("b")),
            (&[("id", "b"), ("messageId", "a")], Some("a")),
        ] {
            assert_eq!(beside(attributes).outside().strong_id, expected, "{attributes:?}");
        }
    }

    #[test]
    fn what_came_beside_the_body_reads_back_from_quarantine() {
        let whole = Beside { weak_id: Some("5fea".to_owned()), ..beside(&[("messageId", "m-1")]) };
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(json, r#"{"attributes":{"messageId":"m-1"},"weakId":"5fea"}"#);
        assert_eq!(serde_json::from_str::<Beside>(&json).unwrap(), whole);
        assert_eq!(serde_json::to_string(&Beside::default()).unwrap(), "{}");
        assert_eq!(whole.outside().weak_id, Some(("sqs", "5fea")));
    }
}
