//! [`ApiAccess`]: the programs and web pages that may use the API, by the settings `api.keys`, `api.open_reads` and
//! `api.origins`.
//!
//! A key is an application's password with scopes. The settings have its SHA-256 only, so a leaked configuration opens
//! nothing. Invariant: a presented key is compared with every known one in constant time. Pure: headers are read in
//! `api/keys.rs` and `api/cors.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use sha2::{Digest, Sha256};

use crate::model::hex;

/// Permitted length of a key, in bytes. A shorter one could be found from its hash.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=256;
/// Maximum length of a key's name, in bytes.
const NAME_BYTES: usize = 32;
/// Random bytes of a new key.
const RANDOM_BYTES: usize = 32;
/// Prefix of a hash in the settings.
const HASH_PREFIX: &str = "sha256:";

/// What a key permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiScope {
    /// All reads: users, rooms, messages and events.
    Read,
    /// Messages and announcements, and changes of rooms and members.
    Publish,
    /// Kicks, bans and mutes, and deleting messages.
    Moderate,
}

impl ApiScope {
    /// Every scope.
    pub const ALL: &'static [Self] = &[Self::Read, Self::Publish, Self::Moderate];

    /// Returns its name in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Moderate => "moderate",
        }
    }
}

impl FromStr for ApiScope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let found = Self::ALL.iter().copied().find(|scope| scope.name() == text);
        found.ok_or("expected the scopes read, publish and moderate, joined by +")
    }
}

/// A key of the settings: name, scopes and hash. Two keys of one name belong to one application, so a key can be
/// replaced without a pause.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownKey {
    name: Arc<str>,
    scopes: Vec<ApiScope>,
    hash: [u8; 32],
}

impl KnownKey {
    /// Returns the name of the application.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns true if the key has this scope.
    #[must_use]
    pub fn has(&self, scope: ApiScope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Hides the hash.
impl fmt::Debug for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownKey").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Reads `NAME:SCOPE+SCOPE=sha256:HEX`.
impl FromStr for KnownKey {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, &'static str> {
        let form = "expected NAME:SCOPE+SCOPE=sha256:HEX";
        let (owner, hash) = word.split_once('=').ok_or(form)?;
        let (name, scopes) = owner.split_once(':').ok_or(form)?;
        check_name(name)?;
        let scopes = scopes.split('+').map(ApiScope::from_str).collect::<Result<Vec<_>, _>>()?;
        let hash =
            hash.strip_prefix(HASH_PREFIX).and_then(from_hex).ok_or("expected sha256: and 64 hexadecimal digits")?;
        Ok(Self { name: name.into(), scopes, hash })
    }
}

impl fmt::Display for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.name()).collect();
        write!(f, "{}:{}={HASH_PREFIX}{}", self.name, scopes.join("+"), hex(&self.hash))
    }
}

/// A key's name is also the sender's name of messages without another one, so it is a valid nickname.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_valid = (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain);
    is_valid.then_some(()).ok_or("expected a name of 1 to 32 letters, digits, - and _")
}

/// A new key in clear text, shown once, with its row of `api.keys`.
#[allow(missing_debug_implementations, reason = "its text is a secret")]
pub struct NewKey {
    /// The key, which its application keeps.
    pub secret: String,
    /// The row of the settings.
    pub known: KnownKey,
}

impl NewKey {
    /// Draws a key of 256 random bits.
    ///
    /// # Errors
    /// The name is not valid, there is no scope, or the system has no random numbers.
    pub fn draw(name: &str, scopes: &[ApiScope]) -> Result<Self, &'static str> {
        check_name(name)?;
        if scopes.is_empty() {
            return Err("a key needs a scope: read, publish or moderate");
        }
        let mut random = [0; RANDOM_BYTES];
        rand::fill(&mut random).map_err(|_| "the system has no random numbers")?;
        let secret = hex(&random);
        let known = KnownKey { name: name.into(), scopes: scopes.to_vec(), hash: hash(&secret) };
        Ok(Self { secret, known })
    }
}

/// The access rules of an API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiAccess {
    /// `api.keys`. Never empty beyond loopback, which the settings check.
    pub keys: Vec<KnownKey>,
    /// `api.open_reads`: reads need no key although there are keys.
    pub open_reads: bool,
    /// `api.origins`.
    pub origins: Vec<ApiOrigin>,
}

impl ApiAccess {
    /// Returns true if every request needs a key, as beyond loopback.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.keys.is_empty() && !self.open_reads
    }

    /// Returns the known key that equals the presented one. The time it takes depends on no key.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<&KnownKey> {
        if !KEY_BYTES.contains(&presented.len()) {
            return None;
        }
        let presented = hash(presented);
        let mut found = None;
        for key in &self.keys {
            // No early end: the position of a key must not show.
            if verify_slices_are_equal(&key.hash, &presented).is_ok() {
                found = Some(key);
            }
        }
        found
    }

    /// Returns true if a key that was found earlier is still known with this scope.
    #[must_use]
    pub fn still_has(&self, found: &KnownKey, scope: ApiScope) -> bool {
        self.keys.iter().any(|key| key.hash == found.hash && key.has(scope))
    }

    /// Returns true if reads need no key.
    #[must_use]
    pub fn are_reads_open(&self) -> bool {
        self.keys.is_empty() || self.open_reads
    }

    /// Returns true if web pages of this origin may read answers.
    #[must_use]
    pub fn admits(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known.0 == "*" || known.0.eq_ignore_ascii_case(origin))
    }
}

/// A web page's origin, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiOrigin(String);

impl ApiOrigin {
    /// Returns it as in the settings.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_host = |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        let is_valid = text == "*" || host.is_some_and(is_host);
        is_valid.then(|| Self(text.to_owned())).ok_or("expected *, or an origin such as https://app.example.org")
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn new_key_is_found_by_its_hash() {
        let (first, second) = (NewKey::draw("app", &[ApiScope::Read]).unwrap(), NewKey::draw("app", ApiScope::ALL));
        let second = second.unwrap();
        assert_ne!(first.secret, second.secret);
        let words = [&first, &second].map(|key| key.known.to_string());
        let keys = words.iter().map(|word| word.parse().unwrap()).collect();
        let access = ApiAccess { keys, ..ApiAccess::default() };
        let found = access.find(&first.secret).unwrap();
        assert!(found.has(ApiScope::Read) && !found.has(ApiScope::Publish), "{found:?}");
        assert!(access.find(&second.secret).unwrap().has(ApiScope::Moderate));
        for wrong in ["", &first.secret[1..], &first.secret.to_uppercase(), &"0".repeat(64), &"0".repeat(257)] {
            assert!(access.find(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn short_key_is_never_accepted() {
        let hash = hex(&hash("hunter2"));
        let access = ApiAccess { keys: vec![format!("a:read=sha256:{hash}").parse().unwrap()], ..ApiAccess::default() };
        assert!(access.find("hunter2").is_none());
    }

    #[test]
    fn malformed_keys_name_their_fault() {
        let hash = "ab".repeat(32);
        for (word, fault) in [
            (String::new(), "NAME:SCOPE"),
            (format!("app=sha256:{hash}"), "NAME:SCOPE"),
            (format!("a b:read=sha256:{hash}"), "1 to 32 letters"),
            (format!(":read=sha256:{hash}"), "1 to 32 letters"),
            (format!("{}:read=sha256:{hash}", "a".repeat(33)), "1 to 32 letters"),
            (format!("app:=sha256:{hash}"), "scopes"),
            (format!("app:read+write=sha256:{hash}"), "scopes"),
            (format!("app:read={hash}"), "64 hexadecimal"),
            (format!("app:read=sha256:{}", &hash[2..]), "64 hexadecimal"),
            (format!("app:read=sha256:{}", "é".repeat(32)), "64 hexadecimal"),
        ] {
            let error = word.parse::<KnownKey>().unwrap_err();
            assert!(error.contains(fault), "{word}: {error}");
        }
    }

    #[test]
    fn origins_match_in_any_case_and_whole() {
        let origins = vec!["https://app.example.org".parse().unwrap()];
        let access = ApiAccess { origins, ..ApiAccess::default() };
        assert!(access.admits("https://App.example.org"));
        for other in ["null", "https://app.example.org.evil", "http://app.example.org", ""] {
            assert!(!access.admits(other), "{other}");
        }
        let open = ApiAccess { origins: vec!["*".parse().unwrap()], ..ApiAccess::default() };
        assert!(open.admits("https://any.example"));
        for bad in ["app.example.org", "https://", "https://a/b", "ftp://a", ""] {
            assert!(bad.parse::<ApiOrigin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_text_hides_the_hash() {
        let new = NewKey::draw("app", &[ApiScope::Read]).unwrap();
        assert!(!format!("{:?}", new.known).contains(&hex(&hash(&new.secret))));
    }
}
