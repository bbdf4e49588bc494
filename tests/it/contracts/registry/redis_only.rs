//! What only a real Redis can show: a flushed script cache, a full memory, a new history, and which keys are touched.

use std::time::Duration;

use presence::model::{LeftReason, Status};
use presence::registry::{
    ClaimError, JoinEntry, JoinRequest, LeaseTransition, LeaveIntent, LeaveRequest, ReapedBatch, RegistryError,
    ResumeTicket,
};

use super::{Arm, room, token};

#[tokio::test]
async fn a_flushed_script_cache_is_invisible() {
    let arm = Arm::redis().await;
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
async fn a_full_redis_takes_nothing_new_and_lets_everything_go() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("ann").await, other.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let () = arm.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = node.claim("eve").await;
    assert!(matches!(refused, Err(ClaimError::Registry(RegistryError::Unavailable(_)))), "{:?}", refused.err());
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
    assert!(matches!(joined, Err(RegistryError::Unavailable(_))), "{joined:?}");
    assert!(arm.registry.room(room("#other").key()).await.unwrap().is_none(), "refused whole");

    arm.registry.beat(&node.incarnation, &[ann.nick.key().clone()]).await.unwrap();
    assert!(arm.registry.kick(ann.nick.key()).await.unwrap());
    assert!(
        arm.registry
            .leave(LeaveRequest {
                room: &room("#lobby"),
                nick: &ann.nick,
                owner: &ann.owner,
                reason: LeftReason::Left,
                intent: LeaveIntent::ForGood
            })
            .await
            .unwrap()
    );
    assert!(ann.release().await);
    other.fence().await;
    let reaped = arm.registry.reap(&other.incarnation, 10).await.unwrap();
    assert_eq!((reaped.nicks, reaped.members), (1, 1));
    arm.registry.set_lease(&node.incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
}

#[tokio::test]
async fn orders_that_a_dead_gateway_never_fetched_are_cleaned_up() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    assert!(arm.registry.kick(ann.nick.key()).await.unwrap());
    assert!(ann.release().await);
    node.fence().await;
    let owns = async || {
        let table = arm.registry.leases().await.unwrap();
        table.leases.iter().any(|lease| lease.incarnation == node.incarnation && lease.owns)
    };
    assert!(owns().await, "somebody has to step in");
    arm.registry.reap(&node.incarnation, 10).await.unwrap();
    assert!(!owns().await);
    other.user("last").await;
}

#[tokio::test]
async fn the_listing_cache_is_rebuilt_from_the_index() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    node.user("ann").await;
    node.user("bob").await;
    let cache = arm.keys.node(&node.incarnation).nicks();
    let ttl: i64 = arm.ask(&["TTL", &cache]).await;
    assert!((890..=900).contains(&ttl), "{ttl}");

    let () = arm.ask(&["DEL", &cache]).await;
    assert_eq!(arm.registry.gateways().await.unwrap()[0].users, 0);
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    assert_eq!(arm.registry.gateways().await.unwrap()[0].users, 2);
    let () = arm.ask(&["EXPIRE", &cache, "5"]).await;
    arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    let ttl: i64 = arm.ask(&["TTL", &cache]).await;
    assert!(ttl > 890, "{ttl}");
}

#[tokio::test]
async fn the_number_of_a_room_is_the_furthest_of_meta_and_log() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let lobby = room("#lobby");
    let (meta, log) = (arm.keys.room(lobby.key()).meta(), arm.keys.room(lobby.key()).stream());
    let () = arm.ask(&["XADD", &log, "7-0", "m", "x"]).await;
    assert_eq!(ann.join("#lobby").await.seq, 7, "the meta was lost");
    let () = arm.ask(&["HSET", &meta, "seq", "9"]).await;
    assert_eq!(ann.join("#lobby").await.seq, 9, "the log was trimmed");
    assert_eq!(arm.registry.room(lobby.key()).await.unwrap().unwrap().seq, 9);
}

#[tokio::test]
async fn what_ended_is_forgotten_in_time_and_what_lives_is_not() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
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
    assert_eq!(ttls().await, [0, 0, 0], "none of them has one");
    ann.leave("#lobby").await;
    ann.release().await;
    assert!(ttls().await.iter().all(|hours| (71..=73).contains(hours)), "{:?}", ttls().await);
    let again = node.claim_as(&ann.owner.session, "ann").await.unwrap();
    again.join("#lobby").await;
    assert_eq!(ttls().await, [0, 0, 0]);

    // Every key that was made carries the one hash tag.
    let made: Vec<String> = arm.ask(&["KEYS", "*"]).await;
    assert!(made.iter().all(|key| key.starts_with(arm.keys.base())), "{made:?}");
}

#[tokio::test]
async fn the_skeleton_of_a_held_nick_goes_with_the_hold() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let (ann, other) = (node.user("nil").await, node.user("ni1").await);
    assert_eq!(ann.nick.skeleton(), other.nick.skeleton(), "two ASCII names may share one");
    let skeleton = arm.keys.skeleton(ann.nick.skeleton()).nicks();
    let hold = Duration::from_secs(60);
    let depart = async |user: &super::User| {
        assert!(arm.registry.detach(&user.nick, &user.owner, hold).await.unwrap());
        assert!(arm.registry.expire_detached(&user.nick, &user.owner, LeftReason::Closed).await.unwrap());
        arm.ask::<i64>(&["TTL", &skeleton]).await
    };
    assert_eq!(depart(&ann).await, -1, "the other one is owned");
    assert!((1..=60).contains(&depart(&other).await), "both are only held");
    let again = ResumeTicket { session: ann.owner.session.clone(), presented: token(&ann.owner.session, 0) };
    let next = token(&ann.owner.session, 1);
    arm.registry.resume(&node.incarnation, &again, &ann.nick, &next).await.unwrap();
    assert_eq!(arm.ask::<i64>(&["TTL", &skeleton]).await, -1, "owned again");
}

#[tokio::test]
async fn nothing_is_left_of_what_ended_but_what_is_remembered() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    // One leaves, one renames and leaves, one loses the gateway, one is taken over from it.
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    let anna = node.claim_as(&ann.owner.session, "anna").await.unwrap();
    let entry = JoinEntry::Renamed(&ann.nick, &ann.owner);
    arm.registry
        .join(JoinRequest {
            room: &room("#lobby"),
            nick: &anna.nick,
            owner: &anna.owner,
            status: &Status::default(),
            entry,
        })
        .await
        .unwrap();
    arm.registry.release(&ann.nick, &ann.owner, Some(&anna.nick)).await.unwrap();
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

    let mut left: Vec<String> = arm.ask(&["KEYS", "*"]).await;
    left.iter_mut().for_each(|key| *key = key.replace(arm.keys.base(), "").replace("session", "session "));
    left.sort_unstable();
    let sessions = left.iter().filter(|key| key.starts_with("session :")).count();
    let restored = left.iter().filter(|key| key.starts_with("session -rooms:")).count();
    left.retain(|key| !key.starts_with("session "));
    let remembered = ["nick:ann", "nick:anna", "nick:lost", "nick:taken", "room:lobby"];
    let tables = ["asserted", "beats", "ended", "events", "fence", "gateways", "generation", "leases"];
    let mut expected: Vec<&str> = remembered.into_iter().chain(tables).collect();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!((sessions, restored), (4, 2), "two of them lost their rooms");
}

#[tokio::test]
async fn a_reaper_believes_the_record_and_not_the_index() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = other.user("ann").await;
    ann.join("#lobby").await;
    node.fence().await;
    let () = arm.ask(&["SADD", &arm.keys.node(&node.incarnation).owned_nicks(), "ann", "never"]).await;
    let () = arm.ask(&["SADD", &arm.keys.node(&node.incarnation).owned_members(), "lobby ann", "never ann"]).await;

    assert!(arm.registry.reap(&node.incarnation, 3).await.unwrap().more);
    assert_eq!(arm.registry.reap(&node.incarnation, 3).await.unwrap(), ReapedBatch::default());
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| lease.owns == (lease.node == "g2")));
    assert!(ann.leave("#lobby").await);
    assert!(ann.release().await);
}

#[tokio::test]
async fn the_row_of_a_dead_gateway_goes_after_an_hour() {
    let arm = Arm::redis().await;
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
async fn a_foreign_row_of_the_lease_table_stops_no_beat() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let () = arm.ask(&["HSET", &arm.keys.leases(), "x", "odd"]).await;
    let () = arm.ask(&["HSET", &arm.keys.leases(), "y", "live"]).await;
    let beat = arm.registry.beat(&node.incarnation, &[]).await.unwrap();
    assert_eq!(beat.leases.len(), 1, "ours is read");
    assert_eq!(beat.leases, arm.registry.leases().await.unwrap().leases);
    assert_eq!(arm.registry.gateways().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_foreign_record_is_an_error_and_no_panic() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let (_, nick) = (node.claim("ann").await.unwrap(), super::nick("ann"));
    let () = arm.ask(&["HSET", &arm.keys.nick(nick.key()).record(), "status", "{"]).await;
    assert!(matches!(arm.registry.user(nick.key()).await, Err(RegistryError::Unknown(_))));
}
