//! RFC 6455 frames, the server's side, on our own buffers: bytes of a client in, events out; messages in, bytes out.
//!
//! [`Reader`] and [`Writer`] do no IO; [`Socket`] puts them on a TCP stream. Between messages a connection owns no
//! buffer: bytes are read into one of the thread, unmasked and decoded where they lie, and only the beginning of an
//! unfinished message is kept. Used by the WebSocket door. No extensions, no compression; never knows what a text says.
//!
//! Where the RFC leaves a choice: a length that is not in its shortest form is refused, a message over the limit is
//! still checked to be UTF-8 while it is skipped, and text fails with its first bad byte, not with its last frame.

pub mod header;
mod mask;
mod reader;
mod socket;
mod utf8;
mod writer;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use presence::model::codes::CloseCode;

pub use self::reader::Reader;
pub use self::socket::{Over, Socket};
pub(super) use self::socket::{hang_up, poll_write};
pub use self::writer::Writer;

/// How long messages may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    message: u32,
    skipped: u32,
}

impl Limits {
    /// Messages up to `message` bytes are read, up to `skipped` bytes discarded and reported; a longer one is a
    /// violation. Equal values discard nothing.
    #[must_use]
    pub const fn new(message: u32, skipped: u32) -> Self {
        assert!(message <= skipped, "a message that is read is never too long to be skipped");
        Self { message, skipped }
    }
}

/// What a data message says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

/// What arrived. Borrows from the input where it came in one piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(Cow<'a, str>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// A message over the limit has ended; it was discarded.
    TooLarge(Kind),
    /// A frame of a message that has not ended. There may be thousands of them in one read, so each is told.
    Fragment,
    /// A ping, to be answered with a pong that holds the same.
    Ping(Cow<'a, [u8]>),
    /// A pong, asked for or not.
    Pong(Cow<'a, [u8]>),
    /// The last frame of the other side. What follows it is not looked at.
    Close {
        /// Why, if it says so.
        code: Option<u16>,
        /// The same for people.
        reason: Cow<'a, str>,
    },
}

/// How the bytes of a client broke the RFC or the limits. The connection cannot go on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not the framing of the RFC.
    #[error("the bytes break the framing")]
    Protocol,
    /// Text that is not UTF-8.
    #[error("the text is not UTF-8")]
    BadUtf8,
    /// A message that is too long to be skipped.
    #[error("the message is too long")]
    TooBig,
}

impl Violation {
    /// What the close frame says about it.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol => CloseCode::ProtocolError,
            Self::BadUtf8 => CloseCode::BadUtf8,
            Self::TooBig => CloseCode::TooBig,
        }
    }
}
