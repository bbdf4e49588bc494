//! Frames of the protocol `parley.v1` that a client writes and reads.
//!
//! Unknown event types and fields are ignored, and so is a frame that is malformed: the server never sends one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::error::ParleyError;
use crate::events::{Announcement, Member, MembersChange, UserStatus};
use crate::sign_in::TokenText;

/// Name of the inbox among the streams.
pub(crate) const INBOX: &str = "@";

/// Size of a request: 64 KiB, less the `id` and `since` that are added to it.
pub(crate) const REQUEST_BYTES_MAX: usize = 65_280;

/// Returns the key of a name, by the rules of the server. Names that differ only in case, width, joiners or old forms
/// of letters are the same. Each letter is mapped alone: the lower case of a whole text depends on the end of words.
pub(crate) fn fold(name: &str) -> String {
    let usual = |letter: char| match letter {
        'ς' | '\u{1C80}'..='\u{1C88}' => letter.to_uppercase().next().unwrap_or(letter),
        _ => letter,
    };
    let visible = name.chars().filter(|letter| !matches!(letter, '\u{200C}' | '\u{200D}'));
    visible.map(usual).flat_map(char::to_lowercase).nfkc().collect()
}

pub(crate) fn is_room(target: &str) -> bool {
    target.starts_with('#')
}

/// A position in the messages of a room or of the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WirePosition {
    pub(crate) epoch: String,
    pub(crate) seq: u64,
}

/// A request, without its `id`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum ClientRequest {
    Register {
        /// `None` if the token names it.
        #[serde(skip_serializing_if = "Option::is_none")]
        nick: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenText>,
        #[serde(flatten)]
        resume: Option<ResumeFields>,
    },
    Refresh {
        token: TokenText,
    },
    Join {
        room: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<WirePosition>,
    },
    Leave {
        room: String,
    },
    Send {
        to: String,
        body: Value,
        key: String,
    },
    Members {
        room: String,
        limit: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    Rooms {
        limit: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    History {
        to: String,
        limit: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    Whois {
        nick: String,
    },
    Status {
        status: UserStatus,
        text: String,
    },
    Nick {
        nick: String,
    },
    Read {
        to: String,
        seq: u64,
    },
    Typing {
        to: String,
    },
    Ping,
    Bye,
}

/// Fields of a `register` that resumes a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ResumeFields {
    pub(crate) resume: String,
    pub(crate) since: BTreeMap<String, WirePosition>,
}

impl ClientRequest {
    /// Returns the lane of a request that changes something: such requests to one target are executed in order.
    pub(crate) fn lane(&self) -> Option<String> {
        match self {
            Self::Join { room, .. } | Self::Leave { room } => Some(fold(room)),
            Self::Send { to, .. } => Some(fold(to)),
            // `$` is in no name.
            Self::Status { .. } => Some("$status".to_owned()),
            Self::Nick { .. } => Some("$nick".to_owned()),
            _ => None,
        }
    }

    /// Returns the frame with this `id`.
    pub(crate) fn encode(&self, id: Option<u64>) -> serde_json::Result<Value> {
        #[derive(Serialize)]
        struct RequestFrame<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u64>,
            #[serde(flatten)]
            request: &'a ClientRequest,
        }
        serde_json::to_value(RequestFrame { id, request: self })
    }
}

/// A frame of the server.
#[derive(Debug)]
pub(crate) enum IncomingFrame {
    /// An error without an `id` refuses a frame that was not read.
    Reply {
        id: Option<u64>,
        outcome: Result<Value, ParleyError>,
    },
    Event(EventFrame),
    Announcement(Announcement),
    GoingAway,
    Expiring {
        expires_in_ms: u64,
    },
}

/// An event of a room or of the inbox.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum EventFrame {
    Message(MessageFrame),
    Gap {
        to: String,
        from_seq: u64,
        to_seq: u64,
    },
    Rewound {
        to: String,
        epoch: String,
        seq: u64,
    },
    Epoch {
        to: String,
        epoch: String,
        seq: u64,
    },
    Presence(PresenceFrame),
    Typing {
        to: String,
        from: String,
    },
    /// A moderator has removed this session from the room.
    Left {
        room: String,
        reason: String,
    },
    /// The application lets this session enter a room.
    Joined(JoinedFrame),
}

impl EventFrame {
    /// Returns the room, or the nickname of the receiver.
    pub(crate) fn target(&self) -> &str {
        match self {
            Self::Message(message) => &message.to,
            Self::Gap { to, .. } | Self::Rewound { to, .. } | Self::Epoch { to, .. } | Self::Typing { to, .. } => to,
            Self::Presence(presence) => &presence.room,
            Self::Left { room, .. } => room,
            Self::Joined(joined) => &joined.room,
        }
    }
}

/// A message: an event, or an item of `history`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct MessageFrame {
    pub(crate) to: String,
    pub(crate) from: String,
    #[serde(default)]
    pub(crate) from_user: Option<String>,
    #[serde(default)]
    pub(crate) from_api: bool,
    pub(crate) msg_id: String,
    pub(crate) seq: u64,
    pub(crate) time: u64,
    pub(crate) body: Value,
}

impl MessageFrame {
    /// Returns true if a user sent it under this nickname. The name on a message of the application is no user.
    pub(crate) fn is_under(&self, nick: &str) -> bool {
        !self.from_api && fold(&self.from) == fold(nick)
    }
}

/// Changes of the members of a room.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PresenceFrame {
    pub(crate) room: String,
    joined: Vec<Member>,
    left: Vec<LeftEntry>,
    renamed: Vec<RenamedEntry>,
    status: Vec<Member>,
    pub(crate) resync: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct LeftEntry {
    nick: String,
    reason: String,
}

#[derive(Debug, Clone, Deserialize)]
struct RenamedEntry {
    from: String,
    to: String,
}

impl From<PresenceFrame> for MembersChange {
    fn from(frame: PresenceFrame) -> Self {
        Self {
            joined: frame.joined,
            left: frame.left.into_iter().map(|entry| (entry.nick, entry.reason)).collect(),
            renamed: frame.renamed.into_iter().map(|entry| (entry.from, entry.to)).collect(),
            status: frame.status,
            resync: false,
        }
    }
}

/// The reply to `register`.
#[derive(Debug, Deserialize)]
pub(crate) struct RegisteredFrame {
    pub(crate) nick: String,
    #[serde(default)]
    pub(crate) user: Option<String>,
    pub(crate) resume: String,
    pub(crate) rooms: Vec<RegisteredRoom>,
    pub(crate) inbox: WirePosition,
    pub(crate) heartbeat_ms: u64,
    pub(crate) node: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RegisteredRoom {
    pub(crate) room: String,
}

/// The reply to `refresh`: the rooms that the new token does not allow.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RefreshedFrame {
    pub(crate) left: Vec<String>,
}

/// The reply to `join`, and the event of a room that the application lets this session enter.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct JoinedFrame {
    pub(crate) room: String,
    #[serde(flatten)]
    pub(crate) position: WirePosition,
}

/// The reply to `members`.
#[derive(Debug, Deserialize)]
pub(crate) struct MembersFrame {
    pub(crate) items: Vec<Member>,
    pub(crate) next_cursor: Option<String>,
}

/// The reply to `history`.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryFrame {
    pub(crate) items: Vec<MessageFrame>,
    pub(crate) more: bool,
}

/// The reply to `nick`.
#[derive(Debug, Deserialize)]
pub(crate) struct NickFrame {
    pub(crate) nick: String,
}

/// Reads a frame of the server; `None` if it has no meaning for this client.
pub(crate) fn parse(value: Value) -> Option<IncomingFrame> {
    let id = value.get("id").and_then(Value::as_u64);
    match value.get("type")?.as_str()? {
        "error" => {
            let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
            let retry_after = value.get("retry_after_ms").and_then(Value::as_u64).map(Duration::from_millis);
            let error = ParleyError::new(field("code")?, field("message").unwrap_or_default());
            Some(IncomingFrame::Reply { id, outcome: Err(error.with_retry_after(retry_after)) })
        }
        "announcement" => serde_json::from_value(value).ok().map(IncomingFrame::Announcement),
        _ if id.is_some() => Some(IncomingFrame::Reply { id, outcome: Ok(value) }),
        "going_away" => Some(IncomingFrame::GoingAway),
        "expiring" => {
            let expires_in_ms = value.get("expires_in_ms").and_then(Value::as_u64).unwrap_or(0);
            Some(IncomingFrame::Expiring { expires_in_ms })
        }
        _ => serde_json::from_value(value).ok().map(IncomingFrame::Event),
    }
}
