//! [`NameError`]: the reason for a refused name, in words for its user.

use std::fmt;

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
    /// A character that names must not contain, or must not contain in this place.
    #[error("the name contains {}, which is not allowed", Shown(*.0))]
    Forbidden(char),
    /// A sign that nicknames contain only after their first character.
    #[error("the name must not begin with {}", Shown(*.0))]
    Leading(char),
    /// A combining mark without a character before it.
    #[error("the name begins with a combining mark, {}", Shown(*.0))]
    LeadingMark(char),
    /// More marks on one character than are readable.
    #[error("the name contains more than 4 combining marks in a row")]
    TooManyMarks,
    /// Text of both directions, in an order that displays ambiguously (RFC 5893 section 2).
    #[error("the name mixes right-to-left and left-to-right text")]
    MixedDirection,
}

/// A character as an error names it: visible ASCII as it is, any other by its code point.
struct Shown(char);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => f.write_str("a space"),
            c if c.is_ascii_graphic() => write!(f, "the character {c}"),
            c => write!(f, "U+{:04X}", u32::from(c)),
        }
    }
}
