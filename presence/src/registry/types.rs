//! What registry calls take and give: errors, leases, rows of listings.
//!
//! Values only, shared by both arms and by everybody who calls them; re-exported by [`crate::registry`].

use std::time::Duration;

use crate::model::stream::Fork;
use crate::model::{Fence, Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};

/// Why a registry call did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The caller's lease is not live. Whatever its sessions own is gone or will be.
    #[error("the lease is not live")]
    Fenced,
    /// The store refused or could not be reached; nothing was done. The text is for logs only.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The command went out and no answer came back; it may have been done. The text is for logs only.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// Why a nickname was not given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody owns it, or may still come back to it.
    #[error("the nickname is owned or held")]
    InUse {
        /// For how long it is held for somebody without a connection; `None` while somebody is there.
        retry_after: Option<Duration>,
    },
    /// Somebody owns a nickname that looks like it.
    #[error("the nickname looks like one that is owned")]
    Confusable,
    /// The call itself failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why a session was not resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// There is no such session, or not with this token.
    #[error("the token is not one of a session")]
    UnknownToken,
    /// The nickname was not given out.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// What a client presents to come back to its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The session.
    pub session: SessionId,
    /// The hash of the secret it was given.
    pub presented: TokenHash,
}

/// A session that was resumed, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The new claim's fencing number.
    pub fence: Fence,
    /// The nickname and claim before, when it was still owned: member records may carry them.
    pub was: Option<(Nick, Owner)>,
    /// What the user says about themselves; plain online when the session had gone offline.
    pub status: Status,
    /// The rooms that it is in, or was in when it ended against its will. Each has to be joined again.
    pub rooms: Vec<Restored>,
    /// Its inbox.
    pub inbox: Inbox,
}

/// A room that a resumed session comes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The room as it is shown.
    pub room: RoomName,
    /// Its epoch.
    pub epoch: String,
    /// Its newest message.
    pub seq: u64,
}

/// The direct messages to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    /// Their epoch.
    pub epoch: String,
    /// The newest one.
    pub seq: u64,
    /// Up to which the client said it has read them.
    pub read: u64,
}

/// What a gateway knows about a session of its own that has a nickname, with a connection or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalClaim {
    /// The nickname.
    pub nick: Nick,
    /// The claim.
    pub owner: Owner,
    /// What the user says about themselves.
    pub status: Status,
    /// The rooms it is in.
    pub rooms: Vec<RoomName>,
    /// What the client comes back with.
    pub token: TokenHash,
    /// Whether it has no connection.
    pub detached: bool,
}

/// Where a store and a gateway differ about what the gateway holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Claims whose nickname, or a room of theirs, the store does not have.
    pub missing: Vec<Owner>,
    /// What the store has beside.
    pub surplus: Vec<Surplus>,
}

impl Differences {
    /// What was found before, too.
    #[must_use]
    pub fn in_both(&self, before: &Self) -> Self {
        let missing = self.missing.iter().filter(|owner| before.missing.contains(owner)).cloned().collect();
        let surplus = self.surplus.iter().filter(|surplus| before.surplus.contains(surplus)).cloned().collect();
        Self { missing, surplus }
    }
}

/// What a store says a gateway holds, and the gateway does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surplus {
    /// A nickname.
    Nick(Nick, Owner),
    /// A membership.
    Member(RoomName, Nick, Owner),
}

/// Whether a session that leaves a room comes back to it when it is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It wanted to leave.
    ForGood,
    /// Its connection was lost: the room is restored.
    ForNow,
}

/// How a gateway ends its lease in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseTransition {
    /// It was asked to end and still serves what it has.
    Draining,
    /// It has ended. What it still owns are detached sessions.
    Drained {
        /// For how long they are held, silently.
        hold: Duration,
    },
}

impl LeaseTransition {
    /// The state of the lease from then on.
    #[must_use]
    pub fn state(self) -> LeaseState {
        match self {
            Self::Draining => LeaseState::Draining,
            Self::Drained { .. } => LeaseState::Drained,
        }
    }
}

/// What a gateway tells the cluster about itself when it takes a lease.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GatewayInfo {
    /// The configured node id.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Where clients reach it over WebSocket.
    pub ws: String,
    /// Where clients reach it over TCP.
    pub tcp: String,
    /// Where operators reach it: its admin port.
    #[serde(default)]
    pub admin: String,
}

/// The state of a lease. Only `Live` and `Draining` leases may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Serving.
    Live,
    /// Asked to end; still serving what it has.
    Draining,
    /// Ended cleanly.
    Drained,
    /// Declared dead. For good: the process must start a new incarnation.
    Fenced,
}

impl LeaseState {
    /// The word that stores keep.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Fenced => "fenced",
        }
    }

    /// Whether a lease in this state may write, and what it owns is owned.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Live | Self::Draining)
    }

    /// Whether what a lease in this state owns is shown as there. What a drained one holds is, until it is cleaned up.
    #[must_use]
    pub fn shows(self) -> bool {
        self != Self::Fenced
    }
}

/// One row of the lease table, as an observer samples it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose lease.
    pub incarnation: Incarnation,
    /// The configured node id of that gateway.
    pub node: String,
    /// Its beat counter.
    pub counter: u64,
    /// Its state.
    pub state: LeaseState,
    /// Whether it still owns nicks or memberships that somebody must clean up once it is fenced.
    pub owns: bool,
}

/// Whether the store gives anything out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The store may hold less than it did: until the gateways have said what they hold, nothing is given out.
    #[default]
    Recovering,
    /// All is as it should be.
    Open,
}

/// One history of the store, from a restart, failover or loss of data to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation {
    /// Its number: grows, is never used twice, and is 0 where none is known.
    pub number: u64,
    /// What it is good for.
    pub phase: Phase,
}

impl Generation {
    /// Whether names, memberships and messages are given out.
    #[must_use]
    pub fn is_open(self) -> bool {
        self.phase == Phase::Open
    }
}

/// The lease table as an observer without a lease sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTable {
    /// The store's generation.
    pub generation: Generation,
    /// Its rows.
    pub leases: Vec<Lease>,
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The store's generation.
    pub generation: Generation,
    /// Whether we have said what we hold since it began; until then [`super::Registry::reassert`] is due.
    pub asserted: bool,
    /// Our counter after this beat. It comes back on our own channel as the echo.
    pub counter: u64,
    /// The whole lease table, our own row included.
    pub leases: Vec<Lease>,
    /// Commands that waited for us.
    pub mailbox: Vec<Command>,
}

/// A command for a gateway that travels by its mailbox.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// End this session.
    Kick(SessionId),
    /// End the whole process in order, as on SIGTERM.
    Drain,
    /// The session was resumed elsewhere: end the connection that has this claim, and no newer one.
    Taken {
        /// The session.
        session: SessionId,
        /// The claim that it had here.
        fence: Fence,
    },
}

/// A room as the joiner finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The room as it was shown first: everybody's name for it.
    pub room: RoomName,
    /// The room's epoch; with `seq` the joiner's position.
    pub epoch: String,
    /// The newest message when the member record was written: the member gets everything after it.
    pub seq: u64,
    /// Members, the joiner included.
    pub member_count: u64,
    /// Where the room's former epochs ended, oldest first.
    pub forks: Vec<Fork>,
}

/// How a member comes into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// As a new member.
    New,
    /// As the same session under another nickname: this record is replaced and others see a rename.
    Renamed(&'a Nick, &'a Owner),
}

/// What a round of clean-up did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reaped {
    /// Nicknames freed.
    pub nicks: u64,
    /// Memberships ended.
    pub members: u64,
    /// Whether anything of that incarnation is left for the next round.
    pub more: bool,
}

/// A user as the API shows them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct User {
    /// The nickname as it is shown.
    pub nick: String,
    /// Whether a live session owns the nickname.
    pub online: bool,
    /// What the user says about themselves; plain `online` for somebody who is offline.
    #[serde(flatten)]
    pub status: Status,
    /// Since when, in Unix milliseconds; `null` while offline.
    pub online_since: Option<u64>,
    /// Last sign of activity, in Unix milliseconds.
    pub last_active: u64,
    /// The rooms the user is in, as they are shown.
    pub rooms: Vec<String>,
}

/// A room as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Room {
    /// The room as it is shown, with its `#`.
    pub room: String,
    /// How many members it has.
    pub member_count: u64,
    /// The number of its newest message, 0 before the first.
    pub seq: u64,
}

/// A gateway as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Gateway {
    /// The configured node id.
    pub node: String,
    /// Its present incarnation.
    pub incarnation: String,
    /// The program's version.
    pub version: String,
    /// The state of its lease.
    pub state: LeaseState,
    /// Its beat counter.
    pub beat: u64,
    /// Nicknames online on it.
    pub users: u64,
}

/// Totals over the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Stats {
    /// Nicknames online.
    pub users_online: u64,
    /// Rooms with members.
    pub rooms: u64,
    /// Gateways whose lease is live or draining.
    pub gateways: u64,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows, in the order of their keys.
    pub items: Vec<T>,
    /// Give it back to get the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// Something that happened, from the bounded event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its position in the log.
    pub id: String,
    /// online, offline, join, leave or rename.
    pub kind: String,
    /// The JSON object that was logged.
    pub data: String,
}

/// The ends of the bounded event log, as positions for [`super::Registry::events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLogEnds {
    /// Reading from here, or from anything newer, misses nothing; what is older may have been trimmed.
    pub complete_from: String,
    /// The newest event.
    pub newest: String,
}

/// Reads a position of the event log, `<Unix ms>-<count>` or only the former. It comes back from outside: what is none
/// means "from now on".
pub(crate) fn event_position(text: &str) -> Option<(u64, u64)> {
    let (time, count) = text.split_once('-').unwrap_or((text, "0"));
    let number = |digits: &str| digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    Some((number(time)?, number(count)?))
}
