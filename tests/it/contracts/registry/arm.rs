//! One arm of the registry under test, with access to its channels.
//!
//! [`RegistryArm`] hides the difference between memory and Redis from the tests; it adds no rule of its own.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use harness::eventually;
use presence::model::keys::Keys;
use presence::model::{LookalikePolicy, Nick, Owner, RoomName, SessionId};
use presence::registry::{MemoryRegistry, RedisRegistry, Registry};
use presence::store::memory::{Append, ListenerGuard, Store};
use presence::store::redis::RedisStore;

use super::PATIENCE;

const PREFIX: &str = "parley";

/// A fresh, empty registry.
pub(super) struct RegistryArm {
    pub(super) registry: Registry,
    pub(super) keys: Keys,
    store: Option<Store>,
    server: Option<harness::Redis>,
}

impl RegistryArm {
    pub(super) fn memory() -> Self {
        let store = Store::default();
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        Self { registry, keys: Keys::new(PREFIX), store: Some(store), server: None }
    }

    pub(super) async fn redis() -> Self {
        let mut server =
            harness::Redis::not_started().setting("appendonly", "no").setting("enable-debug-command", "yes");
        server.start().await;
        let redis = RedisStore::open(&server.url(), PREFIX).unwrap();
        let registry = Registry::Redis(RedisRegistry::new(redis));
        Self { registry, keys: Keys::new(PREFIX), store: None, server: Some(server) }
    }

    /// Returns this registry with another rule for look-alike nicknames.
    pub(super) fn registry_with(&self, lookalikes: LookalikePolicy) -> Registry {
        match &self.registry {
            Registry::Redis(redis) => Registry::Redis(redis.clone().with_lookalikes(lookalikes)),
            Registry::Memory(memory) => Registry::Memory(memory.clone().with_lookalikes(lookalikes)),
        }
    }

    pub(super) fn is_redis(&self) -> bool {
        self.server.is_some()
    }

    /// Sends a command to the server behind the Redis arm, past the registry.
    pub(super) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.server.as_ref().unwrap().ask(words).await
    }

    /// Appends a message to a room's stream, past the backplane.
    pub(super) async fn append_message(&self, room: &RoomName, nick: &Nick, owner: &Owner) {
        if let Some(store) = &self.store {
            let key = SessionId::random().to_string();
            let message = Append {
                from: nick.key(),
                owner,
                moderates: false,
                key: None,
                adds_key: true,
                msg_id: &key,
                payload: "{}",
            };
            store.append(room, message).unwrap();
            return;
        }
        let () = self.ask(&["HINCRBY", &self.keys.room(room.key()).meta(), "seq", "1"]).await;
    }

    /// Appends a message to a session's inbox, past the backplane.
    pub(super) async fn append_direct(&self, nick: &Nick, session: &SessionId, (from, owner): (&Nick, &Owner)) {
        if let Some(store) = &self.store {
            let key = SessionId::random().to_string();
            let message = Append {
                from: from.key(),
                owner,
                moderates: false,
                key: None,
                adds_key: true,
                msg_id: &key,
                payload: "{}",
            };
            store.append_direct(nick.key(), message).unwrap();
            return;
        }
        let () = self.ask(&["HINCRBY", &self.keys.session(session).record(), "seq", "1"]).await;
    }

    /// Subscribes to a channel.
    pub(super) async fn listen(&self, channel: &str) -> ChannelLog {
        let texts: SharedTexts = Arc::default();
        let into = Arc::clone(&texts);
        if let Some(store) = &self.store {
            let listener = move |text: &[u8]| into.lock().unwrap().push(String::from_utf8(text.to_vec()).unwrap());
            return ChannelLog {
                texts,
                _subscription: ChannelSubscription::Memory(store.listen(channel, Arc::new(listener))),
            };
        }
        let client = redis::Client::open(self.server.as_ref().unwrap().admin_url()).unwrap();
        let mut pubsub = client.get_async_pubsub().await.unwrap();
        pubsub.subscribe(channel).await.unwrap();
        let task = tokio::spawn(async move {
            let mut messages = pubsub.on_message();
            while let Some(message) = messages.next().await {
                into.lock().unwrap().push(message.get_payload().unwrap());
            }
        });
        ChannelLog { texts, _subscription: ChannelSubscription::Redis(task) }
    }
}

type SharedTexts = Arc<Mutex<Vec<String>>>;

/// The texts received on a channel so far.
pub(super) struct ChannelLog {
    texts: SharedTexts,
    _subscription: ChannelSubscription,
}

#[allow(dead_code, reason = "held for the effect of dropping it")]
enum ChannelSubscription {
    Memory(ListenerGuard),
    Redis(tokio::task::JoinHandle<()>),
}

impl ChannelLog {
    /// Waits until a text contains `mark`, and returns all texts up to it. A channel keeps its order, so a text that a
    /// test publishes last proves that nothing else came before it.
    pub(super) async fn until(&self, mark: &str) -> Vec<String> {
        eventually(PATIENCE, &format!("{mark:?} arrives"), || async {
            let texts = self.texts.lock().unwrap().clone();
            match texts.iter().position(|text| text.contains(mark)) {
                Some(at) => Ok(texts[..=at].to_vec()),
                None => Err(texts),
            }
        })
        .await
    }

    /// Returns the member versions and deltas up to the one that contains `mark`, and checks their lengths.
    pub(super) async fn deltas_until(&self, mark: &str) -> Vec<(u64, serde_json::Value)> {
        let texts = self.until(mark).await;
        texts.iter().map(|text| delta(text)).collect()
    }
}

fn delta(text: &str) -> (u64, serde_json::Value) {
    let (head, body) = text.split_once('\n').unwrap();
    let words: Vec<&str> = head.split(' ').collect();
    let ["P", version, length] = words[..] else { panic!("not a presence delta: {text}") };
    assert_eq!(length.parse::<usize>().unwrap(), body.len(), "{text}");
    (version.parse().unwrap(), serde_json::from_str(body).unwrap())
}
