//! Errors in the settings: [`SettingsError`] is one of them, [`SettingsReport`] has all that were found.
//!
//! Invariant: each error is one line, and no line contains a secret. Finds no errors itself.

use std::fmt;

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
    #[error("unknown key {key} in {place}: {}", hint(nearest.as_deref()))]
    Unknown {
        /// The dotted key, or the variable.
        key: String,
        /// The file, the environment, or the flags.
        place: String,
        /// A known key that is similar enough to be meant.
        nearest: Option<String>,
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

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("the nearest known one is {nearest}"),
        None => "the option --example lists the known ones".to_owned(),
    }
}

impl SettingsError {
    /// Returns the dotted key; `None` for an error of the whole file.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::File { .. } => None,
            Self::Unknown { key, .. } | Self::Invalid { key, .. } => Some(key),
            Self::Twice { key } | Self::Missing { key, .. } => Some(key),
        }
    }
}

/// Every error that was found in the settings, in the order of the checks. Displayed on one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsReport {
    errors: Vec<PlacedError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PlacedError {
    error: SettingsError,
    /// The source of an invalid value; other errors name theirs.
    place: Option<String>,
}

impl SettingsReport {
    pub(super) fn add(&mut self, error: SettingsError, place: Option<&String>) {
        let place = place.filter(|_| matches!(error, SettingsError::Invalid { .. })).cloned();
        self.errors.push(PlacedError { error, place });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn errors(&self) -> impl Iterator<Item = &SettingsError> {
        self.errors.iter().map(|placed| &placed.error)
    }

    /// Returns one line for each error.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.errors.iter().map(ToString::to_string)
    }
}

impl fmt::Display for PlacedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} (set in {place})", self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

impl fmt::Display for SettingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("; "))
    }
}

impl std::error::Error for SettingsReport {}
