//! The call of `publish.lua`: messages of many rooms in one step of Redis, and the reply for each room.
//!
//! [`ScriptCalls::call_publish_script`] sends the keys of each room apart, so only the choice of the call assumes one
//! partition. A room whose step failed in a call with others is [`RoomReply::Apart`]: called alone, it returns the
//! error of Redis. It knows neither queues nor the republish ring.

use std::sync::LazyLock;

use presence::model::RoomKey;
use presence::model::keys::{CallKeys, RoomKeys, ScriptKeys};
use presence::registry::RegistryError;
use presence::store::redis::CallKind;
use redis::{FromRedisValue, Script, Value};

use super::calls::{NOTES, PRELUDE, SIZES, ScriptAnswer, ScriptCalls, outcome};
use super::message::{MessageOutcome, StoredMessage, WriteOrigin};
use super::{epoch, script};
use crate::backplane::{PriorPosition, Published};

static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    let parts = [PRELUDE, NOTES, include_str!("../lua/repeats.lua"), SIZES, include_str!("../lua/retention.lua")];
    script(&parts, include_str!("../lua/publish.lua"))
});

/// The kinds of keys in which the script notes messages.
const BUCKETS: [&str; 2] = ["idempotency", "repeats"];

/// The messages of one room that are sent in a call.
#[derive(Debug)]
pub(super) struct SentRoom<'a> {
    pub(super) room: &'a RoomKey,
    pub(super) messages: Vec<&'a StoredMessage>,
}

/// The connection of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum CallLane<'a> {
    /// That of a call at a time.
    Slot(usize),
    /// That of a name.
    Name(&'a str),
}

/// The reply for one room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RoomReply {
    /// The epoch of its stream, and one outcome for each message.
    Answered { epoch: String, outcomes: Vec<MessageOutcome> },
    /// Its step failed before its first write.
    Apart,
}

impl ScriptCalls {
    /// Appends messages to rooms, and returns the reply for each room.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn call_publish_script(
        &self,
        origin: WriteOrigin<'_>,
        lane: CallLane<'_>,
        rooms: &[SentRoom<'_>],
    ) -> Result<Vec<RoomReply>, RegistryError> {
        let retention = self.retention.get();
        let mut call = self.call(&PUBLISH, origin);
        call.arg(retention.messages).arg(retention.age.as_millis() as u64).arg(retention.quiet.as_secs()).arg(epoch());
        call.arg(retention.bytes);
        let mut names = Vec::new();
        for SentRoom { room, messages } in rooms {
            let keys = ScriptKeys::of(self.redis.keys().room(room)).own([
                RoomKeys::meta,
                RoomKeys::stream,
                RoomKeys::members,
                RoomKeys::channel,
            ]);
            call.key(keys.names()).arg(room.as_str()).arg(messages.len());
            for StoredMessage { token, nick, key, msg_id, payload, prior } in messages {
                call.arg(token).arg(nick).arg(key).arg(msg_id).arg(payload).arg(prior);
            }
            if rooms.len() == 1 {
                names = keys.names().to_vec();
            }
        }
        if names.is_empty() {
            // Calls with many rooms count as one repeated call.
            names = vec![self.redis.keys().pattern(RoomKeys::meta)];
        }
        let mut lane = match lane {
            CallLane::Slot(slot) => self.redis.numbered_lane(slot),
            CallLane::Name(name) => self.redis.lane(name),
        };
        let keys = CallKeys { names: &names, in_script: &BUCKETS };
        let replies: Vec<Value> = self.redis.timed_on(CallKind::Publish, keys, call.invoke_async(&mut lane)).await?;
        if replies.len() != rooms.len() {
            return Err(RegistryError::Unknown("script returned a wrong number of rooms".to_owned()));
        }
        Ok(replies.into_iter().zip(rooms).map(|(reply, room)| room_reply(reply, &room.messages)).collect())
    }
}

/// Decodes the reply for a room. What cannot be decoded may have been done.
fn room_reply(reply: Value, messages: &[&StoredMessage]) -> RoomReply {
    let unknown = |reason: &str| {
        let error = || MessageOutcome::Done(Err(RegistryError::Unknown(reason.to_owned()).into()));
        RoomReply::Answered { epoch: String::new(), outcomes: messages.iter().map(|_| error()).collect() }
    };
    let parts = match reply {
        Value::Array(parts) if parts.len() == messages.len() + 2 => parts,
        Value::BulkString(word) if word == b"apart" => return RoomReply::Apart,
        Value::BulkString(word) if word == b"unknown" => return unknown("script failed after a write"),
        _ => return unknown("script returned a malformed reply"),
    };
    let mut parts = parts.into_iter();
    let mut head = || parts.next().unwrap_or(Value::Nil);
    let (Ok(epoch), Ok(time)) = (String::from_redis_value(head()), u64::from_redis_value(head())) else {
        return unknown("script returned a malformed reply");
    };
    let answered = |(part, message): (Value, &&StoredMessage)| match part {
        Value::Int(seq) => {
            let (msg_id, seq) = (message.msg_id.clone(), seq.unsigned_abs());
            MessageOutcome::Done(Ok(Published { msg_id, seq, time, duplicate: false, online: true }))
        }
        part => match ScriptAnswer::from_redis_value(part) {
            Ok((verdict, seq, _, epoch)) if verdict == "searching" => {
                MessageOutcome::Searched(PriorPosition { epoch, seq })
            }
            Ok(answer) => MessageOutcome::Done(outcome(answer, true)),
            Err(error) => MessageOutcome::Done(Err(RegistryError::Unknown(error.to_string()).into())),
        },
    };
    RoomReply::Answered { epoch, outcomes: parts.zip(messages).map(answered).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::PublishError;

    fn message(msg_id: &str) -> StoredMessage {
        let [token, nick, key, payload, prior] = [const { String::new() }; 5];
        StoredMessage { token, nick, key, msg_id: msg_id.to_owned(), payload, prior }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn verdict(verdict: &str, seq: i64, time: i64, id: &str) -> Value {
        Value::Array(vec![text(verdict), Value::Int(seq), Value::Int(time), text(id)])
    }

    fn published(msg_id: &str, seq: u64, time: u64, duplicate: bool) -> MessageOutcome {
        MessageOutcome::Done(Ok(Published { msg_id: msg_id.to_owned(), seq, time, duplicate, online: true }))
    }

    #[test]
    fn reply_has_one_outcome_per_message() {
        let messages = ["a", "b", "c", "d"].map(message);
        let reply = Value::Array(vec![
            text("e"),
            Value::Int(99),
            Value::Int(7),
            verdict("duplicate", 3, 50, "first"),
            verdict("not_in_room", 0, 0, ""),
            verdict("searching", 5, 0, "f"),
        ]);
        let outcomes = vec![
            published("a", 7, 99, false),
            published("first", 3, 50, true),
            MessageOutcome::Done(Err(PublishError::NotInRoom)),
            MessageOutcome::Searched(PriorPosition { epoch: "f".to_owned(), seq: 5 }),
        ];
        let messages: Vec<&StoredMessage> = messages.iter().collect();
        assert_eq!(room_reply(reply, &messages), RoomReply::Answered { epoch: "e".to_owned(), outcomes });
        assert_eq!(room_reply(text("apart"), &messages), RoomReply::Apart);
    }

    #[test]
    fn undecodable_reply_leaves_outcomes_unknown() {
        let message = message("a");
        let short = Value::Array(vec![text("e"), Value::Int(99)]);
        let strange = Value::Array(vec![text("e"), Value::Int(99), text("?")]);
        for reply in [text("unknown"), Value::Nil, short, strange] {
            let decoded = room_reply(reply.clone(), &[&message]);
            let RoomReply::Answered { outcomes, .. } = decoded else { panic!("{reply:?}") };
            let [MessageOutcome::Done(Err(PublishError::Registry(RegistryError::Unknown(_))))] = &outcomes[..] else {
                panic!("{reply:?}: {outcomes:?}")
            };
        }
    }
}
