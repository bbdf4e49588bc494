//! The arm between the processes of a cluster: scripts append messages in Redis, and one subscription delivers them.
//!
//! [`publisher`] batches messages. [`writes`] keeps what was acknowledged, [`room_calls`] and [`inbox_calls`] call the
//! scripts. [`republish`] handles acknowledged messages that Redis lost. [`subscriber`] keeps
//! the subscription whole, and [`reads`] reads streams. Texts are encoded in [`super::envelope`]. Publishes use the
//! shared lanes and reads the query pool, so neither delays deliveries.

#[cfg(test)]
mod any_reply;
mod calls;
mod inbox_calls;
mod message;
mod publisher;
mod push_feed;
mod reads;
mod republish;
mod room_calls;
mod subscriber;
mod subscription_machine;
mod writes;

use std::sync::Arc;
use std::time::Instant;

use presence::host::reloadable::Reloadable;
use presence::model::stream::{PageLimit, StreamEnd};
use presence::model::{Incarnation, Nick, NickKey, Retention, RoomKey, RoomName, RoomPolicies, SessionId};
use presence::registry::RegistryError;
use presence::store::redis::RedisStore;
use tokio::sync::Semaphore;

use self::calls::ScriptCalls;
use self::message::{PublishTarget, StoredMessage};
use self::publisher::{Publisher, PublisherLimits};
use self::republish::SharedRepublishRing;
use self::subscriber::ChannelSubscriber;
use super::contract::BackplaneContract;
use super::key_shares::KeyShares;
use super::malformed::MalformedCounter;
use super::{
    DeliverySink, HistoryPage, PriorPosition, PublishAttempt, PublishError, PublishRequest, Published, Range,
    ReplayPage, StreamId, SubscriptionStatus, envelope,
};
use crate::message::Target;

/// The Redis arm. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub struct RedisBackplane {
    node: Arc<RedisNode>,
}

#[derive(Debug)]
struct RedisNode {
    redis: RedisStore,
    calls: ScriptCalls,
    republish: Arc<SharedRepublishRing>,
    publisher: Publisher<ScriptCalls>,
    key_shares: KeyShares,
    /// Places of the history pages that are being read.
    history_places: Semaphore,
    subscriber: ChannelSubscriber,
    malformed: Arc<MalformedCounter>,
}

/// The settings of a [`RedisBackplane`].
#[derive(Debug, Clone)]
pub struct RedisBackplaneSettings {
    /// Limits to which publishing trims streams.
    pub retention: Reloadable<Retention>,
    /// The rules of rooms by pattern.
    pub rooms: Reloadable<RoomPolicies>,
    /// Maximum size in bytes of the acknowledged messages that are kept in case Redis loses them.
    pub republish_bytes: usize,
}

impl Default for RedisBackplaneSettings {
    fn default() -> Self {
        Self { retention: Reloadable::default(), rooms: Reloadable::default(), republish_bytes: 256 * 1024 * 1024 }
    }
}

impl RedisBackplane {
    /// Starts a subscription whose deliveries go to `sink`. Redis may still be unreachable. Needs a running tokio
    /// runtime.
    #[must_use]
    pub fn start(redis: RedisStore, settings: RedisBackplaneSettings, sink: DeliverySink) -> Self {
        let RedisBackplaneSettings { retention, rooms, republish_bytes } = settings;
        let malformed = Arc::<MalformedCounter>::default();
        let subscriber = ChannelSubscriber::start(&redis, sink, malformed.clone());
        let republish = Arc::new(SharedRepublishRing::bounded(republish_bytes));
        let calls = ScriptCalls { redis: redis.clone(), retention, rooms, republish: republish.clone() };
        let publisher = Publisher::new(calls.clone(), PublisherLimits::default());
        Self {
            node: Arc::new(RedisNode {
                redis,
                calls,
                republish,
                publisher,
                key_shares: KeyShares::default(),
                history_places: Semaphore::new(reads::HISTORY_READS_MAX),
                subscriber,
                malformed,
            }),
        }
    }
}

impl BackplaneContract for RedisBackplane {
    fn subscription(&self) -> SubscriptionStatus {
        self.node.subscriber.status()
    }

    fn unsubscribe(&self, room: &RoomKey) {
        self.node.subscriber.unsubscribe(room);
    }

    fn note_beat(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant) {
        self.node.republish.note_beat(incarnation, generation, sent, received);
    }

    fn has_all_acknowledged(&self, generation: u64) -> bool {
        self.node.republish.settled() == generation
    }

    fn unsafe_bytes(&self) -> usize {
        self.node.republish.bytes()
    }

    fn is_crowded(&self, to: &Target) -> bool {
        self.node.publisher.is_crowded(&match to {
            Target::Room(room) => PublishTarget::Room(room.key().clone()),
            Target::Nick(nick) => PublishTarget::Nick(nick.key().clone()),
        })
    }

    async fn subscribe_own_channel(&self, incarnation: &Incarnation) {
        self.node.subscriber.subscribe_own_channel(incarnation).await;
    }

    async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        self.node.subscriber.subscribe(room).await
    }

    async fn publish(
        &self,
        room: &RoomName,
        request: &PublishRequest,
        attempt: PublishAttempt<'_>,
    ) -> Result<Published, PublishError> {
        let keys = self.node.key_shares.admit(request, Instant::now());
        let message = StoredMessage::new(request, envelope::payload(room.as_str(), request), keys);
        let outcome = self.node.publisher.publish(PublishTarget::Room(room.key().clone()), message, attempt).await;
        self.node.key_shares.conclude(request, keys, outcome)
    }

    async fn direct(&self, to: &NickKey, request: &PublishRequest) -> Result<Published, PublishError> {
        let keys = self.node.key_shares.admit(request, Instant::now());
        let message = StoredMessage::new(request, envelope::payload(to.as_str(), request), keys);
        let first = PublishAttempt::First(&PriorPosition::default());
        let outcome = self.node.publisher.publish(PublishTarget::Nick(to.clone()), message, first).await;
        self.node.key_shares.conclude(request, keys, outcome)
    }

    async fn typing(
        &self,
        to: &Target,
        from: &Nick,
        session: &SessionId,
        moderates: bool,
    ) -> Result<(), RegistryError> {
        match to {
            Target::Room(room) => {
                let notice = envelope::typing(session, from.as_str());
                self.node.calls.typing_in_room(room.key(), (from.key(), moderates), &notice).await
            }
            Target::Nick(nick) => self.node.calls.typing_to_nick(nick.key(), from.as_str()).await,
        }
    }

    async fn republish(&self, count: impl FnMut(u64)) {
        republish::run(self, count).await;
    }

    async fn wait_safe(&self) {
        self.node.republish.wait_empty().await;
    }

    async fn history(&self, room: &RoomKey, range: Range, limit: PageLimit) -> Result<HistoryPage, RegistryError> {
        self.read_history(room, range, limit).await
    }

    async fn read_after(&self, stream: &StreamId, after: u64, limit: PageLimit) -> Result<ReplayPage, RegistryError> {
        self.read_page(stream, after, limit).await
    }

    async fn read_ends(&self, streams: &[StreamId]) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError> {
        self.read_stream_ends(streams).await
    }
}

/// Returns an unused epoch, for a stream that has to begin one.
fn epoch() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
