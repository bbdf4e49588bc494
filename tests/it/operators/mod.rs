//! Tests of operation: configuration, deployment, logs, metrics, alerts and `gateway ctl`.

mod config;
mod configuration_page;
mod ctl;
pub(crate) mod deploy;
mod embedded;
mod load;
mod logs;
mod programs;
mod readiness;
mod reload;
mod watching;
