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

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ::config::{ConfigError, Environment, FileFormat, Source, Value, ValueKind};
use nix::unistd::gethostname;

use crate::telemetry::{self, Format, Logs};

pub use self::example::example;
pub use self::key::{Key, Kind};
pub use self::redis_url::RedisUrl;

use self::key::{nearest, words};
use self::redis_url::redacted;

/// What the environment variables of both programs begin with. A single `_` would collide with what orchestrators set
/// for a service named parley (`PARLEY_PORT`, `PARLEY_SERVICE_HOST`), so those are not ours and are ignored.
const PREFIX: &str = "PARLEY__";
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
/// Most bytes of a file with a secret: beyond them it is not one.
const SECRET_BYTES: u64 = 64 * 1024;

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

/// Where settings are read, beside the defaults: the later over the earlier.
#[derive(Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The whole environment; what does not begin with `PARLEY__` is skipped.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE`, from the command line.
    pub flags: Vec<String>,
}

/// Never shows the environment: it may hold secrets, of ours and of others.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).field("flags", &self.flags).finish_non_exhaustive()
    }
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
        let format = self.required("log.format", Format::from_str)?;
        let file = self.optional("log.file", |text| {
            let path = PathBuf::from(text);
            path.file_name().is_some().then_some(path).ok_or("expected the path of a file")
        })?;
        let kept = self.number("log.files", 1..=MAX_LOG_FILES, "expected a whole number from 1 to 1000")?;
        let size_mib =
            self.number("log.file_mib", 1..=MAX_LOG_MIB, "expected a whole number of MiB from 1 to 65536")?;
        Ok(Logs { level, format, file, kept: kept as usize, size_mib })
    }
}

fn invalid(keys: &[Key], name: &str, text: &str, reason: impl fmt::Display) -> SettingsError {
    let is_secret = keys.iter().any(|key| key.name == name && key.kind == Kind::Secret);
    let value = if is_secret { redacted(text) } else { text.to_owned() };
    SettingsError::Invalid { key: name.to_owned(), value, reason: reason.to_string() }
}

/// What can be set: the keys, and for secrets the names of their files.
fn names(keys: &[Key]) -> impl Iterator<Item = (String, Kind)> {
    keys.iter().flat_map(|key| {
        let file = key.file_name().map(|name| (name, Kind::Text));
        std::iter::once((key.name.to_owned(), key.kind)).chain(file)
    })
}

fn unknown(keys: &[Key], name: String, place: String) -> SettingsError {
    let known: Vec<String> = names(keys).map(|(known, _)| known).collect();
    let nearest = nearest(&name, known.iter().map(String::as_str)).unwrap_or_default().to_owned();
    SettingsError::Unknown { key: name, place, nearest }
}

fn one_value(keys: &[Key], name: &str) -> SettingsError {
    invalid(keys, name, "[..]", "expected one value, not a list")
}

/// Reads the file here rather than in the config crate, which guesses at extensions and answers with half a page.
fn file_source(keys: &[Key], path: &Path) -> Result<impl Source + Send + Sync + 'static + use<>, SettingsError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::File { file: file.clone(), reason: error.to_string() })?;
    let source = ::config::File::from_str(&text, FileFormat::Toml);
    let table =
        source.collect().map_err(|error| SettingsError::File { file: file.clone(), reason: one_line(&error) })?;
    for (name, Leaf { text, is_list }) in leaves(ValueKind::Table(table)) {
        let Some((_, kind)) = names(keys).find(|(known, _)| *known == name) else {
            return Err(unknown(keys, name, file));
        };
        if text.is_none() {
            return Err(invalid(keys, &name, "[..]", "expected values, not lists or tables, between the brackets"));
        }
        if is_list && kind != Kind::List {
            return Err(one_value(keys, &name));
        }
    }
    Ok(source)
}

fn environment_source(keys: &[Key], environment: &[(OsString, OsString)]) -> Result<Environment, SettingsError> {
    let variable = |name: &str| format!("{PREFIX}{}", name.to_uppercase().replace('.', "__"));
    let mut ours = ::config::Map::new();
    for (given, value) in environment {
        let given = given.to_string_lossy().into_owned();
        let Some(rest) = given.strip_prefix(PREFIX) else { continue };
        let Some((name, _)) = names(keys).find(|(name, _)| variable(name) == given) else {
            let known: Vec<String> = names(keys).map(|(name, _)| name).collect();
            let nearest = nearest(&rest.replace("__", "."), known.iter().map(String::as_str)).unwrap_or_default();
            let nearest = variable(nearest);
            return Err(SettingsError::Unknown { key: given, place: "the environment".to_owned(), nearest });
        };
        let Some(value) = value.to_str() else {
            return Err(invalid(keys, &name, "..", "it is not UTF-8"));
        };
        ours.insert(given, value.to_owned());
    }
    Ok(Environment::with_prefix("PARLEY").separator("__").source(Some(ours)))
}

/// Everybody on the machine reads command lines, so no secret comes from one.
fn flag_source(keys: &[Key], flag: &str) -> Result<(String, String), SettingsError> {
    let (given, value) = flag.split_once('=').unwrap_or((flag, ""));
    let (given, value) = (given.trim().to_owned(), value.trim().to_owned());
    match names(keys).find(|(known, _)| *known == given) {
        None => Err(unknown(keys, given, "the flags".to_owned())),
        Some((_, Kind::Secret)) => {
            let reason = format!("a command line is no place for a secret: set {given}_file to the name of its file");
            Err(invalid(keys, &given, "***", reason))
        }
        Some(_) => Ok((given, value)),
    }
}

/// The content of a file, without the ends of lines behind it. An error says nothing of the content.
fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut secret = String::new();
    let read = File::open(path)?.take(SECRET_BYTES + 1).read_to_string(&mut secret)?;
    if read as u64 > SECRET_BYTES {
        return Err(std::io::Error::other("the file is larger than a secret would be"));
    }
    secret.truncate(secret.trim_end_matches(['\r', '\n']).len());
    Ok(secret)
}

/// A value of the file. A list is the text of its values with commas between them; a list of anything else has none.
struct Leaf {
    text: Option<String>,
    is_list: bool,
}

/// The values of a tree by dotted key. An empty section has none.
fn leaves(kind: ValueKind) -> Vec<(String, Leaf)> {
    let ValueKind::Table(table) = kind else { return Vec::new() };
    let mut all = Vec::new();
    for (key, Value { kind, .. }) in table {
        match kind {
            ValueKind::Table(_) => {
                all.extend(leaves(kind).into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
            }
            ValueKind::Array(values) => {
                let is_plain = |value: &Value| !matches!(value.kind, ValueKind::Table(_) | ValueKind::Array(_));
                let texts: Option<Vec<String>> =
                    values.iter().map(|value| is_plain(value).then(|| value.kind.to_string())).collect();
                all.push((key, Leaf { text: texts.map(|texts| texts.join(",")), is_list: true }));
            }
            _ => all.push((key, Leaf { text: Some(kind.to_string()), is_list: false })),
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

#[cfg(test)]
mod tests;
