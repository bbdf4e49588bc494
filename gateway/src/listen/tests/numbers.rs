//! Metrics of the output: when a message is written, and clients that read nothing.

use std::time::SystemTime;

use prometheus::TextEncoder;

use super::*;

fn number(world: &ListenFixture, name: &str) -> f64 {
    let text = TextEncoder::new().encode_to_string(&world.metrics.registry.gather()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// A message that was accepted so long ago.
fn accepted(age: Duration, text: &str) -> Arc<Broadcast> {
    let accepted = Accepted::at(SystemTime::now() - age);
    Broadcast::new(Event::Message(ChatMessage { accepted, ..lobby_message(text) }))
}

#[tokio::test]
async fn a_write_counts_once_with_the_oldest_message_in_it() {
    let world = ListenFixture::open();
    let mut client = world.websocket().await;
    let outbox = world.outbox(0);
    // Nothing is polled in between: both go out in one write.
    outbox.push_event(&accepted(Duration::from_millis(30), "later"));
    outbox.push_event(&accepted(Duration::from_secs(3), "sooner"));
    outbox.push_event(&message("from the log"));
    assert!(client.text().await.contains("later") && client.text().await.contains("sooner"));
    client.text().await;
    assert_eq!(number(&world, "parley_delivery_seconds_count"), 1.0);
    assert_eq!(number(&world, "parley_delivery_seconds_bucket{le=\"2\"}"), 0.0);
    outbox.push_event(&message("from the log"));
    outbox.push_event(&accepted(Duration::ZERO, "new"));
    client.text().await;
    client.text().await;
    eventually("it is counted", || number(&world, "parley_delivery_seconds_count") == 2.0).await;
    assert!(number(&world, "parley_delivery_seconds_sum") < 5.0, "the second one was fresh");
}

#[tokio::test]
async fn what_a_reader_does_not_take_counts_as_waiting_and_not_as_delivered() {
    let world = ListenFixture::open();
    let mut client = world.websocket().await;
    let outbox = world.outbox(0);
    let standing = || number(&world, "parley_stalled_connections");
    let text = "x".repeat(32 * 1024);
    let mut said = 0;
    while standing() == 0.0 {
        outbox.push_event(&accepted(Duration::ZERO, &text));
        said += 1;
        tokio::task::yield_now().await;
    }
    let delivered = number(&world, "parley_delivery_seconds_count");
    outbox.push_event(&accepted(Duration::ZERO, &text));
    eventually("it waits", || number(&world, "parley_outbox_bytes") > 32.0 * 1024.0).await;
    assert_eq!(number(&world, "parley_delivery_seconds_count"), delivered);
    for _ in 0..=said {
        client.text().await;
    }
    eventually("nothing waits", || standing() == 0.0 && number(&world, "parley_outbox_bytes") == 0.0).await;
    assert!(number(&world, "parley_delivery_seconds_count") > delivered, "what stood still counts once it is out");
}
