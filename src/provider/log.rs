//! The provider that sends nothing: it writes one line to the service's own log and accepts.
//!
//! For trying the ledger out, and for running it beside an old sender before the switch. The line
//! names ids only; texts, targets and recipients stay out of it.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, ready};

use super::{Outcome, Parts, Provider, Push, settings::BuildError, settings::Settings};

/// Accepts every push and logs its ids.
#[derive(Debug)]
struct Log {
    name: String,
}

/// Builds the kind `log`, which has no settings of its own.
pub(super) fn build(parts: Parts, settings: Settings) -> Result<Arc<dyn Provider>, BuildError> {
    settings.finish()?;
    Ok(Arc::new(Log { name: parts.name }))
}

impl Provider for Log {
    fn name(&self) -> &str {
        &self.name
    }

    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Outcome> {
        tracing::info!(
            provider = self.name,
            message_id = %push.message.message_id,
            delivery_id = %push.delivery_id,
            attempt = push.attempt,
            target_kind = push.target.kind(),
            "a push was accepted by the log provider and goes no further"
        );
        let provider_message_id = Some(format!("log-{}", push.delivery_id));
        ready(Outcome::Accepted { provider_message_id, status: None }).boxed()
    }
}
