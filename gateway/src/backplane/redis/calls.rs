//! Calls of the scripts that append messages and send typing notices, and the meaning of their answers.
//!
//! Calls use the shared lanes by name, so calls for one room or nickname reach Redis in order. An accepted message
//! enters the republish ring before its sender gets the ack.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use presence::host::reloadable::Reloadable;
use presence::model::keys::{CallKeys, KeyBuilder, NickKeys, NickUnit, NodeUnit, RoomKeys, ScriptKeys, SessionUnit};
use presence::model::{NickKey, Retention, RoomKey, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::{CallKind, RedisStore};
use redis::{FromRedisValue, Script, ScriptInvocation};

use crate::backplane::{PublishError, Published};

use super::message::{AckedMessage, AckedPosition, StoredMessage, WriteOrigin, WriteOutcome, WriteTarget};
use super::republish::{RingReservation, ShareHolder, SharedRepublishRing};
use super::{epoch, script};

static PUBLISH: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/publish.lua")));
static DIRECT: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/direct.lua")));

static TYPING: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/typing.lua")));

/// Maximum number of messages remembered for one bucket, over all rooms and nicks of a partition. A bucket spans 5
/// minutes for messages with a client's key, 30 seconds for others.
const BUCKET_KEYS_MAX: usize = 1_000_000;
/// The lifetime of an inbox after its session: 72 hours.
const INBOX_RETENTION_SECONDS: usize = 72 * 60 * 60;

/// A script's answer for one message: verdict, seq, time, message id.
type ScriptAnswer = (String, u64, u64, String);

/// The caller of the scripts.
#[derive(Debug, Clone)]
pub(super) struct ScriptCalls {
    pub(super) redis: RedisStore,
    pub(super) retention: Reloadable<Retention>,
    pub(super) republish: Arc<SharedRepublishRing>,
}

impl ScriptCalls {
    /// Appends messages to a room and returns the outcomes in their order. A message without space in the republish
    /// ring is not sent; the others are.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn publish(
        &self,
        room: &RoomKey,
        batch: &[StoredMessage],
    ) -> Result<Vec<WriteOutcome>, RegistryError> {
        let target = || ShareHolder::Room(room.clone());
        let reserved = batch.iter().map(|message| Ok((message, self.republish.reserve(message, target())?)));
        let reserved: Vec<Result<_, Duration>> = reserved.collect();
        let messages: Vec<&StoredMessage> = reserved.iter().flatten().map(|(message, _)| *message).collect();
        let generation = self.republish.settled();
        let (epoch, accepted) = if messages.is_empty() {
            (String::new(), Vec::new())
        } else {
            self.call_publish_script(WriteOrigin::Client(generation), room, &messages).await?
        };
        let mut accepted = accepted.into_iter();
        let conclude = |reserved: Result<(&StoredMessage, RingReservation), Duration>| {
            let (message, reservation) = reserved.map_err(|retry_after| PublishError::Exhausted { retry_after })?;
            let lost = || Err(RegistryError::Unknown("script answered too few messages".to_owned()).into());
            let published = accepted.next().unwrap_or_else(lost)?;
            let message = Arc::new(message.known_as(&published.msg_id));
            let position = AckedPosition { epoch: epoch.clone(), seq: published.seq };
            self.republish.add(
                AckedMessage { target: WriteTarget::Room(room.clone()), message, position, generation },
                reservation,
            );
            Ok(published)
        };
        Ok(reserved.into_iter().map(conclude).collect())
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
                let (epoch, outcomes) = self.call_publish_script(origin, room, messages).await?;
                outcomes.into_iter().map(|outcome| positioned(&epoch, outcome)).collect()
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

    /// Calls the script for one room. Returns the epoch of its stream and one outcome per message.
    async fn call_publish_script(
        &self,
        origin: WriteOrigin<'_>,
        room: &RoomKey,
        messages: &[&StoredMessage],
    ) -> Result<(String, Vec<WriteOutcome>), RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().room(room)).own([
            RoomKeys::meta,
            RoomKeys::stream,
            RoomKeys::members,
            RoomKeys::channel,
        ]);
        let retention = self.retention.get();
        let mut call = self.call(&PUBLISH, origin, &keys);
        call.arg(room.as_str()).arg(retention.messages).arg(retention.age.as_millis() as u64).arg(epoch());
        call.arg(retention.quiet.as_secs());
        for StoredMessage { token, nick, key, msg_id, payload } in messages {
            call.arg(token).arg(nick).arg(key).arg(msg_id).arg(payload);
        }
        let (epoch, answers): (String, Vec<ScriptAnswer>) =
            self.invoke(CallKind::Publish, (room.as_str(), keys.described()), &call).await?;
        if answers.len() != messages.len() {
            return Err(RegistryError::Unknown("script returned a wrong number of answers".to_owned()));
        }
        Ok((epoch, answers.into_iter().map(|answer| outcome(answer, true)).collect()))
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
        let StoredMessage { token, nick, key, msg_id, payload } = message;
        let sender = NickKey::from_store(nick);
        let keys = ScriptKeys::of(keys.nick(&sender))
            .own([NickKeys::record])
            .crossing([keys.nick(to).record()])
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let mut call = self.call(&DIRECT, origin, &keys);
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
        let mut call = self.call(&TYPING, WriteOrigin::Client(self.republish.settled()), &keys);
        call.arg(to.as_str()).arg(from);
        self.invoke(CallKind::Typing, (to.as_str(), keys.described()), &call).await
    }

    /// Prepares a call with the keys and arguments common to all scripts.
    fn call(
        &self,
        script: &'static Script,
        origin: WriteOrigin<'_>,
        script_keys: &ScriptKeys<impl KeyBuilder>,
    ) -> ScriptInvocation<'static> {
        let republisher = match origin {
            WriteOrigin::Client(_) => "",
            WriteOrigin::Republish(_, incarnation) => incarnation.as_str(),
        };
        let keys = self.redis.keys();
        let mut call = script.prepare_invoke();
        call.key(keys.generation()).key(keys.leases()).key(script_keys.names());
        call.arg(keys.base()).arg(origin.generation()).arg(BUCKET_KEYS_MAX).arg(republisher);
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

fn outcome((verdict, seq, time, msg_id): ScriptAnswer, online: bool) -> WriteOutcome {
    match verdict.as_str() {
        "ok" => Ok(Published { msg_id, seq, time, duplicate: false, online }),
        "duplicate" => Ok(Published { msg_id, seq, time, duplicate: true, online }),
        "fenced" => Err(RegistryError::Fenced.into()),
        "not_in_room" => Err(PublishError::NotInRoom),
        "no_such_user" => Err(PublishError::NoSuchUser),
        "exhausted" => Err(PublishError::KeysExhausted { retry_after: Duration::from_millis(time) }),
        _ => Err(RegistryError::Unknown(format!("script returned unknown verdict {verdict}")).into()),
    }
}
