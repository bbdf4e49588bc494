//! A frame of JSON is decoded to valid names and bodies, or refused; white space around it changes nothing.

use gateway::wire::json::{decode, encode_reply};
use gateway::wire::{Answer, Command, REQUEST_BYTES_MAX, Refusal, Reply, Request};
use presence::model::codes::ErrorCode;
use presence::model::{Nick, RoomName};

/// Codes with which a frame can be refused before a session sees it.
const CODES: [ErrorCode; 5] =
    [ErrorCode::BadRequest, ErrorCode::UnknownType, ErrorCode::TooLarge, ErrorCode::BadNick, ErrorCode::BadRoom];

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let decoded = decode(text);
    let spaced = format!("\n {text}\t\r\n");
    if spaced.len() <= REQUEST_BYTES_MAX {
        assert_eq!(format!("{:?}", decode(&spaced)), format!("{decoded:?}"));
    }
    let (id, answer) = match decoded {
        Ok(Request { id, command }) => {
            check_command(&command);
            (id, Answer::Pong)
        }
        Err((id, refusal)) => {
            check_refusal(&refusal);
            (id, Answer::Refused(refusal))
        }
    };
    if let Some(id) = &id {
        assert!(id.get().len() <= 128 && text.contains(id.get()), "{id}");
    }
    let reply = encode_reply(&Reply { id: id.clone(), answer });
    let reply: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&reply).expect("a reply is JSON");
    assert_eq!(reply.contains_key("id"), id.is_some());
}

/// Checks the code and the text of a refusal.
pub(crate) fn check_refusal(refusal: &Refusal) {
    assert!(CODES.contains(&refusal.code), "{refusal:?}");
    assert!(refusal.message().len() < 512 && !refusal.message().contains(char::is_control), "{refusal:?}");
}

/// Checks the names and the body of a request.
pub(crate) fn check_command(command: &Command) {
    match command {
        Command::Register { nick: Some(nick), .. } | Command::Nick { nick } | Command::Whois { nick } => {
            assert_eq!(Nick::parse(nick.as_str()).expect("a nickname").key(), nick.key());
        }
        Command::Join { room, .. } | Command::Leave { room } | Command::History { room, .. } => {
            assert_eq!(RoomName::parse(room.as_str()).expect("a room").key(), room.key());
        }
        Command::Members { limit, cursor, .. } => {
            assert!((1..=1000).contains(limit));
            assert!(cursor.is_none_or(|cursor| cursor.to_string().parse() == Ok(cursor)));
        }
        Command::Rooms { limit, .. } => assert!((1..=1000).contains(limit)),
        Command::Send { body, key, .. } => {
            assert!(body.json().len() <= REQUEST_BYTES_MAX);
            serde_json::from_str::<&serde_json::value::RawValue>(body.json()).expect("a body is JSON");
            assert!(key.as_ref().is_none_or(|key| (1..=64).contains(&key.len())));
        }
        _ => {}
    }
}
