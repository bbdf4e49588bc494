//! Garbage of another writer in Redis: it is skipped and counted, and clients notice nothing but a gap.
//!
//! Keys of a wrong type and refused calls are tested in `operators::refusals`, malformed answers of scripts in
//! `contracts::backplane` and `contracts::registry`.

use std::time::Duration;

use harness::{Cluster, eventually};
use serde_json::json;

use super::neighbours::Neighbours;

const SOON: Duration = Duration::from_secs(10);
const ROOM_CHANNEL: &str = "parley:{0}:ch:room:home";
const ROOM_KEY: &str = "parley:{0}:room:home";
const STREAM_KEY: &str = "parley:{0}:log:home";

/// Texts of which each is one malformed frame of a room's channel.
const ROOM_FRAMES: [&[u8]; 18] = [
    b"nonsense",
    b"\n",
    b"\0",
    b"M",
    b"M e 1 1",
    b"M e 1 1\n",
    b"M e x 1 2\n{}",
    b"M e 9 9 2\n{}",
    b"M e 9 9 99\nshort",
    b"M e 9 9 18446744073709551615\n{}",
    b"M e 9 9 99999999999999999999\n{}",
    b"M e 9 9 -1\n{}",
    b"M e 9 9 4\n\"\xC0\xAF\"",
    b"P x 2\n{}",
    b"P 1 4\nnull",
    b"W  3\nann",
    b"Z 1 2\n{}",
    b"\xFF\xFE 2\n{}",
];

/// Payloads of a stream that no gateway writes.
const PAYLOADS: [&str; 8] = [
    "",
    "nonsense",
    "null",
    "[]",
    "{}",
    r#"{"to":1,"from":"ann","id":"m","body":1}"#,
    r#"{"to":"\u0023home","from":"ann","id":"m"}"#,
    r#"{"v":255,"data":"AAAA"}"#,
];

async fn malformed(cluster: &Cluster) -> f64 {
    cluster.gateways[0].metrics().await.get("parley_backplane_malformed_total", &[]).unwrap()
}

#[tokio::test]
async fn garbage_on_channels_is_skipped_and_counted() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    cluster.allow("malformed text skipped");
    let neighbours = Neighbours::open(&cluster.gateways[0]).await;
    neighbours.chat("before").await;
    let mut redis = cluster.redis.connection().await;
    let mut skipped = malformed(&cluster).await;
    for round in 0..20 {
        for (number, frame) in ROOM_FRAMES.into_iter().enumerate() {
            let sent = redis::cmd("PUBLISH").arg(ROOM_CHANNEL).arg(frame).query_async::<u64>(&mut redis).await;
            assert_eq!(sent, Ok(1), "the gateway receives {}", frame.escape_ascii());
            skipped += 1.0;
            if round == 0 {
                neighbours.chat(&format!("after {number}")).await;
                assert_eq!(malformed(&cluster).await, skipped, "{}", frame.escape_ascii());
            }
        }
        neighbours.chat(&format!("round {round}")).await;
    }
    assert_eq!(malformed(&cluster).await, skipped);
    let large: u64 =
        redis::cmd("PUBLISH").arg(ROOM_CHANNEL).arg(vec![b'x'; 8 << 20]).query_async(&mut redis).await.unwrap();
    assert_eq!(large, 1);
    neighbours.chat("after 8 MiB").await;
    neighbours.assert_undisturbed();
    drop(neighbours);
    cluster.finish().await;
}

#[tokio::test]
async fn garbage_in_a_stream_is_a_gap() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    cluster.allow("malformed text skipped");
    let neighbours = Neighbours::open(&cluster.gateways[0]).await;
    neighbours.chat("before").await;
    let mut seq: u64 = 1;
    for payload in PAYLOADS {
        seq += 1;
        let (id, number) = (format!("{seq}-0"), seq.to_string());
        let _: String = cluster.redis.ask(&["XADD", STREAM_KEY, &id, "time", "1", "payload", payload]).await;
        let _: u64 = cluster.redis.ask(&["HSET", ROOM_KEY, "seq", &number]).await;
        neighbours.chat(&format!("after {seq}")).await;
        seq += 1;
        let gap = |event: &serde_json::Value| event["type"] == "gap" && event["from_seq"] == seq - 1;
        let what = format!("the gap of {payload}");
        neighbours.ann().expect_event(SOON, &what, gap).await;
    }
    // An entry without the fields, and with a time that is none.
    for fields in [["x", "y", "z", "w"], ["time", "never", "payload", "{}"]] {
        seq += 1;
        let id = format!("{seq}-0");
        let _: String = cluster.redis.ask(&[&["XADD", STREAM_KEY, &id], &fields[..]].concat()).await;
        let _: u64 = cluster.redis.ask(&["HSET", ROOM_KEY, "seq", &seq.to_string()]).await;
        neighbours.chat(&format!("after {seq}")).await;
        seq += 1;
    }
    // History and a new member read around the garbage.
    let history = neighbours.ann().history("#home", 200).await;
    assert_eq!(history.len(), 1 + PAYLOADS.len() + 2, "{history:?}");
    let late = cluster.ws_on(0).await;
    late.register("late").await;
    let epoch = late.join("#home").await["epoch"].clone();
    late.leave("#home").await;
    late.must(json!({"type": "join", "room": "#home", "since": {"epoch": epoch, "seq": 0}})).await;
    let expected = 1 + PAYLOADS.len() + 2;
    eventually(SOON, "all readable messages are replayed", async || {
        let received = late.received(|event| event["type"] == "message").len();
        if received == expected { Ok(()) } else { Err(received) }
    })
    .await;
    drop(neighbours);
    cluster.finish().await;
}
