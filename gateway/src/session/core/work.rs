//! What the core asks for and what it is told: effects, the work that they hold, and its outcomes.
//!
//! Values only, between the core, which makes effects, and the driver, which performs them and answers with a [`Done`].

use presence::model::codes::CloseCode;
use presence::model::stream::{StreamEnd, StreamId};
use presence::model::{MemberInfo, Nick, Owner, RoomKey, RoomName, SessionId, Status};

use crate::message::{Body, ChatMessage, Target};
use crate::wire::{Range, Reply, RoomItem, Since, Token};

/// What the driver shall do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Answer a request.
    Reply(Reply),
    /// Do this and feed its outcome to [`Core::outcome`](super::Core::outcome). At most one is out at a time, and it comes
    /// last.
    Perform(Op),
    /// Everything after a position of a log goes to the client, and what is said from here on.
    Admit(Entrance),
    /// The client has its new token: the one before is not needed any more.
    Confirm,
    /// End the connection.
    Close(CloseCode),
}

/// How a client enters a log: that of a room that its session has joined, or of its inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// The log.
    pub log: StreamId,
    /// What the client knows it by.
    pub shown: String,
    /// Where it ended when the session entered it.
    pub head: StreamEnd,
    /// The epoch that the client knows.
    pub epoch: String,
    /// What the client gets comes after this, in that epoch.
    pub after: u64,
}

/// Work for stores and backplane. Idempotent by session, so the driver may repeat it after a lost answer.
#[derive(Debug, Clone)]
pub enum Op {
    /// Take a nickname: for a new session, or as another name of this one.
    Claim(Nick, Option<SessionId>),
    /// Go on with a session under a nickname.
    Resume(Nick, Token),
    /// Give a nickname back after a change to another.
    Release(Nick, Owner, Nick),
    /// Enter a room, or write anew who is in it; `was` is the session's former name there, when it has changed.
    Join {
        /// The room.
        room: RoomName,
        /// As whom.
        me: Identity,
        /// The former name.
        was: Option<Identity>,
        /// Whether the session is to hear the room from here on. If not, it hears it already, or keeps a silent place.
        enters: bool,
    },
    /// Leave a room.
    Leave(RoomName, Identity),
    /// Say something in a room.
    Publish(RoomName, Identity, Body, Option<String>),
    /// Say something to somebody.
    Direct(Nick, Identity, Body, Option<String>),
    /// Tell somebody that something is being written to them.
    Typing(Target, Identity),
    /// Find out where the session's inbox ends.
    Inbox(SessionId),
    /// Note how far the client has read its inbox.
    Read(SessionId, u64),
    /// Record and announce a status.
    SetStatus(Identity, Status, Vec<RoomKey>),
    /// List the members of a room.
    Members(RoomName, usize, Option<String>),
    /// List rooms.
    Rooms(usize, Option<String>),
    /// Read a room's log.
    History(RoomName, Range, usize),
}

/// A session's name, its claim to it, and what it says about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The nickname.
    pub nick: Nick,
    /// The claim.
    pub owner: Owner,
    /// The status.
    pub status: Status,
}

/// How a connection begins with its session.
#[derive(Debug)]
pub struct Beginning {
    /// The claim to the nickname.
    pub owner: Owner,
    /// What the client comes back with.
    pub token: Token,
    /// The server's clock, Unix milliseconds.
    pub time: u64,
}

/// What a session that goes on had.
#[derive(Debug)]
pub struct Resumption {
    /// Its name and claim until now, when they were its own still.
    pub was: Option<(Nick, Owner)>,
    /// What it said about itself.
    pub status: Status,
    /// Its rooms.
    pub rooms: Vec<RoomName>,
    /// Up to where the client said that it has read its inbox.
    pub read: Since,
}

/// What came of an [`Op`] that was done.
#[derive(Debug)]
pub enum Done {
    /// The nickname is owned, as another name of the session.
    Claimed(Owner),
    /// A session has begun, and its inbox ends there.
    Begun(Beginning, StreamEnd),
    /// A session goes on.
    Resumed(Beginning, Resumption),
    /// The nickname was given back, the room left, the status recorded, the reading noted, or the word passed on.
    Settled,
    /// The room was entered.
    Joined {
        /// Everybody's name for it.
        room: RoomName,
        /// Where its log ends.
        head: StreamEnd,
        /// Its members.
        member_count: u64,
    },
    /// The inbox ends there.
    Inbox(StreamEnd),
    /// The message is in the store.
    Published {
        /// Its id.
        msg_id: String,
        /// Its position.
        seq: u64,
        /// When.
        time: u64,
        /// Whether it was there before.
        duplicate: bool,
        /// Whether somebody hears it now.
        online: bool,
    },
    /// A page of members.
    Members(Vec<MemberInfo>, Option<String>),
    /// A page of rooms.
    Rooms(Vec<RoomItem>, Option<String>),
    /// A stretch of a log.
    History(Vec<ChatMessage>, bool),
}
