//! Status and who: tables that tell the truth, and errors that say what is wrong.

use std::time::Duration;

use harness::{Cluster, Program, Redis, eventually};

use super::{SOON, ctl, failed, json, row, told};

#[tokio::test]
async fn status_shows_redis_and_every_gateway_and_who_has_fallen_silent() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    for text in ["fenced", "lease lost", "beats are not answered", "lost the subscription"] {
        cluster.allow(text);
    }
    let (ann, bob, eve) = (cluster.ws_on(0).await, cluster.ws_on(0).await, cluster.ws_on(1).await);
    for (person, nick) in [(&ann, "ann"), (&bob, "bob"), (&eve, "eve")] {
        person.register(nick).await;
        person.join("#lobby").await;
    }

    let text = told(&cluster.redis, &["status"]).await;
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

    // It stands still: its beat gets older, and the table says so before anybody fences it.
    cluster.gateways[1].process().stop_signal().await;
    eventually(SOON, "g2 is shown as silent", || async {
        let text = told(&cluster.redis, &["status"]).await;
        if row(&text, "g2")[1] == "live, silent" { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(row(&told(&cluster.redis, &["status"]).await, "g1")[1], "live");
    eventually(SOON, "g2 is shown as fenced", || async {
        let text = told(&cluster.redis, &["status"]).await;
        if row(&text, "g2")[1] == "fenced" && text.ends_with("2 sessions on 1 gateway, 1 room") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    cluster.gateways[1].process().cont();
    cluster.gateways[1].until_ready(SOON).await;
    eventually(SOON, "g2 lives again", || async {
        let text = told(&cluster.redis, &["status"]).await;
        if row(&text, "g2")[1] == "live" { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.finish().await;
}

fn line<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word} in\n{text}"))
}

#[tokio::test]
async fn who_tells_on_which_gateway_somebody_is() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob) = (cluster.ws_on(0).await, cluster.line_on(1).await);
    ann.register("Ann").await;
    bob.register("王小明").await;
    ann.join("#lobby").await;
    ann.join("#kitchen").await;
    bob.join("#lobby").await;
    bob.types("/away").await;

    let text = told(&cluster.redis, &["who"]).await;
    let ann_row = row(&text, "Ann");
    assert_eq!((&ann_row[..3], ann_row[4]), (["Ann", "g1", "online"].as_slice(), "#kitchen #lobby"), "{text}");
    assert_eq!(row(&text, "王小明")[1], "g2", "{text}");
    eventually(SOON, "bob is away", || async {
        let text = told(&cluster.redis, &["who", "王小明"]).await;
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
    failed(&ctl(&cluster.redis, &["who", "zoe"]).await, 1, &["nobody", "zoe"]);
    failed(&ctl(&cluster.redis, &["who", "#nowhere"]).await, 1, &["no room #nowhere"]);
    cluster.finish().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_in_one_line_with_exit_code_2() {
    let redis = Redis::away();
    failed(&ctl(&redis, &["status"]).await, 2, &[&format!("redis at {}", redis.address()), "refused"]);
    failed(&ctl(&redis, &["stauts"]).await, 2, &["stauts", "gateway ctl --help"]);
    failed(&ctl(&redis, &[]).await, 2, &["a command is missing", "gateway ctl --help"]);
    failed(&ctl(&redis, &["kick"]).await, 2, &["<NICK>"]);
    failed(&ctl(&redis, &["who", "two words"]).await, 2, &["two words"]);
    failed(&ctl(&redis, &["--set", "redis.urll=x", "status"]).await, 2, &["redis.urll"]);
    let alone = Program::parley("gateway", "ctl").args(["ctl", "status"]).run(SOON).await;
    failed(&alone, 2, &["redis.url is not set"]);
    let help = Program::parley("gateway", "ctl").args(["ctl", "--help"]).run(Duration::from_secs(10)).await;
    assert_eq!(help.code, Some(0), "{help:?}");
    for command in ["status", "who", "kick", "drain", "audit"] {
        assert!(help.stdout.contains(command), "{help:?}");
    }
    let help = Program::parley("gateway", "gateway").args(["--help"]).run(SOON).await;
    assert!(help.stdout.contains("gateway ctl --help"), "{help:?}");
}
