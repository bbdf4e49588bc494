//! Where a program's settings come from: defaults in code, over them a TOML file, over that the environment.
//!
//! Both programs read theirs through [`Settings`] when they start, each with its own table of [`Key`]s, and turn them
//! into a validated `Config` in one function. A key that is in no table is an error wherever it was set, so a typing
//! error never passes for a default. Every error is one line that names key, value and reason.
//! Never repeats a password: a Redis URL is shown without its credentials.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ::config::{ConfigError, Environment, File, FileFormat, Source, Value, ValueKind};
use nix::unistd::gethostname;

use crate::telemetry;

/// What the environment variables of both programs begin with. A single `_` would collide with what orchestrators set
/// for a service named parley (`PARLEY_PORT`, `PARLEY_SERVICE_HOST`), so those are not ours and are ignored.
const PREFIX: &str = "PARLEY__";
/// Longest node id, in bytes.
const NODE_ID_BYTES: usize = 64;
/// Longest key prefix, in bytes.
const PREFIX_BYTES: usize = 64;
/// Longest grace period that can be asked for.
const MAX_GRACE: Duration = Duration::from_secs(3600);

/// A setting that a program knows: its dotted name, and what it is when nobody sets it.
pub type Key = (&'static str, Option<&'static str>);

/// Why a program does not start with these settings. Each is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there, cannot be read, or is not TOML.
    #[error("settings file {file}: {reason}")]
    File {
        /// Which file.
        file: String,
        /// Why.
        reason: String,
    },
    /// Somebody set a key that this program does not know.
    #[error("unknown key {key} in {place}")]
    Unknown {
        /// The dotted key, or the variable.
        key: String,
        /// The file, or the environment.
        place: String,
    },
    /// A key has a value that it cannot have.
    #[error("{key} = {value:?}: {reason}")]
    Invalid {
        /// The dotted key.
        key: String,
        /// The value as it was set, without secrets.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key without a default was not set.
    #[error("{key} is not set: {reason}")]
    Missing {
        /// The dotted key.
        key: &'static str,
        /// Why it has to be.
        reason: &'static str,
    },
}

/// A program's settings after all layers: the text of each key that has one.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl Settings {
    /// Reads all layers. `environment` is the whole environment; what does not begin with `PARLEY__` is skipped.
    ///
    /// An empty variable is a value like any other, and no key takes it: `PARLEY__REDIS__URL=$UNSET` must not quietly
    /// start a gateway that belongs to no cluster.
    ///
    /// # Errors
    /// The file cannot be used, or a source sets a key that is not in `keys`.
    pub fn load(
        keys: &[Key],
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let mut builder = ::config::Config::builder();
        for (key, default) in keys {
            if let Some(text) = default {
                builder = builder.set_default(*key, *text).expect("our own keys are paths");
            }
        }
        if let Some(path) = file {
            builder = builder.add_source(file_source(keys, path)?);
        }
        builder = builder.add_source(environment_source(keys, environment)?);
        let merged = builder.build().expect("every source was read before");
        let values = leaves(merged.cache.kind).into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Ok(Self { values })
    }

    /// The value of a key, parsed; `None` when it is not set and has no default.
    ///
    /// # Errors
    /// `Invalid` with what `parse` says about the value.
    pub fn optional<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(text) = self.values.get(key) else { return Ok(None) };
        match parse(text) {
            Ok(value) => Ok(Some(value)),
            Err(reason) => Err(invalid(key, text, reason)),
        }
    }

    /// The value of a key, parsed.
    ///
    /// # Errors
    /// `Invalid` with what `parse` says about the value, `Missing` without one.
    pub fn required<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SettingsError> {
        self.optional(key, parse)?.ok_or(SettingsError::Missing { key, reason: "it has no default" })
    }

    /// `node.id`: what was set, else the host's name and a random suffix.
    ///
    /// # Errors
    /// `Invalid` unless it is 1 to 64 of the characters A-Z a-z 0-9 `.` `_` `-`.
    pub fn node_id(&self) -> Result<String, SettingsError> {
        Ok(self.optional("node.id", parse_node_id)?.unwrap_or_else(random_node_id))
    }

    /// `redis.url`; `None` when it is not set.
    ///
    /// # Errors
    /// `Invalid` unless it is a `redis://` URL.
    pub fn redis_url(&self) -> Result<Option<RedisUrl>, SettingsError> {
        self.optional("redis.url", RedisUrl::from_str)
    }

    /// `redis.prefix`.
    ///
    /// # Errors
    /// `Invalid` when it is empty, longer than 64, holds braces (they would move the hash tag) or anything but
    /// printable ASCII.
    pub fn redis_prefix(&self) -> Result<String, SettingsError> {
        self.required("redis.prefix", |text| {
            let valid = (1..=PREFIX_BYTES).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{' && byte != b'}');
            valid
                .then(|| text.to_owned())
                .ok_or("expected 1 to 64 printable ASCII characters without spaces and braces")
        })
    }

    /// An address to listen on.
    ///
    /// # Errors
    /// `Invalid` unless it is `IP:PORT`.
    pub fn address(&self, key: &'static str) -> Result<SocketAddr, SettingsError> {
        self.required(key, |text| {
            SocketAddr::from_str(text).map_err(|_| "expected IP:PORT, such as 127.0.0.1:8080 or [::]:8080")
        })
    }

    /// `drain.grace_seconds`: how long a drain may take.
    ///
    /// # Errors
    /// `Invalid` unless it is a whole number from 0 to 3600.
    pub fn grace(&self) -> Result<Duration, SettingsError> {
        self.required("drain.grace_seconds", |text| {
            let grace = text.parse().ok().map(Duration::from_secs).filter(|grace| *grace <= MAX_GRACE);
            grace.ok_or("expected a whole number of seconds from 0 to 3600")
        })
    }

    /// `log.level`: a level, or directives such as `info,gateway=debug`.
    ///
    /// # Errors
    /// `Invalid` when it is neither.
    pub fn log_level(&self) -> Result<String, SettingsError> {
        self.required("log.level", |text| telemetry::filter(text).map(|_| text.to_owned()))
    }
}

fn invalid(key: &str, text: &str, reason: impl fmt::Display) -> SettingsError {
    let value = if key == "redis.url" { redacted(text) } else { text.to_owned() };
    SettingsError::Invalid { key: key.to_owned(), value, reason: reason.to_string() }
}

fn known(keys: &[Key], key: &str) -> bool {
    keys.iter().any(|(name, _)| *name == key)
}

/// Reads the file here rather than in the config crate, which guesses at extensions and answers with half a page.
fn file_source(keys: &[Key], path: &Path) -> Result<impl Source + Send + Sync + 'static + use<>, SettingsError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::File { file: file.clone(), reason: error.to_string() })?;
    let source = File::from_str(&text, FileFormat::Toml);
    let table =
        source.collect().map_err(|error| SettingsError::File { file: file.clone(), reason: one_line(&error) })?;
    for (key, value) in leaves(ValueKind::Table(table)) {
        if !known(keys, &key) {
            return Err(SettingsError::Unknown { key, place: file });
        }
        if value.is_none() {
            return Err(invalid(&key, "[..]", "expected one value, not a list"));
        }
    }
    Ok(source)
}

fn environment_source(
    keys: &[Key],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, SettingsError> {
    let variable = |key: &str| format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
    let known: HashMap<String, &str> = keys.iter().map(|(key, _)| (variable(key), *key)).collect();
    let mut ours = HashMap::new();
    for (name, value) in environment {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let Some(key) = known.get(&name) else {
            return Err(SettingsError::Unknown { key: name, place: "the environment".to_owned() });
        };
        let Ok(value) = value.into_string() else {
            return Err(invalid(key, "..", "it is not UTF-8"));
        };
        ours.insert(name, value);
    }
    Ok(Environment::with_prefix("PARLEY").separator("__").source(Some(ours)))
}

/// The values of a tree by dotted key; `None` for a list. An empty section has none.
fn leaves(kind: ValueKind) -> Vec<(String, Option<String>)> {
    let ValueKind::Table(table) = kind else { return Vec::new() };
    let mut all = Vec::new();
    for (key, Value { kind, .. }) in table {
        match kind {
            ValueKind::Table(_) => {
                all.extend(leaves(kind).into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
            }
            ValueKind::Array(_) => all.push((key, None)),
            _ => all.push((key, Some(kind.to_string()))),
        }
    }
    all
}

/// The first and the last line of a parse error: where and what, without the piece of the file between them, which may
/// hold a password.
fn one_line(error: &ConfigError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let place = lines.next().unwrap_or_default();
    lines.next_back().map_or_else(|| place.to_owned(), |reason| format!("{place}: {reason}"))
}

fn parse_node_id(text: &str) -> Result<String, &'static str> {
    let valid = (1..=NODE_ID_BYTES).contains(&text.len()) && text.bytes().all(in_node_id);
    valid.then(|| text.to_owned()).ok_or("expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
}

fn in_node_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// The host's name alone would make two processes on one host one node.
fn random_node_id() -> String {
    let suffix = format!("-{:08x}", rand::random::<u32>());
    let host = gethostname().unwrap_or_default();
    let host: String = host.to_string_lossy().chars().filter(|c| c.is_ascii() && in_node_id(*c as u8)).collect();
    let host = if host.is_empty() { "node" } else { &host[..host.len().min(NODE_ID_BYTES - suffix.len())] };
    format!("{host}{suffix}")
}

/// Where Redis is. Shown without its credentials; the whole URL is given out by name only.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The whole URL, credentials included: for connecting, never for showing.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" => {}
            "rediss" | "redis+sentinel" | "rediss+sentinel" | "redis-sentinel" | "redis+cluster" | "rediss+cluster"
            | "redis-cluster" | "redis+unix" | "unix" => {
                return Err(format!("{scheme}:// comes later: expected a plain redis://HOST:PORT"));
            }
            _ => return Err("expected redis://HOST:PORT".to_owned()),
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected printable ASCII without spaces; write anything else as %XX".to_owned());
        }
        crate::redis::check_url(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redacted(&self.0))
    }
}

/// Hides everything between scheme and last `@`, and a query. Works on text that is no URL: it hides more, never less.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.is_empty() { String::new() } else { "***".to_owned() };
    };
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    format!("{scheme}://{hidden}{rest}{query}")
}

#[cfg(test)]
mod tests;
