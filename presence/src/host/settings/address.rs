//! Addresses to listen on: `IP:PORT`, or `NAME:PORT` with a name that the machine can resolve.
//!
//! A name is looked up when the settings are loaded. Two addresses of one program must differ; [`excludes`] tells.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Beginning of every error about an address.
const EXPECTED: &str = "expected IP:PORT or NAME:PORT, such as 127.0.0.1:8080, [::]:8080 or localhost:8080";

/// Returns the address behind a text. Of the addresses of a name the first one of IP version 4 is used, if it has one.
///
/// # Errors
/// The expected form, with the reason if a name cannot be resolved.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if !is_name_and_port(text) {
        return Err(EXPECTED.to_owned());
    }
    let unresolved = |reason: String| format!("{EXPECTED}; the name cannot be resolved: {reason}");
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(|error| unresolved(error.to_string()))?.collect();
    preferred(&found).ok_or_else(|| unresolved("it has no address".to_owned()))
}

fn preferred(found: &[SocketAddr]) -> Option<SocketAddr> {
    found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
}

/// Returns true for a host name and a port. An address of numbers only is not looked up.
fn is_name_and_port(text: &str) -> bool {
    let Some((name, port)) = text.rsplit_once(':') else { return false };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    name.bytes().all(in_name) && name.bytes().any(|byte| byte.is_ascii_alphabetic()) && port.parse::<u16>().is_ok()
}

/// Returns true if only one of two addresses can be listened on. Port 0 selects a free port each time.
pub(super) fn excludes(one: SocketAddr, other: SocketAddr) -> bool {
    // The unspecified address of IP version 6 includes version 4.
    let covers = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    let (a, b) = (one.ip(), other.ip());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn name_is_resolved_and_prefers_version_four() {
        assert_eq!(parse_address("localhost:8080"), Ok("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(parse_address("[::1]:0"), Ok("[::1]:0".parse().unwrap()));
        for text in ["", "8080", ":8080", "local host:8080", "localhost", "localhost:70000", "127.0.0.999:1", "::1:8"] {
            assert_eq!(parse_address(text), Err(EXPECTED.to_owned()), "{text}");
        }
    }

    #[test]
    fn version_four_precedes_version_six() {
        let [four, six]: [SocketAddr; 2] = ["192.0.2.1:80", "[2001:db8::1]:80"].map(|text| text.parse().unwrap());
        for (found, expected) in [(&[six, four][..], Some(four)), (&[six], Some(six)), (&[], None)] {
            assert_eq!(preferred(found), expected, "{found:?}");
        }
    }

    #[test]
    fn equal_ports_exclude_each_other_on_one_address() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let [one, other] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!((excludes(one, other), excludes(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
