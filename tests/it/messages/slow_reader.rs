//! A slow reader in a busy room: the gateway closes its connection, and other members lose no message.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, RawWs, eventually};
use serde_json::json;

const MESSAGES: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_closes_slow_reader_and_serves_other_members() {
    // The room is busier than its byte rate allows by default.
    let rate = "1073741824";
    let cluster = Cluster::builder().gateway_setting("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", rate).start().await;
    let gateway = &cluster.gateways[0];
    let mut stalled = RawWs::connect(gateway.ws()).await;
    stalled.sends_frame(0x81, br##"{"type":"register","nick":"stalled"}"##).await;
    stalled.sends_frame(0x81, br##"{"type":"join","room":"#lobby"}"##).await;
    let healthy = cluster.ws().await;
    healthy.register("healthy").await;
    healthy.join("#lobby").await;
    let senders = join_all((0..10).map(async |number| {
        let sender = cluster.ws().await;
        sender.register(&format!("sender{number}")).await;
        sender.join("#lobby").await;
        sender
    }))
    .await;
    assert_eq!(healthy.members("#lobby").await.len(), 12);

    let text = "x".repeat(500);
    let sends = senders.iter().map(async |sender| {
        for _ in 0..MESSAGES / 10 {
            let body = json!({"type": "send", "to": "#lobby", "body": text});
            sender.request_within(PATIENCE, body).await.expect("acked");
        }
    });
    join_all(sends).await;
    let messages = || healthy.received(|value| value["type"] == "message");
    eventually(PATIENCE, "every message received", || async {
        let count = messages().len();
        if count == MESSAGES { Ok(()) } else { Err(count) }
    })
    .await;
    let seqs: Vec<u64> = messages().iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=MESSAGES as u64), "the stream is contiguous and in order");
    healthy.sees_left("#lobby", "stalled", "closed").await;
    let closes = gateway.metrics().await.get("parley_closes_total", &[("code", "slow_consumer")]);
    assert_eq!(closes, Some(1.0));
    drop(stalled);
    cluster.finish().await;
}
