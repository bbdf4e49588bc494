//! [`UsageKey`]: the name of an address or a user in the usage that gateways report to each other.
//!
//! Invariant: equal on all gateways of a cluster, and the store learns neither addresses nor users from it directly. It
//! is a pseudonym and no secret: who reads the store can try all IPv4 addresses.

use std::fmt;

use sha2::{Digest, Sha256};

/// A hash of the cluster's name and of an address or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey(u64);

impl UsageKey {
    /// Returns the key of `name` among names of this `kind`.
    #[must_use]
    pub fn of(cluster: &str, kind: &str, name: &str) -> Self {
        let digest = Sha256::new().chain_update(format!("{}:{cluster}:{kind}:{name}", cluster.len())).finalize();
        Self(digest.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)))
    }

    /// Returns the key of a text that [`UsageKey`] has written; `None` for any other.
    #[must_use]
    pub fn from_store(text: &str) -> Option<Self> {
        let is_key = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_key.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for UsageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_depends_on_cluster_kind_and_name() {
        let key = UsageKey::of("parley", "address", "198.51.100.1");
        assert_eq!(key.to_string(), UsageKey::of("parley", "address", "198.51.100.1").to_string());
        for other in [("parley2", "address", "198.51.100.1"), ("parley", "user", "198.51.100.1"), ("p", "address", "x")]
        {
            assert_ne!(key, UsageKey::of(other.0, other.1, other.2));
        }
        assert_eq!(UsageKey::from_store(&key.to_string()), Some(key));
        assert_eq!(["", "0", "+000000000000001", "000000000000000g"].map(UsageKey::from_store), [None; 4]);
    }
}
