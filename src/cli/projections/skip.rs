//! `projections skip`: the way past an event that no release can fold.

use anyhow::bail;
use serde_json::{Value as Json, json};

use super::super::{Exit, Output, print};
use crate::{
    clock::Timestamp,
    id::Cursor,
    store::{SkipOutcome, SkippedEvent, Store},
};

/// The longest reason, in characters.
const REASON_MAX: usize = 1_000;

/// Reads a reason that says something.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("it is blank; say why, it is shown for ever".to_owned()),
        count if count > REASON_MAX => {
            Err(format!("it has {count} characters, at most {REASON_MAX} are kept"))
        }
        _ => Ok(text.to_owned()),
    }
}

pub(super) async fn skip(
    store: &Store,
    event: Cursor,
    (reason, actor): (&str, &str),
    now: Timestamp,
    output: Output,
) -> anyhow::Result<Exit> {
    let (skipped, is_new, folded) = match store.skip_event(event, reason, actor, now).await? {
        SkipOutcome::Skipped { event, is_new, folded } => (event, is_new, folded),
        SkipOutcome::NoEvent => bail!("the log has no event {event}"),
        SkipOutcome::NotParked => bail!(
            "no projection is parked before event {event}, so nothing has to be left out; `projections status` names \
             the event before which one is"
        ),
    };
    if output.json {
        let mut told = told(&skipped);
        told["isNew"] = json!(is_new);
        told["foldedBefore"] = json!(folded);
        print(told)?;
        return Ok(Exit::Well);
    }
    if !is_new {
        print(format_args!("nothing to do: {}", line(&skipped)))?;
        return Ok(Exit::Well);
    }
    print(line(&skipped))?;
    print("whoever runs `serve` goes on behind it within 30 seconds")?;
    for name in folded {
        print(format_args!(
            "{name} had folded it before and shows what followed: `projections rebuild {name} --accept` ends that"
        ))?;
    }
    Ok(Exit::Well)
}

/// One line about an event that is left out.
pub(super) fn line(it: &SkippedEvent) -> String {
    let SkippedEvent { event, message_id, kind, reason, actor, at, .. } = it;
    format!("event {event} ({kind} of message {message_id}) is left out since {at} by {actor}: {reason}")
}

/// The same for machines.
pub(super) fn told(it: &SkippedEvent) -> Json {
    let SkippedEvent { event, message_id, kind, reason, problem, actor, at } = it;
    json!({
        "event": event, "messageId": message_id, "type": kind, "reason": reason, "problem": problem,
        "by": actor, "at": at,
    })
}
