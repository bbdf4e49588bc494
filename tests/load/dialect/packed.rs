//! Parley's packed messages, specified in gateway/PROTOCOL.md: a [`LoadFormat`] over a [`LoadCarrier`].
//!
//! Only the fields that a client needs are read. The stamp is looked for in the body alone, because the raw bytes of
//! other fields may contain its mark. Compression is never requested, and sessions of binary formats are not resumed.

use serde::{Deserialize, Serialize};

use super::packed_fields::{FieldWriter, LoadFieldValue, fields};
use super::parley::{self, JOIN, PING, REGISTER, SEND};
use super::{ClientIdentity, DialectWriter, Framing, RequestPurpose, ServerMessage};
use crate::stamp::Stamp;

const MAGIC: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
/// Bytes of magic, version and length.
const HEAD_BYTES: usize = 9;

mod message_type {
    pub(super) const REGISTER: u16 = 1;
    pub(super) const JOIN: u16 = 2;
    pub(super) const SEND: u16 = 4;
    pub(super) const PING: u16 = 14;
    pub(super) const REGISTERED: u16 = 257;
    pub(super) const JOINED: u16 = 258;
    pub(super) const ACK: u16 = 260;
    pub(super) const PONG: u16 = 270;
    pub(super) const ERROR: u16 = 511;
    pub(super) const MESSAGE: u16 = 513;
    pub(super) const GAP: u16 = 515;
    pub(super) const REWOUND: u16 = 517;
    pub(super) const CLOSING: u16 = 769;
    pub(super) const HEARTBEAT: u16 = 770;
}

mod field {
    pub(super) const ID: u8 = 1;
    pub(super) const TO: u8 = 2;
    pub(super) const BODY: u8 = 4;
    pub(super) const SEQ: u8 = 5;
    pub(super) const ROOM: u8 = 8;
    pub(super) const NICK: u8 = 9;
    pub(super) const CODE: u8 = 11;
    pub(super) const TO_SEQ: u8 = 41;
}

/// Format of packed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoadFormat {
    /// Only in frames: over WebSocket JSON is text.
    Json,
    MessagePack,
    Protobuf,
}

/// Carrier of packed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoadCarrier {
    /// WebSocket with the subprotocol of the format.
    WebSocket,
    /// TCP frames.
    Frames,
}

/// Format and carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadPacking {
    pub(crate) format: LoadFormat,
    pub(crate) carrier: LoadCarrier,
}

impl LoadPacking {
    pub(super) fn name(self) -> &'static str {
        match (self.carrier, self.format) {
            (LoadCarrier::WebSocket, LoadFormat::Json) => "parley",
            (LoadCarrier::WebSocket, LoadFormat::MessagePack) => "parley-msgpack",
            (LoadCarrier::WebSocket, LoadFormat::Protobuf) => "parley-protobuf",
            (LoadCarrier::Frames, LoadFormat::Json) => "parley-frames-json",
            (LoadCarrier::Frames, LoadFormat::MessagePack) => "parley-frames-msgpack",
            (LoadCarrier::Frames, LoadFormat::Protobuf) => "parley-frames-protobuf",
        }
    }

    pub(super) fn framing(self) -> Framing {
        match self.carrier {
            LoadCarrier::WebSocket => Framing::Message,
            LoadCarrier::Frames => Framing::Raw,
        }
    }

    pub(super) fn subprotocol(self) -> Option<&'static str> {
        match (self.carrier, self.format) {
            (LoadCarrier::WebSocket, LoadFormat::MessagePack) => Some("parley.v1.msgpack"),
            (LoadCarrier::WebSocket, LoadFormat::Protobuf) => Some("parley.v1.protobuf"),
            _ => None,
        }
    }

    fn put(self, kind: u16, payload: &[u8], out: &mut DialectWriter<'_>) {
        let mut unit = Vec::with_capacity(HEAD_BYTES + 2 + payload.len());
        if self.carrier == LoadCarrier::Frames {
            let version = match self.format {
                LoadFormat::Json => 1,
                LoadFormat::MessagePack => 2,
                LoadFormat::Protobuf => 3,
            };
            unit.extend_from_slice(&MAGIC);
            unit.push(version);
            unit.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        unit.extend_from_slice(&kind.to_be_bytes());
        unit.extend_from_slice(payload);
        out.put(unit);
    }

    /// Writes a request as JSON or as fields.
    fn request(
        self,
        kind: u16,
        json: impl FnOnce() -> String,
        packed: impl FnOnce(FieldWriter) -> FieldWriter,
        out: &mut DialectWriter<'_>,
    ) {
        let payload = match self.format {
            LoadFormat::Json => json().into_bytes(),
            format => packed(FieldWriter::new(format)).finish(),
        };
        self.put(kind, &payload, out);
    }
}

pub(super) fn log_in(packing: LoadPacking, identity: &ClientIdentity<'_>, out: &mut DialectWriter<'_>) {
    let register = |writer: FieldWriter| writer.number(field::ID, REGISTER).text(field::NICK, identity.nick);
    packing.request(message_type::REGISTER, || parley::register(identity), register, out);
    for room in identity.rooms {
        let join = |writer: FieldWriter| writer.number(field::ID, JOIN).text(field::ROOM, room);
        packing.request(message_type::JOIN, || parley::join(room), join, out);
    }
}

pub(super) fn publish(packing: LoadPacking, to: &str, body: &str, out: &mut DialectWriter<'_>) {
    let send = |writer: FieldWriter| {
        let writer = writer.number(field::ID, SEND).text(field::TO, to);
        match packing.format {
            LoadFormat::Protobuf => writer.text(field::BODY, &format!("\"{body}\"")),
            _ => writer.text(field::BODY, body),
        }
    };
    packing.request(message_type::SEND, || parley::send(to, body), send, out);
}

pub(super) fn ping(packing: LoadPacking, out: &mut DialectWriter<'_>) {
    packing.request(message_type::PING, parley::ping_request, |writer| writer.number(field::ID, PING), out);
}

/// Returns the length of a frame, or of a line of the greeting before the first one.
pub(super) fn unit(stream: &[u8]) -> Option<usize> {
    if stream.first() != Some(&MAGIC[0]) {
        return stream.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    }
    let length: [u8; 4] = stream.get(HEAD_BYTES - 4..HEAD_BYTES)?.try_into().ok()?;
    let whole = (u32::from_be_bytes(length) as usize).checked_add(HEAD_BYTES + 2)?;
    (stream.len() >= whole).then_some(whole)
}

pub(super) fn interpret(
    packing: LoadPacking,
    unit: &[u8],
    rooms: &dyn Fn() -> Vec<String>,
    out: &mut DialectWriter<'_>,
) -> ServerMessage {
    let refused = |code: &str| ServerMessage::Refused { step: RequestPurpose::Login, code: code.to_owned() };
    let message = match packing.carrier {
        LoadCarrier::WebSocket => unit,
        LoadCarrier::Frames if unit.starts_with(&MAGIC) => &unit[HEAD_BYTES..],
        LoadCarrier::Frames if unit.starts_with(b"* ") => return ServerMessage::Nothing,
        LoadCarrier::Frames => return refused("not_parley"),
    };
    let Some((kind, payload)) = message.split_first_chunk() else { return refused("not_parley") };
    match u16::from_be_bytes(*kind) {
        message_type::HEARTBEAT => {
            packing.put(message_type::HEARTBEAT, &[], out);
            ServerMessage::Nothing
        }
        message_type::CLOSING => refused("closing"),
        _ if packing.format == LoadFormat::Json => parley::interpret(payload, rooms),
        kind => interpret_fields(kind, &LoadFields::read(packing.format, payload), rooms),
    }
}

/// Fields that a client needs.
#[derive(Debug, Default)]
struct LoadFields<'a> {
    id: Option<u64>,
    seq: Option<u64>,
    to_seq: Option<u64>,
    to: Option<&'a [u8]>,
    body: Option<&'a [u8]>,
    code: Option<&'a [u8]>,
}

impl<'a> LoadFields<'a> {
    fn read(format: LoadFormat, payload: &'a [u8]) -> Self {
        let mut read = Self::default();
        for (number, value) in fields(format, payload) {
            match (u8::try_from(number).unwrap_or_default(), value) {
                (field::ID, LoadFieldValue::Number(id)) => read.id = Some(id),
                (field::SEQ, LoadFieldValue::Number(seq)) => read.seq = Some(seq),
                (field::TO_SEQ, LoadFieldValue::Number(seq)) => read.to_seq = Some(seq),
                (field::TO, LoadFieldValue::Bytes(to)) => read.to = Some(to),
                (field::BODY, LoadFieldValue::Bytes(body)) => read.body = Some(body),
                (field::CODE, LoadFieldValue::Bytes(code)) => read.code = Some(code),
                _ => {}
            }
        }
        read
    }
}

fn interpret_fields(kind: u16, fields: &LoadFields<'_>, rooms: &dyn Fn() -> Vec<String>) -> ServerMessage {
    let is_own_room = |name: &[u8]| rooms().iter().any(|room| room.as_bytes() == name);
    match kind {
        message_type::MESSAGE => ServerMessage::Delivery { seq: fields.seq, stamp: fields.body.and_then(Stamp::find) },
        message_type::REGISTERED => ServerMessage::Registered { resume: None, restored: false },
        message_type::JOINED => ServerMessage::Joined { next: fields.seq.unwrap_or_default() + 1, epoch: None },
        message_type::ACK => ServerMessage::Acked { seq: fields.seq },
        message_type::PONG => ServerMessage::Pong,
        message_type::GAP | message_type::REWOUND if fields.to.is_some_and(is_own_room) => {
            let name = if kind == message_type::GAP { "gap" } else { "rewound" };
            let next = fields.to_seq.or(fields.seq).unwrap_or_default() + 1;
            ServerMessage::Moved { kind: name.to_owned(), next }
        }
        message_type::ERROR => {
            let code = String::from_utf8_lossy(fields.code.unwrap_or_default()).into_owned();
            ServerMessage::Refused { step: parley::purpose(fields.id), code }
        }
        _ => ServerMessage::Nothing,
    }
}
