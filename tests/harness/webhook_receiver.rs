//! A receiver of webhooks: checks signatures, keeps what it got, and fails as a test wants.
//!
//! It answers each connection once. Written against docs/WEBHOOKS.md only.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::eventually::eventually;

/// The largest accepted request.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The maximum age of a signature.
const SIGNATURE_AGE_MAX: Duration = Duration::from_secs(300);

/// The behaviour of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverMode {
    /// Keeps the events and answers 200.
    Accept,
    /// Answers this status, with an address in `Location`.
    Refuse(u16, String),
    /// Never answers.
    Hang,
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedEvent {
    /// The event.
    pub event: Value,
    /// Unix milliseconds of its arrival.
    pub arrived: u64,
    /// The number of its delivery.
    pub delivery: usize,
}

#[derive(Debug)]
struct ReceiverState {
    mode: ReceiverMode,
    events: Vec<ReceivedEvent>,
    /// Requests of any outcome.
    requests: usize,
    faults: Vec<String>,
}

/// A running receiver. Dropping it closes its port.
#[derive(Debug)]
pub struct WebhookReceiver {
    address: SocketAddr,
    secret: String,
    state: Arc<Mutex<ReceiverState>>,
    server: JoinHandle<()>,
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl WebhookReceiver {
    /// Starts a receiver that accepts deliveries signed with this secret.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = ReceiverState { mode: ReceiverMode::Accept, events: Vec::new(), requests: 0, faults: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (shared, key) = (Arc::clone(&state), secret.to_owned());
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (state, key) = (Arc::clone(&shared), key.clone());
                tokio::spawn(async move { serve(socket, &state, &key).await });
            }
        });
        Self { address, secret: secret.to_owned(), state, server }
    }

    /// Returns the address for the setting `webhooks`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Returns the secret.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Changes the behaviour.
    pub fn set_mode(&self, mode: ReceiverMode) {
        self.lock().mode = mode;
    }

    /// Returns the number of requests of any outcome.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    /// Returns the accepted events, repetitions included.
    ///
    /// # Panics
    /// If a delivery was malformed or had no valid signature.
    #[must_use]
    pub fn events(&self) -> Vec<ReceivedEvent> {
        let state = self.lock();
        assert_eq!(state.faults, Vec::<String>::new(), "every delivery is signed and well-formed");
        state.events.clone()
    }

    /// Removes the accepted events, and returns them.
    ///
    /// # Panics
    /// If a delivery was malformed or had no valid signature.
    #[must_use]
    pub fn take_events(&self) -> Vec<ReceivedEvent> {
        let events = self.events();
        self.lock().events.drain(..events.len()).for_each(drop);
        events
    }

    /// Waits until the accepted events meet a condition, and returns them.
    ///
    /// # Panics
    /// If they do not in time.
    pub async fn until(
        &self,
        within: Duration,
        what: &str,
        condition: impl Fn(&[ReceivedEvent]) -> bool,
    ) -> Vec<ReceivedEvent> {
        eventually(within, what, || async {
            let events = self.events();
            if condition(&events) { Ok(events) } else { Err(events) }
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReceiverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one request and answers it.
async fn serve(mut socket: TcpStream, state: &Mutex<ReceiverState>, secret: &str) {
    let Ok((head, body)) = read_request(&mut socket).await else { return };
    let (answer, is_hanging) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests += 1;
        let answer = match state.mode.clone() {
            ReceiverMode::Accept => accept(&mut state, &head, &body, secret),
            ReceiverMode::Refuse(status, location) => format!("{status} No\r\nLocation: {location}"),
            ReceiverMode::Hang => String::new(),
        };
        let is_hanging = answer.is_empty();
        (answer, is_hanging)
    };
    if is_hanging {
        let _ = socket.read(&mut [0]).await;
        return;
    }
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = socket.write_all(answer.as_bytes()).await;
}

fn accept(state: &mut ReceiverState, head: &str, body: &[u8], secret: &str) -> String {
    let delivery = state.requests;
    match verified(head, body, secret) {
        Ok(events) => {
            let arrived = unix_ms();
            state.events.extend(events.into_iter().map(|event| ReceivedEvent { event, arrived, delivery }));
            "200 OK".to_owned()
        }
        Err(fault) => {
            state.faults.push(fault);
            "401 Unauthorized".to_owned()
        }
    }
}

/// Returns the events of a delivery with a valid signature.
fn verified(head: &str, body: &[u8], secret: &str) -> Result<Vec<Value>, String> {
    let body = signed_json(head, body, secret)?;
    body["sent"].as_u64().ok_or("no time of sending")?;
    Ok(body["events"].as_array().ok_or("no events")?.clone())
}

/// Returns the JSON of a call with a valid signature.
pub(crate) fn signed_json(head: &str, body: &[u8], secret: &str) -> Result<Value, String> {
    let header = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(field, value)| field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
    };
    let signature = header("parley-signature").ok_or("no signature")?;
    let mut parts = signature.split(',').filter_map(|part| part.split_once('='));
    let seconds: u64 =
        parts.next().filter(|(name, _)| *name == "t").and_then(|(_, t)| t.parse().ok()).ok_or("no time")?;
    if (unix_ms() / 1000).abs_diff(seconds) > SIGNATURE_AGE_MAX.as_secs() {
        return Err(format!("signature of {seconds}"));
    }
    let signed = [format!("{seconds}.").as_bytes(), body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &signed);
    let expected: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if !parts.any(|(name, given)| name == "v1" && given == expected) {
        return Err(format!("wrong signature {signature}"));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Reads the head and the body of a request.
pub(crate) async fn read_request(socket: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            let length: usize = length.unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Ok((head, bytes[end + 4..end + 4 + length].to_vec()));
            }
        }
        let read = socket.read(&mut chunk).await?;
        if read == 0 || bytes.len() > REQUEST_BYTES_MAX {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
