//! Worlds, nodes and people: what the stories are told with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gateway::backplane::{
    Backplane, Delivery, MemoryBackplane, PublishError, PublishRequest, Published, RedisBackplane,
};
use gateway::message::{Accepted, Body, ChatMessage};
use presence::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};
use presence::registry::{GatewayInfo, JoinEntry, JoinRequest, MemoryRegistry, ReassertBatch, RedisRegistry, Registry};
use presence::store::memory::Store;
use presence::store::redis::Redis;
use tokio::task::JoinHandle;

/// How long something may take that should come soon.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Waits until `holds` answers with a value.
pub(crate) async fn eventually<T>(patience: Duration, what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    harness::eventually(patience, what, async || holds().await.ok_or("not yet")).await
}

/// A store, and nodes on it.
pub(crate) enum World {
    Memory(Store),
    Redis(Box<harness::Redis>),
}

impl World {
    pub(crate) fn memory() -> Self {
        Self::Memory(Store::default())
    }

    pub(crate) async fn redis() -> Self {
        let mut server = harness::Redis::away().setting("appendfsync", "always");
        server.start().await;
        Self::Redis(Box::new(server))
    }

    pub(crate) fn server(&mut self) -> &mut harness::Redis {
        let Self::Redis(server) = self else { panic!("only Redis has a server") };
        server
    }

    /// A node with a live lease that beats once a second and listens to its own channel.
    pub(crate) async fn node(&self, name: &str) -> Node {
        let mut node = self.silent_node(name).await;
        node.beat();
        node
    }

    /// A node that does not beat.
    pub(crate) async fn silent_node(&self, name: &str) -> Node {
        let heard = Heard::default();
        let ears = heard.clone();
        let sink = Arc::new(move |delivery| ears.0.lock().unwrap().push(delivery));
        let (backplane, registry) = match self {
            Self::Memory(store) => (
                Backplane::Memory(MemoryBackplane::start(store.clone(), sink)),
                Registry::Memory(MemoryRegistry::new(store.clone())),
            ),
            Self::Redis(server) => {
                let redis = Redis::open(&server.url(), "parley").unwrap();
                (
                    Backplane::Redis(RedisBackplane::start(redis.clone(), sink)),
                    Registry::Redis(RedisRegistry::new(redis)),
                )
            }
        };
        let incarnation = Incarnation::random();
        registry.open_lease(&incarnation, &info(name)).await.unwrap();
        backplane.listen_as(&incarnation).await;
        Node { name: name.to_owned(), backplane, registry, incarnation, heard, repaired: Arc::default(), beating: None }
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

#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Delivery>>>);

impl Heard {
    pub(crate) fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().clone()
    }
}

/// What a gateway is to the backplane.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) backplane: Backplane,
    pub(crate) registry: Registry,
    pub(crate) incarnation: Incarnation,
    pub(crate) heard: Heard,
    /// Messages that were put back.
    pub(crate) repaired: Arc<AtomicU64>,
    beating: Option<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(beating) = &self.beating {
            beating.abort();
        }
    }
}

impl Node {
    pub(crate) fn beat(&mut self) {
        let (registry, incarnation, info) = (self.registry.clone(), self.incarnation.clone(), info(&self.name));
        let (backplane, repaired) = (self.backplane.clone(), self.repaired.clone());
        let beats = async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                let sent = Instant::now();
                let Ok(beat) = registry.beat(&incarnation, &[]).await else { continue };
                let generation = beat.generation.number;
                backplane.note_beat(&incarnation, generation, sent, Instant::now());
                if !beat.asserted {
                    // It holds nothing that the store could have lost: these stores keep what they acked.
                    let last = backplane.is_complete(generation);
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
        let repairs = async move {
            let count = |messages| {
                repaired.fetch_add(messages, Ordering::SeqCst);
            };
            backplane.republish(count).await;
        };
        self.beating = Some(tokio::spawn(async move {
            tokio::join!(beats, repairs);
        }));
    }

    /// Returns once its tasks have let go of the backplane.
    pub(crate) async fn stop_beating(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
            let _ = beating.await;
        }
    }

    /// Somebody with a nickname on this node.
    pub(crate) async fn person(&self, nick: &str) -> Person {
        let nick = Nick::parse(nick).unwrap();
        let session = SessionId::random();
        let (fence, _) =
            self.registry.claim(&self.incarnation, &session, &nick, &TokenHash::of(b"secret")).await.unwrap();
        Person { nick, owner: Owner { incarnation: self.incarnation.clone(), session, fence } }
    }

    /// Somebody in a room that this node is subscribed to.
    pub(crate) async fn member(&self, nick: &str, room: &RoomName) -> Person {
        let person = self.person(nick).await;
        self.join(&person, room).await;
        person
    }

    pub(crate) async fn join(&self, person: &Person, room: &RoomName) {
        self.backplane.subscribe(room.key()).await.unwrap();
        self.registry
            .join(JoinRequest {
                room,
                nick: &person.nick,
                owner: &person.owner,
                status: &Status::default(),
                entry: JoinEntry::New,
            })
            .await
            .unwrap();
    }

    pub(crate) async fn say(&self, room: &RoomName, draft: &PublishRequest) -> Result<Published, PublishError> {
        self.backplane.publish(room, draft).await
    }

    /// What was heard in a room so far.
    pub(crate) fn messages(&self, room: &RoomName) -> Vec<ChatMessage> {
        let of_room = |delivery| match delivery {
            Delivery::Room { room: of, message, .. } if of == *room.key() => Some(message),
            _ => None,
        };
        self.heard.all().into_iter().filter_map(of_room).collect()
    }

    /// The direct messages that were heard so far, with the sessions they are for.
    pub(crate) fn directs(&self) -> Vec<(SessionId, ChatMessage)> {
        let direct = |delivery| match delivery {
            Delivery::Direct { session, message, .. } => Some((session, message)),
            _ => None,
        };
        self.heard.all().into_iter().filter_map(direct).collect()
    }

    pub(crate) fn resumed(&self) -> usize {
        self.heard.all().iter().filter(|delivery| matches!(delivery, Delivery::Resumed)).count()
    }

    /// Waits for the message, and for nothing else.
    pub(crate) async fn hears(&self, room: &RoomName, msg_id: &str) -> ChatMessage {
        self.hears_within(SOON, room, msg_id).await
    }

    pub(crate) async fn hears_within(&self, patience: Duration, room: &RoomName, msg_id: &str) -> ChatMessage {
        let what = format!("{} hears {msg_id} in {room}", self.name);
        eventually(patience, &what, async || self.messages(room).into_iter().find(|message| message.msg_id == msg_id))
            .await
    }

    pub(crate) async fn connected_within(&self, patience: Duration) {
        let what = format!("{} is connected", self.name);
        eventually(patience, &what, async || self.backplane.subscription().connected().then_some(())).await;
    }
}

/// Somebody with a nickname.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) nick: Nick,
    pub(crate) owner: Owner,
}

impl Person {
    /// A message without a key of the client's.
    pub(crate) fn draft(&self, text: &str) -> PublishRequest {
        let msg_id = SessionId::random().to_string();
        let (from, owner, accepted) = (self.nick.clone(), self.owner.clone(), Accepted::at(SystemTime::now()));
        PublishRequest { msg_id, key: None, from, owner, body: Body::from_text(text), accepted }
    }

    pub(crate) fn keyed(&self, key: &str, text: &str) -> PublishRequest {
        PublishRequest { key: Some(key.to_owned()), ..self.draft(text) }
    }
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}
