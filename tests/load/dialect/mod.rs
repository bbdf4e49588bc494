//! Dialects of the clients: Parley's three, those of its peers, and the floor's. Pure: bytes to meanings and back.
//!
//! One enum serves all, so the same clients measure every server and differences come only from the servers. The worker
//! uses it to write logins, messages and pings, and to interpret the server's messages. A dialect has no sockets and
//! no state.

mod lines;
mod nats;
mod packed;
mod packed_fields;
mod parley;
mod peers;

#[cfg(test)]
mod packed_tests;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use self::packed::{LoadCarrier, LoadFormat, LoadPacking};
use crate::frame::{self, opcode};
use crate::stamp::Stamp;

/// Protocol of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoadDialect {
    /// Parley's JSON over WebSocket, `parley.v1`.
    Parley,
    /// Parley's packed messages, in a format over a carrier.
    #[value(skip)]
    Packed(LoadPacking),
    /// Parley's line dialect over TCP.
    Lines,
    /// The small server in deploy/bench/peers/ws.js: npm `ws` and one Redis channel per room.
    Ws,
    /// Socket.IO over WebSocket, with its Redis adapter behind it.
    Socketio,
    /// The NATS protocol over WebSocket.
    Nats,
    /// The floor: it sends each frame to every member.
    Bare,
}

/// Name, rooms and session of a client.
#[derive(Debug)]
pub(crate) struct ClientIdentity<'a> {
    pub(crate) nick: &'a str,
    pub(crate) rooms: &'a [String],
    /// Session to resume.
    pub(crate) resume: Option<&'a ResumePoint<'a>>,
}

/// Token and position to resume a session.
#[derive(Debug)]
pub(crate) struct ResumePoint<'a> {
    pub(crate) token: &'a str,
    pub(crate) epoch: &'a str,
    /// Last seq received in the room.
    pub(crate) seq: u64,
}

/// Purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestPurpose {
    /// The login; also any unsolicited message.
    Login,
    Publish,
    Ping,
}

/// Meaning of a message from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ServerMessage {
    /// The nickname is accepted. `resume` is the token of the session; `restored` is true if its room was restored.
    Registered { resume: Option<String>, restored: bool },
    /// The client has joined the room; `next` is the number of its next message.
    Joined { next: u64, epoch: Option<String> },
    /// A message, with its seq in the room if the dialect has seqs.
    Delivery { seq: Option<u64>, stamp: Option<Stamp> },
    /// The oldest unanswered message was accepted.
    Acked { seq: Option<u64> },
    /// The oldest unanswered ping was answered.
    Pong,
    /// A request was refused.
    Refused { step: RequestPurpose, code: String },
    /// The server announced a new position in the room: `gap`, `rewound`.
    Moved { kind: String, next: u64 },
    /// A message without effect on the counts.
    Nothing,
}

/// Transport of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One WebSocket text frame each.
    Text,
    /// One WebSocket binary frame each.
    Message,
    /// A byte stream in WebSocket binary frames.
    Binary,
    /// A byte stream.
    Raw,
}

/// Output of a dialect, with its framing.
#[derive(Debug)]
pub(crate) struct DialectWriter<'a> {
    framing: Framing,
    bytes: &'a mut Vec<u8>,
}

impl DialectWriter<'_> {
    /// Appends one unit.
    pub(crate) fn put(&mut self, unit: impl AsRef<[u8]>) {
        let unit = unit.as_ref();
        match self.framing {
            Framing::Text => frame::put_masked(opcode::TEXT, unit, self.bytes),
            Framing::Message | Framing::Binary => frame::put_masked(opcode::BINARY, unit, self.bytes),
            Framing::Raw => self.bytes.extend_from_slice(unit),
        }
    }
}

impl LoadDialect {
    /// Returns the name of the server and of the format in outcomes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parley => "parley",
            Self::Packed(packing) => packing.name(),
            Self::Lines => "lines",
            Self::Ws => "ws",
            Self::Socketio => "socketio",
            Self::Nats => "nats",
            Self::Bare => "bare",
        }
    }

    /// Returns the framing of its units.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Self::Parley | Self::Ws | Self::Socketio | Self::Bare => Framing::Text,
            Self::Packed(packing) => packing.framing(),
            Self::Nats => Framing::Binary,
            Self::Lines => Framing::Raw,
        }
    }

    /// Returns the subprotocol of the WebSocket, if it has one.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Packed(packing) => packing.subprotocol(),
            _ => None,
        }
    }

    /// Returns true if its address is that of Parley's WebSockets.
    pub(crate) fn is_parley_websocket(self) -> bool {
        matches!(self, Self::Parley | Self::Packed(LoadPacking { carrier: LoadCarrier::WebSocket, .. }))
    }

    /// Returns the path of the WebSocket.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Parley | Self::Packed(_) => "/ws",
            Self::Socketio => "/socket.io/?EIO=4&transport=websocket",
            Self::Ws | Self::Nats | Self::Bare | Self::Lines => "/",
        }
    }

    /// Returns true if rooms number their messages densely and equally for all members.
    pub(crate) fn has_seqs(self) -> bool {
        matches!(self, Self::Parley | Self::Packed(_))
    }

    /// Returns true if every message is answered with [`ServerMessage::Acked`] or [`ServerMessage::Refused`].
    pub(crate) fn has_acks(self) -> bool {
        matches!(self, Self::Parley | Self::Packed(_))
    }

    /// Returns true if clients are addressed by nickname; otherwise each client has a room of that name.
    pub(crate) fn has_nicks(self) -> bool {
        matches!(self, Self::Parley | Self::Packed(_) | Self::Lines)
    }

    /// Returns the number of [`ServerMessage::Joined`] or [`ServerMessage::Pong`] that complete the login to `rooms`.
    pub(crate) fn joins_answered(self, rooms: usize) -> usize {
        // NATS answers one ping after all subscriptions.
        if self == Self::Nats { 1 } else { rooms.max(1) }
    }

    /// Returns true if a client is ready as soon as it is connected.
    pub(crate) fn is_ready_on_connect(self) -> bool {
        self == Self::Bare
    }

    /// Returns a writer into these bytes.
    pub(crate) fn writer(self, bytes: &mut Vec<u8>) -> DialectWriter<'_> {
        DialectWriter { framing: self.framing(), bytes }
    }

    /// Writes the client's login: its name and its rooms.
    pub(crate) fn log_in(self, identity: &ClientIdentity<'_>, out: &mut DialectWriter<'_>) {
        match self {
            Self::Parley => parley::log_in(identity, out),
            Self::Packed(packing) => packed::log_in(packing, identity, out),
            Self::Lines => lines::log_in(identity, out),
            Self::Ws => peers::ws_log_in(identity, out),
            Self::Nats => nats::log_in(identity, out),
            // A Socket.IO client logs in after the server's first packet.
            Self::Socketio | Self::Bare => {}
        }
    }

    /// Writes a message to a room or to a client.
    pub(crate) fn publish(self, to: &str, body: &str, out: &mut DialectWriter<'_>) {
        match self {
            Self::Parley => parley::publish(to, body, out),
            Self::Packed(packing) => packed::publish(packing, to, body, out),
            Self::Lines => lines::publish(to, body, out),
            Self::Ws => peers::ws_publish(to, body, out),
            Self::Socketio => peers::socketio_publish(to, body, out),
            Self::Nats => nats::publish(to, body, out),
            Self::Bare => out.put(body),
        }
    }

    /// Writes a ping.
    pub(crate) fn ping(self, out: &mut DialectWriter<'_>) {
        match self {
            Self::Parley => parley::ping(out),
            Self::Packed(packing) => packed::ping(packing, out),
            Self::Lines => out.put("/ping\n"),
            Self::Ws => out.put(peers::WS_PING),
            Self::Socketio => out.put(peers::SOCKETIO_PING),
            Self::Nats => out.put("PING\r\n"),
            Self::Bare => out.put(peers::BARE_ECHO),
        }
    }

    /// Returns the length of the first whole unit of a stream; only for dialects that are streams.
    pub(crate) fn unit(self, stream: &[u8]) -> Option<usize> {
        match self {
            Self::Nats => nats::unit(stream),
            Self::Packed(_) => packed::unit(stream),
            _ => stream.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
        }
    }

    /// Interprets a unit from the server for this client. A required answer goes into `out`.
    ///
    /// `rooms` returns the client's current or future rooms; few units need them.
    pub(crate) fn interpret(
        self,
        unit: &[u8],
        rooms: &dyn Fn() -> Vec<String>,
        out: &mut DialectWriter<'_>,
    ) -> ServerMessage {
        match self {
            Self::Parley => parley::interpret(unit, rooms),
            Self::Packed(packing) => packed::interpret(packing, unit, rooms, out),
            Self::Lines => lines::interpret(unit),
            Self::Ws => peers::ws_interpret(unit),
            Self::Socketio => peers::socketio_interpret(unit, rooms, out),
            Self::Nats => nats::interpret(unit, out),
            Self::Bare if unit == peers::BARE_ECHO => ServerMessage::Pong,
            Self::Bare => delivery(unit),
        }
    }
}

/// Returns a delivery without a seq.
fn delivery(unit: &[u8]) -> ServerMessage {
    ServerMessage::Delivery { seq: None, stamp: Stamp::find(unit) }
}
