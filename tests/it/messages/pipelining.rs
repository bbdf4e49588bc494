//! Messages that a connection sends before the earlier ones are answered: order, shares and the other requests.
//!
//! Invariant: they are stored and answered in the order of their requests, whatever answers of Redis are lost.

use std::time::Duration;

use harness::fault_proxy::Mode;
use harness::{Cluster, WsClient, eventually, stays};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Longest wait for an answer: lost ones are repeated for 4 s.
const SOON: Duration = Duration::from_secs(30);
/// Time for requests to arrive.
const A_WHILE: Duration = Duration::from_millis(300);

async fn member(cluster: &Cluster, nick: &str, rooms: &[&str]) -> WsClient {
    let client = cluster.ws().await;
    client.register(nick).await;
    for room in rooms {
        client.join(room).await;
    }
    client
}

/// Sends messages `1` to `count`, in turn to these targets, and waits for no answer. Returns the ids of the requests.
async fn post_all(client: &WsClient, to: &[&str], count: usize) -> Vec<u64> {
    let mut ids = Vec::with_capacity(count);
    for number in 1..=count {
        let to = to[number % to.len()];
        ids.push(client.post(json!({"type": "send", "to": to, "body": number.to_string()})).await);
    }
    ids
}

async fn all_acked(client: &WsClient, ids: &[u64]) {
    for id in ids {
        let reply = client.reply_within(SOON, *id).await.unwrap_or_else(|refused| panic!("{}", refused.reply));
        assert_eq!((&reply["type"], &reply["duplicate"]), (&json!("ack"), &json!(false)), "{reply}");
    }
}

/// Returns the ids of the received replies to these requests, in order.
fn reply_ids(client: &WsClient, ids: &[u64]) -> Vec<u64> {
    let is_reply = |value: &Value| value["id"].as_u64().is_some_and(|id| ids.contains(&id));
    client.received(is_reply).iter().map(|value| value["id"].as_u64().unwrap()).collect()
}

/// Returns the numbers of the messages with this target that a client has received.
fn received_numbers(client: &WsClient, to: &str) -> Vec<usize> {
    let messages = client.received(|value| value["type"] == "message" && value["to"] == to);
    messages.iter().map(|message| message["body"].as_str().unwrap().parse().unwrap()).collect()
}

/// Checks that these requests get no reply for a while.
async fn stays_unanswered(period: Duration, client: &WsClient, ids: &[u64]) {
    stays(period, "no reply", || async {
        let answered = reply_ids(client, ids);
        if answered.is_empty() { Ok(()) } else { Err(answered) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_keep_order_of_pipelined_messages() {
    const ROUNDS: usize = 3;
    const COUNT: usize = 150;
    const TARGETS: [&str; 3] = ["#one", "#two", "bob"];
    let mut cluster = Cluster::builder().fault_proxies(true).start().await;
    cluster.allow("beat not answered");
    let (ann, bob) = (member(&cluster, "ann", &["#one", "#two"]).await, member(&cluster, "bob", &["#one"]).await);
    for _ in 0..ROUNDS {
        // Redis runs the calls, and their answers are lost: they count as unknown after 2 s.
        cluster.proxies[0].set(Mode::MuteCommands);
        let ids = post_all(&ann, &TARGETS, COUNT).await;
        stays_unanswered(Duration::from_millis(2500), &ann, &ids).await;
        cluster.proxies[0].set(Mode::Pass);
        all_acked(&ann, &ids).await;
        assert_eq!(reply_ids(&ann, &ids), ids, "answers out of order");
    }
    for (place, (client, to)) in [(&ann, "#one"), (&ann, "#two"), (&bob, "bob")].into_iter().enumerate() {
        let numbers: Vec<usize> = (1..=COUNT).filter(|number| number % TARGETS.len() == place).collect();
        let what = format!("all messages to {to}");
        eventually(SOON, &what, || async {
            let count = received_numbers(client, to).len();
            if count >= ROUNDS * numbers.len() { Ok(()) } else { Err(count) }
        })
        .await;
        assert_eq!(received_numbers(client, to), numbers.repeat(ROUNDS), "{to}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_messages_share_calls_of_redis() {
    const COUNT: usize = 200;
    let mut cluster = Cluster::builder().start().await;
    let ann = member(&cluster, "ann", &["#one", "#two"]).await;
    let _: String = cluster.redis.ask(&["CONFIG", "RESETSTAT"]).await;
    cluster.redis.stop_signal().await;
    let ids = post_all(&ann, &["#one", "#two"], COUNT).await;
    // All requests arrive in that time.
    stays_unanswered(Duration::from_secs(1), &ann, &ids).await;
    cluster.redis.cont();
    all_acked(&ann, &ids).await;
    let statistics: String = cluster.redis.ask(&["INFO", "commandstats"]).await;
    let appended = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_xadd:calls=")).unwrap();
    assert!(appended.starts_with(&format!("{COUNT},")), "{appended}");
    let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    let calls: usize = calls.split(',').next().unwrap().parse().unwrap();
    // Beats are calls too.
    assert!(calls < COUNT / 2, "{calls} calls");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_requests_wait_for_messages_before_them() {
    let cluster = Cluster::builder().start().await;
    let (ann, bob) = (member(&cluster, "ann", &["#one"]).await, member(&cluster, "bob", &["#one"]).await);
    let mut ids = post_all(&ann, &["#one", "bob"], 20).await;
    for request in [
        json!({"type": "ping"}),
        json!({"type": "send", "to": "#nowhere", "body": "refused"}),
        json!({"type": "send", "to": "#one", "body": "21"}),
        json!({"type": "nick", "nick": "anna"}),
        json!({"type": "send", "to": "#one", "body": "22"}),
        json!({"type": "leave", "room": "#one"}),
        json!({"type": "send", "to": "#one", "body": "refused"}),
        json!({"type": "send", "to": "bob", "body": "23"}),
        json!({"type": "bye"}),
    ] {
        ids.push(ann.post(request).await);
    }
    let bye = ids.pop();
    ann.closed_within(SOON).await;
    assert_eq!(reply_ids(&ann, &ids), ids);
    assert_eq!(reply_ids(&ann, &[bye.unwrap()]), [0_u64; 0], "bye has no reply");
    let kinds: Vec<String> = ann
        .received(|value| value["id"].as_u64().is_some_and(|id| id >= ids[20]))
        .iter()
        .map(|value| value["code"].as_str().or(value["type"].as_str()).unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["pong", "not_in_room", "ack", "nick", "ack", "left", "not_in_room", "ack"]);
    bob.receives_privately("anna", "23").await;
    assert_eq!(received_numbers(&bob, "#one"), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 21, 22]);
    let senders = bob.received(|value| value["type"] == "message" && value["to"] == "#one");
    let of_22 = senders.iter().find(|message| message["body"] == "22").unwrap();
    assert_eq!(of_22["from"], "anna");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelining_clients_leave_space_for_others() {
    let mut cluster = Cluster::builder().start().await;
    let mut flooders = Vec::new();
    for number in 0..8 {
        flooders.push(member(&cluster, &format!("flooder{number}"), &["#one"]).await);
    }
    let bob = member(&cluster, "bob", &["#one"]).await;
    cluster.redis.stop_signal().await;
    let mut posted = Vec::new();
    for flooder in &flooders {
        posted.push(post_all(flooder, &["#one"], 250).await);
    }
    let request = bob.post(json!({"type": "send", "to": "#one", "body": "hi"})).await;
    stays_unanswered(A_WHILE, &bob, &[request]).await;
    cluster.redis.cont();
    all_acked(&bob, &[request]).await;
    for (flooder, ids) in flooders.iter().zip(&posted) {
        all_acked(flooder, ids).await;
        assert_eq!(&reply_ids(flooder, ids), ids);
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_client_loses_no_message_under_way() {
    const COUNT: usize = 30;
    let mut cluster = Cluster::builder().start().await;
    let (ann, bob) = (member(&cluster, "ann", &["#one"]).await, member(&cluster, "bob", &["#one"]).await);
    cluster.redis.stop_signal().await;
    let ids = post_all(&ann, &["#one"], COUNT).await;
    stays_unanswered(A_WHILE, &ann, &ids).await;
    ann.cut();
    cluster.redis.cont();
    eventually(SOON, "every message that the gateway had read", || async {
        let received = received_numbers(&bob, "#one");
        if received == (1..=COUNT).collect::<Vec<_>>() { Ok(()) } else { Err(received) }
    })
    .await;
    cluster.finish().await;
}

/// Ends a connection while messages are under way, and checks that each one is answered before the close. `end` returns
/// the time after which the close is due.
async fn messages_are_answered_before_close(code: u16, end: impl AsyncFn(&mut Cluster, &WsClient) -> Duration) {
    let mut cluster = Cluster::builder().start().await;
    let ann = member(&cluster, "ann", &["#one"]).await;
    cluster.redis.stop_signal().await;
    let ids = post_all(&ann, &["#one"], 30).await;
    stays_unanswered(A_WHILE, &ann, &ids).await;
    let due = end(&mut cluster, &ann).await;
    stays_unanswered(due + A_WHILE, &ann, &ids).await;
    cluster.redis.cont();
    assert_eq!(ann.closed_within(SOON).await.code, Some(code));
    all_acked(&ann, &ids).await;
    if code == 1012 {
        assert_eq!(cluster.gateways[0].process().exit_code(SOON).await, Some(0));
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_frame_closes_behind_answers() {
    messages_are_answered_before_close(1009, async |_, ann| {
        ann.send_message(Message::text("x".repeat(2 * 1024 * 1024))).await;
        Duration::ZERO
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_closes_behind_answers() {
    messages_are_answered_before_close(1012, async |cluster, ann| {
        let pid = cluster.gateways[0].process().pid();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
        let going_away = ann.receives_frame("going_away").await;
        Duration::from_millis(going_away["retry_after_ms"].as_u64().unwrap())
    })
    .await;
}
