//! Readiness while the Redis user lacks a right that it had at the start.

use harness::Cluster;
use serde_json::json;

use super::{StoreFault, count_lines, until_all_ready, until_all_unready, until_logged};
use crate::lobby::lobby_member;

#[tokio::test]
async fn right_taken_at_run_time_is_named() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    for text in ["redis is unfit", "redis calls refused", "subscription", "not ready"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let template = std::fs::read_to_string(harness::repository().join("deploy/redis/users.acl.in")).unwrap();
    let (_, parley) = template.split_once("user parley").unwrap();
    let rules = parley.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let rules: Vec<&str> = rules.filter(|word| word.starts_with('+')).collect();
    let without = |missing: &str| {
        let kept: Vec<&str> = rules.iter().copied().filter(|rule| *rule != missing).collect();
        format!("ACL SETUSER parley -@all {}", kept.join(" "))
    };
    let all = format!("{} &parley:*", without(""));
    for (cause, right, counted) in [
        ("ACL SETUSER parley -publish", "PUBLISH", ""),
        (&*without("+srandmember"), "SRANDMEMBER", ""),
        (&*without("+hincrby"), "HINCRBY", ""),
        ("ACL SETUSER parley -subscribe", "SUBSCRIBE", ""),
        ("ACL SETUSER parley resetchannels", "PUBLISH, SUBSCRIBE", ""),
        ("ACL SETUSER parley -info", "INFO", "no_permission"),
    ] {
        let reason = format!("redis user may not run {right}");
        StoreFault {
            causes: &[cause],
            reason: &reason,
            remedies: &[&all, "ACL LOG RESET"],
            lines: [&["ERROR", "redis is unfit", right], &["INFO", "redis is fit again"]],
            counted,
        }
        .strike(&cluster, [&ann, &bob])
        .await;
    }
    for node in cluster.gateways.iter().chain(&cluster.presence) {
        let unnamed = node.metrics().await.get("parley_redis_refusals_total", &[("reason", "other")]);
        assert_eq!(unnamed, Some(0.0), "{}: {}", node.name(), node.log().tail(12));
    }
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}

#[tokio::test]
async fn refused_subscription_is_named_and_counted() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for text in ["redis is unfit", "redis calls refused"] {
        cluster.allow(text);
    }
    let ann = lobby_member(&cluster, 0, "ann").await;
    cluster.redis.call::<()>("ACL SETUSER parley -subscribe").await;
    let refused = ann.request(json!({"type": "join", "room": "#den"})).await.unwrap_err();
    assert_eq!(refused.code, "unavailable");
    until_all_unready(&cluster, "the redis user lacks a right: redis answered NOPERM").await;
    let gateway = &cluster.gateways[0];
    ann.sends("#lobby", "a room that is subscribed").await;
    ann.receives("#lobby", "ann", "a room that is subscribed").await;
    let refused = gateway.metrics().await.get("parley_redis_refusals_total", &[("reason", "no_permission")]);
    assert!(refused > Some(0.0), "{refused:?}");
    cluster.redis.call::<()>("ACL SETUSER parley +subscribe").await;
    until_all_ready(&cluster).await;
    assert_eq!(
        count_lines(gateway, &["WARN", "redis calls refused", "subscribe", "NOPERM"]),
        1,
        "{}",
        gateway.log().tail(9)
    );
    until_logged(gateway, &["INFO", "redis refusals ended", "no_permission"], 1).await;
    ann.join("#den").await;
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}

#[tokio::test]
async fn message_stored_without_a_right_is_never_refused() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    for text in ["redis is unfit", "redis calls refused", "subscription"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    // The script of a message reaches these commands before or after its first write.
    for right in ["publish", "hset", "xadd", "expire"] {
        let body = format!("without {right}");
        cluster.redis.call::<()>(&format!("ACL SETUSER parley -{right}")).await;
        let send = ann.request(json!({"type": "send", "to": "#lobby", "body": body, "key": right}));
        let (reply, ()) = tokio::join!(send, async {
            until_all_unready(&cluster, "redis user may not run").await;
            cluster.redis.call::<()>(&format!("ACL SETUSER parley +{right}")).await;
        });
        until_all_ready(&cluster).await;
        let stored = async || {
            let page = ann.request(json!({"type": "history", "to": "#lobby", "limit": 200})).await.unwrap();
            page["items"].as_array().unwrap().iter().filter(|item| item["body"] == body.as_str()).count()
        };
        // Without EXPIRE a message is complete.
        assert_eq!(reply.is_ok(), right == "expire", "{right}: {reply:?}");
        match reply {
            Ok(ack) => assert_eq!((&ack["type"], stored().await), (&json!("ack"), 1), "{right}: {ack}"),
            Err(refused) => assert_eq!((&*refused.code, stored().await), ("unavailable", 0), "{right}: {refused:?}"),
        }
        ann.request(json!({"type": "send", "to": "#lobby", "body": body, "key": right})).await.unwrap();
        assert_eq!(stored().await, 1, "{right}");
        bob.receives("#lobby", "ann", &body).await;
    }
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}
