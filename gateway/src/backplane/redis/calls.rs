//! Calls of typing notices, and what all calls of scripts have in common.
//!
//! [`ScriptCalls`] is the caller; `room_calls` and `inbox_calls` add the calls for messages, and `writes` the republish
//! ring.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use presence::host::reloadable::Reloadable;
use presence::model::keys::{
    CallKeys, KeyBuilder, NamedKeyBuilder, NickKeys, NickUnit, NodeUnit, OwnKey, RoomKeys, ScriptKeys, SessionUnit,
};
use presence::model::{NickKey, Retention, RoomKey, RoomPolicies};
use presence::registry::RegistryError;
use presence::store::redis::message_scripts::{BUCKET_NOTES_MAX, PRELUDE, ROLES, RULES, WHEREABOUTS, assemble};
use presence::store::redis::{CallKind, RedisStore};
use redis::{Cmd, Script, Value};

use crate::backplane::{PublishError, Published};

use super::message::{WriteOrigin, WriteOutcome};
use super::republish::SharedRepublishRing;

static TYPING: LazyLock<Script> =
    LazyLock::new(|| assemble(&[PRELUDE, WHEREABOUTS], include_str!("../lua/typing.lua")));

static ROOM_TYPING: LazyLock<Script> =
    LazyLock::new(|| assemble(&["local base = ARGV[1]", ROLES, RULES], include_str!("../lua/room_typing.lua")));

/// A script's answer for one message: verdict, seq, time, message id.
pub(super) type ScriptAnswer = (String, u64, u64, String);

/// The connection of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum CallLane<'a> {
    /// That of a call at a time.
    Slot(usize),
    /// That of a name.
    Name(&'a str),
}

/// A call of a script for messages to many targets.
pub(super) struct TargetCall<'a, B: KeyBuilder> {
    pub(super) script: &'static Script,
    pub(super) kind: CallKind,
    pub(super) lane: CallLane<'a>,
    pub(super) command: Cmd,
    /// The keys of each target.
    pub(super) targets: &'a [ScriptKeys<B>],
    /// The key that names all targets, in a text about the call.
    pub(super) pattern: OwnKey<B>,
}

/// The caller of the scripts.
#[derive(Debug, Clone)]
pub(super) struct ScriptCalls {
    pub(super) redis: RedisStore,
    pub(super) retention: Reloadable<Retention>,
    pub(super) rooms: Reloadable<RoomPolicies>,
    pub(super) republish: Arc<SharedRepublishRing>,
}

impl ScriptCalls {
    /// Publishes a typing notice to a room, from a member whose token lets it moderate the room or not.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub(super) async fn typing_in_room(
        &self,
        room: &RoomKey,
        (from, moderates): (&NickKey, bool),
        frame: &str,
    ) -> Result<(), RegistryError> {
        let own = [RoomKeys::meta, RoomKeys::members, RoomKeys::channel];
        let keys = ScriptKeys::of(self.redis.keys().room(room)).own(own);
        let origin = WriteOrigin::Client(self.republish.settled());
        let mut call = self.call(&ROOM_TYPING, std::slice::from_ref(&keys), origin);
        call.arg(room.as_str()).arg(from.as_str()).arg(frame);
        call.arg(self.rooms.get().message_json_of(room)).arg(if moderates { "1" } else { "0" });
        let mut lane = self.redis.lane(room.as_str());
        let sent = self.redis.call_script(&mut lane, &ROOM_TYPING, &call);
        self.redis.timed_on(CallKind::Typing, keys.described(), sent).await
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
        let origin = WriteOrigin::Client(self.republish.settled());
        let mut call = self.call(&TYPING, std::slice::from_ref(&keys), origin);
        call.arg(to.as_str()).arg(from);
        let mut lane = self.redis.lane(to.as_str());
        let sent = self.redis.call_script(&mut lane, &TYPING, &call);
        self.redis.timed_on(CallKind::Typing, keys.described(), sent).await
    }

    /// Begins a call on the keys of its targets, with the keys and arguments that all scripts get. Its own arguments
    /// follow.
    pub(super) fn call<B: KeyBuilder>(
        &self,
        script: &Script,
        targets: &[ScriptKeys<B>],
        origin: WriteOrigin<'_>,
    ) -> Cmd {
        let republisher = match origin {
            WriteOrigin::Client(_) => "",
            WriteOrigin::Republish(_, incarnation) => incarnation.as_str(),
        };
        let keys = self.redis.keys();
        let key_count: usize = targets.iter().map(|target| target.names().len()).sum();
        let mut call = redis::cmd("EVALSHA");
        call.arg(script.get_hash()).arg(2 + key_count).arg(keys.generation()).arg(keys.leases());
        for target in targets {
            call.arg(target.names());
        }
        call.arg(keys.base()).arg(origin.generation()).arg(BUCKET_NOTES_MAX).arg(republisher);
        call
    }

    /// Sends a call, and returns one reply for each of its targets.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    pub(super) async fn send<'k, B: NamedKeyBuilder<'k>>(
        &'k self,
        TargetCall { script, kind, lane, command, targets, pattern }: TargetCall<'_, B>,
    ) -> Result<Vec<Value>, RegistryError> {
        let all;
        let in_script = targets.first().map_or(&[][..], |target| target.described().in_script);
        let names = if let [only] = targets {
            only.names()
        } else {
            // Calls with many targets count as one repeated call.
            all = [self.redis.keys().pattern(pattern)];
            &all
        };
        let mut lane = match lane {
            CallLane::Slot(slot) => self.redis.numbered_lane(slot),
            CallLane::Name(name) => self.redis.lane(name),
        };
        let sent = self.redis.call_script(&mut lane, script, &command);
        let replies: Vec<Value> = self.redis.timed_on(kind, CallKeys { names, in_script }, sent).await?;
        if replies.len() != targets.len() {
            return Err(RegistryError::Unknown("script returned a wrong number of targets".to_owned()));
        }
        Ok(replies)
    }
}

/// Returns the outcome of a message that was answered with a verdict.
pub(super) fn outcome((verdict, seq, time, msg_id): ScriptAnswer, online: bool) -> WriteOutcome {
    match verdict.as_str() {
        "ok" => Ok(Published { msg_id, seq, time, duplicate: false, online }),
        "duplicate" => Ok(Published { msg_id, seq, time, duplicate: true, online }),
        "fenced" => Err(RegistryError::Fenced.into()),
        "not_in_room" => Err(PublishError::NotInRoom),
        "not_allowed" => Err(PublishError::NotAllowed),
        "slow_mode" => Err(PublishError::SlowMode { retry_after: Duration::from_millis(time) }),
        "no_such_user" => Err(PublishError::NoSuchUser),
        "muted" => Err(PublishError::Muted { retry_after: (time > 0).then(|| Duration::from_millis(time)) }),
        "exhausted" => Err(PublishError::KeysExhausted { retry_after: Duration::from_millis(time) }),
        "lost" => Err(RegistryError::Unknown("messages after the first attempt are trimmed or lost".to_owned()).into()),
        _ => Err(RegistryError::Unknown(format!("script returned unknown verdict {verdict}")).into()),
    }
}
