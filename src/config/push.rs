//! `[push]` and `[providers.NAME]`: where pushes go.
//!
//! What a provider's own settings mean is known to its adapter alone; here they are kept as they are.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::message::Priority;

use super::{
    problem::{Problem, nearest},
    value::non_empty,
};

/// `[push]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The provider for pushes that name none.
    #[serde(deserialize_with = "non_empty")]
    pub provider: Option<String>,
    /// Whether a push without targets goes to the recipient's registered devices.
    pub to_devices: bool,
    /// Who takes which push, and who after whom; the first that matches decides.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// `[[push.routes]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The app of the device.
    #[serde(default, deserialize_with = "non_empty")]
    pub app: Option<String>,
    /// The platform of the device.
    #[serde(default, deserialize_with = "non_empty")]
    pub platform: Option<String>,
    /// The category of the message.
    #[serde(default, deserialize_with = "non_empty")]
    pub category: Option<String>,
    /// The priority of the message.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Who takes it, in this order.
    pub providers: Vec<String>,
}

/// `[providers.NAME]`
#[derive(Clone, PartialEq, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct ProviderSettings {
    /// Which adapter; empty, and a problem, where the table does not say so as a text.
    pub kind: String,
    /// What it is told; everything but `kind`.
    pub settings: Value,
}

impl From<Map<String, Value>> for ProviderSettings {
    fn from(mut settings: Map<String, Value>) -> Self {
        let kind = match settings.remove("kind") {
            Some(Value::String(kind)) => kind,
            _ => String::new(),
        };
        Self { kind, settings: Value::Object(settings) }
    }
}

/// Without the settings, in which a secret may stand where it does not belong.
impl fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSettings").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Push {
    /// What is wrong with this section, beside these providers.
    pub fn validate(&self, providers: &BTreeMap<String, ProviderSettings>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(name) = self.provider.as_deref().filter(|it| !providers.contains_key(*it)) {
            let remedy = match nearest(name, providers.keys().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("add a section [providers.{name}]"),
            };
            problems.push(Problem::new(
                "push.provider",
                format!("is {name:?}, and there is no such provider"),
                remedy,
            ));
        }
        for (at, route) in self.routes.iter().enumerate() {
            let key = format!("push.routes[{at}].providers");
            if route.providers.is_empty() {
                let remedy = "name at least one provider, or leave the route out";
                problems.push(Problem::new(&key, "is empty", remedy));
            }
            for name in route.providers.iter().filter(|it| !providers.contains_key(*it)) {
                let remedy = match nearest(name, providers.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("add a section [providers.{name}]"),
                };
                let problem = format!("names {name:?}, and there is no such provider");
                problems.push(Problem::new(&key, problem, remedy));
            }
        }
        for (name, _) in providers.iter().filter(|(_, it)| it.kind.is_empty()) {
            problems.push(Problem::new(
                format!("providers.{name}"),
                "does not say what kind of provider it is",
                "write kind = \"http\" or another kind there",
            ));
        }
        for name in providers.keys().filter(|it| !is_provider_name(it)) {
            problems.push(Problem::new(
                format!("providers.{name}"),
                "is not a name for a provider",
                "use 1 to 64 of a–z, 0–9, - and _",
            ));
        }
        problems
    }
}

fn is_provider_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}
