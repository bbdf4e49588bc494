//! Addresses of clients: who is counted together, and who is refused.

use std::net::IpAddr;

use crate::metrics::SeatLimit;

use super::*;

pub(super) fn address(text: &str) -> ClientAddress {
    text.parse::<IpAddr>().unwrap().into()
}

/// Returns limits with a share of `connections` for each address.
pub(super) fn shared(connections: usize) -> ConnectionLimits {
    let addresses = Arc::new(AddressLimits { connections, ..AddressLimits::default() });
    ConnectionLimits { addresses, ..limits() }
}

impl ListenFixture {
    /// Sends a request for a WebSocket as the proxy of this address, and returns the connection with its answer.
    async fn forwarded(&self, header: &str) -> (RawClient, String) {
        let mut client = RawClient::connect(self.ws).await;
        client.send(upgrade_request(header).as_bytes()).await;
        let head = client.head().await;
        (client, head)
    }

    pub(super) fn addresses(&self) -> Vec<ClientAddress> {
        self.state.addresses.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn session_learns_the_address_of_its_client() {
    let fixture = ListenFixture::open();
    let mut held = Vec::new();
    for header in ["", "X-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n", "X-Forwarded-For: 2001:db8::1:5\r\n"] {
        held.push(fixture.forwarded(header).await);
    }
    let line = fixture.line_client().await;
    let expected = ["127.0.0.1", "198.51.100.1", "2001:db8::", "127.0.0.1"].map(address);
    eventually("all sessions began", || fixture.addresses().len() == 4).await;
    assert_eq!(fixture.addresses(), expected);
    assert_eq!(fixture.metrics.forwarded_malformed.get(), 0);
    let (_garbage, head) = fixture.forwarded("X-Forwarded-For: 198.51.100.1, \x07\r\n").await;
    assert!(head.contains("400"), "{head}");
    let (_garbage, head) = fixture.forwarded("X-Forwarded-For: 198.51.100.1, unknown\r\n").await;
    assert!(head.contains("101"), "{head}");
    eventually("the session began", || fixture.addresses().len() == 5).await;
    assert_eq!(fixture.addresses()[4], address("127.0.0.1"), "the peer counts");
    assert_eq!(fixture.metrics.forwarded_malformed.get(), 1);
    drop((held, line));
}

#[tokio::test]
async fn untrusted_peer_cannot_choose_its_address() {
    let addresses = Arc::new(AddressLimits { proxies: Vec::new().into(), connections: 1, ..AddressLimits::default() });
    let fixture = ListenFixture::with(ConnectionLimits { addresses, ..limits() }, None);
    let (_held, head) = fixture.forwarded("X-Forwarded-For: 198.51.100.1\r\n").await;
    assert!(head.contains("101"), "{head}");
    assert_eq!(fixture.addresses(), [address("127.0.0.1")]);
    // Refused before its request is read, as over `limits.connections`.
    let head = RawClient::connect(fixture.ws).await.head().await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 1\r\n"), "{head}");
}

#[tokio::test]
async fn address_fills_only_its_own_share() {
    let fixture = ListenFixture::with(shared(2), None);
    let (first, second) = ("X-Forwarded-For: 198.51.100.1\r\n", "X-Forwarded-For: 198.51.100.2\r\n");
    let mut held = vec![fixture.forwarded(first).await, fixture.forwarded(first).await];
    let (refused, head) = fixture.forwarded(first).await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(refused.rest().await.contains(r#""code":"rate_limited""#));
    let (_other, head) = fixture.forwarded(second).await;
    assert!(head.contains("101"), "{head}");
    assert_eq!(fixture.metrics.connections_refused[SeatLimit::Address].get(), 1);

    held.pop();
    eventually("the seat returned", || fixture.metrics.open(ListenerKind::Ws) == 2).await;
    let (_again, head) = fixture.forwarded(first).await;
    assert!(head.contains("101"), "{head}");
}

#[tokio::test]
async fn line_client_over_its_share_is_refused() {
    let fixture = ListenFixture::with(shared(1), None);
    let held = fixture.line_client().await;
    let refused = RawClient::connect(fixture.tcp).await.rest().await;
    assert!(refused.starts_with("! rate_limited") && refused.lines().count() == 1, "{refused}");
    drop(held);
    eventually("the seat returned", || fixture.metrics.open(ListenerKind::Tcp) == 0).await;
    fixture.line_client().await;
}

#[tokio::test]
async fn page_requests_of_a_proxy_take_no_share() {
    let fixture = ListenFixture::with(shared(0), None);
    let mut client = RawClient::connect(fixture.ws).await;
    client.send(b"GET / HTTP/1.1\r\nHost: parley\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

/// Returns limits of a line port behind proxies of this machine.
pub(super) fn behind_proxy(connections: usize, header_wait: Duration) -> ConnectionLimits {
    let addresses = AddressLimits { proxy_protocol: true, connections, header_wait, ..AddressLimits::default() };
    ConnectionLimits { addresses: Arc::new(addresses), ..limits() }
}

pub(super) const HEADER: &[u8] = b"PROXY TCP4 198.51.100.1 203.0.113.1 12345 9000\r\n";

#[tokio::test]
async fn proxy_header_names_the_line_client() {
    let fixture = ListenFixture::with(behind_proxy(1, PATIENCE), None);
    let mut held = Vec::new();
    for (number, header) in [HEADER, b"PROXY UNKNOWN\r\n", b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n"].iter().enumerate() {
        let mut client = RawClient::connect(fixture.tcp).await;
        // Byte by byte, the client's first line behind it in one piece.
        for byte in &header[..header.len() - 1] {
            client.send(&[*byte]).await;
        }
        client.send(&[&header[header.len() - 1..], b"/ping\n"].concat()).await;
        client.until("pong").await;
        held.push(client);
        let expected = ["198.51.100.1", "127.0.0.1", "2001:db8::"].map(address);
        assert_eq!(fixture.addresses(), expected[..=number]);
    }
    let mut refused = RawClient::connect(fixture.tcp).await;
    refused.send(HEADER).await;
    let answer = refused.rest().await;
    assert!(answer.starts_with("! rate_limited") && answer.lines().count() == 1, "{answer}");
    assert_eq!(fixture.metrics.forwarded_malformed.get(), 0);
}

#[tokio::test]
async fn connection_without_its_header_is_refused() {
    let fixture = ListenFixture::with(behind_proxy(8, Duration::from_millis(300)), None);
    for sent in [&b"/nick ann\n"[..], b"", b"PROXY TCP4 198.5", b"PROXY TCP4 nonsense\r\n", &[b'P'; 200]] {
        let mut client = RawClient::connect(fixture.tcp).await;
        client.send(sent).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("! bad_request") && answer.lines().count() == 1, "{answer}");
    }
    assert_eq!(fixture.metrics.forwarded_malformed.get(), 5);
    assert!(fixture.addresses().is_empty(), "no session began");
    fixture.permits_returned().await;
}

#[tokio::test]
async fn unexpected_proxy_header_is_refused() {
    let untrusted = AddressLimits { proxies: Vec::new().into(), proxy_protocol: true, ..AddressLimits::default() };
    for addresses in [untrusted, AddressLimits::default()] {
        let fixture = ListenFixture::with(ConnectionLimits { addresses: Arc::new(addresses), ..limits() }, None);
        for header in [HEADER, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
            let mut forger = RawClient::connect(fixture.tcp).await;
            forger.send(header).await;
            let answer = forger.rest().await;
            assert!(answer.contains("! bad_request: a PROXY header is not accepted from this address"), "{answer}");
            assert!(answer.ends_with("* closing: protocol_error\n"), "{answer}");
        }
        fixture.line_client().await;
        assert!(fixture.addresses().iter().all(|seen| *seen == address("127.0.0.1")));
    }
    // One header only.
    let fixture = ListenFixture::with(behind_proxy(8, PATIENCE), None);
    let mut client = RawClient::connect(fixture.tcp).await;
    client.send(&[HEADER, HEADER].concat()).await;
    assert!(client.rest().await.ends_with("* closing: protocol_error\n"));
}

#[tokio::test]
async fn unregistered_clients_leave_half_of_the_connections() {
    let addresses = Arc::new(AddressLimits { connections: 10_000, ..AddressLimits::default() });
    let fixture = ListenFixture::with(ConnectionLimits { connections: 600, addresses, ..limits() }, None);
    let mut registered = Vec::new();
    fixture.state.gate.add_permits(10);
    for _ in 0..10 {
        let mut client = fixture.websocket().await;
        client.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
        client.text().await;
        registered.push(client);
    }
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(fixture.line_client().await);
    }
    let answer = RawClient::connect(fixture.tcp).await.rest().await;
    assert!(answer.starts_with("! overloaded") && answer.lines().count() == 1, "{answer}");
    let head = RawClient::connect(fixture.ws).await.head().await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let refused = |limit| fixture.metrics.connections_refused[limit].get();
    assert_eq!((refused(SeatLimit::Unregistered), refused(SeatLimit::Gateway)), (2, 0));

    // One that registers makes room for the next one.
    fixture.state.gate.add_permits(1);
    silent[0].send(b"/nick bob\n").await;
    silent[0].until("pong").await;
    silent.push(fixture.line_client().await);
    registered[0].assert_alive().await;
    drop((silent, registered));
    fixture.permits_returned().await;
    fixture.line_client().await;
}
