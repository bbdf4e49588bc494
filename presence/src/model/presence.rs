//! Presence of users: status, members of rooms and their changes, in the form of the wire and of the store.
//!
//! The store publishes a [`PresenceDelta`] for each change; gateways collect them for their clients. Pure data.

use serde::{Deserialize, Serialize};

use super::UserId;
use super::moderation::Moderation;

/// Availability of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// At the keyboard.
    #[default]
    Online,
    /// Away from the keyboard.
    Away,
}

impl Availability {
    /// Returns the word used on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
        }
    }
}

/// Status of a user. The text is at most 256 bytes of free text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Online or away.
    pub status: Availability,
    /// Free text, empty if not set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Maximum length of a status text, in bytes.
pub const STATUS_BYTES: usize = 256;

/// Reason why a user left a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftReason {
    /// The user left the room.
    Left,
    /// The connection ended.
    Closed,
    /// Nothing was received for too long.
    Timeout,
    /// The gateway was fenced.
    GatewayLost,
    /// An operator ended the session.
    Kicked,
}

impl LeftReason {
    /// Returns the word used on the wire.
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

/// Reason why a user went offline, as in the events of operators. Members of its rooms see [`OfflineReason::left`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OfflineReason {
    /// The connection ended.
    Closed,
    /// Nothing was received for too long.
    Timeout,
    /// The gateway was fenced.
    GatewayLost,
    /// An operator ended the session.
    Kicked,
    /// A ban ended the session.
    Banned,
    /// Its token expired or was revoked, or its key was removed.
    TokenExpired,
}

impl OfflineReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::Timeout, Self::GatewayLost, Self::Kicked, Self::Banned, Self::TokenExpired];

    /// Returns the word in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::TokenExpired => "token_expired",
            _ => self.left().as_str(),
        }
    }

    /// Returns the reason that members of its rooms see: a ban shows as a kick.
    #[must_use]
    pub fn left(self) -> LeftReason {
        match self {
            Self::Closed | Self::TokenExpired => LeftReason::Closed,
            Self::Timeout => LeftReason::Timeout,
            Self::GatewayLost => LeftReason::GatewayLost,
            Self::Kicked | Self::Banned => LeftReason::Kicked,
        }
    }

    /// Returns true if the session is over for good: no token resumes it. The twin is `is_final` in `end_session.lua`.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Kicked | Self::Banned)
    }
}

/// Changes of the members of a room: published by the scripts of the store, collected and delivered by gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PresenceDelta {
    /// Members that joined.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<MemberInfo>,
    /// Members that left, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<MemberLeft>,
    /// Members with a new nickname.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<Rename>,
    /// Members with a new status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<MemberInfo>,
    /// Actions of moderators, in order. Gateways deliver each as an event of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moderation: Vec<Moderation>,
}

/// A member of a room, as shown to other members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberInfo {
    /// The nickname for display.
    pub nick: String,
    /// The member's user id, if a token named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<UserId>,
    /// Status of the member.
    #[serde(flatten)]
    pub status: Status,
}

/// A former member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLeft {
    /// The nickname for display.
    pub nick: String,
    /// Reason for leaving.
    pub reason: LeftReason,
}

/// A change of nickname.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The old nickname.
    pub from: String,
    /// The new nickname.
    pub to: String,
}
