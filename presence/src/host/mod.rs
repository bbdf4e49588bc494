//! The parts that every program needs: settings, start and signals, logs, metrics, the admin port.

pub mod settings;
pub mod program;
pub mod reload;
pub mod reloadable;
pub mod telemetry;
pub mod descriptors;
pub mod metrics;
pub mod accept_failures;
pub mod admin;
pub mod callback;
pub mod client_address;
pub mod crypto;
pub mod entity_tag;
pub mod host_header;
pub mod line_pace;
pub mod problem;
pub mod refusal_episodes;
pub mod security_headers;
pub mod loop_lag;
pub mod failpoints;
