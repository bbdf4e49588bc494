//! Who is online in a Parley cluster: names, leases, memberships, the HTTP API over them, and the reaper.
//!
//! The library is shared: gateways write through [`registry`] and beat through [`lease::beat`], so chat goes on while the
//! presence process is down; the process itself serves [`service::api`] and runs the failure detector. Nothing here knows a
//! wire format or a session's rules. Modules in reading order:

pub mod model;
pub mod store;
pub mod registry;
pub mod lease;
pub mod host;
pub mod service;
