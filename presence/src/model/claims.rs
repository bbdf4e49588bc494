//! Claims: incarnations, sessions, fences and the owner that combines them.
//!
//! A claim states which session of which gateway owns a nickname or a membership ([`Owner`]). Invariant: ids are random
//! and never used twice, and fences only grow. Nothing here decides which claim is valid; the registry does.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hex;
use super::token::token;

token!(
    /// One life of a gateway under one node id: random, never used twice, and never valid again once fenced.
    Incarnation
);
token!(
    /// Id of a session, which owns a nickname, its rooms and its inbox.
    SessionId
);

/// SHA-256 of the resume token of a session, in hex. Never displayed, not even by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(Arc<str>);

impl TokenHash {
    /// Hashes a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        use sha2::Digest;
        Self(hex(&sha2::Sha256::digest(secret)).into())
    }

    /// The hash of a session without a token, which ends with its connection. No secret has it.
    #[must_use]
    pub fn none() -> Self {
        Self("".into())
    }

    /// Returns true for a session that no client can resume.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text that stores keep and compare.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl Incarnation {
    /// Returns a new random incarnation (122 random bits).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }
}

impl SessionId {
    /// Returns a new random session id (122 random bits).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }
}

/// The first part of the tokens of [`Owner::of_api`], also in `registry/messages/prelude.lua`.
const API_INCARNATION: &str = "api";

/// The fence of a claim: a number that grows with every claim in the cluster, so a later owner always has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// Owner of a nickname or a membership. Every change of an owned record compares all three parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The gateway's incarnation.
    pub incarnation: Incarnation,
    /// The session on that gateway.
    pub session: SessionId,
    /// The claim's number.
    pub fence: Fence,
}

impl Owner {
    /// Returns true if this is the same claim as `other`, or a later one of the same session.
    #[must_use]
    pub fn succeeds(&self, other: &Self) -> bool {
        self.session == other.session && self.fence >= other.fence
    }

    /// Returns the owner of messages of the server API, by the name of the application's key. It has no lease and no
    /// session: scripts and the memory arm know it by its incarnation, which no gateway has.
    #[must_use]
    pub fn of_api(application: &str) -> Self {
        Self {
            incarnation: Incarnation(API_INCARNATION.into()),
            session: SessionId(format!("*{application}").into()),
            fence: Fence(0),
        }
    }

    /// Returns true for an owner of messages of the server API.
    #[must_use]
    pub fn is_api(&self) -> bool {
        self.incarnation.as_str() == API_INCARNATION
    }

    /// Returns the owner as one text, which the stores keep and compare.
    #[must_use]
    pub fn token(&self) -> String {
        format!("{}/{}/{}", self.incarnation, self.session, self.fence.0)
    }
}
