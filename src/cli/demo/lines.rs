//! What the demo tells, one line a fact: numbers in, sentences out, each with what had to come out.
//! Pure.

use std::time::Duration;

use super::{
    client::{Inbox, Sent},
    endpoint::{Endpoint, INVALID_TOKEN, RETRY_AFTER_S},
    tally::Tally,
    text::{Line, count},
};
use crate::{
    id::{MessageId, RecipientId},
    store::{HeldEntry, Slot},
    worker::rebuild::Rebuilt,
};

/// Messages were sent for the first time.
pub(super) fn sent(number: usize, answers: Sent, log: &Tally) -> Line {
    let recipients = count(log.recipients.len(), "customer");
    let messages = count(log.messages, "message");
    let text = format!("{messages} for {recipients} over HTTP: {} appended", answers.appended);
    Line::new("sent", text)
        .expect(answers == Sent { appended: number, ..Sent::default() }, "every message had to be appended")
        .expect(log.messages == number, "the log had to hold each once")
}

/// Where the messages are to go.
pub(super) fn kinds(log: &Tally) -> Line {
    let (inbox, push, both) = (log.kind(true, false), log.kind(false, true), log.kind(true, true));
    let text =
        format!("{inbox} for the inbox, {push} as a push, {both} as both; {} of them in Korean", log.korean);
    Line::new("kinds", text).expect(inbox > 0 && push > 0 && both > 0, "there had to be some of every kind")
}

/// Some of the `messages` came again; `counted` is how many the ledger keeps as evidence.
pub(super) fn repeated(number: usize, answers: Sent, counted: i64, messages: usize, log: &Tally) -> Line {
    let text = format!(
        "{} came again from their producers: {} redelivered, {} appended",
        count(number, "message"),
        answers.redelivered,
        answers.appended,
    );
    Line::new("repeated", text)
        .expect(answers == Sent { redelivered: number, ..Sent::default() }, "each had to be recognised")
        .expect(usize::try_from(counted) == Ok(number), "each had to be counted as evidence")
        .expect(log.messages == messages, "the log had to hold each once")
}

/// One came with other words; `kept` is what the ledger holds of it, `first` what came first.
pub(super) fn changed(answers: Sent, kept: &str, first: &str, log: &Tally) -> Line {
    let text = format!(
        "{} came with other words under the same id: {} on record,\nthe first words stay: “{kept}”",
        count(answers.conflicts, "message"),
        count(log.conflicts, "conflict"),
    );
    Line::new("changed", text)
        .expect(answers == Sent { conflicts: 1, ..Sent::default() }, "it had to be answered as a conflict")
        .expect(log.conflicts == 1, "the conflict had to be on record")
        .expect(kept == first, "the first words had to stay")
}

/// A line of a file was no message.
pub(super) fn quarantined(lines: usize, held: &[HeldEntry]) -> Line {
    let reasons: Vec<_> = held.iter().map(|it| format!("\n{}: {}", it.source, it.reason)).collect();
    let text = format!("{} no message, kept whole:{}", is_or_are(held.len(), "line"), reasons.concat());
    Line::new("quarantined", text).expect(held.len() == lines, "every such line had to be kept")
}

/// Deliveries were planned, and calls made.
pub(super) fn pushed(log: &Tally, endpoint: &Endpoint) -> Line {
    let text = format!(
        "{} planned, {} made, each on record before it was made",
        count(log.deliveries, "delivery"),
        count(endpoint.calls(), "call"),
    );
    Line::new("pushed", text)
        .expect(log.open == 0, &format!("{} had to come to an end", count(log.open, "delivery")))
        .expect(log.deliveries > 0, "there had to be some")
        .expect(log.attempts == endpoint.calls(), &format!("the log has {}", count(log.attempts, "attempt")))
        .expect(log.lost == 0, &format!("{} lost", count(log.lost, "attempt")))
}

/// Calls were answered with "not now".
pub(super) fn retried(log: &Tally, endpoint: &Endpoint) -> Line {
    let of = |status| log.retried.get(&status).copied().unwrap_or_default();
    let text = format!(
        "{} after 503, {} after 429 with its Retry-After of {RETRY_AFTER_S} s",
        count(of(503), "call"),
        of(429),
    );
    let as_answered = |status| of(status) == endpoint.answered(status);
    Line::new("retried", text)
        .expect(of(503) > 0 && of(429) > 0, "there had to be some of both")
        .expect(log.retried.keys().all(|it| [503, 429].contains(it)), "nothing else had to be retried")
        .expect(as_answered(503) && as_answered(429), "the push endpoint answered so at other times")
}

/// Some deliveries ended well, some did not.
pub(super) fn ended(log: &Tally, endpoint: &Endpoint) -> Line {
    let given_up = log.given_up.iter().map(|(code, times)| format!(", {times} given up at once: {code}"));
    let text = format!(
        "{} of {} accepted{}",
        log.accepted,
        count(log.deliveries, "delivery"),
        given_up.collect::<String>(),
    );
    let only_invalid = log.given_up.keys().map(String::as_str).eq([INVALID_TOKEN]);
    Line::new("ended", text)
        .expect(only_invalid, "those to devices that are gone had to be given up, and no other")
        .expect(log.given_up.values().sum::<usize>() == endpoint.answered(400), "each had to be called once")
        .expect(log.accepted == endpoint.answered(200), "the push endpoint took another number")
}

/// A recipient opened an item.
pub(super) fn read(recipient: &RecipientId, message: &MessageId, before: &Inbox, after: &Inbox) -> Line {
    let text =
        format!("{recipient} opened {message}: {} unread before, {} after", before.unread, after.unread);
    Line::new("read", text)
        .expect(after.unread == before.unread - 1, "one had to become read")
        .expect(after.total == before.total, "no item had to come or go")
}

/// What the recipients see.
pub(super) fn inboxes(inboxes: &[(RecipientId, Inbox)], log: &Tally) -> Line {
    let row = |(recipient, it): &(RecipientId, Inbox)| {
        let items =
            format!("{}, {} unread", count(usize::try_from(it.total).unwrap_or(0), "item"), it.unread);
        format!("{:<10}{items:<20}newest: {}", recipient.as_str(), it.newest)
    };
    let rows: Vec<_> = inboxes.iter().map(row).collect();
    let total: i64 = inboxes.iter().map(|(_, it)| it.total).sum();
    let expected = log.kind(true, false) + log.kind(true, true);
    Line::new("inboxes", rows.join("\n"))
        .expect(usize::try_from(total) == Ok(expected), &format!("{expected} items had to be there"))
        .expect(inboxes.len() == log.recipients.len(), "everybody had to have one")
}

/// The log by itself.
pub(super) fn log(log: &Tally) -> Line {
    let text = format!("{} in all, no position missing", count(log.events, "event"));
    Line::new("the log", text).expect(log.gapless, "no position had to be missing")
}

/// A projection was folded anew from the log.
pub(super) fn rebuilt(rebuilt: &Rebuilt, was: Slot, live: Slot, took: Duration) -> Vec<Line> {
    let comparison = rebuilt.comparison.clone().unwrap_or_default();
    let events: i64 = comparison.places.iter().map(|(_, place)| place.0).sum();
    let text = format!(
        "{} into {} beside the live tables, in {} ms",
        count(usize::try_from(events).unwrap_or(0), "event"),
        count(usize::try_from(comparison.rows).unwrap_or(0), "row"),
        took.as_millis(),
    );
    let folded = Line::new("folded", text)
        .expect(rebuilt.comparison.is_some(), "it had to be compared")
        .expect(events > 0 && comparison.rows > 0, "there had to be something to fold");
    let text = format!("row by row with the live tables: {} differ", comparison.differing);
    let compared = Line::new("compared", text).expect(comparison.differing == 0, "none had to differ");
    let text = format!("slot {live} is live now, slot {was} was before");
    let flipped = Line::new("flipped", text).expect(rebuilt.flipped && live != was, "it had to become live");
    vec![folded, compared, flipped]
}

fn is_or_are(number: usize, noun: &str) -> String {
    format!("{} {}", count(number, noun), if number == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{Position, Shard},
        worker::rebuild::Comparison,
    };

    fn tally(messages: usize) -> Tally {
        Tally { messages, kinds: [((true, false), messages)].into(), gapless: true, ..Tally::default() }
    }

    #[test]
    fn what_the_answers_say_and_what_the_log_says_must_both_be_right() {
        let all = Sent { appended: 12, ..Sent::default() };
        assert_eq!(sent(12, all, &tally(12)).wrong(), None);
        assert!(sent(12, all, &tally(13)).wrong().is_some());
        let one_less = Sent { appended: 11, redelivered: 1, conflicts: 0 };
        assert!(sent(12, one_less, &tally(12)).wrong().is_some());

        let again = Sent { redelivered: 4, ..Sent::default() };
        assert_eq!(repeated(4, again, 4, 12, &tally(12)).wrong(), None);
        assert!(repeated(4, again, 3, 12, &tally(12)).wrong().is_some());
        assert!(repeated(4, again, 4, 12, &tally(13)).wrong().is_some());
    }

    #[test]
    fn the_first_words_have_to_stay() {
        let (answers, log) = (Sent { conflicts: 1, ..Sent::default() }, Tally { conflicts: 1, ..tally(1) });
        assert_eq!(changed(answers, "first", "first", &log).wrong(), None);
        assert!(changed(answers, "other", "first", &log).wrong().is_some());
    }

    #[test]
    fn reading_one_leaves_one_less_unread() {
        let (recipient, message) = ("user-1".parse().unwrap(), "m-1".parse().unwrap());
        let inbox = |unread| Inbox { total: 3, unread, ..Inbox::default() };
        assert_eq!(read(&recipient, &message, &inbox(3), &inbox(2)).wrong(), None);
        assert!(read(&recipient, &message, &inbox(3), &inbox(3)).wrong().is_some());
    }

    #[test]
    fn a_row_that_differs_is_no_good_end() {
        let rebuild = |differing, flipped| {
            let places = vec![(Shard(0), Position(51))];
            let comparison = Comparison { places, rows: 20, differing, ..Comparison::default() };
            let rebuild =
                Rebuilt { slot: Slot::B, flipped, comparison: Some(comparison), behind: Vec::new() };
            let live = if flipped { Slot::B } else { Slot::A };
            let lines = rebuilt(&rebuild, Slot::A, live, Duration::from_millis(3));
            lines.iter().filter_map(Line::wrong).count()
        };
        assert_eq!((rebuild(0, true), rebuild(1, true), rebuild(1, false)), (0, 1, 2));
    }
}
