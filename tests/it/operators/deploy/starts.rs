//! What a program looks at before it starts to serve: whether the Redis is fit, and whether its name is taken.

use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{Cluster, Node, Redis, eventually};

const SOON: Duration = Duration::from_secs(15);

/// Exit code 1, no ready line, and a log that says why.
fn could_not_start(finished: &ExitedProcess, words: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "must say {word:?}: {finished:?}");
    }
}

#[tokio::test]
async fn nobody_starts_on_a_redis_that_evicts() {
    let mut redis = Redis::away().setting("maxmemory-policy", "allkeys-lru");
    redis.start().await;
    for node in [Node::gateway("g1"), Node::presence("p1")] {
        let finished = node.redis(&redis).program().run(SOON).await;
        could_not_start(&finished, &["maxmemory-policy allkeys-lru", "noeviction"]);
    }
}

#[tokio::test]
async fn a_redis_that_comes_late_and_evicts_is_an_error_in_the_log() {
    let mut redis = Redis::away().setting("maxmemory-policy", "volatile-ttl");
    let nodes = [Node::gateway("g1").redis(&redis).launch().await, Node::presence("p1").redis(&redis).launch().await];
    redis.start().await;
    for node in &nodes {
        eventually(SOON, "it is said", || async {
            let lines = node.log().lines();
            let said = lines.into_iter().find(|line| line.contains("ERROR") && line.contains("volatile-ttl"));
            said.ok_or_else(|| node.log().tail(10))
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_gateway_of_the_same_name_is_refused_while_the_first_one_lives() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    let second = Node::gateway("g1").redis(&cluster.redis).program().run(SOON).await;
    could_not_start(&second, &["node.id", "g1", "in use"]);

    let other = Node::gateway("g2").redis(&cluster.redis).start().await;
    drop(other);
    ann.join("#lobby").await;
    cluster.finish().await;
}

#[tokio::test]
async fn of_gateways_of_one_name_that_start_in_the_same_moment_one_stays() {
    let redis = Redis::running().await;
    // Twice: on a store that is new, and beside the row of a life that was killed.
    for _ in 0..2 {
        let mut twins: Vec<_> = (0..3).map(|_| Node::gateway("g1").redis(&redis).program().spawn()).collect();
        let mut ended = Vec::new();
        eventually(SOON, "two of three end", || {
            ended = (0..twins.len()).filter(|number| twins[*number].has_ended()).collect();
            let count = ended.len();
            async move { if count == 2 { Ok(()) } else { Err(count) } }
        })
        .await;
        for number in ended.into_iter().rev() {
            let mut loser = twins.remove(number);
            assert_eq!(loser.exit_code(SOON).await, Some(1));
            assert!(loser.log().holds("in use") && loser.output().lines().is_empty(), "{}", loser.log().tail(5));
        }
        let [winner] = twins.as_mut_slice() else { panic!("{} stay", twins.len()) };
        assert_eq!(winner.ready().await["node"], "g1");
        winner.kill9();
    }
}

#[tokio::test]
async fn of_gateways_of_one_name_that_start_while_redis_is_away_one_stays() {
    let mut redis = Redis::away();
    let mut twins = Vec::new();
    for _ in 0..2 {
        twins.push(Node::gateway("g1").redis(&redis).launch().await);
    }
    redis.start().await;
    let mut ended = None;
    eventually(SOON, "one of two ends", || {
        ended = twins.iter_mut().position(|twin| twin.process().has_ended());
        let is_over = ended.is_some();
        async move { if is_over { Ok(()) } else { Err("both are there") } }
    })
    .await;
    let mut loser = twins.remove(ended.unwrap());
    assert_eq!(loser.process().exit_code(SOON).await, Some(1));
    assert!(loser.log().holds("could not start") && loser.log().holds("in use"), "{}", loser.log().tail(5));
    twins[0].until_ready(SOON).await;
}

#[tokio::test]
async fn a_second_gateway_that_waited_for_redis_gives_way_to_one_that_lived_through_the_outage() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for words in ["beats are not answered", "lost the subscription", "no subscription"] {
        cluster.allow(words);
    }
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    cluster.redis.kill9();
    let mut second = Node::gateway("g1").redis(&cluster.redis).launch().await;
    // So long that it does not notice at once that Redis is back.
    cluster.gateways[0].until_not_ready(SOON).await;
    cluster.redis.start().await;
    assert_eq!(second.process().exit_code(SOON).await, Some(1));
    assert!(second.log().holds("in use"), "{}", second.log().tail(5));
    ann.join("#lobby").await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_gateway_that_was_killed_starts_again_under_its_name_at_once() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    cluster.allow("fenced");
    let bob = cluster.ws_on(1).await;
    bob.register("bob").await;
    for _ in 0..2 {
        cluster.gateways[0].process().kill9();
        cluster.gateways[0].restart().await;
    }
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    ann.sends("#lobby", "back").await;
    bob.receives("#lobby", "ann", "back").await;
    cluster.finish().await;
}
