//! Holds of nicknames: a client that is lost just after its claim reserves nothing.

use std::time::Duration;

use harness::{Cluster, Node, WsClient, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);
/// Shorter than the leave delay of 5 s.
const AT_ONCE: Duration = Duration::from_secs(3);
const HOLD_AFTER: &str = "PARLEY__SESSION__HOLD_AFTER_SECONDS";

/// A client under this nickname that has sent a request since, so that its session can be resumed.
async fn settled(node: &Node, nick: &str) -> (WsClient, serde_json::Value) {
    let client = WsClient::connect(node.ws()).await;
    let registered = client.register(nick).await;
    client.join("#lobby").await;
    (client, registered)
}

/// Checks that a nickname whose client hangs up at once is free for others, and that its session can still return.
async fn lost_nick_is_free(node: &Node) {
    let (bob, _) = settled(node, "bob").await;
    let (ann, first) = settled(node, "ann").await;
    bob.sees_join("#lobby", "ann").await;
    ann.cut();
    bob.sees_left("#lobby", "ann", "closed").await;
    let back = WsClient::connect(node.ws()).await;
    let resumed = back.resume(&first, json!({})).await;
    assert_eq!(resumed["nick"], "ann", "the session returns while its nickname is free");
    back.must(json!({"type": "ping"})).await;
    back.cut();
    let thief = WsClient::connect(node.ws()).await;
    eventually(AT_ONCE, "the nickname is free", async || thief.try_register("ann").await).await;
}

#[tokio::test]
async fn nick_dropped_after_claim_is_free_alone() {
    lost_nick_is_free(&Node::gateway("g1").setting(HOLD_AFTER, "10").start().await).await;
}

#[tokio::test]
async fn nick_dropped_after_claim_is_free_on_redis() {
    let cluster = Cluster::builder().gateway_setting(HOLD_AFTER, "10").start().await;
    lost_nick_is_free(&cluster.gateways[0]).await;
    cluster.finish().await;
}

#[tokio::test]
async fn nick_of_older_session_is_still_held() {
    let node = Node::gateway("g1").setting(HOLD_AFTER, "1").start().await;
    let (ann, _) = settled(&node, "ann").await;
    let began = std::time::Instant::now();
    eventually(SOON, "the session is old enough", async || {
        ann.must(json!({"type": "ping"})).await;
        if began.elapsed() > Duration::from_millis(1500) { Ok(()) } else { Err("too new") }
    })
    .await;
    ann.cut();
    let thief = WsClient::connect(node.ws()).await;
    eventually(SOON, "the nickname is held", async || {
        let refused = thief.try_register("ann").await.err();
        if refused.as_ref().is_some_and(|refused| refused.reply["retry_after_ms"].is_u64()) {
            Ok(())
        } else {
            Err(refused)
        }
    })
    .await;
}

#[tokio::test]
async fn restart_of_gateway_frees_no_nick() {
    let mut cluster = Cluster::builder().gateways(2).gateway_setting(HOLD_AFTER, "10").start().await;
    let (bob, _) = settled(&cluster.gateways[1], "bob").await;
    let (ann, _) = settled(&cluster.gateways[0], "ann").await;
    bob.sees_join("#lobby", "ann").await;
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    assert_eq!(ann.closed().await.code, Some(1012));
    let refused = cluster.ws_on(1).await.try_register("ann").await.unwrap_err();
    assert_eq!(refused.code, "nick_in_use", "a session that its gateway closed keeps its nickname");
    assert_eq!(bob.count_seen("#lobby", "left", |row| row["nick"] == "ann"), 0);
    cluster.finish().await;
}
