//! Refill and replay: messages that did not arrive are read from the stream.
//!
//! Covers lost subscriptions, holes and rejoining clients. Each member receives a room's messages once and in order.
//! Every hole is reported to it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::{Cluster, Redis, WsClient, eventually};
use serde_json::{Value, json};

use crate::lobby::{await_message, await_message_within, is_stream_event, lobby_member, seq_words, stream_events};

/// The maximum time for a missed message to arrive.
const SOON: Duration = Duration::from_secs(3);
/// The maximum time that a gateway keeps acknowledged messages for a republish.
const RING_AGE_MAX: Duration = Duration::from_secs(15);
/// The time for 1,000 sequential messages on a busy machine; it is not a guarantee of the product.
const BULK_TIME: Duration = Duration::from_secs(20);
const STREAM_KEY: &str = "parley:{0}:log:lobby";
const ROOM_KEY: &str = "parley:{0}:room:lobby";

async fn cluster() -> Cluster {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    for text in ["subscription lost", "not ready"] {
        cluster.allow(text);
    }
    cluster
}

/// Appends a message to the room's stream without a publication.
async fn append_unpublished(redis: &Redis, seq: u64, text: &str) {
    let payload = json!({"to": "#lobby", "from": "ann", "id": format!("m{seq}"), "fence": 1, "body": text});
    let (id, number, payload) = (format!("{seq}-0"), seq.to_string(), payload.to_string());
    let _: String = redis.ask(&["XADD", STREAM_KEY, &id, "time", "1", "payload", &payload]).await;
    let _: u64 = redis.ask(&["HSET", ROOM_KEY, "seq", &number]).await;
}

async fn cut_subscriptions(redis: &Redis) {
    let cut: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert!(cut <= 2, "two gateways with one subscription each");
}

#[tokio::test]
async fn repeated_subscription_cuts_lose_and_duplicate_no_message() {
    const CUTS: u32 = 25;
    let cluster = cluster().await;
    let people = [
        lobby_member(&cluster, 0, "ann").await,
        lobby_member(&cluster, 1, "bob").await,
        lobby_member(&cluster, 0, "carl").await,
        lobby_member(&cluster, 1, "dora").await,
    ];
    let end = Instant::now() + Duration::from_millis(200) * CUTS;
    let talk = async |person: &WsClient| {
        let mut acked = Vec::new();
        // Runs as long as the cuts do; a busy machine needs longer to send enough messages.
        while Instant::now() < end || acked.len() < 50 {
            acked.push(person.sends("#lobby", "still there?").await["seq"].as_u64().unwrap());
        }
        acked
    };
    let cutting = async {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        for _ in 0..CUTS {
            tick.tick().await;
            cut_subscriptions(&cluster.redis).await;
        }
    };
    let [ann, bob, carl, dora] = &people;
    let (a, b, c, d, ()) = tokio::join!(talk(ann), talk(bob), talk(carl), talk(dora), cutting);
    let acked = BTreeSet::from_iter([a, b, c, d].concat());
    let last = *acked.last().unwrap();
    assert_eq!(acked, BTreeSet::from_iter(1..=last));
    for person in &people {
        await_message(person, last).await;
        assert_eq!(stream_events(person), seq_words(1..=last), "{} has each message once and in order", person.name());
    }
    assert!(cluster.gateways[1].metrics().await.get("parley_backplane_reconnects_total", &[]) > Some(5.0));
    cluster.finish().await;
}

#[tokio::test]
async fn refill_delivers_messages_sent_during_subscription_loss() {
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    for seq in 1..=10 {
        cut_subscriptions(&cluster.redis).await;
        ann.sends("#lobby", "into the cut").await;
        await_message(&bob, seq).await;
        await_message(&ann, seq).await;
    }
    append_unpublished(&cluster.redis, 11, "unpublished").await;
    cut_subscriptions(&cluster.redis).await;
    await_message(&bob, 11).await;
    await_message(&ann, 11).await;
    for person in [&ann, &bob] {
        assert_eq!(stream_events(person), seq_words(1..=11));
    }
    cluster.finish().await;
}

#[tokio::test]
async fn hub_delivers_a_duplicate_publication_once() {
    const CHANNEL: &str = "parley:{0}:ch:room:lobby";
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let epoch = ann.join("#lobby").await["epoch"].as_str().unwrap().to_owned();
    for seq in 1..=5_u64 {
        ann.sends("#lobby", "once").await;
        let payload = json!({"to": "#lobby", "from": "ann", "id": "m", "fence": 1, "body": "once"}).to_string();
        let copy = format!("M {epoch} {seq} 1 {}\n{payload}", payload.len());
        let receivers: u64 = cluster.redis.ask(&["PUBLISH", CHANNEL, &copy]).await;
        assert_eq!(receivers, 2, "both gateways receive the copy");
    }
    ann.sends("#lobby", "the end").await;
    for person in [&ann, &bob] {
        await_message(person, 6).await;
        assert_eq!(stream_events(person), seq_words(1..=6));
    }
    cluster.finish().await;
}

#[tokio::test]
async fn hub_refills_holes_and_reports_lost_messages() {
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let carl = cluster.line_on(1).await;
    carl.register("carl").await;
    carl.join("#lobby").await;
    ann.sends("#lobby", "one").await;
    for seq in 2..=500 {
        append_unpublished(&cluster.redis, seq, "unpublished").await;
    }
    assert_eq!(ann.sends("#lobby", "the end").await["seq"], 501);
    for person in [&ann, &bob] {
        await_message(person, 501).await;
        assert_eq!(stream_events(person), seq_words(1..=501));
    }
    for seq in 502..=505 {
        append_unpublished(&cluster.redis, seq, "unpublished").await;
    }
    let _: u64 = cluster.redis.ask(&["XDEL", STREAM_KEY, "503-0", "504-0"]).await;
    ann.sends("#lobby", "the very end").await;
    for person in [&ann, &bob] {
        await_message(person, 506).await;
        let expected = [seq_words(1..=502), vec!["gap 503-504".to_owned()], seq_words(505..=506)].concat();
        assert_eq!(stream_events(person), expected);
    }
    carl.reads("* messages 503 to 504 of #lobby are gone").await;
    cluster.finish().await;
}

#[tokio::test]
async fn rejoin_on_another_gateway_replays_missed_messages() {
    const MISSED: u64 = 1000;
    let cluster = cluster().await;
    let ann = lobby_member(&cluster, 0, "ann").await;
    let bob = lobby_member(&cluster, 0, "bob").await;
    for seq in 1..=3 {
        ann.sends("#lobby", "before").await;
        await_message(&bob, seq).await;
    }
    let epoch = bob.join("#lobby").await["epoch"].clone();
    bob.bye().await;
    for _ in 0..MISSED {
        ann.post(json!({"type": "send", "to": "#lobby", "body": "x".repeat(600)})).await;
    }
    await_message_within(BULK_TIME, &ann, 3 + MISSED).await;

    // Messages continue during the rejoin, so the replay meets live traffic.
    let again = cluster.ws_on(1).await;
    again.register("bob").await;
    let talk = async {
        for _ in 0..300 {
            ann.sends("#lobby", "meanwhile").await;
        }
    };
    let rejoin = async {
        let since = json!({"epoch": epoch, "seq": 3});
        again.must(json!({"type": "join", "room": "#lobby", "since": since})).await
    };
    let ((), joined) = tokio::join!(talk, rejoin);
    assert_eq!((&joined["recovered"], &joined["epoch"]), (&json!(true), &epoch));
    assert!(joined["seq"].as_u64().unwrap() >= 3 + MISSED);
    let last = ann.sends("#lobby", "the end").await["seq"].as_u64().unwrap();
    await_message_within(BULK_TIME, &again, last).await;
    assert_eq!(stream_events(&again), seq_words(4..=last));
    let kinds = again.received(|event| is_stream_event(event) || event["type"] == "joined");
    assert_eq!(kinds[0]["type"], "joined", "the reply comes first");
    cluster.finish().await;
}

#[tokio::test]
async fn late_rejoin_reports_a_gap_or_rewind() {
    let cluster = cluster().await;
    let ann = lobby_member(&cluster, 0, "ann").await;
    let epoch = ann.join("#lobby").await["epoch"].clone();
    for _ in 1..=20 {
        ann.sends("#lobby", "hi").await;
    }
    let _: u64 = cluster.redis.ask(&["XTRIM", STREAM_KEY, "MAXLEN", "5"]).await;
    for (nick, seq, recovered, expected) in [
        ("bob", 3, true, [vec!["gap 4-15".to_owned()], seq_words(16..=20)].concat()),
        ("carl", 17, true, seq_words(18..=20)),
        ("dora", 20, true, vec![]),
        ("emil", 21, false, vec!["rewound 20".to_owned()]),
    ] {
        let person = cluster.ws_on(1).await;
        person.register(nick).await;
        let since = json!({"epoch": epoch, "seq": seq});
        let joined = person.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
        assert_eq!((&joined["seq"], &joined["recovered"]), (&json!(20), &json!(recovered)), "{nick}");
        // Replies are in order, so the replay is complete by now.
        person.must(json!({"type": "ping"})).await;
        assert_eq!(stream_events(&person), expected, "{nick}");
    }
    let _: u64 = cluster.redis.ask(&["DEL", STREAM_KEY]).await;
    let fay = cluster.ws_on(1).await;
    fay.register("fay").await;
    fay.must(json!({"type": "join", "room": "#lobby", "since": {"epoch": epoch, "seq": 0}})).await;
    ann.sends("#lobby", "hello?").await;
    await_message(&fay, 21).await;
    assert_eq!(stream_events(&fay), ["gap 1-20", "21"]);
    cluster.finish().await;
}

#[tokio::test]
async fn store_rollback_rewinds_only_clients_ahead_of_it() {
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let epoch = ann.join("#lobby").await["epoch"].clone();
    for seq in 1..=4 {
        ann.sends("#lobby", "before").await;
        await_message(&bob, seq).await;
        await_message(&ann, seq).await;
    }
    // As with an old backup: no gateway keeps the acknowledged messages any more.
    eventually(RING_AGE_MAX, "republish ring empty", async || {
        let kept = cluster.gateways[0].metrics().await.get("parley_repair_bytes", &[]);
        if kept == Some(0.0) { Ok(()) } else { Err(kept) }
    })
    .await;
    let lost: u64 = cluster.redis.ask(&["XDEL", STREAM_KEY, "3-0", "4-0"]).await;
    assert_eq!(lost, 2);
    let _: String = cluster.redis.ask(&["XSETID", STREAM_KEY, "2-0"]).await;
    let _: u64 = cluster.redis.ask(&["HSET", ROOM_KEY, "seq", "2"]).await;
    let _: u64 = cluster.redis.ask(&["HINCRBY", "parley:{0}:generation", "generation", "1"]).await;
    let after = eventually(SOON, "new generation detected", async || ann.try_send("#lobby", "after").await).await;
    assert_eq!(after["seq"], 3);
    for person in [&ann, &bob] {
        let last = |event: &Value| is_stream_event(event) && event["body"] == "after";
        person.expect_event(SOON, "message after the rollback", last).await;
        assert_eq!(stream_events(person), [seq_words(1..=4), vec!["rewound 2".to_owned()], seq_words(3..=3)].concat());
    }
    for (nick, seq, recovered, expected) in [
        ("carl", 1, true, vec!["epoch 1", "2", "3"]),
        ("dora", 2, true, vec!["epoch 2", "3"]),
        ("emil", 4, false, vec!["rewound 2", "3"]),
    ] {
        let person = cluster.ws_on(1).await;
        person.register(nick).await;
        let since = json!({"epoch": epoch, "seq": seq});
        let joined = person.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
        assert_eq!(joined["recovered"], recovered, "{nick}");
        person.must(json!({"type": "ping"})).await;
        assert_eq!(stream_events(&person), expected, "{nick}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn direct_message_during_subscription_cut_arrives_once() {
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    for seq in 1..=10_u64 {
        cut_subscriptions(&cluster.redis).await;
        let ack = ann.sends("bob", "into the cut").await;
        assert_eq!((&ack["delivered"], ack.get("seq")), (&json!("online"), None));
        bob.expect_event(SOON, "the note", |event| event["to"] == "bob" && event["seq"] == seq).await;
    }
    let notes = bob.received(|event| event["to"] == "bob");
    assert!(notes.iter().map(|note| note["seq"].as_u64().unwrap()).eq(1..=10), "{notes:?}");
    bob.bye().await;
    assert_eq!(ann.sends("bob", "for later").await["delivered"], "offline");
    cluster.finish().await;
}

#[tokio::test]
async fn epoch_change_rewinds_members_to_the_start() {
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    for seq in 1..=3 {
        ann.sends("#lobby", "before").await;
        await_message(&bob, seq).await;
        await_message(&ann, seq).await;
    }
    let _: u64 = cluster.redis.ask(&["HSET", ROOM_KEY, "epoch", "another"]).await;
    ann.sends("#lobby", "after").await;
    for person in [&ann, &bob] {
        await_message(person, 4).await;
        assert_eq!(stream_events(person), [seq_words(1..=3), vec!["rewound 0".to_owned()], seq_words(1..=4)].concat());
    }
    cluster.finish().await;
}
