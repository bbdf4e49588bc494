//! The call of `direct.lua`: messages to many nicknames in one step of Redis, and the reply for each nickname.
//!
//! As `room_calls` for rooms. The script finds the session behind a nickname, so a reply also names the session whose
//! inbox has the message. It knows neither queues nor the republish ring.

use std::sync::Arc;

use presence::model::keys::{NickKeys, NickUnit, NodeUnit, OwnKey, ScriptKeys, SessionUnit};
use presence::model::{NickKey, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::CallKind;
use presence::store::redis::message_scripts::{DIRECT, DIRECT_BUCKETS, INBOX_RETENTION_SECONDS};
use redis::{FromRedisValue, Value};

use super::calls::{CallLane, ScriptAnswer, ScriptCalls, TargetCall, outcome};
use super::epoch;
use super::message::{MessageAnswer, MessageOutcome, SentBatch, StoredMessage, TargetReply, WriteOrigin, WriteTarget};
use super::room_calls::{StoredRange, target_parts};
use crate::backplane::Published;

/// A script's answer for a message that is in the inbox of this session, in this epoch.
type InboxAnswer = (String, u64, u64, String, String, String);

impl ScriptCalls {
    /// Sends messages to nicknames, and returns the reply for each nickname. A republisher names the session of the
    /// inbox, a client does not.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn call_direct_script(
        &self,
        origin: WriteOrigin<'_>,
        lane: CallLane<'_>,
        inbox: Option<&SessionId>,
        nicks: &[SentBatch<'_, NickKey>],
    ) -> Result<Vec<TargetReply>, RegistryError> {
        if nicks.is_empty() {
            return Ok(Vec::new());
        }
        let retention = self.retention.get();
        let mut targets = Vec::with_capacity(nicks.len());
        for SentBatch { to, messages } in nicks {
            let mut keys = ScriptKeys::of(self.redis.keys().nick(to))
                .own([NickKeys::record])
                .crossing_in_script::<NickUnit>()
                .crossing_in_script::<SessionUnit>()
                .crossing_in_script::<NodeUnit>()
                .buckets_in_script(&DIRECT_BUCKETS);
            for StoredMessage { nick, .. } in messages {
                keys = keys.crossing([self.redis.keys().nick(&NickKey::from_store(nick)).record()]);
            }
            targets.push(keys);
        }
        let mut call = self.call(&DIRECT, &targets, origin);
        call.arg(inbox.map_or("", SessionId::as_str)).arg(retention.inbox_messages).arg(INBOX_RETENTION_SECONDS);
        call.arg(epoch()).arg(retention.inbox_bytes);
        for SentBatch { to, messages } in nicks {
            call.arg(to.as_str()).arg(messages.len());
            for StoredMessage { token, key, msg_id, payload, .. } in messages {
                call.arg(token).arg(key).arg(msg_id).arg(payload);
            }
        }
        let (script, kind, pattern) = (&*DIRECT, CallKind::Direct, NickKeys::record as OwnKey<_>);
        let replies = self.send(TargetCall { script, kind, lane, command: call, targets: &targets, pattern }).await?;
        Ok(replies.into_iter().zip(nicks).map(|(reply, sent)| inbox_reply(reply, sent)).collect())
    }
}

/// Decodes the reply for a nickname. What cannot be decoded may have been done.
fn inbox_reply(reply: Value, sent: &SentBatch<'_, NickKey>) -> TargetReply {
    match reply {
        Value::BulkString(text) if text.contains(&b' ') => {
            stored_reply(&text, sent).unwrap_or(TargetReply::Unknown("script returned a malformed reply"))
        }
        reply => judged_reply(reply, sent),
    }
}

/// Decodes the reply for an inbox that stored all messages: `<1 if online> <session> <epoch> <time> <last seq>`.
fn stored_reply(text: &[u8], SentBatch { to, messages }: &SentBatch<'_, NickKey>) -> Option<TargetReply> {
    let (online, rest) = str::from_utf8(text).ok()?.split_once(' ')?;
    let (session, rest) = rest.split_once(' ')?;
    let StoredRange { epoch, time, first } = StoredRange::parse(rest, messages.len())?;
    let inbox = WriteTarget::Inbox { session: SessionId::from_store(session), to: (*to).clone() };
    let answer = |(seq, message): (u64, &&StoredMessage)| {
        let (msg_id, online) = (message.msg_id.clone(), online == "1");
        let published = Published { msg_id, seq, time, duplicate: false, online };
        MessageAnswer { outcome: MessageOutcome::Done(Ok(published)), stored_in: Some((inbox.clone(), epoch.clone())) }
    };
    Some(TargetReply::Answered((first..).zip(messages).map(answer).collect()))
}

/// Decodes the reply for a nickname with a verdict for each message.
fn judged_reply(reply: Value, SentBatch { to, messages }: &SentBatch<'_, NickKey>) -> TargetReply {
    let parts = match target_parts(reply, messages.len() + 4) {
        Ok(parts) => parts,
        Err(reply) => return reply,
    };
    let mut parts = parts.into_iter();
    let mut head = || parts.next().unwrap_or(Value::Nil);
    let (Ok(online), Ok(session)) = (bool::from_redis_value(head()), String::from_redis_value(head())) else {
        return TargetReply::Unknown("script returned a malformed reply");
    };
    let (Ok(epoch), Ok(time)) = (String::from_redis_value(head()), u64::from_redis_value(head())) else {
        return TargetReply::Unknown("script returned a malformed reply");
    };
    let stored_in = |session: &str, epoch: &str| {
        let inbox = WriteTarget::Inbox { session: SessionId::from_store(session), to: (*to).clone() };
        Some((inbox, Arc::from(epoch)))
    };
    let answered = |(part, message): (Value, &&StoredMessage)| match part {
        Value::Int(seq @ 1..) => {
            let (msg_id, seq) = (message.msg_id.clone(), seq.unsigned_abs());
            let published = Published { msg_id, seq, time, duplicate: false, online };
            MessageAnswer { outcome: MessageOutcome::Done(Ok(published)), stored_in: stored_in(&session, &epoch) }
        }
        part => match InboxAnswer::from_redis_value(part) {
            Ok((verdict, seq, time, msg_id, session, epoch)) => {
                let answer: ScriptAnswer = (verdict, seq, time, msg_id);
                let outcome = MessageOutcome::Done(outcome(answer, online));
                MessageAnswer { outcome, stored_in: stored_in(&session, &epoch) }
            }
            Err(error) => {
                let error = RegistryError::Unknown(error.to_string());
                MessageAnswer { outcome: MessageOutcome::Done(Err(error.into())), stored_in: None }
            }
        },
    };
    TargetReply::Answered(parts.zip(messages).map(answered).collect())
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

    fn answer(outcome: Result<Published, PublishError>, session: &str, epoch: &str) -> MessageAnswer {
        let inbox = WriteTarget::Inbox { session: SessionId::from_store(session), to: NickKey::from_store("bob") };
        MessageAnswer { outcome: MessageOutcome::Done(outcome), stored_in: Some((inbox, Arc::from(epoch))) }
    }

    #[test]
    fn reply_names_inbox_of_each_message() {
        let (to, messages) = (NickKey::from_store("bob"), ["a", "b", "c"].map(message));
        let sent = SentBatch { to: &to, messages: messages.iter().collect() };
        let verdict = |words: [&str; 2], numbers: [i64; 2], at: [&str; 2]| {
            let [seq, time] = numbers.map(Value::Int);
            Value::Array(vec![text(words[0]), seq, time, text(words[1]), text(at[0]), text(at[1])])
        };
        let reply = Value::Array(vec![
            Value::Int(1),
            text("s"),
            text("e"),
            Value::Int(99),
            Value::Int(7),
            verdict(["duplicate", "first"], [3, 50], ["former", "f"]),
            verdict(["fenced", ""], [0, 0], ["", ""]),
        ]);
        let published = |msg_id: &str, seq, time, duplicate| {
            Ok(Published { msg_id: msg_id.to_owned(), seq, time, duplicate, online: true })
        };
        let answers = vec![
            answer(published("a", 7, 99, false), "s", "e"),
            answer(published("first", 3, 50, true), "former", "f"),
            answer(Err(RegistryError::Fenced.into()), "", ""),
        ];
        assert_eq!(inbox_reply(reply, &sent), TargetReply::Answered(answers));
        assert_eq!(inbox_reply(text("apart"), &sent), TargetReply::Apart);
        let TargetReply::Answered(stored) = inbox_reply(text("1 s e 99 9"), &sent) else { panic!("all are stored") };
        let at = |msg_id, seq| answer(published(msg_id, seq, 99, false), "s", "e");
        assert_eq!(stored, [at("a", 7), at("b", 8), at("c", 9)]);
        assert!(matches!(inbox_reply(text("1 s e 99 1"), &sent), TargetReply::Unknown(_)), "three messages, one seq");
        assert!(matches!(inbox_reply(text("unknown"), &sent), TargetReply::Unknown(_)));
    }

    proptest! {
        #[test]
        fn any_reply_is_decoded_or_unknown(reply in any_reply()) {
            let (nick, messages) = (NickKey::from_store("bob"), ["a", "b"].map(message));
            let sent = SentBatch { to: &nick, messages: messages.iter().collect() };
            if let TargetReply::Answered(answers) = inbox_reply(reply, &sent) {
                prop_assert_eq!(answers.len(), 2, "one answer for each message");
            }
        }
    }
}
