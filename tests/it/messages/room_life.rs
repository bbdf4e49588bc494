//! Rooms that no member has spoken in leave nothing in Redis, however their last member leaves.

use std::time::Duration;

use harness::{Cluster, WsClient, eventually};
use presence::model::Nick;
use presence::registry::{RedisRegistry, Registry};
use presence::store::redis::RedisStore;

/// The time from a lost connection to the leave, or from a killed gateway to its reaping, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Returns the keys of Redis that name this room.
async fn keys_of(cluster: &Cluster, room: &str) -> Vec<String> {
    cluster.redis.call(&format!("KEYS *{room}*")).await
}

/// Connects a client that is alone in a room.
async fn lonely_member(cluster: &Cluster, gateway: usize, name: &str) -> WsClient {
    let client = cluster.ws_on(gateway).await;
    client.register(name).await;
    client.join(&format!("#room-of-{name}")).await;
    assert!(!keys_of(cluster, &format!("room-of-{name}")).await.is_empty(), "{name} is in no room");
    client
}

async fn until_forgotten(cluster: &Cluster, name: &str) {
    eventually(SOON, &format!("the room of {name} is forgotten"), async || {
        let keys = keys_of(cluster, &format!("room-of-{name}")).await;
        if keys.is_empty() { Ok(()) } else { Err(keys) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unspoken_room_vanishes_with_its_last_member() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    let leaver = lonely_member(&cluster, 0, "leaver").await;
    leaver.leave("#room-of-leaver").await;
    until_forgotten(&cluster, "leaver").await;

    lonely_member(&cluster, 0, "goodbye").await.bye().await;
    lonely_member(&cluster, 0, "lost").await.cut();
    let kicked = lonely_member(&cluster, 0, "kicked").await;
    let detached = lonely_member(&cluster, 0, "detached").await;
    let redis = RedisStore::open(&cluster.redis.url(), "parley").unwrap();
    let registry = Registry::Redis(RedisRegistry::new(redis));
    detached.cut();
    for name in ["kicked", "detached"] {
        assert!(registry.kick(Nick::parse(name).unwrap().key()).await.unwrap(), "{name}");
    }
    assert_eq!(kicked.closed().await.code, Some(4003));
    for name in ["goodbye", "lost", "kicked", "detached"] {
        until_forgotten(&cluster, name).await;
    }

    // Typing and reading are no messages; a rename keeps the member.
    let renamed = lonely_member(&cluster, 0, "renamed").await;
    renamed.must(serde_json::json!({"type": "typing", "to": "#room-of-renamed"})).await;
    renamed.rename("renamed2").await;
    assert_eq!(renamed.members("#room-of-renamed").await, ["renamed2"]);
    renamed.bye().await;
    until_forgotten(&cluster, "renamed").await;

    let _killed = lonely_member(&cluster, 1, "killed").await;
    cluster.allow("lease");
    cluster.gateways[1].process().kill9();
    until_forgotten(&cluster, "killed").await;
}
