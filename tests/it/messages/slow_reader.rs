//! Somebody who does not read, in a room that does not stop talking: they are closed, and nobody else notices.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, RawWs, eventually};
use serde_json::json;

const MESSAGES: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_is_closed_and_the_others_hear_every_message() {
    let cluster = Cluster::builder().start().await;
    let gateway = &cluster.gateways[0];
    let mut stalled = RawWs::connect(gateway.ws()).await;
    stalled.sends_frame(0x81, br##"{"type":"register","nick":"stalled"}"##).await;
    stalled.sends_frame(0x81, br##"{"type":"join","room":"#lobby"}"##).await;
    let healthy = cluster.ws().await;
    healthy.register("healthy").await;
    healthy.join("#lobby").await;
    let speakers = join_all((0..10).map(async |number| {
        let speaker = cluster.ws().await;
        speaker.register(&format!("speaker{number}")).await;
        speaker.join("#lobby").await;
        speaker
    }))
    .await;
    assert_eq!(healthy.members("#lobby").await.len(), 12);

    let text = "x".repeat(500);
    let speeches = speakers.iter().map(async |speaker| {
        for _ in 0..MESSAGES / 10 {
            let body = json!({"type": "send", "to": "#lobby", "body": text});
            speaker.request_within(PATIENCE, body).await.expect("acked");
        }
    });
    join_all(speeches).await;
    let heard = || healthy.received(|value| value["type"] == "message");
    eventually(PATIENCE, "everything is heard", || async {
        let count = heard().len();
        if count == MESSAGES { Ok(()) } else { Err(count) }
    })
    .await;
    let seqs: Vec<u64> = heard().iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=MESSAGES as u64), "the stream has no hole and one order");
    healthy.sees_left("#lobby", "stalled", "closed").await;
    let closes = gateway.metrics().await.get("parley_closes_total", &[("code", "slow_consumer")]);
    assert_eq!(closes, Some(1.0));
    drop(stalled);
    cluster.finish().await;
}
