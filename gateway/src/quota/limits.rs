//! [`LimitKind`]: everything that is limited, and [`QuotaLimits`]: the limits of addresses and users.
//!
//! Values only. The limits of a session are in `session/session_limits.rs`.

use super::rate_limit::RateLimit;

/// Number of kinds.
pub(super) const KINDS: usize = 9;
/// Number of kinds that are limited for each session too. They come first.
pub(crate) const SESSION_KINDS: usize = 7;

/// Something that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// All requests, frames that cannot be decoded included.
    Requests,
    /// `send`.
    Messages,
    /// Bodies of `send`, in bytes.
    Bytes,
    /// `join` and `register`.
    Joins,
    /// `nick`.
    Renames,
    /// `status`.
    Statuses,
    /// `history`, `members` and `rooms`.
    Pages,
    /// `register` without a token to resume; only of addresses.
    Registrations,
    /// Rooms that a `join` creates; only of addresses.
    Creations,
}

impl LimitKind {
    /// All kinds.
    pub const ALL: [Self; KINDS] = [
        Self::Requests,
        Self::Messages,
        Self::Bytes,
        Self::Joins,
        Self::Renames,
        Self::Statuses,
        Self::Pages,
        Self::Registrations,
        Self::Creations,
    ];

    /// Returns the kinds that are limited for each session, in the order of the settings.
    pub fn of_sessions() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().take(SESSION_KINDS)
    }

    /// Returns the word for log lines and for reports to other gateways.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Joins => "joins",
            Self::Renames => "renames",
            Self::Statuses => "statuses",
            Self::Pages => "pages",
            Self::Registrations => "registrations",
            Self::Creations => "creations",
        }
    }

    /// Returns the text of the refusal.
    #[must_use]
    pub fn detail(self, owner: LimitOwner) -> String {
        let what = match self {
            Self::Requests => "requests",
            Self::Messages => "messages",
            Self::Bytes => "bytes of messages",
            Self::Joins => "joins",
            Self::Renames => "changes of nickname",
            Self::Statuses => "changes of status",
            Self::Pages => "lists",
            Self::Registrations => "new users",
            Self::Creations => "new rooms",
        };
        let whose = match owner {
            LimitOwner::Session => "",
            LimitOwner::Address => " from this address",
            LimitOwner::User => " of this user",
        };
        format!("too many {what}{whose} in a short time")
    }
}

/// The party that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitOwner {
    /// One session.
    Session,
    /// All sessions of an address, in the whole cluster.
    Address,
    /// All sessions of a user, in the whole cluster.
    User,
}

impl LimitOwner {
    /// Returns the word for log lines.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Address => "address",
            Self::User => "user",
        }
    }
}

/// The limits of each address, or of each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerLimits([RateLimit; KINDS]);

impl OwnerLimits {
    /// Limits by a function.
    #[must_use]
    pub fn from_each(limit: impl FnMut(LimitKind) -> RateLimit) -> Self {
        Self(LimitKind::ALL.map(limit))
    }

    /// Returns one limit.
    #[must_use]
    pub fn of(&self, kind: LimitKind) -> RateLimit {
        self.0[kind as usize]
    }
}

/// The limits of addresses and users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// The limits of each address.
    pub address: OwnerLimits,
    /// The limits of each user.
    pub user: OwnerLimits,
    /// Maximum number of connections of an address.
    pub seats: usize,
}

impl QuotaLimits {
    /// Returns the limits of one party. No session is counted here.
    pub(super) fn of(&self, owner: LimitOwner) -> &OwnerLimits {
        match owner {
            LimitOwner::User => &self.user,
            LimitOwner::Address | LimitOwner::Session => &self.address,
        }
    }
}

impl Default for QuotaLimits {
    /// No limits of requests, and 256 connections of an address.
    fn default() -> Self {
        let open = OwnerLimits::from_each(|_| RateLimit::per_second(0, 1));
        Self { address: open, user: open, seats: 256 }
    }
}
