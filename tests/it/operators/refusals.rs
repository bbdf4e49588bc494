//! Readiness while Redis answers but refuses: full, read-only, evicting, wrong rights, wrong type of a key.
//!
//! Both programs turn unready within 3 s with the reason, log its begin and its end once, and keep their clients.

mod rights;

use std::time::Duration;

use harness::{Cluster, Node, Redis, WsClient, eventually};
use serde_json::json;

use crate::lobby::lobby_member;

/// The promised 3 s, and one poll on a busy machine.
const UNREADY_MAX: Duration = Duration::from_millis(3_500);
/// Checks of Redis during one fault.
const PROBES: f64 = 2.0;
/// Longest recovery after a fault has cleared.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// Waits until every program is unready for a reason that contains `words`.
async fn until_all_unready(cluster: &Cluster, words: &str) {
    for node in cluster.gateways.iter().chain(&cluster.presence) {
        eventually(UNREADY_MAX, &format!("{} reports {words}", node.name()), || async {
            let answer = node.readyz().await?;
            if answer.status == 503 && answer.body.contains(words) { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}

async fn until_all_ready(cluster: &Cluster) {
    for node in cluster.gateways.iter().chain(&cluster.presence) {
        node.until_ready(RECOVERY_MAX).await;
    }
}

/// Waits until this many logged lines contain all these words.
async fn until_logged(node: &Node, words: &[&str], count: usize) {
    eventually(RECOVERY_MAX, &format!("{words:?} is logged"), || async {
        if count_lines(node, words) == count { Ok(()) } else { Err(node.log().tail(9)) }
    })
    .await;
}

/// Returns the number of logged lines that contain all these words.
fn count_lines(node: &Node, words: &[&str]) -> usize {
    node.log().lines().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[tokio::test]
async fn full_redis_makes_every_program_unready() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    cluster.allow("redis calls refused");
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);

    cluster.redis.call::<()>("CONFIG SET maxmemory 1mb").await;
    until_all_unready(&cluster, "redis is full").await;
    let refused = ann.request(json!({"type": "send", "to": "#lobby", "body": "hi"})).await.unwrap_err();
    assert_eq!(refused.code, "unavailable");
    cluster.redis.call::<()>("CONFIG SET maxmemory 0").await;
    for node in cluster.gateways.iter().chain(&cluster.presence) {
        node.until_ready(UNREADY_MAX).await;
        assert_eq!(count_lines(node, &["WARN", "redis calls refused", "full", "OOM"]), 1, "{}", node.log().tail(9));
        until_logged(node, &["INFO", "redis refusals ended", "full"], 1).await;
    }
    ann.sends("#lobby", "still here").await;
    bob.receives("#lobby", "ann", "still here").await;
    cluster.finish().await;
}

#[tokio::test]
async fn key_of_wrong_type_makes_gateway_unready() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    cluster.allow("redis calls refused");
    let ann = lobby_member(&cluster, 0, "ann").await;
    for kind in ["log", "members"] {
        ann.sends("#lobby", "hi").await;
        let keys: Vec<String> = cluster.redis.call("KEYS *").await;
        let key =
            keys.iter().find(|key| key.ends_with(&format!(":{kind}:lobby"))).unwrap_or_else(|| panic!("{keys:?}"));
        cluster.redis.call::<()>(&format!("RENAME {key} parley:kept")).await;
        cluster.redis.call::<()>(&format!("SET {key} x")).await;
        let refused = ann.request(json!({"type": "send", "to": "#lobby", "body": "hi"})).await.unwrap_err();
        assert_eq!(refused.code, "unavailable", "{kind}");
        until_all_unready(&cluster, "WRONGTYPE").await;
        let answer = cluster.gateways[0].readyz().await.unwrap();
        assert!(answer.body.contains(key.as_str()), "{answer:?}");

        cluster.redis.call::<()>(&format!("RENAME parley:kept {key}")).await;
        ann.sends("#lobby", "back").await;
        cluster.gateways[0].until_ready(UNREADY_MAX).await;
    }
    assert_eq!(count_lines(&cluster.gateways[0], &["WARN", "redis calls refused", "wrong_type", "log:lobby"]), 2);
    cluster.finish().await;
}

#[tokio::test]
async fn broken_buckets_of_notes_are_named() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    cluster.allow("redis calls refused");
    let ann = lobby_member(&cluster, 0, "ann").await;
    for (kind, span_ms, to) in
        [("idempotency", 300_000, "#lobby"), ("idempotency", 300_000, "ann"), ("attempts", 30_000, "ann")]
    {
        let time: (u64, u64) = cluster.redis.call("TIME").await;
        let span = (time.0 * 1000 + time.1 / 1000) / span_ms;
        let buckets = [span, span + 1].map(|span| format!("parley:{{0}}:{kind}:{span}"));
        for bucket in &buckets {
            cluster.redis.call::<()>(&format!("SET {bucket} x")).await;
        }
        let mut send = json!({"type": "send", "to": to, "body": "hi"});
        if kind == "idempotency" {
            send["key"] = json!("k");
        }
        let refused = ann.request(send.clone()).await.unwrap_err();
        assert_eq!(refused.code, "unavailable", "{kind} {to}");
        until_all_unready(&cluster, "WRONGTYPE").await;
        let answer = cluster.gateways[0].readyz().await.unwrap();
        assert!(answer.body.contains(&format!("those of {kind}")), "{answer:?}");

        cluster.redis.call::<()>(&format!("DEL {} {}", buckets[0], buckets[1])).await;
        ann.request(send).await.unwrap();
        // Refusals that keep returning end after a quiet time.
        cluster.gateways[0].until_ready(RECOVERY_MAX).await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn every_kind_of_broken_key_is_reported() {
    let mut cluster = Cluster::builder().gateways(1).presence(1).start().await;
    for text in ["redis calls refused", "beat not answered", "not ready", "lease lost", "gateway fenced"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 0, "bob").await);
    ann.request(json!({"type": "send", "to": "bob", "body": "hi"})).await.unwrap();
    let cases = [("inbox", "bob"), ("room", "#lobby"), ("nick", "bob"), ("lease-table", "")];
    for (kind, target) in cases {
        let keys: Vec<String> = cluster.redis.call("KEYS *").await;
        let ending = match kind {
            "inbox" => ":inbox:",
            "lease-table" => ":leases",
            _ => &format!(":{kind}:{}", target.trim_start_matches('#')),
        };
        // Only bob has an inbox with a message.
        let key = keys.iter().find(|key| key.ends_with(ending) || kind == "inbox" && key.contains(ending));
        let key = key.unwrap_or_else(|| panic!("no {kind} in {keys:?}"));
        cluster.redis.call::<()>(&format!("RENAME {key} parley:kept")).await;
        cluster.redis.call::<()>(&format!("SET {key} x")).await;
        if !target.is_empty() {
            ann.request(json!({"type": "send", "to": target, "body": "hi"})).await.unwrap_err();
        }
        let gateway = &cluster.gateways[0];
        eventually(UNREADY_MAX, &format!("the broken {kind} is reported"), || async {
            let answer = gateway.readyz().await?;
            let is_named = kind != "inbox" || answer.body.contains("those of sessions");
            let is_reported = answer.status == 503 && answer.body.contains("WRONGTYPE") && is_named;
            if is_reported { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        cluster.redis.call::<()>(&format!("RENAME parley:kept {key}")).await;
        until_all_ready(&cluster).await;
    }
    ann.sends("#lobby", "still here").await;
    bob.receives("#lobby", "ann", "still here").await;
    cluster.finish().await;
}

#[tokio::test]
async fn lost_requirement_makes_every_program_unready() {
    let mut cluster = Cluster::builder().gateways(1).presence(1).start().await;
    cluster.allow("redis is unfit");
    let ann = lobby_member(&cluster, 0, "ann").await;
    let cases = [
        (
            "CONFIG SET maxmemory-policy allkeys-lru",
            "maxmemory-policy allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        ("ACL SETUSER parley -xadd", "redis user may not run XADD", "ACL SETUSER parley +xadd"),
        ("ACL SETUSER parley -zrangebylex", "redis user may not run ZRANGEBYLEX", "ACL SETUSER parley +zrangebylex"),
    ];
    for (number, (fault, words, remedy)) in cases.into_iter().enumerate() {
        cluster.redis.call::<()>(fault).await;
        until_all_unready(&cluster, words).await;
        cluster.redis.call::<()>(remedy).await;
        until_all_ready(&cluster).await;
        for node in cluster.gateways.iter().chain(&cluster.presence) {
            assert_eq!(count_lines(node, &["ERROR", "redis is unfit", words]), 1, "{}", node.log().tail(9));
            until_logged(node, &["INFO", "redis is fit again"], number + 1).await;
        }
    }
    ann.sends("#lobby", "still here").await;
    cluster.finish().await;
}

#[tokio::test]
async fn read_only_and_lonely_redis_are_named() {
    let mut cluster = Cluster::builder().gateways(1).presence(1).start().await;
    for text in
        ["redis calls refused", "redis is unfit", "beat not answered", "not ready", "lease lost", "subscription"]
    {
        cluster.allow(text);
    }
    cluster.redis.call::<()>("CONFIG SET min-replicas-to-write 1").await;
    until_all_unready(&cluster, "redis has too few replicas: redis answered NOREPLICAS").await;
    cluster.redis.call::<()>("CONFIG SET min-replicas-to-write 0").await;
    until_all_ready(&cluster).await;

    cluster.redis.call::<()>("REPLICAOF 127.0.0.1 1").await;
    until_all_unready(&cluster, "redis answered READONLY").await;
    until_all_unready(&cluster, "redis is a replica of 127.0.0.1:1").await;
    cluster.redis.call::<()>("REPLICAOF NO ONE").await;
    until_all_ready(&cluster).await;
    cluster.finish().await;
}

#[tokio::test]
async fn refused_beats_cut_no_subscription() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    cluster.allow("redis calls refused");
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 0, "bob").await);
    cluster.redis.call::<()>("CONFIG SET min-replicas-to-write 1").await;
    until_all_unready(&cluster, "redis has too few replicas").await;
    // Longer than a subscription stays without an echo. Another gateway would fence this one in that time.
    until_probed(&cluster.gateways[0], 7.0).await;
    cluster.redis.call::<()>("CONFIG SET min-replicas-to-write 0").await;
    until_all_ready(&cluster).await;
    ann.sends("#lobby", "still here").await;
    bob.receives("#lobby", "ann", "still here").await;
    cluster.finish().await;
}

#[tokio::test]
async fn presence_names_a_refused_password_once() {
    let redis = Redis::running().await;
    let url = redis.url().replace(":not-a-secret@", ":wrong-one@");
    let presence = Node::presence("p1").redis(&redis).setting("PARLEY__REDIS__URL", &url).launch().await;
    eventually(UNREADY_MAX, "the answer of redis is shown", || async {
        let answer = presence.readyz().await?;
        if answer.status == 503 && answer.body.contains("WRONGPASS") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    redis.call::<()>("ACL SETUSER parley >wrong-one").await;
    presence.until_ready(RECOVERY_MAX).await;
    assert_eq!(count_lines(&presence, &["WARN", "redis calls refused", "WRONGPASS"]), 1, "{}", presence.log().tail(9));
    assert_eq!(count_lines(&presence, &["WARN"]), 1, "{}", presence.log().tail(9));
    until_logged(&presence, &["INFO", "redis refusals ended", "authentication"], 1).await;
    assert!(!presence.log().holds("wrong-one"), "{}", presence.log().tail(9));
    redis.call::<()>("ACL LOG RESET").await;
}

/// Waits until a program has checked Redis this many times more.
async fn until_probed(node: &Node, times: f64) {
    let probed = async || node.metrics().await.get("parley_redis_call_seconds_count", &[("call", "probe")]);
    let before = probed().await.unwrap_or_default();
    eventually(RECOVERY_MAX, &format!("{} checks redis", node.name()), || async {
        let now = probed().await.unwrap_or_default();
        if now >= before + times { Ok(()) } else { Err(now) }
    })
    .await;
}

/// A condition of Redis that operators cause and mend, with its traces in every program.
struct StoreFault<'a> {
    /// Commands that cause it.
    causes: &'a [&'a str],
    /// Words of the reason in `/readyz`.
    reason: &'a str,
    /// Commands that mend it.
    remedies: &'a [&'a str],
    /// Words of the one line at its begin, and of the one at its end.
    lines: [&'a [&'a str]; 2],
    /// The label of the refusals that are counted.
    counted: &'a str,
}

impl StoreFault<'_> {
    /// Causes and mends it, while `people` stay connected and talk before and after.
    async fn strike(&self, cluster: &Cluster, people: [&WsClient; 2]) {
        let [ann, bob] = people;
        let nodes = || cluster.gateways.iter().chain(&cluster.presence);
        let [begin, end] = self.lines;
        let before: Vec<_> = nodes().map(|node| [begin, end].map(|words| count_lines(node, words))).collect();
        for command in self.causes {
            cluster.redis.call::<redis::Value>(command).await;
        }
        until_all_unready(cluster, self.reason).await;
        for node in nodes() {
            let metrics = node.metrics().await;
            assert_eq!(metrics.get("parley_redis_unusable", &[]), Some(1.0), "{}", node.name());
            let refused = metrics.get("parley_redis_refusals_total", &[("reason", self.counted)]);
            assert!(self.counted.is_empty() || refused > Some(0.0), "{}: {refused:?}", node.name());
            // A lasting fault is found again by each check, and still logged once.
            until_probed(node, PROBES).await;
        }
        for command in self.remedies {
            cluster.redis.call::<redis::Value>(command).await;
        }
        until_all_ready(cluster).await;
        for (node, [begun, ended]) in nodes().zip(before) {
            let tail = node.log().tail(12);
            assert_eq!(count_lines(node, begin), begun + 1, "{}: {begin:?}: {tail}", node.name());
            until_logged(node, end, ended + 1).await;
            assert_eq!(node.metrics().await.get("parley_redis_unusable", &[]), Some(0.0), "{}", node.name());
        }
        let text = format!("after {}", self.reason);
        // A promoted replica recovers first.
        eventually(RECOVERY_MAX, "a message is accepted", || ann.try_send("#lobby", &text)).await;
        bob.receives("#lobby", "ann", &text).await;
    }
}

#[tokio::test]
async fn failed_save_makes_every_program_unready() {
    let mut cluster =
        Cluster::builder().redis_setting("enable-protected-configs", "yes").gateways(2).presence(1).start().await;
    for text in ["redis calls refused", "subscription"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let former: Vec<String> = cluster.redis.call("CONFIG GET dir").await;
    let gone = tempfile::tempdir().unwrap();
    let [away, back] = [gone.path().to_str().unwrap(), &former[1]].map(|path| format!("CONFIG SET dir {path}"));
    for command in ["CONFIG SET save 3600 1", "CONFIG SET stop-writes-on-bgsave-error yes", &away] {
        cluster.redis.ask::<()>(&command.splitn(4, ' ').collect::<Vec<_>>()).await;
    }
    gone.close().unwrap();
    StoreFault {
        causes: &["BGSAVE"],
        reason: "redis cannot save its data: redis answered MISCONF",
        remedies: &[&back, "BGSAVE"],
        lines: [
            &["WARN", "redis calls refused", "not_persisting"],
            &["INFO", "redis refusals ended", "not_persisting"],
        ],
        counted: "not_persisting",
    }
    .strike(&cluster, [&ann, &bob])
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn primary_demoted_twice_is_named_each_time() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    for text in ["redis is unfit", "redis calls refused", "subscription"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    for _ in 0..2 {
        StoreFault {
            causes: &["REPLICAOF 127.0.0.1 1"],
            reason: "redis is a replica of 127.0.0.1:1",
            remedies: &["REPLICAOF NO ONE"],
            lines: [&["ERROR", "redis is unfit", "replica of 127.0.0.1:1"], &["INFO", "redis is fit again"]],
            counted: "read_only",
        }
        .strike(&cluster, [&ann, &bob])
        .await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn full_primary_of_a_replica_is_named() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    cluster.allow("redis calls refused");
    let replica = Redis::running().await;
    let primary = cluster.redis.address().to_string().replace(':', " ");
    replica.call::<()>(&format!("REPLICAOF {primary}")).await;
    eventually(RECOVERY_MAX, "the replica is connected", || async {
        let info: String = cluster.redis.call("INFO replication").await;
        if info.contains("state=online") { Ok(()) } else { Err(info) }
    })
    .await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    StoreFault {
        causes: &["CONFIG SET maxmemory 1mb"],
        reason: "redis is full: redis answered OOM",
        remedies: &["CONFIG SET maxmemory 0"],
        lines: [&["WARN", "redis calls refused", "full"], &["INFO", "redis refusals ended", "full"]],
        counted: "full",
    }
    .strike(&cluster, [&ann, &bob])
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn presence_alone_reports_keys_of_wrong_type() {
    let mut redis = Redis::running().await;
    let mut presence = Node::presence("p1").redis(&redis).start().await;
    for (key, path, named, begun) in [
        ("parley:{0}:online", "/v1/users?online=true", "parley:{0}:online", 1),
        ("parley:{0}:rooms", "/v1/stats", "parley:{0}:rooms", 2),
        ("parley:{0}:events", "/v1/events", "parley:{0}:events", 3),
        ("parley:{0}:room:lobby", "/v1/rooms/lobby", "those of rooms", 4),
    ] {
        redis.call::<()>(&format!("SET {key} x")).await;
        eventually(UNREADY_MAX, &format!("presence reports {key}"), || async {
            // An event stream stays open, so its answer is not awaited.
            let asked = harness::http::get(presence.api(), path);
            let _ = tokio::time::timeout(Duration::from_millis(200), asked).await;
            let answer = presence.readyz().await?;
            let is_named = answer.body.contains("WRONGTYPE") && answer.body.contains(named);
            if answer.status == 503 && is_named { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        redis.call::<()>(&format!("DEL {key}")).await;
        presence.until_ready(RECOVERY_MAX).await;
        assert_eq!(count_lines(&presence, &["WARN", "redis calls refused", "wrong_type"]), begun);
        until_logged(&presence, &["INFO", "redis refusals ended", "wrong_type"], begun).await;
    }
    assert_eq!(presence.end().await, Some(0));
    redis.kill9();
}
