//! Names, leases and memberships: who is in the cluster, who owns which nickname, who is in which room.
//!
//! Two arms behind one enum: `Redis` for a cluster, `Memory` for one node with nothing installed and for fast tests.
//! Gateways write through it, the HTTP API reads through it, the beat and the reaper live on it. One contract suite
//! (`tests/it/registry_contract.rs`) runs unchanged on both arms.
//!
//! # Contract
//! - Every write names the writer's lease. A lease that is not live changes nothing and hears [`RegistryError::Fenced`].
//! - Every change of what is owned compares incarnation, session and fence; what does not match changes nothing.
//! - Writes are idempotent by session: the same call again gives the same answer and announces nothing twice.
//! - [`RegistryError::Unavailable`] means nothing was done, [`RegistryError::Unknown`] that nobody knows. Dropping a
//!   future may leave its command done or not, like `Unknown`.
//! - Nothing here decides by a clock: ownership ends by release or by a fence, never by a TTL.

mod memory;
mod redis;

use crate::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, Owner, RoomKey, RoomName, SessionId, Status,
};

pub use self::memory::MemoryRegistry;
pub use self::redis::RedisRegistry;

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
    /// Somebody owns it.
    #[error("the nickname is owned")]
    InUse,
    /// Somebody owns a nickname that looks like it.
    #[error("the nickname looks like one that is owned")]
    Confusable,
    /// The call itself failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
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

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
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
    /// Since when, in Unix milliseconds; absent while offline.
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
    /// Give it back to get the next page; `None` on the last one.
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

/// The registry: one of two stores behind one set of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Registry {
    /// Shared by every process of the cluster.
    Redis(RedisRegistry),
    /// Shared by the tasks of one process.
    Memory(MemoryRegistry),
}

/// Forwards a call to the arm in use.
macro_rules! each {
    ($self:ident, $arm:ident => $call:expr) => {
        match $self {
            Registry::Redis($arm) => $call,
            Registry::Memory($arm) => $call,
        }
    };
}

/// Most rows of one page.
pub const PAGE_LIMIT: usize = 1000;

impl Registry {
    /// Enters a new incarnation into the lease table. The only call that creates a row.
    ///
    /// # Errors
    /// [`RegistryError`]; on `Unknown` call it again, it is idempotent.
    pub async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        each!(self, arm => arm.open_lease(incarnation, info).await)
    }

    /// One heartbeat: renews the lease and the TTL of its nick cache, collects the mailbox, publishes the counter on the
    /// gateway's own channel, stamps `active` nicks of this gateway as active now, and answers with the lease table.
    /// One write, so it fails where a write would fail.
    ///
    /// # Errors
    /// `Fenced` when the lease is fenced, drained or unknown.
    pub async fn beat(&self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError> {
        each!(self, arm => arm.beat(incarnation, active).await)
    }

    /// The lease table, for observers without a lease of their own.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn leases(&self) -> Result<Vec<Lease>, RegistryError> {
        each!(self, arm => arm.leases().await)
    }

    /// Says that the gateway is draining, or has ended cleanly and owns nothing more.
    ///
    /// # Errors
    /// `Fenced` when it no longer matters.
    pub async fn set_lease(&self, incarnation: &Incarnation, state: LeaseState) -> Result<(), RegistryError> {
        each!(self, arm => arm.set_lease(incarnation, state).await)
    }

    /// Declares an incarnation dead if its counter still is `counter` and it is live or draining: a compare-and-set, so
    /// any number of observers may try. Returns whether this call did it.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError> {
        each!(self, arm => arm.fence(incarnation, counter).await)
    }

    /// Cleans up after a fenced or drained incarnation, at most `limit` nicks and memberships: frees, announces each
    /// leave once (`gateway_lost`), never touches what somebody else has taken since. A live incarnation is left alone.
    /// An hour-old row with nothing left is deleted.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`; idempotent, call it again.
    pub async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<Reaped, RegistryError> {
        each!(self, arm => arm.reap(incarnation, limit).await)
    }

    /// Takes a nickname for a session of this gateway: when it is free or its owner's lease is not live. The same
    /// session again gets the fence it has. Records and logs `online`.
    ///
    /// # Errors
    /// [`ClaimError`]. On `Unknown` release it or claim again.
    pub async fn claim(
        &self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
    ) -> Result<Fence, ClaimError> {
        each!(self, arm => arm.claim(incarnation, session, nick).await)
    }

    /// Gives a nickname back if `owner` owns it; logs `offline`, or `rename` when `renamed_to` is given. Returns whether
    /// it did. Works whatever the state of the lease, since it can only take away what the caller owns.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn release(&self, nick: &Nick, owner: &Owner, renamed_to: Option<&Nick>) -> Result<bool, RegistryError> {
        each!(self, arm => arm.release(nick, owner, renamed_to).await)
    }

    /// Writes the member record, announces the entry to the room, and answers with the position where it took effect.
    /// The same owner again announces nothing.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn join(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        entry: Entry<'_>,
    ) -> Result<Joined, RegistryError> {
        each!(self, arm => arm.join(room, nick, owner, status, entry).await)
    }

    /// Ends a membership if `owner` holds it and announces that once. Returns whether it did. Works whatever the state
    /// of the lease.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn leave(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        reason: LeftReason,
    ) -> Result<bool, RegistryError> {
        each!(self, arm => arm.leave(room, nick, owner, reason).await)
    }

    /// Records a user's status and announces it to `rooms`. Returns whether `owner` still owned the nickname.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn set_status(
        &self,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        each!(self, arm => arm.set_status(nick, owner, status, rooms).await)
    }

    /// Leaves an order to end the session that owns `nick` in its gateway's mailbox and sends it there at once too.
    /// Returns whether somebody owned it.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn kick(&self, nick: &NickKey) -> Result<bool, RegistryError> {
        each!(self, arm => arm.kick(nick).await)
    }

    /// One user; `None` when never seen.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`, as for every read below.
    pub async fn user(&self, nick: &NickKey) -> Result<Option<User>, RegistryError> {
        each!(self, arm => arm.user(nick).await)
    }

    /// Several users in one call, in the order asked.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<User>>, RegistryError> {
        each!(self, arm => arm.lookup(nicks).await)
    }

    /// Who is online, by key. `limit` is 1 to [`PAGE_LIMIT`].
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn users(&self, cursor: Option<&str>, limit: usize) -> Result<Page<User>, RegistryError> {
        each!(self, arm => arm.users(cursor, limit).await)
    }

    /// Rooms that have members, by key.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn rooms(&self, cursor: Option<&str>, limit: usize) -> Result<Page<Room>, RegistryError> {
        each!(self, arm => arm.rooms(cursor, limit).await)
    }

    /// One room; `None` when it never had a member or message.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn room(&self, room: &RoomKey) -> Result<Option<Room>, RegistryError> {
        each!(self, arm => arm.room(room).await)
    }

    /// The members of a room, by key. Members of a fenced gateway are not shown.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn members(
        &self,
        room: &RoomKey,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<MemberInfo>, RegistryError> {
        each!(self, arm => arm.members(room, cursor, limit).await)
    }

    /// The gateways of the lease table, newest incarnation of each node only, cleanly ended ones left out.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn gateways(&self) -> Result<Vec<Gateway>, RegistryError> {
        each!(self, arm => arm.gateways().await)
    }

    /// Totals.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn stats(&self) -> Result<Stats, RegistryError> {
        each!(self, arm => arm.stats().await)
    }

    /// Waits until there are events after `after` (`None`: from now on) or about 5 s have passed, and returns at most
    /// `limit` of them, with the position to go on from. Uses a connection of its own.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn events(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Event>, Option<String>), RegistryError> {
        each!(self, arm => arm.events(after, limit).await)
    }

    /// The ends of the event log, at once: where resuming is complete, and where now is.
    ///
    /// # Errors
    /// See [`Registry::user`].
    pub async fn event_log(&self) -> Result<EventLog, RegistryError> {
        each!(self, arm => arm.event_log().await)
    }
}

/// The ends of the bounded event log, as positions for [`Registry::events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    /// Reading from here, or from anything newer, misses nothing; what is older may have been trimmed.
    pub complete_from: String,
    /// The newest event.
    pub newest: String,
}
