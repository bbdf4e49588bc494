//! The output to clients: replies to their requests, and the events of their rooms and inboxes.
//!
//! Values only, encoded by the dialects. Invariant: an [`Event`] names no recipient, so one encoding serves all of
//! them.

use presence::model::codes::ErrorCode;
use presence::model::moderation::{Moderation, RemovalReason, RoomRole, RoomTopic};
use presence::model::{MemberInfo, PresenceDelta, Status, UserId};

use crate::message::{Body, ChatMessage};

use super::Dialect;
use super::command::{CorrelationId, Since, Token};

/// Bytes counted for the names and numbers of one item.
const FIELDS_BYTES: usize = 64;

/// The reason why a request was refused, or a frame was not a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The row of the error table.
    pub code: ErrorCode,
    /// A more exact text than the table's.
    pub detail: Option<String>,
    /// The pause before a retry, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// Returns the text for people: the detail if there is one, else the table's.
    #[must_use]
    pub fn message(&self) -> &str {
        self.detail.as_deref().unwrap_or_else(|| self.code.message())
    }

    /// Adds a more exact text. It must not hold the text of an inner error.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, detail: None, retry_after_ms: None }
    }
}

/// The reply to one request.
#[derive(Debug)]
pub struct Reply {
    /// The client's correlation value.
    pub id: CorrelationId,
    /// The answer.
    pub answer: Answer,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// The session has begun or was resumed.
    Registered {
        /// The nickname as others see it.
        nick: String,
        /// The id of the user, if a token named one.
        user: Option<UserId>,
        /// The time until its token expires, in milliseconds.
        expires_in_ms: Option<u64>,
        /// The session's id.
        session: String,
        /// The token to resume with, on any gateway.
        resume: Token,
        /// The rooms that a resumed session is in; rooms that the client did not name deliver nothing until joined.
        rooms: Vec<RestoredRoom>,
        /// The end of its inbox.
        inbox: Since,
        /// The interval of pings to an active client, in milliseconds.
        heartbeat_ms: u64,
        /// The gateway that answered.
        node: String,
        /// The gateway's clock, Unix milliseconds.
        time: u64,
    },
    /// The room was joined. Everything after `seq`, or after the client's position, follows.
    Joined {
        /// The room as its members see it.
        room: String,
        /// The room's epoch.
        epoch: String,
        /// The newest message before the join.
        seq: u64,
        /// The number of members, the client included.
        member_count: u64,
        /// True if the messages that follow continue right after the client's position.
        recovered: bool,
        /// The topic.
        topic: Option<Box<RoomTopic>>,
        /// The client's role; `None` for a plain member.
        role: Option<RoomRole>,
        /// True if an application let the client enter: it answers no request.
        by_order: bool,
    },
    /// The room was left.
    Left {
        /// The room as its members see it.
        room: String,
    },
    /// The message is stored.
    Ack {
        /// The target as the client wrote it.
        to: String,
        /// The message's id.
        msg_id: String,
        /// Its seq in a room, or its delivery to a nickname.
        delivery: DeliveryStatus,
        /// The time of its publication, Unix milliseconds.
        time: u64,
        /// True if a message with this key was stored before.
        duplicate: bool,
    },
    /// The nickname was changed.
    Nick {
        /// The new nickname.
        nick: String,
    },
    /// The status was recorded.
    Status(Status),
    /// A page of members.
    Members {
        /// The room as its members see it.
        room: String,
        /// The rows.
        items: Vec<MemberInfo>,
        /// `None` on the last page.
        next_cursor: Option<String>,
    },
    /// A page of rooms.
    Rooms {
        /// The rows.
        items: Vec<RoomItem>,
        /// `None` on the last page.
        next_cursor: Option<String>,
    },
    /// A user that the store knows.
    Whois {
        /// The nickname as it is shown.
        nick: String,
        /// The user that the nickname is bound to, if a token named one.
        user: Option<UserId>,
        /// The status; `None` while offline.
        status: Option<Status>,
    },
    /// A part of a room's history, oldest first.
    History {
        /// The room as its members see it.
        to: String,
        /// The messages.
        items: Vec<ChatMessage>,
        /// True if there are more messages in that direction.
        more: bool,
    },
    /// The position in the inbox is recorded.
    Read {
        /// The newest message that a resume without a position skips.
        seq: u64,
    },
    /// The notice was published, now or a moment ago.
    Typing {
        /// The target as the client wrote it.
        to: String,
    },
    /// The token of the user is renewed.
    Refreshed {
        /// The time until it expires, in milliseconds; `None` if tokens are no longer in use.
        expires_in_ms: Option<u64>,
        /// The rooms that it does not allow, which the session has left.
        left: Vec<String>,
    },
    /// The order of a moderator was carried out.
    Moderated {
        /// The room as its members see it.
        room: String,
        /// The action, as the room receives it.
        notice: Box<Moderation>,
    },
    /// The options of the connection are set.
    Options {
        /// True if the gateway may compress what it sends.
        snappy: bool,
    },
    /// The reply to a ping.
    Pong,
    /// The request was refused.
    Refused(Refusal),
}

impl Answer {
    /// Returns an estimate of the encoded size in bytes. Lists are counted; all other fields count as a constant.
    #[must_use]
    pub fn estimated_bytes(&self, dialect: Dialect) -> usize {
        match self {
            Self::History { items, .. } => {
                let body = |message: &ChatMessage| message.body.json().len() * dialect.body_growth();
                let text = |message: &ChatMessage| message.name_bytes() + message.msg_id.len() + body(message);
                items.iter().map(|message| text(message) + FIELDS_BYTES).sum()
            }
            Self::Members { items, .. } => {
                let text = |MemberInfo { nick, user, status }: &MemberInfo| {
                    nick.len() + user.as_ref().map_or(0, |user| user.as_str().len()) + status.text.len()
                };
                items.iter().map(|member| text(member) + FIELDS_BYTES).sum()
            }
            Self::Rooms { items, .. } => items.iter().map(|item| item.room.len() + FIELDS_BYTES).sum(),
            Self::Registered { rooms, .. } => {
                let row = |room: &RestoredRoom| room.room.len() + room.epoch.len() + FIELDS_BYTES;
                4 * FIELDS_BYTES + rooms.iter().map(row).sum::<usize>()
            }
            Self::Joined { topic, .. } => {
                2 * FIELDS_BYTES + topic.as_ref().map_or(0, |topic| topic.text.len() + topic.by.len() + FIELDS_BYTES)
            }
            Self::Moderated { notice, .. } => {
                let texts = [&notice.nick, &notice.by, &notice.reason, &notice.text];
                4 * FIELDS_BYTES + texts.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>()
            }
            Self::Left { .. }
            | Self::Ack { .. }
            | Self::Nick { .. }
            | Self::Status(_)
            | Self::Whois { .. }
            | Self::Read { .. }
            | Self::Typing { .. }
            | Self::Refreshed { .. }
            | Self::Options { .. }
            | Self::Pong
            | Self::Refused(_) => 2 * FIELDS_BYTES,
        }
    }
}

/// The delivery of an acknowledged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// Stored in a room.
    Room {
        /// Its seq there.
        seq: u64,
    },
    /// Stored in the inbox of a session that is online.
    Online,
    /// Stored in the inbox of a session that is offline.
    Offline,
}

/// A room of a resumed session. The fields are named as in `parley.v1`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestoredRoom {
    /// The room as its members see it.
    pub room: String,
    /// The room's epoch.
    pub epoch: String,
    /// Its newest message.
    pub seq: u64,
}

/// A row of a room listing. The fields are named as in `parley.v1`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RoomItem {
    /// The room as its members see it.
    pub room: String,
    /// Its number of members.
    pub member_count: u64,
}

/// An event that a client receives without a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A message.
    Message(ChatMessage),
    /// Members joined, left or changed.
    Presence {
        /// The room as its members see it.
        room: String,
        /// The changes.
        delta: PresenceDelta,
        /// True if changes were missed: the client requests `members` again.
        resync: bool,
    },
    /// Messages that were trimmed and cannot be delivered.
    Gap {
        /// The room as its members see it.
        to: String,
        /// The first of them.
        from_seq: u64,
        /// The last of them.
        to_seq: u64,
    },
    /// A new epoch begins; nothing was lost.
    Epoch {
        /// The room as its members see it.
        to: String,
        /// The new epoch.
        epoch: String,
        /// The last seq before it.
        seq: u64,
    },
    /// Everything delivered after a seq is void; its replacement follows.
    Rewound {
        /// The room as its members see it.
        to: String,
        /// The epoch of what follows.
        epoch: String,
        /// The last seq that is still valid.
        seq: u64,
    },
    /// A user is writing. Valid for a few seconds.
    Typing {
        /// The room as its members see it, or the recipient's nickname.
        to: String,
        /// The user's nickname.
        from: String,
    },
    /// A moderator acted in a room.
    Moderation {
        /// The room as its members see it.
        room: String,
        /// The action.
        notice: Box<Moderation>,
    },
    /// A moderator removed the client from a room.
    Left {
        /// The room as its members see it.
        room: String,
        /// Kicked or banned.
        reason: RemovalReason,
        /// The moderator.
        by: Option<String>,
        /// The reason that the moderator gave.
        text: Option<String>,
    },
    /// The token of the user expires soon.
    Expiring {
        /// The time until then, in milliseconds.
        expires_in_ms: u64,
    },
    /// An announcement of the application. It is delivered once, and kept nowhere.
    Announcement {
        /// Its id.
        id: String,
        /// Any JSON value.
        body: Body,
        /// Unix milliseconds.
        time: u64,
    },
    /// The gateway is draining.
    GoingAway {
        /// The time until it closes the connection, in milliseconds.
        retry_after_ms: u64,
    },
}
