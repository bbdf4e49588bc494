//! [`Grant`]: what a verified token grants to its bearer.
//!
//! A value with pure questions. A token without `rooms` limits nothing; one with `rooms` allows only what a rule of it
//! names. Rights that this version does not know grant nothing.

use std::borrow::Cow;
use std::sync::Arc;

use presence::model::{Nick, RoomName, RoomPattern, UserId, is_printable_text};
use serde::{Deserialize, Deserializer};

use super::fault::TokenFault;
use super::keys::KeyFingerprint;

/// Maximum length of the claim `name`, in bytes.
const NAME_BYTES: usize = 255;

/// A right in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomRight {
    /// To join, and to list the members.
    Join,
    /// To send messages and typing notices.
    Send,
    /// To read the history.
    History,
    /// To moderate as the room's own moderators do.
    Moderate,
}

impl RoomRight {
    fn of_claim(word: &str) -> Option<Self> {
        match word {
            "join" => Some(Self::Join),
            "send" => Some(Self::Send),
            "history" => Some(Self::History),
            "moderate" => Some(Self::Moderate),
            _ => None,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Rights in a set of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRule {
    rooms: RoomPattern,
    rights: u8,
}

impl RoomRule {
    /// Creates a rule.
    #[must_use]
    pub fn new(rooms: RoomPattern, rights: impl IntoIterator<Item = RoomRight>) -> Self {
        Self { rooms, rights: rights.into_iter().fold(0, |all, right| all | right.bit()) }
    }
}

/// The rights and names that a token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The claim `sub`.
    pub user: UserId,
    /// The only nickname that the bearer may have, if the token names one.
    pub nick: Option<Nick>,
    /// The name to show, of a token that has one.
    pub name: Option<Box<str>>,
    /// The rules for rooms; `None` allows everything.
    pub rooms: Option<Box<[RoomRule]>>,
    /// The roles.
    pub roles: Box<[Box<str>]>,
    /// The tags.
    pub tags: Arc<[Box<str>]>,
    /// The time of its expiry, in Unix seconds.
    pub expires: u64,
    /// The time of its issue, in Unix milliseconds; 0 if the token does not tell.
    pub issued: u64,
    /// The key that verified the token.
    pub key: KeyFingerprint,
}

impl Grant {
    /// Reads the claims of a token whose signature, issuer, audience and time are verified, by this key.
    ///
    /// # Errors
    /// [`TokenFault::BadClaim`]: a claim is missing or malformed.
    pub fn of_claims(json: &str, key: KeyFingerprint) -> Result<Self, TokenFault> {
        let claims: Claims<'_> = serde_json::from_str(json).map_err(|_| TokenFault::BadClaim("of this gateway"))?;
        claims.grant(key)
    }

    /// Returns true if the bearer has a right in a room.
    #[must_use]
    pub fn may(&self, room: &RoomName, right: RoomRight) -> bool {
        self.rooms.as_ref().is_none_or(|rules| {
            rules.iter().any(|rule| rule.rights & right.bit() != 0 && rule.rooms.matches(room.key()))
        })
    }

    /// Returns true if a rule of the token names a right in a room. A token without rules names none.
    #[must_use]
    pub fn names(&self, room: &RoomName, right: RoomRight) -> bool {
        self.rooms.is_some() && self.may(room, right)
    }
}

/// The claims of a token, before the check of their values. A claim that is given twice is an error.
#[derive(Debug, Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    exp: f64,
    iat: Option<f64>,
    nick: Option<Cow<'a, str>>,
    name: Option<Box<str>>,
    /// `null` is an error: it must not grant what a list would not.
    #[serde(default, deserialize_with = "present")]
    rooms: Option<Vec<RuleClaim>>,
    #[serde(default)]
    roles: Box<[Box<str>]>,
    #[serde(default)]
    tags: Box<[Box<str>]>,
}

#[derive(Debug, Deserialize)]
struct RuleClaim {
    #[serde(rename = "match")]
    rooms: String,
    may: Vec<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<RuleClaim>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

impl Claims<'_> {
    /// Checks the values of a token that this key has verified.
    fn grant(self, key: KeyFingerprint) -> Result<Grant, TokenFault> {
        let bad = TokenFault::BadClaim;
        let nick = self.nick.map(|nick| Nick::parse(&nick)).transpose().map_err(|_| bad("nick"))?;
        if self.name.as_ref().is_some_and(|name| !is_printable_text(name, NAME_BYTES)) {
            return Err(bad("name"));
        }
        let rule = |RuleClaim { rooms, may }| {
            let rooms = RoomPattern::parse(&rooms).map_err(|_| bad("rooms"))?;
            Ok(RoomRule::new(rooms, may.iter().filter_map(|word| RoomRight::of_claim(word))))
        };
        Ok(Grant {
            user: UserId::parse(&self.sub).ok_or(bad("sub"))?,
            nick,
            name: self.name,
            rooms: self.rooms.map(|rules| rules.into_iter().map(rule).collect()).transpose()?,
            roles: self.roles,
            tags: self.tags.into(),
            // A number beyond the range becomes its limit.
            expires: self.exp as u64,
            issued: self.iat.map_or(0, |seconds| (seconds * 1000.0) as u64),
            key,
        })
    }
}
