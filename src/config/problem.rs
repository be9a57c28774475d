//! What can be wrong with a configuration, said so that an operator can mend it without the source.

use std::{fmt, io, path::PathBuf};

/// One thing that is wrong: at which key, where it was set, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key: `database.url`, `api.keys[0].secret`.
    pub key: String,
    /// Where the value comes from: a file, an environment variable; `None` for the defaults.
    pub origin: Option<String>,
    /// What is wrong; reads on after the key.
    pub problem: String,
    /// What to do about it; an instruction.
    pub remedy: String,
}

impl Problem {
    /// A problem whose origin is looked up later from its key.
    pub fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), origin: None, problem: problem.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file did not open.
    #[error("the configuration file {} cannot be read; check the path, or leave --config away", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML. Its text is not repeated: there may be a password in it.
    #[error("{origin}, line {line}, column {column}: {message}")]
    NotToml {
        /// Which file.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What the reader of TOML did not understand.
        message: String,
    },
    /// It was read, and does not make sense.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let head = match problems.len() {
        1 => "the configuration has a problem".to_owned(),
        n => format!("the configuration has {n} problems"),
    };
    problems.iter().fold(head, |text, it| format!("{text}\n  {it}"))
}

/// The candidate that `word` is most likely a slip of, if one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let scored = candidates.into_iter().map(|it| (distance(word, it), it));
    scored.min().filter(|(distance, _)| *distance <= allowed).map(|(_, it)| it)
}

/// How many letters have to be added, removed, changed or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let keys = ["bind", "request_timeout_ms", "body_limit_bytes", "keys"];
        for (word, expected) in [
            ("bnd", Some("bind")),
            ("ibnd", Some("bind")),
            ("request_timeout", Some("request_timeout_ms")),
            ("key", Some("keys")),
            ("port", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }

    #[test]
    fn all_problems_are_listed() {
        let two = vec![
            Problem::new("log.batch_max", "is 0", "use at least 1"),
            Problem {
                origin: Some("a.toml".into()),
                ..Problem::new("api.bnd", "is no key", "write api.bind")
            },
        ];
        assert_eq!(
            ConfigError::Invalid(two).to_string(),
            "the configuration has 2 problems\n  log.batch_max is 0; use at least 1\n  api.bnd (a.toml) is no \
             key; write api.bind"
        );
    }
}
