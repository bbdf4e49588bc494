//! The text between nodes: the payload that the store keeps, and the frames on channels.
//!
//! Both arms encode payloads with it and decode channels and streams with it. The stores themselves write the frames
//! around the payloads (`lua/*.lua`, `presence::store::memory`). Pure: no clock, no socket, no logging. Invariant:
//! malformed text never panics and never affects the frames before it; it is skipped and counted.
//!
//! A room's channel carries any number of frames one after the other, a gateway's channel exactly one:
//!
//! ```text
//! M <epoch> <seq> <time> <len>\n<payload>              a message in the room
//! P <version> <len>\n<PresenceDelta as JSON>           a change of the room's members
//! W <session> <len>\n<nick>                            a typing notice to the room, by that session, shown so
//! D <session> <epoch> <seq> <time> <len>\n<payload>    a direct message for a session of the gateway
//! W <session> <len>\n<nick>                            a typing notice to that session of the gateway
//! K <session>                                          an order to end a session of the gateway
//! T <session> <fence>                                  the session was resumed: the connection with this claim ends
//! R <session> <len>\n<RoomRemoval as JSON>             an order to end a membership of a session of the gateway
//! J <session> <len>\n<RoomEntryOrder as JSON>          an order to let a session of the gateway enter a room
//! A <len>\n<AnnouncementOrder as JSON>                 an announcement for sessions of the gateway
//! B <version>                                          the list of sanctions has this version now
//! E <counter>                                          the echo of the gateway's own beat
//! ```

use presence::model::{Fence, Incarnation, PresenceDelta, RoomKey, SessionId, UserId};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{Delivery, PublishRequest, StreamId};
use crate::message::{Accepted, Body, ChatMessage};

/// Maximum length of a frame's head: six words, none longer than an id.
const HEAD_BYTES_MAX: usize = 256;

/// The usual size of the stored form without its texts.
const FIELDS_BYTES: usize = 96;

/// The stored form of a message. `to` and `from` are as shown; seq and time are stored beside it.
#[derive(Serialize)]
struct EncodedPayload<'a> {
    to: &'a str,
    from: &'a str,
    id: &'a str,
    /// The fence of the sender's claim: within a room's stream, the fences of a nick never decrease.
    fence: Fence,
    #[serde(skip_serializing_if = "Accepted::is_unknown")]
    at: Accepted,
    /// The sender's user. Absent for a guest, so that it costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a UserId>,
    body: &'a Body,
}

/// The stored form as this module reads it. Other fields are for other readers of the stream.
#[derive(Deserialize)]
struct DecodedPayload {
    to: String,
    from: String,
    id: String,
    #[serde(default)]
    at: Accepted,
    user: Option<UserId>,
    /// The application that sent it by the server API.
    api: Option<IgnoredAny>,
    body: Body,
}

/// Encodes the payload of a message.
#[must_use]
pub fn payload(to: &str, request: &PublishRequest) -> String {
    let encoded = EncodedPayload {
        to,
        from: request.from.as_str(),
        id: &request.msg_id,
        fence: request.owner.fence,
        at: request.accepted,
        user: request.from_user.as_ref(),
        body: &request.body,
    };
    let user = request.from_user.as_ref().map_or(0, |user| user.as_str().len());
    let names = to.len() + request.from.as_str().len() + user + request.msg_id.len();
    let mut text = Vec::with_capacity(request.body.json().len() + names + FIELDS_BYTES);
    serde_json::to_writer(&mut text, &encoded).expect("strings, numbers and raw JSON serialize");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Returns the payload of the same message under another id: that of an earlier attempt.
#[must_use]
pub fn with_id(payload: &str, id: &str, other: &str) -> String {
    // Names contain no quotes, so the first match is the id field itself.
    payload.replacen(&format!("\"id\":\"{id}\""), &format!("\"id\":\"{other}\""), 1)
}

/// Encodes a typing notice. `session` is the typing session on a room's channel, the receiving one on a gateway's.
#[must_use]
pub fn typing(session: &SessionId, from: &str) -> String {
    format!("W {session} {}\n{from}", from.len())
}

/// Decodes a message of a stream; `None` if the payload is malformed.
#[must_use]
pub fn message(payload: &[u8], seq: u64, time: u64) -> Option<ChatMessage> {
    Some(ChatMessage { accepted: Accepted::default(), ..decode_delivered(payload, seq, time)? })
}

/// Decodes a message that is delivered right after its publish: it still has its time of acceptance.
fn decode_delivered(payload: &[u8], seq: u64, time: u64) -> Option<ChatMessage> {
    let DecodedPayload { to, from, id, at, user, api, body } = serde_json::from_slice(payload).ok()?;
    let from_api = api.is_some();
    Some(ChatMessage { to, from, from_user: user, from_api, msg_id: id, seq, time, body, accepted: at })
}

/// Decodes the text of a room's channel, in order. Returns the number of skipped frames. A malformed payload costs its
/// own frame; a malformed head costs the rest of the text, because the start of the next frame is unknown.
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

/// Decodes the text of a gateway's channel; `None` if it is malformed.
#[must_use]
pub fn read_gateway(incarnation: &Incarnation, text: &[u8]) -> Option<Delivery> {
    if let Some((head, content, rest)) = frame(text) {
        return if rest.is_empty() { session_frame(head, content) } else { None };
    }
    let mut words = str::from_utf8(text).ok()?.split(' ');
    let delivery = match words.next()? {
        "E" => Delivery::Echo { counter: number(words.next())?, incarnation: incarnation.clone() },
        "B" => Delivery::SanctionChanged { version: number(words.next())? },
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
            let message = decode_delivered(content, number(words.next())?, number(words.next())?)?;
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
    let kind = words.next()?;
    if kind == "A" {
        return Some(Delivery::Announcement(serde_json::from_slice(content).ok()?));
    }
    let session = session(words.next())?;
    match kind {
        "D" => {
            let epoch = words.next()?.to_owned();
            let message = decode_delivered(content, number(words.next())?, number(words.next())?)?;
            Some(Delivery::Direct { session, epoch, message })
        }
        "W" => Some(Delivery::Typing { stream: StreamId::Inbox(session), by: None, from: text(content)? }),
        "R" => Some(Delivery::Remove(serde_json::from_slice(content).ok()?)),
        "J" => Some(Delivery::Enter(serde_json::from_slice(content).ok()?)),
        _ => None,
    }
}

fn text(content: &[u8]) -> Option<String> {
    str::from_utf8(content).ok().map(str::to_owned)
}

/// Splits off one frame: its head without the length, its content, and the remaining text.
fn frame(text: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let end = text.iter().take(HEAD_BYTES_MAX).position(|&byte| byte == b'\n')?;
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
