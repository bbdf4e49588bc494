//! Failover from a dead or frozen gateway: its sessions leave in time and its nicknames become free.
//!
//! No write of a fenced gateway succeeds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use harness::{Cluster, Node, eventually, stays};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};

use crate::lobby::lobby_member;

/// The maximum time from a kill until the sessions are offline.
const OFFLINE_MAX: Duration = Duration::from_secs(12);
/// The minimum time: 8 s without a heartbeat, of which up to one had passed at the kill.
const OFFLINE_MIN: Duration = Duration::from_secs(7);
/// The maximum recovery time after the end of a fault.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

#[tokio::test]
async fn killed_gateway_loses_its_sessions_once_in_time() {
    lose_a_gateway(1).await;
}

#[tokio::test]
async fn gateways_detect_killed_peer_without_presence_process() {
    lose_a_gateway(0).await;
}

async fn lose_a_gateway(presence: usize) {
    let mut cluster = Cluster::builder().gateways(3).presence(presence).start().await;
    cluster.allow("fenced");
    let _lost = [lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 0, "zoe").await];
    let (bob, carl) = (cluster.person_on(1, "bob").await, cluster.line_on(2).await);
    bob.join("#lobby").await;
    carl.register("carl").await;
    carl.join("#lobby").await;

    let killed = Instant::now();
    cluster.gateways[0].process().kill9();
    let claimer = cluster.ws_on(2).await;
    stays(OFFLINE_MIN.saturating_sub(killed.elapsed()), "claim of the dead gateway held", || async {
        match claimer.try_register("ann").await {
            Err(refused) if refused.code == "nick_in_use" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(bob.left("#lobby"), [], "no leave before the fence");

    for nick in ["ann", "zoe"] {
        let rest = OFFLINE_MAX.saturating_sub(killed.elapsed());
        let seen = bob.sees_left(rest, "#lobby", nick, "gateway_lost").await;
        let after = seen.at.duration_since(killed);
        assert!((OFFLINE_MIN..=OFFLINE_MAX).contains(&after), "{nick} left {after:?} after the kill");
        carl.reads(&format!("* {nick} left #lobby (gateway_lost)")).await;
    }
    let rest = OFFLINE_MAX.saturating_sub(killed.elapsed());
    eventually(rest, "nickname released", || async { claimer.try_register("ann").await }).await;
    if presence > 0 {
        assert!(!cluster.is_online("zoe").await, "zoe is shown as offline");
        assert_eq!(claimer.members("#lobby").await, ["bob", "carl"]);
    }
    assert_eq!(bob.members("#lobby"), ["bob", "carl"]);

    // The other detectors check again after 3 s; this is long enough for a duplicate leave.
    stays(Duration::from_secs(5), "each leave reported once", || async {
        let mut left = bob.left("#lobby");
        left.sort();
        let is_once = left == ["ann", "zoe"].map(|nick| (nick.to_owned(), "gateway_lost".to_owned()));
        if is_once { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(carl.received("* * left #lobby*").len(), 2);
    cluster.finish().await;
}

#[tokio::test]
async fn frozen_gateway_loses_sessions_and_serves_again() {
    const FREEZE_TIME: Duration = Duration::from_secs(15);
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    for text in ["fenced", "lease lost", "beat not answered", "subscription lost"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, cluster.person_on(1, "bob").await);
    bob.join("#lobby").await;
    ann.sends("#lobby", "before").await;
    bob.receives("#lobby", "ann", "before").await;
    let (pid, first_life) = (cluster.gateways[0].process().pid(), incarnation(&cluster, "g1").await);

    let frozen = Instant::now();
    cluster.gateways[0].process().stop_signal().await;
    // These requests wait in the socket. The gateway reads them first when it continues.
    for _ in 0..20 {
        ann.post(json!({"type": "send", "to": "#lobby", "body": "ghost"})).await;
    }
    bob.sees_left(OFFLINE_MAX, "#lobby", "ann", "gateway_lost").await;
    let new_ann = cluster.ws_on(1).await;
    let rest = FREEZE_TIME.saturating_sub(frozen.elapsed());
    eventually(rest, "nickname claimed elsewhere", || async { new_ann.try_register("ann").await }).await;
    new_ann.join("#lobby").await;
    new_ann.sends("#lobby", "after").await;
    stays(FREEZE_TIME.saturating_sub(frozen.elapsed()), "new ann online", || async {
        if cluster.is_online("ann").await { Ok(()) } else { Err("offline") }
    })
    .await;
    cluster.gateways[0].process().cont();
    let continued = Instant::now();

    assert_eq!(ann.closed_within(RECOVERY_MAX).await.code, Some(1012));
    let acked = ann.received(|value| value["type"] == "ack" && value["id"].as_u64() > Some(3));
    assert!(acked.is_empty(), "a fenced write was acked: {acked:?}");
    cluster.gateways[0].until_ready(RECOVERY_MAX.saturating_sub(continued.elapsed())).await;
    assert_eq!(cluster.gateways[0].process().pid(), pid, "without a restart");
    assert_ne!(incarnation(&cluster, "g1").await, first_life, "under a new incarnation");

    let dora = cluster.ws_on(0).await;
    assert_eq!(dora.try_register("ann").await.unwrap_err().code, "nick_in_use");
    dora.register("dora").await;
    dora.join("#lobby").await;
    dora.sends("#lobby", "g1 is back").await;
    bob.receives("#lobby", "dora", "g1 is back").await;
    new_ann.sends("#lobby", "still ann").await;
    dora.receives("#lobby", "ann", "still ann").await;

    assert_eq!(bob.left("#lobby").len(), 1, "one leave, also after waking up");
    let said = bob.history("#lobby").await;
    assert!(said.iter().all(|message| message.body != "ghost"), "{said:?}");
    let number = async |node: &Node, name| node.metrics().await.get(name, &[]).unwrap_or_default();
    assert_eq!(number(&cluster.gateways[0], "parley_leases_lost_total").await, 1.0);
    for name in ["parley_fences_total", "parley_reaped_nicks_total", "parley_reaped_members_total"] {
        let by_others = number(&cluster.gateways[1], name).await + number(&cluster.presence[0], name).await;
        assert!(by_others >= 1.0, "{name} is counted by the process that fenced");
    }
    assert_fences_never_decrease(&cluster).await;
    assert_single_owner(&cluster, "ann").await;
    cluster.finish().await;
}

/// Returns the current incarnation of a gateway.
async fn incarnation(cluster: &Cluster, node: &str) -> String {
    let gateways = cluster.ask("/v1/gateways").await;
    let items = gateways["items"].as_array().expect("a list");
    let gateway = items.iter().find(|gateway| gateway["node"] == node);
    gateway.unwrap_or_else(|| panic!("no {node}: {gateways}"))["incarnation"].as_str().expect("text").to_owned()
}

/// Checks that the fence of each nickname never decreases in the stream of a room.
async fn assert_fences_never_decrease(cluster: &Cluster) {
    let log: StreamRangeReply = cluster.redis.call("XRANGE parley:{0}:log:lobby - +").await;
    assert!(log.ids.len() >= 4, "too few messages");
    let mut newest: HashMap<String, u64> = HashMap::new();
    for entry in log.ids {
        let payload = entry.map.into_values().map(|value| redis::from_redis_value::<String>(value).unwrap());
        let said = payload.filter_map(|text| serde_json::from_str::<Value>(&text).ok()).find(Value::is_object);
        let said = said.expect("every entry holds a message");
        let (from, fence) = (said["from"].as_str().unwrap().to_owned(), said["fence"].as_u64().unwrap());
        let before = newest.insert(from, fence).unwrap_or_default();
        assert!(before <= fence, "the fence of {said} is older than {before}");
    }
}

/// Checks that online and offline events of a nickname alternate, so it never had two owners.
async fn assert_single_owner(cluster: &Cluster, nick: &str) {
    let events: StreamRangeReply = cluster.redis.call("XRANGE parley:{0}:events - +").await;
    let texts = events.ids.into_iter().map(|entry| {
        let words = entry.map.into_values().map(|value| redis::from_redis_value::<String>(value).unwrap());
        words.collect::<Vec<String>>()
    });
    let about = texts.filter(|words| words.iter().any(|word| word.contains(&format!("\"{nick}\""))));
    let changes: Vec<&str> = about
        .filter_map(|words| ["online", "offline"].into_iter().find(|kind| words.iter().any(|word| word == kind)))
        .collect();
    assert!(changes.len() >= 3, "too few events: {changes:?}");
    assert!(changes.iter().step_by(2).all(|change| *change == "online"), "{changes:?}");
    assert!(changes.iter().skip(1).step_by(2).all(|change| *change == "offline"), "{changes:?}");
}
