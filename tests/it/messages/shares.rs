//! Shares of a gateway: a client that floods is refused, and its neighbours on the same gateway are not.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, WsClient, eventually};
use serde_json::{Value, json};

/// The time for which both send. Without shares the flood fills the gateway's whole space in less.
const FLOOD: Duration = Duration::from_secs(15);

/// Sends large bodies, several at a time, until the neighbour is done. Returns the last refusal.
async fn flood(hog: &WsClient, to: &str) -> Value {
    let body = "x".repeat(65_000);
    let mut refused = None;
    let sends = async {
        loop {
            let answers = join_all((0..16).map(|_| hog.try_send(to, &body))).await;
            refused =
                answers.into_iter().filter_map(Result::err).map(|refusal| refusal.reply).next_back().or(refused.take());
        }
    };
    let _: Result<(), _> = tokio::time::timeout(FLOOD, sends).await;
    refused.expect("the flood was not refused")
}

/// A flood to `to`, and a neighbour that sends 50 small messages a second.
async fn flood_spares_neighbour(to: &str) {
    let cluster = Cluster::builder()
        // Without this the rate of the room is used up first.
        .gateway_setting("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", "1073741824")
        .gateway_setting("PARLEY__LIMITS__REPUBLISH_MIB", "32")
        .start()
        .await;
    let (hog, ann, offline) = (cluster.ws_on(0).await, cluster.ws_on(0).await, cluster.ws_on(0).await);
    offline.register("offline").await;
    offline.bye().await;
    hog.register("hog").await;
    hog.join("#flood").await;
    ann.register("ann").await;
    ann.join("#quiet").await;
    let neighbour =
        harness::stays(FLOOD, "a neighbour is not refused", async || ann.try_send("#quiet", "hi").await.map(|_| ()));
    let (refusal, ()) = tokio::join!(flood(&hog, to), neighbour);
    assert_eq!(refusal["code"], "overloaded");
    let told = refusal["retry_after_ms"].as_u64().expect("a time to wait");
    assert!((1..=8000).contains(&told), "{told}");

    // Behind the answer to a ping nothing of the flood is under way. After the time that it is told then, the client
    // has space again.
    hog.request(json!({"type": "ping"})).await.unwrap();
    let body = "x".repeat(65_000);
    if let Err(refusal) = hog.try_send(to, &body).await {
        let told = refusal.reply["retry_after_ms"].as_u64().expect("a time to wait");
        let margin = Duration::from_secs(2);
        eventually(Duration::from_millis(told) + margin, "the flooding client is served again", async || {
            hog.try_send(to, &body).await.map(|_| ())
        })
        .await;
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooded_room_spares_neighbours_on_its_gateway() {
    flood_spares_neighbour("#flood").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooded_inbox_spares_neighbours_on_its_gateway() {
    flood_spares_neighbour("offline").await;
}
