//! The contract of the registry, as stories that run unchanged on both arms: a real redis-server and plain memory.
//!
//! What only Redis can show (a flushed script cache, a full memory, a new replication history) is in `redis_only`.
#![allow(clippy::unwrap_used)]

mod arm;
mod events;
mod leases;
mod listing;
mod nicks;
mod reaping;
mod recovery;
mod redis_only;
mod rooms;
mod sessions;

use std::time::Duration;

use presence::model::{Incarnation, LeftReason, Nick, Owner, RoomName, SessionId, Status, TokenHash};
use presence::registry::{
    ClaimError, GatewayInfo, JoinEntry, JoinRequest, JoinedAt, LeaveIntent, LeaveRequest, Registry, RegistryEvent,
};

use self::arm::Arm;

/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes two tests of each story, one for each arm.
macro_rules! on_both_arms {
    ($($story:ident),* $(,)?) => {
        mod on_memory { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() { super::$story(&crate::contracts::registry::Arm::memory()).await; }
        )* }
        mod on_redis { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() { super::$story(&crate::contracts::registry::Arm::redis().await).await; }
        )* }
    };
}
use on_both_arms;

/// A gateway as far as the registry knows one: a lease.
#[derive(Clone)]
struct Node {
    registry: Registry,
    incarnation: Incarnation,
}

/// A session with a nickname.
#[derive(Clone)]
struct User {
    registry: Registry,
    nick: Nick,
    owner: Owner,
}

impl Arm {
    async fn node(&self, name: &str) -> Node {
        let node = Node { registry: self.registry.clone(), incarnation: Incarnation::random() };
        self.registry.open_lease(&node.incarnation, &told(name)).await.unwrap();
        node
    }

    /// Everything in the event log, oldest first.
    async fn events(&self) -> Vec<RegistryEvent> {
        self.registry.events(Some("0-0"), 10_000).await.unwrap().0
    }

    /// The kinds in the event log with the nick each is about, and the reason where there is one.
    async fn history(&self) -> Vec<String> {
        let tell = |event: RegistryEvent| {
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            assert!(data["time"].is_u64(), "{data}");
            let words = ["room", "nick", "from", "to", "reason"].map(|word| data[word].as_str());
            let mut story = vec![event.kind.as_str()];
            story.extend(words.into_iter().flatten());
            story.join(" ")
        };
        self.events().await.into_iter().map(tell).collect()
    }
}

impl Node {
    async fn claim(&self, nick: &str) -> Result<User, ClaimError> {
        self.claim_as(&SessionId::random(), nick).await
    }

    async fn claim_as(&self, session: &SessionId, nick: &str) -> Result<User, ClaimError> {
        let nick = Nick::parse(nick).unwrap();
        let (fence, _) = self.registry.claim(&self.incarnation, session, &nick, &token(session, 0)).await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session: session.clone(), fence };
        Ok(User { registry: self.registry.clone(), nick, owner })
    }

    async fn user(&self, nick: &str) -> User {
        self.claim(nick).await.unwrap()
    }

    /// Dies: an observer that saw its counter fences it.
    async fn fence(&self) {
        let leases = self.registry.leases().await.unwrap().leases;
        let lease = leases.iter().find(|lease| lease.incarnation == self.incarnation).unwrap();
        assert!(self.registry.fence(&self.incarnation, lease.counter).await.unwrap());
    }
}

impl User {
    async fn join(&self, name: &str) -> JoinedAt {
        self.registry
            .join(JoinRequest {
                room: &room(name),
                nick: &self.nick,
                owner: &self.owner,
                status: &Status::default(),
                entry: JoinEntry::New,
            })
            .await
            .unwrap()
    }

    async fn leave(&self, name: &str) -> bool {
        self.registry
            .leave(LeaveRequest {
                room: &room(name),
                nick: &self.nick,
                owner: &self.owner,
                reason: LeftReason::Left,
                intent: LeaveIntent::ForGood,
            })
            .await
            .unwrap()
    }

    async fn release(&self) -> bool {
        self.registry.release(&self.nick, &self.owner, None).await.unwrap()
    }
}

/// The hash of one of the secrets that a session's client is given, one after the other.
fn token(session: &SessionId, number: u32) -> TokenHash {
    TokenHash::of(format!("{session} {number}").as_bytes())
}

fn told(node: &str) -> GatewayInfo {
    GatewayInfo {
        node: node.to_owned(),
        version: "1.2.3".to_owned(),
        ws: "127.0.0.1:1".to_owned(),
        tcp: "127.0.0.1:2".to_owned(),
        admin: "127.0.0.1:3".to_owned(),
    }
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn nick(name: &str) -> Nick {
    Nick::parse(name).unwrap()
}
