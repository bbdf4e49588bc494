//! Leases: opening, beating, fencing, and what a lease that ended can still do.

use std::time::Duration;

use presence::model::{Incarnation, LeftReason, Status};
use presence::registry::{
    ClaimError, JoinEntry, JoinRequest, LeaseState, LeaseTransition, LeaveIntent, LeaveRequest, MailboxOrder,
    ReassertBatch, RegistryError,
};

use super::{Arm, PATIENCE, on_both_arms, room, told};

on_both_arms! {
    a_lease_is_opened_once,
    a_beat_counts_and_comes_back_on_the_own_channel,
    a_beat_answers_with_the_whole_lease_table,
    a_beat_stamps_only_what_its_gateway_owns,
    without_a_lease_there_is_nothing_to_end,
    a_lease_that_serves_is_heard_and_no_other,
    a_fence_needs_the_counter_that_was_seen,
    of_many_observers_one_fences,
    a_fenced_lease_is_fenced_for_good,
    a_draining_lease_serves_and_a_drained_one_does_not,
    a_first_lease_is_opened_beside_former_lives_only,
    an_order_to_drain_waits_for_the_beat_of_its_gateway,
}

async fn a_lease_is_opened_once(arm: &Arm) {
    let node = arm.node("g1").await;
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    arm.registry.open_lease(&node.incarnation, &told("g1")).await.unwrap();

    let leases = arm.registry.leases().await.unwrap().leases;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].incarnation, node.incarnation);
    assert_eq!((leases[0].node.as_str(), leases[0].counter, leases[0].state), ("g1", 1, LeaseState::Live));
    assert!(!leases[0].owns);
}

async fn a_beat_counts_and_comes_back_on_the_own_channel(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let heard = arm.listen(&arm.keys.node(&node.incarnation).channel()).await;
    for counter in 1..=3 {
        assert_eq!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().counter, counter);
        arm.registry.beat(&other.incarnation, &[]).await.unwrap();
    }
    assert_eq!(heard.until("E 3").await, ["E 1", "E 2", "E 3"]);
}

async fn a_beat_answers_with_the_whole_lease_table(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    other.user("ann").await;
    arm.registry.beat(&other.incarnation, &[]).await.unwrap();

    let beat = arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    let mut rows: Vec<_> =
        beat.leases.iter().map(|lease| (lease.node.as_str(), lease.counter, lease.state, lease.owns)).collect();
    rows.sort_unstable_by_key(|row| row.0);
    assert_eq!(rows, [("g1", 1, LeaseState::Live, false), ("g2", 1, LeaseState::Live, true)]);
    assert!(beat.mailbox.is_empty());
}

async fn a_beat_stamps_only_what_its_gateway_owns(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("ann").await, other.user("bob").await);
    let before = arm.registry.lookup(&[ann.nick.key().clone(), bob.nick.key().clone()]).await.unwrap();
    let last_active = |users: &[Option<presence::registry::UserRow>]| -> Vec<u64> {
        users.iter().map(|user| user.as_ref().unwrap().last_active).collect()
    };
    let before = last_active(&before);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(std::time::Instant::now() < deadline, "ann is not stamped");
        let both = [ann.nick.key().clone(), bob.nick.key().clone()];
        arm.registry.beat(&node.incarnation, &both).await.unwrap();
        let after = last_active(&arm.registry.lookup(&both).await.unwrap());
        assert_eq!(after[1], before[1], "bob is on the other gateway");
        if after[0] > before[0] + 1 {
            return;
        }
    }
}

async fn a_lease_that_serves_is_heard_and_no_other(arm: &Arm) {
    let node = arm.node("g1").await;
    let beat = arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    assert!(beat.generation.is_open() && beat.asserted, "there is nothing to say");
    assert_eq!(arm.registry.leases().await.unwrap().generation, beat.generation);
    let say = async || {
        arm.registry
            .reassert(ReassertBatch {
                incarnation: &node.incarnation,
                info: &told("g1"),
                generation: beat.generation.number,
                claims: &[],
                last: true,
            })
            .await
    };
    assert_eq!(say().await, Ok(Vec::new()));
    node.fence().await;
    assert_eq!(say().await, Err(RegistryError::Fenced));
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await, Err(RegistryError::Fenced));
}

async fn without_a_lease_there_is_nothing_to_end(arm: &Arm) {
    let unknown = Incarnation::random();
    assert_eq!(arm.registry.set_lease(&unknown, LeaseTransition::Draining).await, Err(RegistryError::Fenced));
    assert!(!arm.registry.fence(&unknown, 0).await.unwrap());
    assert!(arm.registry.leases().await.unwrap().leases.is_empty());
}

async fn a_fence_needs_the_counter_that_was_seen(arm: &Arm) {
    let node = arm.node("g1").await;
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();

    assert!(!arm.registry.fence(&node.incarnation, 1).await.unwrap());
    assert!(!arm.registry.fence(&node.incarnation, 3).await.unwrap());
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().counter, 3);

    assert!(arm.registry.fence(&node.incarnation, 3).await.unwrap());
    assert!(!arm.registry.fence(&node.incarnation, 3).await.unwrap());
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await, Err(RegistryError::Fenced));
}

async fn of_many_observers_one_fences(arm: &Arm) {
    let node = arm.node("g1").await;
    let observers = (0..20).map(|_| {
        let node = node.clone();
        tokio::spawn(async move { node.registry.fence(&node.incarnation, 0).await.unwrap() })
    });
    let did = futures_util::future::join_all(observers).await;
    assert_eq!(did.into_iter().filter(|did| *did.as_ref().unwrap()).count(), 1);
}

async fn a_fenced_lease_is_fenced_for_good(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    node.fence().await;

    let fenced = Err(RegistryError::Fenced);
    assert_eq!(arm.registry.open_lease(&node.incarnation, &told("g1")).await, fenced);
    assert_eq!(arm.registry.set_lease(&node.incarnation, LeaseTransition::Draining).await, fenced);
    assert_eq!(node.claim("bob").await.err(), Some(ClaimError::Registry(RegistryError::Fenced)));
    assert_eq!(
        node.claim_as(&ann.owner.session, "ann").await.err(),
        Some(ClaimError::Registry(RegistryError::Fenced)),
        "not even what it had"
    );
    let joined = arm
        .registry
        .join(JoinRequest {
            room: &room("#other"),
            nick: &ann.nick,
            owner: &ann.owner,
            status: &Status::default(),
            entry: JoinEntry::New,
        })
        .await;
    assert_eq!(joined.err(), Some(RegistryError::Fenced));
    let told = arm.registry.set_status(&ann.nick, &ann.owner, &Status::default(), &[]).await;
    assert_eq!(told.err(), Some(RegistryError::Fenced));

    // What only takes from the caller still works: nobody needs to wait for the reaper.
    assert!(
        arm.registry
            .leave(LeaveRequest {
                room: &room("#lobby"),
                nick: &ann.nick,
                owner: &ann.owner,
                reason: LeftReason::Closed,
                intent: LeaveIntent::ForGood
            })
            .await
            .unwrap()
    );
    assert!(ann.release().await);
}

async fn a_draining_lease_serves_and_a_drained_one_does_not(arm: &Arm) {
    let node = arm.node("g1").await;
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Draining).await.unwrap();
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Draining).await.unwrap();
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert_eq!(arm.registry.gateways().await.unwrap()[0].state, LeaseState::Draining);

    arm.registry.set_lease(&node.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await, Err(RegistryError::Fenced));
    assert_eq!(node.claim("bob").await.err(), Some(ClaimError::Registry(RegistryError::Fenced)));
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online, "as before, until somebody tidies up");
    arm.registry.reap(&node.incarnation, 10).await.unwrap();
    assert!(!arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert!(arm.registry.gateways().await.unwrap().is_empty(), "it ended cleanly");
    assert_eq!(arm.registry.stats().await.unwrap().gateways, 0);
}

async fn an_order_to_drain_waits_for_the_beat_of_its_gateway(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    assert!(arm.registry.drain(&node.incarnation).await.unwrap());
    assert!(arm.registry.beat(&other.incarnation, &[]).await.unwrap().mailbox.is_empty());
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox, [MailboxOrder::Drain]);
    assert!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox.is_empty(), "once");
    node.fence().await;
    assert!(!arm.registry.drain(&node.incarnation).await.unwrap(), "it has ended");
    assert!(!arm.registry.drain(&Incarnation::random()).await.unwrap(), "it never was");
}

async fn a_first_lease_is_opened_beside_former_lives_only(arm: &Arm) {
    let (crashed, _other) = (arm.node("g1").await, arm.node("g2").await);
    let over = [crashed.incarnation.clone()];
    let starts = (0..8).map(|_| {
        let (registry, over) = (arm.registry.clone(), over.clone());
        tokio::spawn(async move {
            let incarnation = Incarnation::random();
            let twin = registry.open_first_lease(&incarnation, &told("g1"), &over).await.unwrap();
            (incarnation, twin)
        })
    });
    let starts: Vec<_> = starts.collect();
    let mut ends = Vec::new();
    for start in starts {
        ends.push(start.await.unwrap());
    }
    let winners: Vec<_> = ends.iter().filter(|(_, twin)| twin.is_none()).map(|(winner, _)| winner.clone()).collect();
    let [winner] = winners.as_slice() else { panic!("{} of them won", winners.len()) };
    assert!(ends.iter().filter_map(|(_, twin)| twin.as_ref()).all(|twin| twin == winner), "all others hear of it");
    assert_eq!(arm.registry.open_first_lease(winner, &told("g1"), &over).await, Ok(None), "asked once more");
    assert_eq!(arm.registry.leases().await.unwrap().leases.len(), 3, "nobody else left a row");

    arm.registry.set_lease(winner, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    let next = Incarnation::random();
    assert_eq!(arm.registry.open_first_lease(&next, &told("g1"), &over).await, Ok(None), "what has ended is no twin");
}
