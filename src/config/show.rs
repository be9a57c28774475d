//! The configuration in force, written as TOML: in the order of the default file, with the origin of
//! whatever is not a default, and without secrets.

use std::fmt::Write;

use figment::value::{Dict, Value};

use super::{
    DEFAULT,
    database::{mask_url, sounds_secret},
    load::{Loaded, Tree, key_of},
};

/// What stands in place of a secret.
const MASK: &str = "***";
/// Headers that hold no secret, in lower case.
const PLAIN_HEADERS: [&str; 4] = ["accept", "accept-encoding", "content-type", "user-agent"];

impl Loaded {
    /// The configuration in force as TOML; what is not a default says where it comes from.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        if let Some(root) = self.tree.root.as_dict() {
            table(&mut out, &self.tree, root, &mut Vec::new());
        }
        out
    }

    /// The same as JSON: `config`, and in `origins` every key that is not a default.
    pub fn to_json(&self) -> serde_json::Value {
        let mut origins = serde_json::Map::new();
        list_origins(&self.tree, &self.tree.root, &mut Vec::new(), &mut origins);
        serde_json::json!({ "config": json(&self.tree.root, &mut Vec::new()), "origins": origins })
    }
}

fn table(out: &mut String, tree: &Tree, table_: &Dict, path: &mut Vec<String>) {
    for (key, value) in in_order(table_, path) {
        path.push(key.clone());
        if !is_section(value) {
            let origin = tree.origin_of(value).map_or(String::new(), |it| format!("  # {it}"));
            let _ = writeln!(out, "{} = {}{origin}", quoted(key), scalar(value, path));
        }
        path.pop();
    }
    for (key, value) in in_order(table_, path) {
        path.push(key.clone());
        match value {
            Value::Dict(_, map) if is_section(value) => {
                if map.is_empty() || map.values().any(|it| !is_section(it)) {
                    head(out, path, ("[", "]"), None);
                }
                table(out, tree, map, path);
            }
            Value::Array(_, list) if is_section(value) => {
                for (i, item) in list.iter().enumerate() {
                    head(out, path, ("[[", "]]"), tree.origin_of(item));
                    path.push(i.to_string());
                    if let Value::Dict(_, map) = item {
                        table(out, tree, map, path);
                    }
                    path.pop();
                }
            }
            _ => {}
        }
        path.pop();
    }
}

fn head(out: &mut String, path: &[String], (open, close): (&str, &str), origin: Option<String>) {
    let name: Vec<String> =
        path.iter().filter(|it| it.parse::<usize>().is_err()).map(|it| quoted(it)).collect();
    let origin = origin.map_or(String::new(), |it| format!("  # {it}"));
    let gap = if out.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{gap}{open}{}{close}{origin}", name.join("."));
}

/// Whether the value gets a heading of its own.
fn is_section(value: &Value) -> bool {
    match value {
        Value::Dict(..) => true,
        Value::Array(_, list) => !list.is_empty() && list.iter().all(|it| matches!(it, Value::Dict(..))),
        _ => false,
    }
}

/// The keys in the order in which the default file has them, others after them.
fn in_order<'a>(table: &'a Dict, path: &[String]) -> Vec<(&'a String, &'a Value)> {
    let head = |section: &str| {
        // Sections of which there are none by default stand in the examples.
        [format!("\n[{section}]"), format!("\n#[{section}.")].iter().find_map(|it| DEFAULT.find(it.as_str()))
    };
    let start = path.first().and_then(|it| head(it)).unwrap_or(0);
    let place = |key: &str| {
        let found = if path.is_empty() {
            head(key)
        } else {
            ["\n", "\n#"].iter().filter_map(|it| DEFAULT[start..].find(&format!("{it}{key} ="))).min()
        };
        found.unwrap_or(usize::MAX)
    };
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| (place(key), *key));
    keys
}

fn quoted(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("{key:?}") }
}

fn scalar(value: &Value, path: &mut Vec<String>) -> String {
    toml::Value::try_from(json(value, path)).map_or_else(|_| "\"\"".to_owned(), |it| it.to_string())
}

/// The value without what must not be seen.
fn json(value: &Value, path: &mut Vec<String>) -> serde_json::Value {
    match value {
        Value::Dict(_, map) => map
            .iter()
            .map(|(key, value)| {
                path.push(key.clone());
                let entry = (key.clone(), json(value, path));
                path.pop();
                entry
            })
            .collect(),
        Value::Array(_, list) => list.iter().map(|it| json(it, path)).collect(),
        Value::String(_, text) => visible(text, path).into(),
        _ if is_secret(path) => MASK.into(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

fn visible(text: &str, path: &[String]) -> String {
    let refers = text.starts_with("env:") || text.starts_with("file:") || text.contains("{{");
    if is_secret(path) && !refers && !text.is_empty() { MASK.to_owned() } else { mask_url(text) }
}

/// Whether a value at this path may be a secret. Only a provider's settings can be: everything else is
/// known by name, and takes references only.
fn is_secret(path: &[String]) -> bool {
    let [section, _, settings @ ..] = path else { return false };
    let header = match settings {
        [first, .., name] => {
            first == "headers" && !PLAIN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
        }
        _ => false,
    };
    section == "providers" && (header || settings.iter().any(|it| sounds_secret(it) && !is_name(it)))
}

/// Whether it is the name of a key, such as `key_id`, and not the key.
fn is_name(setting: &str) -> bool {
    setting.ends_with("_id")
}

fn list_origins(
    tree: &Tree,
    value: &Value,
    path: &mut Vec<String>,
    origins: &mut serde_json::Map<String, serde_json::Value>,
) {
    let mut below = |step: String, value: &Value| {
        path.push(step);
        list_origins(tree, value, path, origins);
        path.pop();
    };
    match value {
        Value::Dict(_, map) => map.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(_, list) if is_section(value) => {
            list.iter().enumerate().for_each(|(i, value)| below(i.to_string(), value));
        }
        value => {
            if let Some(origin) = tree.origin_of(value) {
                origins.insert(key_of(path), origin.into());
            }
        }
    }
}
