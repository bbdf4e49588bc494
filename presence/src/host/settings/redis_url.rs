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
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" => {}
            "rediss" | "redis+sentinel" | "rediss+sentinel" | "redis-sentinel" | "redis+cluster" | "rediss+cluster"
            | "redis-cluster" | "redis+unix" | "unix" => {
                return Err(format!("{scheme}:// is not supported: expected a plain redis://HOST:PORT"));
            }
            _ => return Err("expected redis://HOST:PORT".to_owned()),
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected printable ASCII without spaces; write anything else as %XX".to_owned());
        }
        crate::store::redis::check_url(text).map_err(|error| error.to_string())?;
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

/// Hides everything between the scheme and the last `@`, and the query. Of text that is not a URL it hides more, not
/// less.
pub(super) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.is_empty() { String::new() } else { "***".to_owned() };
    };
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    format!("{scheme}://{hidden}{rest}{query}")
}
