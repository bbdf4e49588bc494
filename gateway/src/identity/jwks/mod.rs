//! Sets of keys (JWKS, RFC 7517), in a file or at a URL.
//!
//! [`parse_set`] reads a set, [`JwksCache`] keeps the one of a URL, [`fetch`] is one request. Invariant: a set that is
//! too large, malformed or without a usable key changes nothing: the keys of before stay in use.

mod cache;
mod fetch;
mod url;

use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::keys::{KeySet, VerificationKey};

pub(super) use self::cache::JwksCache;
pub use self::url::JwksUrl;

/// Maximum size of a set in bytes.
pub(super) const SET_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of keys of a set.
const KEYS_MAX: usize = 100;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Reads a set. Keys of other uses and algorithms are left out. `secrets`: true if it may contain shared secrets.
///
/// # Errors
/// A text for the log or the report of the settings, without a part of the set.
pub(super) fn parse_set(text: &str, secrets: bool) -> Result<KeySet, &'static str> {
    if text.len() > SET_BYTES_MAX {
        return Err("the set of keys is larger than 256 KiB");
    }
    let Document { keys } = serde_json::from_str(text).map_err(|_| "this is not a set of keys (RFC 7517)")?;
    if keys.len() > KEYS_MAX {
        return Err("the set has more than 100 keys");
    }
    let read = |key: &&RawValue| VerificationKey::of_jwk(&serde_json::from_str::<Jwk>(key.get()).ok()?, secrets);
    let keys = KeySet::new(keys.iter().filter_map(read).collect());
    if keys.is_empty() { Err("the set has no key with \"use\": \"sig\" of a known algorithm") } else { Ok(keys) }
}
