//! [`Reply`] and [`Event`] to the text of one frame.
//!
//! Each frame is written straight into its buffer, field by field in the order of the protocol page; what is absent is
//! left out, except for `next_cursor`, which says by `null` that a listing has ended.

use bytes::Bytes;
use serde::Serialize;

use crate::wire::{Answer, DeliveryStatus, Event, Refusal, Reply};

use super::INBOX;

/// Encodes a reply as the text of one frame.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Bytes {
    let frame = |kind| Frame::new(kind).optional("id", reply.id.as_deref());
    match &reply.answer {
        Answer::Registered { nick, session, resume, rooms, inbox, heartbeat_ms, node, time } => frame("registered")
            .field("nick", nick)
            .field("session", session)
            .field("resume", resume)
            .field("rooms", rooms)
            .field("inbox", inbox)
            .field("heartbeat_ms", heartbeat_ms)
            .field("node", node)
            .field("time", time),
        Answer::Joined { room, epoch, seq, member_count, recovered } => frame("joined")
            .field("room", room)
            .field("epoch", epoch)
            .field("seq", seq)
            .field("member_count", member_count)
            .field("recovered", recovered),
        Answer::Left { room } => frame("left").field("room", room),
        Answer::Ack { to, msg_id, placed, time, duplicate } => {
            let ack = frame("ack").field("to", to).field("msg_id", msg_id);
            let placed = match placed {
                DeliveryStatus::Room { seq } => ack.field("seq", seq),
                DeliveryStatus::Online => ack.field("delivered", "online"),
                DeliveryStatus::Offline => ack.field("delivered", "offline"),
            };
            placed.field("time", time).field("duplicate", duplicate)
        }
        Answer::Nick { nick } => frame("nick").field("nick", nick),
        Answer::Status(status) => frame("status").field("status", &status.status).field("text", &status.text),
        Answer::Members { room, items, next_cursor } => {
            frame("members").field("room", room).field("items", items).field("next_cursor", next_cursor)
        }
        Answer::Rooms { items, next_cursor } => frame("rooms").field("items", items).field("next_cursor", next_cursor),
        Answer::History { to, items, more } => {
            frame("history").field("to", to).field("items", items).field("more", more)
        }
        Answer::Read { seq } => frame("read").field("to", INBOX).field("seq", seq),
        Answer::Typing { to } => frame("typing").field("to", to),
        Answer::Pong => frame("pong"),
        Answer::Refused(refusal) => frame("error").refusal(refusal),
    }
    .finish()
}

/// Encodes an event as the text of one frame.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    match event {
        Event::Message(message) => Frame::new("message").fields(message),
        Event::Presence { room, delta, resync } => {
            Frame::new("presence").field("room", room).fields(delta).optional("resync", resync.then_some(&true))
        }
        Event::Gap { to, from_seq, to_seq } => {
            Frame::new("gap").field("to", to).field("from_seq", from_seq).field("to_seq", to_seq)
        }
        Event::Epoch { to, epoch, seq } => Frame::new("epoch").field("to", to).field("epoch", epoch).field("seq", seq),
        Event::Rewound { to, epoch, seq } => {
            Frame::new("rewound").field("to", to).field("epoch", epoch).field("seq", seq)
        }
        Event::Typing { to, from } => Frame::new("typing").field("to", to).field("from", from),
        Event::GoingAway { retry_after_ms } => Frame::new("going_away").field("retry_after_ms", retry_after_ms),
    }
    .finish()
}

/// A frame being written: an object that lacks its closing brace.
struct Frame(Vec<u8>);

impl Frame {
    fn new(kind: &'static str) -> Self {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(b"{\"type\":");
        let mut frame = Self(text);
        frame.value(kind);
        frame
    }

    /// One field. Names are ours and need no escaping.
    fn field<T: Serialize + ?Sized>(mut self, name: &'static str, value: &T) -> Self {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.value(value);
        self
    }

    fn optional<T: Serialize + ?Sized>(self, name: &'static str, value: Option<&T>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// All fields of a struct, which may be none.
    fn fields(mut self, value: &impl Serialize) -> Self {
        let start = self.0.len();
        self.value(value);
        debug_assert!(self.0[start] == b'{', "only structs have fields");
        self.0.pop();
        if self.0.len() == start + 1 {
            self.0.pop();
        } else {
            self.0[start] = b',';
        }
        self
    }

    fn refusal(self, refusal: &Refusal) -> Self {
        self.field("code", refusal.code.slug())
            .field("message", refusal.message())
            .optional("retry_after_ms", refusal.retry_after_ms.as_ref())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.0, value)
            .expect("our own values are always JSON, and memory takes every write");
    }

    fn finish(mut self) -> Bytes {
        self.0.push(b'}');
        self.0.into()
    }
}
