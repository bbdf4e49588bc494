//! Limits of one session: a client that floods is refused and its neighbours are not.
//!
//! Invariant: a client that repeats its refused requests as late as it is told loses nothing and stays connected.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Cluster, LineClient, Node, RawWs, WsClient, eventually, stays};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// The time for which neighbours are watched.
const FLOOD: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(20);
/// The number of neighbours. Together they send as many messages as they get answers, each within its own limit.
const NEIGHBOURS: usize = 4;

fn limited(name: &str) -> harness::node::NodeBuilder {
    Node::gateway(name).setting("PARLEY__LIMITS__PROFILE", "default")
}

async fn limited_cluster() -> Cluster {
    Cluster::builder().gateway_setting("PARLEY__LIMITS__PROFILE", "default").start().await
}

async fn member(cluster: &Cluster, nick: &str, room: &str) -> WsClient {
    let client = cluster.ws_on(0).await;
    client.register(nick).await;
    client.join(room).await;
    client
}

/// Sends messages as neighbours of a flood for a while. Panics at the first refusal.
async fn neighbours_are_never_refused(cluster: &Cluster, flood: impl Future<Output = ()>) {
    let nicks: Vec<String> = (0..NEIGHBOURS).map(|number| format!("neighbour{number}")).collect();
    let neighbours = join_all(nicks.iter().map(|nick| member(cluster, nick, "#quiet"))).await;
    let mut turns = (0..NEIGHBOURS).cycle();
    let talk = stays(FLOOD, "a neighbour is not refused", || {
        let neighbour = &neighbours[turns.next().unwrap()];
        async move { neighbour.try_send("#quiet", "hi").await.map(|_| ()) }
    });
    tokio::join!(talk, async {
        let _ = timeout(FLOOD, flood).await;
    });
}

/// Counts the replies to requests of a client: accepted and refused ones.
fn count_replies(client: &WsClient, accepted: &str) -> (usize, usize) {
    let accepted = client.received(|value| value["type"] == accepted).len();
    let refused = client.received(|value| value["code"] == "rate_limited").len();
    (accepted, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_flood_is_refused_and_neighbours_are_not() {
    let cluster = limited_cluster().await;
    let hog = member(&cluster, "hog", "#flood").await;
    let flood = async {
        while hog.has_ended().is_none() {
            hog.post(json!({"type": "ping"})).await;
        }
    };
    neighbours_are_never_refused(&cluster, flood).await;
    assert_eq!(hog.closed().await.code, Some(1008));
    let (pongs, refused) = count_replies(&hog, "pong");
    assert!((190..400).contains(&pongs) && (513..2000).contains(&refused), "{pongs} pongs, {refused} refused");

    let metrics = cluster.gateways[0].metrics().await;
    assert_eq!(metrics.get("parley_refusals_total", &[("code", "rate_limited")]), Some(refused as f64));
    let lines = cluster.gateways[0].log().lines();
    let lines: Vec<&String> = lines.iter().filter(|line| line.contains("\"rate_limited\"")).collect();
    assert_eq!(lines.len(), 1, "one line a minute: {lines:#?}");
    let line: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&line["level"], &line["event"]), (&json!("INFO"), &json!("rate_limited")));
    assert_eq!((&line["nick"], &line["limit"]), (&json!("hog"), &json!("requests")));
    assert!(!lines[0].contains("127.0.0.1"), "an address is logged: {line}");
    cluster.finish().await;
}

#[tokio::test]
async fn floods_of_an_address_share_a_log_line() {
    let cluster = limited_cluster().await;
    for number in 0..3 {
        let hog = member(&cluster, &format!("hog{number}"), "#flood").await;
        while hog.has_ended().is_none() {
            hog.post(json!({"type": "ping"})).await;
        }
        assert_eq!(hog.closed().await.code, Some(1008));
    }
    let lines = cluster.gateways[0].log().lines();
    assert_eq!(lines.iter().filter(|line| line.contains("\"rate_limited\"")).count(), 1, "{lines:#?}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_of_one_client_refuse_no_neighbour() {
    let cluster = limited_cluster().await;
    let body = "x".repeat(65_000);
    let began = Instant::now();
    let hog = member(&cluster, "hog", "#flood").await;
    // As fast as the answers come, but not faster than the number of refusals that closes the connection.
    let flood = async {
        loop {
            if let Err(refused) = hog.try_send("#flood", &body).await {
                assert_eq!(refused.code, "rate_limited");
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    neighbours_are_never_refused(&cluster, flood).await;
    let (acked, refused) = count_replies(&hog, "ack");
    let most = 4 + usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!((8..=most).contains(&acked), "{acked} bodies of 65,000 bytes, {refused} refused");
    cluster.finish().await;
}

/// A gateway with a small allowance of messages, a sender and a reader in one room.
async fn sender_and_reader() -> (Node, WsClient, WsClient) {
    let node = limited("g1").setting("PARLEY__LIMITS__MESSAGES_PER_SECOND", "100");
    let gateway = node.setting("PARLEY__LIMITS__MESSAGES_BURST", "20").start().await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    for (client, nick) in [(&ann, "ann"), (&bob, "bob")] {
        client.register(nick).await;
        client.join("#room").await;
    }
    (gateway, ann, bob)
}

fn message(number: usize) -> Value {
    json!({"type": "send", "to": "#room", "body": number, "key": format!("{number}")})
}

/// Repeats a request until it is accepted, each time as late as it is told. Returns the number of refusals.
async fn repeat_as_told(client: &WsClient, number: usize, mut outcome: harness::client::RequestResult) -> usize {
    let mut refusals = 0;
    while let Err(refused) = outcome {
        assert_eq!(refused.code, "rate_limited");
        refusals += 1;
        sleep(Duration::from_millis(refused.reply["retry_after_ms"].as_u64().expect("a time to wait"))).await;
        outcome = client.request_within(SOON, message(number)).await;
    }
    refusals
}

/// Waits for as many messages. Returns their numbers in the order of the room.
async fn received_numbers(client: &WsClient, count: usize) -> Vec<usize> {
    let is_message = |value: &Value| value["type"] == "message";
    eventually(SOON, "everything is received", async || {
        let received = client.received(is_message).len();
        if received == count { Ok(()) } else { Err(received) }
    })
    .await;
    client.received(is_message).iter().map(|message| message["body"].to_string().parse().unwrap()).collect()
}

#[tokio::test]
async fn client_that_waits_sends_everything_in_order() {
    let (_gateway, ann, bob) = sender_and_reader().await;
    let mut refusals = 0;
    for number in 0..150 {
        let outcome = ann.request_within(SOON, message(number)).await;
        let refused = repeat_as_told(&ann, number, outcome).await;
        assert!(refused <= 1, "message {number} was refused {refused} times: the time was not exact");
        refusals += refused;
    }
    assert!(refusals > 50, "{refusals} refusals");
    assert_eq!(received_numbers(&bob, 150).await, (0..150).collect::<Vec<_>>());
}

#[tokio::test]
async fn refused_burst_arrives_once_and_completely() {
    const MESSAGES: usize = 256;
    let (_gateway, ann, bob) = sender_and_reader().await;
    let mut posted = Vec::new();
    for number in 0..MESSAGES {
        posted.push((number, ann.post(message(number)).await));
    }
    let sent = posted.into_iter().map(async |(number, id)| {
        let outcome = ann.reply_within(SOON, id).await;
        repeat_as_told(&ann, number, outcome).await
    });
    let refusals: usize = join_all(sent).await.into_iter().sum();
    assert!((100..512).contains(&refusals), "{refusals} refusals");
    let mut numbers = received_numbers(&bob, MESSAGES).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(ann.has_ended(), None);
}

#[tokio::test]
async fn fourth_rename_in_a_row_is_refused() {
    let gateway = limited("g1").start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    ann.register("ann").await;
    for nick in ["ann1", "ann2", "ann3"] {
        ann.rename(nick).await;
    }
    let refused = ann.request(json!({"type": "nick", "nick": "ann4"})).await.unwrap_err();
    let wait = refused.reply["retry_after_ms"].as_u64().unwrap();
    assert!(refused.code == "rate_limited" && (15_000..=20_000).contains(&wait), "{refused:?}");
    assert_eq!(ann.must(json!({"type": "whois", "nick": "ann3"})).await["online"], true, "the name is kept");
    // The other allowances are untouched.
    ann.join("#room").await;
    ann.sends("#room", "hi").await;
}

#[tokio::test]
async fn stubborn_line_client_is_refused_then_closed() {
    let mut gateway = limited("g1").start().await;
    let (hog, ann) = (LineClient::connect(gateway.tcp()).await, LineClient::connect(gateway.tcp()).await);
    hog.register("hog").await;
    ann.register("ann").await;
    hog.sends("/ping\n".repeat(2000).as_bytes()).await;
    hog.reads("! rate_limited: too many requests in a short time (try again in * s)").await;
    hog.reads("* closing: rate_limited").await;
    hog.closed().await;
    ann.types("/ping").await;
    ann.reads("* pong").await;
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn unreadable_frames_are_counted_as_requests() {
    let gateway = limited("g1").start().await;
    let hog = WsClient::connect(gateway.ws()).await;
    for _ in 0..1000 {
        hog.send(json!({"type": "no such type"})).await;
    }
    assert_eq!(hog.closed().await.code, Some(1008));
    let unknown = hog.received(|value| value["code"] == "unknown_type").len();
    assert!((200..400).contains(&unknown), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_without_requests_are_counted_too() {
    // All clients have one address, whose limit is another one.
    let gateway = limited("g1").setting("PARLEY__LIMITS__ADDRESS_SESSIONS", "64").start().await;
    for line in ["/dance", "/nick", "/nick a b", "/help", "", " ", "/auth x", "hello?", "\u{feff}"] {
        let hog = LineClient::connect(gateway.tcp()).await;
        hog.sends(format!("{line}\n").repeat(3000).as_bytes()).await;
        hog.reads_within(SOON, "! rate_limited: too many requests in a short time*").await;
        hog.reads_within(SOON, "* closing: rate_limited").await;
        hog.closed().await;
    }
    // Negotiation of telnet, and blank lines of a person, are far below the limit.
    let ann = LineClient::connect(gateway.tcp()).await;
    ann.sends(b"\xFF\xFD\x01\xFF\xFB\x03\r\n\r\n").await;
    ann.register("ann").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_are_counted_as_requests() {
    const PING: u8 = 0x89;
    const PONG: u8 = 0x8A;
    let gateway = limited("g1").start().await;
    for opcode in [PING, PONG] {
        let mut hog = RawWs::connect(gateway.ws()).await;
        for _ in 0..1000 {
            hog.sends_frame(opcode, b"x").await;
        }
        assert_eq!(hog.close_code().await, Some(1008), "{opcode:#x}");
        let mut calm = RawWs::connect(gateway.ws()).await;
        for _ in 0..150 {
            calm.sends_frame(opcode, b"x").await;
        }
        calm.sends_frame(0x81, b"{\"type\":\"ping\"}").await;
        let answer = loop {
            let frame = calm.next().await.expect("an open connection");
            if frame.opcode == 1 {
                break frame.payload;
            }
        };
        assert!(answer.starts_with(b"{\"type\":\"pong\""), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn acks_precede_the_close_of_a_flood() {
    let gateway = limited("g1").start().await;
    let hog = WsClient::connect(gateway.ws()).await;
    hog.register("hog").await;
    hog.join("#room").await;
    for number in 0..1000 {
        hog.post(json!({"type": "send", "to": "#room", "body": number})).await;
    }
    assert_eq!(hog.closed().await.code, Some(1008));
    let (acked, refused) = count_replies(&hog, "ack");
    assert!((60..100).contains(&acked) && refused >= 513, "{acked} acked, {refused} refused");
    let seqs = hog.received(|value| value["type"] == "ack");
    let seqs: Vec<u64> = seqs.iter().map(|ack| ack["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=acked as u64).collect::<Vec<_>>(), "every stored message is acknowledged");
}

#[tokio::test]
async fn open_profile_lifts_limits_not_set() {
    let node = Node::gateway("g1").setting("PARLEY__LIMITS__PROFILE", "open");
    let gateway = node.setting("PARLEY__LIMITS__RENAMES_PER_MINUTE", "1").start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    ann.register("ann").await;
    let mut last = 0;
    for _ in 0..2000 {
        last = ann.post(json!({"type": "ping"})).await;
    }
    ann.reply_within(SOON, last).await.unwrap();
    for nick in ["ann1", "ann2", "ann3"] {
        ann.rename(nick).await;
    }
    let refused = ann.request(json!({"type": "nick", "nick": "ann4"})).await.unwrap_err();
    assert_eq!(refused.code, "rate_limited");
}
