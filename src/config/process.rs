//! `[telemetry]` and `[service]`: what this process does, and how it tells of it.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::Deserialize;

use super::{
    problem::Problem,
    value::{at_least_one, list, seconds},
};
use crate::telemetry::{self, LogFormat};

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// What is logged, as `RUST_LOG` is written.
    pub log: String,
    /// How it is written.
    pub format: LogFormat,
}

/// `[service]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What this process does.
    #[serde(deserialize_with = "list")]
    pub roles: Vec<Role>,
    /// How long a soft stop may take.
    #[serde(rename = "shutdown_timeout_s", deserialize_with = "seconds")]
    pub shutdown_timeout: Duration,
}

/// One part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Take messages from queues.
    Ingest,
    /// Fold events into projections.
    Project,
    /// Push.
    Deliver,
    /// Answer HTTP.
    Api,
}

impl Telemetry {
    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let problem = |reason: telemetry::TelemetryError| {
            Problem::new(
                "telemetry.log",
                format!("is {:?}: {reason}", self.log),
                "write a level such as info, or levels by module as in info,sqlx=debug",
            )
        };
        telemetry::check_filter(&self.log).map_err(problem).err().into_iter().collect()
    }
}

impl Service {
    /// Whether this process has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The roles, each once.
    pub fn role_set(&self) -> BTreeSet<Role> {
        self.roles.iter().copied().collect()
    }

    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.roles.is_empty() {
            problems.push(Problem::new(
                "service.roles",
                "is empty, so that there is nothing to do",
                "name at least one of ingest, project, deliver, api",
            ));
        }
        problems.extend(at_least_one("service.shutdown_timeout_s", self.shutdown_timeout));
        problems
    }
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Project, Self::Deliver, Self::Api];

    /// As it is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Project => "project",
            Self::Deliver => "deliver",
            Self::Api => "api",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_written_as_it_is_read() {
        for role in Role::ALL {
            assert_eq!(serde_json::from_value::<Role>(role.as_str().into()).unwrap(), role);
        }
    }
}
