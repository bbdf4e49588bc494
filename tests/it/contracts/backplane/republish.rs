//! What a node acked and the store has lost is put back: once each, in its old order, before anything new, whoever said it
//! and wherever they are by now. Losses are made by hand here; [`crate::failures::republish`] has Redis lose by itself.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gateway::backplane::{PublishError, PublishRequest, Published, Range, StreamId};
use gateway::message::Body;
use presence::model::{LeftReason, Owner, RoomName};
use presence::registry::{LeaveIntent, LeaveRequest, RegistryError};
use redis::streams::StreamRangeReply;

use super::rig::{Node, Person, SOON, World, eventually, room};

/// Takes the newest messages of the lobby and of all inboxes away, with everything that is remembered of them, and begins
/// another generation. ARGV: the last seq that stays in the lobby, and in inboxes.
const LOSE: &str = r"
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
    for _, bucket in ipairs({ 'attempts', 'idempotency' }) do
      for _, key in ipairs(redis.call('KEYS', base .. bucket .. ':*')) do
        redis.call('DEL', key)
      end
    end
    return redis.call('HINCRBY', base .. 'generation', 'generation', 1)";

const META: &str = "parley:{0}:room:lobby";
const LOG: &str = "parley:{0}:log:lobby";

struct Scene {
    world: World,
    lobby: RoomName,
    one: Node,
    ann: Person,
}

impl Scene {
    /// ann is in the lobby, on a node that beats, and has said this.
    async fn new(said: &[&str]) -> Self {
        let (world, lobby) = (World::redis().await, room("#lobby"));
        let one = world.node("g1").await;
        let ann = one.member("ann", &lobby).await;
        let scene = Self { world, lobby, one, ann };
        for text in said {
            scene.say(text).await;
        }
        scene
    }

    async fn say(&self, text: &str) -> Published {
        self.one.say(&self.lobby, &self.ann.draft(text)).await.unwrap()
    }

    /// Loses what LOSE says; returns the generation that begins.
    async fn lose(&self, lobby: u64, inboxes: u64) -> u64 {
        self.ask(&["EVAL", LOSE, "0", &lobby.to_string(), &inboxes.to_string()]).await
    }

    /// Waits until this node says that it has put back whatever was lost.
    async fn whole(&self, generation: u64) {
        eventually(SOON, "it is whole", async || self.one.backplane.is_complete(generation).then_some(())).await;
    }

    /// What the lobby's log holds, oldest first.
    async fn texts(&self) -> Vec<String> {
        let log = self.one.backplane.history(self.lobby.key(), Range::Newest, 10_000).await.unwrap().messages;
        assert!(log.iter().map(|message| message.seq).eq(1..=log.len() as u64), "dense: {log:?}");
        log.into_iter().map(|message| message.body.text()).collect()
    }

    fn repaired(&self) -> u64 {
        self.one.repaired.load(Ordering::SeqCst)
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let World::Redis(server) = &self.world else { panic!("only Redis can be asked") };
        server.ask(words).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_is_put_back_once_and_what_survived_is_not() {
    let scene = Scene::new(&["a", "b", "c", "d", "e"]).await;
    let ids = async || -> Vec<String> {
        let log = scene.one.backplane.history(scene.lobby.key(), Range::Newest, 100).await.unwrap().messages;
        log.into_iter().map(|message| message.msg_id).collect()
    };
    let before = ids().await;
    let generation = scene.lose(5, 0).await;
    scene.whole(generation).await;
    assert_eq!((ids().await, scene.repaired()), (before.clone(), 0));
    let generation = scene.lose(2, 0).await;
    scene.whole(generation).await;
    assert_eq!((ids().await, scene.repaired()), (before.clone(), 3));
    let generation = scene.lose(1, 0).await;
    scene.whole(generation).await;
    assert_eq!((ids().await, scene.repaired()), (before, 7), "also what was put back before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_back_without_an_answer_is_found_and_not_doubled() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"]).await;
    let log: StreamRangeReply = scene.ask(&["XRANGE", LOG, "4", "4"]).await;
    let [time, payload] = ["time", "payload"].map(|field| log.ids[0].get::<String>(field).unwrap());
    scene.one.stop_beating().await;
    let generation = scene.lose(2, 0).await;
    scene.one.backplane.read_ends(&[StreamId::Room(scene.lobby.key().clone())]).await.unwrap();
    // And whatever else would know it is forgotten by now.
    let _: String = scene.ask(&["XADD", LOG, "3-0", "time", &time, "payload", &payload]).await;
    let _: u64 = scene.ask(&["HSET", META, "seq", "3"]).await;
    scene.one.beat();
    scene.whole(generation).await;
    assert_eq!(scene.texts().await, ["a", "b", "d", "c", "e"]);
    assert_eq!(scene.repaired(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_new_is_said_before_what_was_lost_is_back() {
    let mut scene = Scene::new(&[]).await;
    scene.one.stop_beating().await;
    let told = scene.one.registry.beat(&scene.one.incarnation, &[]).await.unwrap().generation.number;
    let beaten = |generation| {
        let now = Instant::now();
        scene.one.backplane.note_beat(&scene.one.incarnation, generation, now, now);
    };
    beaten(told);
    assert!(scene.one.backplane.is_complete(told), "nothing was acked in the generation before");
    scene.say("a").await;
    scene.say("b").await;
    let generation = scene.lose(1, 0).await;
    let is_refused = async |text: &str| {
        let refused = scene.one.say(&scene.lobby, &scene.ann.draft(text)).await;
        let is_meant = matches!(&refused, Err(PublishError::Registry(RegistryError::Unavailable(_))));
        assert!(is_meant, "{text}: {refused:?}");
        let refused = scene.one.backplane.direct(scene.ann.nick.key(), &scene.ann.draft(text)).await;
        assert!(matches!(&refused, Err(PublishError::Registry(RegistryError::Unavailable(_)))), "{text}: {refused:?}");
    };
    is_refused("nobody has told us").await;
    beaten(generation);
    assert!(!scene.one.backplane.is_complete(generation));
    is_refused("we have told nobody").await;
    scene.one.beat();
    scene.whole(generation).await;
    scene.say("c").await;
    assert_eq!(scene.texts().await, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_matter_where_the_sender_is_by_now() {
    let scene = Scene::new(&["a", "b"]).await;
    let other = scene.world.node("g2").await;
    let owner = &scene.ann.owner;
    // Gone, and the last one: the room is to be forgotten some day all the same.
    assert!(
        scene
            .one
            .registry
            .leave(LeaveRequest {
                room: &scene.lobby,
                nick: &scene.ann.nick,
                owner,
                reason: LeftReason::Left,
                intent: LeaveIntent::ForGood
            })
            .await
            .unwrap()
    );
    assert!(scene.one.registry.release(&scene.ann.nick, owner, None).await.unwrap());
    let generation = scene.lose(0, 0).await;
    scene.whole(generation).await;
    assert_eq!(scene.texts().await, ["a", "b"]);
    let (log, meta): (i64, i64) = (scene.ask(&["TTL", LOG]).await, scene.ask(&["TTL", META]).await);
    assert!(log > 259_000 && meta > log, "{log} {meta}");

    // Somebody else has the name by now, under a later claim and on another node.
    let usurper = other.member("ann", &scene.lobby).await;
    let say = async || other.say(&scene.lobby, &usurper.draft("c")).await.ok();
    eventually(SOON, "it is said", say).await;
    let generation = scene.lose(1, 0).await;
    scene.whole(generation).await;
    let all = async || -> Option<()> {
        let texts = scene.texts().await;
        let own: Vec<&String> = texts.iter().filter(|text| *text != "c").collect();
        (own == ["a", "b"] && texts.len() == 3).then_some(())
    };
    eventually(SOON, "all of it is back", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_message_comes_back_to_whom_it_was_meant_for() {
    let scene = Scene::new(&[]).await;
    let bob = scene.one.person("bob").await;
    for text in ["a", "b"] {
        assert!(scene.one.backplane.direct(bob.nick.key(), &scene.ann.draft(text)).await.unwrap().online);
    }
    let kept = scene.one.backplane.direct(bob.nick.key(), &scene.ann.keyed("k", "c")).await.unwrap();
    let inbox = async |person: &Person| -> Vec<(u64, String)> {
        let log = StreamId::Inbox(person.owner.session.clone());
        let missed = scene.one.backplane.read_after(&log, 0, 100).await.unwrap().messages;
        missed.into_iter().map(|message| (message.seq, message.body.text())).collect()
    };
    let before = inbox(&bob).await;
    assert_eq!(before.len(), 3);
    assert!(scene.one.registry.release(&bob.nick, &bob.owner, None).await.unwrap());
    let stranger = scene.one.person("bob").await;
    let generation = scene.lose(0, 1).await;
    scene.whole(generation).await;
    assert_eq!((inbox(&bob).await, inbox(&stranger).await, scene.repaired()), (before.clone(), Vec::new(), 2));
    // Its key is known again, and it stays the one inbox that is meant.
    let again = scene.one.backplane.direct(bob.nick.key(), &scene.ann.keyed("k", "c")).await.unwrap();
    assert_eq!((again.seq, again.msg_id, again.duplicate), (3, kept.msg_id, true));
    let generation = scene.lose(0, 1).await;
    scene.whole(generation).await;
    assert_eq!((inbox(&bob).await, inbox(&stranger).await), (before, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_that_was_acked_is_put_back_under_its_first_id() {
    let scene = Scene::new(&["a"]).await;
    let first = scene.one.say(&scene.lobby, &scene.ann.keyed("k", "b")).await.unwrap();
    // The session goes on elsewhere, and repeats what it has no answer to.
    let mut other = scene.world.node("g2").await;
    let nick = scene.ann.nick.clone();
    assert!(scene.one.registry.release(&nick, &scene.ann.owner, None).await.unwrap());
    let session = scene.ann.owner.session.clone();
    let hash = presence::model::TokenHash::of(b"secret");
    let (fence, _) = other.registry.claim(&other.incarnation, &session, &nick, &hash).await.unwrap();
    let ann = Person { nick, owner: Owner { incarnation: other.incarnation.clone(), session, fence } };
    other.join(&ann, &scene.lobby).await;
    let again = other.say(&scene.lobby, &ann.keyed("k", "b")).await.unwrap();
    assert_eq!((again.msg_id.as_str(), again.duplicate), (first.msg_id.as_str(), true));

    // Who had it first is gone with what it remembers.
    let Scene { world, lobby, one, ann: former } = scene;
    drop(one);
    other.stop_beating().await;
    let scene = Scene { world, lobby, one: other, ann: former };
    let generation = scene.lose(1, 0).await;
    let mut scene = scene;
    scene.one.beat();
    scene.whole(generation).await;
    let log = scene.one.backplane.history(scene.lobby.key(), Range::Newest, 10).await.unwrap().messages;
    assert_eq!(log.iter().map(|message| message.body.text()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(log[1].msg_id, first.msg_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_kept_is_refused_and_nothing_kept_is_dropped() {
    const BODY: usize = 1024 * 1024;
    const MOST: usize = 64 * 1024 * 1024;
    let mut scene = Scene::new(&[]).await;
    // Without beats nothing is ever safe.
    scene.one.stop_beating().await;
    let body = Body::from_text(&"x".repeat(BODY));
    let draft = || PublishRequest { body: body.clone(), ..scene.ann.draft("") };
    let mut acked = 0;
    let refused = loop {
        match scene.one.say(&scene.lobby, &draft()).await {
            Ok(_) => acked += 1,
            Err(refused) => break refused,
        }
        assert!(acked * BODY <= MOST, "{acked} of them are kept");
    };
    assert_eq!(refused, PublishError::Overloaded);
    assert!(scene.one.backplane.unsafe_bytes() <= MOST && scene.one.backplane.unsafe_bytes() + BODY + 1024 > MOST);
    assert_eq!(scene.one.backplane.direct(scene.ann.nick.key(), &draft()).await, Err(PublishError::Overloaded));
    assert_eq!(scene.say("a little one fits").await.seq, acked as u64 + 1, "what was refused took no number");
    scene.one.beat();
    let say = async || scene.one.say(&scene.lobby, &draft()).await.ok();
    let ack = eventually(Duration::from_secs(15), "there is space again", say).await;
    assert_eq!(ack.seq, acked as u64 + 2);
}
