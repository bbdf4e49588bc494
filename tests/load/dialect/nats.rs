//! NATS client protocol: a room is a subject. The server answers a PING after all earlier requests, so the first PONG
//! confirms the subscription.

use super::{ClientIdentity, DialectWriter, RequestPurpose, ServerMessage, delivery};

pub(super) fn log_in(identity: &ClientIdentity<'_>, out: &mut DialectWriter<'_>) {
    let subscriptions = (1..).zip(identity.rooms).map(|(number, room)| format!("SUB {} {number}\r\n", subject(room)));
    let subscriptions: String = subscriptions.collect();
    out.put(format!("CONNECT {{\"verbose\":false,\"pedantic\":false,\"echo\":true}}\r\n{subscriptions}PING\r\n"));
}

pub(super) fn publish(to: &str, body: &str, out: &mut DialectWriter<'_>) {
    out.put(format!("PUB {} {}\r\n{body}\r\n", subject(to), body.len()));
}

/// Returns the subject of a room: its name without `#`.
fn subject(room: &str) -> &str {
    room.trim_start_matches('#')
}

/// Returns the length of a line, with the payload that follows `MSG`.
pub(super) fn unit(stream: &[u8]) -> Option<usize> {
    let line = stream.iter().position(|byte| *byte == b'\n')? + 1;
    if !stream.starts_with(b"MSG ") {
        return Some(line);
    }
    let words = std::str::from_utf8(&stream[..line]).unwrap_or_default();
    let payload: usize =
        words.split_ascii_whitespace().next_back().and_then(|word| word.parse().ok()).unwrap_or_default();
    let whole = line + payload + 2;
    (stream.len() >= whole).then_some(whole)
}

pub(super) fn interpret(unit: &[u8], out: &mut DialectWriter<'_>) -> ServerMessage {
    match unit {
        _ if unit.starts_with(b"MSG ") => delivery(unit),
        b"PING\r\n" => {
            out.put("PONG\r\n");
            ServerMessage::Nothing
        }
        b"PONG\r\n" => ServerMessage::Pong,
        _ if unit.starts_with(b"-ERR") => {
            ServerMessage::Refused { step: RequestPurpose::Login, code: "nats_err".to_owned() }
        }
        _ => ServerMessage::Nothing,
    }
}
