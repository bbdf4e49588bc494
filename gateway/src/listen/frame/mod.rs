//! RFC 6455 framing of the server side on our own buffers: a client's bytes to events, messages to bytes.
//!
//! [`FrameReader`] and [`FrameWriter`] do no IO; [`FrameSocket`] runs them on a
//! [`ClientStream`]. Between messages a
//! connection owns no buffer: bytes are read into a buffer of the thread and decoded in place, and only a partial
//! message is stored. No extensions, no compression.
//!
//! Where the RFC leaves a choice: a length that is not in its shortest form is refused, a message over the limit is
//! still checked for UTF-8 while it is skipped, and text fails at its first invalid byte.

pub mod header;
mod mask;
mod reader;
mod socket;
mod stream;
mod utf8;
mod writer;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use presence::model::codes::CloseCode;

pub use self::reader::FrameReader;
pub use self::socket::{FrameSocket, SocketEnd};
pub use self::stream::{AcceptedStream, ClientStream, PlainStream};
pub(super) use self::stream::{READ_BYTES_MAX, poll_read};
pub use self::writer::FrameWriter;

/// Limits of message lengths, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    message: u32,
    skipped: u32,
}

impl MessageLimits {
    /// Messages up to `message` bytes are read, up to `skipped` bytes discarded and reported; a longer one is a
    /// violation. Equal values discard nothing.
    #[must_use]
    pub const fn new(message: u32, skipped: u32) -> Self {
        assert!(message <= skipped, "the limit for reading must not exceed the limit for skipping");
        Self { message, skipped }
    }
}

/// The kind of a data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// A received event. It borrows from the input if it arrived in one piece.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameEvent<'a> {
    /// A whole text message.
    Text(Cow<'a, str>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// The end of a discarded message over the limit.
    TooLarge(DataKind),
    /// A frame of an unfinished message. There may be thousands in one read, so each is an event.
    Fragment,
    /// A ping, to be answered with a pong of the same payload.
    Ping(Cow<'a, [u8]>),
    /// A pong, requested or not.
    Pong(Cow<'a, [u8]>),
    /// The client's last frame. Later bytes are ignored.
    Close {
        /// The close code, if there is one.
        code: Option<u16>,
        /// The reason text.
        reason: Cow<'a, str>,
    },
}

/// A violation of the RFC or of the limits. The connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Invalid framing.
    #[error("the bytes break the framing")]
    Protocol,
    /// Text that is not UTF-8.
    #[error("the text is not UTF-8")]
    BadUtf8,
    /// A message too long to be skipped.
    #[error("the message is too long")]
    TooBig,
}

impl Violation {
    /// Returns the close code of the violation.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol => CloseCode::ProtocolError,
            Self::BadUtf8 => CloseCode::BadUtf8,
            Self::TooBig => CloseCode::TooBig,
        }
    }
}
