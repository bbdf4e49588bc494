//! What the presence program is told when it starts: the validated form of its settings.
//!
//! `main` loads it, `server.rs` hands the parts down. Whatever is in a [`Config`] has been checked, and nothing checks
//! it again. Shown as TOML (`--check`), it can be given back with `--config`, except for hidden credentials.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::host::settings::key::{self, Key};
use crate::host::settings::{RedisUrl, Settings, SettingsError};
use crate::host::telemetry::Logs;

/// Every key of the presence program. The variable of `api.addr` is `PARLEY__API__ADDR`.
pub const KEYS: &[Key] = &[
    key::NODE_ID,
    Key::secret("redis.url")
        .sample("redis://127.0.0.1:6379")
        .meaning("Redis of the cluster, redis://HOST:PORT. Required."),
    key::REDIS_PREFIX,
    Key::text("api.addr").default("127.0.0.1:8090").meaning("IP:PORT of the HTTP API. Port 0 takes a free port."),
    Key::text("admin.addr")
        .default("127.0.0.1:9190")
        .meaning("IP:PORT of /livez, /readyz and /metrics. Never expose it to clients."),
    key::DRAIN_GRACE,
    key::LOG_LEVEL,
    key::LOG_FORMAT,
    key::LOG_FILE,
    key::LOG_FILES,
    key::LOG_FILE_MIB,
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
    /// `log.*`.
    pub logs: Logs,
}

impl Config {
    /// Validates everything.
    ///
    /// # Errors
    /// The first key that is missing, or has a value that it cannot have.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
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
            logs: settings.logs()?,
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
        write!(f, "{}", self.logs)
    }
}

#[cfg(test)]
mod tests;
