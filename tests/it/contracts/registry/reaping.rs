//! The contract of reaping: all claims of a fenced gateway are freed, each leave is announced once, others stay.

use std::collections::HashMap;
use std::time::Duration;

use presence::model::LeftReason;
use presence::registry::{LeaseState, LeaseTransition, LeaveIntent, ReapedBatch};

use super::{RegistryArm, on_both_arms, room};

on_both_arms! {
    reaper_leaves_live_gateway_alone,
    reaper_frees_dead_gateway_in_bounded_rounds,
    concurrent_reapers_announce_each_leave_once,
    reaper_spares_nicks_claimed_since,
    reaper_cleans_up_drained_gateway,
}

async fn reaper_leaves_live_gateway_alone(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    assert_eq!(arm.registry.reap(&node.incarnation, 100).await.unwrap(), ReapedBatch::default());
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Draining).await.unwrap();
    assert_eq!(arm.registry.reap(&node.incarnation, 100).await.unwrap(), ReapedBatch::default());
    assert!(ann.leave("#lobby").await);
    assert!(ann.release().await);
}

/// Fences a gateway with ten users in three rooms with messages; `#dead` has no other members.
async fn crash_gateway(arm: &RegistryArm) -> (super::GatewayLease, super::GatewayLease) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    for number in 0..10 {
        let user = node.user(&format!("dead{number}")).await;
        for name in ["#one", "#two", "#dead"] {
            user.join(name).await;
            arm.append_message(&room(name), &user.nick, &user.owner).await;
        }
    }
    let alive = other.user("alive").await;
    alive.join("#one").await;
    alive.join("#two").await;
    node.fence().await;
    (node, other)
}

/// Checks that nothing of the crashed gateway is left, and that each leave was announced once.
async fn assert_reaped(
    arm: &RegistryArm,
    channels: HashMap<&str, super::arm::ChannelLog>,
    other: &super::GatewayLease,
) {
    let last = other.user("last").await;
    for (name, channel) in channels {
        let before = last.join(name).await;
        let deltas = channel.deltas_until("\"last\"").await;
        let mut left: Vec<&str> = Vec::new();
        for (_, delta) in &deltas {
            for member in delta["left"].as_array().into_iter().flatten() {
                assert_eq!(member["reason"], "gateway_lost");
                left.push(member["nick"].as_str().unwrap());
            }
        }
        left.sort_unstable();
        let expected: Vec<String> = (0..10).map(|number| format!("dead{number}")).collect();
        assert_eq!(left, expected, "{name}");
        let first = deltas[0].0;
        assert!(
            deltas.iter().map(|(version, _)| *version).eq(first..first + deltas.len() as u64),
            "{name}: {deltas:?}"
        );
        assert_eq!(before.member_count, if name == "#dead" { 1 } else { 2 });
    }
    let history = arm.history().await;
    let count = |kind: &str| history.iter().filter(|event| event.starts_with(kind)).count();
    assert_eq!((count("offline "), count("leave ")), (10, 30));
    let users = arm.registry.users(None, 100).await.unwrap().items;
    assert_eq!(users.iter().map(|user| user.nick.as_str()).collect::<Vec<_>>(), ["alive", "last"]);
    arm.assert_only_owner("g2").await;
    for number in 0..10 {
        other.user(&format!("dead{number}")).await;
    }
}

/// Subscribes to the channels of the three rooms.
async fn listen_to_rooms(arm: &RegistryArm) -> HashMap<&'static str, super::arm::ChannelLog> {
    let mut channels = HashMap::new();
    for name in ["#one", "#two", "#dead"] {
        channels.insert(name, arm.listen_to_room(name).await);
    }
    channels
}

async fn reaper_frees_dead_gateway_in_bounded_rounds(arm: &RegistryArm) {
    let (node, other) = crash_gateway(arm).await;
    let channels = listen_to_rooms(arm).await;
    let mut total = ReapedBatch { more: true, ..ReapedBatch::default() };
    while total.more {
        let round = arm.registry.reap(&node.incarnation, 7).await.unwrap();
        assert!(round.nicks + round.members <= 7, "{round:?}");
        assert!(round.nicks + round.members > 0 || !round.more, "every round makes progress");
        total =
            ReapedBatch { nicks: total.nicks + round.nicks, members: total.members + round.members, more: round.more };
    }
    assert_eq!((total.nicks, total.members), (10, 30));
    assert_eq!(arm.registry.reap(&node.incarnation, 7).await.unwrap(), ReapedBatch::default());
    assert!(arm.registry.room(room("#dead").key()).await.unwrap().unwrap().member_count == 0);
    assert_reaped(arm, channels, &other).await;

    let gateways = arm.registry.gateways().await.unwrap();
    let rows: Vec<_> = gateways.iter().map(|gateway| (gateway.node.as_str(), gateway.state)).collect();
    assert_eq!(rows, [("g1", LeaseState::Fenced), ("g2", LeaseState::Live)], "the row stays for an hour");
}

async fn concurrent_reapers_announce_each_leave_once(arm: &RegistryArm) {
    let (node, other) = crash_gateway(arm).await;
    let channels = listen_to_rooms(arm).await;
    let reapers = (0..4).map(|_| {
        let node = node.clone();
        tokio::spawn(async move {
            let mut total = (0, 0);
            for _ in 0..40 {
                let round = node.registry.reap(&node.incarnation, 3).await.unwrap();
                total = (total.0 + round.nicks, total.1 + round.members);
                if !round.more {
                    return total;
                }
            }
            panic!("forty rounds of three were not enough");
        })
    });
    let totals = futures_util::future::join_all(reapers).await.into_iter().map(Result::unwrap);
    let total = totals.fold((0, 0), |sum, total| (sum.0 + total.0, sum.1 + total.1));
    assert_eq!(total, (10, 30));
    assert_reaped(arm, channels, &other).await;
}

async fn reaper_spares_nicks_claimed_since(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    for name in ["ann", "bob"] {
        let user = node.user(name).await;
        user.join("#one").await;
        user.join("#two").await;
    }
    node.fence().await;
    let ann = other.user("ann").await;
    ann.join("#one").await;

    let reaped = arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_eq!(
        (reaped.nicks, reaped.members, reaped.more),
        (1, 3, false),
        "bob, his rooms, and the room that ann did not rejoin"
    );
    let user = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert_eq!((user.online, user.rooms.as_slice()), (true, ["#one".to_owned()].as_slice()));
    assert!(ann.leave("#one").await);
    assert!(ann.release().await);
}

async fn reaper_cleans_up_drained_gateway(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    let reaped = arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_eq!((reaped.nicks, reaped.members, reaped.more), (1, 1, false));
    assert!(!ann.leave_with("#lobby", LeftReason::Closed, LeaveIntent::ForGood).await);
    other.user("ann").await;
}
