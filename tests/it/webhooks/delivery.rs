//! Deliveries to healthy receivers: which events, in which order, with which fields.

use std::collections::HashSet;
use std::time::Duration;

use harness::{Cluster, ReceivedEvent, ReceiverMode, WebhookReceiver};
use serde_json::{Value, json};

use super::{SECRET, SOON, bodies, cluster_with, ctl, webhook};

/// Returns type and main fields of an event, as one line.
fn line(event: &ReceivedEvent) -> String {
    let word = |name: &str| event.event[name].as_str().unwrap_or("-").to_owned();
    let kind = word("type");
    match kind.as_str() {
        "online" | "offline" => format!("{kind} {}", word("nick")),
        "join" | "leave" => format!("{kind} {} {}", word("room"), word("nick")),
        "rename" => format!("rename {} {}", word("from"), word("to")),
        "message" => format!("message {} {} {} {}", word("room"), word("from"), event.event["seq"], word("body")),
        "direct_offline" => format!("direct {} {} {}", word("to"), word("from"), word("body")),
        _ => event.event.to_string(),
    }
}

#[tokio::test]
async fn webhook_gets_wanted_events_in_order() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let events = ["online", "offline", "join", "leave", "rename", "message", "direct_offline"];
    let mut app = webhook("app", &receiver, &events);
    app["rooms"] = json!(["#Team-*"]);
    let cluster = cluster_with(&json!([app])).gateways(2).start().await;
    until_leading(&cluster).await;

    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    ann.register("ann").await;
    ann.join("#team-a").await;
    ann.join("#lobby").await;
    bob.register("bob").await;
    bob.join("#team-a").await;
    ann.sends("#team-a", "one").await;
    ann.sends("#lobby", "not wanted").await;
    bob.sends("#team-a", "two").await;
    ann.sends("bob", "read by bob at once").await;
    bob.cut();
    let mut direct = 0;
    while ann.sends("bob", "away").await["delivered"] == "online" {
        direct += 1;
        assert!(direct < 1000, "bob stays online");
    }
    ann.must(json!({"type": "leave", "room": "#team-a"})).await;
    ann.must(json!({"type": "nick", "nick": "anna"})).await;

    let is_renamed = |events: &[ReceivedEvent]| events.iter().any(|event| line(event) == "rename ann anna");
    let events = receiver.until(SOON, "the rename arrives", is_renamed).await;
    let lines: Vec<String> =
        events.iter().map(line).filter(|line| !line.contains(" bob") || line.contains("ann")).collect();
    let expected = [
        "online ann",
        "join #team-a ann",
        "message #team-a ann 1 one",
        "direct bob ann away",
        "leave #team-a ann",
        // A rename is a claim of another nickname.
        "online anna",
        "rename ann anna",
    ];
    assert_eq!(lines, expected);
    assert!(events.iter().any(|event| line(event) == "message #team-a bob 2 two"));
    let ids: HashSet<&str> = events.iter().map(|event| event.event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "every event has its own id");
    cluster.finish().await;
}

/// Waits until a process leads: events before that are not logged.
pub(super) async fn until_leading(cluster: &Cluster) {
    harness::eventually(SOON, "webhooks are sent", async || {
        let shown = ctl(cluster, &[]).await;
        if shown["leader"].is_string() { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test]
async fn rotated_secret_signs_beside_the_former_one() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let mut app = webhook("app", &receiver, &["message"]);
    app["secret"] = json!("the-next-secret-of-tests");
    app["previous_secret"] = json!(SECRET);
    let cluster = cluster_with(&json!([app])).start().await;
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "signed twice").await;
    receiver.until(SOON, "a message under the former secret", |events| bodies(events) == ["signed twice"]).await;
    cluster.finish().await;
}

#[tokio::test]
async fn missed_events_arrive_in_full_batches() {
    let receiver = WebhookReceiver::start(SECRET).await;
    receiver.set_mode(ReceiverMode::Refuse(503, String::new()));
    let mut cluster = cluster_with(&json!([webhook("app", &receiver, &["message"])])).start().await;
    cluster.allow("webhook not delivered");
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    for number in 0..250 {
        ann.sends("#lobby", &number.to_string()).await;
    }
    receiver.set_mode(ReceiverMode::Accept);
    let events = receiver.until(Duration::from_secs(40), "all messages", |events| events.len() >= 250).await;
    let numbers: Vec<u64> = events.iter().map(|event| event.event["body"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, Vec::from_iter(0..250), "each once, in order");
    let first = events[0].delivery;
    assert_eq!(events.iter().filter(|event| event.delivery == first).count(), 100, "the first batch is full");
    cluster.finish().await;
}

#[tokio::test]
async fn dropped_events_are_reported_with_their_number() {
    let receiver = WebhookReceiver::start(SECRET).await;
    receiver.set_mode(ReceiverMode::Refuse(500, String::new()));
    let webhooks = json!([webhook("app", &receiver, &["message"])]);
    let builder = cluster_with(&webhooks).presence_setting("PARLEY__WEBHOOK__LOG_EVENTS", "1000");
    let mut cluster = builder.start().await;
    cluster.allow("webhook not delivered");
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    for number in 0..1500 {
        ann.post(json!({"type": "send", "to": "#lobby", "body": number})).await;
    }
    ann.sends("#lobby", "the last one").await;
    receiver.set_mode(ReceiverMode::Accept);
    let is_complete = |events: &[ReceivedEvent]| bodies(events) == ["the last one"];
    let events = receiver.until(Duration::from_secs(60), "the last message", is_complete).await;
    let (gaps, others): (Vec<&ReceivedEvent>, Vec<_>) = events.iter().partition(|event| event.event["type"] == "gap");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].event["dropped"].as_u64().unwrap() as usize + others.len(), 1501);
    assert!(others.len() >= 1000, "{}", others.len());
    assert_eq!(events[0].event["type"], "gap", "the report comes first");
    cluster.finish().await;
}

#[tokio::test]
async fn dead_letters_are_listed_and_replayed() {
    let (dead, alive) = (WebhookReceiver::start(SECRET).await, WebhookReceiver::start(SECRET).await);
    dead.set_mode(ReceiverMode::Refuse(500, String::new()));
    let webhooks = json!([webhook("dead", &dead, &["message"]), webhook("alive", &alive, &["message"])]);
    let builder = cluster_with(&webhooks).presence_setting("PARLEY__WEBHOOK__DEAD_LETTER_SECONDS", "1");
    let mut cluster = builder.start().await;
    cluster.allow("webhook not delivered");
    cluster.allow("became dead letters");
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "one").await;
    ann.sends("#lobby", "two").await;
    let row = |shown: &Value, name: &str| {
        shown["webhooks"].as_array().unwrap().iter().find(|row| row["webhook"] == name).cloned()
    };
    let shown = harness::eventually(Duration::from_secs(30), "two dead letters", async || {
        let shown = ctl(&cluster, &[]).await;
        if row(&shown, "dead").is_some_and(|row| row["dead"] == 2) { Ok(shown) } else { Err(shown) }
    });
    let shown = shown.await;
    assert_eq!(row(&shown, "dead").unwrap()["error"], "the receiver answered 500", "{shown}");
    assert_eq!(row(&shown, "alive").unwrap()["dead"], 0, "{shown}");
    assert_eq!(dead.events(), []);

    dead.set_mode(ReceiverMode::Accept);
    assert_eq!(ctl(&cluster, &["--replay", "dead"]).await, json!({"replayed": 2, "webhook": "dead"}));
    let events = dead.until(SOON, "both messages", |events| bodies(events) == ["one", "two"]).await;
    let ids = |events: &[ReceivedEvent]| events.iter().map(|event| event.event["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&events), ids(&alive.events()), "a replayed event keeps its id, and no other webhook gets it");
    assert_eq!(row(&ctl(&cluster, &[]).await, "dead").unwrap()["dead"], 0);
    cluster.finish().await;
}
