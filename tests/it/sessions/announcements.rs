//! Announcements: to everybody online or to the sessions with a tag, once, within 2 s also without pub/sub.
//!
//! They are made through the registry, as the HTTP API makes them.

use std::time::{Duration, Instant};

use harness::{Cluster, WsClient, eventually};
use presence::model::SessionId;
use presence::registry::{AnnouncementRequest, Registry};
use serde_json::{Value, json};

use super::identity::{cluster, secured, token};
use super::sanctions::{SubscriptionKiller, registry};

/// Longest time until an announcement is everywhere.
const EVERYWHERE: Duration = Duration::from_secs(2);

/// Announces a body, and returns its id.
async fn announce(registry: &Registry, body: &Value, tags: &[&str]) -> String {
    let id = SessionId::random().to_string();
    let (body, tags) = (serde_json::value::to_raw_value(body).unwrap(), tags.iter().map(ToString::to_string).collect());
    let request = AnnouncementRequest { application: "app".to_owned(), key: None, id, tags, body };
    registry.announce(&request).await.unwrap().expect("mailboxes have space").id
}

/// Registers a user whose token has tags.
async fn tagged(cluster: &Cluster, gateway: usize, nick: &str, tags: &Value) -> WsClient {
    let client = cluster.ws_on(gateway).await;
    let token = token(&format!("user:{nick}"), &json!({ "tags": tags }));
    client.must(json!({"type": "register", "nick": nick, "token": token})).await;
    client
}

fn announced(client: &WsClient) -> Vec<Value> {
    let frames = client.received(|frame| frame["type"] == "announcement");
    frames.into_iter().map(|frame| frame["body"].clone()).collect()
}

/// Waits until the gateways have carried out what waited in their mailboxes.
async fn until_mailboxes_are_read(cluster: &Cluster) {
    eventually(EVERYWHERE * 2, "the mailboxes are empty", || async {
        let left: Vec<String> = cluster.redis.call("KEYS parley:{0}:mailbox:*").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn announcement_reaches_sessions_of_every_gateway_once() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let guest = cluster.ws_on(0).await;
    guest.register("guest").await;
    let beta = tagged(&cluster, 1, "beta", &json!(["pro", "beta"])).await;
    let other = tagged(&cluster, 0, "other", &json!(["betatester"])).await;
    let line = cluster.line_on(1).await;
    line.types("/nick reader").await;
    line.reads("* you are now known as reader").await;
    let unregistered = cluster.ws_on(0).await;

    let id = announce(&registry, &json!("maintenance at noon"), &[]).await;
    for client in [&guest, &beta, &other] {
        let event = client.receives_frame("announcement").await;
        let expected =
            json!({"type": "announcement", "msg_id": id, "body": "maintenance at noon", "time": event["time"]});
        assert_eq!((event["time"].is_u64(), &event), (true, &expected));
    }
    line.reads("* announcement: maintenance at noon").await;

    announce(&registry, &json!({"new": "feature"}), &["alpha", "beta"]).await;
    assert_eq!(beta.receives_frame("announcement").await["body"], json!({"new": "feature"}));
    let renewed = token("user:beta", &json!({"tags": []}));
    beta.must(json!({"type": "refresh", "token": renewed})).await;
    announce(&registry, &json!("for nobody"), &["beta"]).await;
    announce(&registry, &json!("last"), &[]).await;
    line.reads("* announcement: last").await;
    until_mailboxes_are_read(&cluster).await;
    let late = cluster.ws_on(0).await;
    late.register("late").await;
    for client in [&guest, &beta, &other] {
        // A message of its own follows what was delivered before.
        client.join("#lobby").await;
        client.sends("#lobby", "done").await;
        client.receives_frame("message").await;
    }
    assert_eq!(announced(&guest), [json!("maintenance at noon"), json!("last")]);
    assert_eq!(announced(&beta), [json!("maintenance at noon"), json!({"new": "feature"}), json!("last")]);
    assert_eq!(announced(&other), announced(&guest));
    assert_eq!((announced(&late), announced(&unregistered)), (vec![], vec![]));
    cluster.finish().await;
}

/// While pub/sub is killed all the time, announcements arrive with the beat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcement_arrives_while_pubsub_is_killed() {
    let mut cluster = secured(Cluster::builder().gateways(2), "mixed").start().await;
    cluster.allow("");
    let registry = registry(&cluster);
    let clients = [cluster.ws_on(0).await, cluster.ws_on(1).await];
    for (gateway, client) in clients.iter().enumerate() {
        client.register(&format!("on{gateway}")).await;
    }
    let killer = SubscriptionKiller::start(&cluster).await;
    let bodies: Vec<Value> = (0..50).map(|number| json!(number)).collect();
    for body in &bodies {
        let start = Instant::now();
        announce(&registry, body, &[]).await;
        for client in &clients {
            let arrives =
                client.next(EVERYWHERE, |frame| frame["type"] == "announcement" && frame["body"] == *body).await;
            assert!(arrives.is_ok(), "{body} after {:?}", start.elapsed());
        }
    }
    killer.finish().await;
    until_mailboxes_are_read(&cluster).await;
    for client in &clients {
        assert_eq!(announced(client), bodies, "each once");
    }
    cluster.finish().await;
}
