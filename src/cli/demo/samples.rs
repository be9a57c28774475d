//! What the producers of the demo send: messages, some of them again, one with other words, and a line
//! that is no message.
//!
//! The ids can be read here; a real producer makes a UUID.

use anyhow::Context as _;
use serde_json::{Value, value::RawValue};

use crate::id::MessageId;

/// The messages, as a list in JSON.
const MESSAGES: &str = include_str!("messages.json");
/// Which of them are sent again, some more than once.
const AGAIN: [&str; 4] = ["pass-7-expires", "sign-in-42-0931", "inquiry-81-answered", "pass-7-expires"];
/// Which of them comes with other words under the same id.
const CHANGED: (&str, &str) = ("pass-9-renewed", "Your pass was renewed for a year");
/// Lines of a file; there is no such type of notification.
pub(super) const LINES: &str = r#"{"messageId":"sms-1","notificationType":"SMS","recipientId":"user-7","title":"By text message"}
"#;

/// What is sent.
#[derive(Debug)]
pub(super) struct Samples {
    /// The messages, each as its producer writes it.
    pub(super) first: Vec<String>,
    /// Some of them again. What writes them now puts the fields into another order, as producers that
    /// repeat themselves may do.
    pub(super) again: Vec<String>,
    /// One of them with other words.
    pub(super) changed: Changed,
}

/// A message under whose id something else is sent.
#[derive(Debug)]
pub(super) struct Changed {
    /// The id.
    pub(super) id: MessageId,
    /// What the message says.
    pub(super) title: String,
    /// What is sent under its id.
    pub(super) other: String,
}

impl Samples {
    /// Reads them.
    pub(super) fn new() -> anyhow::Result<Self> {
        let first: Vec<&RawValue> = serde_json::from_str(MESSAGES)?;
        let first: Vec<String> = first.into_iter().map(|it| it.get().to_owned()).collect();
        let values: Vec<Value> = first.iter().map(|it| serde_json::from_str(it)).collect::<Result<_, _>>()?;
        let with_id = |id: &str| {
            let found = values.iter().find(|it| it["messageId"] == id);
            found.cloned().with_context(|| format!("there is no message {id}"))
        };
        let again = AGAIN.iter().map(|id| Ok(with_id(id)?.to_string())).collect::<anyhow::Result<_>>()?;
        let mut other = with_id(CHANGED.0)?;
        let title = other["title"].as_str().unwrap_or_default().to_owned();
        other["title"] = CHANGED.1.into();
        let changed = Changed { id: CHANGED.0.parse()?, title, other: other.to_string() };
        Ok(Self { first, again, changed })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::message::{
        Message, Parsed,
        parse::{Outside, parse},
    };

    fn read(text: &str) -> Parsed {
        parse(text.as_bytes(), Outside::default()).unwrap()
    }

    #[test]
    fn there_is_something_of_everything() {
        let samples = Samples::new().unwrap();
        let messages: Vec<_> = samples.first.iter().map(|it| read(it).message).collect();
        let of = |inbox, push| {
            let kind = messages.iter().map(|it| (it.for_inbox(), it.for_push()));
            kind.filter(|it| *it == (inbox, push)).count()
        };
        assert_eq!((of(true, false), of(false, true), of(true, true)), (4, 3, 5));
        let distinct = |of: fn(&Message) -> String| messages.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|it| it.message_id.to_string()), 12);
        assert_eq!(distinct(|it| it.recipient_id.to_string()), 3);
        assert!(messages.iter().any(|it| it.title.chars().any(|c| ('가'..='힣').contains(&c))));
    }

    #[test]
    fn what_comes_again_says_the_same_and_what_is_changed_does_not() {
        let samples = Samples::new().unwrap();
        let hash = |text: &str| {
            let parsed = read(text);
            (parsed.message.message_id, parsed.content_hash)
        };
        let first: Vec<_> = samples.first.iter().map(|it| hash(it)).collect();
        for text in &samples.again {
            assert!(first.contains(&hash(text)) && !samples.first.contains(text), "{text}");
        }
        let changed = hash(&samples.changed.other);
        assert!(first.iter().any(|it| it.0 == changed.0) && !first.contains(&changed));
        assert_eq!(changed.0, samples.changed.id);
        assert!(LINES.lines().all(|it| parse(it.as_bytes(), Outside::default()).is_err()));
    }
}
