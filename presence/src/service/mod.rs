//! The presence process: its settings, its composition root, its readiness and the HTTP API.

pub mod access;
pub mod config;
pub mod server;
pub mod api;
mod readiness;
mod waiting;
