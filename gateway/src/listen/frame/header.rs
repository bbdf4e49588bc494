//! The headers of frames that a gateway sends (RFC 6455, 5.2): unmasked and never fragmented.
//!
//! [`put_text`] and [`put_binary`] frame an encoded event once for many sockets;
//! [`FrameWriter`](super::FrameWriter) frames what goes to one connection. Received headers are read in
//! `reader.rs`.

use bytes::{BufMut, BytesMut};
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// The longest header of a frame without a mask.
const HEADER_BYTES_MAX: usize = 10;
/// The bit of the first byte that marks the last fragment of a message.
const FIN: u8 = 0x80;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EncodedHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl EncodedHeader {
    /// Encodes the header of a frame with a payload of `length` bytes.
    pub(super) fn new(opcode: OpCode, length: usize) -> Self {
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[0] = FIN | u8::from(opcode);
        let len = match length {
            0..126 => {
                bytes[1] = length as u8;
                2
            }
            126..0x1_0000 => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends a whole text frame.
pub fn put_text(text: &[u8], out: &mut BytesMut) {
    put(Data::Text, text, out);
}

/// Appends a whole binary frame.
pub fn put_binary(payload: &[u8], out: &mut BytesMut) {
    put(Data::Binary, payload, out);
}

fn put(data: Data, payload: &[u8], out: &mut BytesMut) {
    let header = EncodedHeader::new(OpCode::Data(data), payload.len());
    out.reserve(HEADER_BYTES_MAX + payload.len());
    out.put_slice(header.as_bytes());
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::Control;

    use super::*;

    #[test]
    fn headers_equal_those_of_tungstenite() {
        let text = OpCode::Data(Data::Text);
        let control = [Control::Ping, Control::Pong, Control::Close].map(OpCode::Control);
        for opcode in [text, OpCode::Data(Data::Binary)].into_iter().chain(control) {
            for length in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 16 * 1024 * 1024] {
                let mut expected = Vec::new();
                FrameHeader { opcode, ..FrameHeader::default() }.format(length, &mut expected).expect("fits");
                assert_eq!(EncodedHeader::new(opcode, length as usize).as_bytes(), expected, "{opcode:?} {length}");
            }
        }
        let mut out = BytesMut::new();
        put_text(b"hi", &mut out);
        put_binary(&[7], &mut out);
        assert_eq!(out[..], [0x81, 2, b'h', b'i', 0x82, 1, 7]);
    }
}
