//! What a client can ask for: the product's verbs, as every door decodes them.

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

/// Where a client was in a room: the last message it has, or the position that a `joined` told it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Since {
    /// Which counting.
    pub epoch: String,
    /// The number.
    pub seq: u64,
}

/// The verbs. Names are validated, limits are in range, bodies are untouched.
#[derive(Debug)]
pub enum Command {
    /// Take a nickname and begin a session.
    Register {
        /// The nickname to take.
        nick: Nick,
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
    /// Is anybody there?
    Ping,
    /// End the session.
    Bye,
}
