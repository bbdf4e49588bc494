//! The arm between the processes of a cluster: scripts put messages into Redis, one subscription brings them out.
//!
//! Knows keys, scripts and channels; what the texts mean is in [`super::envelope`], how the subscription is kept whole in
//! [`subscriber`], how messages of a room share a call in [`publisher`]. Publishes go over the shared lanes, histories
//! over the query pool, so that neither stands in front of what arrives.

mod feed;
mod publisher;
mod reads;
mod subscriber;
mod subscription;

use std::sync::{Arc, LazyLock};

use presence::live::Live;
use presence::model::{Incarnation, NickKey, Retention, RoomKey, RoomName};
use presence::redis::{Call, Redis};
use presence::registry::RegistryError;
use redis::streams::StreamRangeReply;
use redis::{FromRedisValue, Script, ScriptInvocation};

use self::publisher::{Limits, Log, Message, Publisher};
use self::subscriber::Subscriber;
use super::malformed::Malformed;
use super::{Draft, PublishError, Published, Range, Sink, Stretch, Subscription, envelope};

static PUBLISH: LazyLock<Script> = LazyLock::new(|| script(include_str!("../lua/publish.lua")));
static DIRECT: LazyLock<Script> = LazyLock::new(|| script(include_str!("../lua/direct.lua")));

/// Most idempotency keys that are remembered for one span of five minutes, over all rooms and nicks of a partition.
const BUCKET_KEYS: usize = 1_000_000;
/// Most messages kept in one inbox; Redis may keep some more.
const INBOX_MESSAGES: usize = 1_000;
/// Seconds that an inbox is kept after its newest message: 72 hours.
const INBOX_SECONDS: usize = 72 * 60 * 60;

/// What a script answers for one message: verdict, seq, time, message id.
type Answer = (String, u64, u64, String);

/// The Redis arm. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub struct RedisBackplane {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    redis: Redis,
    publisher: Publisher<Logs>,
    subscriber: Subscriber,
    malformed: Arc<Malformed>,
}

impl RedisBackplane {
    /// As [`RedisBackplane::start_keeping`], with the default bounds of logs.
    #[must_use]
    pub fn start(redis: Redis, sink: Sink) -> Self {
        Self::start_keeping(redis, Live::default(), sink)
    }

    /// Starts to keep a subscription whose deliveries go to `sink`. Publishing keeps the logs of rooms within
    /// `retention`. Redis need not be there yet. Needs a running tokio runtime.
    #[must_use]
    pub fn start_keeping(redis: Redis, retention: Live<Retention>, sink: Sink) -> Self {
        let malformed = Arc::<Malformed>::default();
        let subscriber = Subscriber::start(&redis, sink, malformed.clone());
        let publisher = Publisher::new(Logs { redis: redis.clone(), retention }, Limits::default());
        Self { node: Arc::new(Node { redis, publisher, subscriber, malformed }) }
    }

    /// See [`super::Backplane::subscription`].
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        self.node.subscriber.status()
    }

    /// See [`super::Backplane::listen_as`].
    pub async fn listen_as(&self, incarnation: &Incarnation) {
        self.node.subscriber.listen_as(incarnation).await;
    }

    /// See [`super::Backplane::subscribe`].
    ///
    /// # Errors
    /// See there.
    pub async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        self.node.subscriber.subscribe(room).await
    }

    /// See [`super::Backplane::unsubscribe`].
    pub fn unsubscribe(&self, room: &RoomKey) {
        self.node.subscriber.unsubscribe(room);
    }

    /// See [`super::Backplane::publish`].
    ///
    /// # Errors
    /// See there.
    pub async fn publish(&self, room: &RoomName, draft: &Draft) -> Result<Published, PublishError> {
        let message = Message {
            token: draft.owner.token(),
            nick: draft.from.key().as_str().to_owned(),
            key: draft.key.as_ref().unwrap_or(&draft.msg_id).clone(),
            msg_id: draft.msg_id.clone(),
            payload: envelope::payload(room.as_str(), draft),
        };
        self.node.publisher.publish(room.key(), message).await
    }

    /// See [`super::Backplane::direct`].
    ///
    /// # Errors
    /// See there.
    pub async fn direct(&self, to: &NickKey, draft: &Draft) -> Result<Published, PublishError> {
        let payload = envelope::payload(to.as_str(), draft);
        let _place = self.node.publisher.place(payload.len())?;
        let keys = self.node.redis.keys();
        let mut call = DIRECT.prepare_invoke();
        call.key(keys.leases())
            .key(keys.nick(draft.from.key()))
            .key(keys.nick(to))
            .arg(keys.base())
            .arg(BUCKET_KEYS)
            .arg(to.as_str())
            .arg(INBOX_MESSAGES)
            .arg(INBOX_SECONDS)
            .arg(draft.owner.token())
            .arg(draft.key.as_ref().unwrap_or(&draft.msg_id))
            .arg(&draft.msg_id)
            .arg(payload);
        published(invoke(&self.node.redis, Call::Direct, to.as_str(), &call).await?)
    }

    /// See [`super::Backplane::history`].
    ///
    /// # Errors
    /// See there.
    pub async fn history(&self, room: &RoomKey, range: Range, limit: usize) -> Result<Stretch, RegistryError> {
        let log = self.node.redis.keys().room_log(room);
        // One more than asked for tells whether there is more.
        let count = limit.saturating_add(1);
        let command = match range {
            Range::Newest => redis::Cmd::xrevrange_count(&log, "+", "-", count),
            Range::Before(seq) => redis::Cmd::xrevrange_count(&log, seq.saturating_sub(1), "-", count),
            Range::After(seq) => redis::Cmd::xrange_count(&log, seq.saturating_add(1), "+", count),
        };
        let mut connection = self.node.redis.query().await?;
        let answer = command.query_async(&mut connection);
        let reply: StreamRangeReply = self.node.redis.timed(Call::Log, answer).await?;

        let more = reply.ids.len() > limit;
        let mut messages = Vec::with_capacity(reply.ids.len().min(limit));
        for entry in reply.ids.iter().take(limit) {
            let seq = entry.id.split('-').next().and_then(|seq| seq.parse().ok());
            let payload: Option<Vec<u8>> = entry.get("payload");
            let read = seq.zip(entry.get("time")).zip(payload);
            match read.and_then(|((seq, time), payload)| envelope::message(&payload, seq, time)) {
                Some(message) => messages.push(message),
                None => self.node.malformed.note(&log, 1),
            }
        }
        if !matches!(range, Range::After(_)) {
            messages.reverse();
        }
        Ok(Stretch { messages, more })
    }
}

/// The logs of rooms: one call of a script puts a batch into one of them.
#[derive(Debug)]
struct Logs {
    redis: Redis,
    retention: Live<Retention>,
}

impl Log for Logs {
    async fn append(
        &self,
        room: &RoomKey,
        batch: &[Message],
    ) -> Result<Vec<Result<Published, PublishError>>, RegistryError> {
        let keys = self.redis.keys();
        let retention = self.retention.get();
        let mut call = PUBLISH.prepare_invoke();
        call.key(keys.leases())
            .key(keys.room(room))
            .key(keys.room_log(room))
            .key(keys.members(room))
            .key(keys.room_channel(room))
            .arg(keys.base())
            .arg(BUCKET_KEYS)
            .arg(room.as_str())
            .arg(retention.messages)
            .arg(retention.age.as_millis() as u64);
        for Message { token, nick, key, msg_id, payload } in batch {
            call.arg(token).arg(nick).arg(key).arg(msg_id).arg(payload);
        }
        let answers: Vec<Answer> = invoke(&self.redis, Call::Publish, room.as_str(), &call).await?;
        Ok(answers.into_iter().map(published).collect())
    }
}

async fn invoke<T: FromRedisValue>(
    redis: &Redis,
    kind: Call,
    lane: &str,
    script: &ScriptInvocation<'_>,
) -> Result<T, RegistryError> {
    let mut lane = redis.lane(lane);
    redis.timed(kind, script.invoke_async(&mut lane)).await
}

/// The first line of a script must be its very first bytes, so what both share goes behind it.
fn script(text: &str) -> Script {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    Script::new(&[first, include_str!("../lua/prelude.lua"), body].join("\n"))
}

fn published((verdict, seq, time, msg_id): Answer) -> Result<Published, PublishError> {
    match verdict.as_str() {
        "ok" => Ok(Published { msg_id, seq, time, duplicate: false }),
        "duplicate" => Ok(Published { msg_id, seq, time, duplicate: true }),
        "fenced" => Err(RegistryError::Fenced.into()),
        "not_in_room" => Err(PublishError::NotInRoom),
        "no_such_user" => Err(PublishError::NoSuchUser),
        "offline" => Err(PublishError::Offline),
        "overloaded" => Err(PublishError::Overloaded),
        _ => Err(RegistryError::Unknown(format!("the script answered {verdict}")).into()),
    }
}
