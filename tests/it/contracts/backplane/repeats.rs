//! Repeated messages without a client's key on a real Redis: no attempt makes a second copy, however late it arrives.
//!
//! A first attempt is noted nowhere. A repeat is searched in the stream after a position from before the first attempt;
//! if it is not there it is stored and noted, and a first attempt that arrives later finds the note.

use gateway::backplane::{PageLimit, PriorPosition, PublishAttempt, PublishError, PublishRequest, Published, StreamId};
use presence::model::RoomName;
use presence::registry::RegistryError;

use super::fixture::{BackplaneNode, NickHolder, SOON, StoreFixture, eventually, room};

const META: &str = "parley:{0}:room:lobby";
const STREAM: &str = "parley:{0}:log:lobby";
const GENERATION: &str = "parley:{0}:generation";

/// A silent node with one member in the lobby.
struct RepeatScenario {
    store: StoreFixture,
    node: BackplaneNode,
    lobby: RoomName,
    ann: NickHolder,
}

impl RepeatScenario {
    async fn new() -> Self {
        let store = StoreFixture::redis().await;
        let (node, lobby) = (store.silent_node("g1").await, room("#lobby"));
        let ann = node.member("ann", &lobby).await;
        Self { store, node, lobby, ann }
    }

    async fn publish(&self, request: &PublishRequest) -> Published {
        self.node.publish(&self.lobby, request).await.unwrap()
    }

    /// Publishes messages that nothing refers to.
    async fn publish_others(&self, count: usize) {
        let requests: Vec<PublishRequest> = (0..count).map(|_| self.ann.request("other")).collect();
        for chunk in requests.chunks(500) {
            futures_util::future::join_all(chunk.iter().map(|request| self.publish(request))).await;
        }
    }

    async fn repeat_after(&self, prior: &PriorPosition, request: &PublishRequest) -> Result<Published, PublishError> {
        self.node.backplane.publish(&self.lobby, request, PublishAttempt::Repeat(prior)).await
    }

    /// Returns the room's present position.
    async fn position(&self) -> PriorPosition {
        let stream = StreamId::Room(self.lobby.key().clone());
        let end = self.node.backplane.read_ends(&[stream]).await.unwrap().remove(0).1;
        PriorPosition { epoch: end.epoch, seq: end.seq }
    }

    /// Returns the number of stored messages with this id.
    async fn copies(&self, request: &PublishRequest) -> usize {
        let (mut after, mut copies) = (0, 0);
        let stream = StreamId::Room(self.lobby.key().clone());
        loop {
            let page = self.node.backplane.read_after(&stream, after, PageLimit::of_messages(1000)).await.unwrap();
            copies += page.messages.iter().filter(|message| message.msg_id == request.msg_id).count();
            if page.through == after {
                return copies;
            }
            after = page.through;
        }
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.store.server().ask(words).await
    }
}

fn again(first: Published) -> Result<Published, PublishError> {
    Ok(Published { duplicate: true, ..first })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_attempt_is_noted_nowhere_and_found() {
    let mut scenario = RepeatScenario::new().await;
    scenario.publish_others(3).await;
    let (prior, request) = (scenario.position().await, scenario.ann.request("hi"));
    let first = scenario.publish(&request).await;
    scenario.publish_others(3).await;
    for bucket in ["attempts", "repeats", "idempotency"] {
        let buckets: Vec<String> = scenario.ask(&["KEYS", &format!("*:{bucket}:*")]).await;
        assert_eq!(buckets, [""; 0], "a first attempt was noted");
    }
    assert_eq!(scenario.repeat_after(&prior, &request).await, again(first.clone()));
    assert_eq!(scenario.repeat_after(&PriorPosition::default(), &request).await, again(first));
    assert_eq!(scenario.copies(&request).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_first_attempt_finds_note_of_repeat() {
    let scenario = RepeatScenario::new().await;
    let request = scenario.ann.request("hi");
    let stored = scenario.repeat_after(&scenario.position().await, &request).await.unwrap();
    assert!(!stored.duplicate);
    scenario.publish_others(3).await;
    assert_eq!(scenario.node.publish(&scenario.lobby, &request).await, again(stored.clone()), "the first attempt");
    // Everything else is searched after the position, so only the note can answer.
    assert_eq!(scenario.repeat_after(&scenario.position().await, &request).await, again(stored), "another repeat");
    assert_eq!(scenario.copies(&request).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_needs_complete_stream_after_position() {
    let mut scenario = RepeatScenario::new().await;
    scenario.publish_others(4).await;
    let prior = scenario.position().await;
    let (lost, kept) = (scenario.ann.request("trimmed"), scenario.ann.request("kept"));
    scenario.publish(&lost).await;
    let after_lost = scenario.position().await;
    let first = scenario.publish(&kept).await;
    let _: u64 = scenario.ask(&["XTRIM", STREAM, "MINID", "=", "6"]).await;
    for before in [&prior, &PriorPosition::default()] {
        let outcome = scenario.repeat_after(before, &lost).await;
        assert!(matches!(&outcome, Err(PublishError::Registry(RegistryError::Unknown(_)))), "{before:?}: {outcome:?}");
    }
    assert_eq!(scenario.repeat_after(&after_lost, &kept).await, again(first), "nothing after its position is trimmed");
    let new = scenario.repeat_after(&after_lost, &scenario.ann.request("not stored yet")).await.unwrap();
    assert_eq!((new.seq, new.duplicate), (7, false));
    let _: u64 = scenario.ask(&["DEL", STREAM]).await;
    let outcome = scenario.repeat_after(&after_lost, &kept).await;
    assert!(matches!(outcome, Err(PublishError::Registry(RegistryError::Unknown(_)))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_search_continues_over_several_calls() {
    let scenario = RepeatScenario::new().await;
    let prior = scenario.position().await;
    scenario.publish_others(2500).await;
    let request = scenario.ann.request("far");
    let first = scenario.publish(&request).await;
    scenario.publish_others(10).await;
    assert_eq!(scenario.repeat_after(&prior, &request).await, again(first));
    let new = scenario.repeat_after(&prior, &scenario.ann.request("new")).await.unwrap();
    assert_eq!((new.seq, new.duplicate), (2512, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_after_loss_is_searched_from_fork() {
    let mut scenario = RepeatScenario::new().await;
    scenario.publish_others(3).await;
    let prior = scenario.position().await;
    let (kept, lost) = (scenario.ann.request("kept"), scenario.ann.request("lost"));
    let first = scenario.publish(&kept).await;
    scenario.publish(&lost).await;
    // The store loses its newest message and begins a generation. Nothing touches the room before the repeats.
    let _: u64 = scenario.ask(&["XDEL", STREAM, "5-0"]).await;
    let _: String = scenario.ask(&["XSETID", STREAM, "4-0"]).await;
    let _: u64 = scenario.ask(&["HSET", META, "seq", "4"]).await;
    let _: u64 = scenario.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    let later = PriorPosition { seq: 5, ..prior.clone() };
    assert_eq!(scenario.repeat_after(&prior, &kept).await, again(first.clone()), "the former epoch");
    let stored = scenario.repeat_after(&later, &lost).await.unwrap();
    assert_eq!((stored.seq, stored.duplicate), (5, false), "its position is lost, too");
    // Now the room has another epoch, and a first attempt is stored under a seq that the position had.
    let (epoch, next) = (scenario.position().await.epoch, scenario.ann.request("next"));
    assert_ne!(epoch, prior.epoch);
    let seven = PriorPosition { seq: 7, ..prior.clone() };
    let published = scenario.publish(&next).await;
    assert_eq!(published.seq, 6);
    assert_eq!(scenario.repeat_after(&seven, &next).await, again(published), "the position is valid up to the fork");
    assert_eq!(scenario.repeat_after(&prior, &kept).await, again(first));
    for request in [&kept, &lost, &next] {
        assert_eq!(scenario.copies(request).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn position_beyond_end_proves_nothing() {
    let mut scenario = RepeatScenario::new().await;
    scenario.publish_others(3).await;
    let prior = scenario.position().await;
    // The store loses its newest message, and begins no generation.
    let _: u64 = scenario.ask(&["XDEL", STREAM, "3-0"]).await;
    let _: String = scenario.ask(&["XSETID", STREAM, "2-0"]).await;
    let _: u64 = scenario.ask(&["HSET", META, "seq", "2"]).await;
    let request = scenario.ann.request("hi");
    let first = scenario.publish(&request).await;
    let beyond = PriorPosition { seq: 4, ..prior };
    assert_eq!(scenario.repeat_after(&beyond, &request).await, again(first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_of_lost_replies_store_each_message_once() {
    let mut scenario = RepeatScenario::new().await;
    scenario.publish_others(1).await;
    let prior = scenario.position().await;
    let requests: Vec<PublishRequest> = (0..20).map(|number| scenario.ann.request(&number.to_string())).collect();
    for round in 0..3 {
        // The calls run once Redis continues; their replies come too late for their callers.
        scenario.store.server().stop_signal().await;
        let attempt = if round == 0 { PublishAttempt::First(&prior) } else { PublishAttempt::Repeat(&prior) };
        let publish = |request| scenario.node.backplane.publish(&scenario.lobby, request, attempt);
        let outcomes = futures_util::future::join_all(requests.iter().map(publish)).await;
        scenario.store.server().cont();
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    }
    let answered = async |request| {
        let repeat = async || scenario.repeat_after(&prior, request).await.ok();
        eventually(SOON, "the repeat is answered", repeat).await
    };
    let acks = futures_util::future::join_all(requests.iter().map(answered)).await;
    for (request, ack) in requests.iter().zip(acks) {
        assert_eq!(scenario.copies(request).await, 1);
        assert!((2..22).contains(&ack.seq), "{ack:?}");
    }
}
