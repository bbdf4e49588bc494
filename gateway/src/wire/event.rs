//! What a client can be told: replies to its requests, and what happens in its rooms.

use presence::model::codes::ErrorCode;
use presence::model::{MemberInfo, PresenceDelta, Status};

use crate::message::ChatMessage;

use super::command::{CorrelationId, Since, Token};

/// Why a request was refused, or why a frame was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which row of the error table.
    pub code: ErrorCode,
    /// What exactly, in our own words; `None` says no more than the table does.
    pub detail: Option<String>,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// The words for people: the detail where there is one, else the table's.
    #[must_use]
    pub fn message(&self) -> &str {
        self.detail.as_deref().unwrap_or_else(|| self.code.message())
    }

    /// The same refusal with our own words for this case.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, detail: None, retry_after_ms: None }
    }
}

/// The answer to one request of one client.
#[derive(Debug)]
pub struct Reply {
    /// The request's own id.
    pub id: CorrelationId,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    /// The session has begun, or goes on.
    Registered {
        /// The nickname as it is shown.
        nick: String,
        /// The session's id.
        session: String,
        /// What makes the client this session, on any gateway.
        resume: Token,
        /// The rooms that the session is in still, silent until they are entered.
        rooms: Vec<RestoredRoom>,
        /// Where its inbox ends.
        inbox: Since,
        /// How often the server pings an active client, in milliseconds.
        heartbeat_ms: u64,
        /// The node that answered.
        node: String,
        /// The server's clock, Unix milliseconds.
        time: u64,
    },
    /// The room was entered: everything follows that was said after `seq`, or after where the client was.
    Joined {
        /// The room as it is shown.
        room: String,
        /// The room's epoch.
        epoch: String,
        /// The newest message before the entry.
        seq: u64,
        /// Members, the client included.
        member_count: u64,
        /// Whether what follows goes on where the client was.
        recovered: bool,
    },
    /// The room was left.
    Left {
        /// The room as it is shown.
        room: String,
    },
    /// The message is in the log.
    Ack {
        /// The target as the client wrote it.
        to: String,
        /// The message's id.
        msg_id: String,
        /// Its place: a seq in a room, how it was delivered to a nick.
        placed: DeliveryStatus,
        /// When, Unix milliseconds.
        time: u64,
        /// Whether the key had been seen before.
        duplicate: bool,
    },
    /// The nickname was changed.
    Nick {
        /// The nickname now.
        nick: String,
    },
    /// The status was recorded.
    Status(Status),
    /// A page of members.
    Members {
        /// The room as it is shown.
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
    /// A part of a room's history, oldest first.
    History {
        /// The room as it is shown.
        to: String,
        /// The messages.
        items: Vec<ChatMessage>,
        /// Whether there is more in the direction asked for.
        more: bool,
    },
    /// The inbox is read up to here.
    Read {
        /// The newest message that will not be given again by itself.
        seq: u64,
    },
    /// Those it concerns are told, now or a moment ago.
    Typing {
        /// The target as the client wrote it.
        to: String,
    },
    /// Somebody is there.
    Pong,
    /// The request was refused.
    Refused(Refusal),
}

/// Where an acked message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// In a room's log.
    Room {
        /// Its number there.
        seq: u64,
    },
    /// In the inbox of the one it is meant for, who is online.
    Online,
    /// In the inbox of the one it is meant for, for when they are back.
    Offline,
}

/// A room that a session has come back to. The fields are named as in `parley.v1`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestoredRoom {
    /// The room as it is shown.
    pub room: String,
    /// The room's epoch.
    pub epoch: String,
    /// Its newest message.
    pub seq: u64,
}

/// A row of a room listing. The fields are named as in `parley.v1`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RoomItem {
    /// The room as it is shown.
    pub room: String,
    /// How many members it has.
    pub member_count: u64,
}

/// What happens around a client, unasked. Invariant: it names no receiver, so one encoding serves all of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody said something.
    Message(ChatMessage),
    /// People came, went, or changed.
    Presence {
        /// The room as it is shown.
        room: String,
        /// What changed, coalesced.
        delta: PresenceDelta,
        /// Changes were missed: ask for `members` again.
        resync: bool,
    },
    /// Messages of a room are not kept any more and cannot be given.
    Gap {
        /// The room as it is shown.
        to: String,
        /// The first that is gone.
        from_seq: u64,
        /// The last that is gone.
        to_seq: u64,
    },
    /// A new counting begins after a seq; nothing was lost.
    Epoch {
        /// The room as it is shown.
        to: String,
        /// The new epoch.
        epoch: String,
        /// After which seq it begins.
        seq: u64,
    },
    /// What was given after a seq is void; what follows is the truth.
    Rewound {
        /// The room as it is shown.
        to: String,
        /// The epoch of what follows.
        epoch: String,
        /// The last seq that still holds.
        seq: u64,
    },
    /// Somebody is writing something. Worth nothing a few seconds later.
    Typing {
        /// The room as it is shown, or the receiver's own nickname.
        to: String,
        /// Who.
        from: String,
    },
    /// This gateway is leaving; come back after so many milliseconds.
    GoingAway {
        /// When to connect again, in milliseconds.
        retry_after_ms: u64,
    },
}
