//! Secrets: where they are read, and why none of them can be printed.
//!
//! Configuration never holds a secret, only a reference to one: `env:NAME` or `file:PATH`. A literal
//! is refused, because configuration files are committed, shown by `config show` and pasted into
//! tickets. For the same reason no error here repeats a text that is not a reference.

use std::{fmt, path::Path};

/// Longest secret read from a file, in bytes; a larger file is surely the wrong one.
const FILE_MAX: u64 = 64 * 1024;

/// A text that must not be seen: no `Display`, no `Serialize`, and a `Debug` that shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// Why a reference leads to no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text has no known prefix; it may be a secret itself, so it is not repeated.
    #[error("is not a reference to a secret (its text is not shown, in case it is one)")]
    NotAReference,
    /// Nothing, or white space, after the prefix.
    #[error("names nothing after {0:?}")]
    NoName(&'static str),
    /// The environment has no such variable.
    #[error("environment variable {0} is not set")]
    NotSet(String),
    /// What was found is not text.
    #[error("{0} does not hold UTF-8 text")]
    NotText(String),
    /// What was found is empty.
    #[error("{0} is empty")]
    Empty(String),
    /// The file is larger than any secret.
    #[error("file {0} has {1} bytes, more than a secret can have (65536)")]
    TooLong(String, u64),
    /// The file cannot be read.
    #[error("file {path} cannot be read: {reason}")]
    Unreadable {
        /// As written in the reference.
        path: String,
        /// What the operating system said.
        reason: std::io::ErrorKind,
    },
}

impl SecretError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NotAReference | Self::NoName(_) => {
                "write env:NAME (an environment variable) or file:PATH (a file that holds the secret alone)"
            }
            Self::NotSet(_) => "set it in the environment of the service, or use file:PATH",
            Self::NotText(_) | Self::Empty(_) | Self::TooLong(..) => "put the secret there, and nothing else",
            Self::Unreadable { .. } => "make the file exist and readable for the user the service runs as",
        }
    }
}

impl Secret {
    /// Hides a text that has come from somewhere else than a reference.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Reads what `env:NAME` or `file:PATH` refers to. One newline at the end of a file is cut.
    ///
    /// # Errors
    /// When the text is no reference, or leads to nothing, to too much, or to something that is not text.
    pub fn resolve(reference: &str) -> Result<Self, SecretError> {
        if let Some(name) = reference.strip_prefix("env:") {
            return from_environment(named("env:", name)?);
        }
        match reference.strip_prefix("file:") {
            Some(path) => from_file(named("file:", path)?),
            None => Err(SecretError::NotAReference),
        }
    }

    /// The secret itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn named<'a>(prefix: &'static str, name: &'a str) -> Result<&'a str, SecretError> {
    if name.trim().is_empty() { Err(SecretError::NoName(prefix)) } else { Ok(name) }
}

#[allow(clippy::disallowed_methods, reason = "a secret's reference may name a variable")]
fn from_environment(name: &str) -> Result<Secret, SecretError> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Err(SecretError::Empty(format!("environment variable {name}"))),
        Ok(text) => Ok(Secret::new(text)),
        Err(std::env::VarError::NotPresent) => Err(SecretError::NotSet(name.to_owned())),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(SecretError::NotText(format!("environment variable {name}")))
        }
    }
}

fn from_file(path: &str) -> Result<Secret, SecretError> {
    let unreadable =
        |error: std::io::Error| SecretError::Unreadable { path: path.to_owned(), reason: error.kind() };
    let size = std::fs::metadata(Path::new(path)).map_err(unreadable)?.len();
    if size > FILE_MAX {
        return Err(SecretError::TooLong(path.to_owned(), size));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(format!("file {path}")))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |it| it.strip_suffix('\r').unwrap_or(it));
    if text.is_empty() {
        return Err(SecretError::Empty(format!("file {path}")));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(bytes: &[u8]) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, bytes).unwrap();
        let reference = format!("file:{}", path.display());
        (folder, reference)
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_newline() {
        for (bytes, expected) in [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" a\nb\n\n", " a\nb\n")]
        {
            let (_folder, reference) = file_with(bytes.as_bytes());
            assert_eq!(Secret::resolve(&reference).unwrap().expose(), expected);
        }
    }

    #[test]
    fn a_variable_gives_its_text() {
        // PATH is the one variable that every machine of ours has; setting one would be unsafe.
        assert!(!Secret::resolve("env:PATH").unwrap().expose().is_empty());
        let missing = Secret::resolve("env:NO_SUCH_VARIABLE_HERE").unwrap_err();
        assert_eq!(missing.to_string(), "environment variable NO_SUCH_VARIABLE_HERE is not set");
    }

    #[test]
    fn nothing_ever_prints_a_secret() {
        let secret = Secret::new("s3cret");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        let literal = Secret::resolve("s3cret").unwrap_err();
        assert!(!format!("{literal} {literal:?} {}", literal.remedy()).contains("s3cret"));
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        assert!(matches!(Secret::resolve("env:"), Err(SecretError::NoName("env:"))));
        assert!(matches!(Secret::resolve("file: "), Err(SecretError::NoName("file:"))));
        assert!(matches!(Secret::resolve("file:/no/such/file"), Err(SecretError::Unreadable { .. })));
        let large = vec![b'x'; 65_537];
        for (bytes, expected) in
            [(&b"\n"[..], "is empty"), (&b"\xff\xfe"[..], "UTF-8"), (&large[..], "more than a secret")]
        {
            let (_folder, reference) = file_with(bytes);
            let error = Secret::resolve(&reference).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
