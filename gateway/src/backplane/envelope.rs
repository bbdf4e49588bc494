//! What travels between nodes, as text: the payload that the store keeps, and the frames that go over channels.
//!
//! Both arms write payloads with it and read channels and logs with it; the frames around the payloads are written by
//! the stores themselves (`lua/*.lua`, `presence::store::memory`). Pure: no clock, no socket, no log.
//! Invariant: text that is not ours never panics and never stops what stands before it; it is skipped and counted.
//!
//! A room's channel carries any number of frames one after the other, a gateway's channel exactly one:
//!
//! ```text
//! M <epoch> <seq> <time> <len>\n<payload>              a message in the room
//! P <version> <len>\n<PresenceDelta as JSON>           a change among its members
//! W <session> <len>\n<nick>                            that session, shown so, is writing in the room
//! D <session> <epoch> <seq> <time> <len>\n<payload>    a direct message for a session of the gateway
//! W <session> <len>\n<nick>                            somebody is writing to that session of the gateway
//! K <session>                                          an order to end a session of the gateway
//! T <session> <fence>                                  the session was resumed: this claim's connection is over
//! E <counter>                                          the echo of the gateway's own beat
//! ```

use presence::model::{Fence, Incarnation, PresenceDelta, RoomKey, SessionId};
use serde::{Deserialize, Serialize};

use super::{Delivery, PublishRequest, StreamId};
use crate::message::{Accepted, Body, ChatMessage};

/// Longest head of a frame that is looked for, in bytes: six words, none longer than an id.
const HEAD_BYTES: usize = 256;

/// The stored form of a message. `to` and `from` are as they are shown; the seq and the time stand beside it.
#[derive(Serialize)]
struct Written<'a> {
    to: &'a str,
    from: &'a str,
    id: &'a str,
    /// The sender's claim: in the log of a room, a nick's fence never goes back.
    fence: Fence,
    #[serde(skip_serializing_if = "Accepted::is_unknown")]
    at: Accepted,
    body: &'a Body,
}

/// The same as it is read: what is not listed is for other readers of the log.
#[derive(Deserialize)]
struct Read {
    to: String,
    from: String,
    id: String,
    #[serde(default)]
    at: Accepted,
    body: Body,
}

/// Writes the payload of a message.
#[must_use]
pub fn payload(to: &str, draft: &PublishRequest) -> String {
    let written = Written {
        to,
        from: draft.from.as_str(),
        id: &draft.msg_id,
        fence: draft.owner.fence,
        at: draft.accepted,
        body: &draft.body,
    };
    serde_json::to_string(&written).expect("strings, a number and JSON are always JSON")
}

/// The payload of the same message under another id: that of an earlier attempt.
#[must_use]
pub fn with_id(payload: &str, id: &str, other: &str) -> String {
    // Names hold no quotes, so the first field of this look is the id itself.
    payload.replacen(&format!("\"id\":\"{id}\""), &format!("\"id\":\"{other}\""), 1)
}

/// Writes the frame that tells who is writing: the session that is, on a room's channel, or the one that is written to.
#[must_use]
pub fn typing(session: &SessionId, from: &str) -> String {
    format!("W {session} {}\n{from}", from.len())
}

/// Reads a message back from a log; `None` when the payload is not ours.
#[must_use]
pub fn message(payload: &[u8], seq: u64, time: u64) -> Option<ChatMessage> {
    Some(ChatMessage { accepted: Accepted::default(), ..arriving(payload, seq, time)? })
}

/// Reads a message that comes straight from its sender's gateway.
fn arriving(payload: &[u8], seq: u64, time: u64) -> Option<ChatMessage> {
    let Read { to, from, id, at, body } = serde_json::from_slice(payload).ok()?;
    Some(ChatMessage { to, from, msg_id: id, seq, time, body, accepted: at })
}

/// Reads what came over a room's channel, in order. Returns how many frames had to be skipped: a payload that cannot be
/// read costs itself, a head that cannot be read costs the rest of the text, since nobody knows where the next begins.
pub fn read_room(room: &RoomKey, mut text: &[u8], mut deliver: impl FnMut(Delivery)) -> u64 {
    let mut skipped = 0;
    while !text.is_empty() {
        let Some((head, content, rest)) = frame(text) else {
            return skipped + 1;
        };
        match room_frame(room, head, content) {
            Some(delivery) => deliver(delivery),
            None => skipped += 1,
        }
        text = rest;
    }
    skipped
}

/// Reads what came over a gateway's channel; `None` when it is not ours.
#[must_use]
pub fn read_gateway(incarnation: &Incarnation, text: &[u8]) -> Option<Delivery> {
    if let Some((head, content, rest)) = frame(text) {
        return if rest.is_empty() { session_frame(head, content) } else { None };
    }
    let mut words = str::from_utf8(text).ok()?.split(' ');
    let delivery = match words.next()? {
        "E" => Delivery::Echo { counter: number(words.next())?, incarnation: incarnation.clone() },
        "K" => Delivery::Kick { session: session(words.next())? },
        "T" => Delivery::Taken { session: session(words.next())?, fence: Fence(number(words.next())?) },
        _ => return None,
    };
    words.next().is_none().then_some(delivery)
}

fn room_frame(room: &RoomKey, head: &str, content: &[u8]) -> Option<Delivery> {
    let mut words = head.split(' ');
    match words.next()? {
        "M" => {
            let epoch = words.next()?.to_owned();
            let message = arriving(content, number(words.next())?, number(words.next())?)?;
            Some(Delivery::Room { room: room.clone(), epoch, message })
        }
        "P" => {
            let version = number(words.next())?;
            let delta: PresenceDelta = serde_json::from_slice(content).ok()?;
            Some(Delivery::Presence { room: room.clone(), version, delta })
        }
        "W" => {
            let by = Some(session(words.next())?);
            Some(Delivery::Typing { stream: StreamId::Room(room.clone()), by, from: text(content)? })
        }
        _ => None,
    }
}

fn session_frame(head: &str, content: &[u8]) -> Option<Delivery> {
    let mut words = head.split(' ');
    let (kind, session) = (words.next()?, session(words.next())?);
    match kind {
        "D" => {
            let epoch = words.next()?.to_owned();
            let message = arriving(content, number(words.next())?, number(words.next())?)?;
            Some(Delivery::Direct { session, epoch, message })
        }
        "W" => Some(Delivery::Typing { stream: StreamId::Inbox(session), by: None, from: text(content)? }),
        _ => None,
    }
}

fn text(content: &[u8]) -> Option<String> {
    str::from_utf8(content).ok().map(str::to_owned)
}

/// Splits off one frame: its head without the length, its content, and what follows.
fn frame(text: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let end = text.iter().take(HEAD_BYTES).position(|&byte| byte == b'\n')?;
    let (head, length) = str::from_utf8(&text[..end]).ok()?.rsplit_once(' ')?;
    let (content, rest) = text[end + 1..].split_at_checked(number(Some(length))?.try_into().ok()?)?;
    Some((head, content, rest))
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

fn session(word: Option<&str>) -> Option<SessionId> {
    word.filter(|word| !word.is_empty()).map(SessionId::from_store)
}

#[cfg(test)]
mod tests;
