//! Integration tests: the real binary and the library against real databases, a real queue and real
//! HTTP. `tests/run` starts what they need; without it they fail and say so, they never skip.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test panics, prints, reads the clock and the environment, and starts tasks as it likes"
)]

mod api_keys;
mod audit;
mod backfill;
mod bench;
mod browser;
mod cli;
mod commands;
mod contract;
mod deliver;
mod devices;
mod harness;
mod inbox_model;
mod ingest;
mod live;
mod main_job;
mod mend;
mod operate;
mod outages;
mod past;
mod plans;
mod producers;
mod project;
mod reads;
mod rebuild;
mod rebuild_load;
mod rebuild_random;
mod rebuild_slots;
mod receipts;
mod refused;
mod restore;
mod rights;
mod skip;
mod statistics;
mod store;
mod storm;
mod support;
mod tidy;
mod vendors;
