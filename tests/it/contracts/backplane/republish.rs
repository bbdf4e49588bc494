//! Republishing: a node appends again what it acknowledged and a restarted store lost.
//!
//! Invariant: each lost message returns once, in its old order and before anything new, wherever its sender is by now.
//! The tests remove data by hand; [`crate::failures::republish`] covers a Redis that loses data by itself.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gateway::backplane::{PageLimit, PublishError, PublishRequest, Published, Range, StreamId};
use gateway::message::Body;
use presence::model::{Owner, RoomName};
use presence::registry::{ClaimRequest, RegistryError, ReleaseCause};
use redis::streams::StreamRangeReply;

use super::fixture::{BackplaneNode, NickHolder, RING_BYTES, SOON, StoreFixture, eventually, room};

/// Removes the newest messages of the lobby and of all inboxes with their idempotency keys, and starts a generation.
/// ARGV: the last seq that stays in the lobby, and in inboxes.
const LOSE_SCRIPT: &str = r"
    local base = 'parley:{0}:'
    local function cut(meta, log, last)
      for _, entry in ipairs(redis.call('XRANGE', log, '(' .. last .. '-0', '+')) do
        redis.call('XDEL', log, entry[1])
      end
      if redis.call('EXISTS', log) == 1 then
        redis.call('XSETID', log, last .. '-0')
      end
      redis.call('HSET', meta, 'seq', last)
    end
    cut(base .. 'room:lobby', base .. 'log:lobby', ARGV[1])
    for _, inbox in ipairs(redis.call('KEYS', base .. 'inbox:*')) do
      cut((string.gsub(inbox, 'inbox:', 'session:')), inbox, ARGV[2])
    end
    for _, bucket in ipairs({ 'attempts', 'idempotency', 'repeats' }) do
      for _, key in ipairs(redis.call('KEYS', base .. bucket .. ':*')) do
        redis.call('DEL', key)
      end
    end
    return redis.call('HINCRBY', base .. 'generation', 'generation', 1)";

const META: &str = "parley:{0}:room:lobby";
const STREAM: &str = "parley:{0}:log:lobby";

/// A beating node with one member in the lobby.
struct RepublishScenario {
    store: StoreFixture,
    lobby: RoomName,
    one: BackplaneNode,
    ann: NickHolder,
}

impl RepublishScenario {
    /// ann joins the lobby and publishes these texts.
    async fn new(texts: &[&str]) -> Self {
        let (store, lobby) = (StoreFixture::redis().await, room("#lobby"));
        let one = store.node("g1").await;
        let ann = one.member("ann", &lobby).await;
        let scenario = Self { store, lobby, one, ann };
        for text in texts {
            scenario.publish(text).await;
        }
        scenario
    }

    async fn publish(&self, text: &str) -> Published {
        self.one.publish(&self.lobby, &self.ann.request(text)).await.unwrap()
    }

    /// Runs `LOSE_SCRIPT`; returns the generation that it starts.
    async fn lose(&self, lobby: u64, inboxes: u64) -> u64 {
        self.ask(&["EVAL", LOSE_SCRIPT, "0", &lobby.to_string(), &inboxes.to_string()]).await
    }

    /// Waits until this node has republished what the generation lost.
    async fn until_republished(&self, generation: u64) {
        eventually(SOON, "everything is republished", async || {
            self.one.backplane.has_all_acknowledged(generation).then_some(())
        })
        .await;
    }

    /// Returns the texts of the lobby's stream, oldest first.
    async fn texts(&self) -> Vec<String> {
        let stored = self
            .one
            .backplane
            .history(self.lobby.key(), Range::Newest, PageLimit::of_messages(10_000))
            .await
            .unwrap()
            .messages;
        assert!(stored.iter().map(|message| message.seq).eq(1..=stored.len() as u64), "dense: {stored:?}");
        stored.into_iter().map(|message| message.body.text()).collect()
    }

    fn republished(&self) -> u64 {
        self.one.republished.load(Ordering::SeqCst)
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let StoreFixture::Redis(server, _) = &self.store else { panic!("only Redis has a server") };
        server.ask(words).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_messages_are_republished_exactly_once() {
    let scenario = RepublishScenario::new(&["a", "b", "c", "d", "e"]).await;
    let ids = async || -> Vec<String> {
        let stored = scenario
            .one
            .backplane
            .history(scenario.lobby.key(), Range::Newest, PageLimit::of_messages(100))
            .await
            .unwrap()
            .messages;
        stored.into_iter().map(|message| message.msg_id).collect()
    };
    let before = ids().await;
    let generation = scenario.lose(5, 0).await;
    scenario.until_republished(generation).await;
    assert_eq!((ids().await, scenario.republished()), (before.clone(), 0));
    let generation = scenario.lose(2, 0).await;
    scenario.until_republished(generation).await;
    assert_eq!((ids().await, scenario.republished()), (before.clone(), 3));
    let generation = scenario.lose(1, 0).await;
    scenario.until_republished(generation).await;
    assert_eq!((ids().await, scenario.republished()), (before, 7), "messages republished before are republished again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn republish_without_reply_makes_no_second_copy() {
    let mut scenario = RepublishScenario::new(&["a", "b", "c", "d", "e"]).await;
    let stored: StreamRangeReply = scenario.ask(&["XRANGE", STREAM, "4", "4"]).await;
    let [time, payload] = ["time", "payload"].map(|field| stored.ids[0].get::<String>(field).unwrap());
    scenario.one.stop_beating().await;
    let generation = scenario.lose(2, 0).await;
    scenario.one.backplane.read_ends(&[StreamId::Room(scenario.lobby.key().clone())]).await.unwrap();
    // The idempotency key of this message is gone, so only its msg_id identifies it.
    let _: String = scenario.ask(&["XADD", STREAM, "3-0", "time", &time, "payload", &payload]).await;
    let _: u64 = scenario.ask(&["HSET", META, "seq", "3"]).await;
    scenario.one.beat();
    scenario.until_republished(generation).await;
    assert_eq!(scenario.texts().await, ["a", "b", "d", "c", "e"]);
    assert_eq!(scenario.republished(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_is_refused_until_republish_ends() {
    let mut scenario = RepublishScenario::new(&[]).await;
    scenario.one.stop_beating().await;
    let known = scenario.one.registry.beat(&scenario.one.incarnation, &[]).await.unwrap().generation.number;
    let beaten = |generation| {
        let now = Instant::now();
        scenario.one.backplane.note_beat(&scenario.one.incarnation, generation, now, now);
    };
    beaten(known);
    assert!(scenario.one.backplane.has_all_acknowledged(known), "nothing was acknowledged in the generation before");
    scenario.publish("a").await;
    scenario.publish("b").await;
    let generation = scenario.lose(1, 0).await;
    let expect_unavailable = async |text: &str| {
        let refused = scenario.one.publish(&scenario.lobby, &scenario.ann.request(text)).await;
        let is_unavailable = matches!(&refused, Err(PublishError::Registry(RegistryError::Unavailable(_))));
        assert!(is_unavailable, "{text}: {refused:?}");
        let refused = scenario.one.backplane.direct(scenario.ann.nick.key(), &scenario.ann.request(text)).await;
        assert!(matches!(&refused, Err(PublishError::Registry(RegistryError::Unavailable(_)))), "{text}: {refused:?}");
    };
    expect_unavailable("the node has not seen the generation").await;
    beaten(generation);
    assert!(!scenario.one.backplane.has_all_acknowledged(generation));
    expect_unavailable("nothing is republished yet").await;
    scenario.one.beat();
    scenario.until_republished(generation).await;
    scenario.publish("c").await;
    assert_eq!(scenario.texts().await, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn republish_works_after_sender_left_or_moved() {
    let scenario = RepublishScenario::new(&["a", "b"]).await;
    let other = scenario.store.node("g2").await;
    let owner = &scenario.ann.owner;
    // The sender was the last member and is gone, so the republished room must still expire.
    scenario.one.leave(&scenario.ann, &scenario.lobby).await;
    assert!(scenario.one.registry.release(&scenario.ann.nick, owner, ReleaseCause::CLOSED).await.unwrap());
    let generation = scenario.lose(0, 0).await;
    scenario.until_republished(generation).await;
    assert_eq!(scenario.texts().await, ["a", "b"]);
    let (stream, meta): (i64, i64) = (scenario.ask(&["TTL", STREAM]).await, scenario.ask(&["TTL", META]).await);
    assert!((86_000..=86_400).contains(&stream) && meta > stream, "{stream} {meta}: two messages are a quiet room");

    // Another session owns the nick now, with a later claim on another node.
    let successor = other.member("ann", &scenario.lobby).await;
    let publish = async || other.publish(&scenario.lobby, &successor.request("c")).await.ok();
    eventually(SOON, "the new owner publishes", publish).await;
    let generation = scenario.lose(1, 0).await;
    scenario.until_republished(generation).await;
    let all = async || -> Option<()> {
        let texts = scenario.texts().await;
        let own: Vec<&String> = texts.iter().filter(|text| *text != "c").collect();
        (own == ["a", "b"] && texts.len() == 3).then_some(())
    };
    eventually(SOON, "every message is back", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_message_is_republished_to_original_inbox() {
    let scenario = RepublishScenario::new(&[]).await;
    let bob = scenario.one.claim_nick("bob").await;
    for text in ["a", "b"] {
        assert!(scenario.one.backplane.direct(bob.nick.key(), &scenario.ann.request(text)).await.unwrap().online);
    }
    let stored = scenario.one.backplane.direct(bob.nick.key(), &scenario.ann.keyed("k", "c")).await.unwrap();
    let inbox = async |holder: &NickHolder| -> Vec<(u64, String)> {
        let log = StreamId::Inbox(holder.owner.session.clone());
        let replay = scenario.one.backplane.read_after(&log, 0, PageLimit::of_messages(100)).await.unwrap().messages;
        replay.into_iter().map(|message| (message.seq, message.body.text())).collect()
    };
    let before = inbox(&bob).await;
    assert_eq!(before.len(), 3);
    assert!(scenario.one.registry.release(&bob.nick, &bob.owner, ReleaseCause::CLOSED).await.unwrap());
    let stranger = scenario.one.claim_nick("bob").await;
    let generation = scenario.lose(0, 1).await;
    scenario.until_republished(generation).await;
    assert_eq!((inbox(&bob).await, inbox(&stranger).await, scenario.republished()), (before.clone(), Vec::new(), 2));
    // Its key is known again, and still means the first inbox.
    let again = scenario.one.backplane.direct(bob.nick.key(), &scenario.ann.keyed("k", "c")).await.unwrap();
    assert_eq!((again.seq, again.msg_id, again.duplicate), (3, stored.msg_id, true));
    let generation = scenario.lose(0, 1).await;
    scenario.until_republished(generation).await;
    assert_eq!((inbox(&bob).await, inbox(&stranger).await), (before, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_duplicate_is_republished_under_first_id() {
    let scenario = RepublishScenario::new(&["a"]).await;
    let first = scenario.one.publish(&scenario.lobby, &scenario.ann.keyed("k", "b")).await.unwrap();
    // The session moves to another node and repeats the request that got no answer.
    let mut other = scenario.store.node("g2").await;
    let nick = scenario.ann.nick.clone();
    assert!(scenario.one.registry.release(&nick, &scenario.ann.owner, ReleaseCause::CLOSED).await.unwrap());
    let session = scenario.ann.owner.session.clone();
    let hash = presence::model::TokenHash::of(b"secret");
    let (fence, _) = other
        .registry
        .claim(ClaimRequest {
            incarnation: &other.incarnation,
            session: &session,
            nick: &nick,
            token: &hash,
            user: None,
        })
        .await
        .unwrap();
    let ann = NickHolder { nick, owner: Owner { incarnation: other.incarnation.clone(), session, fence } };
    other.join(&ann, &scenario.lobby).await;
    let again = other.publish(&scenario.lobby, &ann.keyed("k", "b")).await.unwrap();
    assert_eq!((again.msg_id.as_str(), again.duplicate), (first.msg_id.as_str(), true));

    // The first node is gone together with its republish ring.
    let RepublishScenario { store, lobby, one, ann: former } = scenario;
    drop(one);
    other.stop_beating().await;
    let scenario = RepublishScenario { store, lobby, one: other, ann: former };
    let generation = scenario.lose(1, 0).await;
    let mut scenario = scenario;
    scenario.one.beat();
    scenario.until_republished(generation).await;
    let stored = scenario
        .one
        .backplane
        .history(scenario.lobby.key(), Range::Newest, PageLimit::of_messages(10))
        .await
        .unwrap()
        .messages;
    assert_eq!(stored.iter().map(|message| message.body.text()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(stored[1].msg_id, first.msg_id);
}

const BODY_BYTES: usize = 1024 * 1024;

fn large(holder: &NickHolder) -> PublishRequest {
    PublishRequest { body: Body::from_text(&"x".repeat(BODY_BYTES)), ..holder.request("") }
}

/// Sends until a message is refused for a share, and returns the number of accepted ones.
async fn fill_share(mut send: impl AsyncFnMut() -> Result<Published, PublishError>) -> usize {
    for acked in 0..=RING_BYTES / 2 / BODY_BYTES {
        match send().await {
            Ok(_) => {}
            Err(PublishError::Exhausted { retry_after }) => {
                assert!((1..=8).contains(&retry_after.as_secs()), "{retry_after:?}");
                return acked;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no share is bounded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_republish_ring_refuses_and_drops_nothing() {
    let mut scenario = RepublishScenario::new(&[]).await;
    // Without beats no message leaves the ring.
    scenario.one.stop_beating().await;
    let mut acked = Vec::new();
    for number in 0..5 {
        let hall = room(&format!("#hall{number}"));
        let holder = scenario.one.member(&format!("user{number}"), &hall).await;
        acked.push(fill_share(async || scenario.one.publish(&hall, &large(&holder)).await).await);
    }
    assert_eq!(acked, [15, 8, 4, 2, 1], "each takes as much as it leaves free");
    assert!((..=RING_BYTES).contains(&scenario.one.backplane.unsafe_bytes()));
    let refused = scenario.one.publish(&scenario.lobby, &large(&scenario.ann)).await;
    assert!(matches!(refused, Err(PublishError::Exhausted { .. })), "{refused:?}");
    let sent = scenario.publish("a small message fits").await.seq;
    scenario.one.beat();
    let publish = async || scenario.one.publish(&scenario.lobby, &large(&scenario.ann)).await.ok();
    let ack = eventually(Duration::from_secs(15), "the ring has space again", publish).await;
    assert_eq!(ack.seq, sent + 1, "refused messages took no seq");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_session_leaves_ring_to_its_neighbours() {
    let mut scenario = RepublishScenario::new(&[]).await;
    scenario.one.stop_beating().await;
    let hall = room("#hall");
    let (hog, bob) = (scenario.one.member("hog", &hall).await, scenario.one.member("bob", &hall).await);
    let offline = scenario.one.claim_nick("away").await;
    scenario.one.registry.release(&offline.nick, &offline.owner, ReleaseCause::CLOSED).await.unwrap();
    let direct =
        async |from: &NickHolder, to: &NickHolder| scenario.one.backplane.direct(to.nick.key(), &large(from)).await;
    // A part of the share in the room, the rest to the inbox of an absent user.
    for _ in 0..8 {
        scenario.one.publish(&hall, &large(&hog)).await.unwrap();
    }
    assert_eq!(fill_share(async || direct(&hog, &offline).await).await, 7);
    for refused in [scenario.one.publish(&hall, &large(&hog)).await, direct(&hog, &bob).await] {
        assert!(matches!(refused, Err(PublishError::Exhausted { .. })), "{refused:?}");
    }
    // Neighbours in the same room, in another one and to the same inbox are not refused.
    scenario.one.publish(&hall, &large(&bob)).await.unwrap();
    direct(&bob, &offline).await.unwrap();
    scenario.publish("lobby").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_targets_leave_ring_to_their_neighbours() {
    let mut scenario = RepublishScenario::new(&[]).await;
    scenario.one.stop_beating().await;
    let hall = room("#hall");
    let mut holders = Vec::new();
    for number in 0..4 {
        holders.push(scenario.one.member(&format!("user{number}"), &hall).await);
    }
    let target = scenario.one.claim_nick("target").await;
    let mut turn = holders.iter().cycle();
    assert_eq!(fill_share(async || scenario.one.publish(&hall, &large(turn.next().unwrap())).await).await, 15);
    let to = target.nick.key();
    let direct = async || scenario.one.backplane.direct(to, &large(turn.next().unwrap())).await;
    assert_eq!(fill_share(direct).await, 8);
    scenario.one.join(&holders[0], &scenario.lobby).await;
    scenario.one.publish(&scenario.lobby, &holders[0].request("small")).await.unwrap();
    scenario.one.backplane.direct(holders[1].nick.key(), &holders[0].request("small")).await.unwrap();
}
