//! The contract of memberships: each join and leave is stored and announced once, in versions without gaps.

use std::time::Duration;

use presence::model::{Availability, LeftReason, Status};
use presence::registry::{JoinEntry, JoinRequest, JoinedAt, LeaseTransition, LeaveIntent, RegistryError, ReleaseCause};
use serde_json::json;

use super::{NickSession, RegistryArm, joined, on_both_arms, room};

on_both_arms! {
    join_is_announced_exactly_once,
    leave_is_announced_exactly_once,
    members_versions_have_no_gaps,
    rename_replaces_the_room_member,
    respelled_nick_keeps_the_same_member,
    late_leave_of_old_claim_changes_nothing,
    old_claim_cannot_replace_newer_member,
    new_owner_of_dead_nick_replaces_member,
    listings_hide_members_of_dead_gateway,
    room_with_messages_outlives_its_last_member,
    unspoken_room_is_forgotten_however_it_empties,
    quiet_room_stays_while_a_member_is_left,
    join_may_be_limited_to_existing_rooms,
    repeated_join_reports_the_first_entry,
}

async fn join_is_announced_exactly_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("Ann").await, node.user("bob").await);
    let channel = arm.listen_to_room("#lobby").await;

    let first = ann.join("#Lobby").await;
    assert_eq!((first.room.as_str(), first.seq, first.member_count), ("#Lobby", 0, 1));
    assert!(!first.epoch.is_empty());
    assert_eq!(ann.join("#lobby").await, first, "the same answer, with the room's first spelling");
    assert_eq!(ann.join("#LOBBY").await, first);
    let second = bob.join("#lobby").await;
    assert_eq!((second.room, &second.epoch, second.member_count), (first.room, &first.epoch, 2));

    let deltas = channel.deltas_until("bob").await;
    assert_eq!(deltas, [(1, joined("Ann")), (2, joined("bob"))]);
    assert_eq!(arm.history().await, ["online Ann", "online bob", "join #Lobby Ann", "join #Lobby bob"]);
}

async fn leave_is_announced_exactly_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("Ann").await, node.user("bob").await);
    ann.join("#lobby").await;
    let channel = arm.listen_to_room("#lobby").await;

    assert!(!bob.leave("#lobby").await, "bob is not a member");
    let bob_as_ann = NickSession { owner: bob.owner.clone(), ..ann.clone() };
    assert!(!bob_as_ann.leave("#lobby").await, "bob does not own the nick");
    assert!(ann.leave_with("#lobby", LeftReason::Timeout, LeaveIntent::ForGood).await);
    assert!(!ann.leave("#lobby").await);
    assert!(!ann.leave("#never").await);
    bob.join("#lobby").await;

    let deltas = channel.deltas_until("bob").await;
    assert_eq!(deltas[0], (2, json!({ "left": [{ "nick": "Ann", "reason": "timeout" }] })));
    assert_eq!(deltas.len(), 2, "{deltas:?}");
    let history = arm.history().await;
    assert_eq!(history[3..], ["leave #lobby Ann timeout", "join #lobby bob"]);
}

async fn members_versions_have_no_gaps(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    node.user("host").await.join("#lobby").await;
    let channel = arm.listen_to_room("#lobby").await;
    let visits = (0..20).map(|number| {
        let node = node.clone();
        tokio::spawn(async move {
            let user = node.user(&format!("user{number}")).await;
            user.join("#lobby").await;
            user.join("#lobby").await;
            user.leave("#lobby").await;
            user.leave("#lobby").await;
        })
    });
    futures_util::future::join_all(visits).await.into_iter().for_each(Result::unwrap);
    node.user("last").await.join("#lobby").await;

    let deltas = channel.deltas_until("\"last\"").await;
    let versions: Vec<u64> = deltas.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (2..=42).collect::<Vec<u64>>());
}

async fn rename_replaces_the_room_member(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("Ann").await, node.user("bob").await);
    ann.join("#lobby").await;
    let channel = arm.listen_to_room("#lobby").await;

    let anna = node.claim_as(&ann.owner.session, "Anna").await.unwrap();
    let away = Status { status: Availability::Away, text: String::new() };
    for _ in 0..2 {
        let entry = JoinEntry::Renamed(&ann.nick, &ann.owner);
        let joined = arm
            .registry
            .join(JoinRequest {
                room: &room("#lobby"),
                nick: &anna.nick,
                owner: &anna.owner,
                user: None,
                status: &away,
                entry,
                moderates: false,
            })
            .await
            .unwrap();
        assert_eq!(joined.member_count, 1);
    }
    assert!(arm.registry.release(&ann.nick, &ann.owner, ReleaseCause::RenamedTo(&anna.nick)).await.unwrap());
    bob.join("#lobby").await;

    let deltas = channel.deltas_until("bob").await;
    assert_eq!(deltas[0], (2, json!({ "renamed": [{ "from": "Ann", "to": "Anna" }] })));
    assert_eq!(deltas.len(), 2, "{deltas:?}");
    let members = arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items;
    let nicks: Vec<_> = members.iter().map(|member| (member.nick.as_str(), member.status.status)).collect();
    assert_eq!(nicks, [("Anna", Availability::Away), ("bob", Availability::Online)]);
    assert_eq!(arm.registry.user(anna.nick.key()).await.unwrap().unwrap().rooms, ["#lobby"]);

    assert!(!ann.leave("#lobby").await, "the old nick is gone");
    assert!(anna.leave("#lobby").await);
    anna.release().await;
    bob.leave("#lobby").await;
    bob.release().await;
    assert!(!arm.registry.leases().await.unwrap().leases[0].owns, "the indexes are empty too");
}

async fn respelled_nick_keeps_the_same_member(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    ann.join("#lobby").await;
    let channel = arm.listen_to_room("#lobby").await;

    let respelled = node.claim_as(&ann.owner.session, "Ann").await.unwrap();
    for _ in 0..2 {
        respelled.try_join("#lobby", JoinEntry::Renamed(&ann.nick, &ann.owner)).await.unwrap();
    }
    bob.join("#lobby").await;
    let deltas = channel.deltas_until("bob").await;
    assert_eq!(deltas[0], (2, json!({ "renamed": [{ "from": "ann", "to": "Ann" }] })));
    assert_eq!(deltas.len(), 2, "{deltas:?}");
    assert_eq!(arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items[0].nick, "Ann");
    assert!(respelled.leave("#lobby").await);
}

async fn late_leave_of_old_claim_changes_nothing(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let old = node.user("ann").await;
    old.join("#lobby").await;
    old.leave("#lobby").await;
    old.release().await;
    let ann = node.claim_as(&old.owner.session, "ann").await.unwrap();
    assert_ne!(ann.owner.fence, old.owner.fence);
    ann.join("#lobby").await;

    assert!(!old.leave("#lobby").await);
    assert!(!old.release().await);
    let members = arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items;
    assert_eq!(members.len(), 1);
    assert!(ann.leave("#lobby").await);
}

async fn old_claim_cannot_replace_newer_member(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let old = node.user("ann").await;
    old.release().await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;

    let late = old.try_join("#lobby", JoinEntry::New).await;
    assert!(matches!(late, Err(RegistryError::Unavailable(_))), "{late:?}");
    assert!(ann.leave("#lobby").await);
}

async fn new_owner_of_dead_nick_replaces_member(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    node.user("ann").await.join("#lobby").await;
    node.fence().await;
    let channel = arm.listen_to_room("#lobby").await;

    let ann = other.user("ann").await;
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().rooms.is_empty(), "the new owner has no rooms");
    assert_eq!(ann.join("#lobby").await.member_count, 1);
    arm.assert_only_owner("g2").await;
    let reaped = arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_eq!((reaped.members, reaped.nicks, reaped.more), (0, 0, false));

    other.user("bob").await.join("#lobby").await;
    let deltas = channel.deltas_until("bob").await;
    assert_eq!(deltas, [(2, joined("ann")), (3, joined("bob"))], "the old member leaves silently");
    let history = arm.history().await;
    assert_eq!(history[4..6], ["leave #lobby ann gateway_lost", "join #lobby ann"]);
}

async fn listings_hide_members_of_dead_gateway(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    node.user("ann").await.join("#lobby").await;
    other.user("bob").await.join("#lobby").await;
    node.fence().await;
    let nicks = |items: Vec<presence::model::MemberInfo>| items.into_iter().map(|item| item.nick).collect::<Vec<_>>();
    assert_eq!(nicks(arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items), ["bob"]);
    let users = arm.registry.users(None, 10).await.unwrap().items;
    assert_eq!(users.iter().map(|user| user.nick.as_str()).collect::<Vec<_>>(), ["bob"]);
}

async fn room_with_messages_outlives_its_last_member(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    assert!(arm.registry.room(room("#lobby").key()).await.unwrap().is_none());
    let first = ann.join("#Lobby").await;
    arm.append_message(&room("#lobby"), &ann.nick, &ann.owner).await;
    assert_eq!(arm.registry.stats().await.unwrap().rooms, 1);
    ann.leave("#lobby").await;

    assert!(arm.registry.rooms(None, 10).await.unwrap().items.is_empty());
    assert_eq!(arm.registry.stats().await.unwrap().rooms, 0);
    let empty = arm.registry.room(room("#lobby").key()).await.unwrap().unwrap();
    assert_eq!((empty.room.as_str(), empty.member_count), ("#Lobby", 0));
    assert_eq!(ann.join("#lobby").await, JoinedAt { seq: 1, ..first }, "the same epoch and name");
}

async fn unspoken_room_is_forgotten_however_it_empties(arm: &RegistryArm) {
    const ROOMS: [&str; 4] = ["#left", "#closed", "#lost", "#drained"];
    let (node, dead, drained) = (arm.node("g1").await, arm.node("g2").await, arm.node("g3").await);
    let ann = node.user("ann").await;
    let mut entered = Vec::new();
    for name in ["#left", "#closed"] {
        entered.push(ann.join(name).await);
    }
    entered.push(dead.user("bob").await.join("#lost").await);
    entered.push(drained.user("cat").await.join("#drained").await);
    for name in ROOMS {
        assert!(arm.registry.room(room(name).key()).await.unwrap().is_some(), "{name}");
    }
    ann.leave("#left").await;
    ann.leave_with("#closed", LeftReason::Timeout, LeaveIntent::ForNow).await;
    dead.fence().await;
    arm.registry.set_lease(&drained.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
    for lease in [&dead, &drained] {
        assert_eq!(arm.registry.reap(&lease.incarnation, 100).await.unwrap().members, 1);
    }

    for (name, former) in ROOMS.into_iter().zip(entered) {
        assert!(arm.registry.room(room(name).key()).await.unwrap().is_none(), "{name} was not forgotten");
        let again = ann.join(&name.to_uppercase()).await;
        assert_eq!((again.room.as_str(), again.seq, again.forks.len()), (&*name.to_uppercase(), 0, 0));
        assert_ne!(again.epoch, former.epoch, "{name}: a room begins again with an epoch of its own");
    }
}

async fn quiet_room_stays_while_a_member_is_left(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    let first = ann.join("#lobby").await;
    bob.join("#lobby").await;
    ann.leave("#lobby").await;
    assert_eq!(ann.join("#lobby").await, JoinedAt { member_count: 2, ..first.clone() });
    let anna = node.claim_as(&ann.owner.session, "Anna").await.unwrap();
    bob.leave("#lobby").await;
    // A rename replaces the record of the only member.
    let renamed = anna.try_join("#lobby", JoinEntry::Renamed(&ann.nick, &ann.owner)).await.unwrap();
    assert_eq!(renamed, first);
}

async fn join_may_be_limited_to_existing_rooms(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    assert_eq!(bob.try_join("#lobby", JoinEntry::Existing).await, Err(RegistryError::NoSuchRoom));
    assert!(arm.registry.room(room("#lobby").key()).await.unwrap().is_none(), "nothing was written");
    assert!(arm.registry.user(bob.nick.key()).await.unwrap().unwrap().rooms.is_empty());

    ann.join("#lobby").await;
    let channel = arm.listen_to_room("#lobby").await;
    assert_eq!(bob.try_join("#LOBBY", JoinEntry::Existing).await.unwrap().member_count, 2);
    assert_eq!(channel.deltas_until("bob").await, [(2, joined("bob"))]);
    ann.leave("#lobby").await;
    bob.leave("#lobby").await;
    assert_eq!(bob.try_join("#lobby", JoinEntry::Existing).await, Err(RegistryError::NoSuchRoom), "it is forgotten");

    ann.join("#spoken").await;
    arm.append_message(&room("#spoken"), &ann.nick, &ann.owner).await;
    ann.leave("#spoken").await;
    assert_eq!(bob.try_join("#spoken", JoinEntry::Existing).await.unwrap().member_count, 1, "it has a history");
}

async fn repeated_join_reports_the_first_entry(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    assert!(ann.join("#lobby").await.is_first_entry());
    assert!(ann.join("#lobby").await.is_first_entry(), "the first answer may have been lost");
    assert!(!bob.join("#lobby").await.is_first_entry());
    ann.leave("#lobby").await;
    arm.append_message(&room("#lobby"), &bob.nick, &bob.owner).await;
    bob.leave("#lobby").await;
    assert!(!ann.join("#lobby").await.is_first_entry(), "the room was there before");
}
