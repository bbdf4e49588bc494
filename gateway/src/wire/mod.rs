//! Bytes to [`Command`] and back from [`Reply`] and [`Event`]: one folder for each dialect, all of it pure.
//!
//! Transports decode requests and encode replies with it; batches encode each event once per [`Dialect`]. A dialect
//! checks syntax and names, so what it decodes is valid; the session core decides what is allowed. Invariant: no input
//! blocks or panics. Knows no socket, no clock and no WebSocket header.

pub mod command;
pub mod event;
pub mod json;
pub mod line;
mod syntax;
#[cfg(test)]
mod tests;

pub use self::command::{
    Command, CorrelationId, ModerationCommand, RESUMED_ROOMS_MAX, Range, Request, ResumeRequest, Since, Token,
};
pub use self::event::{Answer, DeliveryStatus, Event, Refusal, Reply, RestoredRoom, RoomItem};

use bytes::Bytes;

/// Maximum length of a frame or line that is read as a request, in bytes. Longer ones, up to [`DISCARDED_BYTES_MAX`],
/// are discarded with `too_large`, and the connection stays open.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of a frame that is discarded, in bytes. A longer one closes the connection.
pub const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// A dialect of the protocol. An event is encoded at most once per dialect, whatever the number of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// One JSON object per WebSocket text frame.
    Json,
    /// Lines for people.
    Line,
}

impl Dialect {
    /// Encodes an event: the text of one frame, or whole lines with their line feeds.
    #[must_use]
    pub fn encode(self, event: &Event) -> Bytes {
        match self {
            Self::Json => json::encode_event(event),
            Self::Line => line::encode_event(event),
        }
    }
}
