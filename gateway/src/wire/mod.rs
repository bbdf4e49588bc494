//! Bytes to [`Command`] and back from [`Reply`] and [`Event`]: one folder for each dialect, all of it pure.
//!
//! Transports decode requests and encode replies with it; batches encode each event once per [`Dialect`]. A dialect
//! checks syntax and names, so what it decodes is valid; the session core decides what is allowed. Invariant: no input
//! blocks or panics. Knows no socket, no clock and no WebSocket header.

pub mod command;
pub mod event;
pub mod field;
pub mod frame;
pub mod json;
pub mod line;
pub mod packed;
mod request;
mod syntax;
#[cfg(test)]
mod tests;

pub use self::command::{
    Command, CorrelationId, ModerationCommand, RESUMED_ROOMS_MAX, Range, Request, ResumeRequest, Since, Token,
};
pub use self::event::{Answer, DeliveryStatus, Event, Refusal, Reply, RestoredRoom, RoomItem};
pub use self::packed::{PackedCarrier, PackedDialect, PackedFormat};

use bytes::Bytes;

/// Maximum length of a frame or line that is read as a request, in bytes. Longer ones, up to [`DISCARDED_BYTES_MAX`],
/// are discarded with `too_large`, and the connection stays open.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of a frame that is discarded, in bytes. A longer one closes the connection.
pub const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// The name of the inbox, in place of a room.
const INBOX: &str = "@";

/// A dialect of the protocol. An event is encoded at most once per dialect, whatever the number of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// One JSON object per WebSocket text frame.
    Json,
    /// Lines for people.
    Line,
    /// Binary frames.
    Packed(PackedDialect),
}

impl Dialect {
    /// Encodes an event: the text of one frame, whole lines with their line feeds, or a packed message.
    #[must_use]
    pub fn encode(self, event: &Event) -> Bytes {
        match self {
            Self::Json => json::encode_event(event),
            Self::Line => line::encode_event(event),
            Self::Packed(dialect) => packed::encode_event(dialect, event),
        }
    }

    /// Returns the maximum length of a body, as a multiple of its length in JSON. MessagePack has nine bytes for a
    /// number such as `-0`, which takes three with its comma.
    #[must_use]
    pub fn body_growth(self) -> usize {
        match self {
            Self::Packed(PackedDialect { format: PackedFormat::MessagePack, .. }) => 3,
            Self::Json | Self::Line | Self::Packed(_) => 1,
        }
    }

    /// Returns a number that [`Dialect::of_bits`] turns back into the dialect.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Line => 1,
            Self::Packed(dialect) => dialect.bits(),
        }
    }

    /// Returns the dialect of a number.
    #[must_use]
    pub fn of_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Json,
            1 => Self::Line,
            bits => Self::Packed(PackedDialect::of_bits(bits)),
        }
    }

    /// Returns the dialect with the same encoding of single events, whatever carries them.
    #[must_use]
    pub fn unframed(self) -> Self {
        match self {
            Self::Packed(dialect) => Self::Packed(PackedDialect { carrier: PackedCarrier::Frames, ..dialect }),
            dialect => dialect,
        }
    }

    /// Returns true for the dialect of people, which has no resume and one request at a time.
    #[must_use]
    pub fn is_line(self) -> bool {
        self == Self::Line
    }
}
