//! What an operator is given: run for real where this machine can, else parsed and compared with the programs.
//!
//! A file of `deploy/` that names a setting, a port, a flag, a file or a time is read here, and each name is looked up
//! where it is decided: in the programs' tables of settings, in the repository, in the sources.

mod compose;
mod dockerfile;
mod kubernetes;
mod nginx;
mod redis;
mod settings;
mod starts;
mod systemd;
pub(crate) mod yaml;
