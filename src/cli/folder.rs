//! A folder that is there as long as it is needed, and that nobody else can read.

use std::{
    fs::{self, DirBuilder},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A fresh folder among the machine's temporary ones; removed with all that is in it when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it; the name says who did.
    pub(super) fn new(whose: &str) -> anyhow::Result<Self> {
        Self::within(&std::env::temp_dir(), whose)
    }

    fn within(parent: &Path, whose: &str) -> anyhow::Result<Self> {
        loop {
            let path = parent.join(format!("notification-ledger-{whose}-{:06x}", fastrand::u32(..1 << 24)));
            match private().create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("no folder can be made in {}; name another in TMPDIR", parent.display())
                    });
                }
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            // The log lies in the folder; where stderr is closed there is nobody to tell.
            let _ = writeln!(io::stderr().lock(), "the folder {} stays behind: {error}", self.0.display());
        }
    }
}

#[cfg(unix)]
fn private() -> DirBuilder {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

#[cfg(not(unix))]
fn private() -> DirBuilder {
    DirBuilder::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_with_all_that_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let (one, other) =
            (Folder::within(parent.path(), "demo").unwrap(), Folder::within(parent.path(), "demo").unwrap());
        assert_ne!(one.path(), other.path());
        fs::create_dir(one.file("deep")).unwrap();
        fs::write(one.file("deep/file"), "x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && other.path().exists());
    }

    #[test]
    fn a_parent_that_is_not_there_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let error = Folder::within(&parent.path().join("missing"), "demo").unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
