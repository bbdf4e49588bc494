//! The validated settings of a gateway.
//!
//! `main` loads a [`GatewayConfig`] and `server.rs` passes its parts on. Every value in it has been checked, and no
//! other file checks it again. Its TOML form (`--check`) is valid input for `--config`, except for hidden credentials.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use presence::host::client_address::{ProxyNetwork, TRUSTED_PROXIES_DEFAULT};
use presence::host::settings::key::{self, Key};
use presence::host::settings::{RedisUrl, Settings, SettingsError};
use presence::host::telemetry::{Logs, SpansTo};
use presence::model::{LookalikePolicy, Retention};
use presence::store::redis::tls::TlsFiles;

use crate::identity::AuthConfig;
use crate::listen::{AddressLimits, ConnectionLimits, OriginWord};
use crate::session::{SessionLimit, SessionLimits};

/// Every key of a gateway. The environment variable of `listen.ws` is `PARLEY__LISTEN__WS`.
pub const KEYS: &[Key] = &[
    key::NODE_ID,
    Key::secret("redis.url").sample("redis://127.0.0.1:6379").meaning(
        "Redis of the cluster, redis://HOST:PORT or rediss://HOST:PORT. Without it the gateway runs alone and keeps \
         everything in memory.",
    ),
    key::REDIS_TLS_CA,
    key::REDIS_TLS_CERT,
    key::REDIS_TLS_KEY,
    key::REDIS_PREFIX,
    Key::address("listen.ws")
        .default("127.0.0.1:8080")
        .meaning("IP:PORT or NAME:PORT of HTTP: WebSocket (/ws) and the chat page (/). Port 0 selects a free port."),
    Key::address("listen.tcp").default("127.0.0.1:9000").meaning("IP:PORT or NAME:PORT of the text line protocol."),
    Key::list("listen.origins").sample("https://chat.example.org").live().meaning(
        "Origins of the web pages that may connect. Empty: only pages of the host and port that the request names, such as \
         the chat page. * admits every page. Clients without an Origin header always may.",
    ),
    Key::flag("listen.page").default("true").live().meaning(
        "Serve the chat page at / of listen.ws. If listen.origins is not empty, it must list the origin of the page too.",
    ),
    Key::list("listen.trusted_proxies").default(TRUSTED_PROXIES_DEFAULT).live().meaning(
        "Addresses and networks of reverse proxies. Only from these, X-Forwarded-For names the address of the client.",
    ),
    Key::flag("listen.tcp_proxy_protocol").default("false").live().meaning(
        "Require a PROXY header (version 1 or 2) on listen.tcp from listen.trusted_proxies. Others never may send one.",
    ),
    Key::text("auth.mode").default("open").live().meaning(
        "Who may connect: open (anybody, tokens are ignored), token (only with a valid token) or mixed (without a token \
         as a guest). The same on all gateways.",
    ),
    Key::text("auth.issuer")
        .sample("https://id.example.org")
        .live()
        .meaning("Issuer of the tokens: their claim iss. Required unless auth.mode is open."),
    Key::list("auth.audience")
        .sample("parley")
        .live()
        .meaning("Names of this service, one of which is in the claim aud. Required unless auth.mode is open."),
    Key::secret("auth.secret")
        .sample("32 bytes or more, shared with the issuer")
        .live()
        .meaning("Secret of tokens with HS256, 32 bytes or more. For other algorithms and several keys: auth.keys."),
    Key::list("auth.keys").sample("ES256/2026=/etc/parley/es256.pem").live().meaning(
        "Keys of tokens, ALGORITHM=FILE or ALGORITHM/KEY_ID=FILE: a secret for HS256, HS384 and HS512, a public key as \
         PEM for RS256, ES256 and EdDSA. A reload reads the files again.",
    ),
    Key::text("auth.jwks").sample("https://id.example.org/.well-known/jwks.json").live().meaning(
        "Set of keys (JWKS), the path of a file or a URL. A reload reads it again. A URL is also fetched again after an \
         hour, and for a key id that is unknown, at most every 30 s.",
    ),
    Key::flag("auth.jwks_plain_http").default("false").live().meaning(
        "Allow http:// for auth.jwks to other machines. Without it only to this one: the answer decides about every user.",
    ),
    Key::address("admin.addr")
        .default("127.0.0.1:9180")
        .meaning("IP:PORT or NAME:PORT of /livez, /readyz, /metrics and /holdings. Never expose it to clients."),
    Key::number("limits.connections")
        .default("16384")
        .live()
        .meaning("Maximum number of connections on both ports together, 1 to 1000000. Fewer if descriptors are short. More are refused."),
    Key::number("limits.connections_per_address").default("256").live().meaning(
        "Maximum number of connections of one address, 1 to 1000000; an IPv6 address counts by its /64. More are refused \
         as rate_limited. Behind a proxy that is not in listen.trusted_proxies all clients have its address.",
    ),
    Key::number("limits.write_stall_seconds").default("30").live().meaning(
        "Seconds without write progress before a slow reader is closed, 1 to 3600. Applies to new connections.",
    ),
    Key::number("heartbeat.proxy_idle_seconds").default("45").live().meaning(
        "Maximum seconds between frames to a WebSocket client, for proxies with an idle limit; 0 to 3600, 0 is off.",
    ),
    Key::number("heartbeat.line_sign_seconds")
        .default("0")
        .live()
        .meaning("Seconds without input before a line client is sent a visible sign; 0 to 3600, 0 is off."),
    Key::number("limits.reply_mib").default("64").meaning(
        "Memory in MiB for lists (history, members, rooms) that clients have not read yet, 4 to 65536. Beyond it pages \
         are shorter, then lists are refused as overloaded.",
    ),
    Key::number("limits.republish_mib").default("256").meaning(
        "Memory in MiB for acknowledged messages that Redis may still lose, about 7 seconds of them, 16 to 65536. Beyond \
         it messages are refused as overloaded.",
    ),
    Key::number("limits.room_bytes_per_second").default("2097152").live().meaning(
        "Maximum number of bytes per second that this gateway sends into one room or to one nickname, 65536 to \
         1073741824. Beyond it messages are refused as overloaded, the largest senders first.",
    ),
    Key::text("limits.profile").default("default").live().meaning(
        "Limits of each session that are not set: default, or open for none (tests and benchmarks only).",
    ),
    Key::number("limits.requests_per_second").sample("100").live().meaning(
        "Maximum number of requests of a session per second, 0 to 1000000000; 0 is no limit. Default: 100. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.requests_burst")
        .sample("200")
        .live()
        .meaning("Maximum number of requests of a session at once, 1 to 1000000000. Default: 200."),
    Key::number("limits.messages_per_second").sample("20").live().meaning(
        "Maximum number of messages of a session per second, 0 to 1000000000; 0 is no limit. Default: 20. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.messages_burst")
        .sample("60")
        .live()
        .meaning("Maximum number of messages of a session at once, 1 to 1000000000. Default: 60."),
    Key::number("limits.bytes_per_second").sample("65536").live().meaning(
        "Maximum number of bytes of message bodies of a session per second, 0 to 1000000000; 0 is no limit. Default: 65536. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.bytes_burst")
        .sample("262144")
        .live()
        .meaning("Maximum number of bytes of message bodies of a session at once, 65536 to 1000000000. Default: 262144."),
    Key::number("limits.joins_per_second").sample("5").live().meaning(
        "Maximum number of joins and registrations of a session per second, 0 to 1000000000; 0 is no limit. Default: 5. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.joins_burst")
        .sample("30")
        .live()
        .meaning("Maximum number of joins and registrations of a session at once, 1 to 1000000000. Default: 30."),
    Key::number("limits.renames_per_minute").sample("3").live().meaning(
        "Maximum number of changes of nickname of a session per minute, 0 to 1000000000; 0 is no limit. Default: 3. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.renames_burst")
        .sample("3")
        .live()
        .meaning("Maximum number of changes of nickname of a session at once, 1 to 1000000000. Default: 3."),
    Key::number("limits.statuses_per_minute").sample("30").live().meaning(
        "Maximum number of changes of status of a session per minute, 0 to 1000000000; 0 is no limit. Default: 30. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.statuses_burst")
        .sample("10")
        .live()
        .meaning("Maximum number of changes of status of a session at once, 1 to 1000000000. Default: 10."),
    Key::number("limits.pages_per_second").sample("5").live().meaning(
        "Maximum number of lists (history, members, rooms) of a session per second, 0 to 1000000000; 0 is no limit. Default: 5. Beyond it \
         requests are refused as rate_limited.",
    ),
    Key::number("limits.pages_burst")
        .sample("20")
        .live()
        .meaning("Maximum number of lists (history, members, rooms) of a session at once, 1 to 1000000000. Default: 20."),
    Key::number("history.max_messages")
        .default("10000")
        .live()
        .meaning("Maximum number of messages kept in a room, 1 to 1000000. Redis may keep up to 100 more."),
    Key::number("history.max_bytes").default("16777216").live().meaning(
        "Maximum number of bytes of the messages kept in a room, 65536 to 1073741824. Redis may keep a sixteenth and one \
         message more.",
    ),
    Key::number("history.max_age_hours").default("72").live().meaning(
        "Maximum age of messages kept in a room in hours, 1 to 8760. Older ones are removed at a later message, once they \
         are a 64th too old.",
    ),
    Key::number("history.inbox_messages")
        .default("1000")
        .live()
        .meaning("Maximum number of messages kept in an inbox, 1 to 1000000. Redis may keep up to 100 more."),
    Key::number("history.inbox_bytes").default("4194304").live().meaning(
        "Maximum number of bytes of the messages kept in an inbox, 65536 to 1073741824. Redis may keep a sixteenth and \
         one message more.",
    ),
    Key::number("history.quiet_room_hours").default("24").live().meaning(
        "Hours that a room with fewer than three messages is kept after its last member left, 1 to 72. Others are kept \
         for 72 hours; a room without messages is forgotten at once. Applies from a room's next message.",
    ),
    Key::number("session.hold_seconds")
        .default("60")
        .meaning("Seconds that a nickname is held for a session that lost its connection, 5 to 3600."),
    Key::number("session.hold_after_seconds").default("10").meaning(
        "Seconds that a session must have had its nickname before it is held after a lost connection, 0 to 3600.",
    ),
    Key::flag("names.ascii_lookalikes").default("true").meaning(
        "Refuse a nickname in ASCII that looks like another one in ASCII (paypal, paypaI). The same on all gateways.",
    ),
    key::DRAIN_GRACE,
    key::LOG_LEVEL,
    key::LOG_ADDRESSES,
    key::LOG_FORMAT,
    key::LOG_FILE,
    key::LOG_FILES,
    key::LOG_FILE_MIB,
    #[cfg(feature = "otlp")]
    Key::text("otlp.endpoint").sample("http://127.0.0.1:4318/v1/traces").meaning(
        "URL of the collector that receives message spans: OTLP over HTTP, as JSON. Independent of the log level.",
    ),
];

/// Maximum value of `history.max_messages` and `history.inbox_messages`.
const HISTORY_MESSAGES_MAX: u64 = 1_000_000;
/// Values of `history.max_bytes` and `history.inbox_bytes`: at least one message of the maximum size.
const HISTORY_BYTES: RangeInclusive<u64> = 65_536..=1_073_741_824;
/// Maximum value of `history.max_age_hours`: a year.
const HISTORY_HOURS_MAX: u64 = 8760;
/// Maximum value of `history.quiet_room_hours`: the lifetime of other rooms and of sessions.
const QUIET_ROOM_HOURS_MAX: u64 = 72;
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
    /// `listen.tcp`: raw TCP, text lines.
    pub tcp: SocketAddr,
    /// `auth.*`: tokens of users.
    pub auth: AuthConfig,
    /// `listen.origins`, `listen.page`, `listen.trusted_proxies`, `listen.tcp_proxy_protocol`, `limits.*`,
    /// `heartbeat.*`: limits of client connections.
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
    /// `admin.addr`: `/livez`, `/readyz`, `/metrics`, `/holdings`.
    pub admin: SocketAddr,
    /// `history.*`: retention of rooms and inboxes.
    pub history: Retention,
    /// `session.hold_seconds`: time that a nickname is held for a detached session.
    pub hold: Duration,
    /// `session.hold_after_seconds`: time that a session must have had its nickname before it is held.
    pub hold_after: Duration,
    /// `names.ascii_lookalikes`: the rule for nicknames that look alike.
    pub lookalikes: LookalikePolicy,
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
            redis,
            prefix: settings.redis_prefix()?,
            ws: settings.address("listen.ws")?,
            tcp: settings.address("listen.tcp")?,
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
            admin: settings.address("admin.addr")?,
            history: history(settings)?,
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

fn hold(settings: &Settings) -> Result<Duration, SettingsError> {
    settings.required("session.hold_seconds", |text| {
        let seconds = text.parse().ok().filter(|seconds| (HOLD_SECONDS_MIN..=HOLD_SECONDS_MAX).contains(seconds));
        seconds.map(Duration::from_secs).ok_or("expected a whole number of seconds from 5 to 3600")
    })
}

/// Returns the settings of a limit: its rate and its burst.
fn session_limit_keys(limit: SessionLimit) -> (&'static str, &'static str) {
    match limit {
        SessionLimit::Requests => ("limits.requests_per_second", "limits.requests_burst"),
        SessionLimit::Messages => ("limits.messages_per_second", "limits.messages_burst"),
        SessionLimit::Bytes => ("limits.bytes_per_second", "limits.bytes_burst"),
        SessionLimit::Joins => ("limits.joins_per_second", "limits.joins_burst"),
        SessionLimit::Renames => ("limits.renames_per_minute", "limits.renames_burst"),
        SessionLimit::Statuses => ("limits.statuses_per_minute", "limits.statuses_burst"),
        SessionLimit::Pages => ("limits.pages_per_second", "limits.pages_burst"),
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
    let number = |key, bounds: RangeInclusive<u64>, expected: &'static str| {
        settings.optional(key, |text| text.parse().ok().filter(|number| bounds.contains(number)).ok_or(expected))
    };
    SessionLimits::from_each(|limit| {
        let (default, (rate_key, burst_key)) = (profile.of(limit), session_limit_keys(limit));
        let rate = number(rate_key, 0..=SESSION_LIMIT_MAX, "expected a whole number from 0 to 1000000000")?;
        let burst = match limit {
            SessionLimit::Bytes => number(burst_key, BYTES_BURST, "expected a whole number from 65536 to 1000000000"),
            _ => number(burst_key, 1..=SESSION_LIMIT_MAX, "expected a whole number from 1 to 1000000000"),
        }?;
        Ok(default.with(rate.unwrap_or(default.units()), burst.unwrap_or(default.burst())))
    })
}

fn lookalikes(settings: &Settings) -> Result<LookalikePolicy, SettingsError> {
    let is_strict = settings.flag("names.ascii_lookalikes")?;
    Ok(if is_strict { LookalikePolicy::AllNames } else { LookalikePolicy::ExceptAscii })
}

fn history(settings: &Settings) -> Result<Retention, SettingsError> {
    let messages = settings.number(
        "history.max_messages",
        1..=HISTORY_MESSAGES_MAX,
        "expected a whole number from 1 to 1000000",
    )?;
    let hours = settings.number(
        "history.max_age_hours",
        1..=HISTORY_HOURS_MAX,
        "expected a whole number of hours from 1 to 8760",
    )?;
    let inbox = settings.number(
        "history.inbox_messages",
        1..=HISTORY_MESSAGES_MAX,
        "expected a whole number from 1 to 1000000",
    )?;
    let quiet = settings.number(
        "history.quiet_room_hours",
        1..=QUIET_ROOM_HOURS_MAX,
        "expected a whole number of hours from 1 to 72",
    )?;
    let bytes = |key| settings.number(key, HISTORY_BYTES, "expected a whole number from 65536 to 1073741824");
    Ok(Retention {
        messages: messages as usize,
        bytes: bytes("history.max_bytes")? as usize,
        age: Duration::from_secs(hours * 3600),
        inbox_messages: inbox as usize,
        inbox_bytes: bytes("history.inbox_bytes")? as usize,
        quiet: Duration::from_secs(quiet * 3600),
    })
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
        page: settings.flag("listen.page")?,
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
        writeln!(f, "listen.origins = {:?}", self.limits.origins.words())?;
        writeln!(f, "listen.page = {}", self.limits.page)?;
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
        for limit in SessionLimit::ALL {
            let ((rate_key, burst_key), rate) = (session_limit_keys(limit), self.session_limits.of(limit));
            writeln!(f, "{rate_key} = {}\n{burst_key} = {}", rate.units(), rate.burst())?;
        }
        writeln!(f, "history.max_messages = {}", self.history.messages)?;
        writeln!(f, "history.max_bytes = {}", self.history.bytes)?;
        writeln!(f, "history.max_age_hours = {}", self.history.age.as_secs() / 3600)?;
        writeln!(f, "history.inbox_messages = {}", self.history.inbox_messages)?;
        writeln!(f, "history.inbox_bytes = {}", self.history.inbox_bytes)?;
        writeln!(f, "history.quiet_room_hours = {}", self.history.quiet.as_secs() / 3600)?;
        writeln!(f, "session.hold_seconds = {}", self.hold.as_secs())?;
        writeln!(f, "session.hold_after_seconds = {}", self.hold_after.as_secs())?;
        writeln!(f, "names.ascii_lookalikes = {}", self.lookalikes == LookalikePolicy::AllNames)?;
        writeln!(f, "drain.grace_seconds = {}", self.grace.as_secs())?;
        write!(f, "{}", self.logs)
    }
}

#[cfg(test)]
mod tests;
