//! The requests of clients, as every dialect decodes them.
//!
//! Values only. Invariant: names are valid, limits are in range, bodies are untouched.

use std::fmt;

use presence::model::moderation::ModerationOrder;
use presence::model::{ListCursor, Nick, RoomName, Status};
use serde_json::value::RawValue;

use crate::message::{Body, Target};

/// The client's own correlation value (a JSON string or number), echoed in the reply byte for byte. `None` in a dialect
/// without one.
pub type CorrelationId = Option<Box<RawValue>>;

/// One request of a client.
#[derive(Debug)]
pub struct Request {
    /// The client's correlation value.
    pub id: CorrelationId,
    /// The command.
    pub command: Command,
}

/// The part of a history that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest messages.
    Newest,
    /// The messages just before this seq, exclusive.
    Before(u64),
    /// The messages just after this seq, exclusive.
    After(u64),
}

/// A client's position in a room or in its inbox: the last message it has, or the position of `joined` or `registered`
/// before the first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Since {
    /// The epoch that `seq` belongs to.
    pub epoch: String,
    /// The seq.
    pub seq: u64,
}

/// A token of a client: for a resume, or of its user. Its debug output is blank, so that it reaches no log.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Token(Box<str>);

impl Token {
    /// Wraps the text of a token without a check.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text, to send it to its client or to parse it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A client's request to resume its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeRequest {
    /// The token of its last `registered`.
    pub token: Token,
    /// The rooms to enter at once, with its position in each: no duplicates, at most [`RESUMED_ROOMS_MAX`].
    pub rooms: Vec<(RoomName, Since)>,
    /// Its position in its inbox, if it names one.
    pub inbox: Option<Since>,
}

/// Maximum number of rooms that a resume may name.
pub const RESUMED_ROOMS_MAX: usize = 128;

/// An order of a moderator for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModerationCommand {
    /// The room.
    pub room: RoomName,
    /// The order.
    pub order: ModerationOrder,
}

/// The command of a request.
#[derive(Debug)]
pub enum Command {
    /// Begins a session under a nickname, or resumes one.
    Register {
        /// The nickname to claim; `None` for that of the user's token.
        nick: Option<Nick>,
        /// The session to resume.
        resume: Option<ResumeRequest>,
        /// The token of the user.
        token: Option<Token>,
    },
    /// Joins a room.
    Join {
        /// The room to join.
        room: RoomName,
        /// The client's position in it; everything after it is replayed.
        since: Option<Since>,
    },
    /// Leaves a room.
    Leave {
        /// The room to leave.
        room: RoomName,
    },
    /// Publishes a message to a room or to a nickname.
    Send {
        /// The room or nickname.
        to: Target,
        /// The message.
        body: Body,
        /// The client's idempotency key: 1 to 64 bytes.
        key: Option<String>,
    },
    /// Changes the nickname.
    Nick {
        /// The new nickname.
        nick: Nick,
    },
    /// Sets the user's status.
    Status(Status),
    /// Lists the members of a room.
    Members {
        /// The room.
        room: RoomName,
        /// Maximum number of rows, 1 to 1000.
        limit: usize,
        /// The `next_cursor` of the previous page.
        cursor: Option<ListCursor>,
    },
    /// Lists the rooms that have members.
    Rooms {
        /// Maximum number of rows, 1 to 1000.
        limit: usize,
        /// The `next_cursor` of the previous page.
        cursor: Option<String>,
    },
    /// Looks up one user.
    Whois {
        /// The user's nickname.
        nick: Nick,
    },
    /// Reads the history of a room that the session is in.
    History {
        /// The room.
        room: RoomName,
        /// The part of it.
        range: Range,
        /// Maximum number of messages, 1 to 200.
        limit: usize,
    },
    /// Notes that the client has read its inbox up to a seq.
    Read {
        /// The newest direct message that it does not need again.
        seq: u64,
    },
    /// Announces that the client's user is writing.
    Typing {
        /// The room or nickname.
        to: Target,
    },
    /// Renews the token of the user.
    Refresh {
        /// The new token.
        token: Token,
    },
    /// Moderates a room. Boxed: large and rare.
    Moderate(Box<ModerationCommand>),
    /// Sets options of the connection.
    Options {
        /// True if the gateway may compress what it sends.
        snappy: bool,
    },
    /// Requests a pong.
    Ping,
    /// Ends the session.
    Bye,
}
