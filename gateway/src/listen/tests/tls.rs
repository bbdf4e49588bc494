//! Both ports over TLS: the tests of the listeners again, and what only TLS has.

use std::process::Command;
use std::sync::OnceLock;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::yield_now;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::metrics::SeatLimit;

use super::addresses::{HEADER, address, behind_proxy, shared as share_of};
use super::pressure::flood;
use super::*;

/// Set in the process whose fixtures use TLS.
const REQUIRED: &str = "PARLEY_TEST_TLS";
/// Bytes that the kernel keeps for a bridge: few, so that stalled readers are seen through it.
const BRIDGE_BYTES: u32 = 16 * 1024;
/// Tests about the sockets themselves, which clients have in another process here. Most have a twin in this file.
const WITHOUT_TLS: &[&str] = &[
    "tests::tls::",
    "batch_reaches_an_idle_socket_immediately",
    "connection_without_its_header_is_refused",
    "line_connection_runs_a_keepalive_timer",
    "listeners_resume_after_running_out_of_descriptors",
    "proxy_header_names_the_line_client",
    "stop_announces_the_restart_and_ends_tasks",
    "trusted_proxy_names_the_scheme_of_pages",
    "unexpected_proxy_header_is_refused",
];

/// Returns true if every fixture uses TLS.
pub(super) fn is_required() -> bool {
    std::env::var_os(REQUIRED).is_some()
}

/// Returns the certificate of the fixtures and its folder.
fn shared() -> &'static (TempDir, ServerCertificate) {
    static SHARED: OnceLock<(TempDir, ServerCertificate)> = OnceLock::new();
    SHARED.get_or_init(ServerCertificate::self_signed)
}

/// Returns the certificate of the fixtures.
pub(super) fn certificate() -> ServerCertificate {
    shared().1.clone()
}

fn connector(trusted: &TempDir, versions: &[&'static SupportedProtocolVersion], protocol: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted.path().join("cert.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let mut config =
        builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = if protocol.is_empty() { Vec::new() } else { vec![protocol.as_bytes().to_vec()] };
    Arc::new(config).into()
}

async fn shaken<IO: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    stream: IO,
) -> std::io::Result<TlsStream<IO>> {
    soon(connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream)).await
}

/// Connects a socket that receives little before it is read.
async fn with_small_buffer(port: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BRIDGE_BYTES)?;
    socket.connect(port).await
}

/// Returns the address of a port without TLS that forwards to a port with it, as `stunnel` does.
pub(super) fn plain_address_of((port, protocol): (SocketAddr, &'static str)) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, listener) = (listener.local_addr().unwrap(), TcpListener::from_std(listener).unwrap());
    let connector = connector(&shared().0, &[&version::TLS13], protocol);
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                SockRef::from(&plain).set_send_buffer_size(BRIDGE_BYTES as usize).unwrap();
                let Ok(tcp) = with_small_buffer(port).await else { return };
                let Ok(mut sealed) = shaken(&connector, tcp).await else { return };
                let _ = copy_bidirectional(&mut plain, &mut sealed).await;
            });
        }
    });
    address
}

#[test]
fn listener_tests_pass_over_tls_too() {
    if is_required() {
        return;
    }
    let skipped = WITHOUT_TLS.iter().flat_map(|name| ["--skip", name]);
    let program = Command::new(std::env::current_exe().unwrap())
        .arg("listen::tests::")
        .args(skipped)
        .env(REQUIRED, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&program.stdout);
    assert!(program.status.success() && !output.contains(" 0 passed"), "{output}");
}

/// A client of TLS.
type SealedClient = TlsStream<TcpStream>;

impl ListenFixture {
    fn sealed(limits: ConnectionLimits) -> Self {
        Self::over(limits, None, Some(certificate()))
    }
}

/// Connects to a port with TLS.
async fn sealed(port: SocketAddr) -> SealedClient {
    let connector = connector(&shared().0, &[&version::TLS13], "");
    shaken(&connector, TcpStream::connect(port).await.unwrap()).await.unwrap()
}

async fn send(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    soon(async { client.write_all(bytes).await.and(client.flush().await) }).await.unwrap();
}

/// Reads until the text contains this.
async fn until(client: &mut (impl AsyncRead + Unpin), expected: &str) -> String {
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains(expected) {
        let read = soon(client.read_buf(&mut received)).await.unwrap();
        assert!(read > 0, "ended without {expected:?}: {:?}", String::from_utf8_lossy(&received));
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// Reads to the end, which fails if it is cut off: the gateway has to announce it.
async fn rest(mut client: impl AsyncRead + Unpin) -> String {
    let mut received = String::new();
    soon(client.read_to_string(&mut received)).await.unwrap();
    received
}

/// Returns the first message of a client.
fn hello() -> Vec<u8> {
    let connector = connector(&shared().0, &[&version::TLS13, &version::TLS12], "");
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut bytes = Vec::new();
    let mut client = rustls::ClientConnection::new(Arc::clone(connector.config()), name).unwrap();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn plain_lines_to_a_tls_port_are_refused() {
    let fixture = ListenFixture::sealed(limits());
    let mut client = RawClient::connect(fixture.tcp).await;
    client.send(b"/ping\n").await;
    assert_eq!(client.rest().await, "! bad_request: this port requires TLS\n");
    fixture.permits_returned().await;
    assert!(fixture.left_reasons().is_empty(), "a session began");
}

#[tokio::test]
async fn handshake_on_plain_port_is_refused_immediately() {
    let fixture = ListenFixture::over(limits(), None, None);
    let mut client = RawClient::connect(fixture.tcp).await;
    client.send(&hello()).await;
    let output = client.rest().await;
    assert!(output.contains("! bad_request: this port does not use TLS\n* closing: unsupported_data\n"), "{output:?}");
    let mut client = RawClient::connect(fixture.ws).await;
    client.send(&hello()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 400"));
    fixture.permits_returned().await;
}

#[tokio::test]
async fn handshake_in_single_bytes_completes() {
    let fixture = ListenFixture::sealed(limits());
    let (near, mut far) = tokio::io::duplex(1);
    let mut tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tokio::spawn(async move { copy_bidirectional(&mut far, &mut tcp).await });
    let mut client = shaken(&connector(&shared().0, &[&version::TLS13], ""), near).await.unwrap();
    send(&mut client, b"/ping\n").await;
    until(&mut client, "pong").await;
}

#[tokio::test]
async fn unfinished_handshake_ends_at_the_header_deadline() {
    let wait = Duration::from_millis(300);
    let fixture = ListenFixture::sealed(ConnectionLimits { header_wait: wait, ..limits() });
    let hello = hello();
    let broken = [&hello[..], b"\x17\x03\x03\x00\x01"].concat();
    for port in [fixture.ws, fixture.tcp] {
        for sent in [&[][..], &hello[..1], &hello[..hello.len() - 1], &hello[..], &broken[..]] {
            let (begun, mut client) = (Instant::now(), RawClient::connect(port).await);
            client.send(sent).await;
            // The end may be a reset.
            while let Ok(1..) = soon(client.tcp.read_buf(&mut client.received)).await {}
            assert!(begun.elapsed() >= wait, "{} bytes ended after {:?}", sent.len(), begun.elapsed());
        }
    }
    fixture.permits_returned().await;
    assert!(fixture.left_reasons().is_empty(), "a session began");
}

#[tokio::test]
async fn http_header_shares_the_time_of_the_handshake() {
    let wait = Duration::from_secs(1);
    let fixture = ListenFixture::sealed(ConnectionLimits { header_wait: wait, ..limits() });
    let begun = Instant::now();
    let tcp = TcpStream::connect(fixture.ws).await.unwrap();
    let answer = tokio::time::timeout(wait / 2, tcp.readable()).await;
    assert!(answer.is_err(), "the gateway did not wait for the handshake");
    let mut client = shaken(&connector(&shared().0, &[&version::TLS13], "http/1.1"), tcp).await.unwrap();
    send(&mut client, b"GET / HTTP/1.1\r\n").await;
    let _ = soon(client.read_u8()).await;
    assert!((wait..wait * 5 / 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn seat_refusals_arrive_over_tls() {
    let fixture = ListenFixture::sealed(share_of(1));
    let mut held = sealed(fixture.tcp).await;
    send(&mut held, b"/ping\n").await;
    until(&mut held, "pong").await;
    let refused = rest(sealed(fixture.tcp).await).await;
    assert!(refused.starts_with("! rate_limited") && refused.lines().count() == 1, "{refused}");

    let fixture = ListenFixture::sealed(ConnectionLimits { connections: 0, ..limits() });
    let refused = rest(sealed(fixture.ws).await).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("overloaded"), "{refused}");

    let fixture = ListenFixture::sealed(limits());
    fixture.ready.store(false, Ordering::Relaxed);
    let refused = rest(sealed(fixture.tcp).await).await;
    assert!(refused.starts_with("! unavailable"), "{refused}");
    fixture.permits_returned().await;
}

#[tokio::test]
async fn proxy_header_precedes_the_handshake() {
    let fixture = ListenFixture::sealed(behind_proxy(1, PATIENCE));
    let connector = connector(&shared().0, &[&version::TLS13], "parley-lines");
    let mut client = TcpStream::connect(fixture.tcp).await.unwrap();
    client.write_all(HEADER).await.unwrap();
    let mut client = shaken(&connector, client).await.unwrap();
    send(&mut client, b"/ping\n").await;
    until(&mut client, "pong").await;
    assert_eq!(fixture.addresses(), [address("198.51.100.1")]);

    // The share of this address is taken. Header and handshake begin in one piece.
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let mut tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    tokio::spawn(async move {
        let mut bytes = HEADER.to_vec();
        far.read_buf(&mut bytes).await.unwrap();
        tcp.write_all(&bytes).await.unwrap();
        copy_bidirectional(&mut far, &mut tcp).await
    });
    let refused = rest(shaken(&connector, near).await.unwrap()).await;
    assert!(refused.starts_with("! rate_limited"), "{refused}");
    assert_eq!(fixture.metrics.connections_refused[SeatLimit::Address].get(), 1);

    let mut client = RawClient::connect(fixture.tcp).await;
    client.send(&hello()).await;
    assert_eq!(client.rest().await, "! bad_request: this port requires a valid PROXY header\n");
}

#[tokio::test]
async fn pages_over_tls_have_the_scheme_https() {
    let fixture = ListenFixture::sealed(limits());
    for (origin, proxy, status) in [
        ("https://parley", "", "101"),
        ("http://parley", "", "403"),
        ("http://parley", "X-Forwarded-Proto: http\r\n", "101"),
    ] {
        let mut client = sealed(fixture.ws).await;
        send(&mut client, upgrade_request(&format!("Origin: {origin}\r\n{proxy}")).as_bytes()).await;
        let head = until(&mut client, "\r\n\r\n").await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{origin}: {head}");
        assert_eq!(head.contains("strict-transport-security: max-age=86400\r\n"), status != "101", "{head}");
    }
    let request = b"GET / HTTP/1.1\r\nHost: parley\r\n\r\n";
    let mut client = sealed(fixture.ws).await;
    send(&mut client, request).await;
    assert!(until(&mut client, "\r\n\r\n").await.contains("strict-transport-security"));
    let mut client = RawClient::connect(ListenFixture::over(limits(), None, None).ws).await;
    client.send(request).await;
    assert!(!client.head().await.contains("strict-transport-security"));
}

#[tokio::test]
async fn port_accepts_its_own_protocol_only() {
    let fixture = ListenFixture::sealed(limits());
    for (port, protocol, accepted) in [
        (fixture.ws, "", true),
        (fixture.ws, "http/1.1", true),
        (fixture.ws, "h2", false),
        (fixture.tcp, "", true),
        (fixture.tcp, "parley-lines", true),
        (fixture.tcp, "http/1.1", false),
    ] {
        for version in [&version::TLS12, &version::TLS13] {
            let tcp = TcpStream::connect(port).await.unwrap();
            let outcome = shaken(&connector(&shared().0, &[version], protocol), tcp).await;
            assert_eq!(outcome.is_ok(), accepted, "{protocol} {version:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn new_certificate_serves_new_connections_only() {
    let (current, (new, replacement)) = (Reloadable::from(Some(certificate())), ServerCertificate::self_signed());
    let fixture = ListenFixture::over(limits(), None, current.clone());
    let mut before = sealed(fixture.tcp).await;
    current.set(Some(replacement));
    let connect = async |trusted| {
        let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
        shaken(&connector(trusted, &[&version::TLS13], ""), tcp).await
    };
    assert!(connect(&shared().0).await.is_err(), "the former certificate is still served");
    let mut after = connect(&new).await.unwrap();
    current.set(None);
    fixture.line_client().await;
    for client in [&mut before, &mut after] {
        send(client, b"/ping\n").await;
        until(client, "pong").await;
    }
}

#[tokio::test]
async fn last_lines_arrive_before_the_end() {
    let fixture = ListenFixture::sealed(limits());
    let mut client = sealed(fixture.tcp).await;
    send(&mut client, b"/quit\n").await;
    assert!(rest(client).await.ends_with("* closing: bye\n"));
    let mut client = sealed(fixture.tcp).await;
    send(&mut client, b"/ping\n/ping").await;
    soon(client.shutdown()).await.unwrap();
    assert_eq!(rest(client).await.matches("pong").count(), 2, "the last line ends with the input");
    // Without the end that TLS requires, the line may be cut off.
    let begun = fixture.state.begun.load(Ordering::SeqCst);
    let mut client = sealed(fixture.tcp).await;
    send(&mut client, b"/ping").await;
    let (mut tcp, _) = client.into_inner();
    soon(tcp.shutdown()).await.unwrap();
    fixture.assert_left_reasons(&[LeftReason::Closed; 3]).await;
    assert_eq!(fixture.state.begun.load(Ordering::SeqCst), begun, "half a line was executed");
    fixture.permits_returned().await;
}

#[tokio::test]
async fn stalled_tls_reader_is_bounded_and_alone() {
    let fixture = ListenFixture::sealed(limits());
    let mut healthy = sealed(fixture.tcp).await;
    until(&mut healthy, "\n").await;
    let stalled_line = sealed(fixture.tcp).await;
    let mut stalled_ws = sealed(fixture.ws).await;
    send(&mut stalled_ws, upgrade_request("").as_bytes()).await;
    until(&mut stalled_ws, "\r\n\r\n").await;
    eventually("all sessions began", || fixture.addresses().len() == 3).await;
    let worst = async {
        let mut worst = Duration::ZERO;
        while fixture.left_reasons().len() < 2 {
            let start = Instant::now();
            send(&mut healthy, b"/ping\n").await;
            until(&mut healthy, "pong").await;
            worst = worst.max(start.elapsed());
        }
        worst
    };
    let (line, ws) = (fixture.outbox(1), fixture.outbox(2));
    let (worst, line_took, ws_took) = soon(async { tokio::join!(worst, flood(&line), flood(&ws)) }).await;
    let bound = SLOW_READER.burst_bytes_max + 2 * 1024 * 1024;
    assert!(ws_took.max(line_took) < bound, "stalled readers buffered {ws_took} and {line_took} bytes");
    assert!(worst < Duration::from_millis(500), "another client waited {worst:?}");
    assert_eq!((ws.close_code(), line.close_code()), (Some(CloseCode::Slow), Some(CloseCode::Slow)));
    eventually("the stalled connections closed", || fixture.left_reasons().len() == 2).await;
    drop((stalled_ws, stalled_line));
}

#[tokio::test]
async fn paused_reader_receives_the_last_byte() {
    let fixture = ListenFixture::sealed(limits());
    let tcp = with_small_buffer(fixture.tcp).await.unwrap();
    let mut client = shaken(&connector(&shared().0, &[&version::TLS13], ""), tcp).await.unwrap();
    until(&mut client, "\n").await;
    let outbox = fixture.outbox(0);
    outbox.push_event(&message(&format!("{}last", "x".repeat(2 * 1024 * 1024))));
    eventually("the transport has taken it", || outbox.is_empty()).await;
    // Nothing is written afterwards that could carry it.
    until(&mut client, "last\n").await;
}

#[tokio::test]
async fn slow_tls_reader_receives_its_close_code() {
    let fixture = ListenFixture::sealed(ConnectionLimits { close_wait: PATIENCE / 4, ..limits() });
    let client = sealed(fixture.tcp).await;
    eventually("the session began", || fixture.addresses().len() == 1).await;
    flood(&fixture.outbox(0)).await;
    assert!(rest(client).await.ends_with("\n* closing: slow_consumer\n"));
}

/// One thread: whatever runs between two turns of the neighbour has delayed it.
#[tokio::test]
async fn handshakes_take_turns_with_neighbours() {
    const STORM: usize = 40;
    let fixture = ListenFixture::sealed(limits());
    let mut clients = Vec::new();
    for _ in 0..STORM {
        let client = std::net::TcpStream::connect(fixture.tcp).unwrap();
        std::io::Write::write_all(&mut &client, &hello()).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(client);
    }
    let (start, mut answered, mut most) = (Instant::now(), 0, 0);
    while answered < STORM {
        assert!(start.elapsed() < PATIENCE, "{answered} handshakes were answered");
        yield_now().await;
        let now = clients.iter().filter(|client| client.peek(&mut [0]).is_ok()).count();
        (most, answered) = (most.max(now - answered), now);
    }
    assert!(most <= 2, "a neighbour waited for {most} handshakes");
}
