//! Rules of rooms on a cluster: the store decides, so every gateway refuses alike.

use std::time::Duration;

use harness::client::{RefusedRequest, RequestResult};
use harness::{Cluster, WsClient, eventually};
use presence::model::{RoomName, RoomRules};
use presence::registry::{RedisRegistry, Registry};
use presence::store::redis::RedisStore;
use serde_json::{Value, json};

use super::identity::{secured, token};

/// The time from a lost connection to the leave, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

const RULES: &str = r##"[
    {"match": "#team-*", "create": "token"},
    {"match": "#made", "create": "api"},
    {"match": "#pair", "members_max": 2},
    {"match": "#club", "invite_only": true, "roles": true},
    {"match": "#stage", "send": "moderators", "roles": true},
    {"match": "#queue", "slow_mode_seconds": 60, "roles": true},
    {"match": "#brief", "history_messages": 3}
]"##;

/// Starts two gateways that admit guests and users, with the rules.
async fn cluster() -> Cluster {
    let builder = Cluster::builder().gateways(2).gateway_setting("PARLEY__ROOMS", RULES);
    secured(builder, "mixed").start().await
}

async fn guest(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    let client = cluster.ws_on(gateway).await;
    client.register(nick).await;
    client
}

async fn user(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    let client = cluster.ws_on(gateway).await;
    let token = token(&format!("user:{nick}"), &json!({}));
    client.must(json!({"type": "register", "nick": nick, "token": token})).await;
    client
}

async fn join(client: &WsClient, room: &str) -> RequestResult {
    client.request(json!({"type": "join", "room": room})).await
}

#[track_caller]
fn refusal(outcome: RequestResult, code: &str) -> RefusedRequest {
    let refused = outcome.expect_err("a refusal");
    assert_eq!(refused.code, code, "{refused:?}");
    refused
}

fn registry(cluster: &Cluster) -> Registry {
    Registry::Redis(RedisRegistry::new(RedisStore::open(&cluster.redis.url(), "parley").unwrap()))
}

async fn write_rules(cluster: &Cluster, room: &str, rules: &RoomRules) {
    registry(cluster).set_room_rules(&RoomName::parse(room).unwrap(), rules).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_creation_hold_on_every_gateway() {
    let cluster = cluster().await;
    let (ann, bob) = (user(&cluster, 0, "ann").await, guest(&cluster, 1, "bob").await);
    refusal(join(&bob, "#team-a").await, "not_allowed");
    refusal(join(&ann, "#made").await, "not_allowed");
    ann.join("#team-a").await;
    bob.join("#Team-A").await;
    assert_eq!(ann.members("#team-a").await, ["ann", "bob"]);

    write_rules(&cluster, "#made", &RoomRules::default()).await;
    for client in [&ann, &bob] {
        client.join("#made").await;
    }
    // A refused join leaves no trace: the client may join and send elsewhere.
    bob.join("#open").await;
    bob.sends("#open", "hi").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_place_goes_to_one_gateway() {
    let cluster = cluster().await;
    let first = guest(&cluster, 0, "first").await;
    first.join("#pair").await;
    let (one, two) = (guest(&cluster, 0, "one").await, guest(&cluster, 1, "two").await);
    let (of_one, of_two) = tokio::join!(join(&one, "#pair"), join(&two, "#pair"));
    let (winner, loser, refused) = if of_one.is_ok() { (&one, &two, of_two) } else { (&two, &one, of_one) };
    refusal(refused, "room_full");
    refusal(loser.try_send("#pair", "hi").await, "not_in_room");
    winner.sends("#pair", "hi").await;
    winner.leave("#pair").await;
    loser.join("#pair").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_room_admits_invited_people_only() {
    let cluster = cluster().await;
    let (ann, bob) = (user(&cluster, 0, "ann").await, guest(&cluster, 1, "bob").await);
    ann.join("#club").await;
    refusal(join(&bob, "#club").await, "invite_only");
    ann.sends("#club", "hi").await;
    ann.leave("#club").await;
    refusal(join(&bob, "#club").await, "invite_only");
    let again = user(&cluster, 1, "ann").await;
    assert_eq!(again.join("#club").await["role"], "owner");
    let eve = guest(&cluster, 0, "eve").await;
    refusal(join(&eve, "#club").await, "invite_only");
    again.must(json!({"type": "invite", "room": "#club", "nick": "eve"})).await;
    assert_eq!(eve.join("#club").await["role"], Value::Null);
    refusal(join(&bob, "#club").await, "invite_only");
    write_rules(&cluster, "#club", &RoomRules::default()).await;
    bob.join("#club").await;
    again.must(json!({"type": "mute", "room": "#club", "nick": "bob"})).await;
    refusal(bob.try_send("#club", "hi").await, "muted");
    eve.sends("#club", "hi").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_obey_rules_on_every_gateway() {
    let cluster = cluster().await;
    let (ann, bob) = (user(&cluster, 0, "ann").await, guest(&cluster, 1, "bob").await);
    for room in ["#stage", "#queue"] {
        ann.join(room).await;
        bob.join(room).await;
    }
    refusal(bob.try_send("#stage", "me").await, "not_allowed");
    ann.sends("#stage", "one").await;
    bob.sends("#queue", "one").await;
    let wait = refusal(bob.try_send("#queue", "two").await, "slow_mode").reply["retry_after_ms"].as_u64();
    assert!(wait.is_some_and(|wait| (1..=60_000).contains(&wait)), "{wait:?}");
    for text in ["two", "three"] {
        ann.sends("#queue", text).await;
    }
    assert_eq!(bob.history("#queue", 10).await.len(), 3);

    write_rules(&cluster, "#stage", &RoomRules::default()).await;
    bob.sends("#stage", "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_has_the_bounds_of_its_room() {
    let cluster = cluster().await;
    let (ann, bob) = (guest(&cluster, 0, "ann").await, guest(&cluster, 1, "bob").await);
    let joined = ann.join("#brief").await;
    for number in 1..=5 {
        ann.sends("#brief", &number.to_string()).await;
    }
    bob.must(json!({"type": "join", "room": "#brief", "since": {"epoch": joined["epoch"], "seq": 0}})).await;
    let seqs: Vec<Value> = bob.history("#brief", 10).await.iter().map(|message| message["seq"].clone()).collect();
    assert_eq!(seqs, [3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_room_is_left_on_every_gateway() {
    let cluster = cluster().await;
    let (ann, bob) = (guest(&cluster, 0, "ann").await, guest(&cluster, 1, "bob").await);
    for client in [&ann, &bob] {
        client.join("#hall").await;
        client.join("#open").await;
    }
    ann.sends("#hall", "hi").await;
    assert!(registry(&cluster).end_room(&RoomName::parse("#hall").unwrap()).await.unwrap());
    for client in [&ann, &bob] {
        let is_removal =
            |frame: &Value| frame["type"] == "left" && frame["room"] == "#hall" && frame["reason"] == "kicked";
        client.next(SOON, is_removal).await.unwrap();
        refusal(client.try_send("#hall", "hi").await, "not_in_room");
        client.sends("#open", "hi").await;
    }
    let again = bob.join("#hall").await;
    assert_eq!((&again["seq"], &again["member_count"]), (&json!(0), &json!(1)), "it is another room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumed_session_keeps_its_place() {
    let cluster = cluster().await;
    let ann = cluster.ws_on(0).await;
    let registered = ann.register("ann").await;
    let bob = guest(&cluster, 1, "bob").await;
    ann.join("#pair").await;
    bob.join("#pair").await;
    ann.cut();
    let again = cluster.ws_on(1).await;
    let back = again.resume(&registered, json!({})).await;
    assert_eq!(back["rooms"].as_array().unwrap().len(), 1, "{back}");
    again.sends("#pair", "back").await;

    // After its leave was announced the place may be taken, and is still kept.
    again.cut();
    eventually(SOON, "the leave is announced", async || {
        let members = bob.members("#pair").await;
        if members == ["bob"] { Ok(()) } else { Err(members) }
    })
    .await;
    let eve = guest(&cluster, 0, "eve").await;
    eve.join("#pair").await;
    let third = cluster.ws_on(0).await;
    let back = third.resume(&back, json!({})).await;
    assert_eq!(back["rooms"].as_array().unwrap().len(), 1, "{back}");
    assert_eq!(eve.members("#pair").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_goes_on_without_refused_rooms() {
    let cluster = cluster().await;
    let bob = cluster.ws_on(0).await;
    let registered = bob.register("bob").await;
    let ann = user(&cluster, 1, "ann").await;
    ann.join("#team-a").await;
    for room in ["#team-a", "#open"] {
        bob.join(room).await;
    }
    bob.cut();
    eventually(SOON, "the leave is announced", async || {
        let members = ann.members("#team-a").await;
        if members == ["ann"] { Ok(()) } else { Err(members) }
    })
    .await;
    // Nothing was said in the room, so it is forgotten, and a guest may not create it.
    ann.leave("#team-a").await;
    let again = cluster.ws_on(1).await;
    let since = json!({"#team-a": {"epoch": "e", "seq": 0}, "#open": {"epoch": "e", "seq": 0}});
    let back = again.resume(&registered, since).await;
    let rooms: Vec<&str> =
        back["rooms"].as_array().unwrap().iter().map(|room| room["room"].as_str().unwrap()).collect();
    assert_eq!(rooms, ["#open"]);
    again.sends("#open", "hi").await;
    refusal(again.try_send("#team-a", "hi").await, "not_in_room");
    refusal(join(&again, "#team-a").await, "not_allowed");
}
