//! Text of a channel is decoded to deliveries, and the rest is counted. A payload that is read is written alike.

use std::time::SystemTime;

use gateway::backplane::{Delivery, PublishRequest, envelope};
use gateway::message::{Accepted, ChatMessage};
use presence::model::{Fence, Incarnation, Nick, Owner, RoomKey, SessionId};

pub(crate) fn check(input: &[u8]) {
    let (room, incarnation) = (RoomKey::from_store("home"), Incarnation::from_store("g"));
    let mut deliveries = Vec::new();
    let skipped = envelope::read_room(&room, input, |delivery| deliveries.push(delivery));
    assert_eq!(deliveries.is_empty() && skipped == 0, input.is_empty());
    // The shortest frame has a head, a line feed and a length of 0.
    assert!(deliveries.len() + usize::try_from(skipped).expect("a count") <= input.len() / 4 + 1);
    deliveries.extend(envelope::read_gateway(&incarnation, input));
    for delivery in &deliveries {
        if let Delivery::Room { message, .. } | Delivery::Direct { message, .. } = delivery {
            check_message(message);
        }
    }
    if let Some(message) = envelope::message(input, 7, 8) {
        check_message(&message);
    }
}

/// Writes the message as a payload, and reads it back.
fn check_message(message: &ChatMessage) {
    let Ok(from) = Nick::parse(&message.from) else { return };
    let owner =
        Owner { incarnation: Incarnation::from_store("g"), session: SessionId::from_store("s"), fence: Fence(1) };
    let accepted = Accepted::at(SystemTime::UNIX_EPOCH);
    let (msg_id, from_user, body) = (message.msg_id.clone(), message.from_user.clone(), message.body.clone());
    let request = PublishRequest { msg_id, key: None, from, from_user, owner, moderates: false, body, accepted };
    let payload = envelope::payload(&message.to, &request);
    let read = envelope::message(payload.as_bytes(), message.seq, message.time).expect("an own payload is read");
    assert_eq!((&read.to, read.from.as_str(), &read.msg_id), (&message.to, request.from.as_str(), &message.msg_id));
    assert_eq!((read.body.json(), read.seq, read.time), (message.body.json(), message.seq, message.time));
    assert_eq!(read.from_user, message.from_user);
}
