//! What did not arrive is read from the log: after cuts of the subscription, after holes, and for those who come back.
//!
//! Every story ends with the same look: each member was given a room's messages once, in order, without a hole that it
//! was not told of.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::{Cluster, Redis, WsClient, eventually};
use serde_json::{Value, json};

/// How soon what was missed must be there.
const SOON: Duration = Duration::from_secs(3);
/// A gateway keeps no longer what it has acked, in case that Redis loses it.
const SAFE: Duration = Duration::from_secs(15);
/// A thousand messages are said one by one: on a busy machine that takes a while, and is not what is promised.
const ALL_OF_THEM: Duration = Duration::from_secs(20);
const LOG: &str = "parley:{0}:log:lobby";
const META: &str = "parley:{0}:room:lobby";

async fn cluster() -> Cluster {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    for text in ["subscription lost", "not ready"] {
        cluster.allow(text);
    }
    cluster
}

/// Somebody in the lobby.
async fn member(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    let person = cluster.ws_on(gateway).await;
    person.register(nick).await;
    person.join("#lobby").await;
    person
}

fn is_of_room(event: &Value) -> bool {
    event["to"] == "#lobby"
        && event.get("id").is_none()
        && ["message", "gap", "rewound", "epoch"].iter().any(|kind| event["type"] == *kind)
}

/// What this person was given of the room, in order: `3`, or `gap 4-6`.
fn given(person: &WsClient) -> Vec<String> {
    let word = |event: &Value| match event["type"].as_str().unwrap() {
        "message" => event["seq"].to_string(),
        "gap" => format!("gap {}-{}", event["from_seq"], event["to_seq"]),
        kind => format!("{kind} {}", event["seq"]),
    };
    person.received(is_of_room).iter().map(word).collect()
}

fn words(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqs.into_iter().map(|seq| seq.to_string()).collect()
}

/// Waits until this message of the room was given.
async fn until_given(person: &WsClient, seq: u64) {
    until_given_within(SOON, person, seq).await;
}

async fn until_given_within(deadline: Duration, person: &WsClient, seq: u64) {
    let what = format!("message {seq}");
    person.expect_event(deadline, &what, |event| is_of_room(event) && event["seq"] == seq).await;
}

/// Puts a message into the room's log that no gateway hears of.
async fn append_unheard(redis: &Redis, seq: u64, text: &str) {
    let payload = json!({"to": "#lobby", "from": "ann", "id": format!("m{seq}"), "fence": 1, "body": text});
    let (id, number, payload) = (format!("{seq}-0"), seq.to_string(), payload.to_string());
    let _: String = redis.ask(&["XADD", LOG, &id, "time", "1", "payload", &payload]).await;
    let _: u64 = redis.ask(&["HSET", META, "seq", &number]).await;
}

async fn cut_subscriptions(redis: &Redis) {
    let cut: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert!(cut <= 2, "two gateways, one subscription each");
}

#[tokio::test]
async fn nothing_is_missing_or_doubled_while_subscriptions_are_cut_again_and_again() {
    const CUTS: u32 = 25;
    let cluster = cluster().await;
    let people = [
        member(&cluster, 0, "ann").await,
        member(&cluster, 1, "bob").await,
        member(&cluster, 0, "carl").await,
        member(&cluster, 1, "dora").await,
    ];
    let end = Instant::now() + Duration::from_millis(200) * CUTS;
    let talk = async |person: &WsClient| {
        let mut acked = Vec::new();
        // For as long as there are cuts, and on a busy machine until enough was said to tell anything.
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
        until_given(person, last).await;
        assert_eq!(given(person), words(1..=last), "{} has everything once and in order", person.name());
    }
    assert!(cluster.gateways[1].metrics().await.get("parley_backplane_reconnects_total", &[]) > Some(5.0));
    cluster.finish().await;
}

#[tokio::test]
async fn a_quiet_room_learns_what_was_said_while_the_subscription_was_down() {
    let cluster = cluster().await;
    let (ann, bob) = (member(&cluster, 0, "ann").await, member(&cluster, 1, "bob").await);
    for seq in 1..=10 {
        cut_subscriptions(&cluster.redis).await;
        ann.sends("#lobby", "into the cut").await;
        until_given(&bob, seq).await;
        until_given(&ann, seq).await;
    }
    append_unheard(&cluster.redis, 11, "nobody heard me").await;
    cut_subscriptions(&cluster.redis).await;
    until_given(&bob, 11).await;
    until_given(&ann, 11).await;
    for person in [&ann, &bob] {
        assert_eq!(given(person), words(1..=11));
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_message_that_comes_twice_is_given_once() {
    const CHANNEL: &str = "parley:{0}:ch:room:lobby";
    let cluster = cluster().await;
    let (ann, bob) = (member(&cluster, 0, "ann").await, member(&cluster, 1, "bob").await);
    let epoch = ann.join("#lobby").await["epoch"].as_str().unwrap().to_owned();
    for seq in 1..=5_u64 {
        ann.sends("#lobby", "once").await;
        let payload = json!({"to": "#lobby", "from": "ann", "id": "m", "fence": 1, "body": "once"}).to_string();
        let copy = format!("M {epoch} {seq} 1 {}\n{payload}", payload.len());
        let heard: u64 = cluster.redis.ask(&["PUBLISH", CHANNEL, &copy]).await;
        assert_eq!(heard, 2, "both gateways");
    }
    ann.sends("#lobby", "the end").await;
    for person in [&ann, &bob] {
        until_given(person, 6).await;
        assert_eq!(given(person), words(1..=6));
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_hole_is_filled_before_what_follows_it_and_what_is_gone_is_told() {
    let cluster = cluster().await;
    let (ann, bob) = (member(&cluster, 0, "ann").await, member(&cluster, 1, "bob").await);
    let carl = cluster.line_on(1).await;
    carl.register("carl").await;
    carl.join("#lobby").await;
    ann.sends("#lobby", "one").await;
    for seq in 2..=500 {
        append_unheard(&cluster.redis, seq, "nobody heard me").await;
    }
    assert_eq!(ann.sends("#lobby", "the end").await["seq"], 501);
    for person in [&ann, &bob] {
        until_given(person, 501).await;
        assert_eq!(given(person), words(1..=501));
    }
    for seq in 502..=505 {
        append_unheard(&cluster.redis, seq, "nobody heard me").await;
    }
    let _: u64 = cluster.redis.ask(&["XDEL", LOG, "503-0", "504-0"]).await;
    ann.sends("#lobby", "the very end").await;
    for person in [&ann, &bob] {
        until_given(person, 506).await;
        let expected = [words(1..=502), vec!["gap 503-504".to_owned()], words(505..=506)].concat();
        assert_eq!(given(person), expected);
    }
    carl.reads("* messages 503 to 504 of #lobby are gone").await;
    cluster.finish().await;
}

#[tokio::test]
async fn who_comes_back_on_another_gateway_gets_what_they_missed_and_then_what_is_said() {
    const MISSED: u64 = 1000;
    let cluster = cluster().await;
    let ann = member(&cluster, 0, "ann").await;
    let bob = member(&cluster, 0, "bob").await;
    for seq in 1..=3 {
        ann.sends("#lobby", "before").await;
        until_given(&bob, seq).await;
    }
    let epoch = bob.join("#lobby").await["epoch"].clone();
    bob.bye().await;
    for _ in 0..MISSED {
        ann.post(json!({"type": "send", "to": "#lobby", "body": "x".repeat(600)})).await;
    }
    until_given_within(ALL_OF_THEM, &ann, 3 + MISSED).await;

    // Somebody talks on while he comes back, so that the seam is in the middle of it.
    let again = cluster.ws_on(1).await;
    again.register("bob").await;
    let talk = async {
        for _ in 0..300 {
            ann.sends("#lobby", "meanwhile").await;
        }
    };
    let come_back = async {
        let since = json!({"epoch": epoch, "seq": 3});
        again.must(json!({"type": "join", "room": "#lobby", "since": since})).await
    };
    let ((), joined) = tokio::join!(talk, come_back);
    assert_eq!((&joined["recovered"], &joined["epoch"]), (&json!(true), &epoch));
    assert!(joined["seq"].as_u64().unwrap() >= 3 + MISSED);
    let last = ann.sends("#lobby", "the end").await["seq"].as_u64().unwrap();
    until_given_within(ALL_OF_THEM, &again, last).await;
    assert_eq!(given(&again), words(4..=last));
    let kinds = again.received(|event| is_of_room(event) || event["type"] == "joined");
    assert_eq!(kinds[0]["type"], "joined", "the answer comes first");
    cluster.finish().await;
}

#[tokio::test]
async fn who_comes_back_too_late_is_told_what_is_gone() {
    let cluster = cluster().await;
    let ann = member(&cluster, 0, "ann").await;
    let epoch = ann.join("#lobby").await["epoch"].clone();
    for _ in 1..=20 {
        ann.sends("#lobby", "hi").await;
    }
    let _: u64 = cluster.redis.ask(&["XTRIM", LOG, "MAXLEN", "5"]).await;
    for (nick, seq, recovered, expected) in [
        ("bob", 3, true, [vec!["gap 4-15".to_owned()], words(16..=20)].concat()),
        ("carl", 17, true, words(18..=20)),
        ("dora", 20, true, vec![]),
        ("emil", 21, false, vec!["rewound 20".to_owned()]),
    ] {
        let person = cluster.ws_on(1).await;
        person.register(nick).await;
        let since = json!({"epoch": epoch, "seq": seq});
        let joined = person.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
        assert_eq!((&joined["seq"], &joined["recovered"]), (&json!(20), &json!(recovered)), "{nick}");
        // Requests are answered in order: whatever was missed is there by now.
        person.must(json!({"type": "ping"})).await;
        assert_eq!(given(&person), expected, "{nick}");
    }
    let _: u64 = cluster.redis.ask(&["DEL", LOG]).await;
    let fay = cluster.ws_on(1).await;
    fay.register("fay").await;
    fay.must(json!({"type": "join", "room": "#lobby", "since": {"epoch": epoch, "seq": 0}})).await;
    ann.sends("#lobby", "hello?").await;
    until_given(&fay, 21).await;
    assert_eq!(given(&fay), ["gap 1-20", "21"]);
    cluster.finish().await;
}

#[tokio::test]
async fn what_the_store_has_lost_is_told_to_those_who_had_it_and_to_nobody_else() {
    let cluster = cluster().await;
    let (ann, bob) = (member(&cluster, 0, "ann").await, member(&cluster, 1, "bob").await);
    let epoch = ann.join("#lobby").await["epoch"].clone();
    for seq in 1..=4 {
        ann.sends("#lobby", "before").await;
        until_given(&bob, seq).await;
        until_given(&ann, seq).await;
    }
    // As with an old backup: nobody remembers any more what was acked since.
    eventually(SAFE, "nothing is kept for a repair", async || {
        let kept = cluster.gateways[0].metrics().await.get("parley_repair_bytes", &[]);
        if kept == Some(0.0) { Ok(()) } else { Err(kept) }
    })
    .await;
    let lost: u64 = cluster.redis.ask(&["XDEL", LOG, "3-0", "4-0"]).await;
    assert_eq!(lost, 2);
    let _: String = cluster.redis.ask(&["XSETID", LOG, "2-0"]).await;
    let _: u64 = cluster.redis.ask(&["HSET", META, "seq", "2"]).await;
    let _: u64 = cluster.redis.ask(&["HINCRBY", "parley:{0}:generation", "generation", "1"]).await;
    let after = eventually(SOON, "the gateway has noticed", async || ann.try_send("#lobby", "after").await).await;
    assert_eq!(after["seq"], 3);
    for person in [&ann, &bob] {
        let last = |event: &Value| is_of_room(event) && event["body"] == "after";
        person.expect_event(SOON, "what was said since", last).await;
        assert_eq!(given(person), [words(1..=4), vec!["rewound 2".to_owned()], words(3..=3)].concat());
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
        assert_eq!(given(&person), expected, "{nick}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_direct_message_said_into_a_cut_arrives_once_and_one_to_who_has_left_waits() {
    let cluster = cluster().await;
    let (ann, bob) = (member(&cluster, 0, "ann").await, member(&cluster, 1, "bob").await);
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
async fn another_history_is_told_to_those_who_are_there() {
    let cluster = cluster().await;
    let (ann, bob) = (member(&cluster, 0, "ann").await, member(&cluster, 1, "bob").await);
    for seq in 1..=3 {
        ann.sends("#lobby", "before").await;
        until_given(&bob, seq).await;
        until_given(&ann, seq).await;
    }
    let _: u64 = cluster.redis.ask(&["HSET", META, "epoch", "another"]).await;
    ann.sends("#lobby", "after").await;
    for person in [&ann, &bob] {
        until_given(person, 4).await;
        assert_eq!(given(person), [words(1..=3), vec!["rewound 0".to_owned()], words(1..=4)].concat());
    }
    cluster.finish().await;
}
