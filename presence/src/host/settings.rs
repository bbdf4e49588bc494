//! Settings of a program: defaults in code, overridden by a TOML file, by the environment and by flags, in this order.
//!
//! Both programs load [`Settings`] at the start and at every reload, each with its own table of [`Key`]s, and build a
//! validated `Config` from them in one function. Invariant: an unknown key is an error in every source, so a typing
//! error never passes for a default. [`Settings::read`] reports every error at once, each on one line with key, value
//! and reason. No secret is ever displayed.

mod address;
mod example;
pub mod key;
mod redis_url;
mod report;
mod retention;
mod sources;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::unistd::gethostname;

use crate::host::telemetry::{self, LogFormat, Logs};
use crate::store::redis::tls::{self, ClientFiles, TlsFiles};

pub use self::example::example;
pub use self::key::{Key, KeyKind};
pub use self::redis_url::RedisUrl;
pub use self::report::{SettingsError, SettingsReport};
pub use self::retention::retention_lines;
pub use self::sources::{IgnoredVariable, Sources};

use self::address::{excludes, parse_address};
use self::key::words;
use self::redis_url::redacted;
use self::sources::{invalid, read_secret};

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

/// Merged settings of a program: the text of each key that has a value.
#[derive(Clone)]
pub struct Settings {
    keys: &'static [Key],
    values: BTreeMap<String, String>,
    /// The source of each value that is not a default.
    places: BTreeMap<String, String>,
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
    pub fn load(keys: &'static [Key], sources: &Sources) -> Result<Self, SettingsReport> {
        let (settings, report) = Self::merge(keys, sources);
        if report.is_empty() { Ok(settings) } else { Err(report) }
    }

    /// Loads the settings and builds the program's configuration from them. `build` returns its first error: the key
    /// of that error is then set to a valid value, and `build` is called again, until every error is known.
    ///
    /// # Errors
    /// Every error of the sources, of the values, and of addresses that exclude each other.
    pub fn read<C>(
        keys: &'static [Key],
        sources: &Sources,
        build: impl Fn(&Self) -> Result<C, SettingsError>,
    ) -> Result<(Self, C), SettingsReport> {
        let (settings, mut report) = Self::merge(keys, sources);
        let has_file_error = report.errors().any(|error| error.key().is_none());
        let mut corrected = settings.clone();
        let mut attempts = BTreeMap::new();
        for key in report.errors().filter_map(SettingsError::key) {
            corrected.correct(key, &mut attempts);
        }
        let config = loop {
            let error = match build(&corrected) {
                Ok(config) => break Some(config),
                Err(error) => error,
            };
            let key = error.key().unwrap_or_default().to_owned();
            // A key that is missing may be in the file that cannot be read.
            let is_consequence = has_file_error && matches!(error, SettingsError::Missing { .. });
            if !attempts.contains_key(&key) && !is_consequence {
                report.add(error, settings.places.get(&key));
            }
            if !corrected.correct(&key, &mut attempts) {
                break None;
            }
        };
        for error in settings.excluded_addresses(|key| attempts.contains_key(key)) {
            let place = error.key().and_then(|key| settings.places.get(key));
            report.add(error, place);
        }
        match config {
            Some(config) if report.is_empty() => Ok((settings, config)),
            _ => Err(report),
        }
    }

    fn merge(keys: &'static [Key], sources: &Sources) -> (Self, SettingsReport) {
        let defaults = keys.iter().filter_map(|key| Some((key.name.to_owned(), key.default?.to_owned())));
        let mut settings = Self { keys, values: defaults.collect(), places: BTreeMap::new() };
        let mut report = SettingsReport::default();
        for (place, source) in sources.read(keys) {
            for given in source {
                match given {
                    Ok((name, value)) => {
                        settings.values.insert(name.clone(), value);
                        settings.places.insert(name, place.clone());
                    }
                    Err(error) => report.add(error, Some(&place)),
                }
            }
        }
        settings.read_secrets(&mut report);
        (settings, report)
    }

    /// Replaces the names of secret files by their contents.
    fn read_secrets(&mut self, report: &mut SettingsReport) {
        for key in self.keys {
            let Some(named) = key.file_name() else { continue };
            let Some(path) = self.values.remove(&named) else { continue };
            match read_secret(Path::new(&path)) {
                Ok(secret) => {
                    if self.values.insert(key.name.to_owned(), secret).is_some() {
                        report.add(SettingsError::Twice { key: key.name }, None);
                    }
                    self.places.insert(key.name.to_owned(), path);
                }
                Err(reason) => {
                    let place = self.places.get(&named);
                    report.add(SettingsError::Invalid { key: named, value: path, reason: reason.to_string() }, place);
                }
            }
        }
    }

    /// Sets an invalid key to its default or, if that is missing or invalid too, to its sample. Returns false if
    /// nothing is left to try.
    fn correct(&mut self, name: &str, attempts: &mut BTreeMap<String, usize>) -> bool {
        let attempt = attempts.entry(name.to_owned()).or_insert(0);
        *attempt += 1;
        let Some(key) = self.keys.iter().find(|key| key.name == name || key.file_name().as_deref() == Some(name))
        else {
            return false;
        };
        let value = match (key.default, *attempt) {
            (Some(default), 1) => Some(default),
            (None, 1) if key.name == name => None,
            (_, 1 | 2) => Some(key.sample),
            _ => return false,
        };
        match value {
            Some(value) => self.values.insert(key.name.to_owned(), value.to_owned()),
            None => self.values.remove(key.name),
        };
        true
    }

    /// Returns an error for each address that another one excludes. Invalid ones are left out.
    fn excluded_addresses(&self, is_invalid: impl Fn(&str) -> bool) -> Vec<SettingsError> {
        let keys = self.keys.iter().filter(|key| key.kind == KeyKind::Address && !is_invalid(key.name));
        let addresses: Vec<(&str, SocketAddr)> =
            keys.filter_map(|key| Some((key.name, self.address(key.name).ok()?))).collect();
        let excluded = addresses.iter().enumerate().filter_map(|(at, (name, address))| {
            let (first, _) = addresses[..at].iter().find(|(_, earlier)| excludes(*earlier, *address))?;
            Some(invalid(self.keys, name, &self.values[*name], format!("{first} has the same port")))
        });
        excluded.collect()
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

    /// Returns a short hash of the settings without secrets and without those that differ by node: `node.id`, addresses
    /// and `log.*`. Nodes of one version with equal settings have equal hashes, so operators can find a node with
    /// different settings.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for key in self.keys.iter().filter(|key| !key.is_per_node()) {
            (key.name, self.shown(key)).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    fn shown(&self, key: &Key) -> String {
        match (self.values.get(key.name), key.kind) {
            (None, _) => "unset".to_owned(),
            (Some(secret), KeyKind::Secret) => key.toml(&redacted(secret)),
            (Some(value), KeyKind::Tables) => key.toml(&tables::redacted(value)),
            (Some(value), _) => key.toml(value),
        }
    }

    /// Returns a list of tables in effect as TOML, without secrets.
    #[must_use]
    pub fn shown_tables(&self, key: &'static str) -> String {
        self.values.get(key).map_or_else(|| "[]".to_owned(), |value| tables::toml(&tables::redacted(value)))
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

    /// Returns a setting that is `true` or `false`.
    ///
    /// # Errors
    /// `Invalid` for any other text.
    pub fn flag(&self, key: &'static str) -> Result<bool, SettingsError> {
        self.required(key, |text| text.parse().map_err(|_| "expected true or false"))
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
    /// `Invalid` unless it is a `redis://` or `rediss://` URL.
    pub fn redis_url(&self) -> Result<Option<RedisUrl>, SettingsError> {
        self.optional("redis.url", RedisUrl::from_str)
    }

    /// Returns `redis.tls_*`, the files of TLS to the Redis of this URL.
    ///
    /// # Errors
    /// `Invalid` if a file cannot be used, or the URL is not that of TLS; `Missing` for a client certificate without a
    /// key.
    pub fn redis_tls(&self, url: Option<&RedisUrl>) -> Result<TlsFiles, SettingsError> {
        let certificates = |path: &str| tls::check_certificates(path).map(|()| path.to_owned());
        let ca = self.optional("redis.tls_ca", certificates)?;
        let cert = self.optional("redis.tls_cert", certificates)?;
        let key = self.optional("redis.tls_key", |key| {
            let pair = cert.as_ref().map(|cert| ClientFiles { cert: cert.clone(), key: key.to_owned() });
            pair.as_ref().map_or(Ok(()), ClientFiles::check).map(|()| key.to_owned())
        })?;
        let is_set = ca.is_some() || cert.is_some() || key.is_some();
        let missing = |key, reason| Err(SettingsError::Missing { key, reason });
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some(ClientFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => return missing("redis.tls_key", "redis.tls_cert needs it"),
            (None, Some(_)) => return missing("redis.tls_cert", "redis.tls_key needs it"),
        };
        self.optional("redis.url", |_| match url.map(RedisUrl::is_tls) {
            Some(false) if is_set => Err("redis.tls_* is set: expected rediss://HOST:PORT".to_owned()),
            Some(true) => tls::check_system_roots(),
            _ => Ok(()),
        })?;
        Ok(TlsFiles { ca, client })
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
    /// `Invalid` unless it is `IP:PORT`, or `NAME:PORT` with a name that can be resolved.
    pub fn address(&self, key: &'static str) -> Result<SocketAddr, SettingsError> {
        self.required(key, parse_address)
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
    /// `Invalid` if one of them is invalid. [`Settings::check_log_file`] checks the file itself.
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
        let addresses = self.flag("log.addresses")?;
        Ok(Logs { level, addresses, format, file, kept: kept as usize, size_mib, spans: None })
    }

    /// Checks that the log file can be written, without creating it.
    ///
    /// # Errors
    /// `Invalid` with the reason, such as a missing folder.
    pub fn check_log_file(&self) -> Result<(), SettingsError> {
        self.optional("log.file", |text| telemetry::check_file(Path::new(text))).map(|_| ())
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
