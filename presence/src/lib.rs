//! Who is online in a Parley cluster: names, leases, memberships, the HTTP API over them, and the reaper.
//!
//! The library is shared: gateways write through [`registry`] and beat through [`beat`], so chat goes on while the
//! presence process is down; the process itself serves [`api`] and runs the failure detector. Nothing here knows a wire
//! format or a session's rules. Modules in reading order:

pub mod model;
pub mod log;
pub mod codes;
pub mod problem;
pub mod keys;
pub mod registry;
pub mod server;
pub mod redis;
pub mod sabotage;
pub mod memory;
pub mod beat;
mod recovery;
pub mod audit;
pub mod reaper;
pub mod twin;
pub mod settings;
pub mod config;
pub mod live;
pub mod reload;
pub mod program;
pub mod telemetry;
pub mod admin;
pub mod metrics;
pub mod lag;
pub mod api;
