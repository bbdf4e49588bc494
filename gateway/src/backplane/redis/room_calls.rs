//! The call of `publish.lua`: messages of many rooms in one step of Redis, and the reply for each room.
//!
//! [`ScriptCalls::call_publish_script`] sends the keys of each room apart, so only the choice of the call assumes one
//! partition. A room whose step failed in a call with others is [`TargetReply::Apart`]: called alone, it returns the
//! error of Redis. It knows neither queues nor the republish ring.

use std::borrow::Cow;
use std::sync::Arc;

use presence::model::RoomKey;
use presence::model::keys::{OwnKey, RoomKeys, ScriptKeys};
use presence::registry::RegistryError;
use presence::store::redis::CallKind;
use presence::store::redis::message_scripts::{PUBLISH, PUBLISH_BUCKETS};
use redis::{FromRedisValue, Value};

use super::calls::{CallLane, ScriptAnswer, ScriptCalls, TargetCall, outcome};
use super::epoch;
use super::message::{MessageAnswer, MessageOutcome, SentBatch, StoredMessage, TargetReply, WriteOrigin, WriteTarget};
use crate::backplane::{PriorPosition, Published};

impl ScriptCalls {
    /// Appends messages to rooms, and returns the reply for each room.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn call_publish_script(
        &self,
        origin: WriteOrigin<'_>,
        lane: CallLane<'_>,
        rooms: &[SentBatch<'_, RoomKey>],
    ) -> Result<Vec<TargetReply>, RegistryError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let (retention, policies) = (self.retention.get(), self.rooms.get());
        let mut targets = Vec::with_capacity(rooms.len());
        for SentBatch { to: room, .. } in rooms {
            let own = [RoomKeys::meta, RoomKeys::stream, RoomKeys::members, RoomKeys::channel];
            targets.push(ScriptKeys::of(self.redis.keys().room(room)).own(own).buckets_in_script(&PUBLISH_BUCKETS));
        }
        let mut call = self.call(&PUBLISH, &targets, origin);
        call.arg(retention.messages).arg(retention.age.as_millis() as u64).arg(retention.quiet.as_secs()).arg(epoch());
        call.arg(retention.bytes);
        for SentBatch { to: room, messages } in rooms {
            call.arg(&*terms(policies.message_json_of(room), messages)).arg(room.as_str()).arg(messages.len());
            for StoredMessage { token, nick, key, msg_id, payload, prior, .. } in messages {
                call.arg(token).arg(nick).arg(key).arg(msg_id).arg(payload).arg(prior);
            }
        }
        let (script, kind, pattern) = (&*PUBLISH, CallKind::Publish, RoomKeys::meta as OwnKey<_>);
        let replies = self.send(TargetCall { script, kind, lane, command: call, targets: &targets, pattern }).await?;
        Ok(replies.into_iter().zip(rooms).map(|(reply, sent)| room_reply(reply, sent)).collect())
    }
}

/// Returns the rules of a room for the script, with the senders whose tokens let them moderate it, if there are any.
fn terms<'a>(rules: &'a str, messages: &[&StoredMessage]) -> Cow<'a, str> {
    let mut nicks = messages.iter().filter(|message| message.moderates).map(|message| message.nick.as_str()).peekable();
    if nicks.peek().is_none() {
        return rules.into();
    }
    let nicks = nicks.fold(String::from(" "), |nicks, nick| nicks + nick + " ");
    format!("{nicks}\n{rules}").into()
}

/// Decodes the reply for a room. What cannot be decoded may have been done.
fn room_reply(reply: Value, sent: &SentBatch<'_, RoomKey>) -> TargetReply {
    match reply {
        Value::BulkString(text) if text.contains(&b' ') => {
            stored_reply(&text, sent).unwrap_or(TargetReply::Unknown("script returned a malformed reply"))
        }
        reply => judged_reply(reply, sent),
    }
}

/// The positions of messages that were all stored, one after the other.
pub(super) struct StoredRange {
    pub(super) epoch: Arc<str>,
    /// The time of all of them.
    pub(super) time: u64,
    /// The seq of the first one.
    pub(super) first: u64,
}

impl StoredRange {
    /// Decodes `<epoch> <time> <last seq>` for this number of messages.
    pub(super) fn parse(text: &str, count: usize) -> Option<Self> {
        let mut words = text.split(' ');
        let (epoch, time, last) = (words.next()?, words.next()?, words.next()?);
        // A number of Redis has 63 bits.
        let last = u64::try_from(last.parse::<i64>().ok()?).ok()?;
        let first = (last + 1).checked_sub(count as u64).filter(|first| *first > 0)?;
        Some(Self { epoch: epoch.into(), time: time.parse().ok()?, first })
    }
}

/// Decodes the reply for a room that stored all messages.
fn stored_reply(text: &[u8], SentBatch { to: room, messages }: &SentBatch<'_, RoomKey>) -> Option<TargetReply> {
    let StoredRange { epoch, time, first } = StoredRange::parse(str::from_utf8(text).ok()?, messages.len())?;
    let answer = |(seq, message): (u64, &&StoredMessage)| MessageAnswer {
        outcome: stored(message, seq, time),
        stored_in: Some((WriteTarget::Room((*room).clone()), epoch.clone())),
    };
    Some(TargetReply::Answered((first..).zip(messages).map(answer).collect()))
}

/// Decodes the reply for a room with a verdict for each message.
fn judged_reply(reply: Value, SentBatch { to: room, messages }: &SentBatch<'_, RoomKey>) -> TargetReply {
    let parts = match target_parts(reply, messages.len() + 2) {
        Ok(parts) => parts,
        Err(reply) => return reply,
    };
    let mut parts = parts.into_iter();
    let mut head = || parts.next().unwrap_or(Value::Nil);
    let (Ok(epoch), Ok(time)) = (String::from_redis_value(head()), u64::from_redis_value(head())) else {
        return TargetReply::Unknown("script returned a malformed reply");
    };
    let epoch = Arc::<str>::from(epoch);
    let answered = |(part, message): (Value, &&StoredMessage)| {
        let outcome = match part {
            Value::Int(seq @ 1..) => stored(message, seq.unsigned_abs(), time),
            part => match ScriptAnswer::from_redis_value(part) {
                Ok((verdict, seq, _, epoch)) if verdict == "searching" => {
                    MessageOutcome::Searched(PriorPosition { epoch, seq })
                }
                Ok(answer) => MessageOutcome::Done(outcome(answer, true)),
                Err(error) => MessageOutcome::Done(Err(RegistryError::Unknown(error.to_string()).into())),
            },
        };
        MessageAnswer { outcome, stored_in: Some((WriteTarget::Room((*room).clone()), epoch.clone())) }
    };
    TargetReply::Answered(parts.zip(messages).map(answered).collect())
}

/// Returns the outcome of a message that was stored at a position.
fn stored(message: &StoredMessage, seq: u64, time: u64) -> MessageOutcome {
    MessageOutcome::Done(Ok(Published { msg_id: message.msg_id.clone(), seq, time, duplicate: false, online: true }))
}

/// Returns the parts of the reply for one target.
///
/// # Errors
/// The reply if it is a word or has another number of parts.
pub(super) fn target_parts(reply: Value, count: usize) -> Result<Vec<Value>, TargetReply> {
    match reply {
        Value::Array(parts) if parts.len() == count => Ok(parts),
        Value::BulkString(word) if word == b"apart" => Err(TargetReply::Apart),
        Value::BulkString(word) if word == b"unknown" => Err(TargetReply::Unknown("script failed after a write")),
        _ => Err(TargetReply::Unknown("script returned a malformed reply")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::any_reply::any_reply;
    use super::*;
    use crate::backplane::PublishError;

    fn message(msg_id: &str) -> StoredMessage {
        let [token, nick, key, payload, prior] = [const { String::new() }; 5];
        StoredMessage { token, nick, moderates: false, key, msg_id: msg_id.to_owned(), payload, prior }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn verdict(verdict: &str, seq: i64, time: i64, id: &str) -> Value {
        Value::Array(vec![text(verdict), Value::Int(seq), Value::Int(time), text(id)])
    }

    fn sent(messages: &[StoredMessage]) -> (RoomKey, Vec<&StoredMessage>) {
        (RoomKey::from_store("r"), messages.iter().collect())
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
        let (room, messages) = sent(&messages);
        let sent = SentBatch { to: &room, messages };
        let stored_in = || Some((WriteTarget::Room(room.clone()), Arc::from("e")));
        let answers = outcomes.into_iter().map(|outcome| MessageAnswer { outcome, stored_in: stored_in() });
        assert_eq!(room_reply(reply, &sent), TargetReply::Answered(answers.collect()));
        assert_eq!(room_reply(text("apart"), &sent), TargetReply::Apart);
    }

    #[test]
    fn short_reply_numbers_stored_messages() {
        let messages = ["a", "b"].map(message);
        let (room, messages) = sent(&messages);
        let sent = SentBatch { to: &room, messages };
        let TargetReply::Answered(answers) = room_reply(text("e 99 8"), &sent) else { panic!("all are stored") };
        let outcomes: Vec<_> = answers.into_iter().map(|answer| answer.outcome).collect();
        assert_eq!(outcomes, [published("a", 7, 99, false), published("b", 8, 99, false)]);
        for malformed in ["e 99", "e 99 0", "e x 8", "e 99 8x", "e 99 -8", "e 99 18446744073709551615"] {
            let decoded = room_reply(text(malformed), &sent);
            assert!(matches!(decoded, TargetReply::Unknown(_)), "{malformed}: {decoded:?}");
        }
    }

    #[test]
    fn undecodable_reply_leaves_outcomes_unknown() {
        let messages = [message("a")];
        let (room, messages) = sent(&messages);
        let sent = SentBatch { to: &room, messages };
        let short = Value::Array(vec![text("e"), Value::Int(99)]);
        for reply in [text("unknown"), Value::Nil, short] {
            let decoded = room_reply(reply.clone(), &sent);
            assert!(matches!(decoded, TargetReply::Unknown(_)), "{reply:?}: {decoded:?}");
        }
        for strange in [text("?"), Value::Int(0), Value::Int(-7)] {
            let strange = Value::Array(vec![text("e"), Value::Int(99), strange]);
            let TargetReply::Answered(answers) = room_reply(strange, &sent) else { panic!("one answer is malformed") };
            let is_unknown = |answer: &MessageAnswer| {
                matches!(answer.outcome, MessageOutcome::Done(Err(PublishError::Registry(RegistryError::Unknown(_)))))
            };
            assert!(answers.iter().all(is_unknown), "{answers:?}");
        }
    }

    proptest! {
        #[test]
        fn any_reply_is_decoded_or_unknown(reply in any_reply()) {
            let messages = ["a", "b"].map(message);
            let (room, messages) = sent(&messages);
            if let TargetReply::Answered(answers) = room_reply(reply, &SentBatch { to: &room, messages }) {
                prop_assert_eq!(answers.len(), 2, "one answer for each message");
            }
        }
    }
}
