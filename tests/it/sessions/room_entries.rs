//! Entries that an application orders: the session joins on its gateway, once, and by the rules of the room.
//!
//! They are ordered through the registry, as the HTTP API orders them.

use std::time::Duration;

use harness::{Cluster, WsClient, eventually};
use presence::model::{Nick, RoomName};
use presence::registry::Registry;
use serde_json::{Value, json};

use super::identity::{secured, token};
use super::sanctions::{SubscriptionKiller, registry};

/// Longest time until an order is carried out.
const CARRIED_OUT: Duration = Duration::from_secs(2);

const RULES: &str = r##"[
    {"match": "#club", "invite_only": true},
    {"match": "#made", "create": "api"},
    {"match": "#pair", "members_max": 2}
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

/// Orders an entry. Returns true if the session is connected.
async fn order(registry: &Registry, nick: &str, room: &str) -> bool {
    let (nick, room) = (Nick::parse(nick).unwrap(), RoomName::parse(room).unwrap());
    registry.order_entry(nick.key(), &room).await.unwrap()
}

/// Returns the rooms that a client has entered by order, first one first.
fn entered(client: &WsClient) -> Vec<Value> {
    let frames = client.received(|frame| frame["type"] == "joined" && frame["id"].is_null());
    frames.into_iter().map(|frame| frame["room"].clone()).collect()
}

/// Waits until the gateways have carried out what waited in their mailboxes.
async fn until_mailboxes_are_read(cluster: &Cluster) {
    eventually(CARRIED_OUT * 2, "the mailboxes are empty", || async {
        let left: Vec<String> = cluster.redis.call("KEYS parley:{0}:mailbox:*").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_entry_joins_once_and_delivers() {
    let cluster = cluster().await;
    let registry = registry(&cluster);
    let (ann, bob) = (guest(&cluster, 0, "ann").await, guest(&cluster, 1, "bob").await);
    ann.join("#club").await;
    ann.sends("#club", "before").await;
    for nick in ["bob", "BOB"] {
        assert!(order(&registry, nick, "#Club").await);
    }
    let joined = bob.receives_frame("joined").await;
    let expected = json!({"type": "joined", "room": "#club", "epoch": joined["epoch"], "seq": 1, "member_count": 2,
        "recovered": false});
    assert_eq!(joined, expected);
    ann.sees_join("#club", "bob").await;
    ann.sends("#club", "after").await;
    bob.receives("#club", "ann", "after").await;
    bob.sends("#club", "thanks").await;
    ann.receives("#club", "bob", "thanks").await;
    until_mailboxes_are_read(&cluster).await;
    bob.sends("#club", "still once").await;
    ann.receives("#club", "bob", "still once").await;
    assert_eq!(entered(&bob), ["#club"]);
    assert_eq!(ann.count_seen("#club", "joined", |member| member["nick"] == "bob"), 1);
    assert!(bob.received(|frame| frame["type"] == "message" && frame["body"] == "before").is_empty());

    // The copy in the mailbox brings nobody back who has left.
    bob.leave("#club").await;
    assert!(order(&registry, "bob", "#club").await);
    bob.receives_frame("joined").await;
    bob.leave("#club").await;
    until_mailboxes_are_read(&cluster).await;
    assert_eq!(bob.try_send("#club", "?").await.unwrap_err().code, "not_in_room");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_entry_obeys_bans_and_places() {
    let cluster = cluster().await;
    let registry = registry(&cluster);
    let (ann, bob, eve) = (guest(&cluster, 0, "ann").await, guest(&cluster, 0, "bob").await, cluster.ws_on(1).await);
    for client in [&ann, &bob] {
        client.join("#pair").await;
    }
    // A token that names other rooms does not bind the application.
    let token = token("user:eve", &json!({"rooms": [{"match": "#own-*", "may": ["join", "send"]}]}));
    eve.must(json!({"type": "register", "nick": "eve", "token": token})).await;
    for room in ["#pair", "#made"] {
        assert!(order(&registry, "eve", room).await);
    }
    assert_eq!(eve.receives_frame("joined").await["room"], "#made");
    bob.join("#made").await;
    assert_eq!(entered(&eve), ["#made"]);
    assert_eq!(ann.members("#pair").await, ["ann", "bob"]);
    assert!(eve.received(|frame| frame["type"] == "error").is_empty(), "the client has asked for nothing");
    assert!(!order(&registry, "nobody", "#made").await);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_entry_leaves_the_line_room() {
    let cluster = cluster().await;
    let registry = registry(&cluster);
    let (ann, bob) = (guest(&cluster, 0, "ann").await, cluster.line_on(1).await);
    ann.join("#lobby").await;
    bob.register("bob").await;
    bob.join("#lobby").await;
    assert!(order(&registry, "bob", "#tea").await);
    bob.reads("* you are in #tea, members: 1").await;
    bob.types("still here").await;
    ann.receives("#lobby", "bob", "still here").await;
    cluster.finish().await;
}

/// An order whose channel message is lost arrives with the beat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_order_survives_killed_pubsub() {
    let mut cluster = cluster().await;
    cluster.allow("");
    let registry = registry(&cluster);
    let bob = guest(&cluster, 1, "bob").await;
    for number in 0..5 {
        let room = format!("#room{number}");
        let killer = SubscriptionKiller::start(&cluster).await;
        assert!(order(&registry, "bob", &room).await);
        until_mailboxes_are_read(&cluster).await;
        drop(killer);
        // The join itself needs a subscription, as the client's own does.
        let joins = bob.next(CARRIED_OUT * 5, |frame| frame["type"] == "joined" && frame["room"] == *room).await;
        assert!(joins.is_ok(), "{room}: {joins:?}");
    }
    let rooms: Vec<Value> = (0..5).map(|number| json!(format!("#room{number}"))).collect();
    assert_eq!(entered(&bob), rooms, "each once");
    cluster.finish().await;
}
