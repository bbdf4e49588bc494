//! MessagePack of binary frames: the type as two bytes, then one map with numbers as keys.
//!
//! A frame is the object of a JSON text frame, so the session machine knows nothing of formats. [`encode`] and
//! [`decode`] are pure. Numbers and names are those of the page of the protocol; those unknown here are left
//! out.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use serde_json::{Map, Value};

use self::reader::PackedFrameReader;
use self::writer::PackedRequestWriter;

/// Name of the format in the handshake.
pub(crate) const SUBPROTOCOL: &str = "parley.v1.msgpack";

/// Number that is added to the type of a request for its reply.
const REPLY: u16 = 256;

/// Requests by type.
const REQUESTS: [(&str, u16); 24] = [
    ("register", 1),
    ("join", 2),
    ("leave", 3),
    ("send", 4),
    ("nick", 5),
    ("status", 6),
    ("members", 7),
    ("rooms", 8),
    ("whois", 9),
    ("history", 10),
    ("read", 11),
    ("typing", 12),
    ("refresh", 13),
    ("ping", 14),
    ("bye", 15),
    ("kick", 32),
    ("ban", 33),
    ("unban", 34),
    ("mute", 35),
    ("unmute", 36),
    ("op", 37),
    ("deop", 38),
    ("invite", 39),
    ("topic", 40),
];

/// Replies with a name of their own. All others have that of their request.
const REPLIES: [(&str, u16); 7] = [
    ("registered", 257),
    ("joined", 258),
    ("left", 259),
    ("ack", 260),
    ("refreshed", 269),
    ("pong", 270),
    ("error", 511),
];

/// Events from [`FIRST_EVENT`] on.
const EVENTS: [&str; 11] = [
    "message",
    "presence",
    "gap",
    "epoch",
    "rewound",
    "typing",
    "moderation",
    "left",
    "expiring",
    "announcement",
    "going_away",
];
const FIRST_EVENT: u16 = 513;

/// Fields from 1 on.
const FIELDS: [&str; 55] = [
    "id",
    "to",
    "from",
    "body",
    "seq",
    "time",
    "msg_id",
    "room",
    "nick",
    "key",
    "code",
    "epoch",
    "user",
    "from_user",
    "text",
    "since",
    "resume",
    "token",
    "session",
    "rooms",
    "inbox",
    "heartbeat_ms",
    "node",
    "expires_in_ms",
    "member_count",
    "recovered",
    "topic",
    "role",
    "delivered",
    "duplicate",
    "status",
    "items",
    "next_cursor",
    "online",
    "more",
    "left",
    "joined",
    "renamed",
    "resync",
    "from_seq",
    "to_seq",
    "reason",
    "by",
    "until",
    "action",
    "seconds",
    "limit",
    "cursor",
    "before",
    "after",
    "message",
    "retry_after_ms",
    "from_api",
    "snappy",
    "close_code",
];

/// Returns the message of a request; `None` for an object that is no request of the protocol.
pub(crate) fn encode(request: &Value) -> Option<Vec<u8>> {
    let fields = request.as_object()?;
    let kind = fields.get("type")?.as_str()?;
    let number = REQUESTS.iter().find(|(name, _)| *name == kind)?.1;
    let mut writer = PackedRequestWriter(number.to_be_bytes().to_vec());
    let fields: Vec<_> = fields.iter().filter(|(name, _)| *name != "type").collect();
    if fields.is_empty() {
        return Some(writer.0);
    }
    writer.length(fields.len(), 0x80, 15, [0xDE, 0xDF]);
    for (name, value) in fields {
        writer.field_name(name)?;
        match value {
            Value::Object(since) if name == "since" && kind == "register" => writer.positions(since)?,
            value => writer.value(value, name == "body")?,
        }
    }
    Some(writer.0)
}

/// Returns the frame of a message; `None` if the bytes are not the protocol. A type without a name is its number.
pub(crate) fn decode(message: &[u8]) -> Option<Value> {
    let (number, payload) = message.split_first_chunk()?;
    let number = u16::from_be_bytes(*number);
    let mut reader = PackedFrameReader(payload);
    let mut frame = match reader.0 {
        [] => Map::new(),
        _ => match reader.value(0)? {
            Value::Object(fields) if reader.0.is_empty() => fields,
            _ => return None,
        },
    };
    let event = number.checked_sub(FIRST_EVENT).and_then(|at| EVENTS.get(usize::from(at)));
    let reply = || REPLIES.iter().find(|(_, reply)| *reply == number).map(|(name, _)| name);
    let request = || REQUESTS.iter().find(|(_, request)| *request + REPLY == number).map(|(name, _)| name);
    let name = event.or_else(reply).or_else(request);
    frame.insert("type".to_owned(), name.map_or_else(|| number.to_string(), |name| (*name).to_owned()).into());
    Some(frame.into())
}
