//! [`UserId`]: the id of a user in the application that issues tokens, apart from the nickname that others see.
//!
//! It comes from the `sub` claim of a verified token. Invariant: 1 to [`USER_ID_BYTES`] bytes of printable text. It is
//! compared byte for byte, without a case mapping.

use std::fmt::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::token::token;

/// Maximum length of a user id, in bytes of UTF-8.
pub const USER_ID_BYTES: usize = 255;

token!(
    /// The key of a user: its id, with every byte but ASCII letters, digits, `.`, `_` and `-` as `%XX`.
    UserKey
);

/// A user id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Returns the user id; `None` unless it is 1 to 255 bytes of printable text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_printable_text(text, USER_ID_BYTES).then(|| Self(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key. The twin is `user_nicks` in `registry/names/user_nicks.lua`.
    #[must_use]
    pub fn key(&self) -> UserKey {
        let mut key = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                key.push(byte.into());
            } else {
                let _ = write!(key, "%{byte:02X}");
            }
        }
        UserKey::from_store(&key)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns true for 1 to `bytes` bytes of printable text.
#[must_use]
pub fn is_printable_text(text: &str, bytes: usize) -> bool {
    (1..=bytes).contains(&text.len()) && text.chars().all(is_printable)
}

/// Returns false for characters that break a line or that a reader cannot see: the default-ignorable ones of Unicode,
/// line separators and annotations. Variation selectors (U+FE00 to U+FE0F, and the Mongolian ones) only choose the form
/// of the character before them, as in most emoji, and stay.
pub(super) fn is_printable(c: char) -> bool {
    let is_invisible = matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}');
    !c.is_control() && !is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_id_accepts_ids_of_applications() {
        for id in [
            "1",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "550e8400-e29b-41d4-a716-446655440000",
            "john.doe@example.org",
            "user:123",
            "Jürgen Müller",
            "张伟",
            "../../etc/passwd",
            &"x".repeat(USER_ID_BYTES),
        ] {
            assert_eq!(UserId::parse(id).as_ref().map(UserId::as_str), Some(id));
        }
    }

    #[test]
    fn user_key_encodes_all_other_bytes() {
        for (id, key) in
            [("a.b_c-9", "a.b_c-9"), ("auth0|5f%", "auth0%7C5f%25"), ("a b:{0}/é", "a%20b%3A%7B0%7D%2F%C3%A9")]
        {
            assert_eq!(UserId::parse(id).map(|id| id.key()), Some(UserKey::from_store(key)));
        }
    }

    #[test]
    fn user_id_refuses_text_without_print() {
        let long = "é".repeat(USER_ID_BYTES / 2 + 1);
        for id in ["", "a\nb", "a\0", "\u{7F}", "\u{85}", "a\u{200B}", "\u{202E}a", "\u{2028}", "\u{FEFF}", &long] {
            assert_eq!(UserId::parse(id), None, "{id:?}");
        }
    }
}
