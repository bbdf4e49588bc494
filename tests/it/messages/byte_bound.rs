//! The bound on the bytes of rooms and inboxes, on a cluster: Redis stays small, and late members learn what is gone.
//!
//! [`crate::contracts`] tests the bound itself on both stores, and the list of the largest streams.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, WsClient};
use serde_json::{Value, json};

use crate::lobby::{await_message_within, lobby_member, seq_words, stream_events};

/// `history.max_bytes` and `history.inbox_bytes`.
const BOUND: u64 = 1 << 20;
/// Bytes of a text, and the number of texts that a person sends.
const TEXT: usize = 40_000;
const TEXTS: u64 = 300;
/// Rooms that are filled at a time. More would fill the republish ring of the gateway.
const ROOMS: u64 = 4;
/// The time to receive a megabyte on a busy machine.
const REPLAY_TIME: Duration = Duration::from_secs(20);

async fn cluster() -> Cluster {
    let bound = BOUND.to_string();
    let builder = Cluster::builder().gateways(2).gateway_setting("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", "1073741824");
    builder
        .gateway_setting("PARLEY__HISTORY__MAX_BYTES", &bound)
        .gateway_setting("PARLEY__HISTORY__INBOX_BYTES", &bound)
        .start()
        .await
}

/// Returns the resident bytes of Redis.
async fn resident_bytes(cluster: &Cluster) -> u64 {
    let info: String = cluster.redis.ask(&["INFO", "memory"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory_rss:"));
    line.unwrap().trim().parse().unwrap()
}

/// Checks the number of messages that a stream keeps: within a sixteenth and a message of the bound.
fn assert_kept(messages: u64) {
    let payload = TEXT as u64 + 200;
    let kept = messages * payload;
    assert!((BOUND * 15 / 16 - payload..=BOUND * 17 / 16 + payload).contains(&kept), "{messages} messages are kept");
}

#[tokio::test]
async fn busy_rooms_leave_redis_small() {
    let cluster = cluster().await;
    let text = "x".repeat(TEXT);
    let before = resident_bytes(&cluster).await;
    let fill = async |number: u64| {
        let person = cluster.ws_on(0).await;
        person.register(&format!("sender-{number}")).await;
        let room = format!("#room-{number}");
        person.join(&room).await;
        for _ in 0..TEXTS {
            person.sends(&room, &text).await;
        }
        person
    };
    let _people: Vec<WsClient> = join_all((0..ROOMS).map(fill)).await;
    let grown = resident_bytes(&cluster).await.saturating_sub(before);
    let sent = ROOMS * TEXTS * TEXT as u64;
    assert!(grown < sent / 3, "Redis grew by {grown} bytes after {sent} bytes of messages");
    for number in 0..ROOMS {
        assert_kept(cluster.redis.ask(&["XLEN", &format!("parley:{{0}}:log:room-{number}")]).await);
    }
    cluster.finish().await;
}

#[tokio::test]
async fn late_member_receives_gap_for_removed_messages() {
    const MISSED: u64 = 60;
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, cluster.ws_on(1).await);
    let epoch = ann.join("#lobby").await["epoch"].clone();
    let registered = bob.register("bob").await;
    bob.cut();
    let text = "x".repeat(TEXT);
    for _ in 0..MISSED {
        ann.sends("#lobby", &text).await;
        ann.sends("bob", &text).await;
    }
    for log in ["log:lobby".to_owned(), format!("inbox:{}", registered["session"].as_str().unwrap())] {
        assert_kept(cluster.redis.ask(&["XLEN", &format!("parley:{{0}}:{log}")]).await);
    }
    let first: Vec<(String, Vec<String>)> =
        cluster.redis.ask(&["XRANGE", "parley:{0}:log:lobby", "-", "+", "COUNT", "1"]).await;
    let first: u64 = first[0].0.split('-').next().unwrap().parse().unwrap();
    assert!(first > 30, "{first}");
    let told = || [vec![format!("gap 2-{}", first - 1)], seq_words(first..=MISSED)].concat();

    let late = cluster.ws_on(1).await;
    late.register("late").await;
    let since = json!({"epoch": epoch, "seq": 1});
    let joined = late.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
    assert_eq!((&joined["seq"], &joined["recovered"]), (&json!(MISSED), &json!(true)));
    await_message_within(REPLAY_TIME, &late, MISSED).await;
    assert_eq!(stream_events(&late), told());

    let again = cluster.ws_on(1).await;
    let since = json!({"@": {"epoch": registered["inbox"]["epoch"], "seq": 1}});
    again.resume(&registered, since).await;
    again.expect_event(REPLAY_TIME, "the last one", |event| event["seq"] == MISSED && event["to"] == "bob").await;
    let events = again.received(|event: &Value| event["type"] == "gap" || event["type"] == "message");
    let gap = json!({"type": "gap", "to": "bob", "from_seq": 2, "to_seq": first - 1});
    assert_eq!((&events[0], events.len() as u64), (&gap, MISSED - first + 2));
    cluster.finish().await;
}
