//! `gateway ctl ban`, `mute`, `revoke` and their lists: effect, output, and refusals without a target.

use harness::Cluster;
use serde_json::{Value, json};

use super::{SOON, assert_failed, ctl, json as ctl_json, output, row};
use crate::lobby::lobby_member;

#[tokio::test]
async fn ban_is_listed_and_lifted_by_its_subject() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let redis = &cluster.redis;
    let (eve, bob) = (lobby_member(&cluster, 0, "Eve").await, lobby_member(&cluster, 1, "bob").await);
    assert_eq!(
        output(redis, &["ban", "EVE", "--for", "2h", "--reason", "spam and more", "--by", "ann"]).await,
        "banned nick EVE for 2 h"
    );
    assert_eq!(eve.closed().await.code, Some(4006));
    bob.sees(SOON, "#lobby", "left", |left| left == &json!({"nick": "Eve", "reason": "kicked"})).await;
    let listed = ctl_json(redis, &["bans"]).await;
    let item = &listed["items"][0];
    let fields = ["nick", "by", "reason"].map(|field| item[field].as_str().unwrap());
    assert_eq!(fields, ["EVE", "ann", "spam and more"]);
    assert_eq!(item["until"].as_u64().unwrap() - item["time"].as_u64().unwrap(), 7_200_000);
    let text = output(redis, &["bans"]).await;
    assert_eq!(row(&text, item["id"].as_str().unwrap())[1], "nick EVE");

    assert_eq!(
        output(redis, &["ban", "--address", "::ffff:198.51.100.9/120"]).await,
        "banned address 198.51.100.0/24 for good"
    );
    assert_eq!(output(redis, &["unban", "eve"]).await, "lifted the ban of nick eve");
    assert_failed(&ctl(redis, &["unban", "eve"]).await, 1, &["no ban of nick eve"]);
    assert_failed(&ctl(redis, &["unban", "--user", "nobody"]).await, 1, &["no ban of user nobody"]);
    let rest = ctl_json(redis, &["bans"]).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["items"][0]["until"]), (1, &Value::Null));
    cluster.finish().await;
}

#[tokio::test]
async fn mutes_and_revocations_are_listed_apart() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let redis = &cluster.redis;
    let eve = lobby_member(&cluster, 0, "eve").await;
    assert_eq!(output(redis, &["mute", "eve"]).await, "muted nick eve for good");
    assert_eq!(
        output(redis, &["revoke", "user:1", "--before", "1700000000"]).await,
        "revoked the tokens of user user:1 for good"
    );
    assert_eq!(ctl_json(redis, &["mutes"]).await["items"][0]["nick"], "eve");
    let revocations = ctl_json(redis, &["revocations"]).await;
    assert_eq!(
        (&revocations["items"][0]["user"], &revocations["items"][0]["before"]),
        (&json!("user:1"), &json!(1_700_000_000_000_u64))
    );
    assert_eq!(ctl_json(redis, &["bans"]).await, json!({"items": []}));
    harness::eventually(SOON, "eve is muted", async || match eve.try_send("#lobby", "hello").await {
        Err(refused) if refused.code == "muted" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(output(redis, &["unmute", "EVE"]).await, "lifted the mute of nick EVE");
    assert_eq!(output(redis, &["revoke", "user:1", "--undo"]).await, "lifted the revocation of user user:1");
    harness::eventually(SOON, "eve may send", async || {
        eve.try_send("#lobby", "hello").await.map_err(|refused| refused.code)
    })
    .await;
    let session = cluster.ws_on(0).await.register("zoe").await["session"].as_str().unwrap().to_owned();
    let kicked = output(redis, &["kick", "--session", &session]).await;
    assert_eq!(kicked, format!("ordered: every session of session {session} ends"));
    cluster.finish().await;
}

#[tokio::test]
async fn orders_without_a_possible_target_are_refused() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let redis = &cluster.redis;
    for (flags, code, words) in [
        (&["ban"][..], 2, "required arguments"),
        (&["kick", "--address", "0.0.0.0/0"], 1, "every address; --force"),
        (&["kick", "--address", "::ffff:0.0.0.0/96"], 1, "every address; --force"),
        (&["ban", "--address", "::ffff:0:0/90"], 2, "address:"),
        (&["ban", "eve", "--user", "u"], 2, "cannot be used with"),
        (&["ban", "a b"], 2, "nick:"),
        (&["ban", "--address", "198.51.100.0/33"], 2, "address:"),
        (&["ban", "--session", "00000000000000000000000000000000"], 2, "for such a subject"),
        (&["ban", "eve", "--for", "soon"], 2, "90s"),
        (&["ban", "--address", "0.0.0.0/0"], 1, "every address"),
        (&["ban", "--address", "128.0.0.0/1"], 1, "wider than a /8 of IPv4 or a /16 of IPv6; --force"),
        (&["ban", "--address", "::/0"], 1, "--force"),
        (&["mute", "--address", "198.51.100.9"], 2, "for such a subject"),
    ] {
        assert_failed(&ctl(redis, flags).await, code, &[words]);
    }
    let flags = ["ban", "--address", "10.9.8.7", "--set", "listen.trusted_proxies=10.9.0.0/16"];
    assert_failed(&ctl(redis, &flags).await, 1, &["trusted proxy 10.9.0.0/16"]);
    assert_eq!(output(redis, &[&flags[..], &["--force"]].concat()).await, "banned address 10.9.8.7 for good");
    assert_eq!(output(redis, &["ban", "--address", "127.9.9.9"]).await, "banned address 127.9.9.9 for good");
    cluster.finish().await;
}
