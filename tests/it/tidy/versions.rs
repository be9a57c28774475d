//! A projection whose fold or tables changed has a new version (VERSIONED): otherwise an upgrade would go on
//! folding into rows that another fold made.

use std::{collections::BTreeMap, fs};

use notification_ledger::projection::ALL;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{RustText, read, root};

const RECORD: &str = "projections/versions.json";
/// Set to have the record written anew.
const RENEW: &str = "LEDGER_RENEW_VERSIONS";

/// What a version of a projection consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    version: i32,
    /// SHA-256 of the fold's code, without comments and white space.
    fold: String,
    /// SHA-256 of its tables in all dialects, likewise.
    tables: String,
}

impl Made {
    fn of(name: &str, version: i32) -> Self {
        let fold = read(&format!("src/projection/{name}.rs"));
        let tables = super::DIALECTS.map(|dialect| read(&format!("projections/{name}/{dialect}.sql")));
        Self {
            version,
            fold: digest(&code(&fold)),
            tables: digest(&tables.map(|it| statements(&it)).concat()),
        }
    }

    /// What is wrong with this, after `recorded` was released.
    fn fault(&self, name: &str, recorded: Option<&Self>) -> Option<String> {
        let again = format!("{RENEW}=1 cargo test --test it versions");
        let what = match recorded {
            None => return Some(format!("{name} is not in {RECORD}: {again}")),
            Some(it) if it == self => return None,
            Some(it) if self.version > it.version => {
                return Some(format!("{name} has version {} now: {again}", self.version));
            }
            Some(it) if self.version < it.version => {
                return Some(format!(
                    "{name} has version {}, which was used before; take {}",
                    self.version,
                    it.version + 1
                ));
            }
            Some(it) if self.fold == it.fold => "tables",
            Some(it) if self.tables == it.tables => "fold",
            Some(_) => "fold and tables",
        };
        Some(format!(
            "the {what} of {name} changed and its version is {} still: make it {} in src/projection/{name}.rs, so that \
             whoever upgrades gets a rebuild. Only if no history of events comes to other rows than before, as after a \
             renaming, leave it. Then: {again}",
            self.version,
            self.version + 1
        ))
    }
}

/// Rust without comments, white space and tests; strings are kept.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let RustText { code, strings } = RustText::new(text);
    let strings = strings.into_iter().map(|(_, it)| it);
    code.split_whitespace().map(str::to_owned).chain(strings).collect()
}

/// SQL without comments and white space.
fn statements(text: &str) -> String {
    let lines = text.lines().filter(|it| !it.trim_start().starts_with("--") || it.starts_with("-- indexes"));
    lines.flat_map(str::split_whitespace).collect()
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[test]
fn a_changed_fold_or_table_has_a_new_version() {
    let made: BTreeMap<&str, Made> =
        ALL.iter().map(|it| (it.name(), Made::of(it.name(), it.version()))).collect();
    if std::env::var_os(RENEW).is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap();
        fs::write(root().join(RECORD), text + "\n").unwrap();
        return;
    }
    let recorded: BTreeMap<String, Made> = serde_json::from_str(&read(RECORD)).unwrap();
    let mut faults: Vec<_> =
        made.iter().filter_map(|(name, it)| it.fault(name, recorded.get(*name))).collect();
    let gone = recorded.keys().filter(|it| !made.contains_key(it.as_str()));
    faults.extend(gone.map(|it| format!("{it} is in {RECORD} and is no projection")));
    super::expect_none(&faults);
}

#[test]
fn a_change_without_a_new_version_is_a_fault() {
    let made = |version, fold: &str, tables: &str| Made { version, fold: fold.into(), tables: tables.into() };
    let old = made(2, "f", "t");
    for (new, fault) in [
        (made(2, "f", "t"), None),
        (made(2, "g", "t"), Some("the fold of x changed and its version is 2 still: make it 3")),
        (made(2, "f", "u"), Some("the tables of x changed")),
        (made(2, "g", "u"), Some("the fold and tables of x changed")),
        (made(3, "g", "u"), Some("x has version 3 now")),
        (made(1, "g", "u"), Some("which was used before; take 3")),
    ] {
        let found = new.fault("x", Some(&old));
        assert_eq!(found.is_some(), fault.is_some(), "{found:?}");
        assert!(found.as_deref().unwrap_or_default().contains(fault.unwrap_or_default()), "{found:?}");
    }
    assert!(old.fault("x", None).is_some());
    let text = "// a\nfn a() -> i32 { 1 } /* b */\n#[cfg(test)]\nmod tests;";
    assert_eq!(code(text), code("fn  a()->i32{1}"), "comments, white space and tests are no fold");
    assert_ne!(code("fn a() { b(\"c\") }"), code("fn a() { b(\"d\") }"));
    assert_ne!(code("fn a() { 1 }"), code("fn a() { 2 }"));
    assert_eq!(statements("-- why\ncreate  table x (\n a int);"), "createtablex(aint);");
}
