//! Epochs on a real Redis that lost data: each generation starts an epoch, and forks record the end of earlier epochs.
//!
//! Invariant: no seq is reused within an epoch, and a restarted store accepts no publish before it has recovered.

use gateway::backplane::{PageLimit, PublishError, StreamId};
use presence::model::RoomName;
use presence::model::stream::{Fork, StreamEnd};
use presence::registry::{JoinRequest, RegistryError};

use super::fixture::{BackplaneNode, NickHolder, SOON, StoreFixture, eventually, room};

const GENERATION: &str = "parley:{0}:generation";
const META: &str = "parley:{0}:room:lobby";
const STREAM: &str = "parley:{0}:log:lobby";

/// A node without beats, so that a restart goes unnoticed until a test beats, with a member that published three times.
struct EpochScenario {
    store: StoreFixture,
    node: BackplaneNode,
    lobby: RoomName,
    ann: NickHolder,
}

impl EpochScenario {
    async fn new() -> Self {
        let store = StoreFixture::redis().await;
        let (node, lobby) = (store.silent_node("g1").await, room("#lobby"));
        let ann = node.member("ann", &lobby).await;
        let scenario = Self { store, node, lobby, ann };
        for seq in 1..=3 {
            assert_eq!(scenario.publish().await.unwrap(), seq);
        }
        scenario
    }

    async fn publish(&self) -> Result<u64, PublishError> {
        self.node.publish(&self.lobby, &self.ann.request("hi")).await.map(|ack| ack.seq)
    }

    async fn ask(&mut self, words: &[&str]) {
        let _: redis::Value = self.store.server().ask(words).await;
    }

    /// Removes the messages after `seq` with their meta, and starts a generation.
    async fn lose_messages_after(&mut self, seq: u64) {
        let top = self.room_end().await.seq;
        for lost in seq + 1..=top {
            self.ask(&["XDEL", STREAM, &format!("{lost}-0")]).await;
        }
        self.ask(&["XSETID", STREAM, &format!("{seq}-0")]).await;
        self.ask(&["HSET", META, "seq", &seq.to_string()]).await;
        self.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    }

    async fn room_end(&self) -> StreamEnd {
        self.end_of(StreamId::Room(self.lobby.key().clone())).await
    }

    async fn end_of(&self, stream: StreamId) -> StreamEnd {
        self.node.backplane.read_ends(&[stream]).await.unwrap().remove(0).1
    }
}

/// Waits for a refusal because the store is recovering; an error of the broken connection may come first.
async fn expect_recovering(mut attempt: impl AsyncFnMut() -> Result<u64, PublishError>) {
    eventually(SOON, "the publish is refused", async || match attempt().await {
        Err(PublishError::Registry(RegistryError::Unavailable(reason))) => reason.contains("RECOVERING").then_some(()),
        Err(_) => None,
        Ok(seq) => panic!("{seq} was accepted too early"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_generation_starts_epoch_and_records_fork() {
    let mut scenario = EpochScenario::new().await;
    let first = scenario.room_end().await;
    assert_eq!((first.seq, first.forks.len()), (3, 0));
    scenario.lose_messages_after(2).await;
    assert_eq!(scenario.publish().await.unwrap(), 3, "the lost seq is used again");
    let second = scenario.room_end().await;
    assert_ne!(second.epoch, first.epoch);
    assert_eq!(second.forks, [Fork { epoch: first.epoch.clone(), seq: 2 }]);
    assert_eq!((second.shares(&first.epoch), second.seq), (2, 3));

    // A join or a read starts the epoch too.
    scenario.lose_messages_after(1).await;
    let bob = scenario.node.claim_nick("bob").await;
    let status = presence::model::Status::default();
    let entry = presence::registry::JoinEntry::New;
    let joined = scenario
        .node
        .registry
        .join(JoinRequest {
            room: &scenario.lobby,
            nick: &bob.nick,
            owner: &bob.owner,
            user: None,
            status: &status,
            entry,
            moderates: false,
        })
        .await
        .unwrap();
    let third = scenario.room_end().await;
    assert_eq!((&joined.epoch, joined.seq, &joined.forks), (&third.epoch, 1, &third.forks));
    assert_eq!(third.shares(&first.epoch), 1, "the loss reaches below the first fork");

    for generation in 0..20 {
        scenario.lose_messages_after(1).await;
        assert_eq!(scenario.room_end().await.seq, 1, "{generation}");
    }
    let last = scenario.room_end().await;
    assert_eq!(
        (last.forks.len(), last.shares(&first.epoch)),
        (16, 0),
        "forks are bounded, the oldest epochs are unknown"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbox_starts_new_epoch_and_continues_seqs() {
    let mut scenario = EpochScenario::new().await;
    let inbox = StreamId::Inbox(scenario.ann.owner.session.clone());
    let direct = async |scenario: &EpochScenario| {
        scenario.node.backplane.direct(scenario.ann.nick.key(), &scenario.ann.request("note")).await.unwrap().seq
    };
    assert_eq!((direct(&scenario).await, direct(&scenario).await), (1, 2));
    let first = scenario.end_of(inbox.clone()).await;
    scenario.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    assert_eq!(direct(&scenario).await, 3);
    let second = scenario.end_of(inbox).await;
    assert_eq!((second.shares(&first.epoch), second.seq), (2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_messages_move_the_read_cursor_back() {
    let mut scenario = EpochScenario::new().await;
    let session = scenario.ann.owner.session.clone();
    let (meta, stream) = (format!("parley:{{0}}:session:{session}"), format!("parley:{{0}}:inbox:{session}"));
    for _ in 1..=3 {
        scenario.node.backplane.direct(scenario.ann.nick.key(), &scenario.ann.request("note")).await.unwrap();
    }
    assert_eq!(scenario.node.registry.read(&session, 3).await.unwrap(), Some(3));
    scenario.ask(&["XDEL", &stream, "2-0", "3-0"]).await;
    scenario.ask(&["XSETID", &stream, "1-0"]).await;
    scenario.ask(&["HSET", &meta, "seq", "1"]).await;
    scenario.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    assert_eq!(scenario.end_of(StreamId::Inbox(session)).await.seq, 1);
    let read: String = scenario.store.server().ask(&["HGET", &meta, "read"]).await;
    assert_eq!(read, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_meta_or_messages_never_reuses_seqs() {
    let mut scenario = EpochScenario::new().await;
    let first = scenario.room_end().await;
    scenario.ask(&["DEL", STREAM]).await;
    assert_eq!(scenario.room_end().await, first, "the meta holds the last seq");
    assert_eq!(scenario.publish().await.unwrap(), 4);
    scenario.ask(&["DEL", META]).await;
    let second = scenario.room_end().await;
    assert_eq!((second.seq, second.forks.len()), (4, 0), "the stream holds the last seq");
    assert_eq!(second.shares(&first.epoch), 0, "the earlier epoch is unknown");
    assert_eq!(scenario.publish().await.unwrap(), 5);
    let replay = scenario
        .node
        .backplane
        .read_after(&StreamId::Room(scenario.lobby.key().clone()), 3, PageLimit::of_messages(10))
        .await
        .unwrap();
    assert_eq!((replay.messages.len(), replay.end.epoch), (2, second.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_store_refuses_publishes_until_recovered() {
    let mut scenario = EpochScenario::new().await;
    let before = scenario.room_end().await;
    scenario.store.server().restart().await;
    let room_stream = StreamId::Room(scenario.lobby.key().clone());
    let all_refused = async |scenario: &EpochScenario| {
        let note = scenario.ann.request("note");
        expect_recovering(async || scenario.publish().await).await;
        expect_recovering(async || {
            scenario.node.backplane.direct(scenario.ann.nick.key(), &note).await.map(|ack| ack.seq)
        })
        .await;
    };
    all_refused(&scenario).await;
    let read =
        async || scenario.node.backplane.read_ends(std::slice::from_ref(&room_stream)).await.map(|ends| ends[0].1.seq);
    expect_recovering(async || read().await.map_err(PublishError::from)).await;

    let beat = async || scenario.node.registry.beat(&scenario.node.incarnation, &[]).await.ok();
    eventually(SOON, "a beat notices the restart", beat).await;
    scenario.ask(&["HSET", GENERATION, "phase", "recovering"]).await;
    all_refused(&scenario).await;
    let end = scenario.room_end().await;
    assert_eq!((end.shares(&before.epoch), end.seq), (3, 3), "a reader gets the new epoch at once");
    scenario.ask(&["HSET", GENERATION, "phase", "open"]).await;
    assert_eq!(scenario.publish().await.unwrap(), 4, "refused messages took no seq");
    assert_eq!(scenario.room_end().await.epoch, end.epoch, "one epoch per generation");
}
