//! Readiness is honest: it is red when a gateway can publish but no longer hears, whether its subscription is cut, which it
//! is told, or just falls silent, which nobody tells it. Everything else works meanwhile, so nothing else can be the reason.

use std::time::{Duration, Instant};

use harness::fault_proxy::Mode;
use harness::{Cluster, WsClient, eventually, http};

/// The promise, and one look at a busy machine.
const RED: Duration = Duration::from_millis(3_500);
const WHOLE_AGAIN: Duration = Duration::from_secs(15);

/// ann on the first gateway and bob on the second, of a cluster whose subscriptions are about to break.
async fn in_the_lobby(cluster: &mut Cluster) -> (WsClient, WsClient) {
    for text in ["subscription", "echo", "own beats"] {
        cluster.allow(text);
    }
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    ann.register("ann").await;
    ann.join("#lobby").await;
    bob.register("bob").await;
    bob.join("#lobby").await;
    (ann, bob)
}

#[tokio::test]
async fn a_gateway_that_hears_nothing_is_not_ready() {
    let mut cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    let (ann, bob) = in_the_lobby(&mut cluster).await;

    // Nobody may subscribe any more, and nobody is subscribed; every other command works.
    let cut = Instant::now();
    cluster.redis.call::<()>("ACL SETUSER parley -subscribe").await;
    let killed: u64 = cluster.redis.call("CLIENT KILL TYPE pubsub").await;
    assert!(killed >= 2, "{killed} subscriptions were cut");
    for gateway in &cluster.gateways {
        let answer = gateway.until_not_ready(RED.saturating_sub(cut.elapsed())).await;
        assert!(answer.body.contains("do not come back over the subscription"), "and says why: {answer:?}");
    }
    assert_eq!(ann.sends("#lobby", "can you hear me?").await["type"], "ack", "publishing works");
    let front_door = cluster.nginx.as_ref().unwrap().ws();
    eventually(RED, "newcomers are turned away", || async move {
        let answer = http::get(front_door, "/ws").await?;
        if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert!(bob.received(|event| event["body"] == "can you hear me?").is_empty(), "nobody hears");

    cluster.redis.call::<()>("ACL SETUSER parley +subscribe").await;
    for gateway in &cluster.gateways {
        gateway.until_ready(WHOLE_AGAIN).await;
    }
    bob.receives("#lobby", "ann", "can you hear me?").await;
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_subscription_that_falls_silent_makes_its_gateway_not_ready() {
    let mut cluster = Cluster::builder().gateways(2).fault_proxies(true).start().await;
    let (ann, bob) = in_the_lobby(&mut cluster).await;

    let cut = Instant::now();
    cluster.proxies[0].set(Mode::Deaf);
    let answer = cluster.gateways[0].until_not_ready(RED).await;
    assert!(cut.elapsed() > Duration::from_secs(1), "its own beat was late, nothing else told it: {:?}", cut.elapsed());
    assert!(answer.body.contains("do not come back over the subscription"), "{answer:?}");
    let other = cluster.gateways[1].readyz().await.unwrap();
    assert_eq!(other.status, 200, "the other one hears as ever: {other:?}");
    assert_eq!(ann.sends("#lobby", "do you copy?").await["type"], "ack", "publishing works");
    bob.receives("#lobby", "ann", "do you copy?").await;
    bob.sends("#lobby", "loud and clear").await;
    assert!(ann.received(|event| event["body"] == "loud and clear").is_empty(), "ann's gateway hears nothing");

    cluster.proxies[0].set(Mode::Pass);
    cluster.gateways[0].until_ready(WHOLE_AGAIN).await;
    ann.receives("#lobby", "bob", "loud and clear").await;
    cluster.finish().await;
}
