//! A person with telnet: types lines, reads lines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;
use super::transcript::{ReceivedItem, Transcript, TranscriptEnd};
use crate::pattern::text_fits;

/// Gone once the server has hung up.
type LineWriter = Arc<tokio::sync::Mutex<Option<OwnedWriteHalf>>>;

/// One connected client. Dropping it cuts the connection.
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
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.expect("an answer in time");
        let stream = stream.unwrap_or_else(|error| panic!("no text door at {address}: {error}"));
        stream.set_nodelay(true).expect("a TCP socket");
        let (reader, writer) = stream.into_split();
        let transcript = Arc::new(Transcript::new());
        let writer = Arc::new(tokio::sync::Mutex::new(Some(writer)));
        let reader = tokio::spawn(read(reader, writer.clone(), transcript.clone()));
        Self { writer, transcript, reader }
    }

    /// Types a line. A connection that is gone is left to the expectations.
    pub async fn types(&self, line: &str) {
        self.sends(format!("{line}\n").as_bytes()).await;
    }

    /// Sends bytes as they are.
    pub async fn sends(&self, bytes: &[u8]) {
        if let Some(writer) = self.writer.lock().await.as_mut() {
            let _ = writer.write_all(bytes).await;
        }
    }

    /// Takes a nickname and waits for it.
    pub async fn register(&self, nick: &str) {
        self.types(&format!("/nick {nick}")).await;
        self.reads(&format!("* you are now known as {nick}")).await;
    }

    /// Enters a room and waits for it.
    pub async fn join(&self, room: &str) {
        self.types(&format!("/join {room}")).await;
        self.reads(&format!("* you are in {room}, members: *")).await;
    }

    /// Receives a message in a room.
    pub async fn receives(&self, room: &str, from: &str, text: &str) {
        self.reads(&format!("[{room}] <{from}> {text}")).await;
    }

    /// Waits for a line that fits the pattern, where `*` is any run of characters, and uses it up.
    pub async fn reads(&self, pattern: &str) -> ReceivedItem<String> {
        self.reads_within(PATIENCE, pattern).await
    }

    /// Waits for a line that fits the pattern, and uses it up.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn reads_within(&self, within: Duration, pattern: &str) -> ReceivedItem<String> {
        self.try_read(within, pattern).await.unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// Waits for a line that fits the pattern, and uses it up.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn try_read(&self, within: Duration, pattern: &str) -> Result<ReceivedItem<String>, String> {
        self.transcript.take(within, &format!("line `{pattern}`"), |line| text_fits(pattern, line)).await
    }

    /// Waits for the next line that was not used yet, whatever it is.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn next(&self, within: Duration) -> Result<String, String> {
        self.next_that(within, |_| true).await
    }

    /// Waits for the next line that was not used yet and fits.
    ///
    /// # Errors
    /// A description of the items received instead.
    pub async fn next_that(&self, within: Duration, fits: impl Fn(&str) -> bool) -> Result<String, String> {
        self.transcript.take(within, "line", |line| fits(line)).await.map(|heard| heard.what)
    }

    /// Every line so far that fits the pattern, in order.
    #[must_use]
    pub fn received(&self, pattern: &str) -> Vec<String> {
        self.transcript.all(|line| text_fits(pattern, line)).into_iter().map(|heard| heard.what).collect()
    }

    /// Every line so far that no expectation has used, and that fits.
    #[must_use]
    pub fn unused(&self, fits: impl Fn(&str) -> bool) -> Vec<String> {
        self.transcript.unused(|line| fits(line))
    }

    /// Uses up every line so far.
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
        self.transcript.ending(within).await.unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// The end of the connection, if it has ended.
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
