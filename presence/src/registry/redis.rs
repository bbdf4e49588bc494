//! The Redis arm: one script a call, so each call is atomic and is done or not done as a whole.
//!
//! Writes use the hot connections, all of one session the same one; reads use the query pool; the event log uses
//! connections of its own. Keys and their contents are documented in [`crate::model::keys`], each script in its header.
//! Nothing here decides: the scripts do.

use std::time::Duration;

use redis::{Cmd, Script};

use super::RegistryError;
use super::listing::EventReader;
use super::reply::{ScriptReply, malformed};
use crate::host::reloadable::Reloadable;
use crate::model::keys::{KeyBuilder, ScriptKeys};
use crate::model::{LookalikePolicy, MemberInfo, Nick, Retention, RoomPolicies, Status, UserId};
use crate::store::redis::{CallKind, RedisStore};

/// Number of keys that every script gets in front: the generation record and the lease table.
const COMMON_KEYS: usize = 2;
/// Number of words in front of the keys and arguments of a script, and their usual size.
const COMMON_WORDS: usize = 6;
const COMMON_BYTES: usize = 256;

/// The registry in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisRegistry {
    pub(super) redis: RedisStore,
    pub(super) event_reader: EventReader,
    pub(super) lookalikes: LookalikePolicy,
    pub(super) rooms: Reloadable<RoomPolicies>,
    pub(super) retention: Reloadable<Retention>,
}

impl RedisRegistry {
    /// A registry of the deployment that `redis` connects to.
    #[must_use]
    pub fn new(redis: RedisStore) -> Self {
        let event_reader = EventReader::new(redis.clone());
        Self {
            redis,
            event_reader,
            lookalikes: LookalikePolicy::default(),
            rooms: Reloadable::default(),
            retention: Reloadable::default(),
        }
    }

    /// Sets the rule for look-alike nicknames; the same for every gateway of a cluster.
    #[must_use]
    pub fn with_lookalikes(self, lookalikes: LookalikePolicy) -> Self {
        Self { lookalikes, ..self }
    }

    /// Sets the rules of rooms by pattern; the same for every program of a cluster.
    #[must_use]
    pub fn with_room_policies(self, rooms: Reloadable<RoomPolicies>) -> Self {
        Self { rooms, ..self }
    }

    /// Sets the limits to which messages of the API trim streams; those of the gateways.
    #[must_use]
    pub fn with_retention(self, retention: Reloadable<Retention>) -> Self {
        Self { retention, ..self }
    }

    /// Returns true while Redis refuses calls or is unfit.
    pub(super) fn is_refused(&self) -> bool {
        !self.redis.reasons().is_empty()
    }

    /// Calls a script that writes, in order with all others of the same `name`.
    pub(super) async fn write(
        &self,
        name: &str,
        script: &Script,
        keys: ScriptKeys<impl KeyBuilder>,
        args: &[&str],
    ) -> Result<ScriptReply, RegistryError> {
        call(&self.redis, CallKind::Write, &mut self.redis.lane(name), ScriptCall { script, keys, args }).await
    }
}

/// A script with its keys and arguments, without those that every script gets in front.
pub(super) struct ScriptCall<'a, B: KeyBuilder> {
    pub(super) script: &'a Script,
    pub(super) keys: ScriptKeys<B>,
    pub(super) args: &'a [&'a str],
}

/// Calls a script. The generation record, the lease table and the base of all keys go in front.
pub(super) async fn call<B: KeyBuilder>(
    redis: &RedisStore,
    kind: CallKind,
    connection: &mut impl redis::aio::ConnectionLike,
    ScriptCall { script, keys, args }: ScriptCall<'_, B>,
) -> Result<ScriptReply, RegistryError> {
    let own_bytes = keys.names().iter().map(String::len).chain(args.iter().map(|arg| arg.len())).sum::<usize>();
    let mut command = Cmd::with_capacity(COMMON_WORDS + keys.names().len() + args.len(), COMMON_BYTES + own_bytes);
    command.arg("EVALSHA").arg(script.get_hash()).arg(COMMON_KEYS + keys.names().len());
    command.arg(redis.keys().generation()).arg(redis.keys().leases()).arg(keys.names());
    command.arg(redis.keys().base()).arg(args);
    let value = redis.timed_on(kind, keys.described(), redis.call_script(connection, script, &command)).await?;
    ScriptReply::new(value)
}

/// Calls a script that only reads, over the query pool.
pub(super) async fn read<B: KeyBuilder>(
    redis: &RedisStore,
    script_call: ScriptCall<'_, B>,
) -> Result<ScriptReply, RegistryError> {
    let mut connection = redis.query().await?;
    let mut reply = call(redis, CallKind::Read, &mut connection, script_call).await?;
    done(&mut reply)?;
    Ok(reply)
}

/// Reads the answer of a script that succeeds or refuses.
pub(super) fn done(reply: &mut ScriptReply) -> Result<(), RegistryError> {
    match reply.text()?.as_str() {
        "OK" => Ok(()),
        refusal => Err(refused(refusal)),
    }
}

/// Reads the answer of a script that compares first; returns true if it changed anything.
pub(super) fn did_change(reply: &mut ScriptReply) -> Result<bool, RegistryError> {
    match reply.text()?.as_str() {
        "OK" => Ok(true),
        "NO" => Ok(false),
        refusal => Err(refused(refusal)),
    }
}

pub(super) fn refused(word: &str) -> RegistryError {
    match word {
        "FENCED" => RegistryError::Fenced,
        "NO_SUCH_ROOM" => RegistryError::NoSuchRoom,
        "BANNED" => RegistryError::Banned,
        "NOT_ALLOWED" => RegistryError::NotAllowed,
        "ROOM_FULL" => RegistryError::RoomFull,
        "INVITE_ONLY" => RegistryError::InviteOnly,
        "STALE" => RegistryError::Unavailable("claim is outdated".to_owned()),
        "OTHER_GENERATION" => RegistryError::Unavailable("another generation has begun".to_owned()),
        _ => malformed("a known verdict"),
    }
}

pub(super) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

pub(super) fn member_info(nick: &Nick, user: Option<&UserId>, status: &Status) -> String {
    json(&MemberInfo { nick: nick.as_str().to_owned(), user: user.cloned(), status: status.clone() })
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our records are always JSON")
}
