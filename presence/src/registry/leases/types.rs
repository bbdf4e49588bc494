//! Values of the lease calls: the table, generations, transitions, local claims and their differences.

use std::time::Duration;

use crate::model::moderation::RoomRemoval;
use crate::model::{
    AnnouncementOrder, Fence, Incarnation, Nick, NickKey, Owner, RoomEntryOrder, RoomName, SessionId, Status,
    TokenHash, UserId,
};

/// One session with a nickname as its gateway knows it, with a connection or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalClaim {
    /// The nickname.
    pub nick: Nick,
    /// The claim.
    pub owner: Owner,
    /// The user that the nickname is bound to; `None` for a guest. Boxed: a gateway keeps a claim for each session.
    pub user: Option<Box<UserId>>,
    /// The user's status.
    pub status: Status,
    /// The session's rooms.
    pub rooms: Vec<RoomName>,
    /// The hash of the session's resume token.
    pub token: TokenHash,
    /// True if it has no connection.
    pub detached: bool,
}

/// One batch of a reassertion.
#[derive(Debug, Clone, Copy)]
pub struct ReassertBatch<'a> {
    /// The gateway's incarnation.
    pub incarnation: &'a Incarnation,
    /// The gateway's row of the lease table.
    pub info: &'a GatewayInfo,
    /// The generation that lacks the claims.
    pub generation: u64,
    /// The claims of this batch.
    pub claims: &'a [LocalClaim],
    /// True if this batch completes the reassertion.
    pub last: bool,
}

/// The differences between a store and a gateway's own claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Claims whose nickname, or one of whose rooms, is missing in the store.
    pub missing: Vec<Owner>,
    /// Records in the store without a claim of the gateway.
    pub surplus: Vec<Surplus>,
}

impl Differences {
    /// The differences that `before` has as well.
    #[must_use]
    pub fn in_both(&self, before: &Self) -> Self {
        let missing = self.missing.iter().filter(|owner| before.missing.contains(owner)).cloned().collect();
        let surplus = self.surplus.iter().filter(|surplus| before.surplus.contains(surplus)).cloned().collect();
        Self { missing, surplus }
    }
}

/// A record that names a gateway as owner and that the gateway does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surplus {
    /// A nickname.
    Nick(Nick, Owner),
    /// A membership.
    Member(RoomName, Nick, Owner),
}

/// A change of a lease that its own gateway makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseTransition {
    /// The gateway drains and still serves its sessions.
    Draining,
    /// The gateway has ended. It still owns detached sessions.
    Drained {
        /// The time for which these sessions are held, with no leave announced.
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

/// A gateway's description of itself in the lease table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GatewayInfo {
    /// The configured node id.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// The address of its WebSocket port.
    pub ws: String,
    /// The address of its TCP port.
    pub tcp: String,
    /// The address of its admin port.
    #[serde(default)]
    pub admin: String,
}

/// The state of a lease. Only `Live` and `Draining` leases may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Serving.
    Live,
    /// Asked to end; still serving its sessions.
    Draining,
    /// Ended cleanly.
    Drained,
    /// Declared dead. For good: the process must start a new incarnation.
    Fenced,
}

impl LeaseState {
    /// The word in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Fenced => "fenced",
        }
    }

    /// Returns true if a lease in this state may write and own.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Live | Self::Draining)
    }

    /// Returns true if the sessions of a lease in this state are shown as online. Sessions of a drained lease are shown
    /// until they are reaped.
    #[must_use]
    pub fn shows(self) -> bool {
        self != Self::Fenced
    }
}

/// One row of the lease table, as an observer samples it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The incarnation that has it.
    pub incarnation: Incarnation,
    /// The configured node id of that gateway.
    pub node: String,
    /// Its beat counter.
    pub counter: u64,
    /// Its state.
    pub state: LeaseState,
    /// True if it still owns nicks or memberships, which must be reaped once it is fenced.
    pub owns: bool,
}

/// The phase of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The store may have lost data: until the gateways have reasserted their claims, nothing is assigned.
    #[default]
    Recovering,
    /// The store is complete.
    Open,
}

/// One history of the store, from a restart, failover or loss of data to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation {
    /// Its number: grows, is never used twice, and is 0 where none is known.
    pub number: u64,
    /// Its phase.
    pub phase: Phase,
}

impl Generation {
    /// Returns true if names, memberships and messages are accepted.
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

/// The message of a gateway in a beat.
#[derive(Debug, Clone, Copy, Default)]
pub struct BeatReport<'a> {
    /// Nicks of this gateway to stamp as active now.
    pub active: &'a [NickKey],
    /// The usage of limits by addresses and users on this gateway since its last beat, for the others. The store does
    /// not read it. Empty for nothing.
    pub usage: &'a str,
    /// The id of the newest usage that the gateway has read. Empty at its first beat.
    pub usage_seen: &'a str,
    /// The orders that the gateway has carried out: only these leave its mailbox, so that an answer may be lost. `None`
    /// takes each order out of the mailbox with the answer.
    pub carried_out: Option<CarriedOut>,
}

/// The orders of an answered beat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CarriedOut {
    /// The counter of the beat.
    pub counter: u64,
    /// The number of its orders, unknown ones included.
    pub orders: usize,
}

/// Usage that a gateway has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// The id; later ones are larger.
    pub id: String,
    /// The gateway.
    pub by: Incarnation,
    /// The text of [`BeatReport::usage`].
    pub text: String,
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The store's generation.
    pub generation: Generation,
    /// True if this gateway's claims are complete in that generation; until then
    /// [`Registry::reassert`](crate::registry::Registry::reassert) is due.
    pub asserted: bool,
    /// The counter after this beat. It returns on the gateway's own channel as the echo.
    pub counter: u64,
    /// The whole lease table, the gateway's own row included.
    pub leases: Vec<Lease>,
    /// Orders that waited for the gateway, without those that it does not know.
    pub mailbox: Vec<MailboxOrder>,
    /// To be reported with the next beat, once the orders are carried out.
    pub handed_out: CarriedOut,
    /// The usage that all gateways, this one included, have reported since.
    pub usage: Vec<UsageReport>,
    /// The version of the list of sanctions; 0 without one.
    pub sanctions: u64,
}

/// An order for a gateway that travels by its mailbox.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailboxOrder {
    /// End this session.
    Kick(SessionId),
    /// Drain the whole process, as on SIGTERM.
    Drain,
    /// The session was resumed elsewhere: end the connection that has this claim, and no newer one.
    Taken {
        /// The session.
        session: SessionId,
        /// The claim that it had here.
        fence: Fence,
    },
    /// A moderator removed the session from a room: end the membership here too.
    Remove(RoomRemoval),
    /// An application lets a session enter a room.
    Enter(RoomEntryOrder),
    /// An application announces something to the sessions of the gateway.
    Announce(AnnouncementOrder),
}

/// The result of one reaping call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReapedBatch {
    /// Nicknames freed.
    pub nicks: u64,
    /// Memberships ended.
    pub members: u64,
    /// True if anything of that incarnation is left for the next call.
    pub more: bool,
}
