//! The client with packed messages: over a WebSocket with a subprotocol, or over TCP frames.
//!
//! It speaks named JSON objects; `crate::packed` turns them into messages, apart from the gateway's own code. It
//! answers heartbeats. A `closing` frame is the close code of its transcript.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use super::RESPONSE_TIMEOUT;
use super::transcript::Transcript;
use super::ws::{ClientSink, SharedSink, WsClient, WsStream};
use crate::packed::{self, PackedWire};

/// The first bytes of a frame.
const MAGIC: [u8; 4] = [0xCA, 0xFE, 0xBA, 0xBE];
/// Magic, version and length of a frame.
const PREFIX_BYTES: usize = 9;

impl WsClient {
    /// Connects to `/ws` at this address with the subprotocol of a format.
    ///
    /// # Panics
    /// If the connection is refused, or the gateway selects another subprotocol.
    pub async fn connect_packed(address: SocketAddr, wire: PackedWire) -> Self {
        let mut request = format!("ws://{address}/ws").into_client_request().expect("a URL");
        let name = match wire {
            PackedWire::Json => panic!("JSON has text frames"),
            PackedWire::MessagePack => "parley.v1.msgpack",
            PackedWire::Protobuf => "parley.v1.protobuf",
        };
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        let connecting = async {
            let stream = super::connect_from(Ipv4Addr::LOCALHOST, address).await.expect("a connection");
            client_async(request, stream).await.unwrap_or_else(|error| panic!("no WebSocket at {address}: {error}"))
        };
        let (socket, response) = timeout(RESPONSE_TIMEOUT, connecting).await.expect("an answer in time");
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], name);
        let (sink, stream) = socket.split();
        Self::over(ClientSink::Binary(wire, sink), |sink, transcript| read_messages(wire, stream, sink, transcript))
    }

    /// Connects to the TCP port at this address for frames of a format.
    ///
    /// # Panics
    /// If the connection is refused.
    pub async fn connect_frames(address: SocketAddr, wire: PackedWire) -> Self {
        let connecting = super::connect_from(Ipv4Addr::LOCALHOST, address);
        let stream = timeout(RESPONSE_TIMEOUT, connecting).await.expect("an answer in time").expect("a connection");
        let (input, sink) = stream.into_split();
        Self::over(ClientSink::Frames(wire, sink), |sink, transcript| read_frames(wire, input, sink, transcript))
    }
}

async fn read_messages(
    wire: PackedWire,
    mut stream: SplitStream<WsStream>,
    sink: SharedSink,
    transcript: Arc<Transcript<Value>>,
) {
    let mut close = (None, "the connection broke".to_owned());
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(message) => transcript.push(shown(wire, &message)),
            Message::Text(text) => transcript.push(json!({"not binary": text.as_str()})),
            Message::Close(frame) => {
                close = frame.map_or((None, String::new()), |f| (Some(f.code.into()), f.reason.to_string()));
            }
            _ => {}
        }
    }
    transcript.end(close.0, close.1);
    sink.lock().await.take();
}

async fn read_frames(wire: PackedWire, mut input: OwnedReadHalf, sink: SharedSink, transcript: Arc<Transcript<Value>>) {
    let mut close = (None, "the connection broke".to_owned());
    let mut is_greeted = false;
    let mut received = Vec::new();
    while let Ok(1..) = input.read_buf(&mut received).await {
        if !is_greeted {
            let Some(begin) = received.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) else { continue };
            received.drain(..begin);
            is_greeted = true;
        }
        while let Some((version, message)) = take_frame(&mut received) {
            // A frame that was refused at its first byte is answered in JSON.
            let value = shown(PackedWire::of_version(version).unwrap_or(wire), &message);
            match value["type"].as_str() {
                Some("heartbeat") => {
                    if let Some(ClientSink::Frames(wire, sink)) = sink.lock().await.as_mut() {
                        let _ = sink.write_all(&packed::frame(*wire, &message)).await;
                    }
                    transcript.push(value);
                }
                Some("closing") => {
                    let code = value["close_code"].as_u64().and_then(|code| u16::try_from(code).ok());
                    close = (code, value["code"].as_str().unwrap_or_default().to_owned());
                }
                _ => transcript.push(value),
            }
        }
    }
    transcript.end(close.0, close.1);
    sink.lock().await.take();
}

/// Decodes a message, with `compressed` in addition if its payload was.
fn shown(wire: PackedWire, message: &[u8]) -> Value {
    let mut value = packed::decode(wire, message);
    if message.first().is_some_and(|byte| byte & 0x80 != 0) {
        value["compressed"] = json!(true);
    }
    value
}

/// Returns the version and the packed message of the first frame, once it is whole.
fn take_frame(received: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let prefix = received.get(..PREFIX_BYTES)?;
    assert_eq!(prefix[..MAGIC.len()], MAGIC, "a frame begins with its magic");
    let version = prefix[MAGIC.len()];
    let payload_bytes = u32::from_be_bytes(*prefix.last_chunk().expect("four bytes")) as usize;
    let end = PREFIX_BYTES + 2 + payload_bytes;
    let message = received.get(PREFIX_BYTES..end)?.to_vec();
    received.drain(..end);
    Some((version, message))
}
