//! `demo`: the whole service on sample messages, in a folder of its own, telling what happens.
//!
//! Nothing here is staged: the service is the one that `serve` runs, the messages come in over its API,
//! the pushes go to a real HTTP endpoint, and every number is read back. What does not come out as it
//! has to is said, and is the exit code.

mod app;
mod client;
mod commands;
mod endpoint;
mod lines;
mod paint;
mod samples;
mod stage;
mod story;
mod tally;
mod text;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::future::join;

use self::{
    commands::{Scene, examples},
    paint::Paint,
    stage::{Props, Stage},
    story::{Story, Told},
};
use super::{Exit, Global, nobody_reads, print};
use crate::supervisor::{Outcome, Supervisor, Tasks};

/// How long the service may take to stop.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Lines of the service's log that are shown when something went wrong.
const LAST_WORDS: usize = 20;

/// Try it: run the service on sample messages and a flaky push endpoint, and tell what happens
///
/// Makes a folder of its own, which is removed at the end, with a ledger on SQLite. Neither a
/// configuration nor the environment of this machine plays a part, and nothing leaves it. Then it stays
/// up, with example commands to try, until Ctrl-C.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// End after the story; exits with 1 if anything did not come out as it has to
    #[arg(long)]
    once: bool,
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        if global.database.is_some() {
            bail!("the demo brings a database of its own; leave --database away");
        }
        let supervisor = Supervisor::new(STOP_MAX);
        let tasks = supervisor.tasks().clone();
        let (paint, mut props) = (Paint::for_stdout(), Props::default());
        let story = async {
            let stop = tasks.stop().soft();
            let perform = Box::pin(self.perform(&tasks, &mut props, paint));
            let told = stop.run_until_cancelled(perform).await;
            tasks.stop().ask();
            told
        };
        // The supervisor first: signals are heard before there is anything to clear away.
        let (outcome, told) = join(supervisor.run_until_stopped(), story).await;
        let ending = self.ending(outcome.context("signals cannot be heard")?, told);
        if ending.as_ref().is_err_and(|error| !nobody_reads(error)) {
            show_last_words(&props);
        }
        props.clear().await;
        if ending.is_ok() && !self.once {
            print("\nStopped, and the folder removed.")?;
        }
        ending
    }

    /// Tells the story, and stays until a stop is asked for unless it is to end by itself; gives what did
    /// not come out as expected.
    async fn perform(&self, tasks: &Tasks, props: &mut Props, paint: Paint) -> anyhow::Result<Vec<String>> {
        let stage = Stage::set(tasks, props).await?;
        let folder = props.folder.as_ref().map(|it| it.path().display().to_string()).unwrap_or_default();
        let told = Story::new(&stage, paint).tell(&folder).await?;
        if !self.once && told.wrong.is_empty() {
            invite(&stage, &told, paint).await?;
            tasks.stop().asked().await;
        }
        Ok(told.wrong)
    }

    /// How the command ends; `told` is missing where a stop came first.
    fn ending(&self, outcome: Outcome, told: Option<anyhow::Result<Vec<String>>>) -> anyhow::Result<Exit> {
        if let Outcome::Failed(failed) = outcome {
            return Err(failed.into());
        }
        let wrong = match told {
            Some(told) => told?,
            // Whoever stays until Ctrl-C has seen it all; whoever wanted the story has not.
            None if self.once => bail!("stopped before the end"),
            None => Vec::new(),
        };
        if !wrong.is_empty() {
            bail!("not everything came out as it has to:\n  {}", wrong.join("\n  "));
        }
        match outcome {
            Outcome::Forced { running } => bail!("stopped before these had finished: {}", running.join(", ")),
            _ => Ok(Exit::Well),
        }
    }
}

/// Shows what there is to try.
async fn invite(stage: &Stage, told: &Told, paint: Paint) -> anyhow::Result<()> {
    let Told { recipient, message, .. } = told;
    let unread = stage.client.inbox(recipient, None).await?.newest_unread;
    let scene = Scene {
        base: stage.client.base(),
        header: &stage.header,
        recipient,
        message,
        unread: unread.as_deref(),
    };
    print(text::heading("Your turn", "in another terminal", paint))?;
    print(text::command("the inbox as an app shows it: open this address in a browser", &stage.page, paint))?;
    for (what, command) in examples(&scene) {
        print(text::command(&what, &command, paint))?;
    }
    Ok(print(format_args!("\n{}", paint.bold("Ctrl-C ends it and removes the folder.")))?)
}

/// Shows how the service's own log ends, which is gone with the folder.
fn show_last_words(props: &Props) {
    let words = props.last_words(LAST_WORDS);
    if !words.is_empty() {
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "\nthe service's log ends with:\n{words}");
    }
}
