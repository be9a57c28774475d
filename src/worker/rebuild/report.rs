//! How a rebuild ended, as it is kept in the catalogue for everybody who asks.
//!
//! Which rows and columns differ stands in it, and not what they hold: that may be the words of a message or a
//! device's token.

use serde_json::{Value as Json, json};

use super::{Comparison, Difference, RebuildError, Rebuilt, What};
use crate::{clock::Timestamp, store::ProjectError, worker::chain};

/// The report on a rebuild that came to an end; none where it was cut off and is to go on.
pub(super) fn report(built: &Result<Rebuilt, RebuildError>, now: Timestamp) -> Option<Json> {
    match built {
        Ok(Rebuilt { slot, flipped, comparison, behind }) => Some(json!({
            "at": now,
            "slot": slot.as_str(),
            "flipped": flipped,
            "compared": comparison.as_ref().map(compared),
            "behind": behind.iter().map(|it| json!({"shard": it.shard, "reason": it.reason})).collect::<Json>(),
        })),
        Err(RebuildError::Stopped(_) | RebuildError::Project(ProjectError::Taken(_))) => None,
        Err(error) => Some(json!({ "at": now, "flipped": false, "error": chain(error) })),
    }
}

fn compared(it: &Comparison) -> Json {
    json!({
        "rows": it.rows,
        "differing": it.differing,
        "behindEvents": it.behind_events(),
        "differences": it.differences.iter().map(difference).collect::<Json>(),
    })
}

fn difference(Difference { table, key, what }: &Difference) -> Json {
    let (what, column) = match what {
        What::Missing => ("missing", None),
        What::Extra => ("extra", None),
        What::Column { name, .. } => ("column", Some(name)),
    };
    json!({ "table": table, "key": key, "what": what, "column": column })
}
