//! The two peers from npm, served by deploy/bench/peers: `ws` with a JSON protocol of its own, and Socket.IO (Engine.IO
//! protocol 4).

use super::{ClientIdentity, DialectWriter, RequestPurpose, ServerMessage, delivery};

pub(super) const WS_PING: &str = r#"{"ping":1}"#;
/// Event that requests an acknowledgement with the number 1.
pub(super) const SOCKETIO_PING: &str = r#"421["beat"]"#;
/// Frame that the floor returns only to its sender.
pub(super) const BARE_ECHO: &[u8] = b"?";

pub(super) fn ws_log_in(identity: &ClientIdentity<'_>, out: &mut DialectWriter<'_>) {
    for room in identity.rooms {
        out.put(format!(r#"{{"join":"{room}"}}"#));
    }
    if identity.rooms.is_empty() {
        out.put(WS_PING);
    }
}

pub(super) fn ws_publish(to: &str, body: &str, out: &mut DialectWriter<'_>) {
    out.put(format!(r#"{{"to":"{to}","body":"{body}"}}"#));
}

pub(super) fn ws_interpret(unit: &[u8]) -> ServerMessage {
    match unit {
        _ if unit.starts_with(br#"{"joined""#) => ServerMessage::Joined { next: 0, epoch: None },
        _ if unit.starts_with(br#"{"pong""#) => ServerMessage::Pong,
        _ => delivery(unit),
    }
}

pub(super) fn socketio_publish(to: &str, body: &str, out: &mut DialectWriter<'_>) {
    out.put(format!(r#"42["say","{to}","{body}"]"#));
}

/// Interprets a Socket.IO packet. Engine.IO's packet type comes first: 0 open, 2 ping, 4 message. In a message
/// Socket.IO's type follows: 0 connect, 2 event, 3 ack, 4 connect error.
pub(super) fn socketio_interpret(
    unit: &[u8],
    rooms: &dyn Fn() -> Vec<String>,
    out: &mut DialectWriter<'_>,
) -> ServerMessage {
    match unit {
        [b'0', ..] => {
            out.put("40");
            ServerMessage::Nothing
        }
        b"2" => {
            out.put("3");
            ServerMessage::Nothing
        }
        [b'4', b'0', ..] => {
            let rooms = rooms();
            rooms.iter().for_each(|room| out.put(format!(r#"420["join","{room}"]"#)));
            if rooms.is_empty() { ServerMessage::Joined { next: 0, epoch: None } } else { ServerMessage::Nothing }
        }
        [b'4', b'3', b'0', ..] => ServerMessage::Joined { next: 0, epoch: None },
        [b'4', b'3', b'1', ..] => ServerMessage::Pong,
        [b'4', b'2', ..] => delivery(unit),
        [b'4', b'4', ..] => ServerMessage::Refused { step: RequestPurpose::Login, code: "connect_error".to_owned() },
        _ => ServerMessage::Nothing,
    }
}
