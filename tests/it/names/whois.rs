//! `whois`: the status of one user, from any gateway, and honest refusals.

use std::time::Duration;

use harness::{Cluster, Node, Redis, WsClient, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

/// Returns the reply without its type and id, or the code of the refusal.
async fn whois(client: &WsClient, nick: &str) -> Result<Value, String> {
    let mut reply = client.request(json!({"type": "whois", "nick": nick})).await.map_err(|refused| refused.code)?;
    let fields = reply.as_object_mut().expect("an object");
    assert_eq!(fields.remove("type"), Some(json!("whois")));
    fields.remove("id");
    Ok(reply)
}

#[tokio::test]
async fn whois_finds_users_of_every_gateway() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob, carl) = (cluster.ws_on(0).await, cluster.ws_on(1).await, cluster.line_on(1).await);
    ann.register("ann").await;
    bob.register("Bob").await;
    carl.register("carl").await;
    for (nick, shown) in [("bob", "Bob"), ("carl", "carl"), ("ANN", "ann")] {
        let online = json!({"nick": shown, "online": true, "status": "online", "text": ""});
        assert_eq!(whois(&ann, nick).await, Ok(online));
    }
    bob.away("tea").await;
    assert_eq!(whois(&ann, "bob").await, Ok(json!({"nick": "Bob", "online": true, "status": "away", "text": "tea"})));
    carl.types("/whois bob").await;
    carl.reads("* Bob is away: tea").await;

    bob.bye().await;
    let offline = json!({"nick": "Bob", "online": false});
    let gone = || async {
        whois(&ann, "bob").await.and_then(|user| if user == offline { Ok(()) } else { Err(user.to_string()) })
    };
    eventually(SOON, "Bob is offline", gone).await;
    carl.types("/whois bob").await;
    carl.reads("* Bob is offline").await;
    assert_eq!(whois(&ann, "nobody").await, Err("no_such_user".into()));
    assert_eq!(whois(&ann, "a b").await, Err("bad_nick".into()));
    cluster.finish().await;
}

#[tokio::test]
async fn whois_without_redis_is_refused() {
    let mut redis = Redis::running().await;
    let gateway = Node::gateway("g1").redis(&redis).start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    ann.register("ann").await;
    redis.kill9();
    gateway.until_not_ready(SOON).await;
    assert_eq!(whois(&ann, "ann").await, Err("unavailable".into()));
}
