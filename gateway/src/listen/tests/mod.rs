//! Tests of both transports over loopback sockets.
//!
//! [`ListenFixture`] starts the listeners with an [`EchoSession`], which answers every request without a store.
//! Every step fails after [`PATIENCE`]. The session rules have their own tests.
#![allow(clippy::unwrap_used)]

mod addresses;
mod batches;
mod cost;
mod drain;
mod frames;
mod handshake;
mod lines;
mod metrics;
mod packed;
mod page;
mod pressure;
mod tls;
mod transports;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use presence::host::client_address::ClientAddress;
use presence::host::reloadable::Reloadable;
use presence::model::LeftReason;
use presence::model::codes::CloseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::{Accepted, Body, ChatMessage};
use crate::outbound::Outbox;
use crate::outbound::outbox::Broadcast;
use crate::outbound::policy::SLOW_READER;
use crate::quota::{Quota, Quotas};
use crate::sanctions::ClusterSanctions;
use crate::session::{ConnectionEnd, DecodedRequest};
use crate::wire::{Answer, Command, Dialect, Event, Reply, Request, Token};

use super::{
    AddressLimits, Admission, AllowedOrigins, ConnectionContext, ConnectionDrain, ConnectionLimits, ConnectionParts,
    ConnectionSession, DrainPace, Listeners, OriginWord, PageAccess, PageEmbedder, ServerCertificate, TlsTermination,
};
use crate::metrics::{ListenerKind, Metrics};

/// Maximum duration of one test step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails the test when a step takes too long.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.expect("the step exceeded its time limit")
}

/// Waits until a condition holds.
async fn eventually(label: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "condition not reached: {label}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// State shared by a test and its sessions.
struct EchoState {
    /// Output queues in session start order.
    outboxes: Mutex<Vec<Outbox>>,
    endings: Mutex<Vec<ConnectionEnd>>,
    inputs: AtomicUsize,
    /// Every `register` request waits for one permit.
    gate: Semaphore,
    begun: AtomicUsize,
    /// The session of each finished request.
    finished: Mutex<Vec<usize>>,
    alarm: Option<SessionAlarm>,
    /// Addresses in session start order.
    addresses: Mutex<Vec<ClientAddress>>,
}

/// Delay of each session's deadline, and the action at the deadline.
type SessionAlarm = (Duration, fn(&Outbox));

/// A session that answers `pong` to every request. `register` waits for the gate, `rooms` also for space in the outbox;
/// `bye` closes.
struct EchoSession {
    /// Its place in [`EchoState::outboxes`].
    number: usize,
    outbox: Outbox,
    deadline: Option<Instant>,
    /// True after a `register`.
    is_registered: bool,
    state: Arc<EchoState>,
}

impl ConnectionSession for EchoSession {
    fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    fn is_registered(&self) -> bool {
        self.is_registered
    }

    fn present(&mut self, _: Token) {}

    fn set_dialect(&mut self, dialect: Dialect, _: Option<Duration>) {
        self.outbox.set_dialect(dialect);
    }

    async fn apply_room_orders(&mut self) {
        drop(self.outbox.take_orders());
    }

    fn note_input(&mut self) {
        self.state.inputs.fetch_add(1, Ordering::SeqCst);
    }

    fn charge(&mut self) -> Option<DecodedRequest> {
        self.note_input();
        None
    }

    fn begin(&mut self, decoded: DecodedRequest) -> Option<DecodedRequest> {
        Some(decoded)
    }

    async fn request(&mut self, decoded: DecodedRequest) {
        self.state.begun.fetch_add(1, Ordering::SeqCst);
        let (id, answer) = match decoded {
            Err((id, refusal)) => (id, Answer::Refused(refusal)),
            Ok(Request { id, command }) => {
                match command {
                    Command::Register { .. } => {
                        self.state.gate.acquire().await.unwrap().forget();
                        self.is_registered = true;
                    }
                    Command::Rooms { .. } => {
                        self.state.gate.acquire().await.unwrap().forget();
                        self.outbox.wait_for_space().await;
                    }
                    Command::Bye => self.outbox.close(CloseCode::Normal),
                    _ => {}
                }
                (id, Answer::Pong)
            }
        };
        self.outbox.push_reply(Reply { id, answer });
        self.state.finished.lock().unwrap().push(self.number);
    }

    fn poll_progress(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    async fn conclude(&mut self) {}

    async fn settle(&mut self) {}

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn tick(&mut self) {
        self.deadline = None;
        let (_, action) = self.state.alarm.unwrap();
        action(&self.outbox);
    }

    async fn end(self, ending: ConnectionEnd) {
        self.state.endings.lock().unwrap().push(ending);
    }
}

/// Both listeners on loopback, and the state behind them.
struct ListenFixture {
    ws: SocketAddr,
    tcp: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    admission: Arc<Admission>,
    sanctions: Arc<ClusterSanctions>,
    state: Arc<EchoState>,
    closing: CancellationToken,
    connection_drain: Arc<ConnectionDrain>,
    tasks: TaskTracker,
}

impl ListenFixture {
    fn open() -> Self {
        Self::with(limits(), None)
    }

    fn with(limits: impl Into<Reloadable<ConnectionLimits>>, alarm: Option<SessionAlarm>) -> Self {
        if !tls::is_required() {
            return Self::over(limits, alarm, None::<ServerCertificate>);
        }
        let fixture = Self::over(limits, alarm, Some(tls::certificate()));
        let [ws, tcp] = [(fixture.ws, "http/1.1"), (fixture.tcp, "parley-lines")].map(tls::plain_address_of);
        Self { ws, tcp, ..fixture }
    }

    fn over(
        limits: impl Into<Reloadable<ConnectionLimits>>,
        alarm: Option<SessionAlarm>,
        certificate: impl Into<Reloadable<Option<ServerCertificate>>>,
    ) -> Self {
        let limits = limits.into();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(loopback, loopback).unwrap();
        let (ws, tcp) =
            (listeners.local_addr(ListenerKind::Ws).unwrap(), listeners.local_addr(ListenerKind::Tcp).unwrap());
        let state = Arc::new(EchoState {
            outboxes: Mutex::default(),
            endings: Mutex::default(),
            inputs: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            finished: Mutex::default(),
            alarm,
            addresses: Mutex::default(),
        });
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = Arc::clone(&ready);
        let admission = Arc::new(Admission::new(move || is_ready.load(Ordering::Relaxed)));
        let (closing, connection_drain, tasks) =
            (CancellationToken::new(), Arc::new(ConnectionDrain::default()), TaskTracker::new());
        let shared = Arc::clone(&state);
        let open_session = move |dialect: Dialect, quota: Arc<Quota>| {
            shared.addresses.lock().unwrap().extend(quota.address());
            let outbox = Outbox::new(dialect);
            let mut outboxes = shared.outboxes.lock().unwrap();
            outboxes.push(outbox.clone());
            let deadline = shared.alarm.map(|(wait, _)| Instant::now() + wait);
            EchoSession {
                number: outboxes.len() - 1,
                outbox,
                deadline,
                is_registered: false,
                state: Arc::clone(&shared),
            }
        };
        let metrics = Arc::new(Metrics::new());
        let sanctions = Arc::new(ClusterSanctions::new(true));
        let context = ConnectionContext::new(ConnectionParts {
            open_session,
            admission: Arc::clone(&admission),
            limits,
            quotas: Arc::new(Quotas::new("parley", Reloadable::default())),
            sanctions: Arc::clone(&sanctions),
            log_addresses: true,
            tls: TlsTermination::new(certificate.into()).unwrap(),
            metrics: Arc::clone(&metrics),
            closing: closing.clone(),
            drain: Arc::clone(&connection_drain),
            tasks: tasks.clone(),
        });
        listeners.serve(&context);
        Self { ws, tcp, metrics, ready, admission, sanctions, state, closing, connection_drain, tasks }
    }

    /// Starts a drain and closes the listeners.
    fn drain(&self, notice: Duration, window: Duration) {
        self.connection_drain.begin(DrainPace { notice, window });
        self.closing.cancel();
        self.tasks.close();
    }

    fn outbox(&self, session: usize) -> Outbox {
        self.state.outboxes.lock().unwrap()[session].clone()
    }

    fn finished(&self) -> usize {
        self.state.finished.lock().unwrap().len()
    }

    fn endings(&self) -> Vec<ConnectionEnd> {
        self.state.endings.lock().unwrap().clone()
    }

    /// Returns the leave reasons that other members would receive.
    fn left_reasons(&self) -> Vec<LeftReason> {
        let reason = |ending| match ending {
            ConnectionEnd::Closed(CloseCode::Timeout | CloseCode::RegisterTimeout) => LeftReason::Timeout,
            ConnectionEnd::Closed(CloseCode::Kicked) => LeftReason::Kicked,
            ConnectionEnd::Gone | ConnectionEnd::Goodbye | ConnectionEnd::Closed(_) => LeftReason::Closed,
        };
        self.endings().into_iter().map(reason).collect()
    }

    async fn assert_left_reasons(&self, reasons: &[LeftReason]) {
        eventually("all sessions ended", || self.left_reasons().len() >= reasons.len()).await;
        assert_eq!(self.left_reasons(), reasons);
    }

    async fn permits_returned(&self) {
        let open = |kind| self.metrics.open(kind);
        eventually("all permits returned", || open(ListenerKind::Ws) + open(ListenerKind::Tcp) == 0).await;
    }

    /// Connects a WebSocket client and completes its handshake.
    async fn websocket(&self) -> FrameClient {
        let mut client = FrameClient(RawClient::connect(self.ws).await);
        client.0.send(upgrade_request("").as_bytes()).await;
        let head = client.0.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client
    }

    /// Connects a line client and reads its first answer.
    async fn line_client(&self) -> RawClient {
        let mut client = RawClient::connect(self.tcp).await;
        client.send(b"/ping\n").await;
        client.until("pong").await;
        client
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits { close_wait: Duration::from_millis(500), ..ConnectionLimits::default() }
}

fn message(text: &str) -> Arc<Broadcast> {
    Broadcast::new(Event::Message(lobby_message(text)))
}

fn lobby_message(text: &str) -> ChatMessage {
    ChatMessage {
        to: "#lobby".to_owned(),
        from: "ann".to_owned(),
        from_user: None,
        from_api: false,
        msg_id: "m".to_owned(),
        seq: 1,
        time: 1,
        body: Body::from_text(text),
        accepted: Accepted::default(),
    }
}

/// Returns the upgrade request of RFC 6455 section 1.3 with extra header lines.
fn upgrade_request(headers: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: parley\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A client that sends and reads plain bytes.
struct RawClient {
    tcp: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    async fn connect(addr: SocketAddr) -> Self {
        let tcp = soon(TcpStream::connect(addr)).await.unwrap();
        Self { tcp, received: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon(self.tcp.write_all(bytes)).await.unwrap();
    }

    /// Reads until a line contains the text, and returns all input up to the end of that line.
    async fn until(&mut self, text: &str) -> String {
        loop {
            let seen = String::from_utf8_lossy(&self.received).into_owned();
            if let Some(at) = seen.find(text)
                && let Some(end) = seen[at..].find('\n')
            {
                self.received.drain(..=at + end);
                return seen[..=at + end].to_owned();
            }
            assert!(self.more().await > 0, "the connection ended without {text:?}: {seen:?}");
        }
    }

    /// Reads the head of an HTTP response.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap().to_ascii_lowercase().replacen("http", "HTTP", 1);
            }
            assert!(self.more().await > 0, "the connection ended inside a response head");
        }
    }

    /// Reads to the end of the connection.
    async fn rest(mut self) -> String {
        while self.more().await > 0 {}
        String::from_utf8(self.received).unwrap()
    }

    async fn more(&mut self) -> usize {
        soon(self.tcp.read_buf(&mut self.received)).await.unwrap()
    }
}

/// A WebSocket client that sends arbitrary frames and reads the server's frames.
struct FrameClient(RawClient);

/// Encodes a masked client frame with the given first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

impl FrameClient {
    async fn send(&mut self, text: &str) {
        self.0.send(&frame(0x81, text.as_bytes())).await;
    }

    /// Reads the next frame and returns its first byte and payload, or `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, start, end)) = self.complete() {
                let frame: Vec<u8> = self.0.received.drain(..end).collect();
                return Some((first, frame[start..].to_vec()));
            }
            if self.0.more().await == 0 {
                assert!(self.0.received.is_empty(), "the connection ended inside a frame");
                return None;
            }
        }
    }

    fn complete(&self) -> Option<(u8, usize, usize)> {
        let seen = &self.0.received;
        let (&first, &length) = (seen.first()?, seen.get(1)?);
        assert_eq!(length & 0x80, 0, "the server masked a frame");
        let (start, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes(seen.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(seen.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        (seen.len() >= start + length).then_some((first, start, start + length))
    }

    async fn text(&mut self) -> String {
        let (first, payload) = self.frame().await.expect("the connection ended");
        assert_eq!(first, 0x81, "not a text frame: {payload:?}");
        String::from_utf8(payload).unwrap()
    }

    /// Reads to the end of the connection and returns the close code and reason.
    async fn closed(mut self) -> (u16, String) {
        let mut close = None;
        while let Some((first, payload)) = self.frame().await {
            assert!(close.is_none(), "the server sent a frame after the close frame");
            if first == 0x88 {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                close = Some((code, String::from_utf8(payload[2.min(payload.len())..].to_vec()).unwrap()));
            }
        }
        close.expect("the connection ended without a close frame")
    }

    async fn send_ping(&mut self, id: u32) {
        self.send(&format!(r#"{{"type":"ping","id":{id}}}"#)).await;
    }

    /// Asserts that a ping request receives its answer.
    async fn assert_alive(&mut self) {
        self.send_ping(77).await;
        assert_eq!(self.text().await, r#"{"type":"pong","id":77}"#);
    }
}
