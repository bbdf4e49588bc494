//! [`JwksUrl`]: the address of a set of keys, with the rule for addresses without TLS.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// Address of a set of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl(String);

impl JwksUrl {
    /// Parses an address. Without TLS only this machine is allowed, unless `plain_http` is set, because the answer
    /// decides about every user.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn parse(text: &str, plain_http: bool) -> Result<Self, &'static str> {
        let expected = "expected https://HOST/PATH";
        let uri: Uri = text.parse().map_err(|_| expected)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(expected)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("the address must not contain credentials");
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self(text.to_owned())),
            Some("http") if plain_http || is_loopback(host) => Ok(Self(text.to_owned())),
            Some("http") => Err("http:// is allowed only to this machine: use https://, or set auth.jwks_plain_http"),
            _ => Err(expected),
        }
    }

    /// Returns the address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_needs_loopback_or_its_setting() {
        for (text, safe, plain) in [
            ("https://id.example.org/keys", true, true),
            ("http://127.0.0.1:8000/keys", true, true),
            ("http://[::1]/keys", true, true),
            ("http://localhost/keys", true, true),
            ("http://id.example.org/keys", false, true),
            ("http://localhost.example.org/", false, true),
            ("http://127.0.0.1.example.org/", false, true),
            ("https://user:secret@id.example.org/", false, false),
            ("http://127.0.0.1@id.example.org/", false, false),
            ("ftp://127.0.0.1/", false, false),
            ("file:///etc/passwd", false, false),
            ("/keys", false, false),
            ("https://", false, false),
            ("", false, false),
        ] {
            assert_eq!(JwksUrl::parse(text, false).is_ok(), safe, "{text}");
            assert_eq!(JwksUrl::parse(text, true).is_ok(), plain, "{text}");
        }
    }
}
