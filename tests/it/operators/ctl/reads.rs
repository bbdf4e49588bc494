//! `gateway ctl status` and `who`: tables and JSON match the cluster, and errors name the problem.

use std::time::Duration;

use harness::{ChildProgram, Cluster, Redis, eventually};
use serde_json::Value;

use super::{SOON, assert_failed, ctl, json, output, row};
use crate::lobby::lobby_member;

#[tokio::test]
async fn status_shows_redis_and_silent_gateways() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    for text in ["fenced", "lease lost", "beat not answered", "subscription lost"] {
        cluster.allow(text);
    }
    let _members = [
        lobby_member(&cluster, 0, "ann").await,
        lobby_member(&cluster, 0, "bob").await,
        lobby_member(&cluster, 1, "eve").await,
    ];

    let text = output(&cluster.redis, &["status"]).await;
    let redis = row(&text, &cluster.redis.address().to_string());
    assert_eq!(redis[1..3], ["master", "0"], "{text}");
    let [g1, g2] = ["g1", "g2"].map(|node| row(&text, node));
    assert_eq!((&g1[1..3], &g2[1..3]), (["live", "2"].as_slice(), ["live", "1"].as_slice()), "{text}");
    assert_eq!(g1[6..], [cluster.gateways[0].ws().to_string(), cluster.gateways[0].tcp().to_string()], "{text}");
    assert!(text.ends_with("\n3 sessions on 2 gateways, 1 room"), "{text}");
    let beat = line(&text, "GATEWAY").find("LAST BEAT").unwrap();
    assert!(line(&text, "g1")[beat..].starts_with(g1[3]), "columns are aligned:\n{text}");

    let status = json(&cluster.redis, &["status"]).await;
    assert_eq!(status["redis"]["role"], "master");
    let gateway = &status["gateways"][1];
    assert_eq!((&gateway["node"], &gateway["state"], &gateway["sessions"]), (&"g2".into(), &"live".into(), &1.into()));
    assert!(gateway["beat_age_ms"].as_u64().unwrap() < 3_000, "{status}");

    // A suspended gateway shows as silent before an observer fences it.
    cluster.gateways[1].process().stop_signal().await;
    eventually(SOON, "g2 is shown as silent", || async {
        let text = output(&cluster.redis, &["status"]).await;
        if row(&text, "g2")[1] == "live, silent" { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(row(&output(&cluster.redis, &["status"]).await, "g1")[1], "live");
    eventually(SOON, "g2 is shown as fenced", || async {
        let text = output(&cluster.redis, &["status"]).await;
        if row(&text, "g2")[1] == "fenced" && text.ends_with("2 sessions on 1 gateway, 1 room") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    cluster.gateways[1].process().cont();
    cluster.gateways[1].until_ready(SOON).await;
    eventually(SOON, "g2 is live again", || async {
        let text = output(&cluster.redis, &["status"]).await;
        if row(&text, "g2")[1] == "live" { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn status_shows_what_fills_redis() {
    let builder = Cluster::builder().gateways(1).gateway_setting("PARLEY__HISTORY__MAX_BYTES", "65536");
    let cluster = builder.gateway_setting("PARLEY__HISTORY__INBOX_BYTES", "65536").start().await;
    let empty = output(&cluster.redis, &["status"]).await;
    assert!(!empty.contains("LARGEST LOG"), "{empty}");
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, cluster.ws().await);
    bob.register("Bob").await;
    bob.join("#Hall").await;
    for _ in 0..6 {
        ann.sends("#lobby", &"x".repeat(10_000)).await;
    }
    bob.sends("#Hall", &"x".repeat(20_000)).await;
    ann.sends("bob", &"x".repeat(30_000)).await;
    bob.must(serde_json::json!({"type": "leave", "room": "#Hall"})).await;
    let _: u64 = cluster.redis.ask(&["SADD", "another-program", "x"]).await;

    let text = output(&cluster.redis, &["status"]).await;
    let lobby = row(&text, "#lobby");
    assert_eq!((&lobby[1][..3], &lobby[2..]), ("59.", ["6", "never"].as_slice()), "{text}");
    assert!(row(&text, "#Hall")[3].ends_with(" h"), "{text}");
    assert_eq!(row(&text, "inbox of bob")[2..], ["1", "never"], "{text}");
    let order: Vec<usize> = ["\n#lobby", "\ninbox", "\n#Hall"].iter().map(|word| text.find(word).unwrap()).collect();
    assert!(order.is_sorted(), "the largest is first: {text}");
    assert_eq!(line(&text, "KEYS").split_whitespace().collect::<Vec<_>>(), ["KEYS", "NUMBER", "MEMORY"], "{text}");
    assert!(text.find("KEYS") > text.find("LARGEST LOG") && text.find("LARGEST LOG") > text.find("GATEWAY"), "{text}");
    let logs = row(&text, "log");
    assert_eq!((logs[1], logs[2].ends_with(" KiB")), ("2", true), "{text}");
    assert!(text.lines().count() < 30, "{text}");

    let status = json(&cluster.redis, &["status"]).await;
    let [lobby, inbox, hall] = [0, 1, 2].map(|place| &status["largest"]["streams"][place]);
    assert_eq!((&lobby["kind"], &lobby["room"], &lobby["messages"]), (&"room".into(), &"#lobby".into(), &6.into()));
    assert_eq!(
        (&inbox["kind"], &inbox["nick"], &inbox["expires_in_seconds"]),
        (&"inbox".into(), &"bob".into(), &Value::Null)
    );
    assert!(hall["expires_in_seconds"].as_u64() > Some(23 * 3600), "{hall}");
    assert_eq!(status["largest"]["rooms"]["largest"], lobby["bytes"], "{status}");
    let keys = &status["keys"];
    let kind = |kind: &str| keys["kinds"].as_array().unwrap().iter().find(|row| row["kind"] == kind).unwrap().clone();
    assert_eq!((&kind("log")["keys"], &kind("room")["keys"]), (&2.into(), &2.into()), "{keys}");
    assert_eq!(kind("other"), serde_json::json!({"kind": "other", "keys": 1, "bytes": 0}));
    assert_eq!((&keys["sampled"], &keys["is_estimate"]), (&keys["total"], &false.into()));

    // The rights to read the keys are optional.
    cluster.redis.call::<()>("ACL SETUSER parley -memory").await;
    let text = output(&cluster.redis, &["status"]).await;
    assert!(line(&text, "KEYS").starts_with("KEYS (no right to read them)"), "{text}");
    assert_eq!(json(&cluster.redis, &["status"]).await["keys"], Value::Null);
    assert_eq!(cluster.gateways[0].readyz().await.unwrap().status, 200);
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}

fn line<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word} in\n{text}"))
}

#[tokio::test]
async fn ctl_who_shows_the_gateway_of_each_user() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob) = (cluster.ws_on(0).await, cluster.line_on(1).await);
    ann.register("Ann").await;
    bob.register("王小明").await;
    ann.join("#lobby").await;
    ann.join("#kitchen").await;
    bob.join("#lobby").await;
    bob.types("/away").await;

    let text = output(&cluster.redis, &["who"]).await;
    let ann_row = row(&text, "Ann");
    assert_eq!((&ann_row[..3], ann_row[4]), (["Ann", "g1", "online"].as_slice(), "#kitchen #lobby"), "{text}");
    assert_eq!(row(&text, "王小明")[1], "g2", "{text}");
    eventually(SOON, "bob is away", || async {
        let text = output(&cluster.redis, &["who", "王小明"]).await;
        if row(&text, "王小明")[2] == "away" { Ok(()) } else { Err(text) }
    })
    .await;

    let members = async |room| json(&cluster.redis, &["who", room]).await;
    let nicks = |who: serde_json::Value| {
        let items = who["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["nick"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nicks(members("#lobby").await), ["王小明", "Ann"]);
    assert_eq!(nicks(members("#kitchen").await), ["Ann"]);
    let one = json(&cluster.redis, &["who", "ANN"]).await;
    assert_eq!((&one["items"][0]["gateway"], &one["items"][0]["online"]), (&"g1".into(), &true.into()), "{one}");

    ann.bye().await;
    eventually(SOON, "ann is gone", || async {
        let one = json(&cluster.redis, &["who", "ann"]).await;
        let item = &one["items"][0];
        if item["online"] == false && item["gateway"].is_null() { Ok(()) } else { Err(one) }
    })
    .await;
    assert_failed(&ctl(&cluster.redis, &["who", "zoe"]).await, 1, &["nobody", "zoe"]);
    assert_failed(&ctl(&cluster.redis, &["who", "#nowhere"]).await, 1, &["no room #nowhere"]);
    cluster.finish().await;
}

#[tokio::test]
async fn failed_command_prints_one_line_and_exits_2() {
    let redis = Redis::not_started();
    assert_failed(&ctl(&redis, &["status"]).await, 2, &[&format!("redis at {}", redis.address()), "refused"]);
    assert_failed(&ctl(&redis, &["stauts"]).await, 2, &["stauts", "gateway ctl --help"]);
    assert_failed(&ctl(&redis, &["who", "--jsn"]).await, 2, &["--jsn", "gateway ctl --help"]);
    assert_failed(&ctl(&redis, &["kick"]).await, 2, &["<NICK|--user <USER>|--address <ADDRESS>|--session <SESSION>>"]);
    assert_failed(&ctl(&redis, &["who", "two words"]).await, 2, &["two words"]);
    assert_failed(&ctl(&redis, &["--set", "redis.urll=x", "status"]).await, 2, &["redis.urll"]);
    let without_url = ChildProgram::parley("gateway", "ctl").args(["ctl", "status"]).run(SOON).await;
    let hints = ["redis.url is not set", "export PARLEY__REDIS__URL=redis://127.0.0.1:6390/", "OFFSET=n"];
    assert_failed(&without_url, 2, &hints);
    let runner = std::fs::read_to_string(harness::repository().join("deploy/run")).unwrap();
    assert!(runner.contains("REDIS_PORT:=$((6390 + OFFSET))"), "the port of make run");
    let help = ChildProgram::parley("gateway", "ctl").args(["ctl", "--help"]).run(Duration::from_secs(10)).await;
    assert_eq!(help.code, Some(0), "{help:?}");
    for command in
        ["status", "who", "kick", "ban", "unban", "bans", "mute", "unmute", "mutes", "revoke", "drain", "audit"]
    {
        assert!(help.stdout.contains(command), "{help:?}");
    }
    let help = ChildProgram::parley("gateway", "gateway").args(["--help"]).run(SOON).await;
    assert!(help.stdout.contains("gateway ctl --help"), "{help:?}");
}

#[tokio::test]
async fn ctl_without_a_command_lists_its_commands() {
    for flags in [[].as_slice(), &["--json"], &["--set", "redis.url=redis://127.0.0.1:1/"]] {
        let listed = ctl(&Redis::not_started(), flags).await;
        assert_eq!((listed.code, listed.stdout.as_str()), (Some(2), ""), "{flags:?}: {listed:?}");
        for command in
            ["status", "who", "kick", "ban", "unban", "bans", "mute", "unmute", "mutes", "revoke", "drain", "audit"]
        {
            assert!(listed.stderr.contains(&format!("  {command}")), "{flags:?} lacks {command}: {listed:?}");
        }
    }
}
