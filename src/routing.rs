//! Which deliveries a message becomes. Pure; the answer is recorded as `push.planned` and never asked
//! for again, so a changed configuration does not rewrite what was decided.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    clock::Timestamp,
    event::PlannedDelivery,
    id::DeliveryId,
    message::{Message, Target},
};

/// The configured providers as far as planning needs them.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// Takes pushes that name no provider; none lets them wait.
    pub default_provider: Option<String>,
    /// How long a claim on a call to each provider lasts.
    pub leases: BTreeMap<String, Duration>,
}

impl Routing {
    /// The deliveries of a message; none while it is not to be pushed, or while no configured provider
    /// would take it. Without targets it goes to the recipient under the company's own id.
    #[must_use]
    pub fn plan(&self, message: &Message, now: Timestamp) -> Vec<PlannedDelivery> {
        let named = message.push.as_ref().and_then(|push| push.provider.as_ref());
        let Some(provider) = named.or(self.default_provider.as_ref()) else { return Vec::new() };
        if !message.for_push() || !self.leases.contains_key(provider) {
            return Vec::new();
        }
        let mut targets = message.push.as_ref().map(|push| push.targets.clone()).unwrap_or_default();
        if targets.is_empty() {
            targets.push(Target::Alias(message.recipient_id.to_string()));
        }
        let mut seen = HashSet::new();
        targets.retain(|target| seen.insert(target.clone()));
        let delivery = |target: Target| PlannedDelivery {
            delivery_id: DeliveryId::new(&message.message_id, &target.canonical()),
            target,
            provider: provider.clone(),
            due_at: message.deliver_at.map_or(now, |at| at.max(now)),
            expires_at: message.expires_at,
        };
        targets.into_iter().map(delivery).collect()
    }

    /// How long a claim on a call to this provider lasts.
    #[must_use]
    pub fn lease(&self, provider: &str) -> Duration {
        self.leases.get(provider).copied().unwrap_or(Duration::from_mins(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::parse::{Outside, parse};

    fn routing() -> Routing {
        let leases = BTreeMap::from([("acme".to_owned(), Duration::from_secs(30))]);
        Routing { default_provider: Some("acme".to_owned()), leases }
    }

    fn plan(push: &str) -> Vec<(String, String)> {
        let body = format!(
            r#"{{"messageId":"m","notificationType":"PUSH","recipientId":"u","title":"t","push":{push}}}"#
        );
        let message = parse(body.as_bytes(), Outside::default()).unwrap().message;
        let plan = routing().plan(&message, Timestamp::from_micros(5));
        plan.into_iter().map(|it| (it.provider, it.target.canonical())).collect()
    }

    #[test]
    fn targets_and_providers_are_resolved_once() {
        let acme = |target: &str| ("acme".to_owned(), target.to_owned());
        assert_eq!(plan("{}"), [acme("alias:u")]);
        let twice = r#"{"targets":[{"token":"a"},{"topic":"b"},{"token":"a"}]}"#;
        assert_eq!(plan(twice), [acme("token:a"), acme("topic:b")]);
        assert_eq!(plan(r#"{"provider":"unheard-of"}"#), [], "waits until there is such a provider");
    }
}
