//! Parley's promises, tested on real processes: gateways, presence, Redis and nginx.
//!
//! One binary, so that it links once; one folder per area and one module per promise. Every test starts a cluster of
//! its own. `lobby` holds the clients that several areas share.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod binary;
mod clients;
mod contracts;
mod failures;
mod hooks;
mod lobby;
mod messages;
mod names;
mod operators;
mod sessions;
mod webhooks;
