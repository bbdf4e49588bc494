//! One arm of the registry under test: how it is made, and how its channels are heard.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use presence::keys::Keys;
use presence::memory::{Store, Subscription};
use presence::redis::Redis;
use presence::registry::{MemoryRegistry, RedisRegistry, Registry};
use tempfile::TempDir;

use super::PATIENCE;

const PREFIX: &str = "parley";

/// A fresh, empty registry.
pub(super) struct Arm {
    pub(super) registry: Registry,
    pub(super) keys: Keys,
    store: Option<Store>,
    server: Option<RedisServer>,
}

impl Arm {
    pub(super) fn memory() -> Self {
        let store = Store::default();
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        Self { registry, keys: Keys::new(PREFIX), store: Some(store), server: None }
    }

    pub(super) async fn redis() -> Self {
        let server = RedisServer::start().await;
        let redis = Redis::open(&server.url, PREFIX).unwrap();
        let registry = Registry::Redis(RedisRegistry::new(redis));
        Self { registry, keys: Keys::new(PREFIX), store: None, server: Some(server) }
    }

    /// Asks the server behind the Redis arm, past the registry.
    pub(super) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = &self.server.as_ref().unwrap().client;
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    /// Hears a channel from now on.
    pub(super) async fn listen(&self, channel: &str) -> Heard {
        let texts: Texts = Arc::default();
        let into = Arc::clone(&texts);
        if let Some(store) = &self.store {
            let listener = move |text: &[u8]| into.lock().unwrap().push(String::from_utf8(text.to_vec()).unwrap());
            return Heard { texts, _ears: Ears::Memory(store.listen(channel, Arc::new(listener))) };
        }
        let mut pubsub = self.server.as_ref().unwrap().client.get_async_pubsub().await.unwrap();
        pubsub.subscribe(channel).await.unwrap();
        let task = tokio::spawn(async move {
            let mut messages = pubsub.on_message();
            while let Some(message) = messages.next().await {
                into.lock().unwrap().push(message.get_payload().unwrap());
            }
        });
        Heard { texts, _ears: Ears::Redis(task) }
    }
}

type Texts = Arc<Mutex<Vec<String>>>;

/// What was heard on a channel so far.
pub(super) struct Heard {
    texts: Texts,
    _ears: Ears,
}

#[allow(dead_code, reason = "held for what dropping them does")]
enum Ears {
    Memory(Subscription),
    Redis(tokio::task::JoinHandle<()>),
}

impl Heard {
    /// Waits until a text holds `mark`, then gives everything that was heard up to there. A channel keeps the order, so
    /// a text published last on purpose proves that nothing else came before it.
    pub(super) async fn until(&self, mark: &str) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let texts = self.texts.lock().unwrap().clone();
            if let Some(at) = texts.iter().position(|text| text.contains(mark)) {
                return texts[..=at].to_vec();
            }
            assert!(tokio::time::Instant::now() < deadline, "{mark:?} was not heard, but {texts:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// The members' versions and deltas that were heard until one holds `mark`, the lengths checked.
    pub(super) async fn deltas_until(&self, mark: &str) -> Vec<(u64, serde_json::Value)> {
        let texts = self.until(mark).await;
        texts.iter().map(|text| delta(text)).collect()
    }
}

fn delta(text: &str) -> (u64, serde_json::Value) {
    let (head, body) = text.split_once('\n').unwrap();
    let words: Vec<&str> = head.split(' ').collect();
    let ["P", version, length] = words[..] else { panic!("not a change of members: {text}") };
    assert_eq!(length.parse::<usize>().unwrap(), body.len(), "{text}");
    (version.parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// A redis-server of our own, behind a socket in a directory of its own. Ends with the value.
struct RedisServer {
    process: Child,
    client: redis::Client,
    url: String,
    _directory: TempDir,
}

impl RedisServer {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let url = format!("redis+unix://{}", socket.display());
        let client = redis::Client::open(url.as_str()).unwrap();
        let server = Self { process, client, url, _directory: directory };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while server.client.get_multiplexed_async_connection().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "redis-server did not start");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        server
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
