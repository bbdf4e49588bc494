//! [`PresenceConfig`]: the validated settings of the presence program.
//!
//! `main` loads it and `server.rs` passes the parts down. Invariant: every value of a [`PresenceConfig`] is valid, so
//! no other code checks it again. It displays as TOML (`--check`), which `--config` reads back, except for hidden
//! credentials.

mod api;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::host::client_address::{ProxyNetwork, TRUSTED_PROXIES_DEFAULT, TrustedProxies};
use crate::host::settings::key::{self, Key};
use crate::host::settings::{RedisUrl, Settings, SettingsError, retention_lines};
use crate::host::telemetry::Logs;
use crate::model::{Retention, RoomPolicies};
use crate::service::access::ApiAccess;
use crate::store::redis::tls::TlsFiles;
use crate::webhooks::{self, WebhookConfig};

pub use self::api::{API_KEYS, API_OPEN_READS, API_ORIGINS};

/// Every key of the presence program. The variable of `api.addr` is `PARLEY__API__ADDR`.
pub const KEYS: &[Key] = &[
    key::NODE_ID,
    Key::secret("redis.url")
        .sample("redis://127.0.0.1:6379")
        .meaning("Redis of the cluster, redis://HOST:PORT or rediss://HOST:PORT. Required."),
    key::REDIS_TLS_CA,
    key::REDIS_TLS_CERT,
    key::REDIS_TLS_KEY,
    key::REDIS_PREFIX,
    Key::address("api.addr")
        .default("127.0.0.1:8090")
        .meaning("IP:PORT or NAME:PORT of the HTTP API. Port 0 selects a free port."),
    API_KEYS,
    API_OPEN_READS,
    API_ORIGINS,
    key::HISTORY_MAX_MESSAGES,
    key::HISTORY_MAX_BYTES,
    key::HISTORY_MAX_AGE_HOURS,
    key::HISTORY_INBOX_MESSAGES,
    key::HISTORY_INBOX_BYTES,
    key::HISTORY_QUIET_ROOM_HOURS,
    key::ROOMS,
    Key::list("listen.trusted_proxies").default(TRUSTED_PROXIES_DEFAULT).meaning(
        "Addresses and networks of reverse proxies. From these, X-Forwarded-For names the client, whose share of \
         event streams and requests is limited.",
    ),
    Key::address("admin.addr")
        .default("127.0.0.1:9190")
        .meaning("IP:PORT or NAME:PORT of /livez, /readyz and /metrics. Never expose it to clients."),
    webhooks::WEBHOOKS,
    webhooks::DEADLINE,
    webhooks::DEAD_LETTERS,
    webhooks::LOG_EVENTS,
    webhooks::LOG_MIB,
    webhooks::ALLOW_PRIVATE,
    key::DRAIN_GRACE,
    key::LOG_LEVEL,
    key::LOG_ADDRESSES,
    key::LOG_FORMAT,
    key::LOG_FILE,
    key::LOG_FILES,
    key::LOG_FILE_MIB,
];

/// The presence program's settings, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceConfig {
    /// `node.id`: name of this process in the cluster. Default: the name of the host with a random suffix.
    pub node: String,
    /// `redis.url`: Redis of the cluster. Required.
    pub redis: RedisUrl,
    /// `redis.tls_*`: the files of TLS to Redis.
    pub redis_tls: TlsFiles,
    /// `redis.prefix`: first part of every key and channel, equal to that of the gateways.
    pub prefix: String,
    /// `api.addr`: address of the HTTP API. Port 0 selects a free port, as below.
    pub api: SocketAddr,
    /// `api.keys`, `api.open_reads` and `api.origins`.
    pub access: ApiAccess,
    /// `history.*`: the limits to which messages of the API trim streams, those of the gateways.
    pub history: Retention,
    /// `rooms`: the rules of rooms by pattern, those of the gateways.
    pub rooms: RoomPolicies,
    /// `listen.trusted_proxies`: reverse proxies that name their clients.
    pub proxies: TrustedProxies,
    /// `admin.addr`: address of `/livez`, `/readyz` and `/metrics`.
    pub admin: SocketAddr,
    /// `webhooks`, `webhook.*` and `callbacks.*`: addresses that get events.
    pub webhooks: WebhookConfig,
    /// `drain.grace_seconds`: time for open requests at shutdown.
    pub grace: Duration,
    /// `log.*`.
    pub logs: Logs,
}

impl PresenceConfig {
    /// Validates all settings.
    ///
    /// # Errors
    /// The first missing or invalid key.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let no_redis = SettingsError::Missing {
            key: "redis.url",
            reason: "presence answers from the Redis that the gateways share, so it needs its URL",
        };
        let node = settings.node_id()?;
        let redis = settings.redis_url()?.ok_or(no_redis)?;
        let api = settings.address("api.addr")?;
        Ok(Self {
            node,
            redis_tls: settings.redis_tls(Some(&redis))?,
            redis,
            prefix: settings.redis_prefix()?,
            api,
            access: ApiAccess::read(settings, api)?,
            history: settings.retention()?,
            rooms: settings.room_policies()?,
            proxies: settings.list("listen.trusted_proxies", ProxyNetwork::from_str)?.into(),
            admin: settings.address("admin.addr")?,
            webhooks: WebhookConfig::new(settings)?,
            grace: settings.grace()?,
            logs: settings.logs()?,
        })
    }
}

/// Settings in effect as TOML, credentials hidden. Validated values are printable ASCII, for which the quoting of Rust
/// and TOML is the same.
impl fmt::Display for PresenceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node.id = {:?}", self.node)?;
        writeln!(f, "redis.url = {:?}", self.redis)?;
        write!(f, "{}", self.redis_tls)?;
        writeln!(f, "redis.prefix = {:?}", self.prefix)?;
        writeln!(f, "api.addr = \"{}\"", self.api)?;
        write!(f, "{}", self.access)?;
        write!(f, "{}", retention_lines(&self.history))?;
        writeln!(f, "rooms = {}", self.rooms)?;
        writeln!(f, "listen.trusted_proxies = {:?}", self.proxies.words())?;
        writeln!(f, "admin.addr = \"{}\"", self.admin)?;
        write!(f, "{}", self.webhooks)?;
        writeln!(f, "{} = {}", webhooks::ALLOW_PRIVATE.name, self.webhooks.rules.allow_private)?;
        writeln!(f, "drain.grace_seconds = {}", self.grace.as_secs())?;
        write!(f, "{}", self.logs)
    }
}

#[cfg(test)]
mod tests;
