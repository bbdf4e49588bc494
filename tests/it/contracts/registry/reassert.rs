//! The contract of reassertion and audit, on Redis, the only store that can lose data.
//!
//! Invariant: a store in a new generation grants nothing until every live gateway has reasserted its claims or was
//! fenced for silence. `audit` covers the differences that remain.

mod audit;

use std::slice;
use std::time::{Duration, Instant};

use harness::eventually;
use presence::model::{Fence, LookalikePolicy, Owner, Status, TokenHash};
use presence::registry::{Beat, ClaimError, Generation, JoinEntry, LeaseState, LocalClaim, Phase, RegistryError};

use super::{GatewayLease, NickSession, PATIENCE, RegistryArm, member, nick, room};

/// Shortest recovery of a store.
const RECOVERY_MIN: Duration = Duration::from_secs(2);

impl GatewayLease {
    async fn beat(&self) -> Beat {
        self.registry.beat(&self.incarnation, &[]).await.unwrap()
    }

    /// Reasserts these claims; returns those that a later claim has replaced.
    async fn reassert(&self, claims: &[LocalClaim]) -> Vec<Owner> {
        let generation = self.beat().await.generation.number;
        self.try_reassert(generation, claims).await.unwrap()
    }

    /// Beats until the store is open.
    async fn until_open(&self) -> Beat {
        eventually(PATIENCE, "the store is open", async || {
            let beat = self.beat().await;
            if beat.generation.is_open() { Ok(beat) } else { Err(beat) }
        })
        .await
    }
}

impl NickSession {
    fn local_claim(&self, rooms: &[&str]) -> LocalClaim {
        let rooms = rooms.iter().map(|name| room(name)).collect();
        let token = TokenHash::of(b"secret");
        let (nick, owner) = (self.nick.clone(), self.owner.clone());
        LocalClaim { nick, owner, user: None, status: Status::default(), rooms, token, detached: false }
    }
}

impl RegistryArm {
    /// Changes the replication id and keeps all data, as a failover without loss does.
    async fn fail_over(&self) {
        let () = self.ask(&["DEBUG", "CHANGE-REPL-ID"]).await;
    }

    async fn generation(&self) -> Generation {
        self.registry.leases().await.unwrap().generation
    }

    /// Moves the start of the generation back by this time, as if beats had arrived throughout.
    async fn pass_recovery_time(&self, time: Duration) {
        let past = format!("-{}", time.as_millis());
        let () = self.ask(&["HINCRBY", &self.keys.generation(), "since", &past]).await;
    }
}

fn assert_recovering<T: std::fmt::Debug>(outcome: &Result<T, RegistryError>) {
    assert!(matches!(outcome, Err(RegistryError::Unavailable(reason)) if reason.contains("RECOVERING")), "{outcome:?}");
}

#[tokio::test]
async fn recovering_store_grants_nothing_until_all_reassert() {
    let arm = RegistryArm::redis().await;
    let (one, two) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (one.user("ann").await, two.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let first = one.beat().await;
    assert!(first.generation.is_open() && first.asserted);

    arm.fail_over().await;
    let started = Instant::now();
    assert_eq!(arm.generation().await.phase, Phase::Recovering, "visible before the first write");
    let refused = one.claim("eve").await.err().unwrap();
    let ClaimError::Registry(refused) = refused else { panic!("{refused:?}") };
    assert_recovering::<()>(&Err(refused));
    assert_recovering(&ann.try_join("#other", JoinEntry::New).await);
    assert_recovering(
        &arm.registry.set_status(ann.nick.key(), &ann.owner, &member(&ann.nick, &Status::default()), &[]).await,
    );
    assert!(arm.registry.user(nick("eve").key()).await.unwrap().is_none(), "refused without partial writes");
    assert!(bob.leave("#lobby").await, "leaves are accepted");
    assert!(bob.release().await);
    assert!(!arm.registry.fence(&two.incarnation, 0).await.unwrap(), "no fence during recovery");

    let beat = one.beat().await;
    assert!(beat.generation.number > first.generation.number && !beat.asserted, "{beat:?}");
    assert!(one.reassert(&[ann.local_claim(&["#lobby"])]).await.is_empty());
    assert!(one.beat().await.asserted);
    arm.pass_recovery_time(RECOVERY_MIN).await;
    assert!(!one.beat().await.generation.is_open(), "g2 has not reasserted yet");
    two.reassert(&[]).await;
    let beat = one.beat().await;
    assert!(beat.generation.is_open(), "{beat:?}");
    assert_eq!(arm.generation().await, beat.generation);
    assert!(started.elapsed() < RECOVERY_MIN, "the recovery must end before its minimum by the real clock");
    one.user("eve").await;
    ann.join("#other").await;
}

#[tokio::test]
async fn recovery_lasts_at_least_two_seconds() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    arm.fail_over().await;
    node.reassert(&[]).await;
    let started = Instant::now();
    node.until_open().await;
    assert!(started.elapsed() > RECOVERY_MIN - Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test]
async fn silent_gateway_is_fenced_after_ten_seconds() {
    let arm = RegistryArm::redis().await;
    let (node, silent) = (arm.node("g1").await, arm.node("g2").await);
    let ann = silent.user("ann").await;
    arm.fail_over().await;
    node.reassert(&[]).await;
    arm.pass_recovery_time(Duration::from_secs(9)).await;
    assert!(!node.beat().await.generation.is_open());
    arm.pass_recovery_time(Duration::from_secs(1)).await;
    let beat = node.beat().await;
    assert!(beat.generation.is_open());
    let state =
        |node: &GatewayLease| beat.leases.iter().find(|lease| lease.incarnation == node.incarnation).unwrap().state;
    assert_eq!((state(&node), state(&silent)), (LeaseState::Live, LeaseState::Fenced));
    assert_eq!(arm.registry.beat(&silent.incarnation, &[]).await, Err(RegistryError::Fenced));
    let refused = silent.try_reassert(beat.generation.number, &[ann.local_claim(&[])]).await;
    assert_eq!(refused, Err(RegistryError::Fenced), "the reassertion comes too late");
    node.user("ann").await;
}

#[tokio::test]
async fn second_outage_does_not_fence_silent_gateways() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    arm.fail_over().await;
    node.reassert(&[]).await;
    // No beat for 20 s: the store was away.
    for time in ["since", "seen"] {
        let () = arm.ask(&["HINCRBY", &arm.keys.generation(), time, "-20000"]).await;
    }
    assert!(!node.beat().await.generation.is_open());
    assert_eq!(other.beat().await.leases.iter().filter(|lease| lease.state == LeaseState::Live).count(), 2);
    // A clock that is set back by an hour must not prolong the recovery.
    for time in ["since", "seen"] {
        let () = arm.ask(&["HINCRBY", &arm.keys.generation(), time, "3600000"]).await;
    }
    other.reassert(&[]).await;
    node.until_open().await;
}

#[tokio::test]
async fn reassertion_restores_lost_claims_silently() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("Ann").await, other.user("bob").await);
    for name in ["#Lobby", "#kitchen"] {
        ann.join(name).await;
    }
    bob.join("#lobby").await;
    let away = Status { text: "tea".to_owned(), ..Status::default() };
    assert!(
        arm.registry
            .set_status(ann.nick.key(), &ann.owner, &member(&ann.nick, &away), &[room("#lobby").key().clone()])
            .await
            .unwrap()
    );
    let listings = async || {
        let mut user = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
        (user.online_since, user.last_active) = (None, 0);
        let members = arm.registry.members(room("#lobby").key(), None, 10).await.unwrap();
        let users = arm.registry.users(None, 10).await.unwrap().items.len();
        let rooms = arm.registry.rooms(None, 10).await.unwrap().items;
        let counted = arm.registry.gateways().await.unwrap().into_iter().map(|gateway| gateway.users);
        (user, members, users, rooms, counted.collect::<Vec<_>>(), arm.registry.stats().await.unwrap())
    };
    let before = listings().await;
    let channel = arm.listen_to_room("#lobby").await;

    let () = arm.ask(&["FLUSHALL"]).await;
    let mut claim = ann.local_claim(&["#Lobby", "#kitchen"]);
    claim.status = away;
    node.reassert(&[claim.clone()]).await;
    other.reassert(&[bob.local_claim(&["#lobby"])]).await;
    assert_eq!(listings().await, before);
    assert!(arm.history().await.is_empty(), "nothing was announced");
    let token: String = arm.ask(&["HGET", &arm.keys.session(&ann.owner.session).record(), "token"]).await;
    assert_eq!(token, TokenHash::of(b"secret").as_str());
    for key in [
        String::from(arm.keys.nick(ann.nick.key()).record()),
        arm.keys.session(&ann.owner.session).record().into(),
        arm.keys.room(room("#lobby").key()).meta().into(),
    ] {
        let ttl: i64 = arm.ask(&["TTL", &key]).await;
        assert_eq!(ttl, -1, "{key}");
    }

    // A repeated reassertion changes nothing, and the restored claims can be used and released.
    node.reassert(&[claim]).await;
    assert_eq!(listings().await, before);
    node.until_open().await;
    let eve = node.user("eve").await;
    assert!(eve.owner.fence > bob.owner.fence, "no fencing number is reused");
    eve.join("#lobby").await;
    assert!(ann.leave("#lobby").await && ann.leave("#kitchen").await && ann.release().await);
    let deltas = channel.deltas_until(r#"{"left":[{"nick":"Ann""#).await;
    assert_eq!(deltas.iter().filter(|(_, delta)| !delta["joined"].is_null()).count(), 1, "only eve's join: {deltas:?}");
    let owned: Vec<String> = arm.ask(&["SMEMBERS", &arm.keys.node(&node.incarnation).owned_members()]).await;
    assert_eq!(owned, ["lobby eve"]);
}

#[tokio::test]
async fn reasserted_nick_keeps_its_lookalikes_away() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let owned = node.user("paypal").await;
    let () = arm.ask(&["FLUSHALL"]).await;
    node.reassert(&[owned.local_claim(&[])]).await;
    other.reassert(&[]).await;
    arm.pass_recovery_time(RECOVERY_MIN).await;
    assert!(other.beat().await.generation.is_open());
    assert_eq!(other.claim("paypaI").await.err(), Some(ClaimError::Confusable));
}

#[tokio::test]
async fn reasserted_nick_outlasts_holds_of_lookalikes() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let node = GatewayLease { registry: arm.registry_with(LookalikePolicy::ExceptAscii), ..node };
    let (held, owned) = (node.user("paypal").await, node.user("paypaI").await);
    assert!(held.detach(Duration::from_secs(60)).await && held.expire().await);
    node.reassert(&[owned.local_claim(&[])]).await;
    let index = arm.keys.skeleton(owned.nick.skeletons().shown()).nicks();
    assert_eq!(arm.ask::<i64>(&["TTL", &index]).await, -1, "it does not expire with the hold");
}

#[tokio::test]
async fn later_claim_wins_whichever_reasserts_first() {
    for later_first in [true, false] {
        let arm = RegistryArm::redis().await;
        let (one, two) = (arm.node("g1").await, arm.node("g2").await);
        let (bob, ann) = (two.user("bob").await, one.user("ann").await);
        let later =
            NickSession { owner: Owner { fence: Fence(7), ..bob.owner.clone() }, nick: ann.nick.clone(), ..bob };
        let () = arm.ask(&["FLUSHALL"]).await;
        let earlier = async || one.reassert(&[ann.local_claim(&["#lobby"])]).await;
        if later_first {
            assert!(two.reassert(&[later.local_claim(&["#lobby"])]).await.is_empty());
            assert_eq!(earlier().await, slice::from_ref(&ann.owner));
        } else {
            assert!(earlier().await.is_empty());
            assert!(two.reassert(&[later.local_claim(&["#lobby"])]).await.is_empty());
            assert!(!one.beat().await.asserted, "g1 must reassert again to learn of the later claim");
            assert_eq!(earlier().await, slice::from_ref(&ann.owner));
        }
        assert!(one.beat().await.asserted && two.beat().await.asserted);
        assert!(!ann.release().await && !ann.leave("#lobby").await, "the earlier claim has no effect");
        one.until_open().await;
        assert_eq!(one.user("eve").await.owner.fence, Fence(8));
        assert!(later.leave("#lobby").await && later.release().await);
        let owned: Vec<String> = arm.ask(&["SMEMBERS", &arm.keys.node(&one.incarnation).owned_nicks()]).await;
        assert_eq!(owned, ["eve"]);
    }
}

#[tokio::test]
async fn losing_an_ownership_key_starts_new_generation() {
    for lost in ["generation", "leases", "fence"] {
        let arm = RegistryArm::redis().await;
        let node = arm.node("g1").await;
        let ann = node.user("ann").await;
        let before = node.beat().await.generation;
        let () = arm.ask(&["DEL", &format!("{}{lost}", arm.keys.base())]).await;
        assert!(node.claim("eve").await.is_err(), "{lost}");
        let beat = node.beat().await;
        assert!(beat.generation.number > before.number && !beat.generation.is_open(), "{lost}: {beat:?}");
        node.reassert(&[ann.local_claim(&[])]).await;
        let beat = node.until_open().await;
        assert_eq!(beat.leases.len(), 1);
        assert!(node.user("eve").await.owner.fence > ann.owner.fence, "{lost}");
    }
}

#[tokio::test]
async fn new_gateway_cannot_open_a_lossy_store() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    node.user("bob").await;
    let ann = node.user("ann").await;
    let () = arm.ask(&["FLUSHALL"]).await;
    // The store looks new to the second gateway.
    let newcomer = arm.node("g2").await;
    let later_owner = newcomer.user("ann").await;
    let beat = node.beat().await;
    assert!(!beat.generation.is_open(), "the first gateway keeps it closed");
    assert!(newcomer.claim("carl").await.is_err());
    node.reassert(&[ann.local_claim(&["#lobby"])]).await;
    assert_eq!(newcomer.reassert(&[later_owner.local_claim(&[])]).await, slice::from_ref(&later_owner.owner));
    node.until_open().await;
    assert!(ann.leave("#lobby").await);

    // An incarnation that first beats after the recovery counts as fenced.
    let () = arm.ask(&["HINCRBY", &arm.keys.generation(), "since", "-10001"]).await;
    let unknown = presence::model::Incarnation::random();
    assert_eq!(arm.registry.beat(&unknown, &[]).await, Err(RegistryError::Fenced));
}

#[tokio::test]
async fn reassertion_is_refused_when_fenced_or_outdated() {
    let arm = RegistryArm::redis().await;
    let (node, dead) = (arm.node("g1").await, arm.node("g2").await);
    let ann = dead.user("ann").await;
    dead.fence().await;
    let old = node.beat().await.generation.number;
    arm.fail_over().await;
    let current = node.beat().await.generation.number;
    assert_eq!(dead.try_reassert(current, &[ann.local_claim(&[])]).await, Err(RegistryError::Fenced));
    let refused = node.try_reassert(old, &[]).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert!(!node.beat().await.asserted);
}

#[tokio::test]
async fn detached_session_stays_detached_after_reassertion() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let () = arm.ask(&["FLUSHALL"]).await;
    node.reassert(&[LocalClaim { detached: true, ..ann.local_claim(&[]) }]).await;
    let record = arm.keys.nick(ann.nick.key()).record();
    let [detached, held]: [u64; 2] = arm.ask(&["HMGET", &record, "detached", "held_until"]).await;
    assert_eq!(held - detached, 60_000);
    node.reassert(&[LocalClaim { detached: true, ..ann.local_claim(&[]) }]).await;
    let again: u64 = arm.ask(&["HGET", &record, "detached"]).await;
    assert_eq!(again, detached, "the hold time continues");
}
