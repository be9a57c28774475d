//! Layers: the defaults, then a file, then the environment, then the command line; and how what is
//! wrong in any of them is found all at once.
//!
//! The layers are merged into one tree in which every value remembers where it came from. The tree is
//! read into [`Config`]; each error on the way is noted, the value at fault is put back to its default
//! or taken out, and the reading begins anew, so that one run names everything.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::{Actual, Kind},
    value::{Dict, Empty, Map, Tag, Value},
};
use serde::Deserialize;

use super::{
    Config, ConfigError, DEFAULT, Problem,
    database::{mask_url, sounds_secret},
    problem::nearest,
};

/// The file that is read when none is named.
const FILE: &str = "notification-ledger.toml";
/// What the environment variables that set keys begin with.
const PREFIX: &str = "NOTIFICATION_LEDGER__";
/// More wrong values than this are not looked for.
const PROBLEMS_MAX: usize = 200;

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    command_line: Vec<(&'static str, String, &'static str)>,
}

/// A configuration, and where each of its values came from.
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    pub(super) tree: Tree,
}

/// All layers merged. A path into it is made of keys, and of indexes written in digits.
pub(super) struct Tree {
    pub(super) root: Value,
    figment: Figment,
}

/// One layer.
struct Layer {
    origin: String,
    values: Dict,
}

impl Sources {
    /// What this process was given: the named file or else `notification-ledger.toml` where there is
    /// one, and the environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let file = file.or_else(|| Path::new(FILE).is_file().then(|| FILE.into()));
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self { file, environment: std::env::vars_os().filter_map(text).collect(), command_line: Vec::new() }
    }

    /// The defaults and nothing else.
    pub fn none() -> Self {
        Self::default()
    }

    /// With this file.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With a key set by an option of the command line.
    #[must_use]
    pub fn with_option(mut self, key: &'static str, value: impl Into<String>, option: &'static str) -> Self {
        self.command_line.push((key, value.into(), option));
        self
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in any layer is wrong; all of it is named.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let defaults = parse("config.default.toml", DEFAULT)?;
        let mut layers = vec![Layer { origin: String::new(), values: defaults.clone() }];
        if let Some(path) = &self.file {
            let origin = path.display().to_string();
            let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
            let text = fs::read_to_string(path).map_err(unreadable)?;
            layers.push(Layer { values: parse(&origin, &text)?, origin });
        }
        let defaults = Value::Dict(Tag::Default, defaults);
        let (mut problems, variables) = environment(&self.environment, &defaults);
        layers.extend(variables);
        for (key, value, option) in &self.command_line {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            layers.push(Layer {
                origin: (*option).to_owned(),
                values: nest(&path, typed(value, get(&defaults, &path))),
            });
        }

        let tree = Tree::merge(layers);
        let config = read(&tree, &defaults, &mut problems);
        if let Some(config) = &config {
            // What was taken out is reported already; that something is missing now is no news.
            let news = |it: &Problem| !problems.iter().any(|known| is_below(&known.key, &path_of(&it.key)));
            let found: Vec<Problem> = config.validate().into_iter().filter(news).collect();
            problems.extend(found);
        }
        for it in problems.iter_mut().filter(|it| it.origin.is_none()) {
            it.origin = tree.origin(&path_of(&it.key));
        }
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        match config {
            Some(config) if problems.is_empty() => Ok(Loaded { config, file: self.file, tree }),
            _ => Err(ConfigError::Invalid(problems)),
        }
    }
}

impl Loaded {
    /// Where the value of this key came from; `None` for the defaults.
    pub fn origin(&self, key: &str) -> Option<String> {
        self.tree.origin(&path_of(key))
    }
}

impl Tree {
    fn merge(layers: Vec<Layer>) -> Self {
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        let root = figment.find_value("").unwrap_or_else(|_| Value::Dict(Tag::Default, Dict::new()));
        Self { root, figment }
    }

    /// Where the value at this path came from; `None` for the defaults.
    fn origin(&self, path: &[String]) -> Option<String> {
        // What is missing is looked for where its table came from.
        let found = (0..=path.len()).rev().find_map(|len| get(&self.root, &path[..len]))?;
        self.origin_of(found)
    }

    /// The same for a value of this tree.
    pub(super) fn origin_of(&self, value: &Value) -> Option<String> {
        let metadata = self.figment.get_metadata(value.tag())?;
        (!metadata.name.is_empty()).then(|| metadata.name.to_string())
    }
}

/// Without the tree, in which secrets may stand where they do not belong.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("config", &self.config)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn parse(origin: &str, text: &str) -> Result<Dict, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |it| it.start)).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ConfigError::NotToml {
            origin: origin.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: error.message().to_owned(),
        }
    })
}

/// The layers of the environment, and what in it looks like a key that was meant to be set but is not.
fn environment(variables: &[(String, String)], defaults: &Value) -> (Vec<Problem>, Vec<Layer>) {
    let (mut problems, mut layers) = (Vec::new(), Vec::new());
    if let Some((_, filter)) = variables.iter().find(|(name, _)| name == "RUST_LOG") {
        let path = ["telemetry".to_owned(), "log".to_owned()];
        layers.push(Layer { origin: "RUST_LOG".to_owned(), values: nest(&path, filter.clone().into()) });
    }
    for (name, value) in variables {
        if let Some(key) = name.strip_prefix(PREFIX) {
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            let value = typed(value, get(defaults, &path));
            layers.push(Layer { origin: name.clone(), values: nest(&path, value) });
        } else if let Some(rest) = name.strip_prefix("NOTIFICATION_LEDGER_")
            && let Some((section, key)) = meant(rest, defaults)
        {
            problems.push(Problem {
                origin: Some("environment".to_owned()),
                ..Problem::new(
                    name,
                    "sets nothing",
                    format!(
                        "write {PREFIX}{}__{}, with two underscores between the words of a path",
                        section.to_ascii_uppercase(),
                        key.to_ascii_uppercase()
                    ),
                )
            });
        }
    }
    (problems, layers)
}

/// The key that a variable with single underscores was surely meant to set. Others are left alone:
/// Kubernetes makes variables of its own out of the name of a service.
fn meant<'a>(rest: &str, defaults: &'a Value) -> Option<(&'a str, &'a str)> {
    let rest = rest.to_ascii_lowercase();
    let sections = defaults.as_dict()?.iter();
    let mut keys = sections.flat_map(|(section, keys)| {
        keys.as_dict().into_iter().flat_map(|it| it.keys()).map(move |key| (section.as_str(), key.as_str()))
    });
    keys.find(|(section, key)| rest.strip_prefix(section).and_then(|it| it.strip_prefix('_')) == Some(key))
}

/// A text of the environment or the command line as a value of the type that the default has.
fn typed(text: &str, default: Option<&Value>) -> Value {
    let toml = || {
        let table: Dict = toml::from_str(&format!("value = {text}")).ok()?;
        if table.len() == 1 { table.into_values().next() } else { None }
    };
    match default {
        Some(Value::String(..)) => text.to_owned().into(),
        Some(Value::Array(..)) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|it| !it.is_empty());
            items.map(str::to_owned).collect::<Vec<_>>().into()
        }
        _ => toml().unwrap_or_else(|| text.to_owned().into()),
    }
}

/// Reads the tree; notes what is wrong and goes on without it. `None` when it stays unreadable.
fn read(tree: &Tree, defaults: &Value, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut root = tree.root.clone();
    for _ in 0..PROBLEMS_MAX {
        let error = match Config::deserialize(&root) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let path = error.path;
        let problem = describe(&path, error.kind, defaults);
        // A value that was taken out may leave its table without a key that it must have.
        let follows = problems.iter().any(|it| is_below(&it.key, &path));
        if !follows {
            problems.push(Problem { origin: tree.origin(&path), ..problem });
        }
        if !repair(&mut root, &path, get(defaults, &path)) {
            return None;
        }
    }
    None
}

fn describe(path: &[String], kind: Kind, defaults: &Value) -> Problem {
    let key = key_of(path);
    match kind {
        Kind::UnknownField(field, known) => {
            let section = key_of(&path[..path.len().saturating_sub(1)]);
            let what = if section.is_empty() { "section" } else { "key" };
            Problem::new(
                key,
                format!("is not a known {what}"),
                for_unknown(&section, &field, known, defaults),
            )
        }
        Kind::UnknownVariant(found, known) => {
            let remedy = match nearest(&found, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("use one of {}", known.join(", ")),
            };
            Problem::new(key, format!("is {found:?}, which is not known"), remedy)
        }
        Kind::MissingField(field) => {
            Problem::new(key, format!("has no {field}"), format!("write {field} = … there"))
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            // What stands in the wrong place may be a secret; only where none is expected is it repeated.
            let hidden = path.iter().any(|it| it == "providers" || sounds_secret(it));
            let found = if hidden { "of another type".to_owned() } else { shown(&found) };
            Problem::new(key, format!("is {found}"), format!("give {}", plain(&expected)))
        }
        // Types of our own say what is wrong and what to do in one text.
        Kind::Message(text) => match text.split_once("; ") {
            Some((problem, remedy)) => Problem::new(key, problem, remedy),
            None => Problem::new(key, format!("cannot be used: {text}"), "see docs/configuration.md"),
        },
        other => {
            let text = figment::Error::from(other).to_string();
            Problem::new(key, format!("cannot be used: {text}"), "see docs/configuration.md")
        }
    }
}

/// What to do about a key that does not exist: the nearest in its section, the same one in another
/// section, or all that there are.
fn for_unknown(section: &str, field: &str, known: &[&str], defaults: &Value) -> String {
    let full = |key: &str| if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
    if let Some(near) = nearest(field, known.iter().copied()) {
        return format!("did you mean {}?", full(near));
    }
    let elsewhere = defaults.as_dict().into_iter().flatten();
    let mut elsewhere = elsewhere.filter(|(_, keys)| keys.as_dict().is_some_and(|it| it.contains_key(field)));
    match elsewhere.next() {
        Some((other, _)) => format!("did you mean {other}.{field}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Puts the default back, or takes the value out. An entry of a list is emptied, not removed, so that
/// the others keep their numbers.
fn repair(root: &mut Value, path: &[String], default: Option<&Value>) -> bool {
    let Some((step, parents)) = path.split_last() else { return false };
    match get_mut(root, parents) {
        Some(Value::Dict(_, map)) => match default {
            Some(default) => map.insert(step.clone(), default.clone()).is_some(),
            None => map.remove(step).is_some(),
        },
        Some(Value::Array(_, list)) => match step.parse().ok().and_then(|i: usize| list.get_mut(i)) {
            Some(item) => {
                *item = Value::Empty(item.tag(), Empty::None);
                true
            }
            None => false,
        },
        _ => false,
    }
}

fn get<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, step| match value {
        Value::Dict(_, map) => map.get(step),
        Value::Array(_, list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn get_mut<'a>(root: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |value, step| match value {
        Value::Dict(_, map) => map.get_mut(step),
        Value::Array(_, list) => list.get_mut(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn nest(path: &[String], value: Value) -> Dict {
    match path {
        [] => Dict::new(),
        [key] => Dict::from([(key.clone(), value)]),
        [key, rest @ ..] => Dict::from([(key.clone(), Value::Dict(Tag::Default, nest(rest, value)))]),
    }
}

/// `["api", "keys", "0", "name"]` as `api.keys[0].name`.
pub(super) fn key_of(path: &[String]) -> String {
    path.iter().fold(String::new(), |mut key, step| {
        if step.bytes().all(|it| it.is_ascii_digit()) && !key.is_empty() {
            return key + "[" + step + "]";
        }
        if !key.is_empty() {
            key.push('.');
        }
        key + step
    })
}

fn path_of(key: &str) -> Vec<String> {
    key.split(['.', '[']).map(|it| it.trim_end_matches(']').to_owned()).collect()
}

fn is_below(key: &str, path: &[String]) -> bool {
    let above = key_of(path);
    !above.is_empty()
        && (key == above || key.strip_prefix(&above).is_some_and(|it| it.starts_with(['.', '['])))
}

fn shown(found: &Actual) -> String {
    match found {
        Actual::Str(text) => format!("{:?}", mask_url(text)),
        Actual::Bool(it) => it.to_string(),
        Actual::Unsigned(it) => it.to_string(),
        Actual::Signed(it) => it.to_string(),
        Actual::Float(it) => it.to_string(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

fn plain(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "a sequence" => "a list: [ … ]",
        "a map" => "a table with keys",
        it if it.starts_with("struct ") => "a table with keys",
        it => it,
    }
}
