//! Readiness without a working subscription: a gateway that publishes but receives nothing is not ready.
//!
//! The subscription is either cut, which the gateway notices at once, or silent, which only a missing beat echo shows.
//! Everything else keeps working, so no other reason can turn readiness red.

use std::time::{Duration, Instant};

use harness::fault_proxy::Mode;
use harness::{Cluster, Person, eventually, http};

/// The promised 3 s, and one poll on a busy machine.
const UNREADY_MAX: Duration = Duration::from_millis(3_500);
/// Longest recovery after a fault has cleared.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// Registers ann on g1 and bob on g2 in #lobby, and allows the log lines of a broken subscription.
async fn join_lobby(cluster: &mut Cluster) -> (Person, Person) {
    for text in ["subscription", "echo", "own beats", "redis is unfit", "redis calls refused"] {
        cluster.allow(text);
    }
    let (ann, bob) = (cluster.person_on(0, "ann").await, cluster.person_on(1, "bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    (ann, bob)
}

#[tokio::test]
async fn gateway_without_subscription_is_not_ready() {
    let mut cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    let (ann, bob) = join_lobby(&mut cluster).await;

    // No connection may subscribe, and none is subscribed; every other command works.
    let cut = Instant::now();
    cluster.redis.call::<()>("ACL SETUSER parley -subscribe").await;
    let killed: u64 = cluster.redis.call("CLIENT KILL TYPE pubsub").await;
    assert!(killed >= 2, "{killed} subscriptions were cut");
    for gateway in &cluster.gateways {
        eventually(UNREADY_MAX.saturating_sub(cut.elapsed()), "both reasons are reported", async || {
            let answer = gateway.readyz().await?;
            let reasons = ["not echoed by the subscription", "redis user may not run SUBSCRIBE"];
            let is_named = reasons.iter().all(|reason| answer.body.contains(reason));
            if answer.status == 503 && is_named { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
    // Publishing works.
    ann.sends("#lobby", "can you hear me?").await;
    let nginx = cluster.nginx.as_ref().unwrap().ws();
    eventually(UNREADY_MAX, "nginx refuses new clients", || async move {
        let answer = http::get(nginx, "/ws").await?;
        if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(bob.received(|_| true), [], "bob receives nothing");

    cluster.redis.call::<()>("ACL SETUSER parley +subscribe").await;
    for gateway in &cluster.gateways {
        gateway.until_ready(RECOVERY_MAX).await;
    }
    bob.receives("#lobby", "ann", "can you hear me?").await;
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}

#[tokio::test]
async fn silent_subscription_makes_gateway_not_ready() {
    let mut cluster = Cluster::builder().gateways(2).fault_proxies(true).start().await;
    let (ann, bob) = join_lobby(&mut cluster).await;

    let cut = Instant::now();
    cluster.proxies[0].set(Mode::MuteSubscriptions);
    let answer = cluster.gateways[0].until_not_ready(UNREADY_MAX).await;
    assert!(
        cut.elapsed() > Duration::from_secs(1),
        "only the missing beat echo reveals the silence: {:?}",
        cut.elapsed()
    );
    assert!(answer.body.contains("not echoed by the subscription"), "{answer:?}");
    let other = cluster.gateways[1].readyz().await.unwrap();
    assert_eq!(other.status, 200, "the other gateway is ready: {other:?}");
    // Publishing works.
    ann.sends("#lobby", "do you copy?").await;
    bob.receives("#lobby", "ann", "do you copy?").await;
    bob.sends("#lobby", "loud and clear").await;
    assert_eq!(ann.received(|_| true), [], "ann receives nothing");

    cluster.proxies[0].set(Mode::Pass);
    cluster.gateways[0].until_ready(RECOVERY_MAX).await;
    ann.receives("#lobby", "bob", "loud and clear").await;
    cluster.finish().await;
}
