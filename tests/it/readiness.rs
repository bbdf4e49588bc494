//! Readiness is honest: it is red when a gateway can publish but no longer hears.

use std::time::{Duration, Instant};

use harness::{Cluster, eventually, http};

/// Red within 3 s, plus the interval of one beat and of one look.
const RED: Duration = Duration::from_millis(4_500);
const WHOLE_AGAIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_gateway_that_hears_nothing_is_not_ready() {
    let mut cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    for text in ["subscription", "echo", "own beats"] {
        cluster.allow(text);
    }
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    ann.register("ann").await;
    ann.join("#lobby").await;
    bob.register("bob").await;
    bob.join("#lobby").await;

    // Nobody may subscribe any more, and nobody is subscribed; every other command works.
    let cut = Instant::now();
    cluster.redis.call::<()>("ACL SETUSER parley -subscribe").await;
    let killed: u64 = cluster.redis.call("CLIENT KILL TYPE pubsub").await;
    assert!(killed >= 2, "{killed} subscriptions were cut");
    for gateway in &cluster.gateways {
        let answer = gateway.until_not_ready(RED.saturating_sub(cut.elapsed())).await;
        assert!(answer.body.contains("subscription"), "and says why: {answer:?}");
    }
    let front_door = cluster.nginx.as_ref().unwrap().ws();
    eventually(RED, "newcomers are turned away", || async move {
        let answer = http::get(front_door, "/ws").await?;
        if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;

    cluster.redis.call::<()>("ACL SETUSER parley +subscribe").await;
    for gateway in &cluster.gateways {
        gateway.until_ready(WHOLE_AGAIN).await;
    }
    ann.say("#lobby", "can you hear me?").await;
    bob.hears("#lobby", "ann", "can you hear me?").await;
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}
