//! Rows for the WebSocket framing: RFC 6455 with the close codes of its section 7.4.1.

use presence::model::codes::CloseCode;

use crate::bad_input::row::{BadInput, Reaction, Surface};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
/// A frame of one empty fragment in the middle of a message.
const EMPTY_FRAGMENT: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];

/// Returns a frame masked with zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// Returns a masked frame that announces this length and has no payload.
fn announced(length: u64) -> Vec<u8> {
    [&[TEXT, 0x80 | 127], &length.to_be_bytes()[..], &[0; 4]].concat()
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

pub(super) fn rows() -> Vec<BadInput> {
    use CloseCode::{BadUtf8, ProtocolError, TooBig, Unsupported};
    let bombs = |empty: usize| [masked(0x01, b""), EMPTY_FRAGMENT.repeat(empty)].concat();
    let long_ping = [&[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0], &[b'x'; 126][..]].concat();
    let mut rows = vec![
        ("an unmasked frame", vec![TEXT, 2, b'h', b'i'], ProtocolError),
        ("reserved bit 1", masked(0xC1, b"hi"), ProtocolError),
        ("reserved bit 2", masked(0xA1, b"hi"), ProtocolError),
        ("reserved bit 3", masked(0x91, b"hi"), ProtocolError),
        ("reserved data opcode 3", masked(0x83, b"hi"), ProtocolError),
        ("reserved control opcode 11", masked(0x8B, b"hi"), ProtocolError),
        ("a fragmented ping", masked(0x09, b"hi"), ProtocolError),
        ("a fragmented close", masked(0x08, &[3, 232]), ProtocolError),
        ("a ping over 125 bytes", long_ping, ProtocolError),
        ("a continuation without a start", masked(0x80, b"hi"), ProtocolError),
        ("a message inside a message", [masked(0x01, b"{"), masked(TEXT, b"}")].concat(), ProtocolError),
        ("binary", masked(0x82, b"hi"), Unsupported),
        ("binary in two frames", [masked(0x02, b"h"), masked(0x80, b"i")].concat(), Unsupported),
        ("an overlong form in UTF-8", masked(TEXT, &[0xC0, 0xAF]), BadUtf8),
        ("a surrogate in UTF-8", masked(TEXT, &[0xED, 0xA0, 0x80]), BadUtf8),
        ("a character above U+10FFFF", masked(TEXT, &[0xF4, 0x90, 0x80, 0x80]), BadUtf8),
        ("half a character", masked(TEXT, &[0xE7, 0x95]), BadUtf8),
        ("a broken character in two frames", [masked(0x01, &[0xC3]), masked(0x80, b"(")].concat(), BadUtf8),
        ("bad UTF-8 in the first of two frames", masked(0x01, &[b'{', 0xFF]), BadUtf8),
        ("a close frame of one byte", masked(CLOSE, &[3]), ProtocolError),
        ("bad UTF-8 in a close reason", close_frame(1000, &[0xC3, b'(']), BadUtf8),
        ("half a character in a close reason", close_frame(1000, &[0xE7, 0x95]), BadUtf8),
        ("a close reason of 124 bytes", vec![CLOSE, 0x80 | 126, 0, 126, 0, 0, 0, 0], ProtocolError),
        ("length 2^63", announced(1 << 63), ProtocolError),
        ("length 2^64 - 1", announced(u64::MAX), ProtocolError),
        ("length 2^63 - 1", announced((1 << 63) - 1), TooBig),
        ("length 4 GiB", announced(1 << 32), TooBig),
        ("one byte above 1 MiB", announced((1 << 20) + 1), TooBig),
        ("ten thousand empty fragments", bombs(10_000), TooBig),
    ]
    .into_iter()
    .map(|(name, bytes, code)| BadInput::bytes(Surface::Frames, name, bytes, Reaction::Closed(code)))
    .collect::<Vec<_>>();
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let then = Reaction::Closed(ProtocolError);
        rows.push(BadInput::bytes(Surface::Frames, format!("close code {code}"), close_frame(code, b""), then));
    }
    rows
}
