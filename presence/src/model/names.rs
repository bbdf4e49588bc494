//! Names: [`Nick`] and [`RoomName`] with their keys, and the reason for a refused one.
//!
//! The listeners, the HTTP API and the stores parse names here. Invariant: a [`Nick`] or [`RoomName`] is valid, and its
//! key is safe inside any Redis key. Nothing here knows which names are in use.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::token::token;

/// Maximum length of a nickname, in grapheme clusters.
pub const NICK_GRAPHEMES: usize = 32;
/// Maximum length of a nickname, in bytes of UTF-8.
pub const NICK_BYTES: usize = 64;
/// Maximum length of a room name without its `#`, in grapheme clusters.
pub const ROOM_GRAPHEMES: usize = 63;
/// Maximum length of a room name with its `#`, in bytes of UTF-8.
pub const ROOM_BYTES: usize = 128;

/// Characters with a meaning in a protocol (rooms, IRC, masks, keys), which are forbidden in names.
const RESERVED: &str = "#&:@+%~!,*?.$\"/\\{}";

/// Zero width non-joiner and joiner: the only default-ignorable characters that the PRECIS class allows, in some
/// contexts. They are forbidden, because two names must not differ by invisible characters.
const JOINERS: &str = "\u{200C}\u{200D}";

/// Characters that a key keeps. All others are encoded as `%XX`, so a name never adds a separator or a hash tag to a
/// key.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Reason for a refused name. The text is safe to send to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An empty nickname, or a room with nothing after its `#`.
    #[error("the name is empty")]
    Empty,
    /// More graphemes or bytes than allowed.
    #[error("the name is too long")]
    TooLong,
    /// A room without `#`.
    #[error("a room name must begin with #")]
    NoHash,
    /// A forbidden character.
    #[error("the name contains a forbidden character")]
    Forbidden,
}

/// A nickname: displayed as typed, unique by its [`NickKey`], compared across scripts by its skeleton.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nick {
    display: Arc<str>,
    key: NickKey,
    skeleton: Arc<str>,
}

impl Nick {
    /// Validates a nickname as typed.
    ///
    /// The key is the case-mapped form of RFC 8265 section 3.3 (UsernameCaseMapped). The skeleton of UTS 39 section 4
    /// is computed from the key.
    ///
    /// # Errors
    /// [`NameError`] for the first broken rule.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mapped = case_map(text, NICK_GRAPHEMES, NICK_BYTES)?;
        let skeleton: String = unicode_security::skeleton(&mapped).collect();
        Ok(Self { display: text.into(), key: NickKey(encode(&mapped)), skeleton: encode(&skeleton) })
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

    /// Returns the encoded confusable skeleton. For comparison only, never for display.
    #[must_use]
    pub fn skeleton(&self) -> &str {
        &self.skeleton
    }

    /// Returns true for a name in ASCII. Two such names conflict by case only, never by their skeletons.
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
        let mapped = case_map(name, ROOM_GRAPHEMES, ROOM_BYTES - 1)?;
        Ok(Self { display: text.into(), key: RoomKey(encode(&mapped)) })
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

fn case_map(text: &str, graphemes: usize, bytes: usize) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > bytes || text.graphemes(true).count() > graphemes {
        return Err(NameError::TooLong);
    }
    // The profile refuses white space, controls, bidi controls, default-ignorables and unassigned code points. It also
    // refuses symbols (including emoji), compatibility forms other than wide and narrow ones, and violations of the
    // bidi rule of RFC 5893. "Unassigned" refers to Unicode 6.3, so a later table never changes a key.
    let folded: String = text.chars().map(fold).collect();
    let mapped = UsernameCaseMapped::enforce(folded).map_err(|_| NameError::Forbidden)?;
    // Checked after the mapping, which can turn a wide sign into a reserved one (U+FF03 into '#').
    if mapped.chars().any(|c| RESERVED.contains(c) || JOINERS.contains(c)) {
        return Err(NameError::Forbidden);
    }
    Ok(mapped.chars().map(fold).collect())
}

/// Folds the letters that the profile maps wrongly, as Unicode case folding does. Final sigma becomes sigma, so `ΝΊΚΟΣ`
/// equals `νίκος`. Cherokee becomes upper case, because its lower case is newer than the profile.
fn fold(c: char) -> char {
    match c {
        'ς' => 'σ',
        '\u{13F8}'..='\u{13FD}' | '\u{AB70}'..='\u{ABBF}' => c.to_uppercase().next().unwrap_or(c),
        _ => c,
    }
}

fn encode(mapped: &str) -> Arc<str> {
    utf8_percent_encode(mapped, PLAIN).to_string().into()
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
