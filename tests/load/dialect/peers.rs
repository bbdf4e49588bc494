//! The two peers from npm, served by deploy/bench/peers: `ws` with JSON of our own, and Socket.IO (Engine.IO protocol 4).

use super::{Heard, Identity, Outgoing, Step, delivery};

pub(super) const WS_PING: &str = r#"{"ping":1}"#;
/// An event that asks for an acknowledgement, by the number 1.
pub(super) const SOCKETIO_PING: &str = r#"421["beat"]"#;
/// What the floor gives back to its sender alone.
pub(super) const BARE_ECHO: &[u8] = b"?";

pub(super) fn ws_greet(who: &Identity<'_>, out: &mut Outgoing<'_>) {
    match who.room {
        Some(room) => out.put(format!(r#"{{"join":"{room}"}}"#)),
        None => out.put(WS_PING),
    }
}

pub(super) fn ws_publish(to: &str, body: &str, out: &mut Outgoing<'_>) {
    out.put(format!(r#"{{"to":"{to}","body":"{body}"}}"#));
}

pub(super) fn ws_hear(unit: &[u8]) -> Heard {
    match unit {
        _ if unit.starts_with(br#"{"joined""#) => Heard::Joined { next: 0, epoch: None },
        _ if unit.starts_with(br#"{"pong""#) => Heard::Pong,
        _ => delivery(unit),
    }
}

pub(super) fn socketio_publish(to: &str, body: &str, out: &mut Outgoing<'_>) {
    out.put(format!(r#"42["say","{to}","{body}"]"#));
}

/// Engine.IO's packet type comes first: 0 open, 2 ping, 4 message; in a message Socket.IO's: 0 connect, 2 event, 3 ack,
/// 4 connect error.
pub(super) fn socketio_hear(unit: &[u8], room: &dyn Fn() -> Option<String>, out: &mut Outgoing<'_>) -> Heard {
    match unit {
        [b'0', ..] => {
            out.put("40");
            Heard::Nothing
        }
        b"2" => {
            out.put("3");
            Heard::Nothing
        }
        [b'4', b'0', ..] => match room() {
            Some(room) => {
                out.put(format!(r#"420["join","{room}"]"#));
                Heard::Nothing
            }
            None => Heard::Joined { next: 0, epoch: None },
        },
        [b'4', b'3', b'0', ..] => Heard::Joined { next: 0, epoch: None },
        [b'4', b'3', b'1', ..] => Heard::Pong,
        [b'4', b'2', ..] => delivery(unit),
        [b'4', b'4', ..] => Heard::Refused { step: Step::Login, code: "connect_error".to_owned() },
        _ => Heard::Nothing,
    }
}
