//! [`RoomPattern`]: a set of rooms, written as a room name in which `*` stands for any text.
//!
//! Tokens name the rooms of a user with patterns. A pattern is compared with the case-mapped name of a room, so
//! `#Team-*` and `#team-*` are the same. Invariant: a pattern that no room name can match is refused.

use percent_encoding::percent_decode_str;

use super::names::{NameError, RoomKey, RoomName};

/// Maximum length of a pattern, in bytes.
const PATTERN_BYTES: usize = 255;

/// A set of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPattern {
    /// The case-mapped parts around each `*`.
    parts: Box<[Box<str>]>,
}

impl RoomPattern {
    /// Parses a pattern such as `#team-*`.
    ///
    /// # Errors
    /// [`NameError`] if no room name can match it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('#').ok_or(NameError::NoHash)?;
        if name.len() >= PATTERN_BYTES {
            return Err(NameError::TooLong);
        }
        let fold = |part: &str| match part {
            "" => Ok(Box::default()),
            part => RoomName::parse(&format!("#{part}")).map(|room| mapped(room.key()).into()),
        };
        Ok(Self { parts: name.split('*').map(fold).collect::<Result<_, _>>()? })
    }

    /// Returns true for the set of all rooms.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.parts.len() > 1 && self.parts.iter().all(|part| part.is_empty())
    }

    /// Returns text that the keys of all rooms of the set begin with, for a coarse selection.
    #[must_use]
    pub fn key_beginning(&self) -> String {
        let first = self.parts.first().filter(|part| !part.is_empty());
        let room = first.and_then(|part| RoomName::parse(&format!("#{part}")).ok());
        room.map(|room| room.key().as_str().to_owned()).unwrap_or_default()
    }

    /// Returns true if the room is in the set.
    #[must_use]
    pub fn matches(&self, room: &RoomKey) -> bool {
        let name = mapped(room);
        let Some((last, parts)) = self.parts.split_last() else { return false };
        let Some((first, middle)) = parts.split_first() else { return name == **last };
        let Some(mut rest) = name.strip_prefix(&**first) else { return false };
        for part in middle {
            // The first place leaves the most for the parts that follow.
            match rest.split_once(&**part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(&**last)
    }
}

/// Returns the case-mapped name of a room without its `#`.
fn mapped(room: &RoomKey) -> String {
    percent_decode_str(room.as_str()).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pattern_matches_rooms_by_its_parts() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("#team-*", &["#team-", "#team-a", "#TEAM-B", "#team-a-b"], &["#tea", "#team", "#a-team-b"]),
            ("#Team-*", &["#team-a"], &["#tea-m"]),
            ("#lobby", &["#lobby", "#LOBBY"], &["#lobby2", "#lobb"]),
            ("#*", &["#a", "#öl", "#张伟"], &[]),
            ("#*-public", &["#a-public", "#-public"], &["#a-public2", "#public"]),
            ("#a*b*a", &["#aba", "#axbya", "#abba"], &["#ab", "#aa", "#a"]),
            ("#ÖL*", &["#öl", "#ölberg"], &["#ol"]),
            // Escapes of a key are no text of the name: the key of `#ö` has C3 in it.
            ("#*c3*", &["#c3", "#xc3x"], &["#ö"]),
        ];
        for (pattern, inside, outside) in table {
            let parsed = RoomPattern::parse(pattern).unwrap();
            let matches = |room: &str| parsed.matches(RoomName::parse(room).unwrap().key());
            assert!(inside.iter().all(|room| matches(room)), "{pattern} {inside:?}");
            assert!(!outside.iter().any(|room| matches(room)), "{pattern} {outside:?}");
        }
    }

    #[test]
    fn pattern_of_no_room_is_refused() {
        for pattern in ["", "team-*", "@*", "#te am*", "#\u{202E}*", &format!("#{}*", "x".repeat(300))] {
            assert!(RoomPattern::parse(pattern).is_err(), "{pattern:.20}");
        }
    }

    #[test]
    fn many_stars_cost_no_search() {
        let pattern = RoomPattern::parse(&format!("#{}b", "a*".repeat(100))).unwrap();
        assert!(!pattern.matches(RoomName::parse(&format!("#{}", "a".repeat(63))).unwrap().key()));
    }
}
