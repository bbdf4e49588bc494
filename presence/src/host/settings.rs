//! Where a program's settings come from: defaults in code, over them a TOML file, over that the environment, over all
//! the flags.
//!
//! Both programs read theirs through [`Settings`], when they start and at every reload, each with its own table of
//! [`Key`]s, and turn them into a validated `Config` in one function. A key that is in no table is an error wherever it was
//! set, so a typing error never passes for a default. Every error is one line that names key, value and reason.
//! Never repeats a password: a Redis URL is shown without its credentials.

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
pub use self::key::{Key, Kind};
pub use self::redis_url::RedisUrl;
pub use self::sources::Sources;

use self::key::words;
use self::redis_url::redacted;
use self::sources::{environment_source, file_source, flag_source, invalid, leaves, read_secret};

/// Longest node id, in bytes.
const NODE_ID_BYTES: usize = 64;
/// Longest key prefix, in bytes.
const PREFIX_BYTES: usize = 64;
/// Longest grace period that can be asked for.
const MAX_GRACE: Duration = Duration::from_secs(3600);
/// Most files of logs that are kept.
const MAX_LOG_FILES: u64 = 1000;
/// Largest file of logs, in MiB.
const MAX_LOG_MIB: u64 = 65536;

/// Why a program does not start with these settings, or does not take them over. Each is one line.
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
    #[error("unknown key {key} in {place}: the nearest known one is {nearest}")]
    Unknown {
        /// The dotted key, or the variable.
        key: String,
        /// The file, the environment, or the flags.
        place: String,
        /// What may have been meant.
        nearest: String,
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
    /// A secret was given both itself and by the name of its file.
    #[error("{key} and {key}_file are both set: give one of them")]
    Twice {
        /// The dotted key.
        key: &'static str,
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
#[derive(Clone)]
pub struct Settings {
    keys: &'static [Key],
    values: BTreeMap<String, String>,
}

/// Never shows a value: it may be a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// A setting that is another one in other settings. Shown without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
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
    /// Reads all layers.
    ///
    /// An empty variable is a value like any other, and hardly a key takes it: `PARLEY__REDIS__URL=$UNSET` must not
    /// quietly start a gateway that belongs to no cluster.
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

    /// Puts the content of the files that hold secrets into the place of their names.
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

    /// What is another value in `new`, in the order of the table.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let changed = self.keys.iter().filter(|key| self.values.get(key.name) != new.values.get(key.name));
        changed.map(|key| Change { key, from: self.shown(key), to: new.shown(key) }).collect()
    }

    /// Takes these values over from `new`.
    pub fn take_over<'a>(&mut self, new: &Self, changes: impl IntoIterator<Item = &'a Change>) {
        for Change { key, .. } in changes {
            match new.values.get(key.name) {
                Some(value) => self.values.insert(key.name.to_owned(), value.clone()),
                None => self.values.remove(key.name),
            };
        }
    }

    /// Short text that is the same for the same settings of the same version, but for `node.id` and secrets: tells
    /// members of a cluster apart that should have been given the same.
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
            (Some(secret), Kind::Secret) => key.toml(&redacted(secret)),
            (Some(value), _) => key.toml(value),
        }
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
            Err(reason) => Err(invalid(self.keys, key, text, reason)),
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

    /// The words of a list, each parsed; none when it is not set.
    ///
    /// # Errors
    /// `Invalid` with what `parse` says about a word.
    pub fn list<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, SettingsError> {
        Ok(self.optional(key, |text| words(text).map(parse).collect())?.unwrap_or_default())
    }

    /// A whole number within bounds. `expected` says so in words.
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

    /// `log.*`.
    ///
    /// # Errors
    /// `Invalid` when one of them is not what it should be. That the file can be written is not looked at.
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

/// The host's name alone would make two processes on one host one node.
fn random_node_id() -> String {
    let suffix = format!("-{:08x}", rand::random::<u32>());
    let host = gethostname().unwrap_or_default();
    let host: String = host.to_string_lossy().chars().filter(|c| c.is_ascii() && in_node_id(*c as u8)).collect();
    let host = if host.is_empty() { "node" } else { &host[..host.len().min(NODE_ID_BYTES - suffix.len())] };
    format!("{host}{suffix}")
}

#[cfg(test)]
mod tests;
