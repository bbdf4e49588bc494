//! Checks before a program serves: a suitable Redis, and a node id that is not in use.

use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{Cluster, Node, Redis, eventually};

const SOON: Duration = Duration::from_secs(15);

/// Checks for exit code 1, no listening line, and a log that contains these words.
fn assert_start_failed(finished: &ExitedProcess, words: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "no {word:?} in {finished:?}");
    }
}

#[tokio::test]
async fn programs_refuse_to_start_on_evicting_redis() {
    let mut redis = Redis::not_started().setting("maxmemory-policy", "allkeys-lru");
    redis.start().await;
    for node in [Node::gateway("g1"), Node::presence("p1")] {
        let finished = node.redis(&redis).program().run(SOON).await;
        assert_start_failed(&finished, &["maxmemory-policy allkeys-lru", "noeviction"]);
    }
}

#[tokio::test]
async fn late_evicting_redis_is_logged_as_error() {
    let mut redis = Redis::not_started().setting("maxmemory-policy", "volatile-ttl");
    let nodes = [Node::gateway("g1").redis(&redis).launch().await, Node::presence("p1").redis(&redis).launch().await];
    redis.start().await;
    for node in &nodes {
        eventually(SOON, "the error is logged", || async {
            let lines = node.log().lines();
            let logged = lines.into_iter().find(|line| line.contains("ERROR") && line.contains("volatile-ttl"));
            logged.ok_or_else(|| node.log().tail(10))
        })
        .await;
    }
}

#[tokio::test]
async fn second_gateway_with_same_id_is_refused() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    let second = Node::gateway("g1").redis(&cluster.redis).program().run(SOON).await;
    assert_start_failed(&second, &["node.id", "g1", "in use"]);

    let other = Node::gateway("g2").redis(&cluster.redis).start().await;
    drop(other);
    ann.join("#lobby").await;
    cluster.finish().await;
}

#[tokio::test]
async fn simultaneous_starts_with_one_id_leave_one() {
    let redis = Redis::running().await;
    // Twice: on a new store, and next to the lease of a killed incarnation.
    for _ in 0..2 {
        let mut contenders: Vec<_> = (0..3).map(|_| Node::gateway("g1").redis(&redis).program().spawn()).collect();
        let mut ended = Vec::new();
        eventually(SOON, "two of three end", || {
            ended = (0..contenders.len()).filter(|number| contenders[*number].has_ended()).collect();
            let count = ended.len();
            async move { if count == 2 { Ok(()) } else { Err(count) } }
        })
        .await;
        for number in ended.into_iter().rev() {
            let mut loser = contenders.remove(number);
            assert_eq!(loser.exit_code(SOON).await, Some(1));
            assert!(loser.log().holds("in use") && loser.output().lines().is_empty(), "{}", loser.log().tail(5));
        }
        let [winner] = contenders.as_mut_slice() else { panic!("{} stay", contenders.len()) };
        assert_eq!(winner.listening().await["node"], "g1");
        winner.kill9();
    }
}

#[tokio::test]
async fn starts_without_redis_leave_one_per_id() {
    let mut redis = Redis::not_started();
    let mut contenders = Vec::new();
    for _ in 0..2 {
        contenders.push(Node::gateway("g1").redis(&redis).launch().await);
    }
    redis.start().await;
    let mut ended = None;
    eventually(SOON, "one of two ends", || {
        ended = contenders.iter_mut().position(|contender| contender.process().has_ended());
        let is_over = ended.is_some();
        async move { if is_over { Ok(()) } else { Err("both are running") } }
    })
    .await;
    let mut loser = contenders.remove(ended.unwrap());
    assert_eq!(loser.process().exit_code(SOON).await, Some(1));
    assert!(loser.log().holds("not started") && loser.log().holds("in use"), "{}", loser.log().tail(5));
    contenders[0].until_ready(SOON).await;
}

#[tokio::test]
async fn late_starter_yields_to_gateway_that_survived_outage() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for words in ["beat not answered", "subscription lost", "no subscription"] {
        cluster.allow(words);
    }
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    cluster.redis.kill9();
    let mut second = Node::gateway("g1").redis(&cluster.redis).launch().await;
    // The outage is long enough that the first gateway does not notice at once when Redis is back.
    cluster.gateways[0].until_not_ready(SOON).await;
    cluster.redis.start().await;
    assert_eq!(second.process().exit_code(SOON).await, Some(1));
    assert!(second.log().holds("in use"), "{}", second.log().tail(5));
    ann.join("#lobby").await;
    cluster.finish().await;
}

#[tokio::test]
async fn killed_gateway_restarts_under_its_id_at_once() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    cluster.allow("fenced");
    let bob = cluster.person_on(1, "bob").await;
    for _ in 0..2 {
        cluster.gateways[0].process().kill9();
        cluster.gateways[0].restart().await;
    }
    let ann = cluster.person_on(0, "ann").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    ann.sends("#lobby", "back").await;
    bob.receives("#lobby", "ann", "back").await;
    cluster.finish().await;
}
