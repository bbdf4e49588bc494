//! Drain of a gateway: clients are notified and move, and every request gets an answer.
//!
//! No acknowledged message is lost, and the exit code reports the outcome.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Cluster, LineClient, WsClient, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

/// Clients that send while one of the two gateways drains.
const CLIENTS: usize = 200;
/// Rooms that they send to.
const ROOMS: usize = 20;
/// The default grace period.
const GRACE: Duration = Duration::from_secs(30);

/// A client with its registration and its room.
struct DrainClient {
    client: WsClient,
    registered: Value,
    table: String,
}

impl DrainClient {
    async fn connect(cluster: &Cluster, number: usize) -> Self {
        let client = cluster.ws().await;
        let registered = client.register(&format!("p{number}")).await;
        let table = format!("#table{}", number % ROOMS);
        client.join("#hall").await;
        client.join(&table).await;
        Self { client, registered, table }
    }

    fn frames(&self, kind: &str) -> Vec<Value> {
        self.client.received(|value| value["type"] == kind)
    }

    /// Sends pipelined requests until `going_away` arrives. Returns the ids of all requests.
    async fn send_until_drained(&self) -> Vec<u64> {
        let mut asked = Vec::new();
        while self.frames("going_away").is_empty() {
            for _ in 0..2 {
                let body = json!([self.client.name(), asked.len()]);
                asked.push(self.client.post(json!({"type": "send", "to": self.table, "body": body})).await);
            }
            let last = *asked.last().expect("just asked");
            let _ = self.client.reply_within(GRACE, last).await;
        }
        asked
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_moves_clients_and_keeps_acked_messages() {
    // All clients have one address.
    let builder = Cluster::builder().gateway_setting("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", "1024");
    let mut cluster = builder.gateways(2).presence(1).nginx(true).start().await;
    let observer = cluster.ws_on(1).await;
    observer.register("observer").await;
    observer.join("#hall").await;
    let terminal = cluster.line_on(0).await;
    terminal.register("terminal").await;
    let crowd = join_all((0..CLIENTS).map(|number| DrainClient::connect(&cluster, number))).await;
    let (moving, staying): (Vec<_>, Vec<_>) = crowd.into_iter().partition(|person| person.registered["node"] == "g1");
    assert!(moving.len().min(staying.len()) > CLIENTS / 4, "nginx put {} of {CLIENTS} on g1", moving.len());

    let g1 = Pid::from_raw(i32::try_from(cluster.gateways[0].process().pid()).unwrap());
    let moves = moving.iter().map(async |person| {
        let asked = person.send_until_drained().await;
        assert_eq!(person.client.closed_within(GRACE).await.code, Some(1012), "{}", person.client.name());
        // Resumes at once through nginx, with the same session.
        let again = cluster.ws().await;
        let home = again.resume(&person.registered, json!({})).await["node"].clone();
        (person, asked, home, again)
    });
    let drain = async {
        eventually(GRACE, "one reply for each client", || async {
            let silent = moving.iter().filter(|person| person.frames("ack").is_empty()).count();
            if silent == 0 { Ok(()) } else { Err(silent) }
        })
        .await;
        kill(g1, Signal::SIGTERM).expect("g1 runs");
        Instant::now()
    };
    let (moved, signalled) = tokio::join!(join_all(moves), drain);
    assert_eq!(cluster.gateways[0].process().exit_code(GRACE).await, Some(0));
    assert!(signalled.elapsed() < GRACE, "it took {:?}", signalled.elapsed());

    terminal.reads("* going away: this server shuts down in * s, connect again after that").await;
    terminal.reads("* closing: restart").await;
    let mut acked: Vec<(&str, &Value)> = Vec::new();
    for (person, asked, home, _) in &moved {
        let name = person.client.name();
        assert_eq!(home, "g2", "{name} resumed on {home}");
        assert_eq!(person.frames("going_away").len(), 1, "{name} received one going_away");
        for id in asked {
            let answers = person.client.received(|value| value["id"] == *id);
            assert_eq!(answers.len(), 1, "{name} request {id} got {answers:?}");
        }
        assert_eq!(observer.count_seen("#hall", "left", |entry| entry["nick"] == name), 0, "{name} did not leave");
    }
    let acks: Vec<Vec<Value>> = moved.iter().map(|(person, ..)| person.frames("ack")).collect();
    for ((person, ..), acks) in moved.iter().zip(&acks) {
        acked.extend(acks.iter().map(|ack| (person.table.as_str(), &ack["msg_id"])));
    }
    assert!(acked.len() > moved.len(), "only {} acks", acked.len());
    let mut kept = BTreeSet::new();
    for number in 0..ROOMS {
        let table = format!("#table{number}");
        observer.join(&table).await;
        for message in whole_stream(&observer, &table).await {
            assert!(kept.insert((table.clone(), message["msg_id"].to_string())), "duplicate in the stream: {message}");
        }
    }
    for (table, id) in acked {
        assert!(kept.contains(&(table.to_owned(), id.to_string())), "acknowledged {id} is missing in {table}");
    }
    let closed: Vec<&str> = staying.iter().filter_map(|person| person.client.has_ended().map(|_| "gone")).collect();
    assert!(closed.is_empty(), "{} clients of g2 were closed", closed.len());
    cluster.finish().await;
}

#[tokio::test]
async fn draining_gateway_refuses_new_connections_with_a_reason() {
    let mut cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    cluster.gateways[0].process().terminate();
    ann.receives_frame("going_away").await;
    let ready = cluster.gateways[0].readyz().await.expect("an answer");
    assert!(ready.status == 503 && ready.body.contains("draining"), "{ready:?}");
    let Err(Error::Http(refusal)) = WsClient::try_connect(cluster.gateways[0].ws()).await else {
        panic!("g1 accepted the connection or sent no reply");
    };
    assert_eq!((refusal.status().as_u16(), &refusal.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let person = LineClient::connect(cluster.gateways[0].tcp()).await;
    person.reads("! going_away: this gateway is shutting down").await;
    person.closed().await;
    assert_eq!(cluster.ws().await.register("newcomer").await["node"], "g2", "nginx uses the other gateway");
    assert_eq!(ann.closed().await.code, Some(1012));
    assert_eq!(cluster.gateways[0].process().exit_code(GRACE).await, Some(0));
    cluster.finish().await;
}

/// Reads every message of a room, page by page.
async fn whole_stream(member: &WsClient, room: &str) -> Vec<Value> {
    let mut log: Vec<Value> = Vec::new();
    loop {
        let after = log.last().map_or(0, |message| message["seq"].as_u64().unwrap());
        let page = member.must(json!({"type": "history", "to": room, "after": after, "limit": 200})).await;
        log.extend(page["items"].as_array().expect("items").iter().cloned());
        if page["more"] == false {
            return log;
        }
    }
}

#[tokio::test]
async fn gateway_without_sessions_exits_at_once() {
    let mut cluster = Cluster::builder().start().await;
    cluster.ws().await;
    let asked = Instant::now();
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    assert!(asked.elapsed() < Duration::from_millis(900), "it took {:?}", asked.elapsed());
}

#[tokio::test]
async fn expired_grace_period_sets_the_exit_code() {
    let mut cluster = Cluster::builder().gateway_setting("PARLEY__DRAIN__GRACE_SECONDS", "3").start().await;
    let ann = cluster.ws().await;
    ann.register("ann").await;
    // The store cannot release the name.
    cluster.redis.stop_signal().await;
    let asked = Instant::now();
    assert_eq!(cluster.gateways[0].end().await, Some(2));
    let took = asked.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(6)).contains(&took), "it took {took:?}");
    assert_eq!(ann.closed().await.code, Some(1012), "the close does not wait for the store");
    assert!(cluster.gateways[0].log().holds("grace period expired"));
    cluster.redis.cont();
}

#[tokio::test]
async fn second_signal_ends_the_drain_at_once() {
    let mut cluster = Cluster::builder().start().await;
    let ann = cluster.ws().await;
    ann.register("ann").await;
    cluster.redis.stop_signal().await;
    let asked = Instant::now();
    cluster.gateways[0].process().terminate();
    ann.receives_frame("going_away").await;
    assert_eq!(cluster.gateways[0].end().await, Some(2));
    assert!(asked.elapsed() < GRACE / 3, "it took {:?}", asked.elapsed());
    cluster.redis.cont();
}
