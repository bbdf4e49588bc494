//! Registry behaviour that needs a real Redis: script cache, full memory, expiry of keys, foreign data.
//!
//! Invariant: ended state expires or is reaped, live state never does. Lost data is covered in `reassert`.

use std::collections::BTreeSet;
use std::time::Duration;

use presence::model::{ListCursor, LookalikePolicy, Owner, Status, TokenHash};
use presence::registry::{
    ClaimError, JoinEntry, LeaseTransition, LocalClaim, ReapedBatch, RegistryError, ReleaseCause, ResumeTicket,
};

use super::{GatewayLease, RegistryArm, nick, room, token};

#[tokio::test]
async fn script_flush_does_not_disturb_registry() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    for number in 0..20 {
        let () = arm.ask(&["SCRIPT", "FLUSH"]).await;
        let user = node.user(&format!("user{number}")).await;
        let () = arm.ask(&["SCRIPT", "FLUSH"]).await;
        user.join("#lobby").await;
        arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    }
    assert_eq!(arm.registry.users(None, 100).await.unwrap().items.len(), 20);
}

#[tokio::test]
async fn full_redis_refuses_claims_and_allows_releases() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("ann").await, other.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let () = arm.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = node.claim("eve").await;
    assert!(matches!(refused, Err(ClaimError::Registry(RegistryError::Unavailable(_)))), "{:?}", refused.err());
    let joined = ann.try_join("#other", JoinEntry::New).await;
    assert!(matches!(joined, Err(RegistryError::Unavailable(_))), "{joined:?}");
    assert!(arm.registry.room(room("#other").key()).await.unwrap().is_none(), "refused without partial writes");

    arm.registry.beat(&node.incarnation, &[ann.nick.key().clone()]).await.unwrap();
    assert!(arm.registry.kick(ann.nick.key()).await.unwrap());
    assert!(ann.leave("#lobby").await);
    assert!(ann.release().await);
    other.fence().await;
    let reaped = arm.registry.reap(&other.incarnation, 10).await.unwrap();
    assert_eq!((reaped.nicks, reaped.members), (1, 1));
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
}

#[tokio::test]
async fn reaper_removes_unread_orders_of_dead_gateway() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    assert!(arm.registry.kick(ann.nick.key()).await.unwrap());
    assert!(ann.release().await);
    node.fence().await;
    let owns = async || {
        let table = arm.registry.leases().await.unwrap();
        table.leases.iter().any(|lease| lease.incarnation == node.incarnation && lease.owns)
    };
    assert!(owns().await, "an unread order keeps the lease listed as owning");
    arm.registry.reap(&node.incarnation, 10).await.unwrap();
    assert!(!owns().await);
    other.user("last").await;
}

#[tokio::test]
async fn gateway_users_are_counted_from_its_index() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    let bob = node.user("bob").await;
    let counts = async || arm.registry.gateways().await.unwrap().into_iter().map(|row| row.users).collect::<Vec<_>>();
    assert_eq!(counts().await, [2, 0], "claims count without a beat");
    let ttl: i64 = arm.ask(&["TTL", &arm.keys.node(&node.incarnation).owned_nicks()]).await;
    assert_eq!(ttl, -1, "the index never expires");

    assert!(ann.release().await);
    assert!(bob.detach(Duration::from_secs(60)).await);
    let ticket =
        ResumeTicket { session: bob.owner.session.clone(), presented: token(&bob.owner.session, 0), user: None };
    let next = token(&bob.owner.session, 1);
    arm.registry.resume(&other.incarnation, &ticket, &bob.nick, &next).await.unwrap();
    assert_eq!(counts().await, [0, 1]);
}

/// Reasserts a nick in another spelling.
async fn reassert_spelling(arm: &RegistryArm, node: &GatewayLease, spelling: &str, owner: &Owner) {
    let claim = LocalClaim {
        nick: nick(spelling),
        owner: owner.clone(),
        user: None,
        status: Status::default(),
        rooms: Vec::new(),
        token: TokenHash::of(b"secret"),
        detached: false,
    };
    let generation = arm.registry.beat(&node.incarnation, &[]).await.unwrap().generation.number;
    assert!(node.try_reassert(generation, &[claim]).await.unwrap().is_empty());
}

#[tokio::test]
async fn list_without_scores_is_paged_completely() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    for number in 0..50 {
        node.user(&format!("user{number}")).await.join("#lobby").await;
    }
    // Gateways of an older version give every nickname the score 0.
    let lobby = room("#lobby");
    for list in [String::from(arm.keys.online()), arm.keys.room(lobby.key()).member_list().into()] {
        for number in 0..30 {
            let changed: u64 = arm.ask(&["ZADD", &list, "CH", "0", &format!("user{number}")]).await;
            assert_eq!(changed, 1);
        }
    }
    let (mut users, mut members) = (Vec::new(), Vec::new());
    let mut cursor: Option<ListCursor> = None;
    loop {
        let page = arm.registry.users(cursor, 7).await.unwrap();
        users.extend(page.items.into_iter().map(|user| user.nick));
        let Some(next) = page.next_cursor else { break };
        cursor = Some(next.parse().unwrap());
    }
    cursor = None;
    loop {
        let page = arm.registry.members(lobby.key(), cursor, 7).await.unwrap();
        members.extend(page.items.into_iter().map(|member| member.nick));
        let Some(next) = page.next_cursor else { break };
        cursor = Some(next.parse().unwrap());
    }
    for found in [users, members] {
        assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len()), (50, 50), "{found:?}");
    }
}

#[tokio::test]
async fn room_seq_is_maximum_of_meta_and_stream() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let lobby = room("#lobby");
    let (meta, stream) = (arm.keys.room(lobby.key()).meta(), arm.keys.room(lobby.key()).stream());
    let () = arm.ask(&["XADD", &stream, "7-0", "m", "x"]).await;
    assert_eq!(ann.join("#lobby").await.seq, 7, "the meta was lost");
    let () = arm.ask(&["HSET", &meta, "seq", "9"]).await;
    assert_eq!(ann.join("#lobby").await.seq, 9, "the stream was trimmed");
    assert_eq!(arm.registry.room(lobby.key()).await.unwrap().unwrap().seq, 9);
}

#[tokio::test]
async fn ended_records_expire_and_live_ones_stay() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    arm.append_message(&room("#lobby"), &ann.nick, &ann.owner).await;
    let keys = [
        String::from(arm.keys.nick(ann.nick.key()).record()),
        arm.keys.session(&ann.owner.session).record().into(),
        arm.keys.room(room("#lobby").key()).meta().into(),
    ];
    let ttls = async || {
        let mut ttls = Vec::new();
        for key in &keys {
            ttls.push(arm.ask::<i64>(&["TTL", key]).await / 3600);
        }
        ttls
    };
    assert_eq!(ttls().await, [0, 0, 0], "no key has an expiry");
    ann.leave("#lobby").await;
    ann.release().await;
    assert!(ttls().await.iter().all(|hours| (71..=73).contains(hours)), "{:?}", ttls().await);
    let again = node.claim_as(&ann.owner.session, "ann").await.unwrap();
    again.join("#lobby").await;
    assert_eq!(ttls().await, [0, 0, 0]);

    // Every key carries the hash tag of the one partition.
    let keys: Vec<String> = arm.ask(&["KEYS", "*"]).await;
    assert!(keys.iter().all(|key| key.starts_with(arm.keys.base())), "{keys:?}");
}

#[tokio::test]
async fn forgotten_room_leaves_no_key() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    let room_keys = async || {
        let keys: Vec<String> = arm.ask(&["KEYS", "*lobby*"]).await;
        keys.into_iter().collect::<BTreeSet<_>>()
    };
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    assert!(ann.leave("#lobby").await);
    assert_eq!(room_keys().await.len(), 3, "meta, members and their list");
    assert!(bob.leave("#lobby").await);
    assert_eq!(room_keys().await, BTreeSet::new());
}

#[tokio::test]
async fn skeleton_of_held_nick_expires_with_hold() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let node = GatewayLease { registry: arm.registry_with(LookalikePolicy::ExceptAscii), ..node };
    let (ann, other) = (node.user("nil").await, node.user("ni1").await);
    assert_eq!(ann.nick.skeletons(), other.nick.skeletons(), "two ASCII names may share one");
    let skeleton = arm.keys.skeleton(ann.nick.skeletons().mapped()).nicks();
    let expire = async |user: &super::NickSession| {
        assert!(user.detach(Duration::from_secs(60)).await && user.expire().await);
        arm.ask::<i64>(&["TTL", &skeleton]).await
    };
    assert_eq!(expire(&ann).await, -1, "the other nick is still owned");
    assert!((1..=60).contains(&expire(&other).await), "both are only held");
    let again =
        ResumeTicket { session: ann.owner.session.clone(), presented: token(&ann.owner.session, 0), user: None };
    let next = token(&ann.owner.session, 1);
    node.registry.resume(&node.incarnation, &again, &ann.nick, &next).await.unwrap();
    assert_eq!(arm.ask::<i64>(&["TTL", &skeleton]).await, -1, "owned again");
}

/// Checks that each skeleton names owned or held nicks in their present spelling, and expires with the last hold.
async fn assert_index_is_exact(arm: &RegistryArm) {
    let base = arm.keys.base();
    for skeleton in arm.ask::<Vec<String>>(&["KEYS", &format!("{base}skeleton:*")]).await {
        let lives = arm.ask::<i64>(&["TTL", &skeleton]).await;
        let mut is_owned = false;
        for nick in arm.ask::<Vec<String>>(&["ZRANGE", &skeleton, "0", "-1"]).await {
            let fields = ["HMGET", &format!("{base}nick:{nick}"), "owner", "held", "skeleton"];
            let (owner, held, spelling): (Option<String>, Option<String>, Option<String>) = arm.ask(&fields).await;
            assert!(owner.is_some() || held.is_some(), "{skeleton} names {nick}, which is free");
            let spelling = spelling.unwrap_or_default();
            assert!(spelling.split(' ').any(|own| skeleton.ends_with(&format!("skeleton:{own}"))), "{skeleton} {nick}");
            is_owned |= owner.is_some();
        }
        assert_eq!(lives == -1, is_owned, "{skeleton} expires in {lives} s");
    }
}

#[tokio::test]
async fn index_of_lookalikes_follows_every_change() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let node = GatewayLease { registry: arm.registry_with(LookalikePolicy::ExceptAscii), ..node };
    let hold = async |user: &super::NickSession| {
        assert!(user.detach(Duration::from_secs(60)).await && user.expire().await);
        assert_index_is_exact(&arm).await;
    };
    // Names in ASCII may share a skeleton: one is held, and the owner of the other one respells it.
    let (held, owned) = (node.user("paypal").await, node.user("paypaI").await);
    hold(&held).await;
    let owned = node.claim_as(&owned.owner.session, "paypai").await.unwrap();
    assert_index_is_exact(&arm).await;
    let owned = node.claim_as(&owned.owner.session, "paypaI").await.unwrap();
    assert_index_is_exact(&arm).await;
    // The store went back to that spelling.
    reassert_spelling(&arm, &node, "paypai", &owned.owner).await;
    assert_index_is_exact(&arm).await;
    let owned = node.claim_as(&owned.owner.session, "paypaI").await.unwrap();
    assert!(owned.release().await);
    assert_index_is_exact(&arm).await;
    // A free nick beside an owned one.
    let (one, other) = (node.user("nil").await, node.user("ni1").await);
    assert!(one.release().await);
    assert_index_is_exact(&arm).await;
    // A session returns under another nick, which ends the hold of the former one.
    hold(&other).await;
    let ticket =
        ResumeTicket { session: other.owner.session.clone(), presented: token(&other.owner.session, 0), user: None };
    let next = token(&other.owner.session, 1);
    node.registry.resume(&node.incarnation, &ticket, &nick("eve"), &next).await.unwrap();
    assert_index_is_exact(&arm).await;
    node.user("paypaI").await;
    node.fence().await;
    arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_index_is_exact(&arm).await;
}

#[tokio::test]
async fn next_claim_removes_stale_lookalikes() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let node = GatewayLease { registry: arm.registry_with(LookalikePolicy::ExceptAscii), ..node };
    // One more than are examined when a hold begins, so their skeleton does not expire with the last hold.
    let users = node.lookalikes(17).await;
    for user in &users {
        assert!(user.detach(Duration::ZERO).await && user.expire().await);
    }
    let index = arm.keys.skeleton(users[0].nick.skeletons().shown()).nicks();
    assert_eq!(arm.ask::<u64>(&["ZCARD", &index]).await, 17);
    let newcomer = node.user("\u{441}lllll").await;
    assert_eq!(arm.ask::<Vec<String>>(&["ZRANGE", &index, "0", "-1"]).await, [newcomer.nick.key().as_str()]);
}

#[tokio::test]
async fn ended_sessions_leave_only_retained_keys() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    // One user renames and leaves, one loses its gateway, and one nick is claimed from the fenced gateway.
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    let anna = node.claim_as(&ann.owner.session, "anna").await.unwrap();
    anna.try_join("#lobby", JoinEntry::Renamed(&ann.nick, &ann.owner)).await.unwrap();
    arm.registry.release(&ann.nick, &ann.owner, ReleaseCause::RenamedTo(&anna.nick)).await.unwrap();
    let lost = other.user("lost").await;
    lost.join("#lobby").await;
    let taken = other.user("taken").await;
    taken.join("#lobby").await;
    arm.registry.kick(lost.nick.key()).await.unwrap();
    other.fence().await;
    let taker = node.user("taken").await;
    taker.join("#lobby").await;
    arm.registry.reap(&other.incarnation, 100).await.unwrap();
    for user in [anna, taker] {
        assert!(user.leave("#lobby").await);
        assert!(user.release().await);
    }

    let mut keys: Vec<String> = arm.ask(&["KEYS", "*"]).await;
    keys.iter_mut().for_each(|key| *key = key.replace(arm.keys.base(), "").replace("session", "session "));
    keys.sort_unstable();
    let sessions = keys.iter().filter(|key| key.starts_with("session :")).count();
    let restored = keys.iter().filter(|key| key.starts_with("session -rooms:")).count();
    keys.retain(|key| !key.starts_with("session "));
    let retained = ["nick:ann", "nick:anna", "nick:lost", "nick:taken"];
    let tables = ["asserted", "beats", "ended", "events", "fence", "gateways", "generation", "leases"];
    let mut expected: Vec<&str> = retained.into_iter().chain(tables).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!((sessions, restored), (4, 2), "two sessions left their rooms unwillingly");
}

#[tokio::test]
async fn reaper_trusts_records_over_indexes() {
    let arm = RegistryArm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = other.user("ann").await;
    ann.join("#lobby").await;
    node.fence().await;
    let () = arm.ask(&["SADD", &arm.keys.node(&node.incarnation).owned_nicks(), "ann", "never"]).await;
    let () = arm.ask(&["SADD", &arm.keys.node(&node.incarnation).owned_members(), "lobby ann", "never ann"]).await;

    assert!(arm.registry.reap(&node.incarnation, 3).await.unwrap().more);
    assert_eq!(arm.registry.reap(&node.incarnation, 3).await.unwrap(), ReapedBatch::default());
    arm.assert_only_owner("g2").await;
    assert!(ann.leave("#lobby").await);
    assert!(ann.release().await);
}

#[tokio::test]
async fn dead_gateways_row_expires_after_an_hour() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    node.fence().await;
    arm.registry.reap(&node.incarnation, 10).await.unwrap();
    assert_eq!(arm.registry.leases().await.unwrap().leases.len(), 1);
    let ended = arm.keys.ended();
    let row = node.incarnation.as_str();
    let () = arm.ask(&["HINCRBY", &ended, row, "-3601000"]).await;
    arm.registry.reap(&node.incarnation, 10).await.unwrap();
    assert!(arm.registry.leases().await.unwrap().leases.is_empty());
    for table in [arm.keys.beats(), arm.keys.gateways(), ended] {
        let exists: bool = arm.ask(&["EXISTS", &table]).await;
        assert!(!exists);
    }
}

#[tokio::test]
async fn foreign_lease_row_does_not_stop_beats() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let () = arm.ask(&["HSET", &arm.keys.leases(), "x", "odd"]).await;
    let () = arm.ask(&["HSET", &arm.keys.leases(), "y", "live"]).await;
    let beat = arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    assert_eq!(beat.leases.len(), 1, "the valid row is read");
    assert_eq!(beat.leases, arm.registry.leases().await.unwrap().leases);
    assert_eq!(arm.registry.gateways().await.unwrap().len(), 1);
}

#[tokio::test]
async fn foreign_record_returns_error_without_panic() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let (_, nick) = (node.claim("ann").await.unwrap(), super::nick("ann"));
    let () = arm.ask(&["HSET", &arm.keys.nick(nick.key()).record(), "status", "{"]).await;
    assert!(matches!(arm.registry.user(nick.key()).await, Err(RegistryError::Unknown(_))));
}

#[tokio::test]
async fn reasserted_spelling_replaces_that_of_the_store() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("paypaI").await;
    // The store went back to the spelling before the newest one.
    reassert_spelling(&arm, &node, "paypai", &ann.owner).await;
    node.user("paypal").await;
}

#[tokio::test]
async fn session_resumes_without_a_room_of_invalid_name() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    ann.join("#old").await;
    let meta = arm.keys.room(room("#old").key()).meta();
    let () = arm.ask(&["HSET", &meta, "display", "#\u{301}old"]).await;
    let ticket =
        ResumeTicket { session: ann.owner.session.clone(), presented: token(&ann.owner.session, 0), user: None };
    let next = token(&ann.owner.session, 1);
    let found = arm.registry.resume(&node.incarnation, &ticket, &ann.nick, &next).await.unwrap();
    let rooms: Vec<_> = found.rooms.iter().map(|membership| membership.room.as_str()).collect();
    assert_eq!(rooms, ["#lobby"]);
}
