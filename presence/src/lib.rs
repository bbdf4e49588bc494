//! Library of a Parley cluster's shared state, and the presence service.
//!
//! Gateways write through [`registry`] and beat through [`lease`], so chat continues while no presence process runs.
//! The presence process serves [`service::api`] and runs the failure detector. Nothing here knows a wire format or the
//! rules of a session. Modules in reading order:

pub mod model;
pub mod store;
pub mod registry;
pub mod lease;
pub mod host;
pub mod webhooks;
pub mod service;
