//! Clean-up after the dead: everything freed, every leave told once, nobody else touched.

use std::collections::HashMap;
use std::time::Duration;

use presence::model::LeftReason;
use presence::registry::{LeaseState, LeaseTransition, LeaveIntent, LeaveRequest, ReapedBatch};

use super::{Arm, on_both_arms, room};

on_both_arms! {
    a_live_gateway_is_left_alone,
    everything_of_a_dead_gateway_is_freed_in_rounds,
    four_reapers_tell_each_leave_once,
    what_others_took_since_stays_theirs,
    a_drained_gateway_is_cleaned_up_too,
}

async fn a_live_gateway_is_left_alone(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    assert_eq!(arm.registry.reap(&node.incarnation, 100).await.unwrap(), ReapedBatch::default());
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Draining).await.unwrap();
    assert_eq!(arm.registry.reap(&node.incarnation, 100).await.unwrap(), ReapedBatch::default());
    assert!(ann.leave("#lobby").await);
    assert!(ann.release().await);
}

/// A dead gateway with ten users in three rooms, one of which nobody else is in.
async fn crash(arm: &Arm) -> (super::Node, super::Node) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    for number in 0..10 {
        let user = node.user(&format!("dead{number}")).await;
        for name in ["#one", "#two", "#dead"] {
            user.join(name).await;
        }
    }
    let alive = other.user("alive").await;
    alive.join("#one").await;
    alive.join("#two").await;
    node.fence().await;
    (node, other)
}

/// Checks that everything of the crash is gone, and that each leave and each nick was told once.
async fn assert_clean(arm: &Arm, heard: HashMap<&str, super::arm::Heard>, other: &super::Node) {
    let last = other.user("last").await;
    for (name, heard) in heard {
        let before = last.join(name).await;
        let told = heard.deltas_until("\"last\"").await;
        let mut left: Vec<&str> = Vec::new();
        for (_, delta) in &told {
            for departure in delta["left"].as_array().into_iter().flatten() {
                assert_eq!(departure["reason"], "gateway_lost");
                left.push(departure["nick"].as_str().unwrap());
            }
        }
        left.sort_unstable();
        let expected: Vec<String> = (0..10).map(|number| format!("dead{number}")).collect();
        assert_eq!(left, expected, "{name}");
        let first = told[0].0;
        assert!(told.iter().map(|(version, _)| *version).eq(first..first + told.len() as u64), "{name}: {told:?}");
        assert_eq!(before.member_count, if name == "#dead" { 1 } else { 2 });
    }
    let history = arm.history().await;
    let count = |kind: &str| history.iter().filter(|event| event.starts_with(kind)).count();
    assert_eq!((count("offline "), count("leave ")), (10, 30));
    let users = arm.registry.users(None, 100).await.unwrap().items;
    assert_eq!(users.iter().map(|user| user.nick.as_str()).collect::<Vec<_>>(), ["alive", "last"]);
    let leases = arm.registry.leases().await.unwrap().leases;
    assert!(leases.iter().all(|lease| lease.owns == (lease.node == "g2")), "{leases:?}");
    for number in 0..10 {
        other.user(&format!("dead{number}")).await;
    }
}

async fn listen(arm: &Arm) -> HashMap<&'static str, super::arm::Heard> {
    let mut heard = HashMap::new();
    for name in ["#one", "#two", "#dead"] {
        heard.insert(name, arm.listen(&arm.keys.room(room(name).key()).channel()).await);
    }
    heard
}

async fn everything_of_a_dead_gateway_is_freed_in_rounds(arm: &Arm) {
    let (node, other) = crash(arm).await;
    let heard = listen(arm).await;
    let mut total = ReapedBatch { more: true, ..ReapedBatch::default() };
    while total.more {
        let round = arm.registry.reap(&node.incarnation, 7).await.unwrap();
        assert!(round.nicks + round.members <= 7, "{round:?}");
        assert!(round.nicks + round.members > 0 || !round.more, "every round gets somewhere");
        total =
            ReapedBatch { nicks: total.nicks + round.nicks, members: total.members + round.members, more: round.more };
    }
    assert_eq!((total.nicks, total.members), (10, 30));
    assert_eq!(arm.registry.reap(&node.incarnation, 7).await.unwrap(), ReapedBatch::default());
    assert!(arm.registry.room(room("#dead").key()).await.unwrap().unwrap().member_count == 0);
    assert_clean(arm, heard, &other).await;

    let gateways = arm.registry.gateways().await.unwrap();
    let rows: Vec<_> = gateways.iter().map(|gateway| (gateway.node.as_str(), gateway.state)).collect();
    assert_eq!(rows, [("g1", LeaseState::Fenced), ("g2", LeaseState::Live)], "the row stays to be seen for an hour");
}

async fn four_reapers_tell_each_leave_once(arm: &Arm) {
    let (node, other) = crash(arm).await;
    let heard = listen(arm).await;
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
            panic!("forty rounds of three did not end it");
        })
    });
    let totals = futures_util::future::join_all(reapers).await.into_iter().map(Result::unwrap);
    let total = totals.fold((0, 0), |sum, total| (sum.0 + total.0, sum.1 + total.1));
    assert_eq!(total, (10, 30));
    assert_clean(arm, heard, &other).await;
}

async fn what_others_took_since_stays_theirs(arm: &Arm) {
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
        "bob, his rooms, and what ann did not retake"
    );
    let user = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert_eq!((user.online, user.rooms.as_slice()), (true, ["#one".to_owned()].as_slice()));
    assert!(ann.leave("#one").await);
    assert!(ann.release().await);
}

async fn a_drained_gateway_is_cleaned_up_too(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    let reaped = arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_eq!((reaped.nicks, reaped.members, reaped.more), (1, 1, false));
    assert!(
        !arm.registry
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
    other.user("ann").await;
}
