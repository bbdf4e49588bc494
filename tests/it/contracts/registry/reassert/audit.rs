//! The contract of the claim audit: it finds and resolves each difference between a gateway and the store.
//!
//! Invariant: the audit restores missing claims, removes entries without an owner, and ends superseded claims.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::eventually;
use presence::lease::audit::{AuditIntervals, ClaimAudit};
use presence::lease::{BeatOutcome, Heartbeat, OwnLease};
use presence::model::Owner;
use presence::registry::{Differences, LocalClaim, Surplus};

use super::super::{GatewayLease, PATIENCE, RegistryArm, gateway_info, room};

#[tokio::test]
async fn audit_finds_and_restores_missing_entries() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let claims = [ann.local_claim(&["#lobby"]), bob.local_claim(&["#lobby"])];
    let audit = async || arm.registry.audit(&node.incarnation, &claims).await.unwrap();
    assert_eq!(audit().await, Differences::default());
    let (nick, lobby) = (ann.nick.key(), room("#lobby"));
    let base = arm.keys.base();
    for lost in [
        vec!["DEL".to_owned(), arm.keys.nick(nick).record().into()],
        vec!["ZREM".to_owned(), arm.keys.online().into(), "ann".to_owned()],
        vec!["ZREM".to_owned(), arm.keys.room(lobby.key()).member_list().into(), "ann".to_owned()],
        vec!["ZADD".to_owned(), arm.keys.online().into(), "CH".to_owned(), "0".to_owned(), "ann".to_owned()],
        vec!["SREM".to_owned(), arm.keys.node(&node.incarnation).owned_nicks().into(), "ann".to_owned()],
        vec!["SREM".to_owned(), arm.keys.node(&node.incarnation).owned_members().into(), "lobby ann".to_owned()],
        vec!["HDEL".to_owned(), format!("{base}members:lobby"), "ann".to_owned()],
    ] {
        let words: Vec<&str> = lost.iter().map(String::as_str).collect();
        let count: u64 = arm.ask(&words).await;
        assert_eq!(count, 1, "{lost:?}");
        assert_eq!(audit().await, Differences { missing: vec![ann.owner.clone()], surplus: vec![] }, "{lost:?}");
        node.reassert(&claims[..1]).await;
        assert_eq!(audit().await, Differences::default(), "{lost:?}");
    }
    assert_eq!(arm.registry.members(lobby.key(), None, 10).await.unwrap().items.len(), 2);
    assert!(arm.registry.user(nick).await.unwrap().unwrap().online);
}

#[tokio::test]
async fn audit_finds_entries_without_owner() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("ann").await, node.user("Bob").await);
    ann.join("#lobby").await;
    bob.join("#Lobby").await;
    other.user("carl").await.join("#lobby").await;
    // Index entries without a matching record have no owner.
    let () = arm.ask(&["SADD", &arm.keys.node(&node.incarnation).owned_nicks(), "carl", "never"]).await;
    let () = arm.ask(&["SADD", &arm.keys.node(&node.incarnation).owned_members(), "lobby carl", "never ann"]).await;
    let found = arm.registry.audit(&node.incarnation, &[ann.local_claim(&[])]).await.unwrap();
    assert!(found.missing.is_empty());
    let mut surplus = found.surplus;
    surplus.sort_by_key(|surplus| format!("{surplus:?}"));
    let lobby = || room("#lobby");
    let mut expected = vec![
        Surplus::Member(lobby(), bob.nick.clone(), bob.owner.clone()),
        Surplus::Member(lobby(), ann.nick.clone(), ann.owner.clone()),
        Surplus::Nick(bob.nick.clone(), bob.owner.clone()),
    ];
    expected.sort_by_key(|surplus| format!("{surplus:?}"));
    assert_eq!(surplus, expected);
}

/// A gateway that audits `claims` against the store while its task runs.
struct AuditingGateway {
    claims: Arc<Mutex<Vec<LocalClaim>>>,
    superseded: Arc<Mutex<Vec<Owner>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for AuditingGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AuditingGateway {
    fn start(node: &GatewayLease, local_claims: &[LocalClaim]) -> Self {
        let claims = Arc::new(Mutex::new(local_claims.to_vec()));
        let superseded: Arc<Mutex<Vec<Owner>>> = Arc::default();
        let (node, audited_claims, closed) = (node.clone(), Arc::clone(&claims), Arc::clone(&superseded));
        let task = tokio::spawn(async move {
            let lease = OwnLease {
                incarnation: node.incarnation.clone(),
                ..OwnLease::new(node.registry.clone(), Arc::default(), gateway_info("g1"))
            };
            let intervals = AuditIntervals { clean: Duration::from_millis(300), recheck: Duration::from_millis(150) };
            let (mut heartbeat, mut audit) = (Heartbeat::new(&lease), ClaimAudit::new(&lease, intervals));
            let beats = async { while !matches!(heartbeat.next(Default::default).await, BeatOutcome::Lost) {} };
            let audits = async {
                loop {
                    let superseded = audit.next(|| audited_claims.lock().unwrap().clone()).await;
                    closed.lock().unwrap().extend(superseded);
                }
            };
            tokio::select! {
                () = beats => {}
                () = audits => {}
            }
        });
        Self { claims, superseded, task }
    }
}

#[tokio::test]
async fn audit_brings_gateway_and_store_into_agreement() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob, carl) = (node.user("ann").await, node.user("bob").await, node.user("carl").await);
    for user in [&ann, &bob, &carl] {
        user.join("#lobby").await;
    }
    let auditor = AuditingGateway::start(&node, &[ann.local_claim(&["#lobby"]), carl.local_claim(&["#lobby"])]);
    // ann's nick is lost, bob was never released, and a later claim owns carl's nick.
    let () = arm.ask(&["DEL", &arm.keys.nick(ann.nick.key()).record()]).await;
    let later_owner = format!("{}/usurper/99", other.incarnation);
    let () = arm.ask(&["HSET", &arm.keys.nick(carl.nick.key()).record(), "owner", &later_owner]).await;
    eventually(PATIENCE, "gateway and store agree", async || {
        let [ann_is, bob_is] = [&ann, &bob].map(|user| user.nick.key().clone());
        let users = arm.registry.lookup(&[ann_is, bob_is]).await.unwrap();
        let online: Vec<bool> = users.iter().flatten().map(|user| user.online).collect();
        let members = arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items;
        let names: Vec<String> = members.into_iter().map(|member| member.nick).collect();
        let superseded = auditor.superseded.lock().unwrap().clone();
        let agreed = online == [true, false] && names == ["ann", "carl"] && superseded.contains(&carl.owner);
        if agreed { Ok(()) } else { Err((online, names, superseded)) }
    })
    .await;

    // A room that is left during an audit is not restored.
    auditor.claims.lock().unwrap()[0].rooms.clear();
    eventually(PATIENCE, "ann has left the room", async || {
        let rooms = arm.registry.user(ann.nick.key()).await.unwrap().unwrap().rooms;
        if rooms.is_empty() { Ok(()) } else { Err(rooms) }
    })
    .await;
    assert!(ann.release().await, "ann still owns her nick");
}
