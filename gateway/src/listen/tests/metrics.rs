//! Output metrics: delivery time, stalled connections and outbox bytes.

use std::time::SystemTime;

use prometheus::TextEncoder;

use super::*;

fn metric_value(fixture: &ListenFixture, name: &str) -> f64 {
    let text = TextEncoder::new().encode_to_string(&fixture.metrics.registry.gather()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Returns a message accepted `age` ago.
fn accepted_message(age: Duration, text: &str) -> Arc<Broadcast> {
    let accepted = Accepted::at(SystemTime::now() - age);
    Broadcast::new(Event::Message(ChatMessage { accepted, ..lobby_message(text) }))
}

#[tokio::test]
async fn write_records_its_oldest_message_once() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    let outbox = fixture.outbox(0);
    // No task is polled in between, so one write sends all three.
    outbox.push_event(&accepted_message(Duration::from_millis(30), "later"));
    outbox.push_event(&accepted_message(Duration::from_secs(3), "sooner"));
    outbox.push_event(&message("from the stream"));
    assert!(client.text().await.contains("later") && client.text().await.contains("sooner"));
    client.text().await;
    assert_eq!(metric_value(&fixture, "parley_delivery_seconds_count"), 1.0);
    assert_eq!(metric_value(&fixture, "parley_delivery_seconds_bucket{le=\"2\"}"), 0.0);
    outbox.push_event(&message("from the stream"));
    outbox.push_event(&accepted_message(Duration::ZERO, "new"));
    client.text().await;
    client.text().await;
    eventually("the second write is counted", || metric_value(&fixture, "parley_delivery_seconds_count") == 2.0).await;
    assert!(metric_value(&fixture, "parley_delivery_seconds_sum") < 5.0, "the new message raised the sum too far");
}

#[tokio::test]
async fn unread_output_counts_as_queued_not_delivered() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    let outbox = fixture.outbox(0);
    let stalled = || metric_value(&fixture, "parley_stalled_connections");
    let text = "x".repeat(32 * 1024);
    let mut sent = 0;
    while stalled() == 0.0 {
        outbox.push_event(&accepted_message(Duration::ZERO, &text));
        sent += 1;
        tokio::task::yield_now().await;
    }
    let delivered = metric_value(&fixture, "parley_delivery_seconds_count");
    outbox.push_event(&accepted_message(Duration::ZERO, &text));
    eventually("the message stays queued", || metric_value(&fixture, "parley_outbox_bytes") > 32.0 * 1024.0).await;
    assert_eq!(metric_value(&fixture, "parley_delivery_seconds_count"), delivered);
    for _ in 0..=sent {
        client.text().await;
    }
    eventually("no output is queued", || stalled() == 0.0 && metric_value(&fixture, "parley_outbox_bytes") == 0.0)
        .await;
    assert!(
        metric_value(&fixture, "parley_delivery_seconds_count") > delivered,
        "delivery of the stalled output is not counted"
    );
}
