//! The arm between the processes of a cluster: scripts put messages into Redis, one subscription brings them out.
//!
//! Knows keys, scripts and channels; what the texts mean is in [`super::envelope`], how the subscription is kept whole in
//! [`subscriber`], how messages of a room share a call in [`publisher`], how a call is made in [`writes`], what becomes of
//! acked messages that Redis has lost in [`repair`]. Publishes go over the shared lanes, histories over the query pool, so
//! that neither stands in front of what arrives.

mod calls;
mod feed;
mod publisher;
mod reads;
mod republish;
mod subscriber;
mod subscription;

use std::sync::Arc;
use std::time::Instant;

use presence::host::failpoints;
use presence::host::reloadable::Reloadable;
use presence::model::{Incarnation, Nick, NickKey, Retention, RoomKey, RoomName, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::{Call, GENERATION, LOG, Redis};
use redis::Script;
use redis::streams::StreamRangeReply;

use self::calls::{Message, Outcome, Writes};
use self::publisher::{AppendBatch, Limits, Publisher};
use self::republish::Republish;
use self::subscriber::Subscriber;
use super::malformed::Malformed;
use super::{HistoryPage, PublishError, PublishRequest, Published, Range, Sink, Subscription, envelope};
use crate::message::Target;

/// The Redis arm. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub struct RedisBackplane {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    redis: Redis,
    writes: Writes,
    repair: Arc<Republish>,
    publisher: Publisher<Writes>,
    subscriber: Subscriber,
    malformed: Arc<Malformed>,
}

impl RedisBackplane {
    /// As [`RedisBackplane::start_keeping`], with the default bounds of logs.
    #[must_use]
    pub fn start(redis: Redis, sink: Sink) -> Self {
        Self::start_keeping(redis, Reloadable::default(), sink)
    }

    /// Starts to keep a subscription whose deliveries go to `sink`. Publishing keeps logs within
    /// `retention`. Redis need not be there yet. Needs a running tokio runtime.
    #[must_use]
    pub fn start_keeping(redis: Redis, retention: Reloadable<Retention>, sink: Sink) -> Self {
        let malformed = Arc::<Malformed>::default();
        let subscriber = Subscriber::start(&redis, sink, malformed.clone());
        let repair = Arc::<Republish>::default();
        let writes = Writes { redis: redis.clone(), retention, repair: repair.clone() };
        let publisher = Publisher::new(writes.clone(), Limits::default());
        Self { node: Arc::new(Node { redis, writes, repair, publisher, subscriber, malformed }) }
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
    pub async fn publish(&self, room: &RoomName, draft: &PublishRequest) -> Result<Published, PublishError> {
        let message = Message::new(draft, envelope::payload(room.as_str(), draft));
        self.node.publisher.publish(room.key(), message).await
    }

    /// See [`super::Backplane::direct`].
    ///
    /// # Errors
    /// See there.
    pub async fn direct(&self, to: &NickKey, draft: &PublishRequest) -> Result<Published, PublishError> {
        let message = Message::new(draft, envelope::payload(to.as_str(), draft));
        let _place = self.node.publisher.place(message.bytes())?;
        self.node.writes.direct(to, &message).await
    }

    /// See [`super::Backplane::typing`].
    ///
    /// # Errors
    /// See there.
    pub async fn typing(&self, to: &Target, from: &Nick, session: &SessionId) -> Result<(), RegistryError> {
        match to {
            Target::Room(room) => {
                self.node.writes.typing_in(room.key(), &envelope::typing(session, from.as_str())).await
            }
            Target::Nick(nick) => self.node.writes.typing_to(nick.key(), from.as_str()).await,
        }
    }

    /// See [`super::Backplane::beaten`].
    pub fn beaten(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant) {
        self.node.repair.beat(incarnation, generation, sent, received);
    }

    /// See [`super::Backplane::is_whole`].
    #[must_use]
    pub fn is_whole(&self, generation: u64) -> bool {
        self.node.repair.settled() == generation
    }

    /// See [`super::Backplane::kept`].
    #[must_use]
    pub fn kept(&self) -> usize {
        self.node.repair.bytes()
    }

    /// See [`super::Backplane::safe`].
    pub async fn safe(&self) {
        self.node.repair.emptied().await;
    }

    /// See [`super::Backplane::history`].
    ///
    /// # Errors
    /// See there.
    pub async fn history(&self, room: &RoomKey, range: Range, limit: usize) -> Result<HistoryPage, RegistryError> {
        let log = self.node.redis.keys().room(room).stream();
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
        Ok(HistoryPage { messages, more })
    }
}

/// The logs of rooms, as the publisher fills them.
impl AppendBatch for Writes {
    async fn append(&self, room: &RoomKey, batch: &[Message]) -> Result<Vec<Outcome>, RegistryError> {
        self.publish(room, batch).await
    }
}

/// The first line of a script must be its very first bytes, so what it shares with others goes behind it.
fn script(shared: &[&str], text: &str) -> Script {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    Script::new(&failpoints::script(&[&[first, GENERATION, LOG], shared, &[body]].concat().join("\n")))
}

/// An epoch that nobody has used, for a log that has to begin one.
fn epoch() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
