//! Headers in every piece, broken and overlong ones, and the fuzz corpus.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Returns a header of version 2 with this command, family and payload.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = V2_START.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the addresses of a header of version 2 for IPv4, and extensions.
fn ipv4(extensions: &[u8]) -> Vec<u8> {
    [&[198, 51, 100, 1, 203, 0, 113, 1, 0x30, 0x39, 0x23, 0x28], extensions].concat()
}

fn ipv6() -> Vec<u8> {
    let mut payload = vec![0x20, 0x01, 0x0d, 0xb8];
    payload.resize(32, 1);
    payload.extend([0, 1, 0, 2]);
    payload
}

/// Asserts that the decision is the same for any pieces, and final. Returns it.
fn decision(bytes: &[u8]) -> HeaderStart {
    let whole = parse(bytes);
    let first = (0..=bytes.len()).find(|&end| parse(&bytes[..end]) != HeaderStart::Incomplete);
    for end in first.into_iter().flat_map(|first| first..=bytes.len()) {
        assert_eq!(parse(&bytes[..end]), whole, "{} of {:?}", end, bytes.escape_ascii().to_string());
    }
    if let HeaderStart::Complete { length, .. } = whole {
        assert_eq!(Some(length), first, "the header ends where it is complete");
        assert!(length <= HEADER_BYTES_MAX);
    }
    whole
}

#[test]
fn valid_headers_name_their_client() {
    let unknown = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 16));
    let longest =
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    for (header, client) in [
        (b"PROXY TCP4 198.51.100.1 203.0.113.1 12345 9000\r\n".to_vec(), Some("198.51.100.1")),
        (b"PROXY TCP6 2001:db8::1 ::1 12345 9000\r\n".to_vec(), Some("2001:db8::1")),
        (longest.into(), Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (unknown.into(), None),
        (v2(0x21, 0x11, &ipv4(b"")), Some("198.51.100.1")),
        // Extensions are skipped, also malformed ones.
        (v2(0x21, 0x11, &ipv4(&[0x04, 0xFF, 0xFF, 1])), Some("198.51.100.1")),
        (v2(0x21, 0x11, &ipv4(&[0; V2_PAYLOAD_MAX - 12])), Some("198.51.100.1")),
        (v2(0x21, 0x21, &ipv6()), Some("2001:db8:101:101:101:101:101:101")),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &ipv4(b"")), None),
        (v2(0x21, 0x00, b"ignored"), None),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
    ] {
        let expected =
            HeaderStart::Complete { client: client.map(|client| client.parse().unwrap()), length: header.len() };
        assert_eq!(decision(&header), expected);
        // The bytes behind it belong to the client.
        assert_eq!(decision(&[&header[..], b"/nick ann\nPROXY TCP4 "].concat()), expected);
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), HeaderStart::Incomplete, "{end}");
        }
    }
}

#[test]
fn broken_headers_are_malformed() {
    let overlong = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 15));
    let ports = format!("PROXY TCP4 1.2.3.4 1.2.3.4 {}1 1\r\n", "0".repeat(100));
    let mut announced = v2(0x21, 0x11, &ipv4(b""));
    announced[14..16].copy_from_slice(&537u16.to_be_bytes());
    for header in [
        b"/nick ann\n".to_vec(),
        b"proxy tcp4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXYxTCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.999 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXY FOO\r\n".to_vec(),
        b"PROXY \r\n".to_vec(),
        b"PROXY UNKNOWN\n\r\n".to_vec(),
        b"PROXY TCP4 \xFF\xFE 1.2.3.4 1 2\r\n".to_vec(),
        overlong.into(),
        ports.into(),
        vec![b'P'; 200],
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        b"\r\n/nick ann\n".to_vec(),
        v2(0x11, 0x11, &ipv4(b"")),
        v2(0x22, 0x11, &ipv4(b"")),
        v2(0x21, 0x12, &ipv4(b"")),
        v2(0x21, 0x41, &ipv4(b"")),
        v2(0x21, 0x11, &ipv4(b"")[..11]),
        v2(0x21, 0x21, &ipv6()[..35]),
        v2(0x21, 0x31, &[b'/'; 215]),
        v2(0x21, 0x11, &[0; 537]),
        announced,
    ] {
        assert_eq!(decision(&header), HeaderStart::Malformed, "{}", header.escape_ascii());
    }
}

#[test]
fn unexpected_header_is_recognized_in_pieces() {
    for (bytes, expected) in [
        (&b""[..], None),
        (b"\r\n", None),
        (b"\r\n\r\n\0\r\nQUIT", None),
        (b"\r\n\r\n\0\r\nQUIT\n", Some(true)),
        (b"PROXY TCP4", None),
        (b"PROXY TCP4 1", Some(true)),
        (b"PROXY UNKNOWN\r\n", Some(true)),
        (b"\r\n/nick", Some(false)),
        (b"PROXY servers are useful\n", Some(false)),
        (b"/nick ann\n", Some(false)),
    ] {
        assert_eq!(is_header(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn fuzz_corpus_is_decided_alike_in_pieces() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/proxy_headers");
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    let complete = inputs.iter().filter(|input| decision(input) != HeaderStart::Malformed).count();
    assert!(inputs.len() >= 20 && complete >= 8, "{complete} of {} inputs are headers", inputs.len());
}

proptest! {
    #[test]
    fn any_bytes_are_decided_alike_in_pieces(
        start in prop::sample::select(vec![b"".to_vec(), V1_START.to_vec(), V2_START.to_vec(), v2(0x21, 0x11, b"")]),
        rest in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        decision(&[start, rest].concat());
    }
}
