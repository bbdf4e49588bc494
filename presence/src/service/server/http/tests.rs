//! The server on a real listener, over a store in memory: connections that wait, are answered, or are too slow.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{HttpTimeouts, TIMEOUTS, serve};
use crate::host::client_address::TrustedProxies;
use crate::host::metrics::{ApiMetrics, registry as metrics_registry};
use crate::host::reloadable::Reloadable;
use crate::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash};
use crate::registry::{ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, MemoryRegistry, Registry};
use crate::service::api::{self, ApiClients};
use crate::service::waiting::{CONNECTIONS_MAX, WaitingPool};
use crate::store::memory::Store;

/// Maximum wait for something that should follow promptly; below the time limit of an idle connection.
const SOON: Duration = Duration::from_secs(5);
/// A time limit that a test waits for.
const SHORT: Duration = Duration::from_millis(200);

const STATS: &str = "GET /v1/stats HTTP/1.1\r\nHost: api\r\n\r\n";

/// The API with place for one waiting connection.
struct HttpServer {
    address: SocketAddr,
    registry: Registry,
    incarnation: Incarnation,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl HttpServer {
    async fn with(timeouts: HttpTimeouts) -> Self {
        let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
        let incarnation = Incarnation::random();
        let [node, ws, tcp] = ["g1", "127.0.0.1:8081", "127.0.0.1:9001"].map(ToOwned::to_owned);
        let info = GatewayInfo { node, version: "0.1.0".to_owned(), ws, tcp, admin: String::new() };
        registry.open_lease(&incarnation, &info).await.unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, closing) = (listener.local_addr().unwrap(), CancellationToken::new());
        let clients = ApiClients {
            proxies: TrustedProxies::default(),
            connections: CONNECTIONS_MAX,
            log_addresses: true,
            access: Reloadable::default(),
        };
        let metrics = ApiMetrics::new(&metrics_registry("0"));
        let router = api::router(registry.clone(), metrics, clients, closing.clone());
        let serving = tokio::spawn(serve(listener, router, WaitingPool::new(1), timeouts, closing.clone()));
        Self { address, registry, incarnation, closing, serving }
    }

    async fn user(&self, nick: &str) -> (Nick, Owner) {
        let (nick, session) = (Nick::parse(nick).unwrap(), SessionId::random());
        let (fence, _) = self
            .registry
            .claim(ClaimRequest {
                incarnation: &self.incarnation,
                session: &session,
                nick: &nick,
                token: &TokenHash::of(b"secret"),
                user: None,
            })
            .await
            .unwrap();
        (nick, Owner { incarnation: self.incarnation.clone(), session, fence })
    }

    /// Returns a request whose answer of 8 MB is more than sockets buffer.
    async fn large_lookup(&self) -> String {
        let (nick, owner) = self.user("ann").await;
        for number in 0..128 {
            let room = RoomName::parse(&format!("#{number:a>60}")).unwrap();
            let (status, entry) = (Status::default(), JoinEntry::New);
            let request = JoinRequest {
                room: &room,
                nick: &nick,
                owner: &owner,
                user: None,
                status: &status,
                entry,
                moderates: false,
            };
            self.registry.join(request).await.unwrap();
        }
        lookup(&["ann"; 1000])
    }

    async fn connect(&self) -> HttpClient {
        HttpClient { stream: TcpStream::connect(self.address).await.unwrap(), text: String::new() }
    }

    async fn send(&self, request: &str) -> HttpClient {
        let mut client = self.connect().await;
        client.stream.write_all(request.as_bytes()).await.unwrap();
        client
    }
}

fn lookup(nicks: &[&str]) -> String {
    let body = serde_json::json!({ "nicks": nicks }).to_string();
    let length = body.len();
    format!("POST /v1/users/lookup HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A connection and the text that it has read.
struct HttpClient {
    stream: TcpStream,
    text: String,
}

impl HttpClient {
    /// Reads once; returns false at the end of the connection.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        let read = timeout(SOON, self.stream.read(&mut bytes)).await.expect("bytes or an end in time").unwrap_or(0);
        self.text.push_str(str::from_utf8(&bytes[..read]).unwrap());
        read > 0
    }

    async fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            assert!(self.read().await, "{text:?} is missing at the end of: {:.200}", self.text);
        }
    }

    /// Returns true if the text is a head and a complete body, chunked or with a length.
    fn is_answered(&self) -> bool {
        let Some((head, body)) = self.text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        length.map_or(body.ends_with("\r\n0\r\n\r\n"), |length| length.parse() == Ok(body.len()))
    }

    /// Reads a complete answer with this status.
    async fn answer(&mut self, status: u16) {
        while !self.is_answered() {
            assert!(self.read().await, "the answer ends after {} bytes: {:.200}", self.text.len(), self.text);
        }
        assert!(self.text.starts_with(&format!("HTTP/1.1 {status} ")), "{:.200}", self.text);
    }

    /// Reads to the end of the connection.
    async fn end(&mut self) {
        while self.read().await {}
    }
}

#[tokio::test]
async fn half_sent_body_stays_in_the_waiting_pool() {
    let server = HttpServer::with(TIMEOUTS).await;
    let head = "POST /v1/users/lookup HTTP/1.1\r\nHost: api\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let mut half = server.send(head).await;
    half.until("100 Continue").await;
    let _newer = server.connect().await;
    half.end().await;
}

#[tokio::test]
async fn answered_connections_leave_the_waiting_pool() {
    let server = HttpServer::with(TIMEOUTS).await;
    let mut large = server.send(&server.large_lookup().await).await;
    large.until("HTTP/1.1 200 ").await;
    let mut events = server.send("GET /v1/events HTTP/1.1\r\nHost: api\r\n\r\n").await;
    events.until("retry: ").await;

    let mut older = server.connect().await;
    let _newer = server.connect().await;
    older.end().await;
    large.answer(200).await;
    server.user("bob").await;
    events.until("\"bob\"").await;
}

#[tokio::test]
async fn answered_connections_return_to_the_waiting_pool() {
    let server = HttpServer::with(TIMEOUTS).await;
    for (request, status) in [
        (STATS, 200),
        (lookup(&["ann"]).as_str(), 200),
        (server.large_lookup().await.as_str(), 200),
        ("GET /v1/users/zed HTTP/1.1\r\nHost: api\r\n\r\n", 404),
        (lookup(&["ann"; 1001]).as_str(), 400),
        ("GET /v1/stats HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut idle = server.send(request).await;
        idle.answer(status).await;
        let _newer = server.connect().await;
        idle.end().await;
    }
}

#[tokio::test]
async fn client_that_reads_nothing_is_dropped() {
    let server = HttpServer::with(HttpTimeouts { stall: SHORT, ..TIMEOUTS }).await;
    let mut client = server.send(&server.large_lookup().await).await;
    client.until("HTTP/1.1 200 ").await;
    // The server ends after its last connection.
    server.closing.cancel();
    timeout(SOON, server.serving).await.expect("the connection is dropped").unwrap();
    client.end().await;
    assert!(!client.is_answered());
}

#[tokio::test]
async fn slow_head_is_cut_at_its_deadline() {
    let server = HttpServer::with(HttpTimeouts { head: SHORT, ..TIMEOUTS }).await;
    let began = Instant::now();
    let mut slow = server.send("GET /v1/stats HTTP/1.1\r\nHost: api\r\nX-Slow: ").await;
    let mut byte = [0];
    // A byte at a time, several in the time limit.
    while timeout(SHORT / 10, slow.stream.read(&mut byte)).await.is_err() {
        assert!(began.elapsed() < SOON, "the head has no deadline");
        let _ = slow.stream.write_all(b"x").await;
    }
    assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
    server.send(STATS).await.answer(200).await;
}
