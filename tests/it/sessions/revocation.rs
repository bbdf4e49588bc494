//! Revocation: a key that is removed, or a token that expires, ends its sessions within 2 s on every gateway.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use harness::{Cluster, LineClient, Node, WsClient, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::identity::{ISSUER, OTHER_SECRET, SECRET, cluster, token, token_by};

const SOON: Duration = Duration::from_secs(10);
/// Longest time until a revocation is in effect.
const EFFECTIVE: Duration = Duration::from_secs(2);
const NEW_SECRET: &str = "the secret that takes the place of a stolen one, as long as it";

/// Starts gateways with two keys, `old` and `new`, whose secrets are in files of this folder.
async fn with_two_keys(folder: &Path) -> Cluster {
    let mut keys = Vec::new();
    for (id, secret) in [("old", SECRET), ("new", OTHER_SECRET)] {
        std::fs::write(folder.join(id), secret).unwrap();
        keys.push(format!("HS256/{id}={}", folder.join(id).display()));
    }
    let builder = Cluster::builder().gateways(2).gateway_setting("PARLEY__AUTH__MODE", "mixed");
    let builder = ISSUER.iter().fold(builder, |builder, (key, value)| builder.gateway_setting(key, value));
    builder.gateway_setting("PARLEY__AUTH__KEYS", &keys.join(",")).start().await
}

async fn signs_in(client: &WsClient, nick: &str, token: &str) -> Value {
    let registered = client.must(json!({"type": "register", "nick": nick, "token": token})).await;
    client.join("#lobby").await;
    registered
}

#[tokio::test]
async fn removed_key_ends_its_sessions_on_every_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = with_two_keys(folder.path()).await;
    let old = |user: &str| token_by(SECRET, Some("old"), user, &json!({}));
    let new = |user: &str| token_by(OTHER_SECRET, Some("new"), user, &json!({}));
    let (ann, bob, carl, dan) =
        (cluster.ws_on(0).await, cluster.ws_on(1).await, cluster.ws_on(0).await, cluster.ws_on(1).await);
    let registered = signs_in(&ann, "ann", &old("user:1")).await;
    signs_in(&bob, "bob", &old("user:2")).await;
    signs_in(&carl, "carl", &new("user:3")).await;
    signs_in(&dan, "dan", &old("user:4")).await;
    dan.must(json!({"type": "refresh", "token": new("user:4")})).await;
    let guest = cluster.ws_on(0).await;
    guest.register("guest").await;
    let line = cluster.line_on(1).await;
    line.types(&format!("/auth {}", old("user:5"))).await;
    line.register("eve").await;

    std::fs::write(folder.path().join("old"), NEW_SECRET).unwrap();
    let reloaded = Instant::now();
    for gateway in &mut cluster.gateways {
        gateway.process().signal(Signal::SIGHUP);
    }
    for client in [&ann, &bob] {
        let ending = client.closed_within(EFFECTIVE).await;
        assert_eq!((ending.code, ending.reason.as_str()), (Some(4005), "token_expired"));
    }
    line.closed().await;
    assert!(reloaded.elapsed() < EFFECTIVE, "{:?}", reloaded.elapsed());
    // Sessions of the other key stay, and so does one that was refreshed with it, and a guest.
    carl.sends("#lobby", "still here").await;
    dan.receives("#lobby", "carl", "still here").await;
    guest.join("#lobby").await;
    // The session is not lost: a token of the other key resumes it.
    let back = cluster.ws_on(1).await;
    let resume =
        |token: String| json!({"type": "register", "nick": "ann", "resume": registered["resume"], "token": token});
    assert_eq!(back.request(resume(old("user:1"))).await.unwrap_err().code, "token_invalid");
    assert_eq!(back.must(resume(new("user:1"))).await["session"], registered["session"]);
    assert!(cluster.gateways[0].log().holds("key was removed"));
    cluster.finish().await;
}

#[tokio::test]
async fn mode_that_requires_tokens_ends_guests() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("gateway.toml");
    let write_mode = |mode: &str| std::fs::write(&settings, format!("[auth]\nmode = \"{mode}\"\n")).unwrap();
    write_mode("mixed");
    let node = Node::gateway("alone").config(&settings).setting("PARLEY__AUTH__SECRET", SECRET);
    let node = ISSUER.iter().fold(node, |node, (key, value)| node.setting(key, value));
    let mut gateway = node.start().await;
    let [user, guest] = [WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await];
    let line = LineClient::connect(gateway.tcp()).await;
    signs_in(&user, "ann", &token("user:1", &json!({}))).await;
    guest.register("guest").await;
    line.register("eve").await;

    write_mode("token");
    gateway.process().signal(Signal::SIGHUP);
    let ending = guest.closed_within(EFFECTIVE).await;
    assert_eq!((ending.code, ending.reason.as_str()), (Some(4005), "token_expired"));
    line.closed().await;
    user.sends("#lobby", "still here").await;
    let back = WsClient::connect(gateway.ws()).await;
    let refused = back.request(json!({"type": "register", "nick": "guest"})).await.unwrap_err();
    assert_eq!(refused.code, "token_required");
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}

#[tokio::test]
async fn token_expiry_is_effective_on_every_gateway() {
    let cluster = cluster("token", 2).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // A token ends after the sixth second beyond its `exp`, because clocks may differ by 5 s.
    let end = Instant::now() + Duration::from_secs(now.as_secs() + 1 + 6) - now;
    let clients = [cluster.ws_on(0).await, cluster.ws_on(1).await];
    for (number, client) in clients.iter().enumerate() {
        let short = token(&format!("user:{number}"), &json!({"exp": now.as_secs() + 1}));
        client.must(json!({"type": "register", "nick": format!("nick{number}"), "token": short})).await;
    }
    for client in &clients {
        assert_eq!(client.closed_within(SOON).await.code, Some(4005));
        let late = Instant::now().checked_duration_since(end);
        assert!(late.is_some_and(|late| late < EFFECTIVE), "{late:?} after the end");
    }
    let refused = || async {
        let client = cluster.ws_on(0).await;
        let late = token("user:0", &json!({"exp": now.as_secs() + 1}));
        match client.request(json!({"type": "register", "nick": "nick0", "token": late})).await {
            Err(refused) if refused.code == "token_expired" => Ok(()),
            answer => Err(answer),
        }
    };
    eventually(EFFECTIVE, "an expired token is refused", refused).await;
    cluster.finish().await;
}
