//! `[database]` and `[log]`: where the ledger is kept and how it is cut.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::{
    problem::{Problem, nearest},
    value::{at_least_one, millis, non_empty, within},
};

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Where the ledger is kept.
    pub url: DatabaseUrl,
    /// Where migrations go, when not to [`Database::url`].
    #[serde(deserialize_with = "non_empty")]
    pub direct_url: Option<DatabaseUrl>,
    /// Whether `url` leads through a transaction pooler.
    pub pooler: bool,
    /// Connections of one process.
    pub max_connections: u32,
    /// How long to wait for a connection.
    #[serde(rename = "acquire_timeout_ms", deserialize_with = "millis")]
    pub acquire_timeout: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How many shards a new ledger gets.
    pub shards: Shards,
    /// Messages in one transaction.
    pub batch_max: usize,
}

/// The address of a database. Prints without its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct DatabaseUrl(String);

/// How many shards a new ledger gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// As many as suit the database.
    Auto,
    /// This many.
    Fixed(u16),
}

const SHARDS_MAX: u16 = 256;
const SCHEMES: [&str; 5] = ["sqlite", "postgres", "postgresql", "mysql", "mariadb"];

impl Database {
    /// The address for migrations.
    pub fn migration_url(&self) -> &DatabaseUrl {
        self.direct_url.as_ref().unwrap_or(&self.url)
    }

    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(check_scheme("database.url", &self.url));
        if let Some(direct) = &self.direct_url {
            problems.extend(check_scheme("database.direct_url", direct));
            if problems.is_empty() && direct.family() != self.url.family() {
                problems.push(Problem::new(
                    "database.direct_url",
                    "leads to another kind of database than database.url",
                    "give the same database's address without the pooler",
                ));
            }
        }
        if self.pooler && self.url.scheme() == "sqlite" {
            problems.push(Problem::new(
                "database.pooler",
                "is true, but SQLite has no pooler",
                "remove it, or set database.url to the pooler's address",
            ));
        } else if self.pooler && self.direct_url.is_none() {
            problems.push(Problem::new(
                "database.pooler",
                "is true, but the migrations of every start need a way past the pooler",
                "set database.direct_url to the address of the database itself",
            ));
        }
        problems.extend(within("database.max_connections", self.max_connections.into(), 1..=10_000));
        problems.extend(at_least_one("database.acquire_timeout_ms", self.acquire_timeout));
        problems
    }
}

impl Log {
    /// What is wrong with this section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Shards::Fixed(n) = self.shards {
            problems.extend(within("log.shards", n.into(), 1..=SHARDS_MAX.into()));
        }
        problems.extend(within("log.batch_max", self.batch_max as u64, 1..=10_000));
        problems
    }
}

impl DatabaseUrl {
    /// Takes any text; [`Database::validate`] judges it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The address with its password; for connecting, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part before `:`.
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    fn family(&self) -> &str {
        match self.scheme() {
            "postgresql" => "postgres",
            "mariadb" => "mysql",
            other => other,
        }
    }
}

impl From<String> for DatabaseUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Shards;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number of shards")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Shards, E> {
                Ok(Shards::Fixed(u16::try_from(n).unwrap_or(u16::MAX)))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Shards, E> {
                self.visit_u64(u64::try_from(n).unwrap_or(0))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shards, E> {
                match (text, text.parse()) {
                    ("auto", _) => Ok(Shards::Auto),
                    (_, Ok(n)) => self.visit_u64(n),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// An address as it may be shown: `***` in place of a password, wherever addresses carry one.
///
/// Works on texts that are no proper addresses too: what stands between the first `:` after `//` and
/// the last `@` is masked, and so is every parameter that sounds like a secret.
pub(super) fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let rest = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let Some((place, query)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    let parameters: Vec<String> = query
        .split('&')
        .map(|it| match it.split_once('=') {
            Some((name, _)) if sounds_secret(name) => format!("{name}=***"),
            _ => it.to_owned(),
        })
        .collect();
    format!("{scheme}://{place}?{}", parameters.join("&"))
}

/// Whether a key of this name is likely to hold a secret.
pub(super) fn sounds_secret(name: &str) -> bool {
    const WORDS: [&str; 9] =
        ["secret", "password", "passwd", "pwd", "token", "key", "auth", "credential", "cookie"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

fn check_scheme(key: &str, url: &DatabaseUrl) -> Option<Problem> {
    let scheme = url.scheme();
    if SCHEMES.contains(&scheme) {
        return None;
    }
    let remedy = match nearest(scheme, SCHEMES) {
        Some(near) => format!("did you mean {near}://…?"),
        None => "begin with sqlite:, postgres:// or mysql://".to_owned(),
    };
    let problem = if scheme.is_empty() {
        "is no database address".to_owned()
    } else {
        format!("begins with {scheme}:, which is no database this program knows")
    };
    Some(Problem::new(key, problem, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_print() {
        for (url, shown) in [
            ("postgres://me:pw@host:5432/db", "postgres://me:***@host:5432/db"),
            ("postgres://me:p@w:/x@host/db?sslmode=require", "postgres://me:***@host/db?sslmode=require"),
            ("postgres://me@host/db", "postgres://me@host/db"),
            ("postgres:///db?host=/run&user=me&password=pw", "postgres:///db?host=/run&user=me&password=***"),
            ("mysql://me:p%40w@[::1]:3306/db", "mysql://me:***@[::1]:3306/db"),
            ("postgres://host/db?password=p@b", "postgres://host/db?password=***"),
            ("postgres://host:5432/db?password=p@b", "postgres://host:***@b"),
            ("sqlite://ledger.db?mode=rwc", "sqlite://ledger.db?mode=rwc"),
            ("sqlite::memory:", "sqlite::memory:"),
        ] {
            assert_eq!(DatabaseUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", DatabaseUrl::new(url)), shown);
            assert_eq!(DatabaseUrl::new(url).expose(), url);
        }
    }
}
