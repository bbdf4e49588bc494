//! Calls of the scripts that append messages and send typing notices, and the meaning of their answers.
//!
//! Calls use the shared lanes by name, so calls for one nickname reach Redis in order; `publisher` keeps the order of a
//! room. An accepted message enters the republish ring before its sender gets the ack.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use presence::host::reloadable::Reloadable;
use presence::model::keys::{CallKeys, NickKeys, NickUnit, NodeUnit, ScriptKeys, SessionUnit};
use presence::model::{NickKey, Retention, RoomKey, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::{CallKind, RedisStore};
use redis::{FromRedisValue, Script, ScriptInvocation};

use crate::backplane::{PublishError, Published};

use super::message::{
    AckedMessage, AckedPosition, MessageOutcome, RoomBatch, RoomOutcome, StoredMessage, WriteOrigin, WriteOutcome,
    WriteTarget,
};
use super::republish::{RingReservation, ShareHolder, SharedRepublishRing};
use super::room_calls::{CallLane, RoomReply, SentRoom};
use super::{epoch, script};

/// Script fragment that every writing script begins with.
pub(super) const PRELUDE: &str = include_str!("../lua/prelude.lua");
/// Script fragment that remembers messages.
pub(super) const NOTES: &str = include_str!("../lua/notes.lua");
/// Script fragment that finds the gateway of a nick.
const WHEREABOUTS: &str = include_str!("../lua/whereabouts.lua");

static DIRECT: LazyLock<Script> =
    LazyLock::new(|| script(&[PRELUDE, NOTES, WHEREABOUTS], include_str!("../lua/direct.lua")));

static TYPING: LazyLock<Script> = LazyLock::new(|| script(&[PRELUDE, WHEREABOUTS], include_str!("../lua/typing.lua")));

/// Maximum number of messages remembered for one bucket, over all rooms and nicks of a partition. A bucket spans 5
/// minutes for messages with a client's key, 30 seconds for others.
const BUCKET_NOTES_MAX: usize = 1_000_000;
/// The lifetime of an inbox after its session: 72 hours.
const INBOX_RETENTION_SECONDS: usize = 72 * 60 * 60;

/// A script's answer for one message: verdict, seq, time, message id.
pub(super) type ScriptAnswer = (String, u64, u64, String);

/// The caller of the scripts.
#[derive(Debug, Clone)]
pub(super) struct ScriptCalls {
    pub(super) redis: RedisStore,
    pub(super) retention: Reloadable<Retention>,
    pub(super) republish: Arc<SharedRepublishRing>,
}

impl ScriptCalls {
    /// Appends messages to rooms. Returns the outcomes in the order of the rooms. A message without space in the
    /// republish ring is not sent; the others are.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn publish(&self, slot: usize, rooms: &[RoomBatch]) -> Result<Vec<RoomOutcome>, RegistryError> {
        let reserve = |RoomBatch { room, messages }: &RoomBatch| {
            let reserve = |message| self.republish.reserve(message, ShareHolder::Room(room.clone()));
            messages.iter().map(reserve).collect()
        };
        let reserved: Vec<Vec<Result<RingReservation, Duration>>> = rooms.iter().map(reserve).collect();
        let sent = rooms.iter().zip(&reserved).filter_map(|(RoomBatch { room, messages }, reserved)| {
            let with_space = messages.iter().zip(reserved).filter(|(_, reserved)| reserved.is_ok());
            let messages: Vec<&StoredMessage> = with_space.map(|(message, _)| message).collect();
            (!messages.is_empty()).then_some(SentRoom { room, messages })
        });
        let sent: Vec<SentRoom<'_>> = sent.collect();
        let generation = self.republish.settled();
        let replies = if sent.is_empty() {
            Vec::new()
        } else {
            self.call_publish_script(WriteOrigin::Client(generation), CallLane::Slot(slot), &sent).await?
        };
        let mut replies = replies.into_iter();
        let conclude = |(batch, reserved): (&RoomBatch, Vec<Result<RingReservation, Duration>>)| {
            let is_sent = reserved.iter().any(Result::is_ok);
            let reply = if is_sent { replies.next() } else { None };
            let reply = reply.unwrap_or(RoomReply::Answered { epoch: String::new(), outcomes: Vec::new() });
            self.conclude_room(batch, reserved, reply, generation)
        };
        Ok(rooms.iter().zip(reserved).map(conclude).collect())
    }

    /// Enters the messages that a room has now into the republish ring, and returns the outcomes of all.
    fn conclude_room(
        &self,
        RoomBatch { room, messages }: &RoomBatch,
        reserved: Vec<Result<RingReservation, Duration>>,
        reply: RoomReply,
        generation: u64,
    ) -> RoomOutcome {
        let RoomReply::Answered { epoch, outcomes } = reply else { return RoomOutcome::Apart };
        let mut outcomes = outcomes.into_iter();
        let conclude = |(message, reserved): (&StoredMessage, Result<RingReservation, Duration>)| {
            let reservation = match reserved {
                Ok(reservation) => reservation,
                Err(retry_after) => return MessageOutcome::Done(Err(PublishError::Exhausted { retry_after })),
            };
            let outcome = outcomes.next().unwrap_or_else(|| {
                MessageOutcome::Done(Err(RegistryError::Unknown("script answered too few messages".to_owned()).into()))
            });
            if let MessageOutcome::Done(Ok(published)) = &outcome {
                let message = Arc::new(message.known_as(&published.msg_id));
                let position = AckedPosition { epoch: epoch.clone(), seq: published.seq };
                let target = WriteTarget::Room(room.clone());
                self.republish.add(AckedMessage { target, message, position, generation }, reservation);
            }
            outcome
        };
        RoomOutcome::Answered(messages.iter().zip(reserved).map(conclude).collect())
    }

    /// Sends a message to a nickname.
    ///
    /// # Errors
    /// As for [`ScriptCalls::publish`], and the refusals of the message.
    pub(super) async fn direct(&self, to: &NickKey, message: &StoredMessage) -> WriteOutcome {
        let reservation = self.republish.reserve(message, ShareHolder::Inbox(to.clone()));
        let reservation = reservation.map_err(|retry_after| PublishError::Exhausted { retry_after })?;
        let generation = self.republish.settled();
        let (inbox, outcome) = self.call_direct_script(WriteOrigin::Client(generation), (to, ""), message).await?;
        if let (Some((session, epoch)), Ok(published)) = (inbox, &outcome) {
            let target = WriteTarget::Inbox { session, to: to.clone() };
            let message = Arc::new(message.known_as(&published.msg_id));
            let position = AckedPosition { epoch, seq: published.seq };
            self.republish.add(AckedMessage { target, message, position, generation }, reservation);
        }
        outcome
    }

    /// Republishes messages of one stream that were acknowledged in an earlier generation. Returns the position of
    /// each, and whether it was missing.
    ///
    /// # Errors
    /// `Fenced` if this gateway's lease is not live, else as for [`ScriptCalls::publish`]. Messages done
    /// before an error stay done: a retry finds them by id or key.
    pub(super) async fn republish(
        &self,
        origin: WriteOrigin<'_>,
        target: &WriteTarget,
        messages: &[&StoredMessage],
    ) -> Result<Vec<(AckedPosition, bool)>, RegistryError> {
        let positioned = |epoch: &str, outcome: WriteOutcome| match outcome {
            Ok(Published { seq, duplicate, .. }) => Ok((AckedPosition { epoch: epoch.to_owned(), seq }, !duplicate)),
            Err(PublishError::Registry(error)) => Err(error),
            Err(error) => Err(RegistryError::Unavailable(error.to_string())),
        };
        match target {
            WriteTarget::Room(room) => {
                let sent = [SentRoom { room, messages: messages.to_vec() }];
                let replies = self.call_publish_script(origin, CallLane::Name(room.as_str()), &sent).await?;
                let Some(RoomReply::Answered { epoch, outcomes }) = replies.into_iter().next() else {
                    return Err(RegistryError::Unavailable("room was not republished".to_owned()));
                };
                let done = |outcome| match outcome {
                    MessageOutcome::Done(outcome) => positioned(&epoch, outcome),
                    MessageOutcome::Searched(_) => Err(RegistryError::Unavailable("message was searched".to_owned())),
                };
                outcomes.into_iter().map(done).collect()
            }
            WriteTarget::Inbox { session, to } => {
                let mut positions = Vec::with_capacity(messages.len());
                for message in messages {
                    let (inbox, outcome) = self.call_direct_script(origin, (to, session.as_str()), message).await?;
                    positions.push(positioned(&inbox.map(|(_, epoch)| epoch).unwrap_or_default(), outcome)?);
                }
                Ok(positions)
            }
        }
    }

    /// Calls the script for one message. Also returns session and epoch of the inbox, if the message is in one. A
    /// republisher names the session, a client does not.
    async fn call_direct_script(
        &self,
        origin: WriteOrigin<'_>,
        (to, inbox): (&NickKey, &str),
        message: &StoredMessage,
    ) -> Result<(Option<(SessionId, String)>, WriteOutcome), RegistryError> {
        let keys = self.redis.keys();
        let StoredMessage { token, nick, key, msg_id, payload, .. } = message;
        let sender = NickKey::from_store(nick);
        let keys = ScriptKeys::of(keys.nick(&sender))
            .own([NickKeys::record])
            .crossing([keys.nick(to).record()])
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let mut call = self.call(&DIRECT, origin);
        call.key(keys.names());
        call.arg(to.as_str())
            .arg(inbox)
            .arg(self.retention.get().inbox_messages)
            .arg(INBOX_RETENTION_SECONDS)
            .arg(epoch());
        call.arg(token).arg(key).arg(msg_id).arg(payload);
        let (online, session, epoch, answer): (bool, String, String, ScriptAnswer) =
            self.invoke(CallKind::Direct, (to.as_str(), keys.described()), &call).await?;
        let inbox = (!session.is_empty()).then(|| (SessionId::from_store(&session), epoch));
        Ok((inbox, outcome(answer, online)))
    }

    /// Publishes a typing notice to a room.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub(super) async fn typing_in_room(&self, room: &RoomKey, frame: &str) -> Result<(), RegistryError> {
        let mut lane = self.redis.lane(room.as_str());
        let mut command = redis::cmd("PUBLISH");
        let sent = command.arg(self.redis.keys().room(room).channel()).arg(frame).query_async(&mut lane);
        self.redis.timed(CallKind::Typing, sent).await
    }

    /// Publishes a typing notice to the gateway of a nickname's owner.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub(super) async fn typing_to_nick(&self, to: &NickKey, from: &str) -> Result<(), RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(to))
            .own([NickKeys::record])
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let mut call = self.call(&TYPING, WriteOrigin::Client(self.republish.settled()));
        call.key(keys.names());
        call.arg(to.as_str()).arg(from);
        self.invoke(CallKind::Typing, (to.as_str(), keys.described()), &call).await
    }

    /// Prepares a call with the keys and arguments common to all scripts.
    pub(super) fn call(&self, script: &'static Script, origin: WriteOrigin<'_>) -> ScriptInvocation<'static> {
        let republisher = match origin {
            WriteOrigin::Client(_) => "",
            WriteOrigin::Republish(_, incarnation) => incarnation.as_str(),
        };
        let keys = self.redis.keys();
        let mut call = script.prepare_invoke();
        call.key(keys.generation()).key(keys.leases());
        call.arg(keys.base()).arg(origin.generation()).arg(BUCKET_NOTES_MAX).arg(republisher);
        call
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        kind: CallKind,
        (lane, keys): (&str, CallKeys<'_>),
        call: &ScriptInvocation<'_>,
    ) -> Result<T, RegistryError> {
        let mut lane = self.redis.lane(lane);
        self.redis.timed_on(kind, keys, call.invoke_async(&mut lane)).await
    }
}

/// Returns the outcome of a message that was answered with a verdict.
pub(super) fn outcome((verdict, seq, time, msg_id): ScriptAnswer, online: bool) -> WriteOutcome {
    match verdict.as_str() {
        "ok" => Ok(Published { msg_id, seq, time, duplicate: false, online }),
        "duplicate" => Ok(Published { msg_id, seq, time, duplicate: true, online }),
        "fenced" => Err(RegistryError::Fenced.into()),
        "not_in_room" => Err(PublishError::NotInRoom),
        "no_such_user" => Err(PublishError::NoSuchUser),
        "exhausted" => Err(PublishError::KeysExhausted { retry_after: Duration::from_millis(time) }),
        "lost" => Err(RegistryError::Unknown("messages after the first attempt are trimmed or lost".to_owned()).into()),
        _ => Err(RegistryError::Unknown(format!("script returned unknown verdict {verdict}")).into()),
    }
}
