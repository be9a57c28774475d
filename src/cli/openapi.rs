//! `openapi`: the description of the HTTP API.

use clap::Args;

use super::{Exit, print};
use crate::http::openapi::document;

/// Print the description of the HTTP API, OpenAPI 3.1
///
/// A process that serves answers the same at /openapi.json.
#[derive(Debug, Args)]
pub(super) struct Options {}

impl Options {
    #[allow(clippy::unused_async, reason = "every command is run the same way")]
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        print(document().trim_end())?;
        Ok(Exit::Well)
    }
}
