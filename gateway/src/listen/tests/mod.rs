//! The doors over real sockets on loopback, with a session that answers without any store.
#![allow(clippy::unwrap_used)]

mod cost;
mod departure;
mod doors;
mod frames;
mod handshake;
mod lines;
mod numbers;
mod pressure;
mod rounds;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
use crate::session::Ending;
use crate::wire::{Answer, Command, CorrelationId, Dialect, Event, Refusal, Reply, Request};

use super::{Admission, ConnectionContext, ConnectionDrain, ConnectionLimits, ConnectionSession, DrainPace, Listeners};
use crate::metrics::{ListenerKind, Metrics};

/// How long any one step of a test may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails the test when a step takes too long.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.expect("nothing happened in time")
}

/// Waits until a condition holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the sessions of a test share with it.
struct Backstage {
    /// Output queues, in the order in which the sessions began.
    outboxes: Mutex<Vec<Outbox>>,
    ends: Mutex<Vec<Ending>>,
    heard: AtomicUsize,
    /// `register` waits for a permit of this.
    gate: Semaphore,
    begun: AtomicUsize,
    finished: AtomicUsize,
    alarm: Option<TimedAction>,
}

/// When the deadline of each session is, and what it does then.
type TimedAction = (Duration, fn(&Outbox));

/// Answers `pong` to everything; `register` waits for the gate; `bye` closes.
struct Echo {
    outbox: Outbox,
    deadline: Option<Instant>,
    stage: Arc<Backstage>,
}

impl ConnectionSession for Echo {
    fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    fn heard(&mut self) {
        self.stage.heard.fetch_add(1, Ordering::SeqCst);
    }

    async fn request(&mut self, decoded: Result<Request, (CorrelationId, Refusal)>) {
        self.stage.begun.fetch_add(1, Ordering::SeqCst);
        let (id, answer) = match decoded {
            Err((id, refusal)) => (id, Answer::Refused(refusal)),
            Ok(Request { id, command }) => {
                match command {
                    Command::Register { .. } => self.stage.gate.acquire().await.unwrap().forget(),
                    Command::Bye => self.outbox.close(CloseCode::Normal),
                    _ => {}
                }
                (id, Answer::Pong)
            }
        };
        self.outbox.push_reply(Reply { id, answer });
        self.stage.finished.fetch_add(1, Ordering::SeqCst);
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn tick(&mut self) {
        self.deadline = None;
        let (_, action) = self.stage.alarm.unwrap();
        action(&self.outbox);
    }

    async fn end(self, ending: Ending) {
        self.stage.ends.lock().unwrap().push(ending);
    }
}

/// A context with open doors.
struct ListenFixture {
    ws: SocketAddr,
    tcp: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    admission: Arc<Admission>,
    stage: Arc<Backstage>,
    closing: CancellationToken,
    departure: Arc<ConnectionDrain>,
    tasks: TaskTracker,
}

impl ListenFixture {
    fn open() -> Self {
        Self::with(limits(), None)
    }

    fn with(limits: impl Into<Reloadable<ConnectionLimits>>, alarm: Option<TimedAction>) -> Self {
        let limits = limits.into();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(loopback, loopback).unwrap();
        let (ws, tcp) =
            (listeners.local_addr(ListenerKind::Ws).unwrap(), listeners.local_addr(ListenerKind::Tcp).unwrap());
        let stage = Arc::new(Backstage {
            outboxes: Mutex::default(),
            ends: Mutex::default(),
            heard: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            alarm,
        });
        let ready = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&ready);
        let admission = Arc::new(Admission::new(move || asked.load(Ordering::Relaxed)));
        let (closing, departure, tasks) =
            (CancellationToken::new(), Arc::new(ConnectionDrain::default()), TaskTracker::new());
        let backstage = Arc::clone(&stage);
        let open_session = move |format: Dialect| {
            let outbox = Outbox::new(format);
            backstage.outboxes.lock().unwrap().push(outbox.clone());
            let deadline = backstage.alarm.map(|(wait, _)| Instant::now() + wait);
            Echo { outbox, deadline, stage: Arc::clone(&backstage) }
        };
        let metrics = Arc::new(Metrics::new());
        let context = ConnectionContext::new(
            open_session,
            Arc::clone(&admission),
            limits,
            Arc::clone(&metrics),
            closing.clone(),
            Arc::clone(&departure),
            tasks.clone(),
        );
        listeners.serve(&context);
        Self { ws, tcp, metrics, ready, admission, stage, closing, departure, tasks }
    }

    /// The gateway goes away.
    fn leave(&self, notice: Duration, window: Duration) {
        self.departure.begin(DrainPace { notice, window });
        self.closing.cancel();
        self.tasks.close();
    }

    fn outbox(&self, session: usize) -> Outbox {
        self.stage.outboxes.lock().unwrap()[session].clone()
    }

    fn endings(&self) -> Vec<Ending> {
        self.stage.ends.lock().unwrap().clone()
    }

    /// What others would be told.
    fn ends(&self) -> Vec<LeftReason> {
        let reason = |ending| match ending {
            Ending::Closed(CloseCode::Timeout | CloseCode::RegisterTimeout) => LeftReason::Timeout,
            Ending::Closed(CloseCode::Kicked) => LeftReason::Kicked,
            Ending::Gone | Ending::Goodbye | Ending::Closed(_) => LeftReason::Closed,
        };
        self.endings().into_iter().map(reason).collect()
    }

    async fn ended_as(&self, reasons: &[LeftReason]) {
        eventually("every session has ended", || self.ends().len() >= reasons.len()).await;
        assert_eq!(self.ends(), reasons);
    }

    async fn empty(&self) {
        let taken = |port| self.metrics.open(port);
        eventually("every permit is free again", || taken(ListenerKind::Ws) + taken(ListenerKind::Tcp) == 0).await;
    }

    /// A WebSocket client whose session has begun.
    async fn websocket(&self) -> WebSocket {
        let mut client = WebSocket(Wire::connect(self.ws).await);
        client.0.send(upgrade_request("").as_bytes()).await;
        let head = client.0.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client
    }

    /// A line client that has read its greeting.
    async fn line_client(&self) -> Wire {
        let mut client = Wire::connect(self.tcp).await;
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
        msg_id: "m".to_owned(),
        seq: 1,
        time: 1,
        body: Body::from_text(text),
        accepted: Accepted::default(),
    }
}

/// The request of RFC 6455 section 1.3, with more header lines.
fn upgrade_request(more: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: parley\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// A client that sends and reads plain bytes.
struct Wire {
    tcp: TcpStream,
    seen: Vec<u8>,
}

impl Wire {
    async fn connect(addr: SocketAddr) -> Self {
        let tcp = soon(TcpStream::connect(addr)).await.unwrap();
        Self { tcp, seen: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon(self.tcp.write_all(bytes)).await.unwrap();
    }

    /// Reads until a line holds the text, and returns everything up to its end.
    async fn until(&mut self, text: &str) -> String {
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text)
                && let Some(end) = seen[at..].find('\n')
            {
                self.seen.drain(..=at + end);
                return seen[..=at + end].to_owned();
            }
            assert!(self.more().await > 0, "the connection ended without {text:?}: {seen:?}");
        }
    }

    /// Reads the head of an HTTP response.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.seen.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.seen.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap().to_ascii_lowercase().replacen("http", "HTTP", 1);
            }
            assert!(self.more().await > 0, "the connection ended inside a response head");
        }
    }

    /// Reads to the end of the connection.
    async fn rest(mut self) -> String {
        while self.more().await > 0 {}
        String::from_utf8(self.seen).unwrap()
    }

    async fn more(&mut self) -> usize {
        soon(self.tcp.read_buf(&mut self.seen)).await.unwrap()
    }
}

/// A WebSocket client that sends any bytes as frames and reads the server's.
struct WebSocket(Wire);

/// A frame as a client must send it: masked, with a first byte of the test's choice.
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

impl WebSocket {
    async fn send(&mut self, text: &str) {
        self.0.send(&frame(0x81, text.as_bytes())).await;
    }

    /// The next frame: its first byte and payload. `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, start, end)) = self.complete() {
                let frame: Vec<u8> = self.0.seen.drain(..end).collect();
                return Some((first, frame[start..].to_vec()));
            }
            if self.0.more().await == 0 {
                assert!(self.0.seen.is_empty(), "the connection ended inside a frame");
                return None;
            }
        }
    }

    fn complete(&self) -> Option<(u8, usize, usize)> {
        let seen = &self.0.seen;
        let (&first, &length) = (seen.first()?, seen.get(1)?);
        assert_eq!(length & 0x80, 0, "servers do not mask");
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

    /// Reads to the end and returns the close frame that came before it.
    async fn closed(mut self) -> (u16, String) {
        let mut close = None;
        while let Some((first, payload)) = self.frame().await {
            assert!(close.is_none(), "a frame after the close frame");
            if first == 0x88 {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                close = Some((code, String::from_utf8(payload[2.min(payload.len())..].to_vec()).unwrap()));
            }
        }
        close.expect("the connection ended without a close frame")
    }

    async fn pings(&mut self, id: u32) {
        self.send(&format!(r#"{{"type":"ping","id":{id}}}"#)).await;
    }

    /// Asks and is answered: the connection is alive.
    async fn is_alive(&mut self) {
        self.pings(77).await;
        assert_eq!(self.text().await, r#"{"type":"pong","id":77}"#);
    }
}
