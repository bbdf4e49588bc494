//! The validated settings of a gateway.
//!
//! `main` loads a [`GatewayConfig`] and `server.rs` passes its parts on. Every value in it has been checked, and no
//! other file checks it again. Its TOML form (`--check`) is valid input for `--config`, except for hidden credentials.

mod api;
mod keys;
mod quotas;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use presence::host::client_address::ProxyNetwork;
use presence::host::settings::{RedisUrl, Settings, SettingsError, retention_lines};
use presence::host::telemetry::{Logs, SpansTo};
use presence::model::{LookalikePolicy, Retention, RoomPolicies};
use presence::store::redis::tls::TlsFiles;

pub use self::api::EmbeddedApiConfig;
pub use self::keys::KEYS;
pub use self::quotas::QuotaSettings;
use crate::hooks::HookSettings;
use crate::identity::AuthConfig;
use crate::listen::{AddressLimits, ConnectionLimits, OriginWord, PageAccess, PageEmbedder, ServerCertificate};
use crate::quota::{LimitKind, RateLimit};
use crate::session::SessionLimits;

/// Maximum value of `limits.connections` and `limits.connections_per_address`.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// Maximum value of `limits.write_stall_seconds`.
const WRITE_STALL_SECONDS_MAX: u64 = 3600;

/// Maximum value of `heartbeat.*`: an hour.
const HEARTBEAT_SECONDS_MAX: u64 = 3600;
/// Bytes of one MiB.
const MIB: usize = 1024 * 1024;
/// Values of `limits.reply_mib`: at least a few pages.
const REPLY_MIB: RangeInclusive<u64> = 4..=65_536;
/// Values of `limits.republish_mib`: at least some messages of the maximum size for several senders.
const REPUBLISH_MIB: RangeInclusive<u64> = 16..=65_536;
/// Values of `limits.room_bytes_per_second`: at least one message of the maximum size.
const ROOM_BYTES_PER_SECOND: RangeInclusive<u64> = 65_536..=1_073_741_824;

/// Maximum value of a limit of a session, and of its burst.
const SESSION_LIMIT_MAX: u64 = 1_000_000_000;
/// Values of `limits.bytes_burst`: at least one message of the maximum size.
const BYTES_BURST: RangeInclusive<u64> = 65_536..=SESSION_LIMIT_MAX;

/// Minimum value of `session.hold_seconds`: a nickname is held at least until the leave is announced.
const HOLD_SECONDS_MIN: u64 = 5;
/// Maximum value of `session.hold_seconds` and `session.hold_after_seconds`: an hour.
const HOLD_SECONDS_MAX: u64 = 3600;

/// The limits of a session that are not set one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsProfile {
    /// Limits for clients that nobody vouches for.
    Default,
    /// No limits, for tests and benchmarks.
    Open,
}

/// Validated settings of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// `node.id`: the name of this process in the cluster. Default: the host name and a random suffix.
    pub node: String,
    /// `redis.url`: the cluster's Redis; `None` runs one gateway alone, in memory.
    pub redis: Option<RedisUrl>,
    /// `redis.tls_*`: the files of TLS to Redis.
    pub redis_tls: TlsFiles,
    /// `redis.prefix`: the first part of every key and channel; unique for each cluster on one Redis.
    pub prefix: String,
    /// `listen.ws`: HTTP, with `/ws` and the chat page. Port 0 selects a free port, here and in the other addresses.
    pub ws: SocketAddr,
    /// `listen.tcp`: raw TCP, text lines and binary frames.
    pub tcp: SocketAddr,
    /// `listen.tls_*`: the certificate of both client ports; `None` is no TLS.
    pub certificate: Option<ServerCertificate>,
    /// `auth.*`: tokens of users.
    pub auth: AuthConfig,
    /// `listen.origins`, `listen.page`, `listen.page_embedders`, `listen.trusted_proxies`, `listen.tcp_proxy_protocol`,
    /// `limits.*`, `heartbeat.*`: limits of client connections.
    pub limits: ConnectionLimits,
    /// `limits.reply_mib`, in bytes: lists that clients have not read yet.
    pub reply_bytes: usize,
    /// `limits.republish_mib`, in bytes: acknowledged messages that Redis may still lose.
    pub republish_bytes: usize,
    /// `limits.room_bytes_per_second`: maximum rate into one room or inbox.
    pub room_bytes_per_second: u64,
    /// `limits.profile`: the limits that are not set.
    pub profile: LimitsProfile,
    /// `limits.*_per_second`, `limits.*_per_minute` and `limits.*_burst`: limits of each session.
    pub session_limits: SessionLimits,
    /// `limits.address_*`, `limits.user_sessions`, `limits.registrations_*` and `limits.creations_*`: limits of
    /// addresses and users.
    pub quotas: QuotaSettings,
    /// `admin.addr`: `/livez`, `/readyz`, `/metrics`, `/holdings`.
    pub admin: SocketAddr,
    /// `history.*`: retention of rooms and inboxes.
    pub history: Retention,
    /// `rooms`: the rules of rooms by pattern.
    pub rooms: RoomPolicies,
    /// `hooks.*` and `callbacks.allow_private`: questions to the application.
    pub hooks: HookSettings,
    /// `session.hold_seconds`: time that a nickname is held for a detached session.
    pub hold: Duration,
    /// `session.hold_after_seconds`: time that a session must have had its nickname before it is held.
    pub hold_after: Duration,
    /// `names.ascii_lookalikes`: the rule for nicknames that look alike.
    pub lookalikes: LookalikePolicy,
    /// `api.*`, `webhooks`, `webhook.*` and `callbacks.*`: the server API and the webhooks of a gateway without Redis.
    pub api: EmbeddedApiConfig,
    /// `drain.grace_seconds`: time limit of a drain.
    pub grace: Duration,
    /// `log.*`: log level, format and file.
    pub logs: Logs,
}

impl GatewayConfig {
    /// Validates every setting.
    ///
    /// # Errors
    /// The first key with an invalid value.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let node = settings.node_id()?;
        let endpoint = settings.optional("otlp.endpoint", endpoint)?;
        let spans = endpoint.map(|endpoint| SpansTo { endpoint, node: node.clone() });
        let redis = settings.redis_url()?;
        Ok(Self {
            node,
            redis_tls: settings.redis_tls(redis.as_ref())?,
            api: EmbeddedApiConfig::read(settings, redis.is_some())?,
            redis,
            prefix: settings.redis_prefix()?,
            ws: settings.address("listen.ws")?,
            tcp: settings.address("listen.tcp")?,
            certificate: certificate(settings)?,
            auth: AuthConfig::read(settings)?,
            limits: limits(settings)?,
            reply_bytes: settings.number(
                "limits.reply_mib",
                REPLY_MIB,
                "expected a whole number of MiB from 4 to 65536",
            )? as usize
                * MIB,
            republish_bytes: settings.number(
                "limits.republish_mib",
                REPUBLISH_MIB,
                "expected a whole number of MiB from 16 to 65536",
            )? as usize
                * MIB,
            room_bytes_per_second: settings.number(
                "limits.room_bytes_per_second",
                ROOM_BYTES_PER_SECOND,
                "expected a whole number from 65536 to 1073741824",
            )?,
            profile: profile(settings)?,
            session_limits: session_limits(settings)?,
            quotas: QuotaSettings::read(settings)?,
            admin: settings.address("admin.addr")?,
            history: settings.retention()?,
            rooms: settings.room_policies()?,
            hooks: HookSettings::read(settings)?,
            hold: hold(settings)?,
            hold_after: Duration::from_secs(settings.number(
                "session.hold_after_seconds",
                0..=HOLD_SECONDS_MAX,
                "expected a whole number of seconds from 0 to 3600",
            )?),
            lookalikes: lookalikes(settings)?,
            grace: settings.grace()?,
            logs: Logs { spans, ..settings.logs()? },
        })
    }
}

/// Reads the certificate of the client ports and its key.
fn certificate(settings: &Settings) -> Result<Option<ServerCertificate>, SettingsError> {
    let cert = settings.optional("listen.tls_cert", ServerCertificate::check_chain)?;
    let loaded = settings
        .optional("listen.tls_key", |key| cert.as_deref().map(|cert| ServerCertificate::load(cert, key)).transpose())?;
    let missing = |key, reason| Err(SettingsError::Missing { key, reason });
    match (cert, loaded) {
        (Some(_), None) => missing("listen.tls_key", "listen.tls_cert needs it"),
        (None, Some(_)) => missing("listen.tls_cert", "listen.tls_key needs it"),
        (_, loaded) => Ok(loaded.flatten()),
    }
}

fn hold(settings: &Settings) -> Result<Duration, SettingsError> {
    settings.required("session.hold_seconds", |text| {
        let seconds = text.parse().ok().filter(|seconds| (HOLD_SECONDS_MIN..=HOLD_SECONDS_MAX).contains(seconds));
        seconds.map(Duration::from_secs).ok_or("expected a whole number of seconds from 5 to 3600")
    })
}

/// Returns the settings of a limit, of sessions or else of addresses: its rate and its burst.
fn limit_keys(limit: LimitKind) -> (&'static str, &'static str) {
    match limit {
        LimitKind::Requests => ("limits.requests_per_second", "limits.requests_burst"),
        LimitKind::Messages => ("limits.messages_per_second", "limits.messages_burst"),
        LimitKind::Bytes => ("limits.bytes_per_second", "limits.bytes_burst"),
        LimitKind::Joins => ("limits.joins_per_second", "limits.joins_burst"),
        LimitKind::Renames => ("limits.renames_per_minute", "limits.renames_burst"),
        LimitKind::Statuses => ("limits.statuses_per_minute", "limits.statuses_burst"),
        LimitKind::Pages => ("limits.pages_per_second", "limits.pages_burst"),
        LimitKind::Registrations => ("limits.registrations_per_minute", "limits.registrations_burst"),
        LimitKind::Creations => ("limits.creations_per_minute", "limits.creations_burst"),
    }
}

fn profile(settings: &Settings) -> Result<LimitsProfile, SettingsError> {
    settings.required("limits.profile", |text| match text {
        "default" => Ok(LimitsProfile::Default),
        "open" => Ok(LimitsProfile::Open),
        _ => Err("expected default or open"),
    })
}

/// Reads the limits of a session. Those that are not set are the profile's.
fn session_limits(settings: &Settings) -> Result<SessionLimits, SettingsError> {
    let profile = match profile(settings)? {
        LimitsProfile::Default => SessionLimits::default(),
        LimitsProfile::Open => SessionLimits::open(),
    };
    SessionLimits::from_each(|limit| rate_limit(settings, limit_keys(limit), profile.of(limit)))
}

/// Reads one limit by its keys. What is not set is the default's.
fn rate_limit(
    settings: &Settings,
    (rate_key, burst_key): (&'static str, &'static str),
    default: RateLimit,
) -> Result<RateLimit, SettingsError> {
    let number = |key, bounds: RangeInclusive<u64>, expected: &'static str| {
        settings.optional(key, |text| text.parse().ok().filter(|number| bounds.contains(number)).ok_or(expected))
    };
    let rate = number(rate_key, 0..=SESSION_LIMIT_MAX, "expected a whole number from 0 to 1000000000")?;
    let burst = if burst_key.ends_with("bytes_burst") {
        number(burst_key, BYTES_BURST, "expected a whole number from 65536 to 1000000000")
    } else {
        number(burst_key, 1..=SESSION_LIMIT_MAX, "expected a whole number from 1 to 1000000000")
    }?;
    Ok(default.with(rate.unwrap_or(default.units()), burst.unwrap_or(default.burst())))
}

fn lookalikes(settings: &Settings) -> Result<LookalikePolicy, SettingsError> {
    let is_strict = settings.flag("names.ascii_lookalikes")?;
    Ok(if is_strict { LookalikePolicy::AllNames } else { LookalikePolicy::ExceptAscii })
}

fn limits(settings: &Settings) -> Result<ConnectionLimits, SettingsError> {
    let origins = settings.list("listen.origins", OriginWord::from_str)?;
    let connections = |key| settings.number(key, 1..=CONNECTIONS_MAX, "expected a whole number from 1 to 1000000");
    let stall = settings.number(
        "limits.write_stall_seconds",
        1..=WRITE_STALL_SECONDS_MAX,
        "expected a whole number of seconds from 1 to 3600",
    )?;
    Ok(ConnectionLimits {
        origins: origins.into(),
        page: Arc::new(PageAccess {
            served: settings.flag("listen.page")?,
            embedders: settings.list("listen.page_embedders", PageEmbedder::from_str)?.into(),
        }),
        connections: connections("limits.connections")? as usize,
        addresses: Arc::new(AddressLimits {
            proxies: settings.list("listen.trusted_proxies", ProxyNetwork::from_str)?.into(),
            proxy_protocol: settings.flag("listen.tcp_proxy_protocol")?,
            connections: connections("limits.connections_per_address")? as usize,
            ..AddressLimits::default()
        }),
        write_stall: Duration::from_secs(stall),
        proxy_idle: heartbeat(settings, "heartbeat.proxy_idle_seconds")?,
        line_sign: heartbeat(settings, "heartbeat.line_sign_seconds")?,
        ..ConnectionLimits::default()
    })
}

fn heartbeat(settings: &Settings, key: &'static str) -> Result<Option<Duration>, SettingsError> {
    let seconds =
        settings.number(key, 0..=HEARTBEAT_SECONDS_MAX, "expected a whole number of seconds from 0 to 3600")?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Parses a collector's URL. The collector runs on the same host or private network, so TLS is not supported.
fn endpoint(text: &str) -> Result<String, &'static str> {
    let is_plain = text.starts_with("http://") && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { Ok(text.to_owned()) } else { Err("expected http://HOST:PORT/v1/traces") }
}

/// Prints the effective settings as TOML, without credentials. Valid values are printable ASCII, for which Rust and
/// TOML quote alike.
impl fmt::Display for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node.id = {:?}", self.node)?;
        match &self.redis {
            Some(url) => writeln!(f, "redis.url = {url:?}")?,
            None => writeln!(f, "# redis.url is not set: this gateway runs alone, in memory")?,
        }
        write!(f, "{}", self.redis_tls)?;
        writeln!(f, "redis.prefix = {:?}", self.prefix)?;
        writeln!(f, "listen.ws = \"{}\"", self.ws)?;
        writeln!(f, "listen.tcp = \"{}\"", self.tcp)?;
        if let Some(certificate) = &self.certificate {
            write!(f, "{certificate}")?;
        }
        writeln!(f, "listen.origins = {:?}", self.limits.origins.words())?;
        writeln!(f, "listen.page = {}", self.limits.page.served)?;
        writeln!(f, "listen.page_embedders = {:?}", self.limits.page.embedders.words())?;
        writeln!(f, "listen.trusted_proxies = {:?}", self.limits.addresses.proxies.words())?;
        writeln!(f, "listen.tcp_proxy_protocol = {}", self.limits.addresses.proxy_protocol)?;
        write!(f, "{}", self.auth)?;
        writeln!(f, "admin.addr = \"{}\"", self.admin)?;
        writeln!(f, "limits.connections = {}", self.limits.connections)?;
        writeln!(f, "limits.connections_per_address = {}", self.limits.addresses.connections)?;
        writeln!(f, "limits.write_stall_seconds = {}", self.limits.write_stall.as_secs())?;
        let seconds = |interval: Option<Duration>| interval.map_or(0, |interval| interval.as_secs());
        writeln!(f, "heartbeat.proxy_idle_seconds = {}", seconds(self.limits.proxy_idle))?;
        writeln!(f, "heartbeat.line_sign_seconds = {}", seconds(self.limits.line_sign))?;
        writeln!(f, "limits.reply_mib = {}", self.reply_bytes / MIB)?;
        writeln!(f, "limits.republish_mib = {}", self.republish_bytes / MIB)?;
        writeln!(f, "limits.room_bytes_per_second = {}", self.room_bytes_per_second)?;
        let profile = match self.profile {
            LimitsProfile::Default => "default",
            LimitsProfile::Open => "open",
        };
        writeln!(f, "limits.profile = {profile:?}")?;
        for limit in LimitKind::of_sessions() {
            let ((rate_key, burst_key), rate) = (limit_keys(limit), self.session_limits.of(limit));
            writeln!(f, "{rate_key} = {}\n{burst_key} = {}", rate.units(), rate.burst())?;
        }
        write!(f, "{}", self.quotas)?;
        write!(f, "{}", retention_lines(&self.history))?;
        writeln!(f, "rooms = {}", self.rooms)?;
        write!(f, "{}", self.hooks)?;
        writeln!(f, "session.hold_seconds = {}", self.hold.as_secs())?;
        writeln!(f, "session.hold_after_seconds = {}", self.hold_after.as_secs())?;
        writeln!(f, "names.ascii_lookalikes = {}", self.lookalikes == LookalikePolicy::AllNames)?;
        if self.redis.is_none() {
            self.api.show(f)?;
        }
        writeln!(f, "drain.grace_seconds = {}", self.grace.as_secs())?;
        write!(f, "{}", self.logs)
    }
}

#[cfg(test)]
mod tests;
