//! The metrics: each event is counted on the gateway where it happens, under the documented name.

use std::time::Duration;

use harness::metrics::ScrapedMetrics;
use harness::{Cluster, Node, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

/// Waits until a metric of a node fits.
async fn expect_metric(node: &Node, name: &str, labels: &[(&str, &str)], fits: impl Fn(f64) -> bool) {
    eventually(SOON, &format!("{} shows {name}{labels:?}", node.name()), async || {
        let number = node.metrics().await.get(name, labels);
        if number.is_some_and(&fits) { Ok(()) } else { Err(number) }
    })
    .await;
}

#[tokio::test]
async fn metrics_count_activity_on_its_gateway() {
    const MESSAGES: u32 = 5;
    let cluster = Cluster::builder().gateways(2).presence(1).start().await;
    let (ann, bob, cy) = (cluster.ws_on(0).await, cluster.ws_on(1).await, cluster.line_on(1).await);
    ann.register("ann").await;
    bob.register("bob").await;
    cy.register("cy").await;
    for person in [&ann, &bob] {
        person.join("#lobby").await;
    }
    cy.join("#lobby").await;
    for number in 0..MESSAGES {
        ann.sends("#lobby", &format!("{number}")).await;
        bob.receives("#lobby", "ann", &format!("{number}")).await;
        cy.receives("#lobby", "ann", &format!("{number}")).await;
    }
    ann.sends("bob", "psst").await;
    for _ in 0..3 {
        ann.must(json!({"type": "send", "to": "#lobby", "body": "once", "key": "k"})).await;
    }
    ann.try_send("#elsewhere", "let me in").await.expect_err("not a member");
    cluster.ws_on(1).await.try_register("Ann").await.expect_err("the nick is in use");

    let in_room = f64::from(MESSAGES) + 1.0;
    let [g1, g2] = [&cluster.gateways[0], &cluster.gateways[1]];
    expect_metric(g1, "parley_messages_published_total", &[("kind", "room")], |number| number == in_room).await;
    expect_metric(g1, "parley_messages_published_total", &[("kind", "direct")], |number| number == 1.0).await;
    expect_metric(g1, "parley_messages_duplicate_total", &[("kind", "room")], |number| number == 2.0).await;
    expect_metric(g1, "parley_messages_refused_total", &[], |number| number == 1.0).await;
    expect_metric(g1, "parley_messages_refused_total", &[("code", "not_in_room")], |number| number == 1.0).await;
    expect_metric(g1, "parley_messages_delivered_total", &[], |number| number == in_room).await;
    expect_metric(g2, "parley_messages_published_total", &[], |number| number == 0.0).await;
    expect_metric(g2, "parley_messages_delivered_total", &[], |number| number == 2.0 * in_room + 1.0).await;
    // bob and cy get one write per message, or several messages in one write.
    let deliveries = |number: f64| number > 2.0 && number <= 2.0 * in_room + 1.0;
    expect_metric(g2, "parley_delivery_seconds_count", &[], deliveries).await;
    expect_metric(g2, "parley_fanout_round_deliveries_count", &[], |number| number > 2.0 && number <= in_room + 1.0)
        .await;
    let numbers = g2.metrics().await;
    let sum = numbers.get("parley_delivery_seconds_sum", &[]).unwrap();
    assert!(sum > 0.0 && sum < 10.0, "a message takes milliseconds here, not {sum} s in all");
    for (door, open) in [("ws", 1.0), ("tcp", 1.0)] {
        assert_eq!(numbers.get("parley_connections", &[("door", door), ("state", "open")]), Some(open));
    }
    for (name, labels, expected) in [
        ("parley_sessions", None, 2.0),
        ("parley_rooms", None, 1.0),
        ("parley_connections_total", Some(("door", "tcp")), 1.0),
        ("parley_registrations_total", Some(("outcome", "registered")), 2.0),
        ("parley_registrations_total", Some(("outcome", "nick_in_use")), 1.0),
        ("parley_refusals_total", Some(("code", "nick_in_use")), 1.0),
        ("parley_detached_sessions", None, 0.0),
    ] {
        assert_eq!(numbers.get(name, labels.as_slice()), Some(expected), "{name}{labels:?}");
    }
    expect_metric(g2, "parley_backplane_round_trip_seconds_count", &[], |number| number > 0.0).await;
    expect_metric(g2, "parley_event_loop_lag_seconds_count", &[], |number| number > 0.0).await;
    expect_metric(g1, "parley_redis_call_seconds_count", &[("call", "publish")], |number| number >= in_room).await;
    expect_metric(&cluster.presence[0], "parley_users_online", &[], |number| number == 3.0).await;
    expect_metric(&cluster.presence[0], "parley_rooms_with_members", &[], |number| number == 1.0).await;
    bob.cut();
    expect_metric(g2, "parley_detached_sessions", &[], |number| number == 1.0).await;
    expect_metric(&cluster.presence[0], "parley_leases", &[("state", "live")], |number| number == 2.0).await;
    cluster.finish().await;
}

#[tokio::test]
async fn metrics_show_lost_subscription_and_refill() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    cluster.allow("subscription lost");
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    for (person, nick) in [(&ann, "ann"), (&bob, "bob")] {
        person.register(nick).await;
        person.join("#lobby").await;
    }
    let g2 = &cluster.gateways[1];
    let refilled = async || g2.metrics().await.get("parley_gap_messages_total", &[("outcome", "repaired")]);
    let mut number = 0;
    eventually(SOON * 2, "a missed message is refilled", async || {
        cluster.redis.call::<u64>("CLIENT KILL TYPE pubsub").await;
        number += 1;
        ann.sends("#lobby", &format!("{number}")).await;
        bob.receives("#lobby", "ann", &format!("{number}")).await;
        if refilled().await > Some(0.0) { Ok(()) } else { Err(number) }
    })
    .await;
    expect_metric(g2, "parley_gaps_found_total", &[], |number| number > 0.0).await;
    expect_metric(g2, "parley_gap_messages_total", &[("outcome", "lost")], |number| number == 0.0).await;
    expect_metric(g2, "parley_backplane_reconnects_total", &[], |number| number > 0.0).await;
    expect_metric(g2, "parley_backplane_gap_seconds_total", &[], |number| number > 0.0).await;
    expect_metric(g2, "parley_backplane_subscribed", &[], |number| number == 1.0).await;
    cluster.finish().await;
}

#[tokio::test]
async fn presence_metrics_show_largest_logs() {
    let builder = Cluster::builder().gateways(1).presence(1).gateway_setting("PARLEY__HISTORY__MAX_BYTES", "65536");
    let cluster = builder.gateway_setting("PARLEY__HISTORY__INBOX_BYTES", "65536").start().await;
    let presence = &cluster.presence[0];
    let [room, inbox] = [("kind", "room"), ("kind", "inbox")].map(|label| [label]);
    for labels in [&room, &inbox] {
        expect_metric(presence, "parley_largest_log_bytes", labels, |bytes| bytes == 0.0).await;
    }
    let ann = cluster.ws().await;
    ann.register("ann").await;
    for (target, length) in [("#hall", 10_000), ("#lobby", 20_000), ("ann", 5_000)] {
        if target.starts_with('#') {
            ann.join(target).await;
        }
        ann.sends(target, &"x".repeat(length)).await;
    }
    let near = |length: f64| move |bytes: f64| (length..length + 500.0).contains(&bytes);
    expect_metric(presence, "parley_largest_log_bytes", &room, near(20_000.0)).await;
    expect_metric(presence, "parley_largest_log_bytes", &inbox, near(5_000.0)).await;
    expect_metric(presence, "parley_listed_log_bytes", &room, near(30_000.0)).await;
    expect_metric(presence, "parley_listed_log_bytes", &inbox, near(5_000.0)).await;
    cluster.finish().await;
}

#[tokio::test]
async fn presence_metrics_show_redis_health() {
    let mut cluster = Cluster::builder().gateways(0).presence(1).start().await;
    cluster.allow("not ready");
    cluster.allow("registry not answering");
    cluster.allow("redis is unfit");
    let presence = &cluster.presence[0];
    for (name, expected) in
        [("parley_redis_up", 1.0), ("parley_redis_evicts", 0.0), ("parley_redis_append_only_ok", 1.0)]
    {
        expect_metric(presence, name, &[], |number| number == expected).await;
    }
    let numbers = presence.metrics().await;
    for name in ["parley_redis_clients", "parley_redis_commands_total"] {
        assert!(numbers.get(name, &[]) > Some(0.0), "{name}");
    }
    for name in ["parley_redis_uptime_seconds", "parley_redis_evicted_keys_total"] {
        assert!(numbers.get(name, &[]).is_some(), "{name}");
    }
    let [used, limit] = ["used", "limit"].map(|what| numbers.get(&format!("parley_redis_memory_{what}_bytes"), &[]));
    assert!(used > Some(0.0) && limit > used, "{used:?} of {limit:?}");
    cluster.redis.call::<()>("CONFIG SET maxmemory-policy allkeys-lru").await;
    cluster.redis.call::<()>("CONFIG SET appendonly no").await;
    expect_metric(presence, "parley_redis_evicts", &[], |number| number == 1.0).await;
    expect_metric(presence, "parley_redis_append_only_ok", &[], |number| number == 0.0).await;
    expect_metric(presence, "parley_redis_unusable", &[], |number| number == 1.0).await;
    cluster.redis.call::<()>("CONFIG SET maxmemory-policy noeviction").await;
    expect_metric(presence, "parley_redis_unusable", &[], |number| number == 0.0).await;

    // A suspended Redis keeps its connections open, so the scrape must end by its own timeout.
    cluster.redis.stop_signal().await;
    let presence = &cluster.presence[0];
    expect_metric(presence, "parley_redis_up", &[], |number| number == 0.0).await;
    expect_metric(presence, "parley_redis_call_failures_total", &[("call", "connect")], |number| number > 0.0).await;
    let numbers: ScrapedMetrics = presence.metrics().await;
    let old: Vec<&str> = numbers.names().into_iter().filter(|name| name.starts_with("parley_redis_memory")).collect();
    assert_eq!((old, numbers.get("parley_users_online", &[])), (Vec::new(), None), "no stale value is exported");
    expect_metric(presence, "parley_ready", &[], |number| number == 0.0).await;
    cluster.redis.cont();
    expect_metric(presence, "parley_redis_up", &[], |number| number == 1.0).await;
    expect_metric(presence, "parley_ready", &[], |number| number == 1.0).await;
    cluster.finish().await;
}

#[tokio::test]
async fn metrics_show_a_redis_restart() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for text in ["beat not answered", "subscription lost", "no subscription"] {
        cluster.allow(text);
    }
    expect_metric(&cluster.gateways[0], "parley_beat_age_seconds", &[], |age| age < 2.5).await;
    let generation = cluster.gateways[0].metrics().await.get("parley_store_generation", &[]).unwrap();
    cluster.redis.kill9();
    expect_metric(&cluster.gateways[0], "parley_beat_age_seconds", &[], |age| age > 3.0).await;
    expect_metric(&cluster.gateways[0], "parley_redis_call_failures_total", &[("call", "beat")], |number| number > 0.0)
        .await;
    cluster.redis.start().await;
    expect_metric(&cluster.gateways[0], "parley_store_generation", &[], |number| number > generation).await;
    expect_metric(&cluster.gateways[0], "parley_store_recovering", &[], |number| number == 0.0).await;
    expect_metric(&cluster.gateways[0], "parley_beat_age_seconds", &[], |age| age < 2.5).await;
    cluster.finish().await;
}

#[tokio::test]
async fn metrics_show_a_running_drain() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    let clients = [cluster.ws().await, cluster.ws().await];
    for (person, nick) in clients.iter().zip(["ann", "bob"]) {
        person.register(nick).await;
    }
    expect_metric(&cluster.gateways[0], "parley_draining", &[], |number| number == 0.0).await;
    // The drain waits to release nicks while Redis is suspended, which leaves time to scrape.
    cluster.redis.stop_signal().await;
    let gateway = &mut cluster.gateways[0];
    gateway.process().terminate();
    expect_metric(gateway, "parley_draining", &[], |number| number == 1.0).await;
    expect_metric(gateway, "parley_drain_began_with_sessions", &[], |number| number == 2.0).await;
    expect_metric(gateway, "parley_ready", &[], |number| number == 0.0).await;
    cluster.redis.cont();
    assert_eq!(cluster.gateways[0].process().exit_code(SOON * 3).await, Some(0));
}
