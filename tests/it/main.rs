//! Integration tests: the real binary and the library against real databases, a real queue and real
//! HTTP. `tests/run` starts what they need; without it they fail and say so, they never skip.

#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock, the environment and start tasks as they like"
)]

mod harness;
mod main_job;
mod rebuild;
mod store;
mod support;
mod tidy;
