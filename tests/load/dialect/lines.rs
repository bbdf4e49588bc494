//! Parley's line dialect. Its messages have neither numbers nor acks.

use super::{ClientIdentity, DialectWriter, RequestPurpose, ServerMessage, delivery};

pub(super) fn log_in(identity: &ClientIdentity<'_>, out: &mut DialectWriter<'_>) {
    out.put(format!("/nick {}\n", identity.nick));
    for room in identity.rooms {
        out.put(format!("/join {room}\n"));
    }
}

pub(super) fn publish(to: &str, body: &str, out: &mut DialectWriter<'_>) {
    match to.starts_with('#') {
        true => out.put(format!("{body}\n")),
        false => out.put(format!("/msg {to} {body}\n")),
    }
}

pub(super) fn interpret(unit: &[u8]) -> ServerMessage {
    let line = std::str::from_utf8(unit).unwrap_or_default().trim_end();
    if let Some(refusal) = line.strip_prefix("! ") {
        let code = refusal.split(':').next().unwrap_or_default().to_owned();
        return ServerMessage::Refused { step: RequestPurpose::Publish, code };
    }
    if let Some(close) = line.strip_prefix("* closing: ") {
        return ServerMessage::Refused { step: RequestPurpose::Publish, code: format!("close_{close}") };
    }
    match line {
        "* pong" => ServerMessage::Pong,
        _ if line.starts_with("* you are in #") => ServerMessage::Joined { next: 0, epoch: None },
        _ if line.starts_with("* you are now known as ") => ServerMessage::Registered { resume: None, restored: false },
        _ if line.starts_with('[') || line.starts_with("<- ") => delivery(unit),
        _ => ServerMessage::Nothing,
    }
}
