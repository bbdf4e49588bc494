//! The contract of leases: opening, beating, fencing, draining, and the few calls that an ended lease may still make.

use std::time::Duration;

use presence::model::{Incarnation, LeftReason, Status};
use presence::registry::{
    BeatReport, ClaimError, JoinEntry, LeaseState, LeaseTransition, LeaveIntent, MailboxOrder, RegistryError,
};

use super::{PATIENCE, RegistryArm, gateway_info, member, on_both_arms};

on_both_arms! {
    opening_a_lease_twice_keeps_it,
    beat_counts_up_and_echoes_on_own_channel,
    beat_returns_the_whole_lease_table,
    beat_updates_activity_of_own_nicks_only,
    unknown_lease_cannot_be_drained_or_fenced,
    reassertion_requires_a_serving_lease,
    fence_requires_the_current_beat_counter,
    concurrent_observers_fence_a_lease_once,
    fenced_lease_stays_fenced,
    draining_lease_serves_and_drained_lease_refuses,
    node_id_conflict_admits_one_first_lease,
    drain_order_waits_for_gateways_next_beat,
    reported_usage_reaches_each_gateway_once,
}

async fn opening_a_lease_twice_keeps_it(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    arm.registry.open_lease(&node.incarnation, &gateway_info("g1")).await.unwrap();

    let leases = arm.registry.leases().await.unwrap().leases;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].incarnation, node.incarnation);
    assert_eq!((leases[0].node.as_str(), leases[0].counter, leases[0].state), ("g1", 1, LeaseState::Live));
    assert!(!leases[0].owns);
}

async fn beat_counts_up_and_echoes_on_own_channel(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let channel = arm.listen(&arm.keys.node(&node.incarnation).channel()).await;
    for counter in 1..=3 {
        assert_eq!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().counter, counter);
        arm.registry.beat(&other.incarnation, &[]).await.unwrap();
    }
    assert_eq!(channel.until("E 3").await, ["E 1", "E 2", "E 3"]);
}

async fn beat_returns_the_whole_lease_table(arm: &RegistryArm) {
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

async fn beat_updates_activity_of_own_nicks_only(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("ann").await, other.user("bob").await);
    let before = arm.registry.lookup(&[ann.nick.key().clone(), bob.nick.key().clone()]).await.unwrap();
    let last_active = |users: &[Option<presence::registry::UserRow>]| -> Vec<u64> {
        users.iter().map(|user| user.as_ref().unwrap().last_active).collect()
    };
    let before = last_active(&before);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(std::time::Instant::now() < deadline, "the activity of ann is not updated");
        let both = [ann.nick.key().clone(), bob.nick.key().clone()];
        arm.registry.beat(&node.incarnation, &both).await.unwrap();
        let after = last_active(&arm.registry.lookup(&both).await.unwrap());
        assert_eq!(after[1], before[1], "bob is on another gateway");
        if after[0] > before[0] + 1 {
            return;
        }
    }
}

async fn reassertion_requires_a_serving_lease(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let beat = arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    assert!(beat.generation.is_open() && beat.asserted, "nothing to reassert");
    assert_eq!(arm.registry.leases().await.unwrap().generation, beat.generation);
    assert_eq!(node.try_reassert(beat.generation.number, &[]).await, Ok(Vec::new()));
    node.fence().await;
    assert_eq!(node.try_reassert(beat.generation.number, &[]).await, Err(RegistryError::Fenced));
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await, Err(RegistryError::Fenced));
}

async fn unknown_lease_cannot_be_drained_or_fenced(arm: &RegistryArm) {
    let unknown = Incarnation::random();
    assert_eq!(arm.registry.set_lease(&unknown, LeaseTransition::Draining).await, Err(RegistryError::Fenced));
    assert!(!arm.registry.fence(&unknown, 0).await.unwrap());
    assert!(arm.registry.leases().await.unwrap().leases.is_empty());
}

async fn fence_requires_the_current_beat_counter(arm: &RegistryArm) {
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

async fn concurrent_observers_fence_a_lease_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let observers = (0..20).map(|_| {
        let node = node.clone();
        tokio::spawn(async move { node.registry.fence(&node.incarnation, 0).await.unwrap() })
    });
    let fenced = futures_util::future::join_all(observers).await;
    assert_eq!(fenced.into_iter().filter(|fenced| *fenced.as_ref().unwrap()).count(), 1);
}

async fn fenced_lease_stays_fenced(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    node.fence().await;

    let fenced = Err(RegistryError::Fenced);
    assert_eq!(arm.registry.open_lease(&node.incarnation, &gateway_info("g1")).await, fenced);
    assert_eq!(arm.registry.set_lease(&node.incarnation, LeaseTransition::Draining).await, fenced);
    assert_eq!(node.claim("bob").await.err(), Some(ClaimError::Registry(RegistryError::Fenced)));
    assert_eq!(
        node.claim_as(&ann.owner.session, "ann").await.err(),
        Some(ClaimError::Registry(RegistryError::Fenced)),
        "not even its own nick"
    );
    assert_eq!(ann.try_join("#other", JoinEntry::New).await.err(), Some(RegistryError::Fenced));
    let status = arm.registry.set_status(ann.nick.key(), &ann.owner, &member(&ann.nick, &Status::default()), &[]).await;
    assert_eq!(status.err(), Some(RegistryError::Fenced));

    // Calls that only give up something still work, without waiting for the reaper.
    assert!(ann.leave_with("#lobby", LeftReason::Closed, LeaveIntent::ForGood).await);
    assert!(ann.release().await);
}

async fn draining_lease_serves_and_drained_lease_refuses(arm: &RegistryArm) {
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
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online, "online until it is reaped");
    arm.registry.reap(&node.incarnation, 10).await.unwrap();
    assert!(!arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert!(arm.registry.gateways().await.unwrap().is_empty(), "a drained gateway leaves no row");
    assert_eq!(arm.registry.stats().await.unwrap().gateways, 0);
}

async fn drain_order_waits_for_gateways_next_beat(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    assert!(arm.registry.drain(&node.incarnation).await.unwrap());
    assert!(arm.registry.beat(&other.incarnation, &[]).await.unwrap().mailbox.is_empty());
    assert_eq!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox, [MailboxOrder::Drain]);
    assert!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox.is_empty(), "delivered once");
    node.fence().await;
    assert!(!arm.registry.drain(&node.incarnation).await.unwrap(), "the lease has ended");
    assert!(!arm.registry.drain(&Incarnation::random()).await.unwrap(), "the lease never existed");
}

async fn node_id_conflict_admits_one_first_lease(arm: &RegistryArm) {
    let (crashed, _other) = (arm.node("g1").await, arm.node("g2").await);
    let ended = [crashed.incarnation.clone()];
    let starts = (0..8).map(|_| {
        let (registry, ended) = (arm.registry.clone(), ended.clone());
        tokio::spawn(async move {
            let incarnation = Incarnation::random();
            let conflict = registry.open_first_lease(&incarnation, &gateway_info("g1"), &ended).await.unwrap();
            (incarnation, conflict)
        })
    });
    let starts: Vec<_> = starts.collect();
    let mut outcomes = Vec::new();
    for start in starts {
        outcomes.push(start.await.unwrap());
    }
    let winners: Vec<_> =
        outcomes.iter().filter(|(_, conflict)| conflict.is_none()).map(|(winner, _)| winner.clone()).collect();
    let [winner] = winners.as_slice() else { panic!("{} of them won", winners.len()) };
    assert!(
        outcomes.iter().filter_map(|(_, conflict)| conflict.as_ref()).all(|conflict| conflict == winner),
        "all others get the winner"
    );
    assert_eq!(
        arm.registry.open_first_lease(winner, &gateway_info("g1"), &ended).await,
        Ok(None),
        "repeated by the winner"
    );
    assert_eq!(arm.registry.leases().await.unwrap().leases.len(), 3, "the refused starts left no row");

    arm.registry.set_lease(winner, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    let next = Incarnation::random();
    assert_eq!(
        arm.registry.open_first_lease(&next, &gateway_info("g1"), &ended).await,
        Ok(None),
        "an ended lease is no conflict"
    );
}

async fn reported_usage_reaches_each_gateway_once(arm: &RegistryArm) {
    let (one, two, three) = (arm.node("g1").await, arm.node("g2").await, arm.node("g3").await);
    let beat = async |node: &super::GatewayLease, usage: &str, usage_seen: &str| {
        let report = BeatReport { usage, usage_seen, ..BeatReport::default() };
        arm.registry.send_beat(&node.incarnation, report).await.unwrap().usage
    };
    assert!(beat(&one, "", "").await.is_empty());
    let first = beat(&one, "address 1 messages=5", "").await;
    assert_eq!((first.len(), &first[0].by, first[0].text.as_str()), (1, &one.incarnation, "address 1 messages=5"));
    let both = beat(&two, "user 2 bytes=7\n", "").await;
    assert_eq!(
        both.iter().map(|report| report.text.as_str()).collect::<Vec<_>>(),
        ["address 1 messages=5", "user 2 bytes=7\n"]
    );
    assert_eq!(beat(&three, "", "").await, both, "a new gateway reads the last two seconds");
    assert_eq!(beat(&one, "", &first[0].id).await, both[1..]);
    assert!(beat(&two, "", &both[1].id).await.is_empty(), "only what is new");
}
