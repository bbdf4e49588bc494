//! Names: [`Nick`] and [`RoomName`] with their keys, and the reason for a refused one.
//!
//! The listeners, the HTTP API and the stores parse names here. Invariant: a [`Nick`] or [`RoomName`] is valid, and its
//! key is safe inside any Redis key. Nothing here knows which names are in use.

mod error;
mod profile;
mod skeletons;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

pub use self::error::NameError;
pub use self::skeletons::{LookalikePolicy, NickSkeletons};

use self::profile::{SignRule, SignSet};
use super::token::token;

/// Maximum length of a nickname, in grapheme clusters.
pub const NICK_GRAPHEMES: usize = 48;
/// Maximum length of a nickname, in bytes of UTF-8.
pub const NICK_BYTES: usize = 128;
/// Maximum length of a room name without its `#`, in grapheme clusters.
pub const ROOM_GRAPHEMES: usize = 128;
/// Maximum length of a room name with its `#`, in bytes of UTF-8.
pub const ROOM_BYTES: usize = 255;
/// Maximum length of a [`NickKey`] or [`RoomKey`], in bytes. In lower case a name is at most half as long again, and an
/// encoded byte becomes three.
pub const KEY_BYTES: usize = ROOM_BYTES * 3 / 2 * 3;

/// Signs in nicknames, such that ids of applications fit. `@` is forbidden: an e-mail address identifies a person and
/// should not be shown to others. A leading `/` would look like a command, a leading `.` like a path.
const NICK_SIGNS: SignRule = SignRule { forbidden: SignSet::of(b"#&@%~!,*?$\"\\{}"), not_first: SignSet::of(b".+:/") };
/// Signs in rooms. A room begins with `#`, so the sign behind it may be any of them.
const ROOM_SIGNS: SignRule = SignRule { forbidden: SignSet::of(b"#&%~!,*?$\"\\{}"), not_first: SignSet::of(b"") };

/// Characters that a key keeps. All others are encoded as `%XX`, so a name never adds a separator or a hash tag to a
/// key.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A nickname: displayed as typed, unique by its [`NickKey`], compared with others by its skeletons.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nick {
    display: Arc<str>,
    key: NickKey,
    skeletons: NickSkeletons,
}

impl Nick {
    /// Validates a nickname as typed.
    ///
    /// The key is the case-mapped form of RFC 8265 section 3.3 (UsernameCaseMapped), without joiners.
    ///
    /// # Errors
    /// [`NameError`] for the first broken rule.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, NICK_GRAPHEMES, NICK_BYTES)?;
        let mapped = profile::case_map(text, NICK_SIGNS)?;
        let skeletons = NickSkeletons::new(text, &mapped);
        Ok(Self { display: text.into(), key: NickKey(encode(&mapped)), skeletons })
    }

    /// Returns the nickname for display.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.display
    }

    /// Returns the form that is unique in the cluster.
    #[must_use]
    pub fn key(&self) -> &NickKey {
        &self.key
    }

    /// Returns the encoded confusable skeletons. For comparison only, never for display.
    #[must_use]
    pub fn skeletons(&self) -> &NickSkeletons {
        &self.skeletons
    }

    /// Returns true for a name in ASCII. [`LookalikePolicy`] decides whether two such names conflict by skeleton.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.display.is_ascii()
    }
}

impl fmt::Display for Nick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// A room: `#` and a name, displayed as first typed, one room per case-mapped key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoomName {
    display: Arc<str>,
    key: RoomKey,
}

impl RoomName {
    /// Validates a room name with its `#`.
    ///
    /// # Errors
    /// [`NameError`] for the first broken rule.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('#').ok_or(if text.is_empty() { NameError::Empty } else { NameError::NoHash })?;
        check_length(name, ROOM_GRAPHEMES, ROOM_BYTES - 1)?;
        let mapped = profile::case_map(name, ROOM_SIGNS)?;
        Ok(Self { display: text.into(), key: RoomKey(encode(&mapped)) })
    }

    /// Reads a room of the store: its shown name, or `#` and its key if only that is left. A shown name contains no
    /// `%`. Returns `None` if the name is not valid, such as a key that case mapping made longer than a name.
    #[must_use]
    pub fn from_store(text: &str) -> Option<Self> {
        Self::parse(&percent_decode_str(text).decode_utf8().ok()?).ok()
    }

    /// Returns the room name for display, with its `#`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.display
    }

    /// Returns the form that is unique in the cluster.
    #[must_use]
    pub fn key(&self) -> &RoomKey {
        &self.key
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

fn check_length(text: &str, graphemes: usize, bytes: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    // A text has at least one byte for each grapheme.
    let is_too_long = text.len() > bytes || text.len() > graphemes && text.graphemes(true).count() > graphemes;
    if is_too_long { Err(NameError::TooLong) } else { Ok(()) }
}

fn encode(mapped: &str) -> Arc<str> {
    // Most names need no escapes.
    Cow::from(utf8_percent_encode(mapped, PLAIN)).into()
}

token!(
    /// Unique, encoded form of a nickname: ASCII letters, digits, `-`, `_` and `%XX`.
    NickKey
);
token!(
    /// Unique, encoded form of a room name, without its `#`.
    RoomKey
);

#[cfg(test)]
mod tests;
