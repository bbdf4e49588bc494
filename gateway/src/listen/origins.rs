//! [`AllowedOrigins`]: the web pages that may open a WebSocket.
//!
//! Browsers send the [`WebOrigin`] of a page with each handshake, and no page can change it. Invariant: an origin that
//! is not exactly a scheme, a host and a port is refused, and so is `null`. Pure: it reads headers and answers nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};
use hyper::http::uri::Authority;

/// The word of `listen.origins` that admits every origin.
const ANY: &str = "*";
/// The error of a word in `listen.origins`.
const EXPECTED: &str =
    "expected * or origins as browsers send them, such as https://chat.example.org or http://localhost:8080";

/// Scheme, host and port of a web page. The host is in lower case, and a default port is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Returns the port that a scheme has without a number.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Splits `HOST` or `HOST:PORT` without user information. The host is in lower case.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let rest = text.strip_prefix(host).filter(|_| !host.is_empty())?;
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        None if rest.is_empty() => None,
        _ => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

impl FromStr for WebOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, authority) = text.split_once("://").ok_or(EXPECTED)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if scheme.is_empty() || !scheme.chars().all(is_plain) {
            return Err(EXPECTED);
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority).ok_or(EXPECTED)?;
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A word of `listen.origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginWord {
    /// Every origin.
    Any,
    /// One origin.
    One(WebOrigin),
}

impl FromStr for OriginWord {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY { Ok(Self::Any) } else { text.parse().map(Self::One) }
    }
}

/// `listen.origins`: the origins that may connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowedOrigins {
    /// The origin whose host and port the request itself names: pages of this gateway, or of the proxy before it.
    #[default]
    SameHost,
    /// These origins.
    Listed(Arc<[WebOrigin]>),
    /// All origins but `null`.
    Any,
}

impl From<Vec<OriginWord>> for AllowedOrigins {
    fn from(words: Vec<OriginWord>) -> Self {
        if words.is_empty() {
            return Self::SameHost;
        }
        let origin = |word| match word {
            OriginWord::Any => None,
            OriginWord::One(origin) => Some(origin),
        };
        words.into_iter().map(origin).collect::<Option<_>>().map_or(Self::Any, Self::Listed)
    }
}

impl AllowedOrigins {
    /// Returns the words of the setting, for display.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::SameHost => Vec::new(),
            Self::Listed(origins) => origins.iter().map(ToString::to_string).collect(),
            Self::Any => vec![ANY.to_owned()],
        }
    }

    /// Returns true if a page of the request's origin may connect. A request without an origin comes from no page;
    /// several origins are refused. `scheme` is that of the page if a proxy has named it.
    pub(super) fn admit(&self, headers: &HeaderMap, scheme: Option<&str>) -> bool {
        let mut sent = headers.get_all(ORIGIN).iter();
        let origin = match (sent.next(), sent.next()) {
            (None, _) => return true,
            (Some(origin), None) => origin.to_str().ok().and_then(|text| text.parse::<WebOrigin>().ok()),
            (Some(_), Some(_)) => None,
        };
        let Some(origin) = origin else { return false };
        match self {
            Self::SameHost => is_same_host(&origin, headers, scheme),
            Self::Listed(origins) => origins.contains(&origin),
            Self::Any => true,
        }
    }
}

/// Returns true for the origin of a page that the same host serves. Without a known scheme a `Host` without a port has
/// the default port of the origin's scheme.
fn is_same_host(origin: &WebOrigin, headers: &HeaderMap, scheme: Option<&str>) -> bool {
    let default = default_port(&origin.scheme);
    let host = headers.get(HOST).and_then(|host| host_and_port(host.to_str().ok()?.trim_end_matches(':')));
    let is_scheme = default.is_some() && scheme.is_none_or(|scheme| scheme == origin.scheme);
    is_scheme && host.is_some_and(|(host, port)| host == origin.host && port.or(default) == origin.port.or(default))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hyper::header::HeaderValue;

    use super::*;

    fn allowed(words: &[&str]) -> AllowedOrigins {
        words.iter().map(|word| word.parse().unwrap()).collect::<Vec<OriginWord>>().into()
    }

    fn request(host: &str, origins: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        origins.iter().for_each(|origin| {
            headers.append(ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).unwrap());
        });
        headers
    }

    #[test]
    fn same_host_is_compared_exactly() {
        let same = allowed(&[]);
        for (host, origin, admitted) in [
            ("chat.example.org", "https://chat.example.org", true),
            ("chat.example.org", "http://chat.example.org", true),
            ("chat.example.org", "HTTPS://Chat.Example.ORG", true),
            ("CHAT.example.org", "https://chat.example.org", true),
            ("chat.example.org", "https://chat.example.org:443", true),
            ("chat.example.org:443", "https://chat.example.org", true),
            ("chat.example.org:", "https://chat.example.org", true),
            ("chat.example.org:8443", "https://chat.example.org:8443", true),
            ("127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("[2001:DB8::1]", "https://[2001:db8::1]", true),
            ("xn--bcher-kva.example", "https://xn--bcher-kva.example", true),
            ("chat.example.org.", "https://chat.example.org.", true),
            ("chat.example.org", "https://chat.example.org.", false),
            ("chat.example.org.", "https://chat.example.org", false),
            ("chat.example.org", "https://evil.example", false),
            ("chat.example.org", "https://chat.example.org.evil.example", false),
            ("chat.example.org", "https://evilchat.example.org", false),
            ("chat.example.org", "https://chat.example.orgevil", false),
            ("chat.example.org", "https://example.org", false),
            ("chat.example.org", "https://chat.example.org:8443", false),
            ("chat.example.org:8443", "https://chat.example.org", false),
            ("chat.example.org:443", "http://chat.example.org", false),
            ("chat.example.org:80", "https://chat.example.org", false),
            ("chat.example.org", "https://ann@chat.example.org", false),
            ("chat.example.org", "https://chat.example.org@evil.example", false),
            ("chat.example.org", "https://chat.example.org/", false),
            ("chat.example.org", "https://chat.example.org?a", false),
            ("chat.example.org", "https://chat.example.org https://evil.example", false),
            ("chat.example.org", "https://chat.example.org, https://evil.example", false),
            ("chat.example.org", "https://chat.example.org:", false),
            ("chat.example.org", "https://chat.example.org:+443", false),
            ("chat.example.org", "https://chat.example.org:99999", false),
            ("chat.example.org", "https://", false),
            ("chat.example.org", "//chat.example.org", false),
            ("chat.example.org", "chat.example.org", false),
            ("chat.example.org", "file://chat.example.org", false),
            ("chat.example.org", "ws://chat.example.org", false),
            ("chat.example.org", "*", false),
            ("chat.example.org", "null", false),
            ("null", "null", false),
            ("chat.example.org", "", false),
            ("bücher.example", "https://xn--bcher-kva.example", false),
            ("xn--bcher-kva.example", "https://bücher.example", false),
            ("[::1]:8080", "http://[::1]:80", false),
            ("[::1]", "http://::1", false),
            ("[::1]", "http://[::1", false),
        ] {
            assert_eq!(same.admit(&request(host, &[origin]), None), admitted, "{host} {origin}");
        }
    }

    #[test]
    fn known_scheme_must_match_the_origin() {
        let (same, secure) = (allowed(&[]), request("h", &["https://h"]));
        for (scheme, admitted) in [(None, true), (Some("https"), true), (Some("http"), false)] {
            assert_eq!(same.admit(&secure, scheme), admitted, "{scheme:?}");
        }
        assert!(allowed(&["https://h"]).admit(&secure, Some("http")), "a listed origin names its own scheme");
    }

    #[test]
    fn listed_origins_are_compared_exactly() {
        let listed = allowed(&["https://Chat.example.org:443", "http://localhost:8080", "app://phone"]);
        assert_eq!(listed.words(), ["https://chat.example.org", "http://localhost:8080", "app://phone"]);
        for (origin, admitted) in [
            ("https://chat.example.org", true),
            ("https://CHAT.example.org:443", true),
            ("http://localhost:8080", true),
            ("app://phone", true),
            ("http://chat.example.org", false),
            ("https://chat.example.org:80", false),
            ("http://localhost", false),
            ("https://parley", false),
            ("https://chat.example.org.evil.example", false),
            ("null", false),
        ] {
            assert_eq!(listed.admit(&request("parley", &[origin]), None), admitted, "{origin}");
        }
    }

    #[test]
    fn null_and_repeated_origins_are_always_refused() {
        for words in [&[][..], &["*"], &["https://h"], &["https://h", "*"]] {
            let origins = allowed(words);
            assert!(origins.admit(&request("h", &[]), None), "{words:?}: a client without an origin is not a page");
            assert!(origins.admit(&request("h", &["https://h"]), None), "{words:?}");
            assert!(!origins.admit(&request("h", &["null"]), None), "{words:?}");
            assert!(!origins.admit(&request("h", &["https://h", "https://h"]), None), "{words:?}");
            let is_any = words.contains(&ANY);
            assert_eq!(origins.admit(&request("h", &["https://evil.example"]), None), is_any, "{words:?}");
        }
    }
}
