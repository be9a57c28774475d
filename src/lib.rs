//! An event-sourced notification ledger.
//!
//! Every message that a company's services send is appended once, for ever, to a log; the inbox and
//! the push deliveries are projections of that log; every attempt to push is recorded before and
//! after the call. Read the modules from the top: what may be said ([`message`]), what happened
//! ([`event`]), what follows ([`stream`]), what it means ([`projection`], [`inbox`]), where it is kept
//! ([`store`]), where messages come from and go to ([`source`], [`provider`]), what the product does
//! ([`ledger`]), what runs by itself ([`worker`]), and what others call ([`http`], [`cli`]).
//! `ARCHITECTURE.md` walks through the flows.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod device;
pub mod event;
pub mod http;
pub mod id;
pub mod inbox;
pub mod ledger;
pub mod message;
pub mod metric;
pub mod projection;
pub mod provider;
pub mod routing;
pub mod secret;
pub mod service;
pub mod source;
pub mod store;
pub mod stream;
pub mod supervisor;
pub mod telemetry;
pub mod wake;
pub mod worker;
