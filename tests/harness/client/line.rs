//! A client of the line port: writes lines and waits for lines.
//!
//! A task reads all the time; expectations search its transcript. Invariant: dropping the client closes the connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::RESPONSE_TIMEOUT;
use super::transcript::{ReceivedItem, Transcript, TranscriptEnd};
use crate::pattern::text_fits;

/// Write half of the connection; `None` after the server has closed it.
type LineWriter = Arc<tokio::sync::Mutex<Option<OwnedWriteHalf>>>;

/// A connected line client. Dropping it closes the connection.
#[derive(Debug)]
pub struct LineClient {
    writer: LineWriter,
    transcript: Arc<Transcript<String>>,
    reader: JoinHandle<()>,
}

impl Drop for LineClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl LineClient {
    /// Connects to this address.
    ///
    /// # Panics
    /// When the connection is not accepted.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST, address).await
    }

    /// Connects to this address from an address of the machine.
    ///
    /// # Panics
    /// When the connection is not accepted.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let connecting = super::connect_from(source, address);
        let stream = timeout(RESPONSE_TIMEOUT, connecting).await.expect("an answer in time");
        let stream = stream.unwrap_or_else(|error| panic!("no line port at {address}: {error}"));
        let (reader, writer) = stream.into_split();
        let transcript = Arc::new(Transcript::new());
        let writer = Arc::new(tokio::sync::Mutex::new(Some(writer)));
        let reader = tokio::spawn(read(reader, writer.clone(), transcript.clone()));
        Self { writer, transcript, reader }
    }

    /// Sends a line. A closed connection is reported by the expectations, not here.
    pub async fn types(&self, line: &str) {
        self.sends(format!("{line}\n").as_bytes()).await;
    }

    /// Sends bytes unchanged.
    pub async fn sends(&self, bytes: &[u8]) {
        if let Some(writer) = self.writer.lock().await.as_mut() {
            let _ = writer.write_all(bytes).await;
        }
    }

    /// Closes the sending half, as `nc -N` does at the end of its input. The connection still receives.
    pub async fn ends_input(&self) {
        if let Some(writer) = self.writer.lock().await.as_mut() {
            let _ = writer.shutdown().await;
        }
    }

    /// Registers a nickname and waits for the reply.
    pub async fn register(&self, nick: &str) {
        self.types(&format!("/nick {nick}")).await;
        self.reads(&format!("* you are now known as {nick}")).await;
    }

    /// Joins a room and waits for the reply.
    pub async fn join(&self, room: &str) {
        self.types(&format!("/join {room}")).await;
        self.reads(&format!("* you are in {room}, members: *")).await;
    }

    /// Waits for a message in a room.
    pub async fn receives(&self, room: &str, from: &str, text: &str) {
        self.reads(&format!("[{room}] <{from}> {text}")).await;
    }

    /// Waits for an unused line that fits the pattern, and marks it as used. `*` stands for any run of characters.
    pub async fn reads(&self, pattern: &str) -> ReceivedItem<String> {
        self.reads_within(RESPONSE_TIMEOUT, pattern).await
    }

    /// Waits for an unused line that fits the pattern, and marks it as used.
    ///
    /// # Panics
    /// If none arrives in time.
    pub async fn reads_within(&self, within: Duration, pattern: &str) -> ReceivedItem<String> {
        self.try_read(within, pattern).await.unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// Waits for an unused line that fits the pattern, and marks it as used.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn try_read(&self, within: Duration, pattern: &str) -> Result<ReceivedItem<String>, String> {
        self.transcript.take(within, &format!("line `{pattern}`"), |line| text_fits(pattern, line)).await
    }

    /// Waits for the next unused line.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn next(&self, within: Duration) -> Result<String, String> {
        self.next_that(within, |_| true).await
    }

    /// Waits for the next unused line that fits.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn next_that(&self, within: Duration, fits: impl Fn(&str) -> bool) -> Result<String, String> {
        self.transcript.take(within, "line", |line| fits(line)).await.map(|item| item.value)
    }

    /// Returns all received lines that fit the pattern, in order.
    #[must_use]
    pub fn received(&self, pattern: &str) -> Vec<String> {
        self.transcript.all(|line| text_fits(pattern, line)).into_iter().map(|item| item.value).collect()
    }

    /// Returns all unused lines that fit.
    #[must_use]
    pub fn unused(&self, fits: impl Fn(&str) -> bool) -> Vec<String> {
        self.transcript.unused(|line| fits(line))
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
        self.transcript.ending(within).await.unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// Returns the end of the connection, if it has ended.
    #[must_use]
    pub fn has_ended(&self) -> Option<TranscriptEnd> {
        self.transcript.has_ended()
    }
}

async fn read(stream: impl AsyncRead + Unpin, writer: LineWriter, transcript: Arc<Transcript<String>>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        transcript.push(text.trim_end_matches(['\r', '\n']).to_owned());
        line.clear();
    }
    transcript.end(None, "the connection ended".to_owned());
    writer.lock().await.take();
}
