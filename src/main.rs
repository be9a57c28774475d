//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use notification_ledger::cli::{self, Cli};

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| cli::report(&error))
}
