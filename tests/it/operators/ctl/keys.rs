//! `gateway ctl key`, and the server API of a deployed presence process with such a key.

use harness::{Cluster, Node, http};
use serde_json::json;

use super::{SOON, assert_failed, ctl, json as ctl_json, output};
use crate::lobby::lobby_member;

#[tokio::test]
async fn drawn_key_publishes_to_chat_clients() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let ann = lobby_member(&cluster, 0, "ann").await;
    let drawn = ctl_json(&cluster.redis, &["key", "shop", "publish", "read"]).await;
    let (key, row) = (drawn["key"].as_str().unwrap(), drawn["row"].as_str().unwrap());
    let settings = Node::presence("p9").redis(&cluster.redis).setting("PARLEY__API__KEYS", row);
    // Without the key beyond loopback, the process would not start.
    let presence = settings.setting("PARLEY__API__ADDR", "0.0.0.0:0").start().await;
    let send = async |authorization: &str| {
        let body = json!({ "to": "#lobby", "body": "sale", "key": "k1" }).to_string();
        let request =
            format!("POST /v1/messages HTTP/1.0\r\n{authorization}Content-Length: {}\r\n\r\n{body}", body.len());
        http::exchange(([127, 0, 0, 1], presence.api().port()).into(), request.as_bytes()).await.unwrap()
    };
    assert_eq!(send("").await.status, 401);
    let answer = send(&format!("Authorization: Bearer {key}\r\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = ann.receives("#lobby", "shop", "sale").await;
    assert_eq!((&message["from_api"], &message["msg_id"]), (&json!(true), &answer.json()["msg_id"]));
    assert_eq!(ann.history("#lobby", 10).await.last().unwrap()["from_api"], true);
    assert!(!presence.log().lines().iter().any(|line| line.contains(key)), "the log has the key");
    drop(presence);
    cluster.finish().await;
}

#[tokio::test]
async fn malformed_key_requests_are_usage_errors() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let text = output(&cluster.redis, &["key", "shop", "read"]).await;
    assert!(text.contains("  shop:read=sha256:"), "{text}");
    for (flags, word) in [(["key", "a b", "read"], "1 to 32 letters"), (["key", "shop", "write"], "read, publish")] {
        assert_failed(&ctl(&cluster.redis, &flags).await, 2, &[word]);
    }
    let open =
        Node::presence("p9").redis(&cluster.redis).setting("PARLEY__API__ADDR", "0.0.0.0:0").program().run(SOON).await;
    assert_eq!(open.code, Some(64), "{open:?}");
    assert!(open.stderr.contains("api.keys is not set") && open.stderr.contains("gateway ctl key"), "{open:?}");
    cluster.finish().await;
}
