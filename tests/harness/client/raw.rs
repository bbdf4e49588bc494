//! A raw WebSocket: after a real handshake it sends any bytes.
//!
//! Tests of invalid input use it, because a client library refuses to send invalid frames.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::RESPONSE_TIMEOUT;

/// A whole unmasked frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// The opcode: 1 text, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

/// An upgraded connection without a protocol.
#[derive(Debug)]
pub struct RawWs {
    stream: TcpStream,
}

impl RawWs {
    /// Connects and upgrades to WebSocket.
    ///
    /// # Panics
    /// If the server does not upgrade.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the connection is open");
        stream.set_nodelay(true).expect("a TCP socket");
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the connection is open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(
                timeout(RESPONSE_TIMEOUT, stream.read_u8()).await.expect("an answer in time").expect("an answer"),
            );
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "not upgraded: {head}");
        Self { stream }
    }

    /// Sends bytes unchanged. A closed connection is reported by the reading functions.
    pub async fn sends(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a frame masked with zeros, so the payload is unchanged.
    pub async fn sends_frame(&mut self, first_byte: u8, payload: &[u8]) {
        self.sends(&frame(first_byte, payload)).await;
    }

    /// Returns the next frame, or `None` at the end of the connection.
    ///
    /// # Panics
    /// If neither arrives in time.
    pub async fn next(&mut self) -> Option<RawFrame> {
        timeout(RESPONSE_TIMEOUT, self.read()).await.expect("a frame or the end in time")
    }

    /// Returns the next frame, or `None` at the end of the connection. The caller limits the time.
    pub async fn next_in_time(&mut self) -> Option<RawFrame> {
        self.read().await
    }

    /// Reads until the close frame and returns its code; `None` if the connection ended without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        while let Some(frame) = self.next().await {
            if frame.opcode == 8 {
                return Some(u16::from_be_bytes([*frame.payload.first()?, *frame.payload.get(1)?]));
            }
        }
        None
    }

    async fn read(&mut self) -> Option<RawFrame> {
        let head = [self.stream.read_u8().await.ok()?, self.stream.read_u8().await.ok()?];
        let length = match head[1] {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(RawFrame { opcode: head[0] & 0x0F, payload })
    }
}

/// Returns a client frame with this first byte (FIN, reserved bits, opcode), masked with zeros.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).expect("at most 125")),
        length @ 126..=65535 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).expect("at most 65535").to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend(u64::try_from(length).expect("a length fits").to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}
