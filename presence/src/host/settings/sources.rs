//! Sources of settings: file, environment, flags and secret files, each limited to the known keys.
//!
//! Only [`Settings::load`](super::Settings::load) uses them. Invariant: no error and no debug text contains a secret,
//! or a line of a file that may contain one. Nothing here decides which source wins.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::config::{ConfigError, Environment, FileFormat, Source, Value, ValueKind};

use super::SettingsError;
use super::key::{Key, KeyKind, nearest};
use super::redis_url::redacted;

/// Prefix of the environment variables of both programs. A single `_` would collide with the variables that
/// orchestrators set for a service named parley (`PARLEY_PORT`, `PARLEY_SERVICE_HOST`); those are ignored.
const PREFIX: &str = "PARLEY__";
/// Maximum size of a secret file, in bytes.
const SECRET_BYTES: u64 = 64 * 1024;

/// Sources of settings in addition to the defaults; later fields override earlier ones.
#[derive(Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The whole environment; only variables that begin with `PARLEY__` are used.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE`, from the command line.
    pub flags: Vec<String>,
}

/// Hides the environment, because it may contain secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).field("flags", &self.flags).finish_non_exhaustive()
    }
}

pub(super) fn invalid(keys: &[Key], name: &str, text: &str, reason: impl fmt::Display) -> SettingsError {
    let is_secret = keys.iter().any(|key| key.name == name && key.kind == KeyKind::Secret);
    let value = if is_secret { redacted(text) } else { text.to_owned() };
    SettingsError::Invalid { key: name.to_owned(), value, reason: reason.to_string() }
}

/// Returns everything that can be set: the keys, and for secrets the names of their files.
fn names(keys: &[Key]) -> impl Iterator<Item = (String, KeyKind)> {
    keys.iter().flat_map(|key| {
        let file = key.file_name().map(|name| (name, KeyKind::Text));
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

/// Reads the settings file. The config crate would guess the format by the extension and return errors of many lines.
pub(super) fn file_source(
    keys: &[Key],
    path: &Path,
) -> Result<impl Source + Send + Sync + 'static + use<>, SettingsError> {
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
        if is_list && kind != KeyKind::List {
            return Err(one_value(keys, &name));
        }
    }
    Ok(source)
}

pub(super) fn environment_source(
    keys: &[Key],
    environment: &[(OsString, OsString)],
) -> Result<Environment, SettingsError> {
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

/// Parses `KEY=VALUE`. Refuses secrets, because every user of the machine can read command lines.
pub(super) fn flag_source(keys: &[Key], flag: &str) -> Result<(String, String), SettingsError> {
    let (given, value) = flag.split_once('=').unwrap_or((flag, ""));
    let (given, value) = (given.trim().to_owned(), value.trim().to_owned());
    match names(keys).find(|(known, _)| *known == given) {
        None => Err(unknown(keys, given, "the flags".to_owned())),
        Some((_, KeyKind::Secret)) => {
            let reason = format!("a command line must not contain a secret: set {given}_file to the name of its file");
            Err(invalid(keys, &given, "***", reason))
        }
        Some(_) => Ok((given, value)),
    }
}

/// Returns the content of a file without trailing line ends. An error never contains the content.
pub(super) fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut secret = String::new();
    let read = File::open(path)?.take(SECRET_BYTES + 1).read_to_string(&mut secret)?;
    if read as u64 > SECRET_BYTES {
        return Err(std::io::Error::other("the file is larger than 64 KiB"));
    }
    secret.truncate(secret.trim_end_matches(['\r', '\n']).len());
    Ok(secret)
}

/// A value of the file. The text of a list is its values joined with commas; a list of tables or lists has no text.
pub(super) struct Leaf {
    pub(super) text: Option<String>,
    is_list: bool,
}

/// Returns the values of a tree by dotted key. An empty section has none.
pub(super) fn leaves(kind: ValueKind) -> Vec<(String, Leaf)> {
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

/// Returns the first and the last line of a parse error: position and reason. The excerpt of the file between them is
/// left out, because it may contain a password.
fn one_line(error: &ConfigError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let place = lines.next().unwrap_or_default();
    lines.next_back().map_or_else(|| place.to_owned(), |reason| format!("{place}: {reason}"))
}
