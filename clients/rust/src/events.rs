//! Values that applications receive: events, answers and states of the connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// State of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The first connection is being opened.
    Connecting,
    /// The session is connected.
    Online {
        /// Name of the gateway.
        node: String,
        /// True if the session from before continues.
        resumed: bool,
        /// Time since the connection was lost, or since the start.
        took: Duration,
        /// Rooms of the session on the server. [`Parley::join`](crate::Parley::join) delivers those of an earlier run.
        rooms: Vec<String>,
        /// Id of the user that the token names.
        user: Option<String>,
    },
    /// The connection is lost, and another one is being opened.
    Resuming,
    /// There is no connection. Without `will_retry` the state is final, and every pending call has ended.
    Offline {
        /// An error code or the name of a close code of the protocol, `closed` after
        /// [`Parley::close`](crate::Parley::close), `no_token` if the function of
        /// [`Options::get_token`](crate::Options::get_token) has failed, otherwise `connection_lost`.
        reason: String,
        /// Text for people about the reason, as in [`ParleyError::message`](crate::ParleyError::message); may be empty.
        message: String,
        /// True if another attempt follows.
        will_retry: bool,
        /// Time until that attempt begins.
        retry_in: Option<Duration>,
    },
}

impl State {
    /// Returns true if the session has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Offline { will_retry: false, .. })
    }
}

/// A message of a room or a direct message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Id in the cluster. A republished message keeps it.
    pub id: String,
    /// A room, or the nickname of the receiver.
    pub to: String,
    /// Nickname of the sender.
    pub from: String,
    /// Id of the sender's user, if it has registered with a token.
    pub from_user: Option<String>,
    /// True for a message of the application. `from` is then a name that it chose, and no user.
    pub from_api: bool,
    /// Position in the room or in the inbox; `None` for a direct message that this session has sent.
    pub seq: Option<u64>,
    /// Unix milliseconds by the clock of the server.
    pub time: u64,
    /// Any JSON value.
    pub body: Value,
    /// True if this session has sent it.
    pub own: bool,
    /// True if it was delivered before and comes again after a [`RoomEvent::Rewind`], perhaps with another `seq`.
    pub repeated: bool,
}

/// An event of a room.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RoomEvent {
    /// A message. Each comes once and in order.
    Message(Message),
    /// A member is typing. Show it for about 5 seconds, or until its message arrives.
    Typing {
        /// Nickname of the member.
        from: String,
    },
    /// The members changed. [`Room::members`](crate::Room::members) has the result.
    Members(MembersChange),
    /// Messages that are no longer kept and cannot be delivered.
    Gap {
        /// Seq of the first one.
        from_seq: u64,
        /// Seq of the last one.
        to_seq: u64,
    },
    /// The server lost the messages after `seq`: discard them. What follows is valid. Messages that it recovers come
    /// again with [`Message::repeated`].
    Rewind {
        /// Seq of the last valid message, or 0.
        seq: u64,
    },
}

/// An event of a direct conversation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DirectEvent {
    /// A direct message.
    Message(Message),
    /// The other side is typing.
    Typing {
        /// Its nickname.
        from: String,
    },
    /// Direct messages that are no longer kept and cannot be delivered.
    Gap {
        /// Seq of the first one.
        from_seq: u64,
        /// Seq of the last one.
        to_seq: u64,
    },
}

/// A notice of the application to everybody, or to users whose token has a tag. It is not stored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Announcement {
    /// Id in the cluster.
    #[serde(rename = "msg_id")]
    pub id: String,
    /// Any JSON value.
    pub body: Value,
    /// Unix milliseconds by the clock of the server.
    pub time: u64,
}

/// Changes of the members of a room. Lists that did not change are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembersChange {
    /// New members.
    pub joined: Vec<Member>,
    /// Nicknames of former members with the reasons: `left`, `closed`, `timeout`, `gateway_lost` or `kicked`.
    pub left: Vec<(String, String)>,
    /// Former and new nicknames.
    pub renamed: Vec<(String, String)>,
    /// Members with a new status.
    pub status: Vec<Member>,
    /// True if the members were loaded again as a whole.
    pub resync: bool,
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Nickname as it is shown.
    pub nick: String,
    /// Id of the user, if it has registered with a token.
    #[serde(default)]
    pub user: Option<String>,
    /// Availability that the member has set.
    #[serde(default)]
    pub status: UserStatus,
    /// Status text; empty without one.
    #[serde(default)]
    pub text: String,
}

/// Availability of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserStatus {
    /// Available.
    #[default]
    Online,
    /// Absent by its own statement.
    Away,
}

/// Answer to a stored message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Ack {
    /// Id of the message.
    #[serde(rename = "msg_id")]
    pub id: String,
    /// Position in the room; `None` for a direct message.
    #[serde(default)]
    pub seq: Option<u64>,
    /// Unix milliseconds by the clock of the server.
    pub time: u64,
    /// For a direct message: the receiver is connected or not.
    #[serde(default)]
    pub delivered: Option<Delivered>,
    /// True if an earlier attempt had stored it already.
    pub duplicate: bool,
}

/// Connection of the receiver of a direct message. Offline, the message waits in its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivered {
    /// Connected.
    Online,
    /// Not connected.
    Offline,
}

/// Answer of [`Parley::whois`](crate::Parley::whois).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// Nickname as it is shown.
    pub nick: String,
    /// True if the user is connected or its session may still return.
    pub online: bool,
    /// `None` while the user is offline.
    #[serde(default)]
    pub status: Option<UserStatus>,
    /// Status text; empty without one.
    #[serde(default)]
    pub text: String,
}

/// A page of the rooms that have members.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct RoomsPage {
    /// Rooms, sorted by name.
    pub items: Vec<ListedRoom>,
    /// Argument for the next page; `None` at the end.
    pub next_cursor: Option<String>,
}

/// A room that has members.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ListedRoom {
    /// Name with its `#`.
    pub room: String,
    /// Number of members.
    pub member_count: u64,
}

/// A page of the messages of a room.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MessagePage {
    /// Messages, oldest first.
    pub items: Vec<Message>,
    /// True if there are more in the requested direction.
    pub more: bool,
}

/// The part of a room's messages to load. A page may be shorter than its limit: continue while `more` is true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum History {
    /// The newest messages.
    #[default]
    Newest,
    /// The messages directly before a seq.
    Before(u64),
    /// The messages directly after a seq.
    After(u64),
}
