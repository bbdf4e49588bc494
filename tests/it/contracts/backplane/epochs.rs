//! What a store that came back with less does to its logs: another epoch in every generation, forks that tell where the
//! former ones ended, and nothing said before it has recovered.

use gateway::backplane::{PublishError, StreamId};
use presence::model::RoomName;
use presence::model::stream::{Fork, StreamEnd};
use presence::registry::{JoinRequest, RegistryError};

use super::rig::{Node, Person, SOON, World, eventually, room};

const GENERATION: &str = "parley:{0}:generation";
const META: &str = "parley:{0}:room:lobby";
const LOG: &str = "parley:{0}:log:lobby";

/// A node that does not beat, so that nobody notices a restart unless told to; and somebody who has said three things.
struct Scene {
    world: World,
    node: Node,
    lobby: RoomName,
    ann: Person,
}

impl Scene {
    async fn new() -> Self {
        let world = World::redis().await;
        let (node, lobby) = (world.silent_node("g1").await, room("#lobby"));
        let ann = node.member("ann", &lobby).await;
        let scene = Self { world, node, lobby, ann };
        for seq in 1..=3 {
            assert_eq!(scene.say().await.unwrap(), seq);
        }
        scene
    }

    async fn say(&self) -> Result<u64, PublishError> {
        self.node.say(&self.lobby, &self.ann.draft("hi")).await.map(|ack| ack.seq)
    }

    async fn ask(&mut self, words: &[&str]) {
        let _: redis::Value = self.world.server().ask(words).await;
    }

    /// The store has lost its newest messages, meta and all, and somebody has noticed.
    async fn lose_after(&mut self, seq: u64) {
        let top = self.head().await.top;
        for lost in seq + 1..=top {
            self.ask(&["XDEL", LOG, &format!("{lost}-0")]).await;
        }
        self.ask(&["XSETID", LOG, &format!("{seq}-0")]).await;
        self.ask(&["HSET", META, "seq", &seq.to_string()]).await;
        self.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    }

    async fn head(&self) -> StreamEnd {
        self.head_of(StreamId::Room(self.lobby.key().clone())).await
    }

    async fn head_of(&self, log: StreamId) -> StreamEnd {
        self.node.backplane.read_ends(&[log]).await.unwrap().remove(0).1
    }
}

/// Waits for a refusal because of the store's state; a broken connection may be heard of before it.
async fn is_refused(mut attempt: impl AsyncFnMut() -> Result<u64, PublishError>) {
    eventually(SOON, "it is refused", async || match attempt().await {
        Err(PublishError::Registry(RegistryError::Unavailable(reason))) => reason.contains("RECOVERING").then_some(()),
        Err(_) => None,
        Ok(seq) => panic!("{seq} was said too early"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_generation_begins_an_epoch_and_remembers_where_the_former_one_ended() {
    let mut scene = Scene::new().await;
    let first = scene.head().await;
    assert_eq!((first.top, first.forks.len()), (3, 0));
    scene.lose_after(2).await;
    assert_eq!(scene.say().await.unwrap(), 3, "its number is given out again");
    let second = scene.head().await;
    assert_ne!(second.epoch, first.epoch);
    assert_eq!(second.forks, [Fork { epoch: first.epoch.clone(), seq: 2 }]);
    assert_eq!((second.shares(&first.epoch), second.top), (2, 3));

    // A join and a reading touch a log as well; whoever comes first.
    scene.lose_after(1).await;
    let bob = scene.node.person("bob").await;
    let status = presence::model::Status::default();
    let entry = presence::registry::JoinEntry::New;
    let joined = scene
        .node
        .registry
        .join(JoinRequest { room: &scene.lobby, nick: &bob.nick, owner: &bob.owner, status: &status, entry })
        .await
        .unwrap();
    let third = scene.head().await;
    assert_eq!((&joined.epoch, joined.seq, &joined.forks), (&third.epoch, 1, &third.forks));
    assert_eq!(third.shares(&first.epoch), 1, "cut back below the first fork");

    for generation in 0..20 {
        scene.lose_after(1).await;
        assert_eq!(scene.head().await.top, 1, "{generation}");
    }
    let last = scene.head().await;
    assert_eq!((last.forks.len(), last.shares(&first.epoch)), (16, 0), "bounded: too old is unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_has_epochs_too_and_counts_on() {
    let mut scene = Scene::new().await;
    let inbox = StreamId::Inbox(scene.ann.owner.session.clone());
    let direct = async |scene: &Scene| {
        scene.node.backplane.direct(scene.ann.nick.key(), &scene.ann.draft("note")).await.unwrap().seq
    };
    assert_eq!((direct(&scene).await, direct(&scene).await), (1, 2));
    let first = scene.head_of(inbox.clone()).await;
    scene.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    assert_eq!(direct(&scene).await, 3);
    let second = scene.head_of(inbox).await;
    assert_eq!((second.shares(&first.epoch), second.top), (2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_and_lost_is_unread_when_its_number_is_given_out_again() {
    let mut scene = Scene::new().await;
    let session = scene.ann.owner.session.clone();
    let (meta, stream) = (format!("parley:{{0}}:session:{session}"), format!("parley:{{0}}:inbox:{session}"));
    for _ in 1..=3 {
        scene.node.backplane.direct(scene.ann.nick.key(), &scene.ann.draft("note")).await.unwrap();
    }
    assert!(scene.node.registry.read(&session, 3).await.unwrap());
    scene.ask(&["XDEL", &stream, "2-0", "3-0"]).await;
    scene.ask(&["XSETID", &stream, "1-0"]).await;
    scene.ask(&["HSET", &meta, "seq", "1"]).await;
    scene.ask(&["HINCRBY", GENERATION, "generation", "1"]).await;
    assert_eq!(scene.head_of(StreamId::Inbox(session)).await.top, 1);
    let read: String = scene.world.server().ask(&["HGET", &meta, "read"]).await;
    assert_eq!(read, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_never_go_back_when_meta_or_messages_are_lost_alone() {
    let mut scene = Scene::new().await;
    let first = scene.head().await;
    scene.ask(&["DEL", LOG]).await;
    assert_eq!(scene.head().await, first, "the meta knows");
    assert_eq!(scene.say().await.unwrap(), 4);
    scene.ask(&["DEL", META]).await;
    let second = scene.head().await;
    assert_eq!((second.top, second.forks.len()), (4, 0), "the messages know");
    assert_eq!(second.shares(&first.epoch), 0, "nobody knows what came before");
    assert_eq!(scene.say().await.unwrap(), 5);
    let missed = scene.node.backplane.read_after(&StreamId::Room(scene.lobby.key().clone()), 3, 10).await.unwrap();
    assert_eq!((missed.messages.len(), missed.head.epoch), (2, second.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_before_the_store_has_noticed_its_restart_and_recovered() {
    let mut scene = Scene::new().await;
    let before = scene.head().await;
    scene.world.server().restart().await;
    let room_log = StreamId::Room(scene.lobby.key().clone());
    let refused = async |scene: &Scene| {
        let note = scene.ann.draft("note");
        is_refused(async || scene.say().await).await;
        is_refused(async || scene.node.backplane.direct(scene.ann.nick.key(), &note).await.map(|ack| ack.seq)).await;
    };
    refused(&scene).await;
    let read = async || scene.node.backplane.read_ends(std::slice::from_ref(&room_log)).await.map(|tops| tops[0].1.top);
    is_refused(async || read().await.map_err(PublishError::from)).await;

    let beat = async || scene.node.registry.beat(&scene.node.incarnation, &[]).await.ok();
    eventually(SOON, "somebody notices", beat).await;
    scene.ask(&["HSET", GENERATION, "phase", "recovering"]).await;
    refused(&scene).await;
    let head = scene.head().await;
    assert_eq!((head.shares(&before.epoch), head.top), (3, 3), "who only listens is told at once");
    scene.ask(&["HSET", GENERATION, "phase", "open"]).await;
    assert_eq!(scene.say().await.unwrap(), 4, "what was refused took no number");
    assert_eq!(scene.head().await.epoch, head.epoch, "one epoch to a generation");
}
