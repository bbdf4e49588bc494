//! A client of the JSON protocol over a real WebSocket: verbs to speak with, expectations to listen with.
//!
//! A task reads all the time, so pings are answered and every event bears the moment it came. Verbs panic when they are
//! refused; their `try_` forms give the refusal back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::PATIENCE;
use super::transcript::{ReceivedItem, Transcript, TranscriptEnd};

type WsStream = WebSocketStream<TcpStream>;
/// Gone once the server has said goodbye: both halves must be, or the socket stays open.
type WsSink = Arc<tokio::sync::Mutex<Option<SplitSink<WsStream, Message>>>>;

/// A reply, or why there is none.
pub type RequestResult = Result<Value, RefusedRequest>;

/// An `error` reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Which row of the error table.
    pub code: String,
    /// The whole reply.
    pub reply: Value,
}

/// One connected client. Dropping it cuts the connection without a goodbye.
#[derive(Debug)]
pub struct WsClient {
    name: Mutex<String>,
    sink: WsSink,
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
    /// If the door stays shut.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap_or_else(|error| panic!("no WebSocket at {address}: {error}"))
    }

    /// Connects to `/ws` at this address.
    ///
    /// # Errors
    /// As tungstenite tells it; an HTTP answer other than the upgrade is `Error::Http`.
    pub async fn try_connect(address: SocketAddr) -> Result<Self, Error> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            client_async(format!("ws://{address}/ws"), stream).await
        };
        let (socket, _) = timeout(PATIENCE, connecting).await.map_err(|late| Error::Io(late.into()))??;
        let (sink, stream) = socket.split();
        let transcript = Arc::new(Transcript::new());
        let sink = Arc::new(tokio::sync::Mutex::new(Some(sink)));
        let reader = tokio::spawn(read(stream, sink.clone(), transcript.clone()));
        let name = Mutex::new("somebody".to_owned());
        Ok(Self { name, sink, transcript, reader, next_id: AtomicU64::new(1) })
    }

    /// Takes a nickname; returns the `registered` reply.
    pub async fn register(&self, nick: &str) -> Value {
        self.expect_answer("register", self.try_register(nick).await)
    }

    /// Takes a nickname if it may.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_register(&self, nick: &str) -> RequestResult {
        let answer = self.request(json!({"type": "register", "nick": nick})).await;
        if answer.is_ok() {
            self.is_now(nick);
        }
        answer
    }

    /// Resumes the session that `registered` (an earlier reply) began, from these positions; returns the new reply.
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
            self.is_now(nick.as_str().expect("a nick"));
        }
        answer
    }

    /// Cuts the connection without a word, as a network does that is lost.
    pub fn cut(self) {
        drop(self);
    }

    /// Enters a room; returns the `joined` reply.
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

    /// Goes by another nickname.
    pub async fn rename(&self, nick: &str) -> Value {
        let reply = self.must(json!({"type": "nick", "nick": nick})).await;
        self.is_now(nick);
        reply
    }

    /// Is away, saying why.
    pub async fn away(&self, text: &str) -> Value {
        self.must(json!({"type": "status", "status": "away", "text": text})).await
    }

    /// The nicknames in the room, in the order of the reply.
    pub async fn members(&self, room: &str) -> Vec<String> {
        let reply = self.must(json!({"type": "members", "room": room})).await;
        let items = reply["items"].as_array().unwrap_or_else(|| panic!("no items: {reply}"));
        items.iter().map(|member| member["nick"].as_str().expect("a nick").to_owned()).collect()
    }

    /// The newest messages of a room, oldest first.
    pub async fn history(&self, room: &str, limit: usize) -> Vec<Value> {
        let reply = self.must(json!({"type": "history", "to": room, "limit": limit})).await;
        reply["items"].as_array().unwrap_or_else(|| panic!("no items: {reply}")).clone()
    }

    /// Says goodbye and waits for the connection to end.
    pub async fn bye(&self) -> TranscriptEnd {
        self.send(json!({"type": "bye"})).await;
        self.closed().await
    }

    /// Sends a request and waits for its reply; the request must be taken.
    pub async fn must(&self, request: Value) -> Value {
        let verb = request["type"].to_string();
        self.expect_answer(&verb, self.request(request).await)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// The refusal.
    pub async fn request(&self, request: Value) -> RequestResult {
        self.request_within(PATIENCE, request).await
    }

    /// Sends a request and waits for its reply, which may be slow.
    ///
    /// # Errors
    /// The refusal.
    pub async fn request_within(&self, within: Duration, request: Value) -> RequestResult {
        let id = self.post(request).await;
        self.reply_within(within, id).await
    }

    /// Sends a request without waiting for its reply; returns the id it was given.
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
    /// If none comes in time.
    pub async fn reply_within(&self, within: Duration, id: u64) -> RequestResult {
        let reply = self.take(within, &format!("reply to request {id}"), |value| value["id"] == id).await.what;
        if reply["type"] != "error" {
            return Ok(reply);
        }
        let code = reply["code"].as_str().unwrap_or_else(|| panic!("an error without a code: {reply}")).to_owned();
        Err(RefusedRequest { code, reply })
    }

    /// Sends an object as it is. A connection that is gone is left to the expectations.
    pub async fn send(&self, value: Value) {
        self.send_message(Message::text(value.to_string())).await;
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&self, message: Message) {
        if let Some(sink) = self.sink.lock().await.as_mut() {
            let _ = sink.send(message).await;
        }
    }

    /// Receives a message in a room and returns it.
    pub async fn receives(&self, room: &str, from: &str, text: &str) -> Value {
        let is_meant = |event: &Value| {
            event["type"] == "message" && event["to"] == room && event["from"] == from && event["body"] == text
        };
        self.take(PATIENCE, &format!("`{text}` from {from} in {room}"), is_meant).await.what
    }

    /// Receives a direct message and returns it.
    pub async fn receives_privately(&self, from: &str, text: &str) -> Value {
        let own = self.name();
        self.receives(&own, from, text).await
    }

    /// Sees a nickname join the room.
    pub async fn sees_join(&self, room: &str, nick: &str) -> ReceivedItem<Value> {
        self.sees(PATIENCE, room, "joined", |entry| entry["nick"] == nick).await
    }

    /// Sees a nickname leave the room for this reason.
    pub async fn sees_left(&self, room: &str, nick: &str, reason: &str) -> ReceivedItem<Value> {
        self.sees(PATIENCE, room, "left", |entry| entry["nick"] == nick && entry["reason"] == reason).await
    }

    /// Sees a nickname change.
    pub async fn sees_rename(&self, room: &str, from: &str, to: &str) -> ReceivedItem<Value> {
        self.sees(PATIENCE, room, "renamed", |entry| entry["from"] == from && entry["to"] == to).await
    }

    /// Sees a presence event of the room whose list of this kind (`joined`, `left`, `renamed`, `status`) has a fitting
    /// entry. Presence is coalesced, so the event is not used up: it may bring other news as well.
    pub async fn sees(
        &self,
        within: Duration,
        room: &str,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> ReceivedItem<Value> {
        let is_meant = |event: &Value| presence(event, room, kind).any(&fits);
        let what = format!("`{kind}` in {room}");
        let found = self.transcript.peek(within, &what, is_meant).await;
        found.unwrap_or_else(|complaint| panic!("{}: {complaint}", self.name()))
    }

    /// How often a fitting entry was seen in the presence events of the room, so far.
    pub fn count_seen(&self, room: &str, kind: &str, fits: impl Fn(&Value) -> bool) -> usize {
        let events = self.transcript.all(|_| true);
        events.iter().map(|heard| presence(&heard.what, room, kind).filter(|entry| fits(entry)).count()).sum()
    }

    /// Waits for the next frame of this type, event or reply, and uses it up.
    pub async fn receives_frame(&self, kind: &str) -> Value {
        self.take(PATIENCE, kind, |value| value["type"] == kind).await.what
    }

    /// Waits for an event that fits, and uses it up.
    pub async fn expect_event(
        &self,
        within: Duration,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> ReceivedItem<Value> {
        self.take(within, what, |value| value.get("id").is_none() && fits(value)).await
    }

    /// Everything received so far that fits, in order, replies included.
    #[must_use]
    pub fn received(&self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.transcript.all(fits).into_iter().map(|heard| heard.what).collect()
    }

    /// Everything so far that no expectation has used, and that fits.
    #[must_use]
    pub fn unused(&self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.transcript.unused(fits)
    }

    /// Waits for the next thing that was not used yet and fits, whatever it is.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn next(&self, within: Duration, fits: impl Fn(&Value) -> bool) -> Result<Value, String> {
        self.transcript.take(within, "frame", fits).await.map(|heard| heard.what)
    }

    /// Uses up everything received so far.
    pub fn forget(&self) {
        self.transcript.forget();
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> TranscriptEnd {
        self.closed_within(PATIENCE).await
    }

    /// Waits for the end of the connection.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn closed_within(&self, within: Duration) -> TranscriptEnd {
        self.transcript.ending(within).await.unwrap_or_else(|complaint| panic!("{}: {complaint}", self.name()))
    }

    /// The end of the connection, if it has ended.
    #[must_use]
    pub fn has_ended(&self) -> Option<TranscriptEnd> {
        self.transcript.has_ended()
    }

    /// The nickname it goes by; `somebody` before it has one.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_now(&self, nick: &str) {
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

/// The entries of one list of a presence event of the room; none for any other event.
fn presence<'a>(event: &'a Value, room: &str, kind: &str) -> impl Iterator<Item = &'a Value> {
    let is_meant = event["type"] == "presence" && event["room"] == room;
    event[kind].as_array().filter(|_| is_meant).into_iter().flatten()
}

async fn read(mut stream: SplitStream<WsStream>, sink: WsSink, transcript: Arc<Transcript<Value>>) {
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
    // before any wait for a writer that is stuck: a client that was told goodbye hangs up.
    transcript.end(close.0, close.1);
    sink.lock().await.take();
}
