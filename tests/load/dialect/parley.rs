//! Parley's JSON dialect over WebSocket text, specified in gateway/PROTOCOL.md.
//!
//! Deliveries, which are nearly all traffic, are recognised by their first bytes and not parsed. All other messages are
//! parsed fully.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{ClientIdentity, DialectWriter, RequestPurpose, ServerMessage};
use crate::stamp::Stamp;

/// Ids of requests, which link an answer to its request. Answers to requests of one kind arrive in order.
pub(super) const REGISTER: u64 = 1;
pub(super) const JOIN: u64 = 2;
pub(super) const SEND: u64 = 3;
pub(super) const PING: u64 = 4;

const MESSAGE: &[u8] = br#"{"type":"message","#;
const SEQ: &[u8] = br#""seq":"#;

/// Relevant fields of all replies and events except messages.
#[derive(Deserialize)]
struct ParleyEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    seq: Option<u64>,
    to_seq: Option<u64>,
    code: Option<String>,
    epoch: Option<String>,
    resume: Option<String>,
    to: Option<String>,
    rooms: Option<Vec<RestoredPosition>>,
}

#[derive(Deserialize)]
struct RestoredPosition {
    room: String,
}

pub(super) fn log_in(identity: &ClientIdentity<'_>, out: &mut DialectWriter<'_>) {
    out.put(register(identity));
    // With `since` the room is restored without a join.
    if identity.resume.is_none() {
        identity.rooms.iter().for_each(|room| out.put(join(room)));
    }
}

pub(super) fn register(identity: &ClientIdentity<'_>) -> String {
    let mut register = json!({"type": "register", "id": REGISTER, "nick": identity.nick});
    if let Some(resume) = identity.resume {
        register["resume"] = json!(resume.token);
        let position = json!({"epoch": resume.epoch, "seq": resume.seq});
        register["since"] = json!(identity.rooms.iter().map(|room| (room, &position)).collect::<BTreeMap<_, _>>());
    }
    register.to_string()
}

pub(super) fn join(room: &str) -> String {
    json!({"type": "join", "id": JOIN, "room": room}).to_string()
}

pub(super) fn publish(to: &str, body: &str, out: &mut DialectWriter<'_>) {
    out.put(send(to, body));
}

pub(super) fn send(to: &str, body: &str) -> String {
    // Names and bodies of this program need no escapes.
    format!(r#"{{"type":"send","id":{SEND},"to":"{to}","body":"{body}"}}"#)
}

pub(super) fn ping(out: &mut DialectWriter<'_>) {
    out.put(ping_request());
}

pub(super) fn ping_request() -> String {
    format!(r#"{{"type":"ping","id":{PING}}}"#)
}

pub(super) fn interpret(unit: &[u8], rooms: &dyn Fn() -> Vec<String>) -> ServerMessage {
    if unit.starts_with(MESSAGE) {
        return ServerMessage::Delivery { seq: seq(unit), stamp: Stamp::find(unit) };
    }
    let Ok(event) = serde_json::from_slice::<ParleyEvent<'_>>(unit) else {
        return ServerMessage::Refused { step: RequestPurpose::Login, code: "not_parley".to_owned() };
    };
    let is_own_room = |name: &str| rooms().iter().any(|room| room == name);
    match &*event.kind {
        "registered" => {
            let restored = event.rooms.unwrap_or_default().iter().any(|restored| is_own_room(&restored.room));
            ServerMessage::Registered { resume: event.resume, restored }
        }
        "joined" => ServerMessage::Joined { next: event.seq.unwrap_or_default() + 1, epoch: event.epoch },
        "ack" => ServerMessage::Acked { seq: event.seq },
        "pong" => ServerMessage::Pong,
        "gap" | "rewound" if event.to.as_deref().is_some_and(is_own_room) => {
            let next = event.to_seq.or(event.seq).unwrap_or_default() + 1;
            ServerMessage::Moved { kind: event.kind.into_owned(), next }
        }
        "error" => ServerMessage::Refused { step: purpose(event.id), code: event.code.unwrap_or_default() },
        _ => ServerMessage::Nothing,
    }
}

/// Returns the purpose of the request with this id.
pub(super) fn purpose(id: Option<u64>) -> RequestPurpose {
    match id {
        Some(SEND) => RequestPurpose::Publish,
        Some(PING) => RequestPurpose::Ping,
        _ => RequestPurpose::Login,
    }
}

/// Returns the seq of a message. It precedes the body, which comes last.
fn seq(unit: &[u8]) -> Option<u64> {
    let at = unit.windows(SEQ.len()).position(|window| window == SEQ)? + SEQ.len();
    let digits = unit[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |seq, digit| seq * 10 + u64::from(digit - b'0')))
}
