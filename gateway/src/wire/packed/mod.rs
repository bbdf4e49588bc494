//! Packed messages: a type and a payload, in three formats.
//!
//! The binary transports carry them: a TCP frame ([`frame`](super::frame)) or a binary WebSocket frame holds one. A
//! payload is JSON, MessagePack or Protobuf; the last two have the fields of JSON under their numbers
//! ([`Field`](super::field::Field)). Invariant: a packed message decodes to the request of the same JSON frame, or to
//! the same refusal. Knows no transport: both share the message, with or without compression.

mod body;
mod fields;
mod input;
mod messagepack;
mod messagepack_values;
mod output;
mod packed_type;
mod payload_writer;
mod protobuf;
mod snappy;
#[cfg(test)]
mod tests;

pub use self::input::decode;
pub use self::output::{encode_closing, encode_event, encode_reply, heartbeat};
pub use self::packed_type::{COMPRESSED, PackedType};

use super::{Answer, Reply};

/// The format of the payloads of a connection. Its number is the version of TCP frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackedFormat {
    /// The JSON object of a WebSocket text frame.
    Json = 1,
    /// A map with the numbers of the fields as keys.
    MessagePack = 2,
    /// A message with the numbers of the fields.
    Protobuf = 3,
}

impl PackedFormat {
    /// All formats, by version.
    pub const ALL: [Self; 3] = [Self::Json, Self::MessagePack, Self::Protobuf];

    /// Returns the version of TCP frames with this format.
    #[must_use]
    pub const fn version(self) -> u8 {
        self as u8
    }

    /// Returns the format of a version.
    #[must_use]
    pub fn of_version(version: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.version() == version)
    }
}

/// The carrier of packed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackedCarrier {
    /// Frames on the TCP port.
    Frames,
    /// Binary WebSocket frames.
    WebSocket,
}

/// The dialect of a connection with packed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedDialect {
    /// The format of the payloads.
    pub format: PackedFormat,
    /// The carrier.
    pub carrier: PackedCarrier,
    /// True if the client has asked for compression.
    pub compresses: bool,
}

/// The bits of a dialect: below its version, which is never 0.
const COMPRESSES_BIT: u8 = 1;
const WEB_SOCKET_BIT: u8 = 2;
const VERSION_SHIFT: u32 = 2;

impl PackedDialect {
    /// Applies the options that a reply confirms, beginning with that reply.
    pub fn apply_options(&mut self, reply: &Reply) {
        if let Answer::Options { snappy } = reply.answer {
            self.compresses = snappy;
        }
    }

    pub(super) const fn bits(self) -> u8 {
        let carrier = match self.carrier {
            PackedCarrier::Frames => 0,
            PackedCarrier::WebSocket => WEB_SOCKET_BIT,
        };
        self.format.version() << VERSION_SHIFT | carrier | self.compresses as u8
    }

    pub(super) fn of_bits(bits: u8) -> Self {
        Self {
            format: PackedFormat::of_version(bits >> VERSION_SHIFT).unwrap_or(PackedFormat::Json),
            carrier: if bits & WEB_SOCKET_BIT == 0 { PackedCarrier::Frames } else { PackedCarrier::WebSocket },
            compresses: bits & COMPRESSES_BIT != 0,
        }
    }
}
