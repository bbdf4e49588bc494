//! Faults while messages flow: no event is lost, and repetitions have the same id.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use harness::{Cluster, ReceivedEvent, WebhookReceiver, WsClient, eventually};
use serde_json::{Value, json};

use super::delivery::until_leading;
use super::{SECRET, bodies, cluster_with, ctl, webhook};

/// The maximum time until another process leads, and a delivery after that.
const TAKEOVER_MAX: Duration = Duration::from_secs(20);
/// The maximum time until Redis is used again.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Messages with their ids, in the order of their acks.
#[derive(Default)]
struct Acked(Vec<(String, u64)>);

impl Acked {
    /// Sends numbered messages, each until it is acked.
    async fn send(&mut self, person: &WsClient, count: usize) {
        for _ in 0..count {
            let request =
                json!({"type": "send", "to": "#lobby", "body": self.0.len(), "key": self.0.len().to_string()});
            let ack = eventually(RECOVERY_MAX, "message acked", async || person.request(request.clone()).await).await;
            self.0.push((ack["msg_id"].as_str().unwrap().to_owned(), ack["seq"].as_u64().unwrap()));
        }
    }

    /// Checks the deliveries to a receiver: each acked message, in the order of the room, and repetitions with the same
    /// content.
    fn check(&self, events: &[ReceivedEvent]) -> Result<(), String> {
        let mut first: BTreeMap<String, &Value> = BTreeMap::new();
        let mut order = Vec::new();
        for ReceivedEvent { event, .. } in events {
            let id = event["id"].as_str().ok_or("an event without id")?;
            match first.get(id) {
                None => order.push(event["body"].as_u64().ok_or("a foreign event")?),
                Some(known) if known["body"] == event["body"] => continue,
                Some(known) => return Err(format!("{known} and {event} have one id")),
            }
            first.insert(id.to_owned(), event);
        }
        let lost: Vec<_> = self.0.iter().filter(|(id, _)| !first.contains_key(id)).collect();
        if !lost.is_empty() {
            return Err(format!("{} of {} lost, the first {:?}", lost.len(), self.0.len(), lost[0]));
        }
        if !order.is_sorted() {
            return Err(format!("out of order: {order:?}"));
        }
        Ok(())
    }

    async fn until_received(&self, receiver: &WebhookReceiver) {
        let check = async || self.check(&receiver.events());
        eventually(RECOVERY_MAX, "every acked message reaches the webhook", check).await;
    }
}

/// Waits until a presence process other than `former` leads, and returns its place.
async fn leader(cluster: &Cluster, former: Option<usize>) -> usize {
    eventually(TAKEOVER_MAX, "a process leads", async || {
        let shown = ctl(cluster, &[]).await;
        let leader = shown["leader"].as_str().unwrap_or_default().to_owned();
        let place = cluster.presence.iter().position(|node| leader.starts_with(&format!("{}/", node.name())));
        place.filter(|place| Some(*place) != former).ok_or(shown)
    })
    .await
}

#[tokio::test]
async fn kills_of_leader_and_redis_lose_no_event() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let webhooks = json!([webhook("app", &receiver, &["message"])]);
    let mut cluster = cluster_with(&webhooks).gateways(2).presence(2).start().await;
    for text in [
        "beat not answered",
        "subscription lost",
        "no subscription",
        "not ready",
        "lease not acquired",
        "webhooks interrupted",
        "samples",
        "redis",
    ] {
        cluster.allow(text);
    }
    until_leading(&cluster).await;
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    for (person, nick) in [(&ann, "ann"), (&bob, "bob")] {
        person.register(nick).await;
        person.join("#lobby").await;
    }
    let mut acked = Acked::default();
    acked.send(&ann, 50).await;

    let led = leader(&cluster, None).await;
    cluster.presence[led].process().kill9();
    acked.send(&bob, 200).await;
    leader(&cluster, Some(led)).await;
    acked.until_received(&receiver).await;
    cluster.presence[led].restart().await;

    for _ in 0..2 {
        acked.send(&ann, 100).await;
        // The last messages may be lost: nothing is synced before the kill.
        let kept = cluster.redis.written();
        acked.send(&bob, 30).await;
        cluster.redis.crash(kept);
        cluster.redis.start().await;
        acked.send(&ann, 100).await;
        let led = leader(&cluster, None).await;
        cluster.presence[led].process().kill9();
        cluster.presence[led].restart().await;
    }
    acked.send(&bob, 20).await;
    acked.until_received(&receiver).await;
    let events = receiver.events();
    let ids: HashSet<&str> = events.iter().map(|event| event.event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), acked.0.len(), "nothing else was sent");
    assert!(bodies(&events).is_empty(), "the bodies are numbers");
    cluster.finish().await;
}

#[tokio::test]
async fn ended_leader_leaves_webhooks_to_another_at_once() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let webhooks = json!([webhook("app", &receiver, &["message"])]);
    let mut cluster = cluster_with(&webhooks).presence(2).start().await;
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    let mut acked = Acked::default();
    acked.send(&ann, 5).await;
    acked.until_received(&receiver).await;
    let led = leader(&cluster, None).await;
    assert_eq!(cluster.presence[led].end().await, Some(0));
    acked.send(&ann, 5).await;
    let events = receiver.until(Duration::from_secs(4), "the other five", |events| events.len() == 10).await;
    acked.check(&events).unwrap();
    cluster.finish().await;
}

/// The checker of this module must find what it is for.
#[test]
fn checker_finds_lost_and_disordered_events() {
    let acked = Acked(vec![("a".to_owned(), 1), ("b".to_owned(), 2)]);
    let event = |id: &str, body: u64| ReceivedEvent { event: json!({"id": id, "body": body}), arrived: 0, delivery: 1 };
    assert_eq!(acked.check(&[event("a", 0), event("b", 1), event("a", 0)]), Ok(()));
    assert!(acked.check(&[event("a", 0)]).unwrap_err().contains("1 of 2 lost"));
    assert!(acked.check(&[event("b", 1), event("a", 0)]).unwrap_err().contains("out of order"));
    assert!(acked.check(&[event("a", 0), event("b", 1), event("a", 3)]).unwrap_err().contains("one id"));
}
