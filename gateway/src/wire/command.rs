//! What a client can ask for: the product's verbs, as every door decodes them.

use std::fmt;

use presence::model::{Nick, RoomName, Status};
use serde_json::value::RawValue;

use crate::message::{Body, Target};

/// The client's own correlation value (a JSON string or number), echoed in the reply exactly as it was written.
/// `None` on doors without one.
pub type CorrelationId = Option<Box<RawValue>>;

/// One request of a client.
#[derive(Debug)]
pub struct Request {
    /// Echoed in the reply.
    pub id: CorrelationId,
    /// What to do.
    pub command: Command,
}

/// Which part of a history is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest messages.
    Newest,
    /// The ones just before this seq, this one excluded.
    Before(u64),
    /// The ones just after this seq, this one excluded.
    After(u64),
}

/// Where a client was in a room or in its inbox: the last message it has, or the position that it was told before any.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Since {
    /// Which counting.
    pub epoch: String,
    /// The number.
    pub seq: u64,
}

/// What makes a client its session, as the client holds it. Never shown, so that it reaches no log.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Token(Box<str>);

impl Token {
    /// Wraps the text of a token. Nothing is checked: whether it is one, the store knows.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the client that owns it and for taking it apart.
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

/// How a client goes on with a session that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeRequest {
    /// What it was given when it registered last.
    pub token: Token,
    /// Rooms to go on with at once, each named once, at most [`RESUMED_ROOMS`], and where it was in them.
    pub rooms: Vec<(RoomName, Since)>,
    /// Where it was in its inbox, if it knows.
    pub inbox: Option<Since>,
}

/// Most rooms that a resume may name.
pub const RESUMED_ROOMS: usize = 128;

/// The verbs. Names are validated, limits are in range, bodies are untouched.
#[derive(Debug)]
pub enum Command {
    /// Take a nickname and begin a session, or go on with one.
    Register {
        /// The nickname to take.
        nick: Nick,
        /// The session to go on with.
        resume: Option<ResumeRequest>,
    },
    /// Enter a room.
    Join {
        /// The room to enter.
        room: RoomName,
        /// Where the client was in it, to get what it missed.
        since: Option<Since>,
    },
    /// Leave a room.
    Leave {
        /// The room to leave.
        room: RoomName,
    },
    /// Say something to a room or to somebody.
    Send {
        /// To whom.
        to: Target,
        /// What.
        body: Body,
        /// The client's idempotency key: at most 64 bytes.
        key: Option<String>,
    },
    /// Go by another nickname.
    Nick {
        /// The nickname to take instead.
        nick: Nick,
    },
    /// Say whether one is here.
    Status(Status),
    /// Who is in a room.
    Members {
        /// The room.
        room: RoomName,
        /// Rows at most, 1 to 1000.
        limit: usize,
        /// Where the last page ended.
        cursor: Option<String>,
    },
    /// Which rooms have members.
    Rooms {
        /// Rows at most, 1 to 1000.
        limit: usize,
        /// Where the last page ended.
        cursor: Option<String>,
    },
    /// What was said in a room that one is in.
    History {
        /// The room.
        room: RoomName,
        /// Which part.
        range: Range,
        /// Messages at most, 1 to 200.
        limit: usize,
    },
    /// The client has read its inbox up to here.
    Read {
        /// The newest direct message that it needs no more.
        seq: u64,
    },
    /// The client's user is writing something.
    Typing {
        /// To whom.
        to: Target,
    },
    /// Is anybody there?
    Ping,
    /// End the session.
    Bye,
}
