//! Names, leases and memberships: who is in the cluster, who owns which nickname, who is in which room.
//!
//! Two arms behind one enum: `Redis` for a cluster, `Memory` for one node with nothing installed and for fast tests.
//! Gateways write through it, the HTTP API reads through it, the beat and the reaper live on it. One contract suite
//! (`tests/it/contracts/registry.rs`) runs unchanged on both arms.
//!
//! # Contract
//! - Every write names the writer's lease. A lease that is not live changes nothing and hears [`RegistryError::Fenced`].
//! - Every change of what is owned compares incarnation, session and fence; what does not match changes nothing.
//! - Writes are idempotent by session: the same call again gives the same answer and announces nothing twice.
//! - A session ends in this order: [`Registry::release`] or [`Registry::depart`] first, and only who heard `true` leaves
//!   its rooms. So a session that was resumed meanwhile stays where it is and nobody sees it go.
//! - [`RegistryError::Unavailable`] means nothing was done, [`RegistryError::Unknown`] that nobody knows. Dropping a
//!   future may leave its command done or not, like `Unknown`.
//! - Ownership never ends by a clock, only by release or by a fence. What a clock ends is how long a nickname is kept for
//!   somebody who has lost it.

mod memory;
mod redis;
pub mod retry;
mod types;

use std::time::Duration;

use crate::model::stream::StreamEnd;
use crate::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, Owner, RoomKey, RoomName, SessionId, Status, TokenHash,
};

pub use self::memory::MemoryRegistry;
pub use self::redis::{Held, Inventory, LeaseSummary, Membership, RedisRegistry};
pub(crate) use self::types::event_position;
pub use self::types::{
    Beat, ClaimError, Command, Differences, Entry, Event, EventLogEnds, Gateway, GatewayInfo, Generation, Inbox,
    Joined, Lease, LeaseState, LeaseTable, LeaseTransition, Leaving, LocalClaim, Page, Phase, Reaped, RegistryError,
    Restored, ResumeError, Resumed, Room, Stats, Surplus, Ticket, User,
};

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
    /// Enters a new incarnation into the lease table. The only call that creates a row, but for the one below.
    ///
    /// # Errors
    /// [`RegistryError`]; on `Unknown` call it again, it is idempotent.
    pub async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        each!(self, arm => arm.open_lease(incarnation, info).await)
    }

    /// The same for a process that starts, unless another incarnation of its node serves that is not among `over`: a
    /// compare-and-set, so of any number that start in the same moment one gets its lease. Returns the other one.
    ///
    /// # Errors
    /// As [`Registry::open_lease`].
    pub async fn open_first_lease(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        over: &[Incarnation],
    ) -> Result<Option<Incarnation>, RegistryError> {
        each!(self, arm => arm.open_first_lease(incarnation, info, over).await)
    }

    /// One heartbeat: renews the lease and the TTL of its nick cache, collects the mailbox, publishes the counter on the
    /// gateway's own channel, stamps `active` nicks of this gateway as active now, and answers with the lease table.
    /// One write, so it fails where a write would fail.
    ///
    /// # Errors
    /// `Fenced` when the lease is fenced or drained, or unknown to a generation that should know it.
    pub async fn beat(&self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError> {
        each!(self, arm => arm.beat(incarnation, active).await)
    }

    /// Says what a gateway holds, in a generation that has not heard it yet: the store puts back what it lacks of the lease
    /// and of the holdings, and announces none of it. Call it in batches, the `last` of which ends the speech. Returns the
    /// claims among them that a later one has overtaken: their sessions are to be closed. Idempotent.
    ///
    /// # Errors
    /// `Fenced` when it comes too late, `Unavailable` also when another generation has begun.
    pub async fn reassert(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        generation: u64,
        holdings: &[LocalClaim],
        last: bool,
    ) -> Result<Vec<Owner>, RegistryError> {
        each!(self, arm => arm.reassert(incarnation, info, generation, holdings, last).await)
    }

    /// Where the store and a gateway differ about what the gateway holds. A request under way is a difference, too, and
    /// what is read at different moments: only what is found again is one.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn audit(
        &self,
        incarnation: &Incarnation,
        holdings: &[LocalClaim],
    ) -> Result<Differences, RegistryError> {
        each!(self, arm => arm.audit(incarnation, holdings).await)
    }

    /// The lease table, for observers without a lease of their own.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn leases(&self) -> Result<LeaseTable, RegistryError> {
        each!(self, arm => arm.leases().await)
    }

    /// Says that the gateway is draining, or has ended cleanly. What a drained one still owns is held and shown as before
    /// until the hold is over; then the reapers announce it (`closed`).
    ///
    /// # Errors
    /// `Fenced` when it no longer matters.
    pub async fn set_lease(&self, incarnation: &Incarnation, farewell: LeaseTransition) -> Result<(), RegistryError> {
        each!(self, arm => arm.set_lease(incarnation, farewell).await)
    }

    /// Declares an incarnation dead if its counter still is `counter` and it is live or draining: a compare-and-set, so
    /// any number of observers may try. Returns whether this call did it.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError> {
        each!(self, arm => arm.fence(incarnation, counter).await)
    }

    /// Cleans up after an incarnation that is fenced, or drained and past its hold, at most `limit` nicks and memberships:
    /// frees, announces each leave once (`gateway_lost` or `closed`), keeps what resuming needs, never touches what somebody else has taken since. A live incarnation is left alone.
    /// An hour-old row with nothing left is deleted.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`; idempotent, call it again.
    pub async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<Reaped, RegistryError> {
        each!(self, arm => arm.reap(incarnation, limit).await)
    }

    /// Takes a nickname for a session of this gateway: when it is free, its owner's lease is not live and it is held for
    /// nobody else. The same session again gets the fence it has. Records and logs `online`. `token` is what the client
    /// resumes the session with; it must be the one that the session has, if it has one.
    ///
    /// # Errors
    /// [`ClaimError`]. On `Unknown` release it or claim again.
    pub async fn claim(
        &self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
        token: &TokenHash,
    ) -> Result<Fence, ClaimError> {
        self.begin(incarnation, session, nick, token).await.map(|(fence, _)| fence)
    }

    /// [`Registry::claim`] for a session that begins with it: tells where its inbox ends, too.
    ///
    /// # Errors
    /// As for a claim.
    pub async fn begin(
        &self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
        token: &TokenHash,
    ) -> Result<(Fence, StreamEnd), ClaimError> {
        each!(self, arm => arm.begin(incarnation, session, nick, token).await)
    }

    /// Takes a session over from wherever it was, under the nickname asked for, and makes `next` its token; the presented
    /// one stays valid until [`Registry::confirm`]. The gateway that served it is told ([`Command::Taken`]). The session's
    /// own nickname is its at once, another one by the rules of a claim, and the old one is then freed. Announces nothing
    /// but what was announced as gone; the rooms have to be joined again. The same call again gives the same answer.
    ///
    /// # Errors
    /// [`ResumeError`]; nothing is changed then but on `Unknown`: call it again.
    pub async fn resume(
        &self,
        incarnation: &Incarnation,
        ticket: &Ticket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<Resumed, ResumeError> {
        each!(self, arm => arm.resume(incarnation, ticket, nick, next).await)
    }

    /// The client has the token of its last resume: the one before ends. Returns whether `token` is the session's.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError> {
        each!(self, arm => arm.confirm(session, token).await)
    }

    /// Notes that the session lost its connection, if `owner` owns the nickname: it is held for `hold` from now on and
    /// others see no change. Returns whether it is owned so.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn detach(&self, nick: &Nick, owner: &Owner, hold: Duration) -> Result<bool, RegistryError> {
        each!(self, arm => arm.detach(nick, owner, hold).await)
    }

    /// A detached session did not come back: it goes offline (logged with the reason) and its nickname is kept for it to
    /// the end of its hold. Only after `true` the gateway leaves its rooms, [`Leaving::ForNow`].
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn depart(&self, nick: &Nick, owner: &Owner, reason: LeftReason) -> Result<bool, RegistryError> {
        each!(self, arm => arm.depart(nick, owner, reason).await)
    }

    /// Notes how far the client has read its inbox; it never goes back and never past the end. Returns whether there is
    /// such a session.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn read(&self, session: &SessionId, seq: u64) -> Result<bool, RegistryError> {
        each!(self, arm => arm.read(session, seq).await)
    }

    /// Gives a nickname back if `owner` owns it, held for nobody; logs `offline`, or `rename` when `renamed_to` is given.
    /// Returns whether it did. Works whatever the state of the lease, since it can only take away what the caller owns.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn release(&self, nick: &Nick, owner: &Owner, renamed_to: Option<&Nick>) -> Result<bool, RegistryError> {
        each!(self, arm => arm.release(nick, owner, renamed_to).await)
    }

    /// Writes the member record, announces the entry to the room, and answers with the position where it took effect.
    /// The same owner again announces nothing; the same session under a newer claim takes its place silently.
    ///
    /// # Errors
    /// [`RegistryError`]; `Unavailable` also when the nickname is not the owner's (any more).
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

    /// Ends a membership if `owner`, or an older claim of its session, holds it, and announces that once. Returns whether
    /// it did: an owner whose session was resumed ends nothing. Works whatever the state of the lease.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn leave(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        reason: LeftReason,
        leaving: Leaving,
    ) -> Result<bool, RegistryError> {
        each!(self, arm => arm.leave(room, nick, owner, reason, leaving).await)
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

    /// Leaves an order in a gateway's mailbox to end in order, as on SIGTERM. Returns whether that gateway serves.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`; ordered twice is ordered once.
    pub async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError> {
        each!(self, arm => arm.drain(incarnation).await)
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
    pub async fn event_log_ends(&self) -> Result<EventLogEnds, RegistryError> {
        each!(self, arm => arm.event_log_ends().await)
    }
}
