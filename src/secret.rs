//! Secrets: where they are read, and why none of them can be printed (NO-SECRET-IN-SIGHT).
//!
//! Configuration never holds a secret, only a reference to one: `env:NAME` or `file:PATH`. A literal
//! is refused, because configuration files are committed, shown by `config show` and pasted into
//! tickets. For the same reason no error here repeats a text that is not a reference.

use std::{fmt, io, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, de};

/// Longest secret read from a file, in bytes; a larger file is surely the wrong one.
const FILE_MAX: u64 = 64 * 1024;

/// A text that must not be seen: no `Display`, no `Serialize`, and a `Debug` that shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// Where a secret stands: `env:NAME` or `file:PATH`. May be printed and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In this environment variable.
    Env(String),
    /// In this file; one line end at the close of the file is not part of it.
    File(PathBuf),
}

/// Why a text is no reference. The text is not repeated: it may be the secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a reference to a secret; write env:NAME or file:PATH, so that the secret itself stays out")]
pub struct NotAReference;

/// Why a reference leads to no secret; reads on after the key that holds the reference.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text is no reference; it may be a secret itself, so it is not repeated.
    #[error("is not a reference to a secret (it is not shown, in case it is one itself)")]
    NotAReference,
    /// The environment has no such variable.
    #[error("refers to the environment variable {0}, which is not set")]
    Unset(String),
    /// What was found is not text.
    #[error("refers to {0}, which is not UTF-8 text")]
    NotText(SecretRef),
    /// What was found is empty.
    #[error("refers to {0}, which is empty")]
    Empty(SecretRef),
    /// The file is larger than any secret.
    #[error("refers to {0}, which has {1} bytes and cannot be a secret")]
    TooLong(SecretRef, u64),
    /// The file cannot be read.
    #[error("refers to the file {}, {}", path.display(), unreadable(source))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SecretError {
    /// What to do about it; an instruction.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NotAReference => {
                "write env:NAME (an environment variable) or file:PATH (a file that holds the secret alone)"
            }
            Self::Unset(_) => "set it in the environment of the service, or use file:PATH",
            Self::NotText(_) | Self::Empty(_) | Self::TooLong(..) => "put the secret there, and nothing else",
            Self::Unreadable { .. } => {
                "put the secret into a file of this name that the user the service runs as may read"
            }
        }
    }
}

/// Reads on after the file.
fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "which does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "which this user may not read".to_owned(),
        io::ErrorKind::IsADirectory => "which is a folder".to_owned(),
        other => format!("which cannot be read ({other})"),
    }
}

impl Secret {
    /// Hides a text that has come from somewhere else than a reference.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Reads what `env:NAME` or `file:PATH` refers to.
    ///
    /// # Errors
    /// When the text is no reference, or [`SecretRef::read`] finds no secret.
    pub fn resolve(reference: &str) -> Result<Self, SecretError> {
        reference.parse::<SecretRef>().map_err(|NotAReference| SecretError::NotAReference)?.read()
    }

    /// The secret itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SecretRef {
    /// Reads the secret. One newline at the end of a file is cut.
    ///
    /// # Errors
    /// When it leads to nothing, to too much, or to something that is not text.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => self.variable(name)?,
            Self::File(path) => {
                let text = self.file(path)?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).to_owned()
            }
        };
        if text.is_empty() { Err(SecretError::Empty(self.clone())) } else { Ok(Secret::new(text)) }
    }

    #[allow(clippy::disallowed_methods, reason = "a reference to a secret names the variable it wants")]
    fn variable(&self, name: &str) -> Result<String, SecretError> {
        std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => SecretError::Unset(name.to_owned()),
            std::env::VarError::NotUnicode(_) => SecretError::NotText(self.clone()),
        })
    }

    fn file(&self, path: &PathBuf) -> Result<String, SecretError> {
        let unreadable = |source: io::Error| SecretError::Unreadable { path: path.clone(), source };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_MAX {
            return Err(SecretError::TooLong(self.clone(), size));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        String::from_utf8(bytes).map_err(|_| SecretError::NotText(self.clone()))
    }
}

impl FromStr for SecretRef {
    type Err = NotAReference;

    fn from_str(text: &str) -> Result<Self, NotAReference> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0', ' ']) => {
                Ok(Self::Env(name.to_owned()))
            }
            Some(("file", path)) if !path.trim().is_empty() => Ok(Self::File(path.into())),
            _ => Err(NotAReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
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
        assert_eq!(
            missing.to_string(),
            "refers to the environment variable NO_SUCH_VARIABLE_HERE, which is not set"
        );
    }

    #[test]
    fn nothing_ever_prints_a_secret() {
        let secret = Secret::new("s3cret");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "*** Some(\n    ***,\n)");
        let literal = Secret::resolve("s3cret").unwrap_err();
        assert!(!format!("{literal} {literal:?} {}", literal.remedy()).contains("s3cret"));
    }

    #[test]
    fn a_reference_reads_back_as_written() {
        for text in ["env:TOKEN", "file:/run/secrets/token"] {
            let reference: SecretRef = serde_json::from_value(text.into()).unwrap();
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        for text in ["", "s3cret", "env:", "file: ", "env: X", "ENV:X", "https://x"] {
            assert!(matches!(Secret::resolve(text), Err(SecretError::NotAReference)), "{text:?}");
        }
        let missing = Secret::resolve("file:/no/such/file").unwrap_err().to_string();
        assert_eq!(missing, "refers to the file /no/such/file, which does not exist");
        let large = vec![b'x'; 65_537];
        for (bytes, expected) in
            [(&b"\r\n"[..], "is empty"), (&b"\xff\xfe"[..], "UTF-8"), (&large[..], "cannot be a secret")]
        {
            let (_folder, reference) = file_with(bytes);
            let error = Secret::resolve(&reference).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
