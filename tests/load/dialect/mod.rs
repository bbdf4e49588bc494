//! What the clients speak: Parley's two doors, its peers', and the floor's. Pure bytes to meanings and back.
//!
//! One enum, so that the same clients measure everybody and a comparison is one of servers. The worker asks a dialect to
//! write greetings, messages and pings, and what a message from the server means to it. A dialect knows no sockets and
//! holds no state.

mod lines;
mod nats;
mod parley;
mod peers;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::frame::{self, opcode};
use crate::stamp::Stamp;

/// A protocol that clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoadDialect {
    /// Parley's JSON over WebSocket, `parley.v1`.
    Parley,
    /// Parley's text lines over TCP.
    Lines,
    /// The small server in deploy/bench/peers/ws.js: npm `ws` and one Redis channel per room.
    Ws,
    /// Socket.IO over WebSocket, with its Redis adapter behind it.
    Socketio,
    /// The NATS protocol over WebSocket.
    Nats,
    /// The floor: a frame to it is a frame to every member.
    Bare,
}

/// Who a client is and where it goes.
#[derive(Debug)]
pub(crate) struct ClientIdentity<'a> {
    pub(crate) nick: &'a str,
    pub(crate) room: Option<&'a str>,
    /// A session that it continues.
    pub(crate) resume: Option<ResumePoint<'a>>,
}

/// Where a session was left.
#[derive(Debug)]
pub(crate) struct ResumePoint<'a> {
    pub(crate) token: &'a str,
    pub(crate) epoch: &'a str,
    /// The last seq that was heard in the room.
    pub(crate) seq: u64,
}

/// What a request was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestPurpose {
    /// The greeting; also anything unasked.
    Login,
    Publish,
    Ping,
}

/// What a message from the server means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ServerMessage {
    /// The nickname is taken. With the token of the session, and whether the wanted room came back with it.
    Registered { resume: Option<String>, restored: bool },
    /// The room is entered: `next` is the first number that comes.
    Joined { next: u64, epoch: Option<String> },
    /// A message. The seq is that of its room where the dialect has one.
    Delivery { seq: Option<u64>, stamp: Option<Stamp> },
    /// The oldest unanswered message was taken.
    Acked { seq: Option<u64> },
    /// The oldest unanswered ping was answered.
    Pong,
    /// A request was refused.
    Refused { step: RequestPurpose, code: String },
    /// The position in the room is another one now, and that was said: `gap`, `rewound`.
    Moved { kind: String, next: u64 },
    /// Nothing that is counted.
    Nothing,
}

/// How units travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One WebSocket text frame each.
    Text,
    /// A byte stream in WebSocket binary frames.
    Binary,
    /// A byte stream.
    Raw,
}

/// Where a dialect writes to: framed as it travels.
#[derive(Debug)]
pub(crate) struct FrameWriter<'a> {
    framing: Framing,
    bytes: &'a mut Vec<u8>,
}

impl FrameWriter<'_> {
    /// Appends one unit.
    pub(crate) fn put(&mut self, unit: impl AsRef<[u8]>) {
        let unit = unit.as_ref();
        match self.framing {
            Framing::Text => frame::put_masked(opcode::TEXT, unit, self.bytes),
            Framing::Binary => frame::put_masked(opcode::BINARY, unit, self.bytes),
            Framing::Raw => self.bytes.extend_from_slice(unit),
        }
    }
}

impl LoadDialect {
    /// How its units travel.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Self::Parley | Self::Ws | Self::Socketio | Self::Bare => Framing::Text,
            Self::Nats => Framing::Binary,
            Self::Lines => Framing::Raw,
        }
    }

    /// The path of the WebSocket.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Parley => "/ws",
            Self::Socketio => "/socket.io/?EIO=4&transport=websocket",
            Self::Ws | Self::Nats | Self::Bare | Self::Lines => "/",
        }
    }

    /// True if rooms number their messages, densely and for all members alike.
    pub(crate) fn has_seqs(self) -> bool {
        self == Self::Parley
    }

    /// True if every message is answered with [`ServerMessage::Acked`] or [`ServerMessage::Refused`].
    pub(crate) fn has_acks(self) -> bool {
        self == Self::Parley
    }

    /// True if people are addressed by name; elsewhere each has a room of that name.
    pub(crate) fn has_people(self) -> bool {
        matches!(self, Self::Parley | Self::Lines)
    }

    /// True if a client of it is there as soon as its connection is.
    pub(crate) fn is_there_at_once(self) -> bool {
        self == Self::Bare
    }

    /// A writer into these bytes.
    pub(crate) fn writes(self, bytes: &mut Vec<u8>) -> FrameWriter<'_> {
        FrameWriter { framing: self.framing(), bytes }
    }

    /// What a client says first.
    pub(crate) fn greet(self, who: &ClientIdentity<'_>, out: &mut FrameWriter<'_>) {
        match self {
            Self::Parley => parley::greet(who, out),
            Self::Lines => lines::greet(who, out),
            Self::Ws => peers::ws_greet(who, out),
            Self::Nats => nats::greet(who, out),
            // Socket.IO greets when it was greeted.
            Self::Socketio | Self::Bare => {}
        }
    }

    /// Says it in a room, or to a person.
    pub(crate) fn publish(self, to: &str, body: &str, out: &mut FrameWriter<'_>) {
        match self {
            Self::Parley => parley::publish(to, body, out),
            Self::Lines => lines::publish(to, body, out),
            Self::Ws => peers::ws_publish(to, body, out),
            Self::Socketio => peers::socketio_publish(to, body, out),
            Self::Nats => nats::publish(to, body, out),
            Self::Bare => out.put(body),
        }
    }

    /// Asks whether the server is there.
    pub(crate) fn ping(self, out: &mut FrameWriter<'_>) {
        match self {
            Self::Parley => parley::ping(out),
            Self::Lines => out.put("/ping\n"),
            Self::Ws => out.put(peers::WS_PING),
            Self::Socketio => out.put(peers::SOCKETIO_PING),
            Self::Nats => out.put("PING\r\n"),
            Self::Bare => out.put(peers::BARE_ECHO),
        }
    }

    /// The length of the first whole unit of a stream; only for dialects that are streams.
    pub(crate) fn unit(self, stream: &[u8]) -> Option<usize> {
        match self {
            Self::Nats => nats::unit(stream),
            _ => stream.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
        }
    }

    /// What a unit from the server means to this client. What it must answer goes into `out`.
    ///
    /// `room` is the one that the client is in or enters; asked for rarely, so it need not be at hand.
    pub(crate) fn hear(
        self,
        unit: &[u8],
        room: &dyn Fn() -> Option<String>,
        out: &mut FrameWriter<'_>,
    ) -> ServerMessage {
        match self {
            Self::Parley => parley::hear(unit, room),
            Self::Lines => lines::hear(unit),
            Self::Ws => peers::ws_hear(unit),
            Self::Socketio => peers::socketio_hear(unit, room, out),
            Self::Nats => nats::hear(unit, out),
            Self::Bare if unit == peers::BARE_ECHO => ServerMessage::Pong,
            Self::Bare => delivery(unit),
        }
    }
}

/// A message without a number of its room.
fn delivery(unit: &[u8]) -> ServerMessage {
    ServerMessage::Delivery { seq: None, stamp: Stamp::find(unit) }
}
