//! Batches of deletions and the like: HTTP 200 can carry failures, entry by entry.

use std::time::Duration;

use aws_sdk_sqs::types::BatchResultErrorEntry;

use super::chain;
use crate::source::SourceError;

/// Tries of a batch before the rest is left to be handed out again.
pub(super) const TRIES: u32 = 3;

/// The entries of a batch while it is tried a few times over.
#[derive(Debug)]
pub(super) struct Tries<T> {
    pub(super) left: Vec<T>,
    refused: usize,
    tried: u32,
}

impl<T: Clone> Tries<T> {
    pub(super) const fn new(entries: Vec<T>) -> Self {
        Self { left: entries, refused: 0, tried: 0 }
    }

    /// Whether to call with what is left; pauses before every call but the first.
    pub(super) async fn go_on(&mut self) -> bool {
        if self.left.is_empty() || self.tried == TRIES {
            return false;
        }
        if self.tried > 0 {
            let ceiling = 100 << self.tried;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(ceiling / 2..=ceiling))).await;
        }
        self.tried += 1;
        true
    }

    /// Keeps what failed and may succeed. An entry whose handle is spent is done with: its message is
    /// gone, or comes again by itself.
    pub(super) fn answered(&mut self, answer: Result<Vec<BatchResultErrorEntry>, SourceError>) {
        let failed = match answer {
            Ok(failed) => failed,
            Err(error) => {
                tracing::debug!(error = chain(&error), tried = self.tried, "a batch failed as a whole");
                return;
            }
        };
        let mut again = Vec::new();
        for (at, fault) in faults(&failed) {
            match fault {
                Fault::Again => again.extend(self.left.get(at).cloned()),
                Fault::Refused => self.refused += 1,
                Fault::Spent => {}
            }
        }
        self.left = again;
    }

    /// How many entries the queue did not take.
    pub(super) const fn given_up(&self) -> usize {
        self.left.len() + self.refused
    }
}

/// The entries that failed, by their place in the request.
fn faults(failed: &[BatchResultErrorEntry]) -> impl Iterator<Item = (usize, Fault)> {
    failed.iter().filter_map(|entry| {
        let fault = match entry.code() {
            "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidParameterValue" => Fault::Spent,
            _ if entry.sender_fault() => Fault::Refused,
            _ => Fault::Again,
        };
        Some((entry.id().parse().ok()?, fault))
    })
}

/// What to do about an entry of a batch that the queue did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The handle is spent: the message is gone or was handed out again already.
    Spent,
    /// The same may succeed at once.
    Again,
    /// It will not.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, code: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder().id(id).code(code).sender_fault(sender_fault).build().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_failed_and_may_succeed_is_tried_again() {
        let mut tries = Tries::new(vec!["a", "b", "c", "d"]);
        assert!(tries.go_on().await);
        tries.answered(Ok(vec![
            entry("0", "ReceiptHandleIsInvalid", true),
            entry("1", "InternalError", false),
            entry("3", "AccessDenied", true),
            entry("9", "InternalError", false),
            entry("x", "InternalError", false),
        ]));
        assert_eq!(tries.left, ["b"]);
        assert!(tries.go_on().await);
        tries.answered(Ok(Vec::new()));
        assert!(!tries.go_on().await);
        assert_eq!(tries.given_up(), 1, "the one that was refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_as_a_whole_is_repeated_a_few_times() {
        let mut tries = Tries::new(vec!["a", "b"]);
        let mut calls = 0;
        while tries.go_on().await {
            calls += 1;
            let source = "reset".into();
            tries.answered(Err(SourceError::Failed { doing: "deleting", code: "connect".into(), source }));
        }
        assert_eq!((calls, tries.given_up()), (TRIES, 2));
        assert!(!Tries::<u8>::new(Vec::new()).go_on().await, "nothing to do is not done");
    }
}
