//! Receivers that fail or must not be reached. Neither chat nor other webhooks notice.

use std::time::{Duration, Instant};

use harness::{ReceiverMode, WebhookReceiver, eventually, stays};
use serde_json::json;

use super::delivery::until_leading;
use super::{SECRET, SOON, bodies, cluster_with, ctl, webhook};

/// Much less than the time limit of a delivery.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn failing_receivers_delay_no_other_webhook() {
    let mut receivers = Vec::new();
    for _ in 0..4 {
        receivers.push(WebhookReceiver::start(SECRET).await);
    }
    let [good, hanging, failing, moved] = &receivers[..] else { panic!("four receivers") };
    hanging.set_mode(ReceiverMode::Hang);
    failing.set_mode(ReceiverMode::Refuse(500, String::new()));
    moved.set_mode(ReceiverMode::Refuse(302, good.url()));
    let webhooks = json!([
        webhook("hanging", hanging, &["message"]),
        webhook("failing", failing, &["message"]),
        webhook("moved", moved, &["message"]),
        webhook("good", good, &["message"]),
    ]);
    let mut cluster = cluster_with(&webhooks).start().await;
    cluster.allow("webhook not delivered");
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    for number in 0..5 {
        let sent = Instant::now();
        ann.sends("#lobby", &format!("message {number}")).await;
        good.until(AT_ONCE, "the message", |events| events.len() == number + 1).await;
        assert!(sent.elapsed() < AT_ONCE);
    }
    assert!(hanging.requests() >= 1 && failing.requests() >= 1 && moved.requests() >= 1);
    eventually(SOON, "the failures are shown", async || {
        let shown = ctl(&cluster, &[]).await;
        let errors: Vec<_> = shown["webhooks"].as_array().unwrap().iter().map(|row| row["error"].clone()).collect();
        let expected = ["the receiver answered 500", "the receiver answered 302"];
        if expected.iter().all(|error| errors.iter().any(|shown| shown == error)) { Ok(()) } else { Err(shown) }
    })
    .await;
    assert_eq!(bodies(&good.events()).len(), 5, "no redirect was followed");
    cluster.finish().await;
}

#[tokio::test]
async fn loopback_receiver_is_refused_by_default() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let webhooks = json!([webhook("app", &receiver, &["message"])]);
    let builder = cluster_with(&webhooks).presence_setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", "false");
    let mut cluster = builder.start().await;
    cluster.allow("webhook not delivered");
    cluster.allow("settings are valid and have no effect");
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "to myself").await;
    eventually(SOON, "the refusal is shown", async || {
        let shown = ctl(&cluster, &[]).await;
        let error = shown["webhooks"][0]["error"].as_str().unwrap_or_default().to_owned();
        if error.contains("127.0.0.1 is refused") { Ok(()) } else { Err(shown) }
    })
    .await;
    let nothing = async || if receiver.requests() == 0 { Ok(()) } else { Err(receiver.requests()) };
    stays(Duration::from_millis(500), "no request", nothing).await;
    cluster.finish().await;
}
