//! Messages of one connection keep their order, whatever time the application takes for each.

use std::time::Duration;

use harness::{HookApplication, HookReply, eventually, stays};
use serde_json::{Value, json};

use super::{SECRET, SOON, cluster_with, questions};

#[tokio::test]
async fn pipelined_messages_keep_their_order() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|question| match question["body"].as_str() {
        Some("0") => HookReply::Held(r#"{"allow":true}"#.to_owned()),
        Some("3") => HookReply::json(json!({"allow": false})),
        _ => HookReply::json(json!({"allow": true})),
    });
    let builder = cluster_with(&application, &["send"]).gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
    let cluster = builder.start().await;
    let (ann, bob) = (cluster.ws().await, cluster.ws().await);
    for (client, nick) in [(&ann, "ann"), (&bob, "bob")] {
        client.register(nick).await;
        client.join("#lobby").await;
    }
    let mut ids = Vec::new();
    for number in 0..10 {
        let to = if number % 2 == 0 { "#lobby" } else { "bob" };
        ids.push(ann.post(json!({"type": "send", "to": to, "body": number.to_string()})).await);
    }
    let last = ann.post(json!({"type": "history", "to": "#lobby"})).await;
    let gateway = &cluster.gateways[0];
    eventually(SOON, "every other question is answered", async || {
        let answered = questions(gateway, "send", "allowed").await + questions(gateway, "send", "refused").await;
        if (answered - 9.0).abs() < 0.5 { Ok(()) } else { Err(answered) }
    })
    .await;
    let is_message = |value: &Value| value["type"] == "message";
    let is_reply = |value: &Value| value["id"].as_u64().is_some_and(|id| ids.contains(&id) || id == last);
    stays(Duration::from_millis(300), "no later message overtakes", async || {
        let (received, replies) = (bob.received(is_message), ann.received(is_reply));
        if received.is_empty() && replies.is_empty() { Ok(()) } else { Err((received, replies)) }
    })
    .await;
    application.release(1);
    let history = ann.reply_within(SOON, last).await.unwrap();
    let replies: Vec<u64> = ann.received(is_reply).iter().map(|reply| reply["id"].as_u64().unwrap()).collect();
    assert_eq!(replies, [&ids[..], &[last]].concat(), "answers out of order");
    let refused = ann.received(|value| value["code"] == "not_allowed");
    assert_eq!(refused.iter().map(|reply| &reply["id"]).collect::<Vec<_>>(), [&json!(ids[3])]);
    let stored = history["items"].as_array().unwrap();
    let bodies: Vec<&str> = stored.iter().filter_map(|message| message["body"].as_str()).collect();
    assert_eq!(bodies, ["0", "2", "4", "6", "8"]);
    eventually(SOON, "all messages arrive", async || {
        let received = bob.received(is_message);
        if received.len() == 9 { Ok(()) } else { Err(received) }
    })
    .await;
    let private = bob.received(|value| is_message(value) && value["to"] == "bob");
    assert_eq!(private.iter().filter_map(|message| message["body"].as_str()).collect::<Vec<_>>(), ["1", "5", "7", "9"]);
    cluster.finish().await;
}

#[tokio::test]
async fn leave_waits_for_messages_that_are_asked() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|_| HookReply::Held(r#"{"allow":true}"#.to_owned()));
    let builder = cluster_with(&application, &["send"]).gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
    let cluster = builder.start().await;
    let (ann, bob) = (cluster.ws().await, cluster.ws().await);
    for (client, nick) in [(&ann, "ann"), (&bob, "bob")] {
        client.register(nick).await;
        client.join("#lobby").await;
    }
    // A leave in the same moment as the join would not be announced.
    bob.sees_join("#lobby", "bob").await;
    let sent = ann.post(json!({"type": "send", "to": "#lobby", "body": "before I go"})).await;
    let left = ann.post(json!({"type": "leave", "room": "#lobby"})).await;
    eventually(SOON, "the question arrives", async || {
        if application.questions().len() == 1 { Ok(()) } else { Err(application.questions()) }
    })
    .await;
    application.release(1);
    assert_eq!(ann.reply_within(SOON, sent).await.unwrap()["type"], "ack");
    ann.reply_within(SOON, left).await.unwrap();
    bob.receives("#lobby", "ann", "before I go").await;
    bob.sees_left("#lobby", "ann", "left").await;
    cluster.finish().await;
}
