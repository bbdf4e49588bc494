//! What only Redis can do to us: lose connections, freeze, die, forget, run full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::backplane::{Backplane, LinkState, PublishError, PublishRequest, Range, RedisBackplane};
use presence::model::RoomName;
use presence::registry::RegistryError;

use super::rig::{Node, Person, SOON, World, eventually, room};

/// How soon everything must be whole after a fault has cleared.
const WHOLE_AGAIN: Duration = Duration::from_secs(15);

/// Two nodes with a member each in one room.
struct Pair {
    world: World,
    lobby: RoomName,
    one: Node,
    two: Node,
    ann: Person,
}

impl Pair {
    async fn new() -> Self {
        let world = World::redis().await;
        let lobby = room("#lobby");
        let (one, two) = (world.node("g1").await, world.node("g2").await);
        let ann = one.member("ann", &lobby).await;
        two.member("bob", &lobby).await;
        Self { world, lobby, one, two, ann }
    }

    fn nodes(&self) -> [&Node; 2] {
        [&self.one, &self.two]
    }

    /// Publishes until it is acked, with the same draft, as a session does.
    async fn say_until_acked(&self, patience: Duration, draft: &PublishRequest) -> u64 {
        let say = async || self.one.say(&self.lobby, draft).await.ok();
        eventually(patience, "the publish is acked", say).await.seq
    }

    /// A new message is acked and heard on both nodes.
    async fn works_within(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let draft = self.ann.draft("does it work?");
        self.say_until_acked(patience, &draft).await;
        for node in self.nodes() {
            let left = deadline.saturating_duration_since(Instant::now());
            node.hears_within(left, &self.lobby, &draft.msg_id).await;
        }
    }

    async fn whole_within(&self, patience: Duration) {
        for node in self.nodes() {
            node.connected_within(patience).await;
        }
    }
}

async fn room_subscribers(world: &mut World, room: &RoomName) -> u64 {
    let channel = format!("parley:{{0}}:ch:room:{}", room.key());
    let (_, count): (String, u64) = world.server().ask(&["PUBSUB", "NUMSUB", &channel]).await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_subscription_is_made_again_and_said_once() {
    let mut pair = Pair::new().await;
    for round in 1..=3 {
        let killed: u64 = pair.world.server().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(killed, 2);
        for node in pair.nodes() {
            eventually(SOON, "it resumes", async || (node.resumed() == round).then_some(())).await;
        }
        pair.whole_within(SOON).await;
        let draft = pair.ann.draft("after the cut");
        pair.one.say(&pair.lobby, &draft).await.unwrap();
        for node in pair.nodes() {
            node.hears(&pair.lobby, &draft.msg_id).await;
            assert_eq!(node.resumed(), round, "once");
        }
    }
    let status = pair.two.backplane.subscription();
    assert_eq!((status.link, status.reconnects), (LinkState::Subscribed, 3));
    let gap = status.gap(Instant::now());
    assert!(gap >= Duration::from_millis(150) && gap < Duration::from_secs(5), "three pauses: {gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_hundred_rooms_are_heard_again_after_a_cut() {
    const ROOMS: usize = 1200;
    let mut pair = Pair::new().await;
    let rooms: Vec<RoomName> = (0..ROOMS).map(|number| room(&format!("#r{number}"))).collect();
    let subscribed = rooms.iter().map(|room| pair.two.backplane.subscribe(room.key()));
    for result in futures_util::future::join_all(subscribed).await {
        result.unwrap();
    }
    let _: u64 = pair.world.server().ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually(SOON, "it resumes", async || (pair.two.resumed() == 1).then_some(())).await;
    // Whole means all of them, not only the first chunk.
    let channels: Vec<String> = pair.world.server().ask(&["PUBSUB", "CHANNELS", "*:ch:room:r*"]).await;
    assert_eq!(channels.len(), ROOMS);
    for at in [0, 499, 500, 1199] {
        let person = pair.one.member(&format!("p{at}"), &rooms[at]).await;
        let draft = person.draft("hello");
        pair.one.say(&rooms[at], &draft).await.unwrap();
        pair.two.hears(&rooms[at], &draft.msg_id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_not_noticed() {
    let mut pair = Pair::new().await;
    for seq in 1..=3 {
        let _: String = pair.world.server().ask(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(pair.one.say(&pair.lobby, &pair.ann.draft("hi")).await.unwrap().seq, seq);
        let _: String = pair.world.server().ask(&["SCRIPT", "FLUSH"]).await;
        let ack = pair.one.backplane.direct(pair.ann.nick.key(), &pair.ann.draft("note")).await.unwrap();
        assert_eq!(ack.seq, seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_refuses_and_everything_is_whole_after_it_thaws() {
    let mut pair = Pair::new().await;
    pair.works_within(SOON).await;
    pair.world.server().stop_signal().await;
    let frozen = Instant::now();
    let draft = pair.ann.draft("said into the ice");
    let refused = pair.one.say(&pair.lobby, &draft).await;
    assert!(matches!(refused, Err(PublishError::Registry(RegistryError::Unknown(_)))), "{refused:?}");
    assert!(frozen.elapsed() < Duration::from_secs(4), "and says so soon");
    let stale = async || (!pair.two.backplane.subscription().connected()).then_some(());
    eventually(Duration::from_secs(4), "it shows that it no longer hears itself", stale).await;
    let asked = Instant::now();
    let refused = pair.two.backplane.subscribe(room("#new").key()).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(3));
    tokio::time::sleep_until((frozen + Duration::from_secs(8)).into()).await;
    pair.world.server().cont();
    let thawed = Instant::now();

    let seq = pair.say_until_acked(WHOLE_AGAIN, &draft).await;
    pair.whole_within(WHOLE_AGAIN).await;
    pair.works_within(SOON).await;
    assert!(thawed.elapsed() < WHOLE_AGAIN, "{:?}", thawed.elapsed());
    // Whether the first attempt was done or not: it is there once.
    let stretch = pair.one.backplane.history(pair.lobby.key(), Range::Newest, 50).await.unwrap();
    let same = stretch.messages.iter().filter(|message| message.msg_id == draft.msg_id);
    assert_eq!(same.map(|message| message.seq).collect::<Vec<_>>(), [seq]);
    for node in pair.nodes() {
        assert!(node.resumed() >= 1, "whoever missed something was told");
        let heard = node.messages(&pair.lobby);
        assert!(heard.iter().map(|message| message.seq).is_sorted_by(|a, b| a < b), "nothing twice, nothing late");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_refuses_and_everything_is_whole_after_it_is_back() {
    let mut pair = Pair::new().await;
    pair.works_within(SOON).await;
    let before = pair.one.messages(&pair.lobby).len();
    pair.world.server().kill9();
    for _ in 0..2 {
        let asked = Instant::now();
        let refused = pair.one.say(&pair.lobby, &pair.ann.draft("to nobody")).await;
        assert!(matches!(refused, Err(PublishError::Registry(_))), "{refused:?}");
        assert!(asked.elapsed() < Duration::from_secs(4), "and says so soon");
    }
    let status = pair.two.backplane.subscription();
    assert!(matches!(status.link, LinkState::Connecting | LinkState::Backoff), "{status:?}");
    assert!(status.gap(Instant::now()) >= Duration::from_secs(3));
    let asked = Instant::now();
    let refused = pair.two.backplane.subscribe(room("#new").key()).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(3));
    pair.world.server().start().await;
    let back = Instant::now();

    pair.works_within(WHOLE_AGAIN).await;
    pair.whole_within(WHOLE_AGAIN).await;
    assert!(back.elapsed() < WHOLE_AGAIN, "{:?}", back.elapsed());
    assert_eq!(pair.one.messages(&pair.lobby).len(), before + 1, "what was refused did not happen");
    assert_eq!((pair.one.resumed(), pair.two.resumed()), (1, 1));
    assert_eq!(room_subscribers(&mut pair.world, &room("#new")).await, 0, "a withdrawn wish is not asked for");
    pair.two.backplane.subscribe(room("#new").key()).await.unwrap();
    assert_eq!(room_subscribers(&mut pair.world, &room("#new")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_which_our_own_beat_does_not_return_is_given_up() {
    let mut pair = Pair::new().await;
    pair.whole_within(SOON).await;
    pair.two.stop_beating().await;
    let silent = Instant::now();
    let link = || pair.two.backplane.subscription().link;
    eventually(Duration::from_secs(5), "it is stale", async || (link() == LinkState::Stale).then_some(())).await;
    assert!(silent.elapsed() > Duration::from_millis(1900), "{:?}", silent.elapsed());
    eventually(SOON, "it is made again", async || (pair.two.resumed() == 1).then_some(())).await;
    assert_eq!(pair.one.resumed(), 0, "the other node's beats are its own");
    pair.two.beat();
    pair.whole_within(SOON).await;
    pair.works_within(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_before_redis_listens_when_it_comes() {
    let mut world = World::redis().await;
    world.server().kill9();
    let redis = presence::store::redis::Redis::open(&world.server().url(), "parley").unwrap();
    let backplane = Backplane::Redis(RedisBackplane::start(redis, Arc::new(|delivery| panic!("{delivery:?}"))));
    let incarnation = presence::model::Incarnation::random();
    // Given up, but not the wish.
    let waited = tokio::time::timeout(Duration::from_millis(300), backplane.listen_as(&incarnation)).await;
    assert!(waited.is_err());
    assert_eq!(backplane.subscription().reconnects, 0);
    world.server().start().await;
    eventually(SOON, "it listens", async || backplane.subscription().connected().then_some(())).await;
    let channel = format!("parley:{{0}}:ch:gw:{incarnation}");
    let (_, count): (String, u64) = world.server().ask(&["PUBSUB", "NUMSUB", &channel]).await;
    assert_eq!(count, 1);
    tokio::time::timeout(SOON, backplane.listen_as(&incarnation)).await.unwrap();
    assert_eq!(backplane.subscription().gap(Instant::now()), Duration::ZERO, "nothing had been heard before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_whole() {
    let mut pair = Pair::new().await;
    pair.works_within(SOON).await;
    let heard = pair.one.messages(&pair.lobby).len();
    let _: String = pair.world.server().ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let draft = pair.ann.draft("too much");
    let refused = pair.one.say(&pair.lobby, &draft).await;
    assert!(matches!(refused, Err(PublishError::Registry(RegistryError::Unavailable(_)))), "{refused:?}");
    let refused = pair.one.backplane.direct(pair.ann.nick.key(), &draft).await;
    assert!(matches!(refused, Err(PublishError::Registry(RegistryError::Unavailable(_)))), "{refused:?}");
    let _: String = pair.world.server().ask(&["CONFIG", "SET", "maxmemory", "0"]).await;

    let ack = pair.one.say(&pair.lobby, &draft).await.unwrap();
    assert_eq!((ack.seq, ack.duplicate), (heard as u64 + 1, false), "the refusal left nothing behind");
    let note = pair.ann.draft("note");
    assert!(!pair.one.backplane.direct(pair.ann.nick.key(), &note).await.unwrap().duplicate);
    pair.two.hears(&pair.lobby, &draft.msg_id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_idempotency_buckets_refuse_and_forget_nothing() {
    let mut pair = Pair::new().await;
    let known = pair.ann.keyed("k", "known");
    let first = pair.one.say(&pair.lobby, &known).await.unwrap();
    // The bucket of that message, and the next one, should it begin meanwhile. In pieces, so that nobody waits for long.
    let bucket = |ahead: u64| format!("parley:{{0}}:idempotency:{}", first.time / 300_000 + ahead);
    let fill = "for key = ARGV[1] * 1000, ARGV[1] * 1000 + 49000, 1000 do
            local pairs = {}
            for i = key, key + 999 do pairs[#pairs + 1] = i; pairs[#pairs + 1] = '' end
            redis.call('HSET', KEYS[1], unpack(pairs))
        end";
    let _: String = pair.world.server().ask(&["CONFIG", "SET", "appendonly", "no"]).await;
    for piece in (0..1000).step_by(50) {
        let _: () = pair.world.server().ask(&["EVAL", fill, "1", &bucket(0), &piece.to_string()]).await;
    }
    let _: u64 = pair.world.server().ask(&["COPY", &bucket(0), &bucket(1)]).await;
    let refused = pair.one.say(&pair.lobby, &pair.ann.keyed("k2", "one too many")).await;
    assert_eq!(refused, Err(PublishError::Overloaded));
    let refused = pair.one.backplane.direct(pair.ann.nick.key(), &pair.ann.keyed("k2", "one too many")).await;
    assert_eq!(refused, Err(PublishError::Overloaded));
    pair.one.say(&pair.lobby, &pair.ann.draft("needs no key for long")).await.unwrap();
    let again = pair.one.say(&pair.lobby, &known).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true), "what is known stays known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_number_follows_the_log_and_the_meta_whichever_is_further() {
    let mut pair = Pair::new().await;
    let (meta, log) = ("parley:{0}:room:lobby", "parley:{0}:log:lobby");
    for seq in 1..=3 {
        assert_eq!(pair.one.say(&pair.lobby, &pair.ann.draft("hi")).await.unwrap().seq, seq);
    }
    let _: u64 = pair.world.server().ask(&["HSET", meta, "seq", "1"]).await;
    assert_eq!(pair.one.say(&pair.lobby, &pair.ann.draft("the meta is behind")).await.unwrap().seq, 4);
    let _: u64 = pair.world.server().ask(&["DEL", log]).await;
    assert_eq!(pair.one.say(&pair.lobby, &pair.ann.draft("the log is gone")).await.unwrap().seq, 5);
    let _: u64 = pair.world.server().ask(&["HSET", meta, "time", "9000000000000"]).await;
    let ack = pair.one.say(&pair.lobby, &pair.ann.draft("the clock went back")).await.unwrap();
    assert_eq!((ack.seq, ack.time), (6, 9_000_000_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_inboxes_do_not_stay_for_ever() {
    let mut pair = Pair::new().await;
    pair.one.say(&pair.lobby, &pair.ann.draft("hi")).await.unwrap();
    pair.one.backplane.direct(pair.ann.nick.key(), &pair.ann.draft("note")).await.unwrap();
    pair.one.say(&pair.lobby, &pair.ann.keyed("k", "hi")).await.unwrap();
    // Asked for during its own span and the one after it.
    for (name, span) in [("idempotency", 300), ("attempts", 30)] {
        let buckets: Vec<String> = pair.world.server().ask(&["KEYS", &format!("*:{name}:*")]).await;
        assert!(!buckets.is_empty());
        for bucket in buckets {
            let ttl: i64 = pair.world.server().ask(&["TTL", &bucket]).await;
            assert!((2 * span - 5..=span * 22 / 10).contains(&ttl), "{bucket}: {ttl}");
        }
    }
    let (inbox, meta) =
        ["inbox", "session"].map(|kind| format!("parley:{{0}}:{kind}:{}", pair.ann.owner.session)).into();
    let World::Redis(server) = &pair.world else { panic!("only Redis forgets by itself") };
    let ttl = async |key: &str| -> i64 { server.ask(&["TTL", key]).await };
    assert_eq!((ttl(&inbox).await, ttl(&meta).await), (-1, -1), "while its session has a nick");
    pair.one.registry.release(&pair.ann.nick, &pair.ann.owner, None).await.unwrap();
    let bob = pair.two.person("bobby").await;
    pair.two.backplane.direct(pair.ann.nick.key(), &bob.draft("for later")).await.unwrap();
    for key in [&inbox, &meta] {
        let ttl = ttl(key).await;
        assert!((259_190..=259_200).contains(&ttl), "{key}: {ttl}");
    }
}
