//! Addresses of clients: which one a gateway counts, with and without nginx, and where it shows them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use harness::{Cluster, LineClient, Node, WsClient, eventually};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

const SOON: Duration = Duration::from_secs(10);
/// The share of an address in these tests.
const SHARE: usize = 4;
/// An address that uses all of its share.
const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 22);

fn share() -> String {
    SHARE.to_string()
}

/// Returns the status with which a WebSocket is refused.
async fn refused_status(source: Ipv4Addr, address: SocketAddr) -> u16 {
    match WsClient::try_connect_from(source, address).await {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("no answer: {error}"),
        Ok(_) => panic!("{source} was admitted"),
    }
}

/// Returns all that a line connection receives.
async fn line_answer(source: Ipv4Addr, address: SocketAddr) -> String {
    let mut stream = harness::client::connect_from(source, address).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn open_sockets(source: Ipv4Addr, address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(harness::client::connect_from(source, address).await.unwrap());
    }
    sockets
}

async fn until_connections(gateway: &Node, count: usize) {
    eventually(SOON, "the gateway counts its connections", async || {
        let now = gateway.metrics().await.get("parley_connections", &[]);
        if now == Some(count as f64) { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn address_behind_nginx_fills_only_its_share() {
    let cluster = Cluster::builder()
        .nginx(true)
        .gateway_setting("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", &share())
        .start()
        .await;
    let front = cluster.nginx.as_ref().unwrap();
    let mut held = Vec::new();
    for number in 0..SHARE {
        let client = WsClient::try_connect_from(GREEDY, front.ws()).await.unwrap();
        client.register(&format!("greedy{number}")).await;
        held.push(client);
    }
    assert_eq!(refused_status(GREEDY, front.ws()).await, 429);
    assert_eq!(refused_status(GREEDY, front.ws()).await, 429);
    let other = WsClient::try_connect_from(OTHER, front.ws()).await.unwrap();
    other.register("other").await;
    // A client that connects without nginx has another address too.
    cluster.ws_on(0).await.register("direct").await;

    let gateway = &cluster.gateways[0];
    let refused = gateway.metrics().await.get("parley_connections_refused_total", &[("limit", "address")]);
    assert_eq!(refused, Some(2.0));
    let log = gateway.log().lines().join("\n");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("seats_refused")).collect();
    assert_eq!(lines.len(), 1, "an episode begins with one line: {log}");
    assert!(lines[0].contains(&GREEDY.to_string()) && lines[0].contains("INFO"), "{lines:?}");
    let scraped = harness::http::get(gateway.admin(), "/metrics").await.unwrap().body;
    assert!(!scraped.contains("127.0.0."), "metrics have no addresses");
    assert!(!log.contains(&OTHER.to_string()), "only refused addresses are logged");

    held.pop();
    eventually(SOON, "the seat is free again", async || {
        WsClient::try_connect_from(GREEDY, front.ws()).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn line_clients_behind_nginx_have_their_own_addresses() {
    let cluster = Cluster::builder()
        .nginx(true)
        .gateway_setting("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", &share())
        .start()
        .await;
    let front = cluster.nginx.as_ref().unwrap();
    let mut held = Vec::new();
    for number in 0..SHARE {
        let client = LineClient::connect_from(GREEDY, front.tcp()).await;
        client.register(&format!("greedy{number}")).await;
        held.push(client);
    }
    let answer = line_answer(GREEDY, front.tcp()).await;
    assert!(answer.starts_with("! rate_limited") && answer.lines().count() == 1, "{answer}");
    // Both ports share the seats of an address.
    assert_eq!(refused_status(GREEDY, front.ws()).await, 429);
    let other = LineClient::connect_from(OTHER, front.tcp()).await;
    other.register("other").await;
    other.join("#lobby").await;

    // A client that reaches the gateway itself cannot name an address.
    let forger = LineClient::connect_from(OTHER, cluster.gateways[0].tcp()).await;
    forger.types("PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r").await;
    forger.closed_within(SOON).await;
    assert_eq!(forger.received("! bad_request: a PROXY header is not accepted from this address").len(), 1);
    // Through nginx the header of a client is the second one.
    let forger = LineClient::connect_from(OTHER, front.tcp()).await;
    forger.types("PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r").await;
    forger.closed_within(SOON).await;
    drop(held);
    cluster.finish().await;
}

#[tokio::test]
async fn half_open_connections_keep_no_other_address_out() {
    let gateway = Node::gateway("g1")
        .setting("PARLEY__LIMITS__CONNECTIONS", "20")
        .setting("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", &share())
        .setting("PARLEY__LISTEN__TRUSTED_PROXIES", "")
        .setting("PARLEY__LOG__ADDRESSES", "false")
        .start()
        .await;
    for address in [gateway.ws(), gateway.tcp()] {
        let held = open_sockets(GREEDY, address, SHARE).await;
        until_connections(&gateway, SHARE).await;
        let more = open_sockets(GREEDY, address, 40).await;
        let other = WsClient::try_connect_from(OTHER, gateway.ws()).await.unwrap();
        other.register("other").await;
        LineClient::connect_from(OTHER, gateway.tcp()).await.register("lines").await;
        assert_eq!(refused_status(GREEDY, gateway.ws()).await, 429);
        let answer = line_answer(GREEDY, gateway.tcp()).await;
        assert!(answer.starts_with("! rate_limited") && answer.lines().count() == 1, "{answer}");
        drop((held, more, other));
        until_connections(&gateway, 0).await;
    }
    let log = gateway.log().lines().join("\n");
    assert!(log.contains("seats_refused") && !log.contains(&GREEDY.to_string()), "{log}");
}
