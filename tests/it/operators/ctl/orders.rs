//! `gateway ctl kick` and `drain`: effect on clients and gateways, and errors without a target.

use harness::{Cluster, eventually};
use serde_json::json;

use super::{SOON, assert_failed, ctl, json as ctl_json, output, row};
use crate::lobby::lobby_member;

#[tokio::test]
async fn kick_ends_session_on_any_gateway() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "Ann").await, lobby_member(&cluster, 1, "bob").await);

    assert_eq!(output(&cluster.redis, &["kick", "ANN"]).await, "kicked ANN");
    assert_eq!(ann.closed().await.code, Some(4003));
    bob.sees(SOON, "#lobby", "left", |left| left == &json!({"nick": "Ann", "reason": "kicked"})).await;
    assert_failed(&ctl(&cluster.redis, &["kick", "ann"]).await, 1, &["nobody is online as ann"]);
    assert_eq!(ctl_json(&cluster.redis, &["kick", "bob"]).await, json!({"kicked": "bob"}));
    assert_eq!(bob.closed().await.code, Some(4003));
    assert_failed(&ctl(&cluster.redis, &["kick", "a b"]).await, 2, &["a b"]);
    cluster.finish().await;
}

#[tokio::test]
async fn kick_ends_detached_session_at_once() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    drop(ann);
    eventually(SOON, "the registry has detached ann", || async {
        let detached: Option<u64> = cluster.redis.call("HGET parley:{0}:nick:ann detached").await;
        detached.ok_or("connected")
    })
    .await;
    assert_eq!(output(&cluster.redis, &["kick", "ann"]).await, "kicked ann");
    bob.sees(SOON, "#lobby", "left", |left| left == &json!({"nick": "ann", "reason": "kicked"})).await;
    assert_failed(&ctl(&cluster.redis, &["kick", "ann"]).await, 1, &["nobody is online as ann"]);
    cluster.finish().await;
}

#[tokio::test]
async fn drain_moves_clients_and_ends_one_gateway() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).nginx(true).start().await;
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    ann.register("ann").await;
    bob.register("bob").await;

    let ordered = output(&cluster.redis, &["drain", "g1"]);
    let (ordered, ready) = tokio::join!(ordered, cluster.gateways[0].until_not_ready(SOON));
    assert_eq!(ordered, "g1 drains: 1 session to go");
    assert!(ready.body.contains("draining"), "{ready:?}");
    ann.receives_frame("going_away").await;
    assert_eq!(cluster.ws().await.register("eve").await["node"], "g2", "newcomers go elsewhere");
    assert_eq!(ann.closed().await.code, Some(1012));
    assert_eq!(cluster.gateways[0].process().exit_code(SOON).await, Some(0));
    assert!(bob.has_ended().is_none(), "the other gateway serves on");
    assert_failed(&ctl(&cluster.redis, &["drain", "g1"]).await, 1, &["no gateway g1", "there is g2"]);

    // The order does not apply to the next incarnation.
    cluster.gateways[0].restart().await;
    eventually(SOON, "g1 is live again", || async {
        let text = output(&cluster.redis, &["status"]).await;
        if row(&text, "g1")[1] == "live" { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.ws_on(0).await.register("zoe").await;
    cluster.finish().await;
}

#[tokio::test]
async fn drain_reports_order_not_taken() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    assert_failed(&ctl(&cluster.redis, &["drain", "g9"]).await, 1, &["no gateway g9", "there is g1"]);
    cluster.gateways[0].process().stop_signal().await;
    assert_failed(&ctl(&cluster.redis, &["drain", "g1"]).await, 2, &["g1 has not accepted the order", "last beat"]);
    // A gateway that was only suspended follows the order when it continues.
    cluster.gateways[0].process().cont();
    assert_eq!(cluster.gateways[0].process().exit_code(SOON).await, Some(0));
}
