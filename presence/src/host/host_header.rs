//! The check of the `Host` of HTTP requests, which is the same on every port.
//!
//! A proxy and a server that read different hosts in one request disagree about its meaning, so a missing, repeated or
//! malformed host is refused (RFC 9112 section 3.2). Pure: it reads headers and answers nothing.

use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, Version, header};

/// Returns true if a request names one valid host. A request of HTTP/1.0 may name none.
#[must_use]
pub fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
        (None, _) => request.version() == Version::HTTP_10,
    }
}

/// Returns true for a host with or without a port. The parser accepts user information and any text as a port.
fn is_host(value: &HeaderValue) -> bool {
    let Some(authority) = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).filter(|_| !host.is_empty());
    port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Returns true for a port, which may be empty (RFC 3986 section 3.2.3).
fn is_port(digits: &str) -> bool {
    digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Returns the verdict about a request with these hosts.
    fn accepts(version: Version, hosts: &[&str]) -> bool {
        let request = Request::builder().version(version);
        let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
        names_one_host(&request.body(()).unwrap())
    }

    #[test]
    fn only_a_host_with_a_port_is_accepted() {
        for host in ["parley", "parley:", "parley:8080", "parley:65535", "127.0.0.1:80", "[::1]", "[::1]:80"] {
            assert!(accepts(Version::HTTP_11, &[host]), "{host:?}");
        }
        for host in [
            "", ":80", "h:65536", "h:99999", "h:8a", "h:+80", "h:-1", "a:b:80", "[::1]80", "ann@h", "h/", "h?", "h#a",
            "a b", "http://h",
        ] {
            assert!(!accepts(Version::HTTP_11, &[host]), "{host:?}");
        }
    }

    #[test]
    fn every_request_names_at_most_one_host() {
        assert!(!accepts(Version::HTTP_11, &[]) && accepts(Version::HTTP_10, &[]));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(!accepts(version, &["parley", "parley"]) && !accepts(version, &["parley:x"]), "{version:?}");
        }
    }
}
