//! The promises of Parley, tested on real processes: real gateways, real presence, a real Redis, a real nginx.
//!
//! One binary, one module per promise or part, so that it links once. Every test starts a cluster of its own.

#![allow(clippy::unwrap_used)]

mod backplane_contract;
mod bad_input;
mod chaos;
mod chat;
mod config;
mod ctl;
mod deploy;
mod drain;
mod embedded;
mod failover;
mod inbox;
mod load;
mod logs;
mod nicknames;
mod presence_api;
mod programs;
mod protocol_doc;
mod reading;
mod readiness;
mod recovery;
mod redis_away;
mod registry_contract;
mod repair;
mod resume;
mod reload;
mod retention;
mod slow_reader;
mod tidy;
mod typing;
mod watching;
