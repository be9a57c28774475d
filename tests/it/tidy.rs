//! The house keeps its own rules: these tests read the repository's files and nothing else.

mod rust_text;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rust_text::RustText;

/// The modules of the crate from the ground up (IMPORTS-POINT-DOWN). A module may use those on lower floors, and no other:
/// not even its neighbours.
const FLOORS: &[&[&str]] = &[
    &["clock"],
    &["id"],
    &["message"],
    &["device", "event"],
    &["stream", "projection", "routing"],
    &["inbox"],
    &["secret", "metric", "wake", "supervisor"], // doors to the process, out of the pure core's reach
    &["store", "source", "provider"],
    &["ledger", "audit"],
    &["worker"],
    &["http", "telemetry"],
    &["config"], // what lies below takes what it needs, not the whole configuration
    &["service"],
    &["cli"],
];

const DIALECTS: [&str; 3] = ["mysql", "postgres", "sqlite"];

const MAX_SOURCE_LINES: usize = 600;
const MAX_README_LINES: usize = 200;

#[test]
fn imports_only_point_down() {
    let floors: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor)))
        .collect();
    let sources = rust_files("src");
    let modules: BTreeSet<String> =
        sources.iter().filter_map(|it| module_of(&it.path)).map(str::to_owned).collect();
    let mut faults = Vec::new();
    for module in &modules {
        if !floors.contains_key(module.as_str()) {
            faults.push(format!("{module} stands on no floor: give it one in FLOORS"));
        }
    }
    for source in sources.iter().filter(|it| !is_test(&it.path)) {
        // lib.rs and main.rs stand above everything.
        let Some(module) = module_of(&source.path) else { continue };
        let Some(own) = floors.get(module) else { continue };
        for (line, name) in source.text.crate_paths() {
            let Some(floor) = floors.get(name.as_str()) else { continue }; // a macro of the crate's own
            if name != module && floor >= own {
                faults.push(format!("{}:{line} {module} uses {name}, which is not below it", source.path));
            }
        }
    }
    expect_none(&faults);
}

#[test]
fn sql_lives_in_the_store() {
    let mut faults = Vec::new();
    let is_elsewhere = |it: &&SourceFile| module_of(&it.path) != Some("store") && !is_test(&it.path);
    for source in rust_files("src").iter().filter(is_elsewhere) {
        for (line, text) in &source.text.strings {
            if is_sql(text) {
                faults.push(format!("{}:{line} a statement: {text:?}", source.path));
            }
        }
        for (index, line) in source.text.code.lines().enumerate() {
            if ["sqlx", "sea_query", "sea_query_sqlx"].iter().any(|name| has_word(line, name)) {
                faults.push(format!("{}:{} a database driver: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    expect_none(&faults);
}

#[test]
fn the_dialects_have_the_same_files() {
    let mut faults = Vec::new();
    let migrations = DIALECTS.map(|dialect| names_in(&format!("migrations/{dialect}")));
    let all: BTreeSet<&String> = migrations.iter().flatten().collect();
    if all.is_empty() {
        faults.push("migrations/ holds no migration".to_owned());
    }
    for name in all {
        for (dialect, names) in DIALECTS.iter().zip(&migrations) {
            if !names.contains(name) {
                faults.push(format!("migrations/{dialect}/{name} is missing"));
            }
        }
        let (number, _) = name.split_at(4.min(name.len()));
        if !has_extension(name, "sql") || !number.bytes().all(|it| it.is_ascii_digit()) {
            faults.push(format!("migrations/*/{name} is not named NNNN_name.sql"));
        }
    }

    let mut projections = names_in("projections");
    projections.remove("versions.json");
    if projections.is_empty() {
        faults.push("projections/ holds no projection".to_owned());
    }
    let mut expected: BTreeSet<String> = DIALECTS.iter().map(|dialect| format!("{dialect}.sql")).collect();
    expected.insert("cases".to_owned());
    for name in projections {
        let folder = format!("projections/{name}");
        for difference in names_in(&folder).symmetric_difference(&expected) {
            faults.push(format!("{folder}/{difference} is missing or does not belong there"));
        }
        let cases = names_in(&format!("{folder}/cases"));
        if cases.is_empty() || !cases.iter().all(|it| has_extension(it, "json")) {
            faults.push(format!("{folder}/cases needs example cases, as .json files and nothing else"));
        }
        if !root().join(format!("src/projection/{name}.rs")).is_file() {
            faults.push(format!("{folder} has no fold: src/projection/{name}.rs is missing"));
        }
    }
    expect_none(&faults);
}

#[test]
fn every_source_file_is_reached() {
    let mut faults = Vec::new();
    for (folder, roots) in [("src", &["src/lib.rs", "src/main.rs"][..]), ("tests/it", &["tests/it/main.rs"])]
    {
        let mut reached = BTreeSet::new();
        for file in roots {
            reach(Path::new(file), &mut reached, &mut faults);
        }
        for source in rust_files(folder) {
            if !reached.contains(Path::new(&source.path)) {
                faults.push(format!("{} is dead: no module declares it", source.path));
            }
        }
    }
    expect_none(&faults);
}

#[test]
fn source_files_say_why_they_exist_and_stay_short() {
    let mut faults = Vec::new();
    for folder in ["src", "tests/it"] {
        for source in rust_files(folder) {
            let text = read(&source.path);
            if !text.starts_with("//! ") {
                faults.push(format!("{} does not begin with a //! that says why it exists", source.path));
            }
            let lines = text.lines().count();
            if lines > MAX_SOURCE_LINES {
                faults.push(format!("{} has {lines} lines, more than {MAX_SOURCE_LINES}", source.path));
            }
        }
    }
    expect_none(&faults);
}

#[test]
fn every_configuration_key_is_documented() {
    let text = read("config.default.toml");
    toml::from_str::<toml::Table>(&text).unwrap();
    expect_none(&undocumented_keys(&text));
}

/// Invariants are named once, in ARCHITECTURE.md, and cited by name where they are kept.
#[test]
fn every_invariant_is_cited_where_it_is_kept() {
    let architecture = read("ARCHITECTURE.md");
    let (_, table) = architecture.split_once("## Invariants").unwrap();
    let named: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|name| name.chars().all(|it| it.is_ascii_uppercase() || it == '-') && name.len() > 3)
        .collect();
    assert!(named.len() > 10, "{named:?}");
    let paths = files_below(&root().join("src")).into_iter().map(|it| relative(&it));
    let code: String = paths.chain(["tests/it/tidy.rs".to_owned()]).map(|path| read(&path)).collect();
    let uncited: Vec<_> =
        named.into_iter().filter(|name| !code.contains(name)).map(ToOwned::to_owned).collect();
    expect_none(&uncited);
}

#[test]
fn the_readme_stays_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines, more than {MAX_README_LINES}");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let path = ["", "work", ""].join("/"); // put together, so that this file does not name it
    let mut faults = Vec::new();
    for file in files_below(root()) {
        let Ok(text) = fs::read_to_string(&file) else { continue }; // not text
        for (index, line) in text.lines().enumerate() {
            let is_absolute = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|it| it.is_alphanumeric() || "_.-~}/".contains(it))
            };
            if line.match_indices(&path).any(|(at, _)| is_absolute(at)) {
                faults.push(format!("{}:{} {}", relative(&file), index + 1, line.trim()));
            }
        }
    }
    expect_none(&faults);
}

// --- reading ----------------------------------------------------------------------------------------

struct SourceFile {
    path: String,
    text: RustText,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names in a folder of the repository; none where there is no such folder.
fn names_in(folder: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return BTreeSet::new() };
    entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
}

/// The Rust files below a folder of the repository, in order.
fn rust_files(folder: &str) -> Vec<SourceFile> {
    let mut paths: Vec<String> = files_below(&root().join(folder)).iter().map(|it| relative(it)).collect();
    paths.retain(|path| has_extension(path, "rs"));
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no Rust file");
    paths
        .into_iter()
        .map(|path| {
            let text = RustText::new(&read(&path));
            SourceFile { path, text }
        })
        .collect()
}

/// Every file below a folder, but for Git's own and what builds leave behind.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("CACHEDIR.TAG").exists() {
            continue;
        }
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let entry = entry.unwrap();
            if entry.file_name() == ".git" || entry.file_name() == "target" {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files
}

/// The module of the crate that a file belongs to: `store` for `src/store.rs` and all of `src/store/`.
fn module_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?;
    let first = path.split('/').next()?;
    match first.strip_suffix(".rs") {
        Some("lib" | "main") => None,
        // Tests of src/x.rs that stand in src/x_tests.rs belong to x.
        Some(name) => Some(name.strip_suffix("_tests").unwrap_or(name)),
        None => Some(first),
    }
}

/// Whether a file under src holds tests only; such a file may use what it likes.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Follows `mod NAME;` from a file to all that it declares.
fn reach(file: &Path, reached: &mut BTreeSet<PathBuf>, faults: &mut Vec<String>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let text = read(file.to_str().unwrap());
    let lines: Vec<&str> = text.lines().collect();
    let parent = file.parent().unwrap();
    let stem = file.file_stem().unwrap();
    let folder = if ["lib", "main", "mod"].iter().any(|it| *it == stem) {
        parent.to_owned()
    } else {
        parent.join(stem)
    };
    for (line, name) in RustText::new(&text).modules() {
        let named = lines[..line - 1].last().and_then(|it| it.trim().strip_prefix("#[path = \""));
        let candidates = match named.and_then(|it| it.strip_suffix("\"]")) {
            Some(path) => vec![parent.join(path)],
            None => vec![folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")],
        };
        match candidates.iter().find(|it| root().join(it).is_file()) {
            Some(next) => reach(next, reached, faults),
            None => faults.push(format!("{}:{line} declares {name}, which has no file", file.display())),
        }
    }
}

/// Whether a string is a statement in SQL rather than a sentence.
fn is_sql(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let has = |word: &str| words.contains(&word);
    match words[..] {
        ["select", next, ..] => has("from") || next.starts_with(|it: char| it.is_ascii_digit()),
        ["copy", ..] => has("stdin") || has("stdout"),
        ["insert" | "replace", "into" | "ignore", ..]
        | ["delete", "from", ..]
        | ["update", _, "set", ..]
        | ["truncate", "table", ..]
        | ["create", "table" | "index" | "unique" | "view" | "trigger" | "or" | "database", ..]
        | ["alter" | "drop", "table" | "index" | "view" | "trigger" | "database", ..]
        | ["with", _, "as", ..]
        | ["begin", "immediate", ..]
        | ["pragma", _, ..] => true,
        _ => false,
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|it| it == extension)
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|it: char| !it.is_alphanumeric() && it != '_').any(|it| it == word)
}

/// The keys of a configuration that have no comment above or beside them.
fn undocumented_keys(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut above = "";
    for (index, line) in text.lines().map(str::trim).enumerate() {
        let key = line.split_once('=').map(|(key, _)| key.trim());
        let is_key =
            |key: &str| !key.is_empty() && key.chars().all(|it| it.is_alphanumeric() || "_-.".contains(it));
        if let Some(key) = key.filter(|key| is_key(key)) {
            let beside = line.rsplit_once(" # ").is_some_and(|(_, comment)| !comment.contains('"'));
            if !above.starts_with("# ") && !beside {
                faults.push(format!("config.default.toml:{} {key} has no comment", index + 1));
            }
        }
        above = line;
    }
    faults
}

fn expect_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn statements_are_told_from_sentences() {
    let statements = [
        "select 1",
        "select a from b",
        "INSERT INTO a VALUES (1)",
        "update a\n set b = 1",
        "delete from a",
        "create or replace view a as",
        "with x as (select 1)",
        "pragma journal_mode",
        "copy a from stdin",
    ];
    assert!(statements.iter().all(|it| is_sql(it)));
    let sentences = [
        "select a provider",
        "update the file",
        "create a key",
        "copy it",
        "delete the queue",
        "with a key",
        "",
    ];
    assert!(!sentences.iter().any(|it| is_sql(it)));
}

#[test]
fn a_key_without_a_comment_is_found() {
    let text = "# a section\n[a]\n# why\nb = 1\nc = \"#\"\nd = 2 # beside\n# e\ne = [\n  \"f=g\",\n]\n";
    assert_eq!(undocumented_keys(text), ["config.default.toml:5 c has no comment"]);
}
