//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use notification_ledger::cli::{self, Cli};

/// Messages are many short texts, allocated by one thread and freed by another, which is where the
/// system's allocator is slow: a third of the time of a busy ledger went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| cli::report(&error))
}
