//! [`Reply`] and [`Event`] to the text of one frame.
//!
//! Each object is written straight into its buffer, field by field in the order of the protocol page. Absent fields are
//! left out, except for `next_cursor`: `null` marks the last page.

use bytes::Bytes;
use presence::model::moderation::Moderation;
use serde::Serialize;

use crate::wire::{Answer, DeliveryStatus, Event, INBOX, Refusal, Reply};

/// Encodes a reply as the text of one frame.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Bytes {
    let object = |kind| JsonObject::new(kind).optional("id", reply.id.as_deref());
    match &reply.answer {
        Answer::Registered { nick, user, expires_in_ms, session, resume, rooms, inbox, heartbeat_ms, node, time } => {
            object("registered")
                .field("nick", nick)
                .optional("user", user.as_ref())
                .optional("expires_in_ms", expires_in_ms.as_ref())
                .field("session", session)
                .field("resume", resume)
                .field("rooms", rooms)
                .field("inbox", inbox)
                .field("heartbeat_ms", heartbeat_ms)
                .field("node", node)
                .field("time", time)
        }
        Answer::Joined { room, epoch, seq, member_count, recovered, topic, role, .. } => object("joined")
            .field("room", room)
            .field("epoch", epoch)
            .field("seq", seq)
            .field("member_count", member_count)
            .field("recovered", recovered)
            .optional("topic", topic.as_ref())
            .optional("role", role.as_ref()),
        Answer::Left { room } => object("left").field("room", room),
        Answer::Ack { to, msg_id, delivery, time, duplicate } => {
            let ack = object("ack").field("to", to).field("msg_id", msg_id);
            let delivered = match delivery {
                DeliveryStatus::Room { seq } => ack.field("seq", seq),
                DeliveryStatus::Online => ack.field("delivered", "online"),
                DeliveryStatus::Offline => ack.field("delivered", "offline"),
            };
            delivered.field("time", time).field("duplicate", duplicate)
        }
        Answer::Nick { nick } => object("nick").field("nick", nick),
        Answer::Status(status) => object("status").field("status", &status.status).field("text", &status.text),
        Answer::Members { room, items, next_cursor } => {
            object("members").field("room", room).field("items", items).field("next_cursor", next_cursor)
        }
        Answer::Rooms { items, next_cursor } => object("rooms").field("items", items).field("next_cursor", next_cursor),
        Answer::Whois { nick, user, status } => {
            let whois = object("whois").field("nick", nick).optional("user", user.as_ref());
            let whois = whois.field("online", &status.is_some());
            let status = status.as_ref();
            whois
                .optional("status", status.map(|status| &status.status))
                .optional("text", status.map(|status| &status.text))
        }
        Answer::History { to, items, more } => {
            object("history").field("to", to).field("items", items).field("more", more)
        }
        Answer::Read { seq } => object("read").field("to", INBOX).field("seq", seq),
        Answer::Typing { to } => object("typing").field("to", to),
        Answer::Refreshed { expires_in_ms, left } => {
            object("refreshed").optional("expires_in_ms", expires_in_ms.as_ref()).field("left", left)
        }
        Answer::Moderated { room, notice } => with_notice(object(notice.action.as_str()).field("room", room), notice),
        Answer::Options { snappy } => object("options").field("snappy", snappy),
        Answer::Pong => object("pong"),
        Answer::Refused(refusal) => object("error").refusal(refusal),
    }
    .finish()
}

/// Encodes an event as the text of one frame.
#[must_use]
pub fn encode_event(event: &Event) -> Bytes {
    match event {
        Event::Message(message) => JsonObject::new("message").fields(message),
        Event::Presence { room, delta, resync } => {
            JsonObject::new("presence").field("room", room).fields(delta).optional("resync", resync.then_some(&true))
        }
        Event::Gap { to, from_seq, to_seq } => {
            JsonObject::new("gap").field("to", to).field("from_seq", from_seq).field("to_seq", to_seq)
        }
        Event::Epoch { to, epoch, seq } => {
            JsonObject::new("epoch").field("to", to).field("epoch", epoch).field("seq", seq)
        }
        Event::Rewound { to, epoch, seq } => {
            JsonObject::new("rewound").field("to", to).field("epoch", epoch).field("seq", seq)
        }
        Event::Typing { to, from } => JsonObject::new("typing").field("to", to).field("from", from),
        Event::Moderation { room, notice } => {
            with_notice(JsonObject::new("moderation").field("room", room).field("action", &notice.action), notice)
        }
        Event::Left { room, reason, by, text } => JsonObject::new("left")
            .field("room", room)
            .field("reason", reason)
            .optional("by", by.as_ref())
            .optional("text", text.as_ref()),
        Event::Expiring { expires_in_ms } => JsonObject::new("expiring").field("expires_in_ms", expires_in_ms),
        Event::Announcement { id, body, time } => {
            JsonObject::new("announcement").field("msg_id", id).field("body", body).field("time", time)
        }
        Event::GoingAway { retry_after_ms } => JsonObject::new("going_away").field("retry_after_ms", retry_after_ms),
    }
    .finish()
}

/// Adds what a moderator did, apart from room and action.
fn with_notice(object: JsonObject, notice: &Moderation) -> JsonObject {
    object
        .optional("nick", notice.nick.as_ref())
        .optional("user", notice.user.as_ref())
        .optional("by", notice.by.as_ref())
        .optional("reason", notice.reason.as_ref())
        .optional("until", notice.until.as_ref())
        .optional("role", notice.role.as_ref())
        .optional("text", notice.text.as_ref())
        .field("time", &notice.time)
}

/// A JSON object under construction: its closing brace is missing.
struct JsonObject(Vec<u8>);

impl JsonObject {
    fn new(kind: &'static str) -> Self {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(b"{\"type\":");
        let mut object = Self(text);
        object.value(kind);
        object
    }

    /// Adds a field. Field names are constants that need no escaping.
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

    /// Adds all fields of a struct, which may have none.
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
            .expect("these values are valid JSON, and a vector accepts every write");
    }

    fn finish(mut self) -> Bytes {
        self.0.push(b'}');
        self.0.into()
    }
}
