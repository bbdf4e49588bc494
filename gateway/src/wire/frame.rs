//! The frames of the TCP port: a header of eleven bytes, and a payload.
//!
//! The last two bytes of the header are the type, so a frame is [`PREFIX_BYTES`] bytes and a packed message. Invariant:
//! a prefix that is accepted announces at most
//! [`DISCARDED_BYTES_MAX`]. Knows no format of payloads and no socket.

use bytes::{BufMut, BytesMut};
use presence::model::codes::CloseCode;

use super::{DISCARDED_BYTES_MAX, PackedFormat};

/// The first bytes of each frame. No UTF-8 text begins with the first two of them.
pub const MAGIC: [u8; 4] = 0xCAFE_BABE_u32.to_be_bytes();
/// Length of magic, version and length, in bytes.
pub const PREFIX_BYTES: usize = 9;
/// Length of the type, in bytes.
pub const TYPE_BYTES: usize = 2;

/// A fault after which the bytes can no longer be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameFault {
    /// The bytes are not the magic.
    Magic,
    /// The version is unknown, or not that of the first frame.
    Version,
    /// The payload is too long to be skipped.
    TooLong,
}

impl FrameFault {
    /// Returns the close code of the fault.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Magic | Self::Version => CloseCode::ProtocolError,
            Self::TooLong => CloseCode::TooBig,
        }
    }
}

/// The part of a frame before its packed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePrefix {
    /// The format of the payload.
    pub format: PackedFormat,
    /// Length of the packed message, in bytes: of the type and the payload.
    pub message_bytes: usize,
}

impl FramePrefix {
    /// Reads the format of the frame that the bytes begin with. `None` while bytes are missing; a fault is found at its
    /// first byte.
    ///
    /// # Errors
    /// The bytes are no frame of a known version.
    pub fn format(bytes: &[u8]) -> Result<Option<PackedFormat>, FrameFault> {
        let begun = bytes.len().min(MAGIC.len());
        if bytes[..begun] != MAGIC[..begun] {
            return Err(FrameFault::Magic);
        }
        let Some(version) = bytes.get(MAGIC.len()) else { return Ok(None) };
        PackedFormat::of_version(*version).map(Some).ok_or(FrameFault::Version)
    }

    /// Reads the prefix that the bytes begin with, as [`FramePrefix::format`] does.
    ///
    /// # Errors
    /// The bytes are no frame of the `expected` format, or it is too long.
    pub fn parse(bytes: &[u8], expected: PackedFormat) -> Result<Option<Self>, FrameFault> {
        let Some(format) = Self::format(bytes)? else { return Ok(None) };
        if format != expected {
            return Err(FrameFault::Version);
        }
        let Some(length) = bytes.get(MAGIC.len() + 1..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
        let payload_bytes = u32::from_be_bytes(*length) as usize;
        if payload_bytes > DISCARDED_BYTES_MAX {
            return Err(FrameFault::TooLong);
        }
        Ok(Some(Self { format, message_bytes: TYPE_BYTES + payload_bytes }))
    }
}

/// Appends a whole frame with this packed message.
pub fn put_frame(format: PackedFormat, message: &[u8], out: &mut BytesMut) {
    let payload_bytes = u32::try_from(message.len().saturating_sub(TYPE_BYTES)).unwrap_or(u32::MAX);
    out.reserve(PREFIX_BYTES + message.len());
    out.put_slice(&MAGIC);
    out.put_u8(format.version());
    out.put_u32(payload_bytes);
    out.put_slice(message);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prefix_is_read_at_any_split() {
        let mut frame = BytesMut::new();
        put_frame(PackedFormat::Protobuf, &[0, 4, 9, 9, 9], &mut frame);
        assert_eq!(frame[..], [0xCA, 0xFE, 0xBA, 0xBE, 3, 0, 0, 0, 3, 0, 4, 9, 9, 9]);
        let prefix = FramePrefix { format: PackedFormat::Protobuf, message_bytes: 5 };
        for split in 0..frame.len() {
            let expected = (split >= PREFIX_BYTES).then_some(prefix);
            assert_eq!(FramePrefix::parse(&frame[..split], PackedFormat::Protobuf), Ok(expected), "{split}");
            let known = (split > 4).then_some(PackedFormat::Protobuf);
            assert_eq!(FramePrefix::format(&frame[..split]), Ok(known), "{split}");
        }
        assert_eq!(FramePrefix::parse(&frame, PackedFormat::Json), Err(FrameFault::Version));
    }

    #[test]
    fn faults_are_found_at_their_first_byte() {
        for (bytes, fault) in [
            (&[0xCB][..], FrameFault::Magic),
            (&[0xCA, 0xFE, 0xBA, 0xBF], FrameFault::Magic),
            (&[0xCA, 0xFE, 0xBA, 0xBE, 0], FrameFault::Version),
            (&[0xCA, 0xFE, 0xBA, 0xBE, 4], FrameFault::Version),
            (&[0xCA, 0xFE, 0xBA, 0xBE, 1, 0, 0x10, 0, 1], FrameFault::TooLong),
            (&[0xCA, 0xFE, 0xBA, 0xBE, 1, 0xFF, 0xFF, 0xFF, 0xFF], FrameFault::TooLong),
        ] {
            assert_eq!(FramePrefix::parse(bytes, PackedFormat::Json), Err(fault), "{bytes:?}");
            assert!(FramePrefix::parse(&bytes[..bytes.len() - 1], PackedFormat::Json).is_ok(), "{bytes:?}");
        }
        let longest = [0xCA, 0xFE, 0xBA, 0xBE, 1, 0, 0x10, 0, 0];
        let prefix = FramePrefix::parse(&longest, PackedFormat::Json).unwrap().unwrap();
        assert_eq!(prefix.message_bytes, TYPE_BYTES + DISCARDED_BYTES_MAX);
    }
}
