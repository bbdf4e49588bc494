//! Settings of a program: defaults in code, overridden by a TOML file, by the environment and by flags, in this order.
//!
//! Both programs load [`Settings`] at the start and at every reload, each with its own table of [`Key`]s, and build a
//! validated `Config` from them in one function. Invariant: an unknown key is an error in every source, so a typing
//! error never passes for a default. Every error is one line with key, value and reason. No secret is ever displayed.

mod example;
pub mod key;
mod redis_url;
mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::unistd::gethostname;

use crate::host::telemetry::{self, LogFormat, Logs};

pub use self::example::example;
pub use self::key::{Key, KeyKind};
pub use self::redis_url::RedisUrl;
pub use self::sources::Sources;

use self::key::words;
use self::redis_url::redacted;
use self::sources::{environment_source, file_source, flag_source, invalid, leaves, read_secret};

/// Maximum length of a node id, in bytes.
const NODE_ID_BYTES: usize = 64;
/// Maximum length of a key prefix, in bytes.
const PREFIX_BYTES: usize = 64;
/// Maximum grace period.
const MAX_GRACE: Duration = Duration::from_secs(3600);
/// Maximum number of log files.
const MAX_LOG_FILES: u64 = 1000;
/// Maximum size of a log file, in MiB.
const MAX_LOG_MIB: u64 = 65536;

/// Error in the settings. Its text is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file is missing, cannot be read, or is not TOML.
    #[error("settings file {file}: {reason}")]
    File {
        /// Path of the file.
        file: String,
        /// Reason of the failure.
        reason: String,
    },
    /// A source sets a key that this program does not know.
    #[error("unknown key {key} in {place}: the nearest known one is {nearest}")]
    Unknown {
        /// The dotted key, or the variable.
        key: String,
        /// The file, the environment, or the flags.
        place: String,
        /// The most similar known key.
        nearest: String,
    },
    /// A key has an invalid value.
    #[error("{key} = {value:?}: {reason}")]
    Invalid {
        /// The dotted key.
        key: String,
        /// The value as set, without secrets.
        value: String,
        /// Reason of the refusal.
        reason: String,
    },
    /// A secret was set both directly and by the name of its file.
    #[error("{key} and {key}_file are both set: set only one of them")]
    Twice {
        /// The dotted key.
        key: &'static str,
    },
    /// A key without a default was not set.
    #[error("{key} is not set: {reason}")]
    Missing {
        /// The dotted key.
        key: &'static str,
        /// Reason why it is required.
        reason: &'static str,
    },
}

/// Merged settings of a program: the text of each key that has a value.
#[derive(Clone)]
pub struct Settings {
    keys: &'static [Key],
    values: BTreeMap<String, String>,
}

/// Shows no values, because they may be secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// A setting whose value changed. Displayed without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The changed setting.
    pub key: &'static Key,
    from: String,
    to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} -> {}", self.key.name, self.from, self.to)
    }
}

impl Settings {
    /// Loads and merges all sources.
    ///
    /// An empty variable counts as a value, which almost every key refuses: `PARLEY__REDIS__URL=$UNSET` must not
    /// silently start a gateway without a cluster.
    ///
    /// # Errors
    /// A file cannot be used, or a source sets a key that is not in `keys`.
    pub fn load(keys: &'static [Key], sources: &Sources) -> Result<Self, SettingsError> {
        let mut builder = ::config::Config::builder();
        for Key { name, default, .. } in keys {
            if let Some(text) = default {
                builder = builder.set_default(*name, *text).expect("our own keys are paths");
            }
        }
        if let Some(path) = &sources.file {
            builder = builder.add_source(file_source(keys, path)?);
        }
        builder = builder.add_source(environment_source(keys, &sources.environment)?);
        for flag in &sources.flags {
            let (name, value) = flag_source(keys, flag)?;
            builder = builder.set_override(name, value).expect("our own keys are paths");
        }
        let merged = builder.build().expect("every source was read before");
        let values = leaves(merged.cache.kind).into_iter().filter_map(|(key, value)| Some((key, value.text?)));
        let mut settings = Self { keys, values: values.collect() };
        settings.read_secrets()?;
        Ok(settings)
    }

    /// Replaces the names of secret files by their contents.
    fn read_secrets(&mut self) -> Result<(), SettingsError> {
        for key in self.keys {
            let Some(named) = key.file_name() else { continue };
            let Some(path) = self.values.remove(&named) else { continue };
            let secret = read_secret(Path::new(&path));
            let secret = secret.map_err(|reason| SettingsError::Invalid {
                key: named,
                value: path,
                reason: reason.to_string(),
            })?;
            if self.values.insert(key.name.to_owned(), secret).is_some() {
                return Err(SettingsError::Twice { key: key.name });
            }
        }
        Ok(())
    }

    /// Returns the settings that differ in `new`, in the order of the table.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let changed = self.keys.iter().filter(|key| self.values.get(key.name) != new.values.get(key.name));
        changed.map(|key| Change { key, from: self.shown(key), to: new.shown(key) }).collect()
    }

    /// Copies the values of these changes from `new`.
    pub fn apply<'a>(&mut self, new: &Self, changes: impl IntoIterator<Item = &'a Change>) {
        for Change { key, .. } in changes {
            match new.values.get(key.name) {
                Some(value) => self.values.insert(key.name.to_owned(), value.clone()),
                None => self.values.remove(key.name),
            };
        }
    }

    /// Returns a short hash of the settings without `node.id` and secrets. Nodes of one version with equal settings
    /// have equal hashes, so operators can find a node with different settings.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for key in self.keys.iter().filter(|key| key.name != key::NODE_ID.name) {
            (key.name, self.shown(key)).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    fn shown(&self, key: &Key) -> String {
        match (self.values.get(key.name), key.kind) {
            (None, _) => "unset".to_owned(),
            (Some(secret), KeyKind::Secret) => key.toml(&redacted(secret)),
            (Some(value), _) => key.toml(value),
        }
    }

    /// Returns the parsed value of a key; `None` if it is not set and has no default.
    ///
    /// # Errors
    /// `Invalid` with the error of `parse`.
    pub fn optional<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(text) = self.values.get(key) else { return Ok(None) };
        match parse(text) {
            Ok(value) => Ok(Some(value)),
            Err(reason) => Err(invalid(self.keys, key, text, reason)),
        }
    }

    /// Returns the parsed value of a key.
    ///
    /// # Errors
    /// `Invalid` with the error of `parse`, `Missing` without a value.
    pub fn required<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SettingsError> {
        self.optional(key, parse)?.ok_or(SettingsError::Missing { key, reason: "it has no default" })
    }

    /// Returns the parsed words of a list; none if it is not set.
    ///
    /// # Errors
    /// `Invalid` with the error of `parse` for a word.
    pub fn list<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, SettingsError> {
        Ok(self.optional(key, |text| words(text).map(parse).collect())?.unwrap_or_default())
    }

    /// Returns a whole number within bounds. `expected` is the text of the error.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn number(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<u64, SettingsError> {
        self.required(key, |text| text.parse().ok().filter(|number| bounds.contains(number)).ok_or(expected))
    }

    /// Returns `node.id`; if it is not set, the name of the host with a random suffix.
    ///
    /// # Errors
    /// `Invalid` unless it is 1 to 64 of the characters A-Z a-z 0-9 `.` `_` `-`.
    pub fn node_id(&self) -> Result<String, SettingsError> {
        Ok(self.optional("node.id", parse_node_id)?.unwrap_or_else(random_node_id))
    }

    /// Returns `redis.url`; `None` if it is not set.
    ///
    /// # Errors
    /// `Invalid` unless it is a `redis://` URL.
    pub fn redis_url(&self) -> Result<Option<RedisUrl>, SettingsError> {
        self.optional("redis.url", RedisUrl::from_str)
    }

    /// Returns `redis.prefix`.
    ///
    /// # Errors
    /// `Invalid` unless it is 1 to 64 characters of printable ASCII without braces, which would move the hash tag.
    pub fn redis_prefix(&self) -> Result<String, SettingsError> {
        self.required("redis.prefix", |text| {
            let valid = (1..=PREFIX_BYTES).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{' && byte != b'}');
            valid
                .then(|| text.to_owned())
                .ok_or("expected 1 to 64 printable ASCII characters without spaces and braces")
        })
    }

    /// Returns an address to listen on.
    ///
    /// # Errors
    /// `Invalid` unless it is `IP:PORT`.
    pub fn address(&self, key: &'static str) -> Result<SocketAddr, SettingsError> {
        self.required(key, |text| {
            SocketAddr::from_str(text).map_err(|_| "expected IP:PORT, such as 127.0.0.1:8080 or [::]:8080")
        })
    }

    /// Returns `drain.grace_seconds`, the maximum duration of a drain.
    ///
    /// # Errors
    /// `Invalid` unless it is a whole number from 0 to 3600.
    pub fn grace(&self) -> Result<Duration, SettingsError> {
        self.required("drain.grace_seconds", |text| {
            let grace = text.parse().ok().map(Duration::from_secs).filter(|grace| *grace <= MAX_GRACE);
            grace.ok_or("expected a whole number of seconds from 0 to 3600")
        })
    }

    /// Returns the settings `log.*`.
    ///
    /// # Errors
    /// `Invalid` if one of them is invalid. It does not check that the file can be written.
    pub fn logs(&self) -> Result<Logs, SettingsError> {
        let level = self.required("log.level", |text| telemetry::filter(text).map(|_| text.to_owned()))?;
        let format = self.required("log.format", LogFormat::from_str)?;
        let file = self.optional("log.file", |text| {
            let path = PathBuf::from(text);
            path.file_name().is_some().then_some(path).ok_or("expected the path of a file")
        })?;
        let kept = self.number("log.files", 1..=MAX_LOG_FILES, "expected a whole number from 1 to 1000")?;
        let size_mib =
            self.number("log.file_mib", 1..=MAX_LOG_MIB, "expected a whole number of MiB from 1 to 65536")?;
        Ok(Logs { level, format, file, kept: kept as usize, size_mib, spans: None })
    }
}

fn parse_node_id(text: &str) -> Result<String, &'static str> {
    let valid = (1..=NODE_ID_BYTES).contains(&text.len()) && text.bytes().all(in_node_id);
    valid.then(|| text.to_owned()).ok_or("expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")
}

fn in_node_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Returns the name of the host with a random suffix, so two processes on one host differ.
fn random_node_id() -> String {
    let suffix = format!("-{:08x}", rand::random::<u32>());
    let host = gethostname().unwrap_or_default();
    let host: String = host.to_string_lossy().chars().filter(|c| c.is_ascii() && in_node_id(*c as u8)).collect();
    let host = if host.is_empty() { "node" } else { &host[..host.len().min(NODE_ID_BYTES - suffix.len())] };
    format!("{host}{suffix}")
}

#[cfg(test)]
mod tests;
