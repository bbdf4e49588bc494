//! File descriptors: the limit is raised at the start, and clients never use the reserve.
//!
//! Invariant: a client too many gets its code, and those inside lose nothing, even while Redis is connected again.

use std::path::Path;
use std::time::Duration;

use harness::{Node, Redis, WsClient, eventually, http};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
const LIMIT: &str = "parley_connections_limit";
/// Connections of a gateway with 256 descriptors.
const FEW_CONNECTIONS: f64 = 160.0;
/// Clients that connect to it, more than it has descriptors.
const CLIENTS: usize = 400;

async fn number(node: &Node, name: &str) -> f64 {
    node.metrics().await.get(name, &[]).unwrap_or_else(|| panic!("no {name}"))
}

/// Waits until a metric has this value.
async fn until_number(node: &Node, name: &str, expected: f64) {
    eventually(SOON, &format!("{name} is {expected}"), async || {
        let now = number(node, name).await;
        if now == expected { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Returns the first bytes that a line client receives, and its open connection.
async fn first_line(node: &Node) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.tcp()).await.unwrap();
    let mut bytes = [0; 256];
    let read = timeout(SOON, stream.read(&mut bytes)).await.expect("an answer in time").unwrap_or(0);
    (stream, String::from_utf8_lossy(&bytes[..read]).into_owned())
}

#[tokio::test]
async fn few_descriptors_refuse_clients_with_a_code() {
    let redis = Redis::running().await;
    let node = Node::gateway("g1").redis(&redis).launch_as(|program| program.limited("--nofile=256:256")).await;
    node.until_ready(SOON).await;
    assert_eq!(number(&node, LIMIT).await, FEW_CONNECTIONS);
    let [ann, bob] = [WsClient::connect(node.ws()).await, WsClient::connect(node.ws()).await];
    for (person, nick) in [(&ann, "ann"), (&bob, "bob")] {
        person.register(nick).await;
        person.join("#lobby").await;
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(first_line(&node).await);
    }
    let refused = clients.iter().filter(|(_, line)| line.starts_with("! overloaded")).count();
    let admitted = clients.iter().filter(|(_, line)| line.starts_with("* ")).count();
    assert_eq!((admitted as f64 + 2.0, refused + admitted), (FEW_CONNECTIONS, CLIENTS));
    let answer = http::get(node.ws(), "/ws").await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("overloaded")));

    for path in ["/livez", "/readyz"] {
        assert_eq!(http::get(node.admin(), path).await.unwrap().status, 200, "{path}");
    }
    let mut sent = Vec::new();
    for round in 0..5 {
        redis.call::<u64>("CLIENT KILL TYPE pubsub").await;
        redis.call::<u64>("CLIENT KILL TYPE normal").await;
        node.until_ready(SOON).await;
        eventually(SOON, "Redis is connected again", async || {
            let text = format!("{round}.{}", sent.len());
            let acknowledged = ann.try_send("#lobby", &text).await;
            if acknowledged.is_ok() {
                sent.push(text);
            }
            acknowledged.map_err(|refusal| format!("{refusal:?}"))
        })
        .await;
    }
    for text in &sent {
        bob.receives("#lobby", "ann", text).await;
    }
    let open = number(&node, "process_open_fds").await;
    assert!(open < 256.0, "{open} descriptors are open");

    // Places become free, and new clients are admitted again.
    clients.clear();
    eventually(SOON, "a newcomer is admitted", async || {
        let (_, line) = first_line(&node).await;
        if line.starts_with("* ") { Ok(()) } else { Err(line) }
    })
    .await;
}

#[tokio::test]
async fn soft_limit_is_raised_at_the_start() {
    let redis = Redis::running().await;
    let gateway = Node::gateway("g1").launch_as(|program| program.limited("--nofile=300:4096")).await;
    let presence = Node::presence("p1").redis(&redis).launch_as(|program| program.limited("--nofile=300:4096")).await;
    for node in [&gateway, &presence] {
        assert_eq!(number(node, "process_max_fds").await, 4096.0);
        let line = "connection limit lowered";
        eventually(SOON, "the log names the limits", async || {
            let lines = node.log().lines();
            let names = |line: &String| {
                ["\"soft\":4096", "\"hard\":4096", "\"connections\":3776"].iter().all(|field| line.contains(field))
            };
            if lines.iter().filter(|logged| logged.contains(line)).all(names) && node.log().holds(line) {
                Ok(())
            } else {
                Err(lines)
            }
        })
        .await;
    }
    assert_eq!(number(&gateway, LIMIT).await, 3776.0);
}

#[tokio::test]
async fn reload_never_exceeds_the_descriptor_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let write = |file: &Path, count: u32| std::fs::write(file, format!("limits.connections = {count}\n")).unwrap();
    write(&file, 50);
    let mut node = Node::gateway("g1").config(&file).launch_as(|program| program.limited("--nofile=256:256")).await;
    until_number(&node, LIMIT, 50.0).await;
    for (count, expected) in [(100_000, FEW_CONNECTIONS), (60, 60.0)] {
        write(&file, count);
        node.process().signal(Signal::SIGHUP);
        until_number(&node, LIMIT, expected).await;
    }
}
