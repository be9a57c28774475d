//! `config`: what is in force, and whether it can work.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Exit, Global, Output, print};
use crate::{
    clock::SystemClock,
    config::{ConfigError, Loaded, Problem, Role},
    provider,
};

/// Show the configuration that is in force, or check it
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every key with its value, as TOML, and where it comes from
    ///
    /// What is not a default ends with a comment that names its origin: a file, an environment variable
    /// or an option. Secrets and passwords are not shown.
    Show(Output),
    /// Name everything that is wrong, and what to do about it
    ///
    /// Besides the values, it reads the secrets that the configuration refers to and builds the
    /// providers. It connects to nothing. Exits with 1 when there is a problem.
    Check(Output),
}

impl Options {
    #[allow(clippy::unused_async, reason = "every command is run the same way")]
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        match self.command {
            Command::Show(output) => show(&global.load()?, output),
            Command::Check(output) => check(global, output),
        }
    }
}

fn show(loaded: &Loaded, output: Output) -> anyhow::Result<Exit> {
    if output.json {
        print(format_args!("{:#}", loaded.to_json()))?;
    } else {
        print(loaded.to_toml().trim_end())?;
    }
    Ok(Exit::Well)
}

fn check(global: &Global, output: Output) -> anyhow::Result<Exit> {
    let (loaded, problems) = match global.load() {
        Ok(loaded) => {
            let problems = beyond_values(&loaded);
            (Some(loaded), problems)
        }
        Err(ConfigError::Invalid(problems)) => (None, problems),
        Err(unreadable) => return Err(unreadable.into()),
    };
    let text = match &loaded {
        _ if output.json => as_json(&problems).to_string(),
        Some(loaded) if problems.is_empty() => summary(loaded),
        _ => ConfigError::Invalid(problems.clone()).to_string(),
    };
    print(text)?;
    Ok(if problems.is_empty() { Exit::Well } else { Exit::Wrong })
}

/// What only shows when secrets are read and providers are built.
pub(super) fn beyond_values(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let clock = Arc::new(SystemClock);
    let mut problems = config.check_secrets();
    for (name, it) in &config.providers {
        if let Err(error) = provider::build(name, &it.kind, it.settings.clone(), clock.clone()) {
            let key = format!("providers.{name}.{}", error.key);
            problems.push(Problem::new(key.trim_end_matches('.'), error.problem, error.remedy));
        }
    }
    for it in &mut problems {
        it.origin = loaded.origin(&it.key);
    }
    problems
}

fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let roles: Vec<&str> = config.service.role_set().into_iter().map(Role::as_str).collect();
    let file = loaded.file.as_ref().map_or("none".to_owned(), |it| it.display().to_string());
    let who = match config.api.keys.len() {
        0 if config.api.users.is_set() => "users, and keys made with keys create".to_owned(),
        0 if !config.api.is_loopback() => "keys made with keys create; serve needs one".to_owned(),
        0 => "no key, this machine only".to_owned(),
        1 => "1 key".to_owned(),
        n => format!("{n} keys"),
    };
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    [
        "The configuration has no problem.".to_owned(),
        format!("  file       {file}"),
        format!("  database   {}", config.database.url),
        format!("  roles      {}", roles.join(", ")),
        format!("  api        {} ({who})", config.api.bind),
        format!("  queues     {}", names(config.ingest.sqs.iter().map(|it| it.name.as_str()).collect())),
        format!("  providers  {}", names(config.providers.keys().map(String::as_str).collect())),
    ]
    .join("\n")
}

fn as_json(problems: &[Problem]) -> serde_json::Value {
    let problems: Vec<_> = problems
        .iter()
        .map(|it| json!({ "key": it.key, "origin": it.origin, "problem": it.problem, "remedy": it.remedy }))
        .collect();
    json!({ "ok": problems.is_empty(), "problems": problems })
}
