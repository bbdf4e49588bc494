//! [`RedisUrl`]: the address of Redis, and the only setting that may contain a password.

use std::fmt;
use std::str::FromStr;

/// Address of Redis. Its text forms hide the credentials; only [`RedisUrl::reveal`] returns them.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Returns the whole URL, credentials included: for connecting, never for display.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns true for `rediss://`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("rediss://")
    }

    /// Returns the address for operators: without scheme, credentials and a last slash.
    #[must_use]
    pub fn shown_address(&self) -> String {
        let shown = self.to_string();
        let address = shown.split_once("://").map_or(shown.as_str(), |(_, address)| address);
        address.trim_start_matches("***@").trim_end_matches('/').to_owned()
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "rediss" if text.contains('#') => {
                return Err("#insecure is not supported: every certificate of Redis is verified. \
                            Name its authority in redis.tls_ca"
                    .to_owned());
            }
            "redis" | "rediss" => {}
            "redis+sentinel" | "rediss+sentinel" | "redis-sentinel" | "redis+cluster" | "rediss+cluster"
            | "redis-cluster" | "redis+unix" | "unix" => {
                return Err(format!("{scheme}:// is not supported: expected redis://HOST:PORT or rediss://HOST:PORT"));
            }
            _ => return Err("expected redis://HOST:PORT or rediss://HOST:PORT".to_owned()),
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected printable ASCII without spaces; write anything else as %XX".to_owned());
        }
        crate::store::redis::check_url(text).map_err(|error| {
            let reason = error.to_string();
            // The detail may quote a part of the address.
            error.detail().and_then(|detail| reason.strip_suffix(&format!(": {detail}"))).unwrap_or(&reason).to_owned()
        })?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redacted(&self.0))
    }
}

/// Shows scheme, host, port and database of an address; hides everything else, credentials and query included. A part
/// that is not well-formed may be a misplaced secret, so it is hidden too.
pub(super) fn redacted(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return "***".to_owned();
    };
    let (hidden, rest) = match rest.rsplit_once('@') {
        // The part after the `@` may be the end of a secret in a path or query.
        Some((credentials, _)) if credentials.contains(['/', '?', '#']) => return format!("{scheme}://***"),
        Some((_, host)) => ("***@", host),
        None => ("", rest),
    };
    let (rest, query) = rest.split_once(['?', '#']).map_or((rest, ""), |(rest, _)| (rest, "?***"));
    let (address, database) = rest.split_once('/').map_or((rest, None), |(address, path)| (address, Some(path)));
    let address = if is_address(address) { address } else { "***" };
    let database = match database {
        None => String::new(),
        Some(number) if number.len() <= 4 && number.bytes().all(|byte| byte.is_ascii_digit()) => format!("/{number}"),
        Some(_) => "/***".to_owned(),
    };
    format!("{scheme}://{hidden}{address}{database}{query}")
}

fn is_scheme(text: &str) -> bool {
    let known = ["redis", "rediss", "redis-sentinel", "redis-cluster", "unix", "http", "https", "tcp", "valkey"];
    text.split('+').all(|part| known.contains(&part) || ["sentinel", "cluster"].contains(&part))
}

/// Returns true for `HOST` and `HOST:PORT`.
fn is_address(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or("?"))),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_host = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}
