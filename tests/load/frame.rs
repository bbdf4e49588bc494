//! WebSocket framing (RFC 6455) as far as a test client needs it: the handshake and whole frames, on byte slices.
//!
//! A library's stream needs kilobytes per connection; a client here is only a file descriptor, without task or buffer.
//! Client frames are masked with a key of zero, which leaves the payload unchanged. Masking protects proxies from
//! browsers, and this setup has neither. Pure; sockets belong to the caller.

use std::net::SocketAddr;

/// Kinds of frames.
pub(crate) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}

/// Key that every client sends, the example of RFC 6455, and the accept value that it requires.
const HANDSHAKE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const HANDSHAKE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Maximum length of heads and frames; longer ones count as garbage.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FRAME_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Whole frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerFrame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Error code for bytes outside of the WebSocket protocol or for a refused handshake.
pub(crate) type BrokenFrame = String;

/// Returns the request that upgrades a connection to WebSocket, with a subprotocol if there is one.
pub(crate) fn request(path: &str, host: SocketAddr, subprotocol: Option<&str>) -> Vec<u8> {
    let subprotocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {HANDSHAKE_KEY}\r\n{subprotocol}\r\n"
    )
    .into_bytes()
}

/// Returns the server's response to [`request`]; only the floor needs it.
pub(crate) fn response() -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {HANDSHAKE_ACCEPT}\r\n\r\n"
    )
    .into_bytes()
}

/// Returns the length of the head (of a request or a response) at the beginning of the bytes, once it is whole.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<usize>, BrokenFrame> {
    match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if bytes.len() > HEAD_BYTES_MAX => Err("bad_handshake".to_owned()),
        None => Ok(None),
    }
}

/// Returns the length of a whole response that accepts the upgrade. A refusal is `http_` and its status.
pub(crate) fn upgraded(bytes: &[u8]) -> Result<Option<usize>, BrokenFrame> {
    let Some(length) = head(bytes)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..length]);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("?");
    if status != "101" {
        return Err(format!("http_{status}"));
    }
    if !text.contains(HANDSHAKE_ACCEPT) {
        return Err("bad_handshake".to_owned());
    }
    Ok(Some(length))
}

/// Appends a frame in the client's form.
pub(crate) fn put_masked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    put_head(opcode, payload.len(), 0x80, out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a frame in the server's form.
pub(crate) fn put_bare(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    put_head(opcode, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

fn put_head(opcode: u8, length: usize, masked: u8, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    if let Ok(short @ ..=125) = u8::try_from(length) {
        out.push(masked | short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(masked | 126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(masked | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Returns the frame at the beginning of the bytes, once it is whole, and its total length. A masked one must have the
/// key of zero: the floor uses this to read frames of this program's clients.
pub(crate) fn take(bytes: &[u8]) -> Result<Option<(ServerFrame<'_>, usize)>, BrokenFrame> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let opcode = first & 0x0f;
    // Fragments occur only in dialects that are byte streams, and those accept them in any pieces.
    let whole = first & 0xf0 == 0x80 || matches!((first, opcode), (0..=0x0f, opcode::BINARY | opcode::CONTINUATION));
    if !whole {
        return Err("bad_frame".to_owned());
    }
    let (length, mut at) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(field) => (u64::from(u16::from_be_bytes([field[0], field[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|field| field.try_into().ok()) {
            Some(field) => (u64::from_be_bytes(field), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if length > FRAME_BYTES_MAX {
        return Err("bad_frame".to_owned());
    }
    if second & 0x80 != 0 {
        match bytes.get(at..at + 4) {
            Some([0, 0, 0, 0]) => at += 4,
            Some(_) => return Err("bad_frame".to_owned()),
            None => return Ok(None),
        }
    }
    let end = at + usize::try_from(length).unwrap_or(usize::MAX - at);
    Ok(bytes.get(at..end).map(|payload| (ServerFrame { opcode, payload }, end)))
}

/// Returns the error code of a close frame.
pub(crate) fn close_code(payload: &[u8]) -> String {
    match *payload {
        [high, low, ..] => format!("close_{}", u16::from_be_bytes([high, low])),
        _ => "close_1005".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reader_returns_frames_of_every_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let payload = vec![b'p'; length];
            for put in [put_masked, put_bare] {
                let mut bytes = Vec::new();
                put(opcode::TEXT, &payload, &mut bytes);
                let whole = bytes.len();
                bytes.extend_from_slice(b"next");
                let (frame, used) = take(&bytes).unwrap().unwrap();
                assert_eq!((frame.opcode, frame.payload, used), (opcode::TEXT, payload.as_slice(), whole));
                assert!((0..whole.min(20)).chain([whole - 1]).all(|cut| take(&bytes[..cut]) == Ok(None)), "{length}");
            }
        }
    }

    #[test]
    fn reader_rejects_protocol_violations() {
        let huge = [0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        for bytes in [&[0x01, 0x00][..], &[0xc1, 0x00], &[0x81, 0x80, 1, 2, 3, 4], &huge] {
            assert_eq!(take(bytes), Err("bad_frame".to_owned()), "{bytes:?}");
        }
    }

    #[test]
    fn handshake_succeeds_or_reports_its_status() {
        let response = response();
        assert_eq!(upgraded(&response[..response.len() - 1]), Ok(None));
        assert_eq!(upgraded(&[&response[..], b"\x81\x00"].concat()), Ok(Some(response.len())));
        assert_eq!(upgraded(b"HTTP/1.1 503 No\r\nRetry-After: 1\r\n\r\n"), Err("http_503".to_owned()));
        assert_eq!(upgraded(b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: no\r\n\r\n"), Err("bad_handshake".to_owned()));
        assert_eq!(upgraded(&[b'x'; 20_000]), Err("bad_handshake".to_owned()));
        let request = |subprotocol| request("/ws", "127.0.0.1:80".parse().unwrap(), subprotocol);
        assert!(request(None).starts_with(b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        assert!(request(Some("p")).ends_with(b"\r\nSec-WebSocket-Protocol: p\r\n\r\n"));
    }

    #[test]
    fn close_code_contains_the_close_number() {
        assert_eq!([close_code(&[0x03, 0xf4, b'x']), close_code(&[])], ["close_1012", "close_1005"]);
    }
}
