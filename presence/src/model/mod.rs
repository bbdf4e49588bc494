//! The shared vocabulary: nicknames, rooms, incarnations, sessions and the token that says who owns what.
//!
//! Every part of Parley speaks in these types, so a name that exists has been validated exactly once, here.
//! Both doors, both stores and the HTTP API build them; nothing here reads a clock or a socket.
//! Invariant: a [`Nick`] or [`RoomName`] in hand is valid, and its key is safe inside any Redis key.

pub mod codes;
pub mod keys;
pub mod stream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// Longest nickname, in grapheme clusters.
pub const NICK_GRAPHEMES: usize = 32;
/// Longest nickname, in bytes of UTF-8.
pub const NICK_BYTES: usize = 64;
/// Longest room name behind its `#`, in grapheme clusters.
pub const ROOM_GRAPHEMES: usize = 63;
/// Longest room name with its `#`, in bytes of UTF-8.
pub const ROOM_BYTES: usize = 128;

/// Characters that mean something to one of our doors (rooms, IRC, masks, keys) and so never stand in a name.
const RESERVED: &str = "#&:@+%~!,*?.$\"/\\{}";

/// Zero width non-joiner and joiner: the only default-ignorable characters that the PRECIS class lets through, in some
/// contexts. Two names must not differ by what nobody sees.
const JOINERS: &str = "\u{200C}\u{200D}";

/// What a key keeps as it is; all else is written `%XX`, so no name can carry a separator or a hash tag into a key.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Reason for a refused name. The text is safe to send to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An empty nickname, or a room with nothing after its `#`.
    #[error("the name is empty")]
    Empty,
    /// More graphemes or bytes than allowed.
    #[error("the name is too long")]
    TooLong,
    /// A room without `#`.
    #[error("a room name must begin with #")]
    NoHash,
    /// A forbidden character.
    #[error("the name contains a forbidden character")]
    Forbidden,
}

/// A nickname: shown as typed, unique by its [`NickKey`], compared across scripts by its skeleton.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nick {
    display: Arc<str>,
    key: NickKey,
    skeleton: Arc<str>,
}

impl Nick {
    /// Validates a nickname as a client typed it.
    ///
    /// The key is the case-mapped form of RFC 8265 section 3.3 (UsernameCaseMapped); the skeleton is that of UTS 39
    /// section 4 over the key.
    ///
    /// # Errors
    /// [`NameError`] names the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mapped = case_map(text, NICK_GRAPHEMES, NICK_BYTES)?;
        let skeleton: String = unicode_security::skeleton(&mapped).collect();
        Ok(Self { display: text.into(), key: NickKey(encode(&mapped)), skeleton: encode(&skeleton) })
    }

    /// The nickname as it is shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.display
    }

    /// The form that is unique in the cluster.
    #[must_use]
    pub fn key(&self) -> &NickKey {
        &self.key
    }

    /// The encoded confusable skeleton. For comparison only, never for display.
    #[must_use]
    pub fn skeleton(&self) -> &str {
        &self.skeleton
    }

    /// Whether the name is plain ASCII. Two such names conflict by case only, never by their skeletons.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.display.is_ascii()
    }
}

impl fmt::Display for Nick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// A room: `#` and a name, shown as first typed, one room per case-mapped key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoomName {
    display: Arc<str>,
    key: RoomKey,
}

impl RoomName {
    /// Validates a room name with its `#`.
    ///
    /// # Errors
    /// [`NameError`] names the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('#').ok_or(if text.is_empty() { NameError::Empty } else { NameError::NoHash })?;
        let mapped = case_map(name, ROOM_GRAPHEMES, ROOM_BYTES - 1)?;
        Ok(Self { display: text.into(), key: RoomKey(encode(&mapped)) })
    }

    /// The room as it is shown, with its `#`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.display
    }

    /// The form that names the room in the cluster.
    #[must_use]
    pub fn key(&self) -> &RoomKey {
        &self.key
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

fn case_map(text: &str, graphemes: usize, bytes: usize) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > bytes || text.graphemes(true).count() > graphemes {
        return Err(NameError::TooLong);
    }
    // The profile refuses white space, controls, bidi controls, default-ignorables and unassigned code points, which are
    // on our list, and more: symbols (emoji among them), compatibility forms other than wide and narrow ones, and what
    // breaks the bidi rule of RFC 5893. "Unassigned" is as of Unicode 6.3, so a later table never moves a key.
    let folded: String = text.chars().map(fold).collect();
    let mapped = UsernameCaseMapped::enforce(folded).map_err(|_| NameError::Forbidden)?;
    // Not before the mapping, which can turn a wide sign into a reserved one (U+FF03 into '#').
    if mapped.chars().any(|c| RESERVED.contains(c) || JOINERS.contains(c)) {
        return Err(NameError::Forbidden);
    }
    Ok(mapped.chars().map(fold).collect())
}

/// The two places where lowercase letters have more than one form or the profile knows none, settled as Unicode case
/// folding does: final sigma is sigma, and Cherokee is written in capitals, whose small letters are younger than the
/// profile. Without it `ΝΊΚΟΣ` would not be `νίκος`.
fn fold(c: char) -> char {
    match c {
        'ς' => 'σ',
        '\u{13F8}'..='\u{13FD}' | '\u{AB70}'..='\u{ABBF}' => c.to_uppercase().next().unwrap_or(c),
        _ => c,
    }
}

fn encode(mapped: &str) -> Arc<str> {
    utf8_percent_encode(mapped, PLAIN).to_string().into()
}

/// Defines a string newtype that is only made by our own code or read back from our own store. Cheap to clone: a node
/// knows each of its sessions and rooms in several places.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes back a value that our own store gave out. Never for what a client sent.
            #[must_use]
            pub fn from_store(text: &str) -> Self {
                Self(text.into())
            }

            /// The text of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

token!(
    /// The unique, encoded form of a nickname: ASCII letters, digits, `-`, `_` and `%XX`.
    NickKey
);
token!(
    /// The unique, encoded form of a room's name, without its `#`.
    RoomKey
);
token!(
    /// One life of one gateway process in the cluster: random, never used twice, fenced for good once it is fenced.
    Incarnation
);
token!(
    /// One session: the identity that owns a nickname, its rooms and its inbox.
    SessionId
);

/// What is kept of the secret that a client comes back to its session with: its SHA-256, in hex. Never shown, not even
/// by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(Arc<str>);

impl TokenHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// The text that stores keep and compare.
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
    /// A new random incarnation (128 bits).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }
}

impl SessionId {
    /// A new random session id (122 random bits).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }
}

/// The fencing number of a claim: grows with every claim in the cluster, so a later owner always has the higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// Who owns a nickname or a membership. Every change to what is owned is a compare on all three parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The gateway's incarnation.
    pub incarnation: Incarnation,
    /// The session on that gateway.
    pub session: SessionId,
    /// The fencing number of the claim.
    pub fence: Fence,
}

impl Owner {
    /// Whether this is the same claim as `other`, or a later one of its session.
    #[must_use]
    pub fn succeeds(&self, other: &Self) -> bool {
        self.session == other.session && self.fence >= other.fence
    }

    /// The owner as one token: what the stores keep and compare.
    #[must_use]
    pub fn token(&self) -> String {
        format!("{}/{}/{}", self.incarnation, self.session, self.fence.0)
    }
}

/// Whether a user is at the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Here.
    #[default]
    Online,
    /// Away from the keyboard.
    Away,
}

/// What a user says about themselves. The text is at most 256 bytes and holds no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Online or away.
    pub status: Availability,
    /// Free text, empty when none was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Longest status text, in bytes.
pub const STATUS_BYTES: usize = 256;

/// Why somebody left a room or went offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    /// They left the room.
    Left,
    /// Their connection ended.
    Closed,
    /// They fell silent.
    Timeout,
    /// Their gateway is gone.
    GatewayLost,
    /// They were thrown out.
    Kicked,
}

impl LeftReason {
    /// The word that goes over every wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::GatewayLost => "gateway_lost",
            Self::Kicked => "kicked",
        }
    }
}

/// What changed among the members of a room: published by the store's scripts, coalesced and shown by gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PresenceDelta {
    /// Who came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<MemberInfo>,
    /// Who went, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<MemberLeft>,
    /// Who goes by another name now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<Rename>,
    /// Whose status changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<MemberInfo>,
}

/// A member of a room as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberInfo {
    /// The nickname as it is shown.
    pub nick: String,
    /// What the member says about themselves.
    #[serde(flatten)]
    pub status: Status,
}

/// Somebody who left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLeft {
    /// The nickname as it was shown.
    pub nick: String,
    /// Why.
    pub reason: LeftReason,
}

/// A change of nickname.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The nickname before.
    pub from: String,
    /// The nickname now.
    pub to: String,
}

/// How much of a log is kept: what lies beyond a bound goes when something is said into the room or the inbox. A store that
/// trims in blocks may keep some messages more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest messages of a room, at most so many.
    pub messages: usize,
    /// Messages of a room that are at most this old.
    pub age: Duration,
    /// The newest messages of an inbox, at most so many.
    pub inbox_messages: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { messages: 10_000, age: Duration::from_secs(72 * 3600), inbox_messages: 1_000 }
    }
}

#[cfg(test)]
mod tests;
