//! The header of a text frame in front of an encoded event, for batches that are framed once and written to many
//! sockets.
//!
//! Used by the fan-out batch. [`FrameWriter`](super::FrameWriter) frames what goes to one connection.

use bytes::{BufMut, BytesMut};

/// Appends a whole, unmasked text frame (RFC 6455, 5.2).
pub fn put_text(text: &[u8], out: &mut BytesMut) {
    let length = text.len();
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
