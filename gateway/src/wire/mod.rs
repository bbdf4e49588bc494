//! Bytes to [`Command`] and back from [`Reply`] and [`Event`]: one file for each dialect, all of them pure.
//!
//! Doors decode with it, the hub encodes each event once per [`Dialect`] with it. A dialect checks syntax and names, so
//! what comes out is valid; whether it is allowed is the session core's business. Nothing here blocks, reads a clock or
//! panics, whatever the bytes.

pub mod command;
pub mod event;
pub mod json;
pub mod line;
mod syntax;
#[cfg(test)]
mod tests;

pub use self::command::{Command, CorrelationId, RESUMED_ROOMS, Range, Request, ResumeRequest, Since, Token};
pub use self::event::{Answer, DeliveryStatus, Event, Refusal, Reply, RestoredRoom, RoomItem};

use bytes::{BufMut, Bytes, BytesMut};

/// Longest frame or line that is read as a request, in bytes. Longer ones, up to [`HARD_LIMIT`], are discarded with
/// `too_large` and the connection lives.
pub const FRAME_LIMIT: usize = 64 * 1024;
/// Longest frame that is skipped rather than answered with a close, in bytes.
pub const HARD_LIMIT: usize = 1024 * 1024;

/// A way of writing events. An event is encoded at most once per format, however many hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// One JSON object per WebSocket text frame.
    Json,
    /// Lines for people.
    Line,
}

impl Dialect {
    /// The event in this format: the text of one frame, or whole lines with their line ends.
    #[must_use]
    pub fn encode(self, event: &Event) -> Bytes {
        match self {
            Self::Json => json::encode_event(event),
            Self::Line => line::encode_event(event),
        }
    }

    /// Adds what was encoded as it goes over the wire: in a WebSocket frame, or as the lines it is.
    pub fn frame(self, encoded: &[u8], out: &mut BytesMut) {
        if self == Self::Json {
            put_text_head(encoded.len(), out);
        }
        out.extend_from_slice(encoded);
    }
}

/// The header of a whole, unmasked text frame (RFC 6455, 5.2).
fn put_text_head(length: usize, out: &mut BytesMut) {
    out.reserve(10 + length);
    out.put_u8(0x81);
    match length {
        0..126 => out.put_u8(length as u8),
        126..0x1_0000 => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}
