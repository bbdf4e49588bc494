//! Faults of a real Redis: cut connections, a frozen, killed or full server, and lost scripts or keys.
//!
//! Invariant: a publish is refused or unknown during a fault, never lost or doubled, and all works again within 15 s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::backplane::{
    Backplane, LinkState, PageLimit, PublishError, PublishRequest, Range, RedisBackplane, RedisBackplaneSettings,
};
use presence::model::RoomName;
use presence::registry::{PostTarget, RegistryError, ReleaseCause};

use super::fixture::{BackplaneNode, NickHolder, SOON, StoreFixture, eventually, room};
use super::posts::post_of;

/// Longest recovery after a fault has cleared.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// Longest wait for an outcome while answers are lost: the time of repeats, and that of the last call.
const LOST_ANSWER_MAX: Duration = Duration::from_secs(8);

/// Two nodes with one member each in a shared room.
struct NodePair {
    store: StoreFixture,
    lobby: RoomName,
    one: BackplaneNode,
    two: BackplaneNode,
    ann: NickHolder,
}

impl NodePair {
    async fn new() -> Self {
        let store = StoreFixture::redis().await;
        let lobby = room("#lobby");
        let (one, two) = (store.node("g1").await, store.node("g2").await);
        let ann = one.member("ann", &lobby).await;
        two.member("bob", &lobby).await;
        Self { store, lobby, one, two, ann }
    }

    fn nodes(&self) -> [&BackplaneNode; 2] {
        [&self.one, &self.two]
    }

    /// Repeats one publish until it is acknowledged, as a session does.
    async fn publish_until_acked(&self, patience: Duration, request: &PublishRequest) -> u64 {
        let publish = async || self.one.repeat(&self.lobby, request).await.ok();
        eventually(patience, "the publish is acknowledged", publish).await.seq
    }

    /// Publishes a message, and waits until both nodes have received it.
    async fn delivers_within(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let request = self.ann.request("does it work?");
        self.publish_until_acked(patience, &request).await;
        for node in self.nodes() {
            let left = deadline.saturating_duration_since(Instant::now());
            node.receives_within(left, &self.lobby, &request.msg_id).await;
        }
    }

    async fn connected_within(&self, patience: Duration) {
        for node in self.nodes() {
            node.connected_within(patience).await;
        }
    }
}

async fn room_subscribers(store: &mut StoreFixture, room: &RoomName) -> u64 {
    let channel = format!("parley:{{0}}:ch:room:{}", room.key());
    let (_, count): (String, u64) = store.server().ask(&["PUBSUB", "NUMSUB", &channel]).await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_subscription_is_restored_and_reported_once() {
    let mut pair = NodePair::new().await;
    for round in 1..=3 {
        let killed: u64 = pair.store.server().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(killed, 2);
        for node in pair.nodes() {
            eventually(SOON, "the subscription is restored", async || (node.resume_count() == round).then_some(()))
                .await;
        }
        pair.connected_within(SOON).await;
        let request = pair.ann.request("after the cut");
        pair.one.publish(&pair.lobby, &request).await.unwrap();
        for node in pair.nodes() {
            node.receives(&pair.lobby, &request.msg_id).await;
            assert_eq!(node.resume_count(), round, "reported once");
        }
    }
    let status = pair.two.backplane.subscription();
    assert_eq!((status.link, status.reconnects), (LinkState::Subscribed, 3));
    let gap = status.gap(Instant::now());
    assert!(gap >= Duration::from_millis(150) && gap < Duration::from_secs(5), "three gaps in all: {gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_restores_twelve_hundred_room_subscriptions() {
    const ROOMS: usize = 1200;
    let mut pair = NodePair::new().await;
    let rooms: Vec<RoomName> = (0..ROOMS).map(|number| room(&format!("#r{number}"))).collect();
    let subscribed = rooms.iter().map(|room| pair.two.backplane.subscribe(room.key()));
    for result in futures_util::future::join_all(subscribed).await {
        result.unwrap();
    }
    let _: u64 = pair.store.server().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually(SOON, "the subscription is restored", async || (pair.two.resume_count() == 1).then_some(())).await;
    // Every room is subscribed again, not only the first chunk.
    let channels: Vec<String> = pair.store.server().ask(&["PUBSUB", "CHANNELS", "*:ch:room:r*"]).await;
    assert_eq!(channels.len(), ROOMS);
    for at in [0, 499, 500, 1199] {
        let holder = pair.one.member(&format!("p{at}"), &rooms[at]).await;
        let request = holder.request("hello");
        pair.one.publish(&rooms[at], &request).await.unwrap();
        pair.two.receives(&rooms[at], &request.msg_id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn script_flush_does_not_disturb_publishing() {
    let mut pair = NodePair::new().await;
    for seq in 1..=3 {
        let _: String = pair.store.server().ask(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(pair.one.publish(&pair.lobby, &pair.ann.request("hi")).await.unwrap().seq, seq);
        let _: String = pair.store.server().ask(&["SCRIPT", "FLUSH"]).await;
        let ack = pair.one.backplane.direct(pair.ann.nick.key(), &pair.ann.request("note")).await.unwrap();
        assert_eq!(ack.seq, seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_redis_refuses_and_recovers_when_resumed() {
    let mut pair = NodePair::new().await;
    pair.delivers_within(SOON).await;
    pair.store.server().stop_signal().await;
    let frozen_at = Instant::now();
    let request = pair.ann.request("published while frozen");
    let refused = pair.one.publish(&pair.lobby, &request).await;
    assert!(matches!(refused, Err(PublishError::Registry(RegistryError::Unknown(_)))), "{refused:?}");
    assert!(frozen_at.elapsed() < LOST_ANSWER_MAX, "and answers in time");
    let stale = async || (!pair.two.backplane.subscription().connected()).then_some(());
    eventually(Duration::from_secs(4), "the missing beat echo is noticed", stale).await;
    let asked = Instant::now();
    let refused = pair.two.backplane.subscribe(room("#new").key()).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(3));
    tokio::time::sleep_until((frozen_at + Duration::from_secs(8)).into()).await;
    pair.store.server().cont();
    let resumed_at = Instant::now();

    let seq = pair.publish_until_acked(RECOVERY_MAX, &request).await;
    pair.connected_within(RECOVERY_MAX).await;
    pair.delivers_within(SOON).await;
    assert!(resumed_at.elapsed() < RECOVERY_MAX, "{:?}", resumed_at.elapsed());
    // The message is stored once, even if the first attempt ran.
    let history =
        pair.one.backplane.history(pair.lobby.key(), Range::Newest, PageLimit::of_messages(50)).await.unwrap();
    let same = history.messages.iter().filter(|message| message.msg_id == request.msg_id);
    assert_eq!(same.map(|message| message.seq).collect::<Vec<_>>(), [seq]);
    for node in pair.nodes() {
        assert!(node.resume_count() >= 1, "the interruption was reported");
        let received = node.messages(&pair.lobby);
        assert!(
            received.iter().map(|message| message.seq).is_sorted_by(|a, b| a < b),
            "nothing twice, nothing out of order"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_redis_refuses_and_recovers_when_restarted() {
    let mut pair = NodePair::new().await;
    pair.delivers_within(SOON).await;
    let before = pair.one.messages(&pair.lobby).len();
    pair.store.server().kill9();
    for _ in 0..2 {
        let asked = Instant::now();
        let refused = pair.one.publish(&pair.lobby, &pair.ann.request("while redis is down")).await;
        assert!(matches!(refused, Err(PublishError::Registry(_))), "{refused:?}");
        assert!(asked.elapsed() < LOST_ANSWER_MAX, "and answers in time");
    }
    let status = pair.two.backplane.subscription();
    assert!(matches!(status.link, LinkState::Connecting | LinkState::Backoff), "{status:?}");
    assert!(status.gap(Instant::now()) >= Duration::from_secs(3));
    let asked = Instant::now();
    let refused = pair.two.backplane.subscribe(room("#new").key()).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(3));
    pair.store.server().start().await;
    let restarted_at = Instant::now();

    pair.delivers_within(RECOVERY_MAX).await;
    pair.connected_within(RECOVERY_MAX).await;
    assert!(restarted_at.elapsed() < RECOVERY_MAX, "{:?}", restarted_at.elapsed());
    assert_eq!(pair.one.messages(&pair.lobby).len(), before + 1, "refused publishes left nothing");
    assert_eq!((pair.one.resume_count(), pair.two.resume_count()), (1, 1));
    assert_eq!(room_subscribers(&mut pair.store, &room("#new")).await, 0, "a refused subscription is not restored");
    pair.two.backplane.subscribe(room("#new").key()).await.unwrap();
    assert_eq!(room_subscribers(&mut pair.store, &room("#new")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_without_beat_echo_is_replaced() {
    let mut pair = NodePair::new().await;
    pair.connected_within(SOON).await;
    pair.two.stop_beating().await;
    let silent_since = Instant::now();
    let link = || pair.two.backplane.subscription().link;
    eventually(Duration::from_secs(5), "the link is stale", async || (link() == LinkState::Stale).then_some(())).await;
    assert!(silent_since.elapsed() > Duration::from_millis(1900), "{:?}", silent_since.elapsed());
    eventually(SOON, "the link is replaced", async || (pair.two.resume_count() == 1).then_some(())).await;
    assert_eq!(pair.one.resume_count(), 0, "the other node is not affected");
    pair.two.beat();
    pair.connected_within(SOON).await;
    pair.delivers_within(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_started_before_redis_subscribes_once_available() {
    let mut store = StoreFixture::redis().await;
    store.server().kill9();
    let redis = presence::store::redis::RedisStore::open(&store.server().url(), "parley").unwrap();
    let backplane = Backplane::Redis(RedisBackplane::start(
        redis,
        RedisBackplaneSettings::default(),
        Arc::new(|delivery| panic!("{delivery:?}")),
    ));
    let incarnation = presence::model::Incarnation::random();
    // The wait ends, the subscription stays wanted.
    let waited = tokio::time::timeout(Duration::from_millis(300), backplane.subscribe_own_channel(&incarnation)).await;
    assert!(waited.is_err());
    assert_eq!(backplane.subscription().reconnects, 0);
    store.server().start().await;
    eventually(SOON, "the subscription is made", async || backplane.subscription().connected().then_some(())).await;
    let channel = format!("parley:{{0}}:ch:gw:{incarnation}");
    let (_, count): (String, u64) = store.server().ask(&["PUBSUB", "NUMSUB", &channel]).await;
    assert_eq!(count, 1);
    tokio::time::timeout(SOON, backplane.subscribe_own_channel(&incarnation)).await.unwrap();
    assert_eq!(backplane.subscription().gap(Instant::now()), Duration::ZERO, "no earlier subscription, so no gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_redis_refuses_publishes_without_partial_writes() {
    let mut pair = NodePair::new().await;
    pair.delivers_within(SOON).await;
    let before = pair.one.messages(&pair.lobby).len();
    let _: String = pair.store.server().ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let request = pair.ann.request("too much");
    let refused = pair.one.publish(&pair.lobby, &request).await;
    assert!(matches!(refused, Err(PublishError::Registry(RegistryError::Unavailable(_)))), "{refused:?}");
    let refused = pair.one.backplane.direct(pair.ann.nick.key(), &request).await;
    assert!(matches!(refused, Err(PublishError::Registry(RegistryError::Unavailable(_)))), "{refused:?}");
    let _: String = pair.store.server().ask(&["CONFIG", "SET", "maxmemory", "0"]).await;

    let ack = pair.one.publish(&pair.lobby, &request).await.unwrap();
    assert_eq!((ack.seq, ack.duplicate), (before as u64 + 1, false), "the refusal left nothing behind");
    let note = pair.ann.request("note");
    assert!(!pair.one.backplane.direct(pair.ann.nick.key(), &note).await.unwrap().duplicate);
    pair.two.receives(&pair.lobby, &request.msg_id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_idempotency_bucket_refuses_and_forgets_nothing() {
    let mut pair = NodePair::new().await;
    let known = pair.ann.keyed("k", "known");
    let first = pair.one.publish(&pair.lobby, &known).await.unwrap();
    // Fills the bucket of that message and the next one, in pieces that block Redis only briefly.
    let bucket = |ahead: u64| format!("parley:{{0}}:idempotency:{}", first.time / 300_000 + ahead);
    let fill_script = "for key = ARGV[1] * 1000, ARGV[1] * 1000 + 49000, 1000 do
            local pairs = {}
            for i = key, key + 999 do pairs[#pairs + 1] = i; pairs[#pairs + 1] = '' end
            redis.call('HSET', KEYS[1], unpack(pairs))
        end";
    let _: String = pair.store.server().ask(&["CONFIG", "SET", "appendonly", "no"]).await;
    for piece in (0..1000).step_by(50) {
        let _: () = pair.store.server().ask(&["EVAL", fill_script, "1", &bucket(0), &piece.to_string()]).await;
    }
    let _: u64 = pair.store.server().ask(&["COPY", &bucket(0), &bucket(1)]).await;
    let excess = pair.ann.keyed("k2", "one too many");
    let refused =
        [pair.one.publish(&pair.lobby, &excess).await, pair.one.backplane.direct(pair.ann.nick.key(), &excess).await];
    for to in [PostTarget::Room(pair.lobby.key().clone()), PostTarget::Nick(pair.ann.nick.key().clone())] {
        let posted = pair.one.registry.post(&[post_of("app", to, "k")]).await.remove(0);
        assert!(posted.is_ok(), "applications have buckets of their own: {posted:?}");
    }
    let time: Vec<u64> = pair.store.server().ask(&["TIME"]).await;
    let rest = 300_000 - (time[0] * 1000 + time[1] / 1000) % 300_000;
    for refused in refused {
        let Err(PublishError::KeysExhausted { retry_after }) = refused else { panic!("not refused: {refused:?}") };
        // The bucket may have changed between the two readings of the clock.
        let error = (retry_after.as_millis() as i64 - rest as i64).rem_euclid(300_000);
        assert!(error < 10_000, "told to wait {retry_after:?}, while the bucket lasts {rest} ms");
    }
    pair.one.publish(&pair.lobby, &pair.ann.request("without a client key")).await.unwrap();
    let again = pair.one.publish(&pair.lobby, &known).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true), "a known key stays known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_seq_follows_further_of_stream_and_meta() {
    let mut pair = NodePair::new().await;
    let (meta, stream) = ("parley:{0}:room:lobby", "parley:{0}:log:lobby");
    for seq in 1..=3 {
        assert_eq!(pair.one.publish(&pair.lobby, &pair.ann.request("hi")).await.unwrap().seq, seq);
    }
    let _: u64 = pair.store.server().ask(&["HSET", meta, "seq", "1"]).await;
    assert_eq!(pair.one.publish(&pair.lobby, &pair.ann.request("the meta is behind")).await.unwrap().seq, 4);
    let _: u64 = pair.store.server().ask(&["DEL", stream]).await;
    assert_eq!(pair.one.publish(&pair.lobby, &pair.ann.request("the stream is gone")).await.unwrap().seq, 5);
    let _: u64 = pair.store.server().ask(&["HSET", meta, "time", "9000000000000"]).await;
    let ack = pair.one.publish(&pair.lobby, &pair.ann.request("the clock went back")).await.unwrap();
    assert_eq!((ack.seq, ack.time), (6, 9_000_000_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_keys_and_inboxes_expire() {
    let mut pair = NodePair::new().await;
    pair.one.publish(&pair.lobby, &pair.ann.request("hi")).await.unwrap();
    pair.one.backplane.direct(pair.ann.nick.key(), &pair.ann.request("note")).await.unwrap();
    pair.one.publish(&pair.lobby, &pair.ann.keyed("k", "hi")).await.unwrap();
    pair.one.repeat(&pair.lobby, &pair.ann.request("again")).await.unwrap();
    // A bucket is consulted during its own span and the next one.
    for (name, span) in [("idempotency", 300), ("attempts", 30), ("repeats", 30)] {
        let buckets: Vec<String> = pair.store.server().ask(&["KEYS", &format!("*:{name}:*")]).await;
        assert!(!buckets.is_empty());
        for bucket in buckets {
            let ttl: i64 = pair.store.server().ask(&["TTL", &bucket]).await;
            assert!((2 * span - 5..=span * 22 / 10).contains(&ttl), "{bucket}: {ttl}");
        }
    }
    let (inbox, meta) =
        ["inbox", "session"].map(|kind| format!("parley:{{0}}:{kind}:{}", pair.ann.owner.session)).into();
    let StoreFixture::Redis(server, _) = &pair.store else { panic!("only Redis expires keys") };
    let ttl = async |key: &str| -> i64 { server.ask(&["TTL", key]).await };
    assert_eq!((ttl(&inbox).await, ttl(&meta).await), (-1, -1), "no expiry while the session has a nick");
    pair.one.registry.release(&pair.ann.nick, &pair.ann.owner, ReleaseCause::CLOSED).await.unwrap();
    let bob = pair.two.claim_nick("bobby").await;
    pair.two.backplane.direct(pair.ann.nick.key(), &bob.request("for later")).await.unwrap();
    for key in [&inbox, &meta] {
        let ttl = ttl(key).await;
        assert!((259_190..=259_200).contains(&ttl), "{key}: {ttl}");
    }
}
