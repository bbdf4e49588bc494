//! [`BadInput`]: a row of the matrix, and the reaction to it.

use presence::model::codes::CloseCode;
use serde_json::{Value, json};

/// A port, and the state of the connection that sends to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Surface {
    /// A WebSocket without a nickname: text frames.
    Newcomer,
    /// A WebSocket with a nickname and a room of its own: text frames.
    Member,
    /// A WebSocket: bytes of frames.
    Frames,
    /// A line connection without a nickname: bytes.
    Lines,
    /// A line connection with a nickname and a room of its own: bytes.
    MemberLines,
    /// A line connection of a trusted proxy: bytes.
    ProxyLines,
    /// The HTTP port of clients.
    ClientPort,
    /// The HTTP port of clients, from the address of a trusted proxy.
    ProxyPort,
    /// The admin port of the gateway.
    GatewayAdmin,
    /// The admin port of presence.
    PresenceAdmin,
    /// The presence HTTP API.
    PresenceApi,
}

/// The only reaction that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Refused with this code; the connection stays open.
    Refused(&'static str),
    /// Refused with this code, then closed without another word.
    Dismissed(&'static str),
    /// Closed with this code.
    Closed(CloseCode),
    /// Accepted with a reply of this type, or a line that begins so.
    Accepted(&'static str),
    /// An HTTP answer with this status and code; no code is no problem document.
    Status(u16, &'static str),
    /// Closed without an answer.
    Ended,
}

/// A row of the matrix.
#[derive(Debug, Clone)]
pub(super) struct BadInput {
    pub(super) name: String,
    pub(super) surface: Surface,
    pub(super) bytes: Vec<u8>,
    pub(super) reaction: Reaction,
    /// The id in the reply; `null` if it has none.
    pub(super) id: Value,
    /// A request of the same connection that undoes what was accepted.
    pub(super) undo: Option<String>,
}

impl BadInput {
    /// A row with any bytes.
    pub(super) fn bytes(surface: Surface, name: impl Into<String>, bytes: impl Into<Vec<u8>>, then: Reaction) -> Self {
        let name = name.into();
        Self { name, surface, bytes: bytes.into(), reaction: then, id: Value::Null, undo: None }
    }

    /// A row with a request as JSON. It gets an id, which the reply must have.
    pub(super) fn request(surface: Surface, name: impl Into<String>, mut request: Value, then: Reaction) -> Self {
        request["id"] = json!("row");
        Self { id: json!("row"), ..Self::bytes(surface, name, request.to_string(), then) }
    }

    pub(super) fn undone_by(self, request: &Value) -> Self {
        Self { undo: Some(request.to_string()), ..self }
    }

    /// Returns the part of the repetitions that the row has: large inputs have few.
    pub(super) fn weight(&self) -> usize {
        match self.bytes.len() {
            0..2_000 => 8,
            2_000..100_000 => 2,
            _ => 1,
        }
    }
}
