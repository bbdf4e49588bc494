//! A client of the protocol over a real WebSocket: requests and expectations. `packed.rs` opens the same client with
//! packed messages, over a WebSocket or TCP frames.
//!
//! A task reads all the time, so pings are answered and every event has its time of arrival. Requests panic if they are
//! refused; their `try_` forms return the refusal.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::RESPONSE_TIMEOUT;
use super::transcript::{ReceivedItem, Transcript, TranscriptEnd};
use crate::packed::{self, PackedWire};

pub(super) type WsStream = WebSocketStream<TcpStream>;
/// Write half of the socket; `None` after the server has closed. Both halves must be dropped to close the socket.
pub(super) type SharedSink = Arc<tokio::sync::Mutex<Option<ClientSink>>>;

/// The write half of a client.
#[derive(Debug)]
pub(super) enum ClientSink {
    /// JSON in text frames.
    Text(SplitSink<WsStream, Message>),
    /// Packed messages in binary frames.
    Binary(PackedWire, SplitSink<WsStream, Message>),
    /// Packed messages in TCP frames.
    Frames(PackedWire, OwnedWriteHalf),
}

/// A reply, or the refusal.
pub type RequestResult = Result<Value, RefusedRequest>;

/// An `error` reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Code from the error table.
    pub code: String,
    /// The whole reply.
    pub reply: Value,
}

/// A connected WebSocket client. Dropping it closes the connection without a `bye`.
#[derive(Debug)]
pub struct WsClient {
    name: Mutex<String>,
    sink: SharedSink,
    transcript: Arc<Transcript<Value>>,
    reader: JoinHandle<()>,
    next_id: AtomicU64,
}

impl Drop for WsClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl WsClient {
    /// Connects to `/ws` at this address.
    ///
    /// # Panics
    /// If the connection is refused.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap_or_else(|error| panic!("no WebSocket at {address}: {error}"))
    }

    /// Connects to `/ws` at this address.
    ///
    /// # Errors
    /// The error of tungstenite; an HTTP response other than the upgrade is `Error::Http`.
    pub async fn try_connect(address: SocketAddr) -> Result<Self, Error> {
        Self::try_connect_with(Ipv4Addr::LOCALHOST, address, None).await
    }

    /// Connects to `/ws` at this address from an address of the machine.
    ///
    /// # Errors
    /// As [`WsClient::try_connect`].
    pub async fn try_connect_from(source: Ipv4Addr, address: SocketAddr) -> Result<Self, Error> {
        Self::try_connect_with(source, address, None).await
    }

    /// Connects to `/ws` at this address, as a program with this token in its `Authorization` header.
    ///
    /// # Panics
    /// If the connection is refused.
    pub async fn connect_with_bearer(address: SocketAddr, token: &str) -> Self {
        let connected = Self::try_connect_with(Ipv4Addr::LOCALHOST, address, Some(token)).await;
        connected.unwrap_or_else(|error| panic!("no WebSocket: {error}"))
    }

    async fn try_connect_with(source: Ipv4Addr, address: SocketAddr, bearer: Option<&str>) -> Result<Self, Error> {
        let mut request = format!("ws://{address}/ws").into_client_request()?;
        if let Some(token) = bearer {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a token is ASCII");
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let connecting = async {
            let stream = super::connect_from(source, address).await?;
            client_async(request, stream).await
        };
        let (socket, _) = timeout(RESPONSE_TIMEOUT, connecting).await.map_err(|late| Error::Io(late.into()))??;
        let (sink, stream) = socket.split();
        Ok(Self::over(ClientSink::Text(sink), |sink, transcript| read(stream, sink, transcript)))
    }

    /// Creates the client of an open connection. `read` runs until its end.
    pub(super) fn over<R: Future<Output = ()> + Send + 'static>(
        sink: ClientSink,
        read: impl FnOnce(SharedSink, Arc<Transcript<Value>>) -> R,
    ) -> Self {
        let transcript = Arc::new(Transcript::new());
        let sink = Arc::new(tokio::sync::Mutex::new(Some(sink)));
        let reader = tokio::spawn(read(sink.clone(), transcript.clone()));
        let name = Mutex::new("unregistered".to_owned());
        Self { name, sink, transcript, reader, next_id: AtomicU64::new(1) }
    }

    /// Registers a nickname; returns the `registered` reply.
    pub async fn register(&self, nick: &str) -> Value {
        self.expect_answer("register", self.try_register(nick).await)
    }

    /// Registers a nickname; may be refused.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_register(&self, nick: &str) -> RequestResult {
        let answer = self.request(json!({"type": "register", "nick": nick})).await;
        if answer.is_ok() {
            self.set_name(nick);
        }
        answer
    }

    /// Resumes the session of `registered`, an earlier reply, from these positions; returns the new reply.
    pub async fn resume(&self, registered: &Value, since: Value) -> Value {
        self.expect_answer("resume", self.try_resume(registered, since).await)
    }

    /// Resumes a session; may be refused.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_resume(&self, registered: &Value, since: Value) -> RequestResult {
        let (nick, token) = (&registered["nick"], &registered["resume"]);
        let answer = self.request(json!({"type": "register", "nick": nick, "resume": token, "since": since})).await;
        if answer.is_ok() {
            self.set_name(nick.as_str().expect("a nick"));
        }
        answer
    }

    /// Drops the connection without a close frame, like a lost network.
    pub fn cut(self) {
        drop(self);
    }

    /// Joins a room; returns the `joined` reply.
    pub async fn join(&self, room: &str) -> Value {
        self.must(json!({"type": "join", "room": room})).await
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &str) -> Value {
        self.must(json!({"type": "leave", "room": room})).await
    }

    /// Sends a message to a room or a nickname; returns the `ack`.
    pub async fn sends(&self, to: &str, text: &str) -> Value {
        self.must(json!({"type": "send", "to": to, "body": text})).await
    }

    /// Sends a message; may be refused.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_send(&self, to: &str, text: &str) -> RequestResult {
        self.request(json!({"type": "send", "to": to, "body": text})).await
    }

    /// Changes the nickname; returns the reply.
    pub async fn rename(&self, nick: &str) -> Value {
        let reply = self.must(json!({"type": "nick", "nick": nick})).await;
        self.set_name(nick);
        reply
    }

    /// Sets the status to away with this text; returns the reply.
    pub async fn away(&self, text: &str) -> Value {
        self.must(json!({"type": "status", "status": "away", "text": text})).await
    }

    /// Returns the nicknames in the room, in the order of the reply.
    pub async fn members(&self, room: &str) -> Vec<String> {
        let reply = self.must(json!({"type": "members", "room": room})).await;
        let items = reply["items"].as_array().unwrap_or_else(|| panic!("no items: {reply}"));
        items.iter().map(|member| member["nick"].as_str().expect("a nick").to_owned()).collect()
    }

    /// Returns the newest messages of a room, oldest first.
    pub async fn history(&self, room: &str, limit: usize) -> Vec<Value> {
        let reply = self.must(json!({"type": "history", "to": room, "limit": limit})).await;
        reply["items"].as_array().unwrap_or_else(|| panic!("no items: {reply}")).clone()
    }

    /// Sends `bye` and waits for the end of the connection.
    pub async fn bye(&self) -> TranscriptEnd {
        self.send(json!({"type": "bye"})).await;
        self.closed().await
    }

    /// Sends a request and returns its reply. Panics if the request is refused.
    pub async fn must(&self, request: Value) -> Value {
        let verb = request["type"].to_string();
        self.expect_answer(&verb, self.request(request).await)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// The refusal.
    pub async fn request(&self, request: Value) -> RequestResult {
        self.request_within(RESPONSE_TIMEOUT, request).await
    }

    /// Sends a request and waits for its reply up to `within`.
    ///
    /// # Errors
    /// The refusal.
    pub async fn request_within(&self, within: Duration, request: Value) -> RequestResult {
        let id = self.post(request).await;
        self.reply_within(within, id).await
    }

    /// Sends a request without waiting for its reply; returns its id.
    pub async fn post(&self, mut request: Value) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request["id"] = id.into();
        self.send(request).await;
        id
    }

    /// Waits for the reply to a request.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If none arrives in time.
    pub async fn reply_within(&self, within: Duration, id: u64) -> RequestResult {
        let reply = self.take(within, &format!("reply to request {id}"), |value| value["id"] == id).await.value;
        if reply["type"] != "error" {
            return Ok(reply);
        }
        let code = reply["code"].as_str().unwrap_or_else(|| panic!("an error without a code: {reply}")).to_owned();
        Err(RefusedRequest { code, reply })
    }

    /// Sends an object unchanged. A closed connection is reported by the expectations, not here.
    pub async fn send(&self, value: Value) {
        if let Some(sink) = self.sink.lock().await.as_mut() {
            match sink {
                ClientSink::Text(sink) => drop(sink.send(Message::text(value.to_string())).await),
                ClientSink::Binary(wire, sink) => drop(sink.send(Message::binary(packed::encode(*wire, &value))).await),
                ClientSink::Frames(wire, sink) => {
                    drop(sink.write_all(&packed::frame(*wire, &packed::encode(*wire, &value))).await);
                }
            }
        }
    }

    /// Sends any WebSocket message.
    ///
    /// # Panics
    /// If the client uses TCP frames.
    pub async fn send_message(&self, message: Message) {
        if let Some(sink) = self.sink.lock().await.as_mut() {
            match sink {
                ClientSink::Text(sink) | ClientSink::Binary(_, sink) => drop(sink.send(message).await),
                ClientSink::Frames(..) => panic!("no WebSocket"),
            }
        }
    }

    /// Sends any bytes.
    ///
    /// # Panics
    /// If the client uses no TCP frames.
    pub async fn send_bytes(&self, bytes: &[u8]) {
        if let Some(sink) = self.sink.lock().await.as_mut() {
            match sink {
                ClientSink::Frames(_, sink) => drop(sink.write_all(bytes).await),
                ClientSink::Text(_) | ClientSink::Binary(..) => panic!("a WebSocket"),
            }
        }
    }

    /// Waits for a message in a room and returns it.
    pub async fn receives(&self, room: &str, from: &str, text: &str) -> Value {
        let is_expected = |event: &Value| {
            event["type"] == "message" && event["to"] == room && event["from"] == from && event["body"] == text
        };
        self.take(RESPONSE_TIMEOUT, &format!("`{text}` from {from} in {room}"), is_expected).await.value
    }

    /// Waits for a direct message and returns it.
    pub async fn receives_privately(&self, from: &str, text: &str) -> Value {
        let own = self.name();
        self.receives(&own, from, text).await
    }

    /// Waits until a nickname joins the room.
    pub async fn sees_join(&self, room: &str, nick: &str) -> ReceivedItem<Value> {
        self.sees(RESPONSE_TIMEOUT, room, "joined", |entry| entry["nick"] == nick).await
    }

    /// Waits until a nickname leaves the room for this reason.
    pub async fn sees_left(&self, room: &str, nick: &str, reason: &str) -> ReceivedItem<Value> {
        self.sees(RESPONSE_TIMEOUT, room, "left", |entry| entry["nick"] == nick && entry["reason"] == reason).await
    }

    /// Waits for a change of a nickname.
    pub async fn sees_rename(&self, room: &str, from: &str, to: &str) -> ReceivedItem<Value> {
        self.sees(RESPONSE_TIMEOUT, room, "renamed", |entry| entry["from"] == from && entry["to"] == to).await
    }

    /// Waits for a presence event of the room with a fitting entry in the list `kind` (`joined`, `left`, `renamed`,
    /// `status`). Presence is collected, so the event stays unused: it may contain other changes.
    pub async fn sees(
        &self,
        within: Duration,
        room: &str,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> ReceivedItem<Value> {
        let is_expected = |event: &Value| presence(event, room, kind).any(&fits);
        let what = format!("`{kind}` in {room}");
        let found = self.transcript.peek(within, &what, is_expected).await;
        found.unwrap_or_else(|complaint| panic!("{}: {complaint}", self.name()))
    }

    /// Returns the number of fitting entries in the received presence events of the room.
    pub fn count_seen(&self, room: &str, kind: &str, fits: impl Fn(&Value) -> bool) -> usize {
        let events = self.transcript.all(|_| true);
        events.iter().map(|item| presence(&item.value, room, kind).filter(|entry| fits(entry)).count()).sum()
    }

    /// Waits for the next unused frame of this type, event or reply, and marks it as used.
    pub async fn receives_frame(&self, kind: &str) -> Value {
        self.take(RESPONSE_TIMEOUT, kind, |value| value["type"] == kind).await.value
    }

    /// Waits for an unused event that fits, and marks it as used.
    pub async fn expect_event(
        &self,
        within: Duration,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> ReceivedItem<Value> {
        self.take(within, what, |value| value.get("id").is_none() && fits(value)).await
    }

    /// Returns all received frames that fit, in order, including replies.
    #[must_use]
    pub fn received(&self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.transcript.all(fits).into_iter().map(|item| item.value).collect()
    }

    /// Returns all unused frames that fit.
    #[must_use]
    pub fn unused(&self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.transcript.unused(fits)
    }

    /// Waits for the next unused frame that fits.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn next(&self, within: Duration, fits: impl Fn(&Value) -> bool) -> Result<Value, String> {
        self.transcript.take(within, "frame", fits).await.map(|item| item.value)
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> TranscriptEnd {
        self.closed_within(RESPONSE_TIMEOUT).await
    }

    /// Waits for the end of the connection.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn closed_within(&self, within: Duration) -> TranscriptEnd {
        self.transcript.ending(within).await.unwrap_or_else(|complaint| panic!("{}: {complaint}", self.name()))
    }

    /// Returns the end of the connection, if it has ended.
    #[must_use]
    pub fn has_ended(&self) -> Option<TranscriptEnd> {
        self.transcript.has_ended()
    }

    /// Returns the nickname; `unregistered` before the registration.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_name(&self, nick: &str) {
        nick.clone_into(&mut self.name.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn take(&self, within: Duration, what: &str, fits: impl Fn(&Value) -> bool) -> ReceivedItem<Value> {
        let taken = self.transcript.take(within, what, fits).await;
        taken.unwrap_or_else(|complaint| panic!("{}: {complaint}", self.name()))
    }

    fn expect_answer(&self, verb: &str, answer: RequestResult) -> Value {
        answer.unwrap_or_else(|refused| panic!("{}: {verb} was refused: {}", self.name(), refused.reply))
    }
}

/// Returns the entries of one list of a presence event of the room; none for other events.
fn presence<'a>(event: &'a Value, room: &str, kind: &str) -> impl Iterator<Item = &'a Value> {
    let is_expected = event["type"] == "presence" && event["room"] == room;
    event[kind].as_array().filter(|_| is_expected).into_iter().flatten()
}

async fn read(mut stream: SplitStream<WsStream>, sink: SharedSink, transcript: Arc<Transcript<Value>>) {
    let mut close = (None, "the connection broke".to_owned());
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Text(text) => {
                let value = serde_json::from_str(&text).unwrap_or_else(|_| json!({"not JSON": text.as_str()}));
                transcript.push(value);
            }
            Message::Close(frame) => {
                close = frame.map_or((None, String::new()), |f| (Some(f.code.into()), f.reason.to_string()));
            }
            _ => {}
        }
    }
    // Recorded before the lock, which a blocked writer may hold.
    transcript.end(close.0, close.1);
    sink.lock().await.take();
}
