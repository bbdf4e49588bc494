//! Calls of the scripts for nicknames, and what all calls of scripts have in common.
//!
//! [`ScriptCalls`] is the caller; `room_calls` adds the calls for rooms, and `writes` the republish ring. Calls use the
//! shared lanes by name, so calls for one nickname reach Redis in order.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use presence::host::reloadable::Reloadable;
use presence::model::keys::{CallKeys, NickKeys, NickUnit, NodeUnit, ScriptKeys, SessionUnit};
use presence::model::{NickKey, Retention, RoomKey, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::{CallKind, RedisStore};
use redis::{FromRedisValue, Script, ScriptInvocation};

use crate::backplane::{PublishError, Published};

use super::message::{StoredMessage, WriteOrigin, WriteOutcome};
use super::republish::SharedRepublishRing;
use super::{epoch, script};

/// Script fragment that every writing script begins with.
pub(super) const PRELUDE: &str = include_str!("../lua/prelude.lua");
/// Script fragment that remembers messages.
pub(super) const NOTES: &str = include_str!("../lua/notes.lua");
/// Script fragment that bounds the bytes of streams.
pub(super) const SIZES: &str = include_str!("../lua/sizes.lua");
/// Script fragment that finds the gateway of a nick.
const WHEREABOUTS: &str = include_str!("../lua/whereabouts.lua");

static DIRECT: LazyLock<Script> =
    LazyLock::new(|| script(&[PRELUDE, NOTES, WHEREABOUTS, SIZES], include_str!("../lua/direct.lua")));

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
    /// Calls the script for one message. Also returns session and epoch of the inbox, if the message is in one. A
    /// republisher names the session, a client does not.
    pub(super) async fn call_direct_script(
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
            .crossing_in_script::<NodeUnit>()
            .buckets_in_script(&["idempotency", "attempts"]);
        let retention = self.retention.get();
        let mut call = self.call(&DIRECT, origin);
        call.key(keys.names());
        call.arg(to.as_str()).arg(inbox).arg(retention.inbox_messages).arg(INBOX_RETENTION_SECONDS).arg(epoch());
        call.arg(token).arg(key).arg(msg_id).arg(payload).arg(retention.inbox_bytes);
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
