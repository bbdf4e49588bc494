//! A body in MessagePack becomes JSON, or is refused. That JSON becomes MessagePack that means the same JSON.

use gateway::message::{Accepted, Body, ChatMessage};
use gateway::wire::packed::{decode, encode_event};
use gateway::wire::{Command, Event, PackedCarrier, PackedDialect, PackedFormat, Request};

use super::requests::{check_command, check_refusal};

const DIALECT: PackedDialect =
    PackedDialect { format: PackedFormat::MessagePack, carrier: PackedCarrier::Frames, compresses: false };

pub(crate) fn check(input: &[u8]) {
    let Some(body) = read(input) else { return };
    // The body is the last field of a message: `null` takes one byte.
    let start = write(Body::from_raw(serde_json::value::RawValue::NULL.to_owned())).len() - 1;
    let again = read(&write(body.clone())[start..]).expect("a stored body can be sent again");
    assert_eq!(again.json(), body.json());
}

fn read(body: &[u8]) -> Option<Body> {
    let message = [&b"\x00\x04\x82\x02\xa2#a\x04"[..], body].concat();
    match decode(PackedFormat::MessagePack, &message) {
        Ok(Request { command, .. }) => {
            check_command(&command);
            let Command::Send { body, .. } = command else { panic!("a send") };
            Some(body)
        }
        Err((_, refusal)) => {
            check_refusal(&refusal);
            None
        }
    }
}

fn write(body: Body) -> Vec<u8> {
    let message = ChatMessage {
        to: "#a".to_owned(),
        from: "ann".to_owned(),
        from_user: None,
        from_api: false,
        msg_id: "m".to_owned(),
        seq: 1,
        time: 1,
        body,
        accepted: Accepted::default(),
    };
    encode_event(DIALECT, &Event::Message(message)).to_vec()
}
