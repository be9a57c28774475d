//! When to ask what became of a push that is pending, and when to stop asking. Pure.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    event::FailureClass,
    provider::{Failure, Outcome},
};

/// Receipts are kept for a day (Expo); who has not learnt it by then will not.
const ASKED_FOR: Duration = Duration::from_hours(23);
/// The least wait between two questions.
const WAIT_MIN: Duration = Duration::from_mins(5);

/// What follows when there is no word yet: another question when twice the time has passed, the
/// last one just before the provider forgets; then nobody knows.
pub(super) fn not_yet(ticket: String, since: Timestamp, now: Timestamp) -> Outcome {
    let waited = now.since(since);
    if waited >= ASKED_FOR {
        let answer = Some("the provider gave no receipt in the time for which it keeps them".to_owned());
        let failure = Failure::new(FailureClass::Unknown, RECEIPT_EXPIRED);
        return Outcome::Failed(Failure { answer, ..failure });
    }
    let ask_after = waited.max(WAIT_MIN).min(ASKED_FOR.saturating_sub(waited));
    Outcome::Pending { ticket, ask_after }
}

/// The code of a push whose receipt never came.
pub(super) const RECEIPT_EXPIRED: &str = "receipt_expired";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_ever_less_often_and_end_before_the_provider_forgets() {
        let since = Timestamp::from_micros(0);
        let mut now = since.plus(Duration::from_mins(15));
        let mut asked = vec![15];
        let end = loop {
            match not_yet("t".into(), since, now) {
                Outcome::Pending { ask_after, .. } => {
                    now = now.plus(ask_after);
                    asked.push(now.since(since).as_secs() / 60);
                }
                other => break other,
            }
        };
        assert_eq!(asked, [15, 30, 60, 120, 240, 480, 960, 1380]);
        let Outcome::Failed(failure) = end else { panic!("{end:?}") };
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Unknown, RECEIPT_EXPIRED));
    }
}
