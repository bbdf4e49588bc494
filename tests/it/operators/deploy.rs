//! The files of `deploy/`: run for real where this machine can, else parsed and compared with the programs.
//!
//! Invariant: every setting, port, flag, file and duration in these files matches the programs or the repository.

mod compose;
mod dockerfile;
mod kubernetes;
mod kubernetes_components;
mod nginx;
mod nginx_limits;
mod page;
mod presence_api;
mod proxy_idle;
mod redis;
pub(crate) mod runner;
mod runner_tour;
mod settings;
mod starts;
mod systemd;
pub(crate) mod yaml;
