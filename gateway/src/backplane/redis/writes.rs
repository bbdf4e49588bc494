//! The two scripts that put messages into logs: how they are called, and what their answers mean.
//!
//! They go over the shared lanes, by name, so that what is about one room or nickname reaches Redis in its order.

use std::sync::LazyLock;

use presence::live::Live;
use presence::model::{NickKey, Retention, RoomKey};
use presence::redis::{Redis, settle};
use presence::registry::RegistryError;
use redis::{FromRedisValue, Script, ScriptInvocation};

use super::{epoch, script};
use crate::backplane::{Draft, PublishError, Published};

static PUBLISH: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/publish.lua")));
static DIRECT: LazyLock<Script> =
    LazyLock::new(|| script(&[include_str!("../lua/prelude.lua")], include_str!("../lua/direct.lua")));

/// Most messages that are remembered for one span, over all rooms and nicks of a partition: of those with a client's key
/// for five minutes, of those without one for 30 seconds.
const BUCKET_KEYS: usize = 1_000_000;
/// Most messages kept in one inbox; Redis may keep some more.
const INBOX_MESSAGES: usize = 1_000;
/// Seconds that an inbox is kept after its session has gone: 72 hours.
const INBOX_SECONDS: usize = 72 * 60 * 60;

/// What a script answers for one message: verdict, seq, time, message id.
type Answer = (String, u64, u64, String);

/// A message as the store takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The sender's claim.
    pub(super) token: String,
    /// The sender's nick key.
    pub(super) nick: String,
    /// The client's idempotency key behind a `=`, or nothing.
    pub(super) key: String,
    /// Its id.
    pub(super) msg_id: String,
    /// What is stored and sent.
    pub(super) payload: String,
}

impl Message {
    pub(super) fn new(draft: &Draft, payload: String) -> Self {
        Self {
            token: draft.owner.token(),
            nick: draft.from.key().as_str().to_owned(),
            key: draft.key.as_ref().map(|key| format!("={key}")).unwrap_or_default(),
            msg_id: draft.msg_id.clone(),
            payload,
        }
    }

    /// What it costs to hold and to send: every part but the payload is short and bounded, except the client's key.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.key.len()
    }
}

/// The generation of the store that a gateway knows: any, until beats tell.
const ANY_GENERATION: u64 = 0;

/// What came of one message.
pub(super) type Outcome = Result<Published, PublishError>;

/// Our side of the scripts.
#[derive(Debug, Clone)]
pub(super) struct Writes {
    pub(super) redis: Redis,
    pub(super) retention: Live<Retention>,
}

impl Writes {
    /// Puts messages into a room. Returns what became of each, in their order.
    ///
    /// # Errors
    /// `Unavailable` when nothing was done, `Unknown` when that is not known.
    pub(super) async fn publish(&self, room: &RoomKey, batch: &[Message]) -> Result<Vec<Outcome>, RegistryError> {
        let keys = self.redis.keys();
        let retention = self.retention.get();
        let mut call = self.call(&PUBLISH);
        call.key(keys.room(room)).key(keys.room_log(room)).key(keys.members(room)).key(keys.room_channel(room));
        call.arg(room.as_str()).arg(retention.messages).arg(retention.age.as_millis() as u64).arg(epoch());
        for Message { token, nick, key, msg_id, payload } in batch {
            call.arg(token).arg(nick).arg(key).arg(msg_id).arg(payload);
        }
        let answers: Vec<Answer> = self.invoke(room.as_str(), &call).await?;
        Ok(answers.into_iter().map(|answer| outcome(answer, true)).collect())
    }

    /// Sends a message to a nickname.
    ///
    /// # Errors
    /// As [`Writes::publish`], and whatever became of the message.
    pub(super) async fn direct(&self, to: &NickKey, message: &Message) -> Outcome {
        let keys = self.redis.keys();
        let Message { token, nick, key, msg_id, payload } = message;
        let mut call = self.call(&DIRECT);
        call.key(keys.nick(&NickKey::from_store(nick))).key(keys.nick(to));
        call.arg(to.as_str())
            .arg(INBOX_MESSAGES)
            .arg(INBOX_SECONDS)
            .arg(epoch())
            .arg(token)
            .arg(key)
            .arg(msg_id)
            .arg(payload);
        let (online, answer): (bool, Answer) = self.invoke(to.as_str(), &call).await?;
        outcome(answer, online)
    }

    /// What both scripts begin with.
    fn call(&self, script: &'static Script) -> ScriptInvocation<'static> {
        let keys = self.redis.keys();
        let mut call = script.prepare_invoke();
        call.key(keys.generation()).key(keys.leases());
        call.arg(keys.base()).arg(ANY_GENERATION).arg(BUCKET_KEYS);
        call
    }

    async fn invoke<T: FromRedisValue>(&self, lane: &str, call: &ScriptInvocation<'_>) -> Result<T, RegistryError> {
        let mut lane = self.redis.lane(lane);
        settle(call.invoke_async(&mut lane)).await
    }
}

fn outcome((verdict, seq, time, msg_id): Answer, online: bool) -> Outcome {
    match verdict.as_str() {
        "ok" => Ok(Published { msg_id, seq, time, duplicate: false, online }),
        "duplicate" => Ok(Published { msg_id, seq, time, duplicate: true, online }),
        "fenced" => Err(RegistryError::Fenced.into()),
        "not_in_room" => Err(PublishError::NotInRoom),
        "no_such_user" => Err(PublishError::NoSuchUser),
        "overloaded" => Err(PublishError::Overloaded),
        _ => Err(RegistryError::Unknown(format!("the script answered {verdict}")).into()),
    }
}
