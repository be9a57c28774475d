//! Which deliveries a message becomes. Pure; the answer is recorded as `push.planned` and never asked
//! for again, so a changed configuration does not rewrite what was decided.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    clock::Timestamp,
    device::{Device, PRODUCTION},
    event::PlannedDelivery,
    id::{DeliveryId, DeviceId},
    message::{Message, Priority, Target},
};

/// The configured providers and routes as far as planning needs them.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// Takes pushes that name no provider and match no route; none lets them wait.
    pub default_provider: Option<String>,
    /// Tried in this order; the first that matches decides.
    pub routes: Vec<Route>,
    /// The providers by name.
    pub providers: BTreeMap<String, Known>,
    /// Whether a push without targets goes to the recipient's devices.
    pub to_devices: bool,
}

/// What planning knows of a provider.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its kind.
    pub kind: String,
    /// Which environment of the push service it calls.
    pub environment: String,
    /// How long a claim on a call lasts.
    pub lease: Duration,
    /// Whether a push to this target makes sense there.
    pub takes: fn(&Target) -> bool,
}

/// A rule that says who takes a push: everything that it names has to be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The app of the device.
    pub app: Option<String>,
    /// The platform of the device.
    pub platform: Option<String>,
    /// The category of the message.
    pub category: Option<String>,
    /// The priority of the message; a message without one is of normal priority.
    pub priority: Option<Priority>,
    /// Who takes it, and who after whom when one cannot.
    pub providers: Vec<String>,
}

/// What a message becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// These deliveries; never empty.
    Deliveries(Vec<PlannedDelivery>),
    /// Nothing: it is not to be pushed.
    Nothing,
    /// It waits until somebody is configured who takes it.
    Waits,
    /// Nobody and nothing could take it: the recipient has no device, and no provider knows them by name.
    Nowhere,
}

impl Plan {
    /// The deliveries, none where there are none; and whether that is so because it goes nowhere.
    #[must_use]
    pub fn into_parts(self) -> (Vec<PlannedDelivery>, bool) {
        match self {
            Self::Deliveries(deliveries) => (deliveries, false),
            Self::Nothing | Self::Waits => (Vec::new(), false),
            Self::Nowhere => (Vec::new(), true),
        }
    }
}

impl Known {
    /// A provider that takes any target.
    #[must_use]
    pub fn universal(kind: &str, lease: Duration) -> Self {
        Self { kind: kind.to_owned(), environment: PRODUCTION.to_owned(), lease, takes: |_| true }
    }

    /// Whether it takes every sort of target, whosever it is.
    fn is_universal(&self) -> bool {
        let any = String::new;
        let all =
            [Target::Token(any()), Target::Topic(any()), Target::Alias(any()), Target::Subscription(any())];
        all.iter().all(self.takes)
    }

    /// Kind and environment, where it takes targets of its own service only.
    #[must_use]
    pub fn service(&self) -> Option<(String, String)> {
        (!self.is_universal()).then(|| (self.kind.clone(), self.environment.clone()))
    }

    /// Whether a device's target is one of this provider's.
    fn fits(&self, device: &Device) -> bool {
        let it = &device.registration;
        self.is_universal()
            || (self.kind == it.kind && self.environment == it.environment && (self.takes)(&it.target))
    }
}

impl Route {
    fn matches(&self, message: &Message, device: Option<&Device>) -> bool {
        let of_device = |wanted: &Option<String>, pick: fn(&Device) -> &String| {
            wanted.as_ref().is_none_or(|wanted| device.is_some_and(|it| pick(it) == wanted))
        };
        of_device(&self.app, |it| &it.registration.app)
            && of_device(&self.platform, |it| &it.registration.platform)
            && (self.category.is_none() || self.category == message.category)
            && self.priority.is_none_or(|it| it == message.priority.unwrap_or(Priority::Normal))
    }
}

impl Routing {
    /// These providers, which take any target; the first takes what names none. For tests and tools.
    #[must_use]
    pub fn universal(providers: impl IntoIterator<Item = (String, Duration)>) -> Self {
        let mut default_provider = None;
        let known = |(name, lease): (String, Duration)| {
            default_provider.get_or_insert_with(|| name.clone());
            (name, Known::universal("log", lease))
        };
        let providers = providers.into_iter().map(known).collect();
        Self { default_provider, providers, routes: Vec::new(), to_devices: true }
    }

    /// What a message becomes, for a recipient with these living devices.
    #[must_use]
    pub fn plan(&self, message: &Message, devices: &[Device], now: Timestamp) -> Plan {
        if !message.for_push() {
            return Plan::Nothing;
        }
        let named = message.push.as_ref().and_then(|push| push.provider.as_ref());
        if self.providers.is_empty() || named.is_some_and(|it| !self.providers.contains_key(it)) {
            return Plan::Waits;
        }
        // Who has which devices is asked when it is time.
        if self.needs_devices(message) && message.deliver_at.is_some_and(|at| now < at) {
            return Plan::Waits;
        }
        let targets = message.push.as_ref().map(|push| push.targets.as_slice()).unwrap_or_default();
        let mut ways: Vec<Way> = if targets.is_empty() {
            self.to_devices_of(message, named, devices)
        } else {
            targets.iter().filter_map(|target| self.to_target(message, named, target)).collect()
        };
        if targets.is_empty() && ways.is_empty() {
            let alias = Target::Alias(message.recipient_id.to_string());
            ways.extend(self.to_alias(message, named, alias));
        }
        let mut seen = HashSet::new();
        ways.retain(|way| seen.insert(way.target.clone()));
        let delivery = |way: Way| PlannedDelivery {
            delivery_id: DeliveryId::new(&message.message_id, &way.target.canonical()),
            target: way.target,
            provider: way.provider,
            fallbacks: way.fallbacks,
            device_id: way.device_id,
            due_at: message.deliver_at.map_or(now, |at| at.max(now)),
            expires_at: message.expires_at,
        };
        let deliveries: Vec<_> = ways.into_iter().map(delivery).collect();
        if !deliveries.is_empty() {
            Plan::Deliveries(deliveries)
        } else if targets.is_empty() && self.to_devices && self.has_anybody(message, named) {
            Plan::Nowhere
        } else {
            Plan::Waits
        }
    }

    /// Whether a message can be planned only with its recipient's devices at hand.
    #[must_use]
    pub fn needs_devices(&self, message: &Message) -> bool {
        self.to_devices
            && !self.providers.is_empty()
            && message.for_push()
            && message.push.as_ref().is_none_or(|it| it.targets.is_empty())
    }

    /// Whether a delivery can have more than one provider.
    #[must_use]
    pub fn fails_over(&self) -> bool {
        self.routes.iter().any(|it| it.providers.len() > 1)
    }

    /// The providers that a device's target makes sense for.
    #[must_use]
    pub fn fitting(&self, device: &Device) -> Arc<[String]> {
        self.providers.iter().filter(|(_, it)| it.fits(device)).map(|(name, _)| name.clone()).collect()
    }

    /// How long a claim on a call to this provider lasts.
    #[must_use]
    pub fn lease(&self, provider: &str) -> Duration {
        self.providers.get(provider).map_or(Duration::from_mins(1), |it| it.lease)
    }

    fn to_devices_of(&self, message: &Message, named: Option<&String>, devices: &[Device]) -> Vec<Way> {
        let way = |device: &Device| {
            let fits = |name: &String| self.providers.get(name).is_some_and(|it| it.fits(device));
            let chain = self.chain(message, named, Some(device));
            // Where nobody was named for it, whoever speaks to its push service is as good as named.
            let own = |(name, it): &(&String, &Known)| !it.is_universal() && fits(name);
            let any = || self.providers.iter().find(own).map(|(name, _)| name);
            let mut chain: Vec<_> = chain.into_iter().filter(|it| fits(it)).collect();
            // The default stands in for what nobody speaks to; one that takes anything is not told of devices
            // that have a provider of their own.
            let by_default =
                named.is_none() && !self.routes.iter().any(|it| it.matches(message, Some(device)));
            let is_foreign = |it: &&String| self.providers.get(*it).is_some_and(Known::is_universal);
            if by_default
                && chain.iter().all(is_foreign)
                && let Some(own) = any()
            {
                chain = vec![own];
            }
            let it = &device.registration;
            Way::new(it.target.clone(), &chain, Some(it.device_id.clone()))
        };
        if self.to_devices { devices.iter().filter_map(way).collect() } else { Vec::new() }
    }

    /// A target that the message names goes to whoever the message or a route says, who may yet refuse it.
    fn to_target(&self, message: &Message, named: Option<&String>, target: &Target) -> Option<Way> {
        let chain = self.chain(message, named, None);
        let suits = |name: &&String| self.providers.get(*name).is_some_and(|it| (it.takes)(target));
        let takers: Vec<_> = chain.iter().copied().filter(suits).collect();
        Way::new(target.clone(), if takers.is_empty() { &chain } else { &takers }, None)
    }

    /// The company's own id of the recipient, for providers that know people by it.
    fn to_alias(&self, message: &Message, named: Option<&String>, alias: Target) -> Option<Way> {
        let suits = |name: &&String| self.providers.get(*name).is_some_and(|it| (it.takes)(&alias));
        let takers: Vec<_> = self.chain(message, named, None).into_iter().filter(suits).collect();
        Way::new(alias, &takers, None)
    }

    /// Who takes a push, and who after whom: whom the message names, else the first route that matches,
    /// else the default. Whoever is not configured here is left out.
    fn chain<'a>(
        &'a self,
        message: &Message,
        named: Option<&'a String>,
        device: Option<&Device>,
    ) -> Vec<&'a String> {
        let route = || self.routes.iter().find(|it| it.matches(message, device));
        let chain: Vec<_> = match (named, route()) {
            (Some(named), _) => vec![named],
            (None, Some(route)) => route.providers.iter().collect(),
            (None, None) => self.default_provider.iter().collect(),
        };
        chain.into_iter().filter(|it| self.providers.contains_key(*it)).collect()
    }

    /// Whether anybody would take a push of this message, had its recipient a device.
    fn has_anybody(&self, message: &Message, named: Option<&String>) -> bool {
        named.is_some()
            || !self.chain(message, named, None).is_empty()
            || self.routes.iter().any(|it| it.app.is_some() || it.platform.is_some())
    }
}

/// One target with those who take it.
#[derive(Debug)]
struct Way {
    target: Target,
    provider: String,
    fallbacks: Vec<String>,
    device_id: Option<DeviceId>,
}

impl Way {
    fn new(target: Target, chain: &[&String], device_id: Option<DeviceId>) -> Option<Self> {
        let mut seen = HashSet::new();
        let mut chain = chain.iter().filter(|it| seen.insert(it.as_str())).map(|it| (*it).clone());
        let provider = chain.next()?;
        Some(Self { target, provider, fallbacks: chain.collect(), device_id })
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
