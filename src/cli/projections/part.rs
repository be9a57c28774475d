//! Proving and mending a part of a projection.

use serde_json::json;

use super::{
    super::{Exit, Output, print},
    Watch, comparison_json, in_words, print_comparison,
};
use crate::{
    store::Subject,
    worker::rebuild::{Rebuild, subject::Repaired},
};

/// Compares the rows of one subject.
pub(super) async fn verify(rebuild: &Rebuild, subject: &Subject, output: Output) -> anyhow::Result<Exit> {
    let comparison = rebuild.verify_subject(subject).await?;
    if output.json {
        print(
            json!({ "projection": rebuild.projection.name(), "comparison": comparison_json(&comparison) }),
        )?;
    } else {
        print_comparison(&comparison)?;
    }
    Ok(if comparison.differing == 0 { Exit::Well } else { Exit::Wrong })
}

/// Makes the rows of one subject what the log says, and looks again.
pub(super) async fn mend(rebuild: &Rebuild, subject: &Subject, output: Output) -> anyhow::Result<Exit> {
    let found = rebuild.mend(subject).await?;
    let left = rebuild.verify_subject(subject).await?;
    let (mended, subjects) = (found.differing, 1);
    told(rebuild, &Repaired { found, subjects, mended, left }, output)
}

/// Compares the whole, mends what differs, and compares that again.
pub(super) async fn repair(rebuild: &Rebuild, restart: bool, output: Output) -> anyhow::Result<Exit> {
    let watch = Watch::new(&format!("folding {} anew", rebuild.projection.name()), output);
    let repaired = Box::pin(rebuild.repair(restart, &|done, all| watch.show(done, all))).await;
    watch.end();
    told(rebuild, &repaired?, output)
}

fn told(rebuild: &Rebuild, repaired: &Repaired, output: Output) -> anyhow::Result<Exit> {
    let Repaired { found, subjects, mended, left } = repaired;
    if output.json {
        print(json!({
            "projection": rebuild.projection.name(), "comparison": comparison_json(found),
            "subjects": subjects, "mendedRows": mended, "left": comparison_json(left),
        }))?;
    } else {
        print_comparison(found)?;
        if *mended > 0 {
            print(format_args!("mended: {mended} rows of {subjects} messages or recipients"))?;
            for difference in &left.differences {
                print(format_args!("  {}", in_words(difference)))?;
            }
            print(format_args!("{} of their rows compared again: {} differ", left.rows, left.differing))?;
        }
    }
    Ok(if left.differing == 0 { Exit::Well } else { Exit::Wrong })
}
