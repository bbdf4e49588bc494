//! What a gateway is told when it starts: the validated form of its settings.
//!
//! `main` loads it, `server.rs` hands the parts down. Whatever is in a [`Config`] has been checked, and nothing checks
//! it again. Shown as TOML (`--check`), it can be given back with `--config`, except for hidden credentials.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use presence::model::Retention;
use presence::settings::{Key, RedisUrl, Settings, SettingsError};

/// Every key of a gateway and its default. The variable of `listen.ws` is `PARLEY__LISTEN__WS`.
pub const KEYS: &[Key] = &[
    ("node.id", None),
    ("redis.url", None),
    ("redis.prefix", Some("parley")),
    ("listen.ws", Some("127.0.0.1:8080")),
    ("listen.tcp", Some("127.0.0.1:9000")),
    ("admin.addr", Some("127.0.0.1:9180")),
    ("history.max_messages", Some("10000")),
    ("history.max_age_hours", Some("72")),
    ("session.hold_seconds", Some("60")),
    ("drain.grace_seconds", Some("30")),
    ("log.level", Some("info")),
];

/// Most messages of a room that may be kept.
const MAX_HISTORY_MESSAGES: u64 = 1_000_000;
/// Longest time that they may be kept: a year.
const MAX_HISTORY_HOURS: u64 = 8760;

/// Shortest time that a nickname may be kept for who lost its connection: until others are told that they left.
const LEAST_HOLD_SECONDS: u64 = 5;
/// Longest time that it may be kept: an hour.
const MAX_HOLD_SECONDS: u64 = 3600;

/// A gateway's settings, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `node.id`: the name of this process in the cluster. Default: the host's name and a random suffix.
    pub node: String,
    /// `redis.url`: the cluster's Redis; `None` runs alone, on memory.
    pub redis: Option<RedisUrl>,
    /// `redis.prefix`: the first part of every key and channel; one for each cluster on a Redis.
    pub prefix: String,
    /// `listen.ws`: HTTP, with `/ws`. Port 0 takes a free one, as in the other two.
    pub ws: SocketAddr,
    /// `listen.tcp`: raw TCP, text lines.
    pub tcp: SocketAddr,
    /// `admin.addr`: `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    /// `history.max_messages` and `history.max_age_hours`: how much of a room's log is kept.
    pub history: Retention,
    /// `session.hold_seconds`: how long a nickname is kept for a session that lost its connection.
    pub hold: Duration,
    /// `drain.grace_seconds`: how long a drain may take.
    pub grace: Duration,
    /// `log.level`: a level, or directives such as `info,gateway=debug`.
    pub log: String,
}

impl Config {
    /// Reads defaults, file and environment, and validates everything.
    ///
    /// # Errors
    /// The first key that is unknown or has a value that it cannot have.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let settings = Settings::load(KEYS, file, environment)?;
        Ok(Self {
            node: settings.node_id()?,
            redis: settings.redis_url()?,
            prefix: settings.redis_prefix()?,
            ws: settings.address("listen.ws")?,
            tcp: settings.address("listen.tcp")?,
            admin: settings.address("admin.addr")?,
            history: history(&settings)?,
            hold: hold(&settings)?,
            grace: settings.grace()?,
            log: settings.log_level()?,
        })
    }
}

fn hold(settings: &Settings) -> Result<Duration, SettingsError> {
    settings.required("session.hold_seconds", |text| {
        let seconds = text.parse().ok().filter(|seconds| (LEAST_HOLD_SECONDS..=MAX_HOLD_SECONDS).contains(seconds));
        seconds.map(Duration::from_secs).ok_or("expected a whole number of seconds from 5 to 3600")
    })
}

fn history(settings: &Settings) -> Result<Retention, SettingsError> {
    let whole = |text: &str, most: u64| text.parse().ok().filter(|number| (1..=most).contains(number));
    let messages = settings.required("history.max_messages", |text| {
        whole(text, MAX_HISTORY_MESSAGES).ok_or("expected a whole number from 1 to 1000000")
    })?;
    let hours = settings.required("history.max_age_hours", |text| {
        whole(text, MAX_HISTORY_HOURS).ok_or("expected a whole number of hours from 1 to 8760")
    })?;
    Ok(Retention { messages: messages as usize, age: Duration::from_secs(hours * 3600) })
}

/// The settings in effect as TOML, credentials hidden. What validation lets through is printable ASCII, for which
/// Rust's quoting and TOML's are the same.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node.id = {:?}", self.node)?;
        match &self.redis {
            Some(url) => writeln!(f, "redis.url = {url:?}")?,
            None => writeln!(f, "# redis.url is not set: this gateway runs alone, on memory")?,
        }
        writeln!(f, "redis.prefix = {:?}", self.prefix)?;
        writeln!(f, "listen.ws = \"{}\"", self.ws)?;
        writeln!(f, "listen.tcp = \"{}\"", self.tcp)?;
        writeln!(f, "admin.addr = \"{}\"", self.admin)?;
        writeln!(f, "history.max_messages = {}", self.history.messages)?;
        writeln!(f, "history.max_age_hours = {}", self.history.age.as_secs() / 3600)?;
        writeln!(f, "session.hold_seconds = {}", self.hold.as_secs())?;
        writeln!(f, "drain.grace_seconds = {}", self.grace.as_secs())?;
        writeln!(f, "log.level = {:?}", self.log)
    }
}

#[cfg(test)]
mod tests;
