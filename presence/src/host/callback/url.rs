//! [`CallbackUrl`]: an address of an application, `http://` or `https://`.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

use super::address::is_near;

/// Maximum length of an address, in bytes.
const URL_BYTES: usize = 2048;

/// An address of an application. Its text forms hide path and query, which may contain a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Uri);

impl CallbackUrl {
    /// Returns the host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// Returns true for `https://`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Returns true if the host is an address of this machine or its network link, or a name for one.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let host = self.host().trim_end_matches('.').to_ascii_lowercase();
        host.parse().map_or_else(|_| host == "localhost" || host.ends_with(".localhost"), is_near)
    }

    /// Returns host and port as in the header `Host`.
    pub(super) fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// Returns path and query.
    pub(super) fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl FromStr for CallbackUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected https://HOST/PATH or http://HOST/PATH";
        if text.len() > URL_BYTES {
            return Err("the address is longer than 2048 bytes");
        }
        let uri: Uri = text.parse().map_err(|_| expected)?;
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if !has_host || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(expected);
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("the address must not contain credentials");
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.path() == "/" { "" } else { "***" };
        write!(f, "{}://{}/{rest}", self.0.scheme_str().unwrap_or_default(), self.authority())
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn address_is_parsed_and_hides_its_path() {
        for (text, host, port, shown) in [
            ("https://a.example/h?key=1", "a.example", 443, "https://a.example/***"),
            ("http://a.example:8080", "a.example", 8080, "http://a.example:8080/"),
            ("https://[2001:db8::1]/x", "2001:db8::1", 443, "https://[2001:db8::1]/***"),
            ("https://a.example/?key=1", "a.example", 443, "https://a.example/***"),
        ] {
            let url: CallbackUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.to_string().as_str()), (host, port, shown), "{text}");
        }
    }

    #[test]
    fn address_of_this_machine_is_near() {
        let near = |host: &str| format!("http://{host}:1/x").parse::<CallbackUrl>().unwrap().is_near();
        for host in ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "app.localhost", "[::1]", "169.254.169.254"] {
            assert!(near(host), "{host}");
        }
        for host in ["10.0.0.1", "a.example", "localhost.example", "[2001:db8::1]"] {
            assert!(!near(host), "{host}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_a_reason() {
        let long = format!("https://a.example/{}", "x".repeat(3000));
        for text in ["", "/h", "a.example", "ftp://a.example/", "file:///etc", "https://u:p@a.example/", &long] {
            assert!(text.parse::<CallbackUrl>().is_err(), "{text:.30}");
        }
    }
}
