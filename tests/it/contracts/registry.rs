//! The contract of the registry: every test runs unchanged on both arms, memory and a real redis-server.
//!
//! A nick has at most one owner, and every transition is idempotent and announced once. A stale claim changes
//! nothing. `redis_only` and `reassert` cover states that only Redis has, such as a flushed script cache, a full memory
//! or lost data. Gateways and clients are not part of these tests.
#![allow(clippy::unwrap_used)]

mod announcements;
mod arm;
mod costs;
mod events;
mod leases;
mod listing;
mod moderation;
mod sanctions;
mod nicks;
mod reaping;
mod reassert;
mod redis_only;
mod rooms;
mod rules;
mod sessions;
mod users;
mod webhooks;

use std::time::Duration;

use presence::model::{
    Incarnation, LeftReason, MemberInfo, Nick, OfflineReason, Owner, RoomName, SessionId, Status, TokenHash,
};
use presence::registry::{
    ClaimError, ClaimRequest, DetachOutcome, GatewayInfo, HoldTerms, JoinEntry, JoinRequest, JoinedAt, LeaveIntent,
    LeaveRequest, LocalClaim, ReassertBatch, Registry, RegistryError, RegistryEvent, ReleaseCause,
};
use serde_json::json;

use self::arm::{ChannelLog, RegistryArm};

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
    info: GatewayInfo,
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
        let (incarnation, info) = (Incarnation::random(), gateway_info(name));
        self.registry.open_lease(&incarnation, &info).await.unwrap();
        GatewayLease { registry: self.registry.clone(), incarnation, info }
    }

    /// Subscribes to the channel of a room.
    async fn listen_to_room(&self, name: &str) -> ChannelLog {
        self.listen(&self.keys.room(room(name).key()).channel()).await
    }

    /// Checks that this gateway, and no other, owns a nick or an unread order.
    async fn assert_only_owner(&self, node: &str) {
        let leases = self.registry.leases().await.unwrap().leases;
        assert!(leases.iter().all(|lease| lease.owns == (lease.node == node)), "{leases:?}");
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
        let (fence, _) = self
            .registry
            .claim(ClaimRequest {
                incarnation: &self.incarnation,
                session,
                nick: &nick,
                token: &token(session, 0),
                user: None,
            })
            .await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session: session.clone(), fence };
        Ok(NickSession { registry: self.registry.clone(), nick, owner })
    }

    async fn user(&self, nick: &str) -> NickSession {
        self.claim(nick).await.unwrap()
    }

    /// Claims nicks in ASCII that look alike, because `1` looks like `l`. Returns them in their order in Redis.
    async fn lookalikes(&self, count: u32) -> Vec<NickSession> {
        let mut users = Vec::new();
        for number in 0..count {
            let name = format!("c{number:05b}").replace('1', "l").replace('0', "1");
            users.push(self.user(&name).await);
        }
        users
    }

    /// Reasserts these claims in one batch; returns those that a later claim has replaced.
    async fn try_reassert(&self, generation: u64, claims: &[LocalClaim]) -> Result<Vec<Owner>, RegistryError> {
        let (incarnation, info) = (&self.incarnation, &self.info);
        self.registry.reassert(ReassertBatch { incarnation, info, generation, claims, last: true }).await
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
        self.try_join(name, JoinEntry::New).await.unwrap()
    }

    /// Joins a room with the default status.
    async fn try_join(&self, name: &str, entry: JoinEntry<'_>) -> Result<JoinedAt, RegistryError> {
        let (room, status) = (room(name), Status::default());
        self.registry
            .join(JoinRequest {
                room: &room,
                nick: &self.nick,
                owner: &self.owner,
                user: None,
                status: &status,
                entry,
                moderates: false,
            })
            .await
    }

    async fn leave(&self, name: &str) -> bool {
        self.leave_with(name, LeftReason::Left, LeaveIntent::ForGood).await
    }

    async fn leave_with(&self, name: &str, reason: LeftReason, intent: LeaveIntent) -> bool {
        let room = room(name);
        self.registry
            .leave(LeaveRequest { room: &room, nick: &self.nick, owner: &self.owner, reason, intent })
            .await
            .unwrap()
    }

    async fn detach(&self, hold: Duration) -> bool {
        self.detach_after(Duration::ZERO, hold).await == DetachOutcome::Held
    }

    async fn detach_after(&self, after: Duration, hold: Duration) -> DetachOutcome {
        self.registry.detach(&self.nick, &self.owner, HoldTerms { hold, after }).await.unwrap()
    }

    async fn expire(&self) -> bool {
        self.registry.expire_detached(&self.nick, &self.owner, OfflineReason::Closed).await.unwrap()
    }

    async fn release(&self) -> bool {
        self.registry.release(&self.nick, &self.owner, ReleaseCause::CLOSED).await.unwrap()
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

/// Returns a guest as other members see it.
fn member(nick: &Nick, status: &Status) -> MemberInfo {
    MemberInfo { nick: nick.as_str().to_owned(), user: None, status: status.clone() }
}

/// Returns the delta that announces a new member.
fn joined(nick: &str) -> serde_json::Value {
    json!({ "joined": [{ "nick": nick, "status": "online" }] })
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn nick(name: &str) -> Nick {
    Nick::parse(name).unwrap()
}
