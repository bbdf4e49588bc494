//! `gateway ctl audit`: reports no drift on a busy cluster, and finds every kind of drift.

use std::collections::BTreeSet;

use harness::{Cluster, eventually};
use serde_json::Value;

use super::{SOON, assert_failed, ctl, json, output};
use crate::lobby::lobby_member;

/// Starts a cluster with ann on g1 and bob on g2, both in #lobby.
async fn cluster(settings: &[(&str, &str)]) -> (Cluster, harness::WsClient, harness::WsClient) {
    let builder = settings.iter().fold(Cluster::builder(), |builder, (key, value)| builder.gateway_setting(key, value));
    let cluster = builder.gateways(2).start().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    (cluster, ann, bob)
}

/// Returns the current incarnation of a gateway.
async fn incarnation(cluster: &Cluster, node: &str) -> String {
    let status = json(&cluster.redis, &["status"]).await;
    let mut gateways = status["gateways"].as_array().unwrap().iter();
    let gateway = gateways.find(|gateway| gateway["node"] == node).unwrap_or_else(|| panic!("no {node}: {status}"));
    gateway["incarnation"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn audit_of_busy_cluster_finds_no_drift() {
    // Bound to every address, as in a container; the gateways still advertise a reachable one.
    let (cluster, ann, bob) = cluster(&[("PARLEY__ADMIN__ADDR", "0.0.0.0:0")]).await;
    let (gone, line) = (cluster.ws_on(0).await, cluster.line_on(1).await);
    gone.register("gone").await;
    gone.join("#kitchen").await;
    gone.sends("#kitchen", "back in a minute").await;
    line.register("王小明").await;
    line.join("#lobby").await;
    drop(gone);
    let churn = async {
        for round in 0.. {
            let room = format!("#room{round}");
            ann.join(&room).await;
            bob.rename(&format!("bob{round}")).await;
            ann.leave(&room).await;
        }
    };
    let audits = async {
        for _ in 0..2 {
            let text = output(&cluster.redis, &["audit"]).await;
            assert!(text.starts_with("no drift: ") && text.contains(" on 2 gateways"), "{text}");
        }
        json(&cluster.redis, &["audit"]).await
    };
    let audit = tokio::select! {
        audit = audits => audit,
        () = churn => unreachable!("the churn never ends"),
    };
    assert_eq!((&audit["drift"], &audit["gateways"]), (&Value::Array(Vec::new()), &2.into()), "{audit}");
    cluster.finish().await;
}

#[tokio::test]
async fn audit_finds_every_kind_of_drift() {
    let (cluster, ann, _bob) = cluster(&[]).await;
    ann.join("#kitchen").await;
    let [g1, g2] = [incarnation(&cluster, "g1").await, incarnation(&cluster, "g2").await];
    assert_eq!(ctl(&cluster.redis, &["audit"]).await.code, Some(0), "no drift yet");

    let ghost = format!("{g1}/nosession/999");
    for command in [
        // The store and all indexes hold a session of g1 that g1 does not know.
        format!("HSET parley:{{0}}:nick:ghost owner {ghost} display ghost since 1 last_active 1"),
        "ZADD parley:{0}:online 0 ghost".to_owned(),
        format!("SADD parley:{{0}}:owned-nicks:{g1} ghost"),
        // Index entries without a record.
        "ZADD parley:{0}:online 0 nobody".to_owned(),
        format!("SADD parley:{{0}}:owned-nicks:{g2} nothing"),
        "ZADD parley:{0}:member-list:lobby 0 nobody".to_owned(),
        // Missing records: bob, and ann's membership of the kitchen, are known only to their gateways.
        "DEL parley:{0}:nick:bob".to_owned(),
        "HDEL parley:{0}:members:kitchen ann".to_owned(),
    ] {
        cluster.redis.call::<redis::Value>(&command).await;
    }
    // The ghost is a member of a room by its record alone, without index entries.
    let record = format!("{ghost} {{\"nick\":\"ghost\",\"status\":\"online\"}}");
    cluster.redis.ask::<redis::Value>(&["HSET", "parley:{0}:members:lobby", "ghost", &record]).await;
    let entry = ["SADD", &format!("parley:{{0}}:owned-members:{g2}"), "lobby nobody"];
    cluster.redis.ask::<redis::Value>(&entry).await;

    let finished = ctl(&cluster.redis, &["audit", "--json"]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""), "{finished:?}");
    let audit: Value = serde_json::from_str(&finished.stdout).unwrap();
    let row = |row: &Value| {
        let cells = ["drift", "nick", "room", "gateway"].map(|cell| row[cell].as_str().unwrap_or("-").to_owned());
        cells.join(", ")
    };
    let found: BTreeSet<String> = audit["drift"].as_array().unwrap().iter().map(row).collect();
    let expected = [
        "in the store, held by no gateway, ghost, -, g1",
        "in the store, held by no gateway, ghost, lobby, g1",
        "recorded, not in member-list, ghost, lobby, g1",
        "recorded, not in owned-members, ghost, lobby, g1",
        "in online, without a record, nobody, -, -",
        "in owned-nicks, without a record, nothing, -, g2",
        "in member-list, without a record, nobody, lobby, -",
        "in owned-members, without a record, nobody, lobby, g2",
        "held by its gateway, not in the store, bob, -, g2",
        "in online, without a record, bob, -, -",
        "in owned-nicks, without a record, bob, -, g2",
        "held by its gateway, not in the store, ann, kitchen, g1",
        "in member-list, without a record, ann, kitchen, -",
        "in owned-members, without a record, ann, kitchen, g1",
    ];
    assert_eq!(found, expected.map(str::to_owned).into(), "{audit:#}");

    let text = ctl(&cluster.redis, &["audit"]).await;
    assert_eq!(text.code, Some(1), "{text:?}");
    assert!(text.stdout.starts_with("DRIFT ") && text.stdout.contains(&ghost), "{text:?}");
    assert!(text.stdout.ends_with("14 differences among 2 sessions and 3 memberships on 2 gateways"), "{text:?}");
}

#[tokio::test]
async fn audit_reports_silent_gateway_and_skips_dead_one() {
    let (mut cluster, _ann, _bob) = cluster(&[]).await;
    let other = format!("g2={}", cluster.gateways[0].admin());
    assert_failed(&ctl(&cluster.redis, &["audit", "--gateway", &other]).await, 2, &["g2", "that is g1"]);
    assert_failed(&ctl(&cluster.redis, &["audit", "--gateway", "g2"]).await, 2, &["NODE=HOST:PORT"]);
    for unknown in ["g9", "G2", ""] {
        let address = format!("{unknown}={}", cluster.gateways[1].admin());
        let refused = ctl(&cluster.redis, &["audit", "--gateway", &address]).await;
        assert_failed(&refused, 1, &[&format!("no gateway {unknown} serves"), "there is g1, g2"]);
    }
    let right = format!("g2={}", cluster.gateways[1].admin());
    assert_eq!(ctl(&cluster.redis, &["audit", "--gateway", &right]).await.code, Some(0));

    cluster.gateways[1].process().stop_signal().await;
    assert_failed(&ctl(&cluster.redis, &["audit"]).await, 2, &["g2 at", "does not report its claims"]);
    cluster.gateways[1].process().kill9();
    cluster.gateways[1].restart().await;
    // The killed incarnation still has a lease, and a nick that the reapers will free.
    eventually(SOON, "only the new incarnation is audited", || async {
        let audit = ctl(&cluster.redis, &["audit"]).await;
        if audit.code == Some(0) { Ok(()) } else { Err(audit) }
    })
    .await;
}
