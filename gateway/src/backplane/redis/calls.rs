//! Calls of typing notices, and what all calls of scripts have in common.
//!
//! [`ScriptCalls`] is the caller; `room_calls` and `inbox_calls` add the calls for messages, and `writes` the republish
//! ring.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use presence::host::reloadable::Reloadable;
use presence::model::keys::{NickKeys, NickUnit, NodeUnit, ScriptKeys, SessionUnit};
use presence::model::{NickKey, Retention, RoomKey};
use presence::registry::RegistryError;
use presence::store::redis::{CallKind, RedisStore};
use redis::aio::ConnectionManager;
use redis::{Cmd, Script};

use crate::backplane::{PublishError, Published};

use super::message::{WriteOrigin, WriteOutcome};
use super::republish::SharedRepublishRing;
use super::script;

/// Script fragment that every writing script begins with.
pub(super) const PRELUDE: &str = include_str!("../lua/prelude.lua");
/// Script fragment that remembers messages.
pub(super) const NOTES: &str = include_str!("../lua/notes.lua");
/// Script fragment that bounds the bytes of streams.
pub(super) const SIZES: &str = include_str!("../lua/sizes.lua");
/// Script fragment that appends to streams.
pub(super) const APPEND: &str = include_str!("../lua/append.lua");
/// Script fragment that finds the gateway of a nick.
pub(super) const WHEREABOUTS: &str = include_str!("../lua/whereabouts.lua");

static TYPING: LazyLock<Script> = LazyLock::new(|| script(&[PRELUDE, WHEREABOUTS], include_str!("../lua/typing.lua")));

/// Maximum number of messages remembered for one bucket, over all rooms and nicks of a partition. A bucket spans 5
/// minutes for messages with a client's key, 30 seconds for others.
const BUCKET_NOTES_MAX: usize = 1_000_000;
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

/// The caller of the scripts.
#[derive(Debug, Clone)]
pub(super) struct ScriptCalls {
    pub(super) redis: RedisStore,
    pub(super) retention: Reloadable<Retention>,
    pub(super) republish: Arc<SharedRepublishRing>,
}

impl ScriptCalls {
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
        let mut call = self.call(&TYPING, keys.names().len());
        call.arg(keys.names());
        self.add_common(&mut call, WriteOrigin::Client(self.republish.settled()));
        call.arg(to.as_str()).arg(from);
        let mut lane = self.redis.lane(to.as_str());
        let sent = self.redis.call_script(&mut lane, &TYPING, &call);
        self.redis.timed_on(CallKind::Typing, keys.described(), sent).await
    }

    /// Begins a call with the keys that all scripts get. Its own `key_count` keys follow, then
    /// [`ScriptCalls::add_common`] and the arguments.
    pub(super) fn call(&self, script: &Script, key_count: usize) -> Cmd {
        let keys = self.redis.keys();
        let mut call = redis::cmd("EVALSHA");
        call.arg(script.get_hash()).arg(2 + key_count).arg(keys.generation()).arg(keys.leases());
        call
    }

    /// Adds the arguments that all scripts get.
    pub(super) fn add_common(&self, call: &mut Cmd, origin: WriteOrigin<'_>) {
        let republisher = match origin {
            WriteOrigin::Client(_) => "",
            WriteOrigin::Republish(_, incarnation) => incarnation.as_str(),
        };
        call.arg(self.redis.keys().base()).arg(origin.generation()).arg(BUCKET_NOTES_MAX).arg(republisher);
    }

    pub(super) fn lane(&self, lane: CallLane<'_>) -> ConnectionManager {
        match lane {
            CallLane::Slot(slot) => self.redis.numbered_lane(slot),
            CallLane::Name(name) => self.redis.lane(name),
        }
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
