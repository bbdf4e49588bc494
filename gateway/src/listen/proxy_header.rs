//! The header of the PROXY protocol, versions 1 and 2, with which a proxy names its client on the line port.
//!
//! [`parse`] reads a header that arrives in pieces. Invariant: once it has decided, further bytes change nothing. The
//! crate `proxy-header` decodes; the limits of length stand here. Pure: sockets are read elsewhere.

use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};

/// Maximum length of a header of version 1, with its line end.
const V1_BYTES_MAX: usize = 107;
/// Maximum length of addresses and extensions of version 2.
const V2_PAYLOAD_MAX: usize = 536;
/// Length of a header of version 2 without addresses.
const V2_HEAD_BYTES: usize = 16;
/// Maximum length of a header.
pub(super) const HEADER_BYTES_MAX: usize = V2_HEAD_BYTES + V2_PAYLOAD_MAX;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The beginnings by which a header is recognized where none is expected.
const STARTS: [&[u8]; 4] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", V2_START];

/// The beginning of a connection, as far as it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderStart {
    /// A header that is not complete.
    Incomplete,
    /// A header.
    Complete {
        /// Address of the client; `None` if the proxy names none, as for its own health checks.
        client: Option<IpAddr>,
        /// Number of bytes.
        length: usize,
    },
    /// No header, or a broken or overlong one.
    Malformed,
}

/// Reads the header at the beginning of a connection.
#[must_use]
pub fn parse(bytes: &[u8]) -> HeaderStart {
    if V1_START.starts_with(bytes) || V2_START.starts_with(bytes) {
        return HeaderStart::Incomplete;
    }
    if bytes.starts_with(V2_START) { parse_v2(bytes) } else { parse_v1(bytes) }
}

fn parse_v1(bytes: &[u8]) -> HeaderStart {
    let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    if !line.starts_with(V1_START) {
        return HeaderStart::Malformed;
    }
    match line.iter().position(|&byte| byte == b'\n') {
        Some(end) => decode(&line[..=end]),
        None if line.len() < V1_BYTES_MAX => HeaderStart::Incomplete,
        None => HeaderStart::Malformed,
    }
}

fn parse_v2(bytes: &[u8]) -> HeaderStart {
    let Some(&[high, low]) = bytes.get(V2_HEAD_BYTES - 2..V2_HEAD_BYTES) else { return HeaderStart::Incomplete };
    let payload = usize::from(u16::from_be_bytes([high, low]));
    if payload > V2_PAYLOAD_MAX {
        return HeaderStart::Malformed;
    }
    bytes.get(..V2_HEAD_BYTES + payload).map_or(HeaderStart::Incomplete, decode)
}

/// Decodes a whole header.
fn decode(header: &[u8]) -> HeaderStart {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => match parsed.proxied_address() {
            Some(address) if address.protocol != Protocol::Stream => HeaderStart::Malformed,
            address => HeaderStart::Complete { client: address.map(|address| address.source.ip()), length },
        },
        _ => HeaderStart::Malformed,
    }
}

/// Returns true if a connection begins with a header, `None` if that is not decided yet.
pub(super) fn is_header(bytes: &[u8]) -> Option<bool> {
    if STARTS.iter().any(|start| bytes.starts_with(start)) {
        return Some(true);
    }
    (!STARTS.iter().any(|start| start.starts_with(bytes))).then_some(false)
}

#[cfg(test)]
mod tests;
