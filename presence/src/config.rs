//! What the presence program is told when it starts: the validated form of its settings.
//!
//! `main` loads it, `server.rs` hands the parts down. Whatever is in a [`Config`] has been checked, and nothing checks
//! it again. Shown as TOML (`--check`), it can be given back with `--config`, except for hidden credentials.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::settings::{Key, RedisUrl, Settings, SettingsError};

/// Every key of the presence program and its default. The variable of `api.addr` is `PARLEY__API__ADDR`.
pub const KEYS: &[Key] = &[
    ("node.id", None),
    ("redis.url", None),
    ("redis.prefix", Some("parley")),
    ("api.addr", Some("127.0.0.1:8090")),
    ("admin.addr", Some("127.0.0.1:9190")),
    ("drain.grace_seconds", Some("30")),
    ("log.level", Some("info")),
];

/// The presence program's settings, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `node.id`: the name of this process in the cluster. Default: the host's name and a random suffix.
    pub node: String,
    /// `redis.url`: the cluster's Redis. Required: there is nobody to tell about without one.
    pub redis: RedisUrl,
    /// `redis.prefix`: the first part of every key and channel, as the gateways have it.
    pub prefix: String,
    /// `api.addr`: the HTTP API. Port 0 takes a free one, as below.
    pub api: SocketAddr,
    /// `admin.addr`: `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    /// `drain.grace_seconds`: how long answers under way may take at the end.
    pub grace: Duration,
    /// `log.level`: a level, or directives such as `info,presence=debug`.
    pub log: String,
}

impl Config {
    /// Reads defaults, file and environment, and validates everything.
    ///
    /// # Errors
    /// The first key that is unknown, missing, or has a value that it cannot have.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let settings = Settings::load(KEYS, file, environment)?;
        let no_redis = SettingsError::Missing {
            key: "redis.url",
            reason: "presence answers from the Redis that the gateways share, so it needs its URL",
        };
        Ok(Self {
            node: settings.node_id()?,
            redis: settings.redis_url()?.ok_or(no_redis)?,
            prefix: settings.redis_prefix()?,
            api: settings.address("api.addr")?,
            admin: settings.address("admin.addr")?,
            grace: settings.grace()?,
            log: settings.log_level()?,
        })
    }
}

/// The settings in effect as TOML, credentials hidden. What validation lets through is printable ASCII, for which
/// Rust's quoting and TOML's are the same.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node.id = {:?}", self.node)?;
        writeln!(f, "redis.url = {:?}", self.redis)?;
        writeln!(f, "redis.prefix = {:?}", self.prefix)?;
        writeln!(f, "api.addr = \"{}\"", self.api)?;
        writeln!(f, "admin.addr = \"{}\"", self.admin)?;
        writeln!(f, "drain.grace_seconds = {}", self.grace.as_secs())?;
        writeln!(f, "log.level = {:?}", self.log)
    }
}

#[cfg(test)]
mod tests;
