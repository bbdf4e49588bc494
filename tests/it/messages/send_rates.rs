//! The byte rate of a room and of an inbox: a flood is refused to its sender, and costs readers and others nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use harness::fault_proxy::Mode;
use harness::{Cluster, FaultProxy, WsClient, eventually};
use serde_json::{Value, json};

const ROOM: &str = "#busy";
const FLOOD_BYTES: usize = 60_000;
const FLOOD: Duration = Duration::from_secs(6);
const SOON: Duration = Duration::from_secs(30);
const MIB: u32 = 1024 * 1024;

/// Connects a client over a line of this rate.
async fn reader(cluster: &Cluster, nick: &str, bytes_per_second: u32) -> (FaultProxy, WsClient) {
    let line = FaultProxy::start(cluster.gateways[0].ws()).await;
    line.set(Mode::Limited { bytes_per_second });
    let client = WsClient::connect(line.address()).await;
    client.register(nick).await;
    (line, client)
}

async fn member(cluster: &Cluster, nick: &str) -> WsClient {
    let client = cluster.ws().await;
    client.register(nick).await;
    client
}

/// Sends large messages, four at a time, for a while. Returns the ids of the acknowledged ones and the refusals.
async fn flood(sender: &WsClient, to: &str) -> (HashSet<String>, Vec<Value>) {
    let text = "x".repeat(FLOOD_BYTES);
    let (mut acked, mut refused) = (HashSet::new(), Vec::new());
    let until = Instant::now() + FLOOD;
    while Instant::now() < until {
        let mut posted = Vec::new();
        for _ in 0..4 {
            posted.push(sender.post(json!({"type": "send", "to": to, "body": text})).await);
        }
        for id in posted {
            match sender.reply_within(SOON, id).await {
                Ok(ack) => assert!(acked.insert(ack["msg_id"].as_str().unwrap().to_owned())),
                Err(refusal) => {
                    assert_eq!(refusal.code, "overloaded", "{}", refusal.reply);
                    refused.push(refusal.reply);
                }
            }
        }
    }
    (acked, refused)
}

/// Waits until the client has received all of these messages.
async fn receives_all(client: &WsClient, ids: &HashSet<String>) {
    eventually(SOON, "every acknowledged message received", || async {
        let received = client.received(|event| event["type"] == "message");
        let received: HashSet<&str> = received.iter().map(|event| event["msg_id"].as_str().unwrap()).collect();
        let missing = ids.iter().filter(|id| !received.contains(id.as_str())).count();
        if missing == 0 { Ok(()) } else { Err(missing) }
    })
    .await;
}

fn assert_flood_was_limited((acked, refused): &(HashSet<String>, Vec<Value>)) {
    let rate = (acked.len() * FLOOD_BYTES) as f64 / FLOOD.as_secs_f64() / f64::from(MIB);
    assert!((0.8..2.5).contains(&rate), "{rate} MiB/s acknowledged");
    assert!(!refused.is_empty());
    for refusal in refused {
        assert!((1..=2000).contains(&refusal["retry_after_ms"].as_u64().unwrap()), "{refusal}");
    }
}

async fn assert_nobody_was_closed(cluster: &Cluster) {
    let closes = cluster.gateways[0].metrics().await.get("parley_closes_total", &[("code", "slow_consumer")]);
    assert_eq!(closes, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooding_member_is_refused_and_readers_stay() {
    let mut cluster = Cluster::builder().start().await;
    cluster.allow("room rate exceeded");
    let (_line, slow) = reader(&cluster, "slow", 4 * MIB).await;
    let (_fast_line, fast) = reader(&cluster, "fast", 12 * MIB).await;
    let (flooder, quiet) = (member(&cluster, "flooder").await, member(&cluster, "quiet").await);
    for client in [&slow, &fast, &flooder, &quiet] {
        client.join(ROOM).await;
    }

    let quiet_messages = async {
        let until = Instant::now() + FLOOD;
        let mut acked = HashSet::new();
        while Instant::now() < until {
            let ack = quiet.try_send(ROOM, "a small message").await.expect("a quiet member is never refused");
            acked.insert(ack["msg_id"].as_str().unwrap().to_owned());
        }
        acked
    };
    let (flood, quiet_acked) = tokio::join!(flood(&flooder, ROOM), quiet_messages);
    assert_flood_was_limited(&flood);
    let all = &flood.0 | &quiet_acked;
    for reader in [&slow, &fast, &quiet] {
        receives_all(reader, &all).await;
    }
    assert_nobody_was_closed(&cluster).await;

    let log = cluster.gateways[0].process().log().clone();
    eventually(SOON, "the end of the flood is reported", || async {
        if log.holds("room rate restored") { Ok(()) } else { Err(log.tail(3)) }
    })
    .await;
    let lines: Vec<String> = log.lines().into_iter().filter(|line| line.contains("room rate ")).collect();
    assert_eq!(lines.len(), 2, "one line at the beginning and one at the end: {lines:#?}");
    assert!(lines[0].contains(ROOM) && lines[0].contains("flooder") && !lines[0].contains("quiet"), "{}", lines[0]);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooded_receiver_of_direct_messages_stays() {
    let mut cluster = Cluster::builder().start().await;
    cluster.allow("inbox rate exceeded");
    let (_line, victim) = reader(&cluster, "victim", 4 * MIB).await;
    let (flooder, quiet) = (member(&cluster, "flooder").await, member(&cluster, "quiet").await);
    let quiet_messages = async {
        for number in 0..100 {
            quiet.try_send("victim", &format!("{number}")).await.expect("a quiet sender is never refused");
        }
    };
    let (flood, ()) = tokio::join!(flood(&flooder, "victim"), quiet_messages);
    assert_flood_was_limited(&flood);
    receives_all(&victim, &flood.0).await;
    assert_nobody_was_closed(&cluster).await;
    // Another receiver has its own rate.
    flooder.sends("quiet", &"x".repeat(FLOOD_BYTES)).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_message_takes_no_part_of_the_rate() {
    let mut cluster =
        Cluster::builder().gateway_setting("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", "65536").start().await;
    cluster.allow("room rate exceeded");
    let ann = member(&cluster, "ann").await;
    ann.join(ROOM).await;
    let message = json!({"type": "send", "to": ROOM, "body": "x".repeat(30_000), "key": "k"});
    for number in 0..50 {
        let ack = ann.request(message.clone()).await.expect("nobody receives a repeated message again");
        assert_eq!((ack["seq"].as_u64(), ack["duplicate"].as_bool()), (Some(1), Some(number > 0)));
    }
    cluster.finish().await;
}
