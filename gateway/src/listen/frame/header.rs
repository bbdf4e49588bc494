//! The headers of frames that a gateway sends (RFC 6455, 5.2): unmasked and never fragmented.
//!
//! [`put_text`] frames an encoded event once for many sockets; [`FrameWriter`](super::FrameWriter) frames what goes to
//! one connection. Received headers are read in `reader.rs`.

use bytes::BytesMut;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// The longest header of a frame without a mask.
const HEADER_BYTES_MAX: usize = 10;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EncodedHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl EncodedHeader {
    /// Encodes the header of a frame with a payload of `length` bytes.
    pub(super) fn new(opcode: OpCode, length: usize) -> Self {
        let (header, length) = (FrameHeader { opcode, ..FrameHeader::default() }, length as u64);
        let mut bytes = [0; HEADER_BYTES_MAX];
        header.format(length, &mut bytes.as_mut_slice()).expect("the longest header fits");
        Self { bytes, len: header.len(length) }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends a whole text frame.
pub fn put_text(text: &[u8], out: &mut BytesMut) {
    let header = EncodedHeader::new(OpCode::Data(Data::Text), text.len());
    out.reserve(header.len + text.len());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_header_uses_the_shortest_length() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xFFFF, vec![0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let (text, mut out) = (vec![b'x'; length], BytesMut::new());
            put_text(&text, &mut out);
            assert_eq!(out, [header, text].concat());
        }
    }
}
