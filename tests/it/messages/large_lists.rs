//! Large lists that clients do not read: they use a bounded part of the gateway's memory, and other clients are served.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, Node, RawWs, WsClient, eventually};
use presence::model::Nick;
use presence::registry::{RedisRegistry, Registry};
use presence::store::redis::RedisStore;
use serde_json::{Value, json};

const ROOM: &str = "#hist";
const MESSAGES: u64 = 200;
const MESSAGE_BYTES: usize = 60_000;
const UNREAD: usize = 60;
const BUDGET_MIB: f64 = 16.0;
const MIB: f64 = 1024.0 * 1024.0;
const SOON: Duration = Duration::from_secs(30);

/// Starts a gateway with a small budget and a room full of large messages.
async fn cluster() -> (Cluster, WsClient) {
    let cluster = Cluster::builder()
        .gateway_setting("PARLEY__LIMITS__REPLY_MIB", "16")
        .gateway_setting("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", "1073741824")
        .start()
        .await;
    let ann = cluster.ws().await;
    ann.register("ann").await;
    ann.join(ROOM).await;
    let text = "x".repeat(MESSAGE_BYTES);
    for _ in 0..MESSAGES {
        ann.sends(ROOM, &text).await;
    }
    (cluster, ann)
}

/// Connects a client that requests its history again and again, and reads nothing.
async fn unread_client(gateway: &Node, number: usize) -> RawWs {
    let mut client = RawWs::connect(gateway.ws()).await;
    client.sends_frame(0x81, json!({"type": "register", "nick": format!("r{number}")}).to_string().as_bytes()).await;
    request_lists(&mut client).await;
    client
}

/// Joins the room and requests its history many times.
async fn request_lists(client: &mut RawWs) {
    client.sends_frame(0x81, json!({"type": "join", "room": ROOM}).to_string().as_bytes()).await;
    for _ in 0..20 {
        client.sends_frame(0x81, json!({"type": "history", "to": ROOM, "limit": 200}).to_string().as_bytes()).await;
    }
}

/// Waits until no reply holds a part of the budget.
async fn until_released(gateway: &Node) {
    eventually(SOON, "the budget is released", || async {
        let reserved = metric(gateway, "parley_reply_reserved_bytes").await;
        if reserved == 0.0 { Ok(()) } else { Err(reserved) }
    })
    .await;
}

async fn metric(gateway: &Node, name: &str) -> f64 {
    gateway.metrics().await.get(name, &[]).unwrap()
}

/// Pages back through the whole room. Returns the seqs, newest first.
async fn page_through(client: &WsClient) -> Vec<u64> {
    let (mut seqs, mut request) = (Vec::new(), json!({"type": "history", "to": ROOM, "limit": 200}));
    loop {
        let reply = client.request_within(SOON, request.clone()).await.expect("a page");
        let items = reply["items"].as_array().unwrap();
        assert!(reply.to_string().len() < 1_100_000 && !items.is_empty());
        seqs.extend(items.iter().rev().map(|item| item["seq"].as_u64().unwrap()));
        if reply["more"] == false {
            return seqs;
        }
        request["before"] = (*seqs.last().unwrap()).into();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_histories_use_a_bounded_part_of_memory() {
    let (mut cluster, ann) = cluster().await;
    cluster.allow("list refused");
    let gateway = &cluster.gateways[0];
    let before = metric(gateway, "process_resident_memory_bytes").await;

    let unread = join_all((0..UNREAD).map(|number| unread_client(gateway, number))).await;
    eventually(SOON, "unread lists use the part for large ones", || async {
        let reserved = metric(gateway, "parley_reply_reserved_bytes").await;
        if reserved > 0.6 * BUDGET_MIB * MIB { Ok(()) } else { Err(reserved) }
    })
    .await;
    let mut peak = 0.0_f64;
    for number in 0..50 {
        ann.sends(ROOM, &format!("small {number}")).await;
        peak = peak.max(metric(gateway, "process_resident_memory_bytes").await);
        assert!(metric(gateway, "parley_reply_reserved_bytes").await <= BUDGET_MIB * MIB);
    }
    let seqs = page_through(&ann).await;
    assert!(seqs.iter().rev().copied().eq(1..=MESSAGES + 50), "every message once, also beside unread lists");
    let growth = (peak - before) / MIB;
    assert!(growth < 160.0, "{UNREAD} unread histories cost {growth} MiB");

    drop(unread);
    until_released(gateway).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_budget_refuses_every_kind_of_list() {
    let (mut cluster, ann) = cluster().await;
    cluster.allow("list refused");
    let gateway = &cluster.gateways[0];
    // Each reserves as much as a small reply at least.
    let lists = [
        json!({"type": "history", "to": ROOM, "limit": 200}),
        json!({"type": "history", "to": ROOM, "limit": 1}),
        json!({"type": "members", "room": ROOM, "limit": 500}),
        json!({"type": "rooms", "limit": 500}),
    ];
    // Read lists take no part of the budget, whatever they reserved.
    for list in &lists {
        ann.must(list.clone()).await;
        until_released(gateway).await;
    }
    let unread = join_all((0..2 * UNREAD).map(|number| unread_client(gateway, number))).await;
    for list in &lists {
        let what = format!("{list} is refused beside unread lists");
        let refused = eventually(SOON, &what, || async {
            match ann.request_within(SOON, list.clone()).await {
                Ok(_) => Err("served"),
                Err(refused) => Ok(refused),
            }
        })
        .await;
        assert_eq!((refused.code.as_str(), &refused.reply["retry_after_ms"]), ("overloaded", &json!(1000)), "{list}");
    }
    ann.sends(ROOM, "messages need no part of it").await;
    drop(unread);
    until_released(gateway).await;
    for list in &lists {
        ann.must(list.clone()).await;
    }
    cluster.finish().await;
}

/// A client with an unread list that is ended by the gateway releases its part, though it never reads the close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kick_and_takeover_release_unread_lists() {
    let (cluster, _ann) = cluster().await;
    let gateway = &cluster.gateways[0];
    let redis = RedisStore::open(&cluster.redis.url(), "parley").unwrap();
    let registry = Registry::Redis(RedisRegistry::new(redis));
    let mut stalled = Vec::new();
    for number in 0..4 {
        let first = cluster.ws().await;
        let registered = first.register(&format!("r{number}")).await;
        first.cut();
        let mut client = RawWs::connect(gateway.ws()).await;
        let resume = json!({"type": "register", "nick": registered["nick"], "resume": registered["resume"]});
        client.sends_frame(0x81, resume.to_string().as_bytes()).await;
        let answer = client.next().await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["type"], "registered", "{answer}");
        request_lists(&mut client).await;
        stalled.push((client, answer));
    }
    eventually(SOON, "every client leaves a list unread", || async {
        let reserved = metric(gateway, "parley_reply_reserved_bytes").await;
        if reserved > 3.5 * MIB { Ok(()) } else { Err(reserved) }
    })
    .await;
    for (_, registered) in &stalled[..2] {
        let nick = Nick::parse(registered["nick"].as_str().unwrap()).unwrap();
        assert!(registry.kick(nick.key()).await.unwrap());
    }
    let mut successors = Vec::new();
    for (_, registered) in &stalled[2..] {
        let successor = cluster.ws().await;
        successor.resume(registered, json!({})).await;
        successors.push(successor);
    }
    until_released(gateway).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_through_large_messages_returns_each_once() {
    let (cluster, ann) = cluster().await;
    assert!(page_through(&ann).await.iter().rev().copied().eq(1..=MESSAGES));
    let first = ann.must(json!({"type": "history", "to": ROOM, "after": 0, "limit": 200})).await;
    assert_eq!((first["items"].as_array().unwrap().len(), &first["more"]), (17, &json!(true)));
    // A replay has small pages too; a client that reads gets all of them.
    let bob = cluster.ws().await;
    bob.register("bob").await;
    let end = bob.join(ROOM).await;
    bob.leave(ROOM).await;
    let since = json!({"epoch": end["epoch"], "seq": 0});
    bob.must(json!({"type": "join", "room": ROOM, "since": since})).await;
    let count = || bob.received(|event| event["type"] == "message" && event["to"] == ROOM).len() as u64;
    eventually(SOON, "the whole room is replayed", || async {
        let count = count();
        if count == MESSAGES { Ok(()) } else { Err(count) }
    })
    .await;
    cluster.finish().await;
}
