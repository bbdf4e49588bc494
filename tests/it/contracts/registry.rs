//! The contract of the registry: every test runs unchanged on both arms, memory and a real redis-server.
//!
//! A nick has at most one owner, and every transition is idempotent and announced once. A stale claim changes
//! nothing. `redis_only` and `reassert` cover states that only Redis has, such as a flushed script cache, a full memory
//! or lost data. Gateways and clients are not part of these tests.
#![allow(clippy::unwrap_used)]

mod arm;
mod events;
mod leases;
mod listing;
mod nicks;
mod reaping;
mod reassert;
mod redis_only;
mod rooms;
mod sessions;

use std::time::Duration;

use presence::model::{Incarnation, LeftReason, Nick, Owner, RoomName, SessionId, Status, TokenHash};
use presence::registry::{
    ClaimError, GatewayInfo, JoinEntry, JoinRequest, JoinedAt, LeaveIntent, LeaveRequest, Registry, RegistryEvent,
};

use self::arm::RegistryArm;

/// Longest wait for an expected state.
const PATIENCE: Duration = Duration::from_secs(10);

/// Generates two tests from each function, one per arm.
macro_rules! on_both_arms {
    ($($test:ident),* $(,)?) => {
        mod on_memory { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&crate::contracts::registry::RegistryArm::memory()).await; }
        )* }
        mod on_redis { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&crate::contracts::registry::RegistryArm::redis().await).await; }
        )* }
    };
}
use on_both_arms;

/// A gateway as the registry sees it: a lease.
#[derive(Clone)]
struct GatewayLease {
    registry: Registry,
    incarnation: Incarnation,
}

/// A session that owns a nick.
#[derive(Clone)]
struct NickSession {
    registry: Registry,
    nick: Nick,
    owner: Owner,
}

impl RegistryArm {
    async fn node(&self, name: &str) -> GatewayLease {
        let node = GatewayLease { registry: self.registry.clone(), incarnation: Incarnation::random() };
        self.registry.open_lease(&node.incarnation, &gateway_info(name)).await.unwrap();
        node
    }

    /// Returns all events, oldest first.
    async fn events(&self) -> Vec<RegistryEvent> {
        self.registry.events(Some("0-0"), 10_000).await.unwrap().0
    }

    /// Returns one line per event: its kind, room, nicks and reason.
    async fn history(&self) -> Vec<String> {
        let line = |event: RegistryEvent| {
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            assert!(data["time"].is_u64(), "{data}");
            let fields = ["room", "nick", "from", "to", "reason"].map(|field| data[field].as_str());
            let mut words = vec![event.kind.as_str()];
            words.extend(fields.into_iter().flatten());
            words.join(" ")
        };
        self.events().await.into_iter().map(line).collect()
    }
}

impl GatewayLease {
    async fn claim(&self, nick: &str) -> Result<NickSession, ClaimError> {
        self.claim_as(&SessionId::random(), nick).await
    }

    async fn claim_as(&self, session: &SessionId, nick: &str) -> Result<NickSession, ClaimError> {
        let nick = Nick::parse(nick).unwrap();
        let (fence, _) = self.registry.claim(&self.incarnation, session, &nick, &token(session, 0)).await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session: session.clone(), fence };
        Ok(NickSession { registry: self.registry.clone(), nick, owner })
    }

    async fn user(&self, nick: &str) -> NickSession {
        self.claim(nick).await.unwrap()
    }

    /// Fences this gateway with its current counter, as an observer does.
    async fn fence(&self) {
        let leases = self.registry.leases().await.unwrap().leases;
        let lease = leases.iter().find(|lease| lease.incarnation == self.incarnation).unwrap();
        assert!(self.registry.fence(&self.incarnation, lease.counter).await.unwrap());
    }
}

impl NickSession {
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

/// Returns the hash of a session's resume token with this number.
fn token(session: &SessionId, number: u32) -> TokenHash {
    TokenHash::of(format!("{session} {number}").as_bytes())
}

fn gateway_info(node: &str) -> GatewayInfo {
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
