//! Memberships: joining and leaving rooms, each announced once.
//!
//! A member record belongs to one claim. `join.lua` and `memory.rs` replace records of older claims of the same session
//! silently; `leave.lua` ends only a record of the caller's claim or of an older one of its session.

mod memory;
mod moderation;
mod redis;
mod rules_memory;

use crate::model::moderation::{RoomRole, RoomTopic};
use crate::model::stream::Fork;
use crate::model::{LeftReason, Nick, Owner, RoomName, RoomRules, Status, UserId};

use super::RegistryError;

pub use self::moderation::{ModerationCaller, ModerationError, ModerationRequest};

/// A request to join a room.
#[derive(Debug, Clone, Copy)]
pub struct JoinRequest<'a> {
    /// The room, created by its first member.
    pub room: &'a RoomName,
    /// The member's nickname.
    pub nick: &'a Nick,
    /// The claim to that nickname.
    pub owner: &'a Owner,
    /// The user id shown with the member; `None` for a guest.
    pub user: Option<&'a UserId>,
    /// The status shown with the member.
    pub status: &'a Status,
    /// A new member, or one that changed its name.
    pub entry: JoinEntry<'a>,
    /// True if the member's token lets it moderate the room: then it needs no invite.
    pub moderates: bool,
}

/// The way a member enters a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinEntry<'a> {
    /// As a new member. Creates the room if there is none.
    New,
    /// As a new member of a room that exists.
    Existing,
    /// As a new member by order of an application: it needs no invite, and no right to create the room. A ban and the
    /// maximum of members hold.
    Ordered,
    /// As the same session under another nickname: this record is replaced, and a rename is announced.
    Renamed(&'a Nick, &'a Owner),
}

/// The room at the moment when the member record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedAt {
    /// The room's name in its first spelling, which all members see.
    pub room: RoomName,
    /// The room's epoch; with `seq` the joiner's position.
    pub epoch: String,
    /// The newest message: the member receives everything after it.
    pub seq: u64,
    /// The number of members, the joiner included.
    pub member_count: u64,
    /// The ends of the room's former epochs, oldest first.
    pub forks: Vec<Fork>,
    /// The topic of the room.
    pub topic: Option<RoomTopic>,
    /// The role of the member; `None` for a plain one.
    pub role: Option<RoomRole>,
}

impl JoinedAt {
    /// Returns true if the joiner is alone in a room without messages. For a session that was not in the room before,
    /// this join has created it. The answer to a repeated call is the same.
    #[must_use]
    pub fn is_first_entry(&self) -> bool {
        self.member_count == 1 && self.seq == 0
    }
}

/// A room whose rules were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuledRoom {
    /// The room's name in its first spelling, which all members see.
    pub room: RoomName,
    /// True if the call created it.
    pub is_new: bool,
}

/// A request to end a membership.
#[derive(Debug, Clone, Copy)]
pub struct LeaveRequest<'a> {
    /// The room.
    pub room: &'a RoomName,
    /// The member's nickname.
    pub nick: &'a Nick,
    /// The claim that holds the membership, or a newer one of its session.
    pub owner: &'a Owner,
    /// The reason that is announced.
    pub reason: LeftReason,
    /// The effect on a later resume.
    pub intent: LeaveIntent,
}

/// The effect of a leave on a later resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveIntent {
    /// The client left: a resume does not restore the room.
    ForGood,
    /// The connection was lost: a resume restores the room.
    ForNow,
}

contract! {
    /// Joining and leaving rooms.
    Rooms {
        /// Writes the member record, announces the entry to the room, and returns the position where it took effect. A
        /// repeated call of the same owner announces nothing. A newer claim of the same session replaces its record
        /// silently.
        ///
        /// # Errors
        /// [`RegistryError`]; `Unavailable` also if `owner` does not own the nickname (any more). `NoSuchRoom` if the
        /// room must exist and does not. `Banned`, `NotAllowed`, `RoomFull` or `InviteOnly` by the rules of the room.
        /// A session that returns needs no place and no invite; a member with another nickname is never refused.
        async fn join(&self, request: JoinRequest<'_>) -> Result<JoinedAt, RegistryError>;

        /// Ends a membership that the owner, or an older claim of its session, holds, and announces that once. Returns
        /// true if this call ended it: a claim whose session was resumed ends nothing. Works in any state of the lease.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn leave(&self, request: LeaveRequest<'_>) -> Result<bool, RegistryError>;

        /// Writes the rules of a room in place of those of the configuration, and creates the room if there is none.
        /// From then on it exists until it is ended, also without members. Members stay, whatever the rules are.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn set_room_rules(&self, room: &RoomName, rules: &RoomRules) -> Result<RuledRoom, RegistryError>;

        /// Removes all members from a room, and deletes it with its messages, rules, roles, bans and invites. Members
        /// see each other leave as kicked, and a resume restores the room for none of them. Returns false if there is
        /// no such room. A call that fails may have removed some members; repeat it.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn end_room(&self, room: &RoomName) -> Result<bool, RegistryError>;
    }
}
