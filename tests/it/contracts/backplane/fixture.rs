//! The fixture of the backplane tests: a store, nodes on it, and sessions that own a nick.
//!
//! Sessions claim nicks and join rooms through the real registry. The fixture has no gateway, hub or client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gateway::backplane::{
    Backplane, Delivery, MemoryBackplane, PriorPosition, PublishAttempt, PublishError, PublishRequest, Published,
    RedisBackplane, RedisBackplaneSettings,
};
use gateway::message::{Accepted, Body, ChatMessage};
use presence::host::reloadable::Reloadable;
use presence::model::{
    Incarnation, LeftReason, Nick, Owner, Retention, RoomName, RoomPolicies, SessionId, Status, TokenHash,
};
use presence::registry::{
    ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, LeaveIntent, LeaveRequest, MemoryRegistry, ReassertBatch,
    RedisRegistry, Registry,
};
use presence::store::ReadTurns;
use presence::store::memory::Store;
use presence::store::redis::RedisStore;
use tokio::task::JoinHandle;

/// Longest wait for something that should follow promptly.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// The size of a node's republish ring.
pub(crate) const RING_BYTES: usize = 32 * 1024 * 1024;

/// Waits until `holds` returns a value.
pub(crate) async fn eventually<T>(patience: Duration, what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    harness::eventually(patience, what, async || holds().await.ok_or("not yet")).await
}

/// The settings that all nodes of a store share.
#[derive(Clone, Default)]
pub(crate) struct SharedSettings {
    retention: Reloadable<Retention>,
    rooms: Reloadable<RoomPolicies>,
}

/// One store that nodes are started on.
pub(crate) enum StoreFixture {
    Memory(Store, SharedSettings),
    Redis(Box<harness::Redis>, SharedSettings),
}

impl StoreFixture {
    pub(crate) fn memory() -> Self {
        let shared = SharedSettings::default();
        Self::Memory(Store::with_retention(shared.retention.clone()), shared)
    }

    pub(crate) async fn redis() -> Self {
        let mut server = harness::Redis::not_started().setting("appendfsync", "always");
        server.start().await;
        Self::Redis(Box::new(server), SharedSettings::default())
    }

    /// Changes the retention of all nodes.
    pub(crate) fn retain(&self, retention: Retention) {
        let (Self::Memory(_, shared) | Self::Redis(_, shared)) = self;
        shared.retention.set(retention);
    }

    /// Changes the rules of rooms in the configuration of all nodes.
    pub(crate) fn rule(&self, policies: &str) {
        let (Self::Memory(_, shared) | Self::Redis(_, shared)) = self;
        shared.rooms.set(RoomPolicies::from_json(policies).unwrap());
    }

    pub(crate) fn server(&mut self) -> &mut harness::Redis {
        let Self::Redis(server, _) = self else { panic!("only Redis has a server") };
        server
    }

    /// Starts a node whose lease beats once a second and that listens on its own channel.
    pub(crate) async fn node(&self, name: &str) -> BackplaneNode {
        let mut node = self.silent_node(name).await;
        node.beat();
        node
    }

    /// Starts a node that does not beat.
    pub(crate) async fn silent_node(&self, name: &str) -> BackplaneNode {
        let deliveries = DeliveryLog::default();
        let recorder = deliveries.clone();
        let sink = Arc::new(move |delivery: Delivery| recorder.0.lock().unwrap().push(delivery));
        let (read_turns, backplane, registry) = match self {
            Self::Memory(store, shared) => (
                store.read_turns().clone(),
                Backplane::Memory(MemoryBackplane::start(store.clone(), sink)),
                Registry::Memory(MemoryRegistry::new(store.clone()).with_room_policies(shared.rooms.clone())),
            ),
            Self::Redis(server, shared) => {
                let redis = RedisStore::open(&server.url(), "parley").unwrap();
                let settings = RedisBackplaneSettings {
                    retention: shared.retention.clone(),
                    rooms: shared.rooms.clone(),
                    republish_bytes: RING_BYTES,
                };
                (
                    redis.read_turns().clone(),
                    Backplane::Redis(RedisBackplane::start(redis.clone(), settings, sink)),
                    Registry::Redis(RedisRegistry::new(redis).with_room_policies(shared.rooms.clone())),
                )
            }
        };
        let incarnation = Incarnation::random();
        registry.open_lease(&incarnation, &info(name)).await.unwrap();
        backplane.subscribe_own_channel(&incarnation).await;
        BackplaneNode {
            name: name.to_owned(),
            read_turns,
            backplane,
            registry,
            incarnation,
            deliveries,
            republished: Arc::default(),
            beating: None,
        }
    }
}

fn info(name: &str) -> GatewayInfo {
    GatewayInfo {
        node: name.to_owned(),
        version: "0".to_owned(),
        ws: "127.0.0.1:1".to_owned(),
        tcp: "127.0.0.1:2".to_owned(),
        admin: String::new(),
    }
}

/// The deliveries that a node has received.
#[derive(Clone, Default)]
pub(crate) struct DeliveryLog(Arc<Mutex<Vec<Delivery>>>);

impl DeliveryLog {
    pub(crate) fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the position of the newest message received in a room.
    fn newest_position(&self, room: &RoomName) -> PriorPosition {
        let position = |delivery: &Delivery| match delivery {
            Delivery::Room { room: of, epoch, message } if of == room.key() => {
                Some(PriorPosition { epoch: epoch.clone(), seq: message.seq })
            }
            _ => None,
        };
        self.0.lock().unwrap().iter().rev().find_map(position).unwrap_or_default()
    }
}

/// A gateway as the backplane sees it: a lease, a registry and a backplane.
pub(crate) struct BackplaneNode {
    pub(crate) name: String,
    pub(crate) read_turns: ReadTurns,
    pub(crate) backplane: Backplane,
    pub(crate) registry: Registry,
    pub(crate) incarnation: Incarnation,
    pub(crate) deliveries: DeliveryLog,
    /// Count of republished messages.
    pub(crate) republished: Arc<AtomicU64>,
    beating: Option<JoinHandle<()>>,
}

impl Drop for BackplaneNode {
    fn drop(&mut self) {
        if let Some(beating) = &self.beating {
            beating.abort();
        }
    }
}

impl BackplaneNode {
    pub(crate) fn beat(&mut self) {
        let (registry, incarnation, info) = (self.registry.clone(), self.incarnation.clone(), info(&self.name));
        let (backplane, republished) = (self.backplane.clone(), self.republished.clone());
        let beats = async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                let sent = Instant::now();
                let Ok(beat) = registry.beat(&incarnation, &[]).await else { continue };
                let generation = beat.generation.number;
                backplane.note_beat(&incarnation, generation, sent, Instant::now());
                if !beat.asserted {
                    // The node has no local claims: these tests lose messages, never claims.
                    let last = backplane.has_all_acknowledged(generation);
                    let _ = registry
                        .reassert(ReassertBatch {
                            incarnation: &incarnation,
                            info: &info,
                            generation,
                            claims: &[],
                            last,
                        })
                        .await;
                }
            }
        };
        let backplane = self.backplane.clone();
        let republishing = async move {
            let count = |messages| {
                republished.fetch_add(messages, Ordering::SeqCst);
            };
            backplane.republish(count).await;
        };
        self.beating = Some(tokio::spawn(async move {
            tokio::join!(beats, republishing);
        }));
    }

    /// Stops the beats, and returns once their tasks have released the backplane.
    pub(crate) async fn stop_beating(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
            let _ = beating.await;
        }
    }

    /// Claims a nick for a new session on this node.
    pub(crate) async fn claim_nick(&self, nick: &str) -> NickHolder {
        self.claim_nick_with(nick, &TokenHash::of(b"secret")).await
    }

    /// Claims a nick for a new session with this token.
    pub(crate) async fn claim_nick_with(&self, nick: &str, token: &TokenHash) -> NickHolder {
        let nick = Nick::parse(nick).unwrap();
        let session = SessionId::random();
        let (fence, _) = self
            .registry
            .claim(ClaimRequest { incarnation: &self.incarnation, session: &session, nick: &nick, token, user: None })
            .await
            .unwrap();
        NickHolder { nick, owner: Owner { incarnation: self.incarnation.clone(), session, fence } }
    }

    /// Claims a nick, and joins a room that this node subscribes to.
    pub(crate) async fn member(&self, nick: &str, room: &RoomName) -> NickHolder {
        let holder = self.claim_nick(nick).await;
        self.join(&holder, room).await;
        holder
    }

    pub(crate) async fn join(&self, holder: &NickHolder, room: &RoomName) {
        self.backplane.subscribe(room.key()).await.unwrap();
        self.registry
            .join(JoinRequest {
                room,
                nick: &holder.nick,
                owner: &holder.owner,
                user: None,
                status: &Status::default(),
                entry: JoinEntry::New,
                moderates: false,
            })
            .await
            .unwrap();
    }

    /// Removes a holder from a room for good.
    pub(crate) async fn leave(&self, holder: &NickHolder, room: &RoomName) {
        let (reason, intent) = (LeftReason::Left, LeaveIntent::ForGood);
        let request = LeaveRequest { room, nick: &holder.nick, owner: &holder.owner, reason, intent };
        assert!(self.registry.leave(request).await.unwrap(), "not a member");
    }

    /// Publishes as a gateway does: after a lost reply the store searches from the newest message received before it.
    pub(crate) async fn publish(&self, room: &RoomName, request: &PublishRequest) -> Result<Published, PublishError> {
        let prior = self.deliveries.newest_position(room);
        self.backplane.publish(room, request, PublishAttempt::First(&prior)).await
    }

    /// Publishes again after an attempt with an unknown outcome; nothing is known of the room before it.
    pub(crate) async fn repeat(&self, room: &RoomName, request: &PublishRequest) -> Result<Published, PublishError> {
        self.backplane.publish(room, request, PublishAttempt::Repeat(&PriorPosition::default())).await
    }

    /// Returns the messages received in a room so far.
    pub(crate) fn messages(&self, room: &RoomName) -> Vec<ChatMessage> {
        let of_room = |delivery| match delivery {
            Delivery::Room { room: of, message, .. } if of == *room.key() => Some(message),
            _ => None,
        };
        self.deliveries.all().into_iter().filter_map(of_room).collect()
    }

    /// Returns the direct messages received so far, with their target sessions.
    pub(crate) fn directs(&self) -> Vec<(SessionId, ChatMessage)> {
        let direct = |delivery| match delivery {
            Delivery::Direct { session, message, .. } => Some((session, message)),
            _ => None,
        };
        self.deliveries.all().into_iter().filter_map(direct).collect()
    }

    pub(crate) fn resume_count(&self) -> usize {
        self.deliveries.all().iter().filter(|delivery| matches!(delivery, Delivery::SubscriptionRestored)).count()
    }

    /// Waits for the message with this id.
    pub(crate) async fn receives(&self, room: &RoomName, msg_id: &str) -> ChatMessage {
        self.receives_within(SOON, room, msg_id).await
    }

    pub(crate) async fn receives_within(&self, patience: Duration, room: &RoomName, msg_id: &str) -> ChatMessage {
        let what = format!("{} receives {msg_id} in {room}", self.name);
        eventually(patience, &what, async || self.messages(room).into_iter().find(|message| message.msg_id == msg_id))
            .await
    }

    pub(crate) async fn connected_within(&self, patience: Duration) {
        let what = format!("{} is connected", self.name);
        eventually(patience, &what, async || self.backplane.subscription().connected().then_some(())).await;
    }
}

/// A session that owns a nick.
#[derive(Clone)]
pub(crate) struct NickHolder {
    pub(crate) nick: Nick,
    pub(crate) owner: Owner,
}

impl NickHolder {
    /// Builds a publish request without an idempotency key.
    pub(crate) fn request(&self, text: &str) -> PublishRequest {
        let msg_id = SessionId::random().to_string();
        let (from, owner, accepted) = (self.nick.clone(), self.owner.clone(), Accepted::at(SystemTime::now()));
        PublishRequest {
            msg_id,
            key: None,
            from,
            from_user: None,
            owner,
            moderates: false,
            body: Body::from_text(text),
            accepted,
        }
    }

    pub(crate) fn keyed(&self, key: &str, text: &str) -> PublishRequest {
        PublishRequest { key: Some(key.to_owned()), ..self.request(text) }
    }
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}
