//! Sessions that are ended while the application is asked: nothing of them is done afterwards.

use std::time::{Duration, Instant};

use harness::{HookApplication, HookReply, eventually, stays};
use presence::model::{Nick, SanctionKind, SanctionOrder, SubjectFields};
use presence::registry::Registry;
use serde_json::{Value, json};

use super::{SECRET, SOON, cluster_with};
use crate::sessions::sanctions::registry;

/// Maximum time until an order is in effect.
const EFFECTIVE: Duration = Duration::from_secs(2);

async fn ban(registry: &Registry, nick: &str) {
    let fields: SubjectFields = serde_json::from_value(json!({"nick": nick})).unwrap();
    let order = SanctionOrder::new(SanctionKind::Ban, fields.try_into().unwrap(), "a moderator", "spam").unwrap();
    registry.sanction(&order, None).await.unwrap().unwrap();
}

async fn kick(registry: &Registry, nick: &str) {
    assert!(registry.kick(Nick::parse(nick).unwrap().key()).await.unwrap());
}

/// The application allows the messages of `eve` only after she has been banned, and those of `kit` after a kick. Each
/// has messages under way, and another request behind them that waits.
#[tokio::test]
async fn ended_session_publishes_nothing_that_was_asked() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|_| HookReply::Held(r#"{"allow":true}"#.to_owned()));
    let builder = cluster_with(&application, &["send"]).gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
    let cluster = builder.start().await;
    let registry = registry(&cluster);
    let bob = cluster.ws().await;
    bob.register("bob").await;
    bob.join("#lobby").await;
    for nick in ["eve", "kit"] {
        let ended = cluster.ws().await;
        ended.register(nick).await;
        ended.join("#lobby").await;
        // A member that leaves before it was shown is never shown.
        let names = |event: &Value, list: &str| event[list].to_string().contains(nick);
        eventually(SOON, "the others see it join", async || {
            if bob.received(|event| names(event, "joined")).is_empty() { Err(bob.received(|_| true)) } else { Ok(()) }
        })
        .await;
        for number in 0..3 {
            ended.post(json!({"type": "send", "to": "#lobby", "body": number})).await;
        }
        ended.post(json!({"type": "members", "room": "#lobby"})).await;
        let asked = |questions: Vec<Value>| questions.iter().filter(|asked| asked["nick"] == nick).count();
        eventually(SOON, "three questions are under way", async || {
            let count = asked(application.questions());
            if count == 3 { Ok(()) } else { Err(count) }
        })
        .await;
        let ordered = Instant::now();
        match nick {
            "eve" => ban(&registry, nick).await,
            _ => kick(&registry, nick).await,
        }
        ended.closed_within(EFFECTIVE).await;
        eventually(EFFECTIVE, "the others see it leave", async || {
            if bob.received(|event| names(event, "left")).is_empty() { Err(bob.received(|_| true)) } else { Ok(()) }
        })
        .await;
        assert!(ordered.elapsed() < EFFECTIVE, "{nick}: {:?}", ordered.elapsed());
        application.release(3);
        stays(Duration::from_millis(500), "nothing is published", async || {
            let received = bob.received(|event| event["type"] == "message");
            if received.is_empty() { Ok(()) } else { Err(received) }
        })
        .await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn ban_ends_a_session_that_asks_to_join() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|_| HookReply::Held(r#"{"allow":true}"#.to_owned()));
    let builder = cluster_with(&application, &["join"]).gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
    let cluster = builder.start().await;
    let eve = cluster.ws().await;
    eve.register("eve").await;
    eve.post(json!({"type": "join", "room": "#lobby"})).await;
    eventually(SOON, "the question is under way", async || {
        let count = application.questions().len();
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    ban(&registry(&cluster), "eve").await;
    eve.closed_within(EFFECTIVE).await;
    cluster.finish().await;
}
