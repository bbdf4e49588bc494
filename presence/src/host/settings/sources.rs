//! Sources of settings: file, environment, flags and secret files, each limited to the known keys.
//!
//! Only [`Settings`](super::Settings) uses them. Invariant: no error and no debug text contains a secret, or a line of
//! a file that may contain one. A source returns all of its errors and its valid values. Nothing here merges sources.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::config::{ConfigError, FileFormat, Source, Value, ValueKind};

use super::SettingsError;
use super::key::{Key, KeyKind, nearest};
use super::redis_url::redacted;
use super::tables;

/// Prefix of the environment variables of both programs. A single `_` would collide with the variables that
/// orchestrators set for a service named parley (`PARLEY_PORT`, `PARLEY_SERVICE_HOST`).
const PREFIX: &str = "PARLEY__";
/// Prefix of variables that may be meant as settings.
const SIMILAR_PREFIX: &str = "PARLEY_";
/// Variables of debug builds and of the tests, which are not settings.
const OTHER_VARIABLES: &[&str] =
    &["PARLEY_BIN_DIR", "PARLEY_FAILPOINT", "PARLEY_TEST_FEW_DESCRIPTORS", "PARLEY_WRITE_DOCS"];
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

/// A variable that looks like a setting and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredVariable {
    /// Its name.
    pub name: String,
    /// The variable of a setting that is similar enough to be meant.
    pub nearest: Option<String>,
}

impl fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "variable {} ignored", self.name)?;
        self.nearest.iter().try_for_each(|nearest| write!(f, ": the nearest setting is {nearest}"))
    }
}

/// A setting of a source: its key and its text, or the error.
type GivenSetting = Result<(String, String), SettingsError>;

impl Sources {
    /// Reads every source, the weakest first. Returns the name of each with its settings.
    pub(super) fn read(&self, keys: &[Key]) -> Vec<(String, Vec<GivenSetting>)> {
        let file = self.file.iter().map(|path| {
            let settings = file_settings(keys, path).unwrap_or_else(|error| vec![Err(error)]);
            (path.display().to_string(), settings)
        });
        let environment = ("the environment".to_owned(), environment_settings(keys, &self.environment));
        let flags = self.flags.iter().map(|flag| flag_setting(keys, flag)).collect();
        file.chain([environment, ("the flags".to_owned(), flags)]).collect()
    }

    /// Returns the variables that begin like settings and are ignored.
    #[must_use]
    pub fn ignored_variables(&self, keys: &[Key]) -> Vec<IgnoredVariable> {
        let given = self.environment.iter().map(|(name, _)| name.to_string_lossy().into_owned());
        let mut ignored: Vec<IgnoredVariable> = given
            .filter(|name| is_ignored(name))
            .map(|name| {
                // Sections are compared by their words: PARLEY_NODE_ID is PARLEY__NODE__ID with one underscore.
                let words =
                    |variable: &str| variable[SIMILAR_PREFIX.len()..].trim_start_matches('_').replace("__", "_");
                let known: Vec<String> = names(keys).map(|(name, _)| variable(&name)).collect();
                let known: Vec<(String, &String)> = known.iter().map(|variable| (words(variable), variable)).collect();
                let meant = nearest(&words(&name), known.iter().map(|(words, _)| words.as_str()));
                let nearest = known.iter().find(|(words, _)| Some(words.as_str()) == meant);
                IgnoredVariable { name, nearest: nearest.map(|(_, variable)| (*variable).clone()) }
            })
            .collect();
        ignored.sort_by(|one, other| one.name.cmp(&other.name));
        ignored
    }
}

/// Returns true for a variable that may be meant as a setting. Variables of an orchestrator, for a service whose name
/// begins with parley, and those of the tests are not.
fn is_ignored(name: &str) -> bool {
    let is_similar = name.starts_with(SIMILAR_PREFIX) && !name.starts_with(PREFIX);
    is_similar && !OTHER_VARIABLES.contains(&name) && !is_service_link(name)
}

/// Returns true for a variable that describes a service: `.._SERVICE_HOST`, `.._PORT_80_TCP_ADDR` and their like.
fn is_service_link(name: &str) -> bool {
    let is_port = |rest: &str| {
        let mut words = rest.split('_');
        words.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && words.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_PORT")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.match_indices("_PORT_").any(|(at, mark)| is_port(&name[at + mark.len()..]))
}

pub(super) fn invalid(keys: &[Key], name: &str, text: &str, reason: impl fmt::Display) -> SettingsError {
    let kind = keys.iter().find(|key| key.name == name).map(|key| key.kind);
    let value = match kind {
        Some(KeyKind::Secret) => redacted(text),
        Some(KeyKind::Tables) => tables::redacted(text),
        _ => text.to_owned(),
    };
    SettingsError::Invalid { key: name.to_owned(), value, reason: reason.to_string() }
}

/// Returns everything that can be set: the keys, and for secrets the names of their files.
fn names(keys: &[Key]) -> impl Iterator<Item = (String, KeyKind)> {
    keys.iter().flat_map(|key| {
        let file = key.file_name().map(|name| (name, KeyKind::Text));
        std::iter::once((key.name.to_owned(), key.kind)).chain(file)
    })
}

/// Returns the environment variable of a setting.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('.', "__"))
}

/// Returns the known setting that a name may mean.
fn nearest_setting(keys: &[Key], name: &str) -> Option<String> {
    let known: Vec<String> = names(keys).map(|(known, _)| known).collect();
    nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
}

fn unknown(keys: &[Key], name: String, place: String) -> SettingsError {
    let nearest = nearest_setting(keys, &name);
    SettingsError::Unknown { key: name, place, nearest }
}

/// Reads the settings file. The config crate would guess the format by the extension and return errors of many lines.
fn file_settings(keys: &[Key], path: &Path) -> Result<Vec<GivenSetting>, SettingsError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::File { file: file.clone(), reason: error.to_string() })?;
    let table = ::config::File::from_str(&text, FileFormat::Toml).collect();
    let table = table.map_err(|error| SettingsError::File { file: file.clone(), reason: one_line(&error) })?;
    let settings = leaves(ValueKind::Table(table)).into_iter().map(|(name, Leaf { text, tables, is_list })| {
        let Some((_, kind)) = names(keys).find(|(known, _)| *known == name) else {
            return Err(unknown(keys, name, file.clone()));
        };
        if kind == KeyKind::Tables {
            let json = tables.ok_or_else(|| invalid(keys, &name, "[..]", "expected tables between the brackets"))?;
            return Ok((name, json));
        }
        let Some(text) = text else {
            return Err(invalid(keys, &name, "[..]", "expected values, not lists or tables, between the brackets"));
        };
        if is_list && kind != KeyKind::List {
            return Err(invalid(keys, &name, "[..]", "expected one value, not a list"));
        }
        Ok((name, text))
    });
    let mut settings: Vec<GivenSetting> = settings.collect();
    // The table of the file has no order; reports have one.
    settings.sort_by_key(|setting| match setting {
        Ok((name, _)) => name.clone(),
        Err(error) => error.key().unwrap_or_default().to_owned(),
    });
    Ok(settings)
}

fn environment_settings(keys: &[Key], environment: &[(OsString, OsString)]) -> Vec<GivenSetting> {
    let settings = environment.iter().filter_map(|(given, value)| {
        let given = given.to_string_lossy().into_owned();
        let rest = given.strip_prefix(PREFIX)?;
        let Some((name, _)) = names(keys).find(|(name, _)| variable(name) == given) else {
            let nearest = nearest_setting(keys, &rest.replace("__", ".")).map(|name| variable(&name));
            return Some(Err(SettingsError::Unknown { key: given, place: "the environment".to_owned(), nearest }));
        };
        Some(match value.to_str() {
            Some(value) => Ok((name, value.to_owned())),
            None => Err(invalid(keys, &name, "..", "it is not UTF-8")),
        })
    });
    settings.collect()
}

/// Parses `KEY=VALUE`. Refuses secrets, because every user of the machine can read command lines.
fn flag_setting(keys: &[Key], flag: &str) -> GivenSetting {
    let (given, value) = flag.split_once('=').unwrap_or((flag, ""));
    let (given, value) = (given.trim().to_owned(), value.trim().to_owned());
    match names(keys).find(|(known, _)| *known == given) {
        None => Err(unknown(keys, given, "the flags".to_owned())),
        Some((_, KeyKind::Tables)) => {
            Err(invalid(keys, &given, "***", "a command line must not contain a secret: set it in a file"))
        }
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

/// A value of the file. The text of a list is its values joined with commas; a list of tables or lists has no text. A
/// list of tables, and an empty one, is also JSON.
struct Leaf {
    text: Option<String>,
    tables: Option<String>,
    is_list: bool,
}

/// Returns the values of a tree by dotted key. An empty section has none.
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
                let tables = tables::json(&values);
                all.push((key, Leaf { text: texts.map(|texts| texts.join(",")), tables, is_list: true }));
            }
            _ => all.push((key, Leaf { text: Some(kind.to_string()), tables: None, is_list: false })),
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
